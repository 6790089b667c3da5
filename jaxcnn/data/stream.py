"""Examples too many for memory: read and decoded on the host by a pool of threads, only those that
are asked for.
"""

import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import jax
import numpy as np

from jaxcnn import __version__
from jaxcnn.data.kept import keep, kept_path, read_kept
from jaxcnn.data.memory import MemorySource, check_indices
from jaxcnn.errors import DataError

Read = Callable[[list[int]], list[dict[str, np.ndarray]]]
ReadDrawn = Callable[[list[int], list[int]], list[dict[str, np.ndarray]]]
CHUNK = 32  # examples a thread reads at a time, at most; a single thread reads 16 times as many
# Bytes of a decoded example below which threads only wait for each other's interpreter lock
# (MNIST: 2x slower).
SMALL = 64 * 1024
LONG = 1000  # examples from which on their decoding is said beforehand: it may take seconds


class StreamSource:
    """A split read by index. What `take` gives is a function of the indices and draws alone; the
    number of threads changes nothing but the time.

    `read`: from a list of indices to their examples, callable from several threads; raises
        DataError naming the file. `read_drawn`: the same from indices and the draws of their visits
        (see `jaxcnn.data.dataset.DrawnSource`), where examples are not alike at each. `spec`: of
        one example. `workers`: threads; 0 for one per core, or a single one where examples are
        small.
    `columns`: entries of all examples, [N, ...] each, that are known without decoding: labels that
        are checked, balanced and held out by.
    """

    streaming = True
    arrays = None

    def __init__(
        self,
        read: Read,
        size: int,
        spec: Mapping[str, jax.ShapeDtypeStruct],
        *,
        workers: int = 0,
        columns: Mapping[str, np.ndarray] | None = None,
        read_drawn: ReadDrawn | None = None,
    ):
        self.columns = dict(columns or {})
        self._read, self._size, self._spec = read, size, dict(spec)
        self._read_drawn = read_drawn
        self._workers = workers or (1 if example_bytes(spec) < SMALL else os.cpu_count() or 1)

    def __len__(self) -> int:
        return self._size

    def with_workers(self, workers: int) -> "StreamSource":
        """The same examples, read by so many threads."""
        return StreamSource(
            self._read,
            self._size,
            self._spec,
            workers=workers,
            columns=self.columns,
            read_drawn=self._read_drawn,
        )

    @property
    def drawn(self) -> bool:
        """See `jaxcnn.data.dataset.DrawnSource`."""
        return self._read_drawn is not None

    def take(
        self, indices: np.ndarray, *, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The examples at `indices` (int, any shape [...]) as host arrays [..., *example shape];
        IndexError outside [0, len). `draws`: see `jaxcnn.data.dataset.DrawnSource`.
        """
        indices = check_indices(indices, self._size)
        flat = indices.ravel().tolist()
        by = None if draws is None else draws.reshape(indices.shape).ravel().tolist()
        out = {
            name: np.empty((len(flat), *entry.shape), entry.dtype)
            for name, entry in self._spec.items()
        }
        chunk = (
            16 * CHUNK if self._workers == 1 else max(1, min(CHUNK, -(-len(flat) // self._workers)))
        )

        def fill(start: int) -> None:
            part = slice(start, start + chunk)
            if by is None or self._read_drawn is None:
                read = self._read(flat[part])
            else:
                read = self._read_drawn(flat[part], by[part])
            for row, example in enumerate(read, start):
                for name, entry in self._spec.items():
                    if np.shape(example[name]) != entry.shape:
                        raise DataError(
                            f"{name!r} of example {flat[row]} has shape "
                            f"{np.shape(example[name])}; all must have {entry.shape}"
                        )
                    out[name][row] = example[name]

        starts = range(0, len(flat), chunk)
        if self._workers == 1:
            for start in starts:
                fill(start)
        else:
            with ThreadPoolExecutor(self._workers) as pool:
                list(pool.map(fill, starts))  # list: raises what a thread raised
        return {
            name: array.reshape((*indices.shape, *array.shape[1:])) for name, array in out.items()
        }


def example_bytes(spec: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes of one example."""
    return sum(
        int(np.prod(entry.shape)) * np.dtype(entry.dtype).itemsize for entry in spec.values()
    )


def in_memory_if_small(
    source: StreamSource,
    spec: Mapping[str, jax.ShapeDtypeStruct],
    *,
    memory_mib: int,
    cache_key: str = "",
    may_keep: Callable[[], bool] = lambda: True,
    where: str = "data",
) -> StreamSource | MemorySource:
    """The whole of `source` on the device if it takes at most `memory_mib` MiB there, else `source`
    itself.

    With a `cache_key`, which must name all that the arrays depend on but for the versions of jaxcnn
    and Pillow, they are also kept decoded in the user's cache folder ($XDG_CACHE_HOME or ~/.cache,
    in jaxcnn/): 60,000 MNIST images decode in 4 s and load in 0.2 s. `may_keep` is asked once they
    are decoded: of examples of which something is to be said each time, it must be found each time.

    One line on stderr says whose (`where`) examples are about to be decoded, if they are many; it
    is no warning, since nothing is odd, and warnings that come only once would depend on the cache.
    """
    if len(source) * example_bytes(spec) > memory_mib * 2**20:
        return source
    by = f"jaxcnn {__version__}, Pillow {version('pillow')}"  # that decode the pictures
    path = kept_path(f"{cache_key} {dict(spec)} {len(source)} {by}") if cache_key else None
    arrays = read_kept(path, spec) if path else None
    if arrays is None:
        if len(source) >= LONG:
            kept = f", to be kept in {path.parent}" if path else ""
            print(f"{where}: decoding {len(source):,} examples{kept}", file=sys.stderr, flush=True)
        arrays = source.take(np.arange(len(source)))
        if path and may_keep():
            keep(path, arrays)
    return MemorySource(arrays)
