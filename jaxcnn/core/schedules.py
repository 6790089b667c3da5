"""Shapes of a learning rate over a run: progress in [0, 1] -> multiplier in [0, 1] of the peak
rate.

`progress` is a float32 array, the share of the run's steps that are done; the result has its shape.
The peak is a number of the optimizer, so a sweep over peaks runs one program. An experiment sets
options with `functools.partial`: `schedule=partial(cosine, warmup=0.05)`. `warmup`, where a
function takes it, is the share of the run in which the multiplier first rises in a straight line;
the shape then takes the rest of the run (but `step` keeps its boundaries).

No update is lost: of W updates of a warm-up the first gets 1/W of the peak, the last all of it, and
a run of one update gets the whole peak. For that a schedule has to know how long an update is:
`update`, the share of the run that one takes, which `multiplier` hands to each schedule that has
such a keyword. One that is called by hand, or by a function of your own, takes a thousandth.
"""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn.errors import ConfigError

_TINY = 1e-12  # keeps 0 / 0 out of a run that has no warm-up, or nothing else
_UPDATE = 1e-3  # the share of the run that an update takes, where nobody says


def multiplier(
    schedule: Callable[..., jax.Array], step: jax.Array, *, steps: int
) -> Float[Array, ""]:
    """What the update after `step` updates (int32 or float32 []) of a run of `steps` is multiplied
    by. Errors: ConfigError for a schedule that lacks a number, or gives none.
    """
    signature = inspect.signature(schedule)
    more = {"update": 1 / steps} if "update" in signature.parameters else {}
    try:
        signature.bind(step, **more)
    except TypeError as error:
        raise ConfigError(f"schedule: {error}; give it, e.g. schedule.warmup=0.1") from None
    found = schedule(step.astype(jnp.float32) / steps, **more)
    array = isinstance(found, jax.Array | np.ndarray | np.generic)
    if not (found.shape == jnp.shape(step) if array else isinstance(found, int | float)):
        raise ConfigError(
            f"schedule: gives {found!r}; it must give one number, a multiplier of the peak rate, "
            "for a progress in [0, 1], as jaxcnn.core.schedules.cosine does"
        )
    return jnp.asarray(found, jnp.float32)


def constant(progress: jax.Array, *, warmup: float = 0.0, update: float = _UPDATE) -> jax.Array:
    """1 throughout."""
    return _after_warmup(progress, warmup, update, jnp.ones_like)


def step(
    progress: jax.Array,
    *,
    boundaries: tuple[float, ...],
    factor: float = 0.1,
    warmup: float = 0.0,
    update: float = _UPDATE,
) -> jax.Array:
    """Times `factor` at each of `boundaries`, shares of the whole run (warm-up included): (1/3,
    2/3) cuts at both thirds.
    """
    # a compiled step / steps is rounded, and a boundary at 0.6 of 200 steps would come one late
    now = progress + update / 4
    passed = sum((now >= boundary).astype(jnp.float32) for boundary in boundaries)
    return jnp.asarray(factor, jnp.float32) ** passed * _after_warmup(
        progress, warmup, update, jnp.ones_like
    )


def exponential(
    progress: jax.Array, *, final: float = 0.01, warmup: float = 0.0, update: float = _UPDATE
) -> jax.Array:
    """Falls from 1 to `final` (> 0) by the same factor each step."""
    return _after_warmup(
        progress, warmup, update, lambda rest: jnp.asarray(final, jnp.float32) ** rest
    )


def linear(
    progress: jax.Array, *, final: float = 0.0, warmup: float = 0.0, update: float = _UPDATE
) -> jax.Array:
    """Falls from 1 to `final` in a straight line."""
    return polynomial(progress, power=1.0, final=final, warmup=warmup, update=update)


def polynomial(
    progress: jax.Array,
    *,
    power: float = 2.0,
    final: float = 0.0,
    warmup: float = 0.0,
    update: float = _UPDATE,
) -> jax.Array:
    """(1 - final) * (1 - progress) ** power + final."""
    return _after_warmup(
        progress, warmup, update, lambda rest: final + (1 - final) * (1 - rest) ** power
    )


def cosine(
    progress: jax.Array, *, final: float = 0.0, warmup: float = 0.0, update: float = _UPDATE
) -> jax.Array:
    """Falls from 1 to `final` by half a cosine.

    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017),
    equation 5.
    """
    return _after_warmup(
        progress,
        warmup,
        update,
        lambda rest: final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * rest)),
    )


def warmup_cosine(
    progress: jax.Array, *, warmup: float = 0.05, final: float = 0.0, update: float = _UPDATE
) -> jax.Array:
    """`cosine` with a warm-up.

    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017), section
    2.2, for the warm-up.
    """
    return cosine(progress, final=final, warmup=warmup, update=update)


def triangular(
    progress: jax.Array,
    *,
    peak_at: float = 0.3,
    initial: float = 0.0,
    final: float = 0.0,
    update: float = _UPDATE,
) -> jax.Array:
    """Rises in a straight line from `initial` to 1 at progress `peak_at` (0 < peak_at < 1), then
    falls to `final`. An `initial` of 0 stands for the first step of a warm-up, update / peak_at.
    """
    start = _first(initial, peak_at, update)
    return _interpolate(progress, (0.0, peak_at, 1.0), (start, 1.0, final))


def one_cycle(
    progress: jax.Array,
    *,
    peak_at: float = 0.3,
    return_at: float = 0.85,
    initial: float = 0.04,
    final: float = 4e-6,
    update: float = _UPDATE,
) -> jax.Array:
    """Three straight lines: `initial` up to 1 at `peak_at`, back to `initial` at `return_at`, down
    to `final`. An `initial` of 0 stands, at the start, for the first step of a warm-up, as in
    `triangular`.

    L. N. Smith and N. Topin, "Super-convergence: very fast training of neural networks using large
    learning rates" (2018), section 3.
    """
    start = _first(initial, peak_at, update)
    return _interpolate(progress, (0.0, peak_at, return_at, 1.0), (start, 1.0, initial, final))


def _after_warmup(
    progress: jax.Array, warmup: float, update: float, shape: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """The linear rise, in which an update counts itself, then `shape` of the share of the remaining
    run.
    """
    rest = jnp.clip((progress - warmup) / jnp.maximum(1.0 - warmup, _TINY), 0.0, 1.0)
    rise = jnp.minimum((progress + update) / jnp.maximum(warmup, _TINY), 1.0)
    return jnp.where(progress < warmup, rise, shape(rest))


def _first(initial: float, rise: float, update: float) -> jax.Array:
    """`initial`, or for one of 0 the multiplier of the first update of a warm-up."""
    return jnp.where(jnp.asarray(initial) > 0, initial, jnp.minimum(update / rise, 1.0))


def _interpolate(
    progress: jax.Array, places: tuple[float, ...], values: tuple[ArrayLike, ...]
) -> jax.Array:
    return jnp.interp(
        progress,
        *(
            jnp.stack([jnp.asarray(n, jnp.float32) for n in numbers])
            for numbers in (places, values)
        ),
    )
