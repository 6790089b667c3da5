"""Which parameters, modules and statistics a rule of 0 freezes, by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.core import freezing
from jaxcnn.errors import ConfigError

PARAMS = {
    "a": {"kernel": 1, "bias": 2},
    "b": {"c": {"scale": 3}, "d": {"kernel": 4, "bias": 5}},
    "head": {"kernel": 6},
}
PARTS = {
    "none": ((), PARAMS),
    "none of 0": ((("^a/", 1.0), ("head", 2.0)), PARAMS),
    "a leaf": (
        (("^a/kernel", 0.0),),
        {**PARAMS, "a": {"kernel": None, "bias": 2}},
    ),
    "all but the head": (
        (("^head/", 1.0), (".*", 0)),
        {
            "a": {"kernel": None, "bias": None},
            "b": {"c": {"scale": None}, "d": {"kernel": None, "bias": None}},
            "head": {"kernel": 6},
        },
    ),
    "one, others faster": (
        (("^b/c", 0.0), ("head", 2.0)),
        {**PARAMS, "b": {"c": {"scale": None}, "d": {"kernel": 4, "bias": 5}}},
    ),
}


def names(tree):
    return {"/".join(p.key for p in path) for path, _ in jax.tree.leaves_with_path(tree)}


@pytest.mark.parametrize("name", PARTS)
def test_a_tree_falls_into_what_is_trained_and_the_rest(name):
    rules, trained = PARTS[name]
    found, frozen = freezing.split(PARAMS, rules)
    assert found == trained
    assert names(frozen) == names(PARAMS) - names(trained)
    assert freezing.merge(found, frozen) == PARAMS == freezing.merge(frozen, found)


@pytest.mark.parametrize("rules", [((".", 0.0),), (("^a/", 0), ("^(b|head)/", 0.0))], ids=str)
def test_something_is_left_to_be_trained(rules):
    with pytest.raises(ConfigError, match="freezes every parameter; leave one"):
        freezing.split(PARAMS, rules)


FROZEN = {  # rules: what is frozen of the modules below
    (("^a/", 0.0),): {"a", "a/inner"},
    (("^b/c/", 0.0),): {"b/c"},
    (("^b/", 0.0),): {"b", "b/c", "b/d"},
    (("^a/bias", 0.0),): set(),
    (("^a/", 0.0), (".*", 1.0)): {"a", "a/inner"},
    (("^head/", 2.0), ("^a/", 0.0)): {"a", "a/inner"},
    (("^(head|bare)/", 1.0), (".*", 0.0)): {"a", "a/inner", "b", "b/c", "b/d"},
}
MODULES = ("", "a", "a/inner", "b", "b/c", "b/d", "head", "bare", "without")


def path(name):
    return tuple(name.split("/")) if name else ()


@pytest.mark.parametrize("rules", FROZEN, ids=str)
def test_a_module_is_frozen_with_all_its_parameters_or_around_it(rules):
    frozen = freezing.frozen_modules(PARAMS, rules)
    assert {m for m in MODULES if frozen(path(m), statistics=False)} == FROZEN[rules]


def test_statistics_without_parameters_are_frozen_by_their_name_too():
    rules = (("^b/d/kernel", 1.0), ("^(a|bare|b/d)/", 0.0), (".*", 1.0))
    frozen = freezing.frozen_modules(PARAMS, rules)
    found = {m for m in MODULES if frozen(path(m), statistics=True)}
    assert found == {"a", "a/inner", "bare"}  # a part of b/d is trained
    frozen = freezing.frozen_modules(PARAMS, (("^a/", 0.0),))
    assert not frozen(("without",), statistics=True)


def test_collections_of_frozen_modules_stay():
    def collections(value):
        seen = {"a": {"mean": value, "var": value}, "b": {"c": {"mean": value}}}
        return {"batch_stats": {**seen, "head": {"mean": value}}, "counts": {"bare": {"n": value}}}

    def kept(rules):
        found = freezing.keep_statistics(collections("new"), collections("old"), PARAMS, rules)
        assert jax.tree.structure(found) == jax.tree.structure(collections(""))
        return {
            "/".join(p.key for p in path)
            for path, value in jax.tree.leaves_with_path(found)
            if value == "old"
        }

    of_a = {"batch_stats/a/mean", "batch_stats/a/var"}
    assert kept(()) == kept((("^a/", 0.5),)) == set()
    assert kept((("^a/", 0.0),)) == of_a
    assert kept((("^a/", 0.0), ("head", 2.0))) == of_a
    everything = of_a | {"batch_stats/b/c/mean", "counts/bare/n"}
    assert kept((("^head/", 1.0), (".*", 0.0))) == everything


class Norms(nn.Module):
    """A norm that is told when it is called, one that is when it is made, and Dropout."""

    @nn.compact
    def __call__(self, x, *, train):
        called = nn.BatchNorm(use_bias=False, name="called")
        x = called(x, use_running_average=not train)
        x = nn.BatchNorm(use_running_average=not train, use_bias=False, name="made")(x)
        x = Kept(name="kept")(x, train)
        return nn.Dense(1, use_bias=False, name="head")(x)


class Kept(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = x * self.param("scale", nn.initializers.ones, ())
        x = nn.BatchNorm(use_running_average=True, use_bias=False, name="evaluated")(x)
        return nn.Dropout(0.5)(x, not train)


VARIABLES = {
    "params": {
        "called": {"scale": jnp.full(2, 2.0)},
        "made": {"scale": jnp.full(2, 3.0)},
        "kept": {"scale": jnp.float32(5.0), "evaluated": {"scale": jnp.ones(2)}},
        "head": {"kernel": jnp.ones((2, 1))},
    },
    "batch_stats": {
        name: {"mean": jnp.full(2, 0.5), "var": jnp.full(2, 4.0)} for name in ("called", "made")
    }
    | {"kept": {"evaluated": {"mean": jnp.zeros(2), "var": jnp.ones(2)}}},
}
ROWS = jnp.asarray([[1.0, 2.0], [3.0, 5.0], [4.0, 4.0]])


def outputs(rules, *, train=True, key=0):
    with freezing.as_in_evaluation(VARIABLES["params"], rules):
        found, new = Norms().apply(
            VARIABLES, ROWS, train=train, rngs={"dropout": jax.random.key(key)}, mutable=True
        )
    return np.asarray(found), new["batch_stats"]


def same(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_frozen_modules_run_as_in_evaluation_however_they_are_told():
    evaluated, _ = outputs((), train=False)
    x = np.asarray(ROWS)
    for scale in (2.0, 3.0):
        x = (x - 0.5) / np.sqrt(4 + 1e-5) * scale
    np.testing.assert_allclose(evaluated, 5 * x.sum(1, keepdims=True), rtol=1e-4)
    frozen, statistics = outputs((("^head/", 1.0), (".*", 0.0)))
    np.testing.assert_array_equal(frozen, evaluated)
    assert same(statistics, VARIABLES["batch_stats"])


@pytest.mark.parametrize("rules", [(), ((".*", 0.1),)], ids=["none", "none of 0"])
def test_without_a_rule_of_0_all_is_in_training(rules):
    plain, new = Norms().apply(
        VARIABLES, ROWS, train=True, rngs={"dropout": jax.random.key(0)}, mutable=True
    )
    found, statistics = outputs(rules)
    np.testing.assert_array_equal(found, plain)
    assert same(statistics, new["batch_stats"])
    assert not np.array_equal(found, outputs((("^kept/", 0.0),))[0])


def test_a_frozen_module_leaves_the_others_in_training():
    _, statistics = outputs((("^called/", 0.0),))
    moved = {name for name, s in statistics.items() if not same(s, VARIABLES["batch_stats"][name])}
    assert moved == {"made"}
    for rules, drops in [((("^kept/", 0.0),), False), ((("^called/", 0.0),), True)]:
        a, b = (outputs(rules, key=key)[0] for key in range(2))
        assert np.array_equal(a, b) != drops
