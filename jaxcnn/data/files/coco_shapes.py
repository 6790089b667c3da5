"""The "segmentation" of a COCO annotation: polygons or run lengths, as files have them."""

from typing import Any

import numpy as np

from jaxcnn.data.example import Shape
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.parsing import number, numbers
from jaxcnn.errors import DataError
from jaxcnn.ops import masks

LEAST_AREA = 1e-6  # pixels that an object's polygons must enclose


def read_shape(value: Any, size: tuple[int, int], *, name: str, faults: Faults) -> Shape:
    """What can be drawn of a segmentation into an image of `size`: polygons, or run lengths with
    whole numbers. Faulty polygons of several are left out; None (and a fault) where nothing is
    left. `name` names the file and object.
    """
    if isinstance(value, dict) and value:
        return _read_runs(value, size, name=name, faults=faults)
    if not isinstance(value, list) or not value:
        return faults.add(
            f"{name}: segmentation is {str(value)[:60]}; masks need polygons or run lengths for "
            "each object",
            kind="object without a shape",
        )
    parts, problems = [], []
    for part in _nest(value):
        polygon = numbers(part)
        problem = _problem(part, polygon, size)
        if problem or polygon is None:
            problems.append(f"{name}: {problem}")
        else:
            parts.append(polygon)
    if not parts:
        return faults.add(problems[0], kind="polygon of too few points, or far outside")
    for problem in problems:
        faults.mend(f"{problem}; this part is left out", kind="part of an object")
    if sum(map(_area, parts)) < LEAST_AREA:
        return faults.add(
            f"{name}: its polygons enclose no area: {str(value)[:60]}", kind="polygon without area"
        )
    return parts


def _nest(value: list[Any]) -> list[Any]:
    """A list of polygons (x, y, x, y, …), also where the file has but one of them, or points (x, y)
    as lists."""
    if all(number(v) is not None for v in value):  # one polygon, not in a list
        return [value]
    if len(value) >= 3 and all(_is_point(v) for v in value):  # one polygon of points
        return [[v for point in value for v in point]]
    return [
        [v for point in part for v in point]
        if isinstance(part, list) and part and all(_is_point(v) for v in part)
        else part
        for part in value
    ]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and numbers(value) is not None


def _problem(part: Any, polygon: list[float] | None, size: tuple[int, int]) -> str:
    """What is wrong with one polygon, "" if nothing is."""
    if polygon is None or len(polygon) < 6 or len(polygon) % 2:
        return f"a polygon is {str(part)[:60]}; it must be x, y of at least 3 points, in one list"
    height, width = size
    xs, ys = polygon[::2], polygon[1::2]
    if min(xs) < -width or max(xs) > 2 * width or min(ys) < -height or max(ys) > 2 * height:
        return f"a polygon {str(part)[:60]} lies far outside the image of {size} (height, width)"
    return ""


def _read_runs(
    value: dict[str, Any], size: tuple[int, int], *, name: str, faults: Faults
) -> dict[str, Any] | None:
    declared = numbers(value.get("size"), count=2)
    if declared is None or tuple(declared) != size:  # before it is decoded: sizes may lie
        return faults.add(
            f"{name}: its mask is of size {value.get('size')} and the image {list(size)} "
            "(height, width)",
            kind="mask of another size",
        )
    counts = value.get("counts")
    if isinstance(counts, list):
        found = numbers(counts)
        counts = None if found is None else [int(n) for n in found]
    shape = {"size": list(size), "counts": counts}
    try:
        masks.decode(shape)
    except (DataError, KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
        return faults.add(
            f"{name}: its run lengths cannot be read ({error})", kind="run lengths of no mask"
        )
    return shape


def measure(shape: Any) -> float:
    """The area of a shape in pixels."""
    if isinstance(shape, dict):
        return float(masks.decode(shape).sum())
    return sum(map(_area, shape))


def bounds(shape: Any) -> list[float]:
    """The box [y0, x0, y1, x1] around a shape, in pixels."""
    if isinstance(shape, dict):
        return masks.to_box(masks.decode(shape)).tolist()
    xs, ys = [x for part in shape for x in part[::2]], [y for part in shape for y in part[1::2]]
    return [min(ys), min(xs), max(ys), max(xs)]


def _area(polygon: list[float]) -> float:
    """The area enclosed by (x, y, x, y, …), by the shoelace formula."""
    x, y = np.reshape(np.asarray(polygon, np.float64), (-1, 2)).T
    x, y = x - x[0], y - y[0]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
