"""`export`: a run's model as one file that JAX alone can open, without jaxcnn, Flax or the
experiment.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from jaxcnn.commands import experiments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py export runs/first --output lenet.jax"


def add_arguments(parser: Any) -> None:
    experiments.add_model_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("model.jax"),
        help="the file to write (default: model.jax)",
    )
    parser.add_argument(
        "--platforms", default="cpu,cuda,tpu", help="where it shall run (default: cpu,cuda,tpu)"
    )
    parser.add_argument("--json", action="store_true", help="print inputs and outputs as JSON")


def main(args: Any) -> int:
    """Write the exported predict step. To use it: `jax.export.deserialize(open(file,
    "rb").read()).call({"image": uint8 [B, H, W, C]})`.
    """
    prepare_process()

    from jaxcnn.errors import DependencyError
    from jaxcnn.runs.checkpoint import write_atomically

    if importlib.util.find_spec("flatbuffers") is None:
        raise DependencyError(
            "export needs flatbuffers, in which JAX stores its files: pip install 'jaxcnn[export]'"
        )
    if args.ensemble:
        experiment, state, _ = experiments.restore_ensemble(args.run, kind=args.checkpoint)
    else:
        experiment, state, _ = experiments.restore_run(
            args.run, kind=args.checkpoint, replica=args.replica
        )
    exported, inputs = export_model(experiment, state, platforms=tuple(args.platforms.split(",")))
    write_atomically(args.output.absolute(), [exported.serialize()])
    outputs = {
        name: f"{shape.dtype}{list(map(str, shape.shape))}"
        for name, shape in output_shapes(exported).items()
    }
    result = {
        "file": str(args.output),
        "platforms": args.platforms.split(","),
        "inputs": inputs,
        "outputs": outputs,
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(
            f"{args.output} ({args.output.stat().st_size:,} bytes) runs on {args.platforms}; "
            f"inputs {inputs}; outputs {outputs}"
        )
        (name,) = inputs
        print(
            f'use: jax.export.deserialize(open(file, "rb").read()).call({{"{name}": rows}})  # '
            "any number of rows"
        )
    return 0


def export_model(e: Any, state: Any, *, platforms: tuple[str, ...]) -> tuple[Any, dict[str, str]]:
    """(jax.export.Exported of batch -> predictions with the weights inside, {input: dtype and
    shape}); the batch size is free.
    """
    import jax
    import jax.numpy as jnp
    from jax import export

    from jaxcnn.core import transforms
    from jaxcnn.core.program import make_program
    from jaxcnn.ops.convolution import formulation

    program = make_program(e, steps=1)
    program = transforms.ensemble(program, e.task) if isinstance(state, tuple) else program
    (rows,) = export.symbolic_shape("rows")
    spec, (first, *others) = e.data.spec(), e.task.inputs
    batch = {first: jax.ShapeDtypeStruct((rows, *spec[first].shape), spec[first].dtype)}

    def predict(
        batch: dict,
    ) -> dict:  # what is known in training alone is zeros, as in the command `predict`
        zeros = {
            name: jnp.zeros((batch[first].shape[0], *spec[name].shape), spec[name].dtype)
            for name in others
        }
        return program.predict_step(state, batch | zeros)

    with formulation("natural"):  # plain XLA: other machines lack our native convolutions
        exported = export.export(jax.jit(predict), platforms=platforms)(batch)
    return exported, {
        name: f"{s.dtype}[rows, {', '.join(map(str, s.shape[1:]))}]" for name, s in batch.items()
    }


def output_shapes(exported: Any) -> dict[str, Any]:
    """The predictions by name, as shapes."""
    import jax

    return jax.tree.unflatten(exported.out_tree, exported.out_avals)
