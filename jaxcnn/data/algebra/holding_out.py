"""A share or a fold of the training split held out as "eval": HeldOut, Fold."""

import warnings
from dataclasses import dataclass

import numpy as np

from jaxcnn.data.algebra import choice
from jaxcnn.data.algebra.agreement import check_dataset
from jaxcnn.data.algebra.around import Around
from jaxcnn.data.algebra.sources import Spec, column, read_column, rows_of
from jaxcnn.data.dataset import Dataset, Source
from jaxcnn.data.memory import check_split, held_out
from jaxcnn.errors import ConfigError, DataError


def labels_of(who: str, source: Source, spec: Spec) -> np.ndarray | None:
    """The labels [N] of a source, or None with a warning where examples have no single one.

    Streams that do not know them are read once, and that is said.
    """
    entry = spec.get("label")
    if entry is None or entry.shape != () or np.dtype(entry.dtype).kind not in "iu":
        shown = "no 'label'" if entry is None else f"a 'label' {entry.dtype}{list(entry.shape)}"
        warn(f"{who}: examples have {shown}, so rows are spread over the order of the files alone")
        return None
    if column(source, "label") is None:
        warn(f"{who}: decodes all {len(source):,} examples once, to know their labels")
    return read_column(source, "label")


def warn(text: str) -> None:
    """Say something."""
    warnings.warn(text, stacklevel=2)


def named(numbers: np.ndarray, names: tuple[str, ...]) -> str:
    """The first classes by name."""
    shown = [names[k] if 0 <= k < len(names) else str(k) for k in numbers[:5].tolist()]
    return f"{', '.join(shown)}{', …' if len(numbers) > 5 else ''}"


class _HoldingOut(Around):
    """What HeldOut and Fold share: "train" and "eval" are parts of `data`'s training split.

    "test" is the test split of `data`; where it has none, its "eval", in which nothing was trained
    or chosen.
    """

    groups: str

    def size(self, split: str) -> int:
        if check_split(split) == "test":
            return self.data.size(self._test)
        total = self.data.size("train")
        if not total:
            return 0
        held = int(self._held().sum()) if self.groups else self._count(total)
        return held if split == "eval" else total - held

    def open(self, split: str) -> Source:
        if check_split(split) == "test":
            return self.data.open(self._test)
        source = self.data.open("train")
        return rows_of(source, np.flatnonzero(self._held(source) == (split == "eval")))

    @property
    def _test(self) -> str:
        return "test" if self.data.size("test") else "eval"

    def _held(self, source: Source | None = None) -> np.ndarray:
        """Which rows of the training split are held out, [N] bool; chosen once."""
        if "_mask" not in vars(self):
            vars(self)["_mask"] = self._choose(
                self.data.open("train") if source is None else source
            )
        return vars(self)["_mask"]

    def _choose(self, source: Source) -> np.ndarray:
        who, spec = type(self).__name__, self.spec()
        labels = labels_of(who, source, spec)
        if self.data.size("test") and self.data.size("eval"):
            warn(
                f"{who}: the {self.data.size('eval'):,} examples that the data hold out as 'eval' "
                "are not used; Splits(train=…, eval=…, test=…) can put them somewhere"
            )
        if self.groups:
            if self.groups not in spec or spec[self.groups].shape != ():
                raise ConfigError(
                    f"{who}: groups={self.groups!r} must name an entry with one number an example; "
                    f"there are {[n for n, s in spec.items() if s.shape == ()]}"
                )
            held = self._by_groups(read_column(source, self.groups), labels)
            if labels is not None:
                _warn_starved(who, labels, held, self.label_names)
        else:
            held = self._by_rows(len(source), labels)
        return held

    def _count(self, total: int) -> int:
        raise NotImplementedError

    def _by_rows(self, size: int, labels: np.ndarray | None) -> np.ndarray:
        raise NotImplementedError

    def _by_groups(self, groups: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        raise NotImplementedError


def _check_data(who: str, data: Dataset, example: str) -> None:
    """ConfigError for what is no Dataset, or one whose training examples come several times."""
    check_dataset(who, data)
    if getattr(data, "repeats", False):
        raise ConfigError(
            f"{who}: training examples of {type(data).__name__} may come several times, and what "
            "is scored would be trained on, too; hold out before they are balanced or mixed: "
            f"Balanced({example}), Mixed(({example}, …), weights)"
        )


def _warn_starved(who: str, labels: np.ndarray, held: np.ndarray, names: tuple[str, ...]) -> None:
    """Say which classes a part lacks."""
    everything = np.unique(labels)
    for part, name in ((held, "eval"), (~held, "train")):
        missing = np.setdiff1d(everything, labels[part])
        if len(missing):
            warn(
                f"{who}: {len(missing)} of {len(everything)} classes have no example in {name!r}: "
                f"{named(missing, names)}; they have too few"
            )


@dataclass(frozen=True)
class HeldOut(_HoldingOut):
    """`data` with `fraction` of its training split held out as "eval", as readers of files hold out
    theirs (`memory.held_out`): evenly over the order of the rows within each class of "label", a
    function of the labels alone. A class of two examples or more is on both sides; one of a single
    example stays in training.

    "test" is that of `data`; where it has none its "eval", which nothing was chosen by. groups: an
    entry, such as the number of a writer or a patient; examples of one group are all held out or
    all kept.
    Warns where it cannot stratify and which classes a part lacks. Errors: ConfigError, DataError.
    """

    data: Dataset
    fraction: float = 0.2
    groups: str = ""

    def __post_init__(self):
        _check_data("HeldOut", self.data, "HeldOut(data, 0.2)")
        if isinstance(self.fraction, bool) or not 0 < self.fraction < 1:
            raise ConfigError(f"HeldOut: fraction is {self.fraction!r}; it must lie in (0, 1)")

    def _count(self, total: int) -> int:
        return int(self._held().sum())  # how many, the labels say

    def _by_rows(self, size: int, labels: np.ndarray | None) -> np.ndarray:
        known = np.zeros(size, np.int32) if labels is None else labels
        held = held_out(known, self.fraction, names=self.label_names, where="HeldOut")
        if not held.any():
            raise DataError(
                f"HeldOut: of {size} examples none can be held out, since a class of one stays in "
                "training; there must be more"
            )
        return held

    def _by_groups(self, groups: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        shares = (1 - self.fraction, self.fraction)
        held = choice.deal_groups(groups, shares, labels=labels) == 1
        if not held.any() or held.all():
            raise DataError(
                f"HeldOut: {len(np.unique(groups))} groups of {self.groups!r} cannot be parted so "
                f"that a share of {self.fraction:g} is held out; there must be more groups"
            )
        return held


@dataclass(frozen=True)
class Fold(_HoldingOut):
    """Fold `k` of `n` of the training split of `data` is "eval", the rest "train": the n folds are
    disjoint and complete, and each class is dealt out evenly, to within one example.

    "test" is that of `data`; where it has none its "eval", which belongs to no fold. groups: as in
    HeldOut; folds are then as even as the groups allow.
    Warns where it cannot stratify and which classes a part lacks. Errors: ConfigError, DataError.
    """

    data: Dataset
    k: int
    n: int
    groups: str = ""

    def __post_init__(self):
        _check_data("Fold", self.data, "Fold(data, 0, 5)")
        if self.n < 2 or not 0 <= self.k < self.n:
            raise ConfigError(
                f"Fold: k is {self.k} and n is {self.n}; n must be at least 2 and k in [0, n)"
            )

    def _count(self, total: int) -> int:
        if total < self.n:
            raise DataError(f"Fold: {total} examples cannot be dealt out to {self.n} folds")
        return len(range(self.k, total, self.n))

    def _by_rows(self, size: int, labels: np.ndarray | None) -> np.ndarray:
        self._count(size)
        held = choice.fold_numbers(size, self.n, labels=labels) == self.k
        if labels is not None:
            _warn_starved("Fold", labels, held, self.label_names)
        return held

    def _by_groups(self, groups: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        if (count := len(np.unique(groups))) < self.n:
            raise DataError(
                f"Fold: {count} groups of {self.groups!r} cannot be dealt out to {self.n} folds"
            )
        return choice.deal_groups(groups, (1 / self.n,) * self.n, labels=labels) == self.k
