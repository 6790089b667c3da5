"""Labels as YOLO programs write them: for each image a text file, a line for each object."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.data.example import Example, Objects
from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.checks import Row, by_stem, check_image_file, check_objects, image_files
from jaxcnn.data.files.class_names import read_class_names, read_keypoint_shape
from jaxcnn.data.files.coco_shapes import bounds, read_shape
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.mask_folder import existing_folder
from jaxcnn.data.files.parsing import identity, numbers, read_lines
from jaxcnn.data.files.walk import walk

FOLDERS = {"train": ("train",), "eval": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class Yolo(Annotated):
    """A folder with images/train and labels/train or train/images and train/labels (val or valid
    for "eval", test), or with images and labels alone, of which some are held out.

    A line is `class cx cy w h` or, as masks need, `class x1 y1 x2 y2 x3 y3 ...`, all shares of the
    image. Where data.yaml has a kpt_shape, keypoints follow the box; they are not read, which is
    noted. An image without a text file has no objects, and is noted. names: of the classes; () for
    those of classes.txt or data.yaml. Broken labels, as `invalid` says: lines of another form,
    unknown classes, boxes that are empty or lie outside, labels of no image. Errors: DataError.
    """

    ENTRIES = ("boxes", "instance_masks", "segmentation")

    path: str
    names: tuple[str, ...] = ()
    entries: tuple[str, ...] = field(default=("boxes",), kw_only=True)

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """See `Annotated.parse`."""
        root, out = Path(self.path).expanduser(), []
        folders = [f for s in FOLDERS[split] for f in (f"images/{s}", f"{s}/images")]
        folders += ["images"] if split == "train" else []
        folder = next((f for f in folders if (root / f).is_dir()), folders[-1])
        if split != "train" and not (root / folder).is_dir():
            return None
        found, labels = image_files(root / folder), root / folder.replace("images", "labels")
        names = names or self.names or read_class_names(root)
        keypoints = read_keypoint_shape(root)
        existing_folder(labels, "a text file of labels for each image")
        texts = by_stem((file for file in walk(labels) if file.suffix.lower() == ".txt"), labels)
        for stem in sorted(set(texts) - set(found) - {"classes"}):
            faults.add(f"{texts[stem]}: there is no such image", kind="labels of no image")
        for stem, path in found.items():
            if stem not in texts:
                faults.note(f"{path}: has no labels in {labels}", kind="image without labels")
            if (size := check_image_file(path, faults)) is not None:
                file = texts.get(stem)
                objects = self._objects(file, size, len(names), keypoints, faults)
                out.append(Example(image=path, size=size, name=str(path), objects=objects))
        return names, out

    def _objects(
        self,
        file: Path | None,
        size: Any,
        count: int,
        keypoints: tuple[int, int] | None,
        faults: Faults,
    ) -> Objects:
        rows, rule = [], f"a class in [0, {count}), then cx cy w h or x y of 3 points or more"
        if keypoints is not None:
            rule = f"a class in [0, {count}), then cx cy w h, then kpt_shape {keypoints} numbers"
        for place, line in enumerate(read_lines(file) if file else (), 1):
            words, where = line.split(), f"{file}, line {place}"
            if not words:
                continue
            label, values = identity(words[0]), numbers(words[1:])
            if keypoints is not None and values and len(values) == 4 + math.prod(keypoints):
                values = values[:4]
                faults.note(f"{where}: its keypoints are not read", kind="keypoints left out")
            form = len(values or ()) >= 4 and len(values or ()) % 2 == 0
            form = form and (keypoints is None or len(values or ()) == 4)
            if not isinstance(label, int) or not 0 <= label < count or values is None or not form:
                faults.add(f"{where}: {line[:60]!r} is not {rule}", kind="line of another form")
                continue
            if _has_visibilities(values):
                faults.add(
                    f"{where}: {line[:60]!r} may be a box and keypoints or a polygon; say "
                    "kpt_shape: [count, 3] in data.yaml, or leave the keypoints out",
                    kind="line of another form",
                )
                continue
            pixels = (np.reshape(values, (-1, 2)) * size[::-1]).ravel().tolist()
            if len(pixels) == 4 and not self.needs_shapes:
                x, y, w, h = pixels
                box = [y - h / 2, x - w / 2, y + h / 2, x + w / 2]
                rows.append(Row(where, box, label))
            elif shape := read_shape([pixels], size, name=where, faults=faults):
                rows.append(Row(where, bounds(shape), label, shape))
        return check_objects(rows, size, faults=faults)


def _has_visibilities(values: Sequence[float]) -> bool:
    """Whether every third number after the first four is 0, 1 or 2, as after a box the keypoints
    x y visibility have it, and one of them is 2, which no share of an image is.
    """
    third = list(values[6::3])
    return len(values) % 3 == 1 and bool(third) and set(third) <= {0, 1, 2} and 2 in third
