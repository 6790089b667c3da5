"""Rules for parts of arrays that are found while the graph runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from jaxcnn.errors import ConfigError
from jaxcnn.runs.onnx_export.arrays import cast, chosen, ints
from jaxcnn.runs.onnx_export.graph import Graph, Value, made, order_of, rule


@rule("gather")
def _gather(g: Graph, eqn: Any, x: Value, places: Value) -> Value:
    """Windows of x that begin at `places` [*batch, k], see `jax.lax.gather`."""
    d, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    cut = [axis for axis, size in enumerate(sizes) if size != x.shape[axis]]
    if len(places.shape) == 1 and places.array is not None and not d.operand_batching_dims:
        return _fixed(g, eqn, x, places.array)
    batching, indices_batching = list(d.operand_batching_dims), list(d.start_indices_batching_dims)
    indexed = [a for a in range(len(sizes)) if a in d.start_index_map or a in cut]
    indexed = [axis for axis in indexed if axis not in batching]
    if not indexed:
        raise ConfigError("it takes the whole array several times")
    rest = [a for a in range(len(sizes)) if a not in batching and a not in indexed]
    windows = [axis for axis in indexed if axis not in d.collapsed_slice_dims]
    batch = len(places.shape) - 1
    order = [*indices_batching, *(a for a in range(batch) if a not in indices_batching)]
    index = cast(g, g.tensor(places, order=(*order, batch)), np.int64)
    room = [x.shape[axis] - sizes[axis] for axis in d.start_index_map]
    index, inside = _bounded(g, index, room, eqn.params["mode"])
    index = _columns(g, index, list(d.start_index_map), indexed)
    if windows:
        extents = [sizes[axis] if axis in windows else 1 for axis in indexed]
        index = _spread(g, index, indexed, extents, windows, batch)
    name = g.tensor(x, order=(*batching, *indexed, *rest))
    name = g.once("GatherND", name, index, batch_dims=len(batching))
    if inside:
        trailing = range(batch, batch + len(windows) + len(rest))
        inside = g.once("Unsqueeze", inside, ints(g, *trailing)) if trailing else inside
        name = chosen(g, inside, name, g.constant(_fill(eqn, x)), x.dtype)
    return made(eqn, name, order=_output_order(d, order, [*windows, *rest], batch))


def _output_order(d: Any, batch_order: list[int], kept: list[int], batch: int) -> tuple[int, ...]:
    """The result's axis that each stored axis is: those of `batch_order`, then `kept` of x."""
    offsets = sorted(int(axis) for axis in d.offset_dims)
    others = [axis for axis in range(batch + len(offsets)) if axis not in offsets]
    place = dict(zip(sorted(kept), offsets, strict=True))
    return (*(others[axis] for axis in batch_order), *(place[axis] for axis in kept))


def _bounded(g: Graph, index: str, room: Sequence[Any], mode: Any) -> tuple[str, str]:
    """(places within the array, bool [*batch] of those that were, "" where all are taken)."""
    if mode == GatherScatterMode.PROMISE_IN_BOUNDS:
        return index, ""
    high, low = g.dims(tuple(room)), g.constant(np.int64(0))
    bounded = g.once("Min", g.once("Max", index, low), high)
    if mode == GatherScatterMode.CLIP:
        return bounded, ""
    same = cast(g, g.once("Equal", bounded, index), np.int32)
    return bounded, cast(g, g.once("ReduceMin", same, ints(g, -1), keepdims=0), bool)


def _columns(g: Graph, index: str, given: list[int], wanted: list[int]) -> str:
    """The columns of `index` in the order of the axes `wanted`; 0 for one that is not given."""
    if given == wanted:
        return index
    matrix = np.zeros((len(given), len(wanted)), np.int64)
    for column, axis in enumerate(given):
        matrix[column, wanted.index(axis)] = 1
    return g.once("MatMul", index, g.constant(matrix))


def _spread(
    g: Graph, index: str, indexed: list[int], extents: list[int], windows: list[int], batch: int
) -> str:
    """The places of all elements of the windows: [*batch, *extents of windows, k]."""
    grid = np.stack(np.meshgrid(*map(np.arange, extents), indexing="ij"), axis=-1)
    gone = tuple(i for i, axis in enumerate(indexed) if axis not in windows)
    offsets = np.squeeze(grid, gone).astype(np.int64)
    axes = range(batch, batch + len(windows))
    return g.once("Add", g.once("Unsqueeze", index, ints(g, *axes)), g.constant(offsets))


def _fill(eqn: Any, x: Value) -> np.ndarray:
    value = eqn.params["fill_value"]
    if value is None:
        raise ConfigError("it fills what is outside with nothing that is known")
    return np.array(value).astype(x.dtype)


def _fixed(g: Graph, eqn: Any, x: Value, starts: np.ndarray) -> Value:
    """One window whose place is known: a slice, without the axes that are collapsed."""
    d, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    place = dict(zip(d.start_index_map, (int(n) for n in starts), strict=True))
    cut = [axis for axis, size in enumerate(sizes) if size != x.shape[axis]]
    if not all(isinstance(x.shape[axis], int) for axis in cut):
        raise ConfigError("it takes a part of the rows")
    order = order_of(x)
    name = g.tensor(x, order=order)
    if cut:
        first = [place.get(axis, 0) for axis in cut]
        rooms = [x.shape[axis] - sizes[axis] for axis in cut]
        inside = [0 <= n <= room for n, room in zip(first, rooms, strict=True)]
        if not all(inside) and eqn.params["mode"] == GatherScatterMode.FILL_OR_DROP:
            raise ConfigError("it takes what is outside of the array")
        first = [min(max(n, 0), room) for n, room in zip(first, rooms, strict=True)]
        last = [n + sizes[axis] for n, axis in zip(first, cut, strict=True)]
        stored = [order.index(axis) for axis in cut]
        name = g.once("Slice", name, ints(g, *first), ints(g, *last), ints(g, *stored))
    collapsed = list(d.collapsed_slice_dims)
    if collapsed:
        name = g.once("Squeeze", name, ints(g, *sorted(order.index(a) for a in collapsed)))
    left = sorted(axis for axis in order if axis not in collapsed)
    return made(eqn, name, order=tuple(left.index(axis) for axis in order if axis in left))


@rule("dynamic_slice")
def _dynamic_slice(g: Graph, eqn: Any, x: Value, *starts: Value) -> Value:
    sizes = eqn.params["slice_sizes"]
    cut = [axis for axis, size in enumerate(sizes) if size != x.shape[axis]]
    if not cut:
        return made(eqn, g.tensor(x))
    begin = _starts(g, [starts[axis] for axis in cut], [x.shape[a] - sizes[a] for a in cut])
    end = g.once("Add", begin, ints(g, *(sizes[axis] for axis in cut)))
    return made(eqn, g.once("Slice", g.tensor(x), begin, end, ints(g, *cut)))


@rule("dynamic_update_slice")
def _dynamic_update_slice(g: Graph, eqn: Any, x: Value, part: Value, *starts: Value) -> Value:
    """Along one axis: each place asks whether it is in the window, and takes what is there."""
    cut = [axis for axis, n in enumerate(part.shape) if n != x.shape[axis]]
    if not cut:
        return made(eqn, g.tensor(part))
    if len(cut) > 1 or not isinstance(x.shape[cut[0]], int):
        raise ConfigError("it replaces a part along several axes, or of the rows")
    (axis,) = cut
    count, size = x.shape[axis], part.shape[axis]
    begin = _starts(g, [starts[axis]], [count - size])
    places = g.once("Sub", ints(g, *range(count)), begin)
    low, high = g.constant(np.int64(0)), g.constant(np.int64(size - 1))
    bounded = g.once("Min", g.once("Max", places, low), high)
    inside = g.once("Equal", bounded, places)
    after = len(x.shape) - 1 - axis
    inside = g.once("Unsqueeze", inside, ints(g, *range(1, after + 1))) if after else inside
    taken = g.once("Gather", g.tensor(part), bounded, axis=axis)
    return made(eqn, chosen(g, inside, taken, g.tensor(x), x.dtype))


@rule("scatter")
def _scatter(g: Graph, eqn: Any, x: Value, places: Value, new: Value) -> Value:
    """`x.at[..., i].set(new)` for one place along one axis, or for each row's own places; what is
    outside changes nothing.
    """
    d, mode = eqn.params["dimension_numbers"], eqn.params["mode"]
    if len(d.scatter_dims_to_operand_dims) != 1 or mode == GatherScatterMode.CLIP:
        raise ConfigError("it writes to places along several axes, or clips them")
    (axis,) = (int(n) for n in d.scatter_dims_to_operand_dims)
    count, index = x.shape[axis], cast(g, g.tensor(places), np.int64)
    if tuple(d.inserted_window_dims) != (axis,) or not isinstance(count, int):
        raise ConfigError("it writes to several places at once, or to rows")
    if len(places.shape) == 1:
        here = g.once("Equal", ints(g, *range(count)), index)
        after = len(x.shape) - 1 - axis
        here = g.once("Unsqueeze", here, ints(g, *range(1, after + 1))) if after else here
        taken = g.once("Unsqueeze", g.tensor(new), ints(g, axis))
        return made(eqn, chosen(g, here, taken, g.tensor(x), x.dtype))
    batching = [int(n) for n in d.operand_batching_dims]
    if len(batching) != len(x.shape) - 1 or len(places.shape) != len(x.shape) + 1:
        raise ConfigError("it writes to places that are not each row's own")
    given = [int(n) for n in d.scatter_indices_batching_dims]
    (own,) = (n for n in range(len(x.shape)) if n not in given)
    order = [own if n == axis else given[batching.index(n)] for n in range(len(x.shape))]
    index = g.once("Squeeze", index, ints(g, -1))
    index = g.once("Transpose", index, perm=order)
    # a place more for what is outside, cut off afterwards
    low, high = g.constant(np.int64(0)), g.constant(np.int64(count))
    inside = g.once("And", g.once("GreaterOrEqual", index, low), g.once("Less", index, high))
    index = g.once("Where", inside, index, high)
    name = g.tensor(x)
    first = g.once("Slice", name, ints(g, 0), ints(g, 1), ints(g, axis))
    longer = g.once("Concat", name, first, axis=axis)
    longer = g.once("ScatterElements", longer, index, g.tensor(new, order=tuple(order)), axis=axis)
    return made(eqn, g.once("Slice", longer, ints(g, 0), ints(g, count), ints(g, axis)))


def _starts(g: Graph, starts: Sequence[Value], room: Sequence[Any]) -> str:
    """Scalars as an int64 tensor [n], within the room, as JAX takes them."""
    parts = [g.once("Reshape", cast(g, g.tensor(s), np.int64), ints(g, 1)) for s in starts]
    joined = g.once("Concat", *parts, axis=0)
    return g.once("Min", g.once("Max", joined, g.constant(np.int64(0))), g.dims(tuple(room)))
