"""The position of the winner of max-pooling, and the linear map that takes it, as JAX primitives:
in pure JAX, or on CPU compiled code (`jaxcnn.ops.cpu.onednn.pool`, of float32 images [B, H, W, C]).

The primitives, over x [B, *spatial, C] and y [B, *smaller, C] of any float: "max" (x -> y, first),
and the linear "take" (x, first -> y) and "put" (y, first -> x), each other's transposes. `first`
[B, *smaller, C] uint8 is the position of the winner in its window, in row-major order.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.interpreters import ad

from jaxcnn.ops.cpu.stored import stored
from jaxcnn.ops.geometry import WindowGeometry
from jaxcnn.ops.primitive import mapped_size, primitive, vary_alike

NO_POSITION = 255  # in no window


def places(x, window, strides, padding):
    """The elements at each position of all windows, in row-major order: arrays [B, *smaller, C] of
    x [B, *spatial, C], -inf outside of it."""
    padded = pad(x, padding, -jnp.inf)
    spatial = [
        (n - k) // s + 1 for n, k, s in zip(padded.shape[1:-1], window, strides, strict=True)
    ]
    shape = (x.shape[0], *spatial, x.shape[-1])
    return [
        take(padded, offset, strides, shape) for offset in itertools.product(*map(range, window))
    ]


def find_first(values):
    """Which of equally large arrays has the first of the largest elements, uint8 of their shape.

    By what is larger than all before it, not by what equals the maximum: where XLA computes x anew
    for each of its uses, rounded otherwise in one of them, nothing need be equal.
    """
    largest = values[0]
    first = jnp.zeros_like(largest, jnp.uint8)
    for position, value in enumerate(values[1:], 1):
        first = jnp.where(value > largest, jnp.uint8(position), first)
        largest = jnp.maximum(largest, value)
    return first


def take_first(x, first, window, strides, padding):
    """The element of every window that `first` points to. [B, *spatial, C], [B, *smaller, C] -> [B,
    *smaller, C].
    """
    padded = pad(x, padding, 0)
    if window == strides:
        return _select_tiles(padded, first, window)
    offsets = itertools.product(*map(range, window))
    chosen = [
        jnp.where(first == i, take(padded, offset, strides, first.shape), 0)
        for i, offset in enumerate(offsets)
    ]
    return functools.reduce(jnp.add, chosen)


def put_first(y, first, geometry: WindowGeometry):
    """The transpose of `take_first`, where windows do not tile x: each element of y [B, *smaller,
    C], added to the place of x that `first` points to. -> [B, *spatial, C].

    Places of x that lie a whole stride apart are seen from the same positions of windows: each such
    phase is a sum of shifted arrays, and x the phases interleaved.
    """
    window, strides = geometry.window, geometry.strides
    zero, ones = jnp.zeros((), y.dtype), (1,) * len(window)
    back = [(k - 1) // s for k, s in zip(window, strides, strict=True)]  # windows that still see it
    edges = [(0, 0, 0), *((n, n, 0) for n in back), (0, 0, 0)]
    extents = [n + more for n, more in zip(y.shape[1:-1], back, strict=True)]
    shape = (y.shape[0], *extents, y.shape[-1])
    y, first = lax.pad(y, zero, edges), lax.pad(first, np.uint8(NO_POSITION), edges)
    phases = []
    for phase in itertools.product(*map(range, map(min, strides, window))):
        terms = []
        for position, offset in enumerate(itertools.product(*map(range, window))):
            steps = [divmod(o - p, s) for o, p, s in zip(offset, phase, strides, strict=True)]
            if not any(rest for _, rest in steps):
                start = [n - step for n, (step, _) in zip(back, steps, strict=True)]
                here = take(first, start, ones, shape) == position
                terms.append(jnp.where(here, take(y, start, ones, shape), zero))
        lows = [p - low for p, (low, _) in zip(phase, geometry.padding, strict=True)]
        places = [
            (low, n - low - (m - 1) * s - 1, s - 1)
            for low, n, m, s in zip(lows, geometry.spatial, extents, strides, strict=True)
        ]
        added = functools.reduce(jnp.add, terms)
        phases.append(lax.pad(added, zero, [(0, 0, 0), *places, (0, 0, 0)]))
    return functools.reduce(jnp.add, phases)


def pad(x, padding, value):
    """x with its spatial axes extended by `value`."""
    if not any(low or high for low, high in padding):
        return x
    return lax.pad(
        x,
        jnp.asarray(value, x.dtype),
        [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)],
    )


def take(x, offset, strides, shape):
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

TRANSPOSED = {"take": "put", "put": "take"}


def bind_max(x, geometry: WindowGeometry):
    """Max-pooling of x [B, H, W, C]: y [B, H', W', C], and `first`, where in its window it was."""
    return MAX.bind(x, geometry=geometry, formulation="onednn")


def bind(name: str, operand, first, geometry: WindowGeometry, formulation: str):
    """The linear map `name`: "take" (x, first -> y) or "put" (y, first -> x), computed on CPU as
    `formulation` says ("fast" or "onednn"), elsewhere in pure JAX.
    """
    operands = vary_alike(operand, first)
    return LINEAR[name].bind(*operands, geometry=geometry, formulation=formulation)


def _pure(name, *operands, geometry, formulation):
    """The primitive in pure JAX, for programs that XLA divides over devices and for other
    platforms.
    """
    del formulation
    arguments = (geometry.window, geometry.strides, geometry.padding)
    if name == "max":
        (x,) = operands
        y = nn.max_pool(x, *arguments)
        return [y, find_first(places(x, *arguments))]
    operand, first = operands
    if name == "take":
        return take_first(operand, first, *arguments)
    if geometry.window != geometry.strides:
        return put_first(operand, first, geometry)
    # Only the type is used; made from an operand, it also says over which axes of a shard_map it
    # varies.
    wanted = jnp.broadcast_to(
        operand[(0,) * operand.ndim], (operand.shape[0], *geometry.spatial, operand.shape[-1])
    )
    return jax.linear_transpose(lambda x: take_first(x, first, *arguments), wanted)(operand)[0]


def _on_cpu(name, undivided, *operands, geometry, formulation):
    if undivided and formulation == "onednn":
        from jaxcnn.ops.cpu import onednn

        return onednn.pool(name, geometry, *operands)
    if name != "max" and geometry.window != geometry.strides:
        # Several windows see a place of x: XLA would compute what `first` and the gradient of y
        # come from anew for each of them.
        operands = [stored(operand, operands[0]) for operand in operands]
    return _pure(name, *operands, geometry=geometry, formulation=formulation)


def _abstract(name, operand, *first, geometry, formulation):
    del formulation
    spatial = geometry.spatial if name == "put" else geometry.output_spatial()
    result = operand.update(shape=(operand.shape[0], *spatial, operand.shape[-1]), weak_type=False)
    return [result, result.update(dtype=jnp.dtype(jnp.uint8))] if name == "max" else result


def _batch(name, operands, axes, *, geometry, formulation):
    """Images are pooled independently: replicas are simply more of them."""
    size = mapped_size(operands, axes)
    stacked = [
        jnp.broadcast_to(operand, (size, *operand.shape))
        if axis is None
        else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    ]
    images = [operand.reshape(-1, *operand.shape[2:]) for operand in stacked]
    if name == "max":
        return [
            result.reshape(size, -1, *result.shape[1:]) for result in bind_max(images[0], geometry)
        ], [0, 0]
    result = bind(name, images[0], images[1], geometry, formulation)
    return result.reshape(size, -1, *result.shape[1:]), 0


def _max_jvp(primals, tangents, *, geometry, formulation):
    y, first = bind_max(primals[0], geometry)
    tangent = ad.instantiate_zeros(tangents[0])
    return [y, first], [
        bind("take", tangent, first, geometry, formulation),
        ad.Zero(jax.typeof(first).to_tangent_aval()),
    ]


def _linear_jvp(name, tangent, operand, first, **parameters):
    return bind(name, tangent, first, **parameters)


def _transpose(name, cotangent, operand, first, **parameters):
    if type(cotangent) is ad.Zero:
        return ad.Zero(operand.aval), None
    return bind(TRANSPOSED[name], cotangent, first, **parameters), None


def _define(name: str):
    rules = {"abstract": _abstract, "batch": _batch, "on_cpu": _on_cpu, "elsewhere": _pure}
    return primitive(
        f"max_pool_{name}",
        multiple_results=name == "max",
        **{rule: functools.partial(function, name) for rule, function in rules.items()},
    )


MAX = _define("max")
ad.primitive_jvps[MAX] = _max_jvp
LINEAR = {name: _define(name) for name in TRANSPOSED}
for _name, _primitive in LINEAR.items():
    ad.defjvp(_primitive, functools.partial(_linear_jvp, _name), None)
    ad.primitive_transposes[_primitive] = functools.partial(_transpose, _name)
