"""Matrices that move points of images, one per example: see `jaxcnn.data.geometry` for what they
mean.
"""

import jax
import jax.numpy as jnp

Size = tuple[int, int]


def affine_matrices(
    *,
    size: Size,
    degrees: jax.Array,
    factor: jax.Array,
    shear: jax.Array,
    offset: tuple[jax.Array, jax.Array],
    shear_y: jax.Array | None = None,
) -> jax.Array:
    """Rotate, shear and scale about the image's centre, then shift: matrices [B, 2, 3] from
    parameters [B] float32.

    Args:
        size: (height, width) in pixels.
        degrees: rotation angle, counter-clockwise as seen (as `numpy.rot90`).
        factor: magnification; 2 makes things twice as large.
        shear: horizontal shear angle in degrees; shear_y: the vertical one, which comes first.
        offset: (down, right) in pixels.
    """
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    slope = jnp.tan(jnp.deg2rad(shear))
    # rotation @ [[1, 0], [slope, 1]], rows and columns ordered (y, x)
    a, b = factor * (cosine - sine * slope), -factor * sine
    c, d = factor * (sine + cosine * slope), factor * cosine
    if shear_y is not None:  # @ [[1, slope_y], [0, 1]]
        slope_y = jnp.tan(jnp.deg2rad(shear_y))
        b, d = b + a * slope_y, d + c * slope_y
    y, x = size[0] / 2, size[1] / 2
    return _matrices(a, b, y - a * y - b * x + offset[0], c, d, x - c * y - d * x + offset[1])


def scale_matrices(
    scale: tuple[jax.Array, jax.Array], offset: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """(y, x) -> scale * (y, x) + offset (in pixels of the output): matrices [B, 2, 3] from
    parameters [B] float32.
    """
    zero = jnp.zeros_like(offset[0])
    return _matrices(scale[0], zero, offset[0], zero, scale[1], offset[1])


def perspective_matrices(corners: jax.Array, *, size: Size) -> jax.Array:
    """Where the image's corners land, [B, 4, 2] float32 (y, x) in pixels, from the upper left one
    on clockwise: matrices [B, 3, 3].

    P. Heckbert, "Fundamentals of texture mapping and image warping" (1989), section 2.2.3.
    """
    upper_left, upper_right, lower_right, lower_left = jnp.unstack(corners, axis=1)  # [B, 2] each
    (y1, x1), (y2, x2) = (
        jnp.unstack(beside - lower_right, axis=-1) for beside in (upper_right, lower_left)
    )
    y3, x3 = jnp.unstack(upper_left - upper_right + lower_right - lower_left, axis=-1)
    area = x1 * y2 - x2 * y1
    right, down = (x3 * y2 - x2 * y3) / area, (x1 * y3 - x3 * y1) / area
    along_x = upper_right - upper_left + right[:, None] * upper_right
    along_y = lower_left - upper_left + down[:, None] * lower_left
    rows = [
        jnp.concatenate([column, last[:, None]], axis=-1)
        for column, last in (
            (along_y / size[0], down / size[0]),
            (along_x / size[1], right / size[1]),
            (upper_left, jnp.ones_like(right)),
        )
    ]
    return jnp.stack(rows, axis=-1)


def move(matrices: jax.Array, y: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where points land; y, x [B or 1, ...]. Those behind a projection's horizon land far outside,
    at -10^6.
    """
    m = matrices.reshape(*matrices.shape, *[1] * (y.ndim - 1))
    new_y = m[:, 0, 0] * y + m[:, 0, 1] * x + m[:, 0, 2]
    new_x = m[:, 1, 0] * y + m[:, 1, 1] * x + m[:, 1, 2]
    if matrices.shape[1] == 2:
        return new_y, new_x
    depth = m[:, 2, 0] * y + m[:, 2, 1] * x + m[:, 2, 2]
    ahead = depth > 1e-6
    divisor = jnp.where(ahead, depth, 1.0)
    return jnp.where(ahead, new_y / divisor, -1e6), jnp.where(ahead, new_x / divisor, -1e6)


def _matrices(a, b, y, c, d, x):
    return jnp.stack([jnp.stack([a, b, y], -1), jnp.stack([c, d, x], -1)], axis=-2)


def determinant(matrices: jax.Array) -> jax.Array:
    """Of the linear part; a projection of an image that is seen from the front has its sign."""
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def invert(matrices: jax.Array) -> jax.Array:
    """The way back. In closed form and element by element, so that whole numbers stay exact on
    every device (a matrix product may round to TF32).
    """
    a, b, y = jnp.unstack(matrices[:, 0], axis=-1)
    c, d, x = jnp.unstack(matrices[:, 1], axis=-1)
    if matrices.shape[1] == 2:
        area = determinant(matrices)
        a, b, c, d = d / area, -b / area, -c / area, a / area
        return _matrices(a, b, -(a * y + b * x), c, d, -(c * y + d * x))
    p, q, r = jnp.unstack(matrices[:, 2], axis=-1)
    rows = [
        [d * r - x * q, y * q - b * r, b * x - y * d],
        [x * p - c * r, a * r - y * p, y * c - a * x],
        [c * q - d * p, b * p - a * q, a * d - b * c],
    ]
    adjugate = jnp.stack([jnp.stack(row, -1) for row in rows], axis=-2)
    volume = a * rows[0][0] + b * rows[1][0] + y * rows[2][0]
    return adjugate / volume[:, None, None]
