"""Connectionist temporal classification (CTC): from scores of each frame to a sequence of labels.

Source: Graves et al., "Connectionist temporal classification: labelling unsegmented sequence data
with recurrent neural networks", 2006: a path of one label a frame spells the sequence that remains
when repeats are merged and then blanks dropped.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

PADDING = -1  # fills the rows of decoded labels; never a label


def greedy(
    logits: Float[Array, "B T K"], *, frames: Int[Array, " B"] | None = None, blank: int = 0
) -> tuple[Int32[Array, "B T"], Int32[Array, " B"]]:
    """The sequence spelled by the likeliest label of each frame. [B, T, K] -> labels [B, T] int32
    (padded with -1), lengths [B] int32

    `frames` [B] int is the number of real frames of each row (all T by default). Works on logits
    and on log-probabilities alike.
    """
    batch, num_frames, _ = logits.shape
    path = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    before = jnp.concatenate([jnp.full((batch, 1), blank, jnp.int32), path[:, :-1]], axis=1)
    keep = (path != blank) & (path != before)
    if frames is not None:
        keep &= jnp.arange(num_frames)[None, :] < frames[:, None]
    order = jnp.argsort(~keep, axis=1, stable=True)  # kept labels to the front, in their order
    labels = jnp.where(
        jnp.take_along_axis(keep, order, axis=1), jnp.take_along_axis(path, order, axis=1), PADDING
    )
    return labels, jnp.sum(keep, axis=1, dtype=jnp.int32)


def beam_search(
    log_probabilities: Float[Array | np.ndarray, "T K"], *, width: int = 10, blank: int = 0
) -> list[tuple[tuple[int, ...], float]]:
    """The likeliest sequences of one row, best first, with the logarithm of their probability. [T,
    K] -> at most `width` pairs

    Prefix search: the paths that spell one prefix are summed, those ending in a blank apart from
    those ending in its last label (Hannun et al., "First-pass large vocabulary continuous speech
    recognition using bi-directional recurrent DNNs", 2014, algorithm 1, without a language model).
    Exact where `width` is at least the number of prefixes. NumPy, on the host.
    """
    never = -np.inf
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, never)}
    for frame in np.asarray(log_probabilities, np.float64):
        ends_blank: defaultdict[tuple[int, ...], float] = defaultdict(lambda: never)
        ends_label: defaultdict[tuple[int, ...], float] = defaultdict(lambda: never)
        for prefix, (blank_score, label_score) in beam.items():
            whole = float(np.logaddexp(blank_score, label_score))
            ends_blank[prefix] = float(np.logaddexp(ends_blank[prefix], whole + frame[blank]))
            for label in range(len(frame)):
                if label == blank:
                    continue
                longer = (*prefix, label)
                # without a blank between, a repeat is the same label
                if prefix and label == prefix[-1]:
                    ends_label[prefix] = float(
                        np.logaddexp(ends_label[prefix], label_score + frame[label])
                    )
                    ends_label[longer] = float(
                        np.logaddexp(ends_label[longer], blank_score + frame[label])
                    )
                else:
                    ends_label[longer] = float(
                        np.logaddexp(ends_label[longer], whole + frame[label])
                    )
        scores = {
            prefix: (ends_blank[prefix], ends_label[prefix])
            for prefix in ends_blank.keys() | ends_label.keys()
        }
        best = sorted(scores, key=lambda prefix: (-np.logaddexp(*scores[prefix]), prefix))[:width]
        beam = {prefix: scores[prefix] for prefix in best}
    return [(prefix, float(np.logaddexp(*score))) for prefix, score in beam.items()]


def frames_needed(labels: Sequence[int]) -> int:
    """The fewest frames that can spell `labels`: one each, and a blank between equal neighbors."""
    return len(labels) + sum(a == b for a, b in itertools.pairwise(labels))
