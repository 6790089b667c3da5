"""Where a number first became infinite or NaN: in the data, in a layer, in a gradient, in the loss;
the first of them is named.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.core.program import make_program
from jaxcnn.core.transforms import compile
from jaxcnn.data.memory import Arrays
from jaxcnn.runs.diagnosis import first_non_finite
from jaxcnn.tasks.classification import Classification
from tests.tiny import arrays, tiny

ROWS = 4


class Scaled(nn.Module):
    """x times a parameter, divided by another."""

    @nn.compact
    def __call__(self, x):
        top = self.param("top", nn.initializers.ones, ())
        return x * top / self.param("below", nn.initializers.ones, ())


class Root(nn.Module):
    """A root, whose derivative at 0 is infinite."""

    @nn.compact
    def __call__(self, x):
        return x + jnp.sqrt(self.param("inner", nn.initializers.ones, ()))


class Net(nn.Module):
    """Two layers that can break, and a linear one."""

    @nn.compact
    def __call__(self, image, *, train: bool):
        x = image.reshape(image.shape[0], -1)
        x = Root(name="root")(Scaled(name="second")(Scaled(name="first")(x)))
        return nn.Dense(3, name="head")(x)


@dataclasses.dataclass(frozen=True)
class BrokenLoss(Classification):
    def loss(self, outputs, batch):
        return super().loss(outputs, batch) / 0.0


def found(change=None, *, pixels=None, **fields):
    """What is said of a batch, with some parameters set to other values."""
    rows = {n: x[:ROWS] for n, x in arrays(50).items()}
    rows["image"] = rows["image"].astype(np.float32) / 255
    fields = {"augment": (), "ema": None, "clip_norm": None} | fields
    e = tiny(model=Net(), data=Arrays(train=rows, eval=rows), **fields)
    state = make_program(e, steps=3).init(jax.random.key(0))
    params = jax.tree.map(lambda x: x, state.params)
    for (layer, name), value in (change or {}).items():
        params[layer][name] = jnp.full_like(params[layer][name], value)
    batch = {n: jnp.asarray(x) for n, x in rows.items()}
    if pixels is not None:
        batch["image"] = batch["image"].at[1, 2, 3].set(pixels)
    return first_non_finite(e, dataclasses.replace(state, params=params), batch)


@pytest.mark.parametrize("pixels", [np.nan, np.inf])
def test_the_batch_comes_first(pixels):
    assert "'image'" in found(pixels=pixels)
    assert "'image'" in found({("first", "below"): 0.0}, pixels=pixels)


def spoiled(key, batch):
    """A batch that every second key spoils."""
    return {**batch, "image": jnp.where(jax.random.uniform(key) < 0.5, jnp.nan, batch["image"])}


def test_the_batch_is_augmented_as_the_step_did():
    rows = {n: x[:ROWS] for n, x in arrays(50).items()}
    e = tiny(augment=(spoiled,), ema=None, data=Arrays(train=rows, eval=rows))
    program = compile(make_program(e, steps=3))
    seen = set()
    for seed in range(8):
        state = program.init(jax.random.key(seed))
        said = first_non_finite(e, state, {n: jnp.asarray(x) for n, x in rows.items()})
        after, _ = program.train_step(state, rows)
        assert ("the batch's 'image'" in said) == (not after.live)
        seen.add(bool(after.live))
    assert seen == {True, False}


@pytest.mark.parametrize("layer", ["first", "second", "head"])
def test_the_first_layer_whose_output_is_not_finite(layer):
    name = "kernel" if layer == "head" else "top"
    assert repr(layer) in found({(layer, name): np.inf})


def test_a_gradient_whose_layers_are_all_finite():
    text = found({("root", "inner"): 0.0})
    assert "gradient" in text
    assert "root/inner" in text
    assert "layer" not in text


def test_a_loss_that_no_layer_spoils():
    text = found(task=BrokenLoss(num_classes=3))
    assert "layer" not in text
    assert "gradient" in text or "loss" in text
