"""`check`: everything that can be known of a run before training: shapes, bytes, steps, and what
its data show.
"""

import json
import math
import re
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
COST = (
    "params",
    "state_bytes",
    "state_bytes_per_device",
    "param_bytes",
    "batch_bytes",
    "step_flops",
    "step_bytes",
)
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
        "--devices",
        metavar="N[,N...]",
        help="also say what a step costs each of so many devices, on paper",
    )
    parser.add_argument(
        "--link",
        type=float,
        metavar="GB/S",
        help="with --devices: what a device sends to the next one (default: 50 are assumed)",
    )
    parser.add_argument(
        "--data",
        action="store_true",
        help="look at every example of every split and count the faults (otherwise at all that lie "
        "in memory, and at a sample of streams)",
    )
    parser.add_argument("--no-data", action="store_true", help="open no data, and miss none")
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE",
        help="draw the first training batch as the model sees it, augmented, with labels (.png)",
    )


def main(args: Any) -> int:
    """Exit code 3 where examples are faulty or data cannot be opened, after all else was said."""
    _arguments.split_overrides(args)
    if args.no_data and (args.data or args.sheet):
        raise ConfigError("--no-data opens no data; --data and --sheet need them")
    counts = _counts(args.devices, args.link)
    prepare_process()

    from jaxcnn.core.memory import format_bytes
    from jaxcnn.core.rendering import render, render_text
    from jaxcnn.runs.check import check_divides, pre_flight, share_of_state
    from jaxcnn.runs.cost import measure_step, step_flops
    from jaxcnn.runs.examine import examine
    from jaxcnn.runs.scaling import LINK, device_share
    from jaxcnn.runs.writers import Console

    path = code.find(args.experiment)
    experiment = code.load(path, overrides=args.overrides)
    result = {"experiment": path.stem, **pre_flight(experiment)}
    for count in counts:  # before anything is compiled
        check_divides(experiment, devices=count)
    result["step_flops"] = step_flops(experiment)
    if args.compile:
        result |= measure_step(experiment, steps=result["steps"] or 1)
    size, link = experiment.batch_size, args.link or LINK
    held = share_of_state(experiment, counts) if counts else {}
    shares = [
        device_share(result, n, batch_size=size, link=link, state_bytes=held[n]) for n in counts
    ]
    if not args.json:
        print(render_text(experiment), end="\n\n")
        for name, value in result.items():
            if name not in COST:
                shown = f"{value:,}" if isinstance(value, int) else value
                shown = format_bytes(value) if name.endswith("_bytes") else shown
                shown = "unknown until the data are there" if value is None else shown
                print(f"{name.removesuffix('_bytes').replace('_', ' '):28} {shown}")
        said = f"{link:g} GB/s" + ("" if args.link else " (assumed; --link)")
        for line in cost_lines(result, batch_size=size) + device_lines(shares, link=said):
            print(line)
    seen: dict[str, Any] = {}
    if not args.no_data:
        seen = examine(experiment, full=args.data, progress=Console(quiet=args.json).progress)
    if args.json:
        more = {"on_devices": shares, "link": link} if shares else {}
        rendered = render(experiment)
        print(json.dumps({**result, **more, "data": seen, "rendered": rendered}))
    else:
        for split, found in seen.items():
            if "error" not in found:  # these are said at the end, once
                _print(split, found)
    if args.sheet:
        draw_sheet(experiment, args.sheet)
        if not args.json:
            print(f"\nfirst training batch: {args.sheet}")
    _refuse(seen)
    if not (args.no_data or seen) and (error := _unprepared(experiment)):
        if args.data:
            raise DataError(error)
        if not args.json:
            print(f"\nnote: {error}")
    return 0


def _refuse(seen: dict[str, Any]) -> None:
    """DataError for examples that are faulty, and for splits that cannot be opened: what several
    of them say is said once.
    """
    said, where = [], dict[str, list[str]]()
    if faults := {split: found["faults"] for split, found in seen.items() if found.get("faults")}:
        counts = [f"{sum(f['count'] for f in each)} in {split!r}" for split, each in faults.items()]
        said.append(
            f"faulty examples: {', '.join(counts)}; the first: "
            f"{next(iter(faults.values()))[0]['message']}"
        )
    for split, found in seen.items():
        if "error" in found:
            where.setdefault(found["error"], []).append(split)
    said += [f"{', '.join(splits)}: {error}" for error, splits in where.items()]
    if said:
        raise DataError("\n".join(said))


def _unprepared(e: "Experiment") -> str | None:
    """Why data that count no examples yet, such as a set of TFDS before `prepare`, cannot be
    opened; None where they can.
    """
    try:
        e.data.open("train")
    except DataError as error:
        return str(error)
    return None


def cost_lines(found: dict[str, Any], *, batch_size: int) -> list[str]:
    """What a step costs, in words, and how that is known."""
    from jaxcnn.core.memory import format_bytes

    known = {n: size for n, size in found.items() if n.endswith("_bytes") and size is not None}
    size = {name: format_bytes(bytes_) for name, bytes_ in known.items()}
    own = f"{found['params']:,} parameters ({size['param_bytes']}); " if "params" in found else ""
    part = size.get("state_bytes_per_device", size["state_bytes"])
    part = "" if part == size["state_bytes"] else f", {part} of it on each device"
    lines = [
        f"{own}training state {size['state_bytes']}{part}; a batch of {batch_size} examples "
        f"{size['batch_bytes']}"
    ]
    if (flops := found["step_flops"]) is None:
        lines.append("a step's operations are not known: the objective or the program is its own")
    else:
        lines.append(
            f"a step is some {_operations(flops)} (by formula: 6 for each "
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


def device_lines(shares: list[dict[str, Any]], *, link: str) -> list[str]:
    """A table of what a step costs each of so many devices, and what is taken for granted."""
    from jaxcnn.core.memory import format_bytes

    if not shares:
        return []
    timed = shares[0]["efficiency"] is not None
    rows: list[tuple[str, ...]] = [
        ("devices", "examples", "memory", "operations", "sends", "sum", "step", "efficiency")
    ]
    for share in shares:
        held = share["step_bytes"] or share["state_bytes"] + share["batch_bytes"]
        flops, sent = share["step_flops"], share["sent_bytes"]
        row = (f"{share['devices']:,}", f"{share['batch']:,}", format_bytes(held))
        row += ("?" if flops is None else _operations(flops),)
        row += ("?", "?") if sent is None else (format_bytes(sent), f"{share['sum_seconds']:.2g} s")
        row += (f"{share['step_seconds']:.2g} s", f"{share['efficiency']:.0%}") if timed else ()
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=False)]
    parts = any(share["divided"] for share in shares)
    whole = "its part of the state, as the mesh divides it" if parts else "the whole state"
    why = "to gather parameters and sum gradients" if parts else "to sum the gradients"
    held = "state, batch and temporaries" if shares[0]["step_bytes"] else "state and batch"
    return [
        "",
        "on so many devices, on paper, each:",
        *("  ".join(f"{x:>{n}}" for x, n in zip(row, widths, strict=False)) for row in rows),
        f"memory: {held}; every device holds {whole}. sends: {why}, at {link};",
        "latency is left out, and that a sum can begin before the backward pass ends. "
        + ("step: were each as fast as this machine" if timed else "the time of a step: --compile"),
    ]


def _operations(flops: int) -> str:
    scale, unit = (1e9, "GFLOP") if flops < 1e12 else (1e12, "TFLOP")
    return f"{flops / scale:.3g} {unit}"


def _counts(text: str | None, link: float | None) -> list[int]:
    """The numbers of --devices. Errors: ConfigError for what is none, and for a --link alone."""
    if text is None:
        if link is not None:
            raise ConfigError("--link is that between --devices; say how many")
        return []
    if link is not None and not 0 < link < math.inf:
        raise ConfigError(f"--link {link:g}: must be a number of GB/s above 0")
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[1-9][0-9]{0,6}", part) for part in parts):
        raise ConfigError(
            f"--devices {text}: must be whole numbers from 1 to 9,999,999, e.g. 1,8,64"
        )
    return [int(part) for part in parts]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _print(split: str, found: dict[str, Any]) -> None:
    """What the examples of a split show."""
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
    from jaxcnn.data.dataset import training_batch
    from jaxcnn.inspect.contact_sheet import contact_sheet

    source = e.data.open("train")
    taken = training_batch(source, e.seed, 0, batch_size=e.batch_size)
    # the keys of `descend` and `supervised` at step 0
    step_key = jax.random.fold_in(jax.random.split(jax.random.key(e.seed))[1], 0)
    key = jax.random.split(step_key)[0]
    batch = jax.jit(lambda batch: prepare(e, batch, key=key))(taken)
    sheet = contact_sheet(jax.device_get(batch), names=tuple(e.data.label_names))
    try:
        sheet.save(path)
    except ValueError as error:
        raise ConfigError(f"--sheet {path}: {error}; name it .png") from error
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error.strerror})") from error
