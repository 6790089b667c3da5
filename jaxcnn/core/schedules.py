"""Shapes of a learning rate over a run: progress in [0, 1] -> multiplier in [0, 1] of the peak
rate.

`progress` is a float32 array, the share of the run's steps that are done; the result has its shape.
The peak is a number of the optimizer, so a sweep over peaks runs one program. An experiment sets
options with `functools.partial`: `schedule=partial(cosine, warmup=0.05)`. `warmup`, where a
function takes it, is the share of the run in which the multiplier first rises linearly from 0 to 1;
the shape then takes the rest of the run (but `step` keeps its boundaries).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_TINY = 1e-12  # keeps 0 / 0 out of a run that has no warm-up, or nothing else


def constant(progress: jax.Array, *, warmup: float = 0.0) -> jax.Array:
    """1 throughout."""
    return _after_warmup(progress, warmup, jnp.ones_like)


def step(
    progress: jax.Array, *, boundaries: tuple[float, ...], factor: float = 0.1, warmup: float = 0.0
) -> jax.Array:
    """Times `factor` at each of `boundaries`, shares of the whole run (warm-up included): (1/3,
    2/3) cuts at both thirds.
    """
    passed = sum((progress >= boundary).astype(jnp.float32) for boundary in boundaries)
    return jnp.asarray(factor, jnp.float32) ** passed * _after_warmup(
        progress, warmup, jnp.ones_like
    )


def exponential(progress: jax.Array, *, final: float = 0.01, warmup: float = 0.0) -> jax.Array:
    """Falls from 1 to `final` (> 0) by the same factor each step."""
    return _after_warmup(progress, warmup, lambda rest: jnp.asarray(final, jnp.float32) ** rest)


def linear(progress: jax.Array, *, final: float = 0.0, warmup: float = 0.0) -> jax.Array:
    """Falls from 1 to `final` in a straight line."""
    return polynomial(progress, power=1.0, final=final, warmup=warmup)


def polynomial(
    progress: jax.Array, *, power: float = 2.0, final: float = 0.0, warmup: float = 0.0
) -> jax.Array:
    """(1 - final) * (1 - progress) ** power + final."""
    return _after_warmup(progress, warmup, lambda rest: final + (1 - final) * (1 - rest) ** power)


def cosine(progress: jax.Array, *, final: float = 0.0, warmup: float = 0.0) -> jax.Array:
    """Falls from 1 to `final` by half a cosine.

    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017),
    equation 5.
    """
    return _after_warmup(
        progress, warmup, lambda rest: final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * rest))
    )


def warmup_cosine(progress: jax.Array, *, warmup: float = 0.05, final: float = 0.0) -> jax.Array:
    """`cosine` with a warm-up.

    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017), section
    2.2, for the warm-up.
    """
    return cosine(progress, final=final, warmup=warmup)


def triangular(
    progress: jax.Array, *, peak_at: float = 0.3, initial: float = 0.0, final: float = 0.0
) -> jax.Array:
    """Rises in a straight line from `initial` to 1 at progress `peak_at` (0 < peak_at < 1), then
    falls to `final`.
    """
    return _interpolate(progress, (0.0, peak_at, 1.0), (initial, 1.0, final))


def one_cycle(
    progress: jax.Array,
    *,
    peak_at: float = 0.3,
    return_at: float = 0.85,
    initial: float = 0.04,
    final: float = 4e-6,
) -> jax.Array:
    """Three straight lines: `initial` up to 1 at `peak_at`, back to `initial` at `return_at`, down
    to `final`.

    L. N. Smith and N. Topin, "Super-convergence: very fast training of neural networks using large
    learning rates" (2018), section 3.
    """
    return _interpolate(progress, (0.0, peak_at, return_at, 1.0), (initial, 1.0, initial, final))


def _after_warmup(
    progress: jax.Array, warmup: float, shape: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """The linear rise, then `shape` of the share of the remaining run."""
    rest = jnp.clip((progress - warmup) / jnp.maximum(1.0 - warmup, _TINY), 0.0, 1.0)
    return jnp.where(progress < warmup, progress / jnp.maximum(warmup, _TINY), shape(rest))


def _interpolate(
    progress: jax.Array, places: tuple[float, ...], values: tuple[float, ...]
) -> jax.Array:
    return jnp.interp(
        progress,
        *(
            jnp.stack([jnp.asarray(n, jnp.float32) for n in numbers])
            for numbers in (places, values)
        ),
    )
