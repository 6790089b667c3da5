"""Lines and scenes of text: what is drawn is what is written, splits share nothing, and all of it
follows from (seed, split, index).
"""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcnn.data.made.digits import Digits
from jaxcnn.data.made.photos import read_photo
from jaxcnn.data.made.text_scenes import APART, TextLines, TextScenes
from jaxcnn.data.memory import MemorySource
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops import polygons

pytest.importorskip("skimage", reason="the photographs come with scikit-image")
BRICKS = ("brick",), ("grass",)
LINES = TextLines(
    items=Digits(), num_train=90, num_eval=30, train_photos=BRICKS[0], eval_photos=BRICKS[1]
)
SCENES = TextScenes(
    items=Digits(), num_train=90, num_eval=30, train_photos=BRICKS[0], eval_photos=BRICKS[1]
)
both = pytest.mark.parametrize("data", [LINES, SCENES], ids=["lines", "scenes"])
scenes_slowly = pytest.mark.parametrize(
    "data",
    [
        pytest.param(LINES, id="lines"),
        pytest.param(SCENES, id="scenes", marks=pytest.mark.slow),  # twenty seconds each
    ],
)


@dataclasses.dataclass(frozen=True)
class Bars:
    """Items whose label can be read off any rendering: label k is a white block 8 high and 2 + 2k
    wide. All "eval" items are label 3.
    """

    def spec(self):
        return {
            "image": jax.ShapeDtypeStruct((28, 28, 1), np.uint8),
            "label": jax.ShapeDtypeStruct((), np.int32),
        }

    @property
    def label_names(self):
        return ("narrow", "wide", "wider", "widest")

    def size(self, split):
        return 4

    def open(self, split):
        labels = np.arange(4, dtype=np.int32) if split == "train" else np.full(4, 3, np.int32)
        images = np.zeros((4, 28, 28, 1), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[10:18, 6 : 8 + 2 * label] = 255
        return MemorySource({"image": images, "label": labels})


def taken(data, split="train", indices=None):
    source = data.open(split)
    return jax.device_get(
        source.take(np.arange(len(source)) if indices is None else np.asarray(indices))
    )


@both
def test_spec_sizes_and_ranges(data):
    batch, spec = taken(data), data.spec()
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == {
        name: (s.shape, s.dtype) for name, s in spec.items()
    }
    assert (data.size("train"), data.size("eval"), data.size("test")) == (90, 30, 0)
    assert batch["image"].max() > 200
    with pytest.raises(DataError, match="no 'test' examples"):
        data.open("test")


@scenes_slowly
def test_an_example_is_a_function_of_seed_split_and_index(data):
    whole, part = taken(data), taken(data, indices=[[7, 3], [3, 80]])
    for name, values in part.items():
        np.testing.assert_array_equal(values, whole[name][[[7, 3], [3, 80]]])
    longer = taken(dataclasses.replace(data, num_train=500), indices=np.arange(90))
    np.testing.assert_array_equal(longer["image"], whole["image"])
    other = taken(dataclasses.replace(data, seed=1))["image"]
    assert not any(np.array_equal(a, b) for a, b in zip(other, whole["image"], strict=True))
    assert len({image.tobytes() for image in whole["image"]}) == 90


def test_lines_have_all_lengths_and_padding_only_at_the_end():
    text = taken(dataclasses.replace(LINES, num_train=300))["text"]
    length = (text > 0).sum(1)
    assert sorted(set(length.tolist())) == [2, 3, 4, 5, 6]
    np.testing.assert_array_equal(text > 0, np.arange(6) < length[:, None])
    assert set(text[text > 0].tolist()) == set(range(1, 11))


def bright_runs(image):
    """Columns (start, end) of each stretch of columns that hold white ink."""
    white = np.pad((image[..., 0] > 200).any(0), 1)
    change = np.diff(white.astype(int))
    return np.stack([np.flatnonzero(change == 1), np.flatnonzero(change == -1)], 1)


def test_the_text_says_what_is_drawn_from_left_to_right():
    """Bars whose proportions tell their label, in the order of the text."""
    data = dataclasses.replace(
        LINES, items=Bars(), image_size=(40, 200), heights=(16.0, 24.0), max_length=4, num_train=60
    )
    batch, seen = taken(data), 0
    for image, text in zip(batch["image"], batch["text"], strict=True):
        labels, runs = text[text > 0] - 1, bright_runs(image)
        if len(runs) != len(labels):
            continue  # two characters touch
        seen += 1
        for label, (start, end) in zip(labels, runs, strict=True):
            height = (image[:, start:end, 0] > 200).any(1).sum()
            assert (end - start) / height == pytest.approx((2 + 2 * label) / 8, abs=0.17)
    assert seen > 30


def test_transposed_items_are_turned_over():
    """Bars, transposed, are 8 wide and 2 + 2k high."""
    # of each side: a linearly enlarged edge passes its half value, not 200, where the bar ends
    lost = 2 * (200 / 255 - 0.5)
    data = dataclasses.replace(
        LINES,
        items=Bars(),
        image_size=(40, 400),
        heights=(20.0, 24.0),
        max_length=3,
        transposed=True,
    )
    batch, seen = taken(data), 0
    for image, text in zip(batch["image"], batch["text"], strict=True):
        labels, runs = text[text > 0] - 1, bright_runs(image)
        for label, (start, end) in (
            zip(labels, runs, strict=True) if len(runs) == len(labels) else ()
        ):
            seen += 1
            height = (image[:, start:end, 0] > 200).any(1).sum()
            ratio = (2 + 2 * label - lost) / (8 - lost)
            # each is counted in whole pixels
            assert abs(height - ratio * (end - start)) <= 1 + ratio
    assert seen > 30


@scenes_slowly
def test_evaluation_takes_its_own_items_and_photographs(data):
    """Bars of evaluation are all of label 3, and the photographs of each split have their own
    brightness.
    """
    data = dataclasses.replace(data, items=Bars())
    if "text" in data.spec():
        assert set(taken(data)["text"].ravel().tolist()) == {0, 1, 2, 3, 4}
        assert set(taken(data, "eval")["text"].ravel().tolist()) == {0, 4}
    ranges = []
    for split, name in (("train", "brick"), ("eval", "grass")):
        photo = read_photo(name, channels=1)
        image = taken(data, split)["image"]
        ground = image[image < 200]
        ranges.append(float(np.median(ground)) / float(np.median(photo)))
    assert all(0.3 < ratio < 0.62 for ratio in ranges)
    with pytest.raises(ConfigError, match=r"\['brick'\] lie behind both splits"):
        dataclasses.replace(data, eval_photos=("brick",))


@pytest.mark.parametrize("size", [pytest.param((96, 96), marks=pytest.mark.slow), (64, 96)])
def test_polygons_hold_their_ink_and_nothing_else_does(size):
    """Bars: white cells lie in the polygons, and each polygon is filled by them to its upper and
    lower end.
    """
    batch = taken(dataclasses.replace(SCENES, items=Bars(), image_size=size))
    scaled = batch["polygons"] * np.array(size, np.float32)
    for image, shapes, mask in zip(
        batch["image"][..., 0], scaled, batch["polygons_mask"], strict=True
    ):
        middle = shapes.mean(1, keepdims=True)
        wider = middle + (shapes - middle) * 1.05 + np.sign(shapes - middle)
        inside = np.asarray(polygons.fill(jax.numpy.asarray(wider), size))[mask > 0].any(0)
        assert not (image[~inside] > 200).any()
        for one in shapes[mask > 0]:
            assert (
                image[np.asarray(polygons.fill(jax.numpy.asarray(one), size))] > 200
            ).mean() > 0.3


def test_scenes_have_one_to_three_sound_lines_apart_and_in_the_image():
    batch = taken(dataclasses.replace(SCENES, num_train=300))
    mask, shapes = batch["polygons_mask"], batch["polygons"] * 96
    assert set(mask.sum(1).tolist()) == {1.0, 2.0, 3.0}
    assert mask[:, 0].all()
    assert not shapes[mask == 0].any()
    shapes_alone = shapes[mask > 0]
    assert polygons.is_convex(shapes_alone).all()
    assert shapes_alone.min() > -0.01
    assert shapes_alone.max() < 96.01
    for row, there in zip(shapes, mask > 0, strict=True):
        for i, one in enumerate(row[there]):
            for other in row[there][i + 1 :]:
                wider = one + (APART - 0.1) * np.sign(one - one.mean(0))
                assert polygons.intersection_area(wider, other) < 1.0
    right, down = shapes_alone[:, 1] - shapes_alone[:, 0], shapes_alone[:, 3] - shapes_alone[:, 0]
    angle = np.rad2deg(np.arctan2(-right[:, 0], right[:, 1]))
    assert abs(angle).max() <= 15
    assert 0.4 < (abs(angle) < 1e-3).mean() < 0.6
    assert angle.min() < -10
    assert angle.max() > 10
    np.testing.assert_allclose((right * down).sum(-1), 0, atol=0.05)  # right angles
    assert np.linalg.norm(down, axis=-1).max() <= 18.01


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: dataclasses.replace(LINES, min_length=0), "min_length=0"),
        (lambda: dataclasses.replace(LINES, min_length=7), "min_length=7, max_length=6"),
        (lambda: dataclasses.replace(LINES, heights=(16.0, 40.0)), "heights="),
        (lambda: dataclasses.replace(SCENES, heights=(2.0, 9.0)), "heights="),
        (lambda: dataclasses.replace(SCENES, max_lines=0), "max_lines is 0"),
        (lambda: dataclasses.replace(SCENES, degrees=60.0), "degrees is 60"),
    ],
)
def test_bad_fields_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
