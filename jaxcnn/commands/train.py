"""`train`: an experiment file becomes a run directory."""

import sys
from pathlib import Path
from typing import Any

from jaxcnn.commands import experiments
from jaxcnn.errors import PREEMPTED, ConfigError
from jaxcnn.runs.environment import prepare_process

EXAMPLE = (
    "python launch.py train experiments/mnist_lenet5.py epochs=2 "
    "optimizer.learning_rate=0.05 --run-dir runs/first"
)


def add_arguments(parser: Any) -> None:
    experiments.add_experiment_arguments(parser)
    parser.add_argument(
        "--run-dir", type=Path, help="where the run is kept (default: runs/<experiment>-<time>)"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with this run, to the bits of one that never stopped",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress")
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


def main(args: Any) -> int:
    """Train. Exit code 75 after SIGTERM or Ctrl-C: the state was saved, --resume goes on."""
    experiments.split_overrides(args)
    if args.resume is not None and (
        args.experiment != experiments.DEFAULT
        or args.overrides
        or args.run_dir
        or args.sweep is not None
    ):
        raise ConfigError(
            "--resume goes on with a run exactly as it was started: give no experiment, override, "
            "--sweep or --run-dir with it"
        )
    if args.halving is not None and args.halving < 2:
        raise ConfigError(
            f"--halving {args.halving}: keeps one replica in H, so it must be at least 2"
        )
    prepare_process(_environment(args.resume) if args.resume else None)

    from jaxcnn.runs.rundir import Preempted

    try:
        return _resume(args) if args.resume else _start(args)
    except Preempted as error:
        print(error, file=sys.stderr)
        return PREEMPTED


def _start(args: Any) -> int:
    """A new run, or a new sweep."""
    from jaxcnn.commands import sweeps
    from jaxcnn.runs.loop import train
    from jaxcnn.runs.writers import Console

    path = experiments.find(args.experiment)
    module = experiments.module_of(path)
    experiment, name = experiments.experiment_in(module, path, args.overrides), path.stem
    points = sweeps.points_of(experiment, module, args) if args.sweep is not None else None
    check(experiment)
    folder = args.run_dir or _new_folder(name)
    _copy(path, folder)
    record = {"source": str(path), "overrides": args.overrides}
    console = Console(quiet=args.quiet)
    console.line(f"run: {folder}")
    if points is None:
        report(
            train(experiment, folder, name=name, record=record, console=console),
            folder,
            as_json=args.json,
        )
    else:
        options = {"way": args.replicas_by, "halving": args.halving}
        summary = sweeps.train_sweep(
            experiment,
            points,
            folder,
            name=name,
            record=record,
            console=console,
            resume=False,
            **options,
        )
        sweeps.report(summary, folder, as_json=args.json)
    return 0


def _resume(args: Any) -> int:
    """Go on with a run or a sweep."""
    from jaxcnn.commands import sweeps
    from jaxcnn.runs.loop import train
    from jaxcnn.runs.rundir import read_json
    from jaxcnn.runs.writers import Console

    folder, console = args.resume, Console(quiet=args.quiet)
    experiment, record = experiments.load_run(folder)
    common = {"name": record["experiment"], "console": console, "resume": True}
    console.line(f"run: {folder}")
    if (folder / "sweep.json").is_file():
        record = read_json(folder / "sweep.json")
        points = [experiments.as_point(row["point"]) for row in record["replicas"]]
        kept = {"source": record["source"], "overrides": record["overrides"]}
        sweeps.report(
            sweeps.train_sweep(
                experiment, points, folder, record=kept, **common, **record["options"]
            ),
            folder,
            as_json=args.json,
        )
    else:
        report(train(experiment, folder, **common), folder, as_json=args.json)
    return 0


def check(experiment: Any) -> None:
    """Refuse what can be seen to be wrong from metadata alone, before a run directory is made."""
    from jaxcnn.commands.check import abstract_state

    abstract_state(experiment)


def report(summary: dict, folder: Path, *, as_json: bool) -> None:
    """The result on stdout."""
    import json

    from jaxcnn.runs.writers import format_number

    if as_json:
        print(json.dumps({**summary, "run": str(folder)}))
        return
    for split in ("eval", "test"):
        numbers = {
            k: v for k, v in (summary.get(split) or {}).items() if isinstance(v, (int, float))
        }
        if numbers:
            print(f"{split}: " + "  ".join(f"{k} {format_number(v)}" for k, v in numbers.items()))
    print(
        f"{summary['step']:,} steps, {summary['epoch']:.4g} epochs, {summary['seconds']:.1f} s; "
        f"run kept in {folder}"
    )


def _environment(run: Path) -> dict:
    """What run.json records of the process, read without importing JAX; {} if it cannot be read
    (the error comes later).
    """
    import json

    try:
        return json.loads((run / "run.json").read_text())["environment"]
    except (OSError, ValueError, KeyError):
        return {}


def _new_folder(name: str) -> Path:
    import time

    base = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, n = base, 1
    while folder.exists():
        n += 1
        folder = base.with_name(f"{base.name}-{n}")
    return folder


def _copy(source: Path, folder: Path) -> None:
    """Keep the experiment file with the run, unless the folder is in use (which `train`
    will say).
    """
    from jaxcnn.errors import ResourceError

    if folder.exists() and (
        not folder.is_dir()
        or any(p.name not in ("run.lock", "experiment.py") for p in folder.iterdir())
    ):
        raise ConfigError(
            f"{folder}: exists already; go on with `train --resume {folder}`, or choose another "
            "--run-dir"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "experiment.py").write_bytes(source.read_bytes())
    except OSError as error:
        raise ResourceError(
            f"{folder}: cannot be made or written to ({error.strerror}); choose another --run-dir"
        ) from error
