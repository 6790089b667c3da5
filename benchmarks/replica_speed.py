"""How fast replicas train in each way, against as many solo steps one after another: the table of
docs/performance.md.

python benchmarks/replica_speed.py lenet5_modern 64 1,4,16,64
python benchmarks/replica_speed.py fashion_cnn 8 1,4,16
"""

import sys
from functools import partial

from jaxcnn.runs.environment import prepare_process

prepare_process()

import jax  # noqa: E402 (after the environment is set)
import numpy as np  # noqa: E402
import optax  # noqa: E402

from jaxcnn import models  # noqa: E402
from jaxcnn.core.experiment import Experiment  # noqa: E402
from jaxcnn.core.program import make_program  # noqa: E402
from jaxcnn.data.made.synthetic import Synthetic  # noqa: E402
from jaxcnn.runs import replicas, ways  # noqa: E402
from jaxcnn.tasks.classification import Classification  # noqa: E402


def main(name: str, batch_size: int, counts: list[int]) -> None:
    """Print ms per replica and step (median of seven, in turns) of each way; "loop" of one replica
    is the solo step.
    """
    model, shape = models.build(name)
    optimizer = partial(optax.sgd, learning_rate=0.01, momentum=0.9)
    e = Experiment(
        model,
        Classification(10),
        Synthetic(shape=shape, num_classes=10),
        optimizer,
        batch_size=batch_size,
        steps=100,
    )
    program, source = make_program(e, steps=100), e.data.open("train")
    for count in counts:
        keys, numbers = replicas.keys_and_numbers(e, [{"seed": i} for i in range(count)])
        batch = source.take(np.random.default_rng(0).integers(0, len(source), (count, batch_size)))
        names = (
            ["loop"]
            + (["vmap"] if count > 1 else [])
            + (["4"] if count > 4 else [])
            + (["unrolled"] if 1 < count <= 4 else [])
        )
        one = ways.trial(
            program, keys[:1], {}, jax.tree.map(lambda x: x[:1], batch), ["loop"], repeats=7
        )["loop"]
        seconds = ways.trial(program, keys, numbers, batch, names, repeats=7)
        row = ", ".join(f"{way} {1e3 * s / count:.2f}" for way, s in seconds.items())
        print(f"{name} batch {batch_size} R = {count}: solo {1e3 * one:.2f} | {row}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")])
