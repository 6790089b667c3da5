"""A run directory as a place: made, owned by one process, read; and the signals that ask its
process to stop.

A run directory holds
    run.json         the rendered experiment, where it came from, environment, what prediction needs
    code/            the experiment's own code, see jaxcnn.runs.code
    metrics.jsonl    the history, one record a line
    checkpoints/     last-<step>.safetensors (the newest two), best-<step>.safetensors
    summary.json     what came out
    tensorboard/     where tensorboardX is installed, see jaxcnn.runs.board
    track.json       {tracker: {"id", "logged"}}: which runs elsewhere this one goes on with, and up
                     to which step of each kind of record; see jaxcnn.runs.tracking
    wandb/           what Weights & Biases keeps of a run that it tracks
    profile/         of steps that were traced, see jaxcnn.runs.profiling
    run.lock         held by the process that trains here; run.owner says which it is
A sweep's directory holds run.json (with "points"), code/, summary.json, sweep.png, run.lock,
profile/ and replicas/<i>/, each a run directory of its own; workers/, what the processes printed
that trained its parts (jaxcnn.runs.launch). Whoever trains a replica holds the replica's lock, too.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import filelock

from jaxcnn.core.rendering import Json
from jaxcnn.errors import BusyError, ConfigError, ResourceError
from jaxcnn.runs.records import read_run, read_summary
from jaxcnn.runs.terminal import SIGNALS
from jaxcnn.weights.files import write_atomically

LOCK = ("run.lock", "run.owner")
# what a run that was killed before its run.json was written leaves beside its run.lock
BEFORE_RUN = ("code", ".run.json.tmp", ".run.owner.tmp")
# what a run makes; run.json last, so that what is left of a removal is begun again
MADE = (
    *("checkpoints", "replicas", "tensorboard", "wandb", "profile", "track.json", "metrics.jsonl"),
    *("summary.json", ".run.json.tmp", "run.json", "code"),
)


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


def new_folder(name: str) -> Path:
    """runs/<name>-<time>, made; with a number behind it where that exists, so that runs that start
    in the same second have a folder each. Errors: ResourceError.
    """
    make_folder(Path("runs"))
    base = Path("runs").absolute() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for n in itertools.count(1):
        folder = base if n == 1 else base.with_name(f"{base.name}-{n}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise ResourceError(f"{folder}: cannot be made ({error.strerror})") from error
        return folder
    raise AssertionError("unreachable")


def replica_folder(folder: Path, index: int) -> Path:
    """Where replica `index` of a sweep lies."""
    return folder / "replicas" / str(index)


def sweep_in_need(folder: Path, record: dict[str, Any]) -> Path | None:
    """The sweep that has still to train the replica in `folder`, whose run.json is `record`: its
    replicas go on from a step that all of them have. None of a run by itself, and of one that is
    done.
    """
    index, whole = record.get("replica"), folder.absolute().parent.parent
    if index is None or folder.absolute() != replica_folder(whole, index):
        return None
    summary = read_summary(folder) or {}
    return whole if (whole / "run.json").is_file() and not summary.get("completed") else None


def kept_start(folder: Path, start: Path) -> str:
    """The folder `start`, where relative places of a run's data begin, as its run.json has it:
    relative where the run lies within it, since they then move together.
    """
    return os.path.relpath(start, folder) if folder.is_relative_to(start) else str(start)


def start_of(folder: Path, record: dict[str, Any]) -> Path:
    """The inverse of `kept_start`; the process's folder for a run of before there was one."""
    kept = record.get("started_in")
    return Path.cwd() if kept is None else Path(os.path.normpath(folder.absolute() / kept))


@contextmanager
def locked(folder: Path, *, resume: bool, new: bool = False) -> Generator[None]:
    """Own the run directory: made if it does not exist (`new`: it was made for it); refused if
    another process owns it or if it holds a run that is not to be resumed. A new run that ends in
    an error before it has made anything leaves nothing behind.
    """
    new, begun = new or not folder.exists(), (folder / "run.lock").exists()
    if resume:
        read_run(folder)
    lock = _acquire(folder)
    try:
        mine = {*LOCK, *(BEFORE_RUN if begun else ())}
        if not resume and set(os.listdir(folder)) - mine:
            raise ConfigError(
                f"{folder}: holds files already; go on with `train --resume {folder}` or choose "
                "another --run-dir"
            )
        _sign(folder)
        try:
            yield
        except BaseException:
            if not resume:
                _take_back(folder)
            raise
    finally:
        _leave(folder, lock, remove=not resume, new=new)


@contextmanager
def owned(folders: Iterable[Path], *, wait: float = 0.0) -> Generator[None]:
    """Own the directories of replicas, made if they do not exist; `wait`: so many seconds for a
    process that trains one and is about to end. Errors: BusyError, ResourceError.
    """
    with contextlib.ExitStack() as held:
        for folder in folders:
            held.callback(_acquire(folder, wait=wait).release)
            _sign(folder)
        yield


def _acquire(folder: Path, *, wait: float = 0.0) -> filelock.BaseFileLock:
    """The lock of a run directory, which is made. Errors: BusyError, ResourceError."""
    # held by the system, which lets go of it when the process ends, however it ends
    lock = filelock.FileLock(folder / "run.lock", timeout=wait, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise BusyError(
            f"{folder}: another process trains here ({_owner(folder)}); wait for it, or choose "
            "another --run-dir"
        ) from None
    except OSError as error:
        raise ResourceError(
            f"{folder}: cannot be made, written to or locked ({error.strerror}); choose another "
            "--run-dir"
        ) from error
    return lock


def _sign(folder: Path) -> None:
    """Say in a directory who holds its lock. Errors: ResourceError."""
    text = f"pid {os.getpid()} on {socket.gethostname()}"
    write_atomically(folder / "run.owner", [text.encode()])


def _owner(folder: Path) -> str:
    try:
        return (folder / "run.owner").read_text(errors="replace")[:200]
    except OSError:
        return "it has just begun"


def _leave(folder: Path, lock: filelock.BaseFileLock, *, remove: bool, new: bool) -> None:
    """Let go of the lock; a run that was not begun leaves nothing behind."""
    try:
        remove = remove and set(os.listdir(folder)) <= {*LOCK}
    except OSError:  # somebody removed the folder
        remove = False
    unlinked = False
    if remove:
        with contextlib.suppress(OSError):  # Windows removes no file that is in use
            (folder / "run.owner").unlink(missing_ok=True)
            (folder / "run.lock").unlink()
            unlinked = True
    lock.release()
    with contextlib.suppress(OSError):  # another run has begun here since
        if remove and not unlinked:
            (folder / "run.lock").unlink(missing_ok=True)
        if remove and new:
            folder.rmdir()


def _take_back(folder: Path) -> None:
    """Remove what a run made that has not trained: it has nothing to go on from, and the same
    command shall start it again. What workers printed is kept, and all with it.
    """
    trained = [*folder.rglob("checkpoints/*.safetensors"), *folder.rglob("metrics.jsonl")]
    trained += folder.glob("workers/*.log")
    if any(path.stat().st_size for path in trained):
        return
    for name in MADE:
        path = folder / name
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


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
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)  # nohup: go on after the user logs out
    old = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
