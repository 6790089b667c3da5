"""Move an image and everything that is drawn on it by one affine matrix per example.

Coordinates are continuous pixels: pixel i covers [i, i + 1), its centre lies at i + 0.5, and a
normalized coordinate is this over the size. `matrices` [B, 2, 3] float32 say where a point (y, x,
1) of the input lands in the output: (y', x'). Images are sampled by the inverse.

A batch is a dict of arrays with a leading axis B; those below move where present, all other entries
    are handed through untouched. image [B, H, W, C] float             bilinear
    segmentation [B, H, W] int           nearest
    instance_masks [B, N, H, W] float    nearest
    boxes [B, N, 4] float                (y0, x0, y1, x1) in [0, 1]; boxes_mask [B, N] (1 = exists;
    ones if absent) points [B, ..., J, 2] float          (y, x) in [0, 1]; points_mask [B, ..., J]
    (1 = visible; ones if absent)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcnn.core.batch import Batch

Move = Callable[[str, jax.Array], jax.Array]  # (entry's name, [B, H, W, C]) -> [B, H', W', C]


def affine_matrices(
    *,
    size: tuple[int, int],
    degrees: jax.Array,
    factor: jax.Array,
    shear: jax.Array,
    offset: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """Rotate, shear and scale about the image's centre, then shift: matrices [B, 2, 3] from
    parameters [B] float32.

    Args:
        size: (height, width) in pixels.
        degrees: rotation angle, counter-clockwise as seen (as `numpy.rot90`).
        factor: magnification; 2 makes things twice as large.
        shear: horizontal shear angle in degrees.
        offset: (down, right) in pixels.
    """
    cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    slope = jnp.tan(jnp.deg2rad(shear))
    # rotation @ [[1, 0], [slope, 1]], rows and columns ordered (y, x)
    a, b = factor * (cosine - sine * slope), -factor * sine
    c, d = factor * (sine + cosine * slope), factor * cosine
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


def warp(
    batch: Batch,
    matrices: jax.Array,
    *,
    size: tuple[int, int] | None = None,
    fill: float = 0.0,
    segmentation_fill: int = 0,
    order: int = 1,
    min_visible: float = 0.25,
    swap: tuple[int, ...] | None = None,
) -> Batch:
    """Move image, segmentation, instance masks, boxes and points of each example by its matrix.

    Whole-pixel translations and flips are exact, bit for bit. Outside the image lies `fill`,
    blended in at the border by bilinear sampling (`mode="grid-constant"` of scipy.ndimage).
    Shrinking does not smooth; see `stretch`.

    Args:
        matrices: [B, 2, 3] float32, input to output, continuous pixels.
        size: (height, width) of the output; as the input if None.
        fill: value of the image outside the input; `segmentation_fill`: the class there.
        order: 1 samples the image bilinearly, 0 takes the nearest pixel.
        min_visible, swap: see `move_labels`.
    """
    height, width = size or batch["image"].shape[1:3]
    inverse = _invert(matrices)[:, :, :, None, None]
    rows = (jnp.arange(height, dtype=jnp.float32) + 0.5)[None, :, None]
    columns = (jnp.arange(width, dtype=jnp.float32) + 0.5)[None, None, :]
    y = inverse[:, 0, 0] * rows + inverse[:, 0, 1] * columns + inverse[:, 0, 2]  # [B, H', W']
    x = inverse[:, 1, 0] * rows + inverse[:, 1, 1] * columns + inverse[:, 1, 2]

    def move(name: str, grid: jax.Array) -> jax.Array:
        if name == "image":
            return (
                sample_bilinear(grid, y, x, fill=fill)
                if order == 1
                else sample_nearest(grid, y, x, fill=fill)
            )
        return sample_nearest(grid, y, x, fill=segmentation_fill if name == "segmentation" else 0)

    return move_labels(
        move_grids(batch, move),
        matrices,
        source=batch["image"].shape[1:3],
        min_visible=min_visible,
        swap=swap,
    )


def stretch(
    batch: Batch, matrices: jax.Array, *, size: tuple[int, int], min_visible: float = 0.25
) -> Batch:
    """`warp` to `size` for matrices that only scale and shift, to a region inside the image;
    shrinking smooths (a triangle filter).

    Separable, so much faster than `warp` on a CPU.
    """

    def stretch_image(image: jax.Array, matrix: jax.Array) -> jax.Array:
        shape = (*size, image.shape[-1])
        return jax.image.scale_and_translate(
            image, shape, (0, 1), matrix[(0, 1), (0, 1)], matrix[:, 2], "linear", antialias=True
        )

    warped = warp(
        {**batch, "image": batch["image"][..., :0]}, matrices, size=size, min_visible=min_visible
    )
    image = jax.vmap(stretch_image)(batch["image"].astype(jnp.float32), matrices)
    return {**warped, "image": image.astype(batch["image"].dtype)}


def move_grids(batch: Batch, move: Move) -> Batch:
    """Apply `move(name, grid)` to image, segmentation and instance masks, each shown to it as [B,
    H, W, channels].
    """
    moved = {**batch, "image": move("image", batch["image"])}
    if "segmentation" in batch:
        moved["segmentation"] = move("segmentation", batch["segmentation"][..., None])[..., 0]
    if "instance_masks" in batch:
        masks = move("instance_masks", jnp.moveaxis(batch["instance_masks"], 1, -1))
        moved["instance_masks"] = jnp.moveaxis(masks, -1, 1)
    return moved


def move_labels(
    batch: Batch,
    matrices: jax.Array,
    *,
    source: tuple[int, int],
    min_visible: float = 0.25,
    swap: tuple[int, ...] | None = None,
) -> Batch:
    """Move the boxes and points of a batch whose image was moved already.

    A box becomes the upright box around its moved corners, cut at the image's border; where less
    than `min_visible` of its area is left its `boxes_mask` becomes 0, where nothing is left also
    `boxes_ignored` and `boxes_crowd`. A point that leaves the image gets `points_mask` 0.

    Args:
        matrices: [B, 2, 3]. source: (height, width) of the image before it moved.
        swap: permutation of the J points, applied to rows whose matrix mirrors: left and right
        change places (`swap[left] == right`).
    """
    moved = dict(batch)
    scale = (source, batch["image"].shape[1:3])
    if "boxes" in batch:
        y0, x0, y1, x1 = jnp.unstack(batch["boxes"].astype(jnp.float32), axis=-1)
        # [B, N, 4, 2]
        corners = jnp.stack([jnp.stack([y, x], -1) for y in (y0, y1) for x in (x0, x1)], axis=-2)
        corners = _move_points(corners, matrices, scale)
        whole = jnp.concatenate([corners.min(-2), corners.max(-2)], axis=-1)
        cut = jnp.clip(whole, 0.0, 1.0)
        visible = _area(cut) >= min_visible * _area(whole)
        exists = batch.get("boxes_mask", jnp.ones(visible.shape, jnp.float32))
        moved["boxes"] = cut.astype(batch["boxes"].dtype)
        moved["boxes_mask"] = exists * (visible & (_area(cut) > 0)).astype(exists.dtype)
        for name in ("boxes_ignored", "boxes_crowd"):  # any part of one is to be passed over
            if name in batch:
                moved[name] = batch[name] * (_area(cut) > 0).astype(batch[name].dtype)
    if "points" in batch:
        points = _move_points(batch["points"].astype(jnp.float32), matrices, scale)
        exists = batch.get("points_mask", jnp.ones(points.shape[:-1], jnp.float32))
        visible = exists * jnp.all((points >= 0) & (points <= 1), axis=-1).astype(exists.dtype)
        if swap is not None:
            order = jnp.array(swap)
            mirrored = (_determinant(matrices) < 0).reshape(-1, *[1] * (points.ndim - 1))
            points = jnp.where(mirrored, points[..., order, :], points)
            visible = jnp.where(mirrored[..., 0], visible[..., order], visible)
        moved["points"], moved["points_mask"] = points.astype(batch["points"].dtype), visible
    return moved


def sample_bilinear(grid: jax.Array, y: jax.Array, x: jax.Array, *, fill: float = 0.0) -> jax.Array:
    """Values of `grid` [B, H, W, C] at the continuous pixel coordinates y, x [B, H', W']: [B, H',
    W', C].
    """
    top, left = jnp.floor(y - 0.5), jnp.floor(x - 0.5)
    down, right = (
        (y - 0.5 - top)[..., None].astype(grid.dtype),
        (x - 0.5 - left)[..., None].astype(grid.dtype),
    )
    rows, columns = top.astype(jnp.int32), left.astype(jnp.int32)
    upper = (
        _gather(grid, rows, columns, fill) * (1 - right)
        + _gather(grid, rows, columns + 1, fill) * right
    )
    lower = (
        _gather(grid, rows + 1, columns, fill) * (1 - right)
        + _gather(grid, rows + 1, columns + 1, fill) * right
    )
    return upper * (1 - down) + lower * down


def sample_nearest(grid: jax.Array, y: jax.Array, x: jax.Array, *, fill: float = 0) -> jax.Array:
    """As `sample_bilinear`, but the value of the pixel that covers (y, x); any dtype."""
    return _gather(grid, jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32), fill)


def _gather(grid, rows, columns, fill):
    """grid[b, rows, columns] where that lies inside, else `fill`: [B, H', W', C]."""
    batch, height, width, channels = grid.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = jnp.where(inside, rows * width + columns, 0).reshape(batch, -1, 1)
    values = jnp.take_along_axis(grid.reshape(batch, height * width, channels), index, axis=1)
    return jnp.where(
        inside[..., None], values.reshape(*rows.shape, channels), jnp.array(fill, grid.dtype)
    )


def _matrices(a, b, y, c, d, x):
    return jnp.stack([jnp.stack([a, b, y], -1), jnp.stack([c, d, x], -1)], axis=-2)


def _determinant(matrices):
    return matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]


def _invert(matrices):
    """In closed form and element by element, so that whole numbers stay exact on every device (a
    matrix product may round to TF32).
    """
    a, b, y = jnp.unstack(matrices[:, 0], axis=-1)
    c, d, x = jnp.unstack(matrices[:, 1], axis=-1)
    determinant = _determinant(matrices)
    a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
    return _matrices(a, b, -(a * y + b * x), c, d, -(c * y + d * x))


def _move_points(points, matrices, scale):
    """Normalized points [B, ..., 2] of an image of size scale[0] to normalized points of one of
    size scale[1].
    """
    (height, width), (new_height, new_width) = scale
    m = matrices.reshape(-1, *[1] * (points.ndim - 2), 2, 3)
    y, x = points[..., 0] * height, points[..., 1] * width
    new_y = m[..., 0, 0] * y + m[..., 0, 1] * x + m[..., 0, 2]
    new_x = m[..., 1, 0] * y + m[..., 1, 1] * x + m[..., 1, 2]
    return jnp.stack([new_y / new_height, new_x / new_width], axis=-1)


def _area(boxes):
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
