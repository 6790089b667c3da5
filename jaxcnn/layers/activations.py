"""Elementwise activation functions by name, so that an override on the command line can choose one
(`model.activation=tanh`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError, did_you_mean


def scaled_tanh(x: jax.Array) -> jax.Array:
    """1.7159 tanh(2x / 3): f(±1) = ±1, the points of largest curvature. LeCun, Bottou, Bengio,
    Haffner 1998, appendix A.
    """
    return 1.7159 * jnp.tanh(x * (2 / 3))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": nn.elu,
    "gelu": nn.gelu,
    "hard_swish": nn.hard_swish,
    "identity": lambda x: x,
    "leaky_relu": nn.leaky_relu,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "scaled_tanh": scaled_tanh,
    "sigmoid": nn.sigmoid,
    "silu": nn.silu,
    "tanh": nn.tanh,
}

# Those that never fall: the largest of their values is their value at the largest argument, so
# max-pooling may come first.
INCREASING = frozenset(ACTIVATIONS) - {"gelu", "hard_swish", "silu"}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The elementwise function of that name; ConfigError, listing the names, if there is none."""
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"activation {name!r} is unknown{did_you_mean(str(name), ACTIVATIONS)}; there are "
            f"{', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]
