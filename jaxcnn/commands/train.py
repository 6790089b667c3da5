"""`train`: an experiment file becomes a run directory."""

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcnn.commands import _arguments, _processes
from jaxcnn.errors import ConfigError
from jaxcnn.runs import code
from jaxcnn.runs.environment import prepare_process, recorded

if TYPE_CHECKING:
    from jaxcnn.core.experiment import Experiment
    from jaxcnn.runs.open import Run
    from jaxcnn.runs.writers import Console

EXAMPLE = (
    "python launch.py train experiments/mnist_lenet5.py epochs=2 optimizer.learning_rate=0.05 "
    "--run-dir runs/first"
)


def add_arguments(parser: Any) -> None:
    _arguments.add_experiment_arguments(parser)
    parser.add_argument(
        "--run-dir", type=Path, help="where the run is kept (default: runs/<experiment>-<time>)"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with this run, to the bits of one that never stopped",
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="RUN",
        help="go on from this run's state with other settings, e.g. epochs=40, in a new run",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress, and no report")
    parser.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        help="write RUN/report.html at the end (default: unless --quiet)",
    )
    parser.add_argument(
        "--track",
        action="append",
        default=[],
        choices=("tensorboard", "wandb", "mlflow", "trackio"),
        help="log there, too; may be given several times (tensorboard: histograms and pictures)",
    )
    parser.add_argument(
        "--profile",
        metavar="A..B",
        help="write a trace of the steps A to B into RUN/profile, for xprof and Perfetto",
    )
    many = parser.add_argument_group(
        "sweeps",
        "many seeds and settings in one program: --sweep seed=0..7 "
        "optimizer.learning_rate=0.05,0.1",
    )
    axis = "a..b, a list, or log(low,high,count); without any, the experiment file's sweep()"
    many.add_argument("--sweep", nargs="*", metavar="PATH=VALUES", help=f"axes of a grid: {axis}")
    many.add_argument("--zip", action="store_true", help="pair the axes instead of combining them")
    many.add_argument("--sample", type=int, metavar="N", help="draw N of the points")
    many.add_argument(
        "--replicas-by",
        metavar="WAY",
        help="loop, vmap, unrolled, devices or a chunk size (default: the fastest in a trial)",
    )
    many.add_argument(
        "--halving",
        type=int,
        metavar="H",
        help="successive halving: keep one replica in H at each rung",
    )
    many.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="cross-validation: train each point N times, each time evaluated on another Nth of "
        "the training examples",
    )
    _processes.add_arguments(parser)


def main(args: Any) -> int:
    """Train. Exit code 75 after SIGTERM or Ctrl-C: the state was saved, --resume goes on."""
    _arguments.split_overrides(args)
    return _processes.on_hosts(args, _main)


def _check(args: Any) -> None:
    """ConfigError for options that do not go together."""
    if args.resume is not None and (
        args.named
        or args.overrides
        or args.run_dir
        or args.start
        or args.sweep is not None
        or args.zip
        or args.sample is not None
        or args.halving
        or args.folds is not None
    ):
        raise ConfigError(
            "--resume goes on with a run exactly as it was started: give no experiment, override, "
            "--sweep, --folds or --run-dir with it; to train longer or otherwise: --from RUN "
            "epochs=40"
        )
    if args.sweep is None and args.resume is None:
        for option in ("zip", "sample", "halving", "replicas_by"):
            given = args.zip if option == "zip" else getattr(args, option) is not None
            if given and not (option == "replicas_by" and args.folds):
                raise ConfigError(f"--{option.replace('_', '-')} belongs to a --sweep")
    if args.zip and args.sweep == []:
        raise ConfigError(
            "--zip pairs the axes after --sweep; an experiment file's sweep() gives whole points: "
            "leave --zip out, or have sweep() return jaxcnn.runs.sweep.zipped(…)"
        )
    if args.start is not None and (args.named or args.sweep is not None):
        raise ConfigError("--from takes the experiment of its run; give it overrides alone")
    if args.halving is not None and args.halving < 2:
        raise ConfigError(
            f"--halving {args.halving}: keeps one replica in H, so it must be at least 2"
        )


def _main(args: Any) -> int:
    _check(args)
    profile, launch = _steps_of(args.profile), _processes.launch_of(args)
    prepare_process(recorded=recorded(args.resume) if args.resume else None)
    if launch:  # accelerators are the workers'
        import jax

        jax.config.update("jax_platforms", "cpu")

    from jaxcnn.runs.trackers import track
    from jaxcnn.runs.train import commands_of, train, train_part
    from jaxcnn.runs.worth import warning_of
    from jaxcnn.runs.writers import Console

    console = Console(quiet=args.quiet)
    observe = [] if launch else [track(name) for name in dict.fromkeys(args.track)]
    if args.resume and args.part is not None:
        way = args.replicas_by
        train_part(args.resume, args.part, way=way, observe=tuple(observe), console=console)
        return 0
    watched = {"observe": observe, "profile": profile, "launch": launch}
    if args.resume:
        console.line(f"run: {args.resume}")
        way = args.replicas_by
        run = train(None, args.resume, resume=True, way=way, console=console, **watched)
    else:
        experiment, origin, points = _new(args)
        run = train(
            experiment,
            args.run_dir,
            points=points,
            start=args.start,
            origin=origin,
            way=args.replicas_by,
            halving=args.halving,
            folds=args.folds,
            console=console,
            **watched,
        )
    if args.coordinator is not None and not _processes.first_alone():
        return 0
    if launch and launch.on == "commands":
        for words in commands_of(run.folder, launch, way=args.replicas_by):
            print(shlex.join(words))
        return 0
    if args.quiet and (
        warning := warning_of(run, run.experiment)
    ):  # otherwise the console has said it
        print(f"warning: {warning}", file=sys.stderr)
    show = _report_sweep if run.is_sweep else _report
    if args.json:
        print(json.dumps({**run.summary, "run": str(run.folder)}))
    else:
        show(run.summary, run.folder)
        if not (args.quiet or run.is_sweep):
            print(f"next: {next_command(run.standalone(), run.folder)}")
    if args.report if args.report is not None else not args.quiet:
        sys.stdout.flush()  # the result first: the report takes some seconds
        _write_report(run, console)
    return 0


def _steps_of(text: str | None) -> tuple[int, int] | None:
    """(A, B) of A..B. Errors: ConfigError."""
    if text is None:
        return None
    steps = re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", text)
    if steps is None:
        raise ConfigError(f"--profile {text[:80]}: must be two steps such as 101..110")
    return int(steps[1]), int(steps[2])


def _new(args: Any) -> "tuple[Experiment, code.Origin | None, list[dict[str, Any]] | None]":
    """The experiment of a new run, where it comes from, and the points of a sweep."""
    from jaxcnn.core.override import override_all
    from jaxcnn.runs.open import open

    points = None
    if args.start is not None:
        start = open(args.start)
        experiment = override_all(start.experiment, args.overrides)
        origin = code.origin_in(start.folder, start.record, overrides=args.overrides)
    else:
        path = code.find(args.experiment)
        module = code.module_of(path)
        experiment = code.experiment_in(module, path, overrides=args.overrides)
        origin = code.Origin(path, module.__name__, tuple(args.overrides))
        points = points_of(experiment, module, args) if args.sweep is not None else None
    return experiment, origin, points


def points_of(experiment: "Experiment", module: Any, args: Any) -> list[dict[str, Any]]:
    """The points that the command line or the experiment file's `sweep()` asks for."""
    from jaxcnn.runs import sweep

    if args.sweep:
        points = sweep.parse(experiment, args.sweep, zip_axes=args.zip)
    elif hasattr(module, "sweep"):
        points = [dict(point) for point in module.sweep()]
    else:
        raise ConfigError(
            "--sweep without axes: the experiment file has no `def sweep()`; give axes such as "
            "seed=0..7 optimizer.learning_rate=0.05,0.1"
        )
    for point in points:
        sweep.at(experiment, point)
    if not points:
        raise ConfigError("--sweep: no points")
    return points if args.sample is None else sweep.sample(points, args.sample)


def _write_report(run: "Run", console: "Console") -> None:
    """report.html of what was trained; training is done, whatever becomes of it."""
    from jaxcnn.runs.report.write import NAME, write_report

    try:
        left_out = write_report(run)
    except Exception as error:
        console.line(f"warning: no report: {type(error).__name__}: {error}")
    else:
        missing = f" ({len(left_out)} parts left out, see its end)" if left_out else ""
        console.line(f"report: {run.folder / NAME}{missing}")


def _report(summary: dict[str, Any], folder: Path) -> None:
    """The result on stdout."""
    from jaxcnn.runs.writers import format_number

    for split in ("eval", "test"):
        metrics = summary.get(split) or {}
        numbers = {k: v for k, v in metrics.items() if isinstance(v, (int, float))}
        if numbers:
            print(f"{split}: " + "  ".join(f"{k} {format_number(v)}" for k, v in numbers.items()))
    print(
        f"{summary['step']:,} steps, {summary['epoch']:.4g} epochs, {summary['seconds']:.1f} s; "
        f"run kept in {folder}"
    )


def next_command(e: "Experiment", folder: Path) -> str:
    """What asks a trained model about pictures, or scores it once more where it takes none."""
    from jaxcnn.runs.predict import picture_of

    run = shlex.quote(str(folder))
    try:
        picture_of(e)
    except ConfigError:
        return f"python launch.py evaluate {run}"
    return f"python launch.py predict {run} PICTURE"


def _report_sweep(summary: dict[str, Any], folder: Path) -> None:
    """The table of settings on stdout."""
    folds = any("fold" in row["point"] for row in summary["replicas"])
    over, everything = ("folds", "all folds") if folds else ("replicas", "all seeds")
    print(
        f"{summary['metric']}: mean ± std over {over} (95 % interval of the mean); "
        f"{summary['rule']}"
    )
    for row in summary["settings"]:
        name = "  ".join(f"{path}={value}" for path, value in row["setting"].items()) or everything
        lost = f"  ({row['lost']} without a final value)" if row["lost"] else ""
        if row["mean"] is None:
            print(f"  {name:48} no value{lost}")
        elif row["std"] is None:
            print(f"  {name:48} {row['mean']:.4f} (n = 1){lost}")
        else:
            print(
                f"  {name:48} {row['mean']:.4f} ± {row['std']:.4f} (± {row['interval95']:.4f}, n "
                f"= {row['n']}){lost}"
            )
    print(f"{len(summary['replicas'])} replicas, {summary['seconds']:.1f} s; kept in {folder}")
