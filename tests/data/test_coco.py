"""COCO annotation files: masks as pycocotools draws them, labels that stay on their pixels, and
files that are broken in every way.
"""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.files.coco import Coco
from jaxcnn.data.memory import MemorySource
from jaxcnn.data.stream import StreamSource
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops import masks

# pycocotools with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (24, 32)
JOINTS = ("nose", "left_hand", "right_hand")
EVERYTHING = ("boxes", "instance_masks", "segmentation", "points", "captions")


def coco_box(mask: np.ndarray) -> list[float]:
    y0, x0, y1, x1 = masks.to_box(mask).tolist()
    return [x0, y0, x1 - x0, y1 - y0]


def blob(random: np.random.Generator) -> list[float]:
    """A polygon (x, y, …) of 7 corners around a random centre, in half pixels."""
    angles = np.sort(random.uniform(0, 2 * np.pi, 7))
    radius, centre = random.uniform(2, 7, 7), random.uniform(8, 16, 2)
    points = centre + np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=-1)
    return (np.round(points * 2) / 2).ravel().tolist()


def annotation_file() -> dict:
    """Four images: of two polygons each, but for the last, which has none; one mask is compressed
    run lengths, one a crowd.
    """
    random = np.random.default_rng(0)
    content = {
        "images": [
            {"id": 70 + i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]}
            for i in range(4)
        ],
        "categories": [
            {"id": 9, "name": "cat", "keypoints": list(JOINTS)},
            {"id": 4, "name": "dog"},
            {"id": 30, "name": "eel"},
        ],
        "annotations": [],
    }
    for image in range(3):
        for item in range(2 + image):
            polygon = blob(random)
            shape, crowd = [polygon], 0
            mask = masks.fill_polygons(shape, SIZE)
            if item == 2:
                shape = {"size": list(SIZE), "counts": masks.compress(masks.encode(mask)["counts"])}
            if item == 3:
                shape, crowd = masks.encode(mask), 1
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": 70 + image,
                    "category_id": (4, 9, 30)[item % 3],
                    "bbox": coco_box(mask),
                    "segmentation": shape,
                    "iscrowd": crowd,
                    "caption": f"Animal {item}, a  nice one.",
                    "keypoints": [8, 6, 2, 31.5, 0, 1, 0, 0, 0] if item == 1 else [0] * 9,
                }
            )
    return content


@pytest.fixture
def write(tmp_path):
    """A function that writes the images and an annotation file, and gives the file's path."""
    random = np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.fromarray(random.integers(0, 256, (*SIZE, 3), np.uint8)).save(
            tmp_path / "images" / f"{i}.png"
        )

    def write(content, name: str = "labels.json") -> str:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return str(tmp_path / name)

    return write


def coco(path: str, **options) -> Coco:
    images = str(Path(path).parent / "images")
    return Coco(
        path, images, **{"image_size": SIZE, "eval_fraction": 0.0, "min_count": 1, **options}
    )


def take_all(data: Coco, split: str = "train") -> dict[str, np.ndarray]:
    """All examples of a split; their shapes and dtypes are those of `spec`."""
    source = data.open(split)
    taken = {name: np.asarray(array) for name, array in source.take(np.arange(len(source))).items()}
    assert {name: (array.shape[1:], array.dtype) for name, array in taken.items()} == {
        name: (entry.shape, entry.dtype) for name, entry in data.spec().items()
    }
    return taken


@pytest.mark.parametrize("memory_mib, kind", [(100, MemorySource), (0, StreamSource)])
def test_boxes_and_labels(write, memory_mib, kind):
    content = annotation_file()
    data = coco(write(content), memory_mib=memory_mib)
    assert isinstance(data.open("train"), kind)
    assert data.label_names == ("dog", "cat", "eel")  # by id
    taken = take_all(data)
    assert taken["boxes"].shape == (4, 4, 4)
    ids = [4, 9, 30]
    for image in range(4):
        told = [a for a in content["annotations"] if a["image_id"] == 70 + image]
        told, count = sorted(told, key=lambda a: a["iscrowd"]), sum(not a["iscrowd"] for a in told)
        np.testing.assert_array_equal(taken["boxes_mask"][image], np.arange(4) < count)
        for name in ("boxes_ignored", "boxes_crowd"):  # the rows after the objects
            crowds = (np.arange(4) >= count) & (np.arange(4) < len(told))
            np.testing.assert_array_equal(taken[name][image], crowds)
        np.testing.assert_array_equal(taken["original_size"][image], SIZE)
        for row, a in enumerate(told):
            x, y, width, height = a["bbox"]
            pixels = taken["boxes"][image, row] * np.tile(np.array(SIZE, np.float32), 2)
            np.testing.assert_allclose(pixels, [y, x, y + height, x + width], atol=1e-4)
            assert taken["box_labels"][image, row] == ids.index(a["category_id"])
        assert not taken["boxes"][image, len(told) :].any()


@pytest.mark.parametrize("factor", [1, 2])
def test_masks_equal_those_of_pycocotools(write, factor):
    """At the image's own size, and with polygons scaled to another one."""
    peer = pytest.importorskip("pycocotools.coco")
    tools = pytest.importorskip("pycocotools.mask")
    path = write(annotation_file())
    theirs = peer.COCO(path)
    size = (SIZE[0] * factor, SIZE[1] * factor)
    taken = take_all(coco(path, entries=("instance_masks",), image_size=size))["instance_masks"]
    compared = 0
    for image in range(4):
        annotations = sorted(theirs.imgToAnns[70 + image], key=lambda a: a["iscrowd"])
        for row, a in enumerate(annotations):
            if factor == 1:
                expected = theirs.annToMask(a)
            elif isinstance(a["segmentation"], list):
                scaled = [[v * factor for v in polygon] for polygon in a["segmentation"]]
                expected = tools.decode(tools.merge(tools.frPyObjects(scaled, *size)))
            else:
                expected = theirs.annToMask(a).repeat(factor, axis=0).repeat(factor, axis=1)
            np.testing.assert_array_equal(taken[image, row], 255 * expected)
            compared += 1
        assert not taken[image, len(annotations) :].any()
    assert compared == 9


def test_segmentation_has_the_smaller_object_on_top_and_ignores_crowds(write):
    content = annotation_file()
    taken = take_all(coco(write(content), entries=("segmentation",)))["segmentation"]
    ids = [4, 9, 30]
    for image in range(4):
        expected = np.zeros(SIZE, np.int32)
        told = [a for a in content["annotations"] if a["image_id"] == 70 + image]
        drawn = [
            masks.fill_polygons(a["segmentation"], SIZE)
            if isinstance(a["segmentation"], list)
            else masks.decode(a["segmentation"])
            for a in told
        ]
        for y, x in np.ndindex(*SIZE):
            here = [
                (mask.sum(), ids.index(a["category_id"]) + 1)
                for a, mask in zip(told, drawn, strict=True)
                if mask[y, x] and not a["iscrowd"]
            ]
            crowd = any(mask[y, x] for a, mask in zip(told, drawn, strict=True) if a["iscrowd"])
            expected[y, x] = min(here)[1] if here else 255 * crowd
        np.testing.assert_array_equal(taken[image], expected)


def test_points_of_all_objects(write):
    content = annotation_file()
    taken = take_all(coco(write(content), entries=("points",)))
    np.testing.assert_array_equal(
        taken["points_mask"][0], [[0, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    )
    np.testing.assert_allclose(taken["points"][0, 1], [[6 / 24, 8 / 32], [0, 31.5 / 32], [0, 0]])


def test_crops_carry_the_points_on_their_pixels(tmp_path):
    """Each labelled point is a bright square of 5 x 5 pixels; it is bright in the crop too, and the
    only bright thing there.
    """
    (tmp_path / "images").mkdir()
    random, images, annotations = np.random.default_rng(0), [], []
    for i in range(20):
        picture, points = np.zeros((60, 80), np.uint8), random.integers([4, 4], [56, 76], (3, 2))
        for y, x in points[:2]:
            picture[y - 2 : y + 3, x - 2 : x + 3] = 255
        Image.fromarray(picture).save(tmp_path / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 60, "width": 80})
        (y0, x0), (y1, x1) = points[:2].min(0) - 3, points[:2].max(0) + 4
        box = [
            float(v)
            for v in (max(x0, 0), max(y0, 0), min(x1, 80) - max(x0, 0), min(y1, 60) - max(y0, 0))
        ]
        flat = [
            float(v)
            for (y, x), flag in zip(points, (2, 1, 0), strict=True)
            for v in (x + 0.5, y + 0.5, flag)
        ]
        annotations.append(
            {"id": i, "image_id": i, "category_id": 0, "bbox": box, "keypoints": flat}
        )
    # no point: no example
    annotations.append(
        {"id": 99, "image_id": 0, "category_id": 0, "bbox": [1, 1, 9, 9], "keypoints": [0.0] * 9}
    )
    categories = [{"id": 0, "name": "hand", "keypoints": list(JOINTS)}]
    (tmp_path / "a.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    data = coco(
        str(tmp_path / "a.json"), entries=("points",), crops=True, image_size=(96, 72), channels=1
    )
    assert data.size("train") == 20
    taken = take_all(data)
    assert set(taken) == {"image", "label", "points", "points_mask"}
    np.testing.assert_array_equal(taken["points_mask"], np.tile([1, 1, 0], (20, 1)))
    for image, points in zip(taken["image"][..., 0], taken["points"], strict=True):
        near = np.zeros(image.shape, bool)
        for y, x in points[:2] * [96, 72]:
            assert image[int(y), int(x)] > 200
            rows, columns = np.indices(image.shape)
            near |= np.maximum(abs(rows + 0.5 - y), abs(columns + 0.5 - x)) < 45
        assert image[~near].max(initial=0) < 50


def test_captions_are_tokens_of_the_training_vocabulary(write):
    content = annotation_file()
    data = coco(write(content), entries=("captions",), num_captions=3, caption_length=6)
    assert data.label_names[:4] == ("<pad>", "<start>", "<end>", "<unknown>")
    taken = take_all(data)
    words = [data.label_names[token] for token in taken["captions"][0, 1]]
    assert words == ["<start>", "animal", "1", "a", "nice", "<end>"]
    assert not taken["captions"][3].any()
    assert data.vocabulary == ()


def test_captions_alone_need_no_categories(write):
    content = annotation_file()
    told = [
        {name: a[name] for name in ("id", "image_id", "caption")} for a in content["annotations"]
    ]
    data = coco(write({"images": content["images"], "annotations": told}), entries=("captions",))
    assert take_all(data)["captions"][2, 3].any()


def test_evaluation_files_are_matched_by_the_names_of_the_categories(write):
    content = annotation_file()
    other = copy.deepcopy(content)
    renumbered = {4: 1000, 9: 2, 30: 5}
    for category in other["categories"]:
        category["id"] = renumbered[category["id"]]
    for a in other["annotations"]:
        a["category_id"] = renumbered[a["category_id"]]
    path, eval_path = write(content), write(other, "eval.json")
    data = coco(path, eval_path=eval_path, eval_images=str(Path(path).parent / "images"))
    np.testing.assert_array_equal(
        take_all(data, "eval")["box_labels"], take_all(data)["box_labels"]
    )
    other["categories"][0]["name"] = "kat"
    with pytest.raises(
        DataError, match=r"'kat'.*do not occur in the training file.*did you mean 'cat'"
    ):
        coco(path, eval_path=write(other, "eval.json")).size("eval")


def test_held_out_images_are_no_training_images(write):
    data = coco(write(annotation_file()), eval_fraction=0.25, entries=("boxes",))
    train, held = take_all(data), take_all(data, "eval")
    assert (len(train["image"]), len(held["image"])) == (3, 1)
    assert not any(np.array_equal(image, held["image"][0]) for image in train["image"])


def test_crops_of_one_image_stay_on_one_side(write):
    data = coco(
        write(annotation_file()),
        eval_fraction=0.5,
        entries=("label",),
        crops=True,
        image_size=(9, 9),
    )
    assert (data.size("train"), data.size("eval")) == (2 + 3, 3 + 0)  # images 0 and 2, 1 and 3
    assert take_all(data)["label"].tolist() == [0, 1, 0, 1, 2]


def test_everything_at_once_and_room_for_fewer_objects(write):
    data = coco(write(annotation_file()), entries=EVERYTHING, max_items=2, invalid="skip")
    with pytest.warns(UserWarning, match="2 labels break a rule"):
        taken = take_all(data)
    assert taken["boxes_mask"].sum() == 6
    with pytest.raises(DataError, match="has 3 objects; max_items=2"):
        coco(write(annotation_file()), max_items=2).size("train")


def edit(path: tuple, value):
    """A change to an annotation file: the value at a path of keys."""

    def change(content):
        node = content
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


FAULTS = [
    (edit(("annotations", 0, "bbox"), [3, 4, 0, 5]), r"annotation 0 of image 70 \(0.png\): box .* "
                                                     r"is empty"),
    (edit(("annotations", 0, "bbox"), [3, 4, 5, -2]), "is empty"),
    (edit(("annotations", 0, "bbox"), [30, 4, 9, 5]), "lies outside the image"),
    (edit(("annotations", 0, "bbox"), [300, 4, 9, 5]), "lies outside the image"),
    (edit(("annotations", 0, "bbox"), [3, 4, 5]), r"bbox is \[3, 4, 5\]"),
    (edit(("annotations", 0, "bbox"), [3, 4, 5, float("nan")]), "bbox is"),
    (edit(("annotations", 0, "category_id"), 77), r"category_id is 77; the categories are \[4, 9, "
                                                  r"30\]"),
    (edit(("annotations", 0, "image_id"), 1), r"annotations\[0\] has image_id 1"),
    (edit(("annotations", 0, "segmentation"), [[1, 1, 5, 5]]), "at least 3 points"),
    (edit(("annotations", 0, "segmentation"), [[1, 1, 5, 5, 9, 9]]), "no area"),
    (edit(("annotations", 0, "segmentation"), [[1, 1, 5, 5, 9, 1e6]]), "far outside"),
    (edit(("annotations", 0, "segmentation"), []), "polygons or run lengths"),
    (edit(("annotations", 0, "segmentation"), {"size": [32, 24], "counts": [768]}), r"size \[32, "
                                                                                    r"24\] and "
                                                                                    r"the image "
                                                                                    r"\[24, 32\]"),
    (edit(("annotations", 0, "segmentation"), {"size": [24, 32], "counts": [7]}), "run lengths"),
    (edit(("annotations", 0, "keypoints"), [1, 2, 2]), "3 points need x, y and a flag each"),
    (edit(("images", 0, "file_name"), "none.png"), r"none.png: there is no such image file"),
    (edit(("images", 0, "height"), 25), r"is \(24, 32\) .* annotation says \(25, 32\)"),
    (edit(("images", 0, "file_name"), None), r"images\[0\]"),
    (edit(("images", 1, "id"), 70), "none of the 3 images|the id 70 of another image"),
    (edit(("images", 1, "file_name"), "0.png"), r"images\[1\] is the file of images\[0\]"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
@pytest.mark.parametrize("change, message", FAULTS)
def test_a_label_that_breaks_a_rule_is_refused_or_left_out_alone(write, change, message):
    content = annotation_file()
    whole = take_all(coco(write(content), entries=EVERYTHING))
    change(content)
    path = write(content)
    with pytest.raises(DataError, match=message) as error:
        coco(path, entries=EVERYTHING).open("train")
    assert "invalid='skip'" in str(error.value)
    rest = take_all(coco(path, entries=EVERYTHING, invalid="skip"))
    lost = whole["boxes_mask"].sum() - rest["boxes_mask"].sum()
    second = "another image" in message or "is the file" in message  # has three objects
    assert lost == (1 if len(rest["image"]) == 4 else (3 if second else 2))
    np.testing.assert_array_equal(rest["boxes"][-2], whole["boxes"][-2])


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": []}', "has no list 'annotations'"),
        ('{"images": [], "annotations": []}', "'categories' is not a list"),
        ('{"images": [], "annotations": [], "categories": []}', "are none"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, '
            '"name": "a"}]}',
            "share an id or a name",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            "no examples for training",
        ),
    ],
)
def test_files_that_are_no_coco_files(write, content, message):
    with pytest.raises(DataError, match=message):
        coco(write(content)).size("train")


def test_missing_file_and_wrong_entries(tmp_path):
    with pytest.raises(DataError, match="no such annotation file"):
        coco(str(tmp_path / "none.json")).spec()
    assert coco(str(tmp_path / "none.json"), max_items=7, entries=("instance_masks",)).spec()[
        "instance_masks"
    ].shape == (7, *SIZE)
    with pytest.raises(ConfigError, match="entries"):
        coco("a.json", entries=("box",))
    with pytest.raises(ConfigError, match="Coco with crops"):
        coco("a.json", entries=("boxes",), crops=True)


def places(node, path=()):
    """All paths to values in a JSON tree."""
    children = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


@pytest.mark.filterwarnings("ignore:.*labels break a rule")
def test_junk_anywhere_is_a_data_error_or_harmless(write):
    """Any value of the file replaced by any other: either a DataError, or examples that keep the
    rules.
    """
    random, content = np.random.default_rng(0), annotation_file()
    paths = list(places(content))
    junk = [
        None,
        -1,
        1e9,
        "x",
        [],
        {},
        [1, 2],
        True,
        {"size": [24, 32], "counts": "0"},
        [[0, 0, 1, 0, 1, 1]],
        "",
        float("inf"),
    ]
    refused = 0
    for _ in range(150):
        broken = copy.deepcopy(content)
        edit(paths[random.integers(len(paths))], junk[random.integers(len(junk))])(broken)
        try:
            taken = take_all(
                coco(
                    write(broken), entries=EVERYTHING, invalid=("error", "skip")[random.integers(2)]
                )
            )
        except DataError:
            refused += 1
            continue
        exists = taken["boxes_mask"] > 0
        boxes = taken["boxes"][exists]
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert ((taken["box_labels"] >= 0) & (taken["box_labels"] < 3)).all()
    assert 30 < refused < 150


EXAMPLES = os.environ.get("JAXCNN_LABELME_EXAMPLES", "")


@pytest.mark.skipif(
    not EXAMPLES,
    reason="JAXCNN_LABELME_EXAMPLES does not name the examples folder of Debian's labelme-examples",
)
def test_real_photographs_with_real_labels():
    """Three photographs of Pascal VOC 2011 in COCO form: each mask fills its box, and looks like
    pycocotools'.
    """
    peer = pytest.importorskip("pycocotools.coco")
    path = Path(EXAMPLES) / "instance_segmentation" / "data_dataset_coco" / "annotations.json"
    theirs = peer.COCO(str(path))
    data = Coco(str(path), entries=("instance_masks",), image_size=(375, 500), eval_fraction=0.0)
    taken = take_all(data)
    assert taken["boxes_mask"].sum() == 12
    for image, number in enumerate(sorted(theirs.imgs)):
        if theirs.imgs[number]["height"] != 375:
            continue
        for row, a in enumerate(theirs.imgToAnns[number]):
            np.testing.assert_array_equal(
                taken["instance_masks"][image, row] > 0, theirs.annToMask(a) > 0
            )
