"""Two inputs: both count, prediction and export ask for both, on the command line too."""

import dataclasses
import json
from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.runs.train import train
from tests.commands.test_cli import launch
from tests.recipes.checks import check_replicas, check_resume, recipe

MODULE = recipe("two_inputs")
SMALL = dataclasses.replace(
    MODULE.experiment,
    model=MODULE.TwoInputs(width=2),
    optimizer=partial(optax.sgd, learning_rate=0.1),
    steps=10,
    log_every=1,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(
        MODULE.experiment,
        tmp_path_factory.mktemp("two") / "run",
        origin=None,
        quiet=True,
    )


@pytest.mark.slow  # of the recipes, four prove it in every run of the tests
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path):
    check_resume(SMALL, tmp_path)


@pytest.mark.slow  # of the recipes, SAM proves it in every run of the tests
def test_replicas_are_solo_runs(tmp_path):
    check_replicas(SMALL, tmp_path)


def test_it_learns_and_both_inputs_are_asked_for(run, tmp_path):
    assert run.summary["eval"]["accuracy"] > 0.9
    rows = MODULE.HalvedDigits().open("eval").take(np.arange(20))
    inputs = {name: np.asarray(rows[name]) for name in ("image", "profile")}
    both = run.predict(inputs)
    assert np.mean([p["label"] == t for p, t in zip(both, rows["label"], strict=True)]) > 0.8
    zeros = run.predict({**inputs, "profile": np.zeros_like(inputs["profile"])})
    assert [p["probability"] for p in both] != [p["probability"] for p in zeros]
    for wrong in ({"image": inputs["image"]}, inputs["image"]):
        with pytest.raises(ConfigError, match="profile is missing"):
            run.predict(wrong)
    with pytest.raises(ConfigError, match="takes image, profile, not vector"):
        run.predict({**inputs, "vector": inputs["profile"]})
    pytest.importorskip("flatbuffers")
    described = run.export(tmp_path / "model.jax")
    assert set(described["inputs"]) == {"image", "profile"}
    blob = (tmp_path / "model.jax").read_bytes()
    out = jax.export.deserialize(blob).call(inputs)
    assert np.asarray(out["label"]).tolist() == [p["label"] for p in both]


def test_both_on_the_command_line(run, tmp_path):
    rows = MODULE.HalvedDigits().open("eval").take(np.arange(3))
    for name in ("image", "profile"):
        np.save(tmp_path / f"{name}.npy", np.asarray(rows[name]))
    given = [f"{name}={tmp_path / name}.npy" for name in ("image", "profile")]
    done = launch("predict", run.folder, "--input", *given, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 3
    for arguments in (["--input", given[0]], [tmp_path / "digit.png"]):
        done = launch("predict", run.folder, *arguments)
        assert done.returncode == 2
        assert "profile" in done.stderr
