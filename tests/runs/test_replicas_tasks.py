"""Replicas of every task: what one program of several runs computes is what each run computes
alone.
"""

import dataclasses
from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxcnn.core import transforms
from jaxcnn.core.program import make_program
from jaxcnn.ops import convolution
from jaxcnn.runs.code import load
from jaxcnn.runs.evaluation import merge
from tests.conftest import ROOT
from tests.test_experiments import data_of

FILES = [
    *sorted((ROOT / "experiments").glob("scenes_*.py")),
    *sorted((ROOT / "experiments").glob("photos_*.py")),
]
REPLICAS, ROWS, STEPS = 2, 4, 10


def largest(a, b) -> float:
    """The largest difference between two trees of arrays."""
    apart = jax.tree.map(lambda x, y: float(np.max(np.abs(x - y), initial=0)), a, b)
    return max(jax.tree.leaves(apart))


def otherwise_rounded(e, key, batches):
    """The parameters of a solo run whose convolutions add in another order. Where a ReLU or a pool
    compares nearly equal numbers, rounding decides, and one gradient more or less moves weights.
    """
    with convolution.formulation("natural"):
        program = transforms.compile(make_program(e, steps=STEPS))
        state = program.init(key)
        for batch in batches:
            state, _ = program.train_step(state, batch)
    return state.params


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_replica_of_each_task_equals_its_solo_run(path):
    e = load(path, overrides=[])
    source = data_of(e)
    # Plain SGD: Adam divides by the gradient's size, so that rounding of a gradient near 0 would
    # move a weight by a whole step.
    e = dataclasses.replace(
        e,
        optimizer=partial(optax.sgd, learning_rate=1e-3),
        batch_size=ROWS,
        steps=STEPS,
        accumulate=1,
        ema=None,
    )
    with jax.numpy_dtype_promotion("standard"):
        program = transforms.scored(make_program(e, steps=STEPS), e)
        together, alone = (
            transforms.compile(transforms.replicate(program)),
            transforms.compile(program),
        )
        keys = jax.random.split(jax.random.key(1), REPLICAS)
        # Each by itself, as runs begin: factorizations of two LSTMs' kernels that wait for each
        # other's threads never end on two cores (JAX 0.10.2).
        solos = [jax.block_until_ready(alone.init(key)) for key in keys]
        states = jax.tree.map(lambda *x: jax.numpy.stack(x), *solos)
        seen = []
        for step in range(STEPS):
            batches = [
                source.take((np.arange(ROWS) + ROWS * (step + 3 * i)) % len(source))
                for i in range(REPLICAS)
            ]
            seen.append(batches)
            states, _ = together.train_step(
                states, jax.tree.map(lambda *x: np.stack(jax.device_get(x)), *batches)
            )
            solos = [
                alone.train_step(solo, batch)[0] for solo, batch in zip(solos, batches, strict=True)
            ]
        batch = source.take(np.arange(ROWS) % len(source))
        results = jax.device_get(together.output_step(states, batch))
        for i, solo in enumerate(solos):
            replica = jax.tree.map(lambda x, i=i: x[i], states.params)
            if (apart := largest(replica, solo.params)) > 1e-6:
                other = otherwise_rounded(e, keys[i], [batches[i] for batches in seen])
                assert apart <= 2 * largest(other, solo.params)
            ours = merge(e.task, [(ROWS, jax.tree.map(lambda x, i=i: x[i], results))])
            theirs = merge(e.task, [(ROWS, jax.device_get(alone.output_step(solo, batch)))])
            np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
