"""Runs tests on faults: each in a process forked from one that has imported JAX, pytest and what
else takes long, but nothing of jaxcnn, and has started no backend.

The package and the tests are copied to a temporary folder, one a worker; the working tree is never
written to. What takes long to compile is compiled once, by the run without a fault, and read from
there by all others. Packages that `make test` does not install are hidden.
"""

import contextlib
import importlib
import importlib.abc
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.mutants.mutations import Mutant

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("jaxcnn", "tests", "experiments", "docs", "benchmarks")
EARLY = (
    *("jax", "jax.numpy", "jax.export", "jaxlib", "flax.linen", "flax.struct", "optax", "numpy"),
    *("scipy.special", "scipy.ndimage", "sklearn.datasets", "PIL.Image", "ml_dtypes", "pytest"),
    *("hypothesis.strategies", "hypothesis.extra.numpy", "beartype", "jaxtyping", "rich.console"),
)
# of `make test-parity` alone
HIDDEN = ("torch", "torchvision", "timm", "keras", "pycocotools", "shapely")
GREEN, RED, NO_TESTS = 0, 1, 5  # pytest's exit codes


class Result(NamedTuple):
    """pytest's exit code (None: out of time), seconds taken, the first test that failed."""

    code: int | None
    seconds: float
    failed: str


def prepare(folder: Path) -> None:
    """Settings and imports that every forked process starts with; `folder` keeps compiled code."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "xla")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["NPROC"] = "2"
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ.setdefault("XDG_CACHE_HOME", str(ROOT / ".cache"))
    if "TFDS_DATA_DIR" not in os.environ and (ROOT.parent / "shared" / "tfds").is_dir():
        os.environ["TFDS_DATA_DIR"] = str(ROOT.parent / "shared" / "tfds")
    for name in EARLY:
        importlib.import_module(name)
    loaded = [name for name in sys.modules if name.split(".")[0] == "jaxcnn"]
    if loaded:
        raise RuntimeError(f"{loaded[0]} is imported before the fault is written")


def copy_of_the_project(folder: Path) -> Path:
    """A copy of the files that tests read, in `folder`."""
    skip = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, folder / path.name)
    return folder


class _Hidden(importlib.abc.MetaPathFinder):
    """Packages that are as if not installed."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden)", name=name)


class Job(NamedTuple):
    """A process at work."""

    mutant: Mutant | None
    copy: Path
    log: Path
    start: float
    limit: float


def run_all(
    todo: Iterable[tuple[Mutant | None, Sequence[str], float]], copies: Sequence[Path]
) -> Iterator[tuple[Mutant | None, Sequence[str], Result]]:
    """For each (fault, tests, seconds allowed) what came of it, as they end; as many at once as
    there are copies. Without a fault (None) the code that JAX compiles is kept for the others.
    """
    todo, free, jobs = iter(todo), list(copies), {}
    try:
        while True:
            while free and (item := next(todo, None)) is not None:
                mutant, tests, limit = item
                copy = free.pop()
                log = copy / "log.txt"
                if mutant is not None:
                    _write(copy / mutant.path, mutant.source)
                jobs[_start(copy, tests, log, keep=mutant is None)] = (
                    Job(mutant, copy, log, time.monotonic(), limit),
                    tests,
                )
            if not jobs:
                return
            for pid, (job, tests) in list(jobs.items()):
                seconds = time.monotonic() - job.start
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended and seconds < job.limit:
                    continue
                _kill(pid)
                if not ended:
                    os.waitpid(pid, 0)
                del jobs[pid]
                code = os.waitstatus_to_exitcode(status) if ended else None
                failed = re.search(
                    r"^(?:FAILED|ERROR) (\S+)", job.log.read_text(errors="replace"), re.M
                )
                if job.mutant is not None:
                    shutil.copy2(ROOT / job.mutant.path, job.copy / job.mutant.path)
                free.append(job.copy)
                yield job.mutant, tests, Result(code, seconds, failed[1] if failed else "")
            time.sleep(0.05)
    finally:  # none outlives whoever asked for it
        for pid in jobs:
            _kill(pid)


def _write(path: Path, source: str) -> None:
    """The fault, with a time that no compiled file of the original has."""
    path.write_text(source)
    os.utime(path, (1, 1))


def _kill(pid: int) -> None:
    """The process and all that it started, which are a group of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _start(copy: Path, tests: Sequence[str], log: Path, *, keep: bool) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0), os.dup2(output, 1), os.dup2(output, 2)
        code = _test(copy, tests, keep)
    except BaseException as error:
        print(f"ERROR {type(error).__name__} {error}", flush=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _test(copy: Path, tests: Sequence[str], keep: bool) -> int:
    import jax
    import pytest

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(copy)
    here = [name for name in sys.modules if name.split(".")[0] == "tests"]
    for name in here:  # this file's own; the copy's are imported anew
        del sys.modules[name]
    sys.path[:] = [str(copy), *(p for p in sys.path if p not in ("", str(ROOT)))]
    os.environ["PYTHONPATH"] = str(copy)
    sys.meta_path.insert(0, _Hidden())
    if not keep:  # a process that is killed while it writes must not leave half a file to others
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1e9"
    sys.dont_write_bytecode = not keep
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-W", "ignore:Module already imported"]  # of plugins, which prepare() imported
    return int(pytest.main([*options, *tests]))
