"""Arguments that several verbs take."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcnn.runs.code import DEFAULT

if TYPE_CHECKING:
    from jaxcnn.runs.open import Run


def add_experiment_arguments(parser: Any) -> None:
    """EXPERIMENT and overrides."""
    parser.add_argument(
        "experiment",
        nargs="?",
        metavar="EXPERIMENT",
        help=f"path or name of an experiment file (default: {DEFAULT})",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="PATH=VALUE",
        help="change a field, e.g. optimizer.learning_rate=0.2 model.num_classes=62 epochs=5",
    )


def split_overrides(args: Any) -> None:
    """`verb a.b=c` without an experiment: the default one is meant. `args.named`: whether one was
    given.
    """
    given = args.experiment
    if given is not None and "=" in given and not given.endswith(".py"):
        args.overrides.insert(0, given)
        given = None
    args.named, args.experiment = given is not None, given or DEFAULT


def add_model_arguments(parser: Any, *, ensemble: bool = True) -> None:
    """RUN, and which of its models; `ensemble`: all of a sweep's together may be asked for."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run directory; the code kept in it is executed"
    )
    parser.add_argument("--checkpoint", default="last", choices=("last", "best"))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--replica", type=int, metavar="I", help="replica I of a sweep")
    if ensemble:
        which.add_argument(
            "--ensemble",
            action="store_true",
            help="all replicas of a sweep together, their probabilities averaged",
        )


def add_tta_argument(parser: Any) -> None:
    """--tta."""
    parser.add_argument(
        "--tta",
        choices=("flip", "crops"),
        help="test-time augmentation: join the outputs for each picture and its mirror image, or "
        "besides for five crops and theirs",
    )


def add_open_argument(parser: Any) -> None:
    """--open."""
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def open_page(address: str | Path) -> None:
    """Open a page, at an address or in a file, in the browser; says so where there is none."""
    import webbrowser

    where = address if isinstance(address, str) else address.absolute().as_uri()
    if not webbrowser.open(where):
        print(f"warning: no browser was found; open {where}", file=sys.stderr)


def end_of_pictures(faults: list[str], *, count: int) -> int:
    """The exit code where `faults` of `count` pictures could not be read, each said on stderr; 0
    without faults. Errors: DataError where no picture could be read.
    """
    from jaxcnn.errors import DataError

    if faults and len(faults) == count:
        raise DataError(faults[0])
    for fault in faults:
        print(f"warning: {fault}", file=sys.stderr)
    return DataError.exit_code if faults else 0


def open_model(args: Any) -> "Run":
    """The run that `add_model_arguments` asks for. Errors: ConfigError."""
    from jaxcnn.errors import ConfigError
    from jaxcnn.runs.open import open

    run = open(args.run, replica=args.replica, checkpoint=args.checkpoint)
    if args.ensemble and not run.is_sweep:
        raise ConfigError(f"--ensemble: {args.run} is a single run, not a sweep")
    if run.is_sweep and not args.ensemble:
        last = len(run.record["points"]) - 1
        raise ConfigError(
            f"{args.run} is a sweep: choose one with --replica 0 to {last}, or take all with "
            "--ensemble"
        )
    return run
