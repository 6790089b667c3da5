"""`serve`: a page on this machine where a picture is dropped or drawn and the model answers."""

import sys
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py serve runs/first --open"


def add_arguments(parser: Any) -> None:
    _arguments.add_model_arguments(parser)
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to serve on (default: this machine alone). Whoever can reach another one "
        "can use the model: there is no password",
    )
    parser.add_argument(
        "--max-mib", type=int, default=20, metavar="N", help="largest picture file taken, in MiB"
    )
    _arguments.add_open_argument(parser)


def main(args: Any) -> int:
    """Serves until it is interrupted (Ctrl-C: exit code 130)."""
    from jaxcnn.errors import ConfigError

    if args.max_mib < 1:
        raise ConfigError(f"--max-mib {args.max_mib}: must be at least 1")
    prepare_process()
    from jaxcnn.runs.serving import LOCAL, Server

    run = _arguments.open_model(args)
    with Server(run, host=args.host, port=args.port, most_bytes=args.max_mib * 2**20) as server:
        print(f"{args.run}: {server.url} (Ctrl-C ends it)", flush=True)
        if args.host not in LOCAL:
            print("warning: whoever reaches this address can use the model", file=sys.stderr)
        if args.open:
            _arguments.open_page(server.url)
        server.serve_forever()
    return 0
