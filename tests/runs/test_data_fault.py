"""Data that cannot be read in the middle of a run: the state is kept, and the run goes on to the
same bits once they are repaired.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.memory import MemorySource
from jaxcnn.errors import DataError
from jaxcnn.runs.evaluation import evaluate_split
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.train import train
from tests.tiny import arrays, fit, tiny


class Failing:
    """Rows in memory of which one split cannot be read from its n-th call on, while `flag` exists.

    Streaming, as files are, so that the error comes out of a thread that reads ahead.
    """

    streaming = True
    arrays = None

    def __init__(self, rows, flag: Path, calls: int, error):
        self._source, self._flag, self._calls = MemorySource(rows), flag, calls
        self._error = error

    def __len__(self):
        return len(self._source)

    def take(self, indices):
        self._calls -= 1
        if self._calls < 0 and self._flag.exists():
            raise self._error
        return {name: np.asarray(x) for name, x in self._source.take(indices).items()}


def failing(flag: Path, split: str, calls: int, error=None):
    """The data of `tiny`, of which `split` fails."""
    data = tiny().data
    rows = {"train": arrays(50), "eval": arrays(21, seed=1)}
    error = error or DataError("cat.png: cannot be read as an image; repair or remove it")

    class Data(type(data)):
        def open(self, name):
            n = calls if name == split else 10**9
            return Failing(rows[name], flag, n, error)

    return Data(**{f.name: getattr(data, f.name) for f in dataclasses.fields(data) if f.init})


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    return train(tiny(data=failing(folder / "no flag", "train", 0)), folder / "run", quiet=True)


@pytest.mark.parametrize(("split", "calls"), [("train", 8), ("eval", 1), ("eval", 3)])
def test_the_state_is_kept_and_the_run_goes_on_to_the_same_bits(tmp_path, golden, split, calls):
    flag = tmp_path / "damaged"
    flag.touch()
    e = tiny(data=failing(flag, split, calls))
    with pytest.raises(DataError, match=r"cat\.png.*stopped at step \d+ of 12.*train --resume"):
        fit(e, tmp_path / "run")
    kept = open_run(tmp_path / "run", e)
    assert kept.step > 0
    assert kept.summary["completed"] is False
    flag.unlink()
    assert fit(e, tmp_path / "run", resume=True)["state_sha256"] == golden.summary["state_sha256"]
    rows = [
        [(r["kind"], r["step"], r.get("metrics")) for r in run.history]
        for run in (golden, open_run(tmp_path / "run", e))
    ]
    assert rows[0] == rows[1]


def test_a_failing_disk_is_no_traceback_either(tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    e = tiny(data=failing(flag, "train", 6, OSError(5, "Input/output error", "a.png")))
    with pytest.raises(DataError, match=r"Input/output error.*a\.png.*train --resume"):
        train(e, tmp_path / "run", quiet=True)


def test_a_sweep_keeps_all_of_its_states(tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    e = tiny(data=failing(flag, "train", 12))
    points = [{"seed": 0}, {"seed": 1}]
    with pytest.raises(DataError, match="train --resume"):
        train(e, tmp_path / "run", points=points, way="loop", quiet=True)
    flag.unlink()
    run = train(e, tmp_path / "run", resume=True, quiet=True)
    assert [r["verdict"] for r in run.summary["replicas"]] == ["completed"] * 2
    alone = fit(dataclasses.replace(e, seed=1), tmp_path / "alone")
    assert run.replicas[1].summary["state_sha256"] == alone["state_sha256"]


def test_what_fails_before_the_first_step_keeps_nothing(tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    with pytest.raises(DataError) as caught:
        fit(tiny(data=failing(flag, "train", 1)), tmp_path / "run")
    assert "--resume" not in str(caught.value)


def test_data_that_are_not_there_are_not_called_a_split_that_is_not(tmp_path):
    e = tiny(data=Tfds("mnist", data_dir=str(tmp_path)))
    with pytest.raises(DataError, match=r"'mnist'.* is not prepared"):
        evaluate_split(e, None, "eval")
