"""Channels to pixels and back: how a network enlarges a picture after it has done all its work at
the small size.

Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
convolutional neural network", 2016, equation 4.
"""

from jaxtyping import Array, Shaped

from jaxcnn.errors import ConfigError


def pixel_shuffle(
    x: Shaped[Array, "B H W C"], scale: int
) -> Shaped[Array, "B {scale}*H {scale}*W C//{scale**2}"]:
    """Each place's scale * scale * C channels become scale x scale pixels. [B, H, W, scale * scale
    * C] -> [B, scale * H, scale * W, C]

    Channel (c * scale + i) * scale + j of the input is channel c of the pixel in row i and column j
    of the square: PyTorch's order, so that published weights fit.

    Errors: ConfigError if the channels are no multiple of scale * scale.
    """
    batch, height, width, channels = x.shape
    if channels % scale**2:
        raise ConfigError(
            f"pixel_shuffle: {channels} channels are no multiple of scale * scale = {scale**2}; "
            "let the convolution before it make so many"
        )
    x = x.reshape(batch, height, width, channels // scale**2, scale, scale)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(
        batch, height * scale, width * scale, channels // scale**2
    )


def pixel_unshuffle(
    x: Shaped[Array, "B H W C"], scale: int
) -> Shaped[Array, "B H//{scale} W//{scale} {scale**2}*C"]:
    """The inverse of `pixel_shuffle`. [B, scale * H, scale * W, C] -> [B, H, W, scale * scale * C]

    Errors: ConfigError if a side is no multiple of scale.
    """
    batch, height, width, channels = x.shape
    if height % scale or width % scale:
        raise ConfigError(
            f"pixel_unshuffle: {height} x {width} is no multiple of scale {scale}; crop the picture"
        )
    x = x.reshape(batch, height // scale, scale, width // scale, scale, channels)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(
        batch, height // scale, width // scale, scale**2 * channels
    )
