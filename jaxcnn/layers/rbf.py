"""Euclidean radial-basis-function outputs with fixed targets. [B, D] -> [B, K]."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.errors import ConfigError

# Twelve rows of seven pixels a digit, # = +1 and . = -1. Drawn for jaxcnn in the manner of figure 3
# of the paper: similar digits have similar codes. Read row by row, they are the 84 numbers that
# layer F6 aims at.
_DRAWINGS = """
..###..  ...##..  .#####.  .#####.  ....##.  #######  ..####.  #######  .#####.  .#####.
.##.##.  ..###..  ##...##  ##...##  ...###.  ##.....  .##....  ##...##  ##...##  ##...##
##...##  .####..  ##...##  .....##  ..####.  ##.....  ##.....  .....##  ##...##  ##...##
##...##  ...##..  .....##  .....##  .##.##.  ##.....  ##.....  ....##.  ##...##  ##...##
##...##  ...##..  .....##  .....##  .#..##.  ##.....  ##.....  ....##.  .##.##.  ##...##
##...##  ...##..  ....##.  ..####.  ##..##.  ######.  ######.  ...##..  ..###..  .######
##...##  ...##..  ...##..  .....##  ##..##.  .....##  ##...##  ...##..  .##.##.  .....##
##...##  ...##..  ..##...  .....##  #######  .....##  ##...##  ..##...  ##...##  .....##
##...##  ...##..  .##....  .....##  ....##.  .....##  ##...##  ..##...  ##...##  .....##
##...##  ...##..  ##.....  ##...##  ....##.  ##...##  ##...##  ..##...  ##...##  .....##
.##.##.  ...##..  ##.....  ##...##  ....##.  ##...##  ##...##  .##....  ##...##  ....##.
..###..  .######  #######  .#####.  ....##.  .#####.  .#####.  .##....  .#####.  .####..
"""
DIGIT_BITMAPS: tuple[tuple[str, ...], ...] = tuple(
    zip(*(line.split() for line in _DRAWINGS.split("\n") if line), strict=True)
)


def bitmap_targets(
    *,
    bitmaps: tuple[tuple[str, ...], ...] = DIGIT_BITMAPS,
) -> tuple[tuple[int, ...], ...]:
    """Bitmaps as rows of '#' and '.' -> one tuple of ±1 each, read row by row: K tuples of length
    D.
    """
    return tuple(
        tuple(1 if pixel == "#" else -1 for row in bitmap for pixel in row) for bitmap in bitmaps
    )


class RBF(nn.Module):
    """Squared Euclidean distance between x [B, D] and each of the K fixed `targets`: [B, K], 0 at a
    perfect match, never negative.

    The targets are constants, not parameters. Source: LeCun, Bottou, Bengio, Haffner 1998, section
    II-B, equation 7.
    """

    targets: tuple[tuple[int, ...], ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        targets = np.asarray(self.targets)
        if x.ndim != 2 or x.shape[-1] != targets.shape[-1]:
            raise ConfigError(
                f"RBF: input {x.shape} does not fit targets of length {targets.shape[-1]}; "
                f"expected [B, {targets.shape[-1]}]"
            )
        return jnp.sum(jnp.square(x[:, None, :] - jnp.asarray(targets, x.dtype)[None]), axis=-1)

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """One squared difference for each input and target."""
        return math.prod(output_shape) * len(self.targets[0])
