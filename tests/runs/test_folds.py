"""Cross-validation: folds are replicas of one sweep."""

import dataclasses
import json

import numpy as np
import pytest

from jaxcnn.commands._main import main
from jaxcnn.data.algebra import Balanced, Fold
from jaxcnn.errors import ConfigError, Preempted
from jaxcnn.runs import sweep
from jaxcnn.runs.open import open as open_run
from tests.tiny import Lines, fit, stop_at, tiny, train

FEW = {"steps": 4, "eval_every": 0.4}


def test_folds_are_replicas_that_equal_their_solo_runs(tmp_path):
    e = tiny(**FEW)
    run = train(e, tmp_path / "cv", folds=3, quiet=True)
    rows = run.summary["replicas"]
    assert [row["point"]["fold"] for row in rows] == [[0, 3], [1, 3], [2, 3]]
    assert [row["eval"]["count"] for row in rows] == [17, 17, 16]  # 50 training examples
    assert all(row["test"]["count"] == 21 for row in rows)  # the data's own eval split
    (setting,) = run.summary["settings"]
    values = [row["eval"]["accuracy"] for row in rows]
    assert setting["n"] == 3
    assert setting["setting"] == {}
    np.testing.assert_allclose(
        [setting["mean"], setting["std"]], [np.mean(values), np.std(values, ddof=1)]
    )

    solo = fit(dataclasses.replace(e, data=Fold(e.data, 1, 3)), tmp_path / "solo")
    assert solo["state_sha256"] == rows[1]["state_sha256"]
    assert solo["eval"] == rows[1]["eval"]

    again = open_run(tmp_path / "cv", e)
    assert again.replica(1).experiment.data == Fold(e.data, 1, 3)
    assert again.replica(1).evaluate()["count"] == 17
    with pytest.raises(ConfigError, match="trained on by the models of the other folds"):
        again.evaluate("eval")
    assert again.evaluate("test")["count"] == 21


def test_folds_resume_to_the_same_bits(tmp_path):
    e = tiny(**FEW)
    whole = fit(e, tmp_path / "whole", folds=2)
    observe = stop_at(2)
    with pytest.raises(Preempted):
        fit(e, tmp_path / "parts", folds=2, observe=(observe,))
    with pytest.raises(ConfigError, match="started otherwise"):
        fit(e, tmp_path / "parts", resume=True, folds=3)
    parts = fit(e, tmp_path / "parts", resume=True, folds=2)
    hashes = [[row["state_sha256"] for row in summary["replicas"]] for summary in (whole, parts)]
    assert hashes[0] == hashes[1]


def test_folds_combine_with_points():
    e = tiny()
    points = sweep.folded([{"optimizer.learning_rate": r} for r in (0.1, 0.2)], 3)
    groups = sweep.groups(e, points)
    assert [len(indices) for _, indices in groups] == [2, 2, 2]  # one program a fold
    assert [base.data for base, _ in groups] == [Fold(e.data, k, 3) for k in range(3)]
    # what is a fold already is folded anew, not twice
    folded = sweep.at(dataclasses.replace(e, data=Fold(e.data, 0, 9, groups="w")), {"fold": (2, 3)})
    assert folded.data == Fold(e.data, 2, 3, groups="w")


def test_folds_of_balanced_data_are_balanced_within_the_fold(tmp_path):
    """An example that comes several times is never trained on and scored."""
    console = Lines()
    data = tiny().data
    e = dataclasses.replace(tiny(**FEW), data=Balanced(data))
    run = train(e, tmp_path / "cv", folds=2, console=console)
    assert [row["eval"]["count"] for row in run.summary["replicas"]] == [25, 25]
    assert run.replica(1).experiment.data == Balanced(Fold(data, 1, 2))
    assert any("folds of the 50 training examples" in line for line in console.lines)


def test_folds_of_what_is_a_fold_already_are_told_of_all_its_examples(tmp_path):
    console = Lines()
    e = tiny(**FEW)
    e = dataclasses.replace(e, data=Fold(e.data, 0, 9))
    train(e, tmp_path / "cv", folds=2, console=console)
    assert any("folds of the 50 training examples" in line for line in console.lines)


@pytest.mark.parametrize(
    "options", [{"folds": 1}, {"folds": 3, "halving": 2}, {"folds": 3, "start": "x"}]
)
def test_refused(options, tmp_path):
    with pytest.raises(ConfigError, match="folds"):
        train(tiny(), tmp_path / "run", quiet=True, **options)
    assert not (tmp_path / "run").exists()


EXPERIMENT = """
import dataclasses
from tests.tiny import tiny
from jaxcnn.data.made.synthetic import Synthetic
experiment = dataclasses.replace(
    tiny(steps=2, eval_every=1.0),
    data=Synthetic((8, 8, 1), num_classes=3, num_train=24, num_eval=8),
)
"""


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp.py").write_text(EXPERIMENT)
    assert main(["train", "exp.py", "--folds", "2", "--run-dir", "cv"]) == 0
    shown = capsys.readouterr()
    assert "mean ± std over folds" in shown.out
    assert "all folds" in shown.out
    assert "n = 2" in shown.out
    assert "24 training examples; the 8 that the data hold out as 'eval' are the test" in shown.err
    record = json.loads((tmp_path / "cv/replicas/1/run.json").read_text())
    assert record["data"]["sizes"] == {"train": 12, "eval": 12, "test": 8}
    run = open_run(tmp_path / "cv", replica=1)  # made again from the code that the run kept
    assert (run.experiment.data.k, run.experiment.data.n) == (1, 2)
    assert main(["train", "--resume", "cv", "--folds", "2"]) == 2
