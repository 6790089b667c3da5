"""Convolutional networks for clips and volumes: C3D, R3D-18, R(2+1)D-18, and a small one for a CPU.

Tran, Bourdev, Fergus, Torresani, Paluri, "Learning Spatiotemporal Features with 3D Convolutional
Networks" (2015), figure 3 and section 3; Tran, Wang, Torresani, Ray, LeCun, Paluri, "A Closer Look
at Spatiotemporal Convolutions for Action Recognition" (2018), sections 3.3 and 3.5, table 1.
Input `clip` [B, T, H, W, C] float, about zero mean and unit variance; output [B, num_classes]
logits.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.conv import Conv, max_pool
from jaxcnn.layers.conv_norm import he_normal, symmetric_padding

Window = tuple[int, int, int]  # time, height, width


class C3D(nn.Module):
    """Eight 3x3x3 convolutions, five poolings, two hidden dense layers; 78,409,573 parameters for
    16x112x112x3 clips and 101 classes.

    The first pooling leaves time alone; all round up, as the published network does (so that 7x7
    becomes 4x4 in the last).
    `widths`: of the convolutions, one tuple for each pooling. Dropout needs the key "dropout".
    """

    num_classes: int = 101
    widths: tuple[tuple[int, ...], ...] = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    hidden: int = 4096
    dropout_rate: float = 0.5

    @nn.compact
    def __call__(self, clip: jax.Array, *, train: bool = False) -> jax.Array:
        require_clip("C3D", clip)
        x = clip
        for stage, widths in enumerate(self.widths, 1):
            for letter, width in enumerate(widths, ord("a")):
                x = nn.relu(
                    Conv(
                        width,
                        (3, 3, 3),
                        padding="SAME",
                        kernel_init=he_normal,
                        name=f"conv{stage}{chr(letter)}",
                    )(x)
                )
            x = max_pool(x, (1, 2, 2) if stage == 1 else (2, 2, 2), padding="SAME")
        x = x.reshape(x.shape[0], -1)  # [B, 1 * 4 * 4 * 512]
        for name in ("dense6", "dense7"):
            x = nn.relu(
                nn.Dense(self.hidden, kernel_init=nn.initializers.normal(0.005), name=name)(x)
            )
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="head")(x)


class ClipConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, activation, with one window length and one stride for
    each of time, height and width.
    """

    features: int
    window: Window = (3, 3, 3)
    strides: Window = (1, 1, 1)
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        padding = symmetric_padding(self.window)
        x = Conv(
            self.features,
            self.window,
            self.strides,
            padding,
            use_bias=False,
            kernel_init=he_normal,
            name="conv",
        )(x)
        x = BatchNorm(not train, momentum=0.9, epsilon=1e-5, name="norm")(x)
        return self.activation(x) if self.activation else x


class ClipBlock(nn.Module):
    """Two 3x3x3 convolutions around an identity; `factorized` makes each a 1x3x3 one, BatchNorm,
    ReLU and a 3x1x1 one between which lie so many maps that the parameters stay about the same
    (2018, section 3.5). The count is that of the block's first convolution in both, as in
    torchvision.
    """

    width: int
    strides: int = 1
    factorized: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        between = x.shape[-1] * self.width * 27 // (x.shape[-1] * 9 + 3 * self.width)
        y = x
        for name, s, activation in (("conv1", self.strides, nn.relu), ("conv2", 1, None)):
            if self.factorized:
                y = ClipConvNorm(between, (1, 3, 3), (1, s, s), name=f"{name}_spatial")(
                    y, train=train
                )
                y = ClipConvNorm(
                    self.width, (3, 1, 1), (s, 1, 1), activation, name=f"{name}_temporal"
                )(y, train=train)
            else:
                y = ClipConvNorm(self.width, (3, 3, 3), (s, s, s), activation, name=name)(
                    y, train=train
                )
        if x.shape != y.shape:
            x = ClipConvNorm(
                self.width,
                (1, 1, 1),
                (self.strides, self.strides, self.strides),
                None,
                name="shortcut",
            )(x, train=train)
        return nn.relu(x + y)


class VideoResNet(nn.Module):
    """A residual network over clips of any size: R3D-18 or, `factorized`, R(2+1)D-18.

    The stem halves height and width, stages 2 to 4 halve time as well; mean over all that is left;
    linear. `widths`: of the stages,
    `blocks`: in each.
    """

    num_classes: int = 400
    factorized: bool = False
    widths: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 2

    @nn.compact
    def __call__(self, clip: jax.Array, *, train: bool = False) -> jax.Array:
        require_clip("VideoResNet", clip)
        if self.factorized:
            x = ClipConvNorm(45, (1, 7, 7), (1, 2, 2), name="stem_spatial")(clip, train=train)
            x = ClipConvNorm(self.widths[0], (3, 1, 1), name="stem_temporal")(x, train=train)
        else:
            x = ClipConvNorm(self.widths[0], (3, 7, 7), (1, 2, 2), name="stem")(clip, train=train)
        for stage, width in enumerate(self.widths, 1):
            for index in range(self.blocks):
                strides = 2 if stage > 1 and index == 0 else 1
                x = ClipBlock(width, strides, self.factorized, name=f"stage{stage}_block{index}")(
                    x, train=train
                )
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2, 3)))


def r3d_18(*, num_classes: int = 400, **fields) -> VideoResNet:
    """R3D-18, 33,371,472 parameters."""
    return VideoResNet(num_classes, **fields)


def r2plus1d_18(*, num_classes: int = 400, **fields) -> VideoResNet:
    """R(2+1)D-18, 31,505,325 parameters."""
    return VideoResNet(num_classes, factorized=True, **fields)


class SmallVideoNet(nn.Module):
    """Four 3x3x3 convolutions with BatchNorm, the first with stride 2 in height and width, 1x2x2
    max-pooling before the third and fourth; mean over all that is left; linear.

    118,616 parameters for grey clips and 8 classes. Time is not pooled: eight frames have none to
    spare.
    """

    num_classes: int = 8
    widths: tuple[int, ...] = (16, 32, 48, 48)

    @nn.compact
    def __call__(self, clip: jax.Array, *, train: bool = False) -> jax.Array:
        require_clip("SmallVideoNet", clip)
        x = clip
        for number, width in enumerate(self.widths, 1):
            if number > 2:
                x = max_pool(x, (1, 2, 2))
            x = ClipConvNorm(
                width, strides=(1, 2, 2) if number == 1 else (1, 1, 1), name=f"conv{number}"
            )(x, train=train)
        return nn.Dense(self.num_classes, name="head")(x.mean((1, 2, 3)))


def require_clip(model: str, clip: jax.Array) -> None:
    """Raise ConfigError unless `clip` is [B, T, H, W, C]."""
    if clip.ndim != 5:
        raise ConfigError(
            f"{model} expects clips [B, T, H, W, C], found shape {tuple(clip.shape)}; "
            'take a data set of clips and a task with inputs=("clip",)'
        )
