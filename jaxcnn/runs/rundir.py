"""A run directory as a place: made, owned by one process, read; and the signals that ask its
process to stop.

A run directory holds
    run.json         the rendered experiment, where it came from, environment, what prediction needs
    code/            the experiment's own code, see jaxcnn.runs.code
    metrics.jsonl    the history, one record a line
    checkpoints/     last-<step>.safetensors (the newest two), best-<step>.safetensors
    summary.json     what came out
    tensorboard/     where tensorboardX is installed
    run.lock         who trains here
A sweep's directory holds run.json (with "points"), code/, summary.json, sweep.png, run.lock, and
replicas/<i>/, each a run directory of its own.
"""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jaxcnn.core.rendering import Json
from jaxcnn.errors import BusyError, CheckpointError, ConfigError, ResourceError
from jaxcnn.weights.files import write_atomically

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")  # those that this system has

# what a run that was killed before its run.json was written leaves beside its run.lock
BEFORE_RUN = ("code", ".run.json.tmp")


def read_json(path: Path) -> dict[str, Any]:
    """Errors: ConfigError where there is none, CheckpointError for one that cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{path.parent}: is not a run directory (no {path.name}); a run is what `train` makes"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: cannot be read (it holds {type(content).__name__})")
    return content


def write_json(path: Path, content: Json) -> None:
    """Atomically. Errors: ResourceError."""
    write_atomically(path, [json.dumps(content, indent=1).encode()])


def make_folder(folder: Path) -> None:
    """Errors: ResourceError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{folder}: cannot be made ({error.strerror}); choose another --run-dir"
        ) from error


def replica_folder(folder: Path, index: int) -> Path:
    """Where replica `index` of a sweep lies."""
    return folder / "replicas" / str(index)


@contextmanager
def locked(folder: Path, *, resume: bool, new: bool = False) -> Generator[None]:
    """Own the run directory: made if it does not exist (`new`: it was made for it); refused if
    another process owns it or if it holds a run that is not to be resumed. What was made is removed
    again if nothing else came into it.
    """
    import fcntl

    new, begun = new or not folder.exists(), (folder / "run.lock").exists()
    try:
        if resume:
            read_json(folder / "run.json")
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "run.lock", "a+")  # noqa: SIM115 (held until the run ends)
    except OSError as error:
        raise ResourceError(
            f"{folder}: cannot be made or written to ({error.strerror}); choose another --run-dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise BusyError(
                f"{folder}: another process trains here ({lock.read().strip()}); wait for it, or "
                "choose another --run-dir"
            ) from None
        mine = {"run.lock", *(BEFORE_RUN if begun else ())}
        if not resume and set(os.listdir(folder)) - mine:
            raise ConfigError(
                f"{folder}: holds files already; go on with `train --resume {folder}` or choose "
                "another --run-dir"
            )
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        try:
            yield
        finally:
            if not resume and set(os.listdir(folder)) == {"run.lock"}:
                (folder / "run.lock").unlink()
                if new:
                    folder.rmdir()


@contextmanager
def signals() -> Generator[Callable[[], bool]]:
    """A function that says whether a signal to stop has come. The handler only sets a flag (raising
    inside a compilation would crash the process); a second Ctrl-C raises KeyboardInterrupt, a
    second signal of another kind ends the process.

    In a thread other than the main one, where Python lets nobody set handlers, it is never true.
    """
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        if seen:
            os._exit(128 + number)
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: go on after the user logs out
        numbers.remove(signal.SIGHUP)
    old = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
