"""What happens in a run, told to observers: functions of an event.

History and console (jaxcnn.runs.writers) and TensorBoard (jaxcnn.runs.board) are three of them;
`train(…, observe=(…,))` adds others: a picture of each epoch, a tracker (jaxcnn.runs.tracking), a
function of one's own. An observer cannot change a run: what it returns is ignored, and one that
raises is reported once and dropped.
"""

import inspect
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import AnyState
from jaxcnn.data.dataset import Source
from jaxcnn.runs.records import Record as Record

SLOW_SECONDS = 5.0  # an observer that holds training up for longer is said, once


class Event(NamedTuple):
    """Something that happened.

    kind: "start" (once a process; record: steps, replicas), "train" (means over the steps since the
        last one: loss, grad_norm, learning_rate, …), "eval" (record["metrics"]), "save" (the
        checkpoint of the record's step was written, which ends some steps later), "stop" (a replica
        stopped for good: record["why"], e.g. "diverged", "stopped early", "dropped at a rung"),
        "end" (the process leaves the run).
    step: updates made. record: JSON-able; what metrics.jsonl gets for "train", "eval" and "stop".
    state: a call that gives the replica's state, as arrays of its own that outlive the step; in a
        solo run's form, whatever the way. It costs a copy, so call it only when it is needed.
    replica: which one; 0 in a solo run.
    folder: the replica's run directory (run.json says all of it). experiment: that of the replica.
    examples: of its evaluation, opened already. None in an event that was made by hand.
    """

    kind: str
    step: int
    record: Record
    state: Callable[[], AnyState]
    replica: int = 0
    folder: Path | None = None
    experiment: Experiment | None = None
    examples: Source | None = None


Observer = Callable[[Event], None]


class Notifier:
    """Calls observers one after another, and goes on without one that raises.

    `say` tells the user. Not caught: KeyboardInterrupt and its like, which are no faults.
    """

    def __init__(self, observers: Iterable[Observer], say: Callable[[str], None]):
        self._observers = list(observers)
        self._say = say
        self._told: set[tuple[int, str]] = set()

    def __call__(self, event: Event) -> None:
        for observer in list(self._observers):
            start = time.monotonic()
            try:
                returned = observer(event)
            except Exception as error:
                self._observers.remove(observer)
                self._say(
                    f"warning: the observer {name_of(observer)} raised {type(error).__name__}: "
                    f"{error} ({event.kind}, step {event.step}); it is dropped, training goes on"
                )
                continue
            if returned is not None:
                self._once(
                    observer, "returns", f"returned {type(returned).__name__}, which is ignored"
                )
            if (seconds := time.monotonic() - start) > SLOW_SECONDS:
                self._once(observer, "slow", f"held training up for {seconds:.1f} s")

    def _once(self, observer: Observer, what: str, text: str) -> None:
        if (id(observer), what) not in self._told:
            self._told.add((id(observer), what))
            self._say(f"warning: the observer {name_of(observer)} {text}")


def numbers_of(record: Record) -> dict[str, float]:
    """The numbers of a "train" or "eval" record as loggers show them, e.g. "train/loss" and
    "eval/accuracy"; without the steps and epochs that it was made at, and what is not finite.
    """
    kind = record["kind"]
    return {
        f"{kind}/{name}": value
        for name, value in record.get("metrics", record).items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and name not in ("step", "epoch", "replica")
    }


@runtime_checkable
class Named(Protocol):
    """What says its own name."""

    name: str


def name_of(observer: Observer) -> str:
    """What a person would call it: its own `name`, if it has one."""
    named = isinstance(observer, type) or inspect.isroutine(observer)
    own = str((observer if named else type(observer)).__qualname__)
    return str(observer.name) if isinstance(observer, Named) else own
