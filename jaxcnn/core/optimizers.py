"""What optax lacks: PyTorch's SGD, rules by the names of parameters, and averaged weights.

Everything else is optax itself (`partial(optax.adamw, learning_rate=1e-3, mask=kernels)`).
Parameters are nested dicts of arrays, as Flax makes them. Numbers may be traced arrays, because the
training step builds the optimizer from numbers that lie in its state.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcnn.errors import ConfigError, did_you_mean

Number = float | jax.Array
Rules = tuple[tuple[str, Number], ...]  # (regular expression over parameter names, multiplier)


def sgd(
    learning_rate: Number,
    momentum: Number | None = None,
    nesterov: bool = False,
    weight_decay: Number = 0.0,
    mask: Any = None,
    decoupled: bool = False,
) -> optax.GradientTransformation:
    """Stochastic gradient descent as `torch.optim.SGD` defines it: `optax.sgd` with weight decay.

    Args:
        momentum: of the sum of past gradients, velocity = momentum * velocity + gradient; none if
            None.
        weight_decay: weight_decay * parameter is added to the gradient, before momentum (L2
            regularization).
        mask: tree of booleans, or a function of the parameters that gives one (such as `kernels`):
            what decays; all if None.
        decoupled: shrink parameters by learning_rate * weight_decay after momentum instead (SGDW:
            I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019, algorithm
            1).
    """
    decay = optax.add_decayed_weights(weight_decay, mask)
    velocity = optax.identity() if momentum is None else optax.trace(momentum, nesterov)
    return optax.chain(
        *((velocity, decay) if decoupled else (decay, velocity)),
        optax.scale_by_learning_rate(learning_rate),
    )


def path_names(params: Any) -> Any:
    """The tree of `params` with each leaf's name in its place: 'Conv_0/kernel'."""
    return jax.tree.map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params
    )


def kernels(params: Any) -> Any:
    """Tree of booleans for `mask=`: True where a leaf has two or more axes, so False for biases and
    for scales of norms.
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def rate_multipliers(params: Any, rules: Rules) -> Any:
    """Tree of what each parameter's learning rate is multiplied by.

    Rules (("^Conv_0/", 0.0), ("bias$", 2.0)) freeze Conv_0 and double the rate of the other biases.

    Args:
        rules: (regular expression, multiplier) pairs; each is searched for anywhere in a name as in
            `path_names`, and the first that is found counts. What no rule finds gets 1.0.
    Errors: ConfigError if an expression is malformed or finds nothing; it lists the names.
    """
    tree = path_names(params)
    names = jax.tree.leaves(tree)
    for expression, _ in rules:
        try:
            found = any(re.search(expression, name) for name in names)
        except re.error as error:
            raise ConfigError(
                f"rate_multipliers: {expression!r} is not a regular expression: {error}"
            ) from None
        if not found:
            raise ConfigError(
                f"rate_multipliers: the rule {expression!r} matches no "
                f"parameter{did_you_mean(expression, names)} "
                f"They are: {', '.join(names)}"
            )
    return jax.tree.map(
        lambda name: next((rate for expression, rate in rules if re.search(expression, name)), 1.0),
        tree,
    )


def ema(old: Any, new: Any, *, decay: Number, step: jax.Array) -> Any:
    """Exponential moving average of weights: d * old + (1 - d) * new with d = min(decay, (1 + step)
    / (10 + step)).

    The warm-up lets the average forget the initial weights in short runs. B. T. Polyak and A. B.
    Juditsky, "Acceleration of stochastic approximation by averaging" (1992), for averaging; the
    warm-up is that of TensorFlow's `ExponentialMovingAverage` (its `num_updates`).

    Args:
        step: number of updates done, int or float scalar. old, new: trees of arrays of the same
        shapes; `old`'s dtypes are kept.
    """
    done = jnp.asarray(step, jnp.float32)
    share = jnp.minimum(jnp.asarray(decay, jnp.float32), (1 + done) / (10 + done))
    return jax.tree.map(
        lambda a, b: (share * a.astype(jnp.float32) + (1 - share) * b.astype(jnp.float32)).astype(
            a.dtype
        ),
        old,
        new,
    )


def averaged_params(opt_state: Any, params: Any) -> Any:
    """The parameters that a schedule-free optimizer is evaluated at, or None for other optimizers.

    A. Defazio et al., "The road less scheduled" (2024), section 3: training moves y, evaluation
    takes x = (y - (1 - b1) z) / b1. Leaves that the optimizer does not hold (frozen) stay.
    """
    found = _schedule_free(opt_state)
    if found is None:
        return None

    def average(z, y):
        return y if z is None else ((y - (1.0 - found.b1) * z) / found.b1).astype(y.dtype)

    return jax.tree.map(average, found.z, params, is_leaf=lambda x: x is None)


def _schedule_free(opt_state: Any) -> Any:
    """The state of a schedule-free optimizer within `opt_state`, or None."""
    kind = optax.contrib.ScheduleFreeState
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return next((x for x in leaves if isinstance(x, kind)), None)
