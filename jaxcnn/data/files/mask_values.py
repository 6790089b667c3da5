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
from pathlib import Path

import numpy as np

from jaxcnn.core.batch import IGNORED
from jaxcnn.errors import DataError

MOST_MASKS = 2000  # of a split that are looked at: all, or so many evenly spread over it

Values = frozenset[int]


def scan_values(paths: Sequence[Path], read: Callable[[Path], np.ndarray]) -> list[Values]:
    """The different pixel values of each mask, of at most MOST_MASKS. `read`: its numbers [H, W];
    a mask that it refuses (DataError) is passed over, since reading the split refuses it again.
    """
    step = max(1.0, len(paths) / MOST_MASKS)
    chosen = [paths[int(i * step)] for i in range(min(len(paths), MOST_MASKS))]

    def values(path: Path) -> Values:
        try:
            return frozenset(np.unique(read(path)).tolist())
        except DataError:
            return frozenset()

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return [found for found in pool.map(values, chosen) if found]


def require_one_meaning(found: Sequence[Values], names: Sequence[str], *, where: str) -> None:
    """DataError where the values of a split's masks can be class numbers, 255 for unknown, and can
    be something else too. `names` of the classes, () where they have none.
    """
    union = frozenset().union(*found)
    classes, n = union - {IGNORED}, len(names)
    shown = sorted(union)[:12]
    if n and len(union) == n and union != set(range(n)):
        raise DataError(
            f"{where}: the masks hold the values {shown}, as many as there are names {_few(names)} "
            f"and not 0 to {n - 1}: set values={tuple(sorted(union))} if each stands for a class"
            + (f", or ignored={IGNORED} if that means unknown" if IGNORED in union else "")
        )
    if IGNORED not in union:
        return
    if classes <= {0}:
        raise DataError(
            f"{where}: the masks hold the values {shown} only, and 255 can be a class (black and "
            "white masks) or mean that none is known: set values=(0, 255) for the former, "
            f"ignored={IGNORED} for the latter"
        )
    # the masks in which 255 stands where the others have a class
    alone = [values for values in found if IGNORED in values and values <= {0, IGNORED}]
    together = any(IGNORED in values and values - {0, IGNORED} for values in found)
    if alone and not together:
        raise DataError(
            f"{where}: {len(alone)} of {len(found)} masks hold 0 and 255 only, the others "
            f"{sorted(classes)[:12]} and never 255, so that 255 can be a class in the former: "
            f"write one kind of masks, or set ignored={IGNORED} if 255 means unknown"
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
