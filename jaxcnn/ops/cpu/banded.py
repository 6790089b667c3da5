"""Convolutions of few channels as XLA's CPU backend computes them fastest: several columns of an
image at a time. Pure JAX.

XLA packs the operands of its matrix products by vectors of one pixel's channels, and few channels
fill none. Here the columns of y are divided into blocks of `width`; the `columns` of x that a block
sees, C channels each, are taken for one pixel of columns·C channels, and the block of y for one of
width·F. Between them lies a convolution along the height alone, whose kernel [k, 1, columns·C,
width·F] holds w
in a band around its diagonal and zeros elsewhere: more multiplications, in products that run at
full speed.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.ops.geometry import ConvolutionGeometry

# What it costs to pack a number for a product, in multiplications: by vectors of so many floats,
# one by one, and for w. Fitted to ten shapes on two cores.
VECTOR, PACKED, SINGLE, OF_W = 8, 40, 200, 60
COPIED = 100  # likewise, to copy a number into a block
LARGEST_SHARE = 0.9  # of the estimate for XLA's own way, below which blocks are taken


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The division of a convolution's columns: `count` blocks of `width` columns of y, which see
    `columns` columns of x each.
    """

    geometry: ConvolutionGeometry
    width: int
    count: int
    columns: int

    def rows(self) -> ConvolutionGeometry:
        """The convolution along the height that is left when each block is one pixel."""
        g = self.geometry
        padding, dilation = (g.padding[0], (0, 0)), (g.dilation[0], 1)
        return dataclasses.replace(
            g,
            spatial=(g.spatial[0], self.count),
            window=(g.window[0], 1),
            strides=(g.strides[0], 1),
            padding=padding,
            dilation=dilation,
        )

    def of_x(self, x):
        """[N, H, W, C] -> [N, H, count, columns·C]; neighbours overlap."""
        if self.count == 1:
            return x.reshape(*x.shape[:2], 1, -1)
        low, step = self.geometry.padding[1][0], self.width * self.geometry.strides[1]
        # A block is `steps` pieces of so many columns as the next block lies further: a gradient is
        # then the sum of so few arrays, not of one for each block.
        steps = -(-self.columns // step)
        pieces = self.count + steps - 1
        high = pieces * step - self.geometry.spatial[1] - low
        x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), (low, high, 0), (0, 0, 0)))
        images, height, _, channels = x.shape
        x = x.reshape(images, height, pieces, step * channels)
        seen = jnp.concatenate([x[:, :, i : i + self.count] for i in range(steps)], -1)
        return seen[..., : self.columns * channels]

    def of_y(self, y):
        """[N, H', W', F] -> [N, H', count, width·F]."""
        return y.reshape(*y.shape[:2], self.count, -1)

    def to_x(self, blocks):
        """The transpose of `of_x`: [N, H, count, columns·C] -> [N, H, W, C], each element the sum
        of all its places.
        """
        images, height, _, wide = blocks.shape
        shape = (images, height, self.geometry.spatial[1], wide // self.columns)
        x = jnp.broadcast_to(blocks[(0,) * blocks.ndim], shape)  # only the type is used
        return jax.linear_transpose(self.of_x, x)(blocks)[0]

    def to_y(self, blocks):
        """[N, H', count, width·F] -> [N, H', W', F]."""
        return blocks.reshape(*blocks.shape[:2], self.count * self.width, -1)

    def of_w(self, w):
        """[k, k', C, F] -> [k, 1, columns·C, width·F]."""
        wide = jnp.einsum(
            "jab,ijcf->iacbf", jnp.asarray(self._places(), w.dtype), w, precision="highest"
        )
        return wide.reshape(w.shape[0], 1, self.columns * w.shape[2], -1)

    def to_w(self, wide, inputs: int):
        """The transpose of `of_w`: [k, 1, columns·C, width·F] -> [k, k', C, F], C being `inputs`,
        each the sum of all its places.
        """
        wide = wide.reshape(wide.shape[0], self.columns, inputs, self.width, -1)
        return jnp.einsum(
            "jab,iacbf->ijcf", jnp.asarray(self._places(), wide.dtype), wide, precision="highest"
        )

    def _places(self) -> np.ndarray:
        """[k', columns, width]: 1 where column j of the kernel lies over column a of x for column b
        of y.
        """
        j, a, b = np.ogrid[: self.geometry.window[1], : self.columns, : self.width]
        # else `of_x` has put the padding into the blocks
        padded = self.geometry.padding[1][0] if self.count == 1 else 0
        return a == b * self.geometry.strides[1] + j * self.geometry.dilation[1] - padded


def of_width(geometry: ConvolutionGeometry, width: int) -> Blocks:
    """Blocks of `width` columns of y, a divisor of their number; a single one is given all of x, so
    that nothing need be copied.
    """
    count = geometry.output_spatial()[1] // width
    columns = (
        (width - 1) * geometry.strides[1] + (geometry.window[1] - 1) * geometry.dilation[1] + 1
    )
    return Blocks(geometry, width, count, geometry.spatial[1] if count == 1 else columns)


def blocks(role: str, geometry: ConvolutionGeometry, inputs: int, outputs: int) -> Blocks | None:
    """The cheapest division for y, x or w (by `role`) of a convolution of `inputs` to `outputs`
    channels; None if XLA's is cheaper.
    """
    if len(geometry.window) != 2 or geometry.groups != 1:
        return None
    total = geometry.output_spatial()[1]
    copied = COPIED * geometry.strides[0] / geometry.window[0]
    candidates = []
    for width in (width for width in range(1, total + 1) if total % width == 0):
        candidate = of_width(geometry, width)
        seen, made = candidate.columns * inputs, width * outputs
        cost = {
            "y": (seen + VECTOR) * (PACKED + made),
            "x": (made + VECTOR) * (PACKED + seen),
            "w": seen * (PACKED + made),
        }[role]
        candidates.append(
            (candidate.count * (cost + (copied * seen if candidate.count > 1 else 0)), candidate)
        )
    cost, best = min(candidates, key=lambda pair: pair[0])
    return best if cost < LARGEST_SHARE * _cost_of_xla(role, geometry, inputs, outputs) else None


def _cost_of_xla(role: str, geometry: ConvolutionGeometry, inputs: int, outputs: int) -> int:
    """Numbers to pack for a row, times what each costs; for w images are what is packed
    by vectors.
    """
    # between the columns of y that a stride leaves apart XLA multiplies no zeros
    seen = -(-geometry.spatial[1] // geometry.strides[1])
    columns = seen if role == "x" else geometry.output_spatial()[1]
    packed, made = (outputs, inputs) if role == "x" else (inputs, outputs)
    each = OF_W if role == "w" else PACKED if packed % VECTOR == 0 else SINGLE
    return columns * geometry.window[1] * packed * (each + made)
