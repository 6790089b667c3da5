"""The rows of the list of runs, from folders that are written by hand."""

import datetime
import errno
import json
import os
import time
from pathlib import Path

import pytest

from jaxcnn.runs.listing import metric_of, row_of, runs_in
from jaxcnn.runs.rundir import owned
from tests.runs.test_record_rules import RUN

SOLO = {k: value for k, value in RUN.items() if k not in ("points", "published", "began")}


def put(folder, *, record=SOLO, summary=None, lines=(), began=1e9):
    """A run directory with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))
    os.utime(folder / "run.json", (began, began))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def trained(step, seconds):
    return {"kind": "train", "step": step, "epoch": 0.5, "seconds": seconds}


def evaluated(step, seconds, **metrics):
    return {**trained(step, seconds), "kind": "eval", "metrics": metrics}


HISTORY = [
    evaluated(2, 1.5, loss=3.0, accuracy=0.25, count=21),
    evaluated(4, 2.5, loss=2.0, accuracy=0.5, count=22),
    evaluated(6, 3.5, loss=1.0, accuracy=0.75, count=23),
    trained(7, 4.5),
    trained(8, 5.5),
]
ENDED = {**{"completed": True, "seconds": 9.5, "verdict": "completed", "step": 10, "epoch": 1.0}}
ENDED |= {"eval": None}


def test_a_row_says_what_files_say_of_a_run(tmp_path):
    row = row_of(put(tmp_path, lines=HISTORY, began=1e9 + 0.75))
    assert row == {
        **{"run": str(tmp_path), "experiment": "mine", "state": "interrupted"},
        **{"metric": "loss", "value": 1.0, "count": 23, "step": 8, "replicas": 1, "seconds": 5.5},
        "date": row["date"],
    }
    assert row["date"] == datetime.datetime.fromtimestamp(1e9).isoformat()  # whole seconds
    kept = {**SOLO, "began": datetime.datetime.fromtimestamp(9e8, datetime.UTC).isoformat()}
    row = row_of(put(tmp_path / "copied", record=kept, began=1e9))
    assert row["date"] == datetime.datetime.fromtimestamp(9e8).isoformat()
    row = row_of(put(tmp_path, lines=HISTORY, summary=ENDED))
    assert (row["state"], row["step"], row["seconds"]) == ("completed", 10, 9.5)
    row = row_of(put(tmp_path / "new"))
    assert (row["step"], row["seconds"], row["state"]) == (0, 0.0, "interrupted")
    assert (row["metric"], row["value"], row["count"]) == (None, None, None)
    row = row_of(put(tmp_path / "first", lines=HISTORY[-1:]))
    assert (row["step"], row["metric"], row["value"]) == (8, None, None)
    named = {**SOLO, "rendered": {**SOLO["rendered"], "task": {"metric": "accuracy"}}}
    row = row_of(put(tmp_path / "first", record=named, lines=HISTORY[-1:]))
    assert (row["metric"], row["value"]) == (None, None)  # of which there is no evaluation yet


@pytest.mark.parametrize(
    "more, summary, state",
    [
        ({}, {}, "completed"),
        ({}, {"verdict": "stopped early at step 5"}, "stopped early at step 5"),
        ({}, {"completed": False, "verdict": "diverged at step 3"}, "diverged at step 3"),
        ({}, {"completed": False, "verdict": "interrupted at step 3"}, "interrupted"),
        ({"published": RUN["published"]}, {"completed": False}, "published"),
    ],
)
def test_how_a_run_ended(tmp_path, more, summary, state):
    put(tmp_path, record={**SOLO, **more}, summary={**ENDED, **summary})
    assert row_of(tmp_path)["state"] == state


def test_a_run_whose_lock_is_held_is_running(tmp_path, monkeypatch):
    put(tmp_path)
    start = time.monotonic()
    with owned([tmp_path]):
        assert row_of(tmp_path)["state"] == "running"
        with monkeypatch.context() as patched:  # the lock of another user's run
            patched.setattr(os, "access", lambda path, mode: False)
            assert row_of(tmp_path)["state"] == "interrupted"
    assert time.monotonic() - start < 0.9, "it was waited for the lock"
    assert row_of(tmp_path)["state"] == "interrupted"

    def no_locks(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert row_of(tmp_path)["state"] == "interrupted"  # not known: no lock can be held there


@pytest.mark.parametrize(
    "value, shown",
    [(1, 1), (-0.5, -0.5), (0, 0), (True, None), ("1", None), (None, None), ([1], None),
     (10**400, None), (1.5e308, 1.5e308)],
    ids=str,
)  # fmt: skip
def test_what_is_no_finite_number_is_not_shown(tmp_path, value, shown):
    row = row_of(put(tmp_path, lines=[evaluated(1, 1.0, loss=value, count=value)]))
    assert (row["metric"], row["value"], row["count"]) == ("loss", shown, shown)


@pytest.mark.parametrize(
    "task, metric, larger_is_better",
    [
        ({"metric": "accuracy"}, "accuracy", True),
        ({"metric": "loss", "larger_is_better": False}, "loss", False),
        ({"metric": 3, "larger_is_better": True}, "first", True),
        ({}, "first", True),
        (None, "first", True),
        ("text", "first", True),
    ],
)
def test_the_metric_is_the_tasks_or_the_first_of_an_evaluation(task, metric, larger_is_better):
    record = {"rendered": {} if task is None else {"task": task}}
    evaluations = [evaluated(1, 1.0, first=1, second=2), evaluated(2, 2.0, third=3)]
    assert metric_of(record, evaluations) == (metric, larger_is_better)
    named = metric if isinstance(task, dict) and metric == task.get("metric") else None
    assert metric_of(record, []) == (named, larger_is_better)


def test_a_sweep_has_the_mean_of_its_best_setting(tmp_path):
    record = {**SOLO, "points": [{"seed": 0}, {"seed": 1}, {"seed": 2}]}
    summary = {
        **{"completed": True, "seconds": 7.5, "metric": "accuracy", "settings": []},
        **{"best": {"mean": 0.5}, "replicas": [{"step": 4}, {"step": 6}, {"step": None}, {}]},
    }
    row = row_of(put(tmp_path, record=record, summary=summary))
    assert row == {
        **{"run": str(tmp_path), "experiment": "mine", "state": "completed", "count": None},
        **{"metric": "accuracy", "value": 0.5, "step": 6, "replicas": 3, "seconds": 7.5},
        "date": row["date"],
    }
    row = row_of(put(tmp_path, record=record, summary={**summary, "best": None, "replicas": []}))
    assert (row["value"], row["step"]) == (None, 0)
    row = row_of(put(tmp_path / "new", record=record))
    assert (row["state"], row["metric"], row["value"]) == ("interrupted", None, None)
    assert (row["step"], row["seconds"], row["replicas"]) == (0, 0.0, 3)


def below(folder, rows):
    return [str(Path(row["run"]).relative_to(folder)) for row in rows]


def test_runs_are_found_four_folders_deep_the_newest_first(tmp_path):
    put(tmp_path / "a/b/c/found", began=1e9 + 1)
    put(tmp_path / "a/run", began=1e9 + 3)
    put(tmp_path / "z", began=1e9 + 2)
    put(tmp_path / "a/b/c/deep/beyond")
    put(tmp_path / "a/run/inside")  # a run's own folder is not looked into
    put(tmp_path / ".hidden")
    (tmp_path / "a/file").touch()
    rows, left_out = runs_in(tmp_path)
    assert below(tmp_path, rows) == ["a/run", "z", "a/b/c/found"]
    assert left_out == [f"{tmp_path}/a/b/c/deep: holds no run.json, and is not looked into"]


def test_what_is_left_out_is_named_once(tmp_path, monkeypatch):
    put(tmp_path / "group/run")
    for name in ("empty", "nest/one", "nest/two", "some/run", "some/none"):
        (tmp_path / name).mkdir(parents=True)
    put(tmp_path / "some/run")
    put(tmp_path / "torn")
    (tmp_path / "torn/run.json").write_text("{")
    (tmp_path / "link").symlink_to(tmp_path / "group")
    (tmp_path / "closed").mkdir()
    look = Path.iterdir

    def refused(folder):
        if folder.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(folder)

    monkeypatch.setattr(Path, "iterdir", refused)
    rows, left_out = runs_in(tmp_path)
    assert sorted(below(tmp_path, rows)) == ["group/run", "some/run"]
    torn = [text for text in left_out if "torn" in text]
    assert len(torn) == 1
    assert torn[0].startswith(f"{tmp_path}/torn/run.json: cannot be read")
    assert sorted({*left_out} - {*torn}) == [
        f"{tmp_path}/closed: cannot be read (Permission denied)",
        f"{tmp_path}/empty: holds no run",
        f"{tmp_path}/link: is a link",
        f"{tmp_path}/nest/one: holds no run",
        f"{tmp_path}/nest/two: holds no run",
        f"{tmp_path}/some/none: holds no run",
    ]


def test_a_sweep_is_followed_by_its_runs_and_a_folder_of_that_name_is_none(tmp_path):
    record = {**SOLO, "points": [{"seed": 0}, {"seed": 1}]}
    put(tmp_path / "sweep", record=record)
    for i in range(2):
        put(tmp_path / f"sweep/replicas/{i}", began=1e9 + i)
    (tmp_path / "sweep/replicas/2").mkdir()
    rows, left_out = runs_in(tmp_path / "sweep")
    assert below(tmp_path, rows) == ["sweep", "sweep/replicas/1", "sweep/replicas/0"]
    assert left_out == [f"{tmp_path}/sweep/replicas/2: holds no run"]
    (tmp_path / "sweep/run.json").unlink()
    rows, _ = runs_in(tmp_path / "sweep")
    assert below(tmp_path, rows) == ["sweep/replicas/1", "sweep/replicas/0"]
    solo = put(tmp_path / "solo")
    assert below(tmp_path, runs_in(solo)[0]) == ["solo"]
