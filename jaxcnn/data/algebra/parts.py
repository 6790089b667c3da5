"""Fewer examples, and splits put together: Take, Splits."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxcnn.data.algebra import choice
from jaxcnn.data.algebra.agreement import (
    check_dataset,
    check_split_of,
    check_tokens,
    open_matched,
    renumbering,
    same_spec,
)
from jaxcnn.data.algebra.around import Around
from jaxcnn.data.algebra.holding_out import labels_of, named, warn
from jaxcnn.data.algebra.sources import rows_of
from jaxcnn.data.dataset import Dataset, Source
from jaxcnn.data.memory import check_split
from jaxcnn.errors import ConfigError, DataError, shown

Which = int | float | tuple[int, int | None] | slice


@dataclass(frozen=True)
class Take(Around):
    """Fewer examples of `splits`; other splits pass through.

    which: a number, or a share in (0, 1), evenly spaced over the classes of "label" and the order
    of the rows; or (start, stop), rows in the order of the data, as in `rows[start:stop]`.
    Warns of classes that are gone. Errors: ConfigError, DataError where there are too few.
    """

    data: Dataset
    which: Which
    splits: tuple[str, ...] = ("train",)

    def __post_init__(self):
        check_dataset("Take", self.data)
        which = self.which
        if isinstance(which, slice) and which.step in (None, 1):
            which = (which.start or 0, which.stop)
            object.__setattr__(self, "which", which)  # a pair can be written to run.json
        good = (
            (type(which) is int and which >= 1)
            or (isinstance(which, float) and 0 < which < 1)
            or (
                isinstance(which, tuple)
                and len(which) == 2
                and type(which[0]) is int
                and (which[1] is None or type(which[1]) is int)
            )
        )
        if not good:
            raise ConfigError(
                f"Take: which is {shown(self.which)}; it must be a number of examples, a share in "
                "(0, 1), or (start, stop)"
            )
        for split in self.splits:
            check_split_of("Take", split)

    def size(self, split: str) -> int:
        total = self.data.size(check_split(split))
        return self._count(split, total) if split in self.splits and total else total

    def open(self, split: str) -> Source:
        source = self.data.open(check_split(split))
        if split not in self.splits:
            return source
        count = self._count(split, len(source))
        if isinstance(self.which, tuple):
            return rows_of(source, np.arange(len(source))[slice(*self.which)])
        labels = None
        if "label" in self.spec():
            labels = labels_of("Take", source, self.spec())
        chosen = choice.spread(len(source), count, labels=labels)
        if labels is not None and (gone := np.setdiff1d(labels, labels[chosen])).size:
            warn(
                f"Take: no example of {named(gone, self.label_names)} is among the {count} of "
                f"{split!r}"
            )
        return rows_of(source, np.flatnonzero(chosen))

    def _count(self, split: str, total: int) -> int:
        if isinstance(self.which, tuple):
            count = len(range(total)[slice(*self.which)])
        elif isinstance(self.which, float):
            count = choice.share_of(total, self.which)
        else:
            assert isinstance(self.which, int)
            count = self.which
        if not 1 <= count <= total:
            raise DataError(
                f"Take: which={shown(self.which)} is {count} of the {total:,} examples of "
                f"{split!r}; take at least one, and no more than there are"
            )
        return count


Part = Any  # a Dataset, of which the split of the same name is taken, or (Dataset, split)


@dataclass(frozen=True)
class Splits:
    """Splits of several data sets put together: each a Dataset, of which the split of the same name
    is taken, or (Dataset, split).

    Classes are those of `train`; the others' are matched by name. Errors: ConfigError for what is
    no Dataset, DataError where entries or names of classes do not agree.
    """

    train: Part
    eval: Part
    test: Part | None = None

    def __post_init__(self):
        for split in ("train", "eval", "test"):
            part = getattr(self, split)
            if part is None and split == "test":
                continue
            if isinstance(part, tuple):
                if len(part) != 2:
                    raise ConfigError(f"Splits: {split} is {part!r}; write (Dataset, split)")
                check_split_of(f"Splits, {split}", part[1])
                part = part[0]
            check_dataset(f"Splits, {split}", part)

    def _part(self, split: str) -> tuple[Dataset, str] | None:
        part = getattr(self, check_split(split))
        return part if isinstance(part, tuple) or part is None else (part, split)

    @property
    def _train(self) -> Dataset:
        return self.train[0] if isinstance(self.train, tuple) else self.train

    @functools.cached_property
    def label_names(self) -> tuple[str, ...]:
        names = tuple(self._train.label_names)
        for data in self._datasets:
            renumbering("Splits", names, data)  # refused before training
        check_tokens("Splits", self._datasets)
        return names

    @property
    def token_names(self) -> tuple[str, ...]:
        """See `agreement.check_tokens`."""
        return getattr(self._train, "token_names", ())

    @property
    def repeats(self) -> bool:
        """Whether a training example may come several times."""
        whole = not isinstance(self.train, tuple) or self.train[1] == "train"
        return whole and getattr(self._train, "repeats", False)

    @property
    def _datasets(self) -> list[Dataset]:
        """Of train first."""
        parts = [part for split in ("train", "eval", "test") if (part := self._part(split))]
        return [data for data, _ in parts]

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return same_spec("Splits", self._datasets)

    def size(self, split: str) -> int:
        part = self._part(split)
        return part[0].size(part[1]) if part else 0

    def open(self, split: str) -> Source:
        part = self._part(split)
        if part is None:
            raise DataError(f"these Splits have no {split!r}")
        self.spec()
        return open_matched("Splits", self.label_names, *part)
