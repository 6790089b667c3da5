"""Which module ran when, left as marks in the jaxpr of a model."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

_MARK = "jaxcnn.inspect"


@dataclass
class Call:
    """One call of one module while the model was traced."""

    path: tuple[str, ...]
    kind: str
    leaf: bool = True
    shape: tuple[int, ...] = ()
    size: int = 1  # of its output, as the module saw it
    macs: int = 0  # for all rows of its input, as the module saw them
    own: dict[str, int] = field(default_factory=dict)  # own parameters and their sizes


def recorder(calls: list[Call], params: Mapping[str, Any]) -> Callable[..., Any]:
    """An interceptor of module calls that appends to `calls` and leaves marks in the jaxpr: "enter
    i", "out i" on the outputs, "exit i".
    """
    running: list[tuple[Any, Call]] = []

    def mark(array, word: str, index: int):
        is_array = isinstance(array, jax.Array)
        return checkpoint_name(array, f"{_MARK} {word} {index}") if is_array else array

    def intercept(next_call, args, kwargs, context):
        module, method = context.module, context.method_name
        if is_private(method) or (running and running[-1][0] == module.path):
            return next_call(*args, **kwargs)
        index, own = len(calls), own_sizes(params, module.path)
        call = Call(module.path, type(module).__name__, own=own)
        if running:
            running[-1][1].leaf = False
        calls.append(call)
        mark(jnp.zeros(()), "enter", index)
        running.append((module.path, call))
        try:
            output = next_call(*args, **kwargs)
        finally:
            running.pop()
        arrays = [leaf for leaf in jax.tree.leaves(output) if isinstance(leaf, jax.Array)]
        call.shape = tuple(arrays[0].shape[1:]) if arrays else ()
        call.size = arrays[0].size if arrays else 1
        call.macs = _macs(module, call, jax.tree.leaves((args, kwargs)))
        output = jax.tree.map(lambda leaf: mark(leaf, "out", index), output)
        mark(jnp.zeros(()), "exit", index)
        return output

    return intercept


def is_private(method: str) -> bool:
    """Whether a method of a module is no call of a layer."""
    return method in ("setup", "macs") or (method.startswith("_") and method != "__call__")


def own_sizes(params: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, int]:
    """Names and sizes of the parameters that lie directly at `path`."""
    for part in path:
        params = params.get(part, {})
    return {name: math.prod(leaf.shape) for name, leaf in params.items() if hasattr(leaf, "shape")}


def _macs(module: nn.Module, call: Call, given: list[Any]) -> int:
    """Multiplications for all rows [N, ...] of a module's first input, by the module's own method,
    else from the size of its "kernel" as the module sees it: one of a stack in a scan or a vmap.
    """
    arrays = [x for x in given if isinstance(x, jax.Array)]
    first = arrays[0].shape if arrays else ()
    rows = first[0] if first else 1
    if hasattr(module, "macs"):
        return rows * int(module.macs(call.shape))
    features = getattr(module, "features", None)
    if "kernel" not in call.own or features is None:
        return 0
    kernel = math.prod(module.variables["params"]["kernel"].shape)
    if isinstance(module, nn.ConvLocal):
        return rows * kernel  # a kernel of its own at each position
    if isinstance(module, nn.ConvTranspose):
        return math.prod(first[:-1]) * kernel
    features = math.prod(features) if isinstance(features, Sequence) else features
    return rows * (math.prod(call.shape) // features) * kernel


def macs_at(eqn: Any, call: Call) -> int:
    """Multiplications of a call at the mark on its output: under `vmap` the array that is marked is
    as many times larger than what the module saw as the module runs.
    """
    return call.macs * (eqn.outvars[0].aval.size // max(call.size, 1))


def read_mark(eqn: Any) -> tuple[str | None, int]:
    """The word and the number of the mark that an equation is, or (None, -1)."""
    text = eqn.params.get("name", "") if eqn.primitive.name == "name" else ""
    if not text.startswith(_MARK):
        return None, -1
    _, word, index = text.split()
    return word, int(index)
