"""The list of runs: what is in it, in which state, and what is left out of it."""

import json
import os
import subprocess
import sys
from functools import partial

import optax
import pytest

from jaxcnn.commands import _main
from jaxcnn.commands.runs import table
from jaxcnn.errors import ConfigError, DivergedError, Preempted
from jaxcnn.runs.listing import runs_in
from jaxcnn.runs.rundir import locked
from jaxcnn.runs.train import train
from tests.conftest import ROOT
from tests.tiny import fit, stop_at, tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, a stopped one, a diverged one, a sweep, and much that is none."""
    folder = tmp_path_factory.mktemp("listing")
    fit(tiny(steps=4), folder / "done", name="first")
    with pytest.raises(Preempted):
        fit(tiny(), folder / "stopped", observe=(stop_at(7),))
    wild = tiny(optimizer=partial(optax.sgd, learning_rate=1e30), clip_norm=None)
    with pytest.raises(DivergedError):
        fit(wild, folder / "group" / "wild")
    points = [{"seed": 0}, {"seed": 1}]
    train(tiny(steps=4), folder / "sweep", points=points, way="loop", quiet=True)
    (folder / "empty" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / "file.txt").write_text("x")
    (folder / "torn").mkdir()
    (folder / "torn" / "run.json").write_text('{"format": 2, "experim')
    (folder / "old").mkdir()
    (folder / "old" / "run.json").write_text('{"format": 1}')
    (folder / "link").symlink_to(folder / "done")
    for i, name in enumerate(("done", "stopped", "group/wild", "sweep")):
        record = json.loads((folder / name / "run.json").read_text())
        record["began"] = f"2026-12-01T09:30:0{i}+00:00"
        (folder / name / "run.json").write_text(json.dumps(record))
    return folder


def by_name(rows):
    return {os.path.basename(row["run"]): row for row in rows}


def test_each_run_is_in_it_with_its_state_and_result(place):
    rows, _ = runs_in(place)
    assert [os.path.basename(row["run"]) for row in rows] == ["sweep", "wild", "stopped", "done"]
    found = by_name(rows)
    metrics = json.loads((place / "done" / "summary.json").read_text())["eval"]
    done = found["done"]
    assert (done["experiment"], done["state"], done["step"]) == ("first", "completed", 4)
    assert (done["metric"], done["value"], done["count"]) == ("accuracy", metrics["accuracy"], 21)
    assert (found["stopped"]["state"], found["stopped"]["step"]) == ("interrupted", 7)
    assert found["wild"]["value"] is None
    assert found["wild"]["state"].startswith("diverged at step ")
    summary = json.loads((place / "sweep" / "summary.json").read_text())
    assert found["sweep"]["replicas"] == 2
    assert found["sweep"]["value"] == summary["best"]["mean"]
    assert found["sweep"]["state"] == "completed"


def test_what_is_left_out_is_said(place):
    _, left_out = runs_in(place)
    text = "\n".join(left_out)
    for name, words in (
        ("torn", "cannot be read"),
        ("old", "an older version"),
        ("link", "is a link"),
        ("deep", "holds no run"),
    ):
        assert any(name in line and words in line for line in left_out), (name, text)
    assert ".hidden" not in text
    assert len(left_out) == 4


def test_a_sweep_is_listed_with_its_runs(place):
    rows, left_out = runs_in(place / "sweep")
    assert by_name(rows).keys() == {"sweep", "0", "1"}
    assert left_out == []


def test_one_that_trains_is_running(place):
    with locked(place / "stopped", resume=True):
        assert by_name(runs_in(place)[0])["stopped"]["state"] == "running"
    assert by_name(runs_in(place)[0])["stopped"]["state"] == "interrupted"


def test_nothing_is_changed_and_jax_is_not_started(place):
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*.json*")}
    code = (
        "import sys\nfrom jaxcnn.commands._main import main\n"
        "assert main(['runs', sys.argv[1], '--json']) == 0\nassert 'jax' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, place], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 4
    assert before == {p: p.stat().st_mtime_ns for p in place.rglob("*.json*")}


def test_the_table(place, capsys):
    assert _main.main(["runs", str(place)]) == 0
    out, err = capsys.readouterr()
    head, *lines = out.splitlines()
    assert head.split() == ["run", "experiment", "state", "metric", "value", "n", "step", "began"]
    assert len(lines) == 4
    assert len({line.rfind("2001-09-0") for line in lines}) == 1  # columns stand below one another
    assert err.count("left out: ") == 4
    assert table([]) == []


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        runs_in(tmp_path / "nowhere")
