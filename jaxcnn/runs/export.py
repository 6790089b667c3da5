"""A run's model as a file that is used without jaxcnn: of JAX, or of its weights alone.

The first holds StableHLO, the operations themselves, for JAX to run without Flax or the experiment:
`jax.export.deserialize(open(file, "rb").read()).call({"image": uint8 [B, H, W, C]})`. The second is
a safetensors file. ONNX is written by `jaxcnn.runs.onnx_export.write`, LiteRT by
`jaxcnn.runs.litert`.
"""

import contextlib
import importlib.util
import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn.core import trees
from jaxcnn.core.batch import kind
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import evaluation_variables
from jaxcnn.core.protocols import Tree
from jaxcnn.core.transforms import task_of
from jaxcnn.errors import ConfigError, DependencyError
from jaxcnn.ops.convolution import formulation
from jaxcnn.runs.evaluation import program_of
from jaxcnn.runs.events import Record
from jaxcnn.weights.files import write_arrays, write_atomically


class Traced(NamedTuple):
    """What is exported: batch -> (predictions, the model's own outputs), with the weights inside.

    batch: {input: its shape, whose first extent is `rows`, free, and its dtype}.
    """

    function: Callable[[dict[str, jax.Array]], tuple[dict[str, jax.Array], Tree]]
    batch: dict[str, jax.ShapeDtypeStruct]
    rows: Any

    def predict(self, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The predictions alone."""
        return self.function(batch)[0]

    @property
    def inputs(self) -> dict[str, str]:
        """{input: "uint8[rows, 28, 28, 1]"}."""
        return {name: text(s) for name, s in self.batch.items()}


def traced(e: Experiment, state: Tree) -> Traced:
    """The model of a state (of a tuple of states as an ensemble), from raw rows to what the task
    says of them. Inputs that are known in training alone are zeros.
    """
    program = program_of(e, state)
    (rows,) = jax.export.symbolic_shape("rows")
    spec = e.data.spec()
    hidden = e.task.training_inputs
    names = [name for name in e.task.inputs if name not in hidden]
    batch = {n: jax.ShapeDtypeStruct((rows, *spec[n].shape), spec[n].dtype) for n in names}

    def function(batch: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], Tree]:
        count = batch[names[0]].shape[0]
        zeros = {n: jnp.zeros((count, *spec[n].shape), spec[n].dtype) for n in hidden}
        outputs = program.output_step(state, batch | zeros)[0]
        return task_of(e, state).predict(outputs), outputs

    return Traced(function, batch, rows)


def text(s: Any) -> str:
    """A shape and a dtype: "float32[rows, 10]"."""
    return f"{jnp.dtype(s.dtype).name}[{', '.join(map(str, s.shape))}]"


def facts(
    e: Experiment, batch: Mapping[str, jax.ShapeDtypeStruct], label_names: tuple[str, ...]
) -> Record:
    """What a reader must know to use a file: {"task", "model", "label_names", "inputs": {name:
    {"dtype", "shape"; of a picture also "layout" and "range"}}}.
    """
    inputs = {name: _described(name, s) for name, s in batch.items()}
    names = {"task": type(e.task).__name__, "model": type(e.model).__name__}
    return {**names, "label_names": list(label_names), "inputs": inputs}


def _described(name: str, s: jax.ShapeDtypeStruct) -> Record:
    found: Record = {"dtype": jnp.dtype(s.dtype).name}
    found["shape"] = [n if isinstance(n, int) else str(n) for n in s.shape]
    if kind(name) == "image":
        found["layout"] = {3: "NWC", 4: "NHWC", 5: "NDHWC"}.get(len(s.shape), "channels last")
        found["range"] = [0, 255] if found["dtype"] == "uint8" else [0.0, 1.0]
    return found


@contextlib.contextmanager
def tracing() -> Generator[None]:
    """Within the `with` block, trace for other machines, which lack our native convolutions.

    Errors: ConfigError for a model whose number of rows is not free.
    """
    try:
        with formulation("natural"):
            yield
    except TypeError as error:
        if "_DimExpr" not in str(error):
            raise
        raise ConfigError(
            f"the model cannot be exported for any number of rows ({error}): write x.shape[0] in "
            "it where it says len(x), and no int(…) or range(…) of the number of rows"
        ) from error


def export(
    e: Experiment,
    state: Tree,
    path: Path,
    *,
    platforms: tuple[str, ...],
    label_names: tuple[str, ...],
) -> Record:
    """Write the model for JAX; {"file", "format", "platforms", "inputs", "outputs",
    "label_names"}.

    Errors: DependencyError without flatbuffers, ResourceError where the file cannot be written.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise DependencyError(
            "export needs flatbuffers, in which JAX stores its files: pip install 'jaxcnn[export]'"
        )
    exported, inputs = export_model(e, state, platforms=platforms)
    write_atomically(path.absolute(), [bytes(exported.serialize())])
    shapes = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    outputs = {name: f"{s.dtype}{list(map(str, s.shape))}" for name, s in shapes.items()}
    result = {"file": str(path), "format": "stablehlo", "platforms": list(platforms)}
    return result | {"inputs": inputs, "outputs": outputs, "label_names": list(label_names)}


def export_model(
    e: Experiment, state: Tree, *, platforms: tuple[str, ...]
) -> tuple[jax.export.Exported, dict[str, str]]:
    """(jax.export.Exported of batch -> predictions with the weights inside, {input: dtype and
    shape}); the batch size is free.
    """
    model = traced(e, state)
    with tracing():
        exported = jax.export.export(jax.jit(model.predict), platforms=platforms)(model.batch)
    return exported, model.inputs


def export_weights(
    e: Experiment, state: Tree, path: Path, *, label_names: tuple[str, ...]
) -> Record:
    """Write the weights that are evaluated (the average, of a run that keeps one), as a safetensors
    file; {"file", "format", "arrays", "numbers", "label_names"}.

    Names are those of Flax: "params/Conv_0/kernel", "batch_stats/…". `Experiment.weights` takes the
    file, and so does the package safetensors.
    Errors: ConfigError for an ensemble, ResourceError where the file cannot be written.
    """
    if type(state) is tuple:
        raise ConfigError(
            "format safetensors: an ensemble is several models; write one with --replica"
        )
    arrays = trees.flatten(jax.device_get(evaluation_variables(state)))
    metadata = {
        "format": "jaxcnn weights",
        "task": type(e.task).__name__,
        "model": type(e.model).__name__,
        "label_names": json.dumps(list(label_names)),
    }
    write_arrays(path.absolute(), arrays, metadata)
    size = int(sum(x.size for x in arrays.values()))
    result = {"file": str(path), "format": "safetensors", "arrays": len(arrays), "numbers": size}
    return result | {"label_names": list(label_names)}
