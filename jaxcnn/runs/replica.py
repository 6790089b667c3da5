"""One replica of a run: its place on disk, its history, its state between program and file.

On disk a replica is a solo run, whatever the way it was trained: the numbers that its state holds
only so that they can differ between replicas are left out, since its experiment has them.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxcnn.core import transforms
from jaxcnn.core.experiment import Experiment, optimizer_numbers
from jaxcnn.core.forward import fresh_variables
from jaxcnn.core.program import make_program
from jaxcnn.core.protocols import AnyState, HasNumbers, HasParams, Program, Tree, Variables
from jaxcnn.data.dataset import Source
from jaxcnn.errors import CheckpointError, ConfigError
from jaxcnn.runs.checkpoint import Checkpoints, digest
from jaxcnn.runs.evaluation import Best
from jaxcnn.runs.events import Notifier, Record
from jaxcnn.runs.rundir import write_json
from jaxcnn.runs.sweep import Point
from jaxcnn.runs.writers import History
from jaxcnn.weights import hub, load

Say = Callable[[str], None]
S = TypeVar("S", bound=AnyState)


@dataclasses.dataclass(eq=False)
class Replica:
    """`experiment` is that of its point; `numbers` are those that its program's state holds."""

    index: int
    point: Point
    folder: Path
    experiment: Experiment
    numbers: dict[str, float]
    history: History
    checkpoints: Checkpoints
    best: Best
    notify: Notifier
    stopped: Record | None = None  # the record of why, if it stopped before the last step
    carried: int = 0  # up to this step its history is that of the run that it goes on from

    def key(self) -> jax.Array:
        """The PRNG key that it starts from."""
        return jax.random.key(self.experiment.seed)

    def template(self, program: Program) -> AnyState:
        """The shapes of its state in a file."""
        return jax.eval_shape(program.init, self.key())

    def to_file(self, state: AnyState) -> AnyState:
        """Its state as a solo run has it."""
        if not isinstance(state, HasNumbers):
            return state
        own = optimizer_numbers(self.experiment)
        kept = {path: state.hyperparams[path] for path in own if path in state.hyperparams}
        return replace(state, hyperparams=kept)

    def from_file(self, state: AnyState) -> AnyState:
        """Its state as the program has it: the inverse of `to_file`."""
        if not isinstance(state, HasNumbers):
            return state
        numbers = {path: jnp.asarray(value, jnp.float32) for path, value in self.numbers.items()}
        return replace(state, hyperparams={**numbers, **state.hyperparams})

    def remember(self) -> None:
        """Take up what the history says: the best of its own evaluations, since those that were
        carried over are of other settings, or data, and whether it has stopped.
        """
        self.best = Best(self.experiment.task)
        for record in self.history.evaluations():
            if record["step"] > self.carried:
                self.best.add(record)
        stops = [r for r in self.history.records if r["kind"] == "stop"]
        self.stopped = stops[-1] if stops else None

    def verdict(self) -> str:
        """How it ended, in words, where it did not reach the last step."""
        if self.stopped is None:
            return "completed"
        if self.stopped["why"].startswith("dropped"):
            return self.stopped["why"]
        return f"{self.stopped['why']} at step {self.stopped['at']}"

    def summarize(self, state: AnyState | None, content: Record) -> Record:
        """Write and return summary.json; `state` is None where a rung dropped it."""
        evaluations = self.history.evaluations()
        params = state.params if isinstance(state, HasParams) else None
        summary = {
            **content,
            "verdict": self.verdict() if content["completed"] or self.stopped else "not finished",
            "num_params": None if params is None else sum(x.size for x in jax.tree.leaves(params)),
            "state_sha256": None if state is None else digest(self.to_file(state)),
            "eval": evaluations[-1]["metrics"] if evaluations else None,
        }
        if self.best.record is not None:
            best = self.best.record
            numbers = {k: v for k, v in best["metrics"].items() if isinstance(v, (int, float))}
            summary["best"] = {"step": best["step"], "epoch": best["epoch"], **numbers}
        write_json(self.folder / "summary.json", summary)
        return summary


def replace(state: S, **fields: Any) -> S:
    """A state with other fields, whether a flax.struct or a NamedTuple."""
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        return dataclasses.replace(state, **fields)
    return state._replace(**fields)  # pyright: ignore[reportAttributeAccessIssue]


def check_program(program: Program, e: Experiment) -> Tree:
    """The program's state as shapes; ConfigError where it lacks what the loop needs, or where it is
    no Program.
    """
    if not isinstance(program, Program):
        raise ConfigError(
            f"program={e.program!r}: returned {type(program).__name__}; it must return a "
            "Program(init, train_step, output_step)"
        )
    state = jax.eval_shape(program.init, jax.random.key(0))
    for name, dtype, shape in (("step", jnp.int32, ()), ("live", jnp.bool_, ())):
        found = getattr(state, name, None)
        if found is None or found.dtype != dtype or found.shape != shape:
            seen = "none" if found is None else f"{found.dtype}{list(found.shape)}"
            raise ConfigError(
                f"the state {type(state).__name__} of this program must have {name!r}, "
                f"{jnp.dtype(dtype)} []; it has {seen}. `step` counts updates; `live` turns false "
                "at a step that is not finite (see jaxcnn.core.program.advance)"
            )
    return state


def pinned_weights(experiments: Iterable[Experiment]) -> dict[str, str]:
    """{address on the hub: the same with its commit} of the weights that experiments start from,
    for run.json: a branch moves on. They are fetched. Errors: those of jaxcnn.weights.hub.
    """
    addresses = {e.weights for e in experiments if e.weights and hub.is_address(e.weights)}
    return {address: hub.resolve(address) for address in sorted(addresses)}


def initial_states(
    replicas: list[Replica], program: Program, source: Source, say: Say, *, pins: dict[str, str]
) -> list[AnyState]:
    """Fresh states as the program has them, each initialized as by itself. pins: see
    `pinned_weights`.
    """
    init = transforms.compile(program).init
    states = []
    for replica in replicas:
        variables = start_variables(replica.experiment, replica.key(), source, say, pins=pins)
        more = () if variables is None else (variables,)
        numbers = {path: jnp.float32(value) for path, value in replica.numbers.items()}
        states.append(init(replica.key(), numbers, *more))
    return states


def start_variables(
    e: Experiment, key: jax.Array, source: Source, say: Say, *, pins: dict[str, str] | None = None
) -> Variables | None:
    """What the experiment asks to start from (`weights`, `initialize`); None: fresh variables."""
    if e.weights is None and e.initialize is None:
        return None
    make = jax.jit(lambda key: fresh_variables(e, key), compiler_options=transforms.called_once())
    fresh = dict(make(jax.random.split(key)[0]))
    params, model_state = fresh.pop("params", {}), fresh
    if e.weights is not None:
        place = (pins or {}).get(e.weights, e.weights)
        params, model_state, report = load.fill(e.model, params, model_state, place)
        say(f"weights of {place}: {report}")
    if e.initialize is not None:
        params, model_state = e.initialize(params, model_state, source)
    return {"params": params, **model_state}


def restore(replicas: list[Replica], steps: int, say: Say) -> tuple[list[AnyState], int] | None:
    """(states as the program has them, step) of the newest step of which every replica has a good
    checkpoint, one that has stopped that of where it did; None if there is none yet. Histories are
    cut off there.
    """
    for replica in replicas:
        replica.checkpoints.clean()
        replica.remember()
    # replicas of a group differ in the seed and in numbers alone, so all states have one form
    template = replicas[0].template(make_program(replicas[0].experiment, steps=steps))
    for at in _common_steps(replicas):
        found = [_restore(replica, at, template, say) for replica in replicas]
        states = [state for state in found if state is not None]
        if len(states) == len(replicas):
            _cut_off(replicas, at)
            return states, at
    if any(replica.checkpoints.damaged() for replica in replicas):
        raise CheckpointError(
            f"{replicas[0].folder}: every checkpoint is damaged or not this run's; put the right "
            "ones back, or start a new run (nothing here was deleted)"
        )
    _cut_off(replicas, -1)
    return None


def _cut_off(replicas: list[Replica], at: int) -> None:
    """Forget what came after step `at`."""
    for replica in replicas:
        replica.history.truncate(at)
        replica.checkpoints.forget(after=at)
        replica.remember()


def _restore(replica: Replica, at: int, template: AnyState, say: Say) -> AnyState | None:
    """The replica's state when the group was at step `at`; None if it is damaged."""
    found = replica.checkpoints.restore(
        template,
        among={_saved_at(replica, at)},
        warn=lambda text: say(f"warning: {text}"),
    )
    if found is None:
        return None
    return replace(replica.from_file(found[0]), live=jnp.asarray(not _has_stopped(replica, at)))


def _has_stopped(replica: Replica, at: int) -> bool:
    return replica.stopped is not None and replica.stopped["step"] <= at


def _saved_at(replica: Replica, at: int) -> int:
    """The step of the checkpoint with the replica's state when the group was at step `at`. That it
    has stopped is written before that checkpoint is whole, and so no reason to take an older one.
    """
    return replica.stopped["at"] if replica.stopped and _has_stopped(replica, at) else at


def _common_steps(replicas: list[Replica]) -> list[int]:
    """The steps at which the group may go on, newest first: each replica has a checkpoint."""
    held = [set(replica.checkpoints.steps()) for replica in replicas]
    stops = {replica.stopped["step"] for replica in replicas if replica.stopped}
    common = [
        at
        for at in sorted(stops.union(*held), reverse=True)
        if all(_saved_at(r, at) in own for r, own in zip(replicas, held, strict=True))
    ]
    if not common and all(held):
        raise CheckpointError(
            f"{replicas[0].folder.parent}: the replicas have no checkpoint of a common step (were "
            "files removed?); train one of them on alone: train --from"
        )
    return common
