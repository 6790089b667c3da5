"""GoogLeNet: as published (response normalization, two auxiliary heads), and torchvision's variant
with batch normalization.

Szegedy et al., "Going Deeper with Convolutions" (2015), table 1, figure 3 and section 5.
Input [B, H, W, 3] float, zero mean (224x224 as published); output [B, num_classes] logits, and in
training those of the auxiliary heads.
"""

import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.layers.adaptive_pool import adaptive_avg_pool
from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import Conv, avg_pool, max_pool
from jaxcnn.layers.conv_norm import ConvNorm, he_normal
from jaxcnn.layers.local_response_norm import LRN

# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj
INCEPTION_WIDTHS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def ceil_max_pool(x, window: int, strides: int):
    """Max pooling whose last windows may reach over the end, as Caffe's and torch's `ceil_mode`:
    [B, H, W, C] -> [B, ceil, ceil, C].
    """
    padding = tuple(
        (0, max(0, -(-(n - window) // strides) * strides + window - n)) for n in x.shape[1:-1]
    )
    return max_pool(x, (window, window), strides=(strides, strides), padding=padding)


def conv(
    x, features: int, kernel: int, name: str, *, batch_norm: bool, train: bool, strides: int = 1
):
    """A named convolution, BatchNorm or bias, and ReLU: [B, H, W, C] -> [B, H / strides, W /
    strides, features].
    """
    if batch_norm:
        return ConvNorm(features, kernel, strides, epsilon=1e-3, name=name)(x, train=train)
    return nn.relu(
        Conv(
            features,
            (kernel,) * 2,
            (strides,) * 2,
            (kernel - 1) // 2,
            kernel_init=he_normal,
            name=name,
        )(x)
    )


class Inception(nn.Module):
    """Four parallel branches, concatenated (figure 2b). `widths` is a row of `INCEPTION_WIDTHS`;
    `large_kernel` is the third branch's.
    """

    widths: tuple[int, ...]
    batch_norm: bool
    large_kernel: int

    @nn.compact
    def __call__(self, x, *, train: bool):
        one, reduce3, three, reduce5, five, pool = self.widths
        kind = {"batch_norm": self.batch_norm, "train": train}
        branch1 = conv(x, one, 1, "conv1x1", **kind)
        branch3 = conv(conv(x, reduce3, 1, "reduce3x3", **kind), three, 3, "conv3x3", **kind)
        branch5 = conv(
            conv(x, reduce5, 1, "reduce5x5", **kind), five, self.large_kernel, "conv5x5", **kind
        )
        pooled = max_pool(x, (3, 3), strides=(1, 1), padding=((1, 1), (1, 1)))
        pooled = conv(pooled, pool, 1, "project", **kind)
        return jnp.concatenate((branch1, branch3, branch5, pooled), -1)


class AuxiliaryHead(nn.Module):
    """A small classifier on an inner map, for training alone (section 5): [B, H, W, C] -> [B,
    num_classes].
    """

    num_classes: int
    batch_norm: bool

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = adaptive_avg_pool(x, (4, 4)) if self.batch_norm else avg_pool(x, (5, 5), strides=(3, 3))
        x = conv(x, 128, 1, "conv", batch_norm=self.batch_norm, train=train)
        x = nn.relu(nn.Dense(1024, name="dense")(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(0.7, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


class GoogLeNet(nn.Module):
    """The defaults are the published network. Output [B, num_classes] logits; in training with
    `auxiliary_heads` the tuple (logits, those after inception 4a, those after 4d), whose losses the
    paper weights 1, 0.3, 0.3; with `num_classes=0` pooled features [B, 1024]; with `pyramid=True`
    the maps of strides 4, 8, 16, 32, and no head.

    batch_norm: normalize each convolution instead of local responses, and pool 2x2 before inception
        5a, as torchvision has it.
    large_kernel: 5 as published; torchvision's "5x5" branch has kernels of 3.
    """

    num_classes: int = 1000
    auxiliary_heads: bool = True
    batch_norm: bool = False
    large_kernel: int = 5
    dropout: float = 0.4
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        kind = {"batch_norm": self.batch_norm, "train": train}
        auxiliary = self.auxiliary_heads and self.num_classes > 0 and not self.pyramid
        require_image("GoogLeNet", image, at_least=80 if auxiliary and not self.batch_norm else 32)
        x = conv(image, 64, 7, "conv1", strides=2, **kind)
        x = ceil_max_pool(x, 3, 2)
        x = x if self.batch_norm else LRN()(x)
        x = conv(conv(x, 64, 1, "conv2", **kind), 192, 3, "conv3", **kind)
        x = x if self.batch_norm else LRN()(x)
        maps, auxiliary_logits = [x], []
        for name, widths in INCEPTION_WIDTHS.items():
            if name.endswith("a"):
                x = ceil_max_pool(x, 2 if self.batch_norm and name == "5a" else 3, 2)
                maps.append(x)
            x = maps[-1] = Inception(
                widths, self.batch_norm, self.large_kernel, name=f"inception_{name}"
            )(x, train=train)
            if auxiliary and name in ("4a", "4d") and (train or self.is_initializing()):
                head = AuxiliaryHead(
                    self.num_classes, self.batch_norm, name=f"auxiliary{len(auxiliary_logits) + 1}"
                )
                auxiliary_logits.append(head(x, train=train))
        if self.pyramid:
            return tuple(maps)
        x = x.mean((1, 2))  # [B, 1024]
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        logits = nn.Dense(self.num_classes, name="head")(x)
        return (logits, *auxiliary_logits) if auxiliary and train else logits


def googlenet(*, num_classes: int = 1000, **fields) -> GoogLeNet:
    """The published network: 6,998,552 parameters, 13,378,280 with both auxiliary heads."""
    return GoogLeNet(num_classes, **fields)


def googlenet_bn(*, num_classes: int = 1000, **fields) -> GoogLeNet:
    """torchvision's GoogLeNet with BatchNorm and without auxiliary heads, 6,624,904 parameters."""
    return GoogLeNet(
        num_classes,
        **{
            "auxiliary_heads": False,
            "batch_norm": True,
            "large_kernel": 3,
            "dropout": 0.2,
            **fields,
        },
    )
