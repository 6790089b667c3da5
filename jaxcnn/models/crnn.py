"""CRNN: a convolutional network whose columns are read from left to right by a recurrent one, for
lines of text.

Shi, Bai, Yao, "An End-to-End Trainable Neural Network for Image-based Sequence Recognition and Its
Application to Scene Text Recognition" (2015), section 2 and table 1. Input [B, H, W, C] float in
[0, 1]; output [B, T, K + 1] logits of each column's label, 0 being CTC's blank, with T the width
over the product of the poolings' strides (W / 4 as published).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.conv import max_pool
from jaxcnn.layers.conv_norm import ConvNorm

PUBLISHED = ((64,), (128,), (256, 256), (512, 512))


class CRNN(nn.Module):
    """The defaults are the published network: 8.3 million parameters for 36 characters.

    Each stage is so many 3x3 convolutions, then a max-pooling; the rows that are left are folded
    into one by a convolution of their height. Unlike the published one every convolution is
    normalized, and the last one, 2 columns wide, keeps the number of columns.

    num_characters: K, the blank not counted. widths: channels of each convolution, a tuple a stage.
        pools: (rows, columns) of each stage's
    pooling. folded: channels of the last convolution; fold_columns: how many columns it sees.
        hidden: of each LSTM, in either direction;
    layers: how many of them, two as published, 0 for a network of convolutions alone. dropout: of
    the folded columns.
    """

    num_characters: int = 36
    widths: tuple[tuple[int, ...], ...] = PUBLISHED
    pools: tuple[tuple[int, int], ...] = ((2, 2), (2, 2), (2, 1), (2, 1))
    folded: int = 512
    fold_columns: int = 2
    hidden: int = 256
    layers: int = 2
    dropout: float = 0.0

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        self.require_image(image)
        x = 2 * image - 1
        for stage, (widths, pool) in enumerate(zip(self.widths, self.pools, strict=True), 1):
            for letter, width in enumerate(widths, ord("a")):
                x = ConvNorm(width, 3, name=f"conv{stage}{chr(letter)}")(x, train=train)
            if pool != (1, 1):
                x = max_pool(x, pool, strides=pool)
        x = jnp.pad(
            x, ((0, 0), (0, 0), ((self.fold_columns - 1) // 2, self.fold_columns // 2), (0, 0))
        )
        x = ConvNorm(self.folded, (x.shape[1], self.fold_columns), padding="VALID", name="fold")(
            x, train=train
        )[:, 0]  # [B, T, C]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        for layer in range(1, self.layers + 1):
            x = self.read(x, f"lstm{layer}")
            if layer < self.layers:
                x = nn.Dense(self.hidden, name=f"between{layer}")(x)
        return nn.Dense(self.num_characters + 1, name="head")(x)

    def read(self, x: jax.Array, name: str) -> jax.Array:
        """A bidirectional LSTM over the columns: [B, T, C] -> [B, T, 2 * hidden]."""
        carry = (
            jnp.zeros((x.shape[0], self.hidden), x.dtype),
        ) * 2  # in the dtype of the input, which the program may have narrowed
        ways = []
        for way in ("forward", "backward"):
            backward = way == "backward"
            cell = nn.OptimizedLSTMCell(self.hidden, name=f"{name}_{way}_cell")
            ways.append(
                nn.RNN(cell, reverse=backward, keep_order=backward, name=f"{name}_{way}")(
                    x, initial_carry=carry
                )
            )
        return jnp.concatenate(ways, axis=-1)

    def require_image(self, image: jax.Array) -> None:
        """Raise ConfigError unless the image is [B, H, W, C], its height and width divide by the
        poolings, and some row is left.
        """
        if len(self.widths) != len(self.pools):
            raise ConfigError(
                f"CRNN: {len(self.widths)} widths for {len(self.pools)} pools; give one of each a "
                "stage"
            )
        if image.ndim != 4:
            raise ConfigError(f"CRNN expects images [B, H, W, C], found shape {tuple(image.shape)}")
        for axis, side in enumerate(("height", "width")):
            stride = 1
            for pool in self.pools:
                stride *= pool[axis]
            if image.shape[1 + axis] % stride:
                raise ConfigError(
                    f"CRNN: the image's {side} is {image.shape[1 + axis]}; it must be a multiple "
                    f"of {stride}: resize or pad"
                )
