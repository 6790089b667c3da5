"""Examples that nobody can learn from, or that cannot be what was meant: each is refused with an
error of the data (exit code 3) before anything is trained, or said on the console.
"""

import dataclasses
import re
import warnings
from functools import partial

import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import DataError
from jaxcnn.runs.evaluation import open_checked
from jaxcnn.tasks.binary import BinaryClassification
from jaxcnn.tasks.captioning import Captioning
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.dense_detection import DenseDetection
from jaxcnn.tasks.dense_regression import DenseRegression
from jaxcnn.tasks.keypoints import Keypoints
from jaxcnn.tasks.localization import Localization
from jaxcnn.tasks.multi_label import MultiLabel
from jaxcnn.tasks.recognition import TextRecognition
from jaxcnn.tasks.regression import Regression
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.tasks.super_resolution import SuperResolution
from jaxcnn.tasks.text_detection import TextDetection

ROWS = 200


class Net(nn.Module):
    @nn.compact
    def __call__(self, *inputs, train):
        return nn.Dense(3)(inputs[0].reshape(len(inputs[0]), -1))


def good(name):
    """Rows [ROWS, ...] of an entry that break no rule."""
    random = np.random.default_rng(0)
    corner = random.uniform(0.1, 0.4, (ROWS, 2, 2))
    makes = {
        "image": lambda: random.integers(0, 256, (ROWS, 8, 8, 1), dtype=np.uint8),
        "label": lambda: np.arange(ROWS, dtype=np.int32) % 3,
        "label_b": lambda: np.arange(ROWS, dtype=np.int32)[::-1] % 3,
        "label_weight": lambda: np.full(ROWS, 0.5),
        "weight": lambda: np.ones(ROWS),
        "signal": lambda: random.normal(size=(ROWS, 16, 2)),
        "values": lambda: random.normal(size=(ROWS, 2)),
        "labels": lambda: random.integers(0, 2, (ROWS, 3)).astype(np.float32),
        "boxes": lambda: np.concatenate([corner, corner + 0.3], -1),
        "boxes_mask": lambda: np.ones((ROWS, 2)),
        "box_labels": lambda: np.ones((ROWS, 2), np.int32),
        "segmentation": lambda: random.integers(0, 3, (ROWS, 8, 8), dtype=np.int32),
        "value_map": lambda: random.normal(size=(ROWS, 8, 8, 1)),
        "points": lambda: random.uniform(0, 1, (ROWS, 2, 2)),
        "text": lambda: np.tile(np.array([1, 2, 0], np.int32), (ROWS, 1)),
        "captions": lambda: np.tile(np.array([1, 4, 5, 2, 0], np.int32), (ROWS, 1, 1)),
        "polygons": lambda: np.tile(
            np.array([[0.1, 0.1], [0.1, 0.6], [0.6, 0.6], [0.6, 0.1]]), (ROWS, 1, 1, 1)
        ),
        "polygons_mask": lambda: np.ones((ROWS, 1)),
        "target": lambda: random.integers(0, 256, (ROWS, 32, 32, 1), dtype=np.uint8),
    }
    return makes[name]()


def put(value, *place):
    """Set rows at a place."""

    def change(array):
        array = np.array(array, np.asarray(value).dtype if np.isnan(value) else array.dtype)
        array[place] = value
        return array

    return change


def nan(*place):
    def change(array):
        array = array / 255.0 if array.dtype == np.uint8 else array.astype(np.float64)
        array[place] = np.nan
        return array

    return change


def all_of(value):
    return lambda array: np.full_like(array, value)


C, R = Classification(num_classes=3), Regression(num_values=2)
CLASSES = (C, ("image", "label"))
BOXES = (DenseDetection(num_classes=3), ("image", "boxes", "boxes_mask", "box_labels"))
ONE = (Localization(num_classes=3), ("image", "label", "boxes", "boxes_mask"))
MASKS = (Segmentation(num_classes=3), ("image", "segmentation"))
NUMBERS = (R, ("image", "values"))
POINTS = (Keypoints(num_points=2), ("image", "points"))
MANY = (MultiLabel(num_classes=3), ("image", "labels"))
WORDS = (Captioning(vocabulary_size=9), ("image", "captions"))
LINES = (TextRecognition(alphabet="ab", stride=1), ("image", "text"))
REGIONS = (TextDetection(), ("image", "polygons", "polygons_mask"))
MAPS = (DenseRegression(num_values=1), ("image", "value_map"))
SERIES = (dataclasses.replace(C, inputs=("signal",)), ("signal", "label"))
LARGER = (SuperResolution(scale=4), ("image", "target"))
LAST = ROWS - 1

# (task and entries, {entry: change of its rows}, what is said)
CASES = {
    "a label below 0 in the last row": (CLASSES, {"label": put(-1, LAST)}, r"label\[199\] is -1"),
    "a label too large in row 150": (CLASSES, {"label": put(3, 150)}, r"label\[150\] is 3"),
    "labels from 1": (CLASSES, {"label": lambda x: x + 1}, "count classes from 0"),
    "labels as floats": (CLASSES, {"label": lambda x: x.astype(np.float32)}, "float32"),
    "labels that are NaN": (CLASSES, {"label": nan(7)}, "float32"),
    "one-hot labels": (CLASSES, {"label": lambda x: np.eye(3, dtype=np.int32)[x]}, "one-hot"),
    "labels as text": (CLASSES, {"label": lambda x: x.astype(str)}, "text"),
    "labels of 40 bits": (CLASSES, {"label": lambda x: x.astype(np.int64) << 40}, "32 bits"),
    "a share of a mixed picture of 7": (
        (C, ("image", "label", "label_b", "label_weight")),
        {"label_weight": put(7.0, LAST)},
        r"label_weight' has values in \[0.5, 7\]",
    ),
    "a row that counts below 0": (
        (C, ("image", "label", "weight")),
        {"weight": put(-1.0, LAST)},
        "weight' has values",
    ),
    "no row that counts": (
        (C, ("image", "label", "weight")),
        {"weight": all_of(0)},
        "no example counts",
    ),
    "one class alone": (CLASSES, {"label": all_of(1)}, "one class"),
    "all images black": (CLASSES, {"image": all_of(0)}, "equal"),
    "all images white": (CLASSES, {"image": all_of(255)}, "equal"),
    "all images the same": (CLASSES, {"image": lambda x: np.repeat(x[:1], ROWS, 0)}, "equal"),
    "bytes of 0 and 1": (CLASSES, {"image": lambda x: x % 2}, "0 and 1 only"),
    "divided by 255 twice": (CLASSES, {"image": lambda x: x / 255.0 / 255}, "twice"),
    "floats up to 255": (CLASSES, {"image": lambda x: x.astype(np.float32)}, "must lie in"),
    "standardized images": (CLASSES, {"image": lambda x: x / 128.0 - 1}, "must lie in"),
    "a pixel that is NaN": (CLASSES, {"image": nan(LAST, 3, 4, 0)}, "nan"),
    "a pixel that is infinite": (
        CLASSES,
        {"image": lambda x: put(np.inf, 9, 0, 0, 0)(x / 255.0)},
        "inf",
    ),
    "images of text": (CLASSES, {"image": lambda x: x.astype(str)}, "must be numbers"),
    "images of 16 bits": (CLASSES, {"image": lambda x: x.astype(np.uint16) * 257}, r"\[0, 255\]"),
    "channels first": (
        CLASSES,
        {"image": lambda x: np.repeat(x.transpose(0, 3, 1, 2), 3, 1)},
        "channels",
    ),
    "rows of pixels": (CLASSES, {"image": lambda x: x.reshape(ROWS, -1)}, "reshape"),
    "fewer labels than images": (CLASSES, {"label": lambda x: x[:-1]}, "number of examples"),
    "more labels than images": (
        CLASSES,
        {"label": lambda x: np.append(x, 0)},
        "number of examples",
    ),
    "no example": (CLASSES, {"image": lambda x: x[:0], "label": lambda x: x[:0]}, "no examples"),
    "one example": (CLASSES, {"image": lambda x: x[:1], "label": lambda x: x[:1]}, "one example"),
    "no label": ((C, ("image",)), {}, "needs 'label'|'label'"),
    "a binary label of 2": ((BinaryClassification(), CLASSES[1]), {}, r"must lie in \[0, 2\)"),
    "a series with NaN": (SERIES, {"signal": nan(150, 3, 0)}, "finite"),
    "a series that is infinite": (SERIES, {"signal": put(np.inf, 0, 0, 0)}, "finite"),
    "series all equal": (SERIES, {"signal": all_of(2.5)}, "equal"),
    "numbers that are constant": (NUMBERS, {"values": all_of(2.5)}, "constant|equal"),
    "a number that is NaN": (NUMBERS, {"values": nan(LAST, 1)}, "finite"),
    "numbers of another width": (NUMBERS, {"values": lambda x: x[:, :1]}, "num_values"),
    "a map with NaN": (MAPS, {"value_map": nan(LAST, 0, 0, 0)}, "finite"),
    "maps of another size": (MAPS, {"value_map": lambda x: x[:, :4]}, "8x8"),
    "a box upside down": (BOXES, {"boxes": lambda x: x[..., [2, 1, 0, 3]]}, "y0 < y1|empty"),
    "boxes in pixels": (BOXES, {"boxes": lambda x: x * 300}, r"\[0, 1\]"),
    "a box that is NaN": (BOXES, {"boxes": nan(LAST, 0, 0)}, "nan|finite"),
    "a box outside": (BOXES, {"boxes": put(1.5, LAST, 1, 3)}, r"\[0, 1\]"),
    "a box of an unknown class": (BOXES, {"box_labels": put(3, LAST, 0)}, "box_labels|label"),
    "boxes none of which is there": (BOXES, {"boxes_mask": all_of(0)}, "no object|nothing"),
    "an image without its box": (ONE, {"boxes_mask": put(0.0, LAST)}, r"boxes_mask\[199"),
    "a class map outside": (MASKS, {"segmentation": put(3, LAST, 0, 0)}, r"is 3\b"),
    "a class map of 0 alone": (MASKS, {"segmentation": all_of(0)}, "one class"),
    "a class map of 255 alone": (MASKS, {"segmentation": all_of(255)}, "ignored"),
    "a class map of bytes": (MASKS, {"segmentation": lambda x: x.astype(np.uint8)}, "uint8"),
    "class maps of another size": (MASKS, {"segmentation": lambda x: x[:, :4]}, "4x8"),
    "points in pixels": (POINTS, {"points": lambda x: x * 200}, r"\[0, 1\]"),
    "a point that is NaN": (POINTS, {"points": nan(LAST, 1, 0)}, "nan"),
    "points of another number": (POINTS, {"points": lambda x: x[:, :1]}, "2 points"),
    "labels beyond 1": (MANY, {"labels": put(2.0, LAST, 0)}, r"\[0, 1\]"),
    "labels that nobody has": (MANY, {"labels": all_of(0)}, "0 everywhere|no example"),
    "captions of nothing": (WORDS, {"captions": all_of(0)}, "caption"),
    "captions without an end": (WORDS, {"captions": all_of(4)}, "start|end"),
    "a word beyond the vocabulary": (WORDS, {"captions": put(9, LAST, 0, 1)}, "vocabulary_size"),
    "texts of nothing": (LINES, {"text": all_of(0)}, "text"),
    "a character beyond the alphabet": (LINES, {"text": put(3, LAST, 0)}, "unknown character"),
    "padding within a text": (LINES, {"text": lambda x: x[:, [0, 2, 1]]}, "padding"),
    "a text longer than its image": (
        LINES,
        {"text": lambda x: np.tile(x, 9)[:, :1].repeat(9, 1)},
        "frames|long",
    ),
    "a polygon crossed": (REGIONS, {"polygons": lambda x: x[:, :, [0, 2, 1, 3]]}, "convex"),
    "a polygon that is NaN": (REGIONS, {"polygons": nan(LAST, 0, 0, 0)}, "image"),
    "a target of another size": (LARGER, {"target": lambda x: x[:, :16, :16]}, "scale 4"),
}


def experiment(task, train, held):
    return Experiment(
        model=Net(),
        task=task,
        data=Arrays(train=train, eval=held),
        steps=1,
        optimizer=partial(optax.sgd, learning_rate=0.1),
        batch_size=4,
    )


@pytest.mark.parametrize("task, names", {id(c[0]): c[0] for c in CASES.values()}.values())
def test_good_rows_pass_without_a_word(task, names):
    rows = {name: good(name) for name in names}
    if isinstance(task, BinaryClassification):
        rows["label"] = rows["label"] % 2
    if "label" not in names and isinstance(task, Classification):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for split in ("train", "eval"):
            assert len(open_checked(experiment(task, rows, rows), split)) == ROWS


@pytest.mark.parametrize("name", CASES)
def test_bad_rows_are_refused_or_said(name):
    (task, names), changes, said = CASES[name]
    rows = {n: good(n) for n in names}
    rows |= {n: change(rows[n]) for n, change in changes.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            open_checked(experiment(task, rows, rows), "train")
            messages = [str(w.message) for w in caught]
        except DataError as error:
            messages = [str(error)]
    assert any(re.search(said, m, re.IGNORECASE) for m in messages), messages


def test_pictures_of_another_size_than_those_for_training_are_said():
    rows = {name: good(name) for name in ("image", "label")}
    held = rows | {"image": np.pad(rows["image"], ((0, 0), (0, 1), (0, 1), (0, 0)))}
    e = experiment(C, rows, held)
    with pytest.warns(UserWarning, match=r"'image' is \[9, 9, 1\], and \[8, 8, 1\] for training"):
        open_checked(e, "eval")


def test_a_stream_is_questioned_by_its_sample(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / name / f"{i}.png")
    e = experiment(C, {}, {})
    e = dataclasses.replace(e, data=Folder(str(tmp_path), image_size=(8, 8), memory_mib=0))
    with pytest.warns(UserWarning, match="'image' is equal in all 4 examples"):
        assert open_checked(e, "train").streaming
    pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a" / "0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_checked(e, "train")
