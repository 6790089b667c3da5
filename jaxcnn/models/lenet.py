"""LeNet-5 as published in 1998, and the two networks that are called LeNet today. Images [B, H, W,
C] in [0, 1], output [B, K] logits.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proc. IEEE 86(11), 1998, section II-B.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.layers import (
    INCREASING,
    RBF,
    ConnectionTableConv,
    Conv,
    Subsampling,
    activation,
    avg_pool,
    bitmap_targets,
    max_pool,
    require_image,
    scaled_tanh,
)
from jaxcnn.ops import convolution
from jaxcnn.ops.pooling import max_pooled_convolution

# Table I of the paper: the maps of S2 that each of the 16 maps of C3 sees; 60 connections.
C3_TABLE = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


def _uniform(fan_in: int):
    """Uniform in ±2.4 / fan_in, weights and biases alike (section II-B, after the description of
    F6).
    """
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, minval=-2.4 / fan_in, maxval=2.4 / fan_in
    )


class LeNet5(nn.Module):
    """LeNet-5 of 1998, exactly 60,000 trainable parameters and 340,908 connections.

    28x28 images are padded to 32x32 (32x32 ones are taken as they are) and scaled: background 0
    becomes -0.1, ink 1 becomes 1.175. C1, S2, C3 (table I), S4, C5 and F6 each end in 1.7159
    tanh(2a / 3). The outputs are *minus* the squared distances of F6 to ten ±1 bitmaps of 7x12
    pixels (equation 7), so that the largest wins: their softmax cross-entropy is the discriminative
    loss of equation 9, whose rubbish class is one more logit of -j that the task appends. In 84
    dimensions logits differ by up to hundreds and early
    losses are large: a learning rate (SGD about 0.001 to 0.01) or gradient clipping has to allow
    for that.
    """

    num_classes: int = 10

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        targets = bitmap_targets()
        if not 1 <= self.num_classes <= len(targets):
            raise ConfigError(
                f"LeNet5: num_classes = {self.num_classes}; its bitmaps are the digits 0..9, so 1 "
                "to 10 classes: take LeNet5Modern for more"
            )
        require_image("LeNet5", image, sizes=((28, 28), (32, 32)), channels=1)
        pad = (32 - image.shape[1]) // 2
        x = jnp.pad(image, ((0, 0), (pad, pad), (pad, pad), (0, 0))) * 1.275 - 0.1

        def conv(features, fan_in, name):
            return Conv(
                features,
                (5, 5),
                padding="VALID",
                kernel_init=_uniform(fan_in),
                bias_init=_uniform(fan_in),
                name=name,
            )

        def subsampling(name):
            return Subsampling(coefficient_init=_uniform(4), bias_init=_uniform(4), name=name)

        x = scaled_tanh(conv(6, 25, "C1")(x))  # [B, 28, 28, 6]
        x = scaled_tanh(subsampling("S2")(x))  # [B, 14, 14, 6]
        x = scaled_tanh(ConnectionTableConv(C3_TABLE, name="C3")(x))  # [B, 10, 10, 16]
        x = scaled_tanh(subsampling("S4")(x))  # [B, 5, 5, 16]
        x = scaled_tanh(conv(120, 400, "C5")(x))  # [B, 1, 1, 120]
        x = x.reshape(x.shape[0], 120)
        # [B, 84]
        x = scaled_tanh(
            nn.Dense(84, kernel_init=_uniform(120), bias_init=_uniform(120), name="F6")(x)
        )
        return -RBF(targets[: self.num_classes], name="output")(x)


class LeNet5Modern(nn.Module):
    """LeNet-5 as it is taught today: plain pooling, full connection of C3, a linear output; 61,706
    parameters at 28x28x1 and ten classes.

    Pad, conv 6@5x5, pool, conv 16@5x5, pool, 120, 84, `num_classes`. The defaults are today's
    habits (ReLU, max-pooling); `activation="tanh", pooling="avg"` is nearer to 1998. `padding`
    pixels are added on each side: 2 for 28x28 images, 0 for 32x32.
    """

    num_classes: int = 10
    activation: str = "relu"
    pooling: str = "max"
    padding: int = 2

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        pools = {"max": max_pool, "avg": avg_pool}
        if self.pooling not in pools:
            raise ConfigError(
                f"{type(self).__name__}: pooling = {self.pooling!r} is "
                f"unknown{did_you_mean(self.pooling, pools)}; 'max' or 'avg'"
            )
        require_image(type(self).__name__, image, at_least=16 - 2 * self.padding)
        squash, pool = activation(self.activation), partial(pools[self.pooling], window=(2, 2))
        kernel_init = (
            nn.initializers.he_normal()
            if "relu" in self.activation
            else nn.initializers.glorot_uniform()
        )
        border = (self.padding, self.padding)
        # The largest first, which is the same from fewer activations; as taught where natural code
        # is asked for, as by `launch.py summary`.
        increasing = self.pooling == "max" and self.activation in INCREASING
        pool_first = increasing and convolution.current_formulation() != "natural"

        def stage(features, padding, name):
            conv = partial(
                Conv, features, (5, 5), padding=padding, kernel_init=kernel_init, name=name
            )
            if pool_first:
                return lambda x: squash(
                    conv(conv_general_dilated=partial(max_pooled_convolution, window=(2, 2)))(x)
                )
            return lambda x: pool(squash(conv()(x)))

        x = stage(6, (border, border), "conv1")(image)  # 28x28, pooled to 14x14
        x = stage(16, "VALID", "conv2")(x)  # 10x10, pooled to 5x5
        x = x.reshape(x.shape[0], -1)
        x = squash(nn.Dense(120, kernel_init=kernel_init, name="fc3")(x))
        x = squash(nn.Dense(84, kernel_init=kernel_init, name="fc4")(x))
        return nn.Dense(
            self.num_classes, kernel_init=nn.initializers.glorot_uniform(), name="output"
        )(x)


class RGBDigitNet(LeNet5Modern):
    """The same network on 32x32x3 images without padding: 62,006 parameters, CONV1 28x28x6 = 4,704
    activations and 456 parameters.

    Source: Ng, "Convolutional Neural Networks", course of the Deep Learning Specialization, week 1,
    "CNN Example".
    """

    padding: int = 0
