"""Convolutional networks for texts: over words (Kim 2014) and over characters (Zhang et al. 2015).

Kim, "Convolutional Neural Networks for Sentence Classification" (2014), section 2 and figure 1;
Zhang, Zhao, LeCun, "Character-level Convolutional Networks for Text Classification" (2015), section
2 and tables 1 and 2.
Input `text` [B, T] int32 token numbers: 0 is padding, which only follows the text, 1 an unknown
token. Output [B, num_classes] logits.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers import Conv, max_pool

NUM_RESERVED = 2  # padding and the unknown token


class TextCNN(nn.Module):
    """Kim's network: word vectors, `maps` convolutions of each of the `widths`, ReLU, maximum over
    time, dropout, linear.

    360,902 + 300 |V| parameters as published (three widths of 100 maps, 300-dimensional vectors, 2
    classes, |V| = `vocabulary_size`, which counts the two reserved numbers). The vectors are
    learned from scratch (the paper's CNN-rand). The maximum runs over the windows that lie within
    the text (a text shorter than the window has one, filled up with zeros), so that padding,
    however much of it, changes
    nothing. Left out: the limit 3 on the norm of the output weights (section 2.1); weight decay
        takes its place. Dropout needs the key
    "dropout".
    """

    vocabulary_size: int = 20_000
    num_classes: int = 2
    embedding_size: int = 300
    widths: tuple[int, ...] = (3, 4, 5)
    maps: int = 100
    dropout_rate: float = 0.5

    @nn.compact
    def __call__(self, text: jax.Array, *, train: bool = False) -> jax.Array:
        require_text("TextCNN", text)
        real = text > 0  # [B, T]
        length = real.sum(1)[:, None]  # [B, 1]
        x = nn.Embed(
            self.vocabulary_size,
            self.embedding_size,
            embedding_init=_uniform(0.25),
            name="embedding",
        )(text)
        x = jnp.where(real[..., None], x, jnp.zeros((), x.dtype))
        # [B, T, embedding_size]
        x = jnp.pad(x, ((0, 0), (0, max(0, max(self.widths) - text.shape[1])), (0, 0)))
        features = []
        for width in self.widths:
            y = Conv(
                self.maps,
                (width,),
                padding="VALID",
                kernel_init=nn.initializers.he_normal(),
                name=f"conv{width}",
            )(x)
            # [B, T - width + 1]
            within = jnp.arange(y.shape[1])[None] <= jnp.maximum(length - width, 0)
            # after ReLU, 0 is the least
            features.append(jnp.where(within[..., None], nn.relu(y), jnp.zeros((), y.dtype)).max(1))
        x = jnp.concatenate(features, -1)  # [B, len(widths) * maps]
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


class CharCNN(nn.Module):
    """Zhang's network on characters: six convolutions of widths 7, 7, 3, 3, 3, 3, pooling by 3
    after the first, second and last, two hidden dense layers with dropout. The defaults are the
    paper's small network; `width=1024, hidden=2048` is its large one.

    Characters are one-hot vectors of length `alphabet_size`; token 2 is the first character,
    padding and unknown ones are all zeros
    (section 2.2). Texts have a fixed length T: 1,014 in the paper, where the last map is [B, 34,
    width]. T must be at least 123, or 27 more for every further row. ReLU stands for the paper's
    threshold. Weights are drawn He-normal.
    """

    num_classes: int = 2
    alphabet_size: int = 70
    width: int = 256
    hidden: int = 1024
    windows: tuple[int, ...] = (7, 7, 3, 3, 3, 3)
    pooled: tuple[int, ...] = (1, 2, 6)
    dropout_rate: float = 0.5

    @nn.compact
    def __call__(self, text: jax.Array, *, train: bool = False) -> jax.Array:
        require_text("CharCNN", text)
        if missing := sorted(set(self.pooled) - set(range(1, len(self.windows) + 1))):
            raise ConfigError(
                f"CharCNN: pooled={self.pooled} names {missing} and the convolutions are 1 to "
                f"{len(self.windows)}, one a window; pool after those alone"
            )
        he = nn.initializers.he_normal()
        # the program's choice
        dtype = (
            jnp.float32
            if self.is_initializing()
            else self.get_variable("params", "conv1")["kernel"].dtype
        )
        # numbers below 2 become negative: all zeros
        x = jax.nn.one_hot(text - NUM_RESERVED, self.alphabet_size, dtype=dtype)
        for number, window in enumerate(self.windows, 1):
            x = nn.relu(
                Conv(self.width, (window,), padding="VALID", kernel_init=he, name=f"conv{number}")(
                    x
                )
            )
            x = max_pool(x, (3,)) if number in self.pooled else x
            if x.shape[1] < 1:
                raise ConfigError(
                    f"CharCNN: texts of {text.shape[1]} characters vanish at conv{number}; make "
                    "the data's `length` larger"
                )
        x = x.reshape(x.shape[0], -1)  # [B, 34 * width] for 1,014 characters
        for number in (1, 2):
            x = nn.relu(nn.Dense(self.hidden, kernel_init=he, name=f"dense{number}")(x))
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


def require_text(model: str, text: jax.Array) -> None:
    """Raise ConfigError unless `text` is [B, T] of integers."""
    if text.ndim != 2 or not jnp.issubdtype(text.dtype, jnp.integer):
        raise ConfigError(
            f"{model} expects token numbers [B, T] int32, found shape {tuple(text.shape)} of "
            f"{text.dtype}; "
            'take a data set of texts and a task with inputs=("text",)'
        )


def _uniform(limit: float):
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, minval=-limit, maxval=limit
    )
