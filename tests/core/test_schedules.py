"""Schedules against optax's, and their range and shape."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core import schedules
from jaxcnn.errors import ConfigError

STEPS = 200

# by hand: {progress: multiplier} of each schedule as it is without options, called by hand, where
# an update is a thousandth of the run
UNSAID = {
    "constant": {0.0: 1, 0.5: 1, 1.0: 1},
    "exponential": {0.0: 1, 0.5: 0.1, 1.0: 0.01},
    "linear": {0.0: 1, 0.25: 0.75, 1.0: 0},
    "polynomial": {0.0: 1, 0.5: 0.25, 1.0: 0},
    "cosine": {0.0: 1, 0.5: 0.5, 1.0: 0},
    "warmup_cosine": {0.0: 0.02, 0.049: 1, 0.05: 1, 0.525: 0.5, 1.0: 0},
    "triangular": {0.0: 1 / 300, 0.3: 1, 0.65: 0.5, 1.0: 0},
    "one_cycle": {0.0: 0.04, 0.15: 0.52, 0.3: 1, 0.575: 0.52, 0.85: 0.04, 1.0: 4e-6},
}


@pytest.mark.parametrize("name", UNSAID)
def test_what_is_not_said_is_as_the_docs_say(name):
    places, values = zip(*UNSAID[name].items(), strict=True)
    found = getattr(schedules, name)(jnp.float32(places))
    np.testing.assert_allclose(found, values, rtol=2e-6, atol=1e-7)


def test_steps_are_to_a_tenth_and_have_no_warm_up_unless_it_is_said():
    found = schedules.step(jnp.float32([0, 0.2, 0.4, 1]), boundaries=(0.3, 0.9))
    np.testing.assert_allclose(found, [1, 1, 0.1, 0.01], rtol=1e-6)


def warmed(shape, *, steps):
    """optax's warm-ups start at 0 and reach the peak after `steps`, so that the first update is
    lost; ours are those one step later, with what follows where it was.
    """
    return lambda step: shape(step + 1 if step < steps else step)


SAME_AS_OPTAX = {
    "constant": (schedules.constant, optax.constant_schedule(1.0)),
    "constant, warm-up": (
        partial(schedules.constant, warmup=0.2),
        warmed(optax.warmup_constant_schedule(0.0, 1.0, 40), steps=40),
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
        warmed(optax.warmup_cosine_decay_schedule(0.0, 1.0, 20, STEPS, end_value=0.01), steps=20),
    ),
    "exponential": (
        partial(schedules.exponential, final=0.02),
        optax.exponential_decay(1.0, STEPS, 0.02),
    ),
    "exponential, warm-up": (
        partial(schedules.exponential, final=0.02, warmup=0.25),
        warmed(optax.warmup_exponential_decay_schedule(0.0, 1.0, 50, 150, 0.02), steps=50),
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
    multipliers = jax.jit(partial(schedules.multiplier, ours, steps=STEPS))(steps)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 steps with floats
        expected = [float(theirs(s)) for s in steps]
    np.testing.assert_allclose(multipliers, expected, atol=2e-6)
    assert multipliers.dtype == jnp.float32


def run_of(steps, schedule, end=None):
    """The multipliers of the updates of a run."""
    at = jnp.arange(end or steps, dtype=jnp.int32)
    return np.asarray(schedules.multiplier(schedule, at, steps=steps))


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
    """Of 8 updates the first gets an eighth of the peak, the eighth all of it."""
    multipliers = run_of(64, partial(schedule, warmup=warmup))
    rising = np.arange(64) < 64 * warmup
    expected = (np.arange(64) + 1)[rising] / (64 * warmup or 1)
    half = 0.1 if "step" in repr(schedule) else 1.0
    np.testing.assert_allclose(
        multipliers[rising],
        np.where(np.arange(64)[rising] < 32, 1, half) * expected,
        rtol=1e-6,
    )
    assert (multipliers > 0).all()
    assert (multipliers <= 1 + 1e-6).all()
    if warmup < 0.5:
        assert multipliers.max() == 1


RISING = [
    *(partial(schedule, warmup=share) for schedule in WITH_WARMUP for share in (0.01, 0.3, 1.0)),
    schedules.warmup_cosine,
    schedules.triangular,
    partial(schedules.one_cycle, initial=0.0),
    schedules.one_cycle,
]


@pytest.mark.parametrize("schedule", RISING)
@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_no_update_of_the_first_half_of_a_run_is_lost(schedule, steps):
    multipliers = run_of(steps, schedule)
    assert (multipliers[: steps // 2 + 1] > 0).all()
    assert (multipliers <= 1 + 1e-6).all()
    assert float(schedule(jnp.float32(0.0))) > 0  # also where nobody says how long an update is


@pytest.mark.parametrize("schedule", RISING[:-1])
def test_a_run_of_one_update_gets_the_whole_peak(schedule):
    np.testing.assert_array_equal(run_of(1, schedule), [1.0])


def test_triangular_from_nothing_starts_as_a_warm_up_does():
    rise = run_of(100, partial(schedules.triangular, peak_at=0.25))[:26]
    np.testing.assert_allclose(rise[[0, 25]], [1 / 25, 1.0], rtol=1e-6)
    np.testing.assert_allclose(np.diff(rise), (1 - 1 / 25) / 25, rtol=1e-4)


def test_a_schedule_of_ones_own_gets_the_progress_alone():
    np.testing.assert_allclose(run_of(4, lambda progress: 1 - progress), [1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(
    "found", [0.5, 1, np.float32(0.5), np.float64(0.5), jnp.float32(0.5)], ids=repr
)
def test_a_schedule_may_give_any_kind_of_number(found):
    given = schedules.multiplier(lambda progress: found, jnp.int32(3), steps=4)
    assert (given.dtype, given.shape, float(given)) == (jnp.float32, (), float(found))


@pytest.mark.parametrize(
    "found", ["a half", None, (0.5,), jnp.ones(1), np.ones(2)], ids=lambda x: type(x).__name__
)
def test_what_is_not_one_number_is_refused(found):
    with pytest.raises(ConfigError, match=r"schedule: gives .*it must give one number"):
        schedules.multiplier(lambda progress: found, jnp.int32(3), steps=4)


def test_a_schedule_that_lacks_a_number_is_refused_by_its_name():
    with pytest.raises(ConfigError, match=r"schedule: missing.*'boundaries'; give it"):
        schedules.multiplier(schedules.step, jnp.int32(0), steps=4)


@pytest.mark.parametrize("schedule", WITH_WARMUP)
def test_a_run_that_is_warm_up_alone_ends_at_its_peak(schedule):
    """Nothing is left there of which a share could be taken."""
    end = schedule(jnp.float32(1.0), warmup=1.0)
    assert float(end) == pytest.approx(0.1 if "step" in repr(schedule) else 1.0)


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
