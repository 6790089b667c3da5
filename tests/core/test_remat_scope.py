"""Which modules are computed anew in the backward pass, and with what arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.core.remat import computed_anew
from jaxcnn.errors import ConfigError


class Inner(nn.Module):
    """Takes arrays, what is none, and both together; has a method besides."""

    @nn.compact
    def __call__(self, x, power, pair=(1, "plus"), *, shift=0.0, nothing=None):
        assert power in (1, 2)  # as Python's numbers, not traced
        assert nothing is None
        number, word = pair
        assert word == "plus"
        return jnp.sin(x * self.param("w", nn.initializers.ones, ())) ** power + number + shift

    def half(self, x):
        return x / 2


class Outer(nn.Module):
    def setup(self):
        self.one, self.two = Inner(), Inner()

    def __call__(self, x):
        x = self.one(x, 2, (jnp.float32(1), "plus"), shift=jnp.float32(0.5))
        return self.one.half(self.two(x, power=1))


class Top(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Inner(name="alone")(Outer(name="outer")(x), 1, shift=x)


X = jnp.float32(0.3)


def loss_of(expressions):
    def loss(params, x):
        with computed_anew(expressions):
            return Top().apply({"params": params}, x)

    return loss


W = {"w": jnp.float32(0.7)}
PARAMS = {"alone": W, "outer": {"one": W, "two": W}}


def marks(expressions):
    """How often the program says that something is computed anew."""
    jaxpr = str(jax.make_jaxpr(loss_of(expressions))(PARAMS, X))
    return jaxpr.count("prevent_cse")


@pytest.mark.parametrize("expressions, count", [
    ((), 0),
    (("alone",), 1),
    (("/one$",), 1),
    (("/one$", "two$"), 2),
    (("o[nu][et]",), 2),  # the outermost of outer and outer/one, and alone
    (("outer", "outer/one"), 1),
    (("outer", "alone"), 2),
    ((".*",), 2),  # the model itself has no name
    (iter(["outer"]), 1),
], ids=lambda x: str(x) if isinstance(x, tuple | int) else "an iterator")  # fmt: skip
def test_the_outermost_modules_that_are_named_are_computed_anew(expressions, count):
    assert marks(expressions) == count
    assert marks(()) == 0, "outside nothing is"


@pytest.mark.parametrize("expressions", [("alone",), ("outer",), ("/one$",), (".*",)], ids=str)
def test_outputs_and_gradients_are_the_same(expressions):
    plain = jax.value_and_grad(loss_of(()), argnums=(0, 1))(PARAMS, X)
    anew = jax.value_and_grad(loss_of(expressions), argnums=(0, 1))(PARAMS, X)
    for a, b in zip(*map(jax.tree.leaves, (plain, anew)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_name_of_no_module_that_is_called_is_refused():
    with pytest.raises(ConfigError, match=r"remat: the rule 'otuer' matches no module.*outer/one"):
        marks(("outer", "otuer"))
    with pytest.raises(ConfigError, match=r"remat: '\(' is not a regular expression"):
        marks(("(",))
