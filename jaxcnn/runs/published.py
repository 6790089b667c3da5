"""A published model is a run directory without its checkpoints: `model.safetensors` holds what the
model is evaluated with, and nothing of the optimizer. So `open`, `predict`, `explain`, `serve` and
`export` take it as they take a run, and `weights=` starts from it; it cannot be trained on.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import State, evaluation_variables, make_program
from jaxcnn.core.protocols import Tree
from jaxcnn.errors import CheckpointError, ConfigError
from jaxcnn.runs.checkpoint import from_arrays, to_arrays
from jaxcnn.runs.events import Record
from jaxcnn.weights.files import Arrays, read_sealed, write_arrays
from jaxcnn.weights.load import PUBLISHED as WEIGHTS

FORMAT = "jaxcnn weights 1"


def arrays_of(state: Tree) -> Arrays:
    """What is published of a state: {"params/…", "batch_stats/…", …} that it is evaluated with (the
    moving average where there is one); of a program's own kind of state all of it.
    """
    return to_arrays(evaluation_variables(state) if isinstance(state, State) else state)


def write_weights(state: Tree, path: Path, *, step: int) -> int:
    """Write `arrays_of` a state, sealed; how many numbers they are. Errors: ResourceError."""
    arrays = arrays_of(state)
    write_arrays(path, arrays, {"format": FORMAT, "step": str(step)})
    return sum(array.size for array in arrays.values())


def read_state(e: Experiment, folder: Path, record: Record) -> Tree:
    """The state of a published model, to be evaluated with: its optimizer is a fresh one.

    Errors: CheckpointError where the file is missing, damaged, or of another model.
    """
    path = folder / WEIGHTS
    arrays, metadata = read_sealed(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: is of format {metadata.get('format')!r}, and this version knows {FORMAT!r}"
        )
    program, key = make_program(e, steps=1), jax.random.key(e.seed)
    template = jax.eval_shape(program.init, key)
    if not isinstance(template, State):
        return from_arrays(template, arrays, source=str(path))
    shapes = {"params": template.params, **template.model_state}
    variables = from_arrays(shapes, arrays, source=str(path))
    state = jax.jit(program.init)(key, {}, variables)
    return state.replace(step=jnp.asarray(record["published"]["step"], jnp.int32))


def refuse(folder: Path, record: Record) -> None:
    """ConfigError for a published model, where training is to go on from its state."""
    if "published" in record:
        raise ConfigError(
            f"{folder}: is a published model, without the state of its optimizer; start a new run "
            f"from its weights: train {folder / 'code'}/… weights={folder}"
        )


def difference(left: Tree, right: Tree) -> float:
    """The largest difference between the numbers of two trees of one structure; inf where integers,
    booleans, or which numbers are finite, differ.
    """
    most = 0.0
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if not jnp.issubdtype(a.dtype, jnp.floating):
            most = most if np.array_equal(a, b) else np.inf
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(a)
        if not np.array_equal(finite, np.isfinite(b)):
            return np.inf
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return np.inf
        most = max(most, float(np.abs(a[finite] - b[finite]).max(initial=0.0)))
    return most
