"""A run's model as an ONNX file, which needs neither JAX nor jaxcnn where it is used."""

import dataclasses
import importlib.util
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Tree
from jaxcnn.errors import ConfigError, DependencyError
from jaxcnn.runs.agreement import compare
from jaxcnn.runs.events import Record
from jaxcnn.runs.export import Traced, facts, text, traced, tracing
from jaxcnn.weights.files import write_atomically

PACKAGES = ("onnx", "onnxruntime")
ROWS = (1, 7)  # that are compared
RAW = "raw_"  # before the number of one of the model's own outputs


def export_onnx(
    e: Experiment, state: Tree, path: Path, *, label_names: tuple[str, ...], int8: int = 0
) -> Record:
    """Write the model from raw rows to what the task says of them, float32, any number of rows;
    {"file", "files", "format", "inputs", "outputs", "label_names", "checked", "int8"}.

    The picture's preparation (bytes to [0, 1], the experiment's transforms) and the task's decoding
    are inside; the file's metadata say task, class names, and of each input layout and range. What
    ONNX Runtime answers is compared with JAX before anything is written
    (`jaxcnn.runs.agreement.compare`). Weights over 2 GB lie in `<path>.data`.
    int8: 0, or the number of training examples on which the quantization to 8 bits is calibrated
    (`jaxcnn.runs.onnx_export.int8`); then the experiment's data must be at hand.
    Errors: ConfigError for an operation that ONNX cannot express, which is named; DependencyError
    without the packages; ResourceError where the file cannot be written.
    """
    _require(int8)
    from jaxcnn.runs.onnx_export.proto import to_onnx
    from jaxcnn.runs.onnx_export.runtime import answers, session

    single = dataclasses.replace(e, compute_dtype="float32")  # runtimes know little bfloat16
    model = traced(single, state)
    with tracing():
        function = _with_raw(model) if int8 else model.predict
        proto, data = to_onnx(function, model.batch, rows=model.rows, external=f"{path.name}.data")
    _describe(proto, single, model, label_names)
    found: Record = {"checked": None, "int8": None}
    if int8:
        from jaxcnn.runs.onnx_export.int8 import quantized

        if data:
            raise ConfigError("int8: the weights exceed 2 GB; export without --int8")
        proto, found["int8"] = quantized(proto, single, state, rows=int8)
    elif not data:  # ONNX Runtime takes no larger one from memory
        running = session(proto.SerializeToString())
        found["checked"] = compare(
            partial(answers, running), model, rows=ROWS, format="onnx", runtime="ONNX Runtime"
        )
    files = [path]
    if data:
        files.append(path.with_name(f"{path.name}.data"))
        write_atomically(files[1].absolute(), data)
    write_atomically(path.absolute(), [proto.SerializeToString()])
    outputs = {o.name: _text(o) for o in proto.graph.output}
    result = {"file": str(path), "files": [str(file) for file in files], "format": "onnx"}
    result |= {"inputs": model.inputs, "outputs": outputs, "label_names": list(label_names)}
    return result | found


def _require(int8: int) -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyError(
            f"export --format onnx needs {' and '.join(missing)}: pip install 'jaxcnn[onnx]'"
        )
    if int8 < 0:
        raise ConfigError(f"int8={int8}: give the number of examples to calibrate on, e.g. 256")


def _with_raw(model: Traced) -> Any:
    """The predictions, and besides the model's own outputs, by which an evaluation scores."""

    def function(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        predictions, outputs = model.function(batch)
        raw = {f"{RAW}{i:02}": x for i, x in enumerate(jax.tree.leaves(outputs))}
        return {**predictions, **raw}

    return function


def _describe(proto: Any, e: Experiment, model: Traced, label_names: tuple[str, ...]) -> None:
    """Write into the metadata what a reader must know to use the file."""
    for key, value in facts(e, model.batch, label_names).items():
        content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        proto.metadata_props.add(key=key, value=content)


def _text(output: Any) -> str:
    """As `text`, of an output of a graph."""
    from onnx import helper  # pyright: ignore[reportMissingImports]

    kind_of = output.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind_of.elem_type)
    shape = [d.dim_param or d.dim_value for d in kind_of.shape.dim]
    return text(jax.ShapeDtypeStruct((), dtype)).replace("[]", f"[{', '.join(map(str, shape))}]")
