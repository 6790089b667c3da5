"""How runs begin and are kept: late imports, where code lies, first numbers, what JSON can hold."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys

import jax
import pytest

from jaxcnn.core.rendering import without_nan
from jaxcnn.runs import beginning, code, environment
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.replica import start_variables
from tests.runs.test_members import planned
from tests.runs.test_opened import E, put
from tests.tiny import fit, tiny

LATE = """
from functools import partial
import optax
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.digits import Digits
from jaxcnn.models.lenet import LeNet5
from jaxcnn.tasks.classification import Classification

def late():
    import neighbour_that_is_imported_late
    return neighbour_that_is_imported_late.VALUE

experiment = Experiment(
    model=LeNet5(), task=Classification(num_classes=10), data=Digits(),
    optimizer=partial(optax.sgd, learning_rate=0.1),
)
"""


def test_a_neighbour_may_be_imported_after_loading_and_comes_last(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = list(sys.path)
    (tmp_path / "late_experiment.py").write_text(LATE)
    (tmp_path / "neighbour_that_is_imported_late.py").write_text("VALUE = 3\n")
    module = code.module_of(tmp_path / "late_experiment.py")
    assert module.late() == 3
    assert sys.path == [*before, str(tmp_path)]
    code.module_of(tmp_path / "late_experiment.py")
    assert sys.path == [*before, str(tmp_path)]  # once


def test_the_code_of_a_run_lies_in_its_folder(tmp_path):
    kept = {"file": "mine.py", "module": "mine", "overrides": ["steps=3"]}
    found = code.origin_in(tmp_path, {"code": kept}, overrides=("seed=1",))
    assert found == code.Origin(tmp_path / "code" / "mine.py", "mine", ("steps=3", "seed=1"))
    assert code.origin_in(tmp_path, {"code": {**kept, "file": None}}) is None


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_hold_is_none_wherever_it_stands(lost):
    found = without_nan({"a": lost, "b": [1.5, lost, {"c": (lost, 2)}], "d": "nan", "e": 3})
    assert found == {"a": None, "b": [1.5, None, {"c": [None, 2]}], "d": "nan", "e": 3}


def test_initialize_is_given_parameters_collections_and_the_training_examples():
    given = []

    def begin(params, model_state, source):
        given.append((params, model_state, len(source)))
        return {"new": params}, {"also": model_state}

    e = tiny(initialize=begin)
    found = start_variables(e, jax.random.key(0), e.data.open("train"), print)
    ((params, model_state, size),) = given
    assert set(params) == {"Conv_0", "BatchNorm_0", "Dense_0"}
    assert set(model_state) == {"batch_stats"}
    assert size == 50
    assert found == {"params": {"new": params}, "also": model_state}
    assert start_variables(tiny(), jax.random.key(0), e.data.open("train"), print) is None


def git(folder, *words):
    own = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *own, *words], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("changed", [True, False])
def test_what_was_changed_in_jaxcnns_checkout_is_kept_with_the_run(tmp_path, monkeypatch, changed):
    """What is kept leads, by git itself, back to what was committed."""
    package = tmp_path / "checkout" / "jaxcnn"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "first")):
        git(package.parent, *words)
    (package / "__init__.py").write_text("x = 2\n" if changed else "x = 1\n")
    monkeypatch.setattr(environment, "PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    plan = planned(tmp_path / "run", environment=environment.commit(package))
    beginning.describe(plan, E.data.open("train"))
    kept = tmp_path / "run" / "code" / "jaxcnn.diff"
    assert kept.exists() == changed
    if changed:
        git(package.parent, "apply", "--reverse", str(kept))
        assert (package / "__init__.py").read_text() == "x = 1\n"


def test_relative_places_of_data_begin_where_the_run_that_is_gone_on_with_was_started(
    tmp_path, monkeypatch
):
    """Where its own copy of the code is gone on with; another experiment's begin here."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    there = tmp_path / "there"
    start = open_run(put(tmp_path / "runs" / "a", started_in=str(there)))
    own = code.Origin(start.folder / "code" / "mine.py", "mine")
    new = code.Origin(tmp_path / "mine.py", "mine")
    found = [
        beginning._start(planned(tmp_path / "b", start=of, origin=origin))
        for of, origin in ((start, own), (start, new), (start, None), (None, new), (None, None))
    ]
    assert found == [there, *[tmp_path / "here"] * 4]


def test_hosts_that_go_on_from_other_states_are_not_the_same(tmp_path):
    """Each reads the run itself, and makes the steps that are left after that."""
    runs = {name: tmp_path / name for name in ("short", "long", "other")}
    for name, fields in {"short": {"steps": 2}, "long": {"steps": 3}, "other": {"seed": 1}}.items():
        fit(tiny(**{"steps": 2, **fields}), runs[name])
    runs["copy"] = tmp_path / "copied" / "short"
    shutil.copytree(runs["short"], runs["copy"])
    runs["of its name"] = tmp_path / "elsewhere" / "short"
    shutil.copytree(runs["other"], runs["of its name"])
    plan = planned(tmp_path)
    found = {
        name: json.dumps(beginning.asked(dataclasses.replace(plan, start=open_run(folder))))
        for name, folder in runs.items()
    }
    assert found["short"] == found["copy"]
    assert len(set(found.values())) == 4
    assert json.dumps(beginning.asked(plan)) not in found.values()
