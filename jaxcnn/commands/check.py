"""`check`: everything that can be known of a run before training: shapes, bytes, steps, and what
its data show.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcnn.commands import _arguments
from jaxcnn.errors import ConfigError, DataError, ResourceError
from jaxcnn.runs import code
from jaxcnn.runs.environment import prepare_process

if TYPE_CHECKING:
    from jaxcnn.core.experiment import Experiment

EXAMPLE = "python launch.py check experiments/fashion_mnist_cnn.py --data --sheet batch.png"
SHOWN = 20  # classes whose counts are printed


def add_arguments(parser: Any) -> None:
    _arguments.add_experiment_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also compile the training step and report its memory",
    )
    parser.add_argument(
        "--data",
        action="store_true",
        help="look at every example of every split and count the faults (otherwise at all that lie "
        "in memory, and at a sample of streams)",
    )
    parser.add_argument("--no-data", action="store_true", help="open no data")
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="draw the first training batch as the model sees it, augmented, with labels (.png)",
    )


def main(args: Any) -> int:
    """Exit code 3 where examples are faulty, after all was said."""
    _arguments.split_overrides(args)
    if args.no_data and (args.data or args.sheet):
        raise ConfigError("--no-data opens no data; --data and --sheet need them")
    prepare_process()

    from jaxcnn.core.rendering import render, render_text
    from jaxcnn.runs.check import pre_flight
    from jaxcnn.runs.examine import examine
    from jaxcnn.runs.writers import Console

    path = code.find(args.experiment)
    experiment = code.load(path, overrides=args.overrides)
    result = {"experiment": path.stem, **pre_flight(experiment, compile=args.compile)}
    if not args.json:
        print(render_text(experiment), end="\n\n")
        for name, value in result.items():
            shown = f"{value:,}" if isinstance(value, int) else value
            shown = "unknown until the data are there" if value is None else shown
            print(f"{name.replace('_', ' '):28} {shown}")
    seen: dict[str, Any] = {}
    if not args.no_data:
        seen = examine(experiment, full=args.data, progress=Console(quiet=args.json).progress)
    if args.json:
        print(json.dumps({**result, "data": seen, "rendered": render(experiment)}))
    else:
        for split, found in seen.items():
            _print(split, found)
    if args.sheet:
        draw_sheet(experiment, args.sheet)
        if not args.json:
            print(f"\nfirst training batch: {args.sheet}")
    if faults := {split: found["faults"] for split, found in seen.items() if found.get("faults")}:
        counts = [f"{sum(f['count'] for f in each)} in {split!r}" for split, each in faults.items()]
        raise DataError(
            f"faulty examples: {', '.join(counts)}; the first: "
            f"{next(iter(faults.values()))[0]['message']}"
        )
    if args.data and (missing := [found["error"] for found in seen.values() if "error" in found]):
        raise DataError(missing[0])
    return 0


def _print(split: str, found: dict[str, Any]) -> None:
    """What the examples of a split show."""
    if "error" in found:
        print(f"\n{split}: {found['error']}")
        return
    print(f"\n{split}: {found['examples']:,} examples, {found['checked']:,} looked at")
    if labels := found["labels"]:
        shown = [f"{name} {count:,}" for name, count in list(labels.items())[:SHOWN]]
        more = f", … ({len(labels)} classes)" if len(labels) > SHOWN else ""
        print(f"  labels: {', '.join(shown)}{more}")
    if pixels := found.get("pixels"):
        print(
            f"  pixels: {pixels['dtype']} in [{pixels['low']:g}, {pixels['high']:g}], as floats "
            f"mean {pixels['mean']}, std {pixels['std']}"
        )
    if found["duplicates"]:
        print(f"  {found['duplicates']:,} are copies of others, to the byte")
    for note in found["notes"]:
        print(f"  note: {note}")
    for fault in found["faults"]:
        print(f"  fault: {fault['count']:,} times, first in row {fault['row']}: {fault['message']}")
    if not found["faults"]:
        print("  no faults")


def draw_sheet(e: "Experiment", path: Path) -> None:
    """Write the first training batch, augmented as in training, as a picture.

    Errors: ConfigError for a batch without pictures, ResourceError where it cannot be written.
    """
    import jax

    from jaxcnn.core.forward import prepare
    from jaxcnn.data.dataset import batch_indices
    from jaxcnn.inspect.contact_sheet import contact_sheet

    source = e.data.open("train")
    rows = batch_indices(e.seed, 0, size=len(source), batch_size=e.batch_size)
    # the keys of `descend` and `supervised` at step 0
    step_key = jax.random.fold_in(jax.random.split(jax.random.key(e.seed))[1], 0)
    key = jax.random.split(step_key)[0]
    batch = jax.jit(lambda batch: prepare(e, batch, key=key))(source.take(rows))
    sheet = contact_sheet(jax.device_get(batch), names=tuple(e.data.label_names))
    try:
        sheet.save(path)
    except ValueError as error:
        raise ConfigError(f"--sheet {path}: {error}; name it .png") from error
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error.strerror})") from error
