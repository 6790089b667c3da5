"""Faults that tests once did not see, written by hand: (path, text, text with the fault, what).

Each text occurs once in its file; tests/test_mutants.py says so when the file has moved on.
"""

NAMED: tuple[tuple[str, str, str, str], ...] = (
    (
        "jaxcnn/core/program.py",
        "now, _ = freezing.split(params, e.rates)",
        "now, _ = freezing.split(state.params, e.rates)",
        "the average takes the weights before the update",
    ),
    (
        "jaxcnn/core/program.py",
        "return (jnp.where(weights > 0, loss, 0.0) * weights).sum() / safe",
        "return loss.mean()",
        "padding counts in training",
    ),
    (
        "jaxcnn/core/program.py",
        "jax.random.split(key, e.accumulate)",
        "jnp.stack([key] * e.accumulate)",
        "one key for all micro-batches",
    ),
    (
        "jaxcnn/weights/files.py",
        'temporary = path.with_name(f".{path.name}.tmp")',
        "temporary = path",
        "files are written in place",
    ),
    (
        "jaxcnn/weights/files.py",
        "            os.fsync(file.fileno())\n",
        "",
        "the file is not flushed to the disk",
    ),
    (
        "jaxcnn/weights/files.py",
        "            os.fsync(folder)\n",
        "            pass\n",
        "the new name is not flushed to the disk",
    ),
    (
        "jaxcnn/ops/boxes.py",
        "> iou_threshold  # [N, N]",
        ">= iou_threshold  # [N, N]",
        "an overlap equal to the threshold suppresses",
    ),
    (
        "jaxcnn/metrics/matching.py",
        "np.float64) > threshold",
        "np.float64) >= threshold",
        "an overlap equal to the threshold matches",
    ),
    (
        "jaxcnn/metrics/keypoints.py",
        "<= threshold * reference",
        "< threshold * reference",
        "a joint exactly at the threshold is wrong",
    ),
    (
        "jaxcnn/ops/heatmaps.py",
        "+ v[..., 0, 0]) / 4",
        "+ v[..., 0, 0]) / 2",
        "the mixed derivative is twice as large",
    ),
    (
        "jaxcnn/ops/heatmaps.py",
        "determinant = yy * xx - yx * yx",
        "yx = 0 * yx\n    determinant = yy * xx - yx * yx",
        "no mixed derivative",
    ),
    (
        "jaxcnn/core/override.py",
        "        and not isinstance(new, bool)\n",
        "",
        "learning_rate=True is 1.0",
    ),
    (
        "jaxcnn/metrics/average_precision.py",
        'np.searchsorted(row, RECALLS, side="left")',
        'np.searchsorted(row, RECALLS, side="right")',
        "a recall that is just reached counts as not reached",
    ),
    (
        "jaxcnn/metrics/average_precision.py",
        "(area < low) | (area > high)",
        "(area <= low) | (area >= high)",
        "an area at the border of two sizes has none",
    ),
    (
        "jaxcnn/metrics/average_precision.py",
        "result.rank < limit",
        "result.rank <= limit",
        "recall of one detection more",
    ),
    (
        "jaxcnn/metrics/average_precision.py",
        "excuse |= ~hit & _outside",
        "excuse |= _outside",
        "a hit outside the size class does not count",
    ),
    (
        "jaxcnn/metrics/scored_matching.py",
        "np.lexsort((pairs.column, pairs.similarity, pairs.row, turn))",
        "np.lexsort((-pairs.column, pairs.similarity, pairs.row, turn))",
        "of truths equally like a detection the first",
    ),
    (
        "jaxcnn/metrics/scored_matching.py",
        "np.minimum(thresholds, 1 - 1e-10)[:, None]",
        "(thresholds + 1e-10)[:, None]",
        "an overlap equal to the threshold is no match",
    ),
    (
        "jaxcnn/metrics/scored_matching.py",
        "used = (best > 0) & ~crowd[taken]",
        "used = best > 0",
        "a crowd is used up",
    ),
    (
        "jaxcnn/metrics/scored_matching.py",
        "rank.max(initial=-1) >= most",
        "rank.max(initial=-1) > most",
        "one detection more is kept",
    ),
)
