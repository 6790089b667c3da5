"""Replicas that train together, as one process holds them."""

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import jax

from jaxcnn.core import hosts
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.meshes import Layout
from jaxcnn.core.protocols import AnyState, Numbers, Program, Tree
from jaxcnn.core.rendering import Json
from jaxcnn.data.dataset import Source
from jaxcnn.errors import ResourceError
from jaxcnn.runs.events import Event, Record
from jaxcnn.runs.profiling import Profile
from jaxcnn.runs.replica import Replica
from jaxcnn.runs.ways import Bundle, Way, by_bundle


@dataclasses.dataclass(eq=False)
class Group:
    """Replicas that one program trains. `active`: those still in it, in the order of the states."""

    experiment: Experiment  # what they have in common
    program: Program  # of one replica, not compiled; its output_step gives (sums, records)
    replicas: list[Replica]
    way: Way
    steps: int
    dispatch: int  # updates a call of the device makes
    train: Source
    eval: Source
    say: Callable[[str], None]
    rungs: dict[int, int] = dataclasses.field(default_factory=dict)  # {step: replicas kept}
    until: int | None = None  # a step at which to stop as a signal would
    profile: Profile | None = None
    step: int = 0
    resumed: bool = False  # from a state that it saved itself
    active: list[Replica] = dataclasses.field(default_factory=list)
    bundles: list[Bundle] = dataclasses.field(default_factory=list)
    states: list[Tree] = dataclasses.field(default_factory=list)  # one a bundle
    # {index: its last state} of those that had stopped, and left the program at a rung
    left: dict[int, AnyState] = dataclasses.field(default_factory=dict)
    pending: list[list[Numbers]] = dataclasses.field(default_factory=list)  # numbers, on the device
    started: float = 0.0
    timed: int = 0  # the step from which the speed counts: the last record's or compiled one
    since: float = 0.0  # monotonic time at which it was made
    saved: float = 0.0  # monotonic time of the last save
    writer: ThreadPoolExecutor | None = None  # of saves, see jaxcnn.runs.saving
    # the save that is being written, and what to do then
    writing: tuple[Future[None], Callable[[], None]] | None = None
    failed_save: ResourceError | None = None  # the last save, if it could not be written
    told: set[str] = dataclasses.field(default_factory=set)
    agree: hosts.Agree = dataclasses.field(default_factory=hosts.Agree)

    def take(self, active: list[Replica], states: list[AnyState]) -> None:
        """Train these replicas from these states of solo runs."""
        self.way = self.way.resized(len(active))
        layout = Layout.of(self.experiment)
        self.active, self.bundles = active, self.way.bundles(self.program, layout=layout)
        parts = by_bundle(self.way.sizes, states)
        self.states = [b.join(part) for b, part in zip(self.bundles, parts, strict=True)]
        self.pending = [[] for _ in self.bundles]

    def solo_states(self) -> list[AnyState]:
        """The states of the active replicas, as solo runs have them in the program."""
        pairs = zip(self.bundles, self.states, strict=True)
        return [state for b, joined in pairs for state in b.split(hosts.local(joined))]

    def last_states(self) -> dict[int, AnyState]:
        """{index: state} of all replicas but those that a rung dropped."""
        own = zip((r.index for r in self.active), self.solo_states(), strict=True)
        return {**self.left, **dict(own)}

    def seconds(self) -> float:
        """Training time so far, over all processes."""
        return time.monotonic() - self.started

    def epoch(self) -> float:
        """Passes over the training split so far."""
        return self.step * self.experiment.batch_size / len(self.train)

    def record(self, kind: str, replica: Replica, **content: Json) -> Record:
        """What every record has, and `content`."""
        which = {"replica": replica.index} if replica.point else {}  # none in a solo run
        base = {"kind": kind, "step": self.step, "epoch": self.epoch(), **which}
        return {**base, **content, "seconds": self.seconds()}

    def tell(
        self,
        kind: str,
        replica: Replica,
        record: Record,
        *,
        state: Callable[[], AnyState] | None = None,
    ) -> None:
        """Notify the observers of a replica. state: that of the record, if it is not of now."""

        def current() -> AnyState:
            own = self.last_states()[replica.index]
            return replica.to_file(jax.tree.map(jax.numpy.copy, own))

        about = (replica.folder, replica.experiment, self.eval)
        event = Event(kind, record["step"], record, state or current, replica.index, *about)
        replica.notify(event)

    def once(self, what: str, text: str) -> None:
        """Say something, the first time that `what` is found."""
        if what not in self.told:
            self.told.add(what)
            self.say(f"warning: {text}")
