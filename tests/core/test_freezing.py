"""Frozen parameters: no gradient, no slot, no drift; frozen modules run as in evaluation."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import jaxcnn
from jaxcnn.core import schedules
from jaxcnn.core.forward import apply_model
from jaxcnn.core.program import gradient, make_program
from jaxcnn.core.transforms import compile
from jaxcnn.errors import ConfigError, Preempted
from jaxcnn.layers import BatchNorm
from tests.tiny import fit, stop_at, tiny

HEAD_ALONE = (("^head/", 1.0), (".*", 0.0))


class Block(nn.Module):
    """A convolution and a normalization without scale and bias, Dropout, given at the call."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(6, (3, 3), use_bias=False)(x)
        x = nn.BatchNorm(use_scale=False, use_bias=False)(x, use_running_average=not train)
        return nn.Dropout(0.5)(nn.relu(x), deterministic=not train)


class Counter(nn.Module):
    """A module with statistics of its own kind, which change in training."""

    @nn.compact
    def __call__(self, x, *, train):
        seen = self.variable("counts", "seen", lambda: jnp.zeros((), jnp.float32))
        if train and not self.is_initializing():
            seen.value += x.shape[0]
        return x * self.param("scale", nn.initializers.ones, ())


class Body(nn.Module):
    """Every way to say that a norm is in training, ours and Flax's."""

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.Conv(6, (3, 3), use_bias=False, name="stem")(image)
        x = nn.BatchNorm(use_running_average=not train, name="constructed")(x)
        x = BatchNorm(momentum=0.9, name="ours")(nn.relu(x), not train)
        x = Block(name="block")(x, train=train)
        x = Counter(name="counter")(x, train=train)
        x = nn.BatchNorm(use_scale=False, use_bias=False, name="bare")(
            x, use_running_average=not train
        )
        x = nn.Dropout(0.25, deterministic=not train, name="dropout")(x.mean((1, 2)))
        return nn.Dense(3, name="head")(x)


def frozen_body(**fields):
    return tiny(**{"model": Body(), "rates": HEAD_ALONE, **fields})


def batch_of(e, rows=8):
    return e.data.open("train").take(np.arange(rows))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def without_head(tree):
    return {name: value for name, value in tree.items() if name != "head"}


def train(e, steps=3):
    program = compile(make_program(e, steps=e.steps))
    state = program.init(jax.random.key(0))
    first = jax.device_get(state)
    for _ in range(steps):
        state, _ = program.train_step(state, batch_of(e))
    assert state.live
    return first, state


@pytest.mark.parametrize("fields", [{}, {"accumulate": 4}, {"compute_dtype": "bfloat16"}])
def test_what_is_frozen_keeps_every_bit(fields):
    """Weights, their moving averages, statistics of BatchNorm and of others; the head moves."""
    with jax.numpy_dtype_promotion("standard"):  # Flax's BatchNorm relies on it in bfloat16
        first, last = train(frozen_body(**fields))
    same(without_head(first.params), without_head(last.params))
    same(without_head(first.ema), without_head(last.ema))
    same(first.model_state, last.model_state)
    same(first.ema_state, last.ema_state)
    assert (first.params["head"]["kernel"] != last.params["head"]["kernel"]).any()
    assert (first.ema["head"]["kernel"] != last.ema["head"]["kernel"]).any()


def test_without_rules_all_of_it_moves():
    """So the test above can fail."""
    first, last = train(frozen_body(rates=()))
    for name in ("params", "ema", "model_state", "ema_state"):
        pairs = zip(
            jax.tree.leaves(getattr(first, name)), jax.tree.leaves(getattr(last, name)), strict=True
        )
        assert all((np.asarray(a) != np.asarray(b)).any() for a, b in pairs), name


def test_what_is_frozen_has_no_slot_in_the_optimizer():
    def slots(e):
        state = jax.eval_shape(make_program(e, steps=9).init, jax.random.key(0))
        leaves = jax.tree.leaves(state.opt_state)
        return sum(leaf.size for leaf in leaves if leaf.dtype == jnp.float32)

    head = 6 * 3 + 3
    assert slots(frozen_body()) == 2 * head  # AdamW's two moments
    state = jax.eval_shape(make_program(frozen_body(), steps=9).init, jax.random.key(0))
    everything = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert slots(frozen_body(rates=())) == 2 * everything > 4 * head


def convolutions(e):
    """Convolutions of the compiler's input for the gradient of a step."""
    program = make_program(e, steps=9)
    state = jax.eval_shape(program.init, jax.random.key(0))

    def grads(state, batch, key):
        return gradient(e, state, batch, key).grads

    lowered = jax.jit(grads).lower(state, batch_of(e), jax.random.key(0))
    return lowered.compile().cost_analysis()["flops"], str(
        jax.make_jaxpr(grads)(state, batch_of(e), jax.random.key(0))
    ).count("conv_general_dilated[")


def test_what_is_frozen_gets_no_gradient():
    """A convolution forward, one for its kernel's and one for its input's gradient: of two of
    them, the first has no input to derive by. A frozen body has the two forward alone.
    """
    whole_flops, whole = convolutions(frozen_body(rates=()))
    frozen_flops, frozen = convolutions(frozen_body())
    assert (whole, frozen) == (2 + 2 + 1, 2)
    assert frozen_flops < 0.6 * whole_flops


class ByHand(nn.Module):
    """`Body` with what is frozen written as in evaluation."""

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.Conv(6, (3, 3), use_bias=False, name="stem")(image)
        x = nn.BatchNorm(use_running_average=True, name="constructed")(x)
        x = BatchNorm(momentum=0.9, name="ours")(nn.relu(x), True)
        x = Block(name="block")(x, train=False)
        x = Counter(name="counter")(x, train=False)
        x = nn.BatchNorm(use_scale=False, use_bias=False, name="bare")(x, use_running_average=True)
        x = nn.Dropout(0.25, deterministic=not train, name="dropout")(x.mean((1, 2)))
        return nn.Dense(3, name="head")(x)


def varied(state):
    """Variables whose statistics differ from their initial values."""
    shifted = jax.tree.map(lambda x: x + 0.5, state.model_state)
    return {"params": state.params, **shifted}


def test_frozen_modules_run_as_in_evaluation():
    """The output in training is that of the same network with the frozen part written as in
    evaluation; Dropout before the head, which is trained, still drops.
    """
    e = frozen_body()
    state = make_program(e, steps=9).init(jax.random.key(0))
    batch = {"image": jnp.asarray(batch_of(e)["image"], jnp.float32) / 255}
    options = {"train": True, "key": jax.random.key(5), "mutable": True}
    ours, collections = apply_model(e, varied(state), batch, **options)
    by_hand = dataclasses.replace(e, model=ByHand(), rates=())
    same(ours, apply_model(by_hand, varied(state), batch, **options)[0])
    same(collections, {k: v for k, v in varied(state).items() if k != "params"})
    free, _ = apply_model(dataclasses.replace(e, rates=()), varied(state), batch, **options)
    assert np.abs(np.asarray(ours) - np.asarray(free)).max() > 0.01
    evaluated = apply_model(e, varied(state), batch, train=False)
    assert np.abs(np.asarray(ours) - np.asarray(evaluated)).max() > 0.01


RULES = {
    "a bias alone": ((("^constructed/bias", 0.0),), set()),
    "a norm of two": ((("^constructed/", 0.0),), {"constructed"}),
    "a module with what is in it": ((("^block/", 0.0),), {"block"}),
    "kernels": ((("kernel$", 0.0),), {"block"}),
    "a norm without parameters": ((("^bare/", 0.0), ("^stem/", 0.0)), {"bare"}),
    "all but one norm": ((("^(ours|head)/", 1.0), (".*", 0.0)), {"constructed", "block", "bare"}),
    "slowly": (((".*", 0.1),), set()),
}


@pytest.mark.parametrize("name", RULES)
def test_statistics_stay_where_every_parameter_is_frozen(name):
    rules, frozen = RULES[name]
    if name == "a norm without parameters":
        with pytest.raises(ConfigError, match="matches no parameter"):
            train(frozen_body(rates=rules))
        return
    first, last = train(frozen_body(rates=rules))
    norms = {"constructed", "ours", "block", "bare"}
    before, after = first.model_state["batch_stats"], last.model_state["batch_stats"]
    assert set(before) == norms
    for norm in norms:
        pairs = zip(jax.tree.leaves(before[norm]), jax.tree.leaves(after[norm]), strict=True)
        moved = {bool((np.asarray(a) != np.asarray(b)).any()) for a, b in pairs}
        assert moved == {norm not in frozen}, norm


def test_statistics_of_other_kinds_stay_and_move_with_their_module():
    """By a rule of 0 that is the only one."""
    for rules, moves in [((("^counter/", 0.0),), False), ((("^stem/", 0.0),), True)]:
        first, last = train(frozen_body(rates=rules))
        seen = [float(s.model_state["counts"]["counter"]["seen"]) for s in (first, last)]
        assert (seen[0] != seen[1]) == moves


@pytest.mark.parametrize("rules", [((".*", 0.0),), (("^head/", 0), (".", 0.0))])
def test_rules_that_freeze_everything_are_refused(rules, tmp_path):
    with pytest.raises(ConfigError, match="freezes every parameter"):
        fit(frozen_body(rates=rules), tmp_path)


class Twice(nn.Module):
    """One frozen norm called twice, defined in `setup`, under rematerialization."""

    def setup(self):
        self.norm = nn.BatchNorm()
        self.block = nn.remat(Remembered)()
        self.head = nn.Dense(3)

    def __call__(self, image, *, train):
        x = self.norm(image, use_running_average=not train)
        x = self.norm(x * 2, use_running_average=not train)
        return self.head(self.block(x).mean((1, 2)))


class Remembered(nn.Module):
    """A norm that is always in training, unless it is frozen."""

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(x)


def test_shared_and_lifted_modules_are_frozen_too():
    first, last = train(frozen_body(model=Twice()))
    same(first.model_state, last.model_state)


def test_a_frozen_body_resumes_to_the_same_bits(tmp_path):
    whole = fit(frozen_body(), tmp_path / "whole")
    with pytest.raises(Preempted):
        fit(frozen_body(), tmp_path / "parts", observe=[stop_at(5)])
    parts = fit(frozen_body(), tmp_path / "parts", resume=True)
    assert whole["state_sha256"] == parts["state_sha256"]


def test_replicas_of_a_frozen_body_are_its_solo_runs(tmp_path):
    e = frozen_body(optimizer=partial(optax.adamw, learning_rate=0.01), schedule=schedules.constant)
    points = [
        {"seed": 0, "optimizer.learning_rate": 0.01},
        {"seed": 1, "optimizer.learning_rate": 0.03},
    ]
    sweep = jaxcnn.train(e, tmp_path / "both", points=points, way="vmap", quiet=True)
    alone = dataclasses.replace(e, seed=1, optimizer=partial(optax.adamw, learning_rate=0.03))
    solo = jaxcnn.train(alone, tmp_path / "solo", quiet=True)
    replica = sweep.replicas[1].state
    same(without_head(replica.params), without_head(solo.state.params))
    same(replica.model_state, solo.state.model_state)
    np.testing.assert_allclose(
        replica.params["head"]["kernel"], solo.state.params["head"]["kernel"], rtol=1e-4, atol=1e-5
    )
