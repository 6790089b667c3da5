"""Sentences as token numbers, and their decoding word by word: greedy and beam search as one
`lax.scan`, inside the compiled program.

Token 0 is padding, 1 the start, 2 the end, 3 a word that the vocabulary lacks; words follow. A
caption is start, words, end, padding.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int32, Integer, PyTree, Shaped

from jaxcnn.errors import ConfigError

PAD, START, END, UNKNOWN = range(4)
SPECIAL_WORDS = ("<pad>", "<start>", "<end>", "<unknown>")  # the first words of every vocabulary

State = PyTree[Shaped[Array, "N ..."]]
# (state, last word, position) -> (logits of the next word, next state)
Step = Callable[[State, Int32[Array, " N"], Int32[Array, ""]], tuple[Float[Array, "N V"], State]]


def beam_search(
    step: Step,
    state: State,
    *,
    length: int,
    beam_size: int = 1,
    length_penalty: float | Float[Array, ""] = 0.0,
) -> tuple[Int32[Array, "B {beam_size} {length}"], Float32[Array, "B {beam_size}"]]:
    """The likeliest sentences found: tokens [B, beam_size, length] int32, best first, and their
    scores [B, beam_size] float32.

    At each position the `beam_size` likeliest beginnings are kept; one that has ended stays among
    them with the probability it has, and padding follows. `beam_size=1` is greedy decoding. The
    score is log P / ((5 + n) / 6) ** length_penalty for n tokens, the end included: Wu et al.,
    "Google's neural machine translation system" (2016), equation 14. A penalty of 0 leaves log P,
    above 0 it favours longer sentences.

    Args:
        step: gives the logits of the next word; padding and start are never chosen. Called with the
            start token first.
        state: leaves [B * beam_size, …], the rows of one example next to each other and equal.
        length: tokens decoded at most, the end included; a sentence that has not ended by then is
            cut.
    """
    num_rows = jax.tree.leaves(state)[0].shape[0]
    if beam_size < 1 or num_rows % beam_size:
        raise ConfigError(
            f"beam_search: beam_size={beam_size} must be at least 1 and divide the {num_rows} "
            "rows of the state"
        )
    num_examples = num_rows // beam_size

    def advance(carry: tuple, position: Int32[Array, ""]) -> tuple[tuple, None]:
        state, tokens, scores, last = carry  # tokens [B, K, T], scores and last [B, K]
        logits, state = step(state, last.reshape(-1), position)
        num_words = logits.shape[-1]
        total = scores[..., None] + _log_probabilities(
            logits.reshape(num_examples, beam_size, num_words), last
        )
        scores, chosen = lax.top_k(total.reshape(num_examples, -1), beam_size)
        parent, word = chosen // num_words, chosen % num_words
        rows = (jnp.arange(num_examples, dtype=jnp.int32)[:, None] * beam_size + parent).reshape(-1)
        state = jax.tree.map(lambda x: x[rows], state)
        tokens = jnp.take_along_axis(tokens, parent[..., None], axis=1).at[:, :, position].set(word)
        return (state, tokens, scores, word), None

    tokens = jnp.full((num_examples, beam_size, length), PAD, jnp.int32)
    # All rows of an example begin alike, so only the first may be continued at first.
    scores = jnp.broadcast_to(
        jnp.where(jnp.arange(beam_size) == 0, 0.0, -jnp.inf).astype(jnp.float32)[None],
        (num_examples, beam_size),
    )
    start = jnp.full((num_examples, beam_size), START, jnp.int32)
    (_, tokens, scores, _), _ = lax.scan(
        advance, (state, tokens, scores, start), jnp.arange(length, dtype=jnp.int32)
    )
    num_tokens = (tokens != PAD).sum(-1).astype(jnp.float32)
    scores = scores / ((5.0 + num_tokens) / 6.0) ** jnp.asarray(length_penalty, jnp.float32)
    order = jnp.argsort(-scores, axis=-1, stable=True)
    return jnp.take_along_axis(tokens, order[..., None], axis=1), jnp.take_along_axis(
        scores, order, axis=1
    )


def to_words(
    tokens: Sequence[int] | Integer[Array | np.ndarray, " T"], *, names: Sequence[str] = ()
) -> tuple[str, ...]:
    """The words of a row of tokens, on the host: up to the end, without start and padding;
    `<number>` for a token without a name.
    """
    words = []
    for token in np.asarray(tokens).tolist():
        if token == END:
            break
        if token not in (PAD, START):
            words.append(names[token] if 0 <= token < len(names) else f"<{token}>")
    return tuple(words)


def _log_probabilities(
    logits: Float[Array, "B K V"], last: Int32[Array, "B K"]
) -> Float32[Array, "B K V"]:
    """log P of the next word after `last`: only padding follows the end, nothing else may be
    padding or start. [B, K, V] float32
    """
    word = jnp.arange(logits.shape[-1])[None, None]
    has_ended = ((last == END) | (last == PAD))[..., None]
    opened = jnp.where(
        (word == PAD) | (word == START), -jnp.inf, jax.nn.log_softmax(logits.astype(jnp.float32))
    )
    return jnp.where(has_ended, jnp.where(word == PAD, 0.0, -jnp.inf), opened)
