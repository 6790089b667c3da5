"""`check`: everything that can be known of a run before touching its data: shapes, bytes, steps."""

import json
from typing import Any

from jaxcnn.commands import experiments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py check experiments/fashion_mnist_cnn.py batch_size=512"


def add_arguments(parser: Any) -> None:
    experiments.add_experiment_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also compile the training step and report its memory",
    )


def main(args: Any) -> int:
    experiments.split_overrides(args)
    prepare_process()
    path = experiments.find(args.experiment)
    experiment = experiments.load(path, args.overrides)
    result = {"experiment": path.stem, **pre_flight(experiment, compile=args.compile)}
    if args.json:
        from jaxcnn.core.override import render

        print(json.dumps({**result, "rendered": render(experiment)}))
        return 0
    from jaxcnn.core.override import render_text

    print(render_text(experiment), end="\n\n")
    for name, value in result.items():
        shown = (
            "unknown until the data are there"
            if value is None
            else f"{value:,}"
            if isinstance(value, int)
            else value
        )
        print(f"{name.replace('_', ' '):28} {shown}")
    return 0


def abstract_state(e: Any) -> Any:
    """The training state as shapes. Errors: ConfigError that names the input's shape where the
    model refuses it.
    """
    import jax

    from jaxcnn.core.program import make_program
    from jaxcnn.errors import ConfigError, JaxcnnError

    spec = e.data.spec()
    missing = [name for name in e.task.inputs if name not in spec]
    if missing:
        raise ConfigError(
            f"task {type(e.task).__name__} needs {missing} but the data have only {list(spec)}; "
            "choose another task or rename the keys"
        )
    program = make_program(e, steps=1)
    try:
        state = jax.eval_shape(program.init, jax.random.key(0))
        batch = {
            name: jax.ShapeDtypeStruct((e.batch_size, *s.shape), s.dtype)
            for name, s in spec.items()
        }
        jax.eval_shape(program.train_step, state, batch)
    except JaxcnnError:
        raise
    except (
        TypeError,
        ValueError,
        AttributeError,
        KeyError,
        ZeroDivisionError,
        IndexError,
        AssertionError,
    ) as error:
        shapes = ", ".join(
            f"{name} {list(spec[name].shape)} {spec[name].dtype}" for name in e.task.inputs
        )
        raise ConfigError(
            f"the model, task or augmentation refuses these data ({shapes}): "
            f"{type(error).__name__}: {error}"
        ) from error
    return state


def size_of(data: Any, split: str) -> int | None:
    """The number of examples of a split; None where the data are not there yet."""
    from jaxcnn.errors import DataError

    try:
        count = data.size(split)
    except DataError:
        return None
    return None if split == "train" and count == 0 else count


def pre_flight(e: Any, *, compile: bool = False) -> dict[str, Any]:
    """Sizes and counts of a run, from metadata alone."""
    import jax
    import numpy as np

    from jaxcnn.core.program import make_program
    from jaxcnn.data.dataset import SPLITS

    def count(tree):
        return int(sum(np.prod(x.shape, dtype=np.int64) for x in jax.tree.leaves(tree)))

    def size(tree):
        return int(
            sum(np.prod(x.shape, dtype=np.int64) * x.dtype.itemsize for x in jax.tree.leaves(tree))
        )

    state, spec = abstract_state(e), e.data.spec()
    sizes = {split: size_of(e.data, split) for split in SPLITS}
    train_size = sizes["train"]
    known = bool(train_size) or e.steps is not None
    steps = e.total_steps(train_size or 0) if known else 1
    batch = {
        name: jax.ShapeDtypeStruct((e.batch_size, *s.shape), s.dtype) for name, s in spec.items()
    }
    result = {
        "inputs": {name: [*spec[name].shape] for name in e.task.inputs},
        "params": count(state.params),
        "param_bytes": size(state.params),
        "optimizer_bytes": size(state.opt_state),
        "model_state_bytes": size(state.model_state),
        "batch_bytes": size(batch),
        **{f"{split}_examples": count for split, count in sizes.items()},
        "steps": steps if known else None,
        "steps_per_epoch": round(train_size / e.batch_size, 2) if train_size else None,
        "steps_per_evaluation": e.eval_interval(train_size) if train_size else None,
        "backend": jax.default_backend(),
        "devices": len(jax.devices()),
    }
    if compile:
        memory = (
            jax.jit(make_program(e, steps=steps).train_step, donate_argnums=0)
            .lower(state, batch)
            .compile()
            .memory_analysis()
        )
        result["compiled_temporary_bytes"] = (
            int(getattr(memory, "temp_size_in_bytes", 0)) if memory else 0
        )
    return result
