"""The loop over programs of plain numbers: what stops a replica or a run, and what is owed then."""

import contextlib
import dataclasses
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from jaxcnn.core.memory import Fitting
from jaxcnn.errors import ConfigError, DataError, ResourceError
from jaxcnn.runs import loop
from jaxcnn.runs.ways import Way
from tests.runs.plain_group import MEANS, events, make, numbers, run


@pytest.fixture
def made(monkeypatch):
    """Makes groups."""
    return partial(make, monkeypatch)


@pytest.mark.parametrize("patience, last", [(None, 12), (1, 10), (2, 12)])
def test_a_run_without_progress_is_stopped_when_patience_is_over(made, patience, last):
    group = made(accuracy=lambda step, i: 0.5, fields={"patience": patience})
    run(group)
    assert group.step == last
    stops = events(group, "stop")
    assert stops == ([("stop", 10, 0)] if last == 10 else [])  # at the last step it has ended
    if stops:
        assert (group.replicas[0].stopped["why"], group.replicas[0].stopped["at"]) == (
            "stopped early",
            10,
        )


def test_the_others_go_on_where_one_loses_patience(made):
    group = made(
        2, accuracy=lambda step, i: step if i == 1 or step == 5 else 0.0, fields={"patience": 1}
    )
    group.replicas[1].best.since = 0
    run(group)
    assert events(group, "stop") == [("stop", 10, 0)]
    assert [one for one in events(group, "train", "eval") if one[1] > 10] == [
        *(("train", 12, 1), ("eval", 12, 1)),
    ]


def test_a_replica_that_diverged_is_stopped_and_logs_no_more(made, monkeypatch):
    diverged = []

    def diverge(group, place):
        diverged.append((group.step, place))
        group.active[place].stopped = {"why": "diverged", "at": 3}

    monkeypatch.setattr(loop, "diverge", diverge)
    group = made(2, way="vmap")
    step = group.bundles[0].single.train_step

    def breaks(state, batch):
        state, told = step(state, batch)
        if state.step.max() == 3:
            state = state._replace(live=np.array([True, False]))
        return state, told

    group.bundles[0].single.train_step = breaks
    run(group)
    assert diverged == [(4, 1)]
    assert list(numbers(group.replicas[0])) == list(MEANS)
    assert list(numbers(group.replicas[1])) == [2]
    assert [one for one in events(group, "eval") if one[2] == 1] == []


def test_data_that_cannot_be_read_end_the_run_where_it_is_saved(made):
    group = made(broken=7)
    with pytest.raises(DataError, match="a picture is gone; stopped at step 7 of 12"):
        run(group)
    assert events(group, "save")[-1] == ("save", 7, [])
    assert group.happened[-2:] == ["settle", "leave"]
    assert max(numbers(group.replicas[0])) == 7
    group = made(broken=7)
    group.failed_save = ResourceError("full")
    with pytest.raises(DataError, match=r"a picture is gone$"):
        run(group)
    group = made(broken=1)
    group.train.taken = [None]  # at once: there is nothing to save
    with pytest.raises(DataError, match=r"a picture is gone$"):
        run(group)
    assert events(group, "save") == []


def test_a_divergence_that_was_not_seen_yet_is_before_data_that_cannot_be_read(made, monkeypatch):
    """Then there is nothing to go on with."""

    def diverge(group, place):
        group.active[place].stopped = {"why": "diverged", "at": 3}

    monkeypatch.setattr(loop, "diverge", diverge)
    group = made(broken=3)
    step = group.bundles[0].single.train_step

    def breaks(state, batch):
        state, told = step(state, batch)
        return state._replace(live=np.bool_(state.step < 3)), told

    group.bundles[0].single.train_step = breaks
    with pytest.raises(DataError, match=r"a picture is gone$"):
        run(group)
    assert events(group, "save") == []


def test_a_number_that_is_not_finite_is_null_and_said_once(made):
    group = made(bad={3: True, 7: True})
    run(group)
    (one,) = group.replicas
    assert [step for step, value in numbers(one, "more").items() if value is None] == [4, 8]
    assert numbers(one) == MEANS
    assert group.said == ["warning: 'more' is not finite at step 4; it is logged as null"]


def test_an_evaluation_that_a_stopped_run_owes_is_made_first(made):
    for step, seen, owes in (
        *((5, [], True), (5, [4], True), (5, [5], False), (4, [], False), (12, [10], True)),
        *((12, [12], False), (3, [], True)),  # a rung
    ):
        group = made(step=step, rungs={3: 1})
        group.replicas[0].seen = [{"step": s} for s in seen]
        assert loop._owes_evaluation(group) is False  # it has saved nothing itself
        group.resumed = True
        assert loop._owes_evaluation(group) is owes, (step, seen)
    group = made(2, step=5)
    group.resumed = True
    group.replicas[0].seen = [{"step": 5}]
    assert loop._owes_evaluation(group) is True  # one of them
    run(group)
    assert events(group, "eval")[:2] == [("eval", 5, 0), ("eval", 5, 1)]
    group.replicas[1].stopped = {"why": "diverged"}
    group.step = 5
    assert loop._owes_evaluation(group) is False


def test_at_a_rung_all_are_evaluated_and_the_best_go_on(made):
    group = made(3, rungs={4: 1}, accuracy=lambda step, i: -float(i))
    run(group)
    assert [one for one in events(group, "eval") if one[1] <= 4] == [
        ("eval", 4, i) for i in range(3)
    ]
    assert [r.index for r in group.active] == [0]
    assert {one[2] for one in events(group, "train") if one[1] > 4} == {0}
    assert events(group, "stop") == [("stop", 4, 1), ("stop", 4, 2)]


def test_a_metric_that_a_task_does_not_give_is_named(made, monkeypatch):
    group = made()
    monkeypatch.setattr(loop.evaluation, "merge", lambda task, rows: {"loss": 1.0, "count": 2})
    with pytest.raises(ConfigError, match=r"its metric 'accuracy' is not among .*: loss, count"):
        run(group)


@pytest.mark.parametrize("compiled, good", [(1, True), (2, False)])
@pytest.mark.parametrize("which", ["single", "many"])
def test_a_step_that_is_compiled_again_is_refused(made, compiled, good, which, monkeypatch):
    group = made()
    step = Fitting(lambda state, batch: (state, {}), "a step", "none")
    step.count_compiled = lambda: compiled
    program = SimpleNamespace(train_step=step)
    group.bundles = [dataclasses.replace(group.bundles[0], **{which: program})]
    if good:
        loop._check_compiled_once(group)
    else:
        with pytest.raises(ConfigError, match="compiled 2 times in 0 steps"):
            loop._check_compiled_once(group)
        # once for each device is right, though replicas have left one of them at a rung
        group.way = Way("devices", (3,))
        monkeypatch.setattr(loop.jax, "devices", lambda: [None, None])
        loop._check_compiled_once(group)


def test_steps_are_traced_until_the_trace_is_done(made):
    traced = []

    class Profile:
        done = False

        def dispatch(self, start, end, *, settle, say):
            traced.append((start, end))
            settle()
            self.done = end >= 4
            return contextlib.nullcontext()

    group = made(dispatch=2)
    group.profile = Profile()
    run(group)
    assert traced == [(1, 2), (3, 4)]
