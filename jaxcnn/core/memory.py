"""Whether memory suffices for a compiled function, asked before it runs.

On an accelerator JAX says when memory is out. On CPU it cannot: an allocation that fails in XLA's
threads ends the process ("terminate called after throwing an instance of 'std::bad_alloc'"), and so
does the kernel where more was promised than is there. What a function needs is known once it is
compiled.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from jaxcnn.core.protocols import Tree
from jaxcnn.errors import ResourceError

# What starting JAX and compiling a small network take; with less its threads end the process.
STARTING, COMPILING = 160 * 2**20, 96 * 2**20
R = TypeVar("R")


class Fitting(Generic[R]):
    """`function` under `jax.jit`, which on CPU is not run where memory does not suffice. Asked once
    for each set of shapes of its last argument (a batch); JAX keeps what was compiled for that.

    name, remedy: words of the error, which is a ResourceError. donated, options: the places of
    arguments whose memory the results may take, and compiler options, as of `jax.jit`.
    """

    def __init__(
        self,
        function: Callable[..., R],
        name: str,
        remedy: str,
        *,
        donated: tuple[int, ...] = (),
        options: Mapping[str, int | str] | None = None,
    ):
        self.name, self.remedy = name, remedy
        self._within = jax.jit(function, donate_argnums=donated)  # other functions, without options
        given = None if options is None else dict(options)
        self._jitted = jax.jit(function, donate_argnums=donated, compiler_options=given)
        self._asked: set[tuple[tuple[int, ...], ...]] = set()

    def __call__(self, *args: Tree) -> R:
        if any(isinstance(x, Tracer) for x in jax.tree.leaves(args)):
            return self._within(*args)
        shapes = tuple(np.shape(x) for x in jax.tree.leaves(args[-1]))
        if shapes not in self._asked:
            self._asked.add(shapes)
            if jax.default_backend() == "cpu":
                check(COMPILING, f"compiling {self.name}", self.remedy)
                needed = call_bytes(self._jitted.lower(*args).compile())
                check(needed or 0, self.name, self.remedy)
        return self._jitted(*args)

    def trace(self, *args: Tree) -> jax.stages.Traced:
        """As `jax.jit(function).trace`."""
        return self._jitted.trace(*args)

    def count_compiled(self) -> int:
        """How often it was compiled by calls: for each set of shapes, dtypes and devices."""
        return self._jitted._cache_size()  # pyright: ignore


def check(needed: int, what: str, remedy: str) -> None:
    """ResourceError where less than `needed` bytes of the host's memory are free."""
    free, limit = free_bytes()
    if free is not None and needed > free:
        raise ResourceError(
            f"{what} needs {format_bytes(needed)} of memory besides what is held, and "
            f"{format_bytes(free)} are free ({limit}); {remedy}"
        )


def call_bytes(compiled: jax.stages.Compiled, *, arguments: bool = False) -> int | None:
    """Memory that a call takes: temporaries, and results that do not reuse an argument's; with
    `arguments` also those. None where the compiler does not say.
    """
    try:
        m = compiled.memory_analysis()
    except (NotImplementedError, RuntimeError):
        return None
    if m is None:
        return None
    results = max(0, m.output_size_in_bytes - m.alias_size_in_bytes)
    return int(m.temp_size_in_bytes + results + (m.argument_size_in_bytes if arguments else 0))


def free_bytes() -> tuple[int | None, str]:
    """(memory in bytes that this process may still take on the host, what limits it); None where
    the system does not say. The least of what the machine has left with its swap, of the limit of
    the control group (containers), and of the address space (ulimit -v).
    """
    sources: tuple[tuple[str, Callable[[], int | None]], ...] = (
        ("the machine's memory and swap", _of_machine),
        ("the limit of the control group", _of_group),
        ("the limit of the address space, ulimit -v", _of_address_space),
    )
    known: list[tuple[int, str]] = []
    for name, read in sources:
        try:
            free = read()
        except (OSError, ValueError, KeyError, ImportError):  # other systems, other kernels
            continue
        if free is not None:
            known.append((max(0, free), name))
    return min(known) if known else (None, "")


def _table(path: str) -> dict[str, int]:
    """Numbers of a file of lines `name: number kB`, or `name number` (bytes)."""
    rows = (line.replace(":", " ").split() for line in Path(path).read_text().splitlines())
    return {r[0]: int(r[1]) * (1024 if r[2:] else 1) for r in rows if r[1:] and r[1].isdigit()}


def _of_machine() -> int:
    table = _table("/proc/meminfo")
    return table["MemAvailable"] + table.get("SwapFree", 0)


def _of_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Of control groups of the second version; what files hold in the cache is given back."""
    own = next(
        (x[4:] for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::/")),
        None,
    )
    if own is None:
        return None
    folder, found = root / own, []
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root) or not (place / "memory.max").exists():
            break
        limit = (place / "memory.max").read_text().strip()
        if limit != "max":
            cached = _table(str(place / "memory.stat")).get("inactive_file", 0)
            found.append(int(limit) - int((place / "memory.current").read_text()) + cached)
    return min(found, default=None)


def _of_address_space() -> int | None:
    import resource  # not on Windows

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return limit - pages * resource.getpagesize()


def format_bytes(count: float) -> str:
    """Short text of a number of bytes: "512 bytes", "241.0 KiB", "3.1 GiB"."""
    size, units = float(count), ("bytes", "KiB", "MiB", "GiB")
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:,.0f} bytes" if units[0] == "bytes" else f"{size:,.1f} {units[0]}"
