"""One-to-one matching of detections to truths, and the precision, recall and H-mean that follow, as
the ICDAR 2015 contest takes them. NumPy, on the host.

Source: Karatzas et al., "ICDAR 2015 competition on robust reading", 2015, and its script.
"""

import numpy as np
from jaxtyping import Array, Int64, Real


def match(
    similarity: Real[Array | np.ndarray, "D G"], *, threshold: float
) -> Int64[np.ndarray, "P 2"]:
    """Pairs (detection, truth) [P, 2] int, each row and column used once, all above `threshold`.
    [D, G] -> [P, 2]

    Truths choose in their order, each the first detection that is still free, as in the contest's
    script; where truths do not overlap, no other choice gives more pairs.
    """
    enough = np.asarray(similarity, np.float64) > threshold
    free, pairs = np.ones(len(enough), bool), []
    for column in range(enough.shape[1]):
        rows = np.flatnonzero(enough[:, column] & free)
        if rows.size:
            free[rows[0]] = False
            pairs.append((int(rows[0]), column))
    return np.array(pairs, np.int64).reshape(-1, 2)


def harmonic_mean(num_matched: int, num_detections: int, num_truths: int) -> dict[str, float]:
    """precision, recall and hmean of counts summed over a data set (at IoU 0.5 in the contest's
    text localization). A ratio whose denominator is 0 is 0.
    """
    return {
        "precision": num_matched / max(num_detections, 1),
        "recall": num_matched / max(num_truths, 1),
        "hmean": 2 * num_matched / max(num_detections + num_truths, 1),
    }
