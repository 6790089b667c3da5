"""The pointing game: does an explanation's highest place lie on the thing that it explains? NumPy,
on the host.

J. Zhang, Z. Lin, J. Brandt, X. Shen, S. Sclaroff, "Top-down neural attention by excitation
backprop", 2016, section 4.2.
"""

import numpy as np
from jaxtyping import Array, Float, Real


def pointing_hits(
    maps: Real[Array | np.ndarray, "B H W"],
    boxes: Real[Array | np.ndarray, "B 4"],
    *,
    tolerance: float = 0.0,
) -> Float[np.ndarray, " B"]:
    """For each map the share of its highest pixels whose middles lie in the box (y0, x0, y1, x1),
    in [0, 1] of the picture, or within `tolerance` pixels of it: 1 or 0 where one pixel is highest,
    and the box's share of the picture where all are equal. [B, H, W], [B, 4] -> [B] float64

    The published game allows 15 pixels, of photographs of several hundred.
    """
    values, corners = np.asarray(maps, np.float64), np.asarray(boxes, np.float64)
    height, width = values.shape[1:]
    y, x = np.arange(height)[None, :, None] + 0.5, np.arange(width)[None, None] + 0.5
    sides = corners * [height, width, height, width]
    low_y, low_x, high_y, high_x = (sides[:, i, None, None] for i in range(4))
    inside = (y >= low_y - tolerance) & (y <= high_y + tolerance)
    inside = inside & (x >= low_x - tolerance) & (x <= high_x + tolerance)
    highest = values == values.max(axis=(1, 2), keepdims=True)
    return (highest & inside).sum((1, 2)) / highest.sum((1, 2))
