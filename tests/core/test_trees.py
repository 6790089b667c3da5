"""Names of leaves, rules over names, keys."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core import trees
from jaxcnn.errors import ConfigError


def test_leaves_have_the_names_of_the_way_to_them():
    state = {"opt": (optax.TraceState(trace={"b": 1}), [2, 3]), "a": 4}
    assert trees.flatten(state) == {"a": 4, "opt/0/trace/b": 1, "opt/1/0": 2, "opt/1/1": 3}
    assert list(trees.flatten(state).values()) == jax.tree.leaves(state)


def test_unflatten_is_the_inverse():
    tree = {"a": {"b": {"c": 1, "d": 2}}, "e": 3}
    assert trees.unflatten(trees.flatten(tree)) == tree
    assert trees.unflatten({}) == {}


NAMES = ["Conv_0/kernel", "Conv_0/bias"]


def test_rules_that_find_something_are_taken():
    trees.check_rules("rates", [("kernel$", 1), ("^Conv", 2)], NAMES, of="parameter")
    trees.check_rules("rates", [], NAMES, of="parameter")


@pytest.mark.parametrize(
    "rule, message",
    [
        (
            "kernle",
            r"^rates: the rule 'kernle' matches no parameter.*are: Conv_0/kernel, Conv_0/bias$",
        ),
        ("(", r"^rates: '\(' is not a regular expression: "),
    ],
)
def test_rules_that_find_nothing_are_refused(rule, message):
    with pytest.raises(ConfigError, match=message):
        trees.check_rules("rates", [("kernel", 0), (rule, 0)], NAMES, of="parameter")


def test_keys_and_their_numbers():
    key, number = jax.random.key(3), jnp.float32(2)
    assert trees.is_key(key)
    assert trees.is_key(jax.eval_shape(lambda: key))
    assert not trees.is_key(number)
    assert not trees.is_key(jax.random.key_data(key))
    assert trees.raw(number) is number
    np.testing.assert_array_equal(trees.raw(key), jax.random.key_data(key))
