"""What a jaxpr (the traced form of a JAX function) becomes in ONNX, operation by operation.

`Graph.inline` walks a jaxpr and asks for each equation the rule of its primitive (`rule`), which
adds nodes. Three things keep the graph small:

- What is known is computed at once: a value that depends on the weights alone is an array here, and
  no node is made for it.
- A broadcast makes no node: ONNX broadcasts axes of extent 1 as NumPy does, so a value may be
  `thin`, its extents of 1 standing for larger ones, until an operation needs all of it.
- A transposition makes no node: a value knows in which `order` its axes are stored. Convolutions of
  ONNX want channels first, ours have them last; what follows a convolution elementwise stays in the
  order of the convolution.

The number of rows is free: extents are ints, or multiples of `rows`, a symbolic dimension of
`jax.export`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn.errors import ConfigError

Shape = tuple[Any, ...]  # of ints and multiples of a symbolic dimension
Order = tuple[int, ...]
FOLDED = 2**24  # more numbers than this are not computed in advance
SAME = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "sharding_constraint")
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # the parameters that hold what an equation calls


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """What a variable of a jaxpr is: an `array` that is known, or the tensor `name` of the graph.

    shape, dtype: as JAX has them. order: axis i of the tensor is the axis order[i] of `shape`.
    thin: extents of 1 may stand for those of `shape`.
    """

    shape: Shape
    dtype: Any
    array: Any = None
    name: str = ""
    order: Order = ()
    thin: bool = False


class Node(NamedTuple):
    """A node of ONNX's default domain; an attribute that is a `Graph` is the body of a loop."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


Rule = Callable[..., "Sequence[Value] | Value"]
RULES: dict[str, Rule] = {}
ELEMENTWISE: set[str] = set()  # the names of primitives that broadcast


def rule(*names: str, elementwise: bool = False) -> Callable[[Rule], Rule]:
    """A function (graph, equation, *values) -> value or values is the rule of these primitives."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        ELEMENTWISE.update(names if elementwise else ())
        return function

    return register


class Graph:
    """The nodes of a graph, and of a loop's body, whose `parent`'s tensors it sees."""

    def __init__(self, rows: Any, *, parent: "Graph | None" = None):
        self.rows = rows
        self.nodes: list[Node] = []
        self.inputs: list[tuple[str, Any]] = []  # (name, dtype), of a body
        self.outputs: list[str] = []  # of a body
        self.arrays: dict[str, np.ndarray] = {} if parent is None else parent.arrays
        self._names: Iterator[int] = itertools.count() if parent is None else parent._names
        self._made: dict[Any, str] = {} if parent is None else dict(parent._made)

    # ---- values

    def tensor(self, value: Value, *, order: Order = ()) -> str:
        """The name of all of `value`, its axes stored in `order` (default: as JAX has them)."""
        return self._stored(self._whole(value) if value.thin else value, order)

    def loose(self, value: Value, *, order: Order = ()) -> str:
        """As `tensor`, but extents of 1 may stand for larger ones; a scalar is a scalar."""
        return self._stored(value, order if len(order) == len(value.shape) else ())

    def _whole(self, value: Value) -> Value:
        if value.array is not None and self.is_static(value.shape):
            return dataclasses.replace(
                value, array=np.broadcast_to(value.array, value.shape), thin=False
            )
        shape = tuple(value.shape[axis] for axis in value.order) or value.shape
        stored = self._stored(value, value.order)
        name = self.once("Expand", stored, self.dims(shape))
        return Value(value.shape, value.dtype, name=name, order=value.order)

    def _stored(self, value: Value, order: Order) -> str:
        order = () if order == tuple(range(len(order))) else order
        if value.array is not None:
            return self.constant(np.transpose(value.array, order) if order else value.array)
        has = () if value.order == tuple(range(len(value.order))) else value.order
        if has == order:
            return value.name
        axes = range(len(value.shape))
        has, order = has or tuple(axes), order or tuple(axes)
        return self.once("Transpose", value.name, perm=[has.index(axis) for axis in order])

    def constant(self, array: Any) -> str:
        """The name of a known tensor; equal small ones are one."""
        array = np.asarray(array)
        small = array.size <= 64
        key = (array.dtype.str, array.shape, array.tobytes() if small else id(array))
        if key not in self._made:
            self._made[key] = name = self.fresh("array")
            self.arrays[name] = array  # which keeps it alive, and its id its own
        return self._made[key]

    def dims(self, shape: Shape) -> str:
        """An int64 tensor [len(shape)] of these extents."""
        if self.is_static(shape):
            return self.constant(np.array(shape, np.int64))
        parts = []
        for extent in shape:
            if isinstance(extent, int):
                parts.append(self.constant(np.array([extent], np.int64)))
            else:
                times = self.constant(np.array([self.multiple(extent)], np.int64))
                parts.append(self.once("Mul", "rows", times))
        return parts[0] if len(parts) == 1 else self.once("Concat", *parts, axis=0)

    def multiple(self, extent: Any) -> int:
        """m, of an extent that is m * rows."""
        times, rest = divmod(extent, self.rows)
        if not (isinstance(times, int) and isinstance(rest, int) and rest == 0):
            raise ConfigError(
                f"the extent {extent} depends on the number of rows otherwise than as a multiple"
            )
        return times

    def is_static(self, shape: Sequence[Any]) -> bool:
        """Whether the shape does not depend on the number of rows."""
        return all(isinstance(extent, int | np.integer) for extent in shape)

    # ---- nodes

    def fresh(self, what: str) -> str:
        """A name that no tensor has."""
        return f"{what}_{next(self._names)}"

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """A node; the names of its outputs."""
        names = [self.fresh(op.lower()) for _ in range(outputs)]
        self.nodes.append(Node(op, list(inputs), names, attributes))
        return names

    def once(self, op: str, *inputs: str, **attributes: Any) -> str:
        """The output of a node with one output; the same node is made once."""
        key = (op, inputs, repr(sorted(attributes.items())))
        if key not in self._made:
            (self._made[key],) = self.add(op, *inputs, **attributes)
        return self._made[key]

    # ---- jaxprs

    def inline(self, jaxpr: Any, consts: Sequence[Any], values: Sequence[Value]) -> list[Value]:
        """The values of the outputs of an open jaxpr for those of its inputs.

        Errors: ConfigError for what cannot be expressed, naming the operation and where it is.
        """
        known: dict[Any, Value] = {}

        def read(atom: Any) -> Value:
            if hasattr(atom, "val"):
                return as_value(atom.val, dtype=atom.aval.dtype)
            return _nothing(atom.aval) if _is_empty(atom) else known[atom]

        for variable, const in zip(jaxpr.constvars, consts, strict=True):
            known[variable] = const if isinstance(const, Value) else as_value(const)
        known.update(zip(jaxpr.invars, values, strict=True))
        for eqn in _needed(jaxpr):
            found = self._equation(eqn, [read(atom) for atom in eqn.invars])
            known.update(zip(eqn.outvars, found, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, values: list[Value]) -> Sequence[Value]:
        name = str(eqn.primitive)
        if name in SAME:
            return values
        if name not in RULES and (called := _called(eqn.params)) is not None:
            jaxpr, consts = called
            return self.inline(jaxpr, consts, values[-len(jaxpr.invars) :] if values else [])
        if (found := self._folded(eqn, name, values)) is not None:
            return found
        try:
            if name not in RULES:
                raise ConfigError("no rule expresses it")
            result = RULES[name](self, eqn, *values)
        except ConfigError as error:
            if str(error).startswith("format onnx"):
                raise
            where = str(getattr(eqn.source_info, "name_stack", "")) or "the model"
            raise ConfigError(
                f"format onnx: the operation {name!r} in {where} cannot be written ({error}); "
                "write the model without it, or export with the format 'stablehlo'"
            ) from None
        return [result] if isinstance(result, Value) else result

    def _folded(self, eqn: Any, name: str, values: list[Value]) -> list[Value] | None:
        """What is known in advance, or None."""
        if any(value.array is None for value in values) or _called(eqn.params) is not None:
            return None
        outputs = [variable.aval for variable in eqn.outvars]
        if name in ELEMENTWISE:
            arrays = np.broadcast_arrays(*(value.array for value in values))
        elif self.is_static([n for item in (*values, *outputs) for n in item.shape]) and values:
            arrays = [_broadcast(value) for value in values]
        else:
            return None
        if any(np.size(x) > FOLDED for x in arrays if not _is_key(x)):
            return None
        result = eqn.primitive.bind(*map(jax.numpy.asarray, arrays), **eqn.params)
        results = result if eqn.primitive.multiple_results else [result]
        return [
            Value(aval.shape, aval.dtype, _host(x), thin=tuple(x.shape) != tuple(aval.shape))
            for aval, x in zip(outputs, results, strict=True)
        ]


def as_value(array: Any, *, dtype: Any = None) -> Value:
    """A known value."""
    array = _host(array) if dtype is None or _is_key(array) else np.asarray(array, dtype)
    return Value(tuple(array.shape), array.dtype, array)


def made(eqn: Any, name: str, *, order: Order = (), thin: bool = False, index: int = 0) -> Value:
    """The value of an equation's output that is the tensor `name`."""
    aval = eqn.outvars[index].aval
    return Value(tuple(aval.shape), aval.dtype, name=name, order=order, thin=thin)


def order_of(value: Value) -> Order:
    """Its order, in full."""
    return value.order or tuple(range(len(value.shape)))


def without(order: Order, axes: Sequence[int]) -> Order:
    """The order of what is left of a tensor when these axes of the value are gone."""
    left = sorted(axis for axis in order if axis not in axes)
    return tuple(left.index(axis) for axis in order if axis not in axes)


def _needed(jaxpr: Any) -> list[Any]:
    """The equations that the outputs depend on; what has no elements depends on nothing."""
    wanted = {id(atom) for atom in jaxpr.outvars}
    equations = []
    for eqn in reversed(jaxpr.eqns):
        if any(id(variable) in wanted and not _is_empty(variable) for variable in eqn.outvars):
            wanted.update(id(atom) for atom in eqn.invars)
            equations.append(eqn)
    return equations[::-1]


def _is_empty(atom: Any) -> bool:
    return any(isinstance(n, int) and n == 0 for n in getattr(atom.aval, "shape", ()))


def _nothing(aval: Any) -> Value:
    """A value without elements."""
    shape = tuple(n if isinstance(n, int) else 1 for n in aval.shape)
    return Value(tuple(aval.shape), aval.dtype, np.zeros(shape, aval.dtype), thin=True)


def _called(params: dict[str, Any]) -> tuple[Any, Sequence[Any]] | None:
    """(jaxpr, its constants) of an equation that does nothing but call it."""
    for called in (params[key] for key in CALLS if params.get(key) is not None):
        if hasattr(called, "jaxpr"):
            return called.jaxpr, called.consts
        if hasattr(called, "eqns"):
            return called, ()
    return None


def _host(array: Any) -> Any:
    """On the host; a key of random numbers as it is."""
    return array if _is_key(array) else np.asarray(array)


def _broadcast(value: Value) -> Any:
    return np.broadcast_to(value.array, value.shape) if value.thin else value.array


def _is_key(array: Any) -> bool:
    return jax.numpy.issubdtype(getattr(array, "dtype", np.float32), jax.dtypes.prng_key)
