"""What the tasks on boxes share: which boxes of a batch can be learned from, the rules of host
arrays, and the forms that metrics read.

Entries of a batch: "boxes" [B, N, 4] float (y0, x0, y1, x1) in [0, 1]; "boxes_mask" [B, N], 1 where
    a box exists (all of them, if absent);
"box_labels" [B, N] integers in [0, K).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.tasks.task import Batch

OUTSIDE = 1e-3  # how far a corner may lie outside [0, 1]: half a pixel of rounding at 500 pixels
INVALID = ("error", "skip")


def usable_boxes(batch: Batch, *, num_classes: int | None = None) -> jax.Array:
    """Which boxes exist, lie in the image, have an area, and (with `num_classes`) a label in range.
    [B, N] bool
    """
    boxes = batch["boxes"].astype(jnp.float32)
    # False for NaN
    good = (jnp.min(boxes, axis=-1) >= -OUTSIDE) & (jnp.max(boxes, axis=-1) <= 1 + OUTSIDE)
    good = good & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    if num_classes is not None:
        good = good & (batch["box_labels"] >= 0) & (batch["box_labels"] < num_classes)
    return good & existing_boxes(batch)


def existing_boxes(batch: Batch) -> jax.Array:
    """Which boxes the data say to exist. [B, N] bool"""
    return (
        batch["boxes_mask"] > 0
        if "boxes_mask" in batch
        else jnp.ones(batch["boxes"].shape[:-1], bool)
    )


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
    names = (
        {"boxes_mask": "numbers", "box_labels": "integers"}
        if num_classes is not None
        else {"boxes_mask": "numbers"}
    )
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
    if invalid == "skip":
        return
    exists = (
        np.asarray(batch["boxes_mask"]) > 0
        if "boxes_mask" in batch
        else np.ones(boxes.shape[:2], bool)
    )
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


def to_predictions(
    records: dict[str, Any], *, size: tuple[int, int]
) -> list[dict[str, np.ndarray]]:
    """One dict an image for `ops.average_precision`, boxes in pixels of `size`, from records boxes
    [R, D, 4], scores, labels [R, D]; detections of score 0 are left out."""
    found = np.asarray(records["scores"]) > 0
    return _objects(
        records["boxes"],
        records["labels"],
        found,
        size=size,
        score=np.asarray(records["scores"], np.float64),
    )


def to_truths(records: dict[str, Any], *, size: tuple[int, int]) -> list[dict[str, np.ndarray]]:
    """The same of truth_boxes [R, N, 4], truth_labels and truth_mask [R, N]."""
    return _objects(
        records["truth_boxes"],
        records["truth_labels"],
        np.asarray(records["truth_mask"]) > 0,
        size=size,
    )


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
    boxes: Any, labels: Any, chosen: np.ndarray, *, size: tuple[int, int], **more: np.ndarray
) -> list[dict[str, np.ndarray]]:
    pixels = np.asarray(boxes, np.float64) * np.array([*size, *size], np.float64)
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
