"""Ranking metrics against scikit-learn and against counting over all pairs and thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.errors import DataError
from jaxcnn.metrics import ranking

# Few distinct scores, so that most rows are tied.
ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([-3.0, -0.25, 0.0, 0.1, 0.25, 7.0])),
    min_size=1,
    max_size=60,
)


def arrays(rows):
    label, score = zip(*rows, strict=True)
    return np.array(label), np.array(score)


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_agrees_with_scikit_learn(rows):
    metrics = pytest.importorskip("sklearn.metrics")
    label, score = arrays(rows)
    if label.any():
        np.testing.assert_allclose(
            ranking.average_precision(label, score),
            metrics.average_precision_score(label, score),
            atol=1e-12,
        )
        precision, recall, threshold = ranking.precision_recall(label, score)
        theirs = metrics.precision_recall_curve(label, score)
        np.testing.assert_allclose(precision[::-1], theirs[0][:-1], atol=1e-12)
        np.testing.assert_allclose(recall[::-1], theirs[1][:-1], atol=1e-12)
        np.testing.assert_array_equal(threshold[::-1], theirs[2])
    if 0 < label.sum() < label.size:
        np.testing.assert_allclose(
            ranking.auroc(label, score), metrics.roc_auc_score(label, score), atol=1e-12
        )


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_auroc_is_the_share_of_pairs_won(rows):
    label, score = arrays(rows)
    pairs = np.sign(score[label == 1][:, None] - score[label == 0][None, :]) / 2 + 0.5
    ours = ranking.auroc(label, score)
    assert np.isnan(ours) if pairs.size == 0 else ours == pytest.approx(pairs.mean(), abs=1e-12)


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_best_f1_threshold_is_best_over_all_thresholds(rows):
    metrics = pytest.importorskip("sklearn.metrics")
    label, score = arrays(rows)
    threshold, f1 = ranking.best_f1_threshold(label, score)
    candidates = [
        metrics.f1_score(label, score >= cut, zero_division=0.0) for cut in np.unique(score)
    ]
    assert f1 == pytest.approx(max(candidates), abs=1e-12)
    assert metrics.f1_score(label, score >= threshold, zero_division=0.0) == pytest.approx(
        f1, abs=1e-12
    )


def test_order_of_tied_rows_does_not_matter():
    generator = np.random.default_rng(0)
    label, score = generator.integers(0, 2, 500), generator.integers(0, 6, 500) / 7
    values = set()
    for _ in range(5):
        order = generator.permutation(500)
        chosen = label[order], score[order]
        values.add(
            (
                ranking.auroc(*chosen),
                ranking.average_precision(*chosen),
                *ranking.best_f1_threshold(*chosen),
            )
        )
    assert len(values) == 1


def test_the_threshold_is_midway_and_the_lowest_score_where_all_are_positive():
    label, score = np.array([0, 1, 0, 1, 1]), np.array([0.25, 0.5, 0.125, 1.0, 0.75])
    assert ranking.best_f1_threshold(label, score) == (0.375, 1.0)
    assert ranking.best_f1_threshold(label[:2], score[:2]) == (0.375, 1.0)
    assert ranking.best_f1_threshold(np.ones(3, int), score[:3]) == (0.125, 1.0)
    # the highest of equals: F1 is 2 / 3 for the first row alone and for all
    assert ranking.best_f1_threshold(np.array([1, 0, 0, 1]), score[[3, 4, 1, 0]])[0] == 0.875


@pytest.mark.parametrize("low", [0.3, np.nextafter(0.3, 1.0)])  # half of all sums round down
def test_threshold_between_neighbouring_floats_still_separates(low):
    high = np.nextafter(low, 1.0)
    threshold, f1 = ranking.best_f1_threshold(np.array([0, 1]), np.array([low, high]))
    assert (f1, low < threshold <= high) == (1.0, True)


@pytest.mark.parametrize(
    "label, score, says",
    [
        ([0, 1], [0.5], "equal length"),
        ([0, 1], [0.5, np.nan], r"score\[1\] is NaN"),
        ([[0]], [[1.0]], "one-dim"),
        ([0, 1, -1], [0.1, 0.2, 0.3], r"label\[2\] is -1; labels are 0 or 1.* 1 of 3 are not"),
        ([0.0, np.nan], [0.1, 0.2], r"label\[1\] is nan"),
        ([0, 2, 3], [0.1, 0.2, 0.3], r"label\[1\] is 2; .*2 of 3 are not"),
    ],
)
def test_bad_input_is_refused(label, score, says):
    with pytest.raises(DataError, match=says):
        ranking.auroc(np.array(label), np.array(score))
