"""Convolutions of maps smaller than the window as XLA's CPU backend computes them fastest: with the
padding written out. Pure JAX, exact up to summation order.

Where the window has more elements than the map, XLA takes the map for the kernel and the kernel for
the map: long sums over single places, far from a matrix product. The last layers of a network that
halves inputs of 64 pixels five times are such. Padded before, by hand, a map has as many elements
as the window, and stays the map. ms by XLA and so, 3x3 windows, 512 to 512 channels, maps of 2x2:
y of 8 images 106 and 2.1, of 64 838 and 9.6; x 107 and 7.4, 828 and 15 (2 cores of an AMD EPYC
without AVX-512, 2026-11-29, medians of three, nothing else running; the script is not kept).
"""

import math

import jax.numpy as jnp
from jax import lax

from jaxcnn.ops.cpu.stored import stored
from jaxcnn.ops.cpu.turned import edges
from jaxcnn.ops.geometry import ConvolutionGeometry


def suits(role: str, geometry: ConvolutionGeometry) -> bool:
    """True where the window has more elements than the map that it slides over: x of y(x, w) and
    w(x, y), y of x(y, w), by `role`.
    """
    of = geometry.output_spatial() if role == "x" else geometry.spatial
    return geometry.groups == 1 and math.prod(geometry.window) > math.prod(of)


def convolve(role: str, geometry: ConvolutionGeometry, a, b):
    """y(x, w) or x(y, w), by `role`; `geometry` as `suits` asks."""
    g, axes = geometry, range(1, geometry.rank - 1)
    letters = "0123456789"[: len(axes)]
    if role == "y":
        padding, strides, kernel, order = [(*p, 0) for p in g.padding], g.strides, b, "IO"
    else:
        # every place of x sees the window turned around: y with a stride's zeros between, padded
        sides = edges(g, a.shape[1:-1])
        padding = [(*side, s - 1) for side, s in zip(sides, g.strides, strict=True)]
        strides, kernel, order = (1,) * len(axes), lax.rev(b, [i - 1 for i in axes]), "OI"
    padded = lax.pad(a, jnp.zeros((), a.dtype), [(0, 0, 0), *padding, (0, 0, 0)])
    return lax.conv_general_dilated(
        stored(padded, b),  # else the padding is taken for one of the convolution's own again
        kernel,
        strides,
        "VALID",
        rhs_dilation=g.dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}{order}", f"N{letters}C"),
        precision=g.precision,
    )
