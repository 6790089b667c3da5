"""Augmentations one after the other."""

from collections.abc import Callable

import jax
from jax import random

from jaxcnn.data.geometry import Batch


def chain(
    key: jax.Array, batch: Batch, *, functions: tuple[Callable[[jax.Array, Batch], Batch], ...]
) -> Batch:
    """Apply augmentations one after the other, each with its own key."""
    for function, function_key in zip(
        functions, random.split(key, max(len(functions), 1)), strict=False
    ):
        batch = function(function_key, batch)
    return batch
