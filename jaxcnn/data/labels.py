"""Move what is said of an image by places: boxes, points and polygons, as shares of its height and
width; and keep what still lies in the image.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcnn.core.batch import Batch
from jaxcnn.ops import polygons

Place = Callable[[jax.Array], jax.Array]  # points [B, ..., 2] of the input -> of the output, shares


def move_places(
    batch: Batch,
    place: Place,
    *,
    min_visible: float = 0.25,
    mirrored: jax.Array | None = None,
    swap: tuple[int, ...] | None = None,
) -> Batch:
    """Move the boxes, points and polygons of a batch whose image was moved already.

    A box becomes the upright box around its moved outline, cut at the image's border; a polygon's
    corners move, also out of the image. Where less than `min_visible` of the area is left in the
    image the object need not be found: its `boxes_mask` or `polygons_mask` becomes 0, and, where
    the batch has it, its `boxes_ignored` or `polygons_ignored` 1, so that the rest of it counts
    for nothing. Of one of which nothing is left all of these become 0, and `boxes_crowd` too.
    `box_areas` stay: they are those of the original picture. A point that leaves the image gets
    `points_mask` 0.

    Args:
        mirrored: [B] bool, the rows that are mirror images now.
        swap: permutation of the J points, applied to rows that are mirrored: left and right change
            places (`swap[left] == right`).
    """
    moved = dict(batch)
    if "boxes" in batch:
        whole = _move_boxes(batch["boxes"].astype(jnp.float32), place)
        cut = jnp.clip(whole, 0.0, 1.0)
        moved["boxes"] = cut.astype(batch["boxes"].dtype)
        moved |= still_there(batch, "boxes", box_area(cut), box_area(whole), min_visible)
    if "polygons" in batch:
        outline = place(batch["polygons"].astype(jnp.float32))
        inside, whole = polygons.area_in_unit_square(outline), jnp.asarray(polygons.area(outline))
        moved["polygons"] = outline.astype(batch["polygons"].dtype)
        moved |= still_there(batch, "polygons", inside, whole, min_visible)
    if "points" in batch:
        points = place(batch["points"].astype(jnp.float32))
        exists = batch.get("points_mask", jnp.ones(points.shape[:-1], jnp.float32))
        visible = exists * jnp.all((points >= 0) & (points <= 1), axis=-1).astype(exists.dtype)
        if swap is not None and mirrored is not None:
            order = jnp.array(swap)
            turned = mirrored.reshape(-1, *[1] * (points.ndim - 1))
            points = jnp.where(turned, points[..., order, :], points)
            visible = jnp.where(turned[..., 0], visible[..., order], visible)
        moved["points"], moved["points_mask"] = points.astype(batch["points"].dtype), visible
    return moved


def box_area(boxes: jax.Array) -> jax.Array:
    """[..., 4] -> [...]"""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _move_boxes(boxes, place):
    """The upright boxes around the moved corners and middles of the sides of boxes [B, N, 4]."""
    y0, x0, y1, x1 = jnp.unstack(boxes, axis=-1)
    ys, xs = (y0, (y0 + y1) / 2, y1), (x0, (x0 + x1) / 2, x1)
    outline = place(jnp.stack([jnp.stack([y, x], -1) for y in ys for x in xs], axis=-2))
    return jnp.concatenate([outline.min(-2), outline.max(-2)], axis=-1)


def still_there(
    batch: Batch, name: str, inside: jax.Array, whole: jax.Array, min_visible: float
) -> Batch:
    """The masks of the "boxes" or "polygons" of which the area `inside` of `whole` [B, N] is left,
    see `move_places`.
    """
    left = inside > 0
    visible = left & (inside >= min_visible * whole)
    exists = batch.get(f"{name}_mask", jnp.ones(left.shape, jnp.float32))
    masks = {f"{name}_mask": exists * visible.astype(exists.dtype)}
    if f"{name}_ignored" in batch:
        ignored = batch[f"{name}_ignored"]
        rest = exists.astype(ignored.dtype) * (~visible).astype(ignored.dtype)
        masks[f"{name}_ignored"] = jnp.maximum(ignored, rest) * left.astype(ignored.dtype)
    if name == "boxes" and "boxes_crowd" in batch:
        masks["boxes_crowd"] = batch["boxes_crowd"] * left.astype(batch["boxes_crowd"].dtype)
    return masks
