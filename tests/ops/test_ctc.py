"""CTC decoding against summing over all paths."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.ops import ctc


def spell(path, blank=0):
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def sum_over_paths(log_probabilities, blank=0):
    """The probability of each sequence, from every one of the K^T paths."""
    frames, classes = log_probabilities.shape
    total: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(classes), repeat=frames):
        weight = np.exp(sum(log_probabilities[t, label] for t, label in enumerate(path)))
        total[spell(path, blank)] = total.get(spell(path, blank), 0.0) + weight
    return total


def random_frames(seed, frames, classes, batch=()):
    logits = 2 * np.random.default_rng(seed).normal(size=(*batch, frames, classes))
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize(
    "seed, frames, classes, blank",
    [(0, 4, 3, 0), (1, 5, 3, 0), (2, 5, 3, 2), (3, 1, 4, 0), (4, 6, 2, 1)],
)
def test_beam_search_equals_the_sum_over_all_paths(seed, frames, classes, blank):
    rows = random_frames(seed, frames, classes)
    expected = sum_over_paths(rows, blank)
    found = ctc.beam_search(rows, width=10_000, blank=blank)
    assert {prefix: np.exp(score) for prefix, score in found if score > -np.inf} == pytest.approx(
        expected
    )
    assert found[0][0] == max(expected, key=lambda sequence: expected[sequence])
    narrow = ctc.beam_search(rows, width=3, blank=blank)
    assert len(narrow) == min(3, len(expected))
    assert all(np.exp(score) <= expected[prefix] * (1 + 1e-9) for prefix, score in narrow)


def test_beam_search_finds_what_greedy_misses():
    """Two frames, blank .6 and a .4 in each: greedy spells nothing (.36), but "a" is likelier
    (.64). Graves et al. 2006, section 3.2.
    """
    rows = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert ctc.beam_search(rows)[0] == ((1,), pytest.approx(np.log(0.64)))
    assert int(ctc.greedy(jnp.asarray(rows, jnp.float32)[None])[1][0]) == 0


@pytest.mark.parametrize("blank", [0, 2])
def test_greedy_spells_the_likeliest_path(blank):
    rows = random_frames(5, 12, 4, batch=(30,))
    frames = np.random.default_rng(6).integers(0, 13, 30)
    decode = jax.jit(lambda logits, frames: ctc.greedy(logits, frames=frames, blank=blank))
    labels, lengths = jax.device_get(decode(jnp.asarray(rows, jnp.float32), jnp.asarray(frames)))
    for i in range(30):
        expected = spell(rows[i, : frames[i]].argmax(axis=-1).tolist(), blank)
        assert tuple(labels[i, : lengths[i]]) == expected
        assert (labels[i, lengths[i] :] == ctc.PADDING).all()
    whole = ctc.greedy(jnp.asarray(rows, jnp.float32), blank=blank)
    np.testing.assert_array_equal(
        whole[0], decode(jnp.asarray(rows, jnp.float32), jnp.full(30, 12))[0]
    )


@pytest.mark.parametrize("labels", [(), (1,), (1, 1), (1, 2, 2, 2, 1)])
def test_frames_needed_is_the_shortest_path_that_spells_the_labels(labels):
    shortest = next(
        n
        for n in range(9)
        if any(spell(path) == labels for path in itertools.product(range(3), repeat=n))
    )
    assert ctc.frames_needed(labels) == shortest
