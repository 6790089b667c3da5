"""Examples that are made rather than read: on the device, each as a function of (seed, split,
index) alone.
"""

from collections.abc import Callable

import jax
import numpy as np
from jax import random

from jaxcnn.data.dataset import SPLITS
from jaxcnn.data.memory import check_indices


class ComposedSource:
    """`size` examples of a split, made by `compose(key, *material)` as they are asked for.

    `material`: arrays that all examples are made of; they are arguments of the compiled function,
    not constants in it.
    """

    streaming = False
    arrays = None

    def __init__(
        self,
        compose: Callable[..., dict[str, jax.Array]],
        material: tuple,
        *,
        size: int,
        seed: int,
        split: str,
    ):
        self._size, self._material = size, material
        key = random.fold_in(random.key(seed), SPLITS.index(split))

        @jax.jit
        def make(indices, *material):
            return jax.vmap(lambda index: compose(random.fold_in(key, index), *material))(indices)

        self._make = make

    def __len__(self) -> int:
        return self._size

    def take(self, indices: np.ndarray) -> dict[str, jax.Array]:
        """The examples at `indices` (int, any shape [...]) as device arrays [..., *example shape];
        IndexError outside [0, len).
        """
        indices = check_indices(indices, self._size)
        flat = self._make(jax.device_put(indices.reshape(-1)), *self._material)
        return {name: x.reshape(*indices.shape, *x.shape[1:]) for name, x in flat.items()}
