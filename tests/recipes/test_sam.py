"""SAM: against optax's, with radius 0 against its base; stopped and resumed; as replicas."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxcnn.core.program import make_program
from tests.recipes.checks import check_replicas, check_resume, recipe
from tests.tiny import TinyNet, arrays, tiny

SAM = recipe("fashion_mnist_sam")
SGD = partial(optax.sgd, learning_rate=0.05, momentum=0.9)


def ten_steps(e):
    program = make_program(e, steps=10)
    state, step = program.init(jax.random.key(0)), jax.jit(program.train_step)
    for i in range(10):
        state, numbers = step(state, arrays(8, seed=i))
    return state, numbers


def close(a, b, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), a, b)


@pytest.mark.parametrize("rates", [(), (("Conv_0", 0.0),)], ids=["all", "frozen"])
def test_ten_steps_are_those_of_optax(rates):
    def optax_sam(learning_rate, momentum):
        ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.1))
        descent = optax.sgd(learning_rate, momentum=momentum)
        return optax.contrib.sam(descent, ascent, sync_period=2, opaque_mode=True)

    common = {"model": TinyNet(dropout=0.0), "ema": None, "clip_norm": None, "rates": rates}
    ours = tiny(optimizer=SGD, program=partial(SAM.sam, rho=0.1), **common)
    theirs = tiny(optimizer=partial(optax_sam, learning_rate=0.05, momentum=0.9), **common)
    plain = tiny(optimizer=SGD, **common)
    state, numbers = ten_steps(ours)
    close(state.params, ten_steps(theirs)[0].params)
    far = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, ten_steps(plain)[0].params)
    assert far["Dense_0"]["kernel"] > 1e-3
    assert numbers["sharpness"] > 0, "the loss at the worst point is larger"


def test_a_radius_of_0_is_the_base_optimizer():
    e = tiny(optimizer=SGD, program=partial(SAM.sam, rho=0.0))
    close(ten_steps(e)[0].params, ten_steps(tiny(optimizer=SGD))[0].params)


def test_a_stopped_run_resumes_to_the_same_bits(tmp_path):
    check_resume(tiny(program=SAM.sam, steps=8), tmp_path)


def test_replicas_are_solo_runs(tmp_path):
    check_replicas(tiny(optimizer=SGD, program=SAM.sam, steps=10), tmp_path)
