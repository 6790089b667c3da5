"""A checkpoint is that of its run, step and kind, or it is not taken."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxcnn.core import trees
from jaxcnn.errors import CheckpointError, Preempted
from jaxcnn.runs import checkpoint
from jaxcnn.runs.evaluation import Best
from jaxcnn.runs.open import open as open_run
from jaxcnn.weights import load
from jaxcnn.weights.files import read_sealed, write_arrays
from tests.tiny import Lines, fit, stop_at, tiny

LAST = "checkpoints/last-{:09d}.safetensors".format


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one experiment but for the seed, with checkpoints of steps 5 and 8."""
    folders = [tmp_path_factory.mktemp(name) / "run" for name in "ab"]
    for seed, folder in enumerate(folders):
        with pytest.raises(Preempted):
            fit(tiny(seed=seed), folder, observe=[stop_at(8)])
    return folders


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the whole run, which goes on working."""
    return shutil.copytree(runs[0], tmp_path / "moved")


def older_over_newest(run, other):
    shutil.copy(run / LAST(5), run / LAST(8))
    return "is the checkpoint of step 5, named as step 8", 5


def renamed(run, other):
    (run / LAST(8)).rename(run / LAST(12))
    return "is the checkpoint of step 8, named as step 12", 5


def of_another_run(run, other):
    shutil.copy(other / LAST(8), run / LAST(8))
    return "belongs to another run", 5


def last_as_best(run, other):
    name = run / "checkpoints/best-000000008.safetensors"
    (run / LAST(8)).rename(name)
    return "was saved as 'last', named as 'best'", 5


MISPLACED = pytest.mark.parametrize(
    "misplace", [older_over_newest, renamed, of_another_run, last_as_best]
)


@MISPLACED
def test_a_misplaced_checkpoint_is_named_and_the_right_one_is_taken(runs, run, misplace, capsys):
    text, step = misplace(run, runs[1])
    assert open_run(run, tiny()).step == step  # of state, evaluate, predict, export, --from
    assert text in capsys.readouterr().err
    console = Lines()
    fit(tiny(), run, resume=True, console=console)
    assert any(text in line for line in console.lines)
    assert list((run / "checkpoints").glob("*.damaged"))


@MISPLACED
def test_weights_of_a_run_are_not_taken_from_a_misplaced_checkpoint(runs, run, misplace):
    text, _ = misplace(run, runs[1])
    for path in (run / "checkpoints").glob("best-000000005*"):
        path.unlink()
    variables = jax.jit(tiny().model.init, static_argnames="train")(
        jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32), train=False
    )
    params, rest = variables["params"], {"batch_stats": variables["batch_stats"]}
    newest = max((run / "checkpoints").glob("*-*.safetensors"), key=lambda p: p.name[5:])
    for source in (run, newest):
        with pytest.raises(CheckpointError, match=text):
            load.fill(tiny().model, params, rest, source)


def test_swapped_checkpoints_are_both_refused(run):
    (run / LAST(5)).rename(run / "x")
    (run / LAST(8)).rename(run / LAST(5))
    (run / "x").rename(run / LAST(8))
    for path in (run / "checkpoints").glob("best-*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="not this run's"):
        _ = open_run(run, tiny()).state
    with pytest.raises(CheckpointError, match="not this run's"):
        fit(tiny(), run, resume=True)


def test_a_run_that_was_made_before_there_were_identities_goes_on(run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    del record["id"]
    (run / "run.json").write_text(json.dumps(record))
    for path in (run / "checkpoints").iterdir():
        arrays, metadata = read_sealed(path)
        old = {key: metadata[key] for key in ("format", "step", "state_sha256")}
        write_arrays(path, arrays, old)
    assert open_run(run, tiny()).step == 8
    assert fit(tiny(), run, resume=True)["completed"]


def test_replicas_that_changed_places_are_refused(tmp_path):
    points = [{"seed": 0}, {"seed": 1}]
    with pytest.raises(Preempted):
        fit(tiny(), tmp_path / "s", points=points, observe=[stop_at(6)])
    records = [json.loads((tmp_path / f"s/replicas/{i}/run.json").read_text()) for i in (0, 1)]
    sweep = json.loads((tmp_path / "s/run.json").read_text())
    assert [r["id"] for r in records] == [f"{sweep['id']}-{i}" for i in (0, 1)]
    (tmp_path / "s/replicas/0").rename(tmp_path / "x")
    (tmp_path / "s/replicas/1").rename(tmp_path / "s/replicas/0")
    (tmp_path / "x").rename(tmp_path / "s/replicas/1")
    with pytest.raises(CheckpointError, match="is not replica 0 of this sweep"):
        fit(tiny(), tmp_path / "s", resume=True)
    with pytest.raises(CheckpointError, match="holds replica 1"):
        open_run(tmp_path / "s", tiny(), replica=0)


class Killed(BaseException):
    """Ends a run as a kill does, as far as its files are concerned."""


def is_the_best(run):
    """Whether the best checkpoint is the one that the history calls the best."""
    best = Best(tiny().task)
    for record in run.history:
        if record["kind"] == "eval":
            best.add(record)
    return open_run(run.folder, tiny(seed=run.record.get("point", {}).get("seed", 0)),
                    checkpoint="best").step == best.record["step"]  # fmt: skip


SWEEP = [{"seed": 0}, {"seed": 1}]


@pytest.mark.parametrize(
    "points, place",
    [
        (SWEEP, "after"),
        pytest.param(SWEEP, "between", marks=pytest.mark.slow),
        pytest.param(None, "between", marks=pytest.mark.slow),
        pytest.param(None, "after", marks=pytest.mark.slow),
    ],
    ids=["sweep-after", "sweep-between", "solo-between", "solo-after"],
)
def test_best_is_the_best_evaluations_after_a_kill_between_two_files(
    tmp_path, monkeypatch, points, place
):
    """At any save of a best one, of a run and of each replica of a sweep, then in the resumed run
    at each evaluation.
    """
    whole = fit(tiny(), tmp_path / "whole", points=points)
    link, saves = checkpoint._same_file, 0
    for at in range(2, 8):

        def kill(existing, new, at=at):
            nonlocal saves
            saves += 1
            if saves == at and place == "between":
                raise Killed
            link(existing, new)
            if saves == at:
                raise Killed

        saves, folder = 0, tmp_path / f"run{at}"
        monkeypatch.setattr(checkpoint, "_same_file", kill)
        try:
            fit(tiny(), folder, points=points)
        except Killed:
            pass
        else:
            break
        monkeypatch.setattr(checkpoint, "_same_file", link)
        replicas = open_run(folder, tiny()).replicas

        def look(event, replicas=replicas):
            if event.kind == "save":
                assert is_the_best(replicas[event.replica])

        console = Lines()
        done = fit(tiny(), folder, resume=True, observe=[look], console=console)
        assert not [line for line in console.lines if "AssertionError" in line]
        for a, b in zip(done.get("replicas", [done]), whole.get("replicas", [whole]), strict=True):
            assert a["state_sha256"] == b["state_sha256"]
        assert all(map(is_the_best, replicas))
    assert at > 2


def test_a_run_that_falls_back_finds_the_best_of_then(tmp_path):
    saved = checkpoint.Checkpoints(tmp_path)
    state = {"x": np.zeros(3, np.float32)}
    for step in (4, 8):
        saved.save(state, step=step, best=True)
    for path in tmp_path.glob("*-000000008.*"):
        path.write_bytes(b"damaged")
    assert saved.restore(state)[1] == saved.restore(state, kind="best")[1] == 4
    assert trees.flatten(saved.restore(state)[0])["x"].tolist() == [0, 0, 0]


def test_a_file_of_a_later_format_says_so(tmp_path):
    saved = checkpoint.Checkpoints(tmp_path)
    saved.save({"x": np.zeros(3, np.float32)}, step=1)
    path = tmp_path / "last-000000001.safetensors"
    arrays, metadata = read_sealed(path)
    write_arrays(path, arrays, {**metadata, "format": "jaxcnn 7"})
    said = []
    with pytest.raises(CheckpointError):
        saved.restore({"x": np.zeros(3, np.float32)}, warn=said.append)
    assert "is of format 'jaxcnn 7'" in said[0]
