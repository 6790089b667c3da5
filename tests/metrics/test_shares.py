"""Intervals of shares against published ones, McNemar's test against sums of binomials, intervals
of differences against SciPy's.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from jaxcnn.metrics.shares import mcnemar, paired_difference, share_interval, wilson

# R. G. Newcombe, "Two-sided confidence intervals for the single proportion: comparison of seven
# methods" (1998), table I, method 3
PUBLISHED = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize("successes, trials, low, high", PUBLISHED)
def test_wilson_is_as_published(successes, trials, low, high):
    found = wilson(successes, trials)
    assert found == pytest.approx((low, high), abs=5.1e-5)
    assert share_interval(successes / trials, trials) == found


def test_wilson_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    for successes, trials in ((0, 1), (1, 1), (0, 7), (7, 7), (3, 7), (997, 1000), (5, 10**7)):
        theirs = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        found = wilson(successes, trials)
        assert found == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)
        assert 0 <= found[0] <= successes / trials <= found[1] <= 1


def test_what_is_no_share_of_so_many_has_no_interval():
    for share, trials in ((0.5, 3), (1.2, 10), (-0.1, 10), (0.0, 0), (float("nan"), 5)):
        assert share_interval(share, trials) is None


@pytest.mark.parametrize("first, second", list(itertools.product(range(5), range(5))))
def test_mcnemar_is_a_sum_of_binomials(first, second):
    """p by hand: all splits that are no likelier than the one that is seen."""
    a = np.array([True] * first + [False] * second + [True] * 7 + [False] * 2)
    b = np.array([False] * first + [True] * second + [True] * 7 + [False] * 2)
    n = first + second
    ways = [math.comb(n, k) for k in range(n + 1)]
    p = Fraction(sum(w for w in ways if w <= ways[first]), 2**n)
    found = mcnemar(a, b)
    assert found == {
        "both": 7,
        "first_only": first,
        "second_only": second,
        "neither": 2,
        "p": pytest.approx(float(p), abs=1e-12),
    }


@pytest.mark.parametrize("count", [2, 3, 50])
def test_paired_differences_are_scipys(count):
    first, second = np.random.default_rng(count).normal(size=(2, count)).astype(np.float32)
    found = paired_difference(first, second)
    wide = first.astype(np.float64), second.astype(np.float64)
    expected = stats.ttest_rel(wide[1], wide[0]).confidence_interval(0.95)
    assert found["interval95"] == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found["mean"] == pytest.approx((wide[1] - wide[0]).mean())
    assert (found["examples"], found["left_out"]) == (count, 0)


def test_what_is_not_finite_is_counted_and_left_out():
    first = np.array([1.0, np.inf, 2.0, 3.0])
    second = np.array([2.0, 1.0, np.nan, 5.0])
    found = paired_difference(first, second)
    assert (found["mean"], found["examples"], found["left_out"]) == (1.5, 2, 2)
    assert paired_difference(first[1:2], second[1:2])["mean"] is None
    assert paired_difference(first[:1], second[:1])["interval95"] is None
