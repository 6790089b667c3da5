"""Random changes to training images, on the device: `f(key, batch, *, options) -> batch`, pure, for
`jax.jit` and `jax.vmap`.

A batch is a dict of arrays with a leading axis B (entries: see `jaxcnn.data.geometry`), `image` [B,
H, W, C] float in [0, 1] with any number of channels. Each example draws its own parameters. Shapes
(but for the crops), dtypes and the range [0, 1] are kept; boxes, points, segmentation and instance
masks move along with the image; all other entries, `mask` among them, are handed through untouched.
An experiment names them with their options: `augment=partial(chain, functions=(partial(shift,
pixels=2), flip_left_right))`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax, random

from jaxcnn.data import geometry
from jaxcnn.data.geometry import Batch
from jaxcnn.errors import ConfigError

Size = tuple[int, int]

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


def chain(
    key: jax.Array, batch: Batch, *, functions: tuple[Callable[[jax.Array, Batch], Batch], ...]
) -> Batch:
    """Apply augmentations one after the other, each with its own key."""
    for function, function_key in zip(
        functions, random.split(key, max(len(functions), 1)), strict=False
    ):
        batch = function(function_key, batch)
    return batch


# Geometry


def shift(key: jax.Array, batch: Batch, *, pixels: int = 2, fill: float = 0.0, **options) -> Batch:
    """Move each image by up to `pixels` whole pixels down or up and right or left; `fill` comes in
    at the border. Options: see `crop`.
    """
    return crop(key, batch, size=batch["image"].shape[1:3], padding=pixels, fill=fill, **options)


def crop(
    key: jax.Array,
    batch: Batch,
    *,
    size: Size,
    padding: int = 0,
    fill: float = 0.0,
    segmentation_fill: int = 0,
    mode: str = "constant",
    min_visible: float = 0.25,
) -> Batch:
    """Pad all four sides, then cut a window of `size` at a uniformly drawn whole-pixel place.

    With padding 4 and the image's own size, the CIFAR augmentation of K. He et al., "Deep residual
    learning" (2016), section 4.2.

    Args:
        mode: of `jax.numpy.pad`; other than "constant" (such as "reflect") it pads the image alone,
            never the labels.
        min_visible: a box of which less than this share is left gets `boxes_mask` 0.
    Errors: ConfigError if the window is larger than the padded image.
    """
    count, height, width = batch["image"].shape[:3]
    free = (height + 2 * padding - size[0], width + 2 * padding - size[1])
    if min(free) < 0:
        raise ConfigError(
            f"crop: a window of {size} does not fit into an image of {(height, width)} padded by "
            f"{padding}; make it smaller or pad more"
        )
    top, left = (
        random.randint(k, (count,), 0, n + 1) for k, n in zip(random.split(key), free, strict=True)
    )

    def cut(name: str, grid: jax.Array) -> jax.Array:
        pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        if name == "image" and mode != "constant":
            grid = jnp.pad(grid, pads, mode=mode)
        else:
            outside = {"image": fill, "segmentation": segmentation_fill}.get(name, 0)
            grid = jnp.pad(grid, pads, constant_values=jnp.array(outside, grid.dtype))
        return jax.vmap(
            lambda rows, y, x: lax.dynamic_slice(rows, (y, x, 0), (*size, rows.shape[-1]))
        )(grid, top, left)

    ones = jnp.ones((count,), jnp.float32)
    offset = (padding - top.astype(jnp.float32), padding - left.astype(jnp.float32))
    matrices = geometry.scale_matrices((ones, ones), offset)
    return geometry.move_labels(
        geometry.move_grids(batch, cut), matrices, source=(height, width), min_visible=min_visible
    )


def crop_resized(
    key: jax.Array,
    batch: Batch,
    *,
    size: Size,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    min_visible: float = 0.25,
) -> Batch:
    """Cut a window of random area and aspect ratio and resize it to `size` (bilinear, smoothed
    where it shrinks).

    C. Szegedy et al., "Going deeper with convolutions" (2015), section 6. The window's area is
    `area` of the image's, uniform; width over height is log-uniform in `aspect`; a window that
    would stick out is cut to the image's height or width instead of drawn again.
    """
    count, height, width = batch["image"].shape[:3]
    area_key, aspect_key, top_key, left_key = random.split(key, 4)
    pixels = height * width * _uniform(area_key, count, *area)
    root = jnp.sqrt(_log_uniform(aspect_key, count, *aspect))
    tall, wide = (
        jnp.minimum(jnp.sqrt(pixels) / root, height),
        jnp.minimum(jnp.sqrt(pixels) * root, width),
    )
    scale = (size[0] / tall, size[1] / wide)
    offset = (
        -scale[0] * (height - tall) * _uniform(top_key, count, 0, 1),
        -scale[1] * (width - wide) * _uniform(left_key, count, 0, 1),
    )
    return geometry.stretch(
        batch, geometry.scale_matrices(scale, offset), size=size, min_visible=min_visible
    )


def flip_left_right(
    key: jax.Array, batch: Batch, *, rate: float = 0.5, swap: tuple[int, ...] | None = None
) -> Batch:
    """Mirror each example with probability `rate`. `swap`: permutation of the points that exchanges
    left and right ones.
    """
    return _flip(key, batch, axis=2, rate=rate, swap=swap)


def flip_up_down(
    key: jax.Array, batch: Batch, *, rate: float = 0.5, swap: tuple[int, ...] | None = None
) -> Batch:
    """Turn each example upside down (a mirror image too, so `swap` as in `flip_left_right`) with
    probability `rate`.
    """
    return _flip(key, batch, axis=1, rate=rate, swap=swap)


def _flip(key, batch, *, axis, rate, swap):
    count, height, width = batch["image"].shape[:3]
    chosen = random.bernoulli(key, rate, (count,))
    moved = geometry.move_grids(
        batch, lambda _, grid: jnp.where(_per_row(chosen), jnp.flip(grid, axis), grid)
    )
    size, mirrored, one = (
        (height, width)[axis - 1],
        jnp.where(chosen, -1.0, 1.0),
        jnp.ones((count,), jnp.float32),
    )
    offset = jnp.where(chosen, float(size), 0.0)
    scale, offsets = (
        ((mirrored, one), (offset, 0 * offset))
        if axis == 1
        else ((one, mirrored), (0 * offset, offset))
    )
    return geometry.move_labels(
        moved,
        geometry.scale_matrices(scale, offsets),
        source=(height, width),
        min_visible=0.0,
        swap=swap,
    )


def rotate(key: jax.Array, batch: Batch, *, degrees: float = 15.0, **options) -> Batch:
    """Rotate about the centre by an angle uniform in [-degrees, degrees]. Options: those of
    `geometry.warp`.
    """
    return affine(key, batch, degrees=degrees, **options)


def scale(
    key: jax.Array, batch: Batch, *, factor: tuple[float, float] = (0.8, 1.25), **options
) -> Batch:
    """Magnify about the centre by a factor log-uniform in `factor`, at unchanged image size.
    Options: those of `geometry.warp`.
    """
    return affine(key, batch, factor=factor, **options)


def affine(
    key: jax.Array,
    batch: Batch,
    *,
    degrees: float = 0.0,
    factor: tuple[float, float] = (1.0, 1.0),
    translation: float = 0.0,
    shear: float = 0.0,
    **options,
) -> Batch:
    """Rotate, shear and magnify about the centre, then shift, in one resampling.

    Args:
        degrees: rotation, uniform in [-degrees, degrees]; shear: the same for the horizontal shear
            angle, degrees.
        factor: magnification, log-uniform in this range.
        translation: largest shift, as a share of the image's height and width.
        options: those of `geometry.warp` (fill, segmentation_fill, order, min_visible).
    """
    count, height, width = batch["image"].shape[:3]
    keys = random.split(key, 5)
    matrices = geometry.affine_matrices(
        size=(height, width),
        degrees=degrees * _uniform(keys[0], count, -1, 1),
        factor=_log_uniform(keys[1], count, *factor),
        shear=shear * _uniform(keys[2], count, -1, 1),
        offset=(
            translation * height * _uniform(keys[3], count, -1, 1),
            translation * width * _uniform(keys[4], count, -1, 1),
        ),
    )
    return geometry.warp(batch, matrices, **options)


def resize(batch: Batch, *, size: Size) -> Batch:
    """Resize the image to `size` (bilinear, smoothed where it shrinks), segmentation and masks by
    the nearest pixel. Draws nothing.
    """

    def move(name: str, grid: jax.Array) -> jax.Array:
        shape = (grid.shape[0], *size, grid.shape[-1])
        return jax.image.resize(grid, shape, "linear" if name == "image" else "nearest")

    return geometry.move_grids(batch, move)


# Light and colour


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
        batch, image ** _per_row(_log_uniform(key, image.shape[0], *exponent)).astype(image.dtype)
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


# Erasing and mixing


def cutout(key: jax.Array, batch: Batch, *, size: int, fill: float = 0.0) -> Batch:
    """Fill a square of `size` pixels, its centre uniform over the image and its parts outside cut
    off.

    T. DeVries and G. W. Taylor, "Improved regularization of convolutional neural networks with
    cutout" (2017), section 3.2.
    """
    image = batch["image"]
    sides = jnp.full((image.shape[0],), size, jnp.int32)
    inside, _ = _rectangles(key, image, sides, sides)
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
        height * width * _uniform(area_key, count, *area),
        _uniform(aspect_key, count, *aspect),
    )
    tall = jnp.clip(jnp.round(jnp.sqrt(pixels * ratio)), 1, height).astype(jnp.int32)
    wide = jnp.clip(jnp.round(jnp.sqrt(pixels / ratio)), 1, width).astype(jnp.int32)
    top, left = (
        random.randint(top_key, (count,), 0, height - tall + 1),
        random.randint(left_key, (count,), 0, width - wide + 1),
    )
    chosen = _per_row(random.bernoulli(rate_key, rate, (count,)))
    content = (
        random.uniform(noise_key, image.shape, image.dtype)
        if fill is None
        else jnp.array(fill, image.dtype)
    )
    return {
        **batch,
        "image": jnp.where(
            chosen & _inside(image, top, top + tall, left, left + wide), content, image
        ),
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
    image = batch["image"]
    weight = _mixing_weights(key, batch, "mixup", alpha, rate)
    share = _per_row(weight).astype(image.dtype)
    return _mix(batch, share * image + (1 - share) * jnp.roll(image, 1, axis=0), weight)


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
    inside, pixels = _rectangles(
        place_key, image, (height * side).astype(jnp.int32), (width * side).astype(jnp.int32)
    )
    weight = 1 - pixels.astype(jnp.float32) / (height * width)
    return _mix(batch, jnp.where(inside, jnp.roll(image, 1, axis=0), image), weight)


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


def _mix(batch, image, weight):
    return {
        **batch,
        "image": image,
        "label_b": jnp.roll(batch["label"], 1, axis=0),
        "label_weight": weight,
    }


def _rectangles(key, image, tall, wide):
    """Rectangles of these sides [B] about uniform centres, cut at the border: their inside [B, H,
    W, 1] bool, their area [B] int32.
    """
    count, height, width, _ = image.shape
    y_key, x_key = random.split(key)
    top, left = (
        random.randint(y_key, (count,), 0, height) - tall // 2,
        random.randint(x_key, (count,), 0, width) - wide // 2,
    )
    top, bottom = jnp.clip(top, 0, height), jnp.clip(top + tall, 0, height)
    left, right = jnp.clip(left, 0, width), jnp.clip(left + wide, 0, width)
    return _inside(image, top, bottom, left, right), (bottom - top) * (right - left)


def _inside(image, top, bottom, left, right):
    rows, columns = (
        jnp.arange(image.shape[1])[None, :, None, None],
        jnp.arange(image.shape[2])[None, None, :, None],
    )
    top, bottom, left, right = (_per_row(bound) for bound in (top, bottom, left, right))
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def _luminance(image):
    """[B, H, W, 1]: ITU-R BT.601 for three channels, else the channels' mean."""
    if image.shape[-1] != 3:
        return image.mean(-1, keepdims=True)
    return (image * jnp.array((0.299, 0.587, 0.114), image.dtype)[None, None, None]).sum(
        -1, keepdims=True
    )


def _factor(key, image, amount):
    return _per_row(1 + amount * _uniform(key, image.shape[0], -1, 1)).astype(image.dtype)


def _with_image(batch, image):
    return {**batch, "image": jnp.clip(image, 0, 1)}


def _per_row(numbers):
    return numbers[:, None, None, None]


def _uniform(key, count, low, high):
    return low + (high - low) * random.uniform(key, (count,), jnp.float32)


def _log_uniform(key, count, low, high):
    return jnp.exp(_uniform(key, count, jnp.log(jnp.float32(low)), jnp.log(jnp.float32(high))))
