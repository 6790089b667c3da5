"""Augmentations that erase parts of images, or mix images and their labels."""

import jax
import jax.numpy as jnp
from jax import random

from jaxcnn.core.batch import kind
from jaxcnn.data.augment.draws import inside, per_row, rectangles, uniform
from jaxcnn.data.geometry import Batch
from jaxcnn.errors import ConfigError


def cutout(key: jax.Array, batch: Batch, *, size: int, fill: float = 0.0) -> Batch:
    """Fill a square of `size` pixels, its centre uniform over the image and its parts outside cut
    off.

    T. DeVries and G. W. Taylor, "Improved regularization of convolutional neural networks with
    cutout" (2017), section 3.2.
    """
    image = batch["image"]
    sides = jnp.full((image.shape[0],), size, jnp.int32)
    inside, _ = rectangles(key, image, sides, sides)
    return {**batch, "image": jnp.where(inside, jnp.array(fill, image.dtype), image)}


def erase(
    key: jax.Array,
    batch: Batch,
    *,
    rate: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    fill: float | None = None,
) -> Batch:
    """Random erasing: with probability `rate`, a rectangle becomes noise uniform in [0, 1] (or
    `fill`).

    Z. Zhong et al., "Random erasing data augmentation" (2017), section 3.1; the defaults are the
    paper's. The rectangle has `area` of the image and height over width in `aspect`, both uniform,
    and lies inside; a side longer than the image's is cut instead of drawn again.
    """
    image = batch["image"]
    count, height, width, _ = image.shape
    rate_key, area_key, aspect_key, top_key, left_key, noise_key = random.split(key, 6)
    pixels, ratio = (
        height * width * uniform(area_key, count, *area),
        uniform(aspect_key, count, *aspect),
    )
    tall = jnp.clip(jnp.round(jnp.sqrt(pixels * ratio)), 1, height).astype(jnp.int32)
    wide = jnp.clip(jnp.round(jnp.sqrt(pixels / ratio)), 1, width).astype(jnp.int32)
    top, left = (
        random.randint(top_key, (count,), 0, height - tall + 1),
        random.randint(left_key, (count,), 0, width - wide + 1),
    )
    chosen = per_row(random.bernoulli(rate_key, rate, (count,)))
    content = (
        random.uniform(noise_key, image.shape, image.dtype)
        if fill is None
        else jnp.array(fill, image.dtype)
    )
    return {
        **batch,
        "image": jnp.where(
            chosen & inside(image, top, top + tall, left, left + wide), content, image
        ),
    }


def grid_mask(
    key: jax.Array,
    batch: Batch,
    *,
    rate: float = 0.7,
    unit: tuple[float, float] = (0.4, 1.0),
    ratio: float = 0.6,
    degrees: float = 0.0,
    fill: float = 0.0,
) -> Batch:
    """With probability `rate`, fill the squares of a regular grid.

    P. Chen et al., "GridMask data augmentation" (2020), section 3; the defaults are those for
    ImageNet, where `rate` grew from 0 to 0.8 while training. Of each unit, a square whose side is
    uniform in `unit` times the image's shorter side, a square of 1 - `ratio` of its side is filled.
    The grid's place is uniform, its angle uniform in [-degrees, degrees].
    """
    image = batch["image"]
    count, height, width, _ = image.shape
    keys = random.split(key, 5)
    side = jnp.maximum(min(height, width) * uniform(keys[0], count, *unit), 2.0)
    angle = jnp.deg2rad(degrees * uniform(keys[1], count, -1, 1))
    rows = (jnp.arange(height, dtype=jnp.float32) + 0.5)[None, :, None]
    columns = (jnp.arange(width, dtype=jnp.float32) + 0.5)[None, None, :]
    side, cosine, sine, down, right = (
        number[:, None, None]
        for number in (
            side,
            jnp.cos(angle),
            jnp.sin(angle),
            side * uniform(keys[2], count, 0, 1),
            side * uniform(keys[3], count, 0, 1),
        )
    )
    y = jnp.mod(cosine * rows - sine * columns + down, side)
    x = jnp.mod(sine * rows + cosine * columns + right, side)
    filled = (y < (1 - ratio) * side) & (x < (1 - ratio) * side)
    chosen = random.bernoulli(keys[4], rate, (count,))[:, None, None]
    return {
        **batch,
        "image": jnp.where((filled & chosen)[..., None], jnp.array(fill, image.dtype), image),
    }


def mixup(key: jax.Array, batch: Batch, *, alpha: float = 0.2, rate: float = 1.0) -> Batch:
    """Blend each image with that of the row before it: weight * own + (1 - weight) * other, weight
    ~ Beta(alpha, alpha) per example.

    H. Zhang et al., "mixup: beyond empirical risk minimization" (2018), section 2. Rows are in
    random order already, so the neighbour is a random partner. With probability 1 - `rate` an image
    is left alone. Sets `label_b` [B], the other's label, and `label_weight` [B]
    float32: loss = label_weight * loss(label) + (1 - label_weight) * loss(label_b).
    Errors: ConfigError if the batch has no `label` or is mixed already.
    """
    weight = _mixing_weights(key, batch, "mixup", alpha, rate)

    def blend(image: jax.Array) -> jax.Array:
        share = weight.reshape(-1, *[1] * (image.ndim - 1)).astype(image.dtype)
        return share * image + (1 - share) * jnp.roll(image, 1, axis=0)

    return _mix(batch, blend, weight)


def cutmix(key: jax.Array, batch: Batch, *, alpha: float = 1.0, rate: float = 1.0) -> Batch:
    """Paste a rectangle of the row before into each image; labels are weighted by the share of
    pixels that each image keeps.

    S. Yun et al., "CutMix: regularization strategy to train strong classifiers with localizable
    features" (2019), section 3.1: the rectangle has the image's aspect and the area 1 - Beta(alpha,
    alpha), its centre is uniform over the image, its parts outside are cut
    off. Partner, `rate`, entries set and errors: see `mixup`.
    """
    image = batch["image"]
    height, width = image.shape[1:3]
    weight_key, place_key = random.split(key)
    side = jnp.sqrt(1 - _mixing_weights(weight_key, batch, "cutmix", alpha, rate))
    inside, pixels = rectangles(
        place_key, image, (height * side).astype(jnp.int32), (width * side).astype(jnp.int32)
    )
    weight = 1 - pixels.astype(jnp.float32) / (height * width)

    def paste(other: jax.Array) -> jax.Array:
        if other.shape[:3] != image.shape[:3]:
            raise ConfigError(
                f"cutmix: an image {list(other.shape)} beside `image` {list(image.shape)}: one "
                "rectangle cannot be cut of both; give them one size, or take mixup"
            )
        here = inside if other.ndim == 4 else inside[..., 0]
        return jnp.where(here, jnp.roll(other, 1, axis=0), other)

    return _mix(batch, paste, weight)


def _mixing_weights(key, batch, name, alpha, rate):
    if "label" not in batch or "label_b" in batch:
        problem = "the batch is mixed already" if "label_b" in batch else "the batch has no 'label'"
        raise ConfigError(
            f"{name}: {problem} (it has {', '.join(sorted(batch))}); mix once, in a "
            "classification experiment"
        )
    count = batch["image"].shape[0]
    beta_key, rate_key = random.split(key)
    alpha = jnp.asarray(alpha, jnp.float32)
    return jnp.where(
        random.bernoulli(rate_key, rate, (count,)),
        random.beta(beta_key, alpha, alpha, (count,), jnp.float32),
        1.0,
    )


def _mix(batch, mix, weight):
    """`mix` of all images, so that several images of an example stay those of one example."""
    return {
        **batch,
        **{name: mix(x) for name, x in batch.items() if kind(name) == "image"},
        "label_b": jnp.roll(batch["label"], 1, axis=0),
        "label_weight": weight,
    }
