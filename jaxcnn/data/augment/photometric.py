"""Augmentations of light and colour: they change `image` alone, not "target" or other pictures.
Images stay in [0, 1] but for `standardize`.
"""

import math

import jax
import jax.numpy as jnp
from jax import random

from jaxcnn.data.augment import operations
from jaxcnn.data.augment.draws import log_uniform, per_row, uniform
from jaxcnn.data.geometry import Batch
from jaxcnn.errors import ConfigError

# Principal components of ImageNet's RGB values in [0, 1]: S. Gross and M. Wilber, "Training and
# investigating residual nets" (2016), whose published training code carries these numbers for the
# augmentation of Krizhevsky et al. 2012.
IMAGENET_EIGENVALUES = (0.2175, 0.0188, 0.0045)
# one a column
IMAGENET_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def jitter_brightness(key: jax.Array, batch: Batch, *, amount: float = 0.2) -> Batch:
    """Multiply each image by a factor uniform in [1 - amount, 1 + amount]."""
    return _jitter(key, batch, operations.brightness, amount)


def jitter_contrast(key: jax.Array, batch: Batch, *, amount: float = 0.2) -> Batch:
    """Scale each image's distance from its mean luminance by a factor uniform in [1 - amount, 1 +
    amount].
    """
    return _jitter(key, batch, operations.contrast, amount)


def jitter_saturation(key: jax.Array, batch: Batch, *, amount: float = 0.2) -> Batch:
    """Scale each pixel's distance from its own luminance by a factor uniform in [1 - amount, 1 +
    amount]; nothing for one channel.
    """
    return _jitter(key, batch, operations.saturation, amount)


def jitter_sharpness(key: jax.Array, batch: Batch, *, amount: float = 0.5) -> Batch:
    """Scale each image's distance from itself smoothed by a factor uniform in [1 - amount, 1 +
    amount].
    """
    return _jitter(key, batch, operations.sharpness, amount)


def jitter_hue(key: jax.Array, batch: Batch, *, amount: float = 0.1) -> Batch:
    """Turn the hue by a share of its circle uniform in [-amount, amount]; at most 0.5 makes sense.
    Nothing for one channel.
    """
    image = batch["image"]
    return _with_image(batch, operations.hue(image, amount * uniform(key, image.shape[0], -1, 1)))


def jitter_color(
    key: jax.Array,
    batch: Batch,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
) -> Batch:
    """Brightness, contrast and saturation, in this order; the amounts are those of the single
    functions.
    """
    keys = random.split(key, 3)
    batch = jitter_brightness(keys[0], batch, amount=brightness)
    batch = jitter_contrast(keys[1], batch, amount=contrast)
    return jitter_saturation(keys[2], batch, amount=saturation)


def jitter_gamma(
    key: jax.Array, batch: Batch, *, exponent: tuple[float, float] = (0.8, 1.25)
) -> Batch:
    """Raise pixels to a power log-uniform in `exponent`."""
    image = batch["image"]
    return _with_image(
        batch, image ** per_row(log_uniform(key, image.shape[0], *exponent)).astype(image.dtype)
    )


def jitter_lighting(
    key: jax.Array,
    batch: Batch,
    *,
    std: float = 0.1,
    eigenvalues: tuple[float, ...] = IMAGENET_EIGENVALUES,
    eigenvectors: tuple[tuple[float, ...], ...] = IMAGENET_EIGENVECTORS,
) -> Batch:
    """Add to all pixels of an image the principal components of the data's colours, each times its
    eigenvalue times a normal draw.

    A. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks" (2012),
    section 4.1.

    Args:
        std: standard deviation of the draws (0.1 in the paper).
        eigenvalues: [C]. eigenvectors: [C, C], one a column; the defaults are ImageNet's.
    Errors: ConfigError if there are not as many eigenvalues as channels.
    """
    image = batch["image"]
    if image.shape[-1] != len(eigenvalues):
        raise ConfigError(
            f"jitter_lighting: {len(eigenvalues)} eigenvalues for images of {image.shape[-1]} "
            "channels; give eigenvalues= and "
            "eigenvectors= of these channels, or take jitter_brightness"
        )
    draws = std * random.normal(key, (image.shape[0], 1, len(eigenvalues)), jnp.float32)
    color = (
        draws
        * jnp.array(eigenvalues, jnp.float32)[None, None]
        * jnp.array(eigenvectors, jnp.float32)[None]
    ).sum(-1)  # [B, C]
    return _with_image(batch, image + color[:, None, None].astype(image.dtype))


def posterize(
    key: jax.Array, batch: Batch, *, rate: float = 0.5, bits: tuple[int, int] = (2, 6)
) -> Batch:
    """With probability `rate` keep the highest bits of each byte, as many as are drawn in `bits`
    (both ends count).
    """
    rate_key, key = random.split(key)
    image = batch["image"]
    drawn = random.randint(key, (image.shape[0],), bits[0], bits[1] + 1).astype(jnp.float32)
    return _sometimes(rate_key, batch, operations.posterize(image, drawn), rate)


def solarize(
    key: jax.Array, batch: Batch, *, rate: float = 0.5, threshold: tuple[float, float] = (0.3, 1.0)
) -> Batch:
    """With probability `rate` invert the values of at least a threshold uniform in `threshold`."""
    rate_key, key = random.split(key)
    image = batch["image"]
    drawn = uniform(key, image.shape[0], *threshold)
    return _sometimes(rate_key, batch, operations.solarize(image, drawn), rate)


def equalize(key: jax.Array, batch: Batch, *, rate: float = 0.5) -> Batch:
    """With probability `rate` make the histogram of each channel flat."""
    return _sometimes(key, batch, operations.equalize(batch["image"]), rate)


def autocontrast(key: jax.Array, batch: Batch, *, rate: float = 0.5) -> Batch:
    """With probability `rate` stretch each channel's values to [0, 1]."""
    return _sometimes(key, batch, operations.autocontrast(batch["image"]), rate)


def invert(key: jax.Array, batch: Batch, *, rate: float = 0.5) -> Batch:
    """With probability `rate` take the negative."""
    return _sometimes(key, batch, operations.invert(batch["image"]), rate)


def blur(
    key: jax.Array,
    batch: Batch,
    *,
    rate: float = 0.5,
    sigma: tuple[float, float] = (0.1, 2.0),
    size: int | None = None,
) -> Batch:
    """With probability `rate` smooth by a Gaussian whose deviation in pixels is uniform in `sigma`.

    T. Chen et al., "A simple framework for contrastive learning of visual representations" (2020),
    appendix A, with `size` a tenth of the image's.

    Args:
        size: how many pixels in a row are averaged, odd; None: all up to three deviations.
    """
    rate_key, key = random.split(key)
    image = batch["image"]
    size = 2 * math.ceil(3 * sigma[1]) + 1 if size is None else size
    drawn = uniform(key, image.shape[0], *sigma)
    return _sometimes(rate_key, batch, operations.gaussian_blur(image, drawn, size=size), rate)


def add_noise(key: jax.Array, batch: Batch, *, std: float = 0.05) -> Batch:
    """Add independent normal noise of standard deviation `std` to every value."""
    image = batch["image"]
    return _with_image(
        batch, image + jnp.asarray(std, image.dtype) * random.normal(key, image.shape, image.dtype)
    )


def salt_and_pepper(key: jax.Array, batch: Batch, *, share: float = 0.05) -> Batch:
    """Make a share of the pixels, drawn one by one, black or white, half of them each."""
    image = batch["image"]
    draw = random.uniform(key, (*image.shape[:3], 1), jnp.float32)
    ends = (draw < share / 2).astype(image.dtype)
    return {**batch, "image": jnp.where(draw < share, ends, image)}


def standardize(
    batch: Batch, *, mean: float | tuple[float, ...], std: float | tuple[float, ...]
) -> Batch:
    """(image - mean) / std, numbers or one number a channel; leaves [0, 1]. Draws nothing.

    Errors: ConfigError if there are neither one number nor as many as channels.
    """
    image = batch["image"]
    centre, spread = (jnp.atleast_1d(jnp.asarray(numbers, image.dtype)) for numbers in (mean, std))
    for name, numbers in (("mean", centre), ("std", spread)):
        if numbers.shape[0] not in (1, image.shape[-1]):
            raise ConfigError(
                f"standardize: {name} has {numbers.shape[0]} numbers for images of "
                f"{image.shape[-1]} channels; give one a channel"
            )
    return {**batch, "image": (image - centre[None, None, None]) / spread[None, None, None]}


def _jitter(key, batch, operation, amount):
    image = batch["image"]
    factor = 1 + amount * uniform(key, image.shape[0], -1, 1)
    return {**batch, "image": operation(image, factor)}


def _sometimes(key, batch, changed, rate):
    """The changed images with probability `rate`, each by itself."""
    image = batch["image"]
    chosen = per_row(random.bernoulli(key, rate, (image.shape[0],)))
    return {**batch, "image": jnp.where(chosen, changed, image)}


def _with_image(batch, image):
    return {**batch, "image": jnp.clip(image, 0, 1)}
