"""The four points of exclusive or: the smallest problem that no linear model solves (Minsky and
Papert, "Perceptrons", 1969).
"""

from dataclasses import dataclass

import jax
import numpy as np

from jaxcnn.data.memory import MemorySource, check_split
from jaxcnn.errors import DataError


@dataclass(frozen=True)
class Xor:
    """Four examples: "point" [2] float32 in {0, 1}, "label" int32, the exclusive or of both.
    Training and evaluation see the same four.
    """

    @property
    def label_names(self) -> tuple[str, ...]:
        return ("equal", "different")

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "point": jax.ShapeDtypeStruct((2,), np.float32),
            "label": jax.ShapeDtypeStruct((), np.int32),
        }

    def size(self, split: str) -> int:
        return 0 if check_split(split) == "test" else 4

    def open(self, split: str) -> MemorySource:
        if not self.size(split):
            raise DataError(f"Xor has no {split!r} split; it has train, eval")
        point = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        return MemorySource({"point": point, "label": np.array([0, 1, 1, 0], np.int32)})
