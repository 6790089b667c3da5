"""The import arrows of docs/design.md, read off the syntax trees; and what importing
must not do.
"""

import ast
import subprocess
import sys

from tests.conftest import ROOT

PACKAGE = ROOT / "jaxcnn"
# room -> rooms of jaxcnn that it may import from, besides itself and errors
ALLOWED = {
    "errors": set(),
    "ops": set(),
    "layers": {"ops"},
    "metrics": {"ops"},
    "models": {"ops", "layers", "metrics"},
    # the table of entries imports nothing
    "tasks": {"ops", "layers", "metrics", "core.batch"},
    "data": {"ops", "layers", "metrics", "core.batch"},
    "core": {"data.dataset", "tasks.task"},  # the protocols of what an experiment names
    # one reader of arrays, with one set of checks
    "weights": {"core", "data.files.npz", "data.files.archives"},
    "inspect": {"core", "ops", "layers", "models"},
    "bench": {"core", "data", "inspect", "models", "ops", "runs", "tasks"},
    # which of two runs is right more often is a test of shares
    "runs": {"core", "data", "tasks", "ops", "weights", "inspect", "metrics.shares"},
    "commands": {"core", "runs", "data", "models", "inspect", "bench", "ops", "weights"},
}
FORBIDDEN_AT_TOP = {
    "tensorflow",
    "tensorflow_datasets",
    "sklearn",
    "PIL",
    "torch",
    "scipy",
    "matplotlib",
    "tensorboardX",
    "wandb",
    "mlflow",
    "trackio",
    "rich",
}


def files():
    return sorted(
        p for p in PACKAGE.rglob("*.py") if "experiments" not in p.relative_to(PACKAGE).parts
    )


def floor(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def test_arrows():
    wrong = []
    for path in files():
        here = floor(path)
        for node, name in imports(ast.parse(path.read_text())):
            if not name.startswith("jaxcnn.") or here == "__init__":
                continue
            assert here in ALLOWED, (
                f"{here}: a new floor; add its arrows here and to docs/design.md"
            )
            fits = name.split(".")[1] in (here, "errors", "__version__") or any(
                name[7:] == a or name[7:].startswith(f"{a}.") for a in ALLOWED[here]
            )
            if not fits:
                wrong.append(f"{path}:{node.lineno}: {here} imports {name}")
    assert not wrong


def test_heavy_packages_are_imported_where_they_are_used():
    wrong = []
    for path in files():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [name for _, name in imports(ast.Module([node], []))]
                heavy = FORBIDDEN_AT_TOP & {name.split(".")[0] for name in names}
                wrong += [f"{path}:{node.lineno} imports {name} at the top" for name in heavy]
    assert not wrong


def test_importing_jaxcnn_imports_nothing_else():
    code = (
        "import sys; import jaxcnn; print([m for m in ('jax', 'numpy', 'tensorflow', 'flax') "
        "if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        ).stdout.strip()
        == "[]"
    )


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_circles():
    """Not within a function, not for types alone: every import of a module of ours is an arrow."""
    modules = {module_name(path): path for path in files()}
    arrows = {name: set() for name in modules}
    for name, path in modules.items():
        for _, imported in imports(ast.parse(path.read_text())):
            target = imported if imported in modules else imported.rpartition(".")[0]
            if target in modules and target not in (name, "jaxcnn"):
                arrows[name].add(target)
    done, way = set(), []

    def visit(name):
        assert name not in way, f"a circle: {' -> '.join([*way[way.index(name) :], name])}"
        if name not in done:
            way.append(name)
            for target in sorted(arrows[name]):
                visit(target)
            done.add(way.pop())

    for name in sorted(arrows):
        visit(name)


def test_few_doors():
    """A newcomer who lists the package sees rooms, not files."""
    entries = [p.name for p in PACKAGE.iterdir() if not p.name.startswith("__")]
    assert len(set(entries) - {"experiments"}) <= 14, entries
