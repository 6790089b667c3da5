"""The inverse of RoIAlign for masks: what was said of the inside of a box, put back at its place in
the image.

He et al., "Mask R-CNN", 2017, section 3.1 ("resized to the RoI size, and binarized at a threshold
of 0.5").
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def roi_paste(
    mask: Float[Array, "*batch h w"], box: Float[Array, "*batch 4"], *, size: tuple[int, int]
) -> Float[Array, "*batch {size[0]} {size[1]}"]:
    """Each mask resampled (bilinear) into its box, 0 outside. [..., h, w], boxes [..., 4] in [0, 1]
    -> [..., *size]

    A pixel is inside if its center is. The values of the outermost bins reach to the box's edge. A
    matrix product along each axis, as in `roi_align`, so there is neither a loop over boxes nor a
    shape that depends on them.
    """
    rows = _weights(box[..., 0], box[..., 2], pixels=size[0], bins=mask.shape[-2]).astype(
        mask.dtype
    )
    columns = _weights(box[..., 1], box[..., 3], pixels=size[1], bins=mask.shape[-1]).astype(
        mask.dtype
    )
    return jnp.einsum("...yp,...pq,...xq->...yx", rows, mask, columns)


def _weights(
    start: Float[Array, "*batch"], stop: Float[Array, "*batch"], *, pixels: int, bins: int
) -> Float[Array, "*batch {pixels} {bins}"]:
    """The share of each bin in each pixel, along one axis. [...], [...] -> [..., pixels, bins]"""
    center = ((jnp.arange(pixels, dtype=start.dtype) + 0.5) / pixels).reshape(
        (1,) * start.ndim + (-1,)
    )
    extent = jnp.where(stop > start, stop - start, 1)[..., None]
    position = jnp.clip((center - start[..., None]) / extent * bins - 0.5, 0, bins - 1)
    is_inside = (center >= start[..., None]) & (center < stop[..., None])
    distance = jnp.abs(
        position[..., None]
        - jnp.arange(bins, dtype=start.dtype).reshape((1,) * position.ndim + (-1,))
    )
    return jnp.maximum(1 - distance, 0) * is_inside[..., None].astype(start.dtype)
