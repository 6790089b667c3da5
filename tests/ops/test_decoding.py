"""Beam search against all sentences there are, and against a beam search of dictionaries in plain
Python.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.ops.decoding import END, PAD, SPECIAL_WORDS, START, UNKNOWN, beam_search, to_words

NUM_WORDS, LENGTH = 6, 3  # words 2 (end), 3, 4, 5 may be chosen


def markov(seed, rows, num_words=NUM_WORDS):
    """A random model for each row whose next word depends on the position, the last word and the
    one before it.
    """
    return (
        np.random.default_rng(seed)
        .normal(size=(rows, LENGTH, num_words, num_words, num_words))
        .astype(np.float32)
        * 2
    )


def step_of(logits):
    """The step of `beam_search` for logits [B, T, V, V, V] and rows of the state (example, word
    before the last).
    """

    def step(state, word, position):
        example, before = state
        return jnp.asarray(logits)[example, position, before, word], (example, word)

    return step


def start_state(rows, beam_size):
    return jnp.repeat(jnp.arange(rows), beam_size), jnp.zeros(rows * beam_size, jnp.int32)


def log_probability(logits, sentence):
    """log P of a sentence under one row's logits [T, V, V, V], in float64."""
    total, before, last = 0.0, 0, START
    for position, word in enumerate(sentence):
        row = logits[position, before, last].astype(np.float64)
        total += row[word] - np.log(np.exp(row).sum())
        before, last = last, word
    return total


def all_sentences(num_words=NUM_WORDS):
    """Everything that can be said: words and an end, or LENGTH words without one."""
    words = range(UNKNOWN, num_words)
    for count in range(LENGTH):
        yield from ((*sentence, END) for sentence in itertools.product(words, repeat=count))
    yield from itertools.product(words, repeat=LENGTH)


def padded(sentence):
    return [*sentence, *[PAD] * (LENGTH - len(sentence))]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_wide_beam_finds_the_best_of_all_sentences(seed, penalty):
    logits = markov(seed, rows=4)
    beam_size = len(list(all_sentences()))  # 40: nothing is ever dropped
    search = jax.jit(
        lambda state: beam_search(
            step_of(logits), state, length=LENGTH, beam_size=beam_size, length_penalty=penalty
        )
    )
    tokens, scores = search(start_state(4, beam_size))
    for row in range(4):
        known = {
            s: log_probability(logits[row], s) / ((5 + len(s)) / 6) ** penalty
            for s in all_sentences()
        }
        ranked = sorted(known, key=known.__getitem__, reverse=True)
        np.testing.assert_array_equal(tokens[row], [padded(s) for s in ranked])
        np.testing.assert_allclose(scores[row], [known[s] for s in ranked], rtol=1e-4)


def search_in_plain_python(logits, beam_size):
    """The same rule by lists and dictionaries: the beam_size likeliest of all continuations, ended
    ones among them.
    """
    beam = {(): 0.0}
    for _ in range(LENGTH):
        longer = {}
        for sentence in beam:
            nexts = (
                [()]
                if sentence and sentence[-1] == END
                else [(word,) for word in range(END, NUM_WORDS)]
            )
            for word in nexts:
                longer[sentence + word] = log_probability(logits, sentence + word)
        beam = dict(sorted(longer.items(), key=lambda item: -item[1])[:beam_size])
    return beam


@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_a_narrow_beam_equals_plain_python(beam_size):
    logits = markov(7, rows=20)
    tokens, scores = beam_search(
        step_of(logits), start_state(20, beam_size), length=LENGTH, beam_size=beam_size
    )
    assert (tokens.shape, tokens.dtype, scores.dtype) == (
        (20, beam_size, LENGTH),
        jnp.int32,
        jnp.float32,
    )
    for row in range(20):
        expected = search_in_plain_python(logits[row], beam_size)
        assert [tuple(t) for t in np.asarray(tokens[row])] == [tuple(padded(s)) for s in expected]
        np.testing.assert_allclose(scores[row], list(expected.values()), rtol=1e-4)


def test_a_beam_of_one_is_greedy():
    logits, rows = markov(3, rows=50), 50
    tokens, _ = beam_search(step_of(logits), start_state(rows, 1), length=LENGTH)
    for row in range(rows):
        before, last, sentence = 0, START, []
        for position in range(LENGTH):
            word = END + int(np.argmax(logits[row, position, before, last, END:]))
            sentence.append(word)
            before, last = last, word
            if word == END:
                break
        np.testing.assert_array_equal(tokens[row, 0], padded(sentence))


def test_a_length_penalty_prefers_longer_sentences():
    logits = markov(5, rows=30)
    lengths = [
        float(
            (
                beam_search(
                    step_of(logits),
                    start_state(30, 40),
                    length=LENGTH,
                    beam_size=40,
                    length_penalty=p,
                )[0][:, 0]
                != PAD
            ).sum()
        )
        for p in (0.0, 2.0, 8.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


def test_vmap_equals_a_loop():
    logits = [markov(seed, rows=3) for seed in range(3)]

    def search(table):
        return beam_search(step_of(table), start_state(3, 2), length=LENGTH, beam_size=2)

    tokens, scores = jax.vmap(search)(jnp.stack([jnp.asarray(table) for table in logits]))
    for i, table in enumerate(logits):
        np.testing.assert_array_equal(tokens[i], search(table)[0])
        np.testing.assert_allclose(scores[i], search(table)[1], rtol=1e-6)


@pytest.mark.parametrize("beam_size", [0, 4])
def test_a_beam_that_does_not_fit_is_refused(beam_size):
    with pytest.raises(
        ConfigError, match=f"beam_size={beam_size} must be at least 1 and divide the 6 rows"
    ):
        beam_search(step_of(markov(0, 3)), start_state(3, 2), length=LENGTH, beam_size=beam_size)


def test_words_stop_at_the_end():
    names = (*SPECIAL_WORDS, "a", "cat")
    assert to_words([START, 4, 5, END, 4, PAD], names=names) == ("a", "cat")
    assert to_words(np.array([4, UNKNOWN, 9]), names=names) == ("a", "<unknown>", "<9>")
    assert to_words([4, 5]) == ("<4>", "<5>")
    assert to_words([END, PAD]) == to_words([PAD, PAD]) == ()
