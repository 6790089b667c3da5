"""The gradient of a convolution's input, whose kernel is turned around and transposed, as XLA's CPU
backend computes it fastest. Pure JAX, the same sums.

Joined to one operation, turning a kernel [k, k, C, F] around and exchanging its last two axes reads
numbers that lie F apart, and a power of two apart all fall to the same places of a cache. Turned
around first, it is a plain transposition, for which XLA's runtime has a way of its own, block by
block: 3x3x512x512 3.7 and 1.5 ms, 3x3x1536x512 16 and 4.9, 3x3x256x256 0.57 and 0.34 (2 cores of an
AMD EPYC with AVX-512, 2026-12-01, medians of fifteen, script not kept). Smaller kernels lie in the
caches anyway.
"""

import math
from collections.abc import Sequence

from jax import lax

from jaxcnn.ops.cpu.stored import stored
from jaxcnn.ops.geometry import ConvolutionGeometry

FEWEST_NUMBERS = 2**18  # of a kernel that is turned around by itself


def suits(geometry: ConvolutionGeometry, w_shape: Sequence[int]) -> bool:
    """True where `convolve` applies and saves time."""
    turns = geometry.groups == 1 and max(geometry.window) > 1
    return turns and math.prod(w_shape) >= FEWEST_NUMBERS


def edges(geometry: ConvolutionGeometry, y_spatial: Sequence[int]) -> list[tuple[int, int]]:
    """Padding of y, with zeros between where there are strides, with which every place of x sees
    the whole window turned around.
    """
    extents = [d * (k - 1) + 1 for k, d in zip(geometry.window, geometry.dilation, strict=True)]
    return [
        (e - 1 - low, n + low - (m - 1) * s - 1)
        for n, m, s, e, (low, _) in zip(
            geometry.spatial, y_spatial, geometry.strides, extents, geometry.padding, strict=True
        )
    ]


def convolve(geometry: ConvolutionGeometry, y, w):
    """x(y, w) of one group: y [N, *output, F], w [*window, C, F] -> [N, *spatial, C]."""
    axes = range(1, geometry.rank - 1)
    letters = "0123456789"[: len(axes)]
    return lax.conv_general_dilated(
        y,
        stored(lax.rev(w, [i - 1 for i in axes]), w),
        (1,) * len(axes),
        edges(geometry, y.shape[1:-1]),
        lhs_dilation=geometry.strides,
        rhs_dilation=geometry.dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}OI", f"N{letters}C"),
        precision=geometry.precision,
    )
