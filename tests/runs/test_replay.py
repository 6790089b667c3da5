"""Steps made again give the bits that were saved; the list of checkpoints says what each is."""

import contextlib
import json
import shutil
from functools import partial

import numpy as np
import optax
import pytest

import jaxcnn
from jaxcnn.commands._main import main
from jaxcnn.errors import BusyError, ConfigError, DivergedError, Preempted
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.runs.inventory import inventory, prune
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.replay import verify
from jaxcnn.runs.rundir import locked
from jaxcnn.weights.files import read_sealed, write_arrays
from tests.tiny import fit, stop_at, tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "run"
    with pytest.raises(Preempted):
        fit(tiny(), folder, observe=[stop_at(8)])
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


@pytest.mark.parametrize("steps, start", [(1, 5), (4, 0)])
def test_the_same_bits_come_again_and_the_run_is_not_touched(run, steps, start):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found = verify(run, experiment=tiny(), steps=steps)
    assert (found["from"], found["to"]) == (start, 8)
    assert found["same"]
    assert found["differs"] is None
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": partial(optax.sgd, learning_rate=1e-9), "patience": 1, "steps": 60},
        {"optimizer": partial(optax.sgd, learning_rate=1e30), "steps": 12},
    ],
    ids=["stopped early", "diverged"],
)
def test_a_run_that_stopped_before_its_last_step_is_made_again(tmp_path, fields):
    e = tiny(**fields, clip_norm=None, ema=None, eval_every=0.3)
    with contextlib.suppress(DivergedError):
        fit(e, tmp_path / "run")
    run = open_run(tmp_path / "run", experiment=e)
    last = run.checkpoints.steps()[0]
    assert run.history[-1]["kind"] == "stop"
    found = verify(run, experiment=e, steps=1)
    assert found["from"] < found["to"] == last
    assert found["same"], found["differs"]


def test_one_other_bit_is_found_and_its_leaf_named(run):
    path = run / "checkpoints/last-000000008.safetensors"
    arrays, metadata = read_sealed(path)
    changed = arrays["params/Dense_0/kernel"].copy()
    changed[0, 0] = np.nextafter(changed[0, 0], np.float32(9))
    arrays["params/Dense_0/kernel"] = changed
    write_arrays(path, arrays, metadata)
    found = verify(run, experiment=tiny())
    assert not found["same"]
    assert found["differs"].startswith("params/Dense_0/kernel: 1 of 192 numbers differ")


def test_what_cannot_be_verified_says_so(run, tmp_path):
    with pytest.raises(ConfigError, match="at least 1"):
        verify(run, experiment=tiny(), steps=0)
    with pytest.raises(Preempted):
        fit(tiny(), tmp_path / "s", points=[{"seed": 0}, {"seed": 1}], observe=[stop_at(2)])
    with pytest.raises(ConfigError, match="of single runs"):
        verify(tmp_path / "s", experiment=tiny())


def test_a_single_checkpoint_of_a_run_that_went_on_from_another_has_no_start(run, tmp_path):
    """Nothing would be made again, and nothing would be compared."""
    further = tmp_path / "further"
    with pytest.raises(Preempted):
        jaxcnn.train(tiny(), further, start=run, observe=[stop_at(10)], quiet=True)
    prune(open_run(further), 1)
    assert len(open_run(further).checkpoints.steps()) == 1
    with pytest.raises(ConfigError, match="its start lies in the run that it goes on from"):
        verify(further, experiment=tiny())


def test_what_is_carried_over_is_saved_before_the_first_step(run, tmp_path):
    seen = []
    further = tmp_path / "further"

    def look(event):
        seen.append(Checkpoints(further / "checkpoints").steps())

    jaxcnn.train(tiny(), further, start=run, observe=[look], quiet=True)
    assert seen[0] == [8]


def test_a_sweep_keeps_two(tmp_path):
    folder = tmp_path / "sweep"
    fit(tiny(steps=9, eval_every=0.5), folder, points=[{"seed": 0}, {"seed": 1}])
    with pytest.raises(ConfigError, match="keep at least 2"):
        prune(open_run(folder), 1)
    prune(open_run(folder), 2)
    assert {len(one.checkpoints.steps()) for one in open_run(folder).replicas} == {2}


def test_the_list_says_what_each_checkpoint_is(run):
    newest = run / "checkpoints/last-000000008.safetensors"
    history = [r for r in open_run(run).history if r["kind"] == "eval"]
    rows = inventory(open_run(run), verify=True)
    assert [(row["kind"], row["step"], row["seal"]) for row in rows] == [
        ("best", 5, "good"), ("last", 5, "good"), ("last", 8, "good")]  # fmt: skip
    assert rows[0]["metrics"]["accuracy"] == history[0]["metrics"]["accuracy"]
    assert rows[2]["state_sha256"] == json.loads((run / "summary.json").read_text())["state_sha256"]
    blob = bytearray(newest.read_bytes())
    blob[-1] ^= 1
    newest.write_bytes(blob)
    assert inventory(open_run(run))[2]["seal"] == "not verified"
    row = inventory(open_run(run), verify=True)[2]
    assert row["seal"] == "bad"
    assert "SHA-256" in row["fault"]
    newest.rename(f"{newest}.damaged")
    assert inventory(open_run(run))[2]["fault"].startswith("set aside")


def test_pruning_keeps_the_newest_and_its_best_and_waits_for_nobody(run):
    with pytest.raises(ConfigError, match="at least 1"):
        prune(open_run(run), 0)
    with locked(run, resume=True), pytest.raises(BusyError):
        prune(open_run(run), 1)
    assert [path[-26:] for path in prune(open_run(run), 1)] == ["last-000000005.safetensors"]
    assert [row["kind"] for row in inventory(open_run(run))] == ["best", "last"]
    assert fit(tiny(), run, resume=True)["completed"]


def test_the_verbs_answer_with_the_right_code(run, capsys):
    assert main(["checkpoints", str(run), "--verify"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    shutil.copy(run / "checkpoints/last-000000005.safetensors",
                run / "checkpoints/last-000000008.safetensors")  # fmt: skip
    assert main(["checkpoints", str(run), "--json"]) == 4
    found = capsys.readouterr()
    assert json.loads(found.out)[2]["fault"] == "is the checkpoint of step 5, named as step 8"
    assert "is the checkpoint of step 5" in found.err
    assert main(["checkpoints", str(run), "--prune", "0"]) == 2
