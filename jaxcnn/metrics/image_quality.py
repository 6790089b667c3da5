"""Likeness of two images: PSNR and SSIM, the luma they are taken on, and the bicubic resampling
they are compared with.

Images [B, H, W, C] float in [0, 1]; those of integers are refused, whose differences would wrap.
Errors: DataError.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from jaxcnn.errors import DataError

# float, which `_require_floats` checks, for users as well
Image = Real[Array, "*batch H W C"]


def luma(image: Real[Array, "*batch 3"]) -> Float[Array, "*batch 1"]:
    """The Y of ITU-R BT.601 with its head- and footroom, in [16/255, 235/255]. [..., 3] -> [..., 1]

    The convention of super-resolution papers since Dong et al., "Image super-resolution using deep
    convolutional networks", 2014 (MATLAB's rgb2ycbcr).
    """
    _require_floats("luma", image)
    weights = jnp.asarray([65.481, 128.553, 24.966], image.dtype) / 255
    return (image @ weights)[..., None] + jnp.asarray(16 / 255, image.dtype)


def shave(image: Image, pixels: int) -> Float[Array, "*batch H-2*{pixels} W-2*{pixels} C"]:
    """The image without a frame of so many pixels. [..., H, W, C]"""
    return image[..., pixels : image.shape[-3] - pixels, pixels : image.shape[-2] - pixels, :]


def psnr(image: Image, truth: Image) -> Float[Array, "*batch"]:
    """Peak signal-to-noise ratio in dB, infinite for equal images. [B, H, W, C], the same -> [B]"""
    _require_floats("psnr", image, truth)
    return -10 * jnp.log10(jnp.mean(jnp.square(image - truth), axis=(-3, -2, -1)))


def ssim(image: Image, truth: Image) -> Float[Array, "*batch"]:
    """Structural similarity, the mean over all places of an 11 x 11 window inside the image, and
    channels. [B, H, W, C], the same -> [B]

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004,
    section III: Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03.
    """
    _require_floats("ssim", image, truth)
    if min(image.shape[-3:-1]) < 11:
        raise ValueError(
            f"ssim: the images are {image.shape[-3]} x {image.shape[-2]}; the window needs at "
            "least 11 x 11 pixels"
        )
    offset = jnp.arange(-5, 6, dtype=image.dtype)
    window = jnp.exp(-jnp.square(offset / 1.5) / 2)
    window = window / jnp.sum(window)

    def mean(values: Image) -> Float[Array, "*batch h w C"]:
        return _correlate(_correlate(values, window, axis=-3), window, axis=-2)

    first, second = mean(image), mean(truth)
    # Second moments are taken about each image's overall mean, where rounding costs them least.
    a, b = (
        values - jnp.mean(values, axis=(-3, -2, -1), keepdims=True) for values in (image, truth)
    )
    variance = mean(a * a) - jnp.square(mean(a)) + mean(b * b) - jnp.square(mean(b))
    covariance = mean(a * b) - mean(a) * mean(b)
    luminance = (2 * first * second + 0.01**2) / (first * first + second * second + 0.01**2)
    return jnp.mean(
        luminance * (2 * covariance + 0.03**2) / (variance + 0.03**2), axis=(-3, -2, -1)
    )


def resize_bicubic(
    image: Image, size: tuple[int, int]
) -> Float[Array, "*batch {size[0]} {size[1]} C"]:
    """Bicubic resampling to (height, width), with anti-aliasing where smaller. [..., H, W, C] ->
    [..., *size, C]

    Keys's kernel with a = -0.5, widened when shrinking: what MATLAB's imresize and Pillow compute,
    and so the degradation and the baseline of super-resolution papers. The result may leave [0, 1]
    a little.
    """
    return jax.image.resize(
        image, (*image.shape[:-3], *size, image.shape[-1]), method="cubic", antialias=True
    )


def _require_floats(name: str, *images: Image) -> None:
    for image in images:
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise DataError(
                f"{name}: an image has dtype {image.dtype}; images are float in [0, 1], such as "
                "jnp.float32(image) / 255"
            )


def _correlate(
    values: Image, window: Float[Array, " K"], *, axis: int
) -> Float[Array, "*batch h w C"]:
    """Weighted sums of the windows that lie inside, along one axis."""
    size = values.shape[axis] - window.shape[0] + 1
    parts = [
        jax.lax.slice_in_dim(values, i, i + size, axis=axis) * window[i]
        for i in range(window.shape[0])
    ]
    return sum(parts[1:], start=parts[0])
