"""`export`: a run's model as one file that JAX alone can open."""

import json
from pathlib import Path
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py export runs/first --output lenet.jax"


def add_arguments(parser: Any) -> None:
    _arguments.add_model_arguments(parser)
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
    prepare_process()
    result = _arguments.open_model(args).export(
        args.output, platforms=tuple(args.platforms.split(","))
    )
    if args.json:
        print(json.dumps(result))
        return 0
    size = args.output.stat().st_size
    print(
        f"{args.output} ({size:,} bytes) runs on {args.platforms}; inputs {result['inputs']}; "
        f"outputs {result['outputs']}"
    )
    rows = ", ".join(f'"{name}": rows' for name in result["inputs"])
    print(
        f'use: jax.export.deserialize(open(file, "rb").read()).call({{{rows}}})  '
        "# any number of rows"
    )
    return 0
