"""Rules for convolutions, pooling and products of matrices."""

import math
from typing import Any

import numpy as np

from jaxcnn.errors import ConfigError
from jaxcnn.runs.onnx_export.arrays import ints
from jaxcnn.runs.onnx_export.graph import Graph, Value, made, rule


@rule("conv_general_dilated")
def _convolution(g: Graph, eqn: Any, x: Value, kernel: Value) -> Value:
    p = eqn.params
    inputs, kernels, outputs = p["dimension_numbers"]  # axes: (batch, channels, *spatial)
    if p["batch_group_count"] != 1:
        raise ConfigError("it has batch groups")
    if any(n < 0 for pair in p["padding"] for n in pair):
        raise ConfigError("its padding is negative")
    order = tuple(int(axis) for axis in outputs)
    name = g.tensor(x, order=tuple(inputs))
    if any(n != 1 for n in p["lhs_dilation"]):
        return made(eqn, _transposed(g, eqn, name, kernel, kernels), order=order)
    name = g.once(
        "Conv",
        name,
        g.tensor(kernel, order=tuple(kernels)),
        strides=list(p["window_strides"]),
        pads=[low for low, _ in p["padding"]] + [high for _, high in p["padding"]],
        dilations=list(p["rhs_dilation"]),
        group=p["feature_group_count"],
    )
    return made(eqn, name, order=order)


def _transposed(g: Graph, eqn: Any, name: str, kernel: Value, kernels: Any) -> str:
    """A convolution of an input with zeros between its elements: ONNX takes the kernel flipped, and
    cuts from the full result what the padding is short of it.
    """
    p = eqn.params
    if p["feature_group_count"] != 1 or any(n != 1 for n in p["window_strides"]):
        raise ConfigError("it has groups or a stride, and zeros between its inputs")
    if kernel.array is None:
        raise ConfigError("its kernel is no constant")
    weight = np.transpose(kernel.array, kernels)  # outputs, inputs, *window
    spatial = tuple(range(2, weight.ndim))
    weight = np.flip(weight, spatial).swapaxes(0, 1)
    extents = [(k - 1) * d for k, d in zip(weight.shape[2:], p["rhs_dilation"], strict=True)]
    cut = [(e - low, e - high) for e, (low, high) in zip(extents, p["padding"], strict=True)]
    name = g.once(
        "ConvTranspose",
        name,
        g.constant(weight),
        strides=list(p["lhs_dilation"]),
        pads=[max(low, 0) for low, _ in cut] + [max(high, 0) for _, high in cut],
        dilations=list(p["rhs_dilation"]),
    )
    if all(n >= 0 for pair in cut for n in pair):
        return name
    pads = [0, 0, *(max(-low, 0) for low, _ in cut), 0, 0, *(max(-high, 0) for _, high in cut)]
    return g.once("Pad", name, ints(g, *pads), mode="constant")


# ---- pooling


def pooled(g: Graph, eqn: Any, x: Value, op: str) -> Value:
    """MaxPool or AveragePool, whose first two axes have no window."""
    p = eqn.params
    if any(n != 1 for n in p["base_dilation"]):
        raise ConfigError("it has zeros between its inputs")
    if not np.issubdtype(x.dtype, np.floating):
        raise ConfigError(f"it pools {x.dtype}; ONNX Runtime pools floats")
    window, steps, spaces = p["window_dimensions"], p["window_strides"], p["window_dilation"]
    geometry = list(zip(window, steps, p["padding"], strict=True))
    still = [axis for axis, part in enumerate(geometry) if part == (1, 1, (0, 0))]
    if len(still) < 2:
        raise ConfigError("its window is over the rows or the channels, too")
    front = [still[0], still[-1]]
    spatial = [axis for axis in range(len(window)) if axis not in front]
    order = (*front, *spatial)
    pads = [p["padding"][axis][end] for end in (0, 1) for axis in spatial]
    options = {"count_include_pad": 1} if op == "AveragePool" else {}
    dilated = [spaces[axis] for axis in spatial]
    options |= {"dilations": dilated} if any(n != 1 for n in dilated) else {}
    name = g.once(
        op,
        g.tensor(x, order=order),
        kernel_shape=[window[axis] for axis in spatial],
        strides=[steps[axis] for axis in spatial],
        pads=pads,
        **options,
    )
    if op == "AveragePool":
        name = g.once("Mul", name, g.constant(np.array(math.prod(window), x.dtype)))
    return made(eqn, name, order=order)


@rule("reduce_window_max")
def _max_pool(g: Graph, eqn: Any, x: Value) -> Value:
    return pooled(g, eqn, x, "MaxPool")


@rule("reduce_window_sum")
def _sum_pool(g: Graph, eqn: Any, x: Value) -> Value:
    return pooled(g, eqn, x, "AveragePool")


@rule("reduce_window")
def _window(g: Graph, eqn: Any, x: Value, start: Value) -> Value:
    names = [str(inner.primitive) for inner in eqn.params["jaxpr"].eqns]
    if names == ["max"] and start.array is not None and start.array == -np.inf:
        return pooled(g, eqn, x, "MaxPool")
    if names == ["add"] and start.array is not None and start.array == 0:
        return pooled(g, eqn, x, "AveragePool")
    raise ConfigError(f"it reduces by {', '.join(names)}")


# ---- products


@rule("dot_general")
def _product(g: Graph, eqn: Any, x: Value, y: Value) -> Value:
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    free = [a for a in range(len(x.shape)) if a not in (*left, *left_batch)]
    other = [a for a in range(len(y.shape)) if a not in (*right, *right_batch)]
    plain = not left_batch and len(left) == 1 and len(other) == 1
    if plain:  # [..., K] by [K, N]
        name = g.once(
            "MatMul", g.tensor(x, order=(*free, *left)), g.tensor(y, order=(*right, *other))
        )
        return made(eqn, name)
    name = g.once(
        "MatMul",
        _merged(g, x, [left_batch, free, left]),
        _merged(g, y, [right_batch, right, other]),
    )
    return made(eqn, g.once("Reshape", name, g.dims(eqn.outvars[0].aval.shape)))


def _merged(g: Graph, value: Value, groups: list[Any]) -> str:
    """The tensor with each group of axes as one axis; one of extent 1 for none."""
    order = tuple(axis for group in groups for axis in group)
    shape = tuple(math.prod((value.shape[axis] for axis in group), start=1) for group in groups)
    return g.once("Reshape", g.tensor(value, order=order), g.dims(shape))
