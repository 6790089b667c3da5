"""How long an experiment trains, and to which accuracy: n seeds, each from its initial weights to
its last evaluation.

python benchmarks/time_to_accuracy.py fashion_mnist_speed 10 [epochs=3 model.model.widths=32,64,128
…]

In the time: initial weights (the whitening), the training steps, one evaluation on all test images.
Not in it: reading the data, and compilation, which a seed before the others runs into, that is
printed and not counted.
"""

import sys
import time

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402

from jaxcnn.core.program import make_program  # noqa: E402
from jaxcnn.core.transforms import on_devices, scan, scored  # noqa: E402
from jaxcnn.runs.code import find, load  # noqa: E402
from jaxcnn.runs.evaluation import evaluate, open_checked  # noqa: E402
from jaxcnn.runs.feed import batches, pieces, steps_per_dispatch  # noqa: E402
from jaxcnn.runs.replica import start_variables  # noqa: E402


def main(name: str, count: int, overrides: list[str]) -> None:
    """Print a line for each seed, then mean ± std of seconds and of the task's metric."""
    e = load(find(name), overrides=overrides)
    train, test = open_checked(e, "train"), open_checked(e, "eval")
    steps, dispatch = e.total_steps(len(train)), steps_per_dispatch(e, train)
    plain = make_program(e, steps=steps)
    single, many = on_devices(plain), on_devices(scan(plain), axes=1)
    scoring = on_devices(scored(plain, e))

    def run(seed: int) -> tuple[float, float]:
        began = time.perf_counter()
        key = jax.random.key(seed)
        state = single.init(key, {}, start_variables(e, key, train, lambda message: None))
        ahead = pieces(0, steps, size=dispatch, intervals=())
        for (first, end), batch in batches(train, ahead, seed=seed, batch_size=e.batch_size):
            state = (single if end - first == 1 else many).train_step(state, batch)[0]
        value = evaluate(scoring, state, test, e)[e.task.metric]
        return time.perf_counter() - began, value

    first, _ = run(count)
    print(
        f"{name}: {steps} steps; the seed before the others, compilation in it: {first:.2f} s",
        flush=True,
    )
    found = []
    for seed in range(count):
        found.append(run(seed))
        print(f"seed {seed}: {found[-1][0]:.2f} s, {e.task.metric} {found[-1][1]:.4f}", flush=True)
    seconds, values = np.array(found).T
    spread = [f"{x.mean():.4f} ± {x.std(ddof=min(1, count - 1)):.4f}" for x in (seconds, values)]
    print(f"n = {count}: {spread[0]} s, {e.task.metric} {spread[1]}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
