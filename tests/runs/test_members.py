"""Which replicas a plan has, where each lies, what tells it from others, what is left of it."""

import dataclasses
import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data.dataset import indices_of_steps
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.errors import CheckpointError, DataError, DivergedError, Preempted
from jaxcnn.runs import members
from jaxcnn.runs.board import TensorBoard
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.runs.members import Plan
from jaxcnn.runs.records import read_run
from jaxcnn.runs.rundir import replica_folder, write_json
from jaxcnn.runs.ways import Way
from tests.runs.test_opened import POINTS, E, put
from tests.runs.test_record_rules import RUN, SUMMARY
from tests.runs.test_stopping import History as Evaluations
from tests.runs.test_stopping import Replica, State, group_of
from tests.tiny import Lines, tiny

ID = RUN["id"]


def planned(folder, e=E, **more):
    return Plan(e, "mine", folder, Lines(), **more)


def test_the_groups_of_a_plan_are_divided_and_one_may_be_taken(tmp_path):
    points = (*({"seed": i} for i in range(5)), {"batch_size": 4})
    groups = planned(tmp_path, points=points).groups()
    assert [indices for _, indices in groups] == [[0, 1, 2, 3, 4], [5]]
    assert [base.batch_size for base, _ in groups] == [8, 4]
    groups = planned(tmp_path, points=points, together=2).groups()
    assert [indices for _, indices in groups] == [[0, 1], [2, 3], [4], [5]]
    groups = planned(tmp_path, points=points, together=2, part=3).groups()
    assert [(base.batch_size, indices) for base, indices in groups] == [(4, [5])]
    solo = planned(tmp_path)
    assert (solo.solo, planned(tmp_path, points=points).solo) == (True, False)
    assert [indices for _, indices in solo.groups()] == [[0]]


def test_data_of_a_resumed_run_are_where_it_was_started(tmp_path, monkeypatch):
    (tmp_path / "there" / "pictures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    e = tiny(data=Folder(path="pictures"))
    assert planned(tmp_path, e).located(e) is e
    plan = planned(tmp_path, e, started_in=tmp_path / "there")
    assert plan.located(e).data.path == str(tmp_path / "there" / "pictures")
    ((base, _),) = plan.groups()
    assert base.data.path == str(tmp_path / "there" / "pictures")


@pytest.mark.parametrize("first", [True, False])
def test_a_replica_has_its_place_its_identity_and_its_observers(tmp_path, monkeypatch, first):
    monkeypatch.setattr(members.hosts, "first", lambda: first)
    solo = planned(put(tmp_path / "solo"))
    (tmp_path / "solo" / "metrics.jsonl").write_text("damaged\n")
    replica = members._open_replica(solo, E, 0, {}, {"a": 0.5})
    assert (replica.folder, replica.checkpoints.run) == (tmp_path / "solo", ID)
    assert replica.checkpoints.folder == tmp_path / "solo" / "checkpoints"
    assert replica.checkpoints.writes is first  # of several hosts one writes
    assert (replica.index, replica.point, replica.numbers) == (0, {}, {"a": 0.5})
    (line,) = solo.console.lines
    assert "line 1 is damaged" in line
    assert "the file as it was kept as metrics.jsonl.damaged" in line
    sweep = put(tmp_path / "sweep", points=POINTS)

    def look(event):
        return None

    own = TensorBoard()
    for observe in ((look,), (look, own)):
        plan = planned(sweep, points=tuple(POINTS), observe=observe)
        replica = members._open_replica(plan, E, 2, POINTS[2], {})
        assert replica.folder == replica_folder(sweep, 2)
        assert (replica.folder / "checkpoints").is_dir()
        assert (replica.checkpoints.run, replica.experiment.seed) == (f"{ID}-2", 5)
        observers = list(replica.notify._observers)
        if not first:
            assert observers == [replica.history]
            continue
        assert observers[:2] == [replica.history, plan.console]
        boards = [one for one in observers if isinstance(one, TensorBoard)]
        assert len(boards) == 1  # the user's, where there is one
        assert (boards[0] is own) == (own in observe)
        assert look in observers


def test_a_replica_in_anothers_place_is_refused(tmp_path):
    folder = put(tmp_path / "sweep", points=POINTS)
    plan = planned(folder, points=tuple(POINTS))
    own = {"id": f"{ID}-1", "replica": 1, "point": {"seed": 4}}
    assert members._identity(plan, 1, POINTS[1]) == own
    assert members._identity(planned(put(tmp_path / "solo")), 0, {}) == {"id": ID}
    place = put(replica_folder(folder, 1), **own)
    assert members._identity(plan, 1, POINTS[1]) == own
    for key, value in (("id", f"{ID}-2"), ("replica", 2), ("point", {"seed": 7})):
        write_json(place / "run.json", {**read_run(place), **own, key: value})
        with pytest.raises(CheckpointError, match=f"is not replica 1 of this sweep: {key} is"):
            members._identity(plan, 1, POINTS[1])
    older = put(tmp_path / "older", points=POINTS)
    write_json(older / "run.json", {k: v for k, v in read_run(older).items() if k != "id"})
    plan = planned(older, points=tuple(POINTS))
    assert members._identity(plan, 0, {"fold": (0, 2)}) == {"replica": 0, "point": {"fold": [0, 2]}}


def test_each_bundle_is_tried_on_the_first_batches_of_its_replicas():
    replicas = [SimpleNamespace(experiment=tiny(seed=seed)) for seed in (3, 4, 5)]
    source = type("Source", (), {"take": lambda self, rows: rows, "__len__": lambda self: 50})()
    first = [indices_of_steps(s, 0, 1, size=50, batch_size=8)[0] for s in (3, 4, 5)]
    found = members._first_batches(Way.from_text("2", 3), tiny(), replicas, source)
    assert [batch.shape for batch in found] == [(2, 8), (8,)]
    np.testing.assert_array_equal(np.concatenate([found[0], found[1][None]]), first)


class Asked:
    """Chooses a way, and keeps what was to be chosen from."""

    def __init__(self, monkeypatch, found="vmap"):
        self.said, self.forced = [], []
        self.trial = SimpleNamespace(say=self.said.append)

        def choose(trial, *, forced):
            assert trial is self.trial
            self.forced.append(forced)
            return Way.from_text(forced or found, 2)

        monkeypatch.setattr(members, "choose", choose)

    def way(self, plan, replicas):
        source = SimpleNamespace(streaming=False)
        return members._way(plan, plan.experiment, replicas, source, self.trial)


def replicas_of(plan, *indices):
    return [members._open_replica(plan, E, i, plan.points[i], {}) for i in indices]


def test_a_single_run_has_one_way(monkeypatch, tmp_path):
    asked = Asked(monkeypatch)
    assert asked.way(planned(tmp_path), []) == Way("loop", (1,))
    assert asked.forced == []


def test_each_replica_is_made_a_run_of_its_own_with_its_way(monkeypatch, tmp_path):
    folder = put(tmp_path / "sweep", points=POINTS, halving=2, together=3, way="loop")
    (folder / "code").mkdir()
    (folder / "code" / "mine.py").write_text("x = 1\n")
    facts = {"NPROC": "7"}
    plan = planned(folder, points=tuple(POINTS), environment=facts)
    asked, replicas = Asked(monkeypatch), replicas_of(plan, 0, 1)
    (replicas[1].folder / "code").mkdir()  # of a run that was killed meanwhile
    assert asked.way(plan, replicas).text() == "loop"
    assert asked.forced == ["loop"]  # as the sweep was begun
    for replica in replicas:
        found = read_run(replica.folder)
        wanted = {"replica": replica.index, "point": replica.point, "way": "loop", **{
            "id": f"{ID}-{replica.index}", "environment": facts, "steps_per_dispatch": 1,
            "experiment": "mine"}}  # fmt: skip
        assert wanted.items() <= found.items()
        assert found["rendered"]["seed"] == replica.point["seed"]
        assert not {"points", "halving", "together"} & found.keys()
        assert found["data"]["sizes"] == {"train": 50, "eval": 21, "test": 30}
        assert found["data"]["files"] == {}
        assert (replica.folder / "code" / "mine.py").read_text() == "x = 1\n"
    assert asked.said == []
    before = read_run(replicas[0].folder)
    again = dataclasses.replace(plan, way="vmap", environment={"NPROC": "8"})
    assert asked.way(again, replicas).text() == "vmap"
    assert asked.said == ["warning: not bit-exact from here on: by vmap now, by loop before"]
    assert read_run(replicas[0].folder) == {**before, "way": "vmap"}
    asked.way(plan, replicas)
    assert asked.forced == ["loop", "vmap", "vmap"]  # as before
    asked.way(dataclasses.replace(plan, way="vmap"), replicas)
    assert len(asked.said) == 1


def test_a_replica_that_was_not_begun_takes_the_dispatch_of_the_others(monkeypatch, tmp_path):
    folder = put(tmp_path / "sweep", points=POINTS)
    (folder / "code").mkdir()
    plan = planned(folder, points=tuple(POINTS))
    asked, replicas = Asked(monkeypatch), replicas_of(plan, 0, 1)
    asked.way(plan, replicas[:1])
    assert asked.forced == [None]
    first = replicas[0].folder
    write_json(first / "run.json", {**read_run(first), "steps_per_dispatch": 16})
    asked.way(plan, replicas)
    assert read_run(replicas[1].folder)["steps_per_dispatch"] == 16
    assert read_run(replicas[1].folder)["way"] == "vmap"


def test_those_that_a_rung_dropped_are_out_of_the_program():
    stops = (None, "dropped at a rung", "stopped early", "diverged")
    replicas = [SimpleNamespace(stopped=why and {"why": why}) for why in stops]
    kept, states = members._without_dropped(replicas, list("abcd"))
    assert (kept, states) == ([replicas[0], *replicas[2:]], ["a", "c", "d"])


def summarized(tmp_path, monkeypatch, stops, **options):
    """A group of replicas that stopped so; what was to be scored on the test split."""
    scored, replicas = [], []
    for i, why in enumerate(stops):
        one = Replica(
            i, Evaluations(0.5), point={"seed": i}, experiment=E, folder=tmp_path / str(i)
        )
        one.stopped = why and {"why": why, "at": 3}
        one.folder.mkdir()
        contents = {"eval": {"accuracy": 0.5}, **options.get("summary", {})}
        one.summarize = lambda state, content, more=contents: {**content, **more}
        one.verdict = lambda why=why: {None: "completed", "dropped": "dropped at a rung"}.get(
            why, f"{why} at step 3"
        )
        replicas.append(one)
    group = group_of(*replicas)
    group.seconds = lambda: 9.5

    def evaluate_split(e, state, split, *, metrics):
        scored.append((float(state["x"]), split, metrics))
        return {"accuracy": 0.25}

    monkeypatch.setattr(members.evaluation, "evaluate_split", evaluate_split)
    return group, scored


def test_what_ended_well_is_scored_on_the_test_split(tmp_path, monkeypatch):
    stops = [None, "stopped early", "diverged", "dropped"]
    group, scored = summarized(tmp_path, monkeypatch, stops)
    group.take(group.replicas[:3], group.solo_states()[:3])  # the last has left the program
    plan = planned(tmp_path, points=tuple(POINTS))
    members._summarize(plan, group, completed=True)
    assert scored == [(i, "test", {"accuracy": 0.5}) for i in (0.0, 1.0)]
    found = json.loads((tmp_path / "0" / "summary.json").read_text())
    assert found == {
        **{"experiment": "mine", "completed": True, "step": 4, "epoch": 4 * 8 / 50},
        **{"seconds": 9.5, "eval": {"accuracy": 0.5}, "test": {"accuracy": 0.25}},
    }
    found = json.loads((tmp_path / "1" / "summary.json").read_text())
    assert (found["step"], found["epoch"]) == (3, 3 * 8 / 50)
    assert not (tmp_path / "2" / "summary.json").exists()  # `summarize` wrote it, without a score


@pytest.mark.parametrize("completed, more", [(False, {}), (True, {"eval": None})])
def test_what_was_interrupted_or_never_evaluated_is_not_scored(
    tmp_path, monkeypatch, completed, more
):
    group, scored = summarized(tmp_path, monkeypatch, [None], summary=more)
    members._summarize(planned(tmp_path), group, completed=completed)
    assert scored == []


def test_without_a_test_split_nothing_is_scored(tmp_path, monkeypatch):
    group, scored = summarized(tmp_path, monkeypatch, [None])
    group.replicas[0].experiment = tiny()
    members._summarize(planned(tmp_path), group, completed=True)
    assert scored == []


@pytest.mark.parametrize("error", [None, Preempted, DivergedError, DataError, KeyboardInterrupt])
def test_observers_hear_of_the_start_and_of_the_end_however_it_ends(tmp_path, monkeypatch, error):
    group = group_of(*(Replica(i, Evaluations()) for i in range(3)))
    group.replicas[1].stopped = {"why": "stopped early", "at": 1}
    closed, summaries = [], []
    profile = SimpleNamespace(close=closed.append)

    def run(given, stop):
        assert (given, stop) == (group, "stop")
        if error:
            raise error("so")

    monkeypatch.setattr(members.loop, "run", run)
    monkeypatch.setattr(
        members, "_summarize", lambda plan, group, *, completed: summaries.append(completed)
    )
    plan = planned(tmp_path, profile=profile)
    if error is None:
        members._run(plan, group, "stop")
    else:
        with pytest.raises(error):
            members._run(plan, group, "stop")
    assert [(kind, index) for kind, index, _ in group.told_of] == [
        (kind, i) for kind in ("start", "end") for i in range(3)
    ]
    record = group.told_of[0][2]
    assert (record["kind"], record["steps"], record["replicas"]) == ("start", 12, [0, 2])
    assert group.told_of[-1][2]["kind"] == "end"
    assert summaries == {None: [True], KeyboardInterrupt: []}.get(error, [False])
    assert closed == [plan.console.line]


def test_a_replica_is_done_when_its_summary_says_so(tmp_path):
    assert members.is_done(tmp_path) is False
    for completed in (True, False):
        write_json(tmp_path / "summary.json", {**SUMMARY, "completed": completed})
        assert members.is_done(tmp_path) is completed


def begun(tmp_path, monkeypatch, plan):
    """(states, step) that a run begins from, and what was asked."""
    asked = []

    def initial_states(replicas, program, source, say, *, pins):
        asked.append((program, source, pins))
        return [State(jnp.int32(0), jnp.bool_(True), jnp.float32(1))] * len(replicas)

    def carry(start, replicas, states, *, steps, say):
        asked.append((start, steps, say))
        return [state._replace(x=jnp.float32(7)) for state in states], 5

    monkeypatch.setattr(members, "initial_states", initial_states)
    monkeypatch.setattr(members, "carry", carry)
    replicas = [Replica(0, Evaluations(), Checkpoints(tmp_path / "c", ID))]
    (tmp_path / "c").mkdir(exist_ok=True)
    return members._begin(plan, replicas, "program", "source", 12), asked, replicas[0].checkpoints


def test_a_run_begins_with_fresh_states_or_with_those_that_it_is_given(tmp_path, monkeypatch):
    folder = put(tmp_path / "run", weights={"a": "b"})
    (states, at), asked, saved = begun(tmp_path, monkeypatch, planned(folder))
    assert (float(states[0].x), at, saved.files()) == (1.0, 0, [])
    assert asked == [("program", "source", {"a": "b"})]
    plan = planned(put(tmp_path / "other"), start="a run")
    (states, at), asked, saved = begun(tmp_path, monkeypatch, plan)
    assert (float(states[0].x), at) == (7.0, 5)
    assert asked[0][2] == {}
    assert asked[1] == ("a run", 12, plan.console.line)
    template = {"x": np.float32(0), "live": np.bool_(0)}
    assert saved.restore(template)[1] == 5  # at once, so that a kill loses nothing
    further = put(tmp_path / "further", started_from={"run": "a", "step": 3})
    with pytest.raises(CheckpointError, match="was stopped before the state of the run"):
        begun(tmp_path, monkeypatch, planned(further, resume=True))
    begun(tmp_path, monkeypatch, planned(further))
    begun(tmp_path, monkeypatch, planned(folder, resume=True))
