"""The dataset protocol, and the order in which examples are visited.

A dataset is an immutable value: constructing one reads nothing. `open` gives random access; which
examples make up training step `s` is a pure function of (seed, s), so the step is all that a
resumed run needs to know of its data.
"""

import threading
from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

import jax
import numpy as np

from jaxcnn.core.batch import Batch

SPLITS = ("train", "eval", "test")
# of the orders of epochs that are kept, at most (but two at least): of 128 replicas of MNIST in two
# epochs, or of 12 of ImageNet
ORDERS_BYTES = 64 << 20


class Source(Protocol):
    """Random access to the examples of one split."""

    def __len__(self) -> int: ...

    @property
    def streaming(self) -> bool:
        """Whether `take` works on the host, so that the loop asks ahead in the background."""
        ...

    @property
    def arrays(self) -> Mapping[str, Any] | None:
        """All examples, [N, *example shape] each, where they lie in memory as arrays; None where
        they are decoded or made when asked for.
        """
        ...

    def take(self, indices: np.ndarray) -> Batch:
        """The examples at `indices` (int, any shape [...], values in [0, len)) as arrays [...,
        *example shape].

        Images are uint8 [..., H, W, C] (converted to float32 in [0, 1] by the program), labels
        int32. Memory-resident sources gather on the device and return JAX arrays; streaming sources
        decode on the host and return NumPy arrays.
        """
        ...


@runtime_checkable
class DrawnSource(Protocol):
    """A source that may give an example otherwise at each visit, such as another window of it."""

    @property
    def drawn(self) -> bool:
        """Whether `draws` change anything."""
        ...

    def take(self, indices: np.ndarray, *, draws: np.ndarray | None = None) -> Batch:
        """As `Source.take`. `draws`: uint64, of the shape of `indices`, of which all that is random
        follows, see `draws_of_steps`; None for the examples as they are evaluated.
        """
        ...


class Dataset(Protocol):
    """Where batches come from: a frozen dataclass."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes; () where they have none."""
        ...

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of one example as `take` returns it, from metadata alone (no pixel is
        read where that can be avoided).
        """
        ...

    def size(self, split: str) -> int:
        """Number of examples of "train", "eval" or "test" (0 where there is no such split), from
        metadata alone.
        """
        ...

    def open(self, split: str) -> Source:
        """The examples of a split. Errors: DataError naming the file and the remedy."""
        ...


def column(source: Source, name: str) -> np.ndarray | None:
    """Entry `name` of all examples, [N, *its shape], where it is there without decoding any: of
    examples in memory, and of streams that were told it (`columns`, such as the labels of a class
    folder); None elsewhere.
    """
    found = source.arrays if source.arrays is not None else getattr(source, "columns", {})
    return np.asarray(found[name]) if name in found else None


def sample_rows(source: Source, count: int) -> np.ndarray:
    """About `count` rows to look at, ascending: one of each class where the labels are known
    without decoding (where there are more classes than that, the lowest, the highest and some
    between), the others evenly spaced.
    """
    size = len(source)
    spaced = np.linspace(0, size - 1, min(count, size)).astype(np.int64)
    label = column(source, "label")
    if label is None or label.ndim != 1:
        return spaced
    classes, first = np.unique(label, return_index=True)
    if len(classes) > count:
        first = first[np.linspace(0, len(classes) - 1, count).astype(np.int64)]
    rest = spaced[:: max(1, -(-len(spaced) // max(1, count - len(first))))]
    return np.union1d(first, rest if len(first) < count else first)


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of epoch `epoch`: a permutation of range(size), [size] int32; Philox keyed by
    (seed, epoch).
    """
    key = (seed & 0xFFFFFFFFFFFFFFFF, epoch, size)
    with _lock:
        order = _orders.pop(key, None)
    if order is None:
        philox = np.random.Philox(key=np.array(key[:2], np.uint64))
        order = np.random.Generator(philox).permutation(size).astype(np.int32)
        order.flags.writeable = False
    with _lock:
        _orders[key] = order
        # a batch may straddle two epochs
        while len(_orders) > 2 and sum(kept.nbytes for kept in _orders.values()) > ORDERS_BYTES:
            del _orders[next(iter(_orders))]
    return order


_lock = threading.Lock()
_orders: dict[tuple[int, int, int], np.ndarray] = {}  # the one that was asked for last is the last


def is_drawn(source: object) -> bool:
    """Whether what a source gives in training depends on the visit."""
    return isinstance(source, DrawnSource) and source.drawn


def take_drawn(source: Source, indices: np.ndarray, draws: np.ndarray | None) -> Batch:
    """`source.take`, with the draws if it knows of any."""
    if is_drawn(source):
        return cast(DrawnSource, source).take(indices, draws=draws)
    return source.take(indices)


def training_batch(source: Source, seed: int, step: int, *, batch_size: int) -> Batch:
    """The batch of training step `step` as a run has it, arrays [batch_size, *example shape]."""
    rows = batch_indices(seed, step, size=len(source), batch_size=batch_size)
    draws = draws_of_steps(seed, step, step + 1, batch_size=batch_size)[0]
    return take_drawn(source, rows, draws)


def draws_of_steps(seed: int, first: int, end: int, *, batch_size: int) -> np.ndarray:
    """A number for each row of the training steps [first, end), of which what is random in its
    decoding follows: uint64 [end - first, batch_size]. The rows of a seed have different ones; the
    first of all comes of NumPy's SeedSequence of (seed, 1).
    """
    start = np.random.SeedSequence((seed & 0xFFFFFFFFFFFFFFFF, 1)).generate_state(1, np.uint64)
    places = np.arange(first * batch_size, end * batch_size, dtype=np.uint64)
    return (start + places).reshape(end - first, batch_size)


def batch_indices(seed: int, step: int, *, size: int, batch_size: int) -> np.ndarray:
    """Indices of the examples of training step `step`, [batch_size] int32; see
    `indices_of_steps`.
    """
    return indices_of_steps(seed, step, step + 1, size=size, batch_size=batch_size)[0]


def indices_of_steps(seed: int, first: int, end: int, *, size: int, batch_size: int) -> np.ndarray:
    """Indices of the examples of the training steps [first, end), [end - first, batch_size] int32.

    The epochs' permutations follow one another without a gap, and a batch may straddle two: every
    example is visited exactly once an epoch, none is dropped, and all batches have one size.
    """
    position = np.arange(first * batch_size, end * batch_size)
    epochs, offsets = np.divmod(position, size)
    out = np.empty(position.shape, np.int32)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        out[chosen] = epoch_order(seed, int(epoch), size)[offsets[chosen]]
    return out.reshape(end - first, batch_size)
