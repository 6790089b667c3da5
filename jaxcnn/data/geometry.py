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

from jaxcnn.core.batch import ENTRIES, Batch, kind
from jaxcnn.data.labels import move_places
from jaxcnn.data.sampling import sample_bilinear, sample_nearest
from jaxcnn.errors import ConfigError

Size = tuple[int, int]
Move = Callable[[str, jax.Array], jax.Array]  # (entry's name, [B, H, W, C]) -> [B, H', W', C]
# where the pixels come from: (y, x) of the output, [B or 1, H', W'] -> (y, x) of the input
Origin = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def affine_matrices(
    *,
    size: Size,
    degrees: jax.Array,
    factor: jax.Array,
    shear: jax.Array,
    offset: tuple[jax.Array, jax.Array],
    shear_y: jax.Array | None = None,
) -> jax.Array:
    """Rotate, shear and scale about the image's centre, then shift: matrices [B, 2, 3] from
    parameters [B] float32.

    Args:
        size: (height, width) in pixels.
        degrees: rotation angle, counter-clockwise as seen (as `numpy.rot90`).
        factor: magnification; 2 makes things twice as large.
        shear: horizontal shear angle in degrees; shear_y: the vertical one, which comes first.
        offset: (down, right) in pixels.
    """
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    slope = jnp.tan(jnp.deg2rad(shear))
    # rotation @ [[1, 0], [slope, 1]], rows and columns ordered (y, x)
    a, b = factor * (cosine - sine * slope), -factor * sine
    c, d = factor * (sine + cosine * slope), factor * cosine
    if shear_y is not None:  # @ [[1, slope_y], [0, 1]]
        slope_y = jnp.tan(jnp.deg2rad(shear_y))
        b, d = b + a * slope_y, d + c * slope_y
    y, x = size[0] / 2, size[1] / 2
    return _matrices(a, b, y - a * y - b * x + offset[0], c, d, x - c * y - d * x + offset[1])


def scale_matrices(
    scale: tuple[jax.Array, jax.Array], offset: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """(y, x) -> scale * (y, x) + offset (in pixels of the output): matrices [B, 2, 3] from
    parameters [B] float32.
    """
    zero = jnp.zeros_like(offset[0])
    return _matrices(scale[0], zero, offset[0], zero, scale[1], offset[1])


def perspective_matrices(corners: jax.Array, *, size: Size) -> jax.Array:
    """Where the image's corners land, [B, 4, 2] float32 (y, x) in pixels, from the upper left one
    on clockwise: matrices [B, 3, 3].

    P. Heckbert, "Fundamentals of texture mapping and image warping" (1989), section 2.2.3.
    """
    upper_left, upper_right, lower_right, lower_left = jnp.unstack(corners, axis=1)  # [B, 2] each
    (y1, x1), (y2, x2) = (
        jnp.unstack(beside - lower_right, axis=-1) for beside in (upper_right, lower_left)
    )
    y3, x3 = jnp.unstack(upper_left - upper_right + lower_right - lower_left, axis=-1)
    determinant = x1 * y2 - x2 * y1
    right, down = (x3 * y2 - x2 * y3) / determinant, (x1 * y3 - x3 * y1) / determinant
    along_x = upper_right - upper_left + right[:, None] * upper_right
    along_y = lower_left - upper_left + down[:, None] * lower_left
    rows = [
        jnp.concatenate([column, last[:, None]], axis=-1)
        for column, last in (
            (along_y / size[0], down / size[0]),
            (along_x / size[1], right / size[1]),
            (upper_left, jnp.ones_like(right)),
        )
    ]
    return jnp.stack(rows, axis=-1)


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
    inverse = _invert(matrices)
    moved = resample(
        batch,
        lambda y, x: _apply(inverse, y, x),
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
        found = wanted
        for _ in range(12):
            found = wanted - at(found[..., 0], found[..., 1])
        return (found / unit).reshape(points.shape)

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
    inverse = _invert(matrices)

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
        y, x = _apply(matrices, y, x)
        return jnp.stack([y / height, x / width], axis=-1)

    mirrored = _determinant(matrices) < 0
    return move_places(batch, place, min_visible=min_visible, mirrored=mirrored, swap=swap)


def then(first: jax.Array, second: jax.Array) -> jax.Array:
    """The matrices [B, 2, 3] of moving by `first`, then by `second`, both affine."""
    a, b, y, c, d, x = (second[:, i, j] for i in (0, 1) for j in (0, 1, 2))
    columns = [
        (a * first[:, 0, j] + b * first[:, 1, j], c * first[:, 0, j] + d * first[:, 1, j])
        for j in range(3)
    ]
    (e, g), (f, h), (down, right) = columns
    return _matrices(e, f, down + y, g, h, right + x)


def _apply(matrices: jax.Array, y: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where points land; y, x [B or 1, ...]. Those behind a projection's horizon land far outside,
    at -10^6.
    """
    m = matrices.reshape(*matrices.shape, *[1] * (y.ndim - 1))
    new_y = m[:, 0, 0] * y + m[:, 0, 1] * x + m[:, 0, 2]
    new_x = m[:, 1, 0] * y + m[:, 1, 1] * x + m[:, 1, 2]
    if matrices.shape[1] == 2:
        return new_y, new_x
    depth = m[:, 2, 0] * y + m[:, 2, 1] * x + m[:, 2, 2]
    ahead = depth > 1e-6
    divisor = jnp.where(ahead, depth, 1.0)
    return jnp.where(ahead, new_y / divisor, -1e6), jnp.where(ahead, new_x / divisor, -1e6)


def _matrices(a, b, y, c, d, x):
    return jnp.stack([jnp.stack([a, b, y], -1), jnp.stack([c, d, x], -1)], axis=-2)


def _determinant(matrices):
    """Of the linear part; a projection of an image that is seen from the front has its sign."""
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def _invert(matrices):
    """In closed form and element by element, so that whole numbers stay exact on every device (a
    matrix product may round to TF32).
    """
    a, b, y = jnp.unstack(matrices[:, 0], axis=-1)
    c, d, x = jnp.unstack(matrices[:, 1], axis=-1)
    if matrices.shape[1] == 2:
        determinant = _determinant(matrices)
        a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
        return _matrices(a, b, -(a * y + b * x), c, d, -(c * y + d * x))
    p, q, r = jnp.unstack(matrices[:, 2], axis=-1)
    rows = [
        [d * r - x * q, y * q - b * r, b * x - y * d],
        [x * p - c * r, a * r - y * p, y * c - a * x],
        [c * q - d * p, b * p - a * q, a * d - b * c],
    ]
    adjugate = jnp.stack([jnp.stack(row, -1) for row in rows], axis=-2)
    determinant = a * rows[0][0] + b * rows[1][0] + y * rows[2][0]
    return adjugate / determinant[:, None, None]
