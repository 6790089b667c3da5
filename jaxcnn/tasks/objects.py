"""What the tasks on boxes share: which boxes of a batch can be learned from, the rules of host
arrays, and the forms that metrics read.

Entries of a batch: "boxes" [B, N, 4] float (y0, x0, y1, x1) in [0, 1]; "boxes_mask" [B, N], 1 where
    an object is to be found (all of them, if absent); "box_labels" [B, N] integers in [0, K).
Optional, as `jaxcnn.core.batch` says: "boxes_ignored" and "boxes_crowd" [B, N], 1 for objects that
    need not be found; "box_areas" [B, N] and "original_size" [B, 2], in pixels of the original.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.tasks.task import Batch

OUTSIDE = 1e-3  # how far a corner may lie outside [0, 1]: half a pixel of rounding at 500 pixels
ROUNDING = 1e-6  # a box that ends where a place begins does not touch it
INVALID = ("error", "skip")
OPTIONAL = ("boxes_mask", "boxes_ignored", "boxes_crowd", "box_areas")


def usable_boxes(batch: Batch, *, num_classes: int | None = None) -> jax.Array:
    """Which boxes are to be found, lie in the image, have an area, and (with `num_classes`) a label
    in range. [B, N] bool
    """
    return _sound_boxes(batch, num_classes) & existing_boxes(batch) & ~_passed_over(batch)


def ignored_boxes(batch: Batch, *, num_classes: int | None = None) -> jax.Array:
    """Which boxes need not be found, crowds among them, and are sound as `usable_boxes` says. [B,
    N] bool
    """
    return _sound_boxes(batch, num_classes) & _passed_over(batch)


def covered(
    batch: Batch, low: np.ndarray, high: np.ndarray, *, num_classes: int | None = None
) -> jax.Array:
    """Whether each place, from `low` to `high` [A, 2] in [0, 1], touches a box that need not be
    found: there a detector is not told that it sees background. [B, A] bool
    """
    if "boxes_ignored" not in batch and "boxes_crowd" not in batch:
        return jnp.zeros((len(batch["boxes"]), len(low)), bool)
    # [B, A, N]
    ignored = ignored_boxes(batch, num_classes=num_classes)[:, None]
    boxes = batch["boxes"].astype(jnp.float32)[:, None]
    first, last = (
        jnp.asarray(np.asarray(corner, np.float32))[None, :, None] for corner in (low, high)
    )
    touches = jnp.all(
        (boxes[..., :2] < last - ROUNDING) & (boxes[..., 2:] > first + ROUNDING), axis=-1
    )
    return jnp.any(touches & ignored, axis=-1)


def _sound_boxes(batch: Batch, num_classes: int | None) -> jax.Array:
    boxes = batch["boxes"].astype(jnp.float32)
    # False for NaN
    good = (jnp.min(boxes, axis=-1) >= -OUTSIDE) & (jnp.max(boxes, axis=-1) <= 1 + OUTSIDE)
    good = good & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    if num_classes is not None:
        good = good & (batch["box_labels"] >= 0) & (batch["box_labels"] < num_classes)
    return good


def existing_boxes(batch: Batch) -> jax.Array:
    """Which boxes the data say are to be found. [B, N] bool"""
    if "boxes_mask" in batch:
        return batch["boxes_mask"] > 0
    return ~jnp.asarray(_passed_over(batch))


def count_boxes(batch: Batch, *, num_classes: int) -> dict[str, jax.Array]:
    """Counts (int32) in the real rows: "objects" to be found, and "skipped" ones, to be found or
    not, that break a rule.
    """
    usable = usable_boxes(batch, num_classes=num_classes)
    ignored = ignored_boxes(batch, num_classes=num_classes)
    skipped = (existing_boxes(batch) | _passed_over(batch)) & ~usable & ~ignored
    real = (batch["mask"] > 0)[:, None]
    return {
        name: jnp.sum(rows & real, dtype=jnp.int32)
        for name, rows in (("objects", usable), ("skipped", skipped))
    }


def _passed_over(batch: Batch) -> Any:
    """Which boxes the data say need not be found, [B, N] bool; JAX or NumPy."""
    out = np.zeros(batch["boxes"].shape[:-1], bool)
    for name in ("boxes_ignored", "boxes_crowd"):
        out = out | (batch[name] > 0) if name in batch else out
    return out


def check_boxes(batch: dict[str, Any], *, invalid: str, num_classes: int | None = None) -> None:
    """Shapes and dtypes of the entries; with invalid="error" also each box that `usable_boxes`
    would leave out. Errors: DataError.
    """
    boxes = np.asarray(batch["boxes"])
    if not np.issubdtype(boxes.dtype, np.floating) or boxes.ndim != 3 or boxes.shape[-1] != 4:
        raise DataError(
            f"boxes have dtype {boxes.dtype} and shape {boxes.shape}; expected float32 [B, N, 4], "
            "(y0, x0, y1, x1) in [0, 1]: divide "
            "pixels by the image's height and width"
        )
    names = dict.fromkeys(OPTIONAL, "numbers")
    names |= {"box_labels": "integers"} if num_classes is not None else {}
    for name, kind in names.items():
        if name in batch and np.shape(batch[name]) != boxes.shape[:2]:
            raise DataError(
                f"{name} has shape {np.shape(batch[name])}; boxes {boxes.shape} need {kind} of "
                f"shape {boxes.shape[:2]}"
            )
    if num_classes is not None and not np.issubdtype(
        np.asarray(batch["box_labels"]).dtype, np.integer
    ):
        raise DataError(
            f"box_labels have dtype {np.asarray(batch['box_labels']).dtype}; expected integers in "
            f"[0, {num_classes})"
        )
    if "original_size" in batch and np.shape(batch["original_size"]) != (len(boxes), 2):
        raise DataError(
            f"original_size has shape {np.shape(batch['original_size'])}; it must be "
            f"{(len(boxes), 2)}: (height, width) of each original picture in pixels"
        )
    if invalid == "skip":
        return
    host = {name: np.asarray(batch[name]) for name in ("boxes", *OPTIONAL) if name in batch}
    passed_over = _passed_over(host)
    exists = host["boxes_mask"] > 0 if "boxes_mask" in host else ~passed_over
    _refuse(
        "boxes_mask",
        exists.astype(np.float32),
        exists & passed_over,
        "the boxes_mask of an object that need not be found (boxes_ignored or boxes_crowd 1) is 0",
    )
    exists = exists | passed_over
    inside = (boxes.min(axis=-1) >= -OUTSIDE) & (boxes.max(axis=-1) <= 1 + OUTSIDE)
    _refuse(
        "boxes",
        boxes,
        exists & ~inside,
        "boxes lie in the image, [0, 1] (divide pixels by height and width, or clip)",
    )
    empty = (boxes[..., 2] <= boxes[..., 0]) | (boxes[..., 3] <= boxes[..., 1])
    _refuse("boxes", boxes, exists & empty, "boxes are not empty: y0 < y1 and x0 < x1")
    if num_classes is not None:
        labels = np.asarray(batch["box_labels"])
        wrong = exists & ((labels < 0) | (labels >= num_classes))
        _refuse(
            "box_labels",
            labels,
            wrong,
            f"labels lie in [0, {num_classes}) (num_classes={num_classes})",
        )


def check_invalid(task: str, invalid: str) -> None:
    """Raise ConfigError unless the field `invalid` of a task is one of its two words."""
    if invalid not in INVALID:
        raise ConfigError(
            f"{task}: invalid is {invalid!r}; 'error' refuses boxes that break a rule, 'skip' "
            "leaves them out and counts them"
        )


def average(arrays: list) -> jax.Array:
    """The mean of arrays of one shape, float32."""
    return jnp.mean(jnp.stack([array.astype(jnp.float32) for array in arrays]), axis=0)


def truth_records(
    batch: Batch, *, num_classes: int, image_size: tuple[int, int]
) -> dict[str, jax.Array]:
    """The rows that `to_truths` reads: truth_boxes [B, N, 4], truth_labels [B, N]; truth_mask,
    truth_ignored, truth_crowd [B, N] bool; truth_areas [B, N], -1 where the batch has none;
    picture_size [B, 2], `image_size` where it has no "original_size".
    """
    boxes = batch["boxes"].astype(jnp.float32)
    ignored = ignored_boxes(batch, num_classes=num_classes)
    size = jnp.broadcast_to(jnp.asarray(image_size, jnp.int32), (len(boxes), 2))
    return {
        "truth_boxes": boxes,
        "truth_labels": batch["box_labels"].astype(jnp.int32),
        "truth_mask": usable_boxes(batch, num_classes=num_classes),
        "truth_ignored": ignored,
        "truth_crowd": ignored & (batch.get("boxes_crowd", jnp.zeros(ignored.shape)) > 0),
        "truth_areas": batch.get("box_areas", -jnp.ones(ignored.shape)).astype(jnp.float32),
        "picture_size": batch.get("original_size", size).astype(jnp.int32),
    }


def to_predictions(records: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """One dict an image for `metrics.average_precision`, boxes in pixels of the original picture
    (picture_size [R, 2]), from records boxes [R, D, 4], scores, labels [R, D]; detections of score
    0 are left out.
    """
    score = np.asarray(records["scores"], np.float64)
    return _objects(
        records["boxes"], records["labels"], score > 0, size=records["picture_size"], score=score
    )


def to_truths(records: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """The same of what `truth_records` says; "area" only where it is known."""
    ignored = np.asarray(records["truth_ignored"]) > 0
    area = np.asarray(records["truth_areas"], np.float64)
    truths = _objects(
        records["truth_boxes"],
        records["truth_labels"],
        (np.asarray(records["truth_mask"]) > 0) | ignored,
        size=records["picture_size"],
        ignored=ignored,
        crowd=np.asarray(records["truth_crowd"]) > 0,
        area=area,
    )
    for i in np.flatnonzero((area < 0).any(axis=1)):
        del truths[i]["area"]
    return truths


def describe_objects(
    row: dict[str, np.ndarray], *, names: tuple[str, ...], threshold: float
) -> list[dict[str, Any]]:
    """The detections of one row (boxes [D, 4], scores, labels [D]) with at least score `threshold`,
    best first, by the standard keys.
    """
    order = [
        int(i) for i in np.argsort(-row["scores"], kind="stable") if row["scores"][i] >= threshold
    ]
    return [
        describe_object(row["boxes"][i], row["labels"][i], row["scores"][i], names=names)
        for i in order
    ]


def describe_object(box: Any, label: Any, score: Any, *, names: tuple[str, ...]) -> dict[str, Any]:
    """One object as `predict` prints and draws it; its box is cut to the image."""
    label = int(label)
    name = names[label] if 0 <= label < len(names) else str(label)
    return {
        "label": label,
        "name": name,
        "score": float(score),
        "box": [float(v) for v in np.clip(box, 0.0, 1.0)],
    }


def _objects(
    boxes: Any, labels: Any, chosen: np.ndarray, *, size: Any, **more: np.ndarray
) -> list[dict[str, np.ndarray]]:
    sides = np.tile(np.asarray(size, np.float64), 2)[:, None]  # [R, 1, 4]
    pixels = np.asarray(boxes, np.float64) * sides
    labels = np.asarray(labels)
    rows = range(len(pixels))
    return [
        {"box": pixels[i][chosen[i]], "label": labels[i][chosen[i]]}
        | {name: v[i][chosen[i]] for name, v in more.items()}
        for i in rows
    ]


def _refuse(name: str, values: np.ndarray, wrong: np.ndarray, rule: str) -> None:
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"{name}[{row}, {column}] is {values[row, column].tolist()}; {rule}, and "
            f"{int(wrong.sum())} of {wrong.size} do not. "
            "Repair the data, or leave such boxes out and count them: invalid='skip'"
        )
