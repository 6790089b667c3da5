"""Exact metrics of a binary ranking: AUROC, average precision, precision-recall curve, the
threshold of the best F1. NumPy, on the host.

`label` [N] is 1 (or True) for positives and 0 for negatives, `score` [N] is larger for likelier
positives; a row is called positive at a threshold t where score >= t. Equal scores are one cut
point, so the order of tied rows never matters. Everything is float64.
Sources: Hanley and McNeil, "The meaning and use of the area under a receiver operating
characteristic (ROC) curve", 1982; Davis and Goadrich, "The relationship between precision-recall
and ROC curves", 2006 (why precision is not interpolated linearly).
"""

import numpy as np
from jaxtyping import Array, Float64, Int64, Real, Shaped

from jaxcnn.errors import DataError

# [N], which `cut_points` checks, for users as well
Labels = Shaped[Array | np.ndarray, "..."]
Scores = Real[Array | np.ndarray, "..."]


def cut_points(
    label: Labels, score: Scores
) -> tuple[Float64[np.ndarray, " M"], Int64[np.ndarray, " M"], Int64[np.ndarray, " M"]]:
    """Thresholds [M] (the distinct scores, descending) with the true and false positives [M] int64
    at each.

    Errors: DataError if the two differ in shape, are not one-dimensional, a label is neither 0 nor
    1, or a score is NaN.
    """
    label, value = np.asarray(label), np.asarray(score, np.float64)
    positive = label == 1
    if positive.shape != value.shape or value.ndim != 1:
        raise DataError(
            f"label and score must be one-dimensional and of equal length; got {positive.shape} "
            f"and {value.shape}"
        )
    other = ~(positive | (label == 0))
    if other.any():
        place = int(np.argmax(other))
        raise DataError(
            f"label[{place}] is {label[place]}; labels are 0 or 1 (1: positive), and "
            f"{int(other.sum())} of {other.size} are not. Give label == k for the class k"
        )
    if np.isnan(value).any():
        raise DataError(
            f"score[{int(np.argmax(np.isnan(value)))}] is NaN; a ranking needs finite scores: "
            "look at the loss of this run"
        )
    order = np.argsort(-value, kind="stable")
    positive, value = positive[order], value[order]
    last = (
        np.flatnonzero(np.append(value[1:] != value[:-1], True))
        if value.size
        else np.zeros(0, np.int64)
    )
    true_positives = np.cumsum(positive, dtype=np.int64)[last]
    return value[last], true_positives, last + 1 - true_positives


def auroc(label: Labels, score: Scores) -> float:
    """The probability that a random positive scores above a random negative, ties counting half;
    NaN if either class is absent.
    """
    _, true_positives, false_positives = cut_points(label, score)
    if not true_positives.size or not true_positives[-1] or not false_positives[-1]:
        return float("nan")
    # Pairs counted in integers: a new negative is outscored by all positives above its score and by
    # half of those at it.
    below = np.diff(false_positives, prepend=0)
    doubled_wins = np.sum(below * (2 * true_positives - np.diff(true_positives, prepend=0)))
    return float(doubled_wins / (2.0 * true_positives[-1] * false_positives[-1]))


def precision_recall(
    label: Labels, score: Scores
) -> tuple[Float64[np.ndarray, " M"], Float64[np.ndarray, " M"], Float64[np.ndarray, " M"]]:
    """Precision [M], recall [M] and threshold [M] at each distinct score, highest first; recall is
    NaN if there is no positive.
    """
    threshold, true_positives, false_positives = cut_points(label, score)
    total = true_positives[-1] if true_positives.size else 0
    recall = true_positives / total if total else np.full(threshold.shape, np.nan)
    return true_positives / (true_positives + false_positives), recall, threshold


def average_precision(label: Labels, score: Scores) -> float:
    """Sum over cut points of precision times the gain in recall (no interpolation); NaN if there is
    no positive.
    """
    precision, recall, _ = precision_recall(label, score)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision)) if recall.size else float("nan")


def best_f1_threshold(label: Labels, score: Scores) -> tuple[float, float]:
    """The threshold of the highest F1 over all cut points, and that F1; the higher threshold where
    several are equal.

    The threshold lies midway between the last score called positive and the next lower one, so that
    rounding cannot turn a row over; it is the lowest score itself where calling all rows positive
    is best. Without positives: (infinity, 0.0).
    """
    threshold, true_positives, false_positives = cut_points(label, score)
    if not threshold.size or not true_positives[-1]:
        return float("inf"), 0.0
    f1 = 2 * true_positives / (true_positives + false_positives + true_positives[-1])
    best = int(np.argmax(f1))
    middle = threshold[best] / 2 + threshold[min(best + 1, threshold.size - 1)] / 2
    # Two neighbouring floats have no float between them.
    is_between = best + 1 < threshold.size and threshold[best + 1] < middle <= threshold[best]
    return float(middle if is_between else threshold[best]), float(f1[best])
