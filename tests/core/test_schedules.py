"""Schedules against optax's, and their range and shape."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core import schedules

STEPS = 200
SAME_AS_OPTAX = {
    "constant": (schedules.constant, optax.constant_schedule(1.0)),
    "constant, warm-up": (
        partial(schedules.constant, warmup=0.2),
        optax.warmup_constant_schedule(0.0, 1.0, 40),
    ),
    "linear": (partial(schedules.linear, final=0.1), optax.linear_schedule(1.0, 0.1, STEPS)),
    "polynomial": (
        partial(schedules.polynomial, power=3.0, final=0.1),
        optax.polynomial_schedule(1.0, 0.1, 3.0, STEPS),
    ),
    "cosine": (
        partial(schedules.cosine, final=0.05),
        optax.cosine_decay_schedule(1.0, STEPS, alpha=0.05),
    ),
    "warmup_cosine": (
        partial(schedules.warmup_cosine, warmup=0.1, final=0.01),
        optax.warmup_cosine_decay_schedule(0.0, 1.0, 20, STEPS, end_value=0.01),
    ),
    "exponential": (
        partial(schedules.exponential, final=0.02),
        optax.exponential_decay(1.0, STEPS, 0.02),
    ),
    "exponential, warm-up": (
        partial(schedules.exponential, final=0.02, warmup=0.25),
        optax.warmup_exponential_decay_schedule(0.0, 1.0, 50, 150, 0.02),
    ),
    "step": (
        partial(schedules.step, boundaries=(0.3, 0.6), factor=0.1),
        optax.piecewise_constant_schedule(1.0, {60: 0.1, 120: 0.1}),
    ),
    "one_cycle": (
        partial(schedules.one_cycle, peak_at=0.3, return_at=0.85, initial=0.04, final=4e-6),
        optax.linear_onecycle_schedule(STEPS, 1.0, 0.3, 0.85, 25.0, 1e4),
    ),
    "triangular": (
        partial(schedules.triangular, peak_at=0.25, initial=0.2, final=0.1),
        optax.join_schedules(
            [optax.linear_schedule(0.2, 1.0, 50), optax.linear_schedule(1.0, 0.1, 150)], [50]
        ),
    ),
}


@pytest.mark.parametrize("name", SAME_AS_OPTAX)
def test_equals_optax(name):
    ours, theirs = SAME_AS_OPTAX[name]
    steps = np.arange(STEPS + 1)
    multipliers = jax.jit(ours)(jnp.asarray(steps / STEPS, jnp.float32))
    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 steps with floats
        expected = [float(theirs(s)) for s in steps]
    np.testing.assert_allclose(multipliers, expected, atol=2e-6)
    assert multipliers.dtype == jnp.float32


WITH_WARMUP = [
    schedules.constant,
    partial(schedules.step, boundaries=(0.5,)),
    schedules.exponential,
    schedules.linear,
    schedules.polynomial,
    schedules.cosine,
]


@pytest.mark.parametrize("schedule", WITH_WARMUP)
@pytest.mark.parametrize("warmup", [0.0, 0.125, 1.0])
def test_warmup_rises_linearly_to_one_and_the_range_holds(schedule, warmup):
    progress = jnp.linspace(0, 1, 65, dtype=jnp.float32)
    multipliers = np.asarray(schedule(progress, warmup=warmup))
    rising = np.asarray(progress) < warmup
    expected = np.asarray(progress)[rising] / (warmup or 1)
    half = 0.1 if "step" in repr(schedule) else 1.0
    np.testing.assert_allclose(
        multipliers[rising],
        np.where(np.asarray(progress)[rising] < 0.5, 1, half) * expected,
        rtol=1e-6,
    )
    assert (multipliers >= 0).all()
    assert (multipliers <= 1 + 1e-6).all()
    if warmup < 0.5:
        assert multipliers.max() == 1


def test_step_keeps_its_boundaries_under_warmup():
    """The boundary is a share of the run, wherever the warm-up ends."""
    progress = jnp.asarray([0.49, 0.5, 0.74, 0.75, 1.0], jnp.float32)
    multipliers = schedules.step(progress, boundaries=(0.5, 0.75), factor=0.2, warmup=0.25)
    np.testing.assert_allclose(multipliers, [1, 0.2, 0.2, 0.04, 0.04], rtol=1e-6)


def test_options_may_be_traced():
    traced = jax.jit(lambda p, w, f: schedules.cosine(p, warmup=w, final=f))(
        *(jnp.float32(n) for n in (0.3, 0.1, 0.2))
    )
    np.testing.assert_allclose(
        traced, schedules.cosine(jnp.float32(0.3), warmup=0.1, final=0.2), rtol=1e-6
    )
