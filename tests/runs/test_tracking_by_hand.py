"""What a tracker is told, and when: from events and files made by hand."""

import json
import re
from pathlib import Path

import pytest

from jaxcnn.errors import CheckpointError
from jaxcnn.runs.events import Event
from jaxcnn.runs.rundir import write_json
from jaxcnn.runs.tracking import Tracker
from tests.runs.test_record_rules import RUN, SUMMARY

SOLO = {k: v for k, v in RUN.items() if k not in ("points", "replica", "point", "published")}


class Logger:
    """A plain logger, and what it was opened for."""

    def __init__(self, run):
        self.run, self.told, self.summaries = run, [], []

    def log(self, step, values):
        self.told.append((step, dict(values)))

    def close(self, summary):
        self.summaries.append(summary)


@pytest.fixture
def tracked():
    """Makes trackers, and keeps the loggers that they open."""
    opened = []

    def make(name="mine"):
        return Tracker(lambda run: opened.append(Logger(run)) or opened[-1], name=name)

    make.opened = opened
    return make


def run_in(folder, record=SOLO, history=()):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", record)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))
    return folder


def record(step, kind="train", **more):
    return {"kind": kind, "step": step, "epoch": 0.5, "seconds": 1.0, **more}


def event(folder, kind, step, **more):
    content = record(step, kind, **more) if kind in ("train", "eval") else more
    return Event(kind, step, content, state=lambda: None, folder=folder)


def losses(logger):
    return [
        (step, values.get("train/loss", values.get("eval/loss"))) for step, values in logger.told
    ]


def test_a_run_is_opened_at_its_first_record_and_told_each_once(tmp_path, tracked):
    folder = run_in(tmp_path / "mine", history=[record(1, loss=1.0), record(2, loss=2.0)])
    tracker = tracked()
    tracker(event(None, "train", 2, loss=2.0))  # made by hand, of no run
    tracker(event(folder, "start", 0, steps=4))
    tracker(event(folder, "save", 2))
    assert tracked.opened == []
    tracker(event(folder, "train", 2, loss=2.0))  # which the history has already
    (logger,) = tracked.opened
    about = logger.run
    assert (about.folder, about.id, about.resumed) == (folder, SOLO["id"], False)
    assert (about.name, about.project, about.group) == ("mine", "mine", None)
    assert about.config["steps"] == 3
    assert "replica" not in about.config
    assert losses(logger) == [(1, 1.0), (2, 2.0)]
    tracker(event(folder, "eval", 2, metrics={"loss": 0.5}))  # another kind at the same step
    tracker(event(folder, "train", 3, loss=3.0))
    tracker(event(folder, "train", 3, loss=3.0))
    assert losses(logger) == [(1, 1.0), (2, 2.0), (2, 0.5), (3, 3.0)]
    assert tracked.opened == [logger]
    assert json.loads((folder / "track.json").read_text()) == {
        "mine": {"id": SOLO["id"], "logged": {"train": 3, "eval": 2}}
    }


def test_a_run_that_goes_on_is_told_what_it_was_not_and_keeps_its_identity(tmp_path, tracked):
    history = [record(step, loss=float(step)) for step in (0, 1, 2, 3)]
    stop = record(3, "stop", why="stopped early", at=3)
    folder = run_in(tmp_path / "mine", history=[*history, stop])
    kept = {"mine": {"id": "elsewhere", "logged": {"train": 1}}, "other": {"id": "its"}}
    (folder / "track.json").write_text(json.dumps(kept))
    tracked()(event(folder, "train", 4, loss=4.0))
    (logger,) = tracked.opened
    assert (logger.run.id, logger.run.resumed) == ("elsewhere", True)
    assert losses(logger) == [(2, 2.0), (3, 3.0), (4, 4.0)]
    found = json.loads((folder / "track.json").read_text())
    assert found == {**kept, "mine": {"id": "elsewhere", "logged": {"train": 4}}}
    fresh = run_in(tmp_path / "fresh", history=history)
    tracked()(event(fresh, "train", 3, loss=3.0))
    assert losses(tracked.opened[1]) == [(s, float(s)) for s in (0, 1, 2, 3)]  # the first is 0


def test_a_run_without_an_identity_is_given_one(tmp_path, tracked):
    older = {k: v for k, v in SOLO.items() if k != "id"}
    for name in "ab":
        tracked()(event(run_in(tmp_path / name, older), "train", 1, loss=1.0))
    ids = [logger.run.id for logger in tracked.opened]
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
    assert len(set(ids)) == 2


def test_a_replica_is_named_after_its_sweep(tmp_path, tracked):
    sweep = {**SOLO, "replica": 2, "point": {"seed": 7, "optimizer.learning_rate": 0.5}}
    folder = run_in(tmp_path / "sweep" / "replicas" / "2", sweep)
    tracked()(event(folder, "train", 1, loss=1.0))
    about = tracked.opened[0].run
    assert (about.name, about.group) == ("sweep-2", "sweep")
    wanted = {"replica": 2, "seed": 7, "optimizer.learning_rate": 0.5, "steps": 3}
    assert wanted.items() <= about.config.items()


def test_a_logger_is_closed_with_the_summary_where_its_run_ends(tmp_path, tracked):
    folders = [run_in(tmp_path / name) for name in "abcd"]
    tracker = tracked()
    for folder in folders[:3]:
        tracker(event(folder, "train", 1, loss=1.0))
    done, torn, dropped = tracked.opened
    numbers = {"eval": {"accuracy": 0.5, "matrix": [[1]]}, "best": {"step": 3}, "test": None}
    write_json(folders[0] / "summary.json", {**SUMMARY, **numbers, "verdict": "good"})
    tracker(event(folders[0], "stop", 1, why="stopped early", at=1))
    assert done.summaries == []
    tracker(event(folders[0], "end", 5))
    assert done.summaries == [
        {**{"completed": True, "seconds": 0.5, "verdict": "good", "step": 0, "epoch": 0},
         **{"eval/accuracy": 0.5, "best/step": 3, "state_sha256": "89ab"}}
    ]  # fmt: skip
    tracker(event(folders[1], "end", 5))
    assert torn.summaries == [{"completed": False, "verdict": "not finished", "step": 5}]
    tracker(event(folders[2], "stop", 4, why="dropped at a rung", at=4))
    assert dropped.summaries == [{"completed": True, "verdict": "dropped at a rung", "step": 4}]
    for folder in folders:
        tracker(event(folder, "end", 6))  # no more, and of the last one nothing was told
    assert [len(logger.summaries) for logger in tracked.opened] == [1, 1, 1]


@pytest.mark.parametrize("text, says", [("{", "cannot be read"), ("[]", "was edited or damaged")])
def test_a_damaged_track_is_refused_lest_steps_are_told_twice(tmp_path, tracked, text, says):
    folder = run_in(tmp_path / "mine")
    Path(folder / "track.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"track\.json: {says}"):
        tracked()(event(folder, "train", 1, loss=1.0))
