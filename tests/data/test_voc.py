"""Folders in the form of Pascal VOC: boxes counted from pixel 1, masks by object, image sets, and
broken files.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.files.images import read_image
from jaxcnn.data.files.voc import VOC_CLASSES, Voc
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops import masks

SIZE = (20, 30)
# (class, difficult, rows, columns) of the objects of each image, the first on top
OBJECTS = (
    (("dog", 0, (2, 9), (3, 12)), ("cat", 1, (10, 20), (20, 30)), ("person", 0, (0, 20), (0, 30))),
    (("cat", 0, (5, 6), (7, 8)),),
    (),
)


def xml(objects, size=SIZE) -> str:
    """An annotation whose boxes hold pixels rows[0] to rows[1] - 1, counted from 0."""
    text = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, difficult, (y0, y1), (x0, x1) in objects
    )
    pixels = f"<width>{size[1]}</width><height>{size[0]}</height>"
    return f"<annotation><size>{pixels}</size>{text}</annotation>"


def numbers(objects) -> np.ndarray:
    """The mask of objects: 1 for the first, …, with a void border of 255 in the last column."""
    out = np.zeros(SIZE, np.uint8)
    for number, (_, _, (y0, y1), (x0, x1)) in reversed(list(enumerate(objects, 1))):
        out[y0:y1, x0:x1] = number
    out[:, 15] = 255
    return out


@pytest.fixture
def root(tmp_path) -> Path:
    for folder in (
        "JPEGImages",
        "Annotations",
        "SegmentationClass",
        "SegmentationObject",
        "ImageSets/Main",
        "ImageSets/Segmentation",
    ):
        (tmp_path / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for i, objects in enumerate(OBJECTS):
        Image.fromarray(random.integers(0, 256, (*SIZE, 3), np.uint8)).save(
            tmp_path / "JPEGImages" / f"im{i}.jpg"
        )
        (tmp_path / "Annotations" / f"im{i}.xml").write_text(xml(objects))
        labels = np.array(
            [0, *(VOC_CLASSES.index(name) + 1 for name, *_ in objects)] + [255] * 255, np.uint8
        )[:256]
        for folder, pixels in (
            ("SegmentationObject", numbers(objects)),
            ("SegmentationClass", labels[numbers(objects)]),
        ):
            image = Image.fromarray(pixels).convert("P")
            image.putdata(pixels.ravel().tolist())
            image.putpalette(random.integers(0, 256, 768).tolist())
            image.save(tmp_path / folder / f"im{i}.png")
    for kind in ("Main", "Segmentation"):
        (tmp_path / "ImageSets" / kind / "train.txt").write_text("im0\nim1  1\n")
        (tmp_path / "ImageSets" / kind / "val.txt").write_text("im2\n\n")
    return tmp_path


def voc(root, **options) -> Voc:
    return Voc(str(root), **{"image_size": SIZE, **options})


def take_all(data, split: str = "train") -> dict[str, np.ndarray]:
    """All examples of a split; their shapes and dtypes are those of `spec`."""
    source = data.open(split)
    taken = {name: np.asarray(array) for name, array in source.take(np.arange(len(source))).items()}
    assert {name: (array.shape[1:], array.dtype) for name, array in taken.items()} == {
        name: (entry.shape, entry.dtype) for name, entry in data.spec().items()
    }
    return taken


@pytest.mark.parametrize("difficult", [False, True])
def test_boxes_hold_the_pixels_that_the_file_counts_from_one(root, difficult):
    data = voc(root, difficult=difficult)
    assert [data.size(split) for split in ("train", "eval", "test")] == [2, 1, 0]
    taken = take_all(data)
    for i, objects in enumerate(OBJECTS[:2]):
        kept = [entry for entry in objects if difficult or not entry[1]]
        expected = [[y0, x0, y1, x1] for _, _, (y0, y1), (x0, x1) in kept]
        assert taken["boxes_mask"][i].sum() == len(kept)
        np.testing.assert_allclose(
            taken["boxes"][i, : len(kept)] * np.tile(np.array(SIZE, np.float32), 2),
            expected,
            atol=1e-5,
        )
        assert [VOC_CLASSES[label] for label in taken["box_labels"][i, : len(kept)]] == [
            entry[0] for entry in kept
        ]
        np.testing.assert_array_equal(
            taken["image"][i], read_image(root / "JPEGImages" / f"im{i}.jpg", size=None, channels=3)
        )
    assert not take_all(data, "eval")["boxes_mask"].any()


def test_corners_from_the_edge(root):
    """A box from 0 to 30 is the whole width where corners are distances."""
    for i in (0, 1):
        (root / "Annotations" / f"im{i}.xml").write_text(xml([("dog", 0, (-1, 20), (-1, 30))]))
    boxes = take_all(voc(root, first_pixel=0))["boxes"]
    np.testing.assert_array_equal(boxes[0, 0], [0, 0, 1, 1])


@pytest.mark.parametrize("factor", [1, 3])
def test_masks_of_objects_and_classes(root, factor):
    data = voc(
        root,
        entries=("instance_masks", "segmentation"),
        image_size=(SIZE[0] * factor, SIZE[1] * factor),
    )
    taken = take_all(data)
    for i, objects in enumerate(OBJECTS[:2]):
        number, row = numbers(objects).repeat(factor, axis=0).repeat(factor, axis=1), 0
        segmentation = np.where(number == 255, 255, 0)
        for place, (name, difficult, *_) in enumerate(objects, 1):
            segmentation[number == place] = VOC_CLASSES.index(name) + 1
            if not difficult:
                np.testing.assert_array_equal(
                    taken["instance_masks"][i, row], np.where(number == place, 255, 0)
                )
                assert taken["box_labels"][i, row] == VOC_CLASSES.index(name)
                row += 1
        assert taken["boxes_mask"][i].sum() == row
        np.testing.assert_array_equal(taken["segmentation"][i], segmentation)


def test_names_may_be_found(root):
    data = voc(root, names=())
    assert data.label_names == ("cat", "dog", "person")
    assert take_all(data)["box_labels"][0, :2].tolist() == [1, 2]


def test_names_that_are_found_and_differ_in_case_alone_are_refused(tmp_path):
    for i in range(2):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "0.xml").write_text(xml(OBJECTS[0]))
    (tmp_path / "1.xml").write_text(xml(OBJECTS[0]).replace(">dog<", ">Dog<"))
    with pytest.raises(DataError, match=r"'Dog'.*'dog'.*differ only in case"):
        _ = voc(tmp_path, names=()).label_names


def test_without_image_sets_and_folders(tmp_path):
    """As LabelImg leaves it: XML files beside the images; some are held out."""
    for i in range(8):
        Image.fromarray(np.full((*SIZE, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.xml").write_text(xml(OBJECTS[0]))
    data = voc(tmp_path, eval_fraction=0.25)
    seen = [
        int(image[0, 0, 0])
        for split in ("train", "eval")
        for image in take_all(data, split)["image"]
    ]
    assert (data.size("train"), data.size("eval")) == (6, 2)
    assert sorted(seen) == list(range(8))


FAULTS = [
    ("Annotations/im0.xml", xml([("dog", 0, (5, 5), (3, 9))]), "object 1: box .* is empty"),
    ("Annotations/im0.xml", xml([("dog", 0, (9, 5), (3, 9))]), "is empty"),
    ("Annotations/im0.xml", xml([("dog", 0, (9, 25), (3, 9))]), "lies outside the image"),
    ("Annotations/im0.xml", xml([("dogg", 0, (2, 5), (3, 9))]), "class 'dogg'.*did you mean 'dog'"),
    (
        "Annotations/im0.xml",
        xml([("dog", 0, (2, 5), (3, 9))]).replace("<xmin>4", "<xmin>four"),
        "must be four numbers",
    ),
    (
        "Annotations/im0.xml",
        xml([("dog", 0, (2, 5), (3, 9))]).replace("<xmin>4", "<xmin>nan"),
        "not finite",
    ),
    (
        "Annotations/im0.xml",
        xml([("dog", 0, (2, 5), (3, 9))], size=(30, 20)),
        r"is \(20, 30\) .* annotation says \(30",
    ),
    ("Annotations/im0.xml", "<annotation><object>", "cannot be read as XML"),
    ("Annotations/im0.xml", None, "no such annotation file"),
    ("JPEGImages/im0.jpg", None, "there is no image 'im0'"),
    ("JPEGImages/im0.jpg", "no picture", "cannot be read as an image"),
]


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
@pytest.mark.parametrize("name, content, message", FAULTS)
def test_what_breaks_a_rule_is_refused_or_left_out(root, name, content, message):
    good = take_all(voc(root))
    if content is None:
        (root / name).unlink()
    else:
        (root / name).write_text(content)
    with pytest.raises(DataError, match=message) as error:
        voc(root).open("train")
    assert "im0" in str(error.value)
    rest = take_all(voc(root, invalid="skip"))
    # the other image is as it was
    np.testing.assert_array_equal(rest["image"][-1], good["image"][-1])
    np.testing.assert_array_equal(rest["boxes"][-1, :1], good["boxes"][-1, :1])
    assert len(rest["image"]) == 1 or not rest["boxes_mask"][0].any()


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
@pytest.mark.parametrize(
    "pixels, message",
    [
        (np.zeros((10, 30), np.uint8), r"is \(10, 30\) .* and its image"),
        (np.zeros(SIZE, np.uint8), "no pixel is 1, the number of an object of im0.xml"),
    ],
)
def test_masks_that_do_not_fit(root, pixels, message):
    Image.fromarray(pixels).save(root / "SegmentationObject" / "im0.png")
    with pytest.raises(DataError, match=message):
        voc(root, entries=("instance_masks",)).open("train")
    assert take_all(voc(root, entries=("instance_masks",), invalid="skip"))["boxes_mask"].sum() == 1


def test_strange_classes_of_pixels_are_ignored(root):
    Image.fromarray(np.full(SIZE, 77, np.uint8)).save(root / "SegmentationClass" / "im0.png")
    with pytest.raises(DataError, match=r"600 pixels hold \[77\]"):
        voc(root, entries=("segmentation",)).open("train")
    with pytest.warns(UserWarning, match="1 labels"):
        assert (
            take_all(voc(root, entries=("segmentation",), invalid="skip"))["segmentation"][0] == 255
        ).all()


def test_more_objects_than_rows(root):
    with pytest.raises(DataError, match="has 3 objects; max_items=1"):
        voc(root, max_items=1, difficult=True).open("train")
    with pytest.warns(UserWarning, match="1 labels"):
        taken = take_all(voc(root, max_items=1, difficult=True, invalid="skip"))
    assert VOC_CLASSES[taken["box_labels"][0, 0]] == "person"  # the largest


def test_wrong_fields(root):
    with pytest.raises(DataError, match=r"no such image set; .*did you mean 'train'"):
        voc(root, train="trian").size("train")
    with pytest.raises(ConfigError, match="entries"):
        voc(root, entries=("points",))
    with pytest.raises(ConfigError, match="first_pixel"):
        voc(root, first_pixel=2)
    with pytest.raises(DataError, match="no such folder"):
        voc(root / "none").size("train")


EXAMPLES = os.environ.get("JAXCNN_LABELME_EXAMPLES", "")


@pytest.mark.skipif(
    not EXAMPLES,
    reason="JAXCNN_LABELME_EXAMPLES does not name the examples folder of Debian's labelme-examples",
)
def test_real_photographs_with_real_labels():
    """Three photographs of VOC 2011, labelled by hand: nine boxes."""
    path = Path(EXAMPLES) / "bbox_detection" / "data_dataset_voc"
    data = voc(path, first_pixel=0, eval_fraction=0.0, image_size=(64, 64))
    assert (data.size("train"), take_all(data)["boxes_mask"].sum()) == (3, 9)
    assert {VOC_CLASSES[label] for label in take_all(data)["box_labels"].ravel()} >= {
        "person",
        "bus",
    }


def test_a_mask_fills_its_box(root):
    """Where nothing covers an object, the box around its mask is its box."""
    data = voc(root, entries=("instance_masks",))
    taken = take_all(data)
    np.testing.assert_allclose(
        masks.to_box(taken["instance_masks"][1, 0] > 0) / np.tile(SIZE, 2),
        taken["boxes"][1, 0],
        rtol=1e-6,
    )
