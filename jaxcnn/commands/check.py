"""`check`: everything that can be known of a run before touching its data: shapes, bytes, steps."""

import json
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs import code
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py check experiments/fashion_mnist_cnn.py batch_size=512"


def add_arguments(parser: Any) -> None:
    _arguments.add_experiment_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also compile the training step and report its memory",
    )


def main(args: Any) -> int:
    _arguments.split_overrides(args)
    prepare_process()

    from jaxcnn.core.rendering import render, render_text
    from jaxcnn.runs.check import pre_flight

    path = code.find(args.experiment)
    experiment = code.load(path, overrides=args.overrides)
    result = {"experiment": path.stem, **pre_flight(experiment, compile=args.compile)}
    if args.json:
        print(json.dumps({**result, "rendered": render(experiment)}))
        return 0
    print(render_text(experiment), end="\n\n")
    for name, value in result.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        shown = "unknown until the data are there" if value is None else shown
        print(f"{name.replace('_', ' '):28} {shown}")
    return 0
