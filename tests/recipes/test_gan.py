"""The GAN: a step against one written out by hand; who learns when; the judge; exact evaluation;
prediction; stopped and resumed; as replicas.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core.program import make_program
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError
from jaxcnn.models.lenet import LeNet5Modern
from jaxcnn.runs.evaluation import evaluate_split
from jaxcnn.runs.open import open as open_run
from jaxcnn.tasks.classification import Classification
from tests.recipes.checks import check_replicas, check_resume, recipe
from tests.tiny import fit

GAN = recipe("mnist_gan")
SGD = partial(optax.sgd, learning_rate=1e-3)
PLAIN = {"optimizer": SGD, "ema": None, "augment": (), "rates": (("discriminator", 2.0),)}


def digits(size, seed=0):
    """Noise with labels: nothing here needs to look like a digit."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (size, 28, 28, 1)).astype(np.uint8)
    return {"image": image, "label": random.integers(0, 10, size).astype(np.int32)}


def tiny(**fields):
    """The recipe on few examples, with a judge that was never trained."""
    base = dataclasses.replace(
        GAN.experiment,
        data=GAN.WithNoise(Arrays(train=digits(40), eval=digits(21, seed=1))),
        initialize=None,
        batch_size=8,
        eval_batch_size=16,
        steps=10,
        eval_every=1.0,
        log_every=1,
    )
    return dataclasses.replace(base, **fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, e = tmp_path_factory.mktemp("gan") / "run", tiny()
    fit(e, folder)
    return open_run(folder, e)


def test_a_step_is_one_of_the_discriminator_and_then_one_of_the_generator():
    """Written out for plain SGD, whose updates are -rate * gradient; the discriminator's is twice
    as large by the rule.
    """
    e = tiny(**PLAIN)
    program = make_program(e, steps=10)
    state = jax.jit(program.init)(jax.random.key(0))
    batch = e.data.open("train").take(np.arange(8))
    label, noise, image = batch["label"], batch["noise"], jnp.float32(batch["image"]) / 255

    statistics = {"batch_stats": state.model_state["batch_stats"]["generator"]}
    draw = partial(GAN.Generator().apply, label=label, noise=noise)

    def discriminator_loss(d, g):  # the generator is frozen, its BatchNorm as in evaluation
        picture = draw({"params": g, **statistics}, train=False)
        real, fake = (GAN.Discriminator().apply({"params": d}, label, x) for x in (image, picture))
        return -(jnp.log(nn.sigmoid(real)) + jnp.log(1 - nn.sigmoid(fake))).mean()

    def generator_loss(g, d):
        picture, _ = draw({"params": g, **statistics}, train=True, mutable=["batch_stats"])
        return -jnp.log(nn.sigmoid(GAN.Discriminator().apply({"params": d}, label, picture))).mean()

    @jax.jit
    def by_hand(d, g):
        first, slope = jax.value_and_grad(discriminator_loss)(d, g)
        d = jax.tree.map(lambda p, s: p - 0.002 * s, d, slope)
        second, slope = jax.value_and_grad(generator_loss)(g, d)
        g = jax.tree.map(lambda p, s: p - 0.001 * s, g, slope)
        return first, second, {"discriminator": d, "generator": g}

    first, second, params = by_hand(state.params["discriminator"], state.params["generator"])
    start = state.params
    state, numbers = jax.jit(program.train_step)(state, batch)
    np.testing.assert_allclose(numbers["discriminator_loss"], first, rtol=1e-5)
    np.testing.assert_allclose(numbers["generator_loss"], second, rtol=1e-5)
    changes = (jax.tree.map(jnp.subtract, tree, start) for tree in (state.params, params))
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-7),
        *changes,
    )
    assert int(state.step) == 1


def test_each_player_has_an_optimizer_of_its_own_and_the_judge_stays(run):
    start = jax.jit(make_program(tiny(), steps=10).init)(jax.random.key(0))
    for player, opt_state in run.state.opt_state.items():
        (moments,) = (s for s in opt_state if hasattr(s, "mu"))
        assert int(moments.count) == 10
        assert jax.tree.leaves(moments.mu.get(player))
        assert [name for name, tree in moments.mu.items() if jax.tree.leaves(tree)] == [player]
        moved = jax.tree.map(lambda a, b: (a != b).any(), start.params, run.state.params)[player]
        assert all(jax.tree.leaves(moved))
    jax.tree.map(
        np.testing.assert_array_equal, start.model_state["judge"], run.state.model_state["judge"]
    )


def test_a_step_that_is_not_finite_changes_neither_player():
    e = tiny(**PLAIN)
    program = make_program(e, steps=10)
    state = jax.jit(program.init)(jax.random.key(0))
    batch = e.data.open("train").take(np.arange(8))
    bad = {**batch, "noise": jnp.full_like(batch["noise"], jnp.nan)}
    after, _ = jax.jit(program.train_step)(state, bad)
    assert not after.live
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_what_is_drawn_in_evaluation_does_not_depend_on_the_batch(run):
    """21 examples at once, and in batches of 8 of which the last is padded."""
    results = [
        evaluate_split(dataclasses.replace(run.experiment, eval_batch_size=n), run.state, "eval")
        for n in (21, 8)
    ]
    assert results[0]["as_asked"] == results[1]["as_asked"]
    np.testing.assert_allclose(results[0]["loss"], results[1]["loss"], rtol=1e-6)
    assert run.evaluate() == run.evaluate() == run.summary["eval"]


def test_as_asked_counts_what_the_judge_reads(run):
    data = run.experiment.data.open("eval").take(np.arange(21))
    rows = run.predict({"label": data["label"], "noise": data["noise"]})
    hits = np.mean([row["label"] == label for row, label in zip(rows, data["label"], strict=True)])
    np.testing.assert_allclose(run.summary["eval"]["as_asked"], hits, rtol=1e-6)
    judge = run.state.model_state["judge"]["variables"]
    images = np.stack([row["image"] for row in rows])
    assert images.dtype == np.uint8
    logits = LeNet5Modern().apply(judge, jnp.float32(images) / 255)
    read = np.array([row["label"] for row in rows])
    nearly = np.asarray(logits.max(-1) - logits[np.arange(21), read])  # pixels were rounded
    assert (nearly < 0.01).all()


def test_a_picture_is_asked_for_by_label_and_noise(run):
    with pytest.raises(ConfigError, match="label, noise: noise is missing"):
        run.predict({"label": np.arange(3)})
    assert GAN.picture(run, columns=3).shape == (280, 84)


def test_the_judge_is_trained_once_and_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    judge = tiny(
        model=LeNet5Modern(),
        task=Classification(num_classes=10),
        data=Arrays(train=digits(16), eval=digits(8)),
        program=None,
        augment=(),
        ema=None,
        steps=1,
    )
    fit(judge, tmp_path / "jaxcnn" / "mnist_gan_judge")
    weights = open_run(tmp_path / "jaxcnn" / "mnist_gan_judge", judge).state.params
    fresh = jax.jit(make_program(tiny(), steps=1).init)(jax.random.key(0))
    params, found = GAN.with_judge(fresh.params, fresh.model_state, judge.data.open("train"))
    assert params is fresh.params
    jax.tree.map(np.testing.assert_array_equal, found["judge"]["variables"]["params"], weights)


def test_it_resumes_to_the_same_bits(tmp_path):
    check_resume(tiny(), tmp_path)


@pytest.mark.slow  # of the recipes, SAM proves it in every run of the tests
def test_replicas_are_solo_runs(tmp_path):
    """With plain SGD: Adam divides by the gradient's size, so that rounding moves a weight."""
    check_replicas(tiny(optimizer=SGD), tmp_path)
