"""What is looked at in the picture files and boxes of every format."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.data.example import Objects, Shape, make_objects
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import image_paths, image_size
from jaxcnn.data.files.names import nfc
from jaxcnn.errors import DataError

# A box that is over the edge is cut where the objects with a fault are left out, too, if it is so
# by at most this share of the picture, and at least half of it lies inside: it is a slip of the
# hand, not another picture's box.
EDGE, INSIDE = 0.1, 0.5


def check_image_file(
    path: Path, faults: Faults, *, declared: tuple[float, float] | None = None
) -> tuple[int, int] | None:
    """The (height, width) of an image file as `images.read_image` sees it, upright, from its
    header; None (and a fault) where it is missing or no image, or not of the `declared` size.

    A picture that its EXIF orientation turns, and of which no declared size says how its labels
    lie, is noted: they are taken as those of the upright picture.
    """
    if not os.path.exists(path):  # also where the name is too long or holds a zero byte
        return faults.add(f"{path}: there is no such image file", kind="no such image")
    try:
        (height, width), orientation = image_size(path)
    except DataError as error:
        return faults.add(str(error), kind="damaged image")
    turned = orientation in (5, 6, 7, 8)  # the orientations with height and width exchanged
    size = (width, height) if turned else (height, width)
    if declared is not None and declared != size:
        hint = ", its EXIF orientation applied" if turned else ""
        return faults.add(
            f"{path}: is {size} (height, width){hint}; its annotation says {declared}, so that "
            "the labels would not fit",
            kind="another size than declared",
        )
    told = turned and declared is not None and height != width
    if orientation in range(2, 9) and not told:
        faults.note(
            f"{path}: its EXIF orientation {orientation} turns or mirrors it, and nothing tells "
            "whether its labels were drawn on the turned picture; they are taken so. If they lie "
            "wrong, save the picture upright",
            kind="picture turned by its EXIF orientation",
        )
    return size


def image_files(root: Path) -> dict[str, Path]:
    """The image files below a folder, see `by_stem`. Errors: DataError."""
    return by_stem(image_paths(root), root)


def by_stem(paths: Iterable[Path], root: Path) -> dict[str, Path]:
    """Files by their path below `root` without ending, in normal form C, in their order. Errors:
    DataError where two share one.
    """
    out: dict[str, Path] = {}
    for path in paths:
        stem = nfc(path.relative_to(root).with_suffix("").as_posix())
        if stem in out:
            raise DataError(
                f"{path}: {out[stem].name} has the same name but for the ending, or for how "
                "Unicode writes it; labels could belong to either: rename one"
            )
        out[stem] = path
    return out


class Row(NamedTuple):
    """An object as a format gives it. name: its file and place, for errors; box: (y0, x0, y1, x1)
    in pixels; area: of the original in pixels, None for that of the box; points: [J, 3]."""

    name: str
    box: Sequence[float]
    label: int
    shape: Shape = None
    ignored: bool = False
    crowd: bool = False
    area: float | None = None
    points: np.ndarray | None = None


def check_objects(rows: Sequence[Row], size: tuple[int, int], *, faults: Faults) -> Objects:
    """Those objects of a picture of `size` whose boxes keep the rules, see `check_boxes`; a pixel
    over the edge is rounded off."""
    pixels = np.array([*size, *size], np.float64)
    boxes, kept = check_boxes(
        np.array([row.box for row in rows], np.float64).reshape(-1, 4) / pixels,
        slack=1 / np.array(size),
        name=lambda i: rows[i].name,
        faults=faults,
    )
    rows = [row for row, good in zip(rows, kept, strict=True) if good]
    boxes, areas = boxes[kept], [row.area for row in rows]
    sides = (boxes[:, 2:] - boxes[:, :2]) * np.array(size)
    for i in np.flatnonzero((sides < 1).all(axis=1)).tolist():
        faults.note(
            f"{rows[i].name}: its box is smaller than a pixel, (y0, x0, y1, x1) = "
            f"{list(rows[i].box)}; shares of the image are not meant here",
            kind="box smaller than a pixel",
        )
    known = [area or side for area, side in zip(areas, sides.prod(axis=1), strict=True)]
    points = [row.points for row in rows if row.points is not None]
    return make_objects(
        boxes,
        [row.label for row in rows],
        size=size,
        areas=known,
        ignored=[row.ignored for row in rows],
        crowd=[row.crowd for row in rows],
        shapes=[row.shape for row in rows],
        points=np.stack(points) if points else None,
    )


def check_boxes(
    boxes: np.ndarray, *, slack: Any, name: Callable[[int], str], faults: Faults
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n, 4] (y0, x0, y1, x1) in [0, 1] cut to the image, float32, and which of them are
    kept, [n] bool.

    A box has finite corners, y0 < y1 and x0 < x1, and lies in the image but for `slack`, a share of
    (height, width) that is rounded off. One that is over the edge by little (`EDGE`, `INSIDE`) is
    cut, as a fault; with invalid="clip" every one that reaches into the image, and corners of the
    wrong order are exchanged. `name(i)` names the file and object of box i.
    """
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    reach = np.broadcast_to(np.asarray(slack, np.float64), (2,))
    reach = np.concatenate([reach, reach])
    cut = np.clip(boxes, 0.0, 1.0)
    with np.errstate(invalid="ignore"):  # NaN is not in order, so it is faulty
        fine = np.concatenate([cut[:, :2] < cut[:, 2:], np.abs(boxes - cut) <= reach], axis=1)
    fine = np.asarray(fine.all(axis=1))
    for i in np.flatnonzero(~fine).tolist():
        fine[i] = _mend_box(boxes[i], name(i), faults)
    return np.clip(np.nan_to_num(boxes), 0.0, 1.0).astype(np.float32), fine


def _mend_box(box: np.ndarray, name: str, faults: Faults) -> bool:
    """Whether a faulty box [4] can be kept; its corners may be exchanged in place."""
    shown = f"box (y0, x0, y1, x1) = {np.round(box, 4).tolist()} as shares of the image"
    if not np.isfinite(box).all():
        faults.add(f"{name}: {shown} is not finite", kind="box of no numbers")
        return False
    if (box[:2] >= box[2:]).any():
        message = f"{name}: {shown} is empty; y0 < y1 and x0 < x1 must hold"
        if faults.invalid != "clip" or (box[:2] == box[2:]).any():
            faults.add(message, kind="empty box")
            return False
        box[:] = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
        faults.mend(f"{message}; its corners are exchanged", kind="corners in the wrong order")
    inner = np.clip(box, 0.0, 1.0)
    sides, left = box[2:] - box[:2], inner[2:] - inner[:2]
    slip = np.abs(box - inner).max() <= EDGE and left.prod() >= INSIDE * sides.prod()
    message = f"{name}: {shown} lies outside the image; corners lie in [0, 1]"
    if (left <= 0).any() or not (slip or faults.invalid == "clip"):
        faults.add(message, kind="box outside the image")
        return False
    if not (box == inner).all():
        faults.mend(f"{message}; it is cut", kind="box over the edge")
    return True


def choose_largest(
    area: np.ndarray, rows: int, *, name: str, kind: str = "objects", faults: Faults
) -> np.ndarray:
    """Which things of areas [n] fill `rows` rows, [at most rows] int64 in their order: all, or (a
    fault) only the largest. kind: what they are called.
    """
    if len(area) <= rows:
        return np.arange(len(area))
    faults.add(
        f"{name}: has {len(area)} {kind}; max_items={rows} is room for {rows}, so that only the "
        "largest would be kept: raise it",
        kind=f"too many {kind}",
    )
    return np.sort(np.argsort(-area, kind="stable")[:rows])


def choose_rows(
    area: np.ndarray, ignored: np.ndarray, rows: int, *, name: str, kind: str, faults: Faults
) -> np.ndarray:
    """Which of areas [n] fill `rows` rows, [at most rows] int64: all, or (a fault) the largest.
    Those that are ignored come last and fill what is left; where some find no room, that is noted.
    """
    real, passed = np.flatnonzero(~ignored), np.flatnonzero(ignored)
    kept = real[choose_largest(area[real], rows, name=name, kind=kind, faults=faults)]
    if len(real) <= rows < len(area):
        faults.note(
            f"{name}: has {len(real)} {kind} and {len(passed)} that are ignored; "
            f"max_items={rows} is room for {rows}, so that not all of the ignored are known",
            kind=f"no room for ignored {kind}",
        )
    return np.concatenate([kept, passed[: rows - len(kept)]])


def limit_objects(objects: Objects, rows: int, *, name: str, faults: Faults) -> Objects:
    """At most `rows` objects: all as they are, or those that `choose_rows` names."""
    if len(objects) <= rows:
        return objects
    kept = choose_rows(
        box_areas(objects.boxes), objects.ignored, rows, name=name, kind="objects", faults=faults
    )
    return objects.take(kept)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """[n, 4] -> [n]"""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
