"""Random images with random labels, for benchmarks and for trying things without data. There is
nothing in them to learn.
"""

from dataclasses import dataclass

import jax
import numpy as np

from jaxcnn.data.dataset import SPLITS
from jaxcnn.data.memory import MemorySource, check_split
from jaxcnn.errors import DataError


@dataclass(frozen=True)
class Synthetic:
    """Uniform noise: "image" uint8 [*shape] with shape (H, W, C), "label" int32 in [0,
    num_classes). The same at every opening.
    """

    shape: tuple[int, ...] = (28, 28, 1)
    num_classes: int = 10
    num_train: int = 1024
    num_eval: int = 256

    @property
    def label_names(self) -> tuple[str, ...]:
        return ()

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "image": jax.ShapeDtypeStruct(self.shape, np.uint8),
            "label": jax.ShapeDtypeStruct((), np.int32),
        }

    def size(self, split: str) -> int:
        return {"train": self.num_train, "eval": self.num_eval, "test": 0}[check_split(split)]

    def open(self, split: str) -> MemorySource:
        size = self.size(split)
        if not size:
            raise DataError(
                f"Synthetic has no {split!r} examples; num_train={self.num_train}, "
                f"num_eval={self.num_eval}"
            )
        generator = np.random.Generator(
            np.random.Philox(key=np.array([SPLITS.index(split), 0], np.uint64))
        )
        image = generator.integers(0, 256, (size, *self.shape), np.uint8)
        return MemorySource(
            {"image": image, "label": generator.integers(0, self.num_classes, size, np.int32)}
        )
