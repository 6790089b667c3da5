"""MobileNetV2 and MobileNetV3: inverted residuals around depthwise convolutions.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks" (2018), table 2; Howard et
al., "Searching for MobileNetV3" (2019), tables 1 and 2 and section 5. Input [B, H, W, 3] float,
about zero mean and unit variance; output [B, num_classes] logits.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from jaxcnn.layers.conv_norm import ConvNorm
from jaxcnn.layers.squeeze_excite import SqueezeExcite


def round_channels(channels: float, *, multiple: int = 8) -> int:
    """The nearest multiple, at least one, and at least 90 % of `channels`, as the authors' released
    code rounds widths.
    """
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, channel attention, linear 1x1 projection, and the
    identity where shapes agree.

    [B, H, W, C] -> [B, H / strides, W / strides, features]. `expanded` equal to C leaves the
    expansion out, `squeezed` 0 the attention; `drop_path` is the rate at which a row's residual
    branch is dropped in training (Huang et al., "Deep Networks with Stochastic Depth", 2016).
    """

    features: int
    expanded: int
    kernel: int = 3
    strides: int = 1
    squeezed: int = 0
    activation: Callable[[jax.Array], jax.Array] = nn.relu6
    squeeze_activation: Callable[[jax.Array], jax.Array] = nn.relu
    gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
    epsilon: float = 1e-5
    momentum: float = 0.9
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, *, train: bool):
        norm: dict[str, Any] = {"epsilon": self.epsilon, "momentum": self.momentum}
        y = x
        if self.expanded != x.shape[-1]:
            y = ConvNorm(self.expanded, 1, activation=self.activation, **norm, name="expand")(
                y, train=train
            )
        depthwise: dict[str, Any] = {"groups": self.expanded, "activation": self.activation}
        y = ConvNorm(
            self.expanded, self.kernel, self.strides, **depthwise, **norm, name="depthwise"
        )(y, train=train)
        if self.squeezed:
            y = SqueezeExcite(
                self.squeezed, self.squeeze_activation, self.gate, name="squeeze_excite"
            )(y)
        y = ConvNorm(self.features, 1, activation=None, **norm, name="project")(y, train=train)
        if x.shape != y.shape:
            return y
        return x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)(y)


# expansion, channels, repetitions, strides: table 2
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """MobileNetV2. Output [B, num_classes] logits; [B, 1280] pooled features with `num_classes=0`;
    with `pyramid=True` the last maps of strides 2, 4, 8, 16, 32, and no head. `width` multiplies
    all channel counts.
    """

    num_classes: int = 1000
    width: float = 1.0
    dropout: float = 0.2
    epsilon: float = 1e-5
    stages: tuple[tuple[int, ...], ...] = STAGES
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        unit: dict[str, Any] = {"activation": nn.relu6, "epsilon": self.epsilon}
        x = ConvNorm(round_channels(32 * self.width), 3, 2, **unit, name="stem")(image, train=train)
        maps, index = [x], 0
        for expansion, channels, repetitions, strides in self.stages:
            for repetition in range(repetitions):
                s = strides if repetition == 0 else 1
                features, index = round_channels(channels * self.width), index + 1
                expanded = round(x.shape[-1] * expansion)
                x = InvertedResidual(
                    features, expanded, 3, s, epsilon=self.epsilon, name=f"block{index}"
                )(x, train=train)
                _append(maps, x)
        x = ConvNorm(round_channels(1280 * max(1.0, self.width)), 1, **unit, name="last")(
            x, train=train
        )
        _append(maps, x)
        if self.pyramid:
            return tuple(maps)
        x = x.mean((1, 2))  # [B, 1280]
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


# kernel, expanded, channels, squeeze-and-excitation, hard-swish, strides: tables 1 and 2
LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
SMALL = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


class MobileNetV3(nn.Module):
    """MobileNetV3. Output [B, num_classes] logits; pooled features [B, 6 times the last width] with
    `num_classes=0`; with `pyramid=True` the last maps of strides 2, 4, 8, 16, 32, and no head.
    `width` multiplies all channel counts but `hidden`, the dense layer's.
    """

    blocks: tuple[tuple, ...] = LARGE
    num_classes: int = 1000
    hidden: int = 1280
    width: float = 1.0
    dropout: float = 0.2
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        norm: dict[str, Any] = {"epsilon": 1e-3, "momentum": 0.99}
        x = ConvNorm(
            round_channels(16 * self.width), 3, 2, activation=nn.hard_swish, **norm, name="stem"
        )(image, train=train)
        maps = [x]
        for index, (kernel, expanded, channels, attends, hard_swish, strides) in enumerate(
            self.blocks, 1
        ):
            features, expanded = (round_channels(c * self.width) for c in (channels, expanded))
            squeezed = round_channels(expanded // 4) if attends else 0
            kind: dict[str, Any] = {
                "activation": nn.hard_swish if hard_swish else nn.relu,
                "gate": nn.hard_sigmoid,
                **norm,
            }
            x = InvertedResidual(
                features, expanded, kernel, strides, squeezed, **kind, name=f"block{index}"
            )(x, train=train)
            _append(maps, x)
        x = ConvNorm(6 * x.shape[-1], 1, activation=nn.hard_swish, **norm, name="last")(
            x, train=train
        )
        _append(maps, x)
        if self.pyramid:
            return tuple(maps)
        x = x.mean((1, 2))
        if not self.num_classes:
            return x
        x = nn.hard_swish(nn.Dense(self.hidden, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


def _append(maps: list, x) -> None:
    """Keep the last map of each resolution."""
    if maps[-1].shape[1:3] == x.shape[1:3]:
        maps.pop()
    maps.append(x)


def mobilenet_v2(*, num_classes: int = 1000, **fields) -> MobileNetV2:
    """MobileNetV2, 3,504,872 parameters."""
    return MobileNetV2(num_classes, **fields)


def mobilenet_v3_large(*, num_classes: int = 1000, **fields) -> MobileNetV3:
    """MobileNetV3-Large, 5,483,032 parameters."""
    return MobileNetV3(LARGE, num_classes, **fields)


def mobilenet_v3_small(*, num_classes: int = 1000, **fields) -> MobileNetV3:
    """MobileNetV3-Small, 2,542,856 parameters."""
    return MobileNetV3(SMALL, num_classes, **{"hidden": 1024, **fields})
