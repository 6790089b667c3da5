"""Which batches a run sees, in which order, and how many steps go to the device at once."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.core import hosts
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.dataset import (
    Batch,
    Source,
    draws_of_steps,
    indices_of_steps,
    is_drawn,
    take_drawn,
)

# on accelerators: enough to hide the host, few enough to stop soon after a signal
STEPS_PER_DISPATCH = 16
# of batches that are gathered by one call; a call costs as much as a small step on CPU
MOST_PIECES_AT_ONCE, BYTES_AT_ONCE = 64, 8 << 20


def steps_per_dispatch(e: Experiment, source: Source) -> int:
    """How many updates one dispatch makes: what the experiment says, else by what is fast; see
    `Experiment`.
    """
    if e.steps_per_dispatch is not None:
        return e.steps_per_dispatch
    return 1 if jax.default_backend() == "cpu" or source.streaming else STEPS_PER_DISPATCH


def pieces(
    start: int, stop: int, *, size: int, intervals: tuple[int, ...]
) -> Iterator[tuple[int, int]]:
    """The steps [start, stop) as (first, end) of `size` steps each; of one step each where a
    multiple of an interval would lie inside.

    So there are two lengths alone, each compiled once, and a run resumed at the end of a piece goes
    on with the same pieces.
    """
    while start < stop:
        end = min(
            start + size, stop, *(interval * (start // interval + 1) for interval in intervals)
        )
        step = size if end - start == size else 1
        for first in range(start, end, step):
            yield first, first + step
        start = end


def batches(
    source: Source,
    steps: Iterable[tuple[int, int]],
    *,
    seed: int | tuple[int, ...],
    batch_size: int,
    settle: Callable[[], None] = lambda: None,
) -> Iterator[tuple[tuple[int, int], Batch]]:
    """Each piece (first, end) of `steps` with its training batch: arrays [B, …] of one step, [end -
    first, B, …] of more. With a tuple of R seeds the batches of R replicas together, [R, B, …] and
    [end - first, R, B, …]. B are this host's rows, of hosts that train together.

    Sources that decode on the host are asked two pieces ahead, in the background; of others small
    batches are gathered many at a time. `settle` waits for the steps in progress. It is called on
    CPU before batches are gathered, which would otherwise take the cores from
    under a step: its threads then wait for one another, and that costs more than the gathering.
    """

    def take(first: int, end: int, *shape: int) -> Batch:
        def rows(seed: int) -> np.ndarray:
            order = indices_of_steps(seed, first, end, size=len(source), batch_size=batch_size)
            return hosts.own_rows(order.reshape(*shape, batch_size))

        def draws(seed: int) -> np.ndarray:
            drawn = draws_of_steps(seed, first, end, batch_size=batch_size)
            return hosts.own_rows(drawn.reshape(*shape, batch_size))

        def together(of: Callable[[int], np.ndarray]) -> np.ndarray:
            return of(seed) if isinstance(seed, int) else np.stack(list(map(of, seed)), axis=-2)

        return take_drawn(source, together(rows), together(draws) if is_drawn(source) else None)

    def take_piece(piece: tuple[int, int]) -> Batch:
        length = piece[1] - piece[0]
        return take(*piece, *(() if length == 1 else (length,)))

    if not source.streaming:
        steps = iter(steps)
        for piece in itertools.islice(steps, 1):
            batch = take_piece(piece)
            yield piece, batch
            most = BYTES_AT_ONCE // max(1, sum(x.nbytes for x in batch.values()))
            for group in _alike(steps, max(1, min(most, MOST_PIECES_AT_ONCE))):
                if len(group) > 1 and jax.default_backend() == "cpu":
                    settle()
                length = group[0][1] - group[0][0]
                shape = (len(group), *(() if length == 1 else (length,)))
                taken = (
                    _apart(take(group[0][0], group[-1][1], *shape))
                    if len(group) > 1
                    else [take_piece(group[0])]
                )
                yield from zip(group, taken, strict=True)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead: deque[tuple[tuple[int, int], Future[Batch]]] = deque()
        for piece in steps:
            ahead.append((piece, pool.submit(take_piece, piece)))
            if len(ahead) > 2:
                first, batch = ahead.popleft()
                yield first, batch.result()
        for piece, batch in ahead:
            yield piece, batch.result()


def _alike(steps: Iterable[tuple[int, int]], most: int) -> Iterator[list[tuple[int, int]]]:
    """Groups of `most` pieces of one length that follow one another; what does not fill a group,
    one by one, since each size of a group is compiled anew."""
    for _, alike in itertools.groupby(steps, lambda piece: piece[1] - piece[0]):
        while group := list(itertools.islice(alike, most)):
            yield from [group] if len(group) == most else ([piece] for piece in group)


@jax.jit
def _apart(batch: Batch) -> list[Batch]:
    """The batches that lie along the leading axis."""
    return [
        dict(zip(batch, arrays, strict=True))
        for arrays in zip(*map(jnp.unstack, batch.values()), strict=True)
    ]
