"""Which rows are chosen: pure functions of labels, groups and numbers. No data are read here."""

from collections.abc import Sequence

import numpy as np


def share_of(total: int, fraction: float) -> int:
    """How many of `total` rows a share in [0, 1) is, rounded down; it may be none."""
    return int(total * fraction + 1e-9)  # 0.2 * 5 must give 1 whatever the rounding


def spread(size: int, count: int, *, labels: np.ndarray | None = None) -> np.ndarray:
    """A mask [size] bool of `count` rows, evenly spaced in the order of their `labels` [size] (of
    the rows themselves where there are none): each class gives its share to within one row.
    """
    positions = np.arange(size + 1) * count // max(size, 1)
    order = np.arange(size) if labels is None else np.argsort(labels, kind="stable")
    mask = np.zeros(size, bool)
    mask[order[np.diff(positions) > 0]] = True
    return mask


def fold_numbers(size: int, folds: int, *, labels: np.ndarray | None = None) -> np.ndarray:
    """The fold of each row, [size] int in [0, folds): dealt out in the order of the labels, so that
    folds, and each class in them, differ by one row at most.
    """
    order = np.arange(size) if labels is None else np.argsort(labels, kind="stable")
    numbers = np.empty(size, np.int64)
    numbers[order] = np.arange(size) % folds
    return numbers


def deal_groups(
    groups: np.ndarray, shares: Sequence[float], *, labels: np.ndarray | None = None
) -> np.ndarray:
    """The part of each row, [N] int in [0, len(shares)): rows of one group lie in one part, and
    the parts come near their shares of the rows of each class.

    Groups, the largest first, go one by one where the squared deviation from the wanted counts
    grows least: sum over classes and parts of (count / total of the class)^2 / share. Among parts
    where it grows alike (none of them has these classes), where there are the fewest rows by share.
    """
    _, group = np.unique(groups, return_inverse=True)
    classes, label = np.unique(
        np.zeros(len(group), np.int32) if labels is None else labels, return_inverse=True
    )
    counts = np.zeros((group.max(initial=-1) + 1, len(classes)))
    np.add.at(counts, (group, label), 1)
    weight = 1 / counts.sum(0) ** 2  # [K]
    share = np.asarray(shares, float)
    held = np.zeros((len(share), len(classes)))
    part_of = np.empty(len(counts), np.int64)
    for number in np.argsort(-counts.sum(1), kind="stable"):
        own = counts[number]
        growth = ((2 * held * own + own**2) * weight).sum(1) / share
        alike = growth <= growth.min() * (1 + 1e-9)
        part_of[number] = part = int(np.argmin(np.where(alike, held.sum(1) / share, np.inf)))
        held[part] += own
    return part_of[group]


def balanced_rows(labels: np.ndarray) -> np.ndarray:
    """Rows in which every class is there as often as the most frequent one: each of its rows once,
    those of the others over and over, none more than once oftener than another of its class.
    """
    _, counts = np.unique(labels, return_counts=True)
    order = np.argsort(labels, kind="stable")
    most, starts = counts.max(), np.cumsum(counts) - counts
    return np.concatenate(
        [
            order[start + np.arange(most) % count]
            for start, count in zip(starts, counts, strict=True)
        ]
    )


def mixed_rows(sizes: Sequence[int], weights: Sequence[float]) -> np.ndarray:
    """Rows of parts of these sizes that lie one after another, part i with a share of weights[i] /
    sum of the rows: the fewest in which no row is missing, each part's over and over in turn.
    """
    size, share = np.asarray(sizes), np.asarray(weights, float) / sum(weights)
    total = int(np.ceil((size / share).max() - 1e-9))
    counts = np.maximum(np.floor(share * total + 1e-9).astype(np.int64), size)
    wanting = np.argsort(-(share * total - counts), kind="stable")
    counts[wanting[: max(0, total - counts.sum())]] += 1
    starts = np.cumsum(size) - size
    return np.concatenate(
        [start + np.arange(n) % own for start, n, own in zip(starts, counts, size, strict=True)]
    )
