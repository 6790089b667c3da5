"""`verify`: steps of a run are made again and compared, bit by bit, with what it saved."""

import json
from pathlib import Path
from typing import Any

from jaxcnn.errors import CheckpointError
from jaxcnn.runs.environment import prepare_process, recorded

EXAMPLE = "python launch.py verify runs/first --steps 100"


def add_arguments(parser: Any) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory; it is not changed")
    parser.add_argument(
        "--steps",
        type=int,
        default=1,
        metavar="K",
        help="make at least K steps again (default: from the checkpoint before the newest one); "
        "more than there are: all, from the start",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def main(args: Any) -> int:
    """Exit code 0 for the same bits, 4 for others."""
    prepare_process(recorded=recorded(args.run))
    from jaxcnn.runs.replay import verify

    found = verify(args.run, steps=args.steps)
    if args.json:
        print(json.dumps(found))
    if not found["same"]:
        raise CheckpointError(
            f"{args.run}: other bits: steps {found['from']} to {found['to']} made again give "
            f"another state; the first that differs is {found['differs']}. Other versions, devices "
            "or NPROC do that, as does an edited checkpoint or other data"
        )
    if not args.json:
        print(
            f"the same bits: steps {found['from']} to {found['to']} made again give the state "
            f"{found['state_sha256']}"
        )
    return 0
