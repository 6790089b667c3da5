"""From an experiment to a run directory: solo runs, sweeps, resumed runs, runs that go on from
another.
"""

import json
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.rendering import render
from jaxcnn.data.algebra import Fold
from jaxcnn.data.dataset import Source
from jaxcnn.data.recorded import check_unchanged, files_of
from jaxcnn.data.recorded import record as record_data
from jaxcnn.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    Preempted,
)
from jaxcnn.ops.convolution import current_formulation
from jaxcnn.runs import code, environment, keeping, published, sweep
from jaxcnn.runs.carry import carried_record
from jaxcnn.runs.check import abstract_state
from jaxcnn.runs.evaluation import open_checked
from jaxcnn.runs.events import Observer
from jaxcnn.runs.feed import steps_per_dispatch
from jaxcnn.runs.members import Plan, train_group
from jaxcnn.runs.open import Run
from jaxcnn.runs.profiling import Profile
from jaxcnn.runs.records import FORMAT, read_run
from jaxcnn.runs.replica import pinned_weights
from jaxcnn.runs.rundir import (
    kept_start,
    locked,
    new_folder,
    replica_folder,
    signals,
    start_of,
    write_json,
)
from jaxcnn.runs.sweep import Point
from jaxcnn.runs.table import summarize_sweep
from jaxcnn.runs.worth import warning_of
from jaxcnn.runs.writers import Console


def train(
    experiment: Experiment | str | Path | None = None,
    folder: Path | str | None = None,
    *,
    points: Iterable[Point] | None = None,
    observe: Sequence[Observer] = (),
    resume: bool = False,
    start: "Run | Path | str | None" = None,
    name: str | None = None,
    overrides: Sequence[str] = (),
    origin: code.Origin | None = None,
    way: str | None = None,
    halving: int | None = None,
    folds: int | None = None,
    profile: tuple[int, int] | None = None,
    console: Console | None = None,
    quiet: bool = False,
) -> Run:
    """Train an experiment, and return its run.

    Args:
        experiment: an Experiment, or the path or name of an experiment file, to which `overrides`
            such as "epochs=5" are applied.
        folder: the run directory (default: runs/<name>-<time>); new, unless `resume`.
        points: of a sweep (jaxcnn.runs.sweep): one replica for each, each in replicas/<i>. Those
            that differ in the seed and in numbers of the state alone share a program.
        observe: functions of an event, see jaxcnn.runs.events.
        resume: go on with the run in `folder`, to the bits of one that was never stopped; all else
            may be left out, and is compared with the run's own where it is given.
        start: a run to go on from: its state and history are carried over, and what the experiment
            changes is said. The new run is not bit-exact with anything.
        origin: where the experiment came from, if it cannot be seen (jaxcnn.runs.code).
        way: how replicas run, "vmap", "loop", "unrolled", "devices" or a chunk size; by default the
            fastest in a short trial. It may change over a resume, which then is not bit-exact.
        halving: successive halving: one replica in `halving` goes on at each rung, at 1/halving of
            the steps for each power (K. Jamieson and A. Talwalkar, "Non-stochastic best arm
            identification and hyperparameter optimization", 2016, figure 1).
        folds: cross-validation: each point is trained once for each of so many folds of the
            training examples (jaxcnn.data.algebra.Fold), evaluated on it alone.
        profile: (first, last) of the steps to write a trace of (jaxcnn.runs.profiling).

    A signal or a first Ctrl-C saves, and raises Preempted; a second Ctrl-C is KeyboardInterrupt. In
    a thread other than the main one signals cannot be heard.
    Errors: the classes of jaxcnn.errors; DivergedError only if every replica diverges.
    """
    environment.prepare_process()
    console = console or Console(quiet=quiet)
    if isinstance(experiment, (str, Path)):
        path = code.find(experiment)
        module = code.module_of(path)
        experiment = code.experiment_in(module, path, overrides=overrides)
        origin = code.Origin(path, module.__name__, tuple(overrides))
    elif overrides:
        raise ConfigError("overrides: belong to an experiment file; dataclasses.replace does here")
    if folds is not None:
        if start is not None or halving:
            raise ConfigError(
                "folds: go with neither start (its state has seen the examples of every fold) nor "
                "halving (folds are not to be dropped)"
            )
        points = sweep.folded([{}] if points is None else list(points), folds)
    if points is None and not resume and (way or halving):
        raise ConfigError("way and halving say how the points of a sweep are trained; give points")
    if resume:
        if folder is None or start is not None:
            raise ConfigError("train(resume=True): give the run's folder, and no start")
        given = {"points": points if points is None else list(points), "halving": halving}
        given = {key: value for key, value in {**given, "experiment": name}.items() if value}
        return go_on(
            experiment,
            Path(folder),
            given,
            way=way,
            observe=tuple(observe),
            profile=profile,
            console=console,
        )
    if experiment is None:
        raise ConfigError("train: give an experiment, or a folder with resume=True")
    points = None if points is None else tuple(dict(point) for point in points)
    sweep.check_kept(experiment, points or ())
    origin = origin or code.origin_of(experiment)
    name = name or (origin.path.stem if origin else "experiment")
    start_run = None if start is None else _startable(Run.of(start))
    Profile.of(profile, Path())  # refused before there is a folder
    new, folder = folder is None, Path(folder).absolute() if folder else new_folder(name)
    console.line(f"run: {folder}")
    plan = Plan(
        experiment,
        name,
        folder,
        console,
        points=points,
        way=way,
        halving=halving,
        observe=tuple(observe),
        origin=origin,
        profile=Profile.of(profile, folder),
        start=start_run,
    )
    with locked(folder, resume=False, new=new):
        return _train(plan)


def _startable(run: Run) -> Run:
    """Errors: ConfigError for a sweep."""
    if run.is_sweep:
        raise ConfigError(
            f"{run.folder}: is a sweep; go on from one of its replicas, such as "
            f"{replica_folder(run.folder, 0)}"
        )
    published.refuse(run.folder, run.record)
    return run


def go_on(
    experiment: Experiment | None,
    folder: Path,
    given: dict[str, Any],
    *,
    console: Console,
    way: str | None = None,
    observe: tuple[Observer, ...] = (),
    profile: tuple[int, int] | None = None,
    until: int | None = None,
) -> Run:
    """Go on with a run; what is `given` of run.json's entries is compared with it. `until`: a step
    at which it is stopped as by a signal.

    Errors: those of `train`.
    """
    folder = folder.absolute()
    published.refuse(folder, read_run(folder))
    with locked(folder, resume=True):
        record, given_experiment = read_run(folder), experiment is not None
        if experiment is None:
            experiment = code.reopen(folder, record)
        elif changed := code.differences(record["rendered"], render(experiment)):
            raise ConfigError(
                f"{folder}: is a run of another experiment: {'; '.join(changed[:5])}; resume it as "
                "it was (leave the experiment out), or go on from it with other settings: "
                "train --from, train(experiment, start=folder)"
            )
        kept = {key: record.get(key) for key in given}
        if changed := code.differences(kept, json.loads(json.dumps(given))):
            raise ConfigError(f"{folder}: was started otherwise: {'; '.join(changed[:5])}")
        points = record.get("points")
        _check_points(folder, experiment, points or [])
        if points is None and way is not None:
            raise ConfigError(f"way={way!r}: {folder} is a single run, which runs in one way")
        plan = Plan(
            experiment,
            record["experiment"],
            folder,
            console,
            resume=True,
            given=given_experiment,
            until=until,
            started_in=None if given_experiment else start_of(folder, record),
            points=None if points is None else tuple(map(sweep.as_point, points)),
            way=way,
            halving=record.get("halving"),
            observe=observe,
            profile=Profile.of(profile, folder),
        )
        return _train(plan)


def _check_points(folder: Path, experiment: Experiment, points: list[Point]) -> None:
    """CheckpointError for points of a run.json that do not fit its experiment."""
    for i, point in enumerate(points):
        try:
            sweep.at(experiment, sweep.as_point(point))
        except (ConfigError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / 'run.json'}: points.{i}: {error}") from error


def _train(plan: Plan) -> Run:
    """Train in a locked folder: one group of replicas after another."""
    e, console, groups = plan.experiment, plan.console, plan.groups()
    if plan.resume:
        old = read_run(plan.folder)["data"]
        for difference in check_unchanged(old, e.data, where=str(plan.folder)):
            console.line(f"warning: not bit-exact from here on: {difference}")
    else:
        for base, _ in groups:
            abstract_state(base)
    first = groups[0][0]  # a point may name other data than the experiment
    sources = open_checked(first, "train"), open_checked(first, "eval")
    if plan.profile is not None and not plan.resume:
        at = 0 if plan.start is None else plan.start.step
        plan.profile.check(first.total_steps(len(sources[0])), at=at)
    _describe(plan, sources[0])
    _say_folds(plan)
    lost = 0
    try:
        with signals() as stop:
            for number, (base, indices) in enumerate(groups):
                if len(groups) > 1:
                    text = f"group {number + 1} of {len(groups)}: {len(indices)} replica"
                    text += "s" if len(indices) > 1 else ""
                    console.line(text)
                if number > 0:
                    sources = open_checked(base, "train"), open_checked(base, "eval")
                try:
                    train_group(plan, base, indices, sources, stop)
                except DivergedError as error:
                    lost += 1
                    if lost == len(groups):
                        raise
                    console.line(f"warning: {error}")
    except Preempted as error:
        text = f"{error}, state saved; go on with: train --resume {plan.folder}"
        raise Preempted(text) from None
    except DataError as error:
        if not any(plan.folder.rglob("checkpoints/last-*")):
            raise  # nothing was saved yet, so there is nothing to go on from
        text = f"{error}; repair the data, then go on with: train --resume {plan.folder}"
        raise DataError(text) from error
    finally:
        console.stop()
    if plan.points is not None:
        together = [indices for _, indices in groups]
        points = list(plan.points)
        summarize_sweep(plan.folder, plan.name, e.task, points, together, say=console.line)
    run = Run(plan.folder, e if plan.given or not plan.resume else None)
    if warning := warning_of(run, e):
        console.line(f"warning: {warning}")
    return run


def _say_folds(plan: Plan) -> None:
    """Which examples the folds are made of, and which take no part."""
    if not any("fold" in point for point in plan.points or ()):
        return
    data = plan.experiment.data
    data = data.data if isinstance(data, Fold) else data
    text = f"folds of the {data.size('train'):,} training examples"
    if left := data.size("eval"):
        role = "take no part" if data.size("test") else "are the test"
        text += f"; the {left:,} that the data hold out as 'eval' {role}"
    plan.console.line(text)


def _start(plan: Plan) -> Path:
    """Where relative places of its data begin: here, or, of an experiment that another run kept,
    where that was started.
    """
    if plan.start is None or plan.origin is None:
        return Path.cwd()
    if not plan.origin.path.is_relative_to(plan.start.folder):
        return Path.cwd()
    return start_of(plan.start.folder, plan.start.record)


def _describe(plan: Plan, source: Source) -> None:
    """Write run.json and code/ of a new run, or compare with those of an old one."""
    seen = {**environment.describe(), "convolution": current_formulation()}
    if plan.resume:
        old = read_run(plan.folder)
        for difference in [
            *environment.differences(old["environment"], seen),
            *keeping.changed(plan.folder, old, given=plan.given),
        ]:
            plan.console.line(f"warning: not bit-exact from here on: {difference}")
        return
    e = plan.experiment
    project = plan.origin.path.parent if plan.origin else Path.cwd()
    content: dict[str, Any] = {
        "format": FORMAT,
        "id": secrets.token_hex(16),
        "experiment": plan.name,
        "started_in": kept_start(plan.folder, _start(plan)),
        "code": keeping.keep(plan.folder / "code", e, plan.origin),
        "project": environment.commit(project),
        "steps_per_dispatch": steps_per_dispatch(e, source),
        "data": {**record_data(e.data).to_json(), "files": files_of(e.data)},
    }
    if plan.points is not None:
        content |= {"points": list(plan.points), "halving": plan.halving}
    if plan.start is not None:
        content["started_from"] = carried_record(plan.start)
    if pins := pinned_weights(sweep.at(e, point) for point in plan.points or ({},)):
        content["weights"] = pins
    content |= {"rendered": render(e), "environment": seen}
    if seen["modified"] and (text := environment.diff()):
        (plan.folder / "code" / "jaxcnn.diff").write_text(text, encoding="utf-8")
    write_json(plan.folder / "run.json", content)
