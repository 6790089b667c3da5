"""Observers: what they are told, and what becomes of one that misbehaves."""

import jax
import numpy as np
import pytest

import jaxcnn
from jaxcnn.runs import events
from jaxcnn.runs.checkpoint import digest
from jaxcnn.runs.train import train
from tests.tiny import Lines, fit, tiny


def test_events_are_the_history(tmp_path):
    seen = []
    run = train(tiny(), tmp_path, observe=[lambda event: seen.append(event)], quiet=True)
    kept = [event.record for event in seen if event.kind in ("train", "eval", "stop")]
    assert kept == run.history
    kinds = [event.kind for event in seen]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("save") == len([e for e in seen if e.kind == "eval"])
    assert all(event.replica == 0 and event.step == event.record["step"] for event in seen)


def test_a_state_that_an_observer_keeps_outlives_the_step(tmp_path):
    """And it is that of the solo run at that step, whichever way replicas run."""
    kept = {}

    def keep(event):
        if event.kind == "train" and event.step in (3, 7):
            kept[event.replica, event.step] = event.state()

    def digests(**options):
        kept.clear()
        e = options.pop("e", tiny())
        train(
            e, tmp_path / str(len(list(tmp_path.iterdir()))), observe=[keep], quiet=True, **options
        )
        return {key: digest(state) for key, state in kept.items()}

    solo = [digests(e=tiny(seed=seed)) for seed in (0, 1)]
    many = digests(points=[{"seed": 0}, {"seed": 1}], way="loop")
    assert many == {(i, step): solo[i][0, step] for i in (0, 1) for step in (3, 7)}
    assert len(set(many.values())) == 4
    assert int(kept[1, 7].step) == 7


def test_an_observer_that_raises_is_reported_once_and_dropped(tmp_path):
    calls, console = [], Lines()

    def broken(event):
        calls.append(event.kind)
        if event.kind == "train":
            raise ValueError("no such server")

    run = train(tiny(), tmp_path / "a", observe=[broken, broken_too := Counter()], console=console)
    assert calls == ["start", "train"]
    assert sum("no such server" in line for line in console.lines) == 1
    assert "broken" in next(line for line in console.lines if "no such server" in line)
    assert broken_too.count > 15, "the others go on"
    assert run.summary["state_sha256"] == fit(tiny(), tmp_path / "b")["state_sha256"]


class Counter:
    count = 0

    def __call__(self, event):
        self.count += 1
        return "what it returns is ignored"


def test_an_observer_is_called_by_its_own_name_or_by_that_of_its_code(tmp_path):
    class Own(Counter):
        name = "the server of the third floor"

        def __call__(self, event):
            raise ValueError("is down")

    def function(event):
        pass

    names = [
        events.name_of(one) for one in (Own(), Counter(), Counter, Own, function, Own().__call__)
    ]
    assert names[:4] == [Own.name, "Counter", "Counter", Own.name]
    assert [name.rpartition(".")[2] for name in names[4:]] == ["function", "__call__"]
    console = Lines()
    train(tiny(steps=1), tmp_path, observe=[Own()], console=console)
    assert sum(Own.name in line and "is down" in line for line in console.lines) == 1


def test_what_an_observer_returns_is_ignored_and_said_once(tmp_path):
    console = Lines()
    train(tiny(), tmp_path, observe=[Counter()], console=console)
    assert sum("returned str, which is ignored" in line for line in console.lines) == 1


def test_an_observer_that_holds_training_up_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "SLOW_SECONDS", -1.0)
    console = Lines()
    train(tiny(), tmp_path, observe=[lambda event: None], console=console)
    assert sum("held training up" in line and "lambda" in line for line in console.lines) == 1


def test_an_interrupt_within_an_observer_is_no_fault(tmp_path):
    def stop(event):
        if event.kind == "train" and event.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path, observe=[stop], quiet=True)
    assert train(tiny(), tmp_path, resume=True, quiet=True).summary["completed"]


def test_histograms_of_weights_in_ten_lines(tmp_path):
    """The example of the documents: an observer that asks for the state."""
    counts = {}

    def histogram(event: jaxcnn.Event) -> None:
        if event.kind == "eval":
            leaves = jax.tree.leaves(event.state().params)
            values = np.concatenate([np.ravel(x) for x in leaves])
            counts[event.step] = np.histogram(values, bins=20)[0]

    train(tiny(), tmp_path, observe=[histogram], quiet=True)
    assert {int(c.sum()) for c in counts.values()} == {4 * 9 + 2 * 4 + 64 * 3 + 3}
