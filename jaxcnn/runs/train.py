"""From an experiment to a run directory: solo runs, sweeps, resumed runs, runs that go on from
another.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxcnn.core import memory
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.dataset import Source
from jaxcnn.data.recorded import Recorded, check_unchanged
from jaxcnn.errors import ConfigError, DataError, DivergedError, Preempted, ResourceError
from jaxcnn.runs import code, environment, hosts, published, sweep
from jaxcnn.runs.beginning import asked, describe, kept_plan, say_folds, surroundings
from jaxcnn.runs.check import abstract_state, check_divides
from jaxcnn.runs.evaluation import open_checked
from jaxcnn.runs.events import Observer
from jaxcnn.runs.launch import WAIT, Launch, command, together, train_parts
from jaxcnn.runs.launchers import orphaned
from jaxcnn.runs.members import Plan, is_done, train_group
from jaxcnn.runs.open import Run
from jaxcnn.runs.profiling import Profile
from jaxcnn.runs.records import read_run
from jaxcnn.runs.rundir import locked, new_folder, owned, replica_folder, signals
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
    way: str | int | None = None,
    halving: int | None = None,
    folds: int | None = None,
    profile: tuple[int, int] | None = None,
    launch: Launch | None = None,
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
        launch: have the points of a sweep trained by processes of their own, here or on a cluster
            (jaxcnn.runs.launch), to the same folder and table. What they need must be in files:
            the experiment and its data.

    A signal or a first Ctrl-C saves, and raises Preempted; a second Ctrl-C is KeyboardInterrupt. In
    a thread other than the main one signals cannot be heard.
    Errors: the classes of jaxcnn.errors; DivergedError only if every replica diverges.
    """
    environment.prepare_process()
    console = hosts.console_of(console or Console(quiet=quiet))
    way = None if way is None else str(way)
    experiment, origin = _read(experiment, overrides, origin)
    if folds is not None:
        if start is not None or halving:
            raise ConfigError(
                "folds: go with neither start (its state has seen the examples of every fold) nor "
                "halving (folds are not to be dropped)"
            )
        points = sweep.folded([{}] if points is None else list(points), folds)
    if points is None and not resume and (way or halving):
        raise ConfigError("way and halving say how the points of a sweep are trained; give points")
    hosts.check(folder, apart=launch is not None)
    if launch and (observe or profile or start is not None):
        raise ConfigError(
            "launch: workers take neither functions that observe, nor profile, nor start"
        )
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
            launch=launch,
            console=console,
        )
    if experiment is None:
        raise ConfigError("train: give an experiment, or a folder with resume=True")
    points = None if points is None else tuple(dict(point) for point in points)
    sweep.check_kept(experiment, points or ())
    sweep.check_distinct(experiment, points or ())
    if launch and points is None:
        raise ConfigError("launch: divides the points of a sweep; give points")
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
        launch=launch,
        together=together(len(points), launch.workers, way=way, halving=halving)
        if launch and points
        else None,
    )
    with hosts.session(folder, resume=False) as own, locked(own, resume=False, new=new):
        run = _train(dataclasses.replace(plan, folder=own))
    return run if own == folder else Run(folder, experiment)


def _read(
    experiment: Experiment | str | Path | None, overrides: Sequence[str], origin: code.Origin | None
) -> tuple[Experiment | None, code.Origin | None]:
    """The experiment of a file, with its origin; another one as it is. Errors: ConfigError."""
    if isinstance(experiment, (str, Path)):
        path = code.find(experiment)
        module = code.module_of(path)
        origin = code.Origin(path, module.__name__, tuple(overrides))
        return code.experiment_in(module, path, overrides=overrides), origin
    if overrides:
        raise ConfigError("overrides: belong to an experiment file; dataclasses.replace does here")
    return experiment, origin


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
    launch: Launch | None = None,
) -> Run:
    """Go on with a run; what is `given` of run.json's entries is compared with it. `until`: a step
    at which it is stopped as by a signal.

    Errors: those of `train`.
    """
    folder = folder.absolute()
    published.refuse(folder, read_run(folder))
    with hosts.session(folder, resume=True) as own, locked(own, resume=True):
        plan = kept_plan(experiment, own, given, console=console)
        if plan.points is None and (way is not None or launch):
            what = f"way={way!r}" if launch is None else "launch"
            raise ConfigError(f"{what}: {folder} is a single run, which runs in one way")
        more = {"way": way, "observe": observe, "until": until, "launch": launch}
        run = _train(dataclasses.replace(plan, profile=Profile.of(profile, own), **more))
    return run if own == folder else Run(folder, experiment)


def train_part(
    folder: Path,
    part: int,
    *,
    console: Console,
    way: str | None = None,
    observe: tuple[Observer, ...] = (),
) -> None:
    """Train one part of a sweep (jaxcnn.runs.launch), or go on with it. Others may train other
    parts at the same time; the sweep's table is made by who goes on with the sweep.

    Errors: those of `train`.
    """
    hosts.check(folder, apart=True)
    folder = folder.absolute()
    plan = kept_plan(None, folder, {}, console=console)
    parts = len(plan.groups())
    if plan.points is None or not 0 <= part < parts:
        what = "is a single run" if plan.points is None else f"has the parts 0 to {parts - 1}"
        raise ConfigError(f"--part {part}: {folder} {what}")
    _train(dataclasses.replace(plan, part=part, way=way, observe=observe))


def commands_of(folder: Path, launch: Launch, *, way: str | None = None) -> list[list[str]]:
    """What trains each part of a sweep in `folder`, and last, when all have ended, makes its
    table.
    """
    parts = len(kept_plan(None, folder, {}, console=Console(quiet=True)).groups())
    each = [command(folder, i, way=way, options=launch.options) for i in range(parts)]
    return [*each, [*each[0][: each[0].index("--part")]]]


def _train(plan: Plan) -> Run:
    """Train in a locked folder: one group of replicas after another, or by workers."""
    orphaned()  # says what is wrong with its variable before anything is written
    memory.check(memory.STARTING, "training", "free memory (batch_size does not change this)")
    plan = dataclasses.replace(plan, environment=surroundings())  # starts JAX
    e, console, groups = plan.experiment, plan.console, plan.groups()
    # all before the first trains; workers have other devices, and a resumed sweep keeps its way
    if plan.solo or not (plan.resume or plan.launch or plan.way == "devices"):
        for base, _ in groups:
            check_divides(base)
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
    describe(plan, sources[0])
    if hosts.several():
        hosts.check_same(asked(plan))
    say_folds(plan)
    if plan.launch:
        _check_workers(plan)
        if plan.launch.on == "commands":
            return Run(plan.folder, e)
    try:
        with signals() as stop:
            if plan.launch:
                _train_by_workers(plan, stop)
            else:
                _train_groups(plan, groups, sources, lambda: stop() or orphaned())
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
    if plan.points is not None and plan.part is None:
        _summarize(plan, completed=True)
    run = Run(plan.folder, e if plan.given or not plan.resume else None)
    if plan.part is None and (warning := warning_of(run, e)):
        console.line(f"warning: {warning}")
    return run


def _train_groups(
    plan: Plan,
    groups: list[tuple[Experiment, list[int]]],
    sources: tuple[Source, Source],
    stop: Callable[[], bool],
) -> None:
    """One after another; `sources` are those of the first. A group that diverges does not stop the
    others. Errors: DivergedError if all do.
    """
    lost = 0
    for number, (base, indices) in enumerate(groups):
        if len(groups) > 1:
            text = f"group {number + 1} of {len(groups)}: {len(indices)} replica"
            text += "s" if len(indices) > 1 else ""
            plan.console.line(text)
        if number > 0:
            sources = open_checked(base, "train"), open_checked(base, "eval")
        own = [] if plan.solo else [replica_folder(plan.folder, i) for i in indices]
        try:
            with owned(own, wait=WAIT if plan.part is not None else 0.0):
                train_group(plan, base, indices, sources, stop)
        except DivergedError as error:
            lost += 1
            if lost == len(groups):
                raise
            plan.console.line(f"warning: {error}")


def _check_workers(plan: Plan) -> None:
    """Make the experiment again as each worker will do. Errors: ConfigError."""
    if isinstance(code.reopen(plan.folder, read_run(plan.folder)).data, Recorded):
        raise ConfigError(
            f"{plan.name}: its data are arrays in memory, which workers do not have; have its file "
            "load them"
        )


def _train_by_workers(plan: Plan, stop: Callable[[], bool]) -> None:
    """Errors: those of `train_parts`; of parts that were given up after the table of the others."""
    assert plan.launch
    groups = (indices for _, indices in plan.groups())
    parts = {
        number: indices
        for number, indices in enumerate(groups)
        if not all(is_done(replica_folder(plan.folder, i)) for i in indices)
    }
    try:
        train_parts(plan.folder, parts, plan.launch, way=plan.way, stop=stop, say=plan.console.line)
    except ResourceError as error:
        _summarize(plan, completed=False)
        raise ResourceError(
            f"{error}; the table has the others; see {plan.folder / 'workers'}, then go on with: "
            f"train --resume {plan.folder}"
        ) from None


def _summarize(plan: Plan, *, completed: bool) -> None:
    together = [indices for _, indices in plan.groups()]
    say, task, points = plan.console.line, plan.experiment.task, list(plan.points or ())
    summarize_sweep(plan.folder, plan.name, task, points, together, completed=completed, say=say)
