"""Depthwise convolution (one filter a channel) as a sum over the kernel's taps, in pure JAX, for
CPUs.

XLA's CPU backend computes a convolution of many groups one channel at a time. Here each tap is a
shifted image times one row of the kernel, which is vectorized over channels. The gradient of the
image is a sum of the same kind. That of the kernel is one sum for each tap, over all places of all
images. XLA takes long for sums over places, so that several images are added to one first, number
by number (ms of the whole gradient without and with that: 25 and 16 for 3x3 on 16 x 48x48x96, 35
and 13 for 7x7 on 4 x 56x56x96, 2 cores of an AMD EPYC without AVX-512, 2026-11-30, medians of
seven, script not kept).
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.ops.cpu.stored import stored
from jaxcnn.ops.geometry import ConvolutionGeometry

# a tap is an operation in the compiled program, so large windows would compile for long
MOST_TAPS = 64
FEWEST_CHANNELS = 8  # of one vector register
# additions that a kernel's gradient may be compiled to, and images that are added in one
MOST_TERMS, MOST_IMAGES = 256, 8


def suits(geometry: ConvolutionGeometry, w_shape: tuple[int, ...], dtype) -> bool:
    """True for as many groups as channels and features, at least FEWEST_CHANNELS, and at most
    MOST_TAPS taps; sums in half precision are left to XLA. `w_shape` is the kernel's, [*window, C /
    groups, F].
    """
    one_each = w_shape[-2] == 1 and w_shape[-1] == geometry.groups
    few_taps = math.prod(geometry.window) <= MOST_TAPS
    return (
        one_each
        and geometry.groups >= FEWEST_CHANNELS
        and few_taps
        and jnp.dtype(dtype).itemsize >= 4
    )


def convolve(role: str, geometry: ConvolutionGeometry, a, b, *, undivided: bool = True):
    """y(x, w), x(y, w) or w(x, y), by `role`: x [B, *spatial, C], w [*window, 1, C], y [B,
    *smaller, C].

    undivided: False where images lie on several devices, and so are not added to one another.
    """
    materialize = functools.partial(stored, witness=b)  # else computed anew for each tap
    if role == "x":
        full = [d * (k - 1) for k, d in zip(geometry.window, geometry.dilation, strict=True)]
        spread = [(n - 1) * s + 1 for n, s in zip(a.shape[1:-1], geometry.strides, strict=True)]
        edges = [
            (f - low, n + low - m, s - 1)  # so that the padded y has n + f places
            for f, (low, _), n, m, s in zip(
                full, geometry.padding, geometry.spatial, spread, geometry.strides, strict=True
            )
        ]
        padded = materialize(_pad(a, edges))
        terms = (
            _window(
                padded,
                [f - o for f, o in zip(full, offset, strict=True)],
                geometry.spatial,
                (1,) * len(full),
            )
            * _row(b, tap)
            for tap, offset in _taps(geometry)
        )
        return materialize(functools.reduce(jnp.add, terms))
    edges = [(low, high, 0) for low, high in geometry.padding]

    def part(x, offset):
        return _window(x, offset, geometry.output_spatial(), geometry.strides)

    if role == "y":
        padded = materialize(_pad(a, edges))
        terms = (part(padded, offset) * _row(b, tap) for tap, offset in _taps(geometry))
        return materialize(functools.reduce(jnp.add, terms))
    images, terms = len(a), MOST_TERMS // math.prod(geometry.window)
    sums = -(-images // min(MOST_IMAGES, terms)) if undivided else images
    together = -(-images // sums)
    more = -images % together  # images of zeros, which add nothing
    x = materialize(_pad(a, edges, more=more))
    y = materialize(_pad(b, [(0, 0, 0)] * len(edges), more=more))
    x, y = (z.reshape(-1, together, *z.shape[1:]) for z in (x, y))
    rows = []
    for _, offset in _taps(geometry):
        each = [part(x[:, i], offset) * y[:, i] for i in range(together)]
        added = functools.reduce(jnp.add, each)
        rows.append((materialize(added) if together > 1 else added).sum(range(y.ndim - 2)))
    return jnp.stack(rows).reshape(*geometry.window, 1, y.shape[-1])


def _taps(geometry: ConvolutionGeometry):
    """(place in the kernel, its offset in the padded input) of each tap."""
    for tap in itertools.product(*map(range, geometry.window)):
        yield tap, [t * d for t, d in zip(tap, geometry.dilation, strict=True)]


def _row(w: jax.Array, tap: tuple[int, ...]) -> jax.Array:
    """One tap of w [*window, 1, C] for all places, [1, ..., 1, C]."""
    return w[tap].reshape((1,) * (len(tap) + 1) + (-1,))


def _pad(x: jax.Array, edges: list[tuple[int, int, int]], *, more: int = 0) -> jax.Array:
    """x [B, *spatial, C] with (low, high, between) zeros on each spatial axis, a negative number
    removes; with so many `more` images of zeros.
    """
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, more, 0), *edges, (0, 0, 0)])


def _window(
    x: jax.Array, offset: list[int], extent: tuple[int, ...], strides: tuple[int, ...]
) -> jax.Array:
    """The `extent` places of x [B, *spatial, C] from `offset` in `strides`."""
    ends = [o + (n - 1) * s + 1 for o, n, s in zip(offset, extent, strides, strict=True)]
    return lax.slice(x, (0, *offset, 0), (x.shape[0], *ends, x.shape[-1]), (1, *strides, 1))
