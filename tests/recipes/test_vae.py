"""The variational autoencoder: its bound against torch.distributions and against the evidence
itself; padding; stopped and resumed; as replicas.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from scipy.special import expit

from jaxcnn.core.forward import apply_model
from jaxcnn.core.program import make_program
from jaxcnn.core.transforms import scored
from jaxcnn.data.memory import Arrays
from jaxcnn.runs.open import open as open_run
from tests.recipes.checks import check_replicas, check_resume, recipe
from tests.tiny import arrays, fit

VAE = recipe("mnist_vae")


def tiny(*, latent=3, **fields):
    """The recipe on 8x8 images, descending plainly."""
    base = dataclasses.replace(
        VAE.experiment,
        model=VAE.VAE(shape=(8, 8, 1), width=6, latent=latent),
        data=Arrays(train=arrays(50), eval=arrays(21, seed=1)),
        optimizer=partial(optax.sgd, learning_rate=1e-3),
        batch_size=8,
        eval_batch_size=16,
        steps=10,
        eval_every=0.8,
        log_every=1,
    )
    return dataclasses.replace(base, **fields)


def test_the_terms_are_those_of_scipy():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 2, (5, 4, 4, 1)).astype(np.float32)
    logits = 3 * random.standard_normal((5, 4, 4, 1), np.float32)
    mean, log_variance = random.standard_normal((2, 5, 3), np.float32)
    found = VAE.EvidenceBound().terms(VAE.Seen(pixels, logits, mean, log_variance))
    log_prob = stats.bernoulli(expit(logits.astype(np.float64))).logpmf(pixels)
    np.testing.assert_allclose(found["pixels"], -log_prob.sum((1, 2, 3)), rtol=1e-5)
    z = np.linspace(-40, 40, 8001)[:, None, None]
    q = stats.norm(mean, np.exp(log_variance / 2))
    kl = np.trapezoid(q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), z, axis=0).sum(-1)
    np.testing.assert_allclose(found["kl"], kl, rtol=1e-5)


def test_the_bound_lies_below_the_evidence_by_the_divergence_from_the_posterior():
    """With one number as z everything can be integrated: log p(x) - ELBO = KL(q(z|x) || p(z|x))."""
    e = tiny(latent=1)
    image = jnp.asarray(arrays(4)["image"] > 100, jnp.float32)  # black and white: nothing is drawn
    fresh = e.model.init(jax.random.key(0), image[:1], train=False)
    variables = jax.tree.map(lambda x: 1.5 * x, fresh)
    step = jax.jit(lambda key: apply_model(e, variables, {"image": image}, train=False, key=key))
    draws = jax.vmap(step)(jax.random.split(jax.random.key(1), 4000))
    losses = np.asarray(jax.vmap(lambda out: e.task.loss(out, {}))(draws), np.float64)
    bound, error = -losses.mean(0), losses.std(0) / np.sqrt(len(losses))

    z = np.linspace(-10, 10, 2001, dtype=np.float32)[:, None]
    logits = np.asarray(e.model.apply(variables, z, method="decode"), np.float64)
    surprise = np.logaddexp(0, logits)[:, None] - np.asarray(image)[None, ...] * logits[:, None]
    joint = stats.norm.logpdf(z) - surprise.sum((2, 3, 4))  # log p(x, z), [z, image]
    evidence = np.log(np.trapezoid(np.exp(joint), z, axis=0))
    mean, log_variance = (np.asarray(x[0, :, 0]) for x in (draws.mean, draws.log_variance))
    q = stats.norm(mean, np.exp(log_variance / 2))
    gap = np.trapezoid(q.pdf(z) * (q.logpdf(z) - (joint - evidence)), z, axis=0)
    assert (gap > 0.01).all()
    np.testing.assert_allclose((evidence - bound - gap) / error, 0.0, atol=4.0)


def test_padding_changes_nothing_and_a_state_is_always_evaluated_the_same():
    e = tiny()
    program = scored(make_program(e, steps=1), e)
    state = program.init(jax.random.key(0))
    batch = {**arrays(8), "mask": np.array([1, 1, 1, 0, 1, 0, 0, 1], np.float32)}
    other = {
        **batch,
        "image": np.where(batch["mask"][:, None, None, None] > 0, batch["image"], 255),
    }
    (first, _), (again, _), (padded, _) = (
        program.output_step(state, b) for b in (batch, batch, other)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    jax.tree.map(np.testing.assert_array_equal, first, padded)
    assert first["count"] == 5
    told = e.task.summarize(jax.device_get(first), None)
    entropy = stats.bernoulli(np.asarray(first["white"]) / 5).entropy()
    assert told["blind_elbo"] == pytest.approx(-entropy.sum(), rel=1e-5)


def test_pixels_are_drawn_with_the_probability_of_their_grey():
    e = tiny()
    image = jnp.broadcast_to(jnp.linspace(0, 1, 64).reshape(1, 8, 8, 1), (4000, 8, 8, 1))
    variables = e.model.init(jax.random.key(0), image[:1], train=False)
    seen = apply_model(e, variables, {"image": image}, train=True, key=jax.random.key(1))
    assert set(np.unique(seen.pixels)) == {0.0, 1.0}
    np.testing.assert_allclose(seen.pixels.mean(0), image[0], atol=4 * 0.5 / np.sqrt(4000))


def test_a_run_restores_and_draws_pictures(tmp_path):
    e = tiny(steps=2)
    fit(e, tmp_path / "run")
    run = open_run(tmp_path / "run", e)
    rows = run.predict(arrays(3)["image"])
    assert [row["image"].shape for row in rows] == [(8, 8, 1)] * 3
    sheet = VAE.picture(run, columns=5)
    assert sheet.shape == (64, 40)
    np.testing.assert_array_equal(sheet[:8, 8:16], arrays(21, seed=1)["image"][1, ..., 0])


@pytest.mark.slow  # of the recipes, four prove it in every run of the tests
def test_it_resumes_to_the_same_bits(tmp_path):
    check_resume(tiny(optimizer=VAE.experiment.optimizer), tmp_path)


@pytest.mark.slow  # of the recipes, SAM proves it in every run of the tests
def test_replicas_are_solo_runs(tmp_path):
    check_replicas(tiny(), tmp_path)
