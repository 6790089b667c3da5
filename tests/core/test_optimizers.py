"""Optimizers against torch.optim; rules by name against hand-written trees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core import optimizers
from jaxcnn.errors import ConfigError

SAME_AS_TORCH = {
    "sgd": (partial(optax.sgd, learning_rate=0.05), "SGD", {"lr": 0.05}),
    "momentum": (
        partial(optax.sgd, learning_rate=0.05, momentum=0.9),
        "SGD",
        {"lr": 0.05, "momentum": 0.9},
    ),
    "nesterov": (
        partial(optax.sgd, learning_rate=0.05, momentum=0.9, nesterov=True),
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    ),
    # optax puts eps under the root unless told otherwise, torch adds it to the root
    "rmsprop": (
        partial(optax.rmsprop, learning_rate=0.01, decay=0.99, eps_in_sqrt=False),
        "RMSprop",
        {"lr": 0.01, "alpha": 0.99},
    ),
    "adam": (partial(optax.adam, learning_rate=0.01), "Adam", {"lr": 0.01}),
    "adamw": (
        partial(optax.adamw, learning_rate=0.01, weight_decay=0.1),
        "AdamW",
        {"lr": 0.01, "weight_decay": 0.1},
    ),
    "ours, plain": (partial(optimizers.sgd, learning_rate=0.05), "SGD", {"lr": 0.05}),
    "ours, decay": (
        partial(optimizers.sgd, learning_rate=0.05, weight_decay=0.2),
        "SGD",
        {"lr": 0.05, "weight_decay": 0.2},
    ),
    "ours, momentum and decay": (
        partial(optimizers.sgd, learning_rate=0.05, momentum=0.9, weight_decay=0.2),
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.2},
    ),
    "ours, nesterov and decay": (
        partial(optimizers.sgd, learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=0.2),
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.2},
    ),
}

RANDOM = np.random.default_rng(0)
INPUTS, TARGETS = (
    RANDOM.normal(size=(16, 5)).astype(np.float32),
    RANDOM.normal(size=(16, 3)).astype(np.float32),
)
START = {
    "bias": RANDOM.normal(size=3).astype(np.float32),
    "kernel": RANDOM.normal(size=(5, 3)).astype(np.float32),
}


def descend(factory, steps=10, **numbers):
    """Parameters after `steps` of a least-squares problem; the optimizer is rebuilt inside the
    jitted step from traced numbers.
    """
    start = jax.tree.map(jnp.asarray, START)

    def loss(params):
        return (
            (
                jnp.tanh(jnp.asarray(INPUTS) @ params["kernel"] + params["bias"][None])
                - jnp.asarray(TARGETS)
            )
            .__pow__(2)
            .mean()
        )

    @jax.jit
    def step(params, state, numbers):
        updates, state = factory(**numbers).update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    params, state = start, factory(**numbers).init(start)
    for _ in range(steps):
        params, state = step(params, state, numbers)
    return params


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", SAME_AS_TORCH)
def test_ten_steps_equal_torch(name, traced):
    torch = pytest.importorskip("torch")
    factory, peer, options = SAME_AS_TORCH[name]
    numbers = (
        {k: jnp.float32(v) for k, v in factory.keywords.items() if isinstance(v, float)}
        if traced
        else {}
    )
    with jax.numpy_dtype_promotion("standard"):  # optax.adam mixes its int32 count with floats
        ours = descend(factory, **numbers)

    theirs = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in START.items()}
    optimizer = getattr(torch.optim, peer)(theirs.values(), **options)
    for _ in range(10):
        optimizer.zero_grad()
        (
            (
                torch.tanh(torch.tensor(INPUTS) @ theirs["kernel"] + theirs["bias"])
                - torch.tensor(TARGETS)
            )
            ** 2
        ).mean().backward()
        optimizer.step()
    for k in START:
        np.testing.assert_allclose(ours[k], theirs[k].detach().numpy(), atol=1e-5)
        assert np.abs(ours[k] - START[k]).max() > 1e-3  # it moved at all


def test_mask_limits_the_decay():
    decayed, plain = (
        descend(partial(optimizers.sgd, 0.05, weight_decay=0.5, mask=optimizers.kernels), 1),
        descend(partial(optimizers.sgd, 0.05), 1),
    )
    np.testing.assert_array_equal(decayed["bias"], plain["bias"])
    np.testing.assert_allclose(
        decayed["kernel"], plain["kernel"] - 0.05 * 0.5 * START["kernel"], atol=1e-6
    )


def test_decoupled_decay_stays_out_of_the_momentum():
    """Without a gradient, decoupled decay shrinks by exactly 1 - rate * decay a step; coupled by
    more, through momentum.
    """
    params = {"kernel": jnp.ones((2, 2), jnp.float32)}
    sizes = {}
    for decoupled in (True, False):
        optimizer = optimizers.sgd(0.1, 0.9, weight_decay=0.5, decoupled=decoupled)
        now, state = params, optimizer.init(params)
        for _ in range(4):
            updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, now), state, now)
            now = optax.apply_updates(now, updates)
        sizes[decoupled] = float(now["kernel"][0, 0])  # pyright: ignore
    assert sizes[True] == pytest.approx(0.95**4, rel=1e-6)
    assert sizes[False] < sizes[True] - 0.1


class Small(nn.Module):
    @nn.compact
    def __call__(self, image):
        features = nn.BatchNorm(use_running_average=True)(nn.Conv(2, (3, 3))(image))
        return nn.Dense(4)(features.mean((1, 2)))


PARAMS = jax.eval_shape(
    lambda: Small().init(jax.random.key(0), jnp.zeros((1, 4, 4, 1), jnp.float32))
)["params"]


def test_names_and_kernels():
    names = optimizers.path_names(PARAMS)
    expected = {
        "Conv_0": ("kernel", "bias"),
        "BatchNorm_0": ("scale", "bias"),
        "Dense_0": ("kernel", "bias"),
    }
    assert names == {
        module: {leaf: f"{module}/{leaf}" for leaf in leaves} for module, leaves in expected.items()
    }
    assert optimizers.kernels(PARAMS) == {
        module: {leaf: leaf == "kernel" for leaf in leaves} for module, leaves in expected.items()
    }


def test_first_matching_rule_counts():
    rates = optimizers.rate_multipliers(PARAMS, (("^Conv_0/", 0.0), ("bias$", 2.0)))
    assert rates == {
        "Conv_0": {"kernel": 0.0, "bias": 0.0},
        "BatchNorm_0": {"scale": 1.0, "bias": 2.0},
        "Dense_0": {"kernel": 1.0, "bias": 2.0},
    }


@pytest.mark.parametrize(
    "expression, message",
    [
        ("Dense_0/kernal", "did you mean 'Dense_0/kernel'.*Conv_0/kernel"),
        ("Dense_7", "Dense_7.*They are:.*Dense_0/bias"),
        ("(", "not a regular"),
    ],
)
def test_a_rule_for_nothing_is_refused(expression, message):
    with pytest.raises(ConfigError, match=message):
        optimizers.rate_multipliers(PARAMS, ((expression, 0.1),))


def test_ema_equals_the_recursion_by_hand():
    values = RANDOM.normal(size=(60, 3)).astype(np.float32)
    average, by_hand = {"a": jnp.zeros(3, jnp.float32)}, np.zeros(3)
    update = jax.jit(optimizers.ema)
    for t, value in enumerate(values):
        average = update(
            average, {"a": jnp.asarray(value)}, decay=jnp.float32(0.8), step=jnp.int32(t)
        )
        rate = min(0.8, (1 + t) / (10 + t))
        by_hand = rate * by_hand + (1 - rate) * value
    np.testing.assert_allclose(average["a"], by_hand, atol=1e-6)
