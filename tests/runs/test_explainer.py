"""Explanations of a network whose answers are known by hand: a class's score is the mean of the
picture times a number of the class.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import make_program
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.runs.explain import Explainer
from jaxcnn.runs.question import Question
from jaxcnn.tasks.classification import Classification

NAMES = ("low", "middle", "high")
OF_CLASS = np.array([1.0, -1.0, 2.0])
SIZE = (4, 6)


class Known(nn.Module):
    """Channel k of its only layer is (k + 1) times the picture's mean over colours."""

    width: int = 20
    doubled: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        if self.doubled:
            image = jnp.concatenate([image, image], axis=-1)
        maps = nn.Conv(self.width, (1, 1), use_bias=False)(image)
        return nn.Dense(3, use_bias=False)(maps.mean((1, 2)))


def explainer(question, *, channels=1, width=20, doubled=False, scale=1.0, **options):
    rows = {"image": np.zeros((4, *SIZE, channels), np.uint8), "label": np.arange(4) % 3}
    rows["label"] = rows["label"].astype(np.int32)
    e = Experiment(
        model=Known(width, doubled),
        task=Classification(num_classes=3),
        data=Arrays(train=rows, eval=rows, label_names=NAMES),
        optimizer=partial(optax.sgd, learning_rate=0.1),
    )
    inputs = channels * (2 if doubled else 1)
    kernel = np.tile((np.arange(width) + 1.0) / inputs, (1, 1, inputs, 1))
    dense = np.zeros((width, 3))
    dense[2] = OF_CLASS / 3  # read from the third channel alone
    params = {"Conv_0": {"kernel": kernel}, "Dense_0": {"kernel": dense}}
    state = make_program(e, steps=1).init(jax.random.key(0))
    new = {k: {n: jnp.asarray(scale * x, jnp.float32) for n, x in v.items()}
           for k, v in params.items()}  # fmt: skip
    return Explainer(e, state.replace(params=new), question, **options)


def pictures(count, *, channels=1):
    return np.random.default_rng(0).integers(1, 256, (count, *SIZE, channels)).astype(np.uint8)


def by_hand(images, label):
    """Of the integrated gradient, which of what is linear is exact."""
    return OF_CLASS[label] * (images / 255).mean(-1) / np.prod(SIZE)


def test_maps_are_those_of_each_picture_in_whatever_batches():
    images = pictures(5, channels=3)
    for target, label in ((None, 2), ("low", 0)):
        one = explainer(Question("integrated", target), channels=3, batch_size=2)
        np.testing.assert_allclose(one.arrays(images), by_hand(images, label), atol=1e-6)
        assert one.size == SIZE
    floats = (images / 255).astype(np.float64)
    found = one.arrays(floats)
    np.testing.assert_allclose(found, by_hand(images, 0), atol=1e-6)
    assert found.dtype == np.float32
    nothing = one.arrays(images[:0])
    assert (nothing.shape, nothing.dtype) == ((0, *SIZE), np.float32)


def test_pictures_that_do_not_fit_are_refused_and_zeros_and_ones_do():
    one = explainer(Question("integrated"), batch_size=2)
    ends = np.stack([np.zeros((*SIZE, 1)), np.ones((*SIZE, 1))])
    np.testing.assert_allclose(one.arrays(ends), by_hand(255 * ends, 2), atol=1e-6)
    with pytest.raises(DataError, match=r"shape \[2, 6, 4, 1\]; this run was .* on \[N, 4, 6, "):
        one.arrays(ends.reshape(2, 6, 4, 1))
    for wrong in (1.5 * ends, ends - 0.5, ends * np.nan):
        with pytest.raises(DataError, match=r"floats lie in \[0, 1\]"):
            one.arrays(wrong)
    with pytest.raises(ConfigError, match="features gives no map of a picture; take gradcam"):
        explainer(Question("features")).arrays(ends)


def test_answers_say_the_class_its_score_and_where_most_of_it_is():
    images = pictures(3)
    images[0, 2, 4], images[:, 3, 5] = 255, 254
    one = explainer(Question("integrated"), batch_size=4)
    drawn_on = [np.full((8, 16, 1), 10 * i, np.uint8) for i in range(3)]
    rows = one.answers(images, [lambda p=p: p for p in drawn_on], [0, None, 1])
    for i, ((row, draw), label) in enumerate(zip(rows, (0, 2, 1), strict=True)):
        values = by_hand(images, label)[i]
        score = OF_CLASS[label] * images[i].mean() / 255
        assert (row["method"], row["label"], row["name"]) == ("integrated", label, NAMES[label])
        assert row["score"] == pytest.approx(score, abs=1e-5)
        assert row["least"] == pytest.approx(values.min(), abs=1e-6)
        assert row["most"] == pytest.approx(values.max(), abs=1e-6)
        assert row["text"] == f"integrated of {NAMES[label]} (score {row['score']:.4g})"
        assert "layer" not in row
        assert draw().size[0] == 2 * draw().size[1]  # as what it is drawn on
    assert rows[0][0]["peak"] == [2.5 / 4, 4.5 / 6]
    assert rows[1][0]["peak"] == [3.5 / 4, 5.5 / 6]
    ((row, _),) = one.answers(np.zeros((1, *SIZE, 1), np.uint8), [np.zeros], [None])
    assert row["text"].endswith("(score 0): 0 everywhere, nothing here speaks for it")
    lost = explainer(Question("integrated"), batch_size=4, scale=np.nan)
    ((row, _),) = lost.answers(images[:1], [None], [0])
    assert row == {"error": "the picture: its map is not finite; did the run diverge?"}


def test_a_map_of_a_layer_names_it():
    one = explainer(Question("gradcam"), batch_size=1)
    ((row, _),) = one.answers(pictures(1), [np.zeros], [None])
    assert row["layer"] == "Conv_0"
    assert row["text"].endswith("), layer Conv_0")


@pytest.fixture
def files(tmp_path):
    """Makes pictures of one brightness each, with a brighter spot; None: one that is no picture."""

    def make(*values, channels=1):
        paths = []
        for i, value in enumerate(values):
            picture = np.full((*SIZE, channels), value or 0, np.uint8)
            picture[1, i % 6] += 5
            paths.append(tmp_path / f"{i:02}.png")
            Image.fromarray(picture[..., 0] if channels == 1 else picture).save(paths[-1])
            if value is None:
                paths[-1].write_bytes(b"no picture")
        return paths

    return make


def test_files_are_answered_in_their_order_and_drawn_in_their_size(files):
    paths = files(40, None, 60, 80, None, channels=3)
    Image.open(paths[2]).resize((24, 12)).save(paths[2])
    one = explainer(Question("integrated", "low"), channels=3, batch_size=2)
    found = list(one.files(paths))
    assert [row["path"] for row, _ in found] == list(map(str, paths))
    assert ["error" in row for row, _ in found] == [False, True, False, False, True]
    for i, value in ((0, 40), (2, 60), (3, 80)):
        row, draw = found[i]
        assert row["score"] == pytest.approx((value + 5 / 24) / 255, abs=1e-3)
        assert draw().size[0] / draw().size[1] == (2 if i == 2 else 1.5)
    assert "01.png" in found[1][0]["error"]


@pytest.mark.parametrize(
    "asked, channels, left_out, text",
    [
        ((), list(range(16)), 4, "16 maps 4x6 of layer Conv_0 (4 more by --channel)"),
        ((7, 3), [7, 3], 0, "2 maps 4x6 of layer Conv_0"),
    ],
)
def test_features_are_the_channels_of_a_layer(files, asked, channels, left_out, text):
    one = explainer(Question("features", channels=asked), batch_size=2)
    (row, draw), (fault, _) = one.files(files(50, None))
    wanted = {"method": "features", "layer": "Conv_0", "channels": channels, "shape": [4, 6]}
    assert {**wanted, "left_out": left_out, "text": text}.items() <= row.items()
    assert draw().size[0] > 96
    assert "error" in fault
    maps = one._features(one._network, jnp.full((1, *SIZE, 1), 0.5))
    np.testing.assert_allclose(maps[0, 0, 0], [0.5 * (k + 1) for k in channels], rtol=1e-5)
    few = explainer(Question("features"), width=16)
    assert (few.channels, few.left_out) == (tuple(range(16)), 0)
    with pytest.raises(ConfigError, match="channels 0 to 19"):
        explainer(Question("features", channels=(20,)))


@pytest.mark.parametrize("doubled", [False, True])
def test_filters_are_the_first_kernel(doubled):
    ((row, draw),) = explainer(Question("filters"), width=5, doubled=doubled).files([])
    inputs = 2 if doubled else 1
    assert row == {
        **{"method": "filters", "layer": "Conv_0", "shape": [1, 1, inputs, 5]},
        "text": "5 filters 1x1 of Conv_0" + (", the mean over 2 inputs" if doubled else ""),
    }
    assert draw().size[0] > 0


def test_patches_are_the_eight_strongest_places_of_each_channel(files):
    values = (10, 90, 30, None, 70, 50, 20, 80, 40, 60, 0)
    one = explainer(Question("patches", channels=(4, 1)), batch_size=3)
    paths = files(*values)
    fault, (row, draw) = one.files(paths)
    assert "03.png" in fault[0]["error"]
    order = sorted((i for i, v in enumerate(values) if v is not None), key=lambda i: -values[i])[:8]
    assert row["text"] == (
        "the 8 best patches of 10 pictures for 2 channels of layer Conv_0, a row each"
    )
    assert (row["method"], row["channels"], row["left_out"]) == ("patches", [4, 1], 0)
    assert len(row["patches"]) == 16
    for found, (channel, i) in zip(
        row["patches"], [(c, i) for c in (4, 1) for i in order], strict=True
    ):
        assert (found["channel"], found["path"]) == (channel, str(paths[i]))
        assert found["place"] == [1, i % 6]
        assert found["pixels"] == [[1, 2], [i % 6, i % 6 + 1]]
        assert found["value"] == pytest.approx((channel + 1) * (values[i] + 5) / 255, rel=1e-4)
    assert draw().size[0] > 0
    ((fault, _),) = one.files(files(None))
    assert "error" in fault
    shown = next(iter(explainer(Question("patches"), batch_size=1).files(files(9))))[0]
    assert shown["text"].startswith("the 1 best patches of 1 pictures for 16 channels")
    assert shown["text"].endswith(", a row each (4 more by --channel)")


@pytest.mark.parametrize(
    "question, what",
    [
        (Question("dream", "high"), {"label": 2, "name": "high", "text": "dream of high"}),
        (Question("dream"), {"layer": "Conv_0", "channels": [], "text": "dream of layer Conv_0"}),
        (
            Question("dream", channels=(3,)),
            {"layer": "Conv_0", "channels": [3], "text": "dream of layer Conv_0, channel 3"},
        ),
    ],
    ids=["class", "layer", "channel"],
)
def test_a_dream_is_named_by_what_it_is_of(question, what):
    one = explainer(question)
    row, draw = one._dreamt({"path": "a"}, np.full((*SIZE, 1), 0.5))
    assert row == {"path": "a", "method": "dream", **what}
    grey = np.asarray(draw().convert("L"))
    assert grey[grey.shape[0] // 2, grey.shape[1] // 2] == 128


@pytest.mark.parametrize("channels, good", [(1, True), (2, False), (3, True), (4, False)])
def test_files_hold_one_or_three_channels(channels, good):
    one = explainer(Question("filters"), channels=channels, width=4)
    if good:
        assert len(list(one.files([]))) == 1
    else:
        with pytest.raises(ConfigError, match=f"of {channels} channels, which no file hol"):
            list(one.files([]))
