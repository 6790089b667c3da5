"""`compare`: what differs between runs, and whether it matters."""

import json
from pathlib import Path
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.errors import ConfigError
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py compare runs/first runs/second --output both.html"


def add_arguments(parser: Any) -> None:
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run directories; the code kept in them is executed",
    )
    parser.add_argument("--checkpoint", default="last", choices=("last", "best"))
    parser.add_argument(
        "--examples",
        type=int,
        default=10_000,
        metavar="N",
        help="compare the answers to N of the evaluated examples (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write an HTML page")
    _arguments.add_open_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def main(args: Any) -> int:
    """Print the comparison."""
    if args.open and not args.output:
        raise ConfigError("--open opens the page that --output FILE writes; give it, too")
    prepare_process()
    from jaxcnn.runs.open import open
    from jaxcnn.runs.report import page
    from jaxcnn.runs.report.compare import compare, text_of

    if args.output:  # before the runs are compared, which takes a while
        page.refuse_folder(args.output)
    runs = [open(path, checkpoint=args.checkpoint) for path in args.runs]
    found = compare(runs, examples=args.examples)
    if args.output:
        from jaxcnn.runs.report.compare_page import write_comparison

        write_comparison(runs, found, args.output)
    if args.open:
        _arguments.open_page(args.output)
    if args.json:
        print(json.dumps(found.to_json()))
        return 0
    print("\n".join(text_of(found)))
    if args.output:
        print(f"page: {args.output}")
    return 0
