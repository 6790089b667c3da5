"""A sweep by several processes: its points are divided into parts, each part is trained by a
command (`train --resume SWEEP --part K`) that some launcher starts (jaxcnn.runs.launchers), and
commands that end before their part is done are started again.

A part is a group of replicas of one program, or a piece of it: run.json keeps how many replicas
are together at most ("together"), so that a resume, here or by workers, has the same parts.
"""

import dataclasses
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxcnn.errors import ConfigError, DivergedError, Preempted, ResourceError, did_you_mean
from jaxcnn.runs.environment import PACKAGE
from jaxcnn.runs.launchers import KINDS, LOST, POLL, Job, Launcher, Resource, launcher
from jaxcnn.runs.rundir import make_folder, replica_folder

STARTS = 3  # of a part, without a checkpoint between them, after which it is given up
WAIT = 60.0  # seconds for a worker that was asked to stop, or whose place is to be taken

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Launch:
    """Who trains the points of a sweep: `workers` processes at a time.

    on: "local" (this machine), "slurm" or "ray"; "commands": nobody, the commands are printed.
    resources: what each worker needs, see `jaxcnn.runs.launchers.launcher`. options: more options
    of `train` for each worker.
    """

    on: str
    workers: int
    resources: dict[str, Resource] = dataclasses.field(default_factory=dict)
    options: tuple[str, ...] = ()

    def __post_init__(self):
        known = (*KINDS, "commands")
        if self.on not in known:
            hint = did_you_mean(self.on, known)
            raise ConfigError(f"--on {self.on}: must be one of {', '.join(known)}{hint}")
        if self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: must be at least 1")


def together(points: int, workers: int, *, way: str | None, halving: int | None) -> int | None:
    """How many replicas a part has at most, so that each worker has one: a multiple of a chunk
    size that is asked for. None: groups stay whole, since halving compares their replicas.
    """
    if halving:
        return None
    size = -(-points // workers)
    chunk = int(way) if way is not None and way.isdecimal() and int(way) else 1
    return -(-size // chunk) * chunk


def divided(indices: list[int], size: int | None) -> list[list[int]]:
    """Pieces of `size`, of which the last may be smaller; None: one piece."""
    size = size or len(indices)
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def command(folder: Path, part: int, *, way: str | None, options: Sequence[str]) -> list[str]:
    """What trains a part."""
    forced = () if way is None else ("--replicas-by", way)
    words = ("train", "--resume", str(folder), "--part", str(part), *forced, *options)
    script = PACKAGE.parent / "launch.py"  # of a checkout, which need not be installed
    program = [str(script)] if script.is_file() else ["-m", "jaxcnn.commands._main"]
    return [sys.executable, *program, *words]


@dataclasses.dataclass(eq=False)
class _Part:
    """A part that is not done yet."""

    number: int
    indices: list[int]
    folder: Path
    job: Job | None = None
    code: int | None = None  # how the job ended
    place: int = 0  # among those that run at a time
    begun: int = 0  # bytes of the log before the last start
    starts: int = 0  # since a checkpoint was made
    saved: int = -1  # the step of the newest checkpoint at the last start

    def name(self) -> str:
        first, last = self.indices[0], self.indices[-1]
        those = ", ".join(map(str, self.indices))
        if len(self.indices) > 2 and self.indices == list(range(first, last + 1)):
            those = f"{first} to {last}"
        return f"part {self.number} (replica{'s' if len(self.indices) > 1 else ''} {those})"

    def ended(self) -> bool:
        if self.job and self.code is None:
            self.code = self.job.ended()
        return self.code is not None

    def log(self) -> Path:
        return self.folder / "workers" / f"part{self.number}.log"

    def newest(self) -> int:
        """The step of the newest checkpoint; -1: there is none."""
        files = (replica_folder(self.folder, i) / "checkpoints" for i in self.indices)
        steps = [path.stem.rpartition("-")[2] for f in files for path in f.glob("last-*")]
        return max((int(step) for step in steps if step.isdecimal()), default=-1)

    def lines(self) -> list[str]:
        """What the last start printed."""
        try:
            with self.log().open("rb") as file:
                file.seek(self.begun)
                return file.read().decode(errors="replace").splitlines()
        except OSError:
            return []


def train_parts(
    folder: Path,
    parts: dict[int, list[int]],
    launch: Launch,
    *,
    way: str | None,
    stop: Callable[[], bool],
    say: Say,
) -> None:
    """Train parts {number: indices of replicas} by workers. A part that fails is said, and the
    others go on.

    Errors: Preempted where stop() says so, once the workers have saved and ended; ResourceError for
    parts that were given up, DivergedError if every replica of every part diverges, both at the
    end; those of `launcher`.
    """
    make_folder(folder / "workers")
    start = launcher(launch.on, folder / "workers" / launch.on, launch.resources)
    waiting = deque(_Part(number, indices, folder) for number, indices in parts.items())
    running: list[_Part] = []
    count = sum(map(len, parts.values()))
    text = f"{count} replicas in {len(parts)} parts, {launch.workers} at a time by {launch.on}"
    say(f"{text}; what they print: {folder / 'workers'}")
    if len(parts) < min(launch.workers, count):
        say(f"warning: there are only {len(parts)} parts for {launch.workers} workers")
    failed: dict[str, list[str]] = {"diverged": [], "given up": []}
    try:
        while (waiting or running) and not stop():
            while waiting and len(running) < launch.workers:
                part = waiting.popleft()
                part.place = min(set(range(launch.workers)) - {p.place for p in running})
                _begin(part, start, command(folder, part.number, way=way, options=launch.options))
                running.append(part)
                say(f"{part.name()}: started")
            for part in [part for part in running if part.ended()]:
                running.remove(part)
                state = _end(part, say)
                if state == "again":
                    waiting.append(part)
                elif state != "done":
                    failed[state].append(part.name())
            time.sleep(POLL)
    finally:
        _stop(running, say)
    if waiting or running:
        raise Preempted("stopped by a signal")
    if failed["given up"]:
        raise ResourceError(f"given up: {'; '.join(failed['given up'])}")
    shutil.rmtree(folder / "workers" / launch.on, ignore_errors=True)
    if len(failed["diverged"]) == len(parts) > 0:
        raise DivergedError(f"all {count} replicas diverged")


def _begin(part: _Part, start: Launcher, words: list[str]) -> None:
    saved = part.newest()
    part.starts = 1 if saved > part.saved else part.starts + 1
    part.saved = saved
    part.begun = part.log().stat().st_size if part.log().exists() else 0
    part.job, part.code = start(words, part.log(), part.place), None


def _end(part: _Part, say: Say) -> str:
    """What becomes of a part whose worker has ended: "done", "again", "diverged", "given up"."""
    code = LOST if part.code is None else part.code
    lines = [line.strip() for line in part.lines() if line.strip()]
    for line in lines:
        if line.startswith("warning:"):
            say(f"warning: {part.name()}: {line.removeprefix('warning: ')}")
    if code == 0:
        say(f"{part.name()}: done")
        return "done"
    last = f": {lines[-1].removeprefix('error: ')}" if lines else ""
    if code == DivergedError.exit_code:
        say(f"warning: {part.name()}{last}")
        return "diverged"
    text, newest = f"{part.name()} ended with {_named(code)}{last}", part.newest()
    if newest > part.saved or part.starts < STARTS:
        at = f" from step {newest}" if newest >= 0 else ""
        say(f"warning: {text}; started again{at}")
        return "again"
    say(f"warning: {text}; given up after {STARTS} starts in which nothing was saved")
    return "given up"


def _named(code: int) -> str:
    """An exit code in words."""
    if code == LOST:
        return "its job, which was lost"
    if code < 0:
        names = {s.value: s.name for s in signal.Signals}
        return names.get(-code, f"signal {-code}")
    return f"exit code {code}"


def _stop(running: list[_Part], say: Say) -> None:
    """Have workers save and end, and wait for them."""
    if not running:
        return
    say(f"stopping {len(running)} workers")
    for part in running:
        if part.job:
            part.job.stop()
    end = time.monotonic() + WAIT
    while left := [part for part in running if not part.ended()]:
        if time.monotonic() > end:
            names = "; ".join(part.name() for part in left)
            say(f"warning: asked to stop {WAIT:.0f} s ago, and not ended yet: {names}")
            return
        time.sleep(POLL)
