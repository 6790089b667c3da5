"""Losses of single numbers: element by element, without any mean, in the dtype of their first
argument. Targets may lie between 0 and 1 (smoothed or mixed labels).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Numbers = Float[Array, "..."]
Number = float | Float[Array, ""]


def sigmoid_cross_entropy(logit: Numbers, target: Numbers) -> Numbers:
    """-target * log p - (1 - target) * log(1 - p) in nats, p the sigmoid of the logit."""
    return target * jax.nn.softplus(-logit) + (1.0 - target) * jax.nn.softplus(logit)


def focal(logit: Numbers, target: Numbers, *, focus: Number) -> Numbers:
    """Sigmoid cross-entropy whose easy examples count less: by (1 - p)^focus where the target is
    1, by p^focus where it is 0. T.-Y. Lin et al., "Focal loss for dense object detection" (2017),
    equation 4; their balance of positives and negatives is left to weights.
    """
    return target * _power(-logit, focus) * jax.nn.softplus(-logit) + (1.0 - target) * _power(
        logit, focus
    ) * jax.nn.softplus(logit)


def asymmetric(
    logit: Numbers, target: Numbers, *, focus_negative: Number, margin: Number
) -> Numbers:
    """-log p where the target is 1; where it is 0, q^focus_negative * -log(1 - q) with
    q = max(p - margin, 0), so that easy negatives count little and very easy ones nothing.

    T. Ridnik et al., "Asymmetric loss for multi-label classification" (2021), equations 4 to 7,
    with a focus of 0 on positives, as they use it.
    """
    margin = jnp.asarray(margin, logit.dtype)
    # 1 - q = min(1 - p + margin, 1), from the sigmoid of -logit, which keeps its digits near 0
    kept = jnp.minimum(jax.nn.sigmoid(-logit) + margin, 1.0)
    shifted = jnp.maximum(jax.nn.sigmoid(logit) - margin, 0.0)
    # the log of a probability that rounds to 0 would have no gradient
    negative = -jnp.log(jnp.maximum(kept, jnp.finfo(logit.dtype).tiny))
    exponent = jnp.asarray(focus_negative, logit.dtype)
    # 0^x has no gradient for x < 1
    weight = jnp.where(shifted > 0, jnp.where(shifted > 0, shifted, 1.0) ** exponent, 0.0)
    return target * jax.nn.softplus(-logit) + (1.0 - target) * weight * negative


def huber(difference: Numbers, *, delta: Number) -> Numbers:
    """Half the square up to `delta`, then a line: P. J. Huber, "Robust estimation of a location
    parameter" (1964), section 3.
    """
    size, delta = jnp.abs(difference), jnp.asarray(delta, difference.dtype)
    inside = jnp.minimum(size, delta)
    return inside * (size - 0.5 * inside)


def _power(logit: Numbers, focus: Number) -> Numbers:
    """sigmoid(logit)^focus; by its logarithm, whose gradient is finite for every logit."""
    return jnp.exp(jnp.asarray(focus, logit.dtype) * jax.nn.log_sigmoid(logit))
