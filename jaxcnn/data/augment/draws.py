"""What augmentations draw for each example, and the places that they draw."""

import jax
import jax.numpy as jnp
from jax import random


def per_row(numbers: jax.Array) -> jax.Array:
    """[B] -> [B, 1, 1, 1], to meet images."""
    return numbers[:, None, None, None]


def uniform(
    key: jax.Array, count: int, low: float | jax.Array, high: float | jax.Array
) -> jax.Array:
    """[count] float32, uniform in [low, high]."""
    return low + (high - low) * random.uniform(key, (count,), jnp.float32)


def log_uniform(key: jax.Array, count: int, low: float, high: float) -> jax.Array:
    """[count] float32 whose logarithms are uniform between those of `low` and `high`."""
    return jnp.exp(uniform(key, count, jnp.log(jnp.float32(low)), jnp.log(jnp.float32(high))))


def rectangles(
    key: jax.Array, image: jax.Array, tall: jax.Array, wide: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Rectangles of these sides [B] int32 about uniform centres, cut at the border of images
    [B, H, W, C]: their inside [B, H, W, 1] bool, their area [B] int32.
    """
    count, height, width, _ = image.shape
    y_key, x_key = random.split(key)
    top = random.randint(y_key, (count,), 0, height) - tall // 2
    left = random.randint(x_key, (count,), 0, width) - wide // 2
    top, bottom = jnp.clip(top, 0, height), jnp.clip(top + tall, 0, height)
    left, right = jnp.clip(left, 0, width), jnp.clip(left + wide, 0, width)
    return inside(image, top, bottom, left, right), (bottom - top) * (right - left)


def inside(
    image: jax.Array, top: jax.Array, bottom: jax.Array, left: jax.Array, right: jax.Array
) -> jax.Array:
    """Which pixels lie in the rectangles of these bounds [B], the last ones left out; [B, H, W, 1]
    bool.
    """
    rows = jnp.arange(image.shape[1])[None, :, None, None]
    columns = jnp.arange(image.shape[2])[None, None, :, None]
    top, bottom, left, right = (per_row(bound) for bound in (top, bottom, left, right))
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
