"""The loop over programs of plain numbers: what is logged, evaluated and saved when."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from jaxcnn.data.dataset import indices_of_steps
from jaxcnn.errors import Preempted, ResourceError
from jaxcnn.runs import loop
from tests.runs.plain_group import MEANS, STEPS, events, make, numbers, run


@pytest.fixture
def made(monkeypatch):
    """Makes groups."""
    return partial(make, monkeypatch)


@pytest.mark.parametrize("dispatch", [1, 2, 3])
def test_a_run_logs_means_and_evaluates_and_saves_at_its_intervals(made, dispatch):
    group = made(dispatch=dispatch)
    run(group)
    (one,) = group.replicas
    assert numbers(one) == MEANS
    assert events(group, "eval") == [("eval", step, 0) for step in (5, 10, 12)]
    assert events(group, "save") == [("save", step, [0]) for step in (5, 10, 12)]
    assert [r["epoch"] for r in one.told if r["kind"] == "eval"] == [
        s * 8 / 50 for s in (5, 10, 12)
    ]
    assert group.happened[-1] == "leave"
    assert group.happened[-2] == "settle"
    for step in (5, 10):
        order = [one[0] for one in group.happened if one[1] == step]
        assert order == ["train", "eval", "save"]
    assert group.program.seen == [(8,)] * STEPS
    assert (group.step, int(group.states[0].step)) == (STEPS, STEPS)


@pytest.mark.parametrize("way, kinds", [("loop", 3), ("vmap", 1), ("2", 2)])
def test_replicas_have_their_own_numbers_and_best_evaluations(made, way, kinds):
    """Of three replicas the second is best at once, the others at the end."""
    group = made(3, way=way, accuracy=lambda step, i: -step if i == 1 else step)
    run(group)
    within = {"loop": (0, 0, 0), "vmap": (0, 100, 200), "2": (0, 100, 0)}[way]
    for one, more in zip(group.replicas, within, strict=True):
        assert numbers(one) == {step: mean + more for step, mean in MEANS.items()}
    which = [
        [r["metrics"]["which"] for r in one.told if r["kind"] == "eval"] for one in group.replicas
    ]
    assert which == [[more // 100] * 3 for more in within]
    assert events(group, "save") == [
        ("save", 5, [0, 1, 2]),
        ("save", 10, [0, 2]),
        ("save", 12, [0, 2]),
    ]
    assert len(group.bundles) == kinds
    shapes = {"loop": {(8,)}, "vmap": {(3, 8)}, "2": {(2, 8), (8,)}}[way]
    assert set(group.program.seen) == shapes


def test_each_replica_is_fed_in_the_order_of_its_seed(made):
    group = made(2, way="vmap")
    run(group)
    for step, rows in enumerate(group.train.taken):
        own = [indices_of_steps(s, step, step + 1, size=50, batch_size=8)[0] for s in (0, 1)]
        np.testing.assert_array_equal(rows, own)


@pytest.mark.parametrize("at, saved", [(3, 3), (5, 5), (1, 1)])
def test_a_signal_saves_and_says_where_the_run_was_stopped(made, at, saved):
    for way in ("signal", "until"):
        group = made(**({"until": at} if way == "until" else {}))
        stop = (lambda group=group: group.step >= at) if way == "signal" else lambda: False
        with pytest.raises(Preempted, match=f"stopped by a signal at step {at} of 12"):
            run(group, stop)
        assert events(group, "save") == [("save", saved, [0] if at == 5 else [])]
        assert group.happened[-2:] == ["settle", "leave"]
        assert max(numbers(group.replicas[0])) == at


def test_a_signal_at_the_last_step_is_no_interruption(made):
    group = made()
    run(group, lambda: group.step == STEPS)
    assert group.step == STEPS
    group = made()
    group.failed_save = ResourceError("full")
    with pytest.raises(ResourceError, match="full; stopped by a signal at step 2, not saved"):
        run(group, lambda: group.step == 2)


@pytest.fixture
def clock(monkeypatch):
    """Time, of which each step takes `each` seconds."""
    clock = SimpleNamespace(now=1000.0, each=0.0)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock.now)
    return clock


def ticking(group, clock, seconds):
    """Has each step take so long."""
    for bundle in group.bundles:
        step = bundle.single.train_step

        def timed(state, batch, step=step):
            clock.now += seconds
            return step(state, batch)

        bundle.single.train_step = timed


def test_what_is_not_saved_for_half_a_minute_is_saved(made, clock):
    group = made(fields={"eval_every": 1e6})
    ticking(group, clock, 10.0)
    run(group)
    # at most 30 s after the last: more than that are four steps
    assert events(group, "save") == [("save", 4, []), ("save", 8, []), ("save", 12, [0])]
    group = made(fields={"eval_every": 1e6})
    ticking(group, clock, 29.0)
    group.writing = "the one before"
    run(group)
    assert events(group, "save") == [("save", 12, [0])]


def test_of_several_hosts_the_first_asks_for_a_save_and_all_forget_it(made, clock, monkeypatch):
    forgotten = []
    for first in (True, False):
        monkeypatch.setattr(loop.hosts, "first", lambda first=first: first)
        group = made(fields={"eval_every": 1e6})
        ticking(group, clock, 10.0)
        group.agree.forget = lambda group=group: forgotten.append(group.step)
        run(group)
        assert [step for _, step, _ in events(group, "save")] == ([4, 8, 12] if first else [12])
        assert forgotten == ([4, 8, 12] if first else [12])
        forgotten.clear()


def test_speed_is_that_of_the_steps_since_the_last_record(made, clock, monkeypatch):
    monkeypatch.setattr(loop, "compilations", lambda: 0)
    group = made()
    ticking(group, clock, 0.5)
    run(group)
    rates = numbers(group.replicas[0], "images_per_second")
    assert rates == {step: pytest.approx(8 / 0.5) for step in MEANS}
    counts = iter(range(1000))  # each dispatch compiles
    monkeypatch.setattr(loop, "compilations", lambda: next(counts))
    group = made()
    run(group)
    assert set(numbers(group.replicas[0], "images_per_second").values()) == {None}
