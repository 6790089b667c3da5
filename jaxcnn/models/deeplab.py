"""DeepLab heads for segmentation on any trunk that gives a pyramid of maps: atrous spatial pyramid
pooling, DeepLabV3 and V3+.

Chen, Papandreou, Schroff, Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation"
(2017), section 3.3; Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation" (2018), section 3.1 (here with ordinary convolutions).
Input [B, H, W, C] float; output logits [B, H, W, num_classes] at the input's size.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.conv import Conv
from jaxcnn.layers.conv_norm import ConvNorm, he_normal
from jaxcnn.models.resnet import resnet18, resnet50

Rates = tuple[int, ...]


class AtrousConvNorm(nn.Module):
    """3x3 convolution whose taps lie `rate` cells apart, BatchNorm, ReLU: [B, H, W, C] -> [B, H, W,
    features].
    """

    features: int
    rate: int

    @nn.compact
    def __call__(self, x, *, train: bool):
        sides = ((self.rate, self.rate),) * 2
        dilation = (self.rate, self.rate)
        conv = Conv(
            self.features,
            (3, 3),
            padding=sides,
            kernel_dilation=dilation,
            use_bias=False,
            kernel_init=he_normal,
            name="conv",
        )
        return nn.relu(BatchNorm(not train, momentum=0.9, epsilon=1e-5, name="norm")(conv(x)))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 convolution, 3x3 ones of several rates and the image's
    mean, joined by a 1x1 convolution and
    dropout: [B, H, W, C] -> [B, H, W, features]."""

    features: int = 256
    rates: Rates = (6, 12, 18)
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x, *, train: bool):
        branches = [ConvNorm(self.features, 1, name="point")(x, train=train)]
        for number, rate in enumerate(self.rates, 1):
            branches.append(
                AtrousConvNorm(self.features, rate, name=f"atrous{number}")(x, train=train)
            )
        mean = ConvNorm(self.features, 1, name="pool")(x.mean((1, 2), keepdims=True), train=train)
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        x = ConvNorm(self.features, 1, name="project")(jnp.concatenate(branches, -1), train=train)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class DeepLabV3Head(nn.Module):
    """ASPP, a 3x3 convolution and the classifier: maps [B, h, w, C] -> logits [B, h, w,
    num_classes].
    """

    num_classes: int
    features: int = 256
    rates: Rates = (12, 24, 36)

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = ASPP(self.features, self.rates, name="aspp")(x, train=train)
        x = ConvNorm(self.features, 3, name="conv")(x, train=train)
        return Conv(self.num_classes, (1, 1), name="head")(x)


class DeepLabV3Plus(nn.Module):
    """ASPP on the trunk's coarsest map, enlarged to its finest, whose channels are reduced beside
    it; two 3x3 convolutions and the logits
    [B, H, W, num_classes] at the image's size, bilinear.

    trunk: a module that gives a tuple of maps, finest first (`ResNet(pyramid=True)`: strides 4 to
    32). rates: of the ASPP; the published (6, 12, 18) belong to stride 16, and reach as far as (3,
    6, 9) at stride 32.
    """

    num_classes: int
    trunk: Any
    features: int = 256
    low_features: int = 48
    rates: Rates = (3, 6, 9)
    dropout: float = 0.5

    @nn.compact
    def __call__(self, image, *, train: bool):
        maps = self.trunk(image, train=train)
        x = ASPP(self.features, self.rates, self.dropout, name="aspp")(maps[-1], train=train)
        low = ConvNorm(self.low_features, 1, name="low")(maps[0], train=train)
        x = jnp.concatenate((enlarge(x, low.shape[1:3]), low), -1)
        for number in (1, 2):
            x = ConvNorm(self.features, 3, name=f"decoder{number}")(x, train=train)
        return enlarge(Conv(self.num_classes, (1, 1), name="head")(x), image.shape[1:3])


def enlarge(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Bilinear, as PyTorch's `interpolate` with align_corners=False: [B, h, w, C] -> [B,
    *size, C].
    """
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "bilinear")


def deeplab_resnet18(*, num_classes: int = 21, **fields) -> DeepLabV3Plus:
    """DeepLabV3+ on ResNet-18."""
    return DeepLabV3Plus(num_classes, trunk=resnet18(pyramid=True), **fields)


def deeplab_resnet50(*, num_classes: int = 21, **fields) -> DeepLabV3Plus:
    """DeepLabV3+ on ResNet-50."""
    return DeepLabV3Plus(num_classes, trunk=resnet50(pyramid=True), **fields)
