"""What a hostile file could want, watched: another program, a socket, a class of a pickle, a file
outside the folder that is read or written.
"""

import contextlib
import os
import resource
import signal
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

SECONDS, BYTES = 2.0, 256 * 2**20
PROGRAMS = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")
POWERS = (*PROGRAMS, "pty.spawn", "subprocess.Popen", "pickle.find_class", "webbrowser.open")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod")
# where Python, its packages and the system lie: reading there is the program's own business
OWN = (sys.prefix, sys.base_prefix, str(ROOT / "jaxcnn"), "/proc", "/sys", "/dev", "/usr")

_armed: list[tuple[Path, list[str]]] = []  # the folder that may be touched, and what was seen


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _armed:
        return
    root, seen = _armed[-1]
    if event in POWERS or event.startswith("socket."):
        seen.append(f"{event} {str(arguments)[:200]}")
    elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        place = Path(os.path.realpath(os.fsdecode(arguments[0])))
        writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        known = not writes and str(place).startswith((*OWN, *_imports()))
        if not place.is_relative_to(root) and not known and str(place) != os.devnull:
            seen.append(f"open {place} {'to write' if writes else 'to read'}")
    elif event in CHANGES:
        places = [Path(os.path.realpath(os.fsdecode(x))) for x in arguments if _is_path(x)]
        seen += [f"{event} {place}" for place in places if not place.is_relative_to(root)]


def _is_path(value: Any) -> bool:
    return isinstance(value, str | bytes | os.PathLike) and bool(value)


def _imports() -> tuple[str, ...]:
    """Where packages may be imported from besides (PYTHONPATH), but for the project's own tests,
    whose files are hostile ones.
    """
    return tuple(path for path in sys.path if path and "site" in path)


sys.addaudithook(_hook)  # it cannot be taken away again, and is idle unless armed


@contextlib.contextmanager
def watched(root: Path) -> Iterator[list[str]]:
    """What is done meanwhile that nothing in the folder `root` may cause, a line each."""
    seen: list[str] = []
    _armed.append((Path(os.path.realpath(root)), seen))
    try:
        yield seen
    finally:
        _armed.pop()


@contextlib.contextmanager
def bounded(*, seconds: float = SECONDS, most: int = BYTES) -> Iterator[None]:
    """AssertionError where what is done meanwhile takes more time of the processor or memory; what
    does not end is stopped.
    """

    def stop(number: int, frame: object) -> None:
        raise TimeoutError("does not end")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    tracemalloc.start()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    try:
        yield
        taken, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        signal.alarm(0)
        tracemalloc.stop()
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident)
    assert taken < seconds, f"{taken:.1f} s"
    assert max(peak, grown) < most, f"{peak:,} bytes asked for, {grown:,} more resident"
