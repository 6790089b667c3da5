"""The suite of faults: a handful in every run of the tests; and that it would notice."""

import copy
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.faults.suite import CLASSES
from tests.faults.world import differences, leftovers

QUICK = (
    "kill -9 of training",
    "kill -9 of a save",
    "damaged checkpoint",
    "signal",
    "random settings",
    "random command lines",
)


def suite(tmp_path, *arguments):
    """(exit code, {class: counts}, what was printed) of `python -m tests.faults`."""
    out = tmp_path / "faults.json"
    line = [sys.executable, "-m", "tests.faults", "--out", str(out), *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    text = done.stdout + done.stderr
    assert out.exists(), text
    return done.returncode, json.loads(out.read_text())["classes"], text


def test_a_few_faults_lose_nothing(tmp_path):
    few = ("--rounds", "1", "--seed", "7", "--recipes", "plain", "--only", *QUICK)
    code, classes, text = suite(tmp_path, *few)
    assert code == 0, text
    assert {name: c["tried"] > 0 for name, c in classes.items()} == dict.fromkeys(QUICK, True)
    assert all(c["held"] == c["tried"] for c in classes.values())


@pytest.mark.slow
def test_faults_of_every_class_lose_nothing(tmp_path):
    code, classes, text = suite(tmp_path, "--rounds", "3", "--seed", "8")
    assert code == 0, text
    assert set(classes) == set(CLASSES)


RUN = {
    ".": {
        "summary": {"state_sha256": "a", "step": 3},
        "history": [{"kind": "train", "step": s, "loss": 1.0 / s} for s in (1, 2, 3)],
    }
}


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run["summary"].update(state_sha256="b"),
        lambda run: run["summary"].pop("step"),
        lambda run: run["history"].pop(1),
        lambda run: run["history"].insert(1, run["history"][1]),
        lambda run: run["history"][2].update(loss=0.5),
    ],
    ids=["other bits", "no step", "a gap", "a step twice", "another loss"],
)
def test_it_would_notice(change):
    found = copy.deepcopy(RUN)
    assert not differences(RUN, found, exact=True)
    change(found["."])
    assert differences(RUN, found, exact=True)


def test_it_would_notice_what_is_left(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("last-1", "last-2", "best-1", "best-2", "best-3"):
        (folder / name).touch()
    assert not leftovers(tmp_path)
    for name in (".last-3.tmp", "last-3.damaged", "best-4"):
        (folder / name).touch()
        assert leftovers(tmp_path)
        (folder / name).unlink()
