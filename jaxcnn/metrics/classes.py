"""What counts of right and called examples say of each class, and of all classes together. NumPy,
on the host.

For K classes: hits [K] examples of the class that were called so, called [K] all that were called
so, support [K] all that are so. Counts add, so batches, devices and splits add too.
"""

from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped

from jaxcnn.errors import DataError

Counts = Integer[np.ndarray, " K"]


def per_class(hits: Counts, called: Counts, support: Counts) -> dict[str, list[Any]]:
    """per_class_recall, per_class_precision, per_class_f1 and per_class_support, lists of K. None
    where a number does not exist: a recall without examples, a precision without calls, an F1
    without either.
    """
    return {
        "per_class_recall": _ratios(hits, support),
        "per_class_precision": _ratios(hits, called),
        "per_class_f1": _ratios(2 * hits, called + support),
        "per_class_support": support.tolist(),
    }


def averages(hits: Counts, called: Counts, support: Counts) -> dict[str, float]:
    """macro_recall, macro_precision and macro_f1: means over the classes that occur, among examples
    or calls, 0 for a number that does not exist (as scikit-learn has them); balanced_accuracy: the
    mean recall of the classes that have examples. NaN where nothing occurs.
    """
    occurs, exists = (called + support) > 0, support > 0
    recall, precision, f1 = (
        _zeros(top, below)
        for top, below in ((hits, support), (hits, called), (2 * hits, called + support))
    )
    return {
        "macro_recall": _mean(recall[occurs]),
        "macro_precision": _mean(precision[occurs]),
        "macro_f1": _mean(f1[occurs]),
        "balanced_accuracy": _mean(recall[exists]),
    }


def agreement(hits: Counts, called: Counts, support: Counts) -> dict[str, float]:
    """cohen_kappa and mcc of one label an example, beyond what chance alone would give.

    J. Cohen, "A coefficient of agreement for nominal scales" (1960); J. Gorodkin, "Comparing two
    K-category assignments by a K-category correlation coefficient" (2004). NaN for a kappa where
    one class is all there is; an MCC is 0 where all examples are, or are called, one class.
    """
    # in Python's integers, which have no largest one
    right, size = int(hits.sum()), int(support.sum())
    pairs = list(zip(called.tolist(), support.tolist(), strict=True))
    chance = sum(c * s for c, s in pairs)
    spread_called = size * size - sum(c * c for c, _ in pairs)
    spread_support = size * size - sum(s * s for _, s in pairs)
    scale = (spread_called * spread_support) ** 0.5
    left = size * size - chance
    return {
        "cohen_kappa": (right * size - chance) / left if left else float("nan"),
        "mcc": (right * size - chance) / scale if scale else 0.0,
    }


def balanced_weights(
    label: Shaped[np.ndarray, " N"], *, num_classes: int, power: float = 1.0
) -> tuple[float, ...]:
    """Weights of classes by which each class counts alike in the loss: (N / (K * examples of the
    class)) ** power, as scikit-learn's "balanced" for power 1; their mean over the examples is 1.
    A power of 0.5 goes half the way, where a class is so rare that few examples would rule.

    Give it the labels of the training split, such as `data.open("train").arrays["label"]`.
    Errors: DataError for a class without examples, which has no weight.
    """
    counts = np.bincount(np.asarray(label), minlength=num_classes)
    if len(counts) > num_classes or (counts == 0).any():
        missing = np.flatnonzero(counts[:num_classes] == 0).tolist()
        found = (
            f"classes {missing} have no examples"
            if len(counts) <= num_classes
            else f"labels reach {len(counts) - 1}"
        )
        raise DataError(
            f"balanced_weights: with num_classes={num_classes}, {found}; correct num_classes, or "
            "give class_weights by hand"
        )
    weights = (counts.sum() / (num_classes * counts)) ** power
    return tuple((weights * (counts.sum() / (weights * counts).sum())).tolist())


def _ratios(top: np.ndarray, below: np.ndarray) -> list[float | None]:
    return [t / b if b else None for t, b in zip(top.tolist(), below.tolist(), strict=True)]


def _zeros(top: np.ndarray, below: np.ndarray) -> np.ndarray:
    return top / np.maximum(below, 1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
