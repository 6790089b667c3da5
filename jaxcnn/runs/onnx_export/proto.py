"""A traced function as an ONNX model: the one place that needs the package onnx."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import onnx  # pyright: ignore[reportMissingImports]
from onnx import helper, numpy_helper  # pyright: ignore[reportMissingImports]

from jaxcnn import __version__
from jaxcnn.runs.onnx_export import elementwise, indexing, loops, windows
from jaxcnn.runs.onnx_export.graph import Graph, Node, Value

OPSET, IR_VERSION = 18, 8  # of ONNX 1.13, 2022
RULES = (elementwise, indexing, loops, windows)  # which say how each operation is written
LIMIT = 2**31 - 2**24  # bytes that a protobuf may have, less what is no weight
SMALL = 1024  # bytes of an array that is kept in the model all the same

Function = Callable[[dict[str, jax.Array]], dict[str, jax.Array]]


def to_onnx(
    function: Function, batch: Mapping[str, jax.ShapeDtypeStruct], *, rows: Any, external: str = ""
) -> tuple[Any, list[bytes]]:
    """(onnx.ModelProto, what lies in the file `external` beside it).

    function: {name: array [rows, …]} -> the same, the inputs of `batch`, whose extent `rows` is a
    symbolic dimension; an output that is called as an input is "…_out". external: the name of
    that file, which is used where the weights exceed what one protobuf may hold.
    Errors: ConfigError for an operation that cannot be expressed.
    """
    closed = jax.make_jaxpr(function)(dict(batch))
    names = sorted(batch)  # the order in which JAX flattens a dict
    graph = Graph(rows)
    first = next(n for n in names if batch[n].shape and not isinstance(batch[n].shape[0], int))
    graph.nodes.append(Node("Shape", [first], ["rows"], {"start": 0, "end": 1}))
    inputs = [Value(tuple(batch[n].shape), batch[n].dtype, name=n) for n in names]
    values = graph.inline(closed.jaxpr, closed.consts, inputs)
    shapes = jax.eval_shape(function, dict(batch))
    public = {name: f"{name}_out" if name in batch else name for name in shapes}
    for name, value in zip(sorted(shapes), values, strict=True):
        graph.nodes.append(Node("Identity", [graph.tensor(value)], [public[name]], {}))
    weights, chunks = _initializers(graph, external)
    model = helper.make_model(
        helper.make_graph(
            [_node(node) for node in graph.nodes],
            "jaxcnn",
            [_info(name, batch[name]) for name in batch],
            [_info(public[name], s) for name, s in shapes.items()],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="jaxcnn",
        producer_version=__version__,
    )
    return model, chunks


def _info(name: str, s: jax.ShapeDtypeStruct) -> Any:
    shape = [n if isinstance(n, int) else str(n) for n in s.shape]
    return helper.make_tensor_value_info(name, _type(s.dtype), shape)


def _type(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _node(node: Node) -> Any:
    attributes = {
        name: _body(value)
        if isinstance(value, Graph)
        else _type(value)
        if isinstance(value, np.dtype)
        else [int(n) for n in value]
        if isinstance(value, list)
        else value
        for name, value in node.attributes.items()
    }
    return helper.make_node(node.op, node.inputs, node.outputs, **attributes)


def _body(graph: Graph) -> Any:
    inputs = [helper.make_tensor_value_info(n, _type(d), None) for n, d in graph.inputs]
    outputs = [onnx.ValueInfoProto(name=name) for name in graph.outputs]
    return helper.make_graph([_node(node) for node in graph.nodes], "body", inputs, outputs)


def _initializers(graph: Graph, external: str) -> tuple[list[Any], list[bytes]]:
    """The weights; where they are too many, their bytes by themselves, as they lie in a file."""
    outside = sum(x.nbytes for x in graph.arrays.values()) > LIMIT
    tensors, chunks, position = [], [], 0
    for name, array in graph.arrays.items():
        if not outside or array.nbytes < SMALL:
            tensors.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
            continue
        data = array.tobytes()
        tensor = onnx.TensorProto(name=name, data_type=_type(array.dtype), dims=array.shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entries = {"location": external, "offset": position, "length": len(data)}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        chunks.append(data)
        position += len(data)
    return tensors, chunks
