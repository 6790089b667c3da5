"""An example as a format gives it: where the picture is, and what is labelled on it, in shares or
pixels of the original picture.

A format (`jaxcnn.data.files`) only parses into these records; `jaxcnn.data.render` makes arrays of
them. NumPy, on the host.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import jax
import numpy as np

from jaxcnn.core.batch import ENTRIES
from jaxcnn.data.files.faults import Faults

# entries that come with another one
COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "boxes": (
        "boxes_mask",
        "box_labels",
        "boxes_ignored",
        "boxes_crowd",
        "box_areas",
        "original_size",
    ),
    "points": ("points_mask",),
    "polygons": ("polygons_mask", "polygons_ignored"),
}
OBJECT_ENTRIES = ("boxes", "instance_masks", "points")  # that have a row for each object


class Part(NamedTuple):
    """`count` bytes from byte `first` of a file, by its place (see `jaxcnn.data.stores`)."""

    place: str
    first: int
    count: int


# a file, a part of one, its bytes, or pixels uint8 [h, w, C]
Picture = Path | Part | bytes | np.ndarray
LabelMap = Callable[[Faults], np.ndarray]  # -> the class of each pixel of the original, int [h, w]


class Numbered(NamedTuple):
    """The pixels of an image of numbers that hold one of them."""

    file: Path
    number: int


# polygons [[x, y, x, y, …], …] in pixels of the original, run lengths (see `jaxcnn.ops.masks`), a
# mask [h, w], or the pixels of a number in a file; None where nothing was drawn
Shape = list[list[float]] | dict[str, Any] | np.ndarray | Numbered | None


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of one picture, one row each.

    boxes: float32 [n, 4] (y0, x0, y1, x1), shares of the picture. labels: int32 [n].
    areas: float32 [n] in pixels of the original. ignored, crowd: bool [n], see "boxes_ignored" and
        "boxes_crowd" of the table; a crowd is ignored, too.
    shapes: one for each object, or () where none are wanted.
    points: float64 [n, J, 3] (y, x, flag), shares of the picture; flag 0 where not labelled.
    """

    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray
    shapes: tuple[Shape, ...] = ()
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3)))

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, rows: np.ndarray) -> "Objects":
        """Only those objects, in that order."""
        return Objects(
            self.boxes[rows],
            self.labels[rows],
            self.areas[rows],
            self.ignored[rows],
            self.crowd[rows],
            tuple(self.shapes[i] for i in rows) if self.shapes else (),
            self.points[rows] if self.points.size else self.points,
        )


def make_objects(
    boxes: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    *,
    size: tuple[int, int],
    areas: Sequence[float] | np.ndarray | None = None,
    ignored: Sequence[bool] | np.ndarray | None = None,
    crowd: Sequence[bool] | np.ndarray | None = None,
    shapes: Sequence[Shape] = (),
    points: np.ndarray | None = None,
) -> Objects:
    """Objects of a picture of `size`, those that are ignored last; `areas` are those of the boxes
    where none are given."""
    count = len(boxes)
    boxes = np.asarray(boxes, np.float32).reshape(count, 4)
    if areas is None:
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * (size[0] * size[1])
    groups = np.zeros(count, bool) if crowd is None else np.asarray(crowd, bool)
    passed = groups if ignored is None else groups | np.asarray(ignored, bool)
    found = Objects(
        boxes,
        np.asarray(labels, np.int32).reshape(count),
        np.asarray(areas, np.float32).reshape(count),
        passed,
        groups,
        tuple(shapes),
        np.zeros((count, 0, 3)) if points is None else points,
    )
    return found.take(np.argsort(passed, kind="stable")) if passed.any() else found


class Polygons(NamedTuple):
    """Texts of one picture: corners float32 [n, P, 2] (y, x), shares of the picture; ignored bool
    [n], the ignored ones last."""

    corners: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)  # slots: there may be millions
class Example:
    """One picture and what is said of it.

    size: (height, width) of the picture, upright, in pixels. window: (top, left, bottom, right) in
        pixels where only a part is shown; what lies outside the picture is black.
    segmentation: gives the label map; without it, one is painted of the objects' shapes.
    label: the class, also that which examples are held out by. target: the same picture larger.
    extra: entries that are arrays already.
    """

    image: Picture
    size: tuple[int, int]
    name: str = ""
    window: tuple[int, int, int, int] | None = None
    objects: Objects | None = None
    segmentation: LabelMap | None = None
    polygons: Polygons | None = None
    text: str = ""
    captions: tuple[str, ...] = ()
    label: int | None = None
    target: Picture | None = None
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The picture's file, or its name."""
        return self.image if isinstance(self.image, Path) else Path(self.name)


class Examples(Sequence[Example]):
    """The examples of a split, made when they are asked for: a million of them take the memory of
    what they are made of.

    make: from a number in [0, size) to its example. labels: int32 [size], the class of each; None
        where one has none. rows: int [N], of which numbers these are; None for all, in order.
    """

    def __init__(
        self,
        make: Callable[[int], Example],
        size: int,
        *,
        labels: np.ndarray | None,
        rows: np.ndarray | None = None,
    ):
        self._make, self._size, self._labels = make, size, labels
        self._rows = np.arange(size) if rows is None else rows

    @staticmethod
    def of(examples: Sequence[Example]) -> "Examples":
        """Those that are made already."""
        if isinstance(examples, Examples):
            return examples
        labels = [example.label for example in examples if example.label is not None]
        known = np.array(labels, np.int32) if len(labels) == len(examples) else None
        return Examples(examples.__getitem__, len(examples), labels=known)

    @property
    def labels(self) -> np.ndarray | None:
        """The class of each, int32 [N]; None where one has none."""
        return None if self._labels is None else self._labels[self._rows]

    def keep(self, chosen: np.ndarray) -> "Examples":
        """Only those, by a mask bool [N]."""
        return Examples(self._make, self._size, labels=self._labels, rows=self._rows[chosen])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> "Examples": ...

    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            rows = self._rows[index]
            return Examples(self._make, self._size, labels=self._labels, rows=rows)
        return self._make(int(self._rows[index]))


def with_companions(names: Sequence[str], *, crops: bool = False) -> tuple[str, ...]:
    """`names` with the entries that come with them: boxes with all that has a row an object. With
    `crops` there is one object an example, without a box."""
    out = dict.fromkeys(("image",))
    if crops:
        out |= dict.fromkeys(("label",))
    elif set(names) & set(OBJECT_ENTRIES):
        out |= dict.fromkeys(("boxes", *COMPANIONS["boxes"]))
    for name in names:
        out |= dict.fromkeys((name, *COMPANIONS.get(name, ())))
    return tuple(out)


def entry_specs(
    names: Sequence[str], axis: Callable[[str], int], *, rows: bool = True
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of entries of the table for one example; `axis` gives the length that a
    letter of `Entry.axes` stands for, and is asked only for those that occur. With `rows`, points
    have an axis N before theirs."""
    out = {}
    for name in names:
        entry = ENTRIES[name]
        letters = entry.axes.replace("...", "N" if rows else "").split()
        shape = tuple(int(a) if a.isdigit() else axis(a) for a in letters)
        out[name] = jax.ShapeDtypeStruct(shape, np.dtype(entry.dtypes[0]))
    return out


def crop_objects(
    example: Example, size: tuple[int, int], *, margin: float, pointed: bool
) -> list[Example]:
    """Each object that counts as an example of its own: the window of `margin` times its box,
    widened to the aspect ratio of `size`. With `pointed`, only those with a labelled point."""
    out, objects = [], example.objects
    for i in range(0 if objects is None else len(objects)):
        assert objects is not None
        if objects.ignored[i] or (pointed and not (objects.points[i, :, 2] > 0).any()):
            continue
        height, width = example.size
        y0, x0, y1, x1 = objects.boxes[i].astype(np.float64) * [height, width, height, width]
        aspect = size[0] / size[1]
        tall = max(y1 - y0, (x1 - x0) * aspect) * margin
        extent = np.array([tall, tall / aspect])
        start = np.array([y0 + y1, x0 + x1]) / 2 - extent / 2
        first = np.round(start).astype(int)
        last = np.maximum(np.round(start + extent).astype(int), first + 1)
        one = objects.take(np.array([i]))
        window = (int(first[0]), int(first[1]), int(last[0]), int(last[1]))
        out.append(replace(example, objects=one, window=window, label=int(one.labels[0])))
    return out
