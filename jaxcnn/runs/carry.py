"""Going on from a run with other settings: its state and history are carried over, and what changes
is said. This is not resume: the new run is one of its own, in a folder of its own.
"""

from collections.abc import Callable

import jax

from jaxcnn.core import schedules, trees
from jaxcnn.core.program import State
from jaxcnn.core.protocols import AnyState, Tree
from jaxcnn.core.rendering import render
from jaxcnn.errors import CheckpointError, ConfigError
from jaxcnn.runs import code
from jaxcnn.runs.events import Record
from jaxcnn.runs.open import Run
from jaxcnn.runs.replica import Replica, replace


def carried_record(start: Run) -> Record:
    """Where a run came from, for run.json."""
    return {"run": start.folder.name, "step": start.step}


def carry(
    start: Run,
    replicas: list[Replica],
    fresh: list[AnyState],
    *,
    steps: int,
    say: Callable[[str], None],
) -> tuple[list[AnyState], int]:
    """(the fresh states with what the state of `start` has in common with them, its step). The
    records of its history are copied.

    Errors: ConfigError where nothing is left to train or the model is another one; CheckpointError
    where the run has no state.
    """
    old = jax.tree.map(jax.numpy.copy, start.state)  # the steps of the new run donate theirs
    at = int(old.step)
    if at >= steps:
        raise ConfigError(
            f"{start.folder}: has made {at} updates, and this experiment asks for {steps}; ask for "
            "more, e.g. epochs=40"
        )
    states: list[AnyState] = []
    for replica, state in zip(replicas, fresh, strict=True):
        for text in code.differences(start.record["rendered"], render(replica.experiment)):
            say(f"changed from {start.folder.name}: {text}")
        then, now = start.data.label_names, tuple(replica.experiment.data.label_names)
        if then != now:
            say(
                f"warning: the classes were {list(then)} and are {list(now)}; the head was trained "
                "on the former, so that its numbers mean those"
            )
        _say_schedule(start, replica, at, steps, say)
        states.append(_carried(start, old, state, replica, say))
        for record in start.history:
            if record["step"] <= at and record["kind"] in ("train", "eval"):
                replica.history.append(record)
        replica.remember()
    return states, at


def _carried(
    start: Run, old: AnyState, new: AnyState, replica: Replica, say: Callable[[str], None]
) -> AnyState:
    if not isinstance(old, State) or not isinstance(new, State):
        if _shapes(old) != _shapes(new):
            raise ConfigError(f"{start.folder}: its state has another form than this program's")
        return old
    if _shapes(old.params) != _shapes(new.params):
        differing = sorted(set(_shapes(old.params).items()) ^ set(_shapes(new.params).items()))[:3]
        raise CheckpointError(
            f"{start.folder}: its parameters do not fit this model ({differing}); a run goes on "
            "with the same network; for another head take weights=RUN in a new run"
        )
    fields: dict[str, Tree] = {"step": old.step, "params": old.params}
    for name in ("model_state", "opt_state"):
        fits = _shapes(getattr(old, name)) == _shapes(getattr(new, name))
        if fits:
            structure = jax.tree.structure(getattr(new, name))
            leaves = jax.tree.leaves(getattr(old, name))
            fields[name] = jax.tree.unflatten(structure, leaves)
        else:
            say(f"warning: {name} starts anew: that of {start.folder.name} has another form")
    if new.ema is not None:
        fields["ema"] = jax.tree.map(jax.numpy.copy, old.params) if old.ema is None else old.ema
        statistics = fields.get("model_state", new.model_state)
        if old.ema_state is not None and "model_state" in fields:
            statistics = old.ema_state
        fields["ema_state"] = jax.tree.map(jax.numpy.copy, statistics)
    if replica.experiment.seed == start.experiment.seed:
        fields["key"] = old.key
    return replace(new, **fields)


def _say_schedule(
    start: Run, replica: Replica, at: int, steps: int, say: Callable[[str], None]
) -> None:
    """How the multiplier of the learning rate jumps, which follows the share of the run done."""
    before, now = start.experiment, replica.experiment
    total = start.total_steps
    if total is None:
        return
    done = jax.numpy.int32(at)
    old = float(schedules.multiplier(before.schedule, done, steps=total))
    new = float(schedules.multiplier(now.schedule, done, steps=steps))
    if abs(old - new) > 1e-6:
        say(f"the schedule's multiplier goes from {old:.4g} to {new:.4g} at step {at} of {steps}")


def _shapes(tree: Tree) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (x.shape, str(x.dtype)) for name, x in trees.flatten(tree).items()}
