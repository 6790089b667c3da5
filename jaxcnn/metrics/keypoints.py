"""How near predicted keypoints lie to the true ones. Points [..., J, 2] (y, x), in one unit with
the lengths they are compared with.

`visible` [..., J] is true (or above 0) where a joint is annotated; others count for nothing. Means
over a data set are the caller's: sum what is returned, and the visible joints.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

Points = Float[Array, "*batch J 2"]
Visible = Shaped[Array, "*batch J"]


def correct(
    point: Points,
    truth: Points,
    visible: Visible,
    *,
    reference: Float[Array, "*batch"],
    threshold: float | Float[Array, ""],
) -> Bool[Array, "*batch J"]:
    """Whether each joint is visible and within `threshold` times the `reference` length [...] of
    its row. -> [..., J] bool

    The share among visible joints is PCK (reference: the larger side of the person's box; Yang and
    Ramanan, "Articulated human detection with flexible mixtures of parts", 2013) or PCKh (the
    head's size; Andriluka et al., "2D human pose estimation", 2014).
    """
    return (visible > 0) & (distance(point, truth) <= threshold * reference[..., None])


def normalized_error(
    point: Points, truth: Points, visible: Visible, *, reference: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Mean distance of the visible joints over the `reference` length of the row (NME; faces:
    between the eyes' outer corners). -> [...]
    """
    return _mean_of_visible(distance(point, truth), visible) / reference


def similarity(
    point: Points,
    truth: Points,
    visible: Visible,
    *,
    area: Float[Array, "*batch"],
    sigmas: Float[Array | np.ndarray, " J"],
) -> Float[Array, "*batch"]:
    """Object keypoint similarity in [0, 1] of corresponding objects: 1 where all visible joints
    agree, 0 without any. -> [...]

    The mean over visible joints of exp(-d² / (2 area (2 sigma)²)), `area` [...] in the points' unit
    squared, `sigmas` [J] the spread among annotators: Lin et al., "Microsoft COCO", 2014, and its
    keypoint evaluation page.
    """
    width = (
        jnp.broadcast_to(8 * jnp.square(jnp.asarray(sigmas, point.dtype)), visible.shape)
        * area[..., None]
    )
    agreement = jnp.exp(
        -jnp.square(distance(point, truth)) / jnp.maximum(width, jnp.finfo(point.dtype).tiny)
    )
    return _mean_of_visible(agreement, visible)


def extent(points: Points, visible: Visible) -> Float[Array, "*batch 2"]:
    """Height and width of the box around the visible points in [0, 1]; negative without any. [...,
    J, 2], [..., J] -> [..., 2]
    """
    seen = visible.astype(bool)[..., None]
    return jnp.max(jnp.where(seen, points, -1.0), axis=-2) - jnp.min(
        jnp.where(seen, points, 2.0), axis=-2
    )


def distance(
    point: Float[Array, "*batch 2"], truth: Float[Array, "*batch 2"]
) -> Float[Array, "*batch"]:
    """Euclidean distance. [..., 2], [..., 2] -> [...]"""
    return jnp.linalg.norm(point - truth, axis=-1)


def _mean_of_visible(values: Float[Array, "*batch J"], visible: Visible) -> Float[Array, "*batch"]:
    """The mean over the visible joints, 0 without any; what stands at others, also infinity and
    NaN, counts for nothing.
    """
    seen = visible > 0
    count = jnp.maximum(jnp.sum(seen, axis=-1), 1).astype(values.dtype)
    return jnp.sum(jnp.where(seen, values, 0.0), axis=-1) / count
