"""From starting a process to its first finished training step, with a warm compilation cache: the
median of seven processes.

python benchmarks/cold_start.py digits_lenet5 [torch]

A process more runs first, uncounted, and fills the cache. With `torch`, in turns with them, what
the same takes in PyTorch (eager): a LeNet-5 of the same sizes on 64 random images, without
augmentation or experiment file.
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


def first_torch_step() -> None:
    """A training step of LeNet-5 in PyTorch, written as its tutorials do."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh()),
        *(nn.AvgPool2d(2), nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84)),
        *(nn.Tanh(), nn.Linear(84, 10)),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.9)
    images, labels = torch.rand(64, 1, 32, 32), torch.randint(10, (64,))
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(images), labels).backward()
    optimizer.step()


def seconds_to_first_step(name: str) -> float:
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, name, "--child"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "stepped\n"
    seconds = time.perf_counter() - began
    process.wait()
    return seconds


def main(*names: str) -> None:
    """Print the seconds of every counted process and their median, for each of `names` in turns."""
    rounds = [[seconds_to_first_step(name) for name in names] for _ in range(COUNT + 1)]
    for name, (first, *seconds) in zip(names, zip(*rounds, strict=True), strict=True):
        print(
            f"{name}: ",
            "  ".join(f"{s:.2f}" for s in seconds),
            f"s; median {statistics.median(seconds):.2f} s (first, uncounted: {first:.2f} s)",
        )


if __name__ == "__main__":
    if "--child" in sys.argv:
        first_torch_step() if sys.argv[1] == "torch" else first_step(sys.argv[1])
        print("stepped", flush=True)
    else:
        main(*sys.argv[1:])
