"""Augmentations one after the other, and several times."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import random

from jaxcnn.data.geometry import Batch
from jaxcnn.errors import ConfigError


def chain(
    key: jax.Array, batch: Batch, *, functions: tuple[Callable[[jax.Array, Batch], Batch], ...]
) -> Batch:
    """Apply augmentations one after the other, each with its own key."""
    for function, function_key in zip(
        functions, random.split(key, max(len(functions), 1)), strict=False
    ):
        batch = function(function_key, batch)
    return batch


def repeat(key: jax.Array, batch: Batch, *, times: int = 3) -> Batch:
    """Repeated augmentation: the first B / `times` rows, each `times` times one after the other, to
    be augmented differently by what comes next. Draws nothing.

    E. Hoffer et al., "Augment your batch: improving generalization through instance repetition"
    (2020), section 3. The batch keeps its size, so a step sees B / `times` examples, and an epoch
    that share of the data (each time another one, the order being random): for as many different
    examples a step as without it, make the batch `times` as large. Put mixing after something that
    changes the order, or beside it: the row before is often the same example.
    Errors: ConfigError for a batch that cannot be divided so.
    """
    rows = next(iter(batch.values())).shape[0]
    if times < 1 or rows % times:
        raise ConfigError(
            f"repeat: {rows} rows cannot be {times} of each; choose a batch_size that {times} "
            "divides"
        )
    return {name: jnp.repeat(x[: rows // times], times, axis=0) for name, x in batch.items()}
