"""What a run recorded of its data: enough to predict and to export where the data are gone."""

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxcnn.data.dataset import SPLITS, Dataset, Source
from jaxcnn.errors import DataError


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Shapes, names and sizes of the data that a run was trained on, without the examples.

    entries: (name, shape of one example, dtype). sizes: (split, number of examples).
    """

    entries: tuple[tuple[str, tuple[int, ...], str], ...]
    label_names: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            name: jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
            for name, shape, dtype in self.entries
        }

    def size(self, split: str) -> int:
        return dict(self.sizes).get(split, 0)

    def open(self, split: str) -> Source:
        """Errors: DataError, since the examples were not kept."""
        raise DataError(
            f"the {split!r} examples of this run were not kept with it; give the data, e.g. "
            "open(folder).evaluate(data=…)"
        )

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "entries": [[name, list(shape), dtype] for name, shape, dtype in self.entries],
            "label_names": list(self.label_names),
            "sizes": dict(self.sizes),
        }

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Recorded":
        """The inverse of `to_json`."""
        return Recorded(
            tuple((name, tuple(shape), dtype) for name, shape, dtype in content["entries"]),
            tuple(content["label_names"]),
            tuple(content["sizes"].items()),
        )


def record(data: Dataset) -> Recorded:
    """What to keep of a data set."""
    spec = data.spec()
    entries = tuple((name, tuple(s.shape), np.dtype(s.dtype).name) for name, s in spec.items())
    sizes = tuple((split, data.size(split)) for split in SPLITS)
    return Recorded(entries, tuple(data.label_names), sizes)
