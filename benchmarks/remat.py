"""What computing a network's blocks anew in the backward pass (`Experiment.remat`) saves and costs:
bytes that the compiled training step needs besides its arguments, and seconds a step, in turns.

    python benchmarks/remat.py
    python benchmarks/remat.py resnet50 --remat block --size 128 --batch-size 16 --rounds 7
"""

import argparse
import dataclasses
import time

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402

from jaxcnn.bench.subjects import model_experiment  # noqa: E402
from jaxcnn.core.program import make_program  # noqa: E402
from jaxcnn.core.transforms import compile  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="resnet50")
    parser.add_argument("--remat", default="block", help="a regular expression over modules")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    sizes = [f"data.shape={args.size},{args.size},3", f"batch_size={args.batch_size}"]
    e = model_experiment(args.model, sizes)
    batch = e.data.open("train").take(np.arange(args.batch_size))
    steps, states, taken = [], [], ([], [])
    for remat in (None, (args.remat,)):
        program = compile(make_program(dataclasses.replace(e, remat=remat), steps=1000))
        state = program.init(jax.random.key(0))
        step = program.train_step.trace(state, batch).lower().compile()
        needed = step.memory_analysis().temp_size_in_bytes / 2**20
        print(f"remat={remat}: {needed:.0f} MiB besides state and batch", flush=True)
        state, numbers = step(state, batch)
        print(f"  loss of the first step {float(numbers['loss']):.6f}")
        steps.append(step)
        states.append(state)
    for _ in range(args.rounds):
        for i, step in enumerate(steps):
            start = time.perf_counter()
            states[i], _ = jax.block_until_ready(step(states[i], batch))
            taken[i].append(time.perf_counter() - start)
    for name, seconds in zip(("kept", "anew"), taken, strict=True):
        low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        print(f"{name}: {1000 * middle:.0f} ({1000 * low:.0f} to {1000 * high:.0f}) ms a step")


if __name__ == "__main__":
    main()
