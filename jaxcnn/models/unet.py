"""U-Net, for images, signals and volumes: a contracting path, an expanding path, and maps carried
across.

Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation"
(2015), figure 1 and section 2; with three spatial axes in the shape of Çiçek et al., "3D U-Net"
(2016). Input [B, *spatial, C] float; output [B, *spatial, num_classes] logits.
"""

import math

import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.conv import Conv, max_pool
from jaxcnn.layers.conv_norm import ConvNorm, he_normal


class UpConv(nn.Module):
    """`flax.linen.ConvTranspose` with a window and strides of 2 along each axis: [B, *spatial, C]
    -> [B, *(2 spatial), features].

    The windows do not overlap, so it is one matrix product whose results are spread over 2, 4 or 8
    cells, which is faster on CPU.
    """

    features: int

    @nn.compact
    def __call__(self, x):
        rank, channels = x.ndim - 2, x.shape[-1]
        kernel = self.param("kernel", he_normal, (*(2,) * rank, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # [C, 2, ..., features]; a transposed convolution is mirrored
        kernel = jnp.moveaxis(jnp.flip(kernel, range(rank)), rank, 0)
        return channels_to_blocks(x @ kernel.reshape(channels, -1), 2) + bias.reshape(
            (1,) * (rank + 1) + (-1,)
        )

    def macs(self, output_shape: tuple[int, ...]) -> int:
        """Multiplications of the matrix product: the whole kernel for each cell of the input."""
        kernel = self.get_variable("params", "kernel")
        return math.prod(output_shape[:-1]) // math.prod(kernel.shape[:-2]) * kernel.size


class UNet(nn.Module):
    """The defaults are the published network but for padding: logits [B, *spatial, num_classes] at
    the input's resolution.

    widths: channels of each level; every level halves the resolution, so each spatial axis must be
        a multiple of 2^(levels - 1).
    padding: "SAME", or "VALID" as published, which shrinks 572x572 to 388x388 and crops the carried
        maps in the middle.
    batch_norm: normalize each 3x3 convolution, which then has no bias. dropout: at the end of the
        contracting path (section 3.1).
    patch: blocks of `patch` pixels along each axis are the cells that the network works on: their
    pixels become channels at the entry, and the logits of a block's pixels are taken apart at the
    end (Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network" (2016), section 3.2). 2 loses no detail and is 4 times as cheap in
    two dimensions.
    """

    num_classes: int = 2
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    padding: str = "SAME"
    batch_norm: bool = False
    dropout: float = 0.5
    patch: int = 1

    @nn.compact
    def __call__(self, image, *, train: bool):
        self.require_sizes(image)
        window = (2,) * (image.ndim - 2)
        x, carried = blocks_to_channels(image, self.patch), []
        for level, width in enumerate(self.widths[:-1], 1):
            x = self.double_conv(x, width, f"down{level}", train)
            carried.append(x)
            x = max_pool(x, window)
        x = self.double_conv(x, self.widths[-1], "bottom", train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for level in range(len(carried), 0, -1):
            width, across = self.widths[level - 1], carried[level - 1]
            x = UpConv(width, name=f"up{level}_transpose")(x)
            x = self.double_conv(
                jnp.concatenate((crop(across, x.shape[1:-1]), x), -1), width, f"up{level}", train
            )
        x = Conv(self.num_classes * self.patch ** len(window), (1,) * len(window), name="head")(x)
        return channels_to_blocks(x, self.patch)

    def double_conv(self, x, width: int, name: str, train: bool):
        """Two 3x3 convolutions with ReLU: [B, *spatial, C] -> [B, *spatial, width], 4 shorter along
        each axis without padding.
        """
        for number in (1, 2):
            if self.batch_norm:
                x = ConvNorm(width, 3, padding=self.padding, name=f"{name}_conv{number}")(
                    x, train=train
                )
            else:
                window = (3,) * (x.ndim - 2)
                x = nn.relu(
                    Conv(
                        width,
                        window,
                        padding=self.padding,
                        kernel_init=he_normal,
                        name=f"{name}_conv{number}",
                    )(x)
                )
        return x

    def require_sizes(self, image) -> None:
        """Raise ConfigError unless every level's map can be halved."""
        if any(n % self.patch for n in image.shape[1:-1]):
            raise ConfigError(
                f"UNet: images of {image.shape[1:-1]} do not consist of blocks of "
                f"patch={self.patch} pixels; pad or resize them"
            )
        sizes = tuple(n // self.patch for n in image.shape[1:-1])
        for level in range(len(self.widths) - 1):
            sizes = tuple(n - 4 if self.padding == "VALID" else n for n in sizes)
            if any(n % 2 or n < 2 for n in sizes):
                whole, part = ("x".join(map(str, shape)) for shape in (image.shape[1:-1], sizes))
                raise ConfigError(
                    f"UNet: images of {whole} give maps of {part} at level {level + 1}, which "
                    "must be even;"
                    f" pad or resize the images (padding={self.padding!r}), or use fewer widths"
                )
            sizes = tuple(n // 2 for n in sizes)


def blocks_to_channels(x, side: int):
    """Each block of `side` cells along each axis becomes one cell: [B, *spatial, C] -> [B,
    *(spatial / side), side^rank C].
    """
    rank = x.ndim - 2
    apart = x.reshape(
        x.shape[0], *(m for n in x.shape[1:-1] for m in (n // side, side)), x.shape[-1]
    )
    apart = apart.transpose(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1)
    return apart.reshape(x.shape[0], *(n // side for n in x.shape[1:-1]), -1)


def channels_to_blocks(x, side: int):
    """The inverse of `blocks_to_channels`: [B, *spatial, side^rank C] -> [B, *(side
    spatial), C].
    """
    rank = x.ndim - 2
    apart = x.reshape(*x.shape[:-1], *(side,) * rank, -1)
    order = [0, *(axis for i in range(rank) for axis in (1 + i, 1 + rank + i)), 1 + 2 * rank]
    return apart.transpose(order).reshape(x.shape[0], *(side * n for n in x.shape[1:-1]), -1)


def crop(x, sizes: tuple[int, ...]):
    """The middle of a map: [B, *spatial, C] -> [B, *sizes, C]."""
    starts = [(n - size) // 2 for n, size in zip(x.shape[1:-1], sizes, strict=True)]
    middle = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    return x[:, *middle]


def unet(*, num_classes: int = 2, **fields) -> UNet:
    """The published widths: 31,030,658 parameters for grey images and two classes."""
    return UNet(num_classes, **fields)
