"""A run directory as a place: made, owned by one process, read; and the signals that ask its
process to stop.
"""

import fcntl
import json
import os
import signal
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxcnn.errors import BusyError, CheckpointError, ConfigError, ResourceError


class Preempted(Exception):
    """A signal asked the run to stop; the state was saved and can be resumed."""


def read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path.parent}: is not a run directory (no {path.name}); a run is what "
                          "`train` makes") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error


def make_folder(folder: Path) -> None:
    """Errors: ResourceError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made ({error.strerror}); choose another "
                            "--run-dir") from error


@contextmanager
def locked(folder: Path, *, resume: bool):
    """Own the run directory: made if new; refused if another process owns it or if it holds a run
    that is not to be resumed.
    """
    try:
        if resume:
            read_json(folder / "run.json")
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "run.lock", "a+")  # noqa: SIM115 (held until the run ends)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made or written to ({error.strerror}); choose "
                            "another --run-dir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise BusyError(
                f"{folder}: another process trains here ({lock.read().strip()}); wait for it, or "
                "choose another --run-dir"
            ) from None
        if not resume and set(os.listdir(folder)) - {"run.lock", "experiment.py"}:
            raise ConfigError(f"{folder}: holds files already; go on with `train --resume "
                              f"{folder}` or choose another --run-dir")
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


@contextmanager
def signals():
    """A function that says whether SIGTERM or SIGINT has come. The handler only sets a flag
    (raising inside a compilation would crash the process); a second signal ends the process at
    once.
    """
    seen: list[int] = []

    def handle(number, frame):
        if seen:
            os._exit(128 + number)
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
