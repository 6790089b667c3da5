"""Readers of masks, text lines and text boxes, and what all annotated images share."""

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.files.checks import box_areas, check_boxes, check_image_file, choose_largest
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.icdar import Icdar
from jaxcnn.data.files.images import read_image, resize_image, resize_nearest
from jaxcnn.data.files.label_images import read_index_mask
from jaxcnn.data.files.mask_folder import MaskFolder
from jaxcnn.data.files.text_lines import TextLineFolder
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops.alphabet import decode

SIZE = (12, 16)


def take_all(data, split: str = "train") -> dict[str, np.ndarray]:
    """All examples of a split; their shapes and dtypes are those of `spec`."""
    source = data.open(split)
    taken = {name: np.asarray(array) for name, array in source.take(np.arange(len(source))).items()}
    assert {name: (array.shape[1:], array.dtype) for name, array in taken.items()} == {
        name: (entry.shape, entry.dtype) for name, entry in data.spec().items()
    }
    return taken


def save(path, pixels, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def noise(seed: int, size=SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


# --- what they share ---


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_resized_as_read_image_does(tmp_path, channels):
    save(tmp_path / "a.png", noise(0, (37, 23)))
    whole = read_image(tmp_path / "a.png", size=None, channels=channels)
    np.testing.assert_array_equal(
        resize_image(whole, (11, 30)),
        read_image(tmp_path / "a.png", size=(11, 30), channels=channels),
    )


@pytest.mark.parametrize("size", [(24, 32), (12, 16), (6, 4), (5, 7)])
def test_nearest_takes_the_pixel_under_the_centre(size):
    grid = np.arange(2 * 12 * 16).reshape(2, 12, 16)
    out = resize_nearest(grid, size)
    for y, x in np.ndindex(*size):
        np.testing.assert_array_equal(
            out[:, y, x], grid[:, int((y + 0.5) * 12 / size[0]), int((x + 0.5) * 16 / size[1])]
        )


def test_boxes_are_cut_by_rounding_only():
    boxes = np.array(
        [
            [-0.01, 0, 1.01, 1],
            [0.2, 0.2, 0.2, 0.3],
            [-0.2, 0, 0.5, 1],
            [0.1, np.nan, 0.5, 1],
            [1.0, 0, 1.01, 1],
        ]
    )
    faults = Faults("here", "skip")
    cut, kept = check_boxes(boxes, slack=0.02, name=str, faults=faults)
    assert kept.tolist() == [True, False, False, False, False]
    np.testing.assert_array_equal(cut[0], [0, 0, 1, 1])
    assert faults.count == 4
    with pytest.warns(
        UserWarning,
        match="here: 4 labels break a rule and are left out; the first: 1: box .* is empty",
    ):
        faults.warn()
    with pytest.raises(DataError, match="invalid='skip'"):
        check_boxes(boxes, slack=0.02, name=str, faults=Faults("here", "error"))
    with pytest.raises(ConfigError, match="invalid is 'ignore'"):
        Faults("here", "ignore")


def test_the_largest_are_kept_in_their_order():
    sides = np.array([3, 1, 5, 2, 4]) / 10
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=-1)
    faults = Faults("here", "skip")
    assert choose_largest(box_areas(boxes), 3, name="x", faults=faults).tolist() == [0, 2, 4]
    assert choose_largest(box_areas(boxes), 5, name="x", faults=faults).tolist() == [0, 1, 2, 3, 4]
    assert faults.count == 1


def test_counts_are_said_at_each_power_of_ten():
    faults = Faults("here", "skip")
    faults.say_at_once = True
    with pytest.warns(UserWarning, match="labels break") as said:
        np.vectorize(faults.add, otypes=[object])(["x"] * 150)
    assert [str(entry.message).split()[1] for entry in said] == ["1", "10", "100"]


def test_size_of_a_photograph_that_lies_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    save(tmp_path / "a.jpg", noise(0), exif=exif)
    assert (
        check_image_file(tmp_path / "a.jpg", Faults("", "error"))
        == read_image(tmp_path / "a.jpg", size=None, channels=3).shape[:2]
    )
    with pytest.raises(DataError, match="EXIF orientation"):
        check_image_file(tmp_path / "a.jpg", Faults("", "error"), declared=SIZE)


def test_index_masks_keep_their_numbers(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    save(tmp_path / "grey.png", pixels)
    save(tmp_path / "grey as colour.png", np.stack([pixels] * 3, axis=-1))
    palette = Image.fromarray(pixels).convert("P")
    palette.putdata(pixels.ravel().tolist())
    palette.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    palette.save(tmp_path / "palette.png")
    save(tmp_path / "16 bits.png", pixels.astype(np.uint16) * 3)
    for name, factor in (("grey", 1), ("grey as colour", 1), ("palette", 1), ("16 bits", 3)):
        np.testing.assert_array_equal(
            read_index_mask(tmp_path / f"{name}.png", name=name), pixels.astype(np.int32) * factor
        )
    save(tmp_path / "colours.png", noise(0))
    with pytest.raises(DataError, match="one number a pixel"):
        read_index_mask(tmp_path / "colours.png", name="colours")


# --- masks ---


@pytest.fixture
def pairs(tmp_path):
    """Images and masks in sub-folders."""
    for i in range(4):
        save(tmp_path / "images" / "some" / f"{i}.jpg", noise(i))
        save(tmp_path / "masks" / "some" / f"{i}.png", (noise(i)[..., 0] % 3).astype(np.uint8))
    return tmp_path


def mask_folder(root, **options) -> MaskFolder:
    return MaskFolder(
        str(root / "images"),
        str(root / "masks"),
        **{"image_size": SIZE, "eval_fraction": 0.25, **options},
    )


def test_mask_folder_pairs_by_path(pairs):
    data = mask_folder(pairs, names=("ground", "leaf", "stem"))
    assert data.label_names == ("ground", "leaf", "stem")
    assert (data.size("train"), data.size("eval")) == (3, 1)
    images = {
        read_image(pairs / "images" / "some" / f"{i}.jpg", size=None, channels=3).tobytes(): i
        for i in range(4)
    }
    seen = []
    for split in ("train", "eval"):
        taken = take_all(data, split)
        for image, segmentation in zip(taken["image"], taken["segmentation"], strict=True):
            seen.append(images[image.tobytes()])
            np.testing.assert_array_equal(segmentation, noise(seen[-1])[..., 0] % 3)
    assert sorted(seen) == [0, 1, 2, 3]


def test_black_and_white_masks(pairs):
    for i in range(4):
        save(
            pairs / "masks" / "some" / f"{i}.png",
            np.where(noise(i)[..., 0] > 99, 255, 0).astype(np.uint8),
        )
    taken = take_all(mask_folder(pairs, values=(0, 255), eval_fraction=0.0, image_size=(24, 32)))
    for i in range(4):
        np.testing.assert_array_equal(
            taken["segmentation"][i], (noise(i)[..., 0] > 99).repeat(2, axis=0).repeat(2, axis=1)
        )


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
@pytest.mark.parametrize(
    "change, message, left",
    [
        (lambda root: (root / "masks" / "some" / "1.png").unlink(), "there is no mask some/1", 3),
        (
            lambda root: save(root / "masks" / "some" / "1.png", np.zeros((12, 15), np.uint8)),
            r"is \(12, 15\) .*must be of one size",
            3,
        ),
        (
            lambda root: (root / "masks" / "some" / "1.png").write_bytes(b"x"),
            "1.png: cannot be read as an image",
            3,
        ),
        (
            lambda root: save(root / "masks" / "some" / "1.png", np.full(SIZE, 3, np.uint8)),
            r"192 pixels hold \[3\]",
            4,
        ),
    ],
)
@pytest.mark.parametrize("memory_mib", [10, 0])
def test_masks_that_break_a_rule(pairs, change, message, left, memory_mib):
    change(pairs)
    options = {"names": ("a", "b", "c"), "eval_fraction": 0.0, "memory_mib": memory_mib}
    with pytest.raises(DataError, match=message):
        take_all(mask_folder(pairs, **options))
    rest = take_all(mask_folder(pairs, **options, invalid="skip"))
    assert len(rest["image"]) == left
    assert left == 3 or (rest["segmentation"][1] == 255).all()


def test_mask_folder_wrong_fields(pairs):
    with pytest.raises(DataError, match="no such folder"):
        MaskFolder(str(pairs / "none"), str(pairs / "masks")).size("train")
    with pytest.raises(ConfigError, match="2 names and 3 values"):
        mask_folder(pairs, names=("a", "b"), values=(0, 1, 2))
    with pytest.raises(ConfigError, match="name both folders"):
        mask_folder(pairs, eval_images="x").size("eval")
    save(pairs / "images" / "some" / "1.png", noise(0))
    with pytest.raises(DataError, match="has the same name but for the ending"):
        mask_folder(pairs).size("train")


# --- lines of text ---


@pytest.fixture
def lines(tmp_path):
    for i in range(4):
        save(tmp_path / "words" / f"{i}.png", noise(i, (10, 40)))
    return tmp_path


def text_lines(root, content: str, **options) -> TextLineFolder:
    (root / "labels.txt").write_text(content, "utf-8")
    return TextLineFolder(str(root), **{"eval_fraction": 0.0, "image_size": (8, 20), **options})


@pytest.mark.parametrize(
    "content, texts",
    [
        ("words/0.png\tRiser 5\nwords/1.png\thi\n\nwords/2.png\té, ü\n", ["Riser 5", "hi", "é, ü"]),
        ("\ufeffwords/0.png, \"Here\"\r\nwords/1.png, \"a \\\"b\\\"\"\r\n", ["Here", 'a "b"']),
        ("words/3.png   two words\nwords/0.png x", ["two words", "x"]),
    ],
)  # fmt: skip
def test_text_lines_come_back(lines, content, texts):
    data = text_lines(lines, content)
    alphabet = "".join(data.label_names)
    assert alphabet == "".join(sorted(set("".join(texts))))
    taken = take_all(data)
    assert decode(taken["text"], alphabet=alphabet) == texts
    assert taken["text"].shape[1] == max(map(len, texts))
    assert (taken["text"].max(), taken["image"].shape[1:]) == (len(alphabet), (8, 20, 1))


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
@pytest.mark.parametrize(
    "line, message",
    [
        (
            "words/1.png\tHi!",
            r"labels.txt, line 2: 'Hi!' has \['!', 'H'\], which the alphabet 'ihx' lacks",
        ),
        ("words/1.png\thihihi", "has 6 characters; length=5 is room for 5"),
        ("words/1.png", "has no text"),
        ("words/9.png\thi", "9.png: there is no such image file"),
    ],
)
def test_lines_that_break_a_rule(lines, line, message):
    content = f"words/0.png\thi\n{line}\nwords/2.png\tx\n"
    with pytest.raises(DataError, match=message):
        text_lines(lines, content, alphabet="ihx", length=5).open("train")
    taken = take_all(text_lines(lines, content, alphabet="ihx", length=5, invalid="skip"))
    assert decode(taken["text"], alphabet="ihx") == ["hi", "x"]


def test_text_line_folder_wrong_fields(lines):
    with pytest.raises(DataError, match="no such file of labels"):
        TextLineFolder(str(lines)).size("train")
    (lines / "labels.txt").write_bytes(b"words/0.png\t\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        TextLineFolder(str(lines)).size("train")
    with pytest.raises(ConfigError, match="repeats"):
        TextLineFolder(str(lines), alphabet="aab")
    data = text_lines(lines, "words/0.png\tab\n", eval_path=str(lines), eval_labels="eval.txt")
    (lines / "eval.txt").write_text("words/1.png\tabc\n")
    with pytest.raises(DataError, match=r"has \['c'\]"):
        data.size("eval")


# --- boxes of text ---

LABELS = {
    0: "\ufeff2,1,10,1,10,5,2,5,Genaxis\r\n1,6,9,7,9,11,1,10,###\r\n3,7,15,7,15,10,3,10,a, b\r\n",
    1: "",
    2: '2, 1, 10, 1, 10, 5, 2, 5, "R1"\n',
}
POLYGONS = {
    0: [[2, 1, 10, 1, 10, 5, 2, 5], [3, 7, 15, 7, 15, 10, 3, 10], [1, 6, 9, 7, 9, 11, 1, 10]],
    1: [],
    2: [[2, 1, 10, 1, 10, 5, 2, 5]],
}


@pytest.fixture
def streets(tmp_path):
    for i, text in LABELS.items():
        save(tmp_path / "images" / f"img_{i}.jpg", noise(i))
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"gt_img_{i}.txt").write_bytes(text.encode())
    return tmp_path


def icdar(root, **options) -> Icdar:
    options = {"image_size": (24, 24), "eval_fraction": 0.0, **options}
    return Icdar(str(root / "images"), str(root / "labels"), **options)


def test_polygons_in_shares_of_the_image_the_unreadable_last(streets):
    taken = take_all(icdar(streets))
    np.testing.assert_array_equal(taken["polygons_mask"], [[1, 1, 0], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(taken["polygons_ignored"], [[0, 0, 1], [0, 0, 0], [0, 0, 0]])
    for i, polygons in POLYGONS.items():
        for row, flat in enumerate(polygons):
            expected = np.reshape(flat, (4, 2))[:, ::-1] / np.array(SIZE)
            np.testing.assert_allclose(taken["polygons"][i, row], expected, rtol=1e-6)
        assert not taken["polygons"][i, len(polygons) :].any()


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
@pytest.mark.parametrize(
    "line, message",
    [
        ("2,1,10,1,10,1,2,1,x", r"gt_img_0.txt, line 2: the polygon .* has no area"),
        ("2,1,10,5,10,1,2,5,x", "not convex"),
        ("20,1,30,1,30,5,20,5,x", "outside the image"),
        ("2,1,10,1,10,5,2,x", r"outside the image|is not x1,y1|no area"),
        ("hello", "is not x1,y1"),
        ("2,1,10,1,10,500,2,500,x", "outside the image"),
    ],
)
def test_polygons_that_break_a_rule(streets, line, message):
    (streets / "labels" / "gt_img_0.txt").write_text(f"2,1,10,1,10,5,2,5,a\n{line}\n")
    with pytest.raises(DataError, match=message):
        icdar(streets).open("train")
    taken = take_all(icdar(streets, invalid="skip"))
    np.testing.assert_array_equal(taken["polygons_mask"].sum(axis=1), [1, 0, 1])


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
def test_images_without_labels_and_too_many_polygons(streets):
    with pytest.raises(DataError, match="has 2 polygons; max_items=1"):
        icdar(streets, max_items=1).open("train")
    with pytest.warns(UserWarning, match="2 polygons and 1 that are ignored; max_items=2"):
        taken = take_all(icdar(streets, max_items=2))
    np.testing.assert_array_equal(taken["polygons_mask"][0], [1, 1])
    (streets / "labels" / "gt_img_1.txt").unlink()
    with pytest.raises(DataError, match=r"there is no gt_img_1\.txt"):
        icdar(streets).open("train")
    assert len(take_all(icdar(streets, invalid="skip"))["image"]) == 2
