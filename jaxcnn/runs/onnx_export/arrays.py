"""Rules for the shape of arrays, for reductions along axes, and for sorting."""

from typing import Any

import numpy as np

from jaxcnn.errors import ConfigError
from jaxcnn.runs.onnx_export.graph import Graph, Value, made, order_of, rule, without

LAST = np.iinfo(np.int64).min  # beyond the first place, for a slice that runs backwards


def ints(g: Graph, *numbers: int) -> str:
    """An int64 tensor of these numbers."""
    return g.constant(np.array(numbers, np.int64))


def cast(g: Graph, name: str, dtype: Any) -> str:
    """The tensor with another dtype."""
    return g.once("Cast", name, to=np.dtype(dtype))


def chosen(g: Graph, which: str, yes: str, no: str, dtype: Any) -> str:
    """`yes` where `which`, else `no`; of truth values by And and Or, since ONNX Runtime chooses
    among numbers alone.
    """
    if np.dtype(dtype) != bool:
        return g.once("Where", which, yes, no)
    other = g.once("And", g.once("Not", which), no)
    return g.once("Or", g.once("And", which, yes), other)


@rule("reshape")
def _reshape(g: Graph, eqn: Any, x: Value) -> Value:
    shape = eqn.outvars[0].aval.shape
    free = [not isinstance(extent, int) for extent in shape]
    if sum(free) == 1 and 0 not in shape:  # -1 is what is left
        target = ints(g, *(-1 if is_free else n for n, is_free in zip(shape, free, strict=True)))
    else:
        target = g.dims(shape)
    return made(eqn, g.once("Reshape", g.tensor(x), target))


@rule("broadcast_in_dim")
def _broadcast(g: Graph, eqn: Any, x: Value, *_: Value) -> Value:
    shape, axes = eqn.outvars[0].aval.shape, eqn.params["broadcast_dimensions"]
    new = [axis for axis in range(len(shape)) if axis not in axes]
    same = all(x.shape[i] == shape[axis] for i, axis in enumerate(axes))
    thin = x.thin or not same or any(shape[axis] != 1 for axis in new)
    if x.array is not None:
        extents = [1] * len(shape)
        for i, axis in enumerate(axes):
            extents[axis] = x.array.shape[i]
        return Value(tuple(shape), x.dtype, x.array.reshape(extents), thin=thin)
    name = g.loose(x)
    return made(eqn, g.once("Unsqueeze", name, ints(g, *new)) if new else name, thin=thin)


@rule("squeeze")
def _squeeze(g: Graph, eqn: Any, x: Value) -> Value:
    axes = [axis % len(x.shape) for axis in eqn.params["dimensions"]]
    order = order_of(x)
    name = g.once(
        "Squeeze", g.tensor(x, order=order), ints(g, *(order.index(axis) for axis in axes))
    )
    return made(eqn, name, order=without(order, axes))


@rule("expand_dims")
def _expand_dims(g: Graph, eqn: Any, x: Value) -> Value:
    return made(eqn, g.once("Unsqueeze", g.tensor(x), ints(g, *eqn.params["dimensions"])))


@rule("transpose")
def _transpose(g: Graph, eqn: Any, x: Value) -> Value:
    permutation = eqn.params["permutation"]
    if x.array is not None:
        shape = tuple(eqn.outvars[0].aval.shape)
        return Value(shape, x.dtype, np.transpose(x.array, permutation), thin=x.thin)
    order = tuple(permutation.index(axis) for axis in order_of(x))
    return made(eqn, x.name, order=order, thin=x.thin)


@rule("concatenate")
def _concatenate(g: Graph, eqn: Any, *values: Value) -> Value:
    axis = eqn.params["dimension"]
    values = tuple(v for v in values if not (isinstance(v.shape[axis], int) and v.shape[axis] == 0))
    orders = [order_of(v) for v in values if v.array is None]
    order = orders[0] if orders else order_of(values[0])
    names = [g.tensor(value, order=order) for value in values]
    return made(eqn, g.once("Concat", *names, axis=order.index(axis)), order=order)


@rule("stack")
def _stack(g: Graph, eqn: Any, *values: Value) -> Value:
    axis = eqn.params["axis"]
    names = [g.once("Unsqueeze", g.tensor(value), ints(g, axis)) for value in values]
    return made(eqn, g.once("Concat", *names, axis=axis))


@rule("split")
def _split(g: Graph, eqn: Any, x: Value) -> list[Value]:
    order, sizes = order_of(x), [int(n) for n in eqn.params["sizes"]]
    axis = order.index(eqn.params["axis"])
    names = g.add("Split", g.tensor(x, order=order), ints(g, *sizes), outputs=len(sizes), axis=axis)
    return [made(eqn, name, order=order, index=i) for i, name in enumerate(names)]


@rule("tile")
def _tile(g: Graph, eqn: Any, x: Value) -> Value:
    repeats = [int(n) for n in eqn.params["reps"]]
    return made(eqn, g.once("Tile", g.tensor(x), ints(g, *repeats)))


@rule("pad")
def _pad(g: Graph, eqn: Any, x: Value, value: Value) -> Value:
    widths = eqn.params["padding_config"]
    if any(between for _, _, between in widths):
        raise ConfigError("it pads between the elements")
    order = order_of(x)
    stored = [widths[axis] for axis in order]
    pads = [low for low, _, _ in stored] + [high for _, high, _ in stored]
    # negative widths cut off, in ONNX, too
    name = g.once("Pad", g.tensor(x, order=order), ints(g, *pads), g.tensor(value), mode="constant")
    return made(eqn, name, order=order)


@rule("slice")
def _slice(g: Graph, eqn: Any, x: Value) -> Value:
    starts, stops = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or (1,) * len(starts)
    cut = [
        (axis, *part)
        for axis, part in enumerate(zip(starts, stops, steps, strict=True))
        if part != (0, x.shape[axis], 1)
    ]
    if not g.is_static([n for part in cut for n in part]):
        raise ConfigError("it takes a part of the rows")
    order = order_of(x)
    if not cut:
        return made(eqn, g.tensor(x, order=order), order=order)
    axes, starts, stops, steps = (list(column) for column in zip(*cut, strict=True))
    axes = [order.index(axis) for axis in axes]
    name = g.once(
        "Slice", g.tensor(x, order=order), *(ints(g, *n) for n in (starts, stops, axes, steps))
    )
    return made(eqn, name, order=order)


@rule("rev")
def _rev(g: Graph, eqn: Any, x: Value) -> Value:
    order = order_of(x)
    axes = [order.index(axis) for axis in eqn.params["dimensions"]]
    parts = ([-1] * len(axes), [LAST] * len(axes), axes, [-1] * len(axes))
    name = g.once("Slice", g.tensor(x, order=order), *(ints(g, *part) for part in parts))
    return made(eqn, name, order=order)


@rule("iota")
def _iota(g: Graph, eqn: Any, *_: Value) -> Value:
    shape, axis = eqn.outvars[0].aval.shape, eqn.params["dimension"]
    dtype, extents = np.dtype(eqn.params["dtype"]), [1] * len(shape)
    extents[axis] = -1
    thin = any(n != 1 for i, n in enumerate(shape) if i != axis)
    if isinstance(shape[axis], int):
        array = np.arange(shape[axis], dtype=dtype).reshape(extents)
        return Value(tuple(shape), dtype, array, thin=thin)
    zero, one = (g.constant(np.array(n, np.int64)) for n in (0, 1))
    count = g.once("Squeeze", g.dims((shape[axis],)))
    name = g.once("Reshape", g.once("Range", zero, count, one), ints(g, *extents))
    return made(eqn, cast(g, name, dtype), thin=thin)


@rule("dim_as_value")
def _dim_as_value(g: Graph, eqn: Any, *_: Value) -> Value:
    name = g.once("Squeeze", g.dims((eqn.params["dim"],)))
    return made(eqn, cast(g, name, eqn.outvars[0].aval.dtype))


# ---- reductions

REDUCTIONS = {"sum": "ReduceSum", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd"}


def reduced(g: Graph, eqn: Any, x: Value, op: str) -> Value:
    """Along the equation's axes, which go."""
    order, axes = order_of(x), [int(axis) for axis in eqn.params["axes"]]
    name, stored = g.tensor(x, order=order), sorted(order.index(axis) for axis in axes)
    logic = x.dtype == bool
    name = cast(g, name, np.int32) if logic else name
    if axes:
        name = g.once(op, name, ints(g, *stored), keepdims=0)
    return made(eqn, cast(g, name, bool) if logic else name, order=without(order, axes))


def _register() -> None:
    names = {f"reduce_{what}": op for what, op in REDUCTIONS.items()}
    for primitive, op in {**names, "reduce_or": "ReduceMax", "reduce_and": "ReduceMin"}.items():

        @rule(primitive)
        def _(g: Graph, eqn: Any, x: Value, op: str = op, name: str = primitive) -> Value:
            if name in ("reduce_or", "reduce_and") and x.dtype != bool:
                raise ConfigError(f"it joins the bits of {x.dtype}")
            return reduced(g, eqn, x, op)

    for primitive, op in {"argmax": "ArgMax", "argmin": "ArgMin"}.items():

        @rule(primitive)
        def _(g: Graph, eqn: Any, x: Value, op: str = op) -> Value:
            order, (axis,) = order_of(x), eqn.params["axes"]
            name = g.tensor(x, order=order)
            name = cast(g, name, np.int32) if x.dtype == bool else name
            name = g.once(op, name, axis=order.index(axis), keepdims=0)
            name = cast(g, name, eqn.params["index_dtype"])
            return made(eqn, name, order=without(order, [axis]))


_register()


@rule("cumsum")
def _cumsum(g: Graph, eqn: Any, x: Value) -> Value:
    order = order_of(x)
    axis = g.constant(np.array(order.index(eqn.params["axis"]), np.int64))
    name = g.once("CumSum", g.tensor(x, order=order), axis, reverse=int(eqn.params["reverse"]))
    return made(eqn, name, order=order)


# ---- sorting


@rule("top_k")  # of equal ones the first; for ONNX -0 and 0 are equal, for JAX 0 is larger
def _top_k(g: Graph, eqn: Any, x: Value) -> list[Value]:
    order = order_of(x)
    axis = order.index(eqn.params.get("axis", len(order) - 1))
    k = ints(g, eqn.params["k"])
    values, places = g.add("TopK", g.tensor(x, order=order), k, outputs=2, axis=axis)
    places = cast(g, places, eqn.outvars[1].aval.dtype)
    return [made(eqn, values, order=order), made(eqn, places, order=order, index=1)]


@rule("sort")
def _sort(g: Graph, eqn: Any, key: Value, *others: Value) -> list[Value]:
    """By the smallest n of n; of equal ones ONNX takes the first place first, too."""
    if eqn.params["num_keys"] != 1:
        raise ConfigError(f"it sorts by {eqn.params['num_keys']} keys")
    axis, extent = eqn.params["dimension"], key.shape[eqn.params["dimension"]]
    if not isinstance(extent, int):
        raise ConfigError("it sorts the rows")
    logic = key.dtype == bool
    name = cast(g, g.tensor(key), np.int32) if logic else g.tensor(key)
    values, places = g.add("TopK", name, ints(g, extent), outputs=2, axis=axis, largest=0)
    names = [cast(g, values, bool) if logic else values]
    names += [g.once("GatherElements", g.tensor(x), places, axis=axis) for x in others]
    return [made(eqn, name, index=i) for i, name in enumerate(names)]
