"""What the faults share: a private place, unbroken runs to compare with, and what is counted."""

import dataclasses
import itertools
import json
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.faults import recipes
from tests.faults.children import Child, Ended, command, counting

UNEQUAL = ("seconds", "images_per_second")  # what depends on the clock


@dataclasses.dataclass
class Tally:
    """What came of one class of faults. tried: faults that were put in; held: those after which all
    was as promised. The others, each with a sentence: lost (work, or a run that cannot go on),
    different (other bits, not said), untidy (an undeclared exit code, a traceback, a long message).
    latency: the longest time in seconds from a fault to the end of the process.
    """

    tried: int = 0
    held: int = 0
    runs: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    different: list[str] = dataclasses.field(default_factory=list)
    untidy: list[str] = dataclasses.field(default_factory=list)
    latency: float = 0.0
    seconds: float = 0.0
    codes: dict[str, int] = dataclasses.field(default_factory=dict)  # of the processes hit

    def count(self, code: int | str) -> None:
        """Of an exit code (or a reason for not trying) once more."""
        self.codes[str(code)] = self.codes.get(str(code), 0) + 1

    def ended(self, child: Ended, allowed: tuple[int, ...], what: str) -> bool:
        """Count an exit; whether it was as declared."""
        self.count(child.code)
        if child.code in allowed and child.tidy:
            return True
        self.untidy.append(f"{what}: {child.last_words}")
        return False


@dataclasses.dataclass(frozen=True)
class Golden:
    """An unbroken run. seconds: of its process; operations: on files in its folder."""

    folder: Path
    seconds: float
    operations: int
    results: dict[str, Any]


class World:
    """A folder for everything, the random numbers, the recipes that are trained. `disk`: a small
    file system of its own, or None where mounting is not allowed.
    """

    def __init__(self, folder: Path, seed: int, names: Sequence[str] = recipes.NAMES):
        self.folder, self.random, self.names = folder, random.Random(seed), tuple(names)
        self._goldens: dict[str, Golden] = {}
        self._arguments: dict[str, list[str]] = {}
        self._left: dict[str, list[int]] = {}
        self._places = itertools.count()
        self.disk = self._mount(folder / "disk")

    def place(self) -> Path:
        """A new path, for a run."""
        return self.folder / f"run{next(self._places)}"

    def any(self, among: Sequence[str] = recipes.NAMES) -> str:
        """A recipe, of those `among` that are trained here; the first ones more often, which cost
        less.
        """
        names = [name for name in among if name in self.names] or ["plain"]
        return names[int(len(names) * self.random.random() ** 1.5)]

    def every(self, what: str, count: int) -> int:
        """A number from 1 to `count`: each once, in random order, before any comes again."""
        left = self._left.setdefault(what, [])
        if not left:
            left += self.random.sample(range(1, count + 1), count)
        return left.pop()

    def arguments(self, name: str) -> list[str]:
        if name not in self._arguments:
            self._arguments[name] = recipes.write(name, self.folder)
        return self._arguments[name]

    def golden(self, name: str) -> Golden:
        """The unbroken run of a recipe: its second, since the first compiles."""
        if name not in self._goldens:
            for attempt in range(2):
                folder = self.folder / f"golden{len(self._goldens)}.{attempt}"
                before, after = counting(folder, self.folder / "operations")
                train = command("train", *self.arguments(name), "--run-dir", folder)

                def call(train=train, after=after) -> int:
                    code = train()
                    after()
                    return code

                ended = Child(call, before=before).wait()
                assert ended.code == 0, f"{name}, unbroken: {ended.last_words}"
            count = int((self.folder / "operations").read_text())
            self._goldens[name] = Golden(folder, ended.seconds, count, results(folder))
        return self._goldens[name]

    def go_on(self, name: str, folder: Path) -> Callable[[], int]:
        """What a user does next: the same command again, or --resume once there is a run."""
        if (folder / "run.json").exists():
            return command("train", "--resume", folder, "--quiet")
        return command("train", *self.arguments(name), "--run-dir", folder)

    def finish(self, name: str, folder: Path, tally: Tally, what: str) -> bool:
        """Go on to the end, undisturbed, and compare with the unbroken run; whether all is equal.
        The folder is removed if it is.
        """
        tally.runs += 1
        ended = Child(self.go_on(name, folder)).wait()
        if ended.code != 0:
            tally.lost.append(f"{what}: cannot go on in {folder}: {ended.last_words}")
            return False
        return self.compare(name, folder, tally, what)

    def compare(self, name: str, folder: Path, tally: Tally, what: str) -> bool:
        """Whether a finished run is the unbroken one in every bit."""
        wanted = self.golden(name).results
        try:
            found = results(folder)
        except (OSError, ValueError) as error:
            tally.lost.append(f"{what}: {folder} is no finished run: {error}")
            return False
        problems = differences(wanted, found, exact=recipes.each_step_recorded(name))
        problems += leftovers(folder)
        if problems:
            tally.different.append(f"{what}: {folder}: {'; '.join(problems[:4])}")
            return False
        shutil.rmtree(folder)
        return True

    def _mount(self, folder: Path) -> Path | None:
        folder.mkdir()
        line = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
        return folder if _quietly(line) else None

    def remount(self, options: str) -> None:
        assert _quietly(["mount", "-o", f"remount,{options}", str(self.disk)])

    def close(self) -> None:
        if self.disk:
            _quietly(["umount", "-l", str(self.disk)])
        shutil.rmtree(self.folder, ignore_errors=True)


def _quietly(line: list[str]) -> bool:
    try:
        return subprocess.run(line, capture_output=True).returncode == 0
    except OSError:
        return False


def runs_in(folder: Path) -> list[Path]:
    """The replicas of a sweep, or the run itself."""
    return sorted(folder.glob("replicas/*")) or [folder]


def results(folder: Path) -> dict[str, Any]:
    """{name of a run in it: its summary and history} without what depends on the clock. Raises for
    a line of the history that is no JSON.
    """
    found = {}
    for run in runs_in(folder):
        lines = (run / "metrics.jsonl").read_text().splitlines()
        summary = json.loads((run / "summary.json").read_text())
        found[str(run.relative_to(folder))] = {
            "summary": _timeless(summary),
            "history": [_timeless(json.loads(line)) for line in lines],
        }
    return found


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in UNEQUAL}


def differences(wanted: dict[str, Any], found: dict[str, Any], *, exact: bool) -> list[str]:
    """What differs. Not `exact`: a save between two records of training adds one, so that the
    evaluations must be equal, and the steps of training increase up to the same last one.
    """
    problems = []
    if wanted.keys() != found.keys():
        problems.append(f"the runs {sorted(found)} instead of {sorted(wanted)}")
    for name in wanted.keys() & found.keys():
        ours, theirs = found[name], wanted[name]
        problems += [
            f"{name}: {key} is {ours['summary'].get(key)!r} instead of {value!r}"
            for key, value in theirs["summary"].items()
            if ours["summary"].get(key) != value
        ]
        history, other = ours["history"], theirs["history"]
        if not exact:
            steps = [r["step"] for r in history if r["kind"] == "train"]
            if sorted(set(steps)) != steps or not {r["step"] for r in other} <= set(steps):
                problems.append(f"{name}: the training records are of the steps {steps}")
            history, other = ([r for r in x if r["kind"] != "train"] for x in (history, other))
        if history != other:
            places = [(r["kind"], r["step"]) for r in history]
            problems.append(f"{name}: the history is {places}, or its numbers differ")
    return problems


def leftovers(folder: Path) -> list[str]:
    """What should not be in the folder of a finished run."""
    problems = [f"{path} is left" for path in folder.rglob(".*.tmp")]
    problems += [f"{path} is left" for path in folder.rglob("*.damaged")]
    for run in runs_in(folder):
        for kind, most in (("last", 2), ("best", 3)):
            if len(found := list(run.glob(f"checkpoints/{kind}-*"))) > most:
                problems.append(f"{len(found)} {kind!r} checkpoints are left")
    return problems
