"""Text detection in the form of the ICDAR competitions and of what followed them: for each image a
file of polygons with what is written in them.

The dialects and their sources: `jaxcnn.data.files.icdar_dialects`, `icdar_json`.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxcnn.data.example import Example, Polygons
from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.checks import check_image_file, choose_rows, image_files
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.icdar_dialects import (
    DIALECTS,
    Line,
    join_wrapped,
    parse_line,
    read_line,
    tell_dialect,
)
from jaxcnn.data.files.icdar_json import Placed, read_picture, read_set
from jaxcnn.data.files.parsing import read_lines
from jaxcnn.data.files.walk import stored_path
from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.ops.polygons import area, is_convex, smallest_rectangle

PREFIXES = ("gt_", "poly_gt_", "")  # of the file of labels of IMAGE: gt_IMAGE.txt, ...
LEAST_AREA = 1.0  # pixels
# how far a corner may lie outside, as a share of the image's size: lines are cut by the border
OUTSIDE = 0.25


@dataclass(frozen=True)
class Icdar(Annotated):
    """Images of folder `path` with text files of folder `labels` ("" for the same): "image" uint8
    [H, W, channels], "polygons" float32 [N, 4, 2] corners (y, x) in shares of the image, in the
    file's order, "polygons_mask" float32 [N], "polygons_ignored" float32 [N].

    The labels of IMAGE.jpg lie in gt_IMAGE.txt (or poly_gt_IMAGE.txt, IMAGE.txt), with a line for
    each text, in pixels. dialect: the form of the lines, one of `icdar_dialects.DIALECTS`: "2013"
    left,top,right,bottom,TEXT, "2015" four corners and TEXT, "2017" with the script before it (the
    multi-lingual sets of 2017 and 2019), "rctw" with the difficulty, "polygons" any number of
    corners, "ctw1500", "total-text". "" for what all lines of a folder are; where they could be of
    several, or are of different ones, that is a DataError.

    JSON says itself what it is: of ArT and LSVT (2019), one file for all images, which `labels`
    names; of ReCTS (2019), IMAGE.json for each, of which the lines of text are read.

    Text ### is unreadable (# in Total-Text), and text of difficulty 1 or that JSON marks as
    illegible need not be read: neither found nor missed it counts as anything. Such polygons come
    last, with polygons_mask 0 and polygons_ignored 1. A polygon of more than four corners becomes
    the smallest rectangle around it, at any angle, and a warning counts them. N is `max_items`, or
    if that is 0 the most that an image has.
    eval_path, eval_labels and test_path, test_labels: the same of these splits; without eval_path,
    `eval_fraction` is held out.
    Broken labels, as `invalid` says: images without labels, lines of another form, polygons outside
        the image, without area or not convex, more than N of them. Errors: DataError naming file
    and line.
    """

    ENTRIES = ("polygons",)

    path: str
    labels: str = ""
    eval_path: str = ""
    eval_labels: str = ""
    test_path: str = ""
    test_labels: str = ""
    dialect: str = ""

    def __post_init__(self):
        super().__post_init__()
        if self.dialect and self.dialect not in DIALECTS:
            raise ConfigError(
                f"Icdar: dialect is {self.dialect!r}{did_you_mean(self.dialect, DIALECTS)}; it "
                f"must be one of {', '.join(DIALECTS)}"
            )

    def axis(self, letter: str) -> int:
        return 4 if letter == "P" else super().axis(letter)

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """See `Annotated.parse`; there are no names."""
        path, labels = {
            "train": (self.path, self.labels),
            "eval": (self.eval_path, self.eval_labels),
            "test": (self.test_path, self.test_labels),
        }[split]
        if not path:
            return None
        root, place = Path(path).expanduser(), Path(labels or path).expanduser()
        images = image_files(root)
        if place.suffix == ".json" and not place.is_dir():
            if self.dialect:
                raise ConfigError(
                    f"Icdar: dialect is {self.dialect!r} and {place} is JSON, which says itself "
                    "what it is; leave dialect out"
                )
            labelled = _of_one_file(images, place, faults)
        else:
            labelled = self._of_files(images, place, faults)
        return (), [
            Example(
                image=image,
                size=size,
                name=str(image),
                polygons=self._polygons(texts, image, size, faults),
            )
            for image, texts in labelled
            if (size := check_image_file(image, faults)) is not None
        ]

    def _of_files(
        self, images: dict[str, Path], folder: Path, faults: Faults
    ) -> list[tuple[Path, list[Placed]]]:
        """Images with their texts, from a file for each of them."""
        files: list[tuple[Path, Path]] = []
        for stem, image in images.items():
            file = _label_file(folder, stem)
            if file is None:
                faults.add(
                    f"{image}: there is no gt_{Path(stem).name}.txt in {(folder / stem).parent} "
                    "(a JSON file of all images is named itself: labels='.../train_labels.json')",
                    kind="no labels",
                )
            else:
                files.append((image, file))
        lines = {file: _lines(file) for _, file in files if file.suffix != ".json"}
        every = [line for part in lines.values() for line in part]
        dialect = self.dialect or tell_dialect(every, where=f"Icdar {folder}")
        return [
            (
                image,
                _parsed(lines[file], dialect, faults)
                if file in lines
                else read_picture(file, faults),
            )
            for image, file in files
        ]

    def _polygons(
        self, texts: list[Placed], image: Path, size: tuple[int, int], faults: Faults
    ) -> Polygons:
        """The polygons of an image that keep the rules, the ignored ones last."""
        found = []
        for where, text in texts:
            corners = _corners(text.corners, where, size, faults)
            if corners is not None:
                found.append((corners, text.ignored))
        ignored = np.array([passed for _, passed in found], bool)
        polygons = np.array([corners for corners, _ in found], np.float32).reshape(-1, 4, 2)
        kept = choose_rows(
            np.asarray(area(polygons)),
            ignored,
            self.max_items or len(found),
            name=str(image),
            kind="polygons",
            faults=faults,
        )
        return Polygons(polygons[kept], ignored[kept])


def _of_one_file(
    images: dict[str, Path], file: Path, faults: Faults
) -> list[tuple[Path, list[Placed]]]:
    """Images with their texts, from a JSON file of all of them, whose names are the images' without
    ending, with or without the folder."""
    texts, out = read_set(file, faults), []
    names = Counter(stem.rpartition("/")[2] for stem in images)
    for stem, image in images.items():
        last = stem.rpartition("/")[2]
        key = stem if stem in texts or names[last] > 1 else last
        if key in texts:
            out.append((image, texts.pop(key)))
        else:
            faults.add(f"{image}: {file} has no entry {key!r}", kind="no labels")
    for key in texts:
        faults.note(f"{file}: the entry {key!r} has no image", kind="labels of no image")
    return out


def _parsed(lines: list[Line], dialect: str, faults: Faults) -> list[Placed]:
    """The texts of the lines that are of the dialect."""
    out = []
    for line in lines:
        text = parse_line(line, dialect)
        if text is None:
            faults.add(
                f"{line.where}: {line.line.strip()[:80]!r} is not {DIALECTS[dialect]}",
                kind="line of another form",
            )
        else:
            out.append((line.where, text))
    return out


def _label_file(folder: Path, stem: str) -> Path | None:
    """The file of labels of an image, by its path without ending; None where there is none."""
    parent, _, name = stem.rpartition("/")
    for file in (*(f"{prefix}{name}.txt" for prefix in PREFIXES), f"{name}.json"):
        path = stored_path(folder, f"{parent}/{file}".lstrip("/"))
        if path is not None:
            return path
    return None


def _lines(file: Path) -> list[Line]:
    """The lines of a file that are not blank."""
    return [
        read_line(line, f"{file}, line {number}")
        for number, line in enumerate(join_wrapped(read_lines(file)), 1)
        if line.strip()
    ]


def _corners(
    points: list[tuple[float, float]], where: str, size: tuple[int, int], faults: Faults
) -> np.ndarray | None:
    """The corners [4, 2] (y, x) of a polygon in shares of the image; None (and a fault) if it
    breaks a rule.
    """
    if not points:
        return faults.add(
            f"{where}: the box is empty or its corners are exchanged; left < right and top < "
            "bottom must hold (is it left, top, width, height?)",
            kind="polygon without area",
        )
    pixels = np.array(points, np.float64)[:, ::-1]
    shown = f"(y, x) = {pixels.tolist()}"
    if not np.isfinite(pixels).all() or np.abs(pixels).max() > 2**31:
        return faults.add(f"{where}: the polygon {shown} is not finite", kind="no numbers")
    if len(pixels) > 4:
        faults.note(
            f"{where}: the polygon {shown} has {len(pixels)} corners; it becomes the smallest "
            "rectangle around it",
            kind="polygon of more than four corners",
        )
        pixels = smallest_rectangle(pixels)
    if area(pixels) < LEAST_AREA or not is_convex(pixels):
        return faults.add(
            f"{where}: the polygon {shown} has no area or is not convex; its corners go once "
            "around it",
            kind="polygon without area or not convex",
        )
    places = pixels / np.array(size)
    outside = (places.min(axis=0) >= 1).any() or (places.max(axis=0) <= 0).any()
    if outside or places.min() < -OUTSIDE or places.max() > 1 + OUTSIDE:
        return faults.add(
            f"{where}: the polygon {shown} lies outside the image of {size} (height, width)",
            kind="polygon outside the image",
        )
    return places
