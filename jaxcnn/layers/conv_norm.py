"""Convolution, batch normalization and activation: the unit that most convolutional networks since
2015 repeat.

Ioffe, Szegedy, "Batch Normalization" (2015), section 3.2: the normalization subtracts any bias, so
the convolution carries none.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.conv import Conv

# He, Zhang, Ren, Sun, "Delving Deep into Rectifiers" (2015), section 2.2, for the backward pass.
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def symmetric_padding(window: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Half a window on both sides of each axis, as PyTorch pads. ("SAME" pads a strided convolution
    more at the end.)
    """
    return tuple(((k - 1) // 2, (k - 1) // 2) for k in window)


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, activation: [B, *spatial, C] -> [B, *spatial / strides,
    features].

    `kernel` is one length for all spatial axes or one per axis; `padding` None pads half a window
    symmetrically. `momentum` is the share of the old running statistics that is kept (PyTorch
    states the share of the new ones). `zero_scale` starts the normalization's scale at 0 (Goyal et
    al., "Accurate, Large Minibatch SGD" (2017), section 5.1). `norm=False` leaves the bare
    convolution, for networks that normalize before it.
    """

    features: int
    kernel: int | tuple[int, ...] = 3
    strides: int = 1
    padding: int | str | None = None
    groups: int = 1
    activation: Callable[[jax.Array], jax.Array] | None = nn.relu
    epsilon: float = 1e-5
    momentum: float = 0.9
    zero_scale: bool = False
    norm: bool = True

    @nn.compact
    def __call__(self, x, *, train: bool):
        rank = x.ndim - 2
        window = (self.kernel,) * rank if isinstance(self.kernel, int) else self.kernel
        padding = symmetric_padding(window) if self.padding is None else self.padding
        x = Conv(
            self.features,
            window,
            (self.strides,) * rank,
            padding,
            feature_group_count=self.groups,
            use_bias=False,
            kernel_init=he_normal,
            name="conv",
        )(x)
        if not self.norm:
            return x
        scale_init = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        x = BatchNorm(
            not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            scale_init=scale_init,
            name="norm",
        )(x)
        return self.activation(x) if self.activation else x
