"""Are probabilities what they say? Reliability bins, expected calibration error, and the one
temperature that mends most of it.

Source: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks"
(2017), sections 2 and 4.2.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Real, Shaped

from jaxcnn.errors import DataError

AnyArray = Array | np.ndarray  # outside of jit a mask may be NumPy's

BINS = 15  # of equal width, as in most papers
# where sums of likelihoods are taken: 64 temperatures of equal ratios (9.7 % each) from 1/20 to 20
TEMPERATURES = np.geomspace(0.05, 20.0, 64)


def reliability_sums(
    confidence: Float[AnyArray, " B"], right: Bool[AnyArray, " B"], real: Bool[AnyArray, " B"]
) -> dict[str, Array]:
    """Sums over the rows that are `real`, which may be added: for each of `BINS` bins of
    confidence, (i / BINS, (i + 1) / BINS], the number of rows and of right ones (int32) and the
    summed confidence. Pure JAX.
    """
    # a padded row may hold NaN
    confidence = jnp.where(jnp.asarray(real), jnp.asarray(confidence, jnp.float32), 0.0)
    place = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    empty = jnp.zeros(BINS, jnp.int32)
    return {
        "bin_count": empty.at[place].add(jnp.asarray(real, jnp.int32)),
        "bin_right": empty.at[place].add(jnp.asarray(real & right, jnp.int32)),
        "bin_confidence": jnp.zeros(BINS, jnp.float32).at[place].add(confidence),
    }


def reliability(
    confidence: Real[np.ndarray, " N"], right: Shaped[np.ndarray, "..."]
) -> dict[str, np.ndarray]:
    """`reliability_sums` of NumPy arrays, on the host in float64. `right` [N] is bool or 0 and 1.

    Errors: DataError for confidences outside [0, 1] (NaN is outside), and for another `right`.
    """
    confidence, hit = np.asarray(confidence, np.float64), np.asarray(right)
    if hit.shape != confidence.shape or not ((hit == 0) | (hit == 1)).all():
        raise DataError(
            f"confidence {list(confidence.shape)} and right {list(hit.shape)}; right is bool, or 0 "
            "and 1, for each confidence. Leave rows without a label out"
        )
    outside = ~((confidence >= 0) & (confidence <= 1))
    if outside.any():
        place = int(np.argmax(outside))
        raise DataError(
            f"confidence[{place}] is {confidence[place]}; probabilities lie in [0, 1], and "
            f"{int(outside.sum())} of {outside.size} do not. Give probabilities, not logits"
        )
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counted = np.bincount(place, minlength=BINS)
    return {
        "bin_count": counted,
        "bin_right": np.bincount(place, weights=hit.astype(np.float64), minlength=BINS),
        "bin_confidence": np.bincount(place, weights=confidence, minlength=BINS),
    }


def expected_calibration_error(sums: dict[str, Any]) -> float:
    """The mean over examples of |accuracy - mean confidence| of their bin (equation 3); NaN without
    examples. `sums`: of `reliability`, or added ones of `reliability_sums`.
    """
    examples = int(np.sum(sums["bin_count"]))
    gap = np.abs(
        np.asarray(sums["bin_right"], np.float64) - np.asarray(sums["bin_confidence"], np.float64)
    )
    return float(gap.sum() / examples) if examples else float("nan")


def reliability_table(sums: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a bin: "from" and "to" (its edges), "count", and the means "confidence" and
    "accuracy" (None where it is empty). What a reliability diagram draws.
    """
    rows = []
    for i, (n, right, confidence) in enumerate(
        zip(sums["bin_count"], sums["bin_right"], sums["bin_confidence"], strict=True)
    ):
        means = {
            "confidence": float(confidence) / int(n) if n else None,
            "accuracy": float(right) / int(n) if n else None,
        }
        rows.append({"from": i / BINS, "to": (i + 1) / BINS, "count": int(n), **means})
    return rows


def least_logits(probability: Any) -> AnyArray:
    """The least logits, float32, whose probabilities are at least these (a number or several).

    Of Python's numbers in float64: float32 has none between 1 - 6e-8 and 1, where sure networks
    have their thresholds. Traced ones have the digits of float32.
    """
    if any(isinstance(x, jax.Array) for x in jax.tree.leaves(probability)):
        return jax.scipy.special.logit(jnp.asarray(probability, jnp.float32))
    value = np.clip(np.asarray(probability, np.float64), 2.0**-1000, 1.0)
    # from 1 - 2^-54 on a probability is 1 in float64
    exact = np.log(value) - np.log(np.maximum(1.0 - value, 2.0**-54))
    exact = np.where(np.asarray(probability) > 0, exact, -np.inf)
    exact = np.where(np.asarray(probability) > 1, np.inf, exact)
    found = exact.astype(np.float32)
    return np.where(found < exact, np.nextafter(found, np.float32(np.inf)), found)


def fit_temperature(logits: Real[np.ndarray, "..."], label: Shaped[np.ndarray, "..."]) -> float:
    """The temperature T at which softmax(logits / T) gives the labels [N] the highest
    likelihood
    (section 4.2), found on validation data and meant for other data.

    The likelihood is concave in 1 / T, so its slope is bisected, T between 0.001 and 1000. An end
    of that range comes out where there is no best one: 0.001 where every label has the largest
    logit, 1000 where the logits say nothing.
    Errors: DataError for shapes that do not fit, labels that are no integers in 0..K-1, and logits
    that are not finite.
    """
    values, chosen = np.asarray(logits, np.float64), np.asarray(label)
    if values.ndim != 2 or chosen.shape != values.shape[:1] or not values.size:
        raise DataError(
            f"logits {list(values.shape)} and label {list(chosen.shape)}; expected [N, K] and [N], "
            "with at least one example"
        )
    if not np.issubdtype(chosen.dtype, np.integer):
        raise DataError(f"label has dtype {chosen.dtype}; labels are integers, such as int32")
    outside = (chosen < 0) | (chosen >= values.shape[1])
    if outside.any():
        place = int(np.argmax(outside))
        raise DataError(
            f"label[{place}] is {chosen[place]} and the logits are of {values.shape[1]} classes; "
            f"labels lie in 0..{values.shape[1] - 1}. Leave rows without a label out"
        )
    if not np.isfinite(values).all():
        raise DataError("the logits hold NaN or infinity; look at the loss of this run")
    values = values - values.max(axis=1, keepdims=True)
    wanted = values[np.arange(len(chosen)), chosen].mean()

    def slope(inverse: float) -> float:
        """Of the mean negative log-likelihood, by 1 / T."""
        weights = np.exp(inverse * values)
        return float(((weights * values).sum(1) / weights.sum(1)).mean() - wanted)

    low, high = np.log(1e-3), np.log(1e3)  # of 1 / T
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) <= 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def best_temperature(losses: Real[np.ndarray, " T"]) -> float:
    """The temperature of the least of the losses [64] at `TEMPERATURES`, which are sums and may so
    have been added; between the temperatures, by the parabola through the least and its two
    neighbours over log T. The first or last temperature where that is the least.
    """
    values, steps = np.asarray(losses, np.float64), np.log(TEMPERATURES)
    least = int(np.argmin(values))
    if not 0 < least < len(values) - 1:
        return float(TEMPERATURES[least])
    left, middle, right = values[least - 1 : least + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(np.exp(steps[least] + shift * (steps[1] - steps[0])))
