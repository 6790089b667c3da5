"""Convolutional networks for signals: the fully convolutional network and the residual one that are
the usual baselines.

Wang, Yan, Oates, "Time Series Classification from Scratch with Deep Neural Networks: A Strong
Baseline" (2017), figure 1 b and c. Input `signal` [B, T, C] float, each series about zero mean and
unit variance; output [B, num_classes] logits. T is free.
"""

import jax
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.conv_norm import ConvNorm

KERNELS = (8, 5, 3)  # of both networks


class FCN(nn.Module):
    """Convolutions of 128, 256 and 128 maps and widths 8, 5, 3, each with BatchNorm and ReLU; mean
    over time; linear.

    264,192 + 1,024 (C - 1) + 129 `num_classes` parameters: the convolutions have no bias, as
    BatchNorm follows. Nothing is pooled, so the last map says which part of the signal spoke for a
    class (section 2.2).
    """

    num_classes: int = 2
    widths: tuple[int, ...] = (128, 256, 128)
    kernels: tuple[int, ...] = KERNELS

    @nn.compact
    def __call__(self, signal: jax.Array, *, train: bool = False) -> jax.Array:
        require_signal("FCN", signal)
        x = signal
        for number, (width, kernel) in enumerate(zip(self.widths, self.kernels, strict=True), 1):
            x = ConvNorm(width, kernel, padding="SAME", name=f"conv{number}")(x, train=train)
        return nn.Dense(self.num_classes, name="head")(x.mean(1))


class ResNet1D(nn.Module):
    """Three residual blocks of 64, 128 and 128 maps, each three convolutions of widths 8, 5, 3;
    mean over time; linear.

    The shortcut is a 1x1 convolution with BatchNorm where the number of maps changes, else
    BatchNorm alone, as in the authors' code.
    """

    num_classes: int = 2
    widths: tuple[int, ...] = (64, 128, 128)
    kernels: tuple[int, ...] = KERNELS

    @nn.compact
    def __call__(self, signal: jax.Array, *, train: bool = False) -> jax.Array:
        require_signal("ResNet1D", signal)
        x = signal
        for block, width in enumerate(self.widths, 1):
            y = x
            for number, kernel in enumerate(self.kernels, 1):
                last = number == len(self.kernels)  # ReLU follows the sum
                y = ConvNorm(
                    width,
                    kernel,
                    padding="SAME",
                    activation=None if last else nn.relu,
                    name=f"block{block}_conv{number}",
                )(y, train=train)
            name = f"block{block}_shortcut"
            if x.shape[-1] != width:
                x = ConvNorm(width, 1, activation=None, name=name)(x, train=train)
            else:
                x = BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=name)(x)
            x = nn.relu(x + y)
        return nn.Dense(self.num_classes, name="head")(x.mean(1))


def require_signal(model: str, signal: jax.Array) -> None:
    """Raise ConfigError unless `signal` is [B, T, C]."""
    if signal.ndim != 3:
        raise ConfigError(
            f"{model} expects signals [B, T, C], found shape {tuple(signal.shape)}; "
            'take a data set of series and a task with inputs=("signal",)'
        )
