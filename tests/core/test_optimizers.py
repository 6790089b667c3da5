"""Optimizers against torch.optim and NumPy; rules by name against hand-written trees."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core import freezing, optimizers
from jaxcnn.core.program import make_program
from jaxcnn.errors import ConfigError
from tests.tiny import tiny

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


def in_numpy(name, steps=10):
    """The same descent in NumPy: the rules as PyTorch's documentation states them."""
    _, peer, options = SAME_AS_TORCH[name]
    rate, decay = options["lr"], options.get("weight_decay", 0.0)
    params = {k: np.asarray(v, np.float64) for k, v in START.items()}
    first, second = dict.fromkeys(params, 0.0), dict.fromkeys(params, 0.0)
    for step in range(1, steps + 1):
        outputs = np.tanh(INPUTS @ params["kernel"] + params["bias"])
        back = 2 * (outputs - TARGETS) * (1 - outputs**2) / outputs.size
        for k, slope in {"kernel": INPUTS.T @ back, "bias": back.sum(0)}.items():
            if peer == "SGD":
                slope = slope + decay * params[k]
                momentum = options.get("momentum", 0.0)
                first[k] = momentum * first[k] + slope
                ahead = slope + momentum * first[k] if options.get("nesterov") else first[k]
                params[k] = params[k] - rate * ahead
                continue
            beta1, beta2 = (0.0, options["alpha"]) if peer == "RMSprop" else (0.9, 0.999)
            first[k] = beta1 * first[k] + (1 - beta1) * slope
            second[k] = beta2 * second[k] + (1 - beta2) * slope**2
            fresh = (1, 1) if peer == "RMSprop" else (1 - beta1**step, 1 - beta2**step)
            size = np.sqrt(second[k] / fresh[1]) + 1e-8
            params[k] = params[k] * (1 - rate * decay) - rate * first[k] / fresh[0] / size
    return params


@pytest.mark.parametrize("name", SAME_AS_TORCH)
def test_ten_steps_equal_numpy(name):
    factory = SAME_AS_TORCH[name][0]
    with jax.numpy_dtype_promotion("standard"):
        ours = descend(factory)
    for k, theirs in in_numpy(name).items():
        np.testing.assert_allclose(ours[k], theirs, atol=1e-5)
        assert np.abs(ours[k] - START[k]).max() > 1e-3


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


def test_the_ema_of_a_constant_keeps_every_bit():
    values = {"a": jnp.asarray(RANDOM.normal(size=1000), jnp.float32)}
    average = values
    for t in range(5):
        average = optimizers.ema(average, values, decay=0.9, step=jnp.int32(t))
    np.testing.assert_array_equal(average["a"], values["a"])


def test_ema_takes_the_newest_of_what_is_no_float():
    """A count or a switch among a model's statistics has no mean."""
    old, new = (
        {"count": jnp.int32(3), "on": jnp.asarray(False)},
        {"count": jnp.int32(4), "on": jnp.asarray(True)},
    )
    average = optimizers.ema(old, new, decay=0.9, step=jnp.int32(100))
    assert (average["count"], average["count"].dtype, average["on"]) == (4, jnp.int32, True)


def newton_schulz(matrix):
    """K. Jordan et al. 2024: five iterations of a quintic, of the wide matrix of norm 1."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def test_muon_orthogonalizes_kernels_of_convolutions():
    """The first update, in which momentum and its correction cancel up to a factor."""
    random = np.random.default_rng(0)
    shapes = {"wide": (1, 1, 4, 40), "tall": (3, 3, 5, 7), "line": (3, 4, 6), "dense": (6, 9)}
    params = {k: {"kernel": jnp.zeros(s, jnp.float32)} for k, s in shapes.items()}
    slopes = {k: {"kernel": random.normal(size=s)} for k, s in shapes.items()}
    optimizer = optimizers.muon(0.1)
    grads = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), slopes)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
    for k, shape in shapes.items():
        matrix = slopes[k]["kernel"].reshape(-1, shape[-1])
        step = newton_schulz(matrix) * max(1, shape[-1] / matrix.shape[0]) ** 0.5
        ours = np.asarray(updates[k]["kernel"]).reshape(matrix.shape)
        np.testing.assert_allclose(ours, -0.1 * step, atol=2e-5)
        assert np.linalg.svd(step)[1].min() > 0.3  # so it is nearly orthogonal


def held(state, leaf):
    """Names of the parameters that hold an array of that name in an optimizer's state."""
    names = jax.tree_util.tree_flatten_with_path(state)[0]
    texts = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in names]
    return {t.split(f"/{leaf}/")[1] for t in texts if f"/{leaf}/" in t}


FROZEN = {(): (), (("^middle/", 1.0), (".*", 0.0)): ("stem", "head"), (("^stem/", 0.0),): ("stem",)}


@pytest.mark.parametrize("rates", FROZEN, ids=str)
@pytest.mark.parametrize("adam", [(), ("^stem/", "^head/")], ids=str)
def test_no_kernel_of_a_convolution_goes_to_adam(rates, adam):
    """Unless a rule says so; biases do. What is frozen goes nowhere, and may be named in a rule."""
    shapes = {"stem": (3, 3, 1, 4), "middle": (3, 3, 4, 6), "head": (6, 3)}
    params = {
        module: {"kernel": jnp.zeros(shape, jnp.float32), "bias": jnp.zeros(shape[-1:])}
        for module, shape in shapes.items()
    }
    trainable, _ = freezing.split(params, rates)
    state = optimizers.muon(0.02, adam=adam).init(trainable)
    left = set(shapes) - set(FROZEN[rates])
    kernels = {f"{name}/kernel" for name in left}
    named = {k for k in kernels if adam and not k.startswith("middle")}
    assert held(state, "nu") == named | {f"{name}/bias" for name in left}
    assert held(state.inner_states["muon"], "mu") == kernels - named


def test_a_rule_of_muon_for_nothing_is_refused():
    params = {"head": {"kernel": jnp.zeros((2, 2), jnp.float32)}}
    with pytest.raises(ConfigError, match=r"haed.*matches no parameter"):
        optimizers.muon(0.02, adam=("^haed/",)).init(params)


def halving(learning_rate, factor):
    halved = optax.contrib.reduce_on_plateau(factor=factor)
    return optax.chain(optax.sgd(learning_rate), halved)


REFUSED = {
    "numbers it must know": (partial(halving, learning_rate=0.1, factor=0.5), "factor lie in the"),
    "pairs of parameters": (lambda: optax.lookahead(optax.sgd(0.1), 5, 0.5), "optax.lookahead"),
    "no period": (lambda: optimizers.lookahead(optax.sgd(0.1), period=0), "period=0"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_optimizers_that_do_not_fit_are_refused_in_words(name):
    optimizer, message = REFUSED[name]
    e = tiny(optimizer=optimizer)
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(make_program(e, steps=5).init, jax.random.key(0))
