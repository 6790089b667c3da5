"""Densely connected networks (DenseNet-BC): every layer sees the outputs of all layers before it in
its block.

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks" (2017), table 1
and section 3. Input [B, H, W, 3] float, about zero mean and unit variance; output [B, num_classes]
logits.
"""

import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.conv import Conv, avg_pool, max_pool
from jaxcnn.layers.conv_norm import ConvNorm, he_normal


def norm_relu_conv(x, features: int, kernel: int, suffix: str, train: bool):
    """BatchNorm, ReLU and a named convolution without bias: [B, H, W, C] -> [B, H, W, features]."""
    x = nn.relu(BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=f"norm{suffix}")(x))
    return Conv(
        features,
        (kernel,) * 2,
        padding=kernel // 2,
        use_bias=False,
        kernel_init=he_normal,
        name=f"conv{suffix}",
    )(x)


class DenseLayer(nn.Module):
    """A 1x1 convolution to `bottleneck * growth` channels, a 3x3 one to `growth`, appended: [B, H,
    W, C] -> [B, H, W, C + growth].
    """

    growth: int
    bottleneck: int
    dropout: float

    @nn.compact
    def __call__(self, x, *, train: bool):
        y = norm_relu_conv(x, self.bottleneck * self.growth, 1, "1", train)
        y = norm_relu_conv(y, self.growth, 3, "2", train)
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return jnp.concatenate((x, y), -1)


class Transition(nn.Module):
    """Half the channels and half the resolution: [B, H, W, C] -> [B, H / 2, W / 2, C / 2]."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        return avg_pool(norm_relu_conv(x, x.shape[-1] // 2, 1, "", train), (2, 2))


class DenseNet(nn.Module):
    """A DenseNet-BC. Output [B, num_classes] logits; [B, features] pooled features with
    `num_classes=0`; with `pyramid=True` the blocks' maps, finest first (strides 4, 8, 16, 32 with
    the ImageNet stem), and no head.

    stage_sizes: layers of each dense block. growth: channels that each layer adds. bottleneck:
        width of the 1x1 convolutions / growth.
    stem: "imagenet" (7x7 stride 2, 3x3 max pooling stride 2) or "cifar" (3x3 stride 1). dropout:
    after each layer.
    """

    stage_sizes: tuple[int, ...] = (6, 12, 24, 16)
    num_classes: int = 1000
    growth: int = 32
    stem_width: int = 64
    bottleneck: int = 4
    stem: str = "imagenet"
    dropout: float = 0.0
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        if self.stem not in ("imagenet", "cifar"):
            raise ConfigError(f"DenseNet(stem={self.stem!r}): must be 'imagenet' or 'cifar'")
        if self.stem == "imagenet":
            x = ConvNorm(self.stem_width, 7, 2, name="stem")(image, train=train)
            x = max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        else:  # the first layer normalizes
            x = ConvNorm(self.stem_width, 3, norm=False, name="stem")(image, train=train)
        maps = []
        for stage, size in enumerate(self.stage_sizes, 1):
            x = Transition(name=f"transition{stage - 1}")(x, train=train) if stage > 1 else x
            for index in range(size):
                x = DenseLayer(
                    self.growth, self.bottleneck, self.dropout, name=f"stage{stage}_layer{index}"
                )(x, train=train)
            maps.append(x)
        x = maps[-1] = nn.relu(BatchNorm(not train, momentum=0.9, epsilon=1e-5, name="norm")(x))
        if self.pyramid:
            return tuple(maps)
        x = x.mean((1, 2))  # [B, features]
        return nn.Dense(self.num_classes, name="head")(x) if self.num_classes else x


def densenet121(*, num_classes: int = 1000, **fields) -> DenseNet:
    """DenseNet-121, 7,978,856 parameters."""
    return DenseNet((6, 12, 24, 16), num_classes, **fields)


def densenet161(*, num_classes: int = 1000, **fields) -> DenseNet:
    """DenseNet-161, 28,681,000 parameters."""
    return DenseNet((6, 12, 36, 24), num_classes, growth=48, stem_width=96, **fields)


def densenet169(*, num_classes: int = 1000, **fields) -> DenseNet:
    """DenseNet-169, 14,149,480 parameters."""
    return DenseNet((6, 12, 32, 32), num_classes, **fields)


def densenet201(*, num_classes: int = 1000, **fields) -> DenseNet:
    """DenseNet-201, 20,013,928 parameters."""
    return DenseNet((6, 12, 48, 32), num_classes, **fields)


def densenet_cifar(
    *, depth: int = 100, growth: int = 12, num_classes: int = 10, **fields
) -> DenseNet:
    """DenseNet-BC for CIFAR of depth 6n + 4 (section 4.2): 769,162 parameters with depth 100 and
    growth 12. Errors: ConfigError for another depth.
    """
    n, rest = divmod(depth - 4, 6)
    if n < 1 or rest:
        raise ConfigError(f"densenet_cifar: depth={depth}; it must be 6n + 4: 10, 16, …, 100, …")
    return DenseNet((n, n, n), num_classes, growth, 2 * growth, stem="cifar", **fields)
