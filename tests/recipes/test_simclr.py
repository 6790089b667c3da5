"""SimCLR: its loss against equation 1 in loops and against a closed form; the probe against the
normal equations; stopped and resumed; as replicas.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core.forward import prepare
from jaxcnn.data import augment
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import DataError
from tests.recipes.checks import check_replicas, check_resume, recipe
from tests.tiny import arrays, tiny

SIMCLR = recipe("fashion_mnist_simclr")


class Pixels(nn.Module):
    """The pixels as features and as projection."""

    @nn.compact
    def __call__(self, image, *, train: bool):
        features = image.reshape(image.shape[0], -1)
        scale = self.param("scale", nn.initializers.ones, (1, 1))
        return {"features": features, "projection": scale * features}


def simclr(**fields):
    base = {
        "model": SIMCLR.Encoder(widths=(4,)),
        "task": SIMCLR.LinearProbe(num_classes=3),
        "objective": SIMCLR.simclr,
        "augment": (augment.jitter_contrast, partial(augment.shift, pixels=1)),
        "ema": None,
    }
    return tiny(**{**base, **fields})


def loss_of(e, batch, key, **options):
    variables = e.model.init(key, jnp.zeros((1, *batch["image"].shape[1:])), train=False)
    return SIMCLR.simclr(e, variables, batch, key, **options)[0]


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_the_loss_is_equation_1(temperature):
    e, key, batch = simclr(model=Pixels()), jax.random.key(3), arrays(5)
    views = [prepare(e, batch, key=k)["image"] for k in jax.random.split(key, 3)[:2]]
    z = np.asarray(jnp.concatenate(views), np.float64).reshape(10, -1)

    def sim(i, j):
        return z[i] @ z[j] / (np.linalg.norm(z[i]) * np.linalg.norm(z[j])) / temperature

    def pair(i, j):
        others = sum(np.exp(sim(i, k)) for k in range(10) if k != i)
        return -np.log(np.exp(sim(i, j)) / others)

    expected = [(pair(i, i + 5) + pair(i + 5, i)) / 2 for i in range(5)]
    loss = loss_of(e, batch, key, temperature=temperature)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_orthogonal_images_without_augmentation_have_the_least_loss_there_is_in_closed_form():
    image = (np.eye(6).reshape(6, 1, 6, 1) * 255).astype(np.uint8)
    e = simclr(model=Pixels(), augment=())
    loss = loss_of(e, {"image": image}, jax.random.key(0), temperature=0.5)
    np.testing.assert_allclose(loss, np.full(6, np.log1p(10 * np.exp(-2.0))), rtol=1e-5)


def records(size, seed=0):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(size, 20)).astype(np.float32)
    scores = features @ generator.normal(size=(20, 3)) + generator.normal(size=(size, 3))
    return {"features": features, "label": scores.argmax(-1).astype(np.int32)}


def test_the_probe_is_least_squares_fitted_to_the_first_half_and_scored_on_the_second():
    task, given = SIMCLR.LinearProbe(num_classes=3), records(400)
    x = given["features"].astype(np.float64)
    target, mean = 2 * np.eye(3)[given["label"]] - 1, x[:200].mean(0)
    x = x - mean
    kernel = np.linalg.solve(
        x[:200].T @ x[:200] + 10 * np.eye(20), x[:200].T @ (target[:200] - target[:200].mean(0))
    )
    predicted = (x[200:] @ kernel + target[:200].mean(0)).argmax(-1)
    expected = (predicted == given["label"][200:]).mean()
    assert 0.6 < expected < 1
    assert task.summarize({}, given)["linear_probe"] == pytest.approx(expected, abs=1e-12)


def test_what_is_fitted_is_not_scored():
    """Labels that are drawn by lot can be learned by heart from many features, and not foretold."""
    generator = np.random.default_rng(0)
    given = {
        "features": generator.normal(size=(400, 300)).astype(np.float32),
        "label": generator.integers(0, 4, 400).astype(np.int32),
    }
    accuracy = SIMCLR.LinearProbe(num_classes=4).summarize({}, given)["linear_probe"]
    assert abs(accuracy - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 200)


def test_labels_are_checked(tmp_path):
    wrong = {**arrays(20), "label": np.full(20, 3, np.int32)}
    e = simclr(data=Arrays(train=arrays(20), eval=wrong))
    with pytest.raises(DataError, match="label"):
        check_resume(e, tmp_path)


@pytest.mark.slow  # of the recipes, four prove it in every run of the tests
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path):
    check_resume(simclr(steps=8), tmp_path)


@pytest.mark.slow  # of the recipes, SAM proves it in every run of the tests
def test_replicas_are_solo_runs(tmp_path):
    e = simclr(steps=10, optimizer=partial(optax.sgd, learning_rate=0.1), clip_norm=None)
    check_replicas(e, tmp_path)
