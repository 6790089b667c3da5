"""Masks as people have them: each kind of fault is read as it is meant, or refused, and said."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import decode_image, image_size, read_image
from jaxcnn.data.files.label_images import read_colour_mask, read_index_mask, upright
from jaxcnn.data.files.mask_folder import MaskFolder
from jaxcnn.data.files.voc import Voc
from jaxcnn.errors import ConfigError, DataError
from tests.data.faults import check, grey_png, picture, take_all, turned

SIZE = (8, 12)
A = np.zeros(SIZE, np.uint8)
A[2:5, 3:9] = 1
AB = A.copy()
AB[6:, 1:4] = 2
TWO, THREE = ("ground", "leaf"), ("ground", "leaf", "stem")


def grey(pixels) -> Image.Image:
    return Image.fromarray(np.asarray(pixels, np.uint8))


def values(data: MaskFolder, split="train") -> list:
    return np.unique(take_all(data, split)["segmentation"]).tolist()


@pytest.fixture
def folder(tmp_path):
    """Makes a data set of the masks given, and MaskFolder of it."""

    def make(masks, **options) -> MaskFolder:
        (tmp_path / "m").mkdir()
        for i, mask in enumerate(masks):
            picture(tmp_path / "i" / f"{i}.png", SIZE, seed=i)
            (grey(mask) if isinstance(mask, np.ndarray) else mask).save(tmp_path / "m" / f"{i}.png")
        return MaskFolder(
            str(tmp_path / "i"),
            str(tmp_path / "m"),
            **{"image_size": SIZE, "eval_fraction": 0.0, **options},
        )

    return make


V = np.where(A == 1, 255, 0)  # black and white
B = np.where(np.arange(12) == 0, 255, A)  # class 1 and a border of 255
NONE = "occur in none of the .* masks"


@pytest.mark.parametrize("memory_mib", [100, 0], ids=["memory", "stream"])
@pytest.mark.parametrize(
    "masks, options, expected, said",
    [
        pytest.param([V, V], {"names": TWO}, r"values=\(0, 255\)", "", id="black and white"),
        pytest.param([V, V], {}, "for the former, ignored", "", id="black and white, no names"),
        pytest.param([V * 0, V, V * 0], {"names": TWO}, r"values=\(0, 255\)", "", id="in one file"),
        pytest.param([V * 0 + 255], {"names": TWO}, "255", "", id="white alone"),
        pytest.param([V], {"names": THREE}, "for the former, ignored", "", id="two of three"),
        pytest.param([V], {"names": TWO, "values": (0, 255)}, [0, 1], "", id="said"),
        pytest.param([V], {"names": TWO, "ignored": 255}, [0, 255], NONE, id="said as unknown"),
        pytest.param([B, A], {"names": TWO}, [0, 1, 255], "", id="a border of 255"),
        pytest.param([B], {}, [0, 1, 255], "", id="a border of 255, no names"),
        pytest.param([B], {"names": THREE}, r"values=\(0, 1, 255\)", "", id="255 the third?"),
        pytest.param([V, A], {"names": TWO}, "1 of 2 masks hold 0 and 255 only", "", id="two ways"),
        pytest.param(
            [V, A], {"names": TWO, "ignored": 255}, [0, 1, 255], "", id="two ways, said"
        ),
        pytest.param([AB * 127], {"names": THREE}, r"values=\(0, 127, 254\)", "", id="spread"),
        pytest.param(
            [np.where(AB == 2, 255, A * 128)], {"names": THREE}, r"values=\(0, 128, 255\)", "",
            id="0, 128, 255",
        ),
        pytest.param([A + 1], {"names": TWO}, r"values=\(1, 2\)", "", id="from 1"),
        pytest.param([A + 1], {"names": TWO, "values": (1, 2)}, [0, 1], "", id="from 1, said"),
        pytest.param(
            [AB], {"names": TWO, "values": (1, 2), "ignored": 0}, [0, 1, 255], "", id="0 unknown"
        ),
        pytest.param([B], {"names": TWO, "values": (0, 1)}, r"hold \[255\]", "", id="255 unsaid"),
        pytest.param([A], {"names": THREE}, [0, 1], NONE, id="a class that never occurs"),
    ],
)  # fmt: skip
def test_values_with_two_meanings(folder, masks, options, expected, said, memory_mib):
    check(lambda: values(folder(masks, memory_mib=memory_mib, **options)), expected, said)


def test_eval_masks_are_judged_too(folder, tmp_path):
    data = folder([A], names=TWO, eval_images=str(tmp_path / "ei"), eval_masks=str(tmp_path / "em"))
    picture(tmp_path / "ei" / "0.png", SIZE)
    (tmp_path / "em").mkdir()
    grey(V).save(tmp_path / "em" / "0.png")
    check(lambda: values(data), r"em, eval: .*values=\(0, 255\)")


@pytest.fixture
def voc_folder(tmp_path):
    """Makes a folder in the form of VOC of the masks given, and Voc of it."""

    def make(masks) -> Voc:
        (tmp_path / "SegmentationClass").mkdir()
        for i, mask in enumerate(masks):
            picture(tmp_path / "JPEGImages" / f"{i}.png", SIZE, seed=i)
            grey(mask).save(tmp_path / "SegmentationClass" / f"{i}.png")
        return Voc(
            str(tmp_path), names=TWO, entries=("segmentation",), image_size=SIZE, eval_fraction=0.0
        )

    return make


@pytest.mark.parametrize(
    "masks, expected",
    [
        pytest.param([V, V], r"MaskFolder's values=\(0, 255\)", id="black and white"),
        pytest.param([V, A], "1 of 2 masks hold 0 and 255 only", id="two ways"),
        pytest.param([B, A], [0, 1, 255], id="a border of 255"),
        pytest.param([B, AB, np.where(B == 1, 0, B)], [0, 1, 2, 255], id="none in one"),
    ],
)
def test_masks_of_voc_are_judged_too(voc_folder, masks, expected):
    check(lambda: values(voc_folder(masks)), expected)


def test_voc_says_only_what_its_user_can_do(voc_folder, tmp_path):
    """Turned pictures and masks in colours: no field of MaskFolder as if it were one of Voc's."""
    data = voc_folder([A])
    picture(tmp_path / "JPEGImages" / "0.png", SIZE, exif=turned(3))
    with pytest.raises(DataError, match="write the images upright, without the tag") as error:
        values(data)
    assert "drawn_on" not in str(error.value)
    picture(tmp_path / "JPEGImages" / "0.png", SIZE)
    stack(A, A * 0, A * 0).save(tmp_path / "SegmentationClass" / "0.png")
    check(lambda: values(replace(data)), r"which: MaskFolder's colours=\(\(r, g, b\)")


def test_masks_without_an_image_are_said(folder, tmp_path):
    data = folder([A, A], names=TWO)
    (tmp_path / "i" / "1.png").unlink()
    check(lambda: values(data), [0, 1], "the mask 1 has no image")


# --- how the numbers are stored ---

PALETTE = grey(AB).convert("P")
PALETTE.putdata(AB.ravel().tolist())
PALETTE.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
REVERSED = PALETTE.copy()
REVERSED.putpalette([255, 255, 255, 128, 128, 128, 0, 0, 0])
CLEAR = np.where(AB == 0, 0, 255).astype(np.uint8)
TABLE = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)


def stack(*bands) -> Image.Image:
    mode = {2: "LA", 3: "RGB", 4: "RGBA"}[len(bands)]
    return Image.merge(mode, [grey(band) for band in bands])


def png(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, options.pop("form", "PNG"), **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data, expected",
    [
        pytest.param(png(grey(AB)), AB, id="grey"),
        pytest.param(png(stack(AB, AB * 0 + 255)), AB, id="grey and alpha"),
        pytest.param(png(stack(AB, AB * 0 + 90)), AB, id="alpha the same everywhere"),
        pytest.param(png(stack(AB, CLEAR)), AB, id="background clear"),
        pytest.param(png(stack(AB, 255 - CLEAR)), "alpha channel differs", id="classes clear"),
        pytest.param(png(stack(AB, AB * 9)), "alpha channel differs", id="alpha differs"),
        pytest.param(png(stack(AB, AB, AB)), AB, id="equal channels"),
        pytest.param(png(stack(AB, AB, AB, AB * 0 + 255)), AB, id="equal channels and alpha"),
        pytest.param(png(stack(AB, AB, AB, CLEAR)), AB, id="equal channels, clear ground"),
        pytest.param(png(stack(AB, AB * 2, AB)), "one number a pixel", id="colours"),
        pytest.param(png(PALETTE), AB, id="palette"),
        pytest.param(png(PALETTE, transparency=0), AB, id="palette with alpha"),
        pytest.param(png(REVERSED), "contradict each other", id="palette of greys reversed"),
        pytest.param(png(Image.fromarray(A > 0)), A, id="1 bit"),
        pytest.param(grey_png([[0x1B]], depth=2), [[0, 1, 2, 3]], id="2 bits"),
        pytest.param(grey_png([[0x0F, 0x12]], depth=4), [[0, 15, 1, 2]], id="4 bits"),
        pytest.param(
            png(Image.fromarray(AB.astype(np.uint16) * 300)), 300 * AB.astype(int), id="16 bits"
        ),
        pytest.param(grey_png([[0, 1] * 3], depth=16, kind=2), "of 16 bits", id="16-bit colour"),
        pytest.param(grey_png([[0, 1, 255, 255]], depth=16, kind=4), "of 16 bits", id="16-bit LA"),
        pytest.param(png(grey(AB), form="JPEG"), "JPEG, whose compression", id="JPEG"),
        pytest.param(
            png(Image.fromarray(AB.astype(np.float32)), form="TIFF"), "integers", id="floats"
        ),
        pytest.param(png(grey(AB), form="TIFF"), AB, id="TIFF"),
    ],
)
def test_how_numbers_are_stored(data, expected):
    if isinstance(expected, str):
        with pytest.raises(DataError, match=f"x.png: .*{expected}"):
            read_index_mask(data, name="x.png")
        return
    np.testing.assert_array_equal(read_index_mask(data, name="x.png"), np.asarray(expected, int))


@pytest.mark.parametrize(
    "image",
    [Image.fromarray(TABLE[AB]), PALETTE, Image.fromarray(TABLE[AB]).convert("RGBA")],
    ids=["RGB", "palette", "RGBA"],
)
def test_colours_stand_for_classes(folder, image):
    colours = tuple(map(tuple, TABLE.tolist()))
    data = folder([image], names=THREE, colours=colours)
    np.testing.assert_array_equal(take_all(data)["segmentation"][0], AB)
    np.testing.assert_array_equal(
        read_colour_mask(png(image), name="x"), TABLE[AB] @ np.array([65536, 256, 1])
    )


def test_colours_that_are_no_class(folder):
    colours = ((0, 0, 0), (128, 0, 0))
    data = folder([Image.fromarray(TABLE[AB])], names=TWO, colours=colours)
    check(lambda: values(data), r"6 pixels hold \[\(0, 128, 0\)\]")


def test_a_colour_may_be_ignored(folder):
    colours = ((0, 0, 0), (128, 0, 0))
    image = Image.fromarray(TABLE[AB])
    check(lambda: values(folder([image], colours=colours, ignored=(0, 128, 0))), [0, 1, 255])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"values": (0, 1), "colours": ((0, 0, 0), (1, 1, 1))}, "values and colours"),
        ({"names": TWO, "colours": ((0, 0, 0),)}, "2 names and 1 colours"),
        ({"colours": ((0, 0, 0), (0, 0, 0))}, "a value of its own"),
        ({"values": (0, 1), "ignored": 1}, "a value of its own"),
        ({"colours": ((0, 0, 300),)}, "no colour of a pixel"),
        ({"values": (-1, 0)}, "no value of a pixel"),
        ({"ignored": (0, 0, 0)}, "no value of a pixel"),
        ({"drawn_on": "photo"}, "drawn_on is 'photo'"),
    ],
)
def test_fields_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        MaskFolder("i", "m", **options)


# --- EXIF orientation ---


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_upright_is_what_pillow_shows(turn, form):
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    options = {"tiffinfo": {274: turn}} if form == "TIFF" else {"exif": turned(turn)}
    data = png(grey(pixels), form=form, **options)
    np.testing.assert_array_equal(
        upright(pixels, turn), decode_image(data, name="x", size=None, channels=1)[..., 0]
    )
    np.testing.assert_array_equal(read_index_mask(data, name="x"), upright(pixels, turn))


WRONG = "sizes fit both ways"


@pytest.mark.parametrize(
    "size, image_turn, mask_turn, drawn_on, expected",
    [
        # (turn of the image, turn of the mask): the label map is that of the stored mask, turned
        pytest.param(SIZE, 1, 1, "", 1, id="none turned"),
        pytest.param(SIZE, 6, 6, "", 6, id="both turned"),
        pytest.param(SIZE, 3, 1, "", WRONG, id="image by 180"),
        pytest.param(SIZE, 1, 3, "", WRONG, id="mask by 180"),
        pytest.param(SIZE, 2, 3, "", WRONG, id="one way and another"),
        pytest.param((8, 8), 6, 1, "", WRONG, id="a square by 90"),
        pytest.param(SIZE, 6, 1, "", "drawn_on='stored'", id="by 90, drawn on the stored"),
        pytest.param(SIZE, 6, 1, "stored", 6, id="by 90, said"),
        pytest.param(SIZE, 3, 1, "shown", 1, id="by 180, said as shown"),
        pytest.param(SIZE, 3, 1, "stored", 3, id="by 180, said as stored"),
    ],
)
def test_image_and_mask_turned(tmp_path, size, image_turn, mask_turn, drawn_on, expected):
    picture(tmp_path / "i" / "0.jpg", size, exif=turned(image_turn))
    (tmp_path / "m").mkdir()
    mask = np.arange(size[0] * size[1]).reshape(size) % 3
    grey(mask).save(tmp_path / "m" / "0.png", exif=turned(mask_turn))
    shape = upright(mask, image_turn).shape
    data = MaskFolder(
        *(str(tmp_path / name) for name in "im"),
        names=THREE, image_size=shape, eval_fraction=0.0, drawn_on=drawn_on,
    )  # fmt: skip
    wanted = expected if isinstance(expected, str) else upright(mask, expected).tolist()
    check(lambda: take_all(data)["segmentation"][0].tolist(), wanted)


def test_a_mask_for_the_upright_picture_fits_by_its_size(tmp_path):
    picture(tmp_path / "i" / "0.jpg", (8, 12), exif=turned(6))
    (tmp_path / "m").mkdir()
    mask = np.arange(96).reshape(12, 8) % 3
    grey(mask).save(tmp_path / "m" / "0.png")
    data = MaskFolder(
        *(str(tmp_path / name) for name in "im"), image_size=(12, 8), eval_fraction=0.0
    )
    check(lambda: take_all(data)["segmentation"][0].tolist(), mask.tolist())


# --- files that are no images ---

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    "data, message",
    [
        (EPS, "formats that are read are PNG"),
        (b"", "cannot be read as an image"),
        (png(grey(A))[:50], "cannot be read as an image"),
        (png(Image.new("1", (13_300, 13_300))), "13300 x 13300 pixels.*at most 67108864"),
        (png(Image.new("1", (9_000, 9_000))), "9000 x 9000 pixels.*at most 67108864"),
    ],
    ids=["EPS", "empty", "cut", "bomb", "large"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_files_that_are_not_opened(tmp_path, data, message):
    (tmp_path / "x.png").write_bytes(data)
    calls = [
        lambda: read_image(tmp_path / "x.png", size=None, channels=3),
        lambda: read_index_mask(tmp_path / "x.png", name=str(tmp_path / "x.png")),
    ]
    for call in calls:
        with pytest.raises(DataError, match=f"x.png.*{message}"):
            call()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_sizes_are_read_from_headers(tmp_path, monkeypatch, form):
    for turn in (1, 6):
        options = {"tiffinfo": {274: turn}} if form == "TIFF" else {"exif": turned(turn)}
        (tmp_path / str(turn)).write_bytes(png(grey(AB), form=form, **options))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)  # no pixel may be asked for
    for turn in (1, 6):
        assert image_size(tmp_path / str(turn)) == (SIZE, turn)


def test_exif_after_the_pixels_of_a_png(tmp_path):
    data = png(grey(AB), exif=turned(6))
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    assert start < data.index(b"IDAT")
    late = data.replace(chunk, b"")[:-12] + chunk + data[-12:]
    (tmp_path / "x").write_bytes(late)
    assert image_size(tmp_path / "x") == (SIZE, 6)
    np.testing.assert_array_equal(read_index_mask(late, name="x"), upright(AB, 6))
    assert decode_image(late, name="x", size=None, channels=1).shape == (*SIZE[::-1], 1)


def test_damaged_masks_are_counted(folder, tmp_path):
    data = folder([A, A, A], names=TWO, invalid="skip")
    (tmp_path / "m" / "1.png").write_bytes(b"no mask")
    check(lambda: len(take_all(data)["segmentation"]), 2, "1 labels break a rule")
    assert Faults("here", "skip").count == 0
