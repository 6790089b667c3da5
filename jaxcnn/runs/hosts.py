"""The processes of a run on several hosts: how they find one another, what each does with the run
directory, and how all end when one is lost, fails or hangs.

Only the first host writes the run: the others have a folder of their own, in which they write what
they would, but for checkpoints, and which is removed. All watch one another through the key-value
store of JAX's coordination service.
"""

import atexit
import contextlib
import json
import math
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax

from jaxcnn.core import hosts
from jaxcnn.errors import ConfigError, JaxcnnError, Preempted, ResourceError
from jaxcnn.runs.code import differences
from jaxcnn.runs.records import read_run
from jaxcnn.runs.rundir import make_folder, start_of, write_json
from jaxcnn.runs.writers import Console

LOST_SECONDS = 20.0  # without a sign of life, and a host counts as lost
# without a step, behind the others, and it counts as stuck: compiling may take some minutes
STUCK_SECONDS = 900.0
LINGER_SECONDS = 10.0  # in which the others hear why the first one ends
# to find and to connect to one another: a queue may start them minutes apart
FOUND_SECONDS = 300.0
MOST_SECONDS = 30 * 86400.0  # that an environment variable may ask for
KEY = "jaxcnn/hosts"


def _asked(name: str, default: float) -> float:
    """Seconds as an environment variable has them. Errors: ConfigError."""
    text = os.environ.get(name, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MOST_SECONDS:  # the clocks of threads and of JAX end somewhere
        raise ConfigError(
            f"{name}={text}: must be a number of seconds above 0, such as {default}, and at most "
            f"{MOST_SECONDS:.0f}, thirty days"
        )
    return seconds


def connect(coordinator: str, processes: int | None, process: int | None) -> None:
    """Join the other hosts before JAX starts. coordinator: HOST:PORT of the first one, the same on
    all; "auto": as SLURM, Kubernetes, Open MPI or a TPU pod say.

    Errors: ConfigError; ResourceError. Where the others do not come, the process ends, with the
    exit code of that: JAX, which waits, would end it without a message of ours.
    """
    auto = coordinator == "auto"
    if auto != (processes is None and process is None):
        raise ConfigError(
            "--coordinator: HOST:PORT of the first process goes with --processes N and --process "
            "I; auto goes alone"
        )
    if not auto:
        _check(coordinator, processes, process)
    # it would take SIGTERM from us, and hear no other signal
    jax.config.update("jax_enable_preemption_service", False)
    wait = _asked("JAXCNN_FOUND_SECONDS", FOUND_SECONDS)
    missing = threading.Timer(wait, _give_up, (coordinator, processes, wait))
    missing.daemon = True
    missing.start()
    try:
        jax.distributed.initialize(
            coordinator_address=None if auto else coordinator,
            num_processes=processes,
            process_id=process,
            initialization_timeout=math.ceil(2 * wait),
        )
    except RuntimeError as error:
        raise ResourceError(
            f"--coordinator {coordinator}: {str(error).splitlines()[0][:300]}; start all processes "
            "anew, in Python before anything else of JAX"
        ) from error
    except Exception as error:  # none of JAX's clusters, or one that says what is no number, …
        raise ConfigError(
            f"--coordinator {coordinator}: this is none of SLURM, Kubernetes, Open MPI and TPU "
            "pods, or one whose variables JAX cannot read "
            f"({type(error).__name__}: {str(error)[:300]}); give HOST:PORT, --processes N and "
            "--process I"
        ) from error
    finally:
        missing.cancel()


def _give_up(coordinator: str, processes: int | None, wait: float) -> None:
    with contextlib.suppress(OSError):
        print(
            f"error: --coordinator {coordinator}: not all of the {processes or ''} processes came "
            f"within {wait:.0f} s; start all of them, with the address of process 0",
            file=sys.stderr,
            flush=True,
        )
    os._exit(ResourceError.exit_code)


def _check(coordinator: str, processes: int | None, process: int | None) -> None:
    host, colon, port = coordinator.rpartition(":")
    if not (colon and host and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise ConfigError(f"--coordinator {coordinator[:80]}: must be HOST:PORT, or auto")
    if processes is None or processes < 1:
        raise ConfigError(f"--processes {processes}: must be 1 or more")
    if process is None or not 0 <= process < processes:
        raise ConfigError(
            f"--process {process}: must be one of 0 to {processes - 1}, another for each process"
        )


def several() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def speaks() -> bool:
    """Whether this is the host that tells the user; of the others only errors are heard."""
    return jax.process_index() == 0


def console_of(console: Console) -> Console:
    """Of a training on this host."""
    return console if not several() or speaks() else Console(quiet=True)


def check(folder: Path | str | None, *, apart: bool) -> None:
    """ConfigError for what several hosts cannot do together. apart: by workers, or one of them."""
    if not several():
        return
    if folder is None:
        raise ConfigError("several hosts: give all of them the same --run-dir")
    if apart:
        raise ConfigError("several hosts train a run together; --on and --part train apart")


def check_same(own: dict[str, Any]) -> None:
    """ConfigError where this host is to do, or has to do it with, other than the first one."""
    own = json.loads(json.dumps(own))
    if changed := differences(hosts.told(own), own, words=("there", "here")):
        raise ConfigError(
            f"host {hosts.index()} is not as the first one: {'; '.join(changed[:5])}; start all "
            "with the same command, versions and data"
        )


@contextlib.contextmanager
def session(folder: Path, *, resume: bool) -> Generator[Path]:
    """Around a training: the hosts are one machine, and watch one another. Gives the run directory,
    or, on all but the first, a folder in its place.

    Errors: ResourceError where another host is lost, has failed or hangs.
    """
    if not several():
        yield folder
        return
    with hosts.together(), _place(folder, resume=resume) as own, Watch(folder) as watch:
        try:
            yield own
        except (JaxcnnError, KeyboardInterrupt, SystemExit) as error:
            if own != folder:  # what is removed is no place to look at
                error.args = tuple(str(arg).replace(str(own), str(folder)) for arg in error.args)
            watch.finish() if isinstance(error, Preempted) else watch.fail(error)
            raise
        except BaseException as error:
            # what a collective operation ends with when another host is gone
            if found := watch.found(wait=LOST_SECONDS + 5):
                raise ResourceError(found) from error
            watch.fail(error)
            raise
        watch.finish()


@contextlib.contextmanager
def _place(folder: Path, *, resume: bool) -> Generator[Path]:
    if hosts.first():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxcnn-host-", ignore_cleanup_errors=True) as made:
        own = Path(made) / "run"
        if resume:
            _copy(folder, own)
        yield own


def _copy(folder: Path, own: Path) -> None:
    """What a run goes on from, but for its states and its history: these the first host tells."""
    for path in [folder, *sorted(folder.glob("replicas/*"))]:
        if not (path / "run.json").is_file():
            continue
        place = own / path.relative_to(folder)
        make_folder(place)
        record = read_run(path)
        write_json(place / "run.json", {**record, "started_in": str(start_of(path, record))})
        if (path / "code").is_dir():
            shutil.copytree(path / "code", place / "code")
        if (path / "summary.json").is_file():
            shutil.copy2(path / "summary.json", place)


def leave(*, code: int | None = None) -> None:
    """Part from the others; with an exit code, when this process ends, without waiting for them,
    who wait for this one.
    """
    if code is None:
        jax.distributed.shutdown()
        return

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)

    atexit.register(end)  # the last one comes first, before JAX's own


def _store() -> Any:
    """What all hosts may write to and read; errors where the first one is gone."""
    from jax._src import distributed  # it has no public name; orbax and flax take it so, too

    return distributed.global_state.client


class Watch:
    """Tells the others of this host, and looks after them, in a thread of its own: it ends the
    process where the main thread waits for a host that will not come.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._stuck = _asked("JAXCNN_STUCK_SECONDS", STUCK_SECONDS)
        self._own: dict[str, Any] = {"name": socket.gethostname(), "at": 0, "beat": 0}
        self._seen: dict[int, tuple[dict[str, Any], float, float]] = {}
        self._stop = threading.Event()
        self._finding = ""
        self._thread = threading.Thread(target=self._run, daemon=True, name="jaxcnn-hosts")

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """Tell the others that this host has ended with an error; the first one, with which JAX
        ends the others, waits until they have heard it.
        """
        text = str(error).splitlines()[0][:300] if str(error) else ""
        own = isinstance(error, JaxcnnError) and text
        self._own["failed"] = text if own else f"{type(error).__name__} {text}".strip()
        self._tell_until_ended(LINGER_SECONDS if hosts.first() else 0.0)

    def finish(self) -> None:
        """Wait until all hosts have ended training."""
        self._own["done"] = True
        self._tell_until_ended(LOST_SECONDS)

    def _tell_until_ended(self, wait: float) -> None:
        """Once at least, and for so many seconds while another host is at work."""
        end = time.monotonic() + wait
        while True:
            with contextlib.suppress(Exception):  # the coordinator may be what is lost
                self._tell()
                if all("done" in each or "failed" in each for each in self._told().values()):
                    return
            if time.monotonic() >= end:
                return
            time.sleep(0.05)

    def found(self, *, wait: float) -> str:
        """What is wrong with another host, or "" if nothing shows within `wait` seconds."""
        end = time.monotonic() + wait
        while not self._finding and time.monotonic() < end:
            time.sleep(0.1)
        self._stop.set()
        return self._finding

    def _tell(self) -> None:
        self._own["beat"] += 1
        self._own["at"] = hosts.progress()
        text = json.dumps(self._own)
        _store().key_value_set(f"{KEY}/{hosts.index()}", text, allow_overwrite=True)

    def _told(self) -> dict[int, dict[str, Any]]:
        found = _store().key_value_dir_get(KEY)
        return {int(key.rpartition("/")[2]): json.loads(text) for key, text in found}

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(1.0):
            try:
                self._tell()
                told, last = self._told(), time.monotonic()
            except Exception:
                if time.monotonic() - last > LOST_SECONDS / 2:
                    self._find("the first host, which coordinates, does not answer")
                continue
            self._look(told)

    def _look(self, told: dict[int, dict[str, Any]]) -> None:
        now, furthest = time.monotonic(), max(each["at"] for each in told.values())
        unheard = {"name": "never heard of", "at": 0, "beat": 0}
        for i in range(hosts.count()):
            each = told.get(i, unheard)
            old, beat, moved = self._seen.get(i, ({}, now, now))
            beat = beat if old.get("beat") == each["beat"] else now
            moved = moved if old.get("at") == each["at"] and each["at"] < furthest else now
            self._seen[i] = (each, beat, moved)
            if i == hosts.index() or "done" in each:
                continue
            who = f"host {i} of {hosts.count()} ({each['name']})"
            if "failed" in each:
                self._find(f"{who} has failed: {each['failed']}")
            elif now - beat > LOST_SECONDS:
                self._find(f"{who} is lost: no sign of it for {LOST_SECONDS:.0f} s")
            elif now - moved > self._stuck:
                self._find(f"{who} hangs: behind the others for {self._stuck:.0f} s")

    def _find(self, text: str) -> None:
        """Say it to the main thread, and end the process where that does not hear."""
        self._finding = f"{text}; what was saved is kept, go on with: train --resume {self._folder}"
        if self._stop.wait(5.0):
            return
        with contextlib.suppress(Exception):
            print(f"error: {self._finding}", file=sys.stderr, flush=True)
            self._own["done"] = True  # nobody needs to wait for this one
            self._tell()
        os._exit(ResourceError.exit_code)
