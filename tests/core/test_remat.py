"""Modules that are computed anew in the backward pass: the same step, in less memory."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core.forward import apply_model, prepare
from jaxcnn.core.program import make_program
from jaxcnn.core.transforms import compile, replicate, scan
from jaxcnn.data.made.synthetic import Synthetic
from jaxcnn.errors import ConfigError
from jaxcnn.models.resnet import ResNet
from jaxcnn.runs.open import open as open_run
from jaxcnn.tasks.classification import Classification
from tests.tiny import TinyNet, fit, tiny


class Block(nn.Module):
    """With all that a block may have: statistics, dropout, an argument that is no array."""

    width: int = 8

    @nn.compact
    def __call__(self, x, train, *, scale=1.0):
        y = nn.Conv(self.width, (3, 3))(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(y))
        y = nn.Dropout(0.2, deterministic=not train)(y)
        y = nn.Conv(self.width, (3, 3))(y)
        return x + scale * y


class Net(nn.Module):
    """Eight blocks, of images [B, 8, 8, 1]."""

    @nn.compact
    def __call__(self, image, *, train: bool):
        x = nn.Conv(8, (3, 3))(image)
        for i in range(8):
            x = Block(name=f"block{i}")(x, train, scale=jnp.float32(0.5))
        return nn.Dense(3)(x.mean((1, 2)))


def experiment(**fields):
    return tiny(**{"model": Net(), "steps": 6, **fields})


def step_of(e, program=lambda p: p):
    p = program(make_program(e, steps=6))
    p = compile(p)
    state = p.init(jax.random.key(0))
    return p, state


def gradients(e):
    """(loss, gradients, next statistics) of one batch, with dropout."""
    state = make_program(e, steps=6).init(jax.random.key(0))
    batch = prepare(e, e.data.open("train").take(np.arange(8)))

    @jax.jit
    def both(params):
        def loss(params):
            outputs, new = apply_model(
                e,
                {"params": params, **state.model_state},
                batch,
                train=True,
                key=jax.random.key(1),
                mutable=True,
            )
            return e.task.loss(outputs, batch).mean(), new

        return jax.value_and_grad(loss, has_aux=True)(params)

    return both(state.params)


@pytest.mark.parametrize(
    "remat", [("block",), ("block[0-3]", "block7"), ("Conv_0",), ("^block3$",)]
)
def test_loss_gradients_and_statistics_are_the_same(remat):
    for a, b in zip(
        jax.tree.leaves(gradients(experiment())),
        jax.tree.leaves(gradients(experiment(remat=remat))),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_frozen_modules_stay_frozen_within():
    rules = (("block[0-3]", 0.0),)
    plain = gradients(experiment(rates=rules))
    anew = gradients(experiment(rates=rules, remat=("block",)))
    for a, b in zip(*map(jax.tree.leaves, (plain, anew)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def kept(e) -> int:
    """Bytes that one step's compiled program needs besides its arguments."""
    p, state = step_of(e)
    batch = e.data.open("train").take(np.arange(e.batch_size))
    found = p.train_step.trace(state, batch).lower().compile().memory_analysis()
    return found.temp_size_in_bytes


def test_the_compiled_step_needs_less_memory():
    model = ResNet(stage_sizes=(4, 4), widths=(16, 32), num_classes=10, stem="cifar")
    e = tiny(
        model=model,
        task=Classification(num_classes=10),
        data=Synthetic(shape=(64, 64, 3), num_classes=10),
        optimizer=partial(optax.sgd, learning_rate=0.1),
        augment=(),
        batch_size=16,
        ema=None,
    )
    whole, less = kept(e), kept(dataclasses.replace(e, remat=("block",)))
    assert less < 0.6 * whole, (less, whole)


@pytest.mark.parametrize("way", [replicate, scan], ids=["replicas", "steps"])
def test_it_goes_with_replicas_and_many_steps(way):
    e = experiment(augment=(), model=Net())
    states = []
    for remat in (None, ("block",)):
        program = make_program(dataclasses.replace(e, remat=remat), steps=6)
        state = jax.vmap(program.init)(jax.random.split(jax.random.key(0), 2))
        batch = e.data.open("train").take(np.arange(16).reshape(2, 8))
        if way is scan:
            state = program.init(jax.random.key(0))
        state, _ = compile(way(program)).train_step(state, batch)
        states.append(jax.tree.leaves(state.params))
    for a, b in zip(*states, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def test_a_run_is_recorded_resumed_and_read_with_it(tmp_path):
    e = experiment(model=TinyNet(), remat=("Conv",))
    whole = fit(e, tmp_path / "run")
    assert whole["completed"]
    assert open_run(tmp_path / "run").experiment.remat == ("Conv",)
    again = fit(e, tmp_path / "again")
    assert again["state_sha256"] == whole["state_sha256"]


def test_what_names_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"remat: the rule 'blok' matches no module.*block0"):
        gradients(experiment(remat=("blok",)))
    with pytest.raises(ConfigError, match="not a regular expression"):
        gradients(experiment(remat=("(",)))
    with pytest.raises(ConfigError, match="remat='block': must be a tuple"):
        experiment(remat="block")
