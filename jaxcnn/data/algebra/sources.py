"""Sources made of sources: some of the rows, several one after another, a change of each batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn.core.batch import Batch
from jaxcnn.data.dataset import Source, column, is_drawn, take_drawn
from jaxcnn.data.memory import MemorySource, check_indices
from jaxcnn.errors import DataError

Spec = Mapping[str, jax.ShapeDtypeStruct]
ROWS_AT_ONCE = 256


class Rows:
    """The examples `rows` [N] int of a source, in this order; one may come several times."""

    def __init__(self, source: Source, rows: np.ndarray):
        self._source, self._rows = source, np.asarray(rows)
        self.streaming, self.drawn = source.streaming, is_drawn(source)
        known = getattr(source, "columns", {})
        self.columns = {name: x[self._rows] for name, x in known.items()}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def arrays(self) -> dict[str, np.ndarray] | None:
        """All examples, gathered at each call; None where they are not in memory."""
        arrays = self._source.arrays
        return None if arrays is None else {n: np.asarray(x)[self._rows] for n, x in arrays.items()}

    def take(self, indices: np.ndarray, *, draws: np.ndarray | None = None) -> Batch:
        """As every `DrawnSource.take`."""
        return take_drawn(self._source, self._rows[check_indices(indices, len(self))], draws)


def rows_of(source: Source, rows: np.ndarray) -> Source:
    """Some rows of a source. Of one in memory, unless rows come several times, only those are
    held.
    """
    if source.arrays is None or len(rows) > len(source):
        return Rows(source, rows)
    return MemorySource({name: np.asarray(x)[rows] for name, x in source.arrays.items()})


class Joined:
    """Sources one after another; `take` gives host arrays. `spec`: of one example."""

    streaming = True
    arrays = None

    def __init__(self, parts: Sequence[Source], spec: Spec):
        self._parts, self._spec = tuple(parts), dict(spec)
        self._ends = np.cumsum([len(part) for part in parts])
        self.columns = _columns(parts, spec)
        self.drawn = any(map(is_drawn, parts))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(
        self, indices: np.ndarray, *, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """As every `DrawnSource.take`. Errors: DataError for a part that does not keep the spec."""
        indices = check_indices(indices, len(self))
        flat = indices.ravel()
        out = {n: np.empty((len(flat), *s.shape), s.dtype) for n, s in self._spec.items()}
        number = np.searchsorted(self._ends, flat, side="right")
        for i, part in enumerate(self._parts):
            chosen = np.flatnonzero(number == i)
            if not len(chosen):
                continue
            rows = flat[chosen] - (self._ends[i] - len(part))
            if not part.streaming:  # it compiles for each number of rows: let there be few
                rows = np.resize(rows, 1 << (len(rows) - 1).bit_length())
            by = None if draws is None else draws.ravel()[chosen]
            taken = take_drawn(part, rows, by)
            for name, array in out.items():
                found = np.asarray(taken[name])[: len(chosen)]
                if found.shape[1:] != array.shape[1:]:
                    raise DataError(
                        f"{name!r} has shape {list(found.shape[1:])} in part {i}; all parts must "
                        f"have {list(array.shape[1:])}"
                    )
                array[chosen] = found
        return {n: x.reshape(*indices.shape, *x.shape[1:]) for n, x in out.items()}


def joined(parts: Sequence[Source], spec: Spec) -> Source:
    """Sources one after another; of those that all lie in memory one that does, too."""
    if len(parts) == 1:
        return parts[0]
    arrays = [part.arrays for part in parts]
    found = [a for a in arrays if a is not None]
    if len(found) < len(arrays):
        return Joined(parts, spec)
    return MemorySource({n: np.concatenate([np.asarray(a[n]) for a in found]) for n in spec})


def _columns(parts: Sequence[Source], spec: Spec) -> dict[str, np.ndarray]:
    """What all parts know without decoding."""
    found = {name: [column(part, name) for part in parts] for name in spec if name != "image"}
    whole = {n: [x for x in each if x is not None] for n, each in found.items()}
    return {n: np.concatenate(each) for n, each in whole.items() if len(each) == len(parts)}


class Changed:
    """A source whose batches `change` changes, on the host: from arrays [B, ...] to arrays [B, …].

    `columns`: what is known of all examples after the change.
    """

    streaming = True
    arrays = None

    def __init__(
        self,
        source: Source,
        change: Callable[[Batch], Batch],
        *,
        columns: Mapping[str, np.ndarray] | None = None,
    ):
        self._source, self._change, self.columns = source, change, dict(columns or {})
        self.drawn = is_drawn(source)

    def __len__(self) -> int:
        return len(self._source)

    def take(self, indices: np.ndarray, *, draws: np.ndarray | None = None) -> Batch:
        """As every `DrawnSource.take`."""
        indices = check_indices(indices, len(self))
        by = None if draws is None else draws.ravel()
        flat = self._change(jax.device_get(dict(take_drawn(self._source, indices.ravel(), by))))
        return {n: np.reshape(x, (*indices.shape, *x.shape[1:])) for n, x in flat.items()}


def changed(
    source: Source,
    change: Callable[[Batch], Batch],
    *,
    columns: Mapping[str, np.ndarray] | None = None,
) -> Source:
    """A source whose batches are changed; one in memory is changed at once."""
    if source.arrays is None:
        return Changed(source, change, columns=columns)
    return MemorySource(change(jax.device_get(dict(source.arrays))))


def read_column(source: Source, name: str) -> np.ndarray:
    """Entry `name` of all examples, [N, *its shape]; where it cannot be had otherwise, by decoding
    every example once.
    """
    known = column(source, name)
    if known is not None:
        return known
    parts: list[Any] = []
    for start in range(0, len(source), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(source)))
        parts.append(np.asarray(source.take(rows)[name]))
    return np.concatenate(parts)
