"""The loop: trains R >= 1 replicas of a program together; batches in, events out. No mathematics,
and no knowledge of devices. A solo run is one replica.

What one replica does, each does: evaluation, best checkpoint, early stop, test split, the layer of
the first value that is not finite. A replica that stops is frozen in the program; the others go on.
"""

import time
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, nullcontext

import jax
import numpy as np

from jaxcnn.core import hosts
from jaxcnn.core.memory import Fitting
from jaxcnn.core.protocols import Batch, Tree
from jaxcnn.core.transforms import Placing
from jaxcnn.errors import ConfigError, DataError, Preempted, ResourceError
from jaxcnn.runs import evaluation, saving
from jaxcnn.runs.feed import batches, pieces
from jaxcnn.runs.group import Group
from jaxcnn.runs.profiling import compilations
from jaxcnn.runs.replica import Replica
from jaxcnn.runs.stopping import diverge, drop_due, going_on, raise_if_lost, stop_replica
from jaxcnn.runs.ways import by_bundle

# At most so much work, and what a save takes, is lost by a kill.
SAVE_SECONDS = 30.0
GO_ON, SAVE, STOP = 0, 1, 2  # what each host wishes, and all do


def run(group: Group, stop: Callable[[], bool]) -> None:
    """Train to the last step. Numbers are fetched at log intervals only, so the device never waits
    for the host.

    Errors: Preempted once `stop()` says so, DataError where the data cannot be read, both with the
    states saved; DivergedError if no replica is left; ConfigError for a step that compiles again
    and again.
    """
    group.saved = group.since = time.monotonic()
    group.timed = group.step
    try:
        _train(group, stop)
    except (DataError, OSError) as error:
        _log(group)
        if group.step == 0 or not going_on(group):
            raise
        _save(group)
        saving.settle(group)
        if group.failed_save:
            raise
        raise DataError(f"{error}; stopped at step {group.step} of {group.steps}") from error
    finally:
        saving.leave(group)
    raise_if_lost(group)


def _train(group: Group, stop: Callable[[], bool]) -> None:
    if _owes_evaluation(group):
        _evaluate(group)
    while group.step < group.steps and going_on(group):
        drop_due(group)
        rungs = [step for step in group.rungs if step > group.step]
        if _train_until(group, min([*rungs, group.steps]), stop):
            saving.settle(group)
            if group.failed_save:
                text = f"{group.failed_save}; stopped by a signal at step {group.step}, not saved"
                raise ResourceError(text)
            raise Preempted(f"stopped by a signal at step {group.step} of {group.steps}")
    saving.settle(group)


def _owes_evaluation(group: Group) -> bool:
    """Whether the step of a resumed run was to be evaluated, and its data could not be read."""
    due = group.step % group.experiment.eval_interval(len(group.train)) == 0
    due = due or group.step in (*group.rungs, group.steps)
    seen = (replica.history.evaluations() for replica in going_on(group))
    return group.resumed and due and any(not e or e[-1]["step"] < group.step for e in seen)


def _train_until(group: Group, end: int, stop: Callable[[], bool]) -> bool:
    """Train to step `end`, or until every replica has stopped; whether a signal came before the
    last step.
    """
    e = group.experiment
    interval = e.eval_interval(len(group.train))
    compiled = compilations()
    for after, of_bundles in _feed(group, end, intervals=(e.log_every, interval)):
        with _profiled(group, after):
            for i, (bundle, batch) in enumerate(zip(group.bundles, of_bundles, strict=True)):
                program = bundle.single if after - group.step == 1 else bundle.many
                group.states[i], numbers = program.train_step(group.states[i], batch)
                group.pending[i].append(numbers)
        group.step = after
        if compilations() != compiled:  # for the batch or for the step: no speed is to be seen yet
            jax.block_until_ready(group.states)
            group.since, group.timed = time.monotonic(), after
        if after % e.log_every == 0:
            _log(group)
        evaluating = after % interval == 0 or after == end
        saving.settle(group, if_done=True)
        overdue = hosts.first() and time.monotonic() - group.saved > SAVE_SECONDS
        overdue = overdue and group.writing is None
        asked = group.agree(STOP if stop() else SAVE if overdue else GO_ON)
        stopping = asked == STOP or after == group.until
        if evaluating:
            _evaluate(group)
        elif stopping or asked == SAVE:
            _save(group)
        if evaluating or asked:
            group.agree.forget()
        if stopping and after < group.steps:
            return True
        if not going_on(group):
            return False
        compiled = compilations()
    return False


def _profiled(group: Group, after: int) -> AbstractContextManager[None]:
    """Around the dispatch of the steps up to `after`: traced, where it is to be."""
    if group.profile is None or group.profile.done:
        return nullcontext()
    return group.profile.dispatch(
        group.step + 1, after, settle=lambda: jax.block_until_ready(group.states), say=group.say
    )


def _feed(
    group: Group, end: int, *, intervals: tuple[int, ...]
) -> Iterator[tuple[int, tuple[Batch, ...]]]:
    """(step after it, a batch for each bundle) of each piece of the steps up to `end`."""

    def settle() -> None:
        jax.block_until_ready(group.states)

    feeds = []
    for bundle, owners in zip(group.bundles, by_bundle(group.way.sizes, group.active), strict=True):
        seeds = tuple(replica.experiment.seed for replica in owners)
        feeds.append(
            batches(
                group.train,
                pieces(group.step, end, size=group.dispatch, intervals=intervals),
                seed=seeds[0] if bundle.kind == "solo" else seeds,
                batch_size=group.experiment.batch_size,
                settle=settle,
            )
        )
    for rows in zip(*feeds, strict=True):
        yield rows[0][0][1], tuple(batch for _, batch in rows)


def _log(group: Group) -> None:
    """Fetch the numbers since the last record, check them, and tell each replica's means."""
    if not group.pending[0]:
        return
    alive = [b.read(s, "live") for b, s in zip(group.bundles, group.states, strict=True)]
    fetched, alive = jax.device_get((group.pending, alive))
    group.pending = [[] for _ in group.bundles]
    elapsed = max(time.monotonic() - group.since, 1e-9)
    place = 0
    means: list[dict[str, float | None]] = []
    for bundle, of_steps, live in zip(group.bundles, fetched, alive, strict=True):
        names = of_steps[0]
        columns = {
            name: np.concatenate([np.reshape(n[name], (-1, bundle.count)) for n in of_steps])
            for name in names
        }
        for i, ok in enumerate(np.reshape(live, -1).tolist()):
            replica = group.active[place]
            if not ok and replica.stopped is None:
                diverge(group, place)
            means.append(_means(group, replica, {name: x[:, i] for name, x in columns.items()}))
            place += 1
    _check_compiled_once(group)
    timed = (group.step - group.timed) * group.experiment.batch_size
    rate = timed / elapsed if timed else None  # each of these steps compiled
    group.timed = group.step
    for replica, numbers in zip(group.active, means, strict=True):
        if replica.stopped is None:
            record = group.record("train", replica, **numbers, images_per_second=rate)
            group.tell("train", replica, record)
    group.since = time.monotonic()


def _means(
    group: Group, replica: Replica, columns: dict[str, np.ndarray]
) -> dict[str, float | None]:
    """The mean of each number over the steps; None, said once, where it is not finite."""
    means = {name: float(np.mean(values, dtype=np.float64)) for name, values in columns.items()}
    if replica.stopped is None:
        for name in [name for name, mean in means.items() if not np.isfinite(mean)]:
            text = f"{name!r} is not finite at step {group.step}; it is logged as null"
            group.once(f"{name} is not finite", text)
    return {name: mean if np.isfinite(mean) else None for name, mean in means.items()}


def _check_compiled_once(group: Group) -> None:
    """ConfigError if the step was compiled more than once: a run that compiles again and again is
    slow without a word.
    """
    # once for each is right, also for those that replicas were on before a rung
    devices = len(jax.devices()) if group.way.kind == "devices" else 1
    for bundle in group.bundles:
        for program in (bundle.single, bundle.many):
            step = program.train_step
            count = step.count_compiled() if isinstance(step, Fitting | Placing) else 1
            if count > devices:
                raise ConfigError(
                    f"the training step was compiled {count} times in {group.step} steps: an array "
                    "of the batch or the state changes its shape, dtype or device from step to "
                    "step; a source must hand out the shapes and dtypes of its spec(), whatever "
                    "the indices"
                )


def _evaluate(group: Group) -> None:
    """Evaluate all replicas, save each (its best as such), stop those out of patience."""
    _log(group)
    if not going_on(group):
        return
    e = group.experiment
    steps = [
        (bundle.single.output_step, state)
        for bundle, state in zip(group.bundles, group.states, strict=True)
    ]
    results = evaluation.collect(steps, group.eval, e)
    place, best = 0, set()
    for bundle, rows in zip(group.bundles, results, strict=True):
        for i in range(bundle.count):
            replica = group.active[place]
            place += 1
            if replica.stopped is not None:
                continue
            own = rows if bundle.kind == "solo" else _row(rows, i)
            metrics = hosts.told(evaluation.merge(e.task, own))
            if e.task.metric not in metrics:
                raise ConfigError(
                    f"task {type(e.task).__name__}: its metric {e.task.metric!r} is not among what "
                    f"summarize gives: {', '.join(metrics)}"
                )
            record = group.record("eval", replica, metrics=metrics)
            if replica.best.add(record):
                best.add(replica.index)
            group.tell("eval", replica, record)
    _save(group, best=best)
    for place, replica in enumerate(group.active):
        patient = e.patience is None or replica.best.since < e.patience
        if replica.stopped is None and not patient and group.step < group.steps:
            stop_replica(group, place, "stopped early", at=group.step)
    group.since = time.monotonic()  # evaluation does not count as training


def _row(results: list[tuple[int, Tree]], i: int) -> list[tuple[int, Tree]]:
    return [(count, jax.tree.map(lambda x: x[i], result)) for count, result in results]


def _save(group: Group, *, best: Set[int] = frozenset()) -> None:
    """Log what is pending, so that the histories are whole up to the checkpoints, and save."""
    _log(group)
    group.saved = time.monotonic()
    saving.begin(group, best=best)
