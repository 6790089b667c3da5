"""What is static about a window that slides over the spatial axes of x [B, *spatial, C]: the
geometry of a pooling, and of a convolution.

One number (or pair) for each spatial axis; y [B, *smaller, features] has one place for each place
of the window. Values that can be hashed: parameters of JAX primitives and keys of caches.
"""

from dataclasses import dataclass

from jax.lax import PrecisionLike


@dataclass(frozen=True)
class WindowGeometry:
    """A window of `window` elements an axis, `dilation` apart, moved by `strides` over x's extent
    `spatial`, which is padded by (low, high) `padding` (negative numbers remove).
    """

    spatial: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    def output_spatial(self) -> tuple[int, ...]:
        """Spatial extent of y; 0 where the window is larger than the padded x."""
        extents = zip(
            self.spatial, self.window, self.strides, self.padding, self.dilation, strict=True
        )
        return tuple(
            max(0, (n + low + high - d * (k - 1) - 1) // s + 1)
            for n, k, s, (low, high), d in extents
        )


@dataclass(frozen=True)
class ConvolutionGeometry(WindowGeometry):
    """A window with a kernel w [*window, C / groups, features]."""

    groups: int
    precision: PrecisionLike = None

    @property
    def rank(self) -> int:
        """Number of axes of an operand without replicas: batch, spatial, channels."""
        return len(self.window) + 2

    def result_shape(self, role: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of y(x, w), x(y, w) or w(x, y), by `role`, from its operands' shapes; a leading
        replica axis stays.
        """
        leading = next((shape[:1] for shape in (a, b) if len(shape) > self.rank), ())
        a, b = a[-self.rank :], b[-self.rank :]
        if role == "y":
            return (*leading, a[0], *self.output_spatial(), b[-1])
        if role == "x":
            return (*leading, a[0], *self.spatial, b[-2] * self.groups)
        return (*leading, *self.window, a[-1] // self.groups, b[-1])
