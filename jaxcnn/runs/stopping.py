"""Replicas that stop before the last step: diverged, out of patience, dropped at a rung. A replica
that stops is frozen in the program; the others go on.
"""

import jax
import numpy as np

from jaxcnn.core.program import State
from jaxcnn.core.rendering import Json
from jaxcnn.data.dataset import training_batch
from jaxcnn.errors import DivergedError, ResourceError
from jaxcnn.runs import evaluation, saving
from jaxcnn.runs.diagnosis import first_non_finite
from jaxcnn.runs.group import Group
from jaxcnn.runs.replica import Replica, replace
from jaxcnn.runs.ways import by_bundle


def going_on(group: Group) -> list[Replica]:
    return [replica for replica in group.active if replica.stopped is None]


def stop_replica(group: Group, place: int, why: str, *, at: int, **more: Json) -> None:
    """Freeze a replica for good, and record why."""
    replica, states = group.active[place], group.solo_states()
    states[place] = replace(states[place], live=jax.numpy.zeros((), bool))
    parts = by_bundle(group.way.sizes, states)
    group.states = [b.join(part) for b, part in zip(group.bundles, parts, strict=True)]
    content = {"why": why, "at": at, **more}
    replica.stopped = group.record("stop", replica, **content, point=replica.point)
    group.tell("stop", replica, replica.stopped)


def diverge(group: Group, place: int) -> None:
    """Stop a replica whose state was frozen before its first update that is not finite; its numbers
    are the last good ones, and are saved. The record names the layer.
    """
    replica, state = group.active[place], group.solo_states()[place]
    at, e = int(state.step), replica.experiment
    where = "the experiment's own program, so no layer is known"
    if isinstance(state, State) and e.program is None:
        batch = training_batch(group.train, e.seed, at, batch_size=e.batch_size)
        where = first_non_finite(e, state, batch)
    good = replace(state, live=jax.numpy.ones((), bool))
    saving.settle(group)
    try:
        replica.checkpoints.save(replica.to_file(good), step=at)
    except ResourceError as error:
        group.say(f"warning: {error}")
    stop_replica(group, place, "diverged", at=at, where=where)


def drop_due(group: Group) -> None:
    """Successive halving: at a rung the best go on, in a program of their own; the others stop.

    The latest rung that was reached counts, so that a run resumed at a rung drops there.
    """
    keep = min([kept for step, kept in group.rungs.items() if step <= group.step], default=0)
    if not keep or len(group.active) <= keep:
        return

    def rank(replica: Replica) -> float:
        evaluations = replica.history.evaluations()
        if not evaluations or replica.stopped is not None:
            return -np.inf
        return evaluation.rank(group.experiment.task, evaluations[-1]["metrics"])

    best = sorted(group.active, key=rank, reverse=True)[:keep]
    kept = [replica for replica in group.active if replica in best]
    group.say(
        f"rung at step {group.step}: {len(kept)} of {len(group.active)} replicas go on: "
        f"{[replica.index for replica in kept]}"
    )
    ended = [replica for replica in group.active if replica.stopped is not None]
    for place, replica in enumerate(group.active):
        if replica not in kept and replica.stopped is None:
            stop_replica(group, place, "dropped at a rung", at=group.step)
    states = group.last_states()
    group.left |= {r.index: states[r.index] for r in ended if r not in kept}
    group.take(kept, [states[replica.index] for replica in kept])


def raise_if_lost(group: Group) -> None:
    """Raise what the whole group failed of."""
    stops = [(r.folder, r.stopped) for r in group.replicas if r.stopped is not None]
    diverged = [(folder, stop) for folder, stop in stops if stop["why"] == "diverged"]
    if len(diverged) == len(group.replicas):
        remedy = (
            "lower optimizer.learning_rate, set clip_norm=1.0, or lengthen the schedule's warm-up"
        )
        if len(diverged) > 1:
            steps = ", ".join(str(stop["at"]) for _, stop in diverged)
            raise DivergedError(f"all {len(diverged)} replicas diverged (steps {steps}); {remedy}")
        ((folder, stop),) = diverged
        raise DivergedError(
            f"the loss or a gradient is not finite at step {stop['at']} "
            f"({stop['where']}); the state before it was saved in {folder}; "
            f"{remedy}"
        )
    if group.failed_save:
        raise group.failed_save
