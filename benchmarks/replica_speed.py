"""How fast replicas train in each way, against as many solo steps one after another: the table of
docs/performance.md.

python benchmarks/replica_speed.py lenet5_modern 64 1,4,16,64
python benchmarks/replica_speed.py fashion_cnn 8 1,4,16
"""

import sys
from functools import partial

from jaxcnn.runs.environment import prepare_process

prepare_process()

import optax  # noqa: E402 (after the environment is set)

from jaxcnn import models  # noqa: E402
from jaxcnn.bench.replicas import trial  # noqa: E402
from jaxcnn.core.experiment import Experiment  # noqa: E402
from jaxcnn.data.made.synthetic import Synthetic  # noqa: E402
from jaxcnn.runs import ways  # noqa: E402
from jaxcnn.tasks.classification import Classification  # noqa: E402


def main(name: str, batch_size: int, counts: list[int]) -> None:
    """Print ms per replica and step (median of seven, in turns) of each way; "solo" is the step of
    one replica.
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
    # beside "vmap" of one, the same program: a way that is alone is not timed in turns
    solo = ways.measure(trial(e, 1), ["vmap"], repeats=7)["loop"]
    for count in counts:
        names = ["vmap"] + (["4"] if count > 4 else [])
        names += ["unrolled"] if 1 < count <= 4 else []
        seconds = ways.measure(trial(e, count), names, repeats=7)
        row = ", ".join(f"{way} {1e3 * s / count:.2f}" for way, s in seconds.items())
        print(f"{name} batch {batch_size} R = {count}: solo {1e3 * solo:.2f} | {row}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")])
