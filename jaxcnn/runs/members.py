"""The members of a run: which replicas share a program, where each lies, what each starts from, and
what is written of each at the end.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.core import hosts
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.meshes import Layout
from jaxcnn.core.program import make_program
from jaxcnn.core.protocols import AnyState, Batch, Program
from jaxcnn.core.rendering import render
from jaxcnn.core.transforms import scored
from jaxcnn.data.dataset import Source, batch_indices
from jaxcnn.data.recorded import files_of, located
from jaxcnn.data.recorded import record as record_data
from jaxcnn.errors import CheckpointError, DataError, DivergedError, Preempted
from jaxcnn.runs import code, evaluation, loop, sweep
from jaxcnn.runs.board import TensorBoard
from jaxcnn.runs.carry import carry
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.runs.environment import Facts
from jaxcnn.runs.evaluation import Best
from jaxcnn.runs.events import Notifier, Observer
from jaxcnn.runs.feed import steps_per_dispatch
from jaxcnn.runs.group import Group
from jaxcnn.runs.launch import Launch, divided
from jaxcnn.runs.open import Run
from jaxcnn.runs.profiling import Profile
from jaxcnn.runs.records import Record, carried_to, now, read_run, read_summary
from jaxcnn.runs.replica import Replica, initial_states, restore
from jaxcnn.runs.rundir import kept_start, make_folder, replica_folder, start_of, write_json
from jaxcnn.runs.sweep import Point
from jaxcnn.runs.ways import Trial, Way, by_bundle, choose
from jaxcnn.runs.writers import Console, History


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be trained, where, and how, besides what the experiment says."""

    experiment: Experiment
    name: str
    folder: Path
    console: Console
    resume: bool = False
    given: bool = False  # the experiment of a resumed run, which else is made from what it kept
    until: int | None = None  # stop at this step, as a signal would
    started_in: Path | None = None  # where relative places of a resumed run's data begin
    points: tuple[Point, ...] | None = None  # None: a solo run
    way: str | None = None
    halving: int | None = None
    observe: tuple[Observer, ...] = ()
    origin: code.Origin | None = None
    profile: Profile | None = None  # of the first group that trains
    start: Run | None = None  # the run whose state and history are carried over
    launch: Launch | None = None  # who trains the points; None: this process
    together: int | None = None  # so many replicas share a program at most, see runs.launch
    part: int | None = None  # of groups() the one that is trained
    environment: Facts = dataclasses.field(default_factory=dict)  # of this process

    @property
    def solo(self) -> bool:
        """Whether it is a run of one replica, which lies in the folder itself."""
        return self.points is None

    def groups(self) -> list[tuple[Experiment, list[int]]]:
        """[(experiment, indices of points)] of the replicas that can share a program."""
        found = [
            (base, part)
            for base, indices in sweep.groups(self.experiment, list(self.points or ({},)))
            for part in divided(indices, self.together)
        ]
        own = found if self.part is None else [found[self.part]]
        return [(self.located(base), indices) for base, indices in own]

    def located(self, e: Experiment) -> Experiment:
        """An experiment in which relative places of the data are found, see `data.recorded`."""
        if self.started_in is None:
            return e
        return dataclasses.replace(e, data=located(e.data, self.started_in))


def train_group(
    plan: Plan,
    base: Experiment,
    indices: list[int],
    sources: tuple[Source, Source],
    stop: Callable[[], bool],
) -> None:
    """Train the replicas `indices`, which share a program of the experiment `base`.

    Errors: those of `jaxcnn.runs.loop.run`.
    """
    done = not plan.solo and all(is_done(replica_folder(plan.folder, i)) for i in indices)
    if hosts.told(done):
        return
    say, steps = plan.console.line, base.total_steps(len(sources[0]))
    points = [{} if plan.points is None else plan.points[i] for i in indices]
    replicas = [
        _open_replica(plan, base, i, point, numbers)
        for i, point, numbers in zip(indices, points, sweep.all_numbers(base, points), strict=True)
    ]
    program = scored(make_program(base, steps=steps), base)
    states, at, restored = _states(plan, replicas, program, sources[0], steps)
    way = _way(
        plan,
        base,
        replicas,
        sources[0],
        Trial(
            program=program,
            replicas=len(replicas),
            states=lambda: jax.tree.map(jnp.copy, states),  # a step donates its own
            batches=lambda way: _first_batches(way, base, replicas, sources[0]),
            steps=steps,
            about=[render(base), {n: str(s) for n, s in base.data.spec().items()}],
            say=say,
            layout=Layout.of(base),
            progress=plan.console.progress,
        ),
    )
    dispatch = read_run(replicas[0].folder)["steps_per_dispatch"]
    rungs = sweep.rungs(steps, len(replicas), plan.halving) if plan.halving else {}
    group = Group(
        base, program, replicas, way, steps, dispatch, *sources, say, rungs=rungs, step=at
    )
    group.until, group.profile = plan.until, plan.profile
    if plan.profile is not None:
        plan.profile.check(steps, at=at)
    group.resumed = restored and at > carried_to(read_run(plan.folder))
    group.take(*_without_dropped(replicas, states))
    group.started = time.monotonic() - max(r.history.seconds() for r in replicas)
    _run(plan, group, stop)


def _states(
    plan: Plan, replicas: list[Replica], program: Program, source: Source, steps: int
) -> tuple[list[AnyState], int, bool]:
    """(states, step, whether this run itself has saved them), those of the first host on all."""
    say = plan.console.line
    found = restore(replicas, steps, say) if plan.resume and hosts.first() else None
    restored = hosts.told(found is not None)
    if not restored:
        states, at = _begin(plan, replicas, program, source, steps)
        return hosts.told_arrays(states), at, False
    solo = make_program(replicas[0].experiment, steps=steps)
    shapes = [replica.from_file(replica.template(solo)) for replica in replicas]
    states, at = found or (shapes, 0)
    for replica, records in zip(
        replicas, hosts.told([r.history.records for r in replicas]), strict=True
    ):
        replica.history.records = records
        replica.remember()
    return hosts.told_arrays(states), hosts.told(at), True


def _begin(
    plan: Plan, replicas: list[Replica], program: Program, source: Source, steps: int
) -> tuple[list[AnyState], int]:
    """(states, step) that a run starts from: fresh ones, or those of the run that it goes on from,
    which are saved at once, so that a kill loses nothing of what was carried over.

    Errors: CheckpointError for such a run that was killed before that.
    """
    say = plan.console.line
    if plan.resume and "started_from" in read_run(plan.folder):
        raise CheckpointError(
            f"{plan.folder}: was stopped before the state of the run that it goes on from was "
            "saved; start it anew in another folder, by train --from"
        )
    pins = read_run(plan.folder).get("weights", {})
    states = initial_states(replicas, program, source, say, pins=pins)
    if plan.start is None:
        return states, 0
    states, at = carry(plan.start, replicas, states, steps=steps, say=say)
    for replica, state in zip(replicas, states, strict=True):
        replica.checkpoints.save(replica.to_file(state), step=at)
    return states, at


def _open_replica(
    plan: Plan, base: Experiment, index: int, point: Point, numbers: dict[str, float]
) -> Replica:
    """A replica with its place on disk and its observers."""
    folder = plan.folder if plan.solo else replica_folder(plan.folder, index)
    own = _identity(plan, index, point)
    make_folder(folder / "checkpoints")
    history = History(folder / "metrics.jsonl")
    for fault in history.faults:
        plan.console.line(
            f"warning: {fault}; it is left out, and the file as it was kept as "
            "metrics.jsonl.damaged. If it was an evaluation, the run is not bit-exact from here on"
        )
    e = plan.located(sweep.at(base, point))
    own_board = any(isinstance(observer, TensorBoard) for observer in plan.observe)
    observers = (history, plan.console, *(() if own_board else (TensorBoard(),)), *plan.observe)
    notify = Notifier(observers if hosts.first() else (history,), plan.console.line)
    checkpoints = Checkpoints(folder / "checkpoints", own.get("id"), writes=hosts.first())
    best, carried = Best(e.task), carried_to(read_run(plan.folder))
    place = (index, point, folder, e, numbers, history, checkpoints)
    return Replica(*place, best, notify, carried=carried)


def _identity(plan: Plan, index: int, point: Point) -> Record:
    """What tells a replica from others: {"id"}, of a sweep {"replica", "point"}, too; no id in a
    run that was made before there was one.

    Errors: CheckpointError where the folder holds another one.
    """
    run = read_run(plan.folder).get("id")
    own = {} if run is None else {"id": run if plan.solo else f"{run}-{index}"}
    if plan.solo:
        return own
    own |= {"replica": index, "point": json.loads(json.dumps(point))}
    folder = replica_folder(plan.folder, index)
    if (folder / "run.json").is_file():
        found = read_run(folder)
        for name in own:
            if found.get(name) != own[name]:
                raise CheckpointError(
                    f"{folder}: is not replica {index} of this sweep: {name} is "
                    f"{found.get(name)!r}, and should be {own[name]!r}; put it back where it was"
                )
    return own


def _first_batches(
    way: Way, base: Experiment, replicas: list[Replica], source: Source
) -> list[Batch]:
    """A training batch for each bundle of a way."""
    size, batch_size = len(source), base.batch_size
    rows = [batch_indices(r.experiment.seed, 0, size=size, batch_size=batch_size) for r in replicas]
    parts = by_bundle(way.sizes, rows)
    return [source.take(part[0] if len(part) == 1 else np.stack(part)) for part in parts]


def _way(
    plan: Plan, base: Experiment, replicas: list[Replica], source: Source, trial: Trial
) -> Way:
    """How the replicas run: as it was asked for, as before, or as a trial finds. With it run.json
    of each replica is written, with which it is a run of its own.
    """
    if plan.solo:
        if plan.resume and not is_done(plan.folder):
            before = read_run(plan.folder).get("way", "loop")  # of a replica that was taken out
            if before != "loop":
                trial.say(f"warning: not bit-exact from here on: by itself now, by {before} before")
        return Way.from_text("loop", 1)
    forced, dispatch = plan.way, steps_per_dispatch(base, source)
    record = replicas[0].folder / "run.json"
    if record.is_file():
        old = read_run(replicas[0].folder)
        before, dispatch = old["way"], old["steps_per_dispatch"]
        if forced not in (None, before):
            trial.say(f"warning: not bit-exact from here on: by {forced} now, by {before} before")
        forced = forced or before
    content = read_run(plan.folder)
    way = choose(trial, forced=forced or content.get("way"))
    for name in ("points", "halving", "together"):
        content.pop(name, None)
    files = files_of(base.data)  # those of a group have the same data
    for replica in replicas:
        file = replica.folder / "run.json"
        if file.is_file():
            write_json(file, {**read_run(replica.folder), "way": way.text()})
            continue
        own = {**_identity(plan, replica.index, replica.point), "way": way.text()}
        own |= {"steps_per_dispatch": dispatch, "rendered": render(replica.experiment)}
        own |= {"environment": plan.environment, "began": now()}
        own["started_in"] = kept_start(replica.folder, start_of(plan.folder, content))
        own["data"] = {**record_data(replica.experiment.data).to_json(), "files": files}
        shutil.copytree(plan.folder / "code", replica.folder / "code", dirs_exist_ok=True)
        write_json(file, {**content, **own})
    return way


def _without_dropped(
    replicas: list[Replica], states: list[AnyState]
) -> tuple[list[Replica], list[AnyState]]:
    """Those that are still in the program: not the ones that a rung dropped."""
    pairs = [
        (replica, state)
        for replica, state in zip(replicas, states, strict=True)
        if not (replica.stopped and replica.stopped["why"].startswith("dropped"))
    ]
    return [replica for replica, _ in pairs], [state for _, state in pairs]


def _run(plan: Plan, group: Group, stop: Callable[[], bool]) -> None:
    """The loop between its start and end events, and the summaries."""
    active = [r.index for r in group.active if r.stopped is None]
    for replica in group.active:
        content = {"steps": group.steps, "replicas": active}
        group.tell("start", replica, group.record("start", replica, **content))
    try:
        loop.run(group, stop)
    except (Preempted, DivergedError, DataError):
        _summarize(plan, group, completed=False)
        raise
    else:
        _summarize(plan, group, completed=True)
    finally:
        if plan.profile is not None:
            plan.profile.close(plan.console.line)
        for replica in group.replicas:  # one that was dropped has left the run before
            if replica in group.active or replica.index in group.left:
                group.tell("end", replica, group.record("end", replica))


def _summarize(plan: Plan, group: Group, *, completed: bool) -> None:
    """summary.json of each replica; of a finished one with its score on the test split."""
    states = group.last_states()
    for replica in group.replicas:
        state, e = states.get(replica.index), replica.experiment
        at = group.step if replica.stopped is None else replica.stopped["at"]
        content = {"experiment": plan.name, "completed": completed, "step": at}
        content |= {"epoch": at * e.batch_size / len(group.train), "seconds": group.seconds()}
        summary = replica.summarize(state, content)
        ended = replica.verdict().split(" at ")[0] in ("completed", "stopped early")
        if completed and ended and state is not None and summary["eval"] and e.data.size("test"):
            own = replica.to_file(state)
            test = evaluation.evaluate_split(e, own, "test", metrics=summary["eval"])
            write_json(replica.folder / "summary.json", {**summary, "test": test})


def is_done(folder: Path) -> bool:
    """Whether a replica was trained to its end."""
    summary = read_summary(folder)
    return summary is not None and summary["completed"]
