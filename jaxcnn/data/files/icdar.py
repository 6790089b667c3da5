"""Text detection in the form of the ICDAR competitions: for each image a file of quadrilaterals
with what is written in them.

Source of the form: Karatzas et al., "ICDAR 2015 competition on robust reading", 2015.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data.files.annotated_images import AnnotatedImages
from jaxcnn.data.files.checks import check_image_file, image_files
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.text_lines import read_lines, unquote
from jaxcnn.data.render import pad_rows
from jaxcnn.ops.polygons import area, is_convex

UNREADABLE = "###"
NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
QUADRILATERAL = re.compile(",".join([NUMBER] * 8) + r"(?:,(.*))?")  # x1, y1, …, x4, y4, text
# left, top, right, bottom, text: the form of 2013
RECTANGLE = re.compile("[, ]".join([NUMBER] * 4) + r"(?:[, ](.*))?")
LEAST_AREA = 1.0  # pixels
# how far a corner may lie outside, as a share of the image's size: lines are cut by the border
OUTSIDE = 0.25


@dataclass(frozen=True)
class Icdar(AnnotatedImages):
    """Images of folder `path` with text files of folder `labels` ("" for the same): "image" uint8
    [H, W, channels], "polygons" float32
    [N, 4, 2] corners (y, x) in shares of the image, in the file's order, "polygons_mask" float32
    [N], "polygons_ignored" float32 [N].

    The labels of IMAGE.jpg lie in gt_IMAGE.txt (or IMAGE.txt), UTF-8, a line
    `x1,y1,x2,y2,x3,y3,x4,y4,TEXT` in pixels for each line of text, or `left,top,right,bottom,TEXT`.
    Text ### is unreadable: neither found nor missed it counts as anything. Such polygons come last,
    with polygons_mask 0 and polygons_ignored 1. N is `max_items`, or if that is 0 the most that an
    image has.
    eval_path, eval_labels and test_path, test_labels: the same of these splits; without eval_path,
    `eval_fraction` is held out.
    Broken labels, as `invalid` says: images without labels, lines of another form, polygons outside
        the image, without area or not convex,
    more than N of them. Errors: DataError naming file and line.
    """

    path: str
    labels: str = ""
    eval_path: str = ""
    eval_labels: str = ""
    test_path: str = ""
    test_labels: str = ""
    max_items: int = 0

    def read(self) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
        """No names, and (image, polygons [n, 4, 2], ignored [n]) of each split."""
        parts = {
            "train": (self.path, self.labels),
            "eval": (self.eval_path, self.eval_labels),
            "test": (self.test_path, self.test_labels),
        }
        return (), {
            split: self._images(Path(path), Path(labels or path))
            for split, (path, labels) in parts.items()
            if path
        }

    def _images(self, root: Path, labels: Path) -> list[tuple[Path, np.ndarray, np.ndarray]]:
        root, labels, out = root.expanduser(), labels.expanduser(), []
        faults = Faults(f"Icdar {root}", self.invalid)
        for stem, path in image_files(root).items():
            folder, name = (labels / stem).parent, path.stem
            file = next(
                (
                    file
                    for file in (folder / f"gt_{name}.txt", folder / f"{name}.txt")
                    if file.exists()
                ),
                None,
            )
            if file is None:
                faults.add(f"{path}: there is no gt_{name}.txt in {folder}")
                continue
            size = check_image_file(path, faults)
            if size is not None:
                out.append((path, *self._polygons(file, size, faults)))
        faults.warn()
        return out

    def _polygons(
        self, file: Path, size: tuple[int, int], faults: Faults
    ) -> tuple[np.ndarray, np.ndarray]:
        """The polygons of a file that keep the rules, [n, 4, 2], the ignored ones last; and which
        are ignored, [n] bool.
        """
        found = []
        for number, line in enumerate(read_lines(file), 1):
            if (
                line.strip()
                and (corners := _corners(line, f"{file}, line {number}", size, faults)) is not None
            ):
                found.append(corners)
        ignored = np.array([text == UNREADABLE for _, text in found], bool)
        order = np.argsort(ignored, kind="stable")
        polygons = np.array([corners for corners, _ in found], np.float32).reshape(-1, 4, 2)[order]
        if self.max_items and len(found) > self.max_items:
            faults.add(
                f"{file}: has {len(found)} polygons; max_items={self.max_items} is room for "
                f"{self.max_items}, the rest is left out"
            )
        rows = slice(self.max_items or None)
        return polygons[rows], ignored[order][rows]

    @functools.cached_property
    def _rows(self) -> int:
        """N."""
        return self.max_items or max(
            1, *(len(ignored) for items in self._read[1].values() for _, _, ignored in items)
        )

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        rows = (self._rows,)
        shapes = {"polygons": (*rows, 4, 2), "polygons_mask": rows, "polygons_ignored": rows}
        return self.image_spec() | {
            name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()
        }

    def decode(
        self, item: tuple[Path, np.ndarray, np.ndarray], faults: Faults
    ) -> dict[str, np.ndarray]:
        """One image and its polygons."""
        path, polygons, ignored = item
        columns = {
            "polygons": polygons,
            "polygons_mask": (~ignored).astype(np.float32),
            "polygons_ignored": ignored.astype(np.float32),
        }
        return {"image": self.read_image(path)} | {
            name: pad_rows(rows, self._rows) for name, rows in columns.items()
        }


def _corners(
    line: str, where: str, size: tuple[int, int], faults: Faults
) -> tuple[np.ndarray, str] | None:
    """The corners [4, 2] (y, x) of a line in shares of the image, and its text; None (and a fault)
    if it breaks a rule.
    """
    quadrilateral = QUADRILATERAL.fullmatch(line.strip())
    match = quadrilateral or RECTANGLE.fullmatch(line.strip())
    if match is None:
        return faults.add(
            f"{where}: {line.strip()[:80]!r} is not x1,y1,x2,y2,x3,y3,x4,y4,TEXT nor "
            "left,top,right,bottom,TEXT"
        )
    *numbers, text = match.groups()
    values = [float(number) for number in numbers]
    if quadrilateral is None:
        left, top, right, bottom = values
        values = [left, top, right, top, right, bottom, left, bottom]
    pixels = np.reshape(values, (4, 2))[:, ::-1]
    places, shown = pixels / np.array(size), f"(y, x) = {pixels.tolist()}"
    if area(pixels) < LEAST_AREA or not is_convex(pixels):
        return faults.add(
            f"{where}: the polygon {shown} has no area or is not convex; its corners go once "
            "around it"
        )
    outside = (places.min(axis=0) >= 1).any() or (places.max(axis=0) <= 0).any()
    if outside or places.min() < -OUTSIDE or places.max() > 1 + OUTSIDE:
        return faults.add(
            f"{where}: the polygon {shown} lies outside the image of {size} (height, width)"
        )
    return places, unquote((text or "").strip())
