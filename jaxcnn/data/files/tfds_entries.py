"""From one record of a TFDS set to the entries of a batch: images, boxes, masks and points under
the names that jaxcnn's tasks know.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.core.batch import IGNORED
from jaxcnn.data.files.annotated import (
    Faults,
    check_boxes,
    choose_largest,
    pad_rows,
    resize_image,
    resize_nearest,
)
from jaxcnn.data.files.images import decode_image
from jaxcnn.data.files.tfds_features import OBJECT_FIELDS, Wanted
from jaxcnn.errors import DataError

ROUNDING = 0.005  # how far a box may lie outside the image, as a share of its size


def decoder(
    wanted: Wanted, spec: dict[str, jax.ShapeDtypeStruct], faults: Faults
) -> Callable[[dict[str, Any], np.ndarray, str, int], dict[str, np.ndarray]]:
    """A function from a record, its whole image [H, W, C], its place (for errors) and the example's
    number to the example.
    """
    size = (spec["image"].shape[0], spec["image"].shape[1])

    def decode(
        record: dict[str, Any], image: np.ndarray, place: str, number: int
    ) -> dict[str, np.ndarray]:
        before, corner = image.shape[:2], (0, 0)
        if wanted.fit == "crop":
            corner = _corner(before, size, number if wanted.crops > 1 else None, place)
            image = _window(image, corner, size)
        elif wanted.image_size:
            image = resize_image(image, size)
        out = {"image": image}
        if wanted.label:
            out["label"] = np.asarray(_value(record, wanted.label), spec["label"].dtype)
        if wanted.target:
            out["target"] = _target(wanted, record, before, corner, spec["target"].shape, place)
        if wanted.segmentation:
            out["segmentation"] = _segmentation(wanted, record, before, corner, size, place, faults)
        if wanted.boxes:
            out |= _objects(wanted, record, spec, before, place, faults)
        if wanted.points:
            out |= _points(wanted, record, before)
        return out

    return decode


def _value(record: Any, path: str) -> Any:
    for part in path.split("."):
        record = record[part]
    return record


def _corner(
    before: tuple[int, ...], size: tuple[int, int], number: int | None, place: str
) -> tuple[int, int]:
    """The upper left pixel (y, x) of a window of `size`: in the middle, or at a place that is a
    function of the example's number.
    """
    free = (before[0] - size[0], before[1] - size[1])
    if min(free) < 0:
        raise DataError(
            f"{place}: the image is {tuple(before)}; fit='crop' cuts {size} out of it: choose a "
            "smaller image_size"
        )
    if number is None:
        return free[0] // 2, free[1] // 2
    y, x = np.random.Generator(np.random.Philox(key=number)).integers(0, np.array(free) + 1)
    return int(y), int(x)


def _window(grid: np.ndarray, corner: tuple[int, int], size: tuple[int, ...]) -> np.ndarray:
    return grid[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


def _target(
    wanted: Wanted,
    record: Any,
    before: tuple[int, ...],
    corner: tuple[int, int],
    shape: tuple[int, ...],
    place: str,
) -> np.ndarray:
    """What the window at `corner` shows, in the image that is target_scale times larger (but for a
    rest of less than one pixel).
    """
    scale, name = wanted.target_scale, f"{place}, {wanted.target}"
    whole = decode_image(_value(record, wanted.target), name=name, size=None, channels=shape[-1])
    if any(new // scale != old for new, old in zip(whole.shape[:2], before, strict=True)):
        raise DataError(
            f"{name} is {whole.shape[:2]} and the image {tuple(before)}; it must be "
            f"target_scale={scale} times larger"
        )
    return _window(whole, (corner[0] * scale, corner[1] * scale), shape)


def _segmentation(
    wanted: Wanted,
    record: Any,
    before: tuple[int, ...],
    corner: tuple[int, int],
    size: tuple[int, int],
    place: str,
    faults: Faults,
) -> np.ndarray:
    """The label map [H, W]. One that does not fit its image is ignored as a whole, and counted."""
    encoded = _value(record, wanted.segmentation)
    pixels = (
        decode_image(encoded, name=f"{place}, {wanted.segmentation}", size=None, channels=1)
        if isinstance(encoded, bytes)
        else encoded
    )
    pixels = np.asarray(pixels)[..., 0].astype(np.int32)
    if pixels.shape != tuple(before):
        faults.add(
            f"{place}: {wanted.segmentation!r} is {pixels.shape} and the image {tuple(before)}; "
            "they must be of one size"
        )
        return np.full(size, IGNORED, np.int32)
    moved = np.where(pixels == IGNORED, IGNORED, pixels + wanted.segmentation_offset)
    moved = np.where(moved < 0, IGNORED, moved)
    return _window(moved, corner, size) if wanted.fit == "crop" else resize_nearest(moved, size)


def _objects(
    wanted: Wanted,
    record: Any,
    spec: dict[str, jax.ShapeDtypeStruct],
    before: tuple[int, ...],
    place: str,
    faults: Faults,
) -> dict[str, np.ndarray]:
    """boxes, boxes_mask, box_labels and instance_masks of the objects that keep the rules, in their
    order, then zeros.
    """
    rows = spec["boxes"].shape[0]
    columns = {
        field: _value(record, name)
        for field in ("boxes", *OBJECT_FIELDS)
        if (name := getattr(wanted, field))
    }
    boxes = np.asarray(columns.pop("boxes"), np.float32).reshape(-1, 4)
    values = {
        field: list(column) if isinstance(column, list | np.ndarray) else [column]
        for field, column in columns.items()
    }
    for field, column in values.items():
        if len(column) != len(boxes):
            faults.add(
                f"{place}: {getattr(wanted, field)!r} has {len(column)} values and there are "
                f"{len(boxes)} boxes; it needs one for each"
            )
    count = min(len(boxes), *map(len, values.values())) if values else len(boxes)
    boxes, kept = check_boxes(
        boxes[:count], slack=ROUNDING, name=lambda i: f"{place}, object {i}", faults=faults
    )
    if wanted.skip_objects:
        kept &= ~np.asarray(values["skip_objects"][:count], bool).reshape(-1)
    kept = np.flatnonzero(kept)
    kept = kept[choose_largest(boxes[kept], rows, name=place, faults=faults)]
    out = {
        "boxes": pad_rows(boxes[kept], rows),
        "boxes_mask": pad_rows(np.ones(len(kept), np.float32), rows),
    }
    if wanted.box_labels:
        out["box_labels"] = pad_rows(
            np.array([values["box_labels"][i] for i in kept], np.int32), rows
        )
    if wanted.instance_masks:
        out["instance_masks"] = np.zeros(spec["instance_masks"].shape, np.uint8)
        for row, i in enumerate(kept):
            mask = np.asarray(values["instance_masks"][i])[..., 0]
            if mask.shape != before:
                faults.add(
                    f"{place}, object {i}: its mask is {mask.shape} and the image {before}; they "
                    "must be of one size"
                )
                continue
            out["instance_masks"][row] = resize_nearest(
                np.where(mask > 0, 255, 0), spec["image"].shape[:2]
            )
    return out


def _points(wanted: Wanted, record: Any, before: tuple[int, ...]) -> dict[str, np.ndarray]:
    """points [J, 2] (y, x) in [0, 1] and points_mask [J], 0 where a point is not finite or lies
    outside the image.
    """
    values = [np.asarray(_value(record, name), np.float64) for name in wanted.points]
    if len(values) == 1:
        points = values[0][:, ::-1]
    else:
        points = np.stack(
            [np.concatenate([np.ravel(v) for v in values[start::2]]) for start in (1, 0)], axis=-1
        )
    if wanted.point_units == "pixels":
        points = points / np.asarray(before, np.float64)
    visible = np.all(np.isfinite(points) & (points >= 0) & (points <= 1), axis=-1, keepdims=True)
    return {
        "points": np.where(visible, points, 0.0).astype(np.float32),
        "points_mask": visible[:, 0].astype(np.float32),
    }
