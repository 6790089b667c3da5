"""A table of a model's layers: output shape, parameters, multiplications, receptive field. Computed
from shapes alone; no array is made.

Multiply-accumulates (MACs) count by formula what convolutions and dense layers multiply, without
biases: output positions x kernel size x input features / groups x output features (for transposed
convolutions input positions). A module that multiplies in another way says so with a method
`macs(output_shape) -> int`; everything else counts 0. Of the branches of a `lax.cond` or
`lax.switch` the one that multiplies most counts, and has the rows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from flax import linen as nn

from jaxcnn.core.protocols import Model
from jaxcnn.inspect.receptive_field import walk
from jaxcnn.inspect.tracing import Call, macs_at, own_sizes, read_mark, recorder
from jaxcnn.inspect.views import View, input_view
from jaxcnn.ops import convolution

_POOLS = {
    "reduce_window_max": "max_pool",
    "reduce_window_min": "min_pool",
    "reduce_window_sum": "avg_pool",
}
_GLOBAL_POOLS = {"reduce_max": "global_max_pool", "reduce_sum": "global_avg_pool"}


@dataclass(frozen=True)
class Layer:
    """One row: `shape` is that of the output without the batch axis, `params` the layer's own,
    `macs` for one example.

    `receptive_field` and `stride` (pixels of the first input from one output position to the next)
    have one entry for each spatial axis of that input; `stride` is empty where the output has no
    such axis.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    macs: int
    receptive_field: tuple[int, ...]
    stride: tuple[int | float, ...]

    @property
    def activations(self) -> int:
        """Number of outputs for one example."""
        return math.prod(self.shape)


def summarize_layers(
    model: Model, inputs: Sequence[jax.ShapeDtypeStruct], *, train: bool = False
) -> list[Layer]:
    """The layers of `model` in the order they run, for `inputs` [B, ...]: pools, and modules that
    have no sub-modules or own parameters.

    The first input is the image [B, *spatial, C] of which receptive fields are told. A module
    called twice has a row for each call, its parameters in the first.
    """

    def init(*arrays):
        return model.init(
            {"params": jax.random.key(0), "dropout": jax.random.key(0)}, *arrays, train=train
        )

    variables = jax.eval_shape(init, *inputs)
    mutable = [collection for collection in variables if collection != "params"]
    calls: list[Call] = []

    def apply(variables, *arrays):
        with nn.intercept_methods(recorder(calls, variables.get("params", {}))):
            return model.apply(
                variables,
                *arrays,
                train=train,
                # "params" stands for every name that the model may ask for, as in training
                rngs={"params": jax.random.key(0), "dropout": jax.random.key(0)},
                mutable=mutable,
            )[0]

    with convolution.formulation("natural"):  # JAX's own primitives, which the walk can read
        jaxpr = jax.make_jaxpr(apply)(variables, *inputs).jaxpr
    views: list[View | None] = [None] * len(jaxpr.invars)
    views[-len(inputs)] = input_view(inputs[0].ndim)
    layers = _rows(jaxpr, views, calls, variables.get("params", {}))
    # a layer may have several rows of an example, or one of several
    rows = inputs[0].shape[0]
    return [replace(layer, macs=layer.macs // rows) for layer in layers]


def _rows(
    jaxpr, views: list[View | None], calls: list[Call], params: Mapping[str, Any]
) -> list[Layer]:
    """Rows in the order of tracing, from the marks that `recorder` left and the pools between
    them; MACs are those of the whole batch.
    """
    layers: list[Layer] = []
    open_calls: list[int] = []
    counted: set[tuple[str, ...]] = set()
    written: set[int] = set()

    def add(
        name: str,
        kind: str,
        shape: tuple[int, ...],
        view: View | None,
        params: int = 0,
        macs: int = 0,
    ):
        stride = (
            ()
            if view is None or any(a.dim is None for a in view)
            else tuple(_plain(a.stride) for a in view)
        )
        layers.append(
            Layer(name, kind, shape, params, macs, tuple(a.field for a in view or ()), stride)
        )

    def add_pool(eqn, view: View | None):
        kind, shape = _pool_kind(eqn, view), tuple(eqn.outvars[0].aval.shape[1:])
        if kind is None or any(calls[i].leaf for i in open_calls):
            return
        scope = calls[open_calls[-1]].path if open_calls else ()
        number = sum(
            layer.kind == kind and layer.name.split("/")[:-1] == list(scope) for layer in layers
        )
        add("/".join((*scope, f"{kind}_{number}")), kind, shape, view)

    def visit(eqn, view: View | None, times: int):
        word, index = read_mark(eqn)
        if word == "enter":
            open_calls.append(index)
        elif word == "exit":
            open_calls.remove(index)
        elif word == "out" and index not in written:
            written.add(index)
            call = calls[index]
            if call.leaf or call.own:
                own = 0 if call.path in counted else sum(call.own.values())
                counted.add(call.path)
                add(
                    "/".join(call.path) or call.kind,
                    call.kind,
                    call.shape,
                    view,
                    own,
                    macs_at(eqn, call) * times,
                )
        elif word is None:
            add_pool(eqn, view)

    walk(jaxpr, views, visit, weigh=partial(_macs, calls))
    for path, size in _uncounted(params, counted):
        layers.append(Layer("/".join(path), "parameters", (), size, 0, (), ()))
    return layers


def _macs(calls: list[Call], jaxpr) -> int:
    """Multiplications of the marked calls in a jaxpr; those of a branch within it where it is the
    larger one.
    """
    found: dict[int, int] = {}

    def visit(eqn, view: View | None, times: int):
        word, index = read_mark(eqn)
        if word == "out" and index not in found:
            found[index] = macs_at(eqn, calls[index]) * times

    walk(jaxpr, [None] * len(jaxpr.invars), visit, weigh=partial(_macs, calls))
    return sum(found.values())


def _pool_kind(eqn, view: View | None) -> str | None:
    """What pool an equation is, or None: a window over spatial axes of what depends on the image,
    or a reduction of all of them.
    """
    name, dims = eqn.primitive.name, [a.dim for a in view or ()]
    if not dims:
        return None
    if name in _POOLS:
        window = eqn.params["window_dimensions"]
        return _POOLS[name] if any(d is not None and window[d] > 1 for d in dims) else None
    spatial = tuple(range(1, 1 + len(dims)))
    image = len(eqn.invars[0].aval.shape) == len(dims) + 2 if eqn.invars else False
    return (
        _GLOBAL_POOLS.get(name) if image and tuple(eqn.params.get("axes", ())) == spatial else None
    )


def _uncounted(
    params: Mapping[str, Any], counted: set[tuple[str, ...]], path: tuple[str, ...] = ()
):
    """Paths and sizes of parameters whose module was never seen to be called, so that the total is
    the model's.
    """
    own = sum(own_sizes(params, ()).values())
    if own and path not in counted:
        yield path, own
    for name, below in params.items():
        if isinstance(below, Mapping):
            yield from _uncounted(below, counted, (*path, name))


def _plain(number) -> int | float:
    return int(number) if number == int(number) else float(number)


def total_params(layers: Sequence[Layer]) -> int:
    """Trainable parameters of the model."""
    return sum(layer.params for layer in layers)


def total_macs(layers: Sequence[Layer]) -> int:
    """Multiply-accumulates for one example."""
    return sum(layer.macs for layer in layers)


def as_json(layers: Sequence[Layer]) -> dict[str, Any]:
    """Totals and rows in JSON's types: {"params", "macs", "layers": [{"name", "kind", "shape",
    "activations", ...}]}, a key a column.
    """
    rows = [
        {
            "name": layer.name,
            "kind": layer.kind,
            "shape": list(layer.shape),
            "activations": layer.activations,
            "params": layer.params,
            "macs": layer.macs,
            "receptive_field": list(layer.receptive_field),
            "stride": list(layer.stride),
        }
        for layer in layers
    ]
    return {"params": total_params(layers), "macs": total_macs(layers), "layers": rows}


def format_table(layers: Sequence[Layer]) -> str:
    """The rows as text with aligned columns, the totals last."""

    def by(sizes) -> str:
        return "x".join(str(size) for size in sizes) or "-"

    header = (
        "layer",
        "kind",
        "output",
        "activations",
        "params",
        "MACs",
        "receptive field",
        "stride",
    )
    rows = [
        (
            l.name,
            l.kind,
            by(l.shape),
            f"{l.activations:,}",
            f"{l.params:,}",
            f"{l.macs:,}",
            by(l.receptive_field),
            by(l.stride),
        )
        for l in layers
    ]
    total = ("total", "", "", "", f"{total_params(layers):,}", f"{total_macs(layers):,}", "", "")
    widths = [max(map(len, column)) for column in zip(header, *rows, total, strict=True)]

    def line(cells) -> str:
        aligned = (
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(header), rule, *map(line, rows), rule, line(total)])
