"""What checkpoints cost the run that makes them: for how long training waits for a save (the state
is copied), how long it then takes to be hashed, written, fsynced and renamed beside training, and
the steps of the run with saves beside the same steps without, in turns.

python benchmarks/save_speed.py [experiment] [steps] [seconds between saves] [rounds] [name=value …]
(by default: digits_lenet5 200 0 3)
"""

import sys
import tempfile
import time
from pathlib import Path

from jaxcnn.runs.environment import prepare_process

prepare_process()

import numpy as np  # noqa: E402 (after the environment is set)

import jaxcnn  # noqa: E402
from jaxcnn.runs import loop, saving  # noqa: E402
from jaxcnn.runs.code import find, load  # noqa: E402

waits: list[float] = []
writes: list[float] = []
sizes: list[int] = []


def timed(function, into):
    """`function`, whose seconds are kept."""

    def call(*args, **options):
        began = time.perf_counter()
        result = function(*args, **options)
        into.append(time.perf_counter() - began)
        return result

    return call


def once(experiment, seconds: float) -> float:
    """Seconds from the second step to the last, saved so often; the save at the end not counted."""
    seen: list[float] = []

    def watch(event):
        if event.kind == "train":
            seen.append(time.perf_counter())
        elif event.kind == "save":
            sizes.append(max(event.folder.glob("checkpoints/last-*")).stat().st_size)

    loop.SAVE_SECONDS = seconds
    with tempfile.TemporaryDirectory() as folder:
        jaxcnn.train(experiment, Path(folder) / "run", observe=[watch], quiet=True)
    return seen[-1] - seen[1]


def shown(values: list[float]) -> str:
    """Milliseconds: median and quartiles."""
    low, middle, high = np.percentile(1000 * np.array(values), (25, 50, 75))
    least, n = 1000 * min(values), len(values)
    return f"{middle:.2f} ms (quartiles {low:.2f}, {high:.2f}; least {least:.2f}), n = {n}"


def main(name: str, steps: int, seconds: float, rounds: int, *overrides: str) -> None:
    """Print what was found."""
    fields = [f"steps={steps}", "eval_every=1000000", "log_every=1", *overrides]
    e = load(find(name), overrides=fields)
    saving.begin, saving._write = timed(saving.begin, waits), timed(saving._write, writes)
    without, with_saves = [], []
    once(e, 1e9)  # compiles
    waits.clear()
    writes.clear()
    for _ in range(rounds):
        for interval, times in ((1e9, without), (seconds, with_saves)):
            times.append(once(e, interval))
            del waits[-1], writes[-1]
    print(f"{name} {' '.join(overrides)}: {max(sizes) / 2**20:.2f} MiB a checkpoint")
    print(f"training waits for a save: {shown(waits)}")
    print(f"it is written, beside training, within: {shown(writes)}")
    print(f"{steps} steps without saves: {shown(without)}")
    print(f"{steps} steps, saved every {seconds:g} s: {shown(with_saves)}")
    share = 100 * sum(waits) / sum(with_saves)
    print(f"waiting: {share:.2f} % of the run; {len(waits)} saves")


if __name__ == "__main__":
    given = sys.argv[1:]
    defaults = ["digits_lenet5", "200", "0", "3"]
    name, steps, seconds, rounds, *more = given + defaults[len(given) :]
    main(name, int(steps), float(seconds), int(rounds), *more)
