"""Forked children that run the real program and can be killed at any moment.

JAX and jaxcnn are imported once, in the parent, which never starts JAX's backend: a child then
begins in milliseconds, and its first step comes from the compilation cache.
"""

import contextlib
import ctypes
import dataclasses
import faulthandler
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from jaxcnn.commands._main import main
from jaxcnn.runs.terminal import SIGNALS

OPERATIONS = ("open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate")
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h
STUCK = 90.0  # seconds after which a child is given up


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a child ended. code: its exit code, or minus the signal that ended it."""

    code: int
    seconds: float
    out: str
    err: str

    @property
    def last_words(self) -> str:
        lines = self.err.strip().splitlines()
        return f"exit code {self.code}; {' | '.join(lines[-3:]) or 'nothing said'}"

    @property
    def tidy(self) -> bool:
        """Whether what it said of an error is short and no traceback."""
        return "Traceback" not in self.err and len(self.err.strip().splitlines()) <= 5


class Child:
    """A forked process that runs `call`, whose result is its exit code. `streams` is called in it
    once its output goes to files; `before` right before `call`.
    """

    def __init__(
        self,
        call: Callable[[], int],
        *,
        before: Callable[[], Any] = lambda: None,
        streams: Callable[[], Any] = lambda: None,
    ):
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _become(call, before, streams, [file.fileno() for file in self._files])

    def ended(self) -> bool:
        """Whether it has, without taking note of it."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until it has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.ended():
            time.sleep(min(0.005, max(0.0, until - time.monotonic())))

    def wait(self) -> Ended:
        """Wait for its end; one that hangs is killed, and has the code -9."""
        deadline = time.monotonic() + STUCK
        while not self.ended():
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            time.sleep(0.002)
        _, status = os.waitpid(self.pid, 0)
        seconds = time.monotonic() - self.started
        return Ended(os.waitstatus_to_exitcode(status), seconds, *map(_text, self._files))


def _become(call, before, streams, outputs: list[int]) -> None:
    """What a child does."""
    code = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no orphan trains on
        for name in SIGNALS:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, target in zip(outputs, (1, 2), strict=True):
            os.dup2(number, target)
        faulthandler.dump_traceback_later(0.8 * STUCK, file=os.fdopen(os.dup(2), "w"))
        streams()
        sys.stdout, sys.stderr = map(_stream, (1, 2))
        before()
        code = call()
    except BaseException:
        with contextlib.suppress(Exception):
            traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _stream(number: int) -> TextIO:
    """As Python opens it; None, as there, where it is closed."""
    try:
        return open(number, "w", closefd=False)
    except OSError:
        return None  # pyright: ignore[reportReturnType] (Python's own lie)


def _text(file) -> str:
    file.seek(0)
    text = file.read().decode(errors="replace")
    file.close()
    return text


def command(*arguments: object) -> Callable[[], int]:
    """The command line with these arguments, as a program of its own."""

    def call() -> int:
        sys.argv = ["launch.py", *map(str, arguments)]
        return main()

    return call


def at_operation(number: int, folder: Path, act: Callable[[], Any]) -> Callable[[], None]:
    """For `before`: `act` right before the number-th file operation in `folder`: opening, renaming,
    linking, removing, making.
    """

    def install() -> None:
        seen = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if event in OPERATIONS and _inside(arguments[0], folder):
                seen += 1
                if seen == number:
                    act()

        sys.addaudithook(hook)

    return install


def counting(folder: Path, result: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """(for `before`, to be called at the end): writes the number of file operations in `folder`."""
    count = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and _inside(arguments[0], folder):
            count[0] += 1

    return lambda: sys.addaudithook(hook), lambda: print(count[0], file=open(result, "w"))


def _inside(path: Any, folder: Path) -> bool:
    return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(str(folder))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
