"""From one record of a TFDS set to the entries of a batch: images, boxes, masks and points under
the names that jaxcnn's tasks know.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcnn.data.files.annotated import (
    IGNORED,
    Faults,
    check_boxes,
    choose_largest,
    pad_rows,
    resize_image,
    resize_nearest,
)
from jaxcnn.data.files.images import decode_image
from jaxcnn.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from jaxcnn.data.files.tfds import Tfds

# name features of objects, one for each of `boxes`
OBJECT_FIELDS = (
    "box_labels",
    "instance_masks",
    "skip_objects",
)
FITS = ("stretch", "crop")
POINT_UNITS = ("pixels", "shares")
ROUNDING = 0.005  # how far a box may lie outside the image, as a share of its size


def feature_names(data: "Tfds") -> list[tuple[str, str]]:
    """(field, feature's dotted name) of all features that `data` names."""
    fields = ("image", "target", "label", "segmentation", "boxes", *OBJECT_FIELDS)
    named = [(field, getattr(data, field)) for field in fields]
    return [(field, name) for field, name in named if name] + [
        ("points", name) for name in data.points
    ]


def find_feature(features: Any, path: str) -> tuple[Any, bool]:
    """The feature at a dotted path, and whether it lies in a sequence, of which it is then one
    element. KeyError if there is none.
    """
    node, repeated = features, False
    for part in path.split("."):
        children = dict(node.items()) if hasattr(node, "items") else {}
        node = children[part]
        if hasattr(node, "feature"):  # a Sequence
            node, repeated = node.feature, True
    return node, repeated


def all_paths(features: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of all features."""
    for name, node in features.items():
        inner = getattr(node, "feature", node)
        if hasattr(inner, "items"):
            yield from all_paths(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def check_features(data: "Tfds", features: Any) -> dict[str, Any]:
    """The named features by their dotted names. Errors: ConfigError for a name that the set has
    not, or fields that do not go together.
    """
    there, out = sorted(all_paths(features)), {}
    for field, name in feature_names(data):
        try:
            out[name], _ = find_feature(features, name)
        except KeyError:
            raise ConfigError(
                f"Tfds({data.name!r}): {field} is {name!r}; the set has the features "
                f"{there}{did_you_mean(name, there)}"
                + ("; label='' for none" if field == "label" and "label" not in there else "")
            ) from None
    if data.fit not in FITS:
        raise ConfigError(
            f"Tfds({data.name!r}): fit is {data.fit!r}; it must be one of {', '.join(FITS)}"
        )
    if data.point_units not in POINT_UNITS:
        raise ConfigError(
            f"Tfds({data.name!r}): point_units is {data.point_units!r}; it must be one of "
            f"{', '.join(POINT_UNITS)}"
        )
    if data.max_items < 1:
        raise ConfigError(
            f"Tfds({data.name!r}): max_items is {data.max_items}; there must be room for at least "
            "1 object"
        )
    alone = [field for field in OBJECT_FIELDS if getattr(data, field) and not data.boxes]
    if alone:
        raise ConfigError(
            f"Tfds({data.name!r}): {', '.join(alone)} describe objects; name the set's boxes too: "
            "boxes='objects.bbox'"
        )
    if data.fit == "crop" and (data.boxes or data.points):
        raise ConfigError(
            f"Tfds({data.name!r}): fit='crop' moves images and segmentation only; boxes and "
            "points need fit='stretch'"
        )
    if data.crops < 1 or data.target_scale < 1:
        raise ConfigError(
            f"Tfds({data.name!r}): crops={data.crops}, target_scale={data.target_scale}; both are "
            "at least 1"
        )
    if data.fit != "crop" and (data.crops > 1 or data.target):
        raise ConfigError(
            f"Tfds({data.name!r}): crops and target need fit='crop': resizing would undo what a "
            "larger target has to teach"
        )
    return out


def entry_specs(data: "Tfds", features: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of one example. Errors: ConfigError, DataError."""
    found = check_features(data, features)
    where, image = f"Tfds({data.name!r})", found[data.image]
    if len(image.shape) != 3:
        raise ConfigError(
            f"{where}: image is {data.image!r}, which has shape {image.shape}; an image has "
            "(height, width, channels)"
        )
    *size, channels = image.shape
    size = data.image_size or tuple(size)
    if len(size) != 2 or None in size:
        raise ConfigError(
            f"{where}: images have shape {image.shape}; set image_size=(height, width)"
        )
    if image.np_dtype != np.uint8:
        raise DataError(
            f"{where}: {data.image!r} is {image.np_dtype}; only uint8 images can be read"
        )
    out = {"image": jax.ShapeDtypeStruct((*size, 1 if channels == 1 else 3), np.uint8)}
    if data.label:
        label = found[data.label]
        kind = np.dtype(label.np_dtype).kind
        if kind not in "biuf" or None in label.shape or find_feature(features, data.label)[1]:
            raise ConfigError(
                f"{where}: {data.label!r} is {label!r}; a label is a number or a fixed number of "
                "them"
            )
        out["label"] = jax.ShapeDtypeStruct(label.shape, np.float32 if kind == "f" else np.int32)
    if data.target:
        large = (size[0] * data.target_scale, size[1] * data.target_scale, out["image"].shape[-1])
        out["target"] = jax.ShapeDtypeStruct(large, np.uint8)
    if data.segmentation:
        out["segmentation"] = jax.ShapeDtypeStruct(size, np.int32)
    if data.boxes:
        box, repeated = find_feature(features, data.boxes)
        if tuple(box.shape) != (4,):
            raise ConfigError(
                f"{where}: boxes is {data.boxes!r}, which is {box!r}; a box has 4 numbers (y0, "
                "x0, y1, x1)"
            )
        rows = data.max_items if repeated else 1
        out["boxes"], out["boxes_mask"] = (
            jax.ShapeDtypeStruct((rows, 4), np.float32),
            jax.ShapeDtypeStruct((rows,), np.float32),
        )
        if data.box_labels:
            out["box_labels"] = jax.ShapeDtypeStruct((rows,), np.int32)
        if data.instance_masks:
            out["instance_masks"] = jax.ShapeDtypeStruct((rows, *size), np.uint8)
    if data.points:
        count = _num_points(data, features)
        out["points"], out["points_mask"] = (
            jax.ShapeDtypeStruct((count, 2), np.float32),
            jax.ShapeDtypeStruct((count,), np.float32),
        )
    return out


def _num_points(data: "Tfds", features: Any) -> int:
    where, shapes = (
        f"Tfds({data.name!r})",
        [tuple(find_feature(features, name)[0].shape) for name in data.points],
    )
    if len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][1] == 2 and shapes[0][0]:
        return shapes[0][0]
    lengths = [shape[0] if shape else 1 for shape in shapes]
    if (
        len(shapes) % 2
        or any(len(shape) > 1 for shape in shapes)
        or None in lengths
        or lengths[::2] != lengths[1::2]
    ):
        raise ConfigError(
            f"{where}: points are features of shapes {shapes}; name one of shape (J, 2), or x and "
            "y in turn, of one or of J points each: "
            "points=('landmarks.nose_x', 'landmarks.nose_y', …)"
        )
    return sum(lengths[::2])


def decoder(
    data: "Tfds", spec: dict[str, jax.ShapeDtypeStruct], faults: Faults
) -> Callable[[dict[str, Any], np.ndarray, str, int], dict[str, np.ndarray]]:
    """A function from a record, its whole image [H, W, C], its place (for errors) and the example's
    number to the example.
    """
    size = (spec["image"].shape[0], spec["image"].shape[1])

    def decode(
        record: dict[str, Any], image: np.ndarray, place: str, number: int
    ) -> dict[str, np.ndarray]:
        before, corner = image.shape[:2], (0, 0)
        if data.fit == "crop":
            corner = _corner(before, size, number if data.crops > 1 else None, place)
            image = _window(image, corner, size)
        elif data.image_size:
            image = resize_image(image, size)
        out = {"image": image}
        if data.label:
            out["label"] = np.asarray(_value(record, data.label), spec["label"].dtype)
        if data.target:
            out["target"] = _target(data, record, before, corner, spec["target"].shape, place)
        if data.segmentation:
            out["segmentation"] = _segmentation(data, record, before, corner, size, place, faults)
        if data.boxes:
            out |= _objects(data, record, spec, before, place, faults)
        if data.points:
            out |= _points(data, record, before)
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
    data: "Tfds",
    record: Any,
    before: tuple[int, ...],
    corner: tuple[int, int],
    shape: tuple[int, ...],
    place: str,
) -> np.ndarray:
    """What the window at `corner` shows, in the image that is target_scale times larger (but for a
    rest of less than one pixel).
    """
    scale, name = data.target_scale, f"{place}, {data.target}"
    whole = decode_image(_value(record, data.target), name=name, size=None, channels=shape[-1])
    if any(new // scale != old for new, old in zip(whole.shape[:2], before, strict=True)):
        raise DataError(
            f"{name} is {whole.shape[:2]} and the image {tuple(before)}; it must be "
            f"target_scale={scale} times larger"
        )
    return _window(whole, (corner[0] * scale, corner[1] * scale), shape)


def _segmentation(
    data: "Tfds",
    record: Any,
    before: tuple[int, ...],
    corner: tuple[int, int],
    size: tuple[int, int],
    place: str,
    faults: Faults,
) -> np.ndarray:
    """The label map [H, W]. One that does not fit its image is ignored as a whole, and counted."""
    encoded = _value(record, data.segmentation)
    pixels = (
        decode_image(encoded, name=f"{place}, {data.segmentation}", size=None, channels=1)
        if isinstance(encoded, bytes)
        else encoded
    )
    pixels = np.asarray(pixels)[..., 0].astype(np.int32)
    if pixels.shape != tuple(before):
        faults.add(
            f"{place}: {data.segmentation!r} is {pixels.shape} and the image {tuple(before)}; "
            "they must be of one size"
        )
        return np.full(size, IGNORED, np.int32)
    moved = np.where(pixels == IGNORED, IGNORED, pixels + data.segmentation_offset)
    moved = np.where(moved < 0, IGNORED, moved)
    return _window(moved, corner, size) if data.fit == "crop" else resize_nearest(moved, size)


def _objects(
    data: "Tfds",
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
        if (name := getattr(data, field))
    }
    boxes = np.asarray(columns.pop("boxes"), np.float32).reshape(-1, 4)
    values = {
        field: list(column) if isinstance(column, list | np.ndarray) else [column]
        for field, column in columns.items()
    }
    for field, column in values.items():
        if len(column) != len(boxes):
            faults.add(
                f"{place}: {getattr(data, field)!r} has {len(column)} values and there are "
                f"{len(boxes)} boxes; it needs one for each"
            )
    count = min(len(boxes), *map(len, values.values())) if values else len(boxes)
    boxes, kept = check_boxes(
        boxes[:count], slack=ROUNDING, name=lambda i: f"{place}, object {i}", faults=faults
    )
    if data.skip_objects:
        kept &= ~np.asarray(values["skip_objects"][:count], bool).reshape(-1)
    kept = np.flatnonzero(kept)
    kept = kept[choose_largest(boxes[kept], rows, name=place, faults=faults)]
    out = {
        "boxes": pad_rows(boxes[kept], rows),
        "boxes_mask": pad_rows(np.ones(len(kept), np.float32), rows),
    }
    if data.box_labels:
        out["box_labels"] = pad_rows(
            np.array([values["box_labels"][i] for i in kept], np.int32), rows
        )
    if data.instance_masks:
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


def _points(data: "Tfds", record: Any, before: tuple[int, ...]) -> dict[str, np.ndarray]:
    """points [J, 2] (y, x) in [0, 1] and points_mask [J], 0 where a point is not finite or lies
    outside the image.
    """
    values = [np.asarray(_value(record, name), np.float64) for name in data.points]
    if len(values) == 1:
        points = values[0][:, ::-1]
    else:
        points = np.stack(
            [np.concatenate([np.ravel(v) for v in values[start::2]]) for start in (1, 0)], axis=-1
        )
    if data.point_units == "pixels":
        points = points / np.asarray(before, np.float64)
    visible = np.all(np.isfinite(points) & (points >= 0) & (points <= 1), axis=-1, keepdims=True)
    return {
        "points": np.where(visible, points, 0.0).astype(np.float32),
        "points_mask": visible[:, 0].astype(np.float32),
    }
