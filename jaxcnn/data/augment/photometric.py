"""Augmentations of light and colour; images stay in [0, 1] but for `standardize`."""

import jax
import jax.numpy as jnp
from jax import random

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
    image = batch["image"]
    return _with_image(batch, image * _factor(key, image, amount))


def jitter_contrast(key: jax.Array, batch: Batch, *, amount: float = 0.2) -> Batch:
    """Scale each image's distance from its mean luminance by a factor uniform in [1 - amount, 1 +
    amount].
    """
    image = batch["image"]
    mean = _luminance(image).mean(axis=(1, 2, 3), keepdims=True)
    return _with_image(batch, mean + (image - mean) * _factor(key, image, amount))


def jitter_saturation(key: jax.Array, batch: Batch, *, amount: float = 0.2) -> Batch:
    """Scale each pixel's distance from its own luminance by a factor uniform in [1 - amount, 1 +
    amount]; nothing for one channel.
    """
    image = batch["image"]
    luminance = _luminance(image)
    return _with_image(batch, luminance + (image - luminance) * _factor(key, image, amount))


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


def add_noise(key: jax.Array, batch: Batch, *, std: float = 0.05) -> Batch:
    """Add independent normal noise of standard deviation `std` to every value."""
    image = batch["image"]
    return _with_image(
        batch, image + jnp.asarray(std, image.dtype) * random.normal(key, image.shape, image.dtype)
    )


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


def _luminance(image):
    """[B, H, W, 1]: ITU-R BT.601 for three channels, else the channels' mean."""
    if image.shape[-1] != 3:
        return image.mean(-1, keepdims=True)
    return (image * jnp.array((0.299, 0.587, 0.114), image.dtype)[None, None, None]).sum(
        -1, keepdims=True
    )


def _factor(key, image, amount):
    return per_row(1 + amount * uniform(key, image.shape[0], -1, 1)).astype(image.dtype)


def _with_image(batch, image):
    return {**batch, "image": jnp.clip(image, 0, 1)}
