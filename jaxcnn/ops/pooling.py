"""Pooling over channels-last arrays [B, *spatial, C]; `window`, `strides` are tuples over the
spatial axes, `padding` as in Flax.

The gradient of max-pooling goes to the first largest element of each window, in the order of the
axes, ties included: as XLA's `select_and_scatter` and PyTorch have it. Here it is a comparison with
a remembered position, which XLA's CPU backend fuses and runs in parallel. The rule is a linear map
of the tangent, so that forward mode and second derivatives work as well.

In the formulation "onednn", float32 over one or two spatial axes, the position and the linear map
are calls of compiled code (`jaxcnn.ops.cpu.onednn.pool`), by way of three JAX primitives: "max" (x
-> y, first), and the linear "take" (x, first -> y) and "put" (y, first -> x), each other's
transposes. `first` [B, H', W', C] uint8 is the position of the winner in its window, in row-major
order.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxcnn.ops import convolution

# The rule unrolls over the positions of a window; beyond this many (a global pool), XLA's own is
# used.
MAX_POSITIONS = 25

FEWEST_CHANNELS = 8  # of a row of pixels that XLA pools at speed: a vector register's


def max_pool(x, window, strides=None, padding: Any = "VALID"):
    """Largest value of each window; `strides` defaults to `window` (no overlap). [B, *spatial, C]
    -> [B, *smaller, C].
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
        return nn.max_pool(x, window, strides, padding)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:-1], window, strides, padding)
    return _max_pool(x, window, strides, tuple((int(low), int(high)) for low, high in padding))


def max_pooled_convolution(lhs, rhs, window_strides, padding, *, window, **options):
    """`max_pool` by `window`, without overlap, of `lax.conv_general_dilated(lhs, rhs,
    window_strides, padding, **options)`.

    For `flax.linen.Conv(conv_general_dilated=partial(max_pooled_convolution, window=(2, 2)))`,
    which so adds its bias, one number a map, to
    fewer places: the same values, and a sum over fewer places for the bias's gradient. In pure JAX,
        a convolution to few channels is
    computed for each place in the window apart: the largest is then a maximum of whole arrays, with
    nothing interleaved in memory.
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
    places = []
    for offset in itertools.product(*map(range, window)):
        lows = [low - o * s for o, (_, _, s, _, (low, _)) in zip(offset, axes, strict=True)]
        pads = [
            (low, span - n - low) for low, span, n in zip(lows, spans, lhs.shape[1:-1], strict=True)
        ]
        places.append(convolve(lhs, rhs, steps, pads))
    return _largest(*places)


@jax.custom_jvp
def _largest(*arrays):
    """Elementwise maximum; the derivative is that of the first of equal ones, as in max-pooling."""
    return functools.reduce(jnp.maximum, arrays)


@_largest.defjvp
def _largest_jvp(arrays, tangents):
    y = functools.reduce(jnp.maximum, arrays)
    tangent = jnp.zeros_like(y)
    for x, t in reversed(list(zip(arrays, tangents, strict=True))):
        tangent = jnp.where(x == y, t, tangent)
    return y, tangent


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, strides, padding):
    # Not as a window reduction, which XLA 0.10 for CPUs joins to the products that follow: VGG-11
    # infers five times as slowly then.
    padded = _pad(x, padding, -jnp.inf)
    spatial = [
        (n - k) // s + 1 for n, k, s in zip(padded.shape[1:-1], window, strides, strict=True)
    ]
    taken = [
        _take(padded, offset, strides, (x.shape[0], *spatial, x.shape[-1]))
        for offset in itertools.product(*map(range, window))
    ]
    return functools.reduce(jnp.maximum, taken)


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
        geometry = Geometry(x.shape[1:-1], window, strides, padding)
        y, first = MAX.bind(x, geometry=geometry)
        taken = _bind("take", tangent, first, geometry=geometry)
        return (y[:, 0], taken[:, 0]) if plane else (y, taken)
    y = nn.max_pool(x, window, strides, padding)
    first = _find_first(lax.stop_gradient(x), lax.stop_gradient(y), window, strides, padding)
    return y, _take_first(tangent, first, window, strides, padding)


def _has_calls(x, window, padding) -> bool:
    """True where the derivative is to be computed by compiled code."""
    fits = (
        x.dtype == jnp.float32
        and len(window) in (1, 2)
        and all(n >= 0 for pair in padding for n in pair)
    )
    explicit = any(axis is not None for axis in jax.typeof(x).sharding.spec)
    return fits and not explicit and convolution.current_formulation() == "onednn"


def _find_first(x, y, window, strides, padding):
    """The position in its window of the first element of x that equals y. [B, *spatial, C], [B,
    *smaller, C] -> uint8 [B, *smaller, C].
    """
    offsets = list(itertools.product(*map(range, window)))
    padded = _pad(x, padding, -jnp.inf)
    first = jnp.full_like(y, len(offsets), jnp.uint8)
    for position, offset in reversed(list(enumerate(offsets))):
        first = jnp.where(_take(padded, offset, strides, y.shape) == y, jnp.uint8(position), first)
    return first


def _take_first(x, first, window, strides, padding):
    """The element of every window that `first` points to. [B, *spatial, C], [B, *smaller, C] -> [B,
    *smaller, C].
    """
    padded = _pad(x, padding, 0)
    if window == strides:
        return _select_tiles(padded, first, window)
    offsets = itertools.product(*map(range, window))
    chosen = [
        jnp.where(first == i, _take(padded, offset, strides, first.shape), 0)
        for i, offset in enumerate(offsets)
    ]
    return functools.reduce(jnp.add, chosen)


def _pad(x, padding, value):
    """x with its spatial axes extended by `value`."""
    if not any(low or high for low, high in padding):
        return x
    return lax.pad(
        x,
        jnp.asarray(value, x.dtype),
        [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)],
    )


def _take(x, offset, strides, shape):
    """The element at `offset` of every window. [B, *padded, C] -> `shape`, [B, *smaller, C]."""
    limits = [o + (n - 1) * s + 1 for o, n, s in zip(offset, shape[1:-1], strides, strict=True)]
    return lax.slice(x, (0, *offset, 0), (shape[0], *limits, shape[-1]), (1, *strides, 1))


def _select_tiles(x, first, window):
    """The element of every window that `first` points to, where windows tile x: transposed, this is
    one comparison an element, no sum.

    x [B, *padded, C], first [B, *smaller, C] -> [B, *smaller, C].
    """
    smaller = first.shape[1:-1]
    x = lax.slice(
        x,
        (0,) * x.ndim,
        (x.shape[0], *(n * k for n, k in zip(smaller, window, strict=True)), x.shape[-1]),
    )
    tiles = [extent for pair in zip(smaller, window, strict=True) for extent in pair]
    tiled = x.reshape(x.shape[0], *tiles, x.shape[-1])  # [B, H', kh, W', kw, C]
    within = tuple(range(2, 2 * len(window) + 1, 2))
    position = jnp.arange(math.prod(window), dtype=jnp.uint8).reshape(window)
    position = lax.broadcast_in_dim(position, tiled.shape, within)
    hit = position == jnp.expand_dims(first, within)
    return jnp.sum(jnp.where(hit, tiled, 0), within)


# ---- the three primitives ------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """What of the pooling of an image is static, for its rows and its columns; `spatial` is x's
    extent.
    """

    spatial: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    def output_spatial(self) -> tuple[int, ...]:
        """Spatial extent of y."""
        extents = zip(self.spatial, self.window, self.strides, self.padding, strict=True)
        return tuple(max(0, (n + low + high - k) // s + 1) for n, k, s, (low, high) in extents)


MAX = Primitive("max_pool_max")
MAX.multiple_results = True
LINEAR = {name: Primitive(f"max_pool_{name}") for name in ("take", "put")}
TRANSPOSED = {"take": "put", "put": "take"}


def _bind(name, operand, first, *, geometry):
    return LINEAR[name].bind(*convolution.vary_alike(operand, first), geometry=geometry)


def _pure(name, *operands, geometry):
    """The primitive in pure JAX, for programs that XLA divides over devices and for other
    platforms.
    """
    arguments = (geometry.window, geometry.strides, geometry.padding)
    if name == "max":
        (x,) = operands
        y = nn.max_pool(x, *arguments)
        return [y, _find_first(x, y, *arguments)]
    operand, first = operands
    if name == "take":
        return _take_first(operand, first, *arguments)
    # Only the type is used; made from an operand, it also says over which axes of a shard_map it
    # varies.
    wanted = jnp.broadcast_to(
        operand[(0,) * operand.ndim], (operand.shape[0], *geometry.spatial, operand.shape[-1])
    )
    return jax.linear_transpose(lambda x: _take_first(x, first, *arguments), wanted)(operand)[0]


def _lower_cpu(name, context, *operands, geometry):
    native = convolution.undivided(context)

    def compute(*operands):
        if native:
            from jaxcnn.ops.cpu import onednn

            return onednn.pool(name, geometry, *operands)
        return _pure(name, *operands, geometry=geometry)

    return mlir.lower_fun(compute, multiple_results=name == "max")(context, *operands)


def _abstract(name, operand, *first, geometry):
    spatial = geometry.spatial if name == "put" else geometry.output_spatial()
    result = operand.update(shape=(operand.shape[0], *spatial, operand.shape[-1]), weak_type=False)
    return [result, result.update(dtype=jnp.dtype(jnp.uint8))] if name == "max" else result


def _batch(name, operands, axes, *, geometry):
    """Images are pooled independently: replicas are simply more of them."""
    size = next(
        operand.shape[axis]
        for operand, axis in zip(operands, axes, strict=True)
        if axis is not None
    )
    stacked = [
        jnp.broadcast_to(operand, (size, *operand.shape))
        if axis is None
        else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    ]
    images = [operand.reshape(-1, *operand.shape[2:]) for operand in stacked]
    if name == "max":
        return [
            result.reshape(size, -1, *result.shape[1:])
            for result in MAX.bind(*images, geometry=geometry)
        ], [0, 0]
    result = _bind(name, *images, geometry=geometry)
    return result.reshape(size, -1, *result.shape[1:]), 0


def _max_jvp(primals, tangents, *, geometry):
    y, first = MAX.bind(*primals, geometry=geometry)
    tangent = ad.instantiate_zeros(tangents[0])
    return [y, first], [
        _bind("take", tangent, first, geometry=geometry),
        ad.Zero(jax.typeof(first).to_tangent_aval()),
    ]


def _linear_jvp(name, tangent, operand, first, *, geometry):
    return _bind(name, tangent, first, geometry=geometry)


def _transpose(name, cotangent, operand, first, *, geometry):
    if type(cotangent) is ad.Zero:
        return ad.Zero(operand.aval), None
    return _bind(TRANSPOSED[name], cotangent, first, geometry=geometry), None


@functools.partial(jax.jit, static_argnames=("primitive", "geometry"))
def _apply(primitive, *operands, geometry):
    return primitive.bind(*operands, geometry=geometry)


def _define(name: str, primitive: Primitive) -> None:
    primitive.def_impl(functools.partial(_apply, primitive))
    primitive.def_abstract_eval(functools.partial(_abstract, name))
    batching.primitive_batchers[primitive] = functools.partial(_batch, name)
    mlir.register_lowering(
        primitive, mlir.lower_fun(functools.partial(_pure, name), multiple_results=name == "max")
    )
    mlir.register_lowering(primitive, functools.partial(_lower_cpu, name), platform="cpu")


_define("max", MAX)
ad.primitive_jvps[MAX] = _max_jvp
for _name, _primitive in LINEAR.items():
    _define(_name, _primitive)
    ad.defjvp(_primitive, functools.partial(_linear_jvp, _name), None)
    ad.primitive_transposes[_primitive] = functools.partial(_transpose, _name)


def avg_pool(x, window, strides=None, padding: Any = "VALID", *, count_include_pad=True):
    """Mean of each window; `strides` defaults to `window`. [B, *spatial, C] -> [B, *smaller, C]."""
    strides = tuple(strides or window)
    total = nn.pool(x, 0.0, lax.add, window, strides, padding)
    if count_include_pad:
        return total / math.prod(window)
    counts = nn.pool(jnp.ones_like(x), 0.0, lax.add, window, strides, padding)
    return total / counts
