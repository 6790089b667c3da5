"""A run that an earlier version made is opened, evaluated and resumed by this one.

tests/runs/frozen/ holds one for each format of runs and checkpoints; none is ever made anew. Where
this test fails, the format has changed: give it a new number, and either read the old one or refuse
it by its number.
"""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxcnn.runs.checkpoint import digest
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.train import train
from tests.conftest import ROOT

FROZEN = sorted((ROOT / "tests/runs/frozen").iterdir())


@pytest.mark.parametrize("frozen", FROZEN, ids=lambda path: path.name)
def test_an_old_run_is_opened_evaluated_and_resumed(frozen, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(frozen, folder)
    old = json.loads((folder / "summary.json").read_text())
    run = open_run(folder)
    assert (run.step, old["step"], old["completed"]) == (30, 30, False)
    assert digest(run.state) == old["state_sha256"]
    found = run.evaluate()
    for name in ("loss", "auroc", "count", "support"):
        np.testing.assert_allclose(found[name], old["eval"][name], rtol=1e-5)
    steps = [record["step"] for record in run.history]
    done = train(None, folder, resume=True, quiet=True)
    assert done.summary["completed"]
    assert done.step == 60
    assert [record["step"] for record in done.history][: len(steps)] == steps
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(done.state.params))
    assert done.summary["eval"]["loss"] < old["eval"]["loss"]


def test_the_frozen_runs_are_small():
    for frozen in FROZEN:
        assert sum(p.stat().st_size for p in frozen.rglob("*") if p.is_file()) < 50_000
