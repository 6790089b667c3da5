"""Networks that describe an image in words: a convolutional grid of features, and a decoder that
looks at it word by word.

Xu et al., "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention" (2015),
section 3.1 and 4.2 (`AttentionLSTM`); Vaswani et al., "Attention Is All You Need" (2017), section
3, with the normalization before each branch (`TransformerDecoder`). Input image [B, H, W, C] float,
captions [B, R, L] int32 tokens (see `jaxcnn.ops.decoding`). Output: `CaptionNet`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers import max_pool, require_image
from jaxcnn.layers.conv_norm import ConvNorm
from jaxcnn.ops.decoding import beam_search


class CaptionNet(nn.Module):
    """{"logits": [B, R, L - 1, V], "tokens": [B, max_words] int32}: of the word after each given
    one (teacher forcing); and, unless `train`, the model's own caption, decoded from the image
    alone.

    The captions are only read for the logits: the tokens are the same whatever they are, and
    without captions there are no logits.

    encoder: an image -> features [B, h, w, C], or a tuple of maps of which the last is taken. A
        learned position is added to each of the h x w places, so that the decoder can tell where it
        looks.
    decoder: `AttentionLSTM`, `TransformerDecoder`, or any module with their methods: the call for
        given words, and `read` (what the image says), `start` (the state before the first word) and
        `step` (one word more), by which it decodes.
    max_words: tokens decoded at most, the end included. beam_size, length_penalty: see
    `jaxcnn.ops.decoding.beam_search`.
    """

    encoder: nn.Module
    decoder: Any
    max_words: int = 20
    beam_size: int = 1
    length_penalty: float = 0.0

    @nn.compact
    def __call__(
        self, image: jax.Array, captions: jax.Array | None = None, *, train: bool
    ) -> dict[str, jax.Array]:
        memory = self._memory(image, train=train)  # [B, P, C]
        outputs = {}
        if captions is not None:
            rows, references, length = captions.shape
            words = captions[..., :-1].reshape(rows * references, length - 1)
            logits = self.decoder(words, jnp.repeat(memory, references, axis=0), train=train)
            outputs["logits"] = logits.reshape(rows, references, length - 1, -1)
        if not train:
            outputs["tokens"] = self._decode(memory)
        return outputs

    def _memory(self, image: jax.Array, *, train: bool) -> jax.Array:
        """Features of the image's places, each with its position. [B, H, W, C] -> [B, P, C']"""
        grid = self.encoder(image, train=train)
        grid = grid[-1] if isinstance(grid, tuple) else grid
        memory = grid.reshape(grid.shape[0], -1, grid.shape[-1])
        # as large as the features
        position = self.param("position", nn.initializers.normal(0.5), memory.shape[1:])
        return memory + position.astype(memory.dtype)[None]

    def _decode(self, memory: jax.Array) -> jax.Array:
        """The likeliest caption found. [B, P, C] -> [B, max_words] int32"""
        memory = jnp.repeat(memory, self.beam_size, axis=0)
        if self.is_initializing():  # without captions, nothing else made the decoder's parameters
            self.decoder(jnp.zeros((memory.shape[0], 1), jnp.int32), memory, train=False)
        decoder, variables = self.decoder.unbind()  # a bound module may not be called inside a scan
        context = decoder.apply(variables, memory, method="read")
        state = decoder.apply(variables, context, length=self.max_words, method="start")

        def step(state: Any, word: jax.Array, position: jax.Array) -> tuple[jax.Array, Any]:
            return decoder.apply(variables, state, word, position, context, method="step")

        # the rows of an example stay together, so their common context needs no reordering
        tokens, _ = beam_search(
            step,
            state,
            length=self.max_words,
            beam_size=self.beam_size,
            length_penalty=self.length_penalty,
        )
        return tokens[:, 0]


class AttentionLSTM(nn.Module):
    """An LSTM that, before each word, looks at the places of the image that matter for it: Xu et
    al. (2015), equations 1 to 9.

    Soft attention with the gate beta (section 4.2.1) and the deep output layer (equation 7).
    `width` is that of the LSTM and of the word vectors, `attention_width` that of the hidden layer
    which scores the places. Dropout (key "dropout") before the output layer.
    """

    vocabulary_size: int
    width: int = 512
    attention_width: int = 512
    dropout_rate: float = 0.0

    def setup(self):
        self.embedding = nn.Embed(self.vocabulary_size, self.width)
        self.first_hidden, self.first_cell = nn.Dense(self.width), nn.Dense(self.width)
        self.keys, self.query = (
            nn.Dense(self.attention_width),
            nn.Dense(self.attention_width, use_bias=False),
        )
        self.energy, self.gate = nn.Dense(1, use_bias=False), nn.Dense(1)
        self.cell = nn.OptimizedLSTMCell(self.width)
        self.from_hidden, self.from_seen = (
            nn.Dense(self.width),
            nn.Dense(self.width, use_bias=False),
        )
        self.dropout, self.output = nn.Dropout(self.dropout_rate), nn.Dense(self.vocabulary_size)

    def __call__(self, words: jax.Array, memory: jax.Array, *, train: bool) -> jax.Array:
        """Logits of each next word, given the words [N, T] and the image's places [N, P, C]. -> [N,
        T, V]
        """
        context = self.read(memory)

        def advance(decoder: "AttentionLSTM", state: Any, word: jax.Array) -> tuple[Any, jax.Array]:
            logits, state = decoder.step(state, word, None, context, train=train)
            return state, logits

        scan = nn.scan(
            advance,
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
        )
        return scan(self, self.start(context), words)[1]

    def read(self, memory: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What stays the same for all words: the places [N, P, C], and what the attention compares
        with [N, P, attention_width].
        """
        return memory, self.keys(memory)

    def start(self, context: Any, *, length: int = 0) -> tuple[jax.Array, jax.Array]:
        """The LSTM's cell and hidden state before the first word, each [N, width], from the mean of
        the places (section 3.1.2).
        """
        mean = context[0].mean(1)
        return nn.tanh(self.first_cell(mean)), nn.tanh(self.first_hidden(mean))

    def step(
        self, state: Any, word: jax.Array, position: Any, context: Any, *, train: bool = False
    ) -> tuple[jax.Array, Any]:
        """Logits [N, V] of the word after `word` [N], and the next state; the position is in the
        state already.
        """
        memory, keys = context
        hidden = state[1]
        energy = self.energy(nn.tanh(keys + self.query(hidden)[:, None]))[..., 0]  # [N, P]
        seen = nn.sigmoid(self.gate(hidden)) * jnp.einsum("np,npc->nc", nn.softmax(energy), memory)
        vector = self.embedding(word)
        state, hidden = self.cell(state, jnp.concatenate([vector, seen], axis=-1))
        joined = vector + self.from_hidden(hidden) + self.from_seen(seen)
        return self.output(self.dropout(joined, deterministic=not train)), state


class TransformerDecoder(nn.Module):
    """A causal transformer that attends to the words so far and to the image's places. Learned
    positions; GELU.

    A step computes the new word alone: keys and values of the earlier ones are kept in the state.
    Dropout (key "dropout") follows each branch. `max_length` bounds the tokens of a caption.
    """

    vocabulary_size: int
    width: int = 512
    num_layers: int = 2
    num_heads: int = 8
    dropout_rate: float = 0.0
    max_length: int = 64

    def setup(self):
        if self.width % self.num_heads:
            raise ConfigError(
                f"TransformerDecoder: width={self.width} must be a multiple of "
                f"num_heads={self.num_heads}"
            )
        self.embedding, self.positions = (
            nn.Embed(self.vocabulary_size, self.width),
            nn.Embed(self.max_length, self.width),
        )
        self.blocks = [
            DecoderBlock(self.width, self.num_heads, self.dropout_rate)
            for _ in range(self.num_layers)
        ]
        self.norm, self.output = nn.LayerNorm(), nn.Dense(self.vocabulary_size)

    def __call__(self, words: jax.Array, memory: jax.Array, *, train: bool) -> jax.Array:
        """Logits of each next word, given the words [N, T] and the image's places [N, P, C]. -> [N,
        T, V]
        """
        context = self.read(memory)
        return self._advance(
            self.start(context, length=words.shape[1]), words, jnp.int32(0), context, train=train
        )[0]

    def read(self, memory: jax.Array) -> list:
        """Keys and values of the places for each layer: what stays the same for all words."""
        return [block.across.project(memory) for block in self.blocks]

    def start(self, context: Any, *, length: int) -> list:
        """Room for the keys and values of `length` words in each layer, each [N, length, num_heads,
        width / num_heads].
        """
        if length > self.max_length:
            raise ConfigError(
                f"TransformerDecoder: captions of {length} tokens exceed "
                f"max_length={self.max_length}; set it larger"
            )
        return [
            tuple(jnp.zeros((x.shape[0], length, *x.shape[2:]), x.dtype) for x in layer)
            for layer in context
        ]

    def step(
        self, state: Any, word: jax.Array, position: jax.Array, context: Any
    ) -> tuple[jax.Array, Any]:
        """Logits [N, V] of the word after `word` [N], which stands at `position`, and the next
        state.
        """
        logits, state = self._advance(state, word[:, None], position, context, train=False)
        return logits[:, 0], state

    def _advance(
        self, state: Any, words: jax.Array, position: jax.Array, context: Any, *, train: bool
    ) -> tuple[jax.Array, Any]:
        """Read the words [N, T], the first of which stands at `position`. -> logits [N, T, V], next
        state
        """
        places = position + jnp.arange(words.shape[1], dtype=jnp.int32)
        x = self.embedding(words) + self.positions(places)[None]
        next_state = []
        for block, past, seen in zip(self.blocks, state, context, strict=True):
            x, past = block(x, past, seen, places, train=train)
            next_state.append(past)
        return self.output(self.norm(x)), next_state


class DecoderBlock(nn.Module):
    """Attention to the words so far, attention to the image, and a hidden layer four times as wide,
    each added to its input.
    """

    width: int
    num_heads: int
    dropout_rate: float

    def setup(self):
        self.within, self.across = (Attention(self.width, self.num_heads) for _ in range(2))
        self.norm_within, self.norm_across, self.norm_hidden = (nn.LayerNorm() for _ in range(3))
        self.hidden, self.back = nn.Dense(4 * self.width), nn.Dense(self.width)
        self.dropout = nn.Dropout(self.dropout_rate)

    def __call__(
        self, x: jax.Array, past: Any, seen: Any, places: jax.Array, *, train: bool
    ) -> tuple[jax.Array, Any]:
        """Words [N, T, width] that stand at `places` [T], after the `past` ones, seeing the image.
        -> the same, and the past with them
        """

        def drop(branch: jax.Array) -> jax.Array:
            return self.dropout(branch, deterministic=not train)

        y = self.norm_within(x)
        new = self.within.project(y)
        past = tuple(
            jax.lax.dynamic_update_slice(old, part, (0, places[0], 0, 0))
            for old, part in zip(past, new, strict=True)
        )
        # [T, length]
        is_past = jnp.arange(past[0].shape[1], dtype=jnp.int32)[None] <= places[:, None]
        x = x + drop(self.within(y, past, is_past[None, None]))
        x = x + drop(self.across(self.norm_across(x), seen))
        return x + drop(self.back(nn.gelu(self.hidden(self.norm_hidden(x))))), past


class Attention(nn.Module):
    """Scaled dot-product attention with several heads: Vaswani et al. (2017), section 3.2.2."""

    width: int
    num_heads: int

    def setup(self):
        heads = (self.num_heads, self.width // self.num_heads)
        self.query, self.key, self.value = (nn.DenseGeneral(heads) for _ in range(3))
        self.output = nn.DenseGeneral(self.width, axis=(-2, -1))

    def project(self, source: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values of what can be attended to. [N, S, C] -> 2 x [N, S, num_heads, width /
        num_heads]
        """
        return self.key(source), self.value(source)

    def __call__(self, x: jax.Array, source: Any, mask: jax.Array | None = None) -> jax.Array:
        """What x [N, T, width] finds in keys and values, where the mask [1, 1, T, S] is true. ->
        [N, T, width]
        """
        key, value = source
        scores = jnp.einsum("nthd,nshd->nhts", self.query(x), key) / math.sqrt(key.shape[-1])
        if mask is not None:
            scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        return self.output(jnp.einsum("nhts,nshd->nthd", nn.softmax(scores), value))


class GridEncoder(nn.Module):
    """Stages of 3x3 convolutions with BatchNorm and ReLU, max pooling between them: [B, H, W, C] ->
    [B, H / s, W / s, widths[-1]] with s = 2 ** (len(widths) - 1); `depth` convolutions in each
    stage.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    depth: int = 1

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        require_image("GridEncoder", image, at_least=2 ** (len(self.widths) - 1))
        x = image
        for stage, width in enumerate(self.widths):
            x = max_pool(x, (2, 2)) if stage else x
            for i in range(self.depth):
                x = ConvNorm(width, name=f"stage{stage + 1}_{i}")(x, train=train)
        return x
