"""One-to-one matching of detections to truths, and the precision, recall and H-mean that follow.
NumPy, on the host.
"""

import numpy as np
from jaxtyping import Array, Int64, Real


def match(
    similarity: Real[Array | np.ndarray, "D G"], *, threshold: float
) -> Int64[np.ndarray, "P 2"]:
    """Pairs (detection, truth) [P, 2] int, the most alike first, each row and column used once,
    none below `threshold`. [D, G] -> [P, 2]
    """
    similarity = np.asarray(similarity, np.float64)
    order = np.argsort(-similarity, axis=None, kind="stable")
    pairs, used_rows, used_columns = [], set(), set()
    for row, column in zip(*np.unravel_index(order, similarity.shape), strict=True):
        if similarity[row, column] < threshold:
            break
        if row not in used_rows and column not in used_columns:
            pairs.append((int(row), int(column)))
            used_rows.add(row)
            used_columns.add(column)
    return np.array(pairs, np.int64).reshape(-1, 2)


def harmonic_mean(num_matched: int, num_detections: int, num_truths: int) -> dict[str, float]:
    """precision, recall and hmean of counts summed over a data set, as the ICDAR 2015 text
    localization contest reports (at IoU 0.5).

    Karatzas et al., "ICDAR 2015 competition on robust reading", 2015. A ratio whose denominator is
    0 is 0.
    """
    return {
        "precision": num_matched / max(num_detections, 1),
        "recall": num_matched / max(num_truths, 1),
        "hmean": 2 * num_matched / max(num_detections + num_truths, 1),
    }
