"""Where a number first became infinite or NaN. Runs once, eagerly, after a run has stopped."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import prepare, with_numbers
from jaxcnn.core.program import State, gradient, supervised
from jaxcnn.core.protocols import Batch, Tree
from jaxcnn.core.trees import flatten


def first_non_finite(e: Experiment, state: State, batch: Batch) -> str:
    """The first layer whose output is not finite for this step's batch, else the parameters whose
    gradient is not.
    """
    now = with_numbers(e, state.hyperparams)
    key = jax.random.fold_in(state.key, state.step)
    for name, x in prepare(now, batch, key=jax.random.split(key)[0]).items():
        if jnp.issubdtype(x.dtype, jnp.floating) and not jnp.isfinite(x).all():
            return f"the batch's {name!r} holds values that are not finite"
    layers: list[str] = []

    def watch(
        call: Callable[..., Tree],
        arguments: tuple[Tree, ...],
        keywords: dict[str, Tree],
        context: nn.module.InterceptorContext,
    ) -> Tree:
        out = call(*arguments, **keywords)
        if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(out) if isinstance(x, jax.Array)):
            layers.append("/".join(context.module.path) or "the model")
        return out

    with nn.intercept_methods(watch):
        variables = {"params": state.params, **state.model_state}
        (now.objective or supervised)(now, variables, batch, key)
    if layers:
        return f"first in the output of layer {layers[0]!r}"
    grads = flatten(gradient(now, state, batch, key).grads)
    names = [name for name, g in grads.items() if not jnp.isfinite(g).all()]
    return f"in the gradient of {', '.join(names[:3])}" if names else "in the loss"
