"""Networks that name an image's one main object and draw its box.

The box is the expected place of its two corners under two softmax maps over the cells ("integral
regression": Sun et al., "Integral human pose regression", 2018, section 2), so that it moves with
the object by construction; a third map says where the class is read. With one dense layer in its
place (Sermanet et al., "OverFeat", 2013, section 4) each place has to be learned by itself. Input
[B, H, W, C] float; output {"logits": [B, K], "box": [B, 4] (y0, x0, y1, x1) in [0, 1]}.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import Conv
from jaxcnn.layers.conv_norm import ConvNorm
from jaxcnn.models.resnet import resnet18
from jaxcnn.ops import heatmaps


class LocalizationHead(nn.Module):
    """From features [B, h, w, C] to logits [B, num_classes] and box [B, 4]."""

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> dict[str, jax.Array]:
        batch, height, width, channels = features.shape
        # first corner, last corner, class: softmax needs no bias
        maps = Conv(3, (1, 1), use_bias=False, name="maps")(features)
        # [B, 2, 2], between the centers of the outermost cells
        points = heatmaps.soft_argmax(maps[..., :2])
        cells = jnp.asarray([[[height, width]]], points.dtype)
        # stretched, so that a box can reach the border
        points = (points - 0.5 / cells) * cells / jnp.maximum(cells - 1, 1)
        low, high = jnp.min(points, axis=1), jnp.max(points, axis=1)
        share = jax.nn.softmax(maps[..., 2].reshape(batch, -1))
        attended = jnp.einsum("bn,bnc->bc", share, features.reshape(batch, -1, channels))
        return {
            "logits": nn.Dense(self.num_classes, name="classes")(attended),
            "box": jnp.concatenate([low, high], axis=-1),
        }


class LocalizationNet(nn.Module):
    """A small network for small pictures: convolutions down to stride 8, two more there, and the
    head on stride 4, where the coarse map is added back to the fine one. 149,018 parameters with
    the default widths, grey pictures and ten classes.
    """

    num_classes: int = 10
    widths: tuple[int, int, int, int] = (16, 32, 48, 64)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        require_image("LocalizationNet", image, at_least=16)
        first, second, third, fourth = self.widths
        x = ConvNorm(first, strides=2, name="stride2")(image, train=train)
        x = ConvNorm(second, name="stride2_more")(x, train=train)
        x = fine = ConvNorm(third, strides=2, name="stride4")(x, train=train)
        x = ConvNorm(fourth, strides=2, name="stride8")(x, train=train)
        x = ConvNorm(fourth, name="stride8_more")(x, train=train)
        x = jax.image.resize(x, (*fine.shape[:3], fourth), "nearest")
        x = jnp.concatenate([x, fine], axis=-1)
        x = ConvNorm(fourth, name="joined")(x, train=train)
        return LocalizationHead(self.num_classes, name="head")(x)


class BackboneLocalization(nn.Module):
    """The head on the coarsest map of a network that returns a pyramid of maps, such as
    `resnet18(pyramid=True)`.
    """

    num_classes: int
    backbone: Any = resnet18(num_classes=0, pyramid=True)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        return LocalizationHead(self.num_classes, name="head")(
            self.backbone(image, train=train)[-1]
        )
