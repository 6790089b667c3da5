"""Objects as points: what a center-based detector is trained towards, and boxes from its maps.

Maps over cells: "heatmap" [B, h, w, K] logits of a center of each class; "size" [B, h, w, 2]
(height, width) and "offset" [B, h, w, 2] (y, x), from the cell's upper left corner to the center,
both in cells. Source: Zhou, Wang, Krähenbühl, "Objects as points" (CenterNet), 2019, sections 3 and
4. Boxes are (y0, x0, y1, x1) in [0, 1].
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Int32

from jaxcnn.ops import boxes, heatmaps


def center_cells(box: boxes.Box, size: tuple[int, int]) -> Int32[Array, "*batch 2"]:
    """The cell (row, column) of a map of `size` that holds each box's center. [..., 4] -> [..., 2]
    int32
    """
    center = boxes.to_center(box)[..., :2] * _extent(size, box.ndim)
    return jnp.floor(jnp.clip(center, 0, _extent(size, box.ndim) - 1)).astype(jnp.int32)


def center_targets(
    box: boxes.Box, size: tuple[int, int]
) -> tuple[Float[Array, "*batch 2"], Float[Array, "*batch 2"]]:
    """The size and the offset that the maps should have at each box's cell, in cells. [..., 4] ->
    [..., 2], [..., 2]
    """
    center = boxes.to_center(box) * jnp.tile(_extent(size, box.ndim), 2)
    return center[..., 2:], center[..., :2] - center_cells(box, size).astype(box.dtype)


def draw_centers(
    box: Float[Array, "B N 4"],
    label: Int[Array, "B N"],
    exists: Bool[Array, "B N"],
    *,
    size: tuple[int, int],
    num_classes: int,
    min_iou: float | Float[Array, ""] = 0.7,
) -> Float[Array, "B h w {num_classes}"]:
    """The target heatmap: 1 at each center, falling off as a Gaussian. [B, N, 4], [B, N], [B, N]
    bool -> [B, h, w, num_classes]

    Its sigma is a third of the radius within which a box still has IoU `min_iou` with the true one,
    at least a third of a cell; where Gaussians of one class overlap the larger value counts
    (section 3).
    """
    cell = center_cells(box, size)
    point = (cell.astype(box.dtype) + 0.5) / _extent(size, box.ndim)
    tall, wide = jnp.moveaxis(center_targets(box, size)[0], -1, 0)
    radius = jnp.maximum(
        heatmaps.gaussian_radius(jnp.maximum(tall, 0), jnp.maximum(wide, 0), min_iou=min_iou), 1.0
    )
    drawn = heatmaps.draw_gaussians(point, size, sigma=radius / 3, snap=True)  # [B, N, h, w]
    drawn = jnp.where(exists[..., None, None], drawn, 0)
    place = jnp.clip(label, 0, num_classes - 1)

    def merge(drawn: Float[Array, "N h w"], place: Int[Array, " N"]) -> Float[Array, "K h w"]:
        return jnp.zeros((num_classes, *size), drawn.dtype).at[place].max(drawn)

    return jnp.moveaxis(jax.vmap(merge)(drawn, place), 1, -1)


def decode_centers(
    heatmap: Float[Array, "B h w K"],
    size: Float[Array, "B h w 2"],
    offset: Float[Array, "B h w 2"],
    *,
    num_objects: int,
) -> tuple[Float[Array, "B D 4"], Float[Array, "B D"], Int32[Array, "B D"]]:
    """The `num_objects` likeliest objects: boxes [B, D, 4], scores [B, D] in [0, 1], labels [B, D]
    int32; best first (section 4).
    """
    score, label, cell = heatmaps.find_peaks(heatmap, num_peaks=num_objects)
    center = cell.astype(size.dtype) + heatmaps.gather_cells(offset, cell)
    box = boxes.from_center(jnp.concatenate([center, heatmaps.gather_cells(size, cell)], axis=-1))
    return (
        box / jnp.tile(_extent(heatmap.shape[1:3], box.ndim, box.dtype), 2),
        jax.nn.sigmoid(score),
        label.astype(jnp.int32),
    )


def _extent(
    size: tuple[int, ...], rank: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
    """(height, width) with as many axes as the boxes that it multiplies."""
    return jnp.asarray(size, dtype).reshape((1,) * (rank - 1) + (2,))
