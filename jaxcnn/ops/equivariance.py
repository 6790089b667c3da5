"""How far functions of images follow, or ignore, translations. Images [B, H, W, C] of any float,
shifts (y, x) in whole pixels.

f is *equivariant* where f(shift(image)) = shift(f(image)), and *invariant* where f(shift(image)) =
f(image). Convolution is the linear map that is equivariant (up to borders), a stride of s keeps
that for multiples of s alone, a mean over all positions makes it invariance. Azulay, Weiss, "Why do
deep convolutional networks generalize so poorly to small image transformations?", 2019; Zhang,
"Making Convolutional Networks Shift-Invariant Again", 2019, section 3.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Shaped

from jaxcnn.errors import ConfigError

Shift = tuple[int, int]
Image = Float[Array, "B H W C"]


def shift_image(
    image: Shaped[Array, "B H W C"], shift: Shift, *, fill: float = 0.0
) -> Shaped[Array, "B H W C"]:
    """The images [B, H, W, C] moved by `shift` pixels (down, right); `fill` comes in at
    the border.
    """
    size = image.shape[1:3]
    # further is the same: all fill
    moved = [max(-n, min(n, d)) for n, d in zip(size, shift, strict=True)]
    # Negative padding cuts off what leaves the picture.
    edges = ((0, 0, 0), *((d, -d, 0) for d in moved), (0, 0, 0))
    return jax.lax.pad(image, jnp.asarray(fill, image.dtype), edges)


def deviation(a: Shaped[Array, "*places K"], b: Shaped[Array, "*places K"]) -> Float32[Array, ""]:
    """Distance of two arrays of features [..., K] relative to their spread: 0 if equal, about 1 if
    they have nothing to do with each other.

    Root of sum (a - b)^2 / (sum (a - mean a)^2 + sum (b - mean b)^2), means by feature over all
    other axes; a float32 [].
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    axes = tuple(range(a.ndim - 1))
    spread = sum(jnp.square(x - x.mean(axes, keepdims=True)).sum() for x in (a, b))
    distance = jnp.square(a - b).sum()
    return jnp.where(
        distance > 0, jnp.sqrt(distance / jnp.maximum(spread, jnp.finfo(jnp.float32).tiny)), 0.0
    )


def equivariance_error(
    features: Callable[[Image], Float[Array, "B h w K"]],
    image: Image,
    shifts: Sequence[Shift],
    *,
    stride: int = 1,
    margin: int = 0,
) -> list[float]:
    """`deviation` of features(shift(image)) from shift(features(image)), one number a shift.

    `features` makes [B, h, w, K], one position for each `stride` pixels. Where the stride does not
    divide a shift there is no exact counterpart, and the better of the nearest whole positions
    counts. `margin` positions at each border, and what the shift brings in, are
    left out: there the images show different things.
    """
    before = features(image)
    if before.ndim != 4:
        raise ConfigError(
            f"equivariance_error: features have shape {before.shape}; they must be [B, h, w, K], "
            "else see invariance_error"
        )
    errors = []
    for shift in shifts:
        after = features(shift_image(image, shift))
        candidates = {
            (y, x) for y in _nearest(shift[0], stride) for x in _nearest(shift[1], stride)
        }
        errors.append(min(float(_apart(before, after, moved, margin)) for moved in candidates))
    return errors


def _nearest(pixels: int, stride: int) -> set[int]:
    """The whole positions around pixels / stride."""
    return {pixels // stride, -(-pixels // stride)}


def _apart(
    before: Float[Array, "B h w K"], after: Float[Array, "B h w K"], moved: Shift, margin: int
) -> Float32[Array, ""]:
    """Deviation of `after` from `before` moved by whole positions, where both show the same and no
    border is near.
    """
    kept = []
    for size, d in zip(before.shape[1:3], moved, strict=True):
        if size - 2 * margin - abs(d) < 1:
            raise ConfigError(
                f"equivariance_error: a shift of {d} and a margin of {margin} leave none of "
                f"{size} positions; make them smaller"
            )
        kept.append(slice(margin + max(d, 0), size - margin + min(d, 0)))
    return deviation(after[:, *kept], shift_image(before, moved)[:, *kept])


def invariance_error(
    outputs: Callable[[Image], Float[Array, "..."]], image: Image, shifts: Sequence[Shift]
) -> list[float]:
    """`deviation` of outputs(shift(image)) from outputs(image), [B, K] or any shape with features
    last; one number a shift.
    """
    before = outputs(image)
    return [float(deviation(before, outputs(shift_image(image, shift)))) for shift in shifts]
