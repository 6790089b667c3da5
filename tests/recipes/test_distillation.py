"""Distillation: the gradient at high temperature against the paper's; what a run keeps of its
teacher; stopped and resumed; as replicas.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core.forward import apply_model
from jaxcnn.core.program import evaluation_variables, make_program, supervised
from jaxcnn.data import augment
from jaxcnn.errors import ConfigError
from jaxcnn.runs.open import open as open_run
from tests.recipes.checks import check_replicas, check_resume, recipe
from tests.tiny import TinyNet, arrays, fit, tiny

DISTILLED = recipe("fashion_mnist_distilled")
SGD = partial(optax.sgd, learning_rate=0.02)


class Scores(nn.Module):
    """The same logits for whatever image."""

    @nn.compact
    def __call__(self, image, *, train: bool):
        bias = self.param("bias", nn.initializers.normal(), (1, 3))
        return jnp.zeros((image.shape[0], 3)) + bias


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A wider network, whose images are standardized."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    transform = (partial(augment.standardize, mean=0.3, std=0.2),)
    fit(tiny(model=TinyNet(width=8), transform=transform, steps=20), folder)
    return str(folder)


def student(teacher, **fields):
    objective = partial(DISTILLED.distilled, teacher=teacher)
    return tiny(**{"objective": objective, "ema": None, "clip_norm": None, **fields})


def taught(teacher, batch):
    run = open_run(teacher)
    image = (batch["image"].astype(np.float32) / 255 - np.float32(0.3)) / np.float32(0.2)
    variables = evaluation_variables(run.state)
    return apply_model(run.experiment, variables, {"image": jnp.asarray(image)}, train=False)


def test_the_gradient_at_high_temperature_is_equation_4(teacher):
    """(z - v) / N for logits z of the student, v of the teacher, both with mean 0 in each row."""
    e, batch = student(teacher, model=Scores(), augment=()), arrays(16)
    variables = e.model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)

    def loss(variables):
        key = jax.random.key(1)
        options = {"teacher": teacher, "temperature": 200.0, "share": 1.0}
        return DISTILLED.distilled(e, variables, batch, key, **options)[0].mean()

    found = jax.grad(loss)(variables)["params"]["bias"][0]
    v, z = np.asarray(taught(teacher, batch)), np.asarray(variables["params"]["bias"])
    centred = (z - z.mean()) - (v - v.mean(-1, keepdims=True))
    np.testing.assert_allclose(found, centred.mean(0) / 3, rtol=0.02, atol=1e-3)
    assert np.abs(found).max() > 0.05


def test_the_parts_add(teacher):
    e, batch, key = student(teacher, model=TinyNet(dropout=0.0)), arrays(16), jax.random.key(1)
    variables = dict(e.model.init(key, jnp.zeros((1, 8, 8, 1)), train=False))

    def loss(share):
        return DISTILLED.distilled(e, variables, batch, key, teacher=teacher, share=share)[0]

    alone = supervised(e, variables, batch, key)[0]
    np.testing.assert_allclose(loss(0.0), alone, rtol=1e-5)
    np.testing.assert_allclose(loss(0.3), 0.3 * loss(1.0) + 0.7 * alone, rtol=1e-5)


def test_without_a_teacher_it_is_the_default_objective(tmp_path):
    distilled = fit(student(None), tmp_path / "a")["state_sha256"]
    assert distilled == fit(student(None, objective=None), tmp_path / "b")["state_sha256"]


def test_a_missing_teacher_is_said(tmp_path):
    with pytest.raises(ConfigError, match="nowhere: is not a run directory"):
        fit(student(str(tmp_path / "nowhere")), tmp_path / "run")


def test_the_teacher_is_in_no_checkpoint_and_is_not_needed_to_predict(teacher, tmp_path):
    e, alone = student(teacher, steps=3), student(None)
    fit(e, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    DISTILLED.taught_by.cache_clear()
    run = open_run(tmp_path / "moved", e)
    template = jax.eval_shape(make_program(alone, steps=1).init, jax.random.key(0))
    assert jax.tree.structure(run.state) == jax.tree.structure(template)
    assert len(run.predict(arrays(2)["image"])) == 2
    assert DISTILLED.taught_by.cache_info().misses == 0


def test_a_stopped_run_resumes_to_the_same_bits(teacher, tmp_path):
    check_resume(student(teacher, steps=8), tmp_path)


@pytest.mark.slow  # of the recipes, SAM proves it in every run of the tests
def test_replicas_are_solo_runs(teacher, tmp_path):
    check_replicas(student(teacher, optimizer=SGD, steps=10), tmp_path)
