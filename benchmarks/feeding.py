"""What feeding costs: an epoch as a run feeds it, against the same batches gathered before the
clock starts, and against as many steps on one batch; in turns.

python benchmarks/feeding.py mnist_lenet5_modern [rounds, 15]
"""

import sys
import time

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402

from jaxcnn.core.program import make_program  # noqa: E402
from jaxcnn.core.transforms import compile  # noqa: E402
from jaxcnn.runs.code import find, load  # noqa: E402
from jaxcnn.runs.evaluation import open_checked  # noqa: E402
from jaxcnn.runs.feed import batches, pieces  # noqa: E402


def main(name: str, rounds: int) -> None:
    """Print seconds an epoch of each, with quartiles, and the medians of the rounds' ratios with 95
    % intervals (order statistics).
    """
    e = load(find(name), overrides=[])
    source = open_checked(e, "train")
    steps = len(source) // e.batch_size
    program = compile(make_program(e, steps=steps))
    state = program.init(jax.random.key(0))
    fixed = jax.device_put(source.take(np.arange(e.batch_size, dtype=np.int32)))
    seconds = np.zeros((1 + rounds, 3))

    def settle():
        jax.block_until_ready(state)

    for turn in range(len(seconds)):
        for way in (0, 1, 2)[:: 1 if turn % 2 else -1]:
            ahead = pieces(0, steps, size=1, intervals=())
            feed = ((None, fixed) for _ in range(steps))
            if way:
                feed = batches(source, ahead, seed=turn, batch_size=e.batch_size, settle=settle)
            feed = jax.block_until_ready(list(feed)) if way == 1 else feed
            began = time.perf_counter()
            for _, batch in feed:
                state, _ = program.train_step(state, batch)
            jax.block_until_ready(state)
            seconds[turn, way] = time.perf_counter() - began
            del feed
    seconds = seconds[1:]  # the first compiles
    for way, what in enumerate(("one batch", "gathered before", "fed")):
        print(
            f"{what}: {np.median(seconds[:, way]):.3f} s, quartiles "
            f"{np.percentile(seconds[:, way], (25, 75)).round(3)}, {steps} steps"
        )
    # percentiles: 1.96 standard deviations of how many of the rounds lie below the true median
    half = 98 / rounds**0.5
    for way, what in ((1, "gathered before"), (0, "one batch")):
        ratios = seconds[:, 2] / seconds[:, way]
        low, median, high = np.percentile(ratios, (max(50 - half, 0), 50, min(50 + half, 100)))
        print(f"fed / {what}: {median:.4f} ({low:.4f} to {high:.4f}), {rounds} rounds")


if __name__ == "__main__":
    main(sys.argv[1], int((*sys.argv[2:], 15)[0]))
