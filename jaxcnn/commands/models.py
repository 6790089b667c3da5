"""`models`: every model that can be named, with its parameters, multiply-accumulates and input
shape.
"""

import json
from typing import Any

from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py models resnet50 vgg16"


def add_arguments(parser: Any) -> None:
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only these (default: all, which takes a minute)"
    )
    parser.add_argument(
        "--json", action="store_true", help='print [{"name", "params", "macs", "input_shape"}, …]'
    )


def main(args: Any) -> int:
    prepare_process()

    from jaxcnn import models
    from jaxcnn.errors import ConfigError, did_you_mean
    from jaxcnn.inspect.catalogue import measure

    for name in args.names:
        if name not in models.MODELS:
            raise ConfigError(
                f"no model {name!r}{did_you_mean(name, models.MODELS)}; `python launch.py models` "
                "lists all"
            )
    rows = []
    for name in args.names or models.MODELS:
        rows.append(measure(name))
        if not args.json:
            row = rows[-1]
            print(
                f"{name:24} {row['params']:>13,} params  {row['macs']:>16,} MACs  input "
                f"{row['input_shape']}",
                flush=True,
            )
    if args.json:
        print(json.dumps(rows))
    return 0
