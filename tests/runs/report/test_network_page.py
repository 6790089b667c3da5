"""The network on a page: tiles by hand, filters and maps of a net whose numbers are known."""

import base64
import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from jaxcnn.core.program import State, make_program
from jaxcnn.errors import ConfigError
from jaxcnn.inspect.summary import Layer
from jaxcnn.runs.report import network, page, pictures
from jaxcnn.runs.report.pictures import Pictures, tiles
from tests.runs.report.by_hand import rows, tree, words
from tests.tiny import tiny


def pixels(element):
    """What an element of a page shows, and how it is kept."""
    head, _, content = element.get("src").partition(",")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), head


# ---- pictures --------------------------------------------------------------------------------


def test_tiles_stand_in_rows_two_pixels_apart_and_are_enlarged():
    """Three maps of 2 x 3: at least 5 pixels along the longer side are two pixels each."""
    maps = np.stack([np.array([[0, 1, 2], [3, 4, 5]]) + 10 * i for i in range(3)])
    sheet = np.asarray(tiles(maps, columns=2, least=5))
    assert sheet.shape == (4 + 2 + 4, 6 + 2 + 6)
    one = np.repeat(np.repeat(np.array([[0, 51, 102], [153, 204, 255]]), 2, 0), 2, 1)
    for y, x in ((0, 0), (0, 8), (6, 0)):
        np.testing.assert_array_equal(sheet[y : y + 4, x : x + 6], one)
    assert (sheet[4:6] == 128).all()
    assert (sheet[:, 6:8] == 128).all()
    assert (sheet[6:, 8:] == 128).all()


def test_tiles_of_colours_are_stretched_by_one_range():
    maps = np.zeros((1, 1, 2, 3))
    maps[0, 0] = [[-1, 0, 1], [3, 3, 3]]
    sheet = np.asarray(tiles(maps, least=6))
    assert sheet.shape == (3, 6, 3)
    assert sheet[0, [0, 3]].tolist() == [[0, 63, 127], [255, 255, 255]]


def test_by_default_eight_tiles_stand_in_a_row_of_32_pixels_each():
    assert tiles(np.zeros((9, 32, 1))).size == (8 * 3 - 2, 2 * 34 - 2)
    assert tiles(np.zeros((1, 31, 1))).size == (2, 62)
    assert tiles(np.zeros((9, 4, 4))).size == (8 * 34 - 2, 2 * 34 - 2)
    assert tiles(np.zeros((1, 5, 7))).size == (35, 25)
    assert np.unique(np.asarray(tiles(np.full((1, 2, 2), 7.0)))).tolist() == [128]
    nearly = 7.0 + np.array([[[0, 1e-9]]])
    assert np.unique(np.asarray(tiles(nearly))).tolist() == [0, 255]


def test_a_picture_is_kept_with_its_words_and_size():
    bits = Image.fromarray(np.eye(4, 6, dtype=np.uint8) * 255)
    for mode, kept in (("L", "L"), ("1", "L"), ("P", "RGB"), ("RGBA", "RGB")):
        element = tree(Pictures().add(bits.convert(mode), "words"))[0]
        content, head = pixels(element)
        assert head == "data:image/png;base64"
        assert content.shape == ((4, 6) if kept == "L" else (4, 6, 3)), mode
        assert [element.get(name) for name in ("alt", "width", "height")] == ["words", "6", "4"]
        np.testing.assert_array_equal(content.reshape(4, 6, -1)[..., 0], np.asarray(bits))


@pytest.mark.parametrize(
    "size, kept", [((384, 10), (384, 10)), ((385, 77), (384, 77)), ((96, 768), (48, 384))]
)
def test_a_large_picture_is_reduced(size, kept):
    element = tree(Pictures().add(Image.new("L", size), ""))[0]
    assert (element.get("width"), element.get("height")) == tuple(map(str, kept))


@pytest.mark.parametrize(
    "noise, size, form",
    [
        (10, 200, "jpeg"),  # 0.4 of a PNG of 29 kB
        (60, 200, "png"),  # 0.6 of one of 40 kB
        (1, 200, "png"),  # a tenth, of one of 15 kB
    ],
)
def test_a_jpeg_is_taken_where_it_is_less_than_half_of_a_long_png(noise, size, form):
    random, ramp = np.random.default_rng(0), np.arange(float(size))
    smooth = np.add.outer(ramp, ramp) / 2 + noise * random.normal(size=(size, size))
    image, album = smooth.clip(0, 255).astype(np.uint8), Pictures()
    element = tree(album.add(Image.fromarray(image), ""))[0]
    content, head = pixels(element)
    assert head == f"data:image/{form};base64"
    assert np.abs(content.astype(float) - image).max() < (40 if form == "jpeg" else 1)
    assert album.room == pictures.MOST_BYTES - len(element.get("src"))


def test_a_picture_that_fills_the_room_is_taken():
    picture = Image.new("L", (3, 3))
    length = len(tree(Pictures().add(picture, ""))[0].get("src"))
    assert Pictures(most=length).add(picture, "") is not None
    album = Pictures(most=2 * length - 1)
    assert [album.add(picture, "") is None for _ in range(3)] == [False, True, True]
    assert album.refused == 2
    assert Pictures().room == 3_000_000 < page.MOST_BYTES, "the rest of the page needs some"


# ---- layers ----------------------------------------------------------------------------------


def layer(name="conv", **fields):
    own = {"kind": "Conv", "shape": (4, 4, 8), "params": 1234, "macs": 5678}
    return Layer(name, **own | {"receptive_field": (3, 3), "stride": (1, 1)} | fields)


def test_the_table_of_layers_ends_with_their_sums():
    layers = [layer(), layer("dense", shape=(10,), receptive_field=(), stride=())]
    main = tree(network.layer_table(layers))
    assert rows(main)[1:] == [
        ["conv", "Conv", "4×4×8", "1,234", "5,678", "3×3", "1×1"],
        ["dense", "Conv", "10", "1,234", "5,678", "–", "–"],
        ["total", "", "", "2,468", "11,356", "", ""],
    ]
    assert main.find("p") is None
    kinds = [cell.get("class") for cell in next(main.iter("tr"))]
    assert kinds == [None] * 3 + ["number"] * 4


@pytest.mark.parametrize(
    "count, said", [(400, None), (402, "2 more layers are counted, not shown")]
)
def test_of_many_layers_the_first_are_shown(count, said):
    main = tree(network.layer_table([layer(str(i), params=1) for i in range(count)]))
    names = [row[0] for row in rows(main)]
    assert names[1:] == [*map(str, range(400)), "total"]
    assert rows(main)[-1][3] == str(count)
    found = main.find("p")
    assert (None if found is None else words(found)) == said


# ---- filters ---------------------------------------------------------------------------------


def state_of(**kernels):
    params = {name: {"kernel": kernel} for name, kernel in kernels.items()}
    fresh = make_program(tiny(), steps=1).init(jax.random.key(0))
    return fresh.replace(params=params, ema=None, ema_state=None, model_state={})


def filters(*names, **kernels):
    main = tree(network.filters([layer(n) for n in names], state_of(**kernels), Pictures()))
    return words(main.find("figure/figcaption")), main.find("figure/img"), main


def test_the_filters_of_the_first_convolution():
    """Of two inputs the first is shown; a layer before it has other weights, or none."""
    kernel = np.arange(2 * 3 * 2 * 5, dtype=np.float32).reshape(2, 3, 2, 5)
    given = {"dense": np.ones((4, 4)), "conv": kernel, "late": np.ones((3, 3, 1, 1))}
    said, image, main = filters("pool/deep", "dense", "conv", "late", **given)
    assert said == image.get("alt") == "conv: 5 kernels of 2×3, of 2 input channels the first"
    wanted = tiles(np.stack([kernel[:, :, 0, i] for i in range(5)]))
    np.testing.assert_array_equal(pixels(image)[0], np.asarray(wanted))
    assert main[0].get("class") == "maps"
    assert main.find("figure/p") is None


def test_filters_of_colours_and_of_one_input_are_shown_whole():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 3, 70)).astype(np.float32)
    said, image, _ = filters("conv", conv=kernel)
    assert said == "conv: 70 kernels of 3×3, the first 64"
    wanted = np.asarray(tiles(np.moveaxis(kernel, -1, 0)[:64]))
    np.testing.assert_array_equal(pixels(image)[0], wanted)
    assert filters("conv", conv=kernel[:, :, :1, :64])[0] == "conv: 64 kernels of 3×3"
    assert filters("conv", conv=np.ones((1, 2, 1, 1)))[0] == "conv: 1 kernels of 1×2"


def test_what_has_no_filters_to_be_seen_is_refused():
    with pytest.raises(ConfigError, match="no two-dimensional convolution"):
        filters("dense", dense=np.ones((4, 4)))
    with pytest.raises(ConfigError, match="first convolution, conv, are 1×1"):
        filters("conv", "late", conv=np.ones((1, 1, 3, 2)), late=np.ones((3, 3, 1, 1)))
    with pytest.raises(ConfigError, match="a program of its own"):
        network.filters([layer()], {"params": {}}, Pictures())


def test_without_room_the_words_are_left():
    figure = tree(
        network.filters([layer()], state_of(conv=np.ones((3, 3, 1, 1))), Pictures(most=9))
    )
    assert words(figure.find("figure/p")) == "no room on this page"


# ---- maps ------------------------------------------------------------------------------------


class Steps(nn.Module):
    """Adds a number to an image, `depth` times, in `channels`; then something without maps."""

    depth: int
    channels: int = 20

    @nn.compact
    def __call__(self, image, *, train: bool):
        for i in range(self.depth):
            image = Plus(self.channels, name=f"plus{i}")(image)
        flat = Plus(3, name="flat")(image[:, :1, :1])
        return flat[:, 0, 0]


class Plus(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x):
        amount = self.param("amount", nn.initializers.ones, ())
        return jnp.repeat(x[..., :1], self.channels, -1) + amount


def maps_of(model, names, album=None):
    e = dataclasses.replace(tiny(ema=None), model=model)
    example = {"image": np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)}
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)["params"]
    state = state_of().replace(params=params)
    assert isinstance(state, State)
    layers = [layer(name) for name in names]
    return tree(network.feature_maps(e, layers, state, example, album or Pictures()))


def test_feature_maps_are_those_of_four_layers_at_even_distances():
    names = [f"plus{i}" for i in range(7)]
    main = maps_of(Steps(7), [*names, "plus6", "flat", "gone/deeper"])
    assert main[0].get("class") == "charts"
    captions = [words(one) for one in main.iter("figcaption")]
    shown = "channels of 8×8, the first 16"
    assert captions == [f"plus{i}: 20 {shown}" for i in (0, 2, 4, 6)]
    assert [image.get("alt") for image in main.iter("img")] == captions


def test_a_feature_map_is_stretched_and_enlarged_to_48_pixels():
    main = maps_of(Steps(1, 2), ["plus0"])
    assert words(main.find(".//figcaption")) == "plus0: 2 channels of 8×8"
    found, _ = pixels(next(main.iter("img")))
    ramp = 255 * np.arange(64).reshape(8, 8) / 63  # as the image is
    for x in (0, 50):
        assert found[:, x : x + 48].shape == (48, 48)
        np.testing.assert_allclose(found[::6, x : x + 48 : 6], ramp, atol=1)


def test_a_network_without_maps_is_refused():
    with pytest.raises(ConfigError, match="no layer of the network gives maps"):
        maps_of(Steps(0), ["flat"])


def test_the_layers_are_those_of_the_model_for_its_data():
    e = tiny()
    names = [one.name for one in network.layers_of(e)]
    assert names[0] == "Conv_0"
    assert names[-1] == "Dense_0"
    assert network.layers_of(e)[0].shape == (8, 8, 4)
