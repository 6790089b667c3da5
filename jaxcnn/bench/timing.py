"""The arithmetic of `bench`: blocks of steps in turns, medians and quartiles, and which of two is
faster, if that can be said.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcnn.bench.load import Block, watched

# a block of steps is made about so long, many times what a clock or a dispatch can err by
BLOCK_SECONDS = 0.5
# Of two whose times are drawn alike (normal, 200,000 pairs) the quartiles are apart in 20 % of the
# pairs with 5 rounds, in 8 % with 7, in 2 % with 11.
FEWEST_ROUNDS = 7
Timer = Callable[[int], float]  # a number of steps -> seconds of that block


def alternate(
    timers: dict[Any, Timer],
    *,
    steps: int,
    rounds: int,
    watch: Callable[[Any, Callable[[], float]], Block] = lambda name, block: watched(block),
) -> dict[Any, list[Block]]:
    """Blocks of so many steps of each timer, one a round, of which the seconds are those of one
    step.

    One after another in every round; the order is turned round in every second one. `watch` times a
    block and says what disturbed it (jaxcnn.bench.load).
    """
    blocks: dict[Any, list[Block]] = {name: [] for name in timers}
    for index in range(rounds):
        for name in list(timers)[:: -1 if index % 2 else 1]:
            block = watch(name, lambda name=name: timers[name](steps))
            blocks[name].append(block._replace(seconds=block.seconds / steps))
    return blocks


def fitting_steps(timer: Timer, *, block_seconds: float = BLOCK_SECONDS) -> int:
    """Warm up a timer, and say how many of its steps last about `block_seconds`: 1 to 1,000."""
    timer(2)
    return max(1, min(1000, math.ceil(2 * block_seconds / max(timer(2), 1e-6))))


def timing(blocks: list[Block], *, batch_size: int) -> dict[str, Any]:
    """{"images_per_second", "ms_per_step" (median), "ms_quartiles" [first, third], "rounds",
    "repeated_blocks" (timed again since they were disturbed), "disturbed_blocks" (that stayed so),
    "others_share" and "stolen_share" (the most of any block that was kept, or None)} from blocks
    whose seconds are those of a step.
    """
    seconds = [block.seconds for block in blocks]
    median = statistics.median(seconds)
    return {
        "images_per_second": batch_size / median,
        "ms_per_step": median * 1e3,
        "ms_quartiles": [float(q) * 1e3 for q in np.percentile(seconds, (25, 75))],
        "rounds": len(seconds),
        "repeated_blocks": sum(block.attempts > 1 for block in blocks),
        "disturbed_blocks": sum(block.disturbed for block in blocks),
        "others_share": _most([block.others for block in blocks]),
        "stolen_share": _most([block.stolen for block in blocks]),
    }


def _most(shares: list[float | None]) -> float | None:
    return max((share for share in shares if share is not None), default=None)


def order(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Whether we are "faster" or "slower" than they; "not established" where the quartiles overlap,
    or where there are fewer than FEWEST_ROUNDS rounds.
    """
    (our_low, our_high), (low, high) = ours["ms_quartiles"], theirs["ms_quartiles"]
    if min(ours["rounds"], theirs["rounds"]) >= FEWEST_ROUNDS:
        if our_high < low:
            return "faster"
        if our_low > high:
            return "slower"
    return "not established"


def compare(ours: dict[str, Any], variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Our timing against the best variant of a peer: {"ms_per_step", "ms_quartiles", "variant",
    "ratio" (ours / theirs), "order"}.
    """
    best = min(variants, key=lambda name: variants[name]["ms_per_step"])
    theirs = variants[best]
    return {
        "ms_per_step": theirs["ms_per_step"],
        "ms_quartiles": theirs["ms_quartiles"],
        "variant": best,
        "ratio": ours["ms_per_step"] / theirs["ms_per_step"],
        "order": order(ours, theirs),
    }
