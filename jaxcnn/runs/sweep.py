"""Points of a sweep: what varies, and which points can be replicas of one program.

A point is a dict {dotted path: value}, e.g. {"seed": 3, "optimizer.learning_rate": 0.1}; "fold":
(k, n) stands for fold k of n of its data. An experiment file may offer `def sweep()` that yields
points. Points that differ only in the seed and in numbers that can live in the training state
(float fields of optimizer and task) become replicas of one program; the rest are runs of their own.
"""

import dataclasses
import itertools
import json
import math
import random
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from jaxcnn.core import dotted
from jaxcnn.core.override import get_at, is_named, override, replace_at
from jaxcnn.core.rendering import render
from jaxcnn.data.algebra import Balanced, Fold
from jaxcnn.errors import ConfigError
from jaxcnn.runs import keeping

if TYPE_CHECKING:
    from jaxcnn.core.experiment import Experiment
    from jaxcnn.data.dataset import Dataset

Point = dict[str, Any]
REPEATED = ("seed", "fold")  # points that differ in these alone are one setting

MOST_POINTS = 1_000_000  # from the command line; a list of them is made before anything runs

_RANGE = re.compile(r"(-?[0-9]{1,18})\.\.(-?[0-9]{1,18})")
_LOG = re.compile(r"log\(([^,]+),([^,]+),([^,]+)\)")


def grid(**axes: Any) -> list[Point]:
    """Every combination: grid(seed=range(3), optimizer__learning_rate=(0.1, 0.2)); `__` stands for
    a dot.
    """
    names = [name.replace("__", ".") for name in axes]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*axes.values())]


def zipped(**axes: Any) -> list[Point]:
    """The i-th values together. Errors: ConfigError if the lengths differ."""
    lengths = {name: len(values) for name, values in axes.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"values to be zipped must be equally many, found {lengths}")
    names = [name.replace("__", ".") for name in axes]
    return [dict(zip(names, values, strict=True)) for values in zip(*axes.values(), strict=True)]


def log_range(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` values from `low` to `high`, both included, at equal ratios."""
    if not (0 < low < high and count >= 2):
        raise ConfigError(f"log({low},{high},{count}): needs 0 < low < high and at least 2 values")
    return tuple(float(f"{low * (high / low) ** (i / (count - 1)):.6g}") for i in range(count))


def sample(points: list[Point], count: int, *, seed: int = 0) -> list[Point]:
    """`count` of the points, drawn without replacement; the same for the same seed."""
    if not 1 <= count <= len(points):
        raise ConfigError(f"cannot draw {count} of {len(points)} points; draw 1 at least")
    return random.Random(seed).sample(points, count)


def folded(points: list[Point], folds: int) -> list[Point]:
    """Each point for each of `folds` folds of the training examples (jaxcnn.data.algebra.Fold)."""
    if folds < 2:
        raise ConfigError(f"folds={folds}: there must be at least 2")
    return [{**point, "fold": (k, folds)} for point in points for k in range(folds)]


def parse(
    experiment: "Experiment", assignments: list[str], *, zip_axes: bool = False
) -> list[Point]:
    """Points from the command line: `seed=0..7 optimizer.learning_rate=0.05,0.1,0.2
    task.label_smoothing=log(0.01,0.2,5)`.

    Errors: ConfigError for unknown paths and values of a wrong type, before anything runs.
    """
    axes: dict[str, tuple[Any, ...]] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not text:
            raise ConfigError(
                f"--sweep {assignment!r}: must be path=values, e.g. seed=0..7 or "
                "optimizer.learning_rate=0.05,0.1"
            )
        if path in axes:
            raise ConfigError(
                f"--sweep {assignment}: {path} is an axis before it; give its values in one list"
            )
        axes[path] = tuple(_read(experiment, path, value) for value in _values(text))
    if zip_axes:
        return zipped(**axes)
    _check_count(" ".join(axes), math.prod(map(len, axes.values())))
    return grid(**axes)


def _read(experiment: "Experiment", path: str, text: str) -> Any:
    """A value of an axis; what is given by its import path stays the text that gives it."""
    value = get_at(override(experiment, path, text), path)
    return text if is_named(value) else value


def _values(text: str) -> list[str]:
    if match := _RANGE.fullmatch(text):
        low, high = int(match[1]), int(match[2])
        _check_count(text, high - low + 1)
        return [str(i) for i in range(low, high + 1)]
    if match := _LOG.fullmatch(text):
        try:
            low, high, count = float(match[1]), float(match[2]), int(match[3])
        except ValueError:
            raise ConfigError(
                f"{text}: log(low,high,count) takes two numbers and a count"
            ) from None
        _check_count(text, count)
        return [str(v) for v in log_range(low, high, count)]
    return _apart(text)


def _check_count(what: str, count: int) -> None:
    if count > MOST_POINTS:
        raise ConfigError(
            f"--sweep {what}: is {count:,} points; a sweep has at most {MOST_POINTS:,}. Give fewer "
            "values"
        )


def _apart(text: str) -> list[str]:
    """The parts of a text between the commas that no bracket encloses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def at(experiment: "Experiment", point: Point) -> "Experiment":
    """The experiment of one point, in which what is given by its import path is imported; wholes
    come before their parts. Errors: ConfigError for an unknown path or a refused value.
    """
    for path in sorted(point):  # by their names, a whole before its parts, "fold" after all data
        value = point[path]
        if path == "fold":
            data = _fold(experiment.data, *value)
            experiment = dataclasses.replace(experiment, data=data)
        elif is_named(get_at(experiment, path)) and isinstance(value, str):
            experiment = override(experiment, path, value)
        else:
            experiment = replace_at(experiment, path, value)
    return experiment


def _fold(data: "Dataset", k: int, n: int) -> "Dataset":
    """Fold k of n; of what is a fold already, of the data that it is a fold of. Classes are
    balanced within the fold: rows that come several times are of one side."""
    if isinstance(data, Balanced):
        return dataclasses.replace(data, data=_fold(data.data, k, n))
    if not isinstance(data, Fold):
        return Fold(data, k, n)
    return data if (data.k, data.n) == (k, n) else dataclasses.replace(data, k=k, n=n)


def is_number_of_state(experiment: "Experiment", path: str, value: object) -> bool:
    """Whether a value can live in the training state: a float of the optimizer or the task."""
    head = path.partition(".")[0]
    old = get_at(experiment, path)
    return (
        head in ("optimizer", "task")
        and path.count(".") == 1
        and all(isinstance(v, float) and math.isfinite(v) for v in (old, value))
    )


def groups(experiment: "Experiment", points: list[Point]) -> list[tuple["Experiment", list[int]]]:
    """[(experiment, indices of points)]: the points of a group differ only in seed and numbers of
    the state: they can share a program.
    """
    found: dict[str, tuple[Experiment, list[int]]] = {}
    for i, point in enumerate(points):
        swapped = at(experiment, {p: v for p, v in point.items() if isinstance(v, str)})
        shared = numbers(swapped, point).keys() | {"seed"}
        fixed = {path: value for path, value in point.items() if path not in shared}
        base = at(experiment, fixed)
        found.setdefault(repr(sorted((k, render(v)) for k, v in fixed.items())), (base, []))[
            1
        ].append(i)
    return list(found.values())


def numbers(experiment: "Experiment", point: Point) -> dict[str, float]:
    """The numbers of a point that go into the state."""
    return {
        path: value
        for path, value in point.items()
        if path not in REPEATED and is_number_of_state(experiment, path, value)
    }


def all_numbers(experiment: "Experiment", points: list[Point]) -> list[dict[str, float]]:
    """For each point of a group, every number by which any of them differs in the state."""
    paths = sorted({path for point in points for path in numbers(experiment, point)})
    return [{p: point.get(p, get_at(experiment, p)) for p in paths} for point in points]


def check_kept(experiment: "Experiment", points: Iterable[Point]) -> None:
    """ConfigError for a point that a sweep's directory, from which it is resumed, cannot give back:
    run.json cannot hold it, or it names code that is not kept.
    """
    for i, point in enumerate(points):
        for path, value in point.items():
            if isinstance(value, str) and is_named(get_at(experiment, path)):
                _check_installed(path, value)
            try:
                same = as_point(json.loads(json.dumps({path: value}))) == {path: value}
            except (TypeError, ValueError):
                same = False
            if not same:
                raise ConfigError(
                    f"point {i} of the sweep: {path} is {value!r}, which run.json cannot hold; a "
                    "point's values are numbers, strings, booleans, None and flat tuples of them. "
                    "Give what varies a field of its own, e.g. partial(function, on=True), and "
                    "vary that"
                )


def check_distinct(experiment: "Experiment", points: Iterable[Point]) -> None:
    """ConfigError for points that are the same experiment: they would count as two of n."""
    seen: dict[str, int] = {}
    for i, point in enumerate(points):
        first = seen.setdefault(json.dumps(render(at(experiment, point)), sort_keys=True), i)
        if first != i:
            raise ConfigError(
                f"points {first} and {i} of the sweep are the same experiment ({point}), whose "
                "result would count twice; give each once, or vary the seed"
            )


def _check_installed(path: str, text: str) -> None:
    """ConfigError for an import path into modules of the user's own."""
    if local := keeping.local_modules(dotted.names_in(text)):
        raise ConfigError(
            f"--sweep {path}={text}: {next(iter(local))} is a module of your own, and a sweep "
            f"names installed ones alone; train each by itself, with {path}={text}, or choose by "
            "a field of an experiment file's own"
        )


def as_point(values: dict[str, Any]) -> Point:
    """A point from JSON: lists are tuples again."""
    return {path: tuple(v) if isinstance(v, list) else v for path, v in values.items()}


def rungs(steps: int, replicas: int, halving: int) -> dict[int, int]:
    """{step: replicas kept from there on}: rounds of successive halving until one replica is left,
    the last round ending at `steps`.
    """
    kept: list[int] = []
    while (kept[-1] if kept else replicas) > 1:
        kept.append(-(-(kept[-1] if kept else replicas) // halving))
    return {
        max(1, round(steps / halving ** (len(kept) - i))): count for i, count in enumerate(kept)
    }
