"""ConvNeXt: a convolutional network modernized after vision transformers.

Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, "A ConvNet for the 2020s" (2022), section 2 and figure 4.
Input [B, H, W, 3] float, about zero mean and unit variance, H and W multiples of 32; output [B,
num_classes] logits.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.layers.conv import Conv

normal = nn.initializers.truncated_normal(0.02)
LayerNorm = partial(nn.LayerNorm, epsilon=1e-6)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7 convolution, LayerNorm, two dense layers with GELU between, a learned scale,
    and the identity: [B, H, W, C] -> same.

    layer_scale: initial value of the scale of each channel. drop_path: rate at which a row's
    residual branch is dropped in training.
    """

    layer_scale: float = 1e-6
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, *, train: bool):
        channels = x.shape[-1]
        y = Conv(
            channels,
            (7, 7),
            padding=3,
            feature_group_count=channels,
            kernel_init=normal,
            name="depthwise",
        )(x)
        y = LayerNorm(name="norm")(y)
        y = nn.gelu(nn.Dense(4 * channels, kernel_init=normal, name="expand")(y), approximate=False)
        y = nn.Dense(channels, kernel_init=normal, name="project")(y)
        scale = self.param(
            "layer_scale", nn.initializers.constant(self.layer_scale), (channels,), jnp.float32
        )
        y = y * scale.reshape(1, 1, 1, channels)
        return x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)(y)


class ConvNeXt(nn.Module):
    """A ConvNeXt. Output [B, num_classes] logits; pooled features [B, widths[-1]] with
    `num_classes=0`; with `pyramid=True` the stages' maps, finest first (strides 4, 8, 16, 32), and
    no head.

    stage_sizes, widths: blocks and channels of each stage. drop_path: rate of the last block; the
    rates rise from 0.
    """

    stage_sizes: tuple[int, ...] = (3, 3, 9, 3)
    num_classes: int = 1000
    widths: tuple[int, ...] = (96, 192, 384, 768)
    drop_path: float = 0.0
    layer_scale: float = 1e-6
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        x, maps, done = image, [], 0
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True), 1):
            if stage == 1:
                x = Conv(width, (4, 4), (4, 4), "VALID", kernel_init=normal, name="stem")(x)
                x = LayerNorm(name="stem_norm")(x)
            else:
                x = LayerNorm(name=f"stage{stage}_norm")(x)
                x = Conv(
                    width,
                    (2, 2),
                    (2, 2),
                    "VALID",
                    kernel_init=normal,
                    name=f"stage{stage}_downsample",
                )(x)
            for index in range(size):
                drop_path = self.drop_path * done / max(1, sum(self.stage_sizes) - 1)
                x = ConvNeXtBlock(self.layer_scale, drop_path, name=f"stage{stage}_block{index}")(
                    x, train=train
                )
                done += 1
            maps.append(x)
        if self.pyramid:
            return tuple(maps)
        x = LayerNorm(name="norm")(x.mean((1, 2)))
        return (
            nn.Dense(self.num_classes, kernel_init=normal, name="head")(x)
            if self.num_classes
            else x
        )


def convnext_tiny(*, num_classes: int = 1000, **fields) -> ConvNeXt:
    """ConvNeXt-T, 28,589,128 parameters."""
    return ConvNeXt((3, 3, 9, 3), num_classes, **{"drop_path": 0.1, **fields})


def convnext_small(*, num_classes: int = 1000, **fields) -> ConvNeXt:
    """ConvNeXt-S, 50,223,688 parameters."""
    return ConvNeXt((3, 3, 27, 3), num_classes, **{"drop_path": 0.4, **fields})


def convnext_base(*, num_classes: int = 1000, **fields) -> ConvNeXt:
    """ConvNeXt-B, 88,591,464 parameters."""
    return ConvNeXt(
        (3, 3, 27, 3), num_classes, (128, 256, 512, 1024), **{"drop_path": 0.5, **fields}
    )


def convnext_large(*, num_classes: int = 1000, **fields) -> ConvNeXt:
    """ConvNeXt-L, 197,767,336 parameters."""
    return ConvNeXt(
        (3, 3, 27, 3), num_classes, (192, 384, 768, 1536), **{"drop_path": 0.5, **fields}
    )
