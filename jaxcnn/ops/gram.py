"""What of a feature map is style: statistics over all places that forget where anything was. Maps
[B, H, W, C] float.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-5  # added to a variance before its root


def gram(features: Float[Array, "*batch H W C"]) -> Float[Array, "*batch C C"]:
    """Products of every two channels, averaged over the places and divided by the channels. [B, H,
    W, C] -> [B, C, C]

    Gatys, Ecker, Bethge, "Image style transfer using convolutional neural networks", 2016, equation
    3, in the scaling of Johnson, Alahi, Fei-Fei, "Perceptual losses for real-time style transfer
    and super-resolution", 2016, equation 3: pictures of any sizes compare.
    """
    height, width, channels = features.shape[-3:]
    flat = features.reshape(*features.shape[:-3], height * width, channels)
    return jnp.swapaxes(flat, -1, -2) @ flat / (height * width * channels)


def moments(features: Float[Array, "*batch H W C"]) -> Float[Array, "*batch 2 C"]:
    """Mean and standard deviation of each channel over the places. [B, H, W, C] -> [B, 2, C]

    Huang, Belongie, "Arbitrary style transfer in real-time with adaptive instance normalization",
    2017, equations 6 and 7.
    """
    mean = jnp.mean(features, axis=(-3, -2))
    deviation = jnp.sqrt(jnp.var(features, axis=(-3, -2)) + EPSILON)
    return jnp.stack([mean, deviation], axis=-2)


def adaptive_instance_norm(
    content: Float[Array, "*batch H W C"], style: Float[Array, "*#batch h w C"]
) -> Float[Array, "*batch H W C"]:
    """The content's map with the channel means and deviations of the style's. [B, H, W, C], [B, H',
    W', C] -> [B, H, W, C]

    Huang and Belongie, 2017, equation 8.
    """
    (mean, deviation), (new_mean, new_deviation) = (
        jnp.moveaxis(moments(x), -2, 0)[..., None, None, :] for x in (content, style)
    )
    return (content - mean) / deviation * new_deviation + new_mean


def total_variation(image: Float[Array, "*batch H W C"]) -> Float[Array, "*batch"]:
    """Mean squared difference of neighbouring pixels, down plus across. [B, H, W, C] -> [B]"""
    down = image[..., 1:, :, :] - image[..., :-1, :, :]
    across = image[..., :, 1:, :] - image[..., :, :-1, :]
    return jnp.mean(jnp.square(down), axis=(-3, -2, -1)) + jnp.mean(
        jnp.square(across), axis=(-3, -2, -1)
    )
