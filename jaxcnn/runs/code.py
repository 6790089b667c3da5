"""An experiment's own code: finding it by name, loading it, and making the experiment again from
what was kept of it (jaxcnn.runs.keeping).

Loading an experiment file runs its code, as with any Python file. An experiment that was made in
Python without a file is kept as its rendering (`run.json`, "rendered"), and made again from that:
its classes and functions must then be importable, so what was defined in a notebook or a script
must be defined again, or the experiment be given to `open`.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Generator, Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.runs.environment import PACKAGE
from jaxcnn.runs.keeping import Origin, imported, local_modules

if TYPE_CHECKING:  # finding an experiment by its name starts no JAX
    from jaxcnn.core.experiment import Experiment

DEFAULT = "digits_lenet5"


# ---- by name ---------------------------------------------------------------------------------


def folders() -> list[Path]:
    """Where experiments are looked up by name: ./experiments, then those that come with jaxcnn."""
    candidates = [Path.cwd() / "experiments", PACKAGE / "experiments"]
    candidates.append(PACKAGE.parent / "experiments")
    return [f for f in dict.fromkeys(candidates) if f.is_dir()]


def files() -> dict[str, Path]:
    """{name: path} of all experiments that can be named."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_"):
                found.setdefault(path.stem, path)
    return found


def find(name: str | Path) -> Path:
    """The experiment file of a path or a name. Errors: ConfigError with the nearest name."""
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        return path.resolve()
    known = files()
    if path.stem in known and (path.suffix == ".py" or path.name == path.stem):
        return known[path.stem].resolve()
    raise ConfigError(
        f"no experiment {str(name)!r}{did_you_mean(path.stem, known)}; `python launch.py list` "
        "shows them all; or give the path of a .py file"
    )


# ---- loading ---------------------------------------------------------------------------------


def load(name: str | Path, *, overrides: Iterable[str] = ()) -> "Experiment":
    """The Experiment of a file, by path or name, with overrides such as "epochs=5" applied.

    Errors: ConfigError with file and line of what went wrong.
    """
    path = find(name)
    return experiment_in(module_of(path), path, overrides=overrides)


def module_of(path: Path, *, name: str | None = None) -> ModuleType:
    """The module in `path`, executed; it may import its neighbours. Errors: ConfigError."""
    spec = importlib.util.spec_from_file_location(name or f"experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that what the file defines can be found by name
    try:
        with _first_on_path(path.parent):
            spec.loader.exec_module(module)
        _refuse_namesakes(path, spec.name)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if f.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
        raise ConfigError(f"{path}:{line}: {type(error).__name__}: {error}") from error
    return module


def _refuse_namesakes(path: Path, module: str) -> None:
    """Python imports a name once: an experiment whose neighbour was imported before from another
    folder would be built of that one's code. Errors: ConfigError.
    """
    for name, taken in local_modules(imported(path, module)).items():
        place = path.parent.joinpath(*name.split("."))
        for own in (place.with_suffix(".py"), place / "__init__.py"):
            if own.is_file() and own.read_bytes() != taken.read_bytes():
                raise ConfigError(
                    f"imports {name}, which this process has imported from {taken} before; {own} "
                    "says something else: load the two in two processes, or rename one"
                )


@contextlib.contextmanager
def _first_on_path(folder: Path) -> Generator[None]:
    """`folder` is the first place to import from; afterwards, for late imports, the last."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def experiment_in(module: ModuleType, path: Path, *, overrides: Iterable[str] = ()) -> "Experiment":
    """The Experiment of an experiment file's module, with overrides. Errors: ConfigError."""
    from jaxcnn.core.experiment import Experiment
    from jaxcnn.core.override import override_all

    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"{path}: must end in `experiment = Experiment(…)`; found {type(experiment).__name__}"
        )
    return override_all(experiment, overrides)


def origin_of(experiment: "Experiment") -> Origin | None:
    """The imported module whose `experiment` this is; None for one that was made elsewhere."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name != "__main__" and file and vars(module).get("experiment") is experiment:
            return Origin(Path(file).resolve(), name)
    return None


def origin_in(
    folder: Path, record: dict[str, Any], *, overrides: Iterable[str] = ()
) -> Origin | None:
    """The origin of a run's experiment in its own directory, with more overrides: those come after
    its own, and after its point where it is a replica.
    """
    kept = record["code"]
    if not kept.get("file"):
        return None
    path, point = folder / "code" / kept["file"], record.get("point")
    own = (*kept["overrides"], *([point] if point else ()))
    return Origin(path, kept["module"], (*own, *overrides))


# ---- making it again -------------------------------------------------------------------------


def reopen(folder: Path, record: dict[str, Any]) -> "Experiment":
    """The Experiment of a run directory whose run.json is `record`, from the code kept there.

    Errors: ConfigError where the code is missing, does not mean any more what it meant, or was
    never in a file that could be kept.
    """
    from jaxcnn.core.override import override_all
    from jaxcnn.core.rendering import render
    from jaxcnn.data.recorded import Recorded, located
    from jaxcnn.runs.rundir import start_of
    from jaxcnn.runs.sweep import as_point, at

    code, rendered = record["code"], record["rendered"]
    try:
        with _own_modules(folder / "code", code):
            if code.get("file"):
                path = folder / "code" / code["file"]
                if not path.is_file():
                    raise ConfigError(f"{path}: the experiment's code is gone; give the experiment")
                module = module_of(path, name=code["module"])
                experiment = experiment_in(module, path)
                for edit in (*code["overrides"], record.get("point", {})):  # one may undo another
                    experiment = (
                        at(experiment, as_point(edit))
                        if isinstance(edit, dict)
                        else override_all(experiment, [edit])
                    )
            else:
                experiment = _build(rendered, record)
    except ConfigError as error:
        place = "" if str(folder) in str(error) else f"{folder}: "
        raise ConfigError(f"{place}{error}") from error
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ConfigError(
            f"{folder / 'run.json'}: its experiment cannot be made again from it "
            f"({type(error).__name__}: {error})"
        ) from error
    place = start_of(folder, record)
    there = dataclasses.replace(experiment, data=located(experiment.data, place))
    found = [render(experiment), render(there)]  # a sweep may have been resumed from elsewhere
    if isinstance(experiment.data, Recorded):
        found = [{**content, "data": rendered["data"]} for content in found]
    if changed := min((differences(rendered, content) for content in found), key=len):
        raise ConfigError(
            f"{folder}: its experiment now means something else than when it ran: "
            f"{'; '.join(changed[:5])} (its code or jaxcnn's defaults have changed)"
        )
    return there


def _build(rendered: dict[str, Any], record: dict[str, Any]) -> "Experiment":
    """The experiment of a rendering; where its data were arrays in memory, with what was recorded
    of them.
    """
    from jaxcnn.core.rendering import build, resolve
    from jaxcnn.data.recorded import Recorded

    try:
        data = build(rendered["data"])
    except ConfigError:
        data = Recorded.from_json(record["data"])
    fields = {k: build(v) for k, v in rendered.items() if k not in ("type", "data")}
    return resolve(rendered["type"])(**fields, data=data)


@contextlib.contextmanager
def _own_modules(folder: Path, code: dict[str, Any]) -> Generator[None]:
    """The modules kept in `folder` are imported from there, whatever was imported before under
    their names; a module that was imported from the same text is taken as it is.
    """
    files = dict(code.get("local", {}))
    if code.get("file"):
        files[code["module"]] = code["file"]
    before = {
        name: sys.modules.pop(name)
        for name, file in files.items()
        if name in sys.modules and not _is_of(sys.modules[name], folder / file)
    }
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.update(before)


def _is_of(module: ModuleType, kept: Path) -> bool:
    """Whether a module was imported from a file of the same text as `kept`."""
    try:
        return Path(str(getattr(module, "__file__", None))).read_bytes() == kept.read_bytes()
    except OSError:
        return False


def differences(
    old: object, new: object, *, path: str = "", words: tuple[str, str] = ("then", "now")
) -> list[str]:
    """What differs between two renderings: ["epochs: 5 then, 6 now", …]."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        found = [
            differences(old.get(n), new.get(n), path=f"{path}.{n}".lstrip("."), words=words)
            for n in names
        ]
        return [text for texts in found for text in texts]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        found = (differences(a, b, path=f"{path}.{i}", words=words) for i, (a, b) in pairs)
        return [text for texts in found for text in texts]
    then, now = words
    return [] if old == new else [f"{path}: {_short(old)} {then}, {_short(new)} {now}"]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
