"""What a run keeps of the code that it depends on: its experiment's file and the modules of the
same project that this imports, whole; of installed packages the versions alone (run.json). A digest
of each file says later whether it is still what the run was started with.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcnn.core import dotted
from jaxcnn.runs.environment import PACKAGE

if TYPE_CHECKING:
    from jaxcnn.core.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where an experiment came from: the variable `experiment` of a file, with overrides in the
    order in which they were made; those of a run that goes on from a replica have its point (a
    dict) among them.
    """

    path: Path
    module: str
    overrides: tuple[str | dict[str, Any], ...] = ()


def keep(folder: Path, experiment: "Experiment", origin: Origin | None) -> dict[str, Any]:
    """Copy the experiment's own code into `folder` and say what was copied, for run.json:
    {"file", "module", "overrides", "local": {module: file}, "sha256": {file: digest}}; "file" is
    None without a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if origin is None:
        from jaxcnn.core.rendering import render

        # a script is kept to be read; importing it would run it again
        local = local_modules(sorted(_modules_in(render(experiment)) - {"__main__"}))
        _keep_notebook(folder)
        main: dict[str, Any] = {"file": None}
    else:
        texts = [text for text in origin.overrides if isinstance(text, str)]  # points name no own
        named = [name for text in texts for name in dotted.names_in(text.partition("=")[2])]
        local = local_modules([*imported(origin.path, origin.module), *named])
        local.pop(origin.module, None)
        shutil.copyfile(origin.path, folder / origin.path.name)
        main = {"file": origin.path.name, "module": origin.module}
        main |= {"source": str(origin.path), "overrides": list(origin.overrides)}
    kept = {}
    for name, path in local.items():
        place = Path(*name.split("."))
        place = place / "__init__.py" if path.name == "__init__.py" else place.with_suffix(".py")
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / place)
        kept[name] = place.as_posix()
    files = [*kept.values(), *([main["file"]] if main["file"] else [])]
    return {**main, "local": kept, "sha256": {file: _digest(folder / file) for file in files}}


def changed(folder: Path, record: dict[str, Any], *, given: bool = False) -> list[str]:
    """Sentences on code of a run that is no longer what it was started with: kept files that were
    edited; for an experiment that was `given`, not made again from these, its modules, too.
    """
    code = record["code"]
    digests: dict[str, str] = code.get("sha256", {})
    found = []
    for file, digest in digests.items():
        if (now := _digest(folder / "code" / file)) != digest:
            found.append(f"code/{file} {'was edited' if now else 'is gone'}")
    modules = {**code.get("local", {}), **({code["module"]: code["file"]} if code["file"] else {})}
    for name, file in modules.items() if given else ():
        path = getattr(sys.modules.get(name), "__file__", None)
        if path and file in digests and _digest(Path(path)) != digests[file]:
            found.append(f"the module {name} ({path}) is not what was kept as code/{file}")
    return found


def _digest(path: Path) -> str:
    """Of a file's bytes; "" where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def imported(path: Path, module: str) -> tuple[str, ...]:
    """The names of the modules that the file of a module may import."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return _imports(path.read_bytes(), package)


@functools.lru_cache(maxsize=1024)  # of every run of a process; parsing takes longer than the rest
def _imports(source: bytes, inside: str) -> tuple[str, ...]:
    """The names that a module of the package `inside` may import."""
    names: list[str] = []
    package = inside.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name)


def local_modules(names: Iterable[str]) -> dict[str, Path]:
    """{module: file} of those of `names` that belong to the user's project, with all that these
    import in turn.
    """
    found: dict[str, Path] = {}
    todo, seen, packages = list(names), set[str](), set[str]()
    while todo:
        name = todo.pop()
        parents = name.split(".")
        for module in (".".join(parents[: i + 1]) for i in range(len(parents))):
            if module in seen:
                continue
            seen.add(module)
            file = _file_of(module)
            if file is None or not _is_local(file):
                continue
            found[module] = file
            todo += imported(file, module)
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            if package and package not in packages:
                packages.add(package)
                todo += [n for n in sys.modules if n.startswith(f"{package}.")]
    return found


def _file_of(module: str) -> Path | None:
    """Where a module is imported from; one that is imported later, where it is needed, is looked
    up, unless that would run its package.
    """
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if loaded is None and "." not in module:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
        file = None if spec is None else spec.origin  # "built-in" is no file of the user's
    return None if file is None else Path(file)


@functools.cache
def _is_local(file: Path) -> bool:
    """Whether a module is the user's own: a Python file outside jaxcnn and what is installed."""
    file = file.resolve()
    parts = file.parts
    return (
        file.suffix == ".py"
        and not file.is_relative_to(PACKAGE)
        and "site-packages" not in parts
        and "dist-packages" not in parts
        and not any(file.is_relative_to(p) for p in _installed())
    )


@functools.cache
def _installed() -> tuple[Path, ...]:
    """Where the standard library and packages are, the same for as long as Python runs."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in names)


def _modules_in(rendered: object) -> set[str]:
    """The modules of the classes and functions of a rendering."""
    if isinstance(rendered, list):
        return set().union(*map(_modules_in, rendered))
    if not isinstance(rendered, dict):
        return set()
    named = {
        v.partition(":")[0] for k, v in rendered.items() if k in ("type", "partial", "function")
    }
    return named.union(*map(_modules_in, rendered.values()))


def _keep_notebook(folder: Path) -> None:
    """The cells that were run so far, for a person to read."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        cells = [cell for cell in shell.user_ns.get("In", []) if cell.strip()]
        (folder / "notebook_cells.py").write_text("\n\n# %%\n".join(cells) + "\n")
