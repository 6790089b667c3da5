"""Sweeps: points, groups, replicas equal to solo runs, verdicts, halving, resume, tables."""

import json
import math
import os
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core import transforms
from jaxcnn.core.program import make_program
from jaxcnn.data.algebra import Fold, HeldOut
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DivergedError, Preempted
from jaxcnn.runs import sweep
from jaxcnn.runs.feed import batches
from jaxcnn.runs.inventory import prune
from jaxcnn.runs.listing import runs_in
from jaxcnn.runs.open import open
from jaxcnn.runs.table import table
from jaxcnn.runs.train import train
from jaxcnn.runs.ways import Way, by_bundle
from jaxcnn.tasks.binary import BinaryClassification
from tests.tiny import Lines, TinyNet, arrays, fit, stop_at, tiny

SGD = partial(optax.sgd, learning_rate=0.05, momentum=0.9)


@pytest.mark.parametrize(
    "axes, expected",
    [
        (["seed=0..3"], [{"seed": i} for i in range(4)]),
        (
            ["optimizer.learning_rate=1,0.5"],
            [{"optimizer.learning_rate": 1.0}, {"optimizer.learning_rate": 0.5}],
        ),
        (
            ["seed=1,2", "batch_size=4,8"],
            [{"seed": s, "batch_size": b} for s in (1, 2) for b in (4, 8)],
        ),
        (
            ["optimizer.learning_rate=log(0.001,0.1,3)"],
            [{"optimizer.learning_rate": v} for v in (0.001, 0.01, 0.1)],
        ),
    ],
)
def test_axes_of_the_command_line(axes, expected):
    assert sweep.parse(tiny(optimizer=SGD), axes) == expected


@pytest.mark.parametrize(
    "axes",
    [
        ["sed=0..3"],
        ["seed=a,b"],
        ["seed"],
        ["optimizer.learning_rate=log(1,0.1,3)"],
        ["batch_size=0,8"],
        ["seed=0..1", "batch_size=4", "seed=5..6"],
    ],
)
def test_wrong_axes_are_refused_before_anything_runs(axes):
    with pytest.raises(ConfigError):
        sweep.parse(tiny(optimizer=SGD), axes)


def test_zip_and_sample():
    assert sweep.zipped(seed=(1, 2), batch_size=(4, 8)) == [
        {"seed": 1, "batch_size": 4},
        {"seed": 2, "batch_size": 8},
    ]
    with pytest.raises(ConfigError, match="equally many"):
        sweep.zipped(seed=(1, 2), batch_size=(4,))
    points = sweep.grid(seed=range(10))
    assert sweep.sample(points, 4, seed=1) == sweep.sample(points, 4, seed=1)
    assert len({p["seed"] for p in sweep.sample(points, 4)}) == 4
    for count in (-1, 0, 11):
        with pytest.raises(ConfigError, match=f"cannot draw {count} of 10"):
            sweep.sample(points, count)


@pytest.mark.parametrize(
    "points",
    [
        [{"seed": 0}, {"seed": 1}, {"seed": 0}],
        [{}, {"seed": 1}, {"seed": 0}],  # 0 is the experiment's own
        [{"seed": 2, "batch_size": 4}, {}, {"batch_size": 4, "seed": 2}],
    ],
)
def test_points_that_are_the_same_are_refused(tmp_path, points):
    """Two equal values are no sample of two: their interval would be 0."""
    with pytest.raises(ConfigError, match="points 0 and 2 of the sweep are the same"):
        train(tiny(steps=3), tmp_path / "s", points=points, way="loop", quiet=True)
    assert not (tmp_path / "s").exists()


def brightened(batch, *, factor):
    return {**batch, "image": batch["image"] * factor}


def test_replicas_that_see_pictures_otherwise_are_no_ensemble(tmp_path):
    """The first's transform would be taken for all."""
    e = tiny(steps=3, transform=(partial(brightened, factor=1.0),))
    points = [{"transform.0.factor": factor} for factor in (1.0, 0.1)]
    run = train(e, tmp_path / "s", points=points, way="loop", quiet=True)
    alone = [one.evaluate()["loss"] for one in (open(tmp_path / "s", e, replica=i) for i in (0, 1))]
    seen = [row["eval"]["loss"] for row in run.summary["replicas"]]
    np.testing.assert_allclose(alone, seen, rtol=1e-5)  # each by itself is right
    for ask in (run.evaluate, lambda: run.predict(arrays(4)["image"])):
        with pytest.raises(ConfigError, match=r"different transforms.*1\.0 in one, 0\.1 in an"):
            ask()


@pytest.mark.parametrize(
    "data, points, message",
    [
        (
            HeldOut(tiny().data, 0.2),
            [{"data.fraction": 0.4}, {"data.fraction": 0.2}],
            "trained on different data .*0.4 in one, 0.2 in another",
        ),
        (
            Fold(tiny().data, 0, 2),
            [{"data.k": 0}, {"data.k": 1}],
            "trained on by the models of the other folds",
        ),
    ],
)
def test_replicas_of_different_data_are_scored_together_on_data_that_are_named(
    tmp_path, data, points, message
):
    e = tiny(steps=3, data=data)
    run = train(e, tmp_path / "s", points=points, way="loop", quiet=True)
    trained_on = [one.experiment.data.open("train").arrays["image"] for one in run.replicas]
    scored = run.replica(0).experiment.data.open("eval").arrays["image"]
    rows = {row.tobytes() for row in np.asarray(scored)}
    leaked = [sum(row.tobytes() in rows for row in np.asarray(x)) for x in trained_on]
    assert leaked[0] == 0 < leaked[1]
    with pytest.raises(ConfigError, match=message):
        run.evaluate()
    assert run.evaluate(data=tiny().data)["count"] == 21


def test_points_that_differ_in_numbers_of_the_state_share_a_program():
    points = sweep.grid(
        seed=(0, 1),
        optimizer__learning_rate=(0.1, 0.2),
        task__label_smoothing=(0.0, 0.1),
        model__width=(4, 5),
    )
    groups = sweep.groups(tiny(optimizer=SGD), points)
    assert [len(indices) for _, indices in groups] == [8, 8]
    assert sorted(i for _, indices in groups for i in indices) == list(range(16))
    assert {base.model.width for base, _ in groups} == {4, 5}


def difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


def stepped(program, state, batches):
    for batch in batches:
        state, _ = program.train_step(state, batch)
    return state


@pytest.mark.parametrize(
    "count, steps, bound",
    [
        (4, 10, 1e-6),
        *(
            pytest.param(count, steps, bound, marks=pytest.mark.slow)
            for steps, bound in ((10, 1e-6), (50, 1e-5))
            for count in (1, 2, 4, 7)
            if (count, steps) != (4, 10)
        ),
    ],
)
def test_a_replica_equals_its_solo_run(count, steps, bound):
    e = tiny(optimizer=SGD, steps=50)
    points = [{"seed": i, "optimizer.learning_rate": 0.01 * (i + 1)} for i in range(count)]
    source, pieces = e.data.open("train"), [(step, step + 1) for step in range(steps)]
    base = make_program(e, steps=50)
    init = jax.jit(base.init)
    starts = [init(jax.random.key(i), sweep.numbers(e, p)) for i, p in enumerate(points)]

    def rows(seed):
        return [b for _, b in batches(source, pieces, seed=seed, batch_size=e.batch_size)]

    solo = transforms.compile(base)
    copies = jax.tree.map(jnp.copy, starts)
    solos = [stepped(solo, state, rows(i)) for i, state in enumerate(copies)]
    for text in ("vmap", "loop", "2", "unrolled") if count <= 4 else ("vmap", "loop", "2"):
        way = Way.from_text(text, count)
        parts = zip(
            way.bundles(base),
            by_bundle(way.sizes, jax.tree.map(jnp.copy, starts)),
            by_bundle(way.sizes, list(range(count))),
            strict=True,
        )
        found = []
        for bundle, states, seeds in parts:
            order = rows(seeds[0] if bundle.kind == "solo" else tuple(seeds))
            found += bundle.split(stepped(bundle.single, bundle.join(states), order))
        for one, replica in zip(solos, found, strict=True):
            exact = difference(one.params, replica.params)
            assert exact <= (0 if text == "loop" or count == 1 else bound)


@pytest.mark.slow
def test_a_replica_of_the_binary_task_equals_its_solo_run(tmp_path):
    e = tiny(
        task=BinaryClassification(positive=(2,)),
        model=TinyNet(num_classes=1),
        optimizer=SGD,
        steps=10,
    )
    points = sweep.grid(seed=(0, 1), task__positive_weight=(1.0, 3.0))
    assert len(sweep.groups(e, points)) == 1, "the weight of positives is a number of the state"
    many = fit(e, tmp_path / "many", points=points, way="vmap")
    for i, point in enumerate(points):
        solo = fit(sweep.at(e, point), tmp_path / str(i))
        assert math.isclose(many["replicas"][i]["eval"]["loss"], solo["eval"]["loss"], rel_tol=1e-5)
        assert many["replicas"][i]["eval"]["auroc"] == solo["eval"]["auroc"]


@pytest.mark.parametrize("kind", ["vmap", "unrolled"])
def test_a_bundle_splits_what_it_joined(kind):
    (bundle,) = Way.from_text(kind, 5).bundles(make_program(tiny(), steps=1))
    states = [{"x": jnp.full((2,), float(i)), "key": jax.random.key(i)} for i in range(5)]
    back = bundle.split(bundle.join(states))
    assert [b["x"].tolist() for b in back] == [s["x"].tolist() for s in states]
    keys = [[jax.random.key_data(s["key"]).tolist() for s in found] for found in (back, states)]
    assert keys[0] == keys[1]


def test_the_exact_way_gives_the_bits_and_metrics_of_solo_runs(tmp_path):
    e, points = tiny(), sweep.grid(seed=(0, 1), optimizer__learning_rate=(0.01, 0.03))
    summary = fit(e, tmp_path / "many", points=points, way="loop")
    for i, point in enumerate(points):
        solo = fit(sweep.at(e, point), tmp_path / f"solo{i}")
        assert summary["replicas"][i]["state_sha256"] == solo["state_sha256"]
        assert summary["replicas"][i]["eval"] == solo["eval"]
        assert summary["replicas"][i]["best"]["step"] == solo["best"]["step"]


def test_the_size_of_chunks_may_be_a_number(tmp_path):
    points = sweep.grid(seed=(0, 1, 2))
    for way in (0, 2.0, True):
        with pytest.raises(ConfigError, match="must be a chunk size"):
            train(tiny(steps=1), tmp_path / "none", points=points, way=way, quiet=True)
    assert not (tmp_path / "none").exists()
    run = train(tiny(steps=1), tmp_path / "run", points=points, way=2, quiet=True)
    assert run.record["way"] == "2"
    assert len(run.replicas) == 3


@pytest.mark.parametrize(
    "way", ["vmap", *(pytest.param(way, marks=pytest.mark.slow) for way in ("loop", "2"))]
)
def test_replicas_resume_to_the_same_bits(tmp_path, way):
    e, points = tiny(), sweep.grid(seed=(0, 1, 2))
    whole = fit(e, tmp_path / "whole", points=points, way=way)
    for i, step in enumerate((3, 8)):
        with pytest.raises(Preempted):
            fit(e, tmp_path / "cut", points=points, way=way, observe=[stop_at(step)], resume=i > 0)
    cut = fit(e, tmp_path / "cut", points=points, resume=True)
    assert [r["state_sha256"] for r in cut["replicas"]] == [
        r["state_sha256"] for r in whole["replicas"]
    ]
    for i in range(3):
        cut, whole = (open(tmp_path / name, replica=i).history for name in ("cut", "whole"))
        assert [(r["kind"], r["step"]) for r in cut] == [(r["kind"], r["step"]) for r in whole]


def test_a_replica_leaves_its_sweep_as_a_copy_alone(tmp_path):
    points = [{"seed": 0}, {"seed": 1}]
    with pytest.raises(Preempted):
        fit(tiny(), tmp_path / "s", points=points, way="vmap", observe=[stop_at(4)])
    first, e = tmp_path / "s" / "replicas" / "0", sweep.at(tiny(), points[0])
    with pytest.raises(ConfigError, match=r"replica 0 of a sweep that is not done.*train --resume"):
        fit(e, first, resume=True)
    with pytest.raises(ConfigError, match=r"prune 1: keep at least 2 of .*a step that all have"):
        prune(open(first), 1)
    shutil.copytree(first, tmp_path / "copy")
    prune(open(tmp_path / "copy"), 1)  # which is nobody else's
    console = Lines()
    assert train(e, tmp_path / "copy", resume=True, console=console).step == 12
    assert any("by itself now, by vmap before" in line for line in console.lines)
    began = {row["run"]: row["date"] for row in runs_in(tmp_path / "s")[0]}
    for place in began:
        os.utime(f"{place}/run.json", (1e9, 1e9))
    done = fit(tiny(), tmp_path / "s", resume=True)
    assert {row["run"]: row["date"] for row in runs_in(tmp_path / "s")[0]} == began
    assert [row["verdict"] for row in done["replicas"]] == ["completed"] * 2
    assert fit(e, first, resume=True)["state_sha256"] == done["replicas"][0]["state_sha256"]
    assert len(prune(open(first), 1)) == 1


def test_a_diverged_replica_is_frozen_and_the_others_go_on(tmp_path):
    e = tiny(optimizer=SGD, clip_norm=None, augment=())
    points = [{"optimizer.learning_rate": rate} for rate in (0.05, 1e30, 0.1)]
    summary = fit(e, tmp_path, points=points, way="vmap")
    verdicts = [r["verdict"] for r in summary["replicas"]]
    assert verdicts[0] == verdicts[2] == "completed"
    assert verdicts[1].startswith("diverged at step")
    alone = fit(e, tmp_path / "alone", points=[points[0], points[2]], way="vmap")
    for a, b in zip((0, 2), (0, 1), strict=True):
        assert math.isclose(
            summary["replicas"][a]["eval"]["loss"],
            alone["replicas"][b]["eval"]["loss"],
            rel_tol=1e-5,
        )
    with pytest.raises(DivergedError, match="all 2 replicas"):
        fit(e, tmp_path / "both", points=[points[1], {**points[1], "seed": 1}], way="vmap")


def test_patience_is_per_replica(tmp_path):
    e = tiny(
        optimizer=SGD,
        ema=None,
        patience=2,
        steps=40,
        eval_every=0.5,
        data=Arrays(train=arrays(50), eval=arrays(60, seed=1)),
    )
    points = [{"optimizer.learning_rate": 1e-12}, {"optimizer.learning_rate": 0.05}]
    rows = fit(e, tmp_path, points=points, way="vmap")["replicas"]
    assert rows[0]["verdict"].startswith("stopped early")
    assert (
        rows[1]["verdict"] == "completed"
        or rows[1]["eval"]["accuracy"] > rows[0]["eval"]["accuracy"]
    )


def test_halving_keeps_the_best(tmp_path):
    e = tiny(optimizer=SGD, steps=36, ema=None, model=TinyNet(dropout=0.0))
    rates = (1e-9, 0.05, 1e-8, 0.02, 1e-7, 1e-6, 1e-5, 1e-10, 1e-4)
    summary = fit(
        e, tmp_path, points=[{"optimizer.learning_rate": r} for r in rates], way="vmap", halving=3
    )
    verdicts = [r["verdict"] for r in summary["replicas"]]
    assert verdicts.count("completed") == 1
    assert verdicts.count("dropped at a rung") == 8
    last = [run.history[-1]["step"] for run in open(tmp_path).replicas]
    assert sorted(last) == [4] * 6 + [12] * 2 + [36]
    assert sweep.rungs(36, 9, 3) == {4: 3, 12: 1}


def test_what_stopped_early_before_a_rung_ends_as_it_would_alone(tmp_path):
    """With its parameters, its score on the test split, and word of its end."""
    data = Arrays(train=arrays(50), eval=arrays(60, seed=1), test=arrays(20, seed=2))
    model, every = TinyNet(dropout=0.0), 16 / 50
    e = tiny(optimizer=SGD, ema=None, patience=1, eval_every=every, model=model, data=data)
    points = [{"optimizer.learning_rate": rate} for rate in (1e-12, 0.05, 0.02)]
    ended = []

    def observe(event):
        if event.kind == "end":
            ended.append((event.replica, int(event.state().step)))

    train(e, tmp_path / "all", points=points, way="loop", halving=3, observe=[observe], quiet=True)
    alone = train(sweep.at(e, points[0]), tmp_path / "alone", quiet=True).summary
    found = open(tmp_path / "all").replica(0).summary
    assert found["verdict"] == alone["verdict"] == "stopped early at step 4"
    assert [r for r, _ in ended].count(0) == 1
    assert dict(ended)[0] == 4
    for name in ("num_params", "state_sha256", "test"):
        assert found[name] == alone[name]
        assert found[name] is not None


def test_an_ensemble_averages_probabilities():
    e = tiny(ema=None)
    program = make_program(e, steps=12)
    states = tuple(program.init(jax.random.key(i)) for i in range(3))
    batch = e.data.open("eval").take(np.arange(21))
    joined = transforms.predicting(transforms.ensemble(program, e), e)
    single = transforms.predicting(program, e)
    probabilities = joined.output_step(states, batch)["probabilities"]
    by_hand = np.mean(
        [single.output_step(state, batch)["probabilities"] for state in states], axis=0
    )
    np.testing.assert_allclose(probabilities, by_hand, atol=1e-6)


def test_the_table_has_students_interval_and_counts_what_was_lost():
    stats = pytest.importorskip("scipy.stats")
    values = [0.9, 0.92, 0.91, 0.95]
    rows = [
        {"point": {"seed": i, "lr": 0.1}, "eval": {"accuracy": v}, "verdict": "completed"}
        for i, v in enumerate(values)
    ]
    rows += [{"point": {"seed": 0, "lr": 9.0}, "eval": None, "verdict": "diverged at step 3"}]
    best, lost = table(rows, metric="accuracy", larger_is_better=True)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert math.isclose(best["mean"] + best["interval95"], high)
    assert math.isclose(best["mean"] - best["interval95"], low)
    assert (best["n"], lost["lost"], lost["mean"]) == (4, 1, None)


def test_the_way_is_recorded_and_forced(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'vmap'"):
        Way.from_text("vmpa", 3)
    fit(tiny(), tmp_path, points=sweep.grid(seed=(0, 1)), way="vmap")
    assert json.loads((tmp_path / "replicas/1/run.json").read_text())["way"] == "vmap"


def test_points_that_name_different_numbers_share_a_table(tmp_path):
    points = [{"seed": 0}, {"seed": 1, "optimizer.learning_rate": 0.02}, {"batch_size": 4}]
    summary = fit(tiny(steps=4, eval_every=1), tmp_path, points=points, way="loop")
    assert [r["verdict"] for r in summary["replicas"]] == ["completed"] * 3
    assert len(summary["settings"]) == 3


def test_a_point_that_names_other_data_is_trained_on_them(tmp_path):
    """One group alone, whose data and steps a dispatch are not those of the experiment."""
    from jaxcnn.data.made.digits import Digits
    from jaxcnn.models.lenet import LeNet5Modern
    from jaxcnn.tasks.classification import Classification

    e = tiny(
        model=LeNet5Modern(),
        task=Classification(num_classes=10),
        data=Digits(image_size=(28, 28)),
        augment=(),
        steps=4,
        eval_every=1,
    )
    point = {"data.image_size": (32, 32), "steps_per_dispatch": 2}
    run = train(e, tmp_path, points=[point], quiet=True)
    (replica,) = run.replicas
    assert replica.data.spec()["image"].shape == (32, 32, 1)
    assert replica.record["steps_per_dispatch"] == 2
    solo = train(sweep.at(e, point), tmp_path / "solo", quiet=True)
    assert replica.summary["state_sha256"] == solo.summary["state_sha256"]


def test_a_diverged_run_has_a_summary_that_names_the_layer(tmp_path):
    e = tiny(optimizer=SGD, clip_norm=None, augment=())
    e = sweep.at(e, {"optimizer.learning_rate": 1e30})
    with pytest.raises(DivergedError):
        fit(e, tmp_path)
    run = open(tmp_path, e)
    assert not run.summary["completed"]
    assert run.summary["verdict"].startswith("diverged at step")
    console = Lines()
    points = [{"optimizer.learning_rate": rate} for rate in (0.05, 1e30)]
    train(e, tmp_path / "many", points=points, way="vmap", console=console)
    assert any("diverged at step" in line and "layer" in line for line in console.lines)


def test_a_point_that_run_json_cannot_hold_is_refused_before_a_folder_is_made(tmp_path):
    def shift(key, batch):
        return batch

    points = [{"augment": ()}, {"augment": (shift,)}]
    with pytest.raises(ConfigError, match=r"point 1 .*augment.*run\.json"):
        train(tiny(), tmp_path / "run", points=points)
    assert not (tmp_path / "run").exists()
