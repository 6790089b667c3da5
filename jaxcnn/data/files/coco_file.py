"""One COCO annotation file, checked: what is said of each image. See `jaxcnn.data.files.coco` for
the data set.
"""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.data.files.annotated import Faults, check_boxes, check_image_file
from jaxcnn.errors import DataError, did_you_mean
from jaxcnn.ops import masks

LEAST_AREA = 1e-6  # pixels that a polygon must enclose


@dataclass(frozen=True)
class CocoImage:
    """One image of an annotation file and what is said of it: boxes [n, 4] in [0, 1], labels [n],
    shapes (polygons or run lengths, [n]) of the objects, then those of crowds; points [n, J, 3] (x,
    y, flag) in pixels; sentences.
    """

    path: Path
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    shapes: list[Any]
    crowds: list[Any]
    points: np.ndarray
    sentences: list[str]


def take_objects(image: CocoImage, chosen: np.ndarray) -> CocoImage:
    """`image` with only those objects; `chosen` holds their places."""
    shapes = [image.shapes[i] for i in chosen] if image.shapes else []
    return replace(
        image,
        boxes=image.boxes[chosen],
        labels=image.labels[chosen],
        points=image.points[chosen],
        shapes=shapes,
    )


class FileReader:
    """Reads one file. `root`: the folder that file names start from; `names`: of the categories,
    from the training file.
    """

    def __init__(
        self,
        file: Path,
        root: Path,
        content: dict[str, Any],
        names: tuple[str, ...],
        entries: tuple[str, ...],
        faults: Faults,
    ):
        self.file, self.root, self.content, self.names, self.faults = (
            file,
            root,
            content,
            names,
            faults,
        )
        self.needs_shapes = bool({"instance_masks", "segmentation"} & set(entries))
        self.needs_points, self.needs_objects = "points" in entries, entries != ("captions",)
        self.needs_captions = "captions" in entries
        self.labels = self._labels() if self.needs_objects else {}
        self.num_points = self._count_points() if self.needs_points else 0

    def _labels(self) -> dict[int, int]:
        """Category id -> label."""
        strange = sorted(set(category_names(self.content, self.file)) - set(self.names))
        if strange:
            near = did_you_mean(strange[0], self.names)
            raise DataError(
                f"{self.file}: the categories {strange} do not occur in the training file, which "
                f"has {list(self.names)}{near}"
            )
        return {
            int(category["id"]): self.names.index(str(category["name"]))
            for category in self.content["categories"]
        }

    def _count_points(self) -> int:
        """J, the same for all categories that have keypoints."""
        named = [category.get("keypoints") for category in self.content["categories"]]
        counts = {len(points) for points in named if isinstance(points, list) and points}
        if len(counts) != 1:
            raise DataError(
                f"{self.file}: the categories have {sorted(counts)} 'keypoints'; all of them need "
                "one number of named keypoints"
            )
        return counts.pop()

    def read(self) -> list[CocoImage]:
        """All images that keep the rules, in the file's order."""
        numbers = {_key(image, "id") for image in self.content["images"]}
        told = defaultdict(list)
        for place, annotation in enumerate(self.content["annotations"]):
            image = _key(annotation, "image_id")
            if image is not None and image in numbers:
                told[image].append(annotation)
            else:
                self.faults.add(
                    f"{self.file}: annotations[{place}] has image_id {image!r}, which none of the "
                    f"{len(numbers)} images has"
                )
        seen, out = set(), []
        for place, entry in enumerate(self.content["images"]):
            number = _key(entry, "id")
            if number in seen:
                self.faults.add(
                    f"{self.file}: images[{place}] has the id {number!r} of another image; each "
                    "needs its own"
                )
            else:
                out += self._image(place, entry, told)
            seen.add(number)
        return out

    def _image(self, place: int, entry: Any, told: dict[Any, list[Any]]) -> list[CocoImage]:
        """The image in a list, or an empty one."""
        try:
            path = self.root / entry["file_name"]
            declared = (
                (int(entry["height"]), int(entry["width"]))
                if "height" in entry and "width" in entry
                else None
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            self.faults.add(
                f"{self.file}: images[{place}] is {str(entry)[:80]}; it needs file_name, height "
                f"and width ({error!r})"
            )
            return []
        size = check_image_file(path, self.faults, declared=declared)
        if size is None:
            return []
        annotations = told.get(_key(entry, "id"), [])
        objects = [
            annotation
            for annotation in annotations
            if self.needs_objects and self._is_object(annotation)
        ]
        crowds = [
            annotation["segmentation"]
            for annotation in objects
            if annotation.get("iscrowd") and self._has_shape(annotation, size)
        ]
        objects = [annotation for annotation in objects if not annotation.get("iscrowd")]
        numbers = np.array(
            [_numbers(annotation["bbox"], 4) for annotation in objects], np.float64
        ).reshape(-1, 4)
        x, y, width, height = numbers.T
        pixels = np.stack([y, x, y + height, x + width], axis=-1)
        boxes, kept = check_boxes(
            pixels / np.array([*size, *size]),
            slack=1 / np.array(size),
            name=lambda i: self._name(objects[i], path),
            faults=self.faults,
        )
        points = np.zeros((len(objects), self.num_points, 3))
        for i in np.flatnonzero(kept):
            kept[i] = (
                not self.needs_shapes or self._has_shape(objects[i], size)
            ) and self._read_points(objects[i], points[i])
        chosen = np.flatnonzero(kept)
        return [
            CocoImage(
                path,
                size,
                boxes[chosen],
                np.array([self.labels[objects[i]["category_id"]] for i in chosen], np.int32),
                [objects[i]["segmentation"] for i in chosen] if self.needs_shapes else [],
                crowds,
                points[chosen],
                [
                    str(annotation["caption"])
                    for annotation in annotations
                    if self.needs_captions and "caption" in annotation
                ],
            )
        ]

    def _name(self, annotation: dict[str, Any], path: Path | None = None) -> str:
        return (
            f"{self.file}: annotation {annotation.get('id')} of image {annotation.get('image_id')}"
            + (f" ({path.name})" if path else "")
        )

    def _is_object(self, annotation: dict[str, Any]) -> bool:
        """Whether an annotation has a known category and a box of four numbers; captions have
        neither and are no fault.
        """
        if "caption" in annotation and "bbox" not in annotation:
            return False
        if _key(annotation, "category_id") not in self.labels:
            known = sorted(self.labels)
            self.faults.add(
                f"{self._name(annotation)}: category_id is {annotation.get('category_id')!r}; the "
                f"categories are {known}"
            )
            return False
        if _numbers(annotation.get("bbox"), 4) is None:
            self.faults.add(
                f"{self._name(annotation)}: bbox is {annotation.get('bbox')!r}; it must be [x, y, "
                "width, height] in pixels"
            )
            return False
        return True

    def _has_shape(self, annotation: dict[str, Any], size: tuple[int, int]) -> bool:
        """Whether its segmentation can be drawn into an image of `size`."""
        shape, name = annotation.get("segmentation"), self._name(annotation)
        if not self.needs_shapes:
            return False
        if isinstance(shape, dict):
            try:
                masks.decode(shape)
            except (DataError, KeyError, TypeError, ValueError, OverflowError) as error:
                self.faults.add(f"{name}: its run lengths cannot be read ({error})")
                return False
            if tuple(shape["size"]) != size:
                self.faults.add(
                    f"{name}: its mask is of size {shape['size']} and the image {list(size)} "
                    "(height, width)"
                )
                return False
            return True
        if not isinstance(shape, list) or not shape:
            self.faults.add(
                f"{name}: segmentation is {str(shape)[:60]}; masks need polygons or run lengths "
                "for each object"
            )
            return False
        for polygon in shape:
            if (
                not isinstance(polygon, list)
                or len(polygon) < 6
                or len(polygon) % 2
                or _numbers(polygon, len(polygon)) is None
            ):
                self.faults.add(
                    f"{name}: a polygon is {str(polygon)[:60]}; it must be x, y of at least 3 "
                    "points, in one list"
                )
                return False
            places = np.reshape(polygon, (-1, 2)) / size[::-1]
            if places.min() < -1 or places.max() > 2:
                self.faults.add(
                    f"{name}: a polygon {str(polygon)[:60]} lies far outside the image of {size} "
                    "(height, width)"
                )
                return False
        if sum(map(_area, shape)) < LEAST_AREA:
            self.faults.add(f"{name}: its polygons enclose no area: {str(shape)[:60]}")
            return False
        return True

    def _read_points(self, annotation: dict[str, Any], out: np.ndarray) -> bool:
        """Whether its keypoints are none or J of (x, y, flag); they are written to `out` [J, 3]."""
        if not self.needs_points or not annotation.get("keypoints"):
            return True
        values = _numbers(annotation["keypoints"], 3 * self.num_points)
        if values is None:
            shown = f"keypoints are {str(annotation['keypoints'])[:60]}"
            self.faults.add(
                f"{self._name(annotation)}: {shown}; {self.num_points} points need x, y and a "
                "flag each, all finite"
            )
            return False
        out[:] = np.reshape(values, (-1, 3))
        return True


def _key(entry: Any, name: str) -> int | str | None:
    """An id, if `entry` is an object that has one."""
    value = entry.get(name) if isinstance(entry, dict) else None
    return value if isinstance(value, int | str) else None


def _numbers(values: Any, count: int) -> list[float] | None:
    """`values` if they are a list of `count` finite numbers."""
    is_list = isinstance(values, list) and len(values) == count
    return (
        values
        if is_list
        and all(
            isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
            for v in values
        )
        else None
    )


def _area(polygon: list[float]) -> float:
    """The area enclosed by (x, y, x, y, …), by the shoelace formula."""
    x, y = np.reshape(np.asarray(polygon, np.float64), (-1, 2)).T
    x, y = x - x[0], y - y[0]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def load(path: str) -> dict[str, Any]:
    """The content of a COCO file. Errors: DataError naming the file, and the line where it is no
    JSON.
    """
    file = Path(path).expanduser()
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such annotation file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: cannot be read as JSON ({error}); it may be cut short: copy or export it "
            "again"
        ) from error
    for name in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise DataError(
                f"{file}: has no list {name!r}; a COCO file is an object with 'images', "
                "'annotations' and 'categories'"
            )
    return content


def category_names(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    """The categories' names by increasing id. Errors: DataError."""
    try:
        names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{file}: 'categories' is not a list of objects with 'id' and 'name' "
            f"({type(error).__name__}: {error})"
        ) from error
    if not names or len(set(names.values())) < len(content["categories"]):
        raise DataError(
            f"{file}: the categories {sorted(names.values())} are none, or share an id or a name; "
            "each needs its own"
        )
    return tuple(names[number] for number in sorted(names))
