"""Replicas of one experiment trained together, beside one after another."""

import jax
import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import make_program
from jaxcnn.runs import ways


def trial(e: Experiment, count: int) -> ways.Trial:
    """`count` replicas of `e`, each with its own initial weights and its own batch, to be timed by
    `ways.measure`.
    """
    source, program = e.data.open("train"), make_program(e, steps=100)
    draw = np.random.default_rng(0).integers(0, len(source), (count, e.batch_size))
    rows, init = source.take(draw), jax.jit(program.init)
    keys = jax.random.split(jax.random.key(0), count)

    def batches(way: ways.Way) -> list:
        out = []
        for numbers in ways.by_bundle(way.sizes, list(range(count))):
            chosen = numbers[0] if len(numbers) == 1 else np.array(numbers)
            out.append(jax.tree.map(lambda x, chosen=chosen: x[chosen], rows))
        return out

    return ways.Trial(
        program=program,
        replicas=count,
        states=lambda: [init(key) for key in keys],
        batches=batches,
        steps=10**9,  # so many that no way is left out for want of time
        about=None,
        say=lambda message: None,
    )
