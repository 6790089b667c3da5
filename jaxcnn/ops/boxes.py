"""Axis-aligned boxes (y0, x0, y1, x1): conversion, area, intersection over union, non-maximum
suppression.

Boxes are [..., 4] floats, in [0, 1] unless said otherwise (only ratios of areas are taken, so any
one unit will do). A box whose second corner lies before its first is empty: its area is 0.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Box = Float[Array, "*batch 4"]


def area(box: Box) -> Float[Array, "*batch"]:
    """Height times width. [..., 4] -> [...]"""
    return jnp.prod(jnp.maximum(box[..., 2:] - box[..., :2], 0), axis=-1)


def clip(box: Box) -> Box:
    """The part of each box inside the image, [0, 1]."""
    return jnp.clip(box, 0, 1)


def to_center(box: Box) -> Box:
    """(y0, x0, y1, x1) -> (center y, center x, height, width)"""
    return jnp.concatenate(
        [(box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]], axis=-1
    )


def from_center(box: Box) -> Box:
    """(center y, center x, height, width) -> (y0, x0, y1, x1)"""
    return jnp.concatenate(
        [box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], axis=-1
    )


def to_xywh(box: Box) -> Box:
    """(y0, x0, y1, x1) -> (x0, y0, width, height), the order of COCO files"""
    y0, x0, y1, x1 = jnp.moveaxis(box, -1, 0)
    return jnp.stack([x0, y0, x1 - x0, y1 - y0], axis=-1)


def from_xywh(box: Box) -> Box:
    """(x0, y0, width, height) -> (y0, x0, y1, x1)"""
    x0, y0, width, height = jnp.moveaxis(box, -1, 0)
    return jnp.stack([y0, x0, y0 + height, x0 + width], axis=-1)


def to_pixels(box: Box, size: tuple[int, int]) -> Box:
    """From [0, 1] to pixels of an image of `size` (height, width)."""
    return box * _scale(box, size)


def from_pixels(box: Box, size: tuple[int, int]) -> Box:
    """From pixels of an image of `size` (height, width) to [0, 1]."""
    return box / _scale(box, size)


def iou(
    first: Float[Array, "*#batch 4"], second: Float[Array, "*#batch 4"]
) -> Float[Array, "*batch"]:
    """Intersection over union of corresponding boxes, 0 where both are empty. [..., 4], [..., 4] ->
    [...]
    """
    return _divide(*_overlap(first, second))


def giou(
    first: Float[Array, "*#batch 4"], second: Float[Array, "*#batch 4"]
) -> Float[Array, "*batch"]:
    """Generalized intersection over union of corresponding boxes, in (-1, 1]. [..., 4], [..., 4] ->
    [...]

    IoU less the share of the enclosing box that neither covers, so it has a gradient where boxes
    are apart: Rezatofighi et al., "Generalized intersection over union", 2019, algorithm 1.
    """
    shared, union = _overlap(first, second)
    hull = area(
        jnp.concatenate(
            [
                jnp.minimum(first[..., :2], second[..., :2]),
                jnp.maximum(first[..., 2:], second[..., 2:]),
            ],
            axis=-1,
        )
    )
    return _divide(shared, union) - _divide(hull - union, hull)


def pairwise_iou(
    first: Float[Array, "*#batch N 4"], second: Float[Array, "*#batch M 4"]
) -> Float[Array, "*batch N M"]:
    """Intersection over union of each box with each other. [..., N, 4], [..., M, 4] ->
    [..., N, M]
    """
    return iou(first[..., :, None, :], second[..., None, :, :])


def pairwise_giou(
    first: Float[Array, "*#batch N 4"], second: Float[Array, "*#batch M 4"]
) -> Float[Array, "*batch N M"]:
    """Generalized intersection over union of each box with each other. [..., N, 4], [..., M, 4] ->
    [..., N, M]
    """
    return giou(first[..., :, None, :], second[..., None, :, :])


def suppress(
    box: Float[Array, "N 4"],
    score: Float[Array, " N"],
    *,
    iou_threshold: float,
    label: Int[Array, " N"] | None = None,
) -> Bool[Array, " N"]:
    """Greedy non-maximum suppression: which boxes remain. [N, 4], [N] -> [N] bool

    From the highest score down (the first of equals), a box remains unless its IoU with one that
    remains, and has the same `label` [N] where there are labels, exceeds `iou_threshold`.
    """
    order = jnp.argsort(-score, stable=True)
    overlaps = pairwise_iou(box[order], box[order]) > iou_threshold  # [N, N]
    if label is not None:
        overlaps = overlaps & (label[order][:, None] == label[order][None])
    rank = jnp.arange(score.shape[0])

    def visit(i, remains):
        beaten = jnp.any(remains & overlaps[i] & (rank < i))
        return remains.at[i].set(~beaten)

    remains = jax.lax.fori_loop(0, score.shape[0], visit, jnp.ones(score.shape, bool))
    return jnp.zeros(score.shape, bool).at[order].set(remains)


def _scale(box: Box, size: tuple[int, int]) -> Box:
    return jnp.broadcast_to(jnp.asarray([*size, *size], box.dtype), box.shape)


def _overlap(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Areas of intersection and union."""
    shared = area(
        jnp.concatenate(
            [
                jnp.maximum(first[..., :2], second[..., :2]),
                jnp.minimum(first[..., 2:], second[..., 2:]),
            ],
            axis=-1,
        )
    )
    return shared, area(first) + area(second) - shared


def _divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """0 where the denominator is 0, with a gradient of 0 there."""
    is_empty = denominator <= 0
    return jnp.where(is_empty, 0, numerator / jnp.where(is_empty, 1, denominator))
