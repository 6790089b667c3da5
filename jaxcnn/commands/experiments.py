"""From a name on the command line to an Experiment: files, overrides, runs.

Loading an experiment file runs its code, as with any Python file.
"""

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from jaxcnn.errors import ConfigError, did_you_mean

DEFAULT = "digits_lenet5"


def folders() -> list[Path]:
    """Where experiments are looked up by name: ./experiments, then those that come with jaxcnn."""
    package = Path(__file__).resolve().parents[1]
    candidates = [
        Path.cwd() / "experiments",
        package / "experiments",
        package.parent / "experiments",
    ]
    return [f for f in dict.fromkeys(candidates) if f.is_dir()]


def files() -> dict[str, Path]:
    """{name: path} of all experiments that can be named."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_"):
                found.setdefault(path.stem, path)
    return found


def find(name: str) -> Path:
    """The experiment file of a path or a name. Errors: ConfigError with the nearest name."""
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        return path.resolve()
    known = files()
    if path.stem in known and (path.suffix == ".py" or path.name == path.stem):
        return known[path.stem].resolve()
    raise ConfigError(
        f"no experiment {name!r}{did_you_mean(path.stem, known)}; `python launch.py list` shows "
        "them all, or give the path of a .py file"
    )


def module_of(path: Path) -> Any:
    """The module in `path`, executed. Errors: ConfigError with file and line of what went wrong."""
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = (
        module  # so that what the file defines can be rendered and pickled by name
    )
    try:
        spec.loader.exec_module(module)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
        raise ConfigError(f"{path}:{line}: {type(error).__name__}: {error}") from error
    return module


def load(path: Path, overrides: list[str]) -> Any:
    """The Experiment in `path` with overrides applied. Errors: ConfigError."""
    return experiment_in(module_of(path), path, overrides)


def experiment_in(module: Any, path: Path, overrides: list[str]) -> Any:
    """The Experiment of an experiment file's module, with overrides applied. Errors:
    ConfigError.
    """
    from jaxcnn.core.experiment import Experiment
    from jaxcnn.core.override import override_all

    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"{path}: must end in `experiment = Experiment(…)`; found {type(experiment).__name__}"
        )
    return override_all(experiment, overrides)


def load_run(folder: Path) -> tuple[Any, dict[str, Any]]:
    """(Experiment, run.json) of a run directory, from the copy of the experiment file
    kept there.
    """
    from jaxcnn.core.override import render
    from jaxcnn.runs.rundir import read_json

    record = read_json(folder / "run.json")
    copy = folder / "experiment.py"
    if not copy.is_file():
        raise ConfigError(
            f"{folder}: was not started from an experiment file, so only Python code can open it "
            "(no experiment.py)"
        )
    if record.get("source"):
        sys.path.insert(0, str(Path(record["source"]).parent))  # the file may import its neighbours
    experiment = load(copy, record.get("overrides", []))
    if without_module(render(experiment)) != without_module(record["rendered"]):
        raise ConfigError(
            f"{folder}: its experiment now means something else than when it ran (jaxcnn's "
            "defaults changed); see run.json, 'rendered'"
        )
    return experiment, record


def without_module(rendered: Any) -> Any:
    """The rendering without the names of experiment files as modules: the copy in a run directory
    has another one.
    """
    if isinstance(rendered, dict):
        return {k: without_module(v) for k, v in rendered.items()}
    if isinstance(rendered, list):
        return [without_module(v) for v in rendered]
    return (
        rendered.partition(":")[2]
        if isinstance(rendered, str) and rendered.startswith("experiment_")
        else rendered
    )


def restore_run(
    folder: Path, *, kind: str = "last", replica: int | None = None
) -> tuple[Any, Any, int]:
    """(Experiment, State, step) of a run, or of one replica of a sweep, from its newest good
    ("last") or its best checkpoint.
    """
    import json

    from jaxcnn.errors import CheckpointError

    checkpoints, point = folder, {}
    if (folder / "sweep.json").is_file():
        places = json.loads((folder / "sweep.json").read_text())["replicas"]
        if replica is None or not 0 <= replica < len(places):
            raise ConfigError(
                f"{folder} is a sweep: choose one with --replica 0 to {len(places) - 1}, or take "
                "all with --ensemble"
            )
        checkpoints, point = folder / places[replica]["folder"], as_point(places[replica]["point"])
    elif replica is not None:
        raise ConfigError(f"--replica {replica}: {folder} is a single run, not a sweep")
    experiment, _ = load_run(folder)

    from jaxcnn.runs.sweep import at

    experiment = at(experiment, point)
    restored = _restore(experiment, checkpoints / "checkpoints", kind)
    if restored is None:
        raise CheckpointError(
            f"{folder}: has no {kind!r} checkpoint yet; go on with `train --resume {folder}`"
        )
    return experiment, *restored


def _restore(experiment: Any, folder: Path, kind: str) -> tuple[Any, int] | None:
    import jax

    from jaxcnn.core.program import make_program
    from jaxcnn.runs.checkpoint import Checkpoints

    def template(arrays: dict) -> Any:
        numbers = {
            name.partition("/")[2]: 0.0 for name in arrays if name.startswith("hyperparams/")
        }
        return jax.eval_shape(
            lambda: make_program(experiment, steps=1).init(jax.random.key(0), numbers)
        )

    return Checkpoints(folder).restore(
        template, kind=kind, warn=lambda text: print(f"warning: {text}", file=sys.stderr)
    )


def restore_ensemble(folder: Path, *, kind: str = "last") -> tuple[Any, tuple, list[int]]:
    """(Experiment, States, replicas) of all replicas of a sweep that were trained to the end."""
    from jaxcnn.runs.rundir import read_json

    if not (folder / "sweep.json").is_file():
        raise ConfigError(f"--ensemble: {folder} is a single run, not a sweep")
    rows = read_json(folder / "summary.json")["replicas"]
    chosen = [
        row["replica"]
        for row in rows
        if row["verdict"] in ("completed",) or row["verdict"].startswith("stopped early")
    ]
    if not chosen:
        raise ConfigError(f"--ensemble: no replica of {folder} was trained to the end")
    restored = [restore_run(folder, kind=kind, replica=i) for i in chosen]
    if len({repr(r[0].model) for r in restored}) > 1:
        raise ConfigError(
            f"--ensemble: the replicas of {folder} have different models; choose one with --replica"
        )
    return restored[0][0], tuple(state for _, state, _ in restored), chosen


def as_point(values: dict) -> dict:
    """A point from JSON: lists are tuples again."""
    return {path: tuple(v) if isinstance(v, list) else v for path, v in values.items()}


def add_experiment_arguments(parser: Any) -> None:
    """EXPERIMENT and overrides, as several verbs take them."""
    parser.add_argument(
        "experiment",
        nargs="?",
        default=DEFAULT,
        metavar="EXPERIMENT",
        help=f"path or name of an experiment file (default: {DEFAULT})",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="PATH=VALUE",
        help="change a field, e.g. optimizer.learning_rate=0.2 model.num_classes=62 epochs=5",
    )


def add_model_arguments(parser: Any) -> None:
    """RUN, and which of its models, as several verbs take them."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--checkpoint", default="last", choices=("last", "best"))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--replica", type=int, metavar="I", help="replica I of a sweep")
    which.add_argument(
        "--ensemble",
        action="store_true",
        help="all replicas of a sweep together, their probabilities averaged",
    )


def split_overrides(args: Any) -> None:
    """`verb a.b=c` without an experiment: the default one is meant."""
    if "=" in args.experiment and not args.experiment.endswith(".py"):
        args.overrides.insert(0, args.experiment)
        args.experiment = DEFAULT
