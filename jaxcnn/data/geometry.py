"""Move an image and everything that is drawn on it, by one matrix per example or by a field of
displacements.

Coordinates are continuous pixels: pixel i covers [i, i + 1), its centre lies at i + 0.5, and a
normalized coordinate is this over the size. `matrices` float32 say where a point (y, x, 1) of the
input lands in the output: affine ones [B, 2, 3] (y', x'), projective ones [B, 3, 3] (y' w, x' w,
w). Images are sampled by the inverse.

What moves follows from the table of entries (`jaxcnn.core.batch`); all else is handed through:
    kind "image"     bilinear. All images of a batch show the same place: one of another size than
                     `image` moves by the same shares of its own height and width
    "segmentation", "instance_masks", "value_map", "value_map_mask"   nearest pixel. A "value_map"
                     without a mask gets one, so that what comes in at the border is unknown
    boxes, points, polygons and their masks   see `jaxcnn.data.labels.move_places`
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.core.batch import ENTRIES, Batch, kind
from jaxcnn.data import matrix
from jaxcnn.data.labels import move_places
from jaxcnn.data.matrix import Size
from jaxcnn.data.sampling import sample_bilinear, sample_nearest
from jaxcnn.errors import ConfigError

Move = Callable[[str, jax.Array], jax.Array]  # (entry's name, [B, H, W, C]) -> [B, H', W', C]
# where the pixels come from: (y, x) of the output, [B or 1, H', W'] -> (y, x) of the input
Origin = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def warp(
    batch: Batch,
    matrices: jax.Array,
    *,
    size: Size | None = None,
    fill: float = 0.0,
    segmentation_fill: int = 0,
    order: int = 1,
    min_visible: float = 0.25,
    swap: tuple[int, ...] | None = None,
) -> Batch:
    """Move everything that is drawn on the image of each example by its matrix.

    Whole-pixel translations and flips are exact, bit for bit. Outside the image lies `fill`,
    blended in at the border by bilinear sampling (`mode="grid-constant"` of scipy.ndimage).
    Shrinking does not smooth; see `stretch`.

    Args:
        matrices: [B, 2, 3] or [B, 3, 3] float32, input to output, continuous pixels.
        size: (height, width) of the output; as the input if None.
        fill: value of the image outside the input; `segmentation_fill`: the class there.
        order: 1 samples the image bilinearly, 0 takes the nearest pixel.
        min_visible, swap: see `jaxcnn.data.labels.move_places`.
    """
    source = batch["image"].shape[1:3]
    inverse = matrix.invert(matrices)
    moved = resample(
        batch,
        lambda y, x: matrix.move(inverse, y, x),
        size=size or source,
        fill=fill,
        segmentation_fill=segmentation_fill,
        order=order,
    )
    return move_labels(moved, matrices, source=source, min_visible=min_visible, swap=swap)


def displace(
    batch: Batch,
    field: jax.Array,
    *,
    fill: float = 0.0,
    segmentation_fill: int = 0,
    order: int = 1,
    min_visible: float = 0.25,
) -> Batch:
    """Each pixel of the output at p comes from p + field(p): `field` [B, H, W, 2] (down, right) in
    pixels. Labels land where that is they themselves, found by 12 fixed-point steps: exact where
    the field's slope is well below 1. Options: those of `warp`.
    """
    height, width = batch["image"].shape[1:3]
    field = field.astype(jnp.float32)

    def at(y: jax.Array, x: jax.Array) -> jax.Array:
        """The field at [B, M, M'], its border carried on outside."""
        y, x = jnp.clip(y, 0.5, height - 0.5), jnp.clip(x, 0.5, width - 0.5)
        return sample_bilinear(field, y, x)

    def origin(y: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        shape = (field.shape[0], y.shape[1], x.shape[2])
        same = shape[1:] == (height, width)
        there = field if same else at(jnp.broadcast_to(y, shape), jnp.broadcast_to(x, shape))
        return y + there[..., 0], x + there[..., 1]

    def place(points: jax.Array) -> jax.Array:
        unit = jnp.asarray((height, width), jnp.float32)[None, None, None]
        wanted = points.reshape(points.shape[0], 1, -1, 2) * unit

        def step(_: int, found: jax.Array) -> jax.Array:
            return wanted - at(found[..., 0], found[..., 1])

        # a loop: unrolled, XLA writes each step out anew within the next, and compiles for 20 s
        return (lax.fori_loop(0, 12, step, wanted) / unit).reshape(points.shape)

    moved = resample(
        batch,
        origin,
        size=(height, width),
        fill=fill,
        segmentation_fill=segmentation_fill,
        order=order,
    )
    return move_places(moved, place, min_visible=min_visible)


def resample(
    batch: Batch,
    origin: Origin,
    *,
    size: Size,
    fill: float = 0.0,
    segmentation_fill: int = 0,
    order: int = 1,
) -> Batch:
    """The images and maps of a batch, each pixel taken from where `origin` says, in pixels of
    `image`; boxes, points and polygons stay. Options: those of `warp`.
    """
    source = batch["image"].shape[1:3]

    def move(name: str, grid: jax.Array) -> jax.Array:
        (rows, columns), (down, right) = scaled_size(name, grid, source=source, size=size)
        y, x = origin(
            ((jnp.arange(rows, dtype=jnp.float32) + 0.5) / down)[None, :, None],
            ((jnp.arange(columns, dtype=jnp.float32) + 0.5) / right)[None, None, :],
        )
        sample = sample_bilinear if kind(name) == "image" and order == 1 else sample_nearest
        outside = fill_of(name, fill=fill, segmentation_fill=segmentation_fill)
        return sample(grid, y * down, x * right, fill=outside)

    return move_grids(batch, move)


def stretch(
    batch: Batch,
    matrices: jax.Array,
    *,
    size: Size,
    fill: float = 0.0,
    segmentation_fill: int = 0,
    min_visible: float = 0.25,
) -> Batch:
    """`warp` to `size` for affine matrices that only scale and shift; shrinking smooths (a triangle
    filter), and at the image's border nothing is blended in.

    Separable, so much faster than `warp` on a CPU.
    """
    source = batch["image"].shape[1:3]
    inverse = matrix.invert(matrices)

    def move(name: str, grid: jax.Array) -> jax.Array:
        shape, ratio = scaled_size(name, grid, source=source, size=size)
        y, x = (
            (jnp.arange(count, dtype=jnp.float32) + 0.5)[None, :]
            / own
            * inverse[:, axis, axis, None]
            + inverse[:, axis, 2, None]
            for axis, (count, own) in enumerate(zip(shape, ratio, strict=True))
        )  # [B, H'], [B, W']
        outside = fill_of(name, fill=fill, segmentation_fill=segmentation_fill)
        if kind(name) != "image":
            return sample_nearest(grid, y[:, :, None], x[:, None, :], fill=outside)

        def one(image: jax.Array, matrix: jax.Array) -> jax.Array:
            scale, offset = matrix[(0, 1), (0, 1)], matrix[:, 2] * jnp.asarray(ratio, jnp.float32)
            return jax.image.scale_and_translate(
                image, (*shape, image.shape[-1]), (0, 1), scale, offset, "linear", antialias=True
            )

        within = ((y >= 0) & (y <= source[0]))[:, :, None] & ((x >= 0) & (x <= source[1]))[:, None]
        image = jax.vmap(one)(grid.astype(jnp.float32), matrices)
        return jnp.where(within[..., None], image, jnp.float32(outside)).astype(grid.dtype)

    return move_labels(move_grids(batch, move), matrices, source=source, min_visible=min_visible)


def move_grids(batch: Batch, move: Move) -> Batch:
    """Apply `move(name, grid)` to all images and maps of a batch, each shown to it as [B, H, W,
    channels].
    """
    moved = dict(batch)
    if "value_map" in batch and "value_map_mask" not in batch:
        moved["value_map_mask"] = jnp.ones(batch["value_map"].shape[:3], jnp.float32)
    for name in grid_names(moved):
        x = moved[name]
        if name == "instance_masks":
            moved[name] = jnp.moveaxis(move(name, jnp.moveaxis(x, 1, -1)), -1, 1)
        else:
            moved[name] = move(name, x[..., None])[..., 0] if x.ndim == 3 else move(name, x)
    return moved


def grid_names(batch: Batch) -> list[str]:
    """The entries that show the picture pixel by pixel: images and maps, [B, H, W] or with one axis
    more.
    """
    return [
        name
        for name, x in batch.items()
        if x.ndim in (3, 4)
        and (kind(name) == "image" or (name in ENTRIES and "H W" in ENTRIES[name].axes))
    ]


def scaled_size(
    name: str, grid: jax.Array, *, source: Size, size: Size
) -> tuple[Size, tuple[float, float]]:
    """The size of an entry when `image` goes from size `source` to `size`, and how many times
    taller and wider than `image` it is.

    Errors: ConfigError for a map of another size than the image, and for an image that would get no
    whole number of pixels.
    """
    own = grid.shape[1:3]
    if own != tuple(source) and kind(name) != "image":
        raise ConfigError(
            f"{name} is {own[0]}x{own[1]}, the image {source[0]}x{source[1]}: augmentation moves "
            "both alike, so they must have one size; resize the map with its image"
        )
    new = [wanted * have for wanted, have in zip(size, own, strict=True)]
    if any(pixels % whole for pixels, whole in zip(new, source, strict=True)):
        raise ConfigError(
            f"{name} is {own[0]}x{own[1]}, the image {source[0]}x{source[1]}: cut to "
            f"{size[0]}x{size[1]}, {name} would have no whole number of pixels; choose a size that "
            "fits both"
        )
    shape = (new[0] // source[0], new[1] // source[1])
    return shape, (own[0] / source[0], own[1] / source[1])


def fill_of(name: str, *, fill: float, segmentation_fill: int) -> float:
    """What lies outside an entry: `fill` of images, `segmentation_fill` of classes, 0 of others."""
    return {"image": fill, "classes": segmentation_fill}.get(kind(name), 0)


def move_labels(
    batch: Batch,
    matrices: jax.Array,
    *,
    source: Size,
    min_visible: float = 0.25,
    swap: tuple[int, ...] | None = None,
) -> Batch:
    """Move the boxes, points and polygons of a batch whose image was moved already; see
    `jaxcnn.data.labels.move_places`.

    Args:
        matrices: [B, 2, 3] or [B, 3, 3]. source: (height, width) of the image before it moved.
    """
    height, width = batch["image"].shape[1:3]

    def place(points: jax.Array) -> jax.Array:
        y, x = points[..., 0] * source[0], points[..., 1] * source[1]
        y, x = matrix.move(matrices, y, x)
        return jnp.stack([y / height, x / width], axis=-1)

    mirrored = matrix.determinant(matrices) < 0
    return move_places(batch, place, min_visible=min_visible, mirrored=mirrored, swap=swap)
