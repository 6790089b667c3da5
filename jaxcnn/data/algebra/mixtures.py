"""Data sets joined, and how often their examples come: Concat, Mixed, Balanced."""

import math
from dataclasses import dataclass, field

import jax
import numpy as np

from jaxcnn.data.algebra import choice
from jaxcnn.data.algebra.agreement import (
    check_dataset,
    check_tokens,
    open_matched,
    renumbering,
    same_spec,
)
from jaxcnn.data.algebra.around import Around
from jaxcnn.data.algebra.holding_out import labels_of
from jaxcnn.data.algebra.sources import Rows, joined
from jaxcnn.data.dataset import Dataset, Source
from jaxcnn.data.memory import check_split
from jaxcnn.errors import ConfigError, DataError, shown


class _Several:
    """What Concat and Mixed share: one spec, classes by name, splits one after another."""

    datasets: tuple[Dataset, ...]

    def _check(self) -> None:
        who = type(self).__name__
        if not isinstance(self.datasets, tuple) or not self.datasets:
            raise ConfigError(
                f"{who}: datasets is {shown(self.datasets)}; give at least one Dataset"
            )
        for data in self.datasets:
            check_dataset(who, data)

    @property
    def label_names(self) -> tuple[str, ...]:
        names = tuple(self.datasets[0].label_names)
        for data in self.datasets[1:]:
            renumbering(type(self).__name__, names, data)  # refused before training
        check_tokens(type(self).__name__, self.datasets)
        return names

    @property
    def token_names(self) -> tuple[str, ...]:
        """See `agreement.check_tokens`."""
        return getattr(self.datasets[0], "token_names", ())

    @property
    def repeats(self) -> bool:
        """Whether a training example may come several times."""
        return any(getattr(data, "repeats", False) for data in self.datasets)

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return same_spec(type(self).__name__, self.datasets)

    def _sizes(self, split: str) -> list[int]:
        return [data.size(check_split(split)) for data in self.datasets]

    def _joined(self, split: str) -> Source:
        names, who, spec = self.label_names, type(self).__name__, self.spec()
        there = [data for data, size in zip(self.datasets, self._sizes(split), strict=True) if size]
        if not there:
            raise DataError(f"{who}: no data set has a {split!r} split")
        return joined([open_matched(who, names, data, split) for data in there], spec)


@dataclass(frozen=True, init=False)
class Concat(_Several):
    """`Concat(a, b, …)`: the examples of a split of each, one data set after another; those without
    the split give none.

    Entries, shapes and dtypes must agree. Classes are those of the first data set; the others' are
    matched by name. Errors: ConfigError for what is no Dataset, DataError where they do not agree.
    """

    datasets: tuple[Dataset, ...] = field(default=())

    def __init__(self, *each: Dataset, datasets: tuple[Dataset, ...] = ()):
        if each and datasets:
            raise ConfigError("Concat: give the data sets one after another, or as datasets=(…)")
        object.__setattr__(self, "datasets", each or datasets)
        self._check()

    def size(self, split: str) -> int:
        return sum(self._sizes(split))

    def open(self, split: str) -> Source:
        return self._joined(split)


@dataclass(frozen=True)
class Mixed(_Several):
    """Training examples of several data sets, of each a share weights[i] / sum(weights).

    An epoch is the fewest rows in which every training example comes and the shares hold (rounded
    to rows): examples of a data set with too few rows come several times, equally often to within
    one. "eval" and "test" are one after another, each example once. Entries must agree, classes are
    matched by name, as in Concat.
    Errors: ConfigError for weights that are not positive or not one each; DataError.
    """

    datasets: tuple[Dataset, ...]
    weights: tuple[float, ...]

    def __post_init__(self):
        self._check()
        good = isinstance(self.weights, tuple) and len(self.weights) == len(self.datasets)
        if not good or not all(w > 0 and math.isfinite(w) for w in self.weights):
            raise ConfigError(
                f"Mixed: weights is {shown(self.weights)}; it must hold a positive number for each "
                f"of the {len(self.datasets)} data sets"
            )

    @property
    def repeats(self) -> bool:
        return True

    def size(self, split: str) -> int:
        return len(self._rows()) if check_split(split) == "train" else sum(self._sizes(split))

    def open(self, split: str) -> Source:
        source = self._joined(split)
        return Rows(source, self._rows()) if split == "train" else source

    def _rows(self) -> np.ndarray:
        sizes = self._sizes("train")
        if not all(sizes):
            raise DataError(
                f"Mixed: data set {sizes.index(0)} has no training examples, so its weight cannot "
                "be kept; leave it out"
            )
        return choice.mixed_rows(sizes, self.weights)


@dataclass(frozen=True)
class Balanced(Around):
    """`data` with a training split in which each class of "label" comes equally often.

    An epoch is as many rows of each class as the most frequent one has: its examples come once,
    those of rarer classes several times, equally often to within one. Other splits pass through.
    Epochs are thus longer; `steps` counts as ever.
    Errors: ConfigError for data without a single "label" an example.
    """

    data: Dataset

    def __post_init__(self):
        check_dataset("Balanced", self.data)

    @property
    def repeats(self) -> bool:
        return True

    def size(self, split: str) -> int:
        return len(self._rows()) if check_split(split) == "train" else self.data.size(split)

    def open(self, split: str) -> Source:
        source = self.data.open(check_split(split))
        return Rows(source, self._rows(source)) if split == "train" else source

    def _rows(self, source: Source | None = None) -> np.ndarray:
        """Rows of the training split; chosen once."""
        if "_chosen" not in vars(self):
            entry = self.spec().get("label")
            if entry is None or entry.shape != () or np.dtype(entry.dtype).kind not in "iu":
                raise ConfigError(
                    "Balanced: the examples have no 'label' that is one class each; there are "
                    f"{list(self.spec())}"
                )
            source = self.data.open("train") if source is None else source
            labels = labels_of("Balanced", source, self.spec())
            assert labels is not None
            vars(self)["_chosen"] = choice.balanced_rows(labels)
        return vars(self)["_chosen"]
