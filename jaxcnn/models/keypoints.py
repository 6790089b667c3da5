"""Networks that draw one heatmap a keypoint.

Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking" (2018), section 2; Lin et
al., "Feature Pyramid Networks for Object Detection" (2017), figure 3, for the way back of the small
network. Input [B, H, W, C] float; output heatmaps [B, h, w, num_points], finer maps for finer
strides.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.conv import Conv, max_pool
from jaxcnn.layers.conv_norm import ConvNorm, he_normal
from jaxcnn.models.resnet import resnet18, resnet50


class SimpleBaseline(nn.Module):
    """A network's coarsest map, three transposed convolutions, and a 1x1 convolution: heatmaps at a
    quarter of the image's size with a trunk of stride 32.

    trunk: a module that gives a tuple of maps, finest first (`ResNet(pyramid=True)`). widths: of
    the transposed convolutions, each of which doubles the resolution by 4x4 windows.
    """

    num_points: int
    trunk: Any
    widths: tuple[int, ...] = (256, 256, 256)

    @nn.compact
    def __call__(self, image, *, train: bool):
        x = self.trunk(image, train=train)[-1]
        for number, width in enumerate(self.widths, 1):
            up = nn.ConvTranspose(
                width,
                (4, 4),
                (2, 2),
                "SAME",
                use_bias=False,
                kernel_init=he_normal,
                name=f"up{number}_transpose",
            )
            x = nn.relu(
                BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=f"up{number}_norm")(up(x))
            )
        return Conv(
            self.num_points, (1, 1), kernel_init=nn.initializers.normal(0.001), name="head"
        )(x)


class SmallKeypointNet(nn.Module):
    """For small images on a CPU: pairs of 3x3 convolutions at falling resolution, and a way back
    that adds each finer map. Heatmaps at half of the image's resolution.

    widths: of the levels; level i works at stride 2^i of the image, level 1 first.
    """

    num_points: int
    widths: tuple[int, ...] = (16, 32, 64, 96)

    @nn.compact
    def __call__(self, image, *, train: bool):
        step = 2 ** len(self.widths)
        if any(n % step for n in image.shape[1:3]):
            size = "x".join(map(str, image.shape[1:3]))
            raise ConfigError(
                f"SmallKeypointNet: images of {size} cannot be halved {len(self.widths)} times; "
                f"resize to multiples of {step}"
            )
        x, maps = image, []
        for level, width in enumerate(self.widths, 1):
            if level > 1:
                x = max_pool(x, (2, 2))
            x = ConvNorm(width, 3, 2 if level == 1 else 1, name=f"down{level}_conv1")(
                x, train=train
            )
            x = ConvNorm(width, 3, name=f"down{level}_conv2")(x, train=train)
            maps.append(x)
        for level in range(len(maps) - 1, 0, -1):
            width = self.widths[level - 1]
            x = ConvNorm(width, 1, name=f"up{level}_reduce")(x, train=train)
            x = maps[level - 1] + jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = ConvNorm(width, 3, name=f"up{level}_conv")(x, train=train)
        return Conv(self.num_points, (1, 1), name="head")(x)


def simple_baseline_resnet18(*, num_points: int = 17, **fields) -> SimpleBaseline:
    """SimpleBaseline on ResNet-18."""
    return SimpleBaseline(num_points, trunk=resnet18(pyramid=True), **fields)


def simple_baseline_resnet50(*, num_points: int = 17, **fields) -> SimpleBaseline:
    """SimpleBaseline on ResNet-50, as published: 33,999,697 parameters for 17 points."""
    return SimpleBaseline(num_points, trunk=resnet50(pyramid=True), **fields)
