"""Pooling over channels-last arrays [B, *spatial, C]; `window`, `strides` are tuples over the
spatial axes, `padding` as in Flax.

The gradient of max-pooling goes to the first largest element of each window, in the order of the
axes, ties included: as XLA's `select_and_scatter` and PyTorch have it. Here it is a comparison with
a remembered position, which XLA's CPU backend fuses and runs in parallel. The rule is a linear map
of the tangent, so that forward mode and second derivatives work as well.

In the formulation "onednn", float32 over one or two spatial axes, the position and the linear map
are calls of compiled code (`jaxcnn.ops.pooling_primitives`).
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Shaped

from jaxcnn.ops import convolution
from jaxcnn.ops.geometry import WindowGeometry
from jaxcnn.ops.pooling_primitives import bind, bind_max, find_first, places, take_first

Padding = str | Sequence[tuple[int, int]]

# The rule unrolls over the positions of a window; beyond this many (a global pool), XLA's own is
# used.
MAX_POSITIONS = 25

FEWEST_CHANNELS = 8  # of a row of pixels that XLA pools at speed: a vector register's


def max_pool(
    x: Shaped[Array | np.ndarray, "..."],
    window: Sequence[int],
    *,
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> Shaped[Array, "..."]:
    """Largest value of each window; `strides` defaults to `window` (no overlap). [B, *spatial, C]
    -> [B, *smaller, C], or both without B, as Flax has it.
    """
    window, strides = tuple(window), tuple(strides or window)
    positions = math.prod(window)
    batched = x.ndim == len(window) + 2 and x.size > 0
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    if (
        convolution.current_formulation() == "natural"
        or positions > MAX_POSITIONS
        or not batched
        or not floating
    ):
        return nn.max_pool(x, window, strides, padding)  # pyright: ignore[reportArgumentType]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:-1], window, strides, padding)
    return _max_pool(x, window, strides, tuple((int(low), int(high)) for low, high in padding))


def max_pooled_convolution(
    lhs: Float[Array, "B *spatial C"],
    rhs: Float[Array, "*window inputs features"],
    window_strides: Sequence[int],
    padding: Padding,
    *,
    window: Sequence[int],
    **options,
) -> Float[Array, "B *smaller features"]:
    """`max_pool` by `window`, without overlap, of `lax.conv_general_dilated(lhs, rhs,
    window_strides, padding, **options)`.

    For `flax.linen.Conv(conv_general_dilated=partial(max_pooled_convolution, window=(2, 2)))`,
    which so adds its bias, one number a map, to fewer places: the same values, and a sum over fewer
    places for the bias's gradient. In pure JAX, a convolution to few channels is computed for each
    place in the window apart: the largest is then a maximum of whole arrays, with nothing
    interleaved in memory.
    """
    convolve = functools.partial(convolution.conv_general_dilated, **options)
    if (
        convolution.current_formulation() != "fast"
        or rhs.shape[-1] >= FEWEST_CHANNELS
        or lhs.size == 0
    ):
        return max_pool(convolve(lhs, rhs, window_strides, padding), window)
    dilation = options.get("rhs_dilation") or (1,) * len(window)
    extents = [d * (k - 1) + 1 for k, d in zip(rhs.shape[:-2], dilation, strict=True)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:-1], extents, window_strides, padding)
    steps = [s * p for s, p in zip(window_strides, window, strict=True)]
    axes = list(zip(lhs.shape[1:-1], extents, window_strides, steps, padding, strict=True))
    # of x, that y's places see
    spans = [
        (((n + low + high - e) // s + 1) * s // step - 1) * step + e
        for n, e, s, step, (low, high) in axes
    ]
    parts = []
    for offset in itertools.product(*map(range, window)):
        lows = [low - o * s for o, (_, _, s, _, (low, _)) in zip(offset, axes, strict=True)]
        pads = [
            (low, span - n - low) for low, span, n in zip(lows, spans, lhs.shape[1:-1], strict=True)
        ]
        parts.append(convolve(lhs, rhs, steps, pads))
    return _largest(*parts)


@jax.custom_jvp
def _largest(*arrays):
    """Elementwise maximum; the derivative is that of the first of equal ones, as in max-pooling."""
    return functools.reduce(jnp.maximum, arrays)


@_largest.defjvp
def _largest_jvp(arrays, tangents):
    first = find_first([lax.stop_gradient(x) for x in arrays])
    tangent = tangents[0]
    for position, t in enumerate(tangents[1:], 1):
        tangent = jnp.where(first == position, t, tangent)
    return _largest(*arrays), tangent


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, strides, padding):
    # Not as a window reduction, which XLA 0.10 for CPUs joins to the products that follow: VGG-11
    # infers five times as slowly then.
    return functools.reduce(jnp.maximum, places(x, window, strides, padding))


@_max_pool.defjvp
def _max_pool_jvp(window, strides, padding, primals, tangents):
    (x,), (tangent,) = primals, tangents
    if _has_calls(x, window, padding):
        plane = 4 - x.ndim  # 1-D as an image of one row
        window, strides, padding = (
            (1,) * plane + window,
            (1,) * plane + strides,
            ((0, 0),) * plane + padding,
        )
        x, tangent = (jnp.expand_dims(operand, 1) if plane else operand for operand in (x, tangent))
        geometry = WindowGeometry(x.shape[1:-1], window, strides, padding, (1, 1))
        y, first = bind_max(x, geometry)
        taken = bind("take", tangent, first, geometry, "onednn")
        return (y[:, 0], taken[:, 0]) if plane else (y, taken)
    y = _max_pool(x, window, strides, padding)
    first = find_first(places(lax.stop_gradient(x), window, strides, padding))
    if _is_explicit(x):
        return y, take_first(tangent, first, window, strides, padding)
    geometry = WindowGeometry(x.shape[1:-1], window, strides, padding, (1,) * len(window))
    return y, bind("take", tangent, first, geometry, "fast")


def _has_calls(x, window, padding) -> bool:
    """True where the derivative is to be computed by compiled code."""
    fits = (
        x.dtype == jnp.float32
        and len(window) in (1, 2)
        and all(n >= 0 for pair in padding for n in pair)
    )
    return fits and not _is_explicit(x) and convolution.current_formulation() == "onednn"


def _is_explicit(x) -> bool:
    """True where the type of x says how it is divided over devices."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)


def avg_pool(
    x: Float[Array | np.ndarray, "B *spatial C"],
    window: Sequence[int],
    *,
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> Float[Array, "B *smaller C"]:
    """Mean of each window; `strides` defaults to `window`. [B, *spatial, C] -> [B, *smaller, C]."""
    strides = tuple(strides or window)
    total = nn.pool(x, 0.0, lax.add, window, strides, padding)
    if count_include_pad:
        return total / math.prod(window)
    counts = nn.pool(jnp.ones_like(x), 0.0, lax.add, window, strides, padding)
    return total / counts
