"""From a raw batch to outputs: what is done to a batch, in which order and with which keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core.forward import apply_model, fresh_variables, model_inputs, prepare, with_numbers
from tests.tiny import TinyNet, tiny


def first(key, batch):
    return {**batch, "image": batch["image"] + jax.random.uniform(key)}


def second(key, batch):
    return {**batch, "image": batch["image"] * jax.random.uniform(key)}


def squared(batch):
    return {**batch, "image": batch["image"] ** 2}


def less(batch):
    return {**batch, "image": batch["image"] - 0.5}


def batch_of(rows=2):
    return {"image": jnp.full((rows, 8, 8, 1), 51, jnp.uint8), "label": jnp.zeros(rows, jnp.int32)}


def test_augmentations_come_in_order_each_with_a_key_of_its_own_and_then_transforms():
    e = tiny(augment=(first, second), transform=(squared, less))
    key = jax.random.key(7)
    a, b = (jax.random.uniform(jax.random.fold_in(key, i)) for i in range(2))
    np.testing.assert_allclose(
        prepare(e, batch_of(), key=key)["image"], ((0.2 + a) * b) ** 2 - 0.5, rtol=1e-6
    )
    np.testing.assert_allclose(prepare(e, batch_of())["image"], 0.2**2 - 0.5, rtol=1e-6)


def test_rows_are_real_unless_it_is_said():
    e = tiny()
    np.testing.assert_array_equal(prepare(e, batch_of(3))["mask"], np.ones(3, np.float32))
    given = {**batch_of(3), "mask": jnp.float32([1, 0, 1])}
    np.testing.assert_array_equal(prepare(e, given)["mask"], [1, 0, 1])


def test_what_the_caller_has_stays_as_it_is():
    batch = batch_of()
    prepare(tiny(transform=(squared,)), batch)
    assert set(batch) == {"image", "label"}
    assert batch["image"].dtype == jnp.uint8


class Two(nn.Module):
    """Takes two entries, draws noise by a name of its own, counts its calls."""

    @nn.compact
    def __call__(self, a, b, *, train):
        calls = self.variable("calls", "count", lambda: jnp.zeros((), jnp.float32))
        if train and self.is_mutable_collection("calls"):
            calls.value = (calls.value + 1).astype(a.dtype)
        scale = self.param("scale", nn.initializers.ones, (1,))
        noise = jax.random.normal(self.make_rng("noise"), ()) if self.has_rng("params") else 0.0
        difference = (a - b.astype(a.dtype)) * scale
        return {"difference": difference, "b": b, "noise": jnp.asarray(noise, jnp.float32)}


class TwoEntries:
    inputs = ("left", "right")


def experiment_of_two(**fields):
    e = tiny(model=Two(), **fields)
    object.__setattr__(e, "task", TwoEntries())
    return e


def test_the_model_gets_the_entries_that_its_task_names_in_their_order():
    batch = {"right": jnp.ones(3), "left": jnp.full(3, 4.0), "other": jnp.zeros(3)}
    e = experiment_of_two()
    assert [float(x[0]) for x in model_inputs(e, batch)] == [4.0, 1.0]
    variables = {"params": {"scale": jnp.ones(1)}, "calls": {"count": jnp.zeros(())}}
    outputs = apply_model(e, variables, batch, train=False)
    np.testing.assert_array_equal(outputs["difference"], np.full(3, 3.0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_computed_in_and_what_comes_out(dtype):
    e = experiment_of_two(compute_dtype=dtype)
    wide = 1 + 2**-12  # more than bfloat16 holds
    batch = {"left": jnp.full(3, wide), "right": jnp.zeros(3, jnp.int32)}
    variables = {"params": {"scale": jnp.ones(1)}, "calls": {"count": jnp.zeros(())}}
    outputs, new = apply_model(e, variables, batch, train=True, mutable=True)
    assert outputs["difference"].dtype == jnp.float32
    assert outputs["b"].dtype == jnp.int32  # whole numbers stay
    np.testing.assert_array_equal(outputs["difference"], wide if dtype == "float32" else 1.0)
    assert set(new) == {"calls"}
    assert new["calls"]["count"].dtype == jnp.float32
    assert float(new["calls"]["count"]) == 1
    narrow = {**variables, "calls": {"count": jnp.zeros((), jnp.bfloat16)}}
    as_it_was = apply_model(e, narrow, batch, train=True, mutable=True)[1]
    assert as_it_was["calls"]["count"].dtype == jnp.bfloat16
    kept = apply_model(e, variables, batch, train=False, mutable=True)[1]
    assert float(kept["calls"]["count"]) == 0


def test_a_key_serves_every_name_and_none_is_none():
    e = experiment_of_two()
    batch = {"left": jnp.ones(3), "right": jnp.zeros(3)}
    variables = {"params": {"scale": jnp.ones(1)}, "calls": {"count": jnp.zeros(())}}

    def noise(**options):
        return float(apply_model(e, variables, batch, **options)["noise"])

    assert noise(train=False) == 0
    drawn = {noise(train=t, key=jax.random.key(i)) for t, i in [(False, 1), (True, 1), (False, 2)]}
    assert 0 not in drawn
    assert len(drawn) == 2  # the key alone says which


def test_fresh_variables_are_those_of_the_model_for_a_row_as_it_is_prepared():
    e = tiny(augment=(), transform=(lambda b: {**b, "image": b["image"][:, :6]},))
    ours = fresh_variables(e, jax.random.key(3))
    flax = TinyNet().init(jax.random.key(3), jnp.zeros((1, 6, 8, 1)), train=False)
    assert jax.tree.structure(ours) == jax.tree.structure(dict(flax))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(dict(flax)), strict=True):
        np.testing.assert_array_equal(a, b)


class Told(nn.Module):
    """Whose parameters are what its first call was given."""

    @nn.compact
    def __call__(self, image, *, train):
        told = {"rows": image.shape[0], "sum": image.sum(), "train": float(train)}
        for name, value in told.items():
            self.param(name, lambda _, value=value: jnp.asarray(value, jnp.float32))
        return image


def test_a_model_is_initialized_as_for_evaluation_with_one_row_of_zeros():
    params = fresh_variables(tiny(model=Told()), jax.random.key(0))["params"]
    assert {name: float(x) for name, x in params.items()} == {"rows": 1, "sum": 0, "train": 0}


@pytest.mark.parametrize("fields, train, anew", [
    ({"remat": ("Dense_0",)}, True, True),
    ({"remat": ("Dense_0",)}, False, False),
    ({}, True, False),
])  # fmt: skip
def test_what_is_to_be_computed_anew_is_in_training_alone(fields, train, anew):
    e = tiny(model=TinyNet(dropout=0.0), **fields)
    batch = prepare(e, batch_of())
    variables = fresh_variables(e, jax.random.key(0))

    def outputs(params):
        new = {**variables, "params": params}
        found = apply_model(e, new, batch, train=train, mutable=True)
        return found[0].sum()

    text = str(jax.make_jaxpr(outputs)(variables["params"]))
    assert ("remat" in text or "checkpoint" in text) == anew


def test_numbers_take_their_places():
    e = tiny(optimizer=partial(optax.sgd, learning_rate=0.1, momentum=0.9))
    new = with_numbers(e, {"optimizer.learning_rate": 0.5, "optimizer.momentum": jnp.float32(0.8)})
    assert new.optimizer.keywords["learning_rate"] == 0.5
    assert float(new.optimizer.keywords["momentum"]) == pytest.approx(0.8)
    assert e.optimizer.keywords == {"learning_rate": 0.1, "momentum": 0.9}
