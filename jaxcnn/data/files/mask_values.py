"""What the pixel values of a split's masks can mean, judged over all of them together.

Masks are numbered in several ways: 0, 1, 2, ... for the classes with 255 where no class is known
(as Pascal VOC), or 0 and 255 for two classes (black and white), or any other values. Read as one
where the other is meant, nothing fails and everything is wrong, so what has two meanings is
refused.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jaxcnn.core.batch import IGNORED
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.label_images import colour_number, read_colour_mask, read_index_mask
from jaxcnn.errors import ConfigError, DataError

MOST_MASKS = 2000  # of a split that are looked at: all, or so many evenly spread over it

Values = frozenset[int]
Colour = tuple[int, int, int]
Mask = TypeVar("Mask")


class Meaning(NamedTuple):
    """What the pixels of a reader's masks stand for: see `MaskFolder` for the first three. fields:
    what stands before their names where the reader's user says them, for messages."""

    values: tuple[int, ...] = ()
    colours: tuple[Colour, ...] = ()
    ignored: int | Colour | None = None
    fields: str = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that stand for the classes; () where they are 0, 1, 2, ..."""
        return tuple(map(colour_number, self.colours)) or self.values

    def check(self, reader: str, names: Sequence[str]) -> None:
        """ConfigError where the fields of `reader` contradict each other."""
        given, to = self.colours or self.values, self.fields
        if self.values and self.colours:
            raise ConfigError(
                f"{reader}: {to}values and {to}colours are given; a class has one of both"
            )
        shown = f"{to}{'colours' if self.colours else 'values'}"
        if names and given and len(names) != len(given):
            raise ConfigError(
                f"{reader}: {len(names)} names and {len(given)} {shown}; each class has one of both"
            )
        if len(set(given)) < len(given) or self.ignored in given:
            raise ConfigError(
                f"{reader}: {shown}={given}, {to}ignored={self.ignored}; each class has a value "
                "of its own"
            )
        kind, axes, top = ("colour", 3, 255) if self.colours else ("value", 1, 65535)
        for value in (*given, *(() if self.ignored is None else (self.ignored,))):
            if np.size(value) != axes or np.min(value) < 0 or np.max(value) > top:
                raise ConfigError(
                    f"{reader}: {value!r} is no {kind} of a pixel, {axes} numbers in [0, {top}]"
                )

    def read(self, file: Any, *, name: str, turn: int | None = None) -> np.ndarray:
        """The values of a mask's pixels (of colours: `label_images.colour_number`), int32 [H, W].
        Errors: DataError."""
        if self.colours:
            return read_colour_mask(file, name=name, turn=turn)
        return read_index_mask(file, name=name, turn=turn, colours=f"{self.fields}colours")

    def class_numbers(
        self, pixels: np.ndarray, faults: Faults, *, name: str, num_classes: int | None = None
    ) -> np.ndarray:
        """The class numbers of the values of a mask, int32 [H, W]. Pixels of values that stand for
        no class are a fault, and ignored; those of the value `ignored` are ignored without one.
        """
        values, ignored = self.numbers, self.ignored
        ignored = colour_number(ignored) if isinstance(ignored, tuple) else ignored
        if values:
            order = np.argsort(values)
            ordered = np.asarray(values)[order]
            place = np.minimum(np.searchsorted(ordered, pixels), len(values) - 1)
            known = ordered[place] == pixels
            out = np.where(known, order[place], IGNORED).astype(np.int32)
            allowed = f"the {'colours' if self.colours else 'values'} {self._shown(values)}"
        else:
            ignored = IGNORED if ignored is None else ignored
            known = (pixels >= 0) & ((pixels < num_classes) if num_classes else pixels < IGNORED)
            known &= pixels != ignored
            out = np.where(known, pixels, IGNORED).astype(np.int32)
            allowed = f"class numbers in [0, {num_classes or IGNORED})"
        strange = ~known if ignored is None else ~known & (pixels != ignored)
        if strange.any():
            found, to = np.unique(pixels[strange]).tolist(), self.fields
            also = "" if ignored is None else f" or {self._shown((ignored,))}, which is ignored"
            faults.add(
                f"{name}: {int(strange.sum())} pixels hold {self._shown(found[:8])}; a mask holds "
                f"{allowed}{also} (else set names, {to}values, {to}colours or {to}ignored)",
                kind="pixels of no class",
            )
        return out

    def _shown(self, values: Sequence[int]) -> list[Any]:
        """Values as a user wrote them."""
        return [(v >> 16, v >> 8 & 255, v & 255) if self.colours else v for v in values]

    def judge(self, found: Sequence[Values], names: Sequence[str], *, where: str) -> None:
        """DataError where the values of a split's masks have two meanings and nothing says which is
        meant, see `require_one_meaning`."""
        if not self.numbers and self.ignored is None:
            require_one_meaning(found, names, where=where, fields=self.fields)


def scan_values(masks: Sequence[Mask], read: Callable[[Mask], np.ndarray]) -> list[Values]:
    """The different pixel values of each mask, of at most MOST_MASKS. `read`: its numbers [H, W];
    a mask that it refuses (DataError) is passed over, since reading the split refuses it again.
    """
    step = max(1.0, len(masks) / MOST_MASKS)
    chosen = [masks[int(i * step)] for i in range(min(len(masks), MOST_MASKS))]

    def values(mask: Mask) -> Values:
        try:
            return frozenset(np.unique(read(mask)).tolist())
        except DataError:
            return frozenset()

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return [found for found in pool.map(values, chosen) if found]


def require_one_meaning(
    found: Sequence[Values], names: Sequence[str], *, where: str, fields: str = ""
) -> None:
    """DataError where the values of a split's masks can be class numbers, 255 for unknown, and can
    be something else too. `names` of the classes, () where they have none. `fields`: see `Meaning`.
    """
    union = frozenset().union(*found)
    classes, n = union - {IGNORED}, len(names)
    shown = sorted(union)[:12]
    if n and len(union) == n and union != set(range(n)):
        raise DataError(
            f"{where}: the masks hold the values {shown}, as many as there are names {_few(names)} "
            f"and not 0 to {n - 1}: set {fields}values={tuple(sorted(union))} if each stands for a "
            "class"
            + (f", or {fields}ignored={IGNORED} if that means unknown" if IGNORED in union else "")
        )
    if IGNORED not in union:
        return
    if classes <= {0}:
        raise DataError(
            f"{where}: the masks hold the values {shown} only, and 255 can be a class (black and "
            f"white masks) or mean that none is known: set {fields}values=(0, 255) for the former, "
            f"{fields}ignored={IGNORED} for the latter"
        )
    # the masks in which 255 stands where the others have a class
    alone = [values for values in found if IGNORED in values and values <= {0, IGNORED}]
    together = any(IGNORED in values and values - {0, IGNORED} for values in found)
    if alone and not together:
        raise DataError(
            f"{where}: {len(alone)} of {len(found)} masks hold 0 and 255 only, the others "
            f"{sorted(classes)[:12]} and never 255, so that 255 can be a class in the former: "
            f"write one kind of masks, or set {fields}ignored={IGNORED} if 255 means unknown"
        )


def say_missing(
    found: Sequence[Values], values: Sequence[int], names: Sequence[str], *, where: str
):
    """Warn of classes that occur in none of the training masks. `values` that stand for the
    classes.
    """
    union = frozenset().union(*found)
    missing = [f"{names[k]!r} ({value})" for k, value in enumerate(values) if value not in union]
    if missing and found:
        warnings.warn(
            f"{where}: {len(missing)} of {len(values)} classes occur in none of the {len(found)} "
            f"masks looked at: {', '.join(missing[:10])}",
            stacklevel=2,
        )


def _few(names: Sequence[str]) -> str:
    return f"{list(names[:5])}" + (" ..." if len(names) > 5 else "")
