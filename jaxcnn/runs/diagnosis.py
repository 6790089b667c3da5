"""Where a number first became infinite or NaN. Runs once, eagerly, after a run has stopped."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.runs.checkpoint import flatten
from jaxcnn.core.program import State, apply_model, gradient, prepare, with_numbers


def first_non_finite(e: Any, state: State, batch: dict) -> str:
    """The first layer whose output is not finite for this step's batch, else the parameters whose
    gradient is not.
    """
    now = with_numbers(e, state.hyperparams)
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    batch = prepare(now, batch, augment_key)
    for name, x in batch.items():
        if jnp.issubdtype(x.dtype, jnp.floating) and not jnp.isfinite(x).all():
            return f"the batch's {name!r} holds values that are not finite"
    layers: list[str] = []

    def watch(call, arguments, keywords, context):
        out = call(*arguments, **keywords)
        if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(out) if isinstance(x, jax.Array)):
            layers.append("/".join(context.module.path) or "the model")
        return out

    with nn.intercept_methods(watch):
        apply_model(now, {"params": state.params, **state.model_state}, batch, train=True, key=dropout_key, mutable=True)
    if layers:
        return f"first in the output of layer {layers[0]!r}"
    grads = flatten(gradient(now, state, batch, dropout_key)[2])
    names = [name for name, g in grads.items() if not jnp.isfinite(g).all()]
    return f"in the gradient of {', '.join(names[:3])}" if names else "in the loss"
