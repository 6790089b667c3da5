"""Saves beside training. Training waits for a copy of the states in the host's memory and no
longer: a thread hashes and writes them. One save at a time, so that files come in the order of
steps: the next one waits until this one is written.
"""

import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor

import jax

from jaxcnn.core import hosts
from jaxcnn.core.protocols import AnyState
from jaxcnn.errors import ResourceError
from jaxcnn.runs.checkpoint import Arrays, Checkpoints, from_arrays, to_arrays
from jaxcnn.runs.events import Record
from jaxcnn.runs.group import Group
from jaxcnn.runs.replica import Replica


@dataclasses.dataclass(frozen=True)
class _Copy:
    """What is written of one replica."""

    replica: Replica
    record: Record
    template: AnyState  # shapes
    arrays: Arrays

    def state(self) -> AnyState:
        """As the replica had it at the step of the save."""
        return from_arrays(self.template, self.arrays, source="the save")


def begin(group: Group, *, best: Set[int] = frozenset()) -> None:
    """Copy the states of all that go on, and have them written; those in `best` as the best ones of
    their replicas, too. The histories are whole on the disk before the states are.

    A full disk is reported, see `settle`, and training goes on, with the older checkpoints kept.
    """
    settle(group)
    if not hosts.first():  # of several hosts one saves
        return
    copies = []
    try:
        for replica, state in zip(group.active, group.solo_states(), strict=True):
            if replica.stopped is None:
                own = replica.to_file(state)
                shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), own)
                record = group.record("save", replica, best=replica.index in best)
                copies.append(_Copy(replica, record, shapes, _held(own)))
                replica.history.flush()
    except ResourceError as error:
        _failed(group, error)
    else:
        if group.writer is None:
            group.writer = ThreadPoolExecutor(1, "save", initializer=_give_way)
        group.writing = (group.writer.submit(_write, copies), lambda: _tell(group, copies))


def settle(group: Group, *, if_done: bool = False) -> None:
    """Wait until what was begun is written, and tell the observers; with `if_done` only where it
    is written already. A failure is told the user, and kept in `group.failed_save`.
    """
    if group.writing is None or (if_done and not group.writing[0].done()):
        return
    (written, tell), group.writing = group.writing, None
    try:
        written.result()
    except ResourceError as error:
        _failed(group, error)
    else:
        group.failed_save = None
        tell()


def leave(group: Group) -> None:
    """Wait until nothing is written any more, whatever becomes of it: the run ends."""
    if group.writer is not None:
        group.writer.shutdown()


def _held(state: AnyState) -> Arrays:
    """A state in memory of its own: on CPU `to_arrays` shares that of the state, which the next
    step takes.
    """
    return {name: array.copy() for name, array in to_arrays(state).items()}


def _write(copies: list[_Copy]) -> None:
    for copy in copies:
        copy.replica.history.fsync()
        checkpoints: Checkpoints = copy.replica.checkpoints
        checkpoints.write(copy.arrays, step=copy.record["step"], best=copy.record["best"])


def _tell(group: Group, copies: list[_Copy]) -> None:
    for copy in copies:
        group.tell("save", copy.replica, copy.record, state=copy.state)


def _failed(group: Group, error: ResourceError) -> None:
    group.failed_save = error
    group.say(f"warning: {error}; training goes on, the next save will be tried")


def _give_way() -> None:
    """On Linux, where threads have priorities of their own: the training's threads come first."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
