"""Command lines drawn at random: good and absurd arguments of every verb, on runs, a sweep and a
torn run.
"""

import argparse
import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcnn.commands._main import VERBS, parser_of
from tests.faults.children import Child, Ended, command
from tests.faults.world import Tally, World

LEFT_OUT = ("serve", "bench", "prepare")  # serve for ever, take minutes, fetch
CHANGING = ("train", "checkpoints", "report", "explain", "export", "publish")  # write where asked
DECLARED = (0, 1, 2, 3, 4, 5, 6, 7)
EACH_ROUND = 20
VALUES = (
    *("", "0", "-1", "1", "2", "3", "0.5", "1e-400", "1e400", "nan", "inf", "9" * 5000),
    *("a\udc80b", "é☃", "..", "../..", "~", "/", "/dev/null", "nowhere/x", "n" * 400, "dir"),
    *("run", "sweep", "torn", "run/replicas", "sweep/replicas/0", "digit.png", "photo.jpg"),
    *("text.txt", "empty", "1,2", "1,", "0..3", "5..1", "[", "{}", "None", "True", "--", "-"),
    *("best", "last", "eval", "train", "test", "cpu", "json", "e.py", "digits_lenet5", "lenet5"),
    *("seed=1", "steps=1", "model.width=8", "model.width=0", "batch_size=1000000000", "=", "=1"),
    *("optimizer=optax.sgd", "data.x=1", "image_size=3", "x=y=z", "a=", "onnx", "stablehlo"),
    *("gradcam", "0:5", "0.1,0.2", "1x1", "hf://a/b", "s3://x/y", "http://x"),
)
RUNS = ("run", "run", "run", "sweep", "sweep/replicas/1", "torn")
EXPERIMENTS = ("e.py", "e.py", "digits_lenet5", "lenet5", "run")
OTHERS = ("digit.png", "photo.jpg", "steps=1", "model.width=8", "seed=3")


def lines(world: World, tally: Tally) -> None:
    """Command lines of random arguments: each ends by itself with a declared exit code and at most
    five lines of error; verbs that only read change no file.
    """
    original, place = world.place(), world.place()
    _prepare(original)
    for _ in range(EACH_ROUND):
        verb = world.random.choice([verb for verb in VERBS if verb not in LEFT_OUT])
        arguments = draw(verb, world.random)
        shutil.copytree(original, place)
        ended = Child(_exits(arguments), before=lambda: os.chdir(place)).wait()
        what = " ".join(repr(a) if len(a) < 80 else f"{a[:9]!r}…" for a in arguments)
        tally.tried += 1
        before, after = _content(original), _content(place)
        changed = [p for p, content in before.items() if after.get(p) != content]
        if not _tidy(ended):
            tally.untidy.append(f"{what}: {ended.last_words}")
        elif verb not in CHANGING and changed:
            tally.lost.append(f"{what}: changes {changed[:3]}")
        else:
            tally.held += 1
        tally.count(ended.code)
        shutil.rmtree(place)


def _exits(arguments: list[str]) -> Callable[[], int]:
    """The program's exit code, argparse's own exits, too."""

    def call() -> int:
        try:
            return command(*arguments)()
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else 1

    return call


def _tidy(ended: Ended) -> bool:
    said = ended.err.strip()
    if ended.code not in DECLARED or "Traceback" in said or "Timeout (" in said:
        return False
    return said.startswith("usage:") or (ended.tidy and bool(said)) if ended.code else True


def _prepare(folder: Path) -> None:
    """A run, a sweep, a run without checkpoints, pictures, and files of other kinds."""
    folder.mkdir()
    (folder / "e.py").write_text("from tests.tiny import tiny\n\nexperiment = tiny(steps=6)\n")
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (8, 8)).astype(np.uint8)).save(folder / "digit.png")
    photo = random.integers(0, 255, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(photo).save(folder / "photo.jpg")
    (folder / "text.txt").write_text("hello")
    (folder / "empty").write_text("")
    (folder / "dir").mkdir()
    for more in (("run",), ("sweep", "--sweep", "seed=0,1")):
        line = command("train", "e.py", "--quiet", "--run-dir", *more)
        ended = Child(line, before=lambda: os.chdir(folder)).wait()
        assert ended.code == 0, ended.last_words
    shutil.copytree(folder / "run", folder / "torn")
    shutil.rmtree(folder / "torn" / "checkpoints")


def _content(folder: Path) -> dict[str, str]:
    """{relative path: hash} of the files in a folder, but for those that locks are."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "lock" not in path.name
    }


def draw(verb: str, choose: random.Random) -> list[str]:
    """A verb with some of its arguments: mostly what belongs there, sometimes anything."""
    parser = parser_of([verb])
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    actions = [a for a in verbs.choices[verb]._actions if not isinstance(a, argparse._HelpAction)]
    options = [a for a in actions if a.option_strings]
    fixed, named = [], []
    for action in actions:
        if not action.option_strings and choose.random() < 0.85:
            fixed.append(_positional(action.dest, verb, choose))
    for action in choose.sample(options, min(len(options), choose.choice((0, 1, 1, 2, 2, 3)))):
        named.append(choose.choice(action.option_strings))
        count = 0 if action.nargs == 0 else 1 if action.nargs in (None, "?") else 2
        for _ in range(count):
            good = action.choices and choose.random() < 0.6
            named.append(str(choose.choice(list(action.choices or ())) if good else _any(choose)))
    more = ["steps=2", "--quiet"] if verb == "train" else []
    parts = (fixed, named) if choose.random() < 0.7 else (named, fixed)
    return [verb, *parts[0], *parts[1], *more]


def _positional(name: str, verb: str, choose: random.Random) -> str:
    if choose.random() < 0.1:
        return _any(choose)
    if name in ("run", "runs", "experiment", "what", "model", "target", "folder"):
        return choose.choice(EXPERIMENTS if verb in ("train", "check", "summary") else RUNS)
    return choose.choice(OTHERS)


def _any(choose: random.Random) -> str:
    return choose.choice(VALUES)
