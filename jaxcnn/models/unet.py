"""U-Net, for images, signals and volumes: a contracting path, an expanding path, and maps carried across.

Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), figure 1 and section 2; with
three spatial axes in the shape of Çiçek et al., "3D U-Net" (2016). Input [B, *spatial, C] float; output [B, *spatial, num_classes] logits.
"""

import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.conv import Conv, max_pool
from jaxcnn.layers.conv_norm import ConvNorm, he_normal


class UpConv(nn.Module):
    """`flax.linen.ConvTranspose` with a window and strides of 2 along each axis: [B, *spatial, C] -> [B, *(2 spatial), features].

    The windows do not overlap, so it is one matrix product whose results are spread over 2, 4 or 8 cells, which is faster on CPU.
    """

    features: int

    @nn.compact
    def __call__(self, x):
        rank, channels = x.ndim - 2, x.shape[-1]
        kernel = self.param("kernel", he_normal, (*(2,) * rank, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel = jnp.moveaxis(jnp.flip(kernel, range(rank)), rank, 0)  # [C, 2, ..., features]; a transposed convolution is mirrored
        y = (x @ kernel.reshape(channels, -1)).reshape(*x.shape[:-1], *(2,) * rank, self.features)
        order = [0, *(axis for i in range(rank) for axis in (1 + i, 1 + rank + i)), 1 + 2 * rank]  # each cell beside its own axis
        y = y.transpose(order).reshape(x.shape[0], *(2 * n for n in x.shape[1:-1]), self.features)
        return y + bias.reshape((1,) * (rank + 1) + (-1,))


class UNet(nn.Module):
    """The defaults are the published network but for padding: logits [B, *spatial, num_classes] at the input's resolution.

    widths: channels of each level; every level halves the resolution, so each spatial axis must be a multiple of 2^(levels - 1).
    padding: "SAME", or "VALID" as published, which shrinks 572x572 to 388x388 and crops the carried maps in the middle.
    batch_norm: normalize each 3x3 convolution, which then has no bias. dropout: at the end of the contracting path (section 3.1).
    """

    num_classes: int = 2
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    padding: str = "SAME"
    batch_norm: bool = False
    dropout: float = 0.5

    @nn.compact
    def __call__(self, image, *, train: bool):
        self.require_sizes(image)
        window = (2,) * (image.ndim - 2)
        x, carried = image, []
        for level, width in enumerate(self.widths[:-1], 1):
            x = self.double_conv(x, width, f"down{level}", train)
            carried.append(x)
            x = max_pool(x, window)
        x = self.double_conv(x, self.widths[-1], "bottom", train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for level in range(len(carried), 0, -1):
            width, across = self.widths[level - 1], carried[level - 1]
            x = UpConv(width, name=f"up{level}_transpose")(x)
            x = self.double_conv(jnp.concatenate((crop(across, x.shape[1:-1]), x), -1), width, f"up{level}", train)
        return Conv(self.num_classes, (1,) * len(window), name="head")(x)

    def double_conv(self, x, width: int, name: str, train: bool):
        """Two 3x3 convolutions with ReLU: [B, *spatial, C] -> [B, *spatial, width], 4 shorter along each axis without padding."""
        for number in (1, 2):
            if self.batch_norm:
                x = ConvNorm(width, 3, padding=self.padding, name=f"{name}_conv{number}")(x, train=train)
            else:
                window = (3,) * (x.ndim - 2)
                x = nn.relu(Conv(width, window, padding=self.padding, kernel_init=he_normal, name=f"{name}_conv{number}")(x))
        return x

    def require_sizes(self, image) -> None:
        """Raise ConfigError unless every level's map can be halved."""
        sizes = image.shape[1:-1]
        for level in range(len(self.widths) - 1):
            sizes = tuple(n - 4 if self.padding == "VALID" else n for n in sizes)
            if any(n % 2 or n < 2 for n in sizes):
                whole, part = ("x".join(map(str, shape)) for shape in (image.shape[1:-1], sizes))
                raise ConfigError(
                    f"UNet: images of {whole} give maps of {part} at level {level + 1}, which must be even;"
                    f" pad or resize the images (padding={self.padding!r}), or use fewer widths"
                )
            sizes = tuple(n // 2 for n in sizes)


def crop(x, sizes: tuple[int, ...]):
    """The middle of a map: [B, *spatial, C] -> [B, *sizes, C]."""
    starts = [(n - size) // 2 for n, size in zip(x.shape[1:-1], sizes, strict=True)]
    middle = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    return x[:, *middle]


def unet(num_classes: int = 2, **fields) -> UNet:
    """The published widths: 31,030,658 parameters for grey images and two classes."""
    return UNet(num_classes, **fields)
