"""Sweeps: points, groups, replicas equal to solo runs, verdicts, halving, resume, tables."""

import json
import math
import os
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core import transforms
from jaxcnn.core.program import make_program
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DivergedError
from jaxcnn.runs import loop, replicas, sweep
from jaxcnn.runs.rundir import Preempted
from jaxcnn.runs.table import table
from jaxcnn.runs.ways import Way
from jaxcnn.runs.writers import Console, History
from jaxcnn.tasks.binary import BinaryClassification
from tests.tiny import TinyNet, arrays, tiny

QUIET = Console(quiet=True)
SGD = partial(optax.sgd, learning_rate=0.05, momentum=0.9)


class Interrupter(Console):
    def __init__(self, step):
        super().__init__(quiet=True)
        self.step = step

    def train(self, record):
        if record["step"] == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    "axes, expected",
    [
        (["seed=0..3"], [{"seed": i} for i in range(4)]),
        (["optimizer.learning_rate=1,0.5"], [{"optimizer.learning_rate": 1.0}, {"optimizer.learning_rate": 0.5}]),
        (["seed=1,2", "batch_size=4,8"], [{"seed": s, "batch_size": b} for s in (1, 2) for b in (4, 8)]),
        (["optimizer.learning_rate=log(0.001,0.1,3)"], [{"optimizer.learning_rate": v} for v in (0.001, 0.01, 0.1)]),
    ],
)
def test_axes_of_the_command_line(axes, expected):
    assert sweep.parse(tiny(optimizer=SGD), axes) == expected


@pytest.mark.parametrize("axes", [["sed=0..3"], ["seed=a,b"], ["seed"], ["optimizer.learning_rate=log(1,0.1,3)"], ["batch_size=0,8"]])
def test_wrong_axes_are_refused_before_anything_runs(axes):
    with pytest.raises(ConfigError):
        sweep.parse(tiny(optimizer=SGD), axes)


def test_zip_and_sample():
    assert sweep.zipped(seed=(1, 2), batch_size=(4, 8)) == [{"seed": 1, "batch_size": 4}, {"seed": 2, "batch_size": 8}]
    with pytest.raises(ConfigError, match="equally many"):
        sweep.zipped(seed=(1, 2), batch_size=(4,))
    points = sweep.grid(seed=range(10))
    assert sweep.sample(points, 4, seed=1) == sweep.sample(points, 4, seed=1)
    assert len({p["seed"] for p in sweep.sample(points, 4)}) == 4


def test_points_that_differ_in_numbers_of_the_state_share_a_program():
    points = sweep.grid(seed=(0, 1), optimizer__learning_rate=(0.1, 0.2), task__label_smoothing=(0.0, 0.1), model__width=(4, 5))
    groups = sweep.groups(tiny(optimizer=SGD), points)
    assert [len(indices) for _, indices in groups] == [8, 8]
    assert sorted(i for _, indices in groups for i in indices) == list(range(16))
    assert {base.model.width for base, _ in groups} == {4, 5}


def stacked_batches(e, seeds, steps):
    source = e.data.open("train")
    return [replicas.replica_batch(source, seeds, step, batch_size=e.batch_size) for step in range(steps)]


def difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


@pytest.mark.parametrize("count", [1, 2, 4, 7])
@pytest.mark.parametrize("steps, bound", [(10, 1e-6), (50, 1e-5)])
def test_a_replica_equals_its_solo_run(count, steps, bound):
    e = tiny(optimizer=SGD, steps=50)
    points = [{"seed": i, "optimizer.learning_rate": 0.01 * (i + 1)} for i in range(count)]
    keys, numbers = replicas.keys_and_numbers(e, points)
    batches = stacked_batches(e, list(range(count)), steps)
    base = make_program(e, steps=50)
    solo_program = transforms.compile(base)
    solos = []
    for i, point in enumerate(points):
        state = solo_program.init(jax.random.key(i), sweep.numbers(e, point))
        for batch in batches:
            state, _ = solo_program.train_step(state, jax.tree.map(lambda x, i=i: x[i], batch))
        solos.append(state)
    for text in ("vmap", "loop", "2"):
        way = Way.from_text(text, count)
        program = way.apply(base)
        state = program.init(keys, numbers)
        for batch in batches:
            state, _ = program.train_step(state, batch)
        for solo, replica in zip(solos, transforms.unstack(state, way.sizes), strict=True):
            exact = difference(solo.params, replica.params)
            assert exact <= (0 if text == "loop" or count == 1 else bound)


def test_a_replica_of_the_binary_task_equals_its_solo_run(tmp_path):
    e = tiny(task=BinaryClassification(positive=(2,)), model=TinyNet(num_classes=1), optimizer=SGD, steps=10)
    points = sweep.grid(seed=(0, 1), task__positive_weight=(1.0, 3.0))
    assert len(sweep.groups(e, points)) == 1, "the weight of positives is a number of the state"
    many = replicas.train(e, points, tmp_path / "many", way="vmap", console=QUIET)
    for i, point in enumerate(points):
        solo = loop.train(sweep.at(e, point), tmp_path / str(i), console=QUIET)
        assert math.isclose(many["replicas"][i]["eval"]["loss"], solo["eval"]["loss"], rel_tol=1e-5)
        assert many["replicas"][i]["eval"]["auroc"] == solo["eval"]["auroc"]


def test_stack_is_the_inverse_of_unstack():
    states = [{"x": jnp.full((2,), float(i))} for i in range(5)]
    for sizes in ((5,), (1,) * 5, (2, 2, 1)):
        back = transforms.unstack(transforms.stack(states, sizes), sizes)
        assert [b["x"].tolist() for b in back] == [s["x"].tolist() for s in states]


def test_the_exact_way_gives_the_bits_and_metrics_of_solo_runs(tmp_path):
    e, points = tiny(), sweep.grid(seed=(0, 1), optimizer__learning_rate=(0.01, 0.03))
    summary = replicas.train(e, points, tmp_path / "many", way="loop", console=QUIET)
    for i, point in enumerate(points):
        solo = loop.train(sweep.at(e, point), tmp_path / f"solo{i}", console=QUIET)
        assert summary["replicas"][i]["state_sha256"] == solo["state_sha256"]
        assert summary["replicas"][i]["eval"] == solo["eval"]
        assert summary["replicas"][i]["best"]["step"] == solo["best"]["step"]


@pytest.mark.parametrize("way", ["vmap", "loop", "2"])
def test_replicas_resume_to_the_same_bits(tmp_path, way):
    e, points = tiny(), sweep.grid(seed=(0, 1, 2))
    whole = replicas.train(e, points, tmp_path / "whole", way=way, console=QUIET)
    for i, step in enumerate((3, 8)):
        with pytest.raises(Preempted):
            replicas.train(e, points, tmp_path / "cut", way=way, console=Interrupter(step), resume=i > 0)
    cut = replicas.train(e, points, tmp_path / "cut", resume=True, console=QUIET)
    assert [r["state_sha256"] for r in cut["replicas"]] == [r["state_sha256"] for r in whole["replicas"]]
    steps = [(r["kind"], r["step"]) for r in History(tmp_path / "cut/metrics.jsonl").records]
    assert steps == [(r["kind"], r["step"]) for r in History(tmp_path / "whole/metrics.jsonl").records]


def test_a_diverged_replica_is_frozen_and_the_others_go_on(tmp_path):
    e = tiny(optimizer=SGD, clip_norm=None, augment=())
    points = [{"optimizer.learning_rate": rate} for rate in (0.05, 1e30, 0.1)]
    summary = replicas.train(e, points, tmp_path, way="vmap", console=QUIET)
    verdicts = [r["verdict"] for r in summary["replicas"]]
    assert verdicts[0] == verdicts[2] == "completed"
    assert verdicts[1].startswith("diverged at step")
    alone = replicas.train(e, [points[0], points[2]], tmp_path / "alone", way="vmap", console=QUIET)
    for a, b in zip((0, 2), (0, 1), strict=True):
        assert math.isclose(summary["replicas"][a]["eval"]["loss"], alone["replicas"][b]["eval"]["loss"], rel_tol=1e-5)
    with pytest.raises(DivergedError, match="all 2 replicas"):
        replicas.train(e, [points[1]] * 2, tmp_path / "both", way="vmap", console=QUIET)


def test_patience_is_per_replica(tmp_path):
    e = tiny(optimizer=SGD, ema=None, patience=2, steps=40, eval_every=0.5, data=Arrays(train=arrays(50), eval=arrays(60, seed=1)))
    points = [{"optimizer.learning_rate": 1e-12}, {"optimizer.learning_rate": 0.05}]
    rows = replicas.train(e, points, tmp_path, way="vmap", console=QUIET)["replicas"]
    assert rows[0]["verdict"].startswith("stopped early")
    assert rows[1]["verdict"] == "completed" or rows[1]["eval"]["accuracy"] > rows[0]["eval"]["accuracy"]


def test_halving_keeps_the_best(tmp_path):
    e = tiny(optimizer=SGD, steps=36, ema=None, model=TinyNet(dropout=0.0))
    rates = (1e-9, 0.05, 1e-8, 0.02, 1e-7, 1e-6, 1e-5, 1e-10, 1e-4)
    summary = replicas.train(e, [{"optimizer.learning_rate": r} for r in rates], tmp_path, way="vmap", halving=3, console=QUIET)
    verdicts = [r["verdict"] for r in summary["replicas"]]
    assert verdicts.count("completed") == 1
    assert verdicts.count("dropped at a rung") == 8
    kept = [r["kept"] for r in History(tmp_path / "metrics.jsonl").records if r["kind"] == "rung"]
    assert [len(points) for points in kept] == [3, 1]
    assert replicas.rungs(36, 9, 3) == {4: 3, 12: 1}


def test_an_ensemble_averages_probabilities():
    e = tiny(ema=None)
    program = make_program(e, steps=12)
    states = tuple(program.init(jax.random.key(i)) for i in range(3))
    batch = e.data.open("eval").take(np.arange(21))
    probabilities = transforms.ensemble(program, e.task).predict_step(states, batch)["probabilities"]
    by_hand = np.mean([program.predict_step(state, batch)["probabilities"] for state in states], axis=0)
    np.testing.assert_allclose(probabilities, by_hand, atol=1e-6)


def test_the_table_has_students_interval_and_counts_what_was_lost():
    stats = pytest.importorskip("scipy.stats")
    values = [0.9, 0.92, 0.91, 0.95]
    rows = [{"point": {"seed": i, "lr": 0.1}, "eval": {"accuracy": v}, "verdict": "completed"} for i, v in enumerate(values)]
    rows += [{"point": {"seed": 0, "lr": 9.0}, "eval": None, "verdict": "diverged at step 3"}]
    best, lost = table(rows, metric="accuracy", larger_is_better=True)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert math.isclose(best["mean"] + best["interval95"], high)
    assert math.isclose(best["mean"] - best["interval95"], low)
    assert (best["n"], lost["lost"], lost["mean"]) == (4, 1, None)


def test_the_way_is_recorded_and_forced(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'vmap'"):
        Way.from_text("vmpa", 3)
    replicas.train(tiny(), sweep.grid(seed=(0, 1)), tmp_path, way="vmap", console=QUIET)
    assert json.loads((tmp_path / "run.json").read_text())["way"] == "vmap"
