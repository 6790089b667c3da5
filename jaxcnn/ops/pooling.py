"""Pooling over channels-last arrays [B, *spatial, C]; `window`, `strides` are tuples over the spatial axes, `padding` as in Flax.

The gradient of max-pooling goes to the first largest element of each window, in the order of the axes, ties included: as XLA's
`select_and_scatter` and PyTorch have it. Here it is a comparison with a remembered position, which XLA's CPU backend fuses and runs in
parallel. The rule is a linear map of the tangent, so that forward mode and second derivatives work as well.
"""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from jaxcnn.ops import convolution

# The rule unrolls over the positions of a window; beyond this many (a global pool), XLA's own is used.
MAX_POSITIONS = 25


def max_pool(x, window, strides=None, padding: Any = "VALID"):
    """Largest value of each window; `strides` defaults to `window` (no overlap). [B, *spatial, C] -> [B, *smaller, C]."""
    window, strides = tuple(window), tuple(strides or window)
    positions = math.prod(window)
    batched = x.ndim == len(window) + 2 and x.size > 0
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    if convolution.current_formulation() == "natural" or positions > MAX_POSITIONS or not batched or not floating:
        return nn.max_pool(x, window, strides, padding)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:-1], window, strides, padding)
    return _max_pool(x, window, strides, tuple((int(low), int(high)) for low, high in padding))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, strides, padding):
    # Not as a window reduction, which XLA 0.10 for CPUs joins to the products that follow: VGG-11 infers five times as slowly then.
    padded = _pad(x, padding, -jnp.inf)
    spatial = [(n - k) // s + 1 for n, k, s in zip(padded.shape[1:-1], window, strides, strict=True)]
    taken = [_take(padded, offset, strides, (x.shape[0], *spatial, x.shape[-1])) for offset in itertools.product(*map(range, window))]
    return functools.reduce(jnp.maximum, taken)


@_max_pool.defjvp
def _max_pool_jvp(window, strides, padding, primals, tangents):
    (x,), (tangent,) = primals, tangents
    y = nn.max_pool(x, window, strides, padding)
    offsets = list(itertools.product(*map(range, window)))
    padded = _pad(lax.stop_gradient(x), padding, -jnp.inf)
    largest = lax.stop_gradient(y)
    first = jnp.full(y.shape, len(offsets), jnp.uint8)  # [B, *smaller, C]: which position of the window won
    for position, offset in reversed(list(enumerate(offsets))):
        first = jnp.where(_take(padded, offset, strides, y.shape) == largest, jnp.uint8(position), first)
    if window == strides:
        return y, _select_tiles(_pad(tangent, padding, 0), first, window)
    tangent = _pad(tangent, padding, 0)
    chosen = [jnp.where(first == i, _take(tangent, offset, strides, y.shape), 0) for i, offset in enumerate(offsets)]
    return y, functools.reduce(jnp.add, chosen)


def _pad(x, padding, value):
    """x with its spatial axes extended by `value`."""
    if not any(low or high for low, high in padding):
        return x
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])


def _take(x, offset, strides, shape):
    """The element at `offset` of every window. [B, *padded, C] -> `shape`, [B, *smaller, C]."""
    limits = [o + (n - 1) * s + 1 for o, n, s in zip(offset, shape[1:-1], strides, strict=True)]
    return lax.slice(x, (0, *offset, 0), (shape[0], *limits, shape[-1]), (1, *strides, 1))


def _select_tiles(x, first, window):
    """The element of every window that `first` points to, where windows tile x: transposed, this is one comparison an element, no sum.

    x [B, *padded, C], first [B, *smaller, C] -> [B, *smaller, C].
    """
    smaller = first.shape[1:-1]
    x = lax.slice(x, (0,) * x.ndim, (x.shape[0], *(n * k for n, k in zip(smaller, window, strict=True)), x.shape[-1]))
    tiles = [extent for pair in zip(smaller, window, strict=True) for extent in pair]
    tiled = x.reshape(x.shape[0], *tiles, x.shape[-1])  # [B, H', kh, W', kw, C]
    within = tuple(range(2, 2 * len(window) + 1, 2))
    position = jnp.arange(math.prod(window), dtype=jnp.uint8).reshape(window)
    position = lax.broadcast_in_dim(position, tiled.shape, within)
    hit = position == jnp.expand_dims(first, within)
    return jnp.sum(jnp.where(hit, tiled, 0), within)


def avg_pool(x, window, strides=None, padding: Any = "VALID", *, count_include_pad=True):
    """Mean of each window; `strides` defaults to `window`. [B, *spatial, C] -> [B, *smaller, C]."""
    strides = tuple(strides or window)
    total = nn.pool(x, 0.0, lax.add, window, strides, padding)
    if count_include_pad:
        return total / math.prod(window)
    counts = nn.pool(jnp.ones_like(x), 0.0, lax.add, window, strides, padding)
    return total / counts
