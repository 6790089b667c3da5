"""Values of grids at places between their pixels, see `jaxcnn.data.geometry` for coordinates."""

import jax
import jax.numpy as jnp


def sample_bilinear(grid: jax.Array, y: jax.Array, x: jax.Array, *, fill: float = 0.0) -> jax.Array:
    """Values of `grid` [B, H, W, C] at the continuous pixel coordinates y, x [B, H', W'], or of
    shapes that broadcast to it: [B, H', W', C].
    """
    top, left = jnp.floor(y - 0.5), jnp.floor(x - 0.5)
    down, right = (
        (y - 0.5 - top)[..., None].astype(grid.dtype),
        (x - 0.5 - left)[..., None].astype(grid.dtype),
    )
    rows, columns = top.astype(jnp.int32), left.astype(jnp.int32)
    upper = (
        _gather(grid, rows, columns, fill) * (1 - right)
        + _gather(grid, rows, columns + 1, fill) * right
    )
    lower = (
        _gather(grid, rows + 1, columns, fill) * (1 - right)
        + _gather(grid, rows + 1, columns + 1, fill) * right
    )
    return upper * (1 - down) + lower * down


def sample_nearest(grid: jax.Array, y: jax.Array, x: jax.Array, *, fill: float = 0) -> jax.Array:
    """As `sample_bilinear`, but the value of the pixel that covers (y, x); any dtype."""
    return _gather(grid, jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32), fill)


def _gather(grid, rows, columns, fill):
    """grid[b, rows, columns] where that lies inside, else `fill`: [B, H', W', C]."""
    batch, height, width, channels = grid.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = jnp.where(inside, rows * width + columns, 0).reshape(batch, -1, 1)
    values = jnp.take_along_axis(grid.reshape(batch, height * width, channels), index, axis=1)
    return jnp.where(
        inside[..., None], values.reshape(*inside.shape, channels), jnp.array(fill, grid.dtype)
    )
