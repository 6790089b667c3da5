"""EfficientNet B0 to B7: inverted residuals with channel attention, scaled in depth, width and
resolution together.

Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), table 1
and section 3.3. Input [B, H, W, 3] float, about zero mean and unit variance (224x224 for B0);
output [B, num_classes] logits.
"""

import math

from flax import linen as nn

from jaxcnn.layers.conv_norm import ConvNorm
from jaxcnn.models.mobilenet import InvertedResidual, round_channels

# expansion, kernel, strides, channels, repetitions: table 1
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNet(nn.Module):
    """An EfficientNet. Output [B, num_classes] logits; pooled features [B, 1280 * width] with
    `num_classes=0`; with `pyramid=True` the last maps of strides 2, 4, 8, 16, 32, and no head.

    width, depth: multipliers of channels and of the repetitions in each stage. drop_path: rate of
        the last block; the rates rise from 0.
    epsilon: 1e-3 as published; torchvision's B0 to B4 have 1e-5, which their weights need.
    """

    num_classes: int = 1000
    width: float = 1.0
    depth: float = 1.0
    dropout: float = 0.2
    drop_path: float = 0.2
    epsilon: float = 1e-3
    momentum: float = 0.99
    stages: tuple[tuple[int, ...], ...] = STAGES
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        unit = {"activation": nn.silu, "epsilon": self.epsilon, "momentum": self.momentum}
        x = ConvNorm(round_channels(32 * self.width), 3, 2, **unit, name="stem")(image, train=train)
        maps, done = [], 0
        repetitions = [math.ceil(row[-1] * self.depth) for row in self.stages]
        for stage, (expansion, kernel, strides, channels, _) in enumerate(self.stages, 1):
            for index in range(repetitions[stage - 1]):
                s = strides if index == 0 else 1
                if s > 1:
                    maps.append(x)
                block = InvertedResidual(
                    round_channels(channels * self.width),
                    round_channels(x.shape[-1] * expansion),
                    kernel,
                    s,
                    squeezed=max(
                        1, x.shape[-1] // 4
                    ),  # a quarter of the block's input, not of its expansion
                    squeeze_activation=nn.silu,
                    drop_path=self.drop_path * done / sum(repetitions),
                    name=f"stage{stage}_block{index}",
                    **unit,
                )
                x, done = block(x, train=train), done + 1
        x = ConvNorm(4 * x.shape[-1], 1, **unit, name="last")(x, train=train)
        if self.pyramid:
            return (*maps, x)
        x = x.mean((1, 2))
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


# torchvision's B0 to B4 come from a re-implementation with these constants.
REIMPLEMENTED = {"epsilon": 1e-5, "momentum": 0.9}


def efficientnet_b0(*, num_classes: int = 1000, **fields) -> EfficientNet:
    """EfficientNet-B0 for 224x224, 5,288,548 parameters."""
    return EfficientNet(num_classes, **{**REIMPLEMENTED, **fields})


def efficientnet_b1(*, num_classes: int = 1000, **fields) -> EfficientNet:
    """EfficientNet-B1 for 240x240, 7,794,184 parameters."""
    return EfficientNet(num_classes, 1.0, 1.1, 0.2, **{**REIMPLEMENTED, **fields})


def efficientnet_b2(*, num_classes: int = 1000, **fields) -> EfficientNet:
    """EfficientNet-B2 for 260x260 (torchvision: 288), 9,109,994 parameters."""
    return EfficientNet(num_classes, 1.1, 1.2, 0.3, **{**REIMPLEMENTED, **fields})


def efficientnet_b3(*, num_classes: int = 1000, **fields) -> EfficientNet:
    """EfficientNet-B3 for 300x300, 12,233,232 parameters."""
    return EfficientNet(num_classes, 1.2, 1.4, 0.3, **{**REIMPLEMENTED, **fields})


def efficientnet_b4(*, num_classes: int = 1000, **fields) -> EfficientNet:
    """EfficientNet-B4 for 380x380, 19,341,616 parameters."""
    return EfficientNet(num_classes, 1.4, 1.8, 0.4, **{**REIMPLEMENTED, **fields})


def efficientnet_b5(*, num_classes: int = 1000, **fields) -> EfficientNet:
    """EfficientNet-B5 for 456x456, 30,389,784 parameters."""
    return EfficientNet(num_classes, 1.6, 2.2, 0.4, **fields)


def efficientnet_b6(*, num_classes: int = 1000, **fields) -> EfficientNet:
    """EfficientNet-B6 for 528x528, 43,040,704 parameters."""
    return EfficientNet(num_classes, 1.8, 2.6, 0.5, **fields)


def efficientnet_b7(*, num_classes: int = 1000, **fields) -> EfficientNet:
    """EfficientNet-B7 for 600x600, 66,347,960 parameters."""
    return EfficientNet(num_classes, 2.0, 3.1, 0.5, **fields)
