"""Localization, detection by centers, instance segmentation: trials of the shared tests, their
losses and maps against formulas written out in NumPy, and what bad data say."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops import centers
from jaxcnn.ops.roi_paste import roi_paste
from jaxcnn.runs.check import abstract_state
from jaxcnn.runs.train import train
from jaxcnn.tasks.dense_detection import DenseDetection, focal_loss
from jaxcnn.tasks.detection import CenterDetection, center_loss
from jaxcnn.tasks.instances import InstanceSegmentation
from jaxcnn.tasks.localization import Localization
from tests import trials
from tests.trials import Trial, labels, to_jax

# three objects side by side, one in each third of the image
CLASSES, GRID, SIZE, OBJECTS = (
    3,
    (6, 9),
    (24, 36),
    3,
)
LOCALIZATION = Localization(num_classes=4, box_weight=2.0)
DETECTION = CenterDetection(num_classes=CLASSES, image_size=SIZE, max_objects=6)
DENSE = DenseDetection(
    num_classes=CLASSES,
    image_size=SIZE,
    max_objects=6,
    strides=(4, 8),
    limits=(7.0,),
    num_candidates=20,
)
PLACES = 6 * 9 + 3 * 5  # of both maps
INSTANCES = InstanceSegmentation(
    num_classes=CLASSES, image_size=SIZE, max_objects=6, mask_weight=0.5
)


def f32(values):
    return np.array(values, np.float32)


def random_boxes(generator, *shape):
    """Boxes of at least a tenth of the image, on a grid of 1/40, so that centers and corners fall
    on the borders of cells too.
    """
    low = generator.integers(0, 20, (*shape, 2))
    return (
        np.concatenate([low, low + generator.integers(4, 20, (*shape, 2))], axis=-1) / 40
    ).astype(np.float32)


def one_object(generator, rows):
    boxes = random_boxes(generator, rows, 2)
    return labels(4)(generator, rows) | {
        "boxes": boxes,
        "boxes_mask": np.ones((rows, 2), np.float32),
    }


def one_object_or_none_to_find(generator, rows):
    """As `one_object`; the objects of rows 2 and 3 need not be found."""
    flag, crowd = (f32(np.arange(rows) == row)[:, None] * [[1, 0]] for row in (2, 3))
    batch = one_object(generator, rows)
    return batch | {
        "boxes_mask": f32(batch["boxes_mask"] - flag - crowd),
        "boxes_ignored": f32(flag + crowd),
        "boxes_crowd": f32(crowd),
    }


def one_box(generator, rows):
    return {
        "logits": generator.normal(size=(rows, 4)).astype(np.float32),
        "box": random_boxes(generator, rows),
    }


def objects(generator, rows):
    """Boxes with sides of 8 or 12 pixels in each third of a 24x36 image; the last one of every
    second row does not exist.
    """
    sides = 4 * generator.integers(2, 4, (rows, OBJECTS, 2))
    low = np.stack(
        [
            generator.integers(0, SIZE[0] - sides[..., 0] + 1),
            12 * np.arange(OBJECTS) + (12 - sides[..., 1]) // 2,
        ],
        axis=-1,
    )
    mask = np.ones((rows, OBJECTS), np.float32)
    mask[1::2, -1] = 0
    boxes = np.concatenate([low, low + sides], axis=-1) / np.array([*SIZE, *SIZE])
    label = (np.arange(rows)[:, None] + np.arange(OBJECTS)) % CLASSES
    return {
        "boxes": (boxes * mask[..., None]).astype(np.float32),
        "boxes_mask": mask,
        "box_labels": label.astype(np.int32),
    }


def objects_and_others(generator, rows):
    """As `objects`; the last one of every second row is there after all, but need not be found:
    alone in rows 1, 5, …, a crowd in rows 3, 7, …. Original pictures are 1, 6 or 20 times as large.
    """
    batch = objects(np.random.default_rng(generator.integers(1 << 30)), rows)
    there = objects(generator, 2 * rows)  # its even rows have all objects
    missing = batch["boxes_mask"] == 0
    batch["boxes"][missing] = there["boxes"][::2][missing]
    size = np.array([[1], [6], [20]])[np.arange(rows) % 3] * np.array(SIZE)
    extent = (batch["boxes"][..., 2:] - batch["boxes"][..., :2]) * size[:, None]
    return batch | {
        "boxes_ignored": f32(missing),
        "boxes_crowd": f32(missing & (np.arange(rows)[:, None] % 4 == 3)),
        "box_areas": f32(0.8 * extent.prod(axis=-1)),
        "original_size": size.astype(np.int32),
    }


def shown(batch):
    """What lies in the picture: what is to be found, and what need not be."""
    return np.argwhere((batch["boxes_mask"] > 0) | (batch.get("boxes_ignored", 0) > 0))


def objects_with_masks(generator, rows, make=objects):
    """Each mask the upper and the lower quarter of its box: two bars."""
    batch = make(generator, rows)
    masks = np.zeros((rows, OBJECTS, *SIZE), np.float32)
    for row, column in shown(batch):
        y0, x0, y1, x1 = np.rint(batch["boxes"][row, column] * np.array([*SIZE, *SIZE])).astype(int)
        masks[row, column, y0:y1, x0:x1] = 1
        masks[row, column, (3 * y0 + y1) // 4 : (y0 + 3 * y1) // 4, x0:x1] = 0
    return batch | {"instance_masks": masks}


def random_maps(generator, rows):
    return {
        "heatmap": generator.normal(size=(rows, *GRID, CLASSES)).astype(np.float32),
        "size": generator.uniform(1.5, 3.5, (rows, *GRID, 2)).astype(np.float32),
        "offset": generator.random((rows, *GRID, 2)).astype(np.float32),
    }


def random_maps_and_masks(generator, rows):
    return random_maps(generator, rows) | {
        "masks": generator.normal(size=(rows, 6, 4, 4)).astype(np.float32)
    }


def perfect_maps(batch):
    """What a flawless detector says of the cell of each object, also of those to be passed over,
    written out; -40 elsewhere.
    """
    rows = len(batch["boxes"])
    maps = {
        "heatmap": np.full((rows, *GRID, CLASSES), -40.0),
        "size": np.ones((rows, *GRID, 2)),
        "offset": np.zeros((rows, *GRID, 2)),
    }
    for row, column in shown(batch):
        y0, x0, y1, x1 = batch["boxes"][row, column] * np.array([*GRID, *GRID])
        y, x = (y0 + y1) / 2, (x0 + x1) / 2
        i, j = math.floor(y), math.floor(x)
        # so that scores differ, in a known order
        maps["heatmap"][row, i, j, batch["box_labels"][row, column]] = 40 - column
        maps["size"][row, i, j], maps["offset"][row, i, j] = (y1 - y0, x1 - x0), (y - i, x - j)
    return {name: value.astype(np.float32) for name, value in maps.items()}


def random_places(generator, rows):
    return {
        "logits": generator.normal(size=(rows, PLACES, CLASSES)).astype(np.float32),
        "distances": generator.uniform(0.2, 2.0, (rows, PLACES, 4)).astype(np.float32),
        "centerness": generator.normal(size=(rows, PLACES)).astype(np.float32),
    }


def perfect_places(batch):
    """What a flawless dense detector says at the one place nearest to each center, on the map of
    its size; -40 elsewhere.
    """
    places = {
        "logits": np.full((len(batch["boxes"]), PLACES, CLASSES), -40.0),
        "distances": np.ones((len(batch["boxes"]), PLACES, 4)),
        "centerness": np.zeros((len(batch["boxes"]), PLACES)),
    }
    for row, column in shown(batch):
        y0, x0, y1, x1 = batch["boxes"][row, column].astype(np.float64) * np.array([*SIZE, *SIZE])
        stride, start, width = (4, 0, 9) if max(y1 - y0, x1 - x0) < 10 else (8, 6 * 9, 5)
        i, j = (
            min(int((y0 + y1) / 2 / stride), SIZE[0] // stride - 1),
            min(int((x0 + x1) / 2 / stride), width - 1),
        )
        y, x, place = (i + 0.5) * stride, (j + 0.5) * stride, start + i * width + j
        places["logits"][row, place, batch["box_labels"][row, column]] = places["centerness"][
            row, place
        ] = 40
        places["distances"][row, place] = np.array([y - y0, x - x0, y1 - y, x1 - x]) / stride
    return {name: value.astype(np.float32) for name, value in places.items()}


def perfect_masks(batch):
    bars = np.array([[40.0], [-40.0], [-40.0], [40.0]], np.float32)
    return perfect_maps(batch) | {"masks": np.tile(bars, (len(batch["boxes"]), 6, 1, 4))}


BEST = {"AP": 1, "AP50": 1, "AP75": 1, "skipped": 0, "ignored": 6}
BEST |= {"AP_small": 1, "AP_medium": 1, "AP_large": 1, "AR_100": 1}
TRIALS = [
    Trial(
        "localization",
        LOCALIZATION,
        one_object_or_none_to_find,
        one_box,
        lambda batch: {
            "logits": 40 * np.eye(4, dtype=np.float32)[batch["label"]],
            "box": batch["boxes"][:, 0],
        },
        {"mean_iou": 1, "localized": 1, "accuracy": 1, "loss": 0, "skipped": 0, "ignored": 2},
    ),
    Trial("center detection", DETECTION, objects_and_others, random_maps, perfect_maps, BEST),
    Trial("dense detection", DENSE, objects_and_others, random_places, perfect_places, BEST),
    Trial(
        "instance segmentation",
        INSTANCES,
        partial(objects_with_masks, make=objects_and_others),
        random_maps_and_masks,
        perfect_masks,
        BEST | {"mask_AP": 1, "mask_AP50": 1},
    ),
]


def rows_of(make, rows=8, seed=0):
    return make(np.random.default_rng(seed), rows) | {"mask": np.ones(rows, np.float32)}


def evaluate(task, outputs, batch):
    return task.summarize(*trials.evaluate(task, to_jax(outputs), to_jax(batch)))


# ---- maps of centers


@pytest.mark.parametrize("size", [(6, 9), (16, 16), (7, 13)], ids=str)
def test_a_heatmap_is_1_at_the_cells_and_gaussian_around(size):
    generator = np.random.default_rng(0)
    box, label, exists = (
        random_boxes(generator, 5, 4),
        generator.integers(0, 3, (5, 4)),
        generator.random((5, 4)) < 0.8,
    )
    drawn = centers.draw_centers(
        jnp.asarray(box),
        jnp.asarray(label),
        jnp.asarray(exists),
        size=size,
        num_classes=3,
    )  # with CornerNet's least overlap, 0.7
    expected = np.zeros((5, *size, 3))
    for row, column in np.argwhere(exists):
        y0, x0, y1, x1 = box[row, column].astype(np.float32) * np.array([*size, *size], np.float32)
        cell, tall, wide = np.floor([(y0 + y1) / 2, (x0 + x1) / 2]), y1 - y0, x1 - x0
        # CornerNet's three cases, each a quadratic in r: the boxes moved by r along both axes,
        # shrunk and grown by r at both corners.
        cases = []
        for overlap in (
            lambda r, t=tall, w=wide: (t - r) * (w - r) / (2 * t * w - (t - r) * (w - r)),
            lambda r, t=tall, w=wide: (t - 2 * r) * (w - 2 * r) / (t * w),
            lambda r, t=tall, w=wide: t * w / ((t + 2 * r) * (w + 2 * r)),
        ):
            low, high = 0.0, min(tall, wide) / 2
            for _ in range(60):  # bisection: the overlap falls as r grows
                middle = (low + high) / 2
                low, high = (middle, high) if overlap(middle) >= 0.7 else (low, middle)
            cases.append(low)
        sigma = max(min(cases), 1.0) / 3
        i, j = np.arange(size[0])[:, None] - cell[0], np.arange(size[1])[None] - cell[1]
        plane = expected[row, :, :, label[row, column]]
        np.maximum(plane, np.exp(-(i**2 + j**2) / (2 * sigma**2)), out=plane)
        assert drawn[row, int(cell[0]), int(cell[1]), label[row, column]] == 1
    np.testing.assert_allclose(drawn, expected, atol=2e-5)


def test_boxes_come_back_from_their_maps():
    batch = rows_of(objects)
    boxes, scores, found = jax.jit(lambda maps: centers.decode_centers(**maps, num_objects=6))(
        to_jax(perfect_maps(batch))
    )
    exists = batch["boxes_mask"] > 0
    np.testing.assert_array_equal(
        scores > 0.5, np.sort(np.pad(exists, ((0, 0), (0, 3))), axis=1)[:, ::-1]
    )
    for row in range(len(exists)):
        count = int(exists[row].sum())
        order = np.argsort(batch["boxes"][row, :count, 1])  # by place: logits are 40 - column
        np.testing.assert_allclose(boxes[row][:count], batch["boxes"][row][order], atol=1e-6)
        np.testing.assert_array_equal(found[row][:count], batch["box_labels"][row][order])


def test_beside_a_sure_center_its_neighbors_are_none():
    """The sigmoids of 20 and 18 are the same 1 in float32."""
    near = np.abs(np.arange(7)[:, None] - 3) + np.abs(np.arange(7) - 3)
    heatmap = jnp.asarray(20.0 - 2 * near, jnp.float32)[None, ..., None]
    ones = jnp.ones((1, 7, 7, 2))
    boxes, scores, _ = centers.decode_centers(heatmap, ones, 0 * ones, num_objects=4)
    np.testing.assert_array_equal(scores, [[1, 0, 0, 0]])
    np.testing.assert_allclose(boxes[0, 0] * 7, [2.5, 2.5, 3.5, 3.5], rtol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (5, 7)], ids=str)
def test_targets_lie_in_their_cell_even_at_the_border(size):
    corners = np.array(
        [
            [0, 0, 1, 1],
            [0, 0, 0.25, 0.25],
            [0.75, 0.75, 1, 1],
            [0.9999, 0.9999, 1, 1],
            [0, 0, 0, 0],
            [1, 1, 1, 1],
        ],
        np.float32,
    )
    cell = np.asarray(centers.center_cells(jnp.asarray(corners), size))
    extent, offset = (
        np.asarray(array) for array in centers.center_targets(jnp.asarray(corners), size)
    )
    assert np.all((cell >= 0) & (cell < np.array(size)))
    np.testing.assert_allclose(extent, (corners[:, 2:] - corners[:, :2]) * size, atol=1e-5)
    np.testing.assert_allclose(
        (cell + offset) / size, (corners[:, :2] + corners[:, 2:]) / 2, atol=1e-6
    )


def test_the_focal_loss_is_equation_1():
    generator = np.random.default_rng(0)
    logits, target = generator.normal(size=(2, 3, 4, 2)), generator.random((2, 3, 4, 2))
    target[0, 1, 2, 0] = target[1, 0, 0, 1] = 1.0
    expected = np.zeros(2)
    for index in np.ndindex(logits.shape):
        p, y = 1 / (1 + math.exp(-logits[index])), target[index]
        expected[index[0]] -= (
            (1 - p) ** 2 * math.log(p) if y == 1 else (1 - y) ** 4 * p**2 * math.log(1 - p)
        )
    np.testing.assert_allclose(
        center_loss(jnp.asarray(logits, jnp.float32), jnp.asarray(target, jnp.float32)),
        expected,
        rtol=1e-5,
    )


def test_the_loss_of_detection_is_equation_4():
    batch, maps = rows_of(objects, rows=4), random_maps(np.random.default_rng(5), 4)
    expected = np.zeros(4)
    target = np.asarray(
        centers.draw_centers(
            *to_jax((batch["boxes"], batch["box_labels"], batch["boxes_mask"] > 0)),
            size=GRID,
            num_classes=CLASSES,
        )
    )
    cells = np.asarray(centers.center_cells(jnp.asarray(batch["boxes"]), GRID))
    for row in range(4):
        expected[row] = center_loss(
            jnp.asarray(maps["heatmap"][row : row + 1]), jnp.asarray(target[row : row + 1])
        )[0]
        for column in np.flatnonzero(batch["boxes_mask"][row]):
            y0, x0, y1, x1 = batch["boxes"][row, column].astype(np.float64) * np.array(
                [*GRID, *GRID]
            )
            y, x = (y0 + y1) / 2, (x0 + x1) / 2
            i, j = cells[row, column]
            expected[row] += 0.3 * np.abs(maps["size"][row, i, j] - [y1 - y0, x1 - x0]).sum()
            expected[row] += 0.7 * np.abs(maps["offset"][row, i, j] - [y - i, x - j]).sum()
        expected[row] /= batch["boxes_mask"][row].sum()
    task = dataclasses.replace(DETECTION, size_weight=0.3, offset_weight=0.7)
    np.testing.assert_allclose(task.loss(to_jax(maps), to_jax(batch)), expected, rtol=1e-5)


def test_an_image_without_objects_costs_only_false_alarms():
    batch = rows_of(objects, rows=2) | {
        "boxes_mask": np.zeros((2, OBJECTS), np.float32),
        "boxes": np.zeros((2, OBJECTS, 4), np.float32),
    }
    quiet, loud = (
        dict(
            random_maps(np.random.default_rng(0), 2),
            heatmap=np.full((2, *GRID, CLASSES), v, np.float32),
        )
        for v in (-9, 2)
    )
    assert np.all(jax.jit(DETECTION.loss)(to_jax(quiet), to_jax(batch)) < 1e-5)
    assert np.all(jax.jit(DETECTION.loss)(to_jax(loud), to_jax(batch)) > 1)
    assert evaluate(DETECTION, quiet, batch)["AP"] == -1  # there is nothing to find


@pytest.mark.parametrize("scale, size_class", [(1, "small"), (6, "medium"), (20, "large")])
def test_size_classes_follow_the_image_size(scale, size_class):
    batch, task = (
        rows_of(objects),
        dataclasses.replace(DETECTION, image_size=(24 * scale, 36 * scale)),
    )
    summary = evaluate(task, perfect_maps(batch), batch)
    assert {name: summary[f"AP_{name}"] for name in ("small", "medium", "large")} == {
        name: 1.0 if name == size_class else -1 for name in ("small", "medium", "large")
    }


def test_wrong_classes_and_shifted_boxes_lose_precision():
    batch = rows_of(objects, rows=12)
    renamed = batch | {"box_labels": (batch["box_labels"] + 1) % CLASSES}
    assert evaluate(DETECTION, perfect_maps(batch), renamed)["AP50"] == 0
    moved = perfect_maps(batch)
    moved["offset"] = moved["offset"] + f32([0.0, 0.5])  # 2 of 8 or 12 pixels: IoU 6/10 or 10/14
    summary = evaluate(DETECTION, moved, batch)
    assert (summary["AP50"], summary["AP75"]) == (1, 0)
    assert 0 < summary["AP"] < 0.6


def test_describe_lists_what_reaches_the_threshold_best_first():
    batch = rows_of(objects, rows=2)
    maps = perfect_maps(batch)
    # logits 1, 0, -1 of columns 0, 1, 2
    maps["heatmap"] = np.where(maps["heatmap"] > 0, maps["heatmap"] - 39, maps["heatmap"])
    row = {
        name: value[0] for name, value in jax.device_get(DETECTION.predict(to_jax(maps))).items()
    }
    found = dataclasses.replace(DETECTION, threshold=0.4).describe(row, names=("a", "b"))["objects"]
    assert [o["label"] for o in found] == batch["box_labels"][0, :2].tolist()
    assert [o["name"] for o in found] == ["a", "b"]
    assert found[0]["score"] == pytest.approx(1 / (1 + math.exp(-1)))
    np.testing.assert_allclose([o["box"] for o in found], batch["boxes"][0, :2], atol=1e-6)


# ---- dense detection


def test_places_answer_for_boxes_as_fcos_says():
    """Against loops over places and boxes, which cross and contain each other here."""
    generator = np.random.default_rng(0)
    boxes, label = (
        random_boxes(generator, 6, 4),
        generator.integers(0, CLASSES, (6, 4)).astype(np.int32),
    )
    mask = (generator.random((6, 4)) < 0.8).astype(np.float32)
    found_label, found_box, answers = DENSE._targets(
        to_jax({"boxes": boxes, "boxes_mask": mask, "box_labels": label})
    )
    points = [
        ((i + 0.5) * s, (j + 0.5) * s, s)
        for s, h, w in ((4, 6, 9), (8, 3, 5))
        for i in range(h)
        for j in range(w)
    ]
    num_answers = 0
    for row in range(6):
        for place, (y, x, stride) in enumerate(points):
            best, best_area = None, math.inf
            for column in np.flatnonzero(mask[row]):
                y0, x0, y1, x1 = boxes[row, column].astype(np.float64) * np.array([*SIZE, *SIZE])
                sides = (y - y0, x - x0, y1 - y, x1 - x)
                near = max(abs(y - (y0 + y1) / 2), abs(x - (x0 + x1) / 2)) < 1.5 * stride - 1e-9
                own_map = (stride == 4) == (max(sides) <= 7)
                if (
                    min(sides) > 1e-6
                    and near
                    and own_map
                    and (y1 - y0) * (x1 - x0) < best_area - 1e-6
                ):
                    best, best_area = column, (y1 - y0) * (x1 - x0)
            assert bool(answers[row, place]) == (best is not None), (row, place)
            if best is not None:
                num_answers += 1
                assert found_label[row, place] == label[row, best]
                np.testing.assert_array_equal(found_box[row, place], boxes[row, best])
    assert num_answers > 30


def test_the_dense_focal_loss_is_equation_5():
    logits, positive = np.random.default_rng(0).normal(size=20), np.arange(20) % 3 == 0
    p = 1 / (1 + np.exp(-logits))
    expected = np.where(positive, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p))
    np.testing.assert_allclose(
        focal_loss(jnp.asarray(logits, jnp.float32), jnp.asarray(positive)), expected, rtol=1e-5
    )


def test_centerness_is_1_in_the_middle_and_0_at_the_side():
    box = np.tile(f32([0, 0, 1, 1]), (1, PLACES, 1))
    box[0, 0] = [0, 0, 4 / 24, 4 / 36]  # the first place lies in the middle of its cell
    box[0, 1] = [0, 6 / 36, 4 / 24, 16 / 36]  # the second at its left side
    box[0, 2] = [0, 9 / 36, 4 / 24, 13 / 36]  # the third a quarter in
    np.testing.assert_allclose(
        DENSE._centerness(jnp.asarray(box))[0, :3], [1, 0, math.sqrt(1 / 3)], atol=1e-3
    )


def test_of_overlapping_detections_the_better_remains_unless_classes_differ():
    places = perfect_places(
        {
            "boxes": np.zeros((1, 1, 4)),
            "boxes_mask": np.zeros((1, 1)),
            "box_labels": np.zeros((1, 1), int),
        }
    )
    for place, label, logit in (
        (20, 0, 3.0),
        (21, 0, 2.0),
        (22, 1, 1.0),
    ):  # three neighbours, one box
        x = (place % 9 + 0.5) * 4
        places["logits"][0, place, label] = logit
        places["distances"][0, place] = np.array([8, x - 2, 8, 30 - x]) / 4
    found = jax.device_get(jax.jit(DENSE.predict)(to_jax(places)))
    assert (found["scores"][0] > 0).sum() == 2
    assert found["labels"][0, :2].tolist() == [0, 1]
    np.testing.assert_allclose(
        found["scores"][0, :2], np.sqrt(0.5 / (1 + np.exp(-np.array([3.0, 1.0])))), rtol=1e-5
    )
    np.testing.assert_allclose(found["boxes"][0, 0] * [*SIZE, *SIZE], [2, 2, 18, 30], atol=1e-4)


@pytest.mark.parametrize("label", [0, 1999])
@pytest.mark.parametrize("share, remaining", [(0.597, 2), (0.603, 1)])
def test_an_overlap_near_the_limit_is_the_same_for_every_class(share, remaining, label):
    """Of squares one pixel wide; numbers of classes have no part in it."""
    task = dataclasses.replace(DENSE, num_classes=2000, suppression_iou=0.6, max_objects=2)
    shift = (1 - share) / (1 + share)
    logits = np.full((54, PLACES, 2000), -9.0, np.float32)
    distances = np.ones((54, PLACES, 4), np.float32)
    for row in range(54):  # two detections by each place of the first map
        other = row + 1 if row % 9 < 8 else row - 1
        logits[row, row, label], logits[row, other, label] = 2, 1
        moved = shift - 4 * (other - row)
        distances[row, row] /= 8
        distances[row, other] = np.array([0.5, 0.5 - moved, 0.5, 0.5 + moved]) / 4
    outputs = {"logits": logits, "distances": distances, "centerness": np.full((54, PLACES), 9.0)}
    found = task.predict(to_jax(outputs))
    kept = np.sum(np.asarray(found["scores"]) > 0.5, axis=1)
    # at the right end the second box is cut off
    inside = (np.arange(54) % 9) < 8
    np.testing.assert_array_equal(kept[inside], remaining)


@pytest.mark.parametrize("options", [{}, {"num_candidates": 3}, {"num_candidates": 10000}])
def test_there_are_as_many_rows_as_objects_may_be_however_few_the_candidates(options):
    task = dataclasses.replace(DENSE, max_objects=250, **options)
    outputs = {
        "logits": trials.normal(PLACES, CLASSES)(np.random.default_rng(0), 2),
        "distances": np.ones((2, PLACES, 4), np.float32),
        "centerness": np.ones((2, PLACES), np.float32),
    }
    found = jax.device_get(task.predict(to_jax(outputs)))
    assert {name: x.shape for name, x in found.items()} == {
        "boxes": (2, 250, 4),
        "scores": (2, 250),
        "labels": (2, 250),
    }
    none = found["scores"] == 0
    assert none[:, -1].all()
    assert (np.diff(none.astype(int), axis=1) >= 0).all()


# ---- localization


def test_localization_is_cross_entropy_and_giou():
    torch = pytest.importorskip("torch")
    batch, outputs = rows_of(one_object), one_box(np.random.default_rng(3), 8)
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(outputs["logits"]), torch.tensor(batch["label"]).long(), reduction="none"
    ).numpy()
    for row, (a, b) in enumerate(
        zip(outputs["box"].astype(float), batch["boxes"][:, 0].astype(float), strict=True)
    ):
        shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
        union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
        hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
        theirs[row] += 2.0 * (1 - (shared / union - (hull - union) / hull))
    np.testing.assert_allclose(
        jax.jit(LOCALIZATION.loss)(to_jax(outputs), to_jax(batch)), theirs, rtol=1e-5
    )


def test_localized_needs_the_class_and_half_the_box():
    batch = rows_of(one_object, rows=4) | {"boxes": np.tile(f32([0, 0, 0.5, 1]), (4, 1, 1))}
    # IoU 1, 1, .5, .4975
    box = f32([[0, 0, 0.5, 1], [0, 0, 0.5, 1], [0, 0, 1, 1], [0, 0.01, 1, 1]])
    said = (batch["label"] + np.array([0, 1, 0, 0])) % 4
    logits = 9 * (said[:, None] == np.arange(4)).astype(np.float32)
    summary = evaluate(LOCALIZATION, {"logits": logits, "box": box}, batch)
    assert summary["localized"] == 0.5
    assert summary["accuracy"] == 0.75
    assert summary["mean_iou"] == pytest.approx(
        (1 + 1 + 0.5 + 0.495 / 1.0 / (1 - 0.005)) / 4, abs=1e-3
    )


def test_an_ensemble_of_one_says_the_same():
    for task, outputs in (
        (LOCALIZATION, one_box),
        (DETECTION, random_maps),
        (DENSE, random_places),
    ):
        single = to_jax(outputs(np.random.default_rng(0), 4))
        both = jax.jit(lambda outputs, task=task: task.predict(task.ensemble([outputs, outputs])))
        alone = jax.jit(task.predict)(single)
        for name, value in both(single).items():
            np.testing.assert_allclose(value, alone[name], rtol=1e-5, atol=1e-6)


# ---- masks


@pytest.mark.parametrize("size", [(20, 30), (9, 9)], ids=str)
def test_pasting_equals_torch_grid_sampling(size):
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    masks, box = generator.random((6, 7, 5)).astype(np.float32), random_boxes(generator, 6)
    y, x = ((np.arange(n, dtype=np.float32) + np.float32(0.5)) / np.float32(n) for n in size)
    for i in range(6):
        y0, x0, y1, x1 = box[i]
        at_y, at_x = (y - y0) / (y1 - y0), (x - x0) / (x1 - x0)
        grid = np.stack(
            np.broadcast_arrays(2 * at_x[None] - 1, 2 * at_y[:, None] - 1), axis=-1
        ).astype(np.float32)
        theirs = torch.nn.functional.grid_sample(
            torch.tensor(masks[i])[None, None],
            torch.tensor(grid)[None],
            padding_mode="border",
            align_corners=False,
        )[0, 0].numpy()
        inside = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
        np.testing.assert_allclose(
            roi_paste(jnp.asarray(masks[i]), jnp.asarray(box[i]), size=size),
            theirs * inside,
            atol=1e-5,
        )


def test_empty_boxes_paste_nothing():
    box = jnp.asarray([[0.5, 0.5, 0.5, 0.5], [0.8, 0.2, 0.3, 0.9], [1.5, 1.5, 1.7, 1.7]])
    assert not jnp.any(roi_paste(jnp.ones((3, 4, 4)), box, size=(8, 8)))


def test_mask_loss_in_training_and_evaluation_judges_the_same_masks():
    """Own boxes that equal the true ones give the loss of the true boxes; boxes that match nothing
    cost nothing.
    """
    batch = rows_of(objects_with_masks)
    logits = np.random.default_rng(1).normal(size=(8, 1, 4, 4)).astype(np.float32)
    maps = perfect_maps(batch)
    training = maps | {"truth_masks": np.tile(logits, (1, OBJECTS, 1, 1))}
    evaluation = maps | {"masks": np.tile(logits, (1, 6, 1, 1))}
    only_boxes = jax.jit(DETECTION.loss)(to_jax(maps), to_jax(batch))
    first, second = (
        jax.jit(INSTANCES.loss)(to_jax(outputs), to_jax(batch))
        for outputs in (training, evaluation)
    )
    np.testing.assert_allclose(first, second, rtol=1e-4)
    assert np.all(first > only_boxes)
    away = dict(evaluation, size=np.full_like(maps["size"], 0.1))
    np.testing.assert_allclose(
        jax.jit(INSTANCES.loss)(to_jax(away), to_jax(batch)),
        jax.jit(DETECTION.loss)(to_jax({**maps, "size": away["size"]}), to_jax(batch)),
        rtol=1e-6,
    )


def test_wrong_masks_lose_mask_precision_alone():
    batch = rows_of(objects_with_masks)
    outputs = perfect_masks(batch)
    outputs["masks"] = -outputs["masks"]
    summary = evaluate(INSTANCES, outputs, batch)
    assert (summary["AP"], summary["mask_AP50"]) == (1, 0)


def test_instances_are_described_with_their_masks():
    batch = rows_of(objects_with_masks, rows=2)
    row = {
        name: value[0]
        for name, value in jax.device_get(
            jax.jit(INSTANCES.predict)(to_jax(perfect_masks(batch)))
        ).items()
    }
    found = sorted(
        INSTANCES.describe(row, names=("a", "b", "c"))["objects"], key=lambda o: o["box"][1]
    )
    np.testing.assert_array_equal(
        np.stack([o["mask"] for o in found]), batch["instance_masks"][0] > 0
    )


# ---- bad data

WHOLE = [0.0, 0.0, 1.0, 1.0]


def bad(**changes):
    batch = {
        "image": np.zeros((2, *SIZE, 1), np.uint8),
        "label": np.array([0, 1], np.int32),
        "boxes": np.tile(f32([[0.1, 0.1, 0.6, 0.6], [0, 0, 0, 0]]), (2, 1, 1)),
        "boxes_mask": np.tile(f32([1, 0]), (2, 1)),
        "box_labels": np.zeros((2, 2), np.int32),
        "instance_masks": np.full((2, 2, *SIZE), 255, np.uint8),
    }
    for name, value in changes.items():
        if callable(value):
            value(batch[name])
        else:
            batch[name] = value
    return batch


def put(place, value):
    return lambda array: array.__setitem__(place, value)


BAD_BOXES = [
    (
        {"boxes": put((1, 0), [0.3, 0.3, 0.3, 0.8])},
        r"boxes\[1, 0\] is \[0.3.*not empty.*1 of \d+ do not.*invalid='skip'",
    ),
    ({"boxes": put((0, 0), [0.5, 0.5, 0.2, 0.8])}, r"boxes\[0, 0\].*not empty"),
    (
        {"boxes": put((1, 0), [4, 4, 20, 20])},
        r"boxes\[1, 0\] is \[4.0.*lie in the image.*divide pixels",
    ),
    ({"boxes": put((0, 0), [np.nan, 0, 1, 1])}, r"boxes\[0, 0\] is \[nan.*lie in the image"),
    (
        {"boxes": np.zeros((2, 4), np.float32)},
        r"boxes have dtype float32 and shape \(2, 4\); expected float32 \[B, N, 4\]",
    ),
    ({"boxes": np.zeros((2, 2, 4), np.int32)}, "boxes have dtype int32"),
    ({"image": np.full((2, *SIZE, 1), 255.0, np.float32)}, "unscaled images"),
]
BAD_OBJECTS = [
    ({"box_labels": put((0, 0), 3)}, r"box_labels\[0, 0\] is 3; labels lie in \[0, 3\)"),
    ({"box_labels": put((1, 0), -1)}, r"box_labels\[1, 0\] is -1"),
    ({"box_labels": np.zeros((2, 3), np.int32)}, r"box_labels has shape \(2, 3\)"),
    (
        {"box_labels": np.zeros((2, 2), np.float32)},
        "box_labels have dtype float32; expected integers",
    ),
    ({"boxes_mask": np.zeros((2,), np.float32)}, r"boxes_mask has shape \(2,\)"),
]
BAD_MASKS = [
    (
        {"instance_masks": np.full((2, 2, 64, 64), 255, np.uint8)},
        r"instance_masks have shape \(2, 2, 64, 64\).*Resize the masks",
    ),
    ({"instance_masks": np.full((2, 1, *SIZE), 255, np.uint8)}, "instance_masks have shape"),
    (
        {"instance_masks": np.ones((2, 2, *SIZE), np.uint8)},
        "hold the value 1; they hold 0 and 255. Multiply a 0/1 mask by 255",
    ),
    (
        {"instance_masks": put((1, 0), 0)},
        r"instance_masks\[1, 0\] is empty, but its box exists; 1 of 2 are",
    ),
]
BAD_EXAMPLES = [
    (
        {"boxes_mask": np.zeros((2, 2), np.float32)},
        r"boxes_mask\[0, 0\] is 0: example 0 has no box",
    ),
    ({"label": np.array([0, 4], np.int32)}, r"label\[1\] is 4"),
]


@pytest.mark.parametrize(
    "task, changes, says",
    [(LOCALIZATION, *row) for row in BAD_BOXES + BAD_EXAMPLES]
    + [(DETECTION, *row) for row in BAD_BOXES + BAD_OBJECTS]
    + [(INSTANCES, *row) for row in BAD_BOXES + BAD_OBJECTS + BAD_MASKS],
)
def test_bad_examples_are_refused(task, changes, says):
    task.check(bad())
    with pytest.raises(DataError, match=says):
        task.check(bad(**changes))


UNUSABLE = [
    [0.3, 0.3, 0.3, 0.8],
    [-0.5, 0, 0.5, 0.5],
    [0.1, 0.1, 0.5, 1.2],
    [np.nan] * 4,
    [0.6, 0.1, 0.2, 0.4],
]


@pytest.mark.parametrize(
    "trial",
    [pytest.param(t, marks=() if t is TRIALS[1] else pytest.mark.slow, id=t.name) for t in TRIALS],
)
def test_skipped_boxes_are_counted_and_change_nothing_else(trial):
    """Unusable boxes count as skipped, their loss and gradient are finite, and the metrics are
    those of a batch without them.
    """
    task, rows = dataclasses.replace(trial.task, invalid="skip"), len(UNUSABLE)
    batch, outputs = (
        rows_of(trial.batch, rows=rows),
        to_jax(trial.outputs(np.random.default_rng(2), rows)),
    )
    spoiled, without = (
        batch | {name: batch[name].copy() for name in ("boxes", "boxes_mask")} for _ in range(2)
    )
    spoiled["boxes"][:, 0] = UNUSABLE
    without["boxes_mask"][:, 0] = 0
    for name in ("boxes_ignored", "boxes_crowd"):
        without[name] = np.where(np.arange(without[name].shape[1]) == 0, 0, without[name])
    host = {name: value for name, value in spoiled.items() if name != "mask"}
    task.check(host | {"image": np.zeros((rows, *SIZE, 1), np.uint8)})
    left, right = evaluate(task, outputs, spoiled), evaluate(task, outputs, without)
    assert left.pop("skipped") == rows
    right.pop("skipped")
    for name in [name for name in left if name.startswith("per_class_")]:
        assert left.pop(name) == pytest.approx(right.pop(name), rel=1e-5)
    assert left == pytest.approx(right, rel=1e-5)
    total = jax.jit(lambda outputs: jnp.sum(task.loss(outputs, to_jax(spoiled))))
    gradient = jax.grad(total)(outputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_labels_out_of_range_are_skipped_with_a_count():
    batch = rows_of(objects)
    batch["box_labels"][0, 0], batch["box_labels"][1, 1] = CLASSES, -1
    summary = evaluate(
        dataclasses.replace(DETECTION, invalid="skip"), perfect_maps(rows_of(objects)), batch
    )
    assert summary["skipped"] == 2
    assert summary["objects"] == batch["boxes_mask"].sum() - 2


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Localization(num_classes=0), "num_classes is 0"),
        (lambda: CenterDetection(num_classes=0), "CenterDetection: num_classes is 0"),
        (
            lambda: InstanceSegmentation(num_classes=2, max_objects=0),
            "InstanceSegmentation: max_objects is 0",
        ),
        (
            lambda: DenseDetection(num_classes=2, strides=(4, 8, 16)),
            r"limits \(16.0,\) do not part strides \(4, 8, 16\)",
        ),
        (
            lambda: DenseDetection(num_classes=2, strides=(4, 8, 16), limits=(32.0, 16.0)),
            r"limits are \(32.0, 16.0\); they are pixels above 0 in ascending order",
        ),
        (lambda: DenseDetection(num_classes=2, limits=(math.nan,)), "limits are"),
        (
            lambda: dataclasses.replace(DENSE, strides=(4, 16)).predict(
                to_jax(random_places(np.random.default_rng(0), 1))
            ),
            "at 69 places",
        ),
        (
            lambda: CenterDetection(num_classes=2, invalid="ignore"),
            "invalid is 'ignore'; 'error' refuses",
        ),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


# --- several pictures as one, in training ---


def lone_objects(count: int) -> dict[str, np.ndarray]:
    """Pictures 32x32 with one square each, at a place of its own, and room for no other."""
    rows, columns = np.divmod(np.arange(count), 4)
    corner = np.stack([rows, columns], -1) / 4 + 1 / 16
    masks = np.zeros((count, 1, 32, 32), np.uint8)
    for mask, (y, x) in zip(masks[:, 0], (32 * corner).astype(int), strict=True):
        mask[y : y + 4, x : x + 4] = 255
    return {
        "image": masks[:, 0, :, :, None],
        "boxes": f32(np.concatenate([corner, corner + 1 / 8], -1))[:, None],
        "boxes_mask": np.ones((count, 1), np.float32),
        "box_labels": np.zeros((count, 1), np.int32),
        "instance_masks": masks,
    }


class Heads(nn.Module):
    """A linear layer for the heads of CenterDetection with one class."""

    @nn.compact
    def __call__(self, image, *, train: bool):
        x = nn.Conv(5, (4, 4), strides=(4, 4))(image)
        return {"heatmap": x[..., :1], "size": x[..., 1:3], "offset": x[..., 3:]}


def lone_objects_experiment(**task):
    data = lone_objects(8)
    return Experiment(
        model=Heads(),
        task=CenterDetection(**{"num_classes": 1, "image_size": (32, 32), "max_objects": 2} | task),
        data=Arrays(train=data, eval=data),
        optimizer=partial(optax.adam, learning_rate=1e-3),
        augment=(
            partial(augment.copy_paste, rate=1.0),
            partial(augment.mosaic, factor=(0.5, 0.5), centre=(0.5, 0.5)),
        ),
        batch_size=4,
        steps=2,
        log_every=1,
    )


def test_training_logs_how_many_objects_found_no_row(tmp_path):
    """Beside each object another is pasted, and four such pictures become one: of its eight objects
    one has a row."""
    run = train(lone_objects_experiment(), tmp_path / "run", quiet=True)
    found = [record for record in run.history if record["kind"] == "train"]
    assert [record["boxes_dropped"] for record in found] == [7.0, 7.0]
    assert all(np.isfinite(record["loss"]) for record in found)


def test_a_size_of_other_images_is_refused_before_training(tmp_path):
    """What counts is what the model sees: a transform may make images smaller."""

    def halve(batch):
        return {**batch, "image": batch["image"][:, ::2, ::2]}

    other = lone_objects_experiment(image_size=(48, 16))
    with pytest.raises(ConfigError, match=r"task.image_size=48,16, .* 32,32 .*: set task.image"):
        train(other, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    fitting = lone_objects_experiment(image_size=(16, 16))
    abstract_state(dataclasses.replace(fitting, transform=(halve,)))
    with pytest.raises(ConfigError, match=r"task.image_size=32,32, .* are 16,16 "):
        abstract_state(dataclasses.replace(lone_objects_experiment(), transform=(halve,)))
