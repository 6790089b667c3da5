"""Mapped: a pure function of each example, on the host."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from jaxcnn.core.batch import Batch
from jaxcnn.data.algebra.agreement import check_dataset
from jaxcnn.data.algebra.sources import changed
from jaxcnn.data.dataset import Dataset, Source
from jaxcnn.data.memory import array_spec, canonical_array
from jaxcnn.errors import ConfigError, DataError

Example = dict[str, np.ndarray]
Entries = tuple[tuple[str, tuple[int, ...], str], ...]


@dataclass(frozen=True)
class Mapped:
    """`data` with `change` applied to each example of each split, on the host: from {name: array}
    of one example without a batch axis to another such dict, which may be the one given, changed.

    It must be pure: the same for the same example. Integers it gives become int32 and floats
    float32; "image" is uint8 or float in [0, 1]. Examples in memory are mapped once, when a split
    is opened.
    entries: (name, shape, dtype) of what it gives; () asks it for an example of zeros.
    names: those of the classes afterwards; None: as before.
    Errors: ConfigError, DataError for results of another shape or range.
    """

    data: Dataset
    change: Callable[[Example], Example]
    entries: Entries = ()
    names: tuple[str, ...] | None = None

    def __post_init__(self):
        check_dataset("Mapped", self.data)
        if not callable(self.change):
            raise ConfigError(f"Mapped: change is {self.change!r}; it must be a function")

    @property
    def label_names(self) -> tuple[str, ...]:
        own = self.names
        return tuple(self.data.label_names) if own is None else own

    @property
    def repeats(self) -> bool:
        """Whether a training example may come several times."""
        return getattr(self.data, "repeats", False)

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        if self.entries:
            return {
                n: jax.ShapeDtypeStruct(tuple(shape), np.dtype(d)) for n, shape, d in self.entries
            }
        zeros = {n: np.zeros((1, *s.shape), s.dtype) for n, s in self.data.spec().items()}
        try:
            return array_spec(self._map(zeros))
        except Exception as error:
            raise ConfigError(
                f"Mapped: {self._name} fails for an example of zeros ({type(error).__name__}: "
                f"{error}); give the entries that it makes: entries=(('image', (28, 28, 1), "
                "'uint8'), …)"
            ) from error

    def size(self, split: str) -> int:
        return self.data.size(split)

    def open(self, split: str) -> Source:
        spec = self.spec()

        def map_batch(batch: Batch) -> Batch:
            out = self._map(batch)
            for name in {**spec, **out}:
                wanted = spec.get(name)
                found = out.get(name)
                if (
                    found is None
                    or wanted is None
                    or (found.shape[1:], found.dtype) != (wanted.shape, wanted.dtype)
                ):
                    seen = "nothing" if found is None else f"{found.dtype}{list(found.shape[1:])}"
                    said = "nothing" if wanted is None else f"{wanted.dtype}{list(wanted.shape)}"
                    raise DataError(
                        f"Mapped: {self._name} gave {seen} for {name!r}; it must be {said}, alike "
                        "for all examples (see `entries`)"
                    )
            return out

        return changed(self.data.open(split), map_batch)

    @property
    def _name(self) -> str:
        return getattr(self.change, "__name__", repr(self.change))

    def _map(self, batch: Batch) -> Batch:
        """The function's results for the rows of a batch, as jaxcnn stores arrays."""
        rows = len(next(iter(batch.values())))
        # copies: the function may change what it is given
        made = [self.change({n: np.array(x[i]) for n, x in batch.items()}) for i in range(rows)]
        if not made:
            return {n: np.empty((0, *s.shape), s.dtype) for n, s in self.spec().items()}
        wrong = next(
            (m for m in made if not isinstance(m, dict) or m.keys() != made[0].keys()), None
        )
        if wrong is not None:
            seen = list(wrong) if isinstance(wrong, dict) else type(wrong).__name__
            raise DataError(
                f"Mapped: {self._name} gave {seen}; it must give a dict with the same entries for "
                "every example"
            )
        out = {}
        for name in made[0]:
            each = [np.asarray(m[name]) for m in made]
            if len({x.shape for x in each}) > 1:
                raise DataError(
                    f"Mapped: {self._name} gave {name!r} in shapes "
                    f"{sorted({x.shape for x in each})}; all examples must have one"
                )
            out[name] = canonical_array(name, np.stack(each), f"Mapped, {self._name}")
        return out
