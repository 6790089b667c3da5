"""The models that can be named, measured: parameters, multiply-accumulates, input shape."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn import models
from jaxcnn.inspect.summary import summarize_layers, total_macs, total_params


def measure(name: str) -> dict[str, Any]:
    """{"name", "params", "macs", "input_shape"} of a model by its name; nothing is computed but
    shapes.
    """
    model, shape = models.build(name)
    dtype = jnp.int32 if name in models.TOKEN_MODELS else jnp.float32
    layers = summarize_layers(model, (jax.ShapeDtypeStruct((1, *shape), dtype),))
    return {
        "name": name,
        "params": total_params(layers),
        "macs": total_macs(layers),
        "input_shape": list(shape),
    }
