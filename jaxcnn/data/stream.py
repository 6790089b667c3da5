"""Examples too many for memory: read and decoded on the host by a pool of threads, only those that are asked for."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from jaxcnn.data.memory import MemorySource, check_indices
from jaxcnn.errors import DataError

Read = Callable[[list[int]], list[dict[str, np.ndarray]]]
CHUNK = 64  # examples a thread reads at a time, at most
SMALL = 64 * 1024  # bytes of a decoded example below which threads only wait for each other's interpreter lock (MNIST: 2x slower)


class StreamSource:
    """A split read by index. What `take` gives is a function of the indices alone; the number of threads changes nothing but the time.

    `read`: from a list of indices to their examples, callable from several threads; raises DataError naming the file. `spec`: of one
    example. `workers`: threads; 0 for one per core, or a single one where examples are small.
    """

    def __init__(self, read: Read, size: int, spec: Mapping[str, jax.ShapeDtypeStruct], *, workers: int = 0):
        self._read, self._size, self._spec = read, size, dict(spec)
        self._workers = workers or (1 if example_bytes(spec) < SMALL else os.cpu_count() or 1)

    def __len__(self) -> int:
        return self._size

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples at `indices` (int, any shape [...]) as host arrays [..., *example shape]; IndexError outside [0, len)."""
        indices = check_indices(indices, self._size)
        flat = indices.ravel().tolist()
        out = {name: np.empty((len(flat), *entry.shape), entry.dtype) for name, entry in self._spec.items()}
        chunk = max(1, min(CHUNK, -(-len(flat) // self._workers)))

        def fill(start: int) -> None:
            for row, example in enumerate(self._read(flat[start : start + chunk]), start):
                for name, entry in self._spec.items():
                    if np.shape(example[name]) != entry.shape:
                        raise DataError(f"{name!r} of example {flat[row]} has shape {np.shape(example[name])}; all must have {entry.shape}")
                    out[name][row] = example[name]

        starts = range(0, len(flat), chunk)
        if self._workers == 1:
            for start in starts:
                fill(start)
        else:
            with ThreadPoolExecutor(self._workers) as pool:
                list(pool.map(fill, starts))  # list: raises what a thread raised
        return {name: array.reshape(*indices.shape, *array.shape[1:]) for name, array in out.items()}


def example_bytes(spec: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes of one example."""
    return sum(int(np.prod(entry.shape)) * np.dtype(entry.dtype).itemsize for entry in spec.values())


def in_memory_if_small(source: StreamSource, spec: Mapping[str, jax.ShapeDtypeStruct], *, memory_mib: int) -> StreamSource | MemorySource:
    """The whole of `source` on the device if it takes at most `memory_mib` MiB there, else `source` itself."""
    if len(source) * example_bytes(spec) > memory_mib * 2**20:
        return source
    return MemorySource(source.take(np.arange(len(source))))
