"""`train`: an experiment file becomes a run directory."""

import sys
from pathlib import Path
from typing import Any

from jaxcnn.commands import experiments
from jaxcnn.environment import prepare_process
from jaxcnn.errors import PREEMPTED, ConfigError

EXAMPLE = "python launch.py train experiments/mnist_lenet5.py epochs=2 optimizer.learning_rate=0.05 --run-dir runs/first"


def add_arguments(parser: Any) -> None:
    experiments.add_experiment_arguments(parser)
    parser.add_argument("--run-dir", type=Path, help="where the run is kept (default: runs/<experiment>-<time>)")
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="go on with this run, to the same bits as if it had never been interrupted"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def main(args: Any) -> int:
    """Train. Exit code 75 after SIGTERM or Ctrl-C: the state was saved, --resume goes on."""
    experiments.split_overrides(args)
    resume = args.resume is not None
    if resume and (args.experiment != experiments.DEFAULT or args.overrides or args.run_dir):
        raise ConfigError("--resume goes on with a run exactly as it was started: give no experiment, override or --run-dir with it")
    prepare_process(_environment(args.resume) if resume else None)

    from jaxcnn.log import Console
    from jaxcnn.run import Preempted, train

    if resume:
        folder = args.resume
        experiment, record = experiments.load_run(folder)
        name = record["experiment"]
    else:
        path = experiments.find(args.experiment)
        experiment, name = experiments.load(path, args.overrides), path.stem
        record = {"source": str(path), "overrides": args.overrides}
        check(experiment)
        folder = args.run_dir or _new_folder(name)
        _copy(path, folder)
    console = Console(quiet=args.quiet)
    console.line(f"run: {folder}")
    try:
        summary = train(experiment, folder, resume=resume, name=name, record=record, console=console)
    except Preempted as error:
        print(error, file=sys.stderr)
        return PREEMPTED
    report(summary, folder, experiment, as_json=args.json)
    return 0


def check(experiment: Any) -> None:
    """Refuse what can be seen to be wrong from metadata alone, before a run directory is made."""
    from jaxcnn.commands.check import abstract_state

    abstract_state(experiment)


def report(summary: dict, folder: Path, experiment: Any, *, as_json: bool) -> None:
    """The result on stdout."""
    import json

    from jaxcnn.log import format_number

    if as_json:
        print(json.dumps({**summary, "run": str(folder)}))
        return
    for split in ("eval", "test"):
        numbers = {k: v for k, v in (summary.get(split) or {}).items() if isinstance(v, (int, float))}
        if numbers:
            print(f"{split}: " + "  ".join(f"{k} {format_number(v)}" for k, v in numbers.items()))
    print(f"{summary['step']:,} steps, {summary['epoch']:.4g} epochs, {summary['seconds']:.1f} s; run kept in {folder}")


def _environment(run: Path) -> dict:
    """What run.json records of the process, read without importing JAX; {} if it cannot be read (the error comes later)."""
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
    """Keep the experiment file with the run, unless the folder is in use (which `train` will say)."""
    from jaxcnn.errors import ResourceError

    if folder.exists() and (not folder.is_dir() or any(p.name not in ("run.lock", "experiment.py") for p in folder.iterdir())):
        raise ConfigError(f"{folder}: exists already; go on with `train --resume {folder}`, or choose another --run-dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "experiment.py").write_bytes(source.read_bytes())
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made or written to ({error.strerror}); choose another --run-dir") from error
