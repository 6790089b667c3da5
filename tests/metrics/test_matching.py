"""Matching by its properties, and the H-mean by hand."""

import numpy as np
import pytest

from jaxcnn.metrics import matching


@pytest.mark.parametrize("seed", range(5))
def test_matching_is_one_to_one_and_leaves_nothing_to_match(seed):
    similarity = np.random.default_rng(seed).random((7, 5)).round(1)
    pairs = matching.match(similarity, threshold=0.5)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    values = similarity[tuple(pairs.T)]
    assert (values > 0.5).all()
    left = np.delete(np.delete(similarity, pairs[:, 0], axis=0), pairs[:, 1], axis=1)
    assert left.size == 0 or left.max() <= 0.5  # nothing more could be matched


def test_nothing_to_match():
    assert matching.match(np.zeros((0, 3)), threshold=0.5).shape == (0, 2)
    assert matching.match(np.full((2, 3), 0.5), threshold=0.5).shape == (0, 2)


def test_harmonic_mean():
    ours = matching.harmonic_mean(6, 8, 10)
    assert ours == pytest.approx(
        {"precision": 0.75, "recall": 0.6, "hmean": 2 / (1 / 0.75 + 1 / 0.6)}
    )
    assert matching.harmonic_mean(0, 0, 0) == {"precision": 0, "recall": 0, "hmean": 0}


def test_one_of_each_is_all():
    assert matching.harmonic_mean(1, 1, 1) == {"precision": 1, "recall": 1, "hmean": 1}
    assert matching.harmonic_mean(0, 1, 0) == {"precision": 0, "recall": 0, "hmean": 0}
