"""Readers of files: images, folders, IDX, .npz.

Damage is a DataError that names the file, never another exception and never other numbers.
"""

import contextlib
import gzip
import io
import struct
import time
import tracemalloc
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxcnn.data.example import Example, Examples
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.files.idx import Idx, read_idx
from jaxcnn.data.files.images import decode_image, read_image
from jaxcnn.data.files.npz import Npz
from jaxcnn.data.memory import MemorySource
from jaxcnn.data.stream import StreamSource
from jaxcnn.errors import ConfigError, DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)


def png(array, mode=None, **options) -> bytes:
    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, "PNG", **options)
    return file.getvalue()


def mutations(data: bytes, number: int):
    """Bits flipped, ends cut off, spans zeroed, bytes inserted: `number` damaged copies
    of `data`.
    """
    random = np.random.default_rng(0)
    for _ in range(number):
        out, place = bytearray(data), int(random.integers(len(data)))
        match random.integers(5):
            case 0 | 1:
                out[place] ^= 1 << int(random.integers(8))
            case 2:
                out = out[:place]
            case 3:
                out[place : place + 8] = bytes(8)
            case 4:
                out[place:place] = random.bytes(3)
        if out != data:
            yield bytes(out)


# --- images ---


def test_read_image_keeps_rgb_pixels(tmp_path):
    (tmp_path / "x.png").write_bytes(png(PIXELS))
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", size=None, channels=3), PIXELS)


GREY = PIXELS[..., 0]
RGBA = np.concatenate([PIXELS, np.random.default_rng(1).integers(0, 256, (6, 4, 1), np.uint8)], -1)
OVER_WHITE = 255 + (RGBA[..., :3].astype(float) - 255) * RGBA[..., 3:] / 255
PALETTE = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
PALETTE = PALETTE.copy()
PALETTE.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
PALETTE_PIXELS = np.array([[[10, 20, 30], [200, 100, 50]], [[7, 8, 9], [200, 100, 50]]])
LUMA = PIXELS @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@pytest.mark.parametrize(
    "data, channels, expected, tolerance",
    [
        pytest.param(png(GREY), 1, GREY[..., None], 0, id="grey"),
        pytest.param(png(GREY), 3, np.stack([GREY] * 3, -1), 0, id="grey as RGB"),
        pytest.param(png(PIXELS), 1, LUMA[..., None], 1, id="RGB as grey"),
        pytest.param(png(RGBA), 3, OVER_WHITE, 1, id="alpha over white"),
        pytest.param(png(PALETTE), 3, PALETTE_PIXELS, 0, id="palette"),
        pytest.param(
            png(PALETTE, transparency=1),
            3,
            np.where(PALETTE_PIXELS[..., :1] == 200, 255, PALETTE_PIXELS),
            0,
            id="clear palette",
        ),
        pytest.param(png(GREY.astype(np.uint16) * 257), 1, GREY[..., None], 0, id="16 bits"),
        pytest.param(
            png(GREY.astype(np.uint16) * 257), 3, np.stack([GREY] * 3, -1), 0, id="16 bits as RGB"
        ),
        pytest.param(png(GREY > 99), 1, np.where(GREY > 99, 255, 0)[..., None], 0, id="1 bit"),
    ],
)
def test_kinds_of_images(data, channels, expected, tolerance):
    out = decode_image(data, name="x", size=None, channels=channels)
    assert (out.dtype, out.shape) == (np.uint8, expected.shape)
    np.testing.assert_allclose(out.astype(float), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    # the EXIF standard's table: what is done to the stored pixels to show them upright
    "orientation, shown",
    [
        (1, PIXELS),
        (2, PIXELS[:, ::-1]),
        (3, PIXELS[::-1, ::-1]),
        (4, PIXELS[::-1]),
        (5, PIXELS.swapaxes(0, 1)),
        (6, np.rot90(PIXELS, -1)),
        (7, PIXELS[::-1, ::-1].swapaxes(0, 1)),
        (8, np.rot90(PIXELS)),
    ],
)
def test_exif_orientation(orientation, shown):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        decode_image(png(PIXELS, exif=exif), name="x", size=None, channels=3), shown
    )


def test_first_frame_of_an_animation():
    file = io.BytesIO()
    frames = [Image.new("L", (3, 2), value) for value in (40, 200)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert np.all(decode_image(file.getvalue(), name="x", size=None, channels=1) == 40)


@pytest.mark.parametrize("size", [(7, 5), (60, 30), (20, 50)])
def test_resize_is_antialiased_bilinear_as_in_jax(size):
    image = np.random.default_rng(0).integers(0, 256, (33, 41, 3), np.uint8)
    out = decode_image(png(image), name="x", size=size, channels=3)
    expected = jax.image.resize(image.astype(np.float32), (*size, 3), "linear", antialias=True)
    np.testing.assert_allclose(out.astype(np.float32), expected, atol=1.01)


DRAFTS = [(1, (96, 150), (300, 200)), (1, (210, 280), (1200, 800)), (6, (96, 150), (600, 400))]


@pytest.mark.parametrize("turn, size, stored", DRAFTS)
def test_a_large_jpeg_is_decoded_in_part_and_looks_the_same(turn, size, stored):
    """At 1/2, 1/4 or 1/8 as long as that is twice the size asked for; else to the bit."""
    from skimage import data

    picture = Image.fromarray(data.coffee()).resize((1200, 800), Image.Resampling.BICUBIC)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    picture.save(file, "JPEG", quality=95, exif=exif)

    def resized(image):
        image = ImageOps.exif_transpose(image)
        return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)

    got = decode_image(file.getvalue(), name="x", size=size, channels=3)
    whole, part = Image.open(file), Image.open(file)
    part.draft(None, stored)
    part.load()
    assert part.size == stored
    np.testing.assert_array_equal(got, resized(part))
    apart = abs(got - resized(whole))
    assert apart.mean() < 0.5  # less than rounding to whole levels may cost
    assert apart.max() <= 16  # at sharp edges


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then refuses
def test_damaged_images_only_ever_raise_data_error(form):
    file = io.BytesIO()
    Image.fromarray(np.tile(PIXELS, (4, 4, 1))).save(file, form)
    for damaged in mutations(file.getvalue(), 150):
        try:
            assert decode_image(damaged, name="x.file", size=(5, 4), channels=3).shape == (5, 4, 3)
        except DataError as error:
            assert "x.file" in str(error)  # noqa: PT017


def test_image_errors_name_the_file_and_keep_the_bomb_limit(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"gone\.png: there is no such file"):
        read_image(tmp_path / "gone.png", size=None, channels=3)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png: cannot be read as an image"):
        read_image(tmp_path / "text.png", size=None, channels=3)
    (tmp_path / "bomb.png").write_bytes(png(PIXELS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # 24 pixels: more than twice
    with pytest.raises(DataError, match=r"bomb\.png.*decompression bomb"):
        read_image(tmp_path / "bomb.png", size=None, channels=3)
    with pytest.raises(ConfigError, match="channels is 4"):
        read_image(tmp_path / "bomb.png", size=None, channels=4)


@pytest.mark.parametrize("claimed", [0x1000001B, 0x7FFFFFFF])
def test_a_chunk_that_claims_gigabytes_takes_no_memory(tmp_path, claimed):
    data = png(PIXELS)
    place = data.index(b"IDAT")
    (tmp_path / "x.png").write_bytes(data[: place - 4] + claimed.to_bytes(4, "big") + data[place:])
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            read_image(tmp_path / "x.png", size=None, channels=3)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


# --- folders ---


@pytest.fixture
def folder(tmp_path):
    """Three classes of ten one-coloured 8x8 images: value 20 * label + number."""
    for label, name in enumerate(["ant", "bee", "cat"]):
        (tmp_path / name / "sub").mkdir(parents=True)
        for number in range(10):
            path = (
                tmp_path
                / name
                / ("sub" if number % 2 else ".")
                / f"{number}.{'png' if number % 3 else 'BMP'}"
            )
            Image.new("L", (8, 8), 20 * label + number).save(path)
    (tmp_path / "ant" / ".hidden.png").write_text("not an image either")
    return tmp_path


@pytest.mark.parametrize("memory_mib, kind", [(100, MemorySource), (0, StreamSource)])
def test_folder_reads_every_image_once(folder, memory_mib, kind):
    data = Folder(str(folder), image_size=(4, 6), channels=1, memory_mib=memory_mib)
    assert data.label_names == ("ant", "bee", "cat")
    assert (data.size("train"), data.size("eval"), data.size("test")) == (24, 6, 0)
    values = []
    for split in ("train", "eval"):
        source = data.open(split)
        assert isinstance(source, kind)
        taken = source.take(np.arange(len(source)))
        assert taken["image"].shape == (len(source), *data.spec()["image"].shape)
        values += (first := np.asarray(taken["image"])[:, 0, 0, 0].tolist())
        np.testing.assert_array_equal(np.asarray(first) // 20, taken["label"])
        assert np.all(np.bincount(taken["label"]) == len(source) // 3)
    assert sorted(values) == [20 * label + number for label in range(3) for number in range(10)]


@pytest.mark.parametrize("name", ["eval", "val", "validation"])
def test_folder_with_splits(folder, tmp_path_factory, name):
    root = tmp_path_factory.mktemp("splits")
    folder.rename(root / "train")
    (root / name / "bee").mkdir(parents=True)
    Image.new("L", (8, 8), 25).save(root / name / "bee" / "a.png")
    data = Folder(str(root), image_size=(8, 8))
    with pytest.warns(UserWarning, match="2 of 3 classes have no examples there"):
        assert (data.size("train"), data.size("eval")) == (30, 1)
    assert data.open("eval").take(np.array(0))["label"] == 1
    (root / name / "dog").mkdir()
    with pytest.raises(DataError, match="dog"):
        Folder(str(root)).size("eval")


def test_folder_with_a_damaged_image(folder):
    (folder / "bee" / "5.png").write_bytes(png(PIXELS)[:60])
    with pytest.raises(DataError, match=r"5\.png"):
        Folder(str(folder), eval_fraction=0.0).open("train")
    data = Folder(str(folder), skip_damaged=True, eval_fraction=0.0)
    with pytest.warns(UserWarning, match=r"1 of 31 images are damaged.*5\.png"):
        size = data.size("train")
    assert size == len(data.open("train")) == 30


@pytest.mark.parametrize(
    "case, message",
    [("absent", "not a folder"), ("flat", "no sub-folder"), ("empty class", "single class")],
)
def test_folder_errors(tmp_path, case, message):
    root = tmp_path / "root"
    if case != "absent":
        root.mkdir()
        (root / "a.png").write_bytes(png(PIXELS))
    if case == "empty class":
        (root / "ant").mkdir()
    with pytest.raises(DataError, match=message):
        Folder(str(root)).size("train")


# --- IDX ---


def idx(array: np.ndarray, code: int) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(
    "code, dtype",
    [
        (8, np.uint8),
        (9, np.int8),
        (0xB, np.int16),
        (0xC, np.int32),
        (0xD, np.float32),
        (0xE, np.float64),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_types(tmp_path, code, dtype, zipped):
    array = np.random.default_rng(0).integers(-100, 100, (3, 4, 5)).astype(dtype)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(idx(array, code)) if zipped else idx(array, code))
    out = read_idx(str(path))
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, array)


def test_damaged_gzipped_idx_is_always_noticed(tmp_path):
    array = np.random.default_rng(0).integers(0, 4, (40, 7, 7), np.uint8)
    path, refused = tmp_path / "x.gz", 0
    for damaged in mutations(gzip.compress(idx(array, 8)), 600):
        path.write_bytes(damaged)
        try:
            # the damage was in gzip's time stamp or name
            np.testing.assert_array_equal(read_idx(str(path)), array)
        except DataError as error:
            assert "x.gz" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 550


def test_damaged_plain_idx_only_ever_raises_data_error(tmp_path):
    # small: most of the file is header
    array = np.random.default_rng(0).integers(0, 256, (3, 2, 2), np.uint8)
    path = tmp_path / "x"
    for damaged in mutations(idx(array, 8), 600):
        path.write_bytes(damaged)
        try:
            out = read_idx(str(path))
            assert out.nbytes <= len(damaged)
        except DataError as error:
            assert "x: " in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "shape", [(2**31, 2**31), (2**32 - 1, 1), (2**32 - 1,) * 8, (0, 2**32 - 1)]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_header_that_claims_too_much(tmp_path, shape, zipped):
    data = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(100)
    (tmp_path / "x").write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(DataError, match="declares"):
        read_idx(str(tmp_path / "x"))


def test_idx_data_set(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 3), np.uint8)
    labels = np.arange(50, dtype=np.uint8) % 5
    paths = [str(tmp_path / name) for name in ("images", "labels.gz")]
    (tmp_path / "images").write_bytes(idx(images, 8))
    (tmp_path / "labels.gz").write_bytes(gzip.compress(idx(labels, 8)))
    data = Idx(*paths)
    assert (data.size("train"), data.size("eval"), data.size("test")) == (40, 10, 0)
    taken = [data.open(split).take(np.arange(data.size(split))) for split in ("train", "eval")]
    both = sorted(
        (int(y), x.tobytes())
        for part in taken
        for x, y in zip(np.asarray(part["image"]), np.asarray(part["label"]), strict=True)
    )
    assert both == sorted((int(y), x.tobytes()) for x, y in zip(images, labels, strict=True))
    assert (data.spec()["image"].shape, data.spec()["label"].dtype) == ((4, 3, 1), np.int32)
    apart = Idx(*paths, eval_images=paths[0], eval_labels=paths[1])
    assert (apart.size("train"), apart.size("eval")) == (50, 50)
    with pytest.raises(DataError, match="needs both"):
        Idx(*paths, test_images=paths[0]).size("test")
    (tmp_path / "labels.gz").write_bytes(gzip.compress(idx(labels[:-1], 8)))
    with pytest.raises(DataError, match="differ"):
        data.open("train")


# --- npz ---

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 5, 4), np.uint8)
LABELS = np.arange(20) % 4


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_held_out(tmp_path, save):
    save(tmp_path / "a.npz", image=IMAGES, label=LABELS)
    data = Npz(str(tmp_path / "a.npz"), eval_fraction=0.25)
    assert (data.size("train"), data.size("eval"), data.size("test")) == (15, 5, 0)
    assert (data.spec()["image"].shape, data.spec()["image"].dtype, data.spec()["label"].dtype) == (
        (5, 4, 1),
        np.uint8,
        np.int32,
    )
    rows = [
        row.tobytes()
        for split in ("train", "eval")
        for row in np.asarray(data.open(split).take(np.arange(data.size(split)))["image"])
    ]
    assert sorted(rows) == sorted(row.tobytes() for row in IMAGES)


def test_npz_named_as_in_keras_and_by_the_user(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(
        path, x_train=IMAGES, y_train=LABELS[:, None], x_test=IMAGES[:3], y_test=LABELS[:3, None]
    )
    data = Npz(path)
    assert (data.size("train"), data.size("eval"), data.spec()["label"].shape) == (20, 3, ())
    np.testing.assert_array_equal(data.open("eval").take(np.arange(3))["label"], LABELS[:3])
    renamed = Npz(path, image="x_test", label="y_test", eval_path=path, eval_fraction=0.0)
    np.testing.assert_array_equal(
        renamed.open("train").take(np.arange(3))["image"][..., 0], IMAGES[:3]
    )
    with pytest.raises(DataError, match="did you mean 'y_test'"):
        Npz(path, image="x_test", label="y_tset").spec()
    bare = Npz(path, label="")
    assert (list(bare.spec()), list(bare.open("eval").take(np.arange(3)))) == (["image"], ["image"])


def test_npz_is_never_unpickled(tmp_path):
    class Canary:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    path = str(tmp_path / "a.npz")
    np.savez(path, image=np.array([Canary()] * 4, object), label=np.arange(4), allow_pickle=True)
    with pytest.raises(DataError, match="objects"):
        Npz(path).open("train")
    assert not (tmp_path / "canary").exists()


def test_npz_header_that_claims_too_much(tmp_path):
    import zipfile

    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 28, 28)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", file.getvalue() + bytes(100))
    with pytest.raises(DataError, match="declares shape"):
        Npz(str(tmp_path / "a.npz")).spec()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz_is_always_noticed(tmp_path, save):
    file, path = io.BytesIO(), tmp_path / "a.npz"
    save(file, image=IMAGES, label=LABELS)
    for damaged in mutations(file.getvalue(), 400):
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                taken = Npz(str(path), eval_fraction=0.0).open("train").take(np.arange(20))
            np.testing.assert_array_equal(taken["image"][..., 0], IMAGES)
            np.testing.assert_array_equal(taken["label"], LABELS)
        except DataError as error:
            assert "a.npz" in str(error)  # noqa: PT017


def test_examples_are_a_sequence_whatever_is_chosen_of_them():
    made = [Example(image=b"", size=(0, 0), label=i % 3, name=str(i)) for i in range(20)]
    kept, expected = Examples.of(made), made
    for seed in range(3):
        mask = np.random.default_rng(seed).random(len(kept)) < 0.7
        kept = kept.keep(mask)
        expected = [example for example, chosen in zip(expected, mask, strict=True) if chosen]
        assert list(kept) == expected
        assert list(kept.labels) == [example.label for example in expected]
    assert list(kept[1:4]) == expected[1:4]
    assert kept[-1] is expected[-1]
    assert list(kept[1:4].labels) == [example.label for example in expected[1:4]]
    assert Examples.of([*made, Example(image=b"", size=(0, 0))]).labels is None


def test_a_large_folder_is_parted_in_a_moment():
    """The time grows with the number of files, not with its square."""
    items = [Example(image=Path(f"{i}.png"), size=(0, 0), label=i % 10) for i in range(30_000)]
    start = time.process_time()
    train, held = Folder("photos").hold_out(items, tuple("abcdefghij"))
    assert time.process_time() - start < 2
    assert (len(train), len(held)) == (24_000, 6_000)
