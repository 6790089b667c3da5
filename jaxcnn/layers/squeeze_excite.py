"""Channel attention. Hu, Shen, Sun, "Squeeze-and-Excitation Networks" (2018), section 3."""

from collections.abc import Callable

import jax
from flax import linen as nn


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channel means: [B, *spatial, C] -> [B,
    *spatial, C].

    `squeezed` is the width of the hidden layer (C / 16 in the paper); `gate` maps to [0, 1].
    """

    squeezed: int
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid

    @nn.compact
    def __call__(self, x):
        spatial = tuple(range(1, x.ndim - 1))
        y = x.mean(spatial, keepdims=True)  # [B, 1, 1, C]
        y = self.activation(nn.Dense(self.squeezed, name="reduce")(y))
        return x * self.gate(nn.Dense(x.shape[-1], name="expand")(y))
