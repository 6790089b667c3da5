"""Trainable subsampling, the pooling of LeNet-5. [B, H, W, C] -> [B, H / 2, W / 2, C]."""

import math
from typing import Any

import jax
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jaxcnn.errors import ConfigError


class Subsampling(nn.Module):
    """coefficient * (sum or mean of each window) + bias: two parameters a channel, no overlap; the
    caller applies the activation.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document
    Recognition", 1998, section II-B, layer S2: the four inputs are *added*; `reduction="mean"` is
    the same function with a coefficient four times as large.
    """

    window: tuple[int, ...] = (2, 2)
    reduction: str = "sum"
    coefficient_init: Any = nn.initializers.ones_init()
    bias_init: Any = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.reduction not in ("sum", "mean"):
            raise ConfigError(
                f"Subsampling: reduction = {self.reduction!r}; it must be 'sum' or 'mean'"
            )
        if x.ndim != len(self.window) + 2 or any(
            size % step for size, step in zip(x.shape[1:-1], self.window, strict=True)
        ):
            raise ConfigError(
                f"Subsampling: input {x.shape} is not [B, *spatial, C] with spatial sizes that "
                f"{self.window} divides"
            )
        channels = x.shape[-1:]
        coefficient = self.param("coefficient", self.coefficient_init, channels)
        bias = self.param("bias", self.bias_init, channels)
        x, coefficient, bias = promote_dtype(x, coefficient, bias)
        tiles = [
            extent
            for size, step in zip(x.shape[1:-1], self.window, strict=True)
            for extent in (size // step, step)
        ]
        within = tuple(range(2, 2 * len(self.window) + 1, 2))
        x = x.reshape(x.shape[0], *tiles, *channels)  # [B, H / 2, 2, W / 2, 2, C]
        x = x.sum(within) if self.reduction == "sum" else x.mean(within)
        per_channel = (1,) * (
            x.ndim - 1
        ) + channels  # said in full, so that it holds without implicit rank promotion
        return x * coefficient.reshape(per_channel) + bias.reshape(per_channel)

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """One connection for each input under the window, as the paper counts them (without the
        bias).
        """
        return math.prod(output_shape) * math.prod(self.window)
