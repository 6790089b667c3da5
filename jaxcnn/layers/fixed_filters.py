"""Convolution with constant kernels, and what is made of its signed answers. Channels last, [B, H,
W, C].
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.ops import convolution


def _magnitude(x: jax.Array) -> jax.Array:
    if x.shape[-1] % 2:
        raise ConfigError(
            "rectify 'magnitude' takes pairs of maps (derivatives along y and x, two phases); "
            f"there are {x.shape[-1]} maps"
        )
    squares = jnp.square(x).reshape(*x.shape[:-1], x.shape[-1] // 2, 2).sum(-1)
    # the root's slope at 0 is infinite; that of a length is taken to be 0 there
    positive = squares > 0
    return jnp.where(
        positive,
        jnp.sqrt(jnp.where(positive, squares, jnp.ones_like(squares))),
        jnp.zeros_like(squares),
    )


# name: (function of the maps [..., K], maps after it for each one before it)
RECTIFIERS: dict[str, tuple[Callable[[jax.Array], jax.Array], float]] = {
    "none": (lambda x: x, 1),
    "relu": (nn.relu, 1),
    "abs": (jnp.abs, 1),
    "split": (lambda x: jnp.concatenate([nn.relu(x), nn.relu(-x)], axis=-1), 2),
    "magnitude": (_magnitude, 0.5),
}


def rectify(x: jax.Array, how: str) -> jax.Array:
    """Signed answers of filters [..., K] to how strongly they answer.

    "none", "relu" and "abs" [..., K]; "split" [..., 2K], the positive parts and then the negative
    ones (Shang, Sohn, Almeida, Lee,
    "Understanding and Improving Convolutional Neural Networks via Concatenated Rectified Linear
    Units", 2016); "magnitude" [..., K / 2],
    the length of each pair of neighbouring maps: of a gradient, or of the answers of an even and an
    odd Gabor filter (Adelson, Bergen,
    "Spatiotemporal energy models for the perception of motion", 1985).
    """
    if how not in RECTIFIERS:
        raise ConfigError(
            f"rectify = {how!r} is unknown{did_you_mean(str(how), RECTIFIERS)}; there are "
            f"{', '.join(RECTIFIERS)}"
        )
    return RECTIFIERS[how][0](x)


class FixedFilters(nn.Module):
    """K constant filters on each channel by itself (`depthwise`, C * K maps, channel by channel) or
    on the channels' sum (K maps).

    It has no parameters. `kernels` makes the bank [kh, kw, K], such as `jaxcnn.ops.filters.sobel`
    or a partial of `gabor_bank`; `padding` as in Flax; `rectify`: see the function of that name.
    Beside `Conv(K, (kh, kw))`, it is what a first layer was before it was learned.
    """

    kernels: Callable[[], np.ndarray]
    strides: tuple[int, int] = (1, 1)
    padding: Any = "SAME"
    depthwise: bool = True
    rectify: str = "none"

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        bank = self._bank()
        x = image if self.depthwise else image.sum(-1, keepdims=True)
        channels = x.shape[-1]
        kernel = jnp.asarray(np.tile(bank[:, :, None, :], channels), x.dtype)  # [kh, kw, 1, C * K]
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": channels}
        return rectify(
            convolution.conv_general_dilated(x, kernel, self.strides, self.padding, **options),
            self.rectify,
        )

    def _bank(self) -> np.ndarray:
        bank = np.asarray(self.kernels())
        if bank.ndim != 3:
            raise ConfigError(
                f"FixedFilters: kernels make an array {bank.shape}; it must be [height, width, "
                "filters]"
            )
        return bank

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """Multiplications of the filters, constant as they are; those of the rectification count
        nothing.
        """
        height, width, _ = self._bank().shape
        return round(math.prod(output_shape) / RECTIFIERS[self.rectify][1]) * height * width
