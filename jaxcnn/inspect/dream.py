"""Pictures that a network makes: deep dreams and feature visualization, by climbing from a picture
or from noise to what a class, a layer or a channel answers to most.

A. Mordvintsev, C. Olah, M. Tyka, "Inceptionism: going deeper into neural networks", 2015; C. Olah,
A. Mordvintsev, L. Schubert, "Feature visualization", Distill 2017. Pictures are float32 [B, H, W,
C] in [0, 1]; an objective is, as a score of `jaxcnn.inspect.attribution`, a function of pictures to
a number of each.
"""

import jax
import jax.numpy as jnp

from jaxcnn.errors import ConfigError
from jaxcnn.inspect.attribution import gradient
from jaxcnn.inspect.taps import Network, Score, layer_output
from jaxcnn.ops.gram import total_variation


def ascend(
    key: jax.Array,
    objective: Score,
    images: jax.Array,
    *,
    steps: int = 128,
    rate: float = 0.01,
    jitter: int = 2,
    smoothness: float = 0.0,
) -> jax.Array:
    """The pictures after `steps` steps up the objective, each of `rate` times the gradient over its
    mean absolute value, cut to [0, 1]. [B, H, W, C] -> [B, H, W, C]

    `jitter`: before each step the pictures are shifted around their border by up to so many pixels,
    drawn from `key`, and back after it, so that no pattern sits on a grid. `smoothness` times the
    total variation (`jaxcnn.ops.gram.total_variation`) is taken off the objective (A. Mahendran,
    A. Vedaldi, "Understanding deep image representations by inverting them", 2015, section 2).
    A picture whose gradient is 0 stays as it is.
    Errors: ConfigError for a negative number of steps or a negative jitter.
    """
    if steps < 0 or jitter < 0:
        raise ConfigError(f"ascend: steps is {steps} and jitter {jitter}; neither is negative")

    def worth(x: jax.Array) -> jax.Array:
        return objective(x) - jnp.asarray(smoothness, jnp.float32) * total_variation(x)

    def step(images: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        drawn = jax.random.randint(jax.random.fold_in(key, number), (2,), -jitter, jitter + 1)
        up = gradient(worth, jnp.roll(images, drawn, axis=(1, 2)))
        up = jnp.roll(up, -drawn, axis=(1, 2))
        size = jnp.mean(jnp.abs(up), axis=(1, 2, 3), keepdims=True)
        up = jnp.where(size > 0, up / jnp.where(size > 0, size, 1.0), 0.0)
        return jnp.clip(images + jnp.asarray(rate, images.dtype) * up, 0.0, 1.0), None

    return jax.lax.scan(step, images, jnp.arange(steps))[0]


def noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Grey pictures with a little noise, to begin from: 0.5 and a standard deviation of 0.05, cut
    to [0, 1]. -> float32 `shape`
    """
    return jnp.clip(0.5 + 0.05 * jax.random.normal(key, shape, jnp.float32), 0.0, 1.0)


def layer_strength(network: Network, *, layer: str, channel: int | None = None) -> Score:
    """What a layer answers as an objective: the mean square of its map (deep dream), or the mean of
    one channel (feature visualization).

    Errors: ConfigError for another layer, see `taps.choose_layer`, or a channel that it lacks.
    """

    def strength(images: jax.Array) -> jax.Array:
        maps = layer_output(network, images, layer=layer)
        if channel is None:
            return jnp.mean(jnp.square(maps), axis=(1, 2, 3))
        check_channels((channel,), maps.shape[-1], layer=layer)
        return jnp.mean(maps[..., channel], axis=(1, 2))

    return strength


def check_channels(channels: tuple[int, ...], count: int, *, layer: str) -> None:
    """Errors: ConfigError for a channel outside of [0, count)."""
    for channel in channels:
        if not 0 <= channel < count:
            raise ConfigError(
                f"channel {channel}: layer {layer!r} has channels 0 to {count - 1}; choose of them"
            )
