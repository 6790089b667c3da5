"""What optax lacks: PyTorch's SGD, Lookahead, Muon for convolutions, rules by the names of
parameters, and averaged weights.

Everything else is optax itself (`partial(optax.adamw, learning_rate=1e-3, mask=kernels)`).
Parameters are nested dicts of arrays, as Flax makes them. Numbers may be traced arrays, because the
training step builds the optimizer from numbers that lie in its state.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxcnn.core.protocols import OptState, Params, Tree
from jaxcnn.core.trees import check_rules, name_of
from jaxcnn.errors import ConfigError

T = TypeVar("T")
Number = float | jax.Array
Rules = tuple[tuple[str, Number], ...]  # (regular expression over parameter names, multiplier)


def sgd(
    learning_rate: Number,
    momentum: Number | None = None,
    nesterov: bool = False,
    weight_decay: Number = 0.0,
    mask: Tree | Callable[[Params], Tree] | None = None,
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


def path_names(params: Params, *, is_leaf: Callable[[Tree], bool] | None = None) -> Tree:
    """The tree of `params` with each leaf's name in its place: 'Conv_0/kernel'."""
    return jax.tree.map_with_path(lambda path, _: name_of(path), params, is_leaf=is_leaf)


def kernels(params: Params) -> Tree:
    """Tree of booleans for `mask=`: True where a leaf has two or more axes, so False for biases and
    for scales of norms.
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def rate_multipliers(params: Params, rules: Rules) -> Tree:
    """Tree of what each parameter's learning rate is multiplied by.

    Rules (("^Conv_0/", 0.0), ("bias$", 2.0)) freeze Conv_0 and double the rate of the other biases.

    Args:
        rules: (regular expression, multiplier) pairs; each is searched for anywhere in a name as in
            `path_names`, and the first that is found counts. What no rule finds gets 1.0.
    Errors: ConfigError if an expression is malformed or finds nothing; it lists the names.
    """
    tree = path_names(params)
    names = jax.tree.leaves(tree)
    check_rules("rate_multipliers", rules, names, of="parameter")
    return jax.tree.map(
        lambda name: next((rate for expression, rate in rules if re.search(expression, name)), 1.0),
        tree,
    )


def ema(old: Params, new: Params, *, decay: Number, step: jax.Array) -> Params:
    """Exponential moving average of weights, or of statistics: d * old + (1 - d) * new with d =
    min(decay, (1 + step) / (10 + step)).

    The warm-up lets the average forget the initial weights in short runs. B. T. Polyak and A. B.
    Juditsky, "Acceleration of stochastic approximation by averaging" (1992), for averaging; the
    warm-up is that of TensorFlow's `ExponentialMovingAverage` (its `num_updates`).

    Args:
        step: number of updates done, int or float scalar. old, new: trees of arrays of the same
        shapes; `old`'s dtypes are kept. What is no float (a count) is taken from `new`.
    """
    done = jnp.asarray(step, jnp.float32)
    share = jnp.minimum(jnp.asarray(decay, jnp.float32), (1 + done) / (10 + done))

    def average(a: jax.Array, b: jax.Array) -> jax.Array:
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return b
        wide = a.astype(jnp.float32)  # in this form the average of a constant keeps every bit
        return (wide + (1 - share) * (b.astype(jnp.float32) - wide)).astype(a.dtype)

    return jax.tree.map(average, old, new)


def with_any_arguments(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer, whose `update` leaves out the extra arguments that it has no name for.

    `optax.with_extra_args_support` leaves it to an optimizer that takes some to take all; not all
    do (`optax.contrib.sam`). The program does this to the optimizer as a whole; within an
    `optax.chain` it is to be done by hand.
    """
    parameters = inspect.signature(optimizer.update).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name for p in parameters}

    def update(
        updates: Params, state: OptState, params: Params | None = None, **more: Any
    ) -> tuple[Params, OptState]:
        taken = {k: v for k, v in more.items() if takes_all or k in named}
        return optimizer.update(updates, state, params, **taken)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


class LookaheadState(NamedTuple):
    """State of `lookahead`."""

    # int32 []: steps since the last synchronization
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride] (a tuple has one, too)
    slow: Params  # the slow weights
    inner: OptState  # state of the inner optimizer


def lookahead(
    inner: optax.GradientTransformation, *, period: int = 5, share: Number = 0.5
) -> optax.GradientTransformationExtraArgs:
    """The inner optimizer moves fast weights; every `period` steps slow weights move by `share` of
    the way to them, and the fast weights start again from there.

    M. R. Zhang et al., "Lookahead optimizer: k steps forward, 1 step back" (2019), algorithm 1, of
    which the slow weights are the result: evaluation takes them. The state of the inner optimizer
    is kept, as theirs by default. As `optax.lookahead`, but of plain parameters.

    Args:
        period: k, inner steps from one synchronization to the next, at least 1.
        share: α in [0, 1], the slow weights' step size.

    `update` takes scale=: a tree like the parameters of what its result will be multiplied by
    (default 1), so that the weights meet whatever the schedule and the rates are. A step of scale
    0, at which nothing can move, does not count.
    Errors: ConfigError for a period less than 1.
    """
    if period < 1:
        raise ConfigError(f"lookahead: period={period}: must be at least 1")
    inner = with_any_arguments(inner)

    def init(params: Params) -> LookaheadState:
        slow = jax.tree.map(jnp.copy, params)
        return LookaheadState(jnp.zeros((), jnp.int32), slow, inner.init(params))

    def update(
        updates: Params,
        state: OptState,
        params: Params | None = None,
        *,
        scale: Tree | None = None,
        **more: Any,
    ) -> tuple[Params, LookaheadState]:
        if scale is None:
            scale = jax.tree.map(lambda _: jnp.ones((), jnp.float32), params)
        updates, inner_state = inner.update(updates, state.inner, params, scale=scale, **more)
        moves = jnp.stack([jnp.asarray(s) != 0 for s in jax.tree.leaves(scale)]).any()
        count = state.count + moves.astype(jnp.int32)
        meet = count == period

        def next_slow(slow: Array, p: Array, u: Array, s: Array) -> Array:
            return jnp.where(meet, slow + share * (p + s * u - slow), slow).astype(slow.dtype)

        def to_slow(slow: Array, p: Array, u: Array, s: Array) -> Array:
            return jnp.where(meet, (slow - p) / jnp.where(s == 0, 1, s), u).astype(u.dtype)

        slow = jax.tree.map(next_slow, state.slow, params, updates, scale)
        updates = jax.tree.map(to_slow, slow, params, updates, scale)
        return updates, LookaheadState(jnp.where(meet, 0, count), slow, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def muon(
    learning_rate: Number,
    *,
    adam: tuple[str, ...] = (),
    adam_learning_rate: Number | None = None,
    beta: Number = 0.95,
    ns_steps: int = 5,
    weight_decay: Number = 0.0,
    adam_weight_decay: Number = 0.0,
    consistent_rms: Number | None = None,
) -> optax.GradientTransformation:
    """Muon for kernels, those of convolutions too, and AdamW for everything else.

    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024):
    orthogonalized momentum. A kernel [*window, I, O] is the matrix [window · I, O]; `optax.contrib.
    muon` by itself would give all but matrices to Adam. Muon takes the leaves named "kernel" of two
    or more axes. It is meant for hidden layers: name the first convolution and the classifier in
    `adam`, and depthwise kernels [*window, 1, O], whose channels have nothing to do with each
    other, e.g. adam=("^stem/", "^head/", "depthwise").

    Args:
        learning_rate: of Muon, and of Adam if `adam_learning_rate` is None. An update of Muon has
            the spectral norm 1 (about) times learning_rate · sqrt(max(1, O / (window · I))).
        adam: regular expressions over names as in `path_names`; kernels in which one is found go to
            Adam.
        beta: of the momentum (Nesterov's). ns_steps: Newton-Schulz iterations.
        weight_decay: of Muon's kernels. adam_weight_decay: of all that goes to Adam. Both are
            multiplied by the learning rate and stay out of the momentum.
        consistent_rms: make the update's root mean square this (0.2 is Adam's, with Adam's learning
            rate) instead: J. Liu et al., "Muon is scalable for LLM training" (2025), section 2.2.
    Errors: ConfigError for an expression that is malformed or finds nothing.
    """

    def matrices(params: Params) -> Tree:
        # what other optimizers hold, and what is frozen, has a name here but no array
        names = path_names(params, is_leaf=_is_hole)
        to_adam = rate_multipliers(names, tuple((expression, 0.0) for expression in adam))

        def numbers(
            leaf: Tree, name: str, rate: Number
        ) -> optax.contrib.MuonDimensionNumbers | None:
            if _is_hole(leaf) or rate == 0 or name.split("/")[-1] != "kernel" or leaf.ndim < 2:
                return None
            return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

        return jax.tree.map(numbers, params, names, to_adam, is_leaf=_is_hole)

    return optax.contrib.muon(
        learning_rate,
        beta=beta,
        ns_steps=ns_steps,
        weight_decay=weight_decay,
        adam_weight_decay=adam_weight_decay,
        adam_learning_rate=adam_learning_rate,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=consistent_rms,
    )


def _is_hole(x: Tree) -> bool:
    return x is None or isinstance(x, optax.MaskedNode)


def evaluation_params(opt_state: OptState, params: Params) -> Params:
    """The parameters that an optimizer is evaluated at: `params`, but for

    - schedule-free ones: training moves y, evaluation takes x = (y - (1 - b1) z) / b1. A. Defazio
      et al., "The road less scheduled" (2024), section 3. BatchNorm's statistics are those of y;
    - `lookahead`: the slow weights;
    - `optax.contrib.sam` between two steps: the weights before the adversarial ones.

    Leaves that the optimizer does not hold (frozen) stay.
    """
    found = state_of(opt_state, optax.contrib.ScheduleFreeState)
    if found is not None:
        b1 = found.b1
        return _where_held(found.z, params, lambda z, y: (y - (1.0 - b1) * z) / b1)
    found = state_of(opt_state, LookaheadState)
    if found is not None:
        return _where_held(found.slow, params, lambda slow, _: slow)
    found = state_of(opt_state, optax.contrib.SAMState)
    if found is not None and found.cache is not None:
        there = found.steps_since_sync == 0
        return _where_held(found.cache, params, lambda old, now: jnp.where(there, now, old))
    return params


def mover(opt_state: OptState) -> str | None:
    """What an optimizer is called that moves parameters to places of its own choice, so that its
    updates must be applied as they are; None for one whose updates may be multiplied.
    """
    if state_of(opt_state, optax.contrib.ScheduleFreeState) is not None:
        return "schedule-free, which averages its weights instead of lowering its rate"
    found = state_of(opt_state, optax.contrib.SAMState)
    if found is not None and found.cache is not None:
        return "optax.contrib.sam with opaque_mode=False, which returns to where it was"
    return None


def _where_held(held: Params, params: Params, choose: Callable[[Array, Array], Array]) -> Params:
    """`choose(held, param)` of each leaf that is held, else the parameter, in its dtype."""
    return jax.tree.map(
        lambda a, p: p if a is None else choose(a, p).astype(p.dtype),
        held,
        params,
        is_leaf=lambda x: x is None,
    )


def state_of(opt_state: OptState, kind: type[T]) -> T | None:
    """The state of that kind within `opt_state`, or None."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return next((x for x in leaves if isinstance(x, kind)), None)
