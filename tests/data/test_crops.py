"""Crops of photographs: where they come from, that no split sees another's, and the small pictures
against Pillow.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.made.photo_crops import (
    EVAL_PHOTOS,
    TRAIN_PHOTOS,
    PhotoCrops,
    WholePhotos,
    resize_photo,
)
from jaxcnn.data.made.photos import PHOTOS
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics.image_quality import resize_bicubic

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
HEIGHT, WIDTH = 40, 50


def photo(number):
    """Every pixel says where it is: red its row, green its column, blue its photograph."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([y, x, np.full_like(y, number)], axis=-1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        Image.fromarray(photo(number)).save(tmp_path / f"{number}.png")
    return tmp_path


def crops(folder, **fields):
    names = {"train": ("0.png", "1.png"), "eval": ("2.png",)}
    paths = {split: tuple(str(folder / name) for name in names[split]) for split in names}
    return PhotoCrops(
        **{
            **paths,
            "image_size": (12, 12),
            "eval_size": (16, 20),
            "num_train": 200,
            "num_eval": 30,
            **fields,
        }
    )


def test_a_training_crop_is_a_window_of_a_training_photograph_in_one_of_eight_orientations(folder):
    image = crops(folder).open("train").take(np.arange(200))["image"].astype(int)
    assert image.shape == (200, 12, 12, 3)
    orientations = set()
    for crop in image:
        y, x, number = np.moveaxis(crop, -1, 0)
        steps = tuple(
            int(s)
            for s in (y[1, 0] - y[0, 0], x[1, 0] - x[0, 0], y[0, 1] - y[0, 0], x[0, 1] - x[0, 0])
        )
        orientations.add(steps)
        rows, columns = np.mgrid[:12, :12]
        np.testing.assert_array_equal(y, y[0, 0] + steps[0] * rows + steps[2] * columns)
        np.testing.assert_array_equal(x, x[0, 0] + steps[1] * rows + steps[3] * columns)
        assert len(np.unique(number)) == 1
    assert set(image[..., 2].ravel()) == {0, 1}
    ends = {
        (1, 0, 0, 1),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (-1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, -1, 1, 0),
        (0, 1, -1, 0),
        (0, -1, -1, 0),
    }
    assert orientations == ends
    np.testing.assert_array_equal(
        image[..., :2].min((0, 1, 2)), [0, 0], "every row and column can be reached"
    )
    np.testing.assert_array_equal(image[..., :2].max((0, 1, 2)), [HEIGHT - 1, WIDTH - 1])


def test_an_evaluation_crop_is_upright_and_of_a_photograph_not_trained_on(folder):
    image = crops(folder).open("eval").take(np.arange(30))["image"].astype(int)
    assert image.shape == (30, 16, 20, 3)
    assert np.all(image[..., 2] == 2)
    assert np.all(np.diff(image[..., 0], axis=1) == 1)
    assert np.all(np.diff(image[..., 1], axis=2) == 1)


def test_a_training_photograph_may_also_appear_smaller(folder):
    image = (
        crops(folder, reductions=(1.0, 0.5)).open("train").take(np.arange(200))["image"].astype(int)
    )
    inner = image[:, 3:9, 3:9, 0]  # away from the photograph's border
    # turned crops have it across
    slope = np.abs(np.diff(inner, axis=1)[:, :, :5]) + np.abs(np.diff(inner, axis=2)[:, :5])
    typical = np.median(slope, axis=(1, 2))
    assert set(np.unique(typical)) == {1.0, 2.0}, (
        "rows differ by one in the photograph, by two in its half"
    )
    np.testing.assert_array_equal(
        crops(folder, reductions=(0.5,)).open("eval").take(np.arange(30))["image"],
        crops(folder).open("eval").take(np.arange(30))["image"],
    )


def test_a_crop_is_a_function_of_seed_split_and_index(folder):
    data = crops(folder)
    whole, some = (
        data.open("train").take(indices)["image"]
        for indices in (np.arange(50), np.array([[7, 3], [3, 49]]))
    )
    np.testing.assert_array_equal(some, whole[[[7, 3], [3, 49]]])
    other = crops(folder, seed=1).open("train").take(np.arange(50))["image"]
    assert (other != whole).any(axis=(1, 2, 3)).mean() > 0.9


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_small_picture_is_the_bicubic_reduction_of_the_target(folder, scale):
    example = crops(folder, scale=scale, eval_size=(24, 36)).open("eval").take(np.arange(3))
    low, target = example["image"], example["target"]
    assert (low.dtype, target.dtype, low.shape) == (
        np.float32,
        np.uint8,
        (3, 24 // scale, 36 // scale, 3),
    )
    value = target.astype(np.float32) / 255
    np.testing.assert_allclose(low, resize_bicubic(jnp.asarray(value), low.shape[1:3]), atol=1e-6)
    theirs = Image.fromarray(value[1, ..., 0]).resize(
        (36 // scale, 24 // scale), Image.Resampling.BICUBIC
    )
    np.testing.assert_allclose(low[1, ..., 0], np.asarray(theirs), atol=1e-6)


def test_spec_and_size_need_no_file():
    data = PhotoCrops(train=("$NOWHERE/train",), eval=("$NOWHERE/eval",), scale=2, num_train=7)
    assert {name: (s.shape, s.dtype) for name, s in data.spec().items()} == {
        "image": ((24, 24, 3), np.float32),
        "target": ((48, 48, 3), np.uint8),
    }
    assert [data.size(split) for split in ("train", "eval", "test")] == [7, 60, 0]


def test_the_splits_of_the_photographs_are_disjoint():
    assert not set(TRAIN_PHOTOS) & set(EVAL_PHOTOS)
    assert set(TRAIN_PHOTOS) | set(EVAL_PHOTOS) <= set(PHOTOS)
    assert not any("butterfly" in name for name in (*TRAIN_PHOTOS, *EVAL_PHOTOS)), (
        "Set5 is a benchmark"
    )


def test_a_folder_stands_for_its_pictures_in_the_order_of_their_names(folder, monkeypatch):
    monkeypatch.setenv("JAXCNN_TEST_PHOTOS", str(folder))
    (folder / "notes.txt").write_text("not a picture")
    data = PhotoCrops(train=("coffee",), eval=("$JAXCNN_TEST_PHOTOS",), eval_size=(8, 8))
    assert set(data.open("eval").take(np.arange(60))["image"][..., 2].ravel()) == {0, 1, 2, 3}
    whole = (
        WholePhotos(("$JAXCNN_TEST_PHOTOS",), image_size=(HEIGHT, WIDTH))
        .open("train")
        .take(np.arange(4))["image"]
    )
    np.testing.assert_array_equal(whole, np.stack([photo(number) for number in range(4)]))


def test_a_benchmark_is_taken_whole_or_is_absent(folder, monkeypatch):
    monkeypatch.delenv("JAXCNN_TEST_PHOTOS", raising=False)
    data = crops(
        folder,
        scale=3,
        test=("$JAXCNN_TEST_PHOTOS/3.png",),
        image_size=(12, 12),
        eval_size=(15, 15),
    )
    assert data.size("test") == 0
    with pytest.raises(DataError, match="not set"):
        data.open("test")
    monkeypatch.setenv("JAXCNN_TEST_PHOTOS", str(folder))
    assert data.size("test") == 1
    np.testing.assert_array_equal(
        data.open("test").take(np.arange(1))["target"][0], photo(3)[:39, :48]
    )


def test_a_photo_is_resized_as_a_whole(folder):
    image = resize_photo(str(folder / "1.png"), (20, 25))
    assert (image.shape, image.dtype) == ((20, 25, 3), np.uint8)
    # a ramp stays a ramp
    np.testing.assert_allclose(image[3:-3, 12, 0], 2 * np.arange(3, 17) + 0.5, atol=0.51)


@pytest.mark.parametrize(
    "fields, says",
    [
        (
            {"train": ("coffee", "moon"), "eval": ("moon",)},
            "moon would be trained on and evaluated on",
        ),
        (
            {"train": ("a/butterfly.png",), "test": ("a/butterfly.png",)},
            "butterfly.png would be trained on",
        ),
        ({"train": "coffee"}, "give a tuple of names"),
        ({"scale": 1}, "scale is 1"),
        ({"scale": 2, "image_size": (48, 47)}, r"image_size is \(48, 47\)"),
        ({"scale": 3}, "multiples of scale 3"),
        ({"reductions": (1.0, 1.5)}, r"reductions are \(1.0, 1.5\)"),
    ],
)
def test_bad_settings_are_refused(fields, says):
    with pytest.raises(ConfigError, match=says):
        PhotoCrops(**fields)


def test_bad_photographs_are_refused(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    cases = [
        ({"eval": (str(empty),)}, DataError, "no pictures in this folder"),
        ({"eval": (str(folder / "none.png"),)}, DataError, "no such file"),
        (
            {"eval": ("$JAXCNN_TEST_NOTHING/x.png",)},
            DataError,
            "environment variable in it is not set",
        ),
        ({"eval": ("cofee",)}, ConfigError, "did you mean 'coffee'"),
        ({"eval_size": (41, 20)}, DataError, "40 x 50 pixels are too few"),
    ]
    for fields, error, says in cases:
        with pytest.raises(error, match=says):
            crops(folder, **fields).open("eval")
    Image.fromarray(photo(0)[:20]).save(folder / "low.png")
    with pytest.raises(DataError, match="of one size"):
        crops(folder, test=(str(folder / "low.png"), str(folder / "3.png"))).open("test")
