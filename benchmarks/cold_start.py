"""From starting a process to its first finished training step, with a warm compilation cache: the
median of seven processes.

python benchmarks/cold_start.py digits_lenet5

A process more runs first, uncounted, and fills the cache.
"""

import statistics
import subprocess
import sys
import time

COUNT = 7


def first_step(name: str) -> None:
    """What `launch.py train` does up to the end of its first step, without the run directory."""
    from jaxcnn.runs.environment import prepare_process

    prepare_process()

    import jax
    import numpy as np

    from jaxcnn.core.program import make_program
    from jaxcnn.core.transforms import compile
    from jaxcnn.runs.code import find, load

    e = load(find(name), overrides=[])
    source = e.data.open("train")
    program = compile(make_program(e, steps=e.total_steps(len(source))))
    state = program.init(jax.random.key(e.seed))
    jax.block_until_ready(
        program.train_step(state, source.take(np.arange(e.batch_size, dtype=np.int32)))
    )


def main(name: str) -> None:
    """Print the seconds of every counted process and their median."""
    seconds = []
    for _ in range(COUNT + 1):
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, __file__, name, "--child"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stdout.readline() == "stepped\n"
        seconds.append(time.perf_counter() - began)
        process.wait()
    print(
        "  ".join(f"{s:.2f}" for s in seconds[1:]),
        f"s; median {statistics.median(seconds[1:]):.2f} s (first, uncounted: {seconds[0]:.2f} s)",
    )


if __name__ == "__main__":
    if "--child" in sys.argv:
        first_step(sys.argv[1])
        print("stepped", flush=True)
    else:
        main(sys.argv[1])
