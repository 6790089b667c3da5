"""`summary`: one row a layer, of an experiment's model or of a model by name."""

import json
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs import code
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py summary experiments/rgb_digits_lenet.py"


def add_arguments(parser: Any) -> None:
    _arguments.add_experiment_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print params, macs and layers as JSON")


def main(args: Any) -> int:
    _arguments.split_overrides(args)
    prepare_process()
    model, inputs, title = _model(args)

    from jaxcnn.inspect.summary import as_json, format_table, summarize_layers

    layers = summarize_layers(model, inputs)
    print(json.dumps(as_json(layers)) if args.json else f"{title}\n{format_table(layers)}")
    return 0


def _model(args: Any) -> tuple[Any, tuple, str]:
    """(module, inputs as shapes with a batch axis of 1, title) of an experiment, else of a model by
    its name.
    """
    import jax
    import jax.numpy as jnp

    from jaxcnn import models

    by_name = args.experiment in models.MODELS and args.experiment not in code.files()
    if by_name and not args.overrides:
        model, shape = models.build(args.experiment)
        return model, (jax.ShapeDtypeStruct((1, *shape), jnp.float32),), args.experiment
    from jaxcnn.core.forward import model_inputs, prepare
    from jaxcnn.runs.check import abstract_state

    if by_name:
        from jaxcnn.bench.subjects import model_experiment

        e = model_experiment(args.experiment, args.overrides)
    else:
        e = code.load(args.experiment, overrides=args.overrides)
    abstract_state(e)
    batch = {
        name: jax.ShapeDtypeStruct((1, *s.shape), s.dtype) for name, s in e.data.spec().items()
    }
    inputs = jax.eval_shape(lambda b: model_inputs(e, prepare(e, b)), batch)
    return e.model, tuple(inputs), f"{args.experiment}: {type(e.model).__name__}"
