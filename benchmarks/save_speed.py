"""What a checkpoint costs the run, which waits for it: the state is hashed, written, fsynced and
renamed, and the oldest one removed. For comparison the same bytes, written and fsynced once.

python benchmarks/save_speed.py [experiment, digits_lenet5] [saves, 200] [folder, a temporary one]
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402

from jaxcnn.core.program import make_program  # noqa: E402
from jaxcnn.runs.checkpoint import Checkpoints  # noqa: E402
from jaxcnn.runs.code import find, load  # noqa: E402


def plain(path: Path, blob: bytes) -> None:
    """Write and fsync."""
    with path.open("wb") as file:
        file.write(blob)
        file.flush()
        os.fsync(file.fileno())


def main(name: str, saves: int, place: str | None) -> None:
    """Print milliseconds a save: median, quartiles, the least."""
    e = load(find(name), overrides=[])
    state = jax.jit(make_program(e, steps=saves).init)(jax.random.key(0))
    jax.block_until_ready(state)
    took = np.zeros((saves, 2))
    with tempfile.TemporaryDirectory(dir=place) as folder:
        kept = Checkpoints(Path(folder))
        kept.save(state, step=0)
        (path,) = kept.files()
        blob = path.read_bytes()
        for step in range(saves):
            began = time.perf_counter()
            kept.save(state, step=step + 1)
            between = time.perf_counter()
            plain(Path(folder) / "plain", blob)
            took[step] = between - began, time.perf_counter() - between
    for column, what in enumerate(("a save", "write and fsync alone")):
        low, middle, high = np.percentile(1000 * took[:, column], (25, 50, 75))
        print(
            f"{name}, {len(blob) / 2**20:.2f} MiB, {what}: {middle:.2f} ms (quartiles {low:.2f}, "
            f"{high:.2f}; least {1000 * took[:, column].min():.2f}), n = {saves}"
        )


if __name__ == "__main__":
    place = sys.argv[3] if len(sys.argv) > 3 else None
    main((sys.argv[1:] or ["digits_lenet5"])[0], int((sys.argv[2:] or ["200"])[0]), place)
