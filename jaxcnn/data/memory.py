"""Examples that live on the device (on CPU: in NumPy), a whole split as arrays, gathered there by
index.

Also the rules that host arrays must keep.
"""

import functools
import itertools
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxcnn.data.dataset import SPLITS
from jaxcnn.data.layout import question_pixels, require_numbers
from jaxcnn.errors import ConfigError, DataError, did_you_mean

Arrays_ = Mapping[str, np.ndarray]


def check_split(split: str) -> str:
    """`split` itself, or ConfigError if it is none of "train", "eval" and "test"."""
    if split not in SPLITS:
        raise ConfigError(
            f"split is {split!r}; it must be one of "
            f"{', '.join(SPLITS)}{did_you_mean(split, SPLITS)}"
        )
    return split


def canonical(arrays: Arrays_, *, where: str) -> dict[str, np.ndarray]:
    """The arrays as jaxcnn stores them, or DataError naming `where` (a file, a split), the array,
    the value and the rule.

    Integers become int32 and floats float32. An array called "image" becomes [N, H, W, C]: integers
    must lie in [0, 255] and become uint8, floats must lie in [0, 1]. All arrays have the same
    number of examples, at least one.
    """
    out = {name: canonical_array(name, np.asarray(array), where) for name, array in arrays.items()}
    lengths = {name: len(array) for name, array in out.items()}
    if len(set(lengths.values())) > 1:
        image, label = out.get("image"), out.get("label")
        last = image is not None and label is not None and image.shape[-1] == len(label)
        hint = "; 'image' seems to be [H, W, C, N]: transpose(3, 0, 1, 2)" if last else ""
        raise DataError(
            f"{where}: the arrays differ in their number of examples: {lengths}; each example "
            f"needs one entry in every array{hint}"
        )
    if not lengths or not next(iter(lengths.values())):
        raise DataError(f"{where}: there are no examples")
    return out


def canonical_array(name: str, array: np.ndarray, where: str) -> np.ndarray:
    """One array of `canonical`."""
    require_numbers(name, array.shape, array.dtype, where)
    if name == "image":
        return _canonical_image(array, where)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind == "b" or array.dtype == np.uint8:
        # masks stay small; labels are int32
        return array.astype(np.uint8 if array.ndim > 1 else np.int32)
    if array.size and (array.min() < -(2**31) or array.max() >= 2**31):
        raise DataError(
            f"{where}: {name!r} has values in [{array.min()}, {array.max()}]; integers must fit "
            "32 bits"
        )
    return array.astype(np.int32, copy=False)


def _canonical_image(array: np.ndarray, where: str) -> np.ndarray:
    array = array[..., None] if array.ndim == 3 else array
    if array.dtype.kind == "b":
        return array * np.uint8(255)
    dtype = np.float32 if array.dtype.kind == "f" else np.uint8
    if array.dtype == np.uint8 or not array.size:
        return array.astype(dtype, copy=False)
    low, high, top = array.min(), array.max(), 1 if array.dtype.kind == "f" else 255
    if not (low >= 0 and high <= top):  # so written, NaN is refused too
        raise DataError(
            f"{where}: 'image' is {array.dtype} with values in [{low}, {high}]; floats must lie "
            "in [0, 1] and integers in [0, 255]: "
            "scale the pixels, or store them as uint8"
        )
    return array.astype(dtype, copy=False)


def header_spec(
    headers: Mapping[str, tuple[tuple[int, ...], Any]], *, where: str
) -> dict[str, jax.ShapeDtypeStruct]:
    """The spec of one example, from the (shape, dtype) that files declare for their arrays.
    Errors: DataError.
    """
    out = {}
    for name, (shape, dtype) in headers.items():
        require_numbers(name, shape, np.dtype(dtype), where)
        try:
            empty = np.empty((0, *shape[1:]), dtype)
        except ValueError as error:  # sizes that no array can have, of an array without examples
            raise DataError(f"{where}: {name!r} has shape {shape}; {error}") from error
        out[name] = canonical_array(name, empty, where)
    return array_spec(out)


def array_spec(arrays: Arrays_) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of one example of `arrays`, whose leading axis counts examples."""
    return {
        name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for name, array in arrays.items()
    }


def num_held_out(size: int, fraction: float) -> int:
    """How many of `size` examples without labels `held_out` chooses: the fraction, rounded down,
    but one at least and not all, where there are two or more.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"eval_fraction is {fraction}; it must lie in [0, 1)")
    wanted = int(np.floor(size * fraction + 1e-9))  # 0.2 * 5 must give 1 whatever the rounding
    return min(max(wanted, 1), size - 1) if fraction and size >= 2 else 0


def held_out(
    labels: np.ndarray,
    fraction: float,
    *,
    names: Sequence[str] = (),
    where: str = "",
) -> np.ndarray:
    """A mask [N] bool of the examples held out for evaluation: evenly spaced in the order of their
    labels.

    So it is a function of the labels alone, and each class gives its share to within one example.
    A class of two examples or more has at least one on either side; the one of a class of one stays
    in training, so that its class is never scored, which is said (`names` of the classes, and
    `where` they are). Labels that are floats are numbers, not classes: they are spread evenly.
    """
    size = len(labels)
    if not 0 <= fraction < 1:
        raise ConfigError(f"eval_fraction is {fraction}; it must lie in [0, 1)")
    steps = np.floor(np.arange(size + 1) * fraction + 1e-9)
    order = np.argsort(labels, kind="stable")
    chosen = np.diff(steps) > 0  # in that order
    labels = np.asarray(labels)[order]
    numbers = labels.dtype.kind == "f"
    bounds = [0, size] if numbers else [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1), size]
    lone = []
    for first, end in itertools.pairwise(bounds if size and fraction else []):
        count = chosen[first:end].sum()
        if end - first == 1:
            chosen[first] = False
            lone.append(labels[first].item())
        elif count == 0:
            chosen[(first + end) // 2] = True
        elif count == end - first:
            chosen[first] = False
    if lone:
        _say_lone(lone, size, names, where)
    mask = np.zeros(size, bool)
    mask[order[chosen]] = True
    return mask


def _say_lone(lone: list[Any], size: int, names: Sequence[str], where: str) -> None:
    shown = [names[k] if names and 0 <= k < len(names) else k for k in lone[:10]]
    warnings.warn(
        (f"{where}: " if where else "")
        + f"{len(lone)} classes have one example each of {size}, which stays in training, so that "
        f"evaluation does not know them: {shown}",
        stacklevel=4,
    )


def held_rows(
    arrays: Arrays_, fraction: float, *, names: Sequence[str] = (), where: str = ""
) -> np.ndarray:
    """`held_out` of the examples of arrays, [N] bool, by "label" where there is one."""
    label = arrays.get("label", np.zeros(len(next(iter(arrays.values()))), np.int32))
    if label.ndim != 1:  # several labels an example: spread over the file's order instead
        label = np.zeros(len(label), np.int32)
    return held_out(label, fraction, names=names, where=where)


def keep_split(
    arrays: Arrays_,
    split: str,
    eval_fraction: float,
    *,
    names: Sequence[str] = (),
    where: str = "",
) -> dict[str, np.ndarray]:
    """The "train" or "eval" part of arrays of which `held_rows` sets a fraction aside."""
    chosen = held_rows(arrays, eval_fraction, names=names, where=where) == (split == "eval")
    return {name: array[chosen] for name, array in arrays.items()}


@jax.jit
def _gather(arrays: dict[str, jax.Array], indices: jax.Array) -> dict[str, jax.Array]:
    return {name: array.at[indices].get(mode="promise_in_bounds") for name, array in arrays.items()}


def check_indices(indices: Any, size: int) -> np.ndarray:
    """`indices` as int32, or IndexError if one lies outside [0, size)."""
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu":
        raise IndexError(f"indices are {indices.dtype}; they must be integers")
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise IndexError(
            f"indices lie in [{indices.min()}, {indices.max()}]; with {size} examples they must "
            f"lie in [0, {size - 1}]"
        )
    return indices.astype(np.int32)


class MemorySource:
    """A split held on the default device, moved there at the first `take`; on CPU held as NumPy
    arrays.

    `arrays`: equally many examples each, uint8, int32 or float32 (see `canonical`). The arrays
    given are let go once they are held.
    """

    streaming = False

    def __init__(self, arrays: Arrays_):
        self._arrays = canonical(arrays, where="MemorySource")
        self._size = len(next(iter(self._arrays.values())))
        self._held: dict[str, Any] | None = None
        self._lock = threading.Lock()  # a loop may fetch the next batch in a thread of its own

    def __len__(self) -> int:
        return self._size

    @property
    def arrays(self) -> Arrays_:
        """All examples; on the host until the first `take`."""
        return self._arrays if self._held is None else self._held

    def take(self, indices: np.ndarray) -> dict[str, jax.Array]:
        """The examples at `indices` (int, any shape [...]) as device arrays [..., *example shape];
        IndexError outside [0, len).
        """
        indices = check_indices(indices, self._size)
        with self._lock:
            held = self._held
            if held is None:
                # a CPU device may share memory with NumPy, and its owner write to it
                copies = {name: array.copy() for name, array in self._arrays.items()}
                held = copies if jax.default_backend() == "cpu" else jax.device_put(copies)
                self._held, self._arrays = held, {}
        # NumPy copies whole examples, XLA's CPU backend element by element
        if jax.default_backend() == "cpu":
            taken = {name: np.take(array, indices, axis=0) for name, array in held.items()}
            return jax.device_put(taken)
        return _gather(held, jax.device_put(indices))


def _form(value: object) -> str:
    """The dtypes and shapes in a mapping of arrays; of what is none, its type."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_form(entry)}' for name, entry in value.items())}}}"
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype}{list(value.shape)}"
    return type(value).__name__


# arrays do not compare: a dataset of arrays is equal to itself alone, and hashable
@dataclass(frozen=True, eq=False)
class Arrays:
    """Arrays already in memory as a dataset: `Arrays({"image": x, "label": y}, {"image": x_eval,
    "label": y_eval})`.

    Images [N, H, W, C] or [N, H, W]: uint8 in 0..255 or floats in [0, 1]; labels integers. See
    `canonical`. Errors: DataError.
    """

    train: Arrays_
    eval: Arrays_
    test: Arrays_ | None = None
    label_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """What kind of numbers there are, not the numbers."""
        given = {"train": self.train, "eval": self.eval, "test": self.test}
        forms = [
            f"{split}={_form(arrays)}" for split, arrays in given.items() if arrays is not None
        ]
        return f"Arrays({', '.join(forms)})"

    @functools.cached_property
    def _splits(self) -> dict[str, dict[str, np.ndarray]]:
        given = {"train": self.train, "eval": self.eval, "test": self.test}
        out = {}
        for split, arrays in given.items():
            if arrays is not None:
                out[split] = canonical(arrays, where=f"Arrays, split {split!r}")
                question_pixels(out[split], where=f"Arrays, split {split!r}")
        return out

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return array_spec(self._splits["train"])

    def size(self, split: str) -> int:
        arrays = self._splits.get(check_split(split), {})
        return len(next(iter(arrays.values()), ()))

    def open(self, split: str) -> MemorySource:
        if not self.size(split):
            raise DataError(
                f"these Arrays have no {split!r} split; they have {', '.join(self._splits)}"
            )
        return MemorySource(self._splits[split])
