"""What optimizers do to a few numbers, by hand: updates, extra arguments, what is evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core import optimizers
from jaxcnn.errors import ConfigError

PARAMS = {"kernel": jnp.asarray([[2.0, -4.0]]), "bias": jnp.asarray([8.0])}
GRADS = {"kernel": jnp.asarray([[1.0, 3.0]]), "bias": jnp.asarray([5.0])}


def run(optimizer, steps, params=PARAMS, grads=GRADS, **more):
    """Parameters after so many updates by the same gradient."""
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(grads, state, params, **more)
        params = optax.apply_updates(params, updates)
    return params, state


# the updates of a parameter p by the gradient g, at a rate of 0.1, one after another
SGD = {
    "plain": ({}, lambda p, g: [g, g]),
    "momentum": ({"momentum": 0.5}, lambda p, g: [g, 1.5 * g]),
    "nesterov": ({"momentum": 0.5, "nesterov": True}, lambda p, g: [1.5 * g, 1.75 * g]),
    "decay": (
        {"momentum": 0.5, "weight_decay": 0.25},
        lambda p, g: [d := g + p / 4, 0.5 * d + g + (p - 0.1 * d) / 4],
    ),
    "decay of its own": (
        {"momentum": 0.5, "weight_decay": 0.25, "decoupled": True},
        lambda p, g: [d := g + p / 4, 1.5 * g + (p - 0.1 * d) / 4],
    ),
}


@pytest.mark.parametrize("name", SGD)
def test_two_updates_of_sgd(name):
    options, updates = SGD[name]
    found, _ = run(optimizers.sgd(0.1, **options), 2)
    for k, p in PARAMS.items():
        np.testing.assert_allclose(found[k], p - 0.1 * sum(updates(p, GRADS[k])), rtol=1e-5)


def test_what_is_masked_does_not_decay():
    for mask in (optimizers.kernels, {"kernel": True, "bias": False}):
        found, _ = run(optimizers.sgd(0.1, weight_decay=0.5, mask=mask), 1)
        np.testing.assert_allclose(found["bias"], 8 - 0.5)
        np.testing.assert_allclose(found["kernel"], [[2 - 0.1 * 2, -4 - 0.1 * 1]], rtol=1e-6)


def test_names_and_axes_of_leaves():
    tree = {"a": {"one": jnp.ones(1), "two": jnp.ones((1, 1))}, "b": (jnp.ones((1, 1, 1)), 1.0)}
    names = {"a": {"one": "a/one", "two": "a/two"}, "b": ("b/0", "b/1")}
    assert optimizers.path_names(tree) == names
    kernels = {"a": {"one": False, "two": True}, "b": (True, False)}
    assert optimizers.kernels(tree) == kernels
    holes = {"a": None, "b": 1}
    assert optimizers.path_names(holes) == {"a": None, "b": "b"}
    assert optimizers.path_names(holes, is_leaf=lambda x: x is None) == {"a": "a", "b": "b"}


def test_the_first_rule_that_is_found_in_a_name_counts():
    rules = (("a/.*bias", 0.0), ("^a", 0.5), ("bias$", 2.0))
    found = optimizers.rate_multipliers({"a": {"bias": 1, "kernel": 1}, "c": {"bias": 1}}, rules)
    assert found == {"a": {"bias": 0.0, "kernel": 0.5}, "c": {"bias": 2.0}}
    assert optimizers.rate_multipliers({"c": {"d": 1}}, ()) == {"c": {"d": 1.0}}
    with pytest.raises(ConfigError, match=r"rate_multipliers: .*'e' matches no parameter"):
        optimizers.rate_multipliers({"c": 1}, (("c", 0.5), ("e", 0.5)))


@pytest.mark.parametrize("step, share", [(0, 0.1), (2, 0.25), (8, 0.5), (100, 0.75)])
def test_an_average_forgets_faster_at_first(step, share):
    """(1 + step) / (10 + step), until that is more than the decay."""
    old = {"a": jnp.asarray([8.0, 0.0]), "low": jnp.asarray(8, jnp.bfloat16), "n": jnp.int32(3)}
    new = {"a": jnp.asarray([0.0, 4.0]), "low": jnp.asarray(0.0), "n": jnp.int32(7)}
    found = optimizers.ema(old, new, decay=0.75, step=jnp.int32(step))
    np.testing.assert_allclose(found["a"], [8 * share, 4 * (1 - share)], rtol=1e-6)
    assert found["low"].dtype == jnp.bfloat16
    assert float(found["low"]) == pytest.approx(8 * share, rel=1e-2)
    assert int(found["n"]) == 7


def none_taken(updates, state, params=None):
    return updates, state


def value_taken(updates, state, params=None, *, value):
    return {"given": value}, state


def all_taken(updates, state, params=None, **more):
    return more, state


@pytest.mark.parametrize("update, given", [
    (none_taken, {"kernel": 1}), (value_taken, {"given": 2}), (all_taken, {"value": 2, "scale": 3})
])  # fmt: skip
@pytest.mark.parametrize(
    "kind", [optax.GradientTransformation, optax.GradientTransformationExtraArgs]
)
def test_an_optimizer_gets_the_extra_arguments_that_it_has_a_name_for(kind, update, given):
    optimizer = optimizers.with_any_arguments(kind(lambda params: "state", update))
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
    assert optimizer.init(None) == "state"
    found = optimizer.update({"kernel": 1}, "state", None, value=2, scale=3)
    assert found == (given, "state")


def test_lookahead_meets_every_period_by_its_share():
    """By steps of -1; unless it is said, after five by a half."""
    ones = {"a": jnp.asarray([1.0])}
    said = optimizers.lookahead(optax.sgd(1.0), period=2, share=0.25)
    places = [float(run(said, n, ones, ones)[0]["a"][0]) for n in range(6)]
    assert places == [1, 0, 0.5, -0.5, 0, -1]
    unsaid = optimizers.lookahead(optax.sgd(1.0))
    assert [float(run(unsaid, n, ones, ones)[0]["a"][0]) for n in (4, 5)] == [-3, -1.5]
    found, state = run(unsaid, 7, ones, ones)
    assert (float(found["a"][0]), float(state.slow["a"][0]), int(state.count)) == (-3.5, -1.5, 2)


def test_lookahead_meets_at_every_step_or_not_at_all():
    ones = {"a": jnp.asarray([1.0])}
    found, state = run(optimizers.lookahead(optax.sgd(1.0), period=1), 1, ones, ones)
    assert float(found["a"][0]) == float(state.slow["a"][0]) == 0.5
    with pytest.raises(ConfigError, match="period=0: must be at least 1"):
        optimizers.lookahead(optax.sgd(1.0), period=0)


def test_lookahead_meets_whatever_its_result_is_multiplied_by():
    """A parameter that stands still does not keep the others from it; if all do, no step counts."""
    params = {"a": jnp.asarray([1.0]), "b": jnp.asarray([1.0]), "c": jnp.asarray([1.0])}
    scale = {"a": jnp.float32(0.5), "b": jnp.float32(0), "c": jnp.float32(2)}
    optimizer = optimizers.lookahead(optax.sgd(1.0), period=2)
    state = optimizer.init(params)
    still = jax.tree.map(jnp.zeros_like, scale)
    for factors in (scale, still, scale):
        updates, state = optimizer.update(
            {k: jnp.asarray([2.0]) for k in params}, state, params, scale=factors
        )
        params = jax.tree.map(lambda p, u, s: p + s * u, params, updates, factors)
    assert {k: float(p[0]) for k, p in params.items()} == {"a": 0, "b": 1, "c": -3}
    assert {k: float(p[0]) for k, p in state.slow.items()} == {"a": 0, "b": 1, "c": -3}
    assert int(state.count) == 0


def test_lookahead_hands_on_what_it_is_given():
    scale = {"value": jnp.float32(1), "scale": jnp.float32(1)}
    params = {"value": jnp.float32(0), "scale": jnp.float32(0)}

    def update(updates, state, params=None, *, value, scale):
        return {"value": jnp.float32(value), "scale": scale["scale"]}, state

    inner = optax.GradientTransformationExtraArgs(lambda params: "state", update)
    optimizer = optimizers.lookahead(inner)
    updates, state = optimizer.update(params, optimizer.init(params), params, scale=scale, value=7)
    assert {k: float(u) for k, u in updates.items()} == {"value": 7, "scale": 1}
    assert state.inner == "state"


MUON = {
    "unsaid": {},
    "beta": {"beta": 0.5},
    "ns_steps": {"ns_steps": 2},
    "decay": {"weight_decay": 0.5},
    "decay of adam": {"adam_weight_decay": 0.5},
    "rate of adam": {"adam_learning_rate": 0.5},
    "size": {"consistent_rms": 0.2},
}


@pytest.mark.parametrize("name", MUON)
def test_muon_of_a_kernel_is_that_of_its_matrix_by_optax(name):
    random = np.random.default_rng(0)
    flat, *slopes = (
        {"kernel": jnp.float32(random.normal(size=(12, 5))), "bias": jnp.ones(5) / (i + 1)}
        for i in range(3)
    )

    def fold(tree):
        return {**tree, "kernel": tree["kernel"].reshape(2, 2, 3, 5)}

    def moved(optimizer, params, slopes):
        state = optimizer.init(params)
        for grads in slopes:
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    with jax.numpy_dtype_promotion("standard"):
        theirs = moved(optax.contrib.muon(0.1, **MUON[name]), flat, slopes)
        ours = moved(optimizers.muon(0.1, **MUON[name]), fold(flat), map(fold, slopes))
    for k, expected in fold(theirs).items():
        np.testing.assert_allclose(ours[k], expected, atol=1e-5)


def test_muon_takes_kernels_alone():
    """By their own names, of two or more axes; not those of a rule, nor what is no array."""
    params = {
        "a": {"b": {"kernel": jnp.ones((2, 2)), "scale": jnp.ones((2, 2))}},
        "kernel": {"weight": jnp.ones((2, 2)), "kernel": jnp.ones((2, 3, 4))},
        "line": {"kernel": jnp.ones(3), "bias": None},
        "head": {"kernel": jnp.ones((2, 2))},
        "gone": {"kernel": None},
        "other": {"kernel": optax.MaskedNode()},
    }
    state = optimizers.muon(0.1, adam=("^head/", "^gone/")).init(params)

    def held(name):
        leaves = jax.tree.leaves_with_path(state.inner_states[name])
        texts = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
        return {text.split("/mu/")[1] for text in texts if "/mu/" in text}

    assert held("muon") == {"a/b/kernel", "kernel/kernel"}
    assert held("adam") == {"a/b/scale", "kernel/weight", "line/kernel", "head/kernel"}
    with pytest.raises(ConfigError, match=r"'haed' matches no parameter"):
        optimizers.muon(0.1, adam=("haed",)).init(params)


def schedule_free(z):
    free = optax.contrib.schedule_free_sgd(0.1, b1=0.8).init(PARAMS)
    return free._replace(b1=jnp.float32(0.8), z=z)


def looking(slow):
    return optimizers.lookahead(optax.sgd(0.1)).init(PARAMS)._replace(slow=slow)


def in_turns(cache, *, since):
    optimizer = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1), opaque_mode=False)
    return optimizer.init(PARAMS)._replace(cache=cache, steps_since_sync=jnp.int32(since))


HELD = {"kernel": jnp.asarray([[1.0, 1.0]]), "bias": None}
OPAQUE = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1), opaque_mode=True).init(PARAMS)
EVALUATED = {  # state of the optimizer: the kernel that is evaluated, in whose place it is moved
    "plain": (optax.adam(0.1).init(PARAMS), [[2, -4]], None),
    # (y - 0.2 z) / 0.8
    "schedule-free": (schedule_free(HELD), [[2.25, -5.25]], "schedule-free"),
    "lookahead": (looking(HELD), [[1, 1]], None),
    "sam, uphill": (in_turns(HELD, since=1), [[1, 1]], "optax.contrib.sam"),
    "sam, down again": (in_turns(HELD, since=0), [[2, -4]], "optax.contrib.sam"),
    "sam, opaque": (OPAQUE, [[2, -4]], None),
}


@pytest.mark.parametrize("name", EVALUATED)
@pytest.mark.parametrize("around", [lambda x: x, lambda x: (optax.EmptyState(), {"in": x})],
                         ids=["alone", "in a chain"])  # fmt: skip
def test_what_an_optimizer_is_evaluated_at_and_whether_it_chooses_its_places(name, around):
    """What it does not hold stays."""
    state, kernel, mover = EVALUATED[name]
    found = optimizers.evaluation_params(around(state), PARAMS)
    np.testing.assert_allclose(found["kernel"], kernel, rtol=1e-6)
    np.testing.assert_array_equal(found["bias"], PARAMS["bias"])
    said = optimizers.mover(around(state))
    assert (said is None) == (mover is None)
    assert mover is None or said.startswith(mover)
