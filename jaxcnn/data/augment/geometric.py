"""Augmentations that move pixels, and the boxes, points and masks along with them."""

import math

import jax
import jax.numpy as jnp
from jax import lax, random

from jaxcnn.core.batch import kind
from jaxcnn.data import geometry, matrix
from jaxcnn.data.augment.draws import log_uniform, per_row, uniform
from jaxcnn.data.augment.operations import gaussian_blur
from jaxcnn.data.geometry import Batch
from jaxcnn.errors import ConfigError

Size = tuple[int, int]


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
        mode: of `jax.numpy.pad`; other than "constant" (such as "reflect") it pads images alone,
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
        shape, ratio = geometry.scaled_size(name, grid, source=(height, width), size=size)
        if ratio != (round(ratio[0]), round(ratio[1])):
            raise ConfigError(
                f"crop: {name} is {grid.shape[1]}x{grid.shape[2]}, the image {height}x{width}, not "
                "a whole number of times; give them sizes that are, or take crop_resized"
            )
        down, right = round(ratio[0]), round(ratio[1])
        pads = ((0, 0), (padding * down,) * 2, (padding * right,) * 2, (0, 0))
        if kind(name) == "image" and mode != "constant":
            grid = jnp.pad(grid, pads, mode=mode)
        else:
            outside = geometry.fill_of(name, fill=fill, segmentation_fill=segmentation_fill)
            grid = jnp.pad(grid, pads, constant_values=jnp.array(outside, grid.dtype))
        return jax.vmap(
            lambda rows, y, x: lax.dynamic_slice(
                rows, (y * down, x * right, 0), (*shape, rows.shape[-1])
            )
        )(grid, top, left)

    ones = jnp.ones((count,), jnp.float32)
    offset = (padding - top.astype(jnp.float32), padding - left.astype(jnp.float32))
    matrices = matrix.scale_matrices((ones, ones), offset)
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
    pixels = height * width * uniform(area_key, count, *area)
    root = jnp.sqrt(log_uniform(aspect_key, count, *aspect))
    tall, wide = (
        jnp.minimum(jnp.sqrt(pixels) / root, height),
        jnp.minimum(jnp.sqrt(pixels) * root, width),
    )
    scale = (size[0] / tall, size[1] / wide)
    offset = (
        -scale[0] * (height - tall) * uniform(top_key, count, 0, 1),
        -scale[1] * (width - wide) * uniform(left_key, count, 0, 1),
    )
    return geometry.stretch(
        batch, matrix.scale_matrices(scale, offset), size=size, min_visible=min_visible
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
        batch, lambda _, grid: jnp.where(per_row(chosen), jnp.flip(grid, axis), grid)
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
        matrix.scale_matrices(scale, offsets),
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
    shear_y: float = 0.0,
    **options,
) -> Batch:
    """Rotate, shear and magnify about the centre, then shift, in one resampling.

    Args:
        degrees: rotation, uniform in [-degrees, degrees]; shear, shear_y: the same for the angles
            of the horizontal and the vertical shear, degrees.
        factor: magnification, log-uniform in this range.
        translation: largest shift, as a share of the image's height and width.
        options: those of `geometry.warp` (fill, segmentation_fill, order, min_visible).
    """
    count, height, width = batch["image"].shape[:3]
    keys = random.split(key, 5)
    vertical = {}
    if shear_y:
        vertical["shear_y"] = shear_y * uniform(random.fold_in(key, 5), count, -1, 1)
    matrices = matrix.affine_matrices(
        size=(height, width),
        degrees=degrees * uniform(keys[0], count, -1, 1),
        factor=log_uniform(keys[1], count, *factor),
        shear=shear * uniform(keys[2], count, -1, 1),
        offset=(
            translation * height * uniform(keys[3], count, -1, 1),
            translation * width * uniform(keys[4], count, -1, 1),
        ),
        **vertical,
    )
    return geometry.warp(batch, matrices, **options)


def shear(
    key: jax.Array, batch: Batch, *, degrees: float = 15.0, degrees_y: float = 0.0, **options
) -> Batch:
    """Shear about the centre, horizontally by an angle uniform in [-degrees, degrees], vertically
    by one in [-degrees_y, degrees_y]. Options: those of `geometry.warp`.
    """
    return affine(key, batch, shear=degrees, shear_y=degrees_y, **options)


def perspective(
    key: jax.Array, batch: Batch, *, rate: float = 0.5, distortion: float = 0.5, **options
) -> Batch:
    """With probability `rate`, show the image as a plane seen aslant: each corner moves inwards by
    up to `distortion` of half the height and half the width, uniform. Options: those of
    `geometry.warp`.
    """
    count, height, width = batch["image"].shape[:3]
    rate_key, place_key = random.split(key)
    inwards = random.uniform(place_key, (count, 4, 2), jnp.float32) * distortion / 2
    chosen = random.bernoulli(rate_key, rate, (count,)).astype(jnp.float32)[:, None, None]
    corners = jnp.array(((0, 0), (0, 1), (1, 1), (1, 0)), jnp.float32)[None]
    moved = corners + chosen * inwards * (1 - 2 * corners)
    places = moved * jnp.array((height, width), jnp.float32)[None, None]
    matrices = matrix.perspective_matrices(places, size=(height, width))
    return geometry.warp(batch, matrices, **options)


def elastic(
    key: jax.Array,
    batch: Batch,
    *,
    strength: float = 1.5,
    sigma: float = 5.0,
    **options,
) -> Batch:
    """Displace pixels by a smooth random field, whose values have the standard deviation `strength`
    (more at the border, where the noise is mirrored) and are smoothed by a Gaussian of `sigma`,
    both in pixels.

    P. Simard et al., "Best practices for convolutional neural networks applied to visual document
    analysis" (2003), section 2. A field steeper than 1 would fold the image: keep strength well
    below sigma. Options: those of `geometry.displace`.
    """
    count, height, width = batch["image"].shape[:3]
    noise = random.normal(key, (count, height, width, 2), jnp.float32)
    smooth = gaussian_blur(
        noise, jnp.full((count,), sigma, jnp.float32), size=2 * int(3 * sigma) + 1
    )
    # smoothing by a Gaussian divides white noise's deviation by 2 sqrt(pi) sigma
    field = smooth * jnp.float32(strength * 2 * math.pi**0.5 * sigma)
    return geometry.displace(batch, lax.optimization_barrier(field), **options)


def resize(batch: Batch, *, size: Size) -> Batch:
    """Resize the image to `size` (bilinear, smoothed where it shrinks), segmentation and masks by
    the nearest pixel. Draws nothing.
    """

    def move(name: str, grid: jax.Array) -> jax.Array:
        own, _ = geometry.scaled_size(name, grid, source=batch["image"].shape[1:3], size=size)
        shape = (grid.shape[0], *own, grid.shape[-1])
        return jax.image.resize(grid, shape, "linear" if kind(name) == "image" else "nearest")

    return geometry.move_grids(batch, move)
