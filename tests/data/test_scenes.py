"""Scenes: their labels agree with their pixels and with each other, and scene i depends on nothing
but (seed, split, i).
"""

import dataclasses

import numpy as np
import pytest

from jaxcnn.data.made import photos
from jaxcnn.data.made.digits import Digits
from jaxcnn.data.made.photos import EVAL_BACKGROUNDS, PHOTOS, TRAIN_BACKGROUNDS, read_photo
from jaxcnn.data.made.scenes import Scenes, backgrounds, cutouts
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops import masks

ALL = (
    "image",
    "boxes",
    "boxes_mask",
    "box_labels",
    "label",
    "segmentation",
    "instance_masks",
    "points",
    "points_mask",
)
SCENES = Scenes(
    items=Digits(),
    entries=ALL,
    image_size=(48, 40),
    item_heights=(10.0, 24.0),
    num_train=500,
    num_eval=50,
)
COUNT = 40


@pytest.fixture(scope="module")
def batch():
    return {name: np.asarray(x) for name, x in SCENES.open("train").take(np.arange(COUNT)).items()}


def test_shapes_and_dtypes_are_as_announced(batch):
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == {
        n: (s.shape, s.dtype) for n, s in SCENES.spec().items()
    }
    assert set(batch) == set(ALL)


def test_boxes_are_tight_around_the_masks(batch):
    size = np.array([*SCENES.image_size] * 2)
    for mask, box in zip(
        batch["instance_masks"].reshape(-1, *SCENES.image_size),
        batch["boxes"].reshape(-1, 4),
        strict=True,
    ):
        np.testing.assert_allclose(box * size, masks.to_box(mask > 0), atol=1e-5)


def test_mask_class_and_segmentation_agree(batch):
    assert set(np.unique(batch["instance_masks"])) == {0, 255}
    for i in range(COUNT):
        inked, label = batch["instance_masks"][i] > 0, batch["box_labels"][i]
        assert (inked.any((1, 2)) == (batch["boxes_mask"][i] == 1)).all()
        assert (inked.any(0) == (batch["segmentation"][i] > 0)).all()
        for mask, k in zip(inked, label, strict=True):
            alone = mask & (inked.sum(0) == 1)
            assert (batch["segmentation"][i][alone] == 1 + k).all()
        assert (batch["image"][i][inked.any(0), 0] >= 127).all(), "ink is bright"
        assert (batch["image"][i][~inked.any(0), 0] <= 153).all(), (
            "photographs are dimmed to 60 %, and the rim of ink is below 1/2"
        )


def test_numbers_of_items_and_their_distance(batch):
    counts = batch["boxes_mask"].sum(1)
    assert set(counts) == {1, 2, 3}
    assert (batch["label"] == batch["box_labels"][:, 0]).all()
    assert 0 <= batch["box_labels"].min() < batch["box_labels"].max() <= 9
    heights = (batch["boxes"][..., 2] - batch["boxes"][..., 0])[
        batch["boxes_mask"] == 1
    ] * SCENES.image_size[0]
    assert SCENES.item_heights[0] - 2 <= heights.min() < heights.max() <= SCENES.item_heights[1] + 2
    for boxes, mask in zip(batch["boxes"], batch["boxes_mask"], strict=True):
        real = boxes[mask == 1]
        for i, a in enumerate(real):
            for b in real[:i]:
                shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
                areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
                assert shared / (sum(areas) - shared) < SCENES.max_iou + 0.06, (
                    "ink boxes differ from the planned ones by a pixel's rounding"
                )


def test_points_are_the_ends_of_the_first_item(batch):
    height, width = SCENES.image_size
    for mask, box, points in zip(
        batch["instance_masks"][:, 0] > 0, batch["boxes"][:, 0], batch["points"], strict=True
    ):
        rows, columns = np.nonzero(mask)
        top, low, left, right, centroid = points * [height, width]
        np.testing.assert_allclose(centroid, [rows.mean() + 0.5, columns.mean() + 0.5], atol=1e-4)
        ends = [top[0] - 0.5, left[1] - 0.5, low[0] + 0.5, right[1] + 0.5]
        np.testing.assert_allclose(ends, box * [height, width, height, width], atol=1e-4)
        np.testing.assert_allclose(top[1], columns[rows == rows.min()].mean() + 0.5, atol=1e-4)
        np.testing.assert_allclose(right[0], rows[columns == columns.max()].mean() + 0.5, atol=1e-4)


def test_a_scene_depends_on_seed_split_and_index_alone(batch):
    again = SCENES.open("train").take(np.array([[7], [3]]))
    for name, x in again.items():
        np.testing.assert_array_equal(np.asarray(x)[:, 0], batch[name][[7, 3]])
    few = (
        dataclasses.replace(SCENES, entries=("image", "label"), num_train=10)
        .open("train")
        .take(np.arange(4))
    )
    np.testing.assert_array_equal(few["image"], batch["image"][:4])
    small = dataclasses.replace(SCENES, num_train=4, num_eval=4)
    for other in (dataclasses.replace(small, seed=1).open("train"), small.open("eval")):
        assert (
            (np.asarray(other.take(np.arange(4))["image"]) != batch["image"][:4])
            .any((1, 2, 3))
            .all()
        )


def test_train_and_eval_share_neither_items_nor_photographs():
    assert not set(TRAIN_BACKGROUNDS) & set(EVAL_BACKGROUNDS)
    train, evaluation = (np.asarray(cutouts(Digits(), split)[0]) for split in ("train", "eval"))
    pictures = {digit.tobytes() for digit in train}
    assert not any(digit.tobytes() in pictures for digit in evaluation)


def test_the_photographs_lie_behind():
    pixels, places = (np.asarray(x) for x in backgrounds(("camera", "coins"), (64, 64)))
    for name, (start, height, width) in zip(("camera", "coins"), places, strict=True):
        np.testing.assert_array_equal(
            pixels[start : start + height * width].reshape(height, width),
            read_photo(name, channels=1)[..., 0],
        )


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"entries": ("image", "boxs")}, "'boxs' is unknown.*boxes"),
        ({"min_items": 3, "max_items": 2}, "min_items=3, max_items=2"),
        ({"item_heights": (10.0, 80.0)}, "item_heights"),
        ({"train_photos": ("coffee", "astronaut")}, r"\['astronaut'\] lie behind both splits"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SCENES, **fields)


def test_wrong_splits_photos_and_indices(monkeypatch):
    with pytest.raises(DataError, match="no 'test' scenes"):
        SCENES.open("test")
    with pytest.raises(IndexError, match=r"\[0, 49\]"):
        SCENES.open("eval").take(np.array([50]))
    with pytest.raises(ConfigError, match=r"'cofee' is unknown.*coffee"):
        dataclasses.replace(SCENES, eval_photos=("cofee",)).open("eval")
    with pytest.raises(DataError, match="smaller than the scenes"):
        backgrounds(("coins",), (400, 400))
    monkeypatch.setattr(photos, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install"):
        photos.photo_folder()


@pytest.mark.parametrize("name", PHOTOS)
def test_every_photograph_is_there(name):
    assert read_photo(name).shape[2] == 3
