"""Saves beside training, of a group made by hand: what is written, told, waited for."""

import os
import sys
import threading
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ResourceError
from jaxcnn.runs import saving
from jaxcnn.runs.checkpoint import Checkpoints


class Kept(Checkpoints):
    """Checkpoints that say when they are written, and wait to be let."""

    def write(self, arrays, *, step, best=False):
        self.order.append(("state", self.run))
        assert self.gate.wait(30)
        if self.full.is_set():
            raise ResourceError("full")
        return super().write(arrays, step=step, best=best)


@pytest.fixture
def group(tmp_path, request):
    """Three replicas, of which the second has stopped; what was written, told and said."""
    order, gate, full = [], threading.Event(), threading.Event()
    gate.set()
    replicas = []
    for i in range(3):
        place = Kept(tmp_path / str(i), f"run{i}")
        place.folder.mkdir()
        for name, value in (("order", order), ("gate", gate), ("full", full)):
            object.__setattr__(place, name, value)
        history = SimpleNamespace(
            flush=lambda i=i: order.append(("flush", f"run{i}")),
            fsync=lambda i=i: order.append(("history", f"run{i}")),
        )
        replicas.append(SimpleNamespace(
            index=i, stopped={} if i == 1 else None, history=history, checkpoints=place,
            to_file=lambda state: {"x": state}))  # fmt: skip
    told, said = [], []
    group = SimpleNamespace(
        **{"active": replicas, "writer": None, "writing": None, "failed_save": None, "step": 5},
        **{"order": order, "gate": gate, "full": full, "told": told, "said": said},
        say=said.append,
        states=[jnp.full(3, float(i)) for i in range(3)],
        record=lambda kind, replica, **more: {"kind": kind, "step": group.step, **more},
        tell=lambda kind, replica, record, *, state: told.append(
            (kind, replica.index, record, state()["x"].tolist())
        ),
    )
    group.solo_states = lambda: group.states
    yield group
    gate.set()
    saving.leave(group)


def restored(group, index, kind="last"):
    found = group.active[index].checkpoints.restore({"x": np.zeros(3, np.float32)}, kind=kind)
    return found and (found[0]["x"].tolist(), found[1])


def test_the_states_of_all_that_go_on_are_written_after_their_histories(group):
    saving.begin(group, best={2})
    saving.settle(group)
    assert restored(group, 0) == ([0.0] * 3, 5)
    assert restored(group, 1) is None
    assert restored(group, 2, "best") == restored(group, 2) == ([2.0] * 3, 5)
    assert restored(group, 0, "best") is None
    assert group.order == [
        *(("flush", "run0"), ("flush", "run2")),
        *(("history", "run0"), ("state", "run0"), ("history", "run2"), ("state", "run2")),
    ]
    assert group.told == [
        ("save", 0, {"kind": "save", "step": 5, "best": False}, [0.0] * 3),
        ("save", 2, {"kind": "save", "step": 5, "best": True}, [2.0] * 3),
    ]
    assert group.said == []
    saving.settle(group)
    assert len(group.told) == 2


def test_training_goes_on_while_a_save_is_written_and_the_next_waits_for_it(group):
    group.gate.clear()
    saving.begin(group)
    group.step, group.states = 6, [jnp.full(3, 9.0)] * 3
    saving.settle(group, if_done=True)
    assert group.told == []
    assert group.writing is not None
    threading.Timer(0.05, group.gate.set).start()
    writer = group.writer
    saving.begin(group)
    assert [record["step"] for _, _, record, _ in group.told] == [5, 5]
    assert group.writer is writer  # one, so that files come in the order of steps
    group.writing[0].result()
    saving.settle(group, if_done=True)
    assert [record["step"] for _, _, record, _ in group.told] == [5, 5, 6, 6]
    assert restored(group, 0) == ([9.0] * 3, 6)
    group.active[0].checkpoints.clean()
    assert group.active[0].checkpoints.steps() == [6, 5]


def test_a_save_holds_its_step_though_the_memory_is_used_again(group):
    state = np.zeros(3, np.float32)
    group.states = [state] * 3
    group.gate.clear()
    saving.begin(group)
    state[:] = 7
    group.gate.set()
    saving.settle(group)
    assert restored(group, 0) == ([0.0] * 3, 5)


def test_a_failure_is_said_and_kept_until_a_save_succeeds(group):
    group.full.set()
    saving.begin(group)
    saving.settle(group)
    assert str(group.failed_save) == "full"
    assert group.said == ["warning: full; training goes on, the next save will be tried"]
    assert group.told == []
    group.full.clear()
    saving.begin(group)
    assert str(group.failed_save) == "full"  # not written yet
    saving.settle(group)
    assert group.failed_save is None
    assert len(group.told) == 2


def test_a_history_that_cannot_be_written_is_a_failure_too(group):
    def full():
        raise ResourceError("no room")

    group.active[0].history.flush = full
    saving.begin(group)
    assert str(group.failed_save) == "no room"
    assert len(group.said) == 1
    assert group.writing is None
    assert restored(group, 0) is None


def test_of_several_hosts_one_saves(group, monkeypatch):
    monkeypatch.setattr(saving.hosts, "first", lambda: False)
    saving.begin(group)
    assert (group.writing, group.order) == (None, [])


def test_leaving_waits_for_what_is_written(group):
    saving.leave(group)  # of nothing yet
    group.gate.clear()
    saving.begin(group)
    threading.Timer(0.05, group.gate.set).start()
    saving.leave(group)
    assert restored(group, 2) == ([2.0] * 3, 5)


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_the_thread_that_saves_gives_way_and_alone(group, monkeypatch, allowed, system):
    monkeypatch.setattr(sys, "platform", system)
    asked = []

    def setpriority(which, who, priority):
        asked.append((which, who, priority, threading.get_native_id()))
        if not allowed:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", setpriority)
    saving.begin(group)
    saving.settle(group)
    if system == "linux":  # elsewhere threads have no priority of their own
        ((which, who, priority, own),) = asked
        assert (which, priority) == (os.PRIO_PROCESS, 10)
        assert who == own != threading.get_native_id()
    else:
        assert asked == []
    assert restored(group, 0) == ([0.0] * 3, 5)
