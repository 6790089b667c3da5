"""Objects that need not be found in the tasks: no background where they lie, neither missed nor
found; measures of the original picture, not of the resized one.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.geometry import move_labels
from jaxcnn.errors import DataError
from jaxcnn.tasks.keypoints import Keypoints
from jaxcnn.tasks.objects import to_predictions, to_truths
from tests.tasks import test_detection, test_text
from tests.tasks.test_detection import (
    DENSE,
    DETECTION,
    GRID,
    INSTANCES,
    LOCALIZATION,
    OBJECTS,
    SIZE,
    evaluate,
    f32,
    objects,
    objects_with_masks,
    perfect_maps,
    perfect_masks,
    perfect_places,
    random_maps,
    random_places,
    rows_of,
)
from tests.trials import to_jax

DETECTORS = {
    "centers": (DETECTION, random_maps, perfect_maps, "heatmap"),
    "dense": (DENSE, random_places, perfect_places, "logits"),
}
detectors = pytest.mark.parametrize("name", DETECTORS)


def passed_over(batch, *names):
    """The batch, whose last objects, which every second row has, need not be found."""
    last = np.arange(OBJECTS) == OBJECTS - 1
    flags = f32(np.broadcast_to(last, batch["boxes_mask"].shape) & (batch["boxes_mask"] > 0))
    return batch | {"boxes_mask": batch["boxes_mask"] - flags} | dict.fromkeys(names, flags)


@pytest.mark.parametrize(
    "name, names",
    [("centers", ("boxes_ignored", "boxes_crowd")), ("dense", ("boxes_ignored",))],
)
def test_what_is_found_where_nothing_need_be_found_counts_for_nothing(name, names):
    task, _, perfect, _ = DETECTORS[name]
    batch = rows_of(objects, rows=4)
    batch["box_labels"] = np.zeros_like(batch["box_labels"])
    outputs = perfect(batch)
    summary = evaluate(task, outputs, passed_over(batch, *names))
    assert (summary["AP"], summary["objects"], summary["ignored"]) == (1, 8, 2)
    strict = evaluate(task, outputs, passed_over(batch))
    assert strict["AP"] < 1
    assert (strict["objects"], strict["ignored"]) == (8, 0)


@detectors
def test_places_inside_boxes_that_need_not_be_found_get_no_background_loss(name):
    """The gradient is 0 just there; what answers for a true object learns as before."""
    task, random, _, entry = DETECTORS[name]
    batch = rows_of(objects, rows=4)
    lenient = passed_over(batch, "boxes_ignored")
    outputs = to_jax(random(np.random.default_rng(1), 4))

    def gradient(rows):
        return np.asarray(
            jax.grad(jax.jit(lambda x: task.loss(outputs | {entry: x}, to_jax(rows)).sum()))(
                outputs[entry]
            )
        )

    left, right = gradient(lenient), gradient(passed_over(batch))
    for row in range(4):
        y0, x0, y1, x1 = batch["boxes"][row, -1] * np.array([*SIZE, *SIZE])
        flagged = lenient["boxes_ignored"][row, -1] > 0
        if name == "centers":
            y, x = 4 * np.mgrid[: GRID[0], : GRID[1]]
            inside = (y + 4 > y0 + 1e-3) & (y < y1 - 1e-3) & (x + 4 > x0 + 1e-3) & (x < x1 - 1e-3)
        else:
            y, x = task.places()[0].T
            inside = (y > y0 + 1e-3) & (y < y1 - 1e-3) & (x > x0 + 1e-3) & (x < x1 - 1e-3)
        inside = inside & flagged
        assert inside.any() == flagged
        assert not left[row][inside].any()
        np.testing.assert_array_equal(left[row][~inside], right[row][~inside])
        assert np.all(right[row] != 0)


def test_a_true_object_inside_a_crowd_is_still_learned():
    batch = rows_of(objects, rows=1)
    whole = f32([[[0, 0, 1, 1]]])
    crowded = batch | {
        "boxes": np.concatenate([batch["boxes"], whole], axis=1),
        "boxes_mask": f32([[1, 1, 1, 0]]),
        "box_labels": np.concatenate([batch["box_labels"], [[0]]], axis=1).astype(np.int32),
        "boxes_crowd": f32([[0, 0, 0, 1]]),
    }
    for task, random, perfect, entry in DETECTORS.values():
        outputs = to_jax(random(np.random.default_rng(1), 1))

        @jax.jit
        def total(x, task=task, outputs=outputs, entry=entry):
            return task.loss(outputs | {entry: x}, to_jax(crowded)).sum()

        gradient = jax.grad(total)(outputs[entry])
        assert (np.asarray(gradient) < 0).any()  # it is to rise where objects are
        assert (np.asarray(gradient) > 0).sum() < 2 * 9 * OBJECTS  # of the classes of such places
        assert evaluate(task, perfect(batch), crowded)["AP"] == 1


@pytest.mark.parametrize(
    "kind, areas, scale, size_class",
    [
        ("boxes", True, 1, "small"),
        ("boxes", False, 20, "large"),
        ("masks", True, 6, "medium"),
        ("masks", False, 20, "large"),
    ],
)
def test_size_classes_are_those_of_the_original_picture(kind, areas, scale, size_class):
    """The picture is resized by another factor along each axis."""
    batch = rows_of(objects_with_masks if kind == "masks" else objects, rows=4)
    size = np.array([[12 * scale, 72 * scale]] * 4, np.int32)  # of as many pixels
    sides = (batch["boxes"][..., 2:] - batch["boxes"][..., :2]) * size[:, None]
    batch |= {"original_size": size}
    batch |= {"box_areas": f32(0.6 * sides.prod(axis=-1))} if areas else {}
    task, perfect = (INSTANCES, perfect_masks) if kind == "masks" else (DETECTION, perfect_maps)
    summary = evaluate(task, perfect(batch), batch)
    start = "mask_" if kind == "masks" else ""
    assert {name: summary[f"{start}AP_{name}"] for name in ("small", "medium", "large")} == {
        name: 1.0 if name == size_class else -1 for name in ("small", "medium", "large")
    }


def test_truths_and_detections_are_in_pixels_of_the_original():
    batch = to_jax(passed_over(rows_of(objects, rows=2), "boxes_crowd"))
    batch["original_size"] = jnp.asarray([[100, 200], [480, 640]], jnp.int32)
    batch["box_areas"] = jnp.full((2, OBJECTS), 7.0)
    outputs = to_jax(random_maps(np.random.default_rng(0), 2))
    records = jax.device_get(jax.jit(DETECTION.records)(outputs, batch))
    truths, found = to_truths(records), to_predictions(records)
    boxes = np.asarray(batch["boxes"], np.float64)
    np.testing.assert_allclose(truths[0]["box"], boxes[0] * [100, 200, 100, 200])
    np.testing.assert_allclose(truths[1]["box"], boxes[1, :2] * [480, 640, 480, 640])
    assert [t["crowd"].tolist() for t in truths] == [[False, False, True], [False, False]]
    assert [t["area"].tolist() for t in truths] == [[7, 7, 7], [7, 7]]
    np.testing.assert_allclose(found[1]["box"], records["boxes"][1] * [480.0, 640, 480, 640])
    del batch["box_areas"], batch["original_size"]
    plain = to_truths(jax.device_get(jax.jit(DETECTION.records)(outputs, batch)))
    assert "area" not in plain[0]
    np.testing.assert_allclose(plain[0]["box"], boxes[0] * [*SIZE, *SIZE])


def test_masks_inside_a_crowd_are_ignored_and_masks_elsewhere_are_false():
    batch = rows_of(objects_with_masks, rows=4)
    batch["box_labels"] = np.zeros_like(batch["box_labels"])
    outputs = perfect_masks(batch)
    lenient = passed_over(batch, "boxes_ignored", "boxes_crowd")
    lenient["instance_masks"] = lenient["instance_masks"].copy()
    lenient["instance_masks"][:, -1] = lenient["boxes_crowd"][:, -1, None, None]  # everywhere
    lenient["instance_masks"][:, -1, :, : SIZE[1] // 3] = 0
    strict = passed_over(batch)
    assert evaluate(INSTANCES, outputs, lenient)["mask_AP"] == 1
    assert evaluate(INSTANCES, outputs, strict)["mask_AP"] < 1


@pytest.mark.parametrize("task", [DETECTION, DENSE, LOCALIZATION], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize(
    "changes, says",
    [
        ({"boxes_ignored": f32([[1, 0], [0, 0]])}, r"boxes_mask\[0, 0\] is 1.0; .* is 0"),
        ({"boxes_crowd": f32([[0, 0], [1, 0]])}, r"boxes_mask\[1, 0\] is 1.0"),
        (
            {"boxes_mask": f32([[0, 0], [1, 0]]), "boxes_ignored": f32([[1, 0], [0, 0]])}
            | {"boxes": f32([[[0.5, 0.5, 0.2, 0.8], [0] * 4], [[0.1, 0.1, 0.6, 0.6], [0] * 4]])},
            r"boxes\[0, 0\].*not empty",
        ),
        ({"boxes_crowd": np.zeros((2, 3), np.float32)}, r"boxes_crowd has shape \(2, 3\)"),
        ({"box_areas": np.zeros((2,), np.float32)}, r"box_areas has shape \(2,\)"),
        ({"box_areas": f32([[-4, 0], [9, 0]])}, r"'box_areas' has values in \[-4, 9\]"),
        ({"boxes_mask": f32([[1, np.nan], [1, 0]])}, "'boxes_mask' has values in .*nan"),
        ({"original_size": np.zeros((2, 2), np.int32)}, "'original_size' has values in .* lie in"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_flags_that_make_no_sense_are_refused(task, changes, says):
    task.check(test_detection.bad())
    with pytest.raises(DataError, match=says):
        task.check(test_detection.bad(**changes))


def test_original_sizes_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"original_size has shape \(2, 3\); it must be \(2, 2\)"):
        DETECTION.check(test_detection.bad(original_size=np.ones((2, 3), np.int32)))


def test_ignored_boxes_that_break_a_rule_are_counted_as_skipped():
    batch = passed_over(rows_of(objects, rows=2), "boxes_ignored")
    batch["boxes"] = batch["boxes"].copy()
    batch["boxes"][0, -1] = np.nan
    task = dataclasses.replace(DETECTION, invalid="skip")
    summary = evaluate(task, random_maps(np.random.default_rng(0), 2), batch)
    assert (summary["skipped"], summary["ignored"], summary["objects"]) == (1, 0, 4)


def test_a_first_object_that_need_not_be_found_has_no_box_to_localize():
    batch = test_detection.bad()
    batch |= {"boxes_mask": f32([[0, 0], [1, 0]]), "boxes_crowd": f32([[1, 0], [0, 0]])}
    LOCALIZATION.check(batch)
    outputs = {"logits": np.eye(4, dtype=np.float32)[:2] * 40, "box": batch["boxes"][:, 0] * 0}
    outputs["box"][1] = batch["boxes"][1, 0]
    rows = {name: batch[name] for name in ("label", "boxes", "boxes_mask", "boxes_crowd")}
    summary = evaluate(LOCALIZATION, outputs, rows | {"mask": np.ones(2, np.float32)})
    assert (summary["mean_iou"], summary["ignored"], summary["skipped"]) == (1, 1, 0)
    assert summary["loss"] == pytest.approx(0, abs=1e-5)


def test_flags_are_taken_off_boxes_that_left_the_image():
    shift = jnp.tile(jnp.asarray([[1.0, 0.0, 0.0], [0.0, 1.0, 6.0]]), (1, 1, 1))
    batch = {
        "image": jnp.zeros((1, 10, 10, 1)),
        "boxes": jnp.asarray([[[0.0, 0.0, 0.5, 0.3], [0.0, 0.0, 0.5, 0.5], [0.0, 0.7, 1.0, 1.0]]]),
        "boxes_mask": jnp.zeros((1, 3)),
        "boxes_ignored": jnp.ones((1, 3)),
        "boxes_crowd": jnp.asarray([[0.0, 1.0, 1.0]]),
    }
    moved = jax.jit(lambda b, m: move_labels(b, m, source=(10, 10)))(batch, shift)
    left = np.ptp(np.asarray(moved["boxes"])[0].reshape(3, 2, 2), axis=1).prod(axis=-1) > 0
    assert left.any()
    assert not left.all()
    np.testing.assert_array_equal(moved["boxes_ignored"][0] > 0, left)
    np.testing.assert_array_equal(moved["boxes_crowd"][0] > 0, left & [False, True, True])


# ---- keypoints


def test_points_are_measured_in_the_original_picture_and_objects_may_be_passed_over():
    """A picture of 100 x 300 pixels that was squeezed to a square: a point 0.1 off along x is 30
    pixels away, along y 10.
    """
    truth = f32([[[0.2, 0.2], [0.8, 0.8]]] * 3)
    guess = truth + f32([[[0.1, 0], [0.1, 0]], [[0, 0.1], [0, 0.1]], [[0.4, 0.4], [0.4, 0.4]]])
    batch = {
        "points": truth,
        "points_mask": np.ones((3, 2), np.float32),
        "image": np.zeros((3, 32, 32, 1), np.float32),
        "original_size": np.array([[100, 300]] * 3, np.int32),
        "box_areas": f32([[5000.0]] * 3),
        "boxes_crowd": f32([[0], [0], [1]]),
        "mask": np.ones(3, np.float32),
    }
    task = Keypoints(2, method="direct", reference="image", threshold=0.05, sigmas=(0.1, 0.2))
    summary = evaluate(task, guess, batch)
    assert summary["pck"] == 0.5
    assert summary["nme"] == pytest.approx((10 / 300 + 30 / 300) / 2, rel=1e-4)
    similarity = [np.exp(-(d**2) / (2 * 5000 * (2 * s) ** 2)) for d in (10, 30) for s in (0.1, 0.2)]
    assert summary["oks"] == pytest.approx(np.mean(similarity), rel=1e-4)
    assert (summary["ignored"], summary["skipped"], summary["invalid_points"]) == (1, 0, 0)
    assert float(task.loss(jnp.asarray(guess), to_jax(batch))[2]) == 0


# ---- text


def test_text_that_cannot_be_read_keeps_the_rules_too():
    outline = np.stack([test_text.rectangle((6, 16), (8, 20), 0)] * 2) / np.array(test_text.GRID)
    bow_tie = outline[0][[0, 2, 1, 3]]
    batch = {
        "polygons": f32(np.stack([outline[0], bow_tie]))[None],
        "polygons_mask": f32([[1, 0]]),
        "polygons_ignored": f32([[0, 1]]),
    }
    with pytest.raises(DataError, match=r"polygons\[0, 1\].*not convex"):
        test_text.FINDER.check(batch)
    with pytest.raises(DataError, match=r"polygons_ignored .* only where the mask is 0"):
        test_text.FINDER.check(batch | {"polygons_ignored": f32([[1, 0]])})
    task = dataclasses.replace(test_text.FINDER, degenerate="skip")
    task.check(batch)
    logits = test_text.drawn(task)(batch)
    summary = evaluate(task, logits, batch | {"mask": np.ones(1, np.float32)})
    assert (summary["skipped"], summary["ignored"], summary["hmean"]) == (1, 0, 1)
