"""THE training step. An experiment determines a program of pure functions; running them changes a
state, which is nothing but arrays.

Pure: no I/O, no devices, no loop. Seeds, data parallelism and many steps a dispatch are
transformations of a program (jaxcnn.core.transforms). A batch is a dict of arrays with a leading
axis B. Images arrive as uint8 and become float32 in [0, 1] here; `mask` [B] is 1 for real rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxcnn.core import optimizers
from jaxcnn.core.experiment import Experiment, optimizer_numbers
from jaxcnn.core.override import replace_at


class State(flax.struct.PyTreeNode):
    """All that changes while training. Arrays only."""

    # int32 []: updates made; everything random is folded from it, so it is all that a resumed run
    # needs
    step: Any
    params: Any  # float32 pytree
    model_state: Any  # the model's other collections, e.g. {"batch_stats": …}
    opt_state: Any  # optax state
    key: Any  # PRNG key []
    # {"optimizer.learning_rate": float32 [], …}: numbers by their dotted path in the experiment
    hyperparams: Any
    ema: Any  # moving average of params, or None
    # bool []: False from the first non-finite loss or gradient on, or by early stop; the state is
    # then frozen
    live: Any


class Program(NamedTuple):
    """The pure functions that an experiment determines."""

    init: Callable[..., Any]  # (key, hyperparams={}) -> State
    train_step: Callable[..., Any]  # (State, batch) -> (State, {"loss", "grad_norm", "live"})
    eval_step: Callable[..., Any]  # (State, batch) -> (sums, records)
    predict_step: Callable[..., Any]  # (State, batch) -> {"label": [B], …}
    # (State, batch) -> (the model's outputs in evaluation, the batch as the task sees it)
    output_step: Callable[..., Any]


def make_program(e: Experiment, *, steps: int) -> Program:
    """The program of experiment `e` for a run of `steps` updates (the schedule's length)."""

    def init(key: jax.Array, hyperparams: dict[str, Any] | None = None) -> State:
        numbers = {**optimizer_numbers(e), **(hyperparams or {})}
        numbers = {path: jnp.asarray(value, jnp.float32) for path, value in numbers.items()}
        params_key, run_key = jax.random.split(key)
        example = prepare(
            e, {name: jnp.zeros((1, *s.shape), s.dtype) for name, s in e.data.spec().items()}
        )
        model_state = dict(e.model.init(params_key, *model_inputs(e, example), train=False))
        params = model_state.pop("params", {})
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=model_state,
            opt_state=make_optimizer(with_numbers(e, numbers)).init(params),
            key=run_key,
            hyperparams=numbers,
            ema=None if e.ema is None else params,
            live=jnp.ones((), bool),
        )

    def train_step(state: State, batch: dict) -> tuple[State, dict]:
        now = with_numbers(e, state.hyperparams)
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        batch = prepare(now, batch, augment_key)
        loss, model_state, grads = gradient(now, state, batch, dropout_key)
        grad_norm = optax.tree.norm(grads)
        if now.clip_norm is not None:
            shrink = jnp.minimum(1.0, now.clip_norm / (grad_norm + 1e-12))
            grads = jax.tree.map(lambda g: g * shrink, grads)
        updates, opt_state = make_optimizer(now).update(grads, state.opt_state, state.params)
        multiplier = now.schedule(state.step.astype(jnp.float32) / steps)
        rates = optimizers.rate_multipliers(state.params, now.rates)
        params = jax.tree.map(
            lambda p, u, rate: p + u * (multiplier * rate).astype(p.dtype),
            state.params,
            updates,
            rates,
        )
        live = state.live & jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        new = state.replace(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema=None
            if now.ema is None
            else optimizers.ema(state.ema, params, decay=now.ema, step=state.step),
        )
        # A step that is not finite is not taken, nor is any after it: the state stays the last good
        # one and its `step` says when.
        new = jax.tree.map(
            lambda a, b: jnp.where(live, a, b), new.replace(key=None), state.replace(key=None)
        )
        return new.replace(key=state.key, live=live), {
            "loss": loss,
            "grad_norm": grad_norm,
            "live": live,
        }

    def output_step(state: State, batch: dict) -> tuple[Any, dict]:
        now = with_numbers(e, state.hyperparams)
        batch = prepare(now, batch)
        variables = {
            "params": state.params if state.ema is None else state.ema,
            **state.model_state,
        }
        return apply_model(now, variables, batch, train=False), batch

    def eval_step(state: State, batch: dict) -> tuple[Any, dict]:
        task = with_numbers(e, state.hyperparams).task
        outputs, batch = output_step(state, batch)
        return task.statistics(outputs, batch), task.records(outputs, batch)

    def predict_step(state: State, batch: dict) -> dict:
        return with_numbers(e, state.hyperparams).task.predict(output_step(state, batch)[0])

    return Program(init, train_step, eval_step, predict_step, output_step)


def gradient(
    e: Experiment, state: State, batch: dict, dropout_key: jax.Array
) -> tuple[jax.Array, Any, Any]:
    """(mean loss [], next model_state, gradient) of a prepared batch, in `e.accumulate`
    micro-batches of equal size.
    """

    def mean_loss(params, model_state, part, key):
        outputs, model_state = apply_model(
            e, {"params": params, **model_state}, part, train=True, key=key, mutable=True
        )
        mask = part["mask"]
        return (e.task.loss(outputs, part) * mask).sum() / jnp.maximum(mask.sum(), 1.0), model_state

    value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)
    if e.accumulate == 1:
        (loss, model_state), grads = value_and_grad(
            state.params, state.model_state, batch, dropout_key
        )
        return loss, model_state, grads

    def add(carry, part):
        loss, model_state, grads = carry
        part, key = part
        (new_loss, model_state), new_grads = value_and_grad(state.params, model_state, part, key)
        return (loss + new_loss, model_state, jax.tree.map(jnp.add, grads, new_grads)), None

    parts = jax.tree.map(
        lambda x: x.reshape(e.accumulate, x.shape[0] // e.accumulate, *x.shape[1:]), batch
    )
    start = (jnp.zeros(()), state.model_state, jax.tree.map(jnp.zeros_like, state.params))
    # On CPU a convolution inside a loop runs several times slower, so the loop is unrolled there.
    (loss, model_state, grads), _ = jax.lax.scan(
        add,
        start,
        (parts, jax.random.split(dropout_key, e.accumulate)),
        unroll=jax.default_backend() == "cpu",
    )
    return loss / e.accumulate, model_state, jax.tree.map(lambda g: g / e.accumulate, grads)


def apply_model(
    e: Experiment,
    variables: dict,
    batch: dict,
    *,
    train: bool,
    key: jax.Array | None = None,
    mutable: bool = False,
) -> Any:
    """Outputs in float32, computed in `e.compute_dtype`; with `mutable`, (outputs, next model_state
    with the dtypes of the old).
    """
    dtype = jnp.dtype(e.compute_dtype)
    params, inputs = _cast(variables["params"], dtype), _cast(model_inputs(e, batch), dtype)
    model_state = {name: value for name, value in variables.items() if name != "params"}
    rngs = None if key is None else {"dropout": key}
    result = e.model.apply(
        {"params": params, **model_state},
        *inputs,
        train=train,
        rngs=rngs,
        mutable=list(model_state) if mutable else False,
    )
    if not mutable:
        return _cast(result, jnp.float32)
    outputs, new_state = result
    return _cast(outputs, jnp.float32), jax.tree.map(
        lambda new, old: new.astype(old.dtype), dict(new_state), model_state
    )


def prepare(e: Experiment, batch: dict, augment_key: jax.Array | None = None) -> dict:
    """The batch as model and task see it: uint8 images as float32 in [0, 1], augmented if there is
    a key, transformed; `mask` added.
    """
    rows = next(iter(batch.values())).shape[0]
    batch = {
        name: x.astype(jnp.float32) / 255.0 if x.dtype == jnp.uint8 else x
        for name, x in batch.items()
    }
    batch.setdefault("mask", jnp.ones((rows,), jnp.float32))
    if augment_key is not None:
        for i, augment in enumerate(e.augment):
            batch = augment(jax.random.fold_in(augment_key, i), batch)
    for transform in e.transform:
        batch = transform(batch)
    return batch


def model_inputs(e: Experiment, batch: dict) -> list:
    """The entries of the batch that the model takes, in order."""
    return [batch[name] for name in e.task.inputs]


def make_optimizer(e: Experiment) -> optax.GradientTransformation:
    """The optimizer of the experiment; cheap, so that it is made anew inside the step from the
    numbers in the state.

    optax relies on JAX's implicit dtype promotion, which whoever calls us may have forbidden.
    """
    optimizer = e.optimizer()

    def update(grads, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(grads, state, params)

    return optax.GradientTransformation(optimizer.init, update)  # pyright: ignore[reportArgumentType]


def with_numbers(e: Experiment, numbers: dict[str, Any]) -> Experiment:
    """The experiment with the numbers of the state (traced arrays) in their places."""
    for path, value in numbers.items():
        e = replace_at(e, path, value)
    return e


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )
