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
# said in words
COST = ("params", "state_bytes", "param_bytes", "batch_bytes", "step_flops", "step_bytes")
COST += ("step_seconds", "steps_timed", "compile_seconds")
SHOWN = 20  # classes whose counts are printed


def add_arguments(parser: Any) -> None:
    _arguments.add_experiment_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also compile the training step and make a few on blank examples: memory and time",
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

    from jaxcnn.core.memory import format_bytes
    from jaxcnn.core.rendering import render, render_text
    from jaxcnn.runs.check import pre_flight
    from jaxcnn.runs.cost import measure_step, step_flops
    from jaxcnn.runs.examine import examine
    from jaxcnn.runs.writers import Console

    path = code.find(args.experiment)
    experiment = code.load(path, overrides=args.overrides)
    result = {"experiment": path.stem, **pre_flight(experiment)}
    result["step_flops"] = step_flops(experiment)
    if args.compile:
        result |= measure_step(experiment, steps=result["steps"] or 1)
    if not args.json:
        print(render_text(experiment), end="\n\n")
        for name, value in result.items():
            if name not in COST:
                shown = f"{value:,}" if isinstance(value, int) else value
                shown = format_bytes(value) if name.endswith("_bytes") else shown
                shown = "unknown until the data are there" if value is None else shown
                print(f"{name.removesuffix('_bytes').replace('_', ' '):28} {shown}")
        for line in cost_lines(result, batch_size=experiment.batch_size):
            print(line)
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


def cost_lines(found: dict[str, Any], *, batch_size: int) -> list[str]:
    """What a step costs, in words, and how that is known."""
    from jaxcnn.core.memory import format_bytes

    known = {n: size for n, size in found.items() if n.endswith("_bytes") and size is not None}
    size = {name: format_bytes(bytes_) for name, bytes_ in known.items()}
    own = f"{found['params']:,} parameters ({size['param_bytes']}); " if "params" in found else ""
    lines = [
        f"{own}training state {size['state_bytes']}; a batch of {batch_size} examples "
        f"{size['batch_bytes']}"
    ]
    if (flops := found["step_flops"]) is None:
        lines.append("a step's operations are not known: the objective or the program is its own")
    else:
        scale, unit = (1e9, "GFLOP") if flops < 1e12 else (1e12, "TFLOP")
        lines.append(
            f"a step is some {flops / scale:.3g} {unit} (by formula: 6 for each "
            f"multiply-accumulate of the forward pass, {batch_size} examples)"
        )
    if "step_seconds" not in found:
        return [*lines, "its memory and time on this machine: --compile"]
    seconds, steps = found["step_seconds"], found["steps"]
    lines.append(
        f"memory of a step: {size.get('step_bytes', 'the compiler does not say')} (state, batch "
        "and temporaries, as compiled)"
    )
    whole = f"; {steps:,} steps: {_duration(steps * seconds)}" if steps else ""
    lines.append(
        f"time of a step: {seconds:.3g} s (measured: median of {found['steps_timed']} on blank "
        f"examples, after {found['compile_seconds']:.1f} s of compiling){whole}, without reading "
        "data and evaluating"
    )
    return lines


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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
