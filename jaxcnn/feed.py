"""Which batches a run sees, in which order, and how many steps go to the device at once."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from jaxcnn.data.dataset import Source, batch_indices
from jaxcnn.experiment import Experiment

STEPS_PER_DISPATCH = 16  # on accelerators: enough to hide the host, few enough to stop soon after a signal


def steps_per_dispatch(e: Experiment, source: Source) -> int:
    """How many updates one dispatch makes: what the experiment says, else by what is fast; see `Experiment`."""
    if e.steps_per_dispatch is not None:
        return e.steps_per_dispatch
    return 1 if jax.default_backend() == "cpu" or source.streaming else STEPS_PER_DISPATCH


def pieces(start: int, stop: int, *, size: int, intervals: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The steps [start, stop) as (first, end) of `size` steps each; of one step each where a multiple of an interval would lie inside.

    So there are two lengths alone, each compiled once, and a run resumed at the end of a piece goes on with the same pieces.
    """
    while start < stop:
        end = min(start + size, stop, *(interval * (start // interval + 1) for interval in intervals))
        step = size if end - start == size else 1
        for first in range(start, end, step):
            yield first, first + step
        start = end


def batches(source: Source, steps: Iterable[tuple[int, int]], *, seed: int, batch_size: int) -> Iterator[tuple[tuple[int, int], dict]]:
    """Each piece (first, end) of `steps` with its training batch: arrays [B, …] of one step, [end - first, B, …] of more.

    Sources that decode on the host are asked two pieces ahead, in the background.
    """

    def take(piece: tuple[int, int]) -> dict:
        rows = [batch_indices(seed, step, size=len(source), batch_size=batch_size) for step in range(*piece)]
        return source.take(rows[0] if len(rows) == 1 else np.stack(rows))

    if not source.streaming:
        for piece in steps:
            yield piece, take(piece)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead: deque = deque()
        for piece in steps:
            ahead.append((piece, pool.submit(take, piece)))
            if len(ahead) > 2:
                first, batch = ahead.popleft()
                yield first, batch.result()
        for piece, batch in ahead:
            yield piece, batch.result()
