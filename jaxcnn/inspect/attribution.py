"""Which pixels a score depends on: gradient, integrated gradients, SmoothGrad, occlusion.

Pure functions of a score and pictures, under `jit` and `vmap` as any. A score is a function of
pictures float32 [B, H, W, C] to a number of each [B], that of a picture of that picture alone, such
as the logit of one class in evaluation; `jaxcnn.inspect.explained.target_score` makes one of a run,
whose pictures lie in [0, 1] and are not yet normalized (the experiment's `transform` is part of the
score). Attributions [B, H, W, C] are of every number of the picture; `heat` and `total` make maps
[B, H, W] of them. All are float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxcnn.errors import ConfigError
from jaxcnn.inspect.taps import Score


def gradient(score: Score, images: jax.Array) -> jax.Array:
    """The gradient of the score by each number of the picture. [B, H, W, C] -> [B, H, W, C]

    K. Simonyan, A. Vedaldi, A. Zisserman, "Deep inside convolutional networks: visualising image
    classification models and saliency maps", 2014, section 3.
    """
    return jax.grad(lambda x: jnp.sum(score(x)))(images)


def integrated_gradients(
    score: Score, images: jax.Array, *, baseline: ArrayLike = 0.0, steps: int = 50
) -> jax.Array:
    """(picture - baseline) times the mean gradient on the straight line from the baseline to the
    picture, by Gauss-Legendre quadrature at `steps` points. [B, H, W, C] -> [B, H, W, C]

    They sum to the score's difference between picture and baseline, but for the error of the
    quadrature. `baseline`: a number (0 is black) or an array that broadcasts to the pictures.
    M. Sundararajan, A. Taly, Q. Yan, "Axiomatic attribution for deep networks", 2017, section 3.
    Errors: ConfigError for less than one step.
    """
    if steps < 1:
        raise ConfigError(f"integrated_gradients: steps is {steps}; it must be at least 1")
    places, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1], weights of sum 2
    points = (
        jnp.asarray((places + 1) / 2, images.dtype),
        jnp.asarray(weights / 2, images.dtype),
    )
    start = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)

    def add(mean: jax.Array, point: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        share, weight = point
        return mean + weight * gradient(score, start + share * (images - start)), None

    mean, _ = jax.lax.scan(add, jnp.zeros_like(images), points)
    return (images - start) * mean


def smooth_grad(
    key: jax.Array, score: Score, images: jax.Array, *, sigma: float = 0.15, samples: int = 25
) -> jax.Array:
    """The mean gradient of `samples` noisy copies. [B, H, W, C] -> [B, H, W, C]

    `sigma`: the noise's standard deviation in the picture's unit, in which white is 1; the noise of
    sample i is drawn from `fold_in(key, i)`. D. Smilkov, N. Thorat, B. Kim, F. Viégas, M.
    Wattenberg, "SmoothGrad: removing noise by adding noise", 2017, section 3 (10 to 20 % of the
    range, 50 samples at most).
    Errors: ConfigError for a negative sigma or less than one sample.
    """
    if samples < 1 or sigma < 0:
        raise ConfigError(
            f"smooth_grad: samples is {samples} and sigma {sigma}; at least 1 sample, and no "
            "negative noise"
        )

    def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        noise = jax.random.normal(jax.random.fold_in(key, number), images.shape, images.dtype)
        return total + gradient(score, images + jnp.asarray(sigma, images.dtype) * noise), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(images), jnp.arange(samples))
    return total / samples


def occlusion(
    score: Score,
    images: jax.Array,
    *,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    value: ArrayLike = 0.0,
) -> jax.Array:
    """By how much the score falls when a window is covered: at each pixel the mean over the windows
    that cover it. [B, H, W, C] -> [B, H, W]

    `window` (height, width), in pixels, begins at 0, stride, 2 stride, … until the last row and
    column are covered, and is cut at the border. Default: an eighth of the sides, and half a window
    from one to the next. `value` is what covers: a number (0 is black), or an array that broadcasts
    to the pictures. M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional
    networks", 2014, section 4.2.
    Errors: ConfigError for a window larger than the picture, or a stride that leaves gaps.
    """
    size = images.shape[1:3]
    window = window or (max(1, size[0] // 8), max(1, size[1] // 8))
    stride = stride or (max(1, window[0] // 2), max(1, window[1] // 2))
    for w, s, side in zip(window, stride, size, strict=True):
        if not 1 <= w <= side or not 1 <= s <= w:
            raise ConfigError(
                f"occlusion: window {window} and stride {stride} for pictures of {size}; a window "
                "must fit into the picture, and a stride lies between 1 and the window's side"
            )
    starts = [
        s * np.arange(-(-(side - w) // s) + 1)
        for w, s, side in zip(window, stride, size, strict=True)
    ]
    corners = jnp.asarray(np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 2))
    cover = jnp.broadcast_to(jnp.asarray(value, images.dtype), images.shape)
    whole = score(images)
    rows, columns = jnp.arange(size[0])[:, None], jnp.arange(size[1])[None]

    def add(
        sums: tuple[jax.Array, jax.Array], corner: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        y, x = corner
        inside = (rows >= y) & (rows < y + window[0]) & (columns >= x) & (columns < x + window[1])
        fall = whole - score(jnp.where(inside[None, :, :, None], cover, images))
        share = inside.astype(whole.dtype)
        return (sums[0] + fall[:, None, None] * share[None], sums[1] + share), None

    nothing = jnp.zeros(images.shape[:3], whole.dtype), jnp.zeros(size, whole.dtype)
    (falls, counts), _ = jax.lax.scan(add, nothing, corners)
    return falls / counts[None]


def heat(attribution: jax.Array) -> jax.Array:
    """The largest absolute value over the channels, at least 0 (Simonyan et al. 2014, section 3.1).
    [B, H, W, C] -> [B, H, W]
    """
    return jnp.max(jnp.abs(attribution), axis=-1)


def total(attribution: jax.Array) -> jax.Array:
    """The sum over the channels, which keeps sign and total. [B, H, W, C] -> [B, H, W]"""
    return jnp.sum(attribution, axis=-1)
