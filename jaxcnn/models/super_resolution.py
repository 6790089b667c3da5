"""Networks that enlarge pictures. Input [B, H, W, channels] float in [0, 1] of any size, output [B,
scale * H, scale * W, channels].

Dong et al., "Image super-resolution using deep convolutional networks", 2015 (SRCNN); Shi et al.,
"Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
network", 2016 (ESPCN); Lim et al., "Enhanced deep residual networks for single image
super-resolution", 2017 (EDSR). The first two are networks for luma; `LumaResidual` makes one
enlarge colour pictures.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import Conv
from jaxcnn.metrics.image_quality import luma, resize_bicubic
from jaxcnn.ops.pixel_shuffle import pixel_shuffle

# of ITU-R BT.601: a step of luma is a step of so much less in R, G and B together
LUMA_RANGE = 219 / 255
# of the colours of DIV2K, subtracted by EDSR's authors in their published code
DIV2K_MEAN = (
    0.4488,
    0.4371,
    0.4040,
)


def small_normal(
    key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32, **placement
) -> jax.Array:
    """Deviation 0.001 (Dong et al., 2015, section 3.3): a last layer that starts at
    almost nothing.
    """
    return nn.initializers.normal(0.001)(key, shape, dtype, **placement)


class SRCNN(nn.Module):
    """Three convolutions over the bicubically enlarged picture: patches, their mapping,
    reconstruction.

    The defaults are 9-1-5 with 8,032 weights (section 4.3.1; biases come on top); windows=(9, 5, 5)
    has 57,184. Padded, so that no border is lost.
    """

    scale: int = 2
    channels: int = 1
    windows: tuple[int, int, int] = (9, 1, 5)
    widths: tuple[int, int] = (64, 32)

    @nn.compact
    def __call__(self, image, *, train: bool):
        require_image("SRCNN", image, channels=self.channels)
        x = resize_bicubic(image, (image.shape[1] * self.scale, image.shape[2] * self.scale))
        for index, (width, window) in enumerate(
            zip(self.widths, self.windows[:-1], strict=True), 1
        ):
            x = nn.relu(Conv(width, (window, window), name=f"conv{index}")(x))
        last = (self.windows[-1], self.windows[-1])
        return Conv(self.channels, last, kernel_init=small_normal, name=f"conv{len(self.windows)}")(
            x
        )


class ESPCN(nn.Module):
    """Convolutions at the small size, and a last one whose channels are shuffled into pixels
    (section 3.2: 5-3-3, 64 and 32 maps, tanh).

    Its last layer starts at almost nothing, so that inside `LumaResidual` training starts from the
    bicubic picture.
    """

    scale: int = 2
    channels: int = 1
    windows: tuple[int, ...] = (5, 3, 3)
    widths: tuple[int, ...] = (64, 32)
    activation: Callable[[jax.Array], jax.Array] = nn.tanh

    @nn.compact
    def __call__(self, image, *, train: bool):
        require_image("ESPCN", image, channels=self.channels)
        x = image
        for index, (width, window) in enumerate(
            zip(self.widths, self.windows[:-1], strict=True), 1
        ):
            x = self.activation(Conv(width, (window, window), name=f"conv{index}")(x))
        last = (self.windows[-1], self.windows[-1])
        x = Conv(
            self.scale**2 * self.channels,
            last,
            kernel_init=small_normal,
            name=f"conv{len(self.windows)}",
        )(x)
        return pixel_shuffle(x, self.scale)


class EDSR(nn.Module):
    """Residual blocks without normalization at the small size, then one pixel shuffle (two for
    scale 4).

    The defaults are EDSR-baseline (table 1: 16 blocks of 64 maps; 1,369,859 parameters for scale 2,
    1,517,571 for scale 4). Published EDSR: width=256, num_blocks=32, residual_scale=0.1 (43,089,923
    for scale 4). mean: what is subtracted from the colours and added again.
    """

    scale: int = 2
    channels: int = 3
    width: int = 64
    num_blocks: int = 16
    residual_scale: float = 1.0
    mean: tuple[float, ...] = DIV2K_MEAN

    @nn.compact
    def __call__(self, image, *, train: bool):
        require_image("EDSR", image, channels=self.channels)
        if len(self.mean) not in (1, self.channels):
            raise ConfigError(
                f"EDSR: mean has {len(self.mean)} values for {self.channels} channels; give one, "
                "or one a channel"
            )
        mean = jnp.asarray(self.mean, image.dtype).reshape(1, 1, 1, -1)

        def conv(name: str, width: int = self.width) -> Conv:
            return Conv(width, (3, 3), name=name)

        head = conv("head")(image - mean)
        x = head
        for index in range(self.num_blocks):
            inner = nn.relu(conv(f"block{index}_conv1")(x))
            x = x + jnp.asarray(self.residual_scale, x.dtype) * conv(f"block{index}_conv2")(inner)
        x = head + conv("body")(x)
        for index, factor in enumerate(_factors(self.scale)):
            x = pixel_shuffle(conv(f"up{index}", self.width * factor**2)(x), factor)
        return conv("tail", self.channels)(x) + mean


class LumaResidual(nn.Module):
    """`network`, which enlarges one channel, adds what the bicubic picture lacks in luma; the hues
    stay bicubic.

    Eyes and the field's PSNR see luma (Shi et al., 2016, section 3.2, train on it alone); the
    residual is that of Kim, Lee, Lee, "Accurate image super-resolution using very deep
    convolutional networks", 2016, section 3.1. Input [B, H, W, 1] or [B, H, W, 3].
    """

    network: nn.Module

    @nn.compact
    def __call__(self, image, *, train: bool):
        if image.shape[-1] not in (1, 3):
            raise ConfigError(
                f"LumaResidual expects grey or RGB pictures, found shape {image.shape}; convert "
                "them in the data set"
            )
        colour = image.shape[-1] == 3
        # [B, scale * H, scale * W, 1]
        lacking = self.network(luma(image) if colour else image, train=train)
        # Luma is 219/255 (0.299 R + 0.587 G + 0.114 B) + 16/255: the same step in all three colours
        # moves it and no hue.
        return resize_bicubic(image, lacking.shape[1:3]) + (
            lacking / LUMA_RANGE if colour else lacking
        )


def _factors(scale: int) -> tuple[int, ...]:
    """The pixel shuffles that make up a scale: 4 = 2 * 2 (Lim et al., 2017, figure 3)."""
    factors = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
    if scale not in factors:
        raise ConfigError(
            f"EDSR: scale is {scale}; it must be one of {', '.join(map(str, factors))}"
        )
    return factors[scale]


def edsr_baseline(*, scale: int = 2, **fields) -> EDSR:
    """EDSR-baseline, 1,369,859 parameters for scale 2."""
    return EDSR(scale, **fields)


def edsr(*, scale: int = 2, **fields) -> EDSR:
    """The large EDSR, 40,729,603 parameters for scale 2."""
    return EDSR(scale, width=256, num_blocks=32, residual_scale=0.1, **fields)
