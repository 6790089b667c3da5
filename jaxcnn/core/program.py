"""THE training step. An experiment names a program of pure functions; running them changes a state,
which is nothing but arrays.

Pure: no I/O, no devices, no loop. Seeds, data parallelism and many steps a dispatch are
transformations of a program (jaxcnn.core.transforms). A batch is a dict of arrays with a leading
axis B. Images arrive as uint8 and become float32 in [0, 1] here; `mask` [B] is 1 for real rows.

Two seams open the step. `Experiment.objective` is for all that is one gradient of one loss
(distillation, contrastive learning, regularizers): it sees the variables, the raw batch and a key.
`Experiment.program` is for all else (several optimizers, two gradients a step): it is built of the
pieces below, most often as `descend(e, steps=steps)._replace(train_step=…)`. Both are shown in use
in experiments/ and in docs/howto.md.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32

from jaxcnn.core import freezing, optimizers, schedules
from jaxcnn.core.checks import (
    check_complete,
    check_factors,
    check_made,
    check_mixed,
    check_objective,
)
from jaxcnn.core.experiment import Experiment, optimizer_numbers
from jaxcnn.core.forward import apply_model, fresh_variables, prepare, with_numbers
from jaxcnn.core.protocols import (
    Batch,
    Collections,
    FlaxState,
    Numbers,
    OptState,
    Params,
    Program,
    Tree,
    Variables,
)
from jaxcnn.errors import ConfigError
from jaxcnn.tasks.task import Outputs

S = TypeVar("S", bound=FlaxState)


class State(flax.struct.PyTreeNode):
    """All that changes while training by gradient descent. Arrays only."""

    step: Int32[Array, ""]  # updates made; everything random is folded from it
    params: Params
    model_state: Collections  # the model's other collections, e.g. {"batch_stats": …}
    opt_state: OptState
    key: jax.Array  # PRNG key []
    hyperparams: dict[str, jax.Array]  # {"optimizer.learning_rate": float32 [], …}, by dotted path
    ema: Params | None  # moving average of params
    ema_state: Collections | None  # moving average of model_state, to go with it
    live: Bool[Array, ""]  # False from the first non-finite loss or gradient on: then frozen


class Gradient(NamedTuple):
    """What `gradient` finds."""

    loss: Float[Array, ""]  # mean over the real rows, weighted where the batch has weights
    grads: Params  # of the trainable parameters; None in the places of frozen ones
    model_state: Collections  # after the forward pass
    numbers: Numbers  # of the objective, to be logged


def make_program(e: Experiment, *, steps: int) -> Program:
    """The program of experiment `e` for a run of `steps` updates (the schedule's length)."""
    return (e.program or descend)(e, steps=steps)


def descend(e: Experiment, *, steps: int) -> Program:
    """Gradient descent on `e.objective` by `e.optimizer`: the default program."""

    def init(
        key: jax.Array,
        numbers: Mapping[str, float | jax.Array] | None = None,
        variables: Variables | None = None,
    ) -> State:
        values = {**optimizer_numbers(e), **(numbers or {})}
        values = {path: jnp.asarray(value, jnp.float32) for path, value in values.items()}
        params_key, run_key = jax.random.split(key)
        fresh = fresh_variables(e, params_key) if variables is None else dict(variables)
        params = fresh.pop("params", {})
        trainable, _ = freezing.split(params, e.rates)
        opt_state = make_optimizer(with_numbers(e, values)).init(trainable)
        check_factors(e, opt_state)
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=fresh,
            opt_state=opt_state,
            key=run_key,
            hyperparams=values,
            ema=None if e.ema is None else jax.tree.map(jnp.copy, params),
            ema_state=None if e.ema is None else jax.tree.map(jnp.copy, fresh),
            live=jnp.ones((), bool),
        )

    def train_step(state: State, batch: Batch) -> tuple[State, Numbers]:
        now = with_numbers(e, state.hyperparams)
        key = jax.random.fold_in(state.key, state.step)
        found = gradient(now, state, batch, key)
        new, numbers = update(now, state, found, steps=steps, again=(batch, key))
        finite = jnp.isfinite(found.loss) & jnp.isfinite(numbers["grad_norm"])
        new = advance(state, new, finite=finite)
        # of the parameters that are kept: else XLA's CPU backend writes the others to memory, too
        numbers["param_norm"] = optax.tree.norm(new.params)
        return new, {**found.numbers, "loss": found.loss, **numbers}

    def output_step(state: State, batch: Batch) -> tuple[Outputs, Batch]:
        now = with_numbers(e, state.hyperparams)
        batch = prepare(now, batch)
        variables = evaluation_variables(state)
        return apply_model(now, variables, batch, train=False, key=state.key), batch

    return Program(init, train_step, output_step)


def supervised(
    e: Experiment, variables: Variables, batch: Batch, key: jax.Array
) -> tuple[Float[Array, " B"], Collections, Numbers]:
    """The default objective: (`task.loss` of each row [B], next collections, the task's running
    metrics and how many objects an augmentation left without a row) of a raw batch, augmented.
    """
    augment_key, model_key = jax.random.split(key)
    batch = prepare(e, batch, key=augment_key)
    check_mixed(e, batch)
    outputs, collections = apply_model(e, variables, batch, train=True, key=model_key, mutable=True)
    numbers = e.task.running(outputs, batch)
    if "boxes_dropped" in batch:  # by an augmentation, see jaxcnn.data.augment.detection
        numbers = numbers | {"boxes_dropped": batch["boxes_dropped"].astype(jnp.float32).mean()}
    return e.task.loss(outputs, batch), collections, numbers


def gradient(e: Experiment, state: State, batch: Batch, key: jax.Array) -> Gradient:
    """Mean loss and gradient of the objective over a raw batch, in `e.accumulate` micro-batches of
    equal size, each augmented by itself with a key of its own. The mean is that of the real rows of
    the whole batch, however it is parted; where it has a "weight" [B], sum(weight * loss) /
    sum(weight).

    Errors: ConfigError for an objective that returns something else than a loss of each row.
    """
    trainable, frozen = freezing.split(state.params, e.rates)

    def mean_loss(
        trainable: Params, model_state: Collections, part: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Collections, Numbers]]:
        variables = {"params": freezing.merge(trainable, frozen), **model_state}
        loss, model_state, numbers = (e.objective or supervised)(e, variables, part, key)
        check_objective(e, loss, numbers, part)
        numbers = {name: jnp.asarray(value, jnp.float32) for name, value in numbers.items()}
        return _mean(loss, part, total_weight / e.accumulate), (dict(model_state), numbers)

    total_weight = _weights(batch).sum()
    value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)
    if e.accumulate == 1:
        (loss, (model_state, numbers)), grads = value_and_grad(
            trainable, state.model_state, batch, key
        )
        return Gradient(loss, grads, model_state, numbers)

    def add(carry: Tree, part: Tree) -> tuple[Tree, None]:
        model_state, sums = carry
        (loss, (model_state, numbers)), grads = value_and_grad(trainable, model_state, *part)
        return (model_state, jax.tree.map(jnp.add, sums, (loss, grads, numbers))), None

    rows = next(iter(batch.values())).shape[0] // e.accumulate
    parts = jax.tree.map(lambda x: x.reshape(e.accumulate, rows, *x.shape[1:]), batch)
    parts = (parts, jax.random.split(key, e.accumulate))
    first = jax.tree.map(lambda x: x[0], parts)
    (loss, (_, numbers)), grads = jax.eval_shape(
        value_and_grad, trainable, state.model_state, *first
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, grads, numbers))
    # On CPU a convolution inside a loop runs several times slower, so the loop is unrolled there.
    (model_state, sums), _ = jax.lax.scan(
        add, (state.model_state, zeros), parts, unroll=jax.default_backend() == "cpu"
    )
    loss, grads, numbers = jax.tree.map(lambda x: x / e.accumulate, sums)
    return Gradient(loss, grads, model_state, numbers)


def _weights(batch: Batch) -> jax.Array:
    """How much each row's loss counts [B]: its mask, times its weight where it has one."""
    rows = next(iter(batch.values())).shape[0]
    mask = batch.get("mask", jnp.ones(rows, jnp.float32))
    return mask * batch["weight"].astype(jnp.float32) if "weight" in batch else mask


def _mean(loss: jax.Array, batch: Batch, total_weight: jax.Array) -> jax.Array:
    """The sum of the rows' losses, each times what it counts, over `total_weight` []."""
    weights = _weights(batch)
    safe = jnp.where(total_weight > 0, total_weight, 1.0)
    return (jnp.where(weights > 0, loss, 0.0) * weights).sum() / safe


def update(
    e: Experiment,
    state: State,
    found: Gradient,
    *,
    steps: int,
    again: tuple[Batch, jax.Array] | None = None,
) -> tuple[State, Numbers]:
    """The state after one update by `found`, clipped, through the optimizer, times schedule and
    per-parameter rates; with the numbers that say how large it was. `step` stays, see `advance`.

    `again`: the (raw batch, key) of `found`, for optimizers that look at other parameters on the
    same batch (a line search, SAM): they get value_fn(params) -> loss and grad_fn(params, i) ->
    gradient, clipped, besides value=, grad= (of that value, not clipped) and scale= (what their
    update will be multiplied by).
    """
    trainable, frozen = freezing.split(state.params, e.rates)
    norm, grads = optax.tree.norm(found.grads), _clipped(e, found.grads)
    multiplier = schedules.multiplier(e.schedule, state.step, steps=steps)
    rates = freezing.split(optimizers.rate_multipliers(state.params, e.rates), e.rates)[0]
    scale = jax.tree.map(lambda rate: multiplier * rate, rates)
    more = {"value": found.loss, "grad": found.grads, "scale": scale}
    if again is not None:
        more |= _looking_again(e, state, again)
    updates, opt_state = make_optimizer(e).update(grads, state.opt_state, trainable, **more)
    updates = jax.tree.map(lambda u, s, p: u * s.astype(p.dtype), updates, scale, trainable)
    params = freezing.merge(jax.tree.map(jnp.add, trainable, updates), frozen)
    new = state.replace(params=params, opt_state=opt_state, model_state=found.model_state)
    if e.ema is not None:
        old, fixed = freezing.split(state.ema, e.rates)
        now, _ = freezing.split(params, e.rates)
        average = partial(optimizers.ema, decay=e.ema, step=state.step)
        new = new.replace(
            ema=freezing.merge(average(old, now), fixed),
            ema_state=average(state.ema_state, found.model_state),
        )
    peak = state.hyperparams.get("optimizer.learning_rate")
    return new, {
        "grad_norm": norm,
        "param_norm": optax.tree.norm(params),
        "update_norm": optax.tree.norm(updates),
        **({"schedule": multiplier} if peak is None else {"learning_rate": peak * multiplier}),
    }


def _clipped(e: Experiment, grads: Params) -> Params:
    """Gradients of a global norm of at most `e.clip_norm`."""
    if e.clip_norm is None:
        return grads
    shrink = jnp.minimum(1.0, e.clip_norm / (optax.tree.norm(grads) + 1e-12))
    return jax.tree.map(lambda g: g * shrink, grads)


def _looking_again(e: Experiment, state: State, again: tuple[Batch, jax.Array]) -> dict[str, Any]:
    """value_fn and grad_fn of a batch, as functions of the trainable parameters."""
    _, frozen = freezing.split(state.params, e.rates)

    def at(trainable: Params) -> Gradient:
        there = state.replace(params=freezing.merge(trainable, frozen))
        return gradient(e, there, *again)

    # whoever differentiates the loss gets `gradient` itself, in its micro-batches
    value = jax.custom_vjp(lambda params: at(params).loss)
    value.defvjp(
        lambda params: ((found := at(params)).loss, found.grads),
        lambda grads, up: (jax.tree.map(lambda g: g * up, grads),),
    )

    # optax's line searches refuse extra arguments that their value_fn has no name for
    def value_fn(params: Params, *, scale: object = None, grad_fn: object = None) -> jax.Array:
        return value(params)

    return {
        "value_fn": value_fn,
        "grad_fn": lambda params, _: _clipped(e, at(params).grads),
    }


def advance(before: S, after: S, *, finite: Bool[Array, ""]) -> S:
    """`after` with its step counted, if that step was finite and the state still live; else
    `before`, no longer live: the state stays the last good one, and its `step` says when.

    Both are states with `step` and `live`, made by flax.struct; `finite` is bool [].
    """
    live = before.live & finite
    after = after.replace(step=before.step + 1)
    new = jax.tree.map(lambda a, b: a if a is b else jnp.where(live, a, b), after, before)
    return new.replace(live=live)


def evaluation_variables(state: State) -> Collections:
    """{"params": …, **collections} that a state is evaluated with: the moving average where there
    is one, with the average of the collections (BatchNorm's statistics of the raw parameters would
    be those of another network); what the optimizer says (schedule-free ones do), else the
    parameters.
    """
    if state.ema is not None:
        return {"params": state.ema, **(state.ema_state or {})}
    params = optimizers.evaluation_params(state.opt_state, state.params)
    return {"params": params, **state.model_state}


def make_optimizer(e: Experiment) -> optax.GradientTransformationExtraArgs:
    """The optimizer of the experiment; cheap, so that it is made anew inside the step from the
    numbers in the state. It takes extra arguments, and leaves out those that it has no use for.

    optax relies on JAX's implicit dtype promotion, which whoever calls us may have forbidden.
    Errors: ConfigError if the optimizer cannot be made of numbers in the state.
    """
    check_complete(e)
    try:
        with jax.numpy_dtype_promotion("standard"):
            made = e.optimizer()
    except jax.errors.ConcretizationTypeError:
        keywords = e.optimizer.keywords if isinstance(e.optimizer, partial) else {}
        numbers = {name: x for name, x in keywords.items() if isinstance(x, jax.Array)}
        raise ConfigError(
            f"optimizer: its numbers {', '.join(numbers)} lie in the training state as arrays, so "
            "that they can be swept, but it must know one of them when it is made; write that one "
            "into a function that takes the others and returns the optimizer"
        ) from None
    check_made(made)
    optimizer = optimizers.with_any_arguments(made)

    def init(params: Params) -> OptState:
        with jax.numpy_dtype_promotion("standard"):
            return _strong(optimizer.init(params))

    def apply(
        updates: Params, state: OptState, params: Params | None = None, **more: Any
    ) -> tuple[Params, OptState]:
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(updates, state, params, **more)
            return updates, _strong(state)

    return optax.GradientTransformationExtraArgs(init, apply)


def _strong(tree: Tree) -> Tree:
    """The tree without weak types: one that turns strong after a step, as in optax's line searches,
    would compile that step again.
    """
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), tree)
