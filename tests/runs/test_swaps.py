"""Runs whose model and optimizer were named on the command line by their import path."""

import dataclasses
import json
import sys

import jax
import numpy as np
import optax
import pytest

from jaxcnn.core.rendering import render
from jaxcnn.errors import ConfigError
from jaxcnn.runs import sweep
from jaxcnn.runs.open import open
from jaxcnn.runs.report.facts import command
from jaxcnn.runs.train import train
from tests.tiny import TinyNet, tiny

NET = """
from tests.tiny import TinyNet

class OtherNet(TinyNet):
    pass
"""
FILE = "from tests.tiny import tiny\nexperiment = tiny(steps=6, augment=())\n"
SWAPS = ["model=own_nets.OtherNet(width=3)", "optimizer=optax.sgd(learning_rate=0.1)"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with an experiment and, apart from it, a module of models; the process starts in the
    latter's.
    """
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "own_nets.py").write_text(NET)
    (tmp_path / "swapped.py").write_text(FILE)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("own_nets", None)


def test_a_run_keeps_what_was_swapped_and_is_resumed_and_shown_without_its_source(project):
    e = tiny(steps=6, augment=())
    file, whole, part = project / "swapped.py", project / "whole", project / "part"
    train(file, whole, overrides=SWAPS, quiet=True)
    assert (whole / "code" / "own_nets.py").read_text() == NET
    train(file, part, overrides=[*SWAPS, "steps=3"], quiet=True)
    (project / "here" / "own_nets.py").unlink()
    sys.modules.pop("own_nets")

    run = open(whole)
    assert run.record["rendered"]["model"]["width"] == 3
    assert run.experiment.model.__class__.__name__ == "OtherNet"
    assert run.record["rendered"]["optimizer"] == {
        "partial": "optax._src.alias:sgd",
        "learning_rate": 0.1,
    }
    assert run.record["code"]["overrides"] == SWAPS
    assert "'optimizer=optax.sgd(learning_rate=0.1)'" in command(run)  # as a shell takes it
    # the same numbers as of an experiment that was written so
    written = dataclasses.replace(
        e, model=TinyNet(width=3), optimizer=sweep.at(e, {"optimizer": SWAPS[1][10:]}).optimizer
    )
    same = train(written, project / "written", quiet=True)
    for a, b in zip(*(jax.tree.leaves(r.state.params) for r in (run, same)), strict=True):
        np.testing.assert_array_equal(a, b)
    # a run of it goes on from it
    longer = dataclasses.replace(open(part).experiment, steps=5)
    more = train(longer, project / "more", start=part, quiet=True).experiment
    assert render(more)["optimizer"]["partial"] == "optax._src.alias:sgd"
    assert train(None, whole, resume=True, quiet=True).step == 6


def test_optimizers_are_swept_by_their_import_paths(tmp_path):
    e = tiny(steps=2)
    axes = [
        "optimizer.learning_rate=0.1,0.2",
        "optimizer=optax.sgd,optax.sgd(momentum=0.9, learning_rate=1.0)",
    ]
    points = sweep.parse(e, axes)
    assert [p["optimizer"] for p in points[:2]] == [
        "optax.sgd",
        "optax.sgd(momentum=0.9, learning_rate=1.0)",
    ]
    run = train(e, tmp_path / "sweep", points=points, quiet=True)
    for replica, point in zip(run.replicas, points, strict=True):
        optimizer = replica.experiment.optimizer
        assert optimizer.func is optax.sgd
        assert optimizer.keywords["learning_rate"] == point["optimizer.learning_rate"]
        assert ("momentum" in optimizer.keywords) == ("momentum" in point["optimizer"])
    settings = json.loads((tmp_path / "sweep" / "summary.json").read_text())["settings"]
    assert {s["setting"]["optimizer"] for s in settings} == {p["optimizer"] for p in points}


def test_a_sweep_over_modules_of_ones_own_is_refused(project):
    points = sweep.parse(tiny(), ["model=own_nets.OtherNet,own_nets.OtherNet(width=8)"])
    with pytest.raises(ConfigError, match="own_nets is a module of your own"):
        train(tiny(), project / "sweep", points=points, quiet=True)


@pytest.mark.parametrize(
    "text, parts",
    [
        ("a.b(c=1, d=(2, 3)),e.f", ["a.b(c=1, d=(2, 3))", "e.f"]),
        ("(1,2)", ["(1,2)"]),
        ("(1,2),(3,)", ["(1,2)", "(3,)"]),
        ("1,2", ["1", "2"]),
    ],
)
def test_values_of_an_axis_are_apart_at_the_commas_outside_brackets(text, parts):
    assert sweep._apart(text) == parts
