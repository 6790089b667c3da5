"""Detectors on a trunk with a path back to finer maps: objects as points (CenterNet), or
predictions at every place of several maps (FCOS).

Zhou, Wang, Krähenbühl, "Objects as points" (CenterNet), 2019, section 5; Tian, Shen, Chen, He,
"FCOS: Fully convolutional one-stage object detection", 2019, section 3; the path: Lin et al.,
"Feature pyramid networks for object detection", 2017, section 3. Input [B, H, W, C] float, H and W
multiples of the coarsest stride.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.checks import require_image
from jaxcnn.layers.conv import Conv
from jaxcnn.layers.conv_norm import ConvNorm, he_normal
from jaxcnn.models.resnet import resnet18

# What a new heatmap says everywhere, so that empty cells do not drown the first steps (Lin et al.,
# "Focal loss", 2017, section 3.3).
PRIOR = 0.1
DENSE_PRIOR = 0.01  # the value of that paper, for the many more negatives of FCOS


class SmallTrunk(nn.Module):
    """Four small stages: maps of stride 2, 4 and 8, finest first, [B, H/2, W/2, widths[1]], [B,
    H/4, W/4, widths[2]] and so on.
    """

    widths: tuple[int, int, int, int] = (16, 32, 48, 64)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        first, second, third, fourth = self.widths
        x = ConvNorm(first, strides=2, name="stride2")(image, train=train)
        x = stride2 = ConvNorm(second, name="stride2_more")(x, train=train)
        x = ConvNorm(third, strides=2, name="stride4")(x, train=train)
        x = stride4 = ConvNorm(third, name="stride4_more")(x, train=train)
        x = ConvNorm(fourth, strides=2, name="stride8")(x, train=train)
        x = ConvNorm(fourth, name="stride8_more")(x, train=train)
        return stride2, stride4, x


class TopDown(nn.Module):
    """The coarsest map carried up to the finest by repetition, each finer map added to it (1x1
    convolutions bring all to `features` channels), then a 3x3 convolution. Maps finest first;
    output the `num_levels` finest in this order, [B, h_i, w_i, features].
    """

    features: int
    num_levels: int

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...], *, train: bool) -> tuple[jax.Array, ...]:
        x, levels = None, []
        for level in reversed(range(len(maps))):
            lateral = Conv(
                self.features, (1, 1), use_bias=False, kernel_init=he_normal, name=f"lateral{level}"
            )(maps[level])
            x = lateral if x is None else lateral + double(x, like=lateral)
            if level < self.num_levels:
                levels.append(ConvNorm(self.features, name=f"smooth{level}")(x, train=train))
        return tuple(reversed(levels))


class CenterHeads(nn.Module):
    """From features [B, h, w, C] to the maps of `jaxcnn.ops.centers`: each head a 3x3 convolution
    of `features`, ReLU, and a 1x1 one.
    """

    num_classes: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        prior = nn.initializers.constant(math.log(PRIOR / (1 - PRIOR)))
        outputs = {}
        for name, channels in (("heatmap", self.num_classes), ("size", 2), ("offset", 2)):
            y = nn.relu(
                Conv(self.features, (3, 3), kernel_init=he_normal, name=f"{name}_hidden")(x)
            )
            bias = prior if name == "heatmap" else nn.initializers.zeros
            small = nn.initializers.normal(0.01)
            outputs[name] = Conv(channels, (1, 1), kernel_init=small, bias_init=bias, name=name)(y)
        return outputs


class CenterNet(nn.Module):
    """A detector on any trunk that returns maps finest first; `stride4` is the index of its map of
    stride 4, on which the heads stand. Output {"heatmap": [B, H/4, W/4, K] logits, "size": [B, H/4,
    W/4, 2], "offset": [B, H/4, W/4, 2]}, see `jaxcnn.ops.centers`.

    `features`: width of the path upwards; `head_features`: of the heads' hidden layers.
    """

    num_classes: int
    trunk: Any = SmallTrunk()
    stride4: int = 1
    features: int = 48
    head_features: int = 32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        require_image("CenterNet", image, at_least=16)
        maps = self.trunk(image, train=train)[self.stride4 :]
        features = TopDown(self.features, 1, name="top_down")(maps, train=train)[0]
        return CenterHeads(self.num_classes, self.head_features, name="heads")(features)


def small_center_net(*, num_classes: int = 10, **fields) -> CenterNet:
    """For scenes of 64x64: 172,606 parameters with ten classes and grey pictures."""
    return CenterNet(num_classes, **fields)


def center_net_resnet18(*, num_classes: int = 20, **fields) -> CenterNet:
    """CenterNet on ResNet-18 (Zhou et al. 2019, section 5), with a sum path of 64 channels in place
    of their three deconvolutions.
    """
    return CenterNet(
        num_classes,
        resnet18(num_classes=0, pyramid=True),
        stride4=0,
        features=64,
        head_features=64,
        **fields,
    )


class DenseHeads(nn.Module):
    """From features [B, h, w, C] to logits [B, h * w, K], distances [B, h * w, 4] before their
    exponential, and centerness [B, h * w]; two towers of `depth` 3x3 convolutions, normalized by
    groups, since maps of several scales share them (Tian et al. 2019, section 4).
    """

    num_classes: int
    features: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        towers = []
        for name in ("classes", "boxes"):
            y = x
            for number in range(1, self.depth + 1):
                y = Conv(
                    self.features,
                    (3, 3),
                    use_bias=False,
                    kernel_init=he_normal,
                    name=f"{name}{number}",
                )(y)
                y = nn.relu(nn.GroupNorm(num_groups=8, name=f"{name}{number}_norm")(y))
            towers.append(y)
        small, prior = (
            nn.initializers.normal(0.01),
            nn.initializers.constant(math.log(DENSE_PRIOR / (1 - DENSE_PRIOR))),
        )
        logits = Conv(self.num_classes, (3, 3), kernel_init=small, bias_init=prior, name="logits")(
            towers[0]
        )
        boxes = Conv(5, (3, 3), kernel_init=small, name="distances_and_centerness")(towers[1])
        logits, boxes = (
            maps.reshape(maps.shape[0], -1, maps.shape[-1]) for maps in (logits, boxes)
        )
        return logits, boxes[..., :4], boxes[..., 4]


class FCOS(nn.Module):
    """At each place of each map from index `finest` on: is it inside an object, of which class, how
    far are the four sides?

    Output {"logits": [B, A, K], "distances": [B, A, 4] above 0 (to the upper, left, lower, right
    side, in strides of the map),
    "centerness": [B, A] logits}; A counts the places of all maps, finest first, row by row. Each
    map has one learned scale of its distances (section 3.2).
    """

    num_classes: int
    trunk: Any = SmallTrunk()
    finest: int = 1
    features: int = 48
    depth: int = 1

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        require_image("FCOS", image, at_least=16)
        maps = self.trunk(image, train=train)[self.finest :]
        levels = TopDown(self.features, len(maps), name="top_down")(maps, train=train)
        heads = DenseHeads(self.num_classes, self.features, self.depth, name="heads")
        scales = self.param("scales", nn.initializers.ones, (len(levels),))
        logits, distances, centerness = zip(*(heads(level) for level in levels), strict=True)
        distances = [
            jnp.exp(scale * distance) for scale, distance in zip(scales, distances, strict=True)
        ]
        joined = (jnp.concatenate(parts, axis=1) for parts in (logits, distances, centerness))
        return dict(zip(("logits", "distances", "centerness"), joined, strict=True))


def double(x: jax.Array, *, like: jax.Array) -> jax.Array:
    """Each cell repeated twice along both axes. [B, h, w, C] -> [B, 2h, 2w, C]. Errors: ConfigError
    unless that is the size of `like`.
    """
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    if x.shape[1:3] != like.shape[1:3]:
        raise ConfigError(
            f"maps of {x.shape[1] // 2}x{x.shape[2] // 2} and {like.shape[1]}x{like.shape[2]} do "
            "not fit on each other: the image's height "
            "and width must be multiples of the coarsest stride; resize or pad the images"
        )
    return x
