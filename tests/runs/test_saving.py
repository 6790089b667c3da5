"""Saves are written beside training: it goes on meanwhile, and they hold the step that they say."""

import signal
import threading

import jax
import numpy as np
import pytest

import jaxcnn
from jaxcnn.errors import Preempted, ResourceError
from jaxcnn.runs import loop, saving
from jaxcnn.runs.checkpoint import Checkpoints, digest
from jaxcnn.weights.files import read_sealed
from tests.tiny import Lines, fit, stop_at, tiny

STEPS = 12


@pytest.fixture
def often(monkeypatch):
    """A save after each step, as soon as the last one is written; an evaluation at the end."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    return tiny(eval_every=1e6, steps=STEPS)


def test_training_goes_on_while_a_save_is_written(tmp_path, monkeypatch, often):
    """The first one, begun at step 1, may end when step 6 is done; it holds step 1 all the same, of
    which the arrays have been donated to the steps since.
    """
    states, told, reached, begun = {}, [], threading.Event(), []
    write = Checkpoints.write

    def slow(self, arrays, *, step, best=False):
        begun.append(step)
        assert reached.wait(60), "training waits for the save"
        return write(self, arrays, step=step, best=best)

    def look(event):
        if event.kind == "train":
            states[event.step] = digest(event.state())
            if event.step == 6:
                assert begun == [1]
                assert not told
                reached.set()
        if event.kind == "save":
            told.append(event.step)
            path = event.folder / "checkpoints" / f"last-{event.step:09d}.safetensors"
            _, metadata = read_sealed(path)
            assert metadata["state_sha256"] == states[event.step] == digest(event.state())

    monkeypatch.setattr(Checkpoints, "write", slow)
    console = Lines()
    jaxcnn.train(often, tmp_path / "run", observe=[look], console=console)
    assert not [line for line in console.lines if "look" in line]
    assert told[0] == 1
    assert told[1] > 6
    assert told[-1] == STEPS


def test_a_save_changes_no_bit_of_the_run(tmp_path, often, monkeypatch):
    saved = fit(often, tmp_path / "often")["state_sha256"]
    monkeypatch.setattr(loop, "SAVE_SECONDS", 1e9)
    assert fit(often, tmp_path / "once")["state_sha256"] == saved


def test_a_signal_whose_save_fails_does_not_say_that_the_state_was_saved(tmp_path, monkeypatch):
    def full(self, arrays, *, step, best=False):
        raise ResourceError(f"{self.folder}: cannot be written (no space left on device)")

    monkeypatch.setattr(Checkpoints, "write", full)
    e, console = tiny(eval_every=1e6), Lines()
    with pytest.raises(ResourceError, match=r"no space left.*by a signal at step 3, not saved"):
        jaxcnn.train(e, tmp_path / "run", observe=[stop_at(3)], console=console)
    assert any("the next save will be tried" in line for line in console.lines)
    monkeypatch.undo()
    with pytest.raises(Preempted, match="state saved"):
        jaxcnn.train(e, tmp_path / "again", observe=[stop_at(3, signal.SIGINT)], quiet=True)
    assert jaxcnn.open(tmp_path / "again", e).step == 3


def test_a_run_that_ends_by_an_error_has_written_what_it_began(tmp_path, monkeypatch, often):
    write, done = Checkpoints.write, []

    def slow(self, arrays, *, step, best=False):
        threading.Event().wait(0.3)
        done.append(step)
        return write(self, arrays, step=step, best=best)

    def broken(event):
        if event.kind == "train" and event.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "write", slow)
    with pytest.raises(KeyboardInterrupt):
        jaxcnn.train(often, tmp_path / "run", observe=[broken], quiet=True)
    assert done == [1]
    assert jax.tree.leaves(jaxcnn.open(tmp_path / "run", often).state)


def test_what_is_written_lies_in_memory_of_its_own():
    state = {"x": jax.numpy.arange(1000.0), "key": jax.random.key(0)}
    held = saving._held(state)
    assert not np.shares_memory(held["x"], np.asarray(state["x"]))
    assert digest(state) == digest(held)
