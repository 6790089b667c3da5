"""From one record of a TFDS set to an example: objects, label maps and points under the names that
jaxcnn's tasks know.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxcnn.core.batch import IGNORED
from jaxcnn.data.example import Example, Objects, make_objects
from jaxcnn.data.files.checks import check_boxes, limit_objects
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import decode_image, turn_of
from jaxcnn.data.files.tfds_features import OBJECT_FIELDS, Wanted
from jaxcnn.errors import DataError

ROUNDING = 0.005  # how far a box may lie outside the image, as a share of its size


def make_example(
    wanted: Wanted,
    record: dict[str, Any],
    image: np.ndarray,
    spec: dict[str, jax.ShapeDtypeStruct],
    place: str,
    number: int,
    *,
    faults: Faults,
) -> Example:
    """The example of a record, whose picture is `image` uint8 [h, w, C]. `place`: the file and
    record, for errors; `number`: the example's, of which the place of a crop is a function.
    """
    size, extra = (image.shape[0], image.shape[1]), {}
    window = None
    if wanted.fit == "crop":
        height, width = spec["image"].shape[:2]
        top, left = _corner(size, (height, width), number if wanted.crops > 1 else None, place)
        window = (top, left, top + height, left + width)
    if wanted.label:
        extra["label"] = np.asarray(value_at(record, wanted.label), spec["label"].dtype)
    if wanted.points:
        extra |= _points(wanted, record, size)
    segmentation = None
    if wanted.segmentation:
        segmentation = partial(_class_map, wanted, record, size, place)
    if wanted.boxes or wanted.points:
        _note_turn(wanted, record, place, faults)
    return Example(
        image=image,
        size=size,
        name=place,
        window=window,
        objects=_objects(wanted, record, spec, size, place, faults) if wanted.boxes else None,
        segmentation=segmentation,
        target=_target(wanted, record, image, place) if wanted.target else None,
        extra=extra,
    )


def _turn(wanted_path: str, record: Any, place: str) -> int:
    """The EXIF orientation of a stored image; 1 for pixels that TFDS has decoded."""
    stored = value_at(record, wanted_path)
    return turn_of(stored, name=place) if isinstance(stored, bytes) else 1


def _note_turn(wanted: Wanted, record: Any, place: str, faults: Faults) -> None:
    if (turn := _turn(wanted.image, record, place)) != 1:
        faults.note(
            f"{place}: its EXIF orientation {turn} turns or mirrors it, and nothing tells whether "
            "its labels were drawn on the turned picture; they are taken so",
            kind="picture turned by its EXIF orientation",
        )


def value_at(record: Any, path: str) -> Any:
    """The feature of a record at a dotted path."""
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


def _target(wanted: Wanted, record: Any, image: np.ndarray, place: str) -> np.ndarray:
    """The image that is target_scale times larger (but for a rest of less than one pixel)."""
    scale, name = wanted.target_scale, f"{place}, {wanted.target}"
    channels, before = image.shape[2], image.shape[:2]
    whole = decode_image(value_at(record, wanted.target), name=name, size=None, channels=channels)
    if any(new // scale != old for new, old in zip(whole.shape[:2], before, strict=True)):
        raise DataError(
            f"{name} is {whole.shape[:2]} and the image {tuple(before)}; it must be "
            f"target_scale={scale} times larger"
        )
    return whole


def mask_pixels(wanted: Wanted, record: Any, place: str) -> np.ndarray:
    """The values of the pixels of a record's label map, int32 [h, w], see `Meaning.read`. Errors:
    DataError."""
    stored, name = value_at(record, wanted.segmentation), f"{place}, {wanted.segmentation}"
    if isinstance(stored, bytes):
        return wanted.meaning.read(stored, name=name)
    pixels = np.asarray(stored)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if (
        pixels.dtype.kind not in "biu"
        or wanted.meaning.colours
        or (pixels != pixels[..., :1]).any()
    ):
        raise DataError(
            f"{name}: is {pixels.dtype}{list(pixels.shape)} as TFDS decodes it; a label map that "
            "is no Image feature holds one integer a pixel"
        )
    return pixels[..., 0].astype(np.int32)


def _class_map(
    wanted: Wanted, record: Any, size: tuple[int, int], place: str, faults: Faults
) -> np.ndarray:
    """The label map [h, w]. One that does not fit its image is ignored as a whole, and counted."""
    pixels = mask_pixels(wanted, record, place)
    if pixels.shape != size:
        faults.add(
            f"{place}: {wanted.segmentation!r} is {pixels.shape} and the image {size}; "
            "they must be of one size",
            kind="mask of another size",
        )
        return np.full(size, IGNORED, np.int32)
    turns = [_turn(path, record, place) for path in (wanted.image, wanted.segmentation)]
    if turns[0] != turns[1]:
        faults.add(
            f"{place}: the EXIF orientation of {wanted.segmentation!r} is {turns[1]} and that of "
            f"its image {turns[0]} (1: upright), so that nobody knows on what it was drawn; write "
            "both upright, without the tag, and prepare the set again",
            kind="image or mask turned by its EXIF orientation",
        )
        return np.full(size, IGNORED, np.int32)
    meaning, offset = wanted.meaning, wanted.segmentation_offset
    if offset:  # what stands for no class moves along, and what would be below 0 joins it
        meaning = meaning._replace(ignored=IGNORED + offset)
        pixels = np.where(pixels + offset < 0, IGNORED + offset, pixels + offset)
    return meaning.class_numbers(pixels, faults, name=f"{place}, {wanted.segmentation}")


def _objects(
    wanted: Wanted,
    record: Any,
    spec: dict[str, jax.ShapeDtypeStruct],
    size: tuple[int, int],
    place: str,
    faults: Faults,
) -> Objects:
    """The objects that keep the rules, in their order."""
    columns = {
        field: value_at(record, name)
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
                f"{len(boxes)} boxes; it needs one for each",
                kind="features of different lengths",
            )
    count = min(len(boxes), *map(len, values.values())) if values else len(boxes)
    boxes, kept = check_boxes(
        boxes[:count], slack=ROUNDING, name=lambda i: f"{place}, object {i}", faults=faults
    )
    chosen = np.flatnonzero(kept)

    def of(field: str) -> list[Any]:
        return [values[field][i] for i in chosen]

    masks = (
        [np.asarray(mask).max(-1) > 0 for mask in of("instance_masks")]
        if wanted.instance_masks
        else []
    )
    for row, (i, mask) in enumerate(zip(chosen, masks, strict=False)):
        if mask.shape != size:
            faults.add(
                f"{place}, object {i}: its mask is {mask.shape} and the image {size}; they "
                "must be of one size",
                kind="mask of another size",
            )
            masks[row] = np.zeros(size, bool)
    areas = of("areas") if wanted.areas else [mask.sum() for mask in masks] or None
    objects = make_objects(
        boxes[chosen],
        of("box_labels") if wanted.box_labels else np.zeros(len(chosen)),
        size=size,
        areas=areas,
        ignored=np.array(of("skip_objects"), bool).reshape(-1) if wanted.skip_objects else None,
        crowd=np.array(of("crowd_objects"), bool).reshape(-1) if wanted.crowd_objects else None,
        shapes=masks,
    )
    return limit_objects(objects, spec["boxes"].shape[0], name=place, faults=faults)


def _points(wanted: Wanted, record: Any, before: tuple[int, ...]) -> dict[str, np.ndarray]:
    """points [J, 2] (y, x) in [0, 1] and points_mask [J], 0 where a point is not finite or lies
    outside the image.
    """
    values = [np.asarray(value_at(record, name), np.float64) for name in wanted.points]
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
