"""The group that trains replicas of a plan: of what it is made, and when there is none to make."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxcnn.core.meshes import Layout
from jaxcnn.core.program import make_program
from jaxcnn.core.rendering import render
from jaxcnn.runs import members, sweep
from jaxcnn.runs.members import Plan
from jaxcnn.runs.records import read_run
from jaxcnn.runs.rundir import replica_folder, write_json
from jaxcnn.runs.ways import Way
from tests.runs.plain_group import Rows
from tests.runs.test_opened import POINTS, E, put, put_sweep
from tests.runs.test_record_rules import SUMMARY
from tests.runs.test_stopping import Loose, State
from tests.tiny import Lines


@pytest.fixture
def grouped(monkeypatch):
    """Makes the group of a plan: (group, trial of ways, what states were asked for); or None."""

    def make(plan, indices, *, at=3, restored=True):
        asked = {}

        def states(*given):
            asked["states"] = given
            _, replicas, *_ = given
            one = State(np.int32(at), np.bool_(True), np.ones(1))
            return [one._replace(x=one.x * r.index) for r in replicas], at, restored

        def way(*given):
            asked["way"] = given
            return Loose("loop", (1,) * len(indices))

        def run(given, group, stop):
            assert (given, stop) == (plan, "stop")
            asked["group"] = group

        monkeypatch.setattr(members, "make_program", lambda e, *, steps: ("program", e, steps))
        monkeypatch.setattr(members, "scored", lambda program, e: ("scored", program, e))
        monkeypatch.setattr(members, "_states", states)
        monkeypatch.setattr(members, "_way", way)
        monkeypatch.setattr(members, "_run", run)
        members.train_group(plan, plan.experiment, indices, (Rows(), "held out"), "stop")
        return asked

    return make


def planned(folder, e=E, **more):
    return Plan(e, "mine", folder, Lines(), **more)


def unfinished(folder, *indices):
    """A sweep of which these replicas are not done."""
    put_sweep(folder)
    for i in range(3):
        place = replica_folder(folder, i)
        write_json(place / "run.json", {**read_run(place), "id": f"{read_run(folder)['id']}-{i}"})
        done = {**SUMMARY, "completed": i not in indices}
        write_json(place / "summary.json", done)
    return folder


def test_a_group_is_what_its_plan_says(tmp_path, grouped):
    folder, checked = unfinished(tmp_path / "s", 1), []
    place = replica_folder(folder, 0)
    write_json(place / "run.json", {**read_run(place), "steps_per_dispatch": 4})
    profile = SimpleNamespace(check=lambda steps, *, at: checked.append((steps, at)))
    plan = planned(folder, points=tuple(POINTS), halving=2, until=7, profile=profile)
    asked = grouped(plan, [0, 1, 2])
    group = asked["group"]
    assert [one.index for one in group.replicas] == [0, 1, 2]
    assert [one.experiment.seed for one in group.replicas] == [3, 4, 5]
    program = ("scored", ("program", E, 12), E)
    assert (group.experiment, group.program, group.steps, group.step) == (E, program, 12, 3)
    assert (group.dispatch, group.eval, group.until, group.profile) == (4, "held out", 7, profile)
    assert group.rungs == sweep.rungs(12, 3, 2)
    assert checked == [(12, 3)]
    assert group.resumed is True
    assert [float(state.x[0]) for state in group.solo_states()] == [0.0, 1.0, 2.0]
    assert asked["states"] == (plan, group.replicas, program, group.train, 12)
    given, base, replicas, source, trial = asked["way"]
    assert (given, base, replicas, source) == (plan, E, group.replicas, group.train)
    assert (trial.program, trial.replicas, trial.steps) == (program, 3, 12)
    assert (trial.layout, trial.say) == (Layout(), plan.console.line)
    assert trial.progress == plan.console.progress
    spec = {name: str(shape) for name, shape in E.data.spec().items()}
    assert trial.about == [render(E), spec]
    copies = trial.states()
    assert [float(state.x[0]) for state in copies] == [0.0, 1.0, 2.0]
    assert copies[0].x is not group.states[0].x  # a step takes the memory of its own
    assert [len(b["rows"]) for b in trial.batches(Way.from_text("2", 3))] == [2, 8]


def test_ways_are_tried_as_the_experiment_lays_things_out(tmp_path, grouped):
    e = dataclasses.replace(E, mesh="fsdp=-1", layout=(("params/*", None),))
    *_, trial = grouped(planned(put(tmp_path / "run", e=e), e), [0])["way"]
    assert (trial.layout.mesh, trial.layout.rules) == ("fsdp=-1", (("params/*", None),))


def test_replicas_that_are_done_are_not_trained_again(tmp_path, grouped):
    plan = planned(unfinished(tmp_path / "s"), points=tuple(POINTS))
    assert grouped(plan, [0, 1, 2]) == {}
    plan = planned(unfinished(tmp_path / "t", 1), points=tuple(POINTS))
    assert grouped(plan, [0, 2]) == {}
    asked = grouped(plan, [0, 1])  # of a group with one that is not
    assert [one.index for one in asked["group"].replicas] == [0, 1]
    solo = planned(put(tmp_path / "solo", summary={"completed": True}))
    (one,) = grouped(solo, [0])["group"].replicas
    assert (one.point, one.folder) == ({}, solo.folder)
    assert asked["group"].rungs == {}


@pytest.mark.parametrize(
    "more, at, restored, resumed",
    [
        ({}, 3, True, True),
        ({}, 3, False, False),
        ({}, 0, True, False),  # nothing was trained yet
        ({"started_from": {"run": "a", "step": 3}}, 3, True, False),  # but carried over
        ({"started_from": {"run": "a", "step": 3}}, 4, True, True),
    ],
)
def test_a_group_is_resumed_where_this_run_has_trained_it(
    tmp_path, grouped, more, at, restored, resumed
):
    plan = planned(put(tmp_path / "run", **more))
    group = grouped(plan, [0], at=at, restored=restored)["group"]
    assert group.resumed is resumed
    assert group.step == at


def test_training_time_goes_on_from_the_records(tmp_path, grouped, monkeypatch):
    monkeypatch.setattr(members.time, "monotonic", lambda: 100.0)
    record = {"kind": "train", "step": 1, "epoch": 0.1, "seconds": 7.5}
    group = grouped(planned(put(tmp_path / "run", history=[record])), [0])["group"]
    assert group.started == 92.5


@pytest.mark.parametrize(
    "resume, first, restored", [(True, True, True), (True, False, False), (False, True, False)]
)
def test_what_was_saved_is_read_by_the_first_host_of_a_run_that_goes_on(
    tmp_path, monkeypatch, resume, first, restored
):
    """Reading cuts the history off and removes what was half written, so the others leave it."""
    state = jax.jit(make_program(E, steps=12).init)(jax.random.key(E.seed))
    record = {"kind": "train", "epoch": 0.1, "seconds": 7.5}
    history = [{**record, "step": step} for step in (2, 5)]
    folder = put(tmp_path / "run", saved=[(3, state)], history=history)
    (folder / "checkpoints" / ".last-000000004.safetensors.tmp").write_text("half")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(members.hosts, "first", lambda: first)
    monkeypatch.setattr(members, "_begin", lambda *_: (["fresh"], 0))
    plan = planned(folder, resume=resume)
    one = members._open_replica(plan, E, 0, {}, {})
    states, at, found = members._states(plan, [one], make_program(E, steps=12), Rows(), 12)
    assert (at, found) == ((3, True) if restored else (0, False))
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    if not restored:
        assert states == ["fresh"]
        assert after == before
        return
    for mine, saved in zip(jax.tree.leaves(states[0].params), jax.tree.leaves(state.params),
                           strict=True):  # fmt: skip
        np.testing.assert_array_equal(mine, saved)
    assert [r["step"] for r in one.history.records] == [2]
    assert len(after) == len(before) - 1
