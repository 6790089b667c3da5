"""One COCO annotation file, parsed: what is said of each image. The data set is
`jaxcnn.data.files.coco`.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.data.example import Example, Objects
from jaxcnn.data.files.checks import Row, check_image_file, check_objects
from jaxcnn.data.files.coco_shapes import bounds, measure, read_shape
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.parsing import find_file, flag, identity, number, numbers
from jaxcnn.errors import DataError, did_you_mean

Identity = int | str
NO_PARENT = (None, "", "none")  # what "supercategory" says where there is none


class FileReader:
    """Reads one file. `root`: the folder that file names start from; `names`: of the categories,
    from the training file, or () where this is it; `entries`: those that are wanted.
    """

    def __init__(
        self,
        file: Path,
        root: Path,
        *,
        names: tuple[str, ...],
        entries: tuple[str, ...],
        faults: Faults,
    ):
        self.file, self.root, self.faults = file, root, faults
        self.content = load(file)
        self.guessed: dict[Path, str] = {}  # files, and the names that they were taken for
        self.places: dict[Path, int] = {}  # files, and the places of their images
        self.needs_shapes = bool({"instance_masks", "segmentation"} & set(entries))
        self.needs_objects = entries != ("captions",)
        self.needs_captions = "captions" in entries
        self.labels: dict[Identity, int] = {}
        self.names = ()
        if self.needs_objects:
            self.names, self.labels = self._label(names)
        self.num_points = self._count_points() if "points" in entries else 0

    def _label(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], dict[Identity, int]]:
        """The names of the classes, and category id -> label."""
        annotations = self.content["annotations"]
        used = {_key(annotation, "category_id") for annotation in annotations}
        found = read_categories(self.content, self.file, used, self.faults)
        names = names or tuple(found.values())
        strange = sorted({name for key, name in found.items() if key in used} - set(names))
        if strange:
            near = did_you_mean(strange[0], names)
            raise DataError(
                f"{self.file}: the categories {strange} do not occur in the training file, which "
                f"has {list(names)}{near}"
            )
        return names, {key: names.index(name) for key, name in found.items() if name in names}

    def _count_points(self) -> int:
        """J, the same for all categories that have keypoints; where none says it, of all objects
        that have some."""
        named = [category.get("keypoints") for category in self.content["categories"]]
        counts = {len(points) for points in named if isinstance(points, list) and points}
        if not counts:
            told = (a.get("keypoints") for a in self.content["annotations"] if isinstance(a, dict))
            counts = {len(points) // 3 for points in told if isinstance(points, list) and points}
        if len(counts) != 1:
            raise DataError(
                f"{self.file}: the categories have {sorted(counts)} 'keypoints'; all of them need "
                "one number of named keypoints"
            )
        return counts.pop()

    def read(self) -> list[Example]:
        """All images that keep the rules, in the file's order."""
        keys = {_key(image, "id") for image in self.content["images"]} - {None}
        told = defaultdict(list)
        for place, annotation in enumerate(self.content["annotations"]):
            image = _key(annotation, "image_id")
            if image in keys:
                told[image].append(annotation)
            else:
                shown = annotation.get("image_id") if isinstance(annotation, dict) else annotation
                self.faults.add(
                    f"{self.file}: annotations[{place}] has image_id {shown!r}, which none of the "
                    f"{len(keys)} images has",
                    kind="label of no image",
                )
        seen, out = set(), []
        for place, entry in enumerate(self.content["images"]):
            key = _key(entry, "id")
            if key in seen:
                self.faults.add(
                    f"{self.file}: images[{place}] has the id {key!r} of another image; each "
                    "needs its own",
                    kind="id used twice",
                )
            else:
                out += self._image(place, entry, told.get(key, []))
            seen.add(key)
        return out

    def _image(self, place: int, entry: Any, annotations: list[dict[str, Any]]) -> list[Example]:
        """The image in a list, or an empty one."""
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            self.faults.add(
                f"{self.file}: images[{place}] is {str(entry)[:80]}; it needs a file_name, and "
                "height and width where they are known",
                kind="image without a name",
            )
            return []
        path, guessed = find_file(self.root, name)
        if path is None:
            self.faults.add(
                f"{self.file}: images[{place}] names {name[:80]!r}, which lies outside "
                f"{self.root}; images are files of that folder",
                kind="file outside the folder",
            )
            return []
        if guessed and path in self.guessed:
            self.faults.add(
                f"{self.file}: {name!r} is not below {self.root}, and {path} was already taken for "
                f"{self.guessed[path]!r}; which of them it is cannot be known",
                kind="path that means several files",
            )
            return []
        if guessed:
            self.guessed[path] = name
            self.faults.note(
                f"{self.file}: {name!r} is not below {self.root}; {path} is taken for it",
                kind="path of another machine",
            )
        first = self.places.setdefault(path, place)
        if first != place:
            self.faults.add(
                f"{self.file}: images[{place}] is the file of images[{first}], {name[:80]!r}; "
                "one picture is one image, with all its annotations: it could be trained on and "
                "held out",
                kind="file of two images",
            )
            return []
        size = check_image_file(path, self.faults, declared=self._declared(entry, place))
        if size is None:
            return []
        captions = (a["caption"] for a in annotations if "caption" in a)
        return [
            Example(
                image=path,
                size=size,
                name=str(path),
                objects=self._objects(annotations, path, size) if self.needs_objects else None,
                captions=tuple(map(str, captions)) if self.needs_captions else (),
            )
        ]

    def _declared(self, entry: dict[str, Any], place: int) -> tuple[float, float] | None:
        """The (height, width) that the file says; None where it does not know them (0 or -1)."""
        said = [entry.get("height"), entry.get("width")]
        height, width = map(number, said)
        for value, as_number in zip(said, (height, width), strict=True):
            if as_number is None and value not in (None, ""):
                self.faults.mend(
                    f"{self.file}: images[{place}] ({entry.get('file_name')}) has a size of "
                    f"{str(value)[:40]!r}; height and width are numbers of pixels",
                    kind="size that is no number, taken as unknown",
                )
        if not (height and width and min(height, width) > 0):
            return None
        return (int(height), int(width)) if height % 1 == width % 1 == 0 else (height, width)

    def _objects(
        self, annotations: list[dict[str, Any]], path: Path, size: tuple[int, int]
    ) -> Objects:
        """The objects of one image that keep the rules."""
        rows = [row for a in annotations if (row := self._object(a, path, size)) is not None]
        return check_objects(rows, size, faults=self.faults)

    def _object(self, annotation: dict[str, Any], path: Path, size: tuple[int, int]) -> Row | None:
        """An annotation as an object; None (and a fault) where it cannot be used. Captions are no
        objects and no fault.
        """
        if "caption" in annotation and "bbox" not in annotation:
            return None
        name, box = self._name(annotation), annotation.get("bbox")
        label = self.labels.get(_key(annotation, "category_id"))  # pyright: ignore[reportArgumentType]
        crowd = flag(annotation.get("iscrowd"))
        if label is None:
            return self.faults.add(
                f"{name}: category_id is {annotation.get('category_id')!r}; the categories are "
                f"{list(self.labels)}",
                kind="unknown category",
            )
        if crowd is None:
            return self.faults.add(
                f"{name}: iscrowd is {annotation['iscrowd']!r}; it must be 0 or 1",
                kind="iscrowd that is neither 0 nor 1",
            )
        segmentation, shape = annotation.get("segmentation"), None
        if self.needs_shapes or (not box and segmentation):  # then the box is that of the shape
            shape = read_shape(segmentation, size, name=name, faults=self.faults)
            if shape is None:
                return None
        values = numbers(box, count=4)
        if not box and shape is not None:
            corners = bounds(shape)
        elif values is not None:
            x, y, width, height = values
            corners = [y, x, y + height, x + width]
        else:
            return self.faults.add(
                f"{name}: bbox is {box!r}; it must be [x, y, width, height] in pixels",
                kind="box of no numbers",
            )
        points = self._read_points(annotation, size)
        if points is None:
            return None
        area = number(annotation.get("area"))
        if area is None or area <= 0:
            area = None if shape is None else measure(shape)
        return Row(f"{name} ({path.name})", corners, label, shape, crowd, crowd, area, points)

    def _name(self, annotation: dict[str, Any]) -> str:
        return (
            f"{self.file}: annotation {annotation.get('id')} of image {annotation.get('image_id')}"
        )

    def _read_points(self, annotation: dict[str, Any], size: tuple[int, int]) -> np.ndarray | None:
        """Its keypoints [J, 3] (y, x, flag) in shares, zeros where it has none; None (and a fault)
        where they are not J of (x, y, flag)."""
        if not self.num_points or not annotation.get("keypoints"):
            return np.zeros((self.num_points, 3))
        values = numbers(annotation["keypoints"], count=3 * self.num_points)
        if values is None:
            shown = f"keypoints are {str(annotation['keypoints'])[:60]}"
            return self.faults.add(
                f"{self._name(annotation)}: {shown}; {self.num_points} points need x, y and a "
                "flag each, all finite",
                kind="keypoints of another number",
            )
        return np.reshape(values, (-1, 3))[:, [1, 0, 2]] / [*size, 1]


def _key(entry: Any, name: str) -> Identity | None:
    """An id, if `entry` is an object that has one."""
    return identity(entry.get(name)) if isinstance(entry, dict) else None


def load(file: Path) -> dict[str, Any]:
    """The content of a COCO file, in any Unicode encoding, with or without a byte order mark.
    Errors: DataError naming the file, and the line where it is no JSON.
    """
    try:
        content = json.loads(file.read_bytes())
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


def read_categories(
    content: dict[str, Any], file: Path, used: set[Identity | None], faults: Faults
) -> dict[Identity, str]:
    """The categories' names by increasing id. `used`: the ids that annotations have.

    A category of no annotation is left out, with a note, where it is but the root of the others
    (their "supercategory") or has the name of one that is used: Roboflow writes such a root.
    Errors: DataError.
    """
    entries = content.get("categories")
    listed = [
        (_key(entry, "id"), entry["name"], entry.get("supercategory"))
        for entry in (entries if isinstance(entries, list) else [None])
        if isinstance(entry, dict) and isinstance(entry.get("name"), str | int)
    ]
    if (
        not isinstance(entries, list)
        or len(listed) < len(entries)
        or None in [c[0] for c in listed]
    ):
        raise DataError(
            f"{file}: 'categories' is not a list of objects with 'id' and 'name', but "
            f"{str(entries)[:80]}"
        )
    parents = {parent for _, _, parent in listed if isinstance(parent, str)}
    named = {str(name) for key, name, _ in listed if key in used}
    out: dict[Identity, str] = {}
    for key, name, parent in sorted(listed, key=lambda c: (isinstance(c[0], str), c[0])):
        root = parent in NO_PARENT and name in parents
        if key not in used and (root or str(name) in named):
            faults.note(
                f"{file}: the category {key!r} ({name!r}) has no annotation and is the root or the "
                "double of others; it is no class",
                kind="category that is no class",
            )
            continue
        if key in out or str(name) in out.values():
            raise DataError(
                f"{file}: the categories {[str(c[1]) for c in listed]} share an id or a name; each "
                "needs its own"
            )
        assert key is not None
        out[key] = str(name)
    if not out:
        raise DataError(f"{file}: the categories are none; each object needs one")
    return out
