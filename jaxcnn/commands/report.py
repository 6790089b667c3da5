"""`report`: a run, or a sweep, as one HTML page that can be mailed."""

from pathlib import Path
from typing import Any

from jaxcnn.commands import _arguments
from jaxcnn.runs.environment import prepare_process

EXAMPLE = "python launch.py report runs/first --output first.html"


def add_arguments(parser: Any) -> None:
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="a run directory; the code kept in it is executed, but for --files-only",
    )
    parser.add_argument("--checkpoint", default="last", choices=("last", "best"))
    parser.add_argument("--replica", type=int, metavar="I", help="replica I of a sweep")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the page goes (default: RUN/report.html)"
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=2_000,
        metavar="N",
        help="look at N of the evaluated examples one by one (default: %(default)s)",
    )
    parser.add_argument(
        "--files-only",
        action="store_true",
        help="read the run's files alone: none of its code is executed, and what needs the model "
        "is left out",
    )
    _arguments.add_open_argument(parser)


def main(args: Any) -> int:
    """Write the page, and say where it is and what is missing."""
    prepare_process()
    from jaxcnn.runs.open import open
    from jaxcnn.runs.report.write import NAME, write_report

    run = open(args.run, replica=args.replica, checkpoint=args.checkpoint)
    left_out = write_report(
        run, path=args.output, examples=args.examples, files_only=args.files_only
    )
    print(f"report: {args.output or run.folder / NAME}")
    for sentence in left_out:
        print(f"left out: {sentence}")
    if args.open:
        _arguments.open_page(args.output or run.folder / NAME)
    return 0
