"""A run's model as one file that JAX alone can open, without jaxcnn, Flax or the experiment.

To use it: `jax.export.deserialize(open(file, "rb").read()).call({"image": uint8 [B, H, W, C]})`.
"""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Tree
from jaxcnn.core.transforms import predicting
from jaxcnn.errors import ConfigError, DependencyError
from jaxcnn.ops.convolution import formulation
from jaxcnn.runs.evaluation import program_of
from jaxcnn.runs.events import Record
from jaxcnn.weights.files import write_atomically


def export(
    e: Experiment,
    state: Tree,
    path: Path,
    *,
    platforms: tuple[str, ...],
    label_names: tuple[str, ...],
) -> Record:
    """Write the model; {"file", "platforms", "inputs", "outputs", "label_names"}.

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
    result = {"file": str(path), "platforms": list(platforms), "inputs": inputs}
    return result | {"outputs": outputs, "label_names": list(label_names)}


def export_model(
    e: Experiment, state: Tree, *, platforms: tuple[str, ...]
) -> tuple[jax.export.Exported, dict[str, str]]:
    """(jax.export.Exported of batch -> predictions with the weights inside, {input: dtype and
    shape}); the batch size is free. Inputs that are known in training alone are zeros.
    """
    program = predicting(program_of(e, state), e)
    (rows,) = jax.export.symbolic_shape("rows")
    spec = e.data.spec()
    hidden = e.task.training_inputs
    names = [name for name in e.task.inputs if name not in hidden]
    batch = {n: jax.ShapeDtypeStruct((rows, *spec[n].shape), spec[n].dtype) for n in names}

    def predict(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        count = batch[names[0]].shape[0]
        zeros = {n: jnp.zeros((count, *spec[n].shape), spec[n].dtype) for n in hidden}
        return program.output_step(state, batch | zeros)

    try:
        with formulation("natural"):  # plain XLA: other machines lack our native convolutions
            exported = jax.export.export(jax.jit(predict), platforms=platforms)(batch)
    except TypeError as error:
        if "_DimExpr" not in str(error):
            raise
        raise ConfigError(
            f"the model cannot be exported for any number of rows ({error}): write x.shape[0] in "
            "it where it says len(x), and no int(…) or range(…) of the number of rows"
        ) from error
    inputs = {n: f"{s.dtype}[rows, {', '.join(map(str, s.shape[1:]))}]" for n, s in batch.items()}
    return exported, inputs
