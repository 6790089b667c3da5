"""Grouped convolutions as XLA's CPU backend computes them fastest: as several plain ones, each of
enough groups to fill 32 channels, whose kernel has zeros between the groups. Pure JAX.

XLA multiplies the few channels of one group at a time, and takes the gradient of the kernel by a
loop over single numbers. Zeros are more multiplications, in products that run at full speed. ms by
XLA and so, 3x3 windows, 32 groups, eight images: y of 56x56x128 316 and 41, of 28x28x256 58 and
19, of 14x14x512 33 and 8; x 275 and 32, 65 and 20, 28 and 9; w of 14x14x128 1,188 and 4 (2 cores of
an AMD EPYC without AVX-512, 2026-11-29, medians of three, beside other work; the script is not
kept). A number that is not finite makes the groups that are taken with its own NaN, too: zero times
infinity.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcnn.ops.geometry import ConvolutionGeometry

WIDTH = 32  # channels of a plain convolution
MOST = 16  # plain convolutions for one: each costs compilation


def suits(role: str, geometry: ConvolutionGeometry, w_shape: tuple[int, ...]) -> bool:
    """True where `convolve` applies, to groups of several channels, and is not slower: many groups
    that are wide enough by themselves are left to XLA, but for the gradient of the kernel.
    """
    wide = geometry.groups > MOST and w_shape[-2] >= WIDTH
    return geometry.groups > 1 and w_shape[-2] > 1 and (role == "w" or not wide)


def convolve(
    role: str,
    geometry: ConvolutionGeometry,
    a,
    b,
    plain: Callable[[str, ConvolutionGeometry, jax.Array, jax.Array], jax.Array],
):
    """y(x, w), x(y, w) or w(x, y), by `role`; `geometry` as `suits` asks. plain: the same of a
    convolution without groups.
    """
    groups = geometry.groups
    channels = a.shape[-1] if role == "w" else b.shape[-2] * groups
    together = _together(groups, channels)
    one, parts = dataclasses.replace(geometry, groups=1), groups // together

    def part(a, b):
        if role == "w":
            return _narrow(plain(role, one, a, b), together)
        return plain(role, one, a, _widen(b, together))

    pairs = zip(jnp.split(a, parts, -1), jnp.split(b, parts, -1), strict=True)
    return jnp.concatenate([part(*pair) for pair in pairs], -1)


def _together(groups: int, channels: int) -> int:
    """How many groups are taken for one: a divisor of `groups`, the largest that keeps to `WIDTH`
    channels, or the least that keeps to `MOST` parts.
    """
    divisors = [n for n in range(1, groups + 1) if groups % n == 0]
    fitting = max(n for n in divisors if n == 1 or n * channels <= WIDTH * groups)
    return max(fitting, min(n for n in divisors if groups <= MOST * n))


def _widen(w, groups: int):
    """The kernel of all groups as one: [*window, I, F] -> [*window, groups·I, F]."""
    *window, inputs, features = w.shape
    blocks = w.reshape(*window, 1, inputs, groups, features // groups)
    same = jnp.eye(groups, dtype=bool)[:, None, :, None]
    wide = jnp.where(same, blocks, jnp.zeros((), w.dtype))
    return wide.reshape(*window, groups * inputs, features)


def _narrow(w, groups: int):
    """What `_widen` put in: [*window, groups·I, F] -> [*window, I, F]."""
    *window, inputs, features = w.shape
    blocks = w.reshape(*window, groups, inputs // groups, groups, features // groups)
    own = [blocks[..., n, :, n, :] for n in range(groups)]
    return jnp.concatenate(own, -1)
