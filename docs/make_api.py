"""Writes docs/api.md: the public names with their signatures and the first paragraphs of their
docstrings, read from the source.

    python docs/make_api.py
"""

import ast
import inspect
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import jaxcnn  # noqa: E402
from jaxcnn.core.batch import ENTRIES, Entry  # noqa: E402

HEAD = """# The public names

Everything here is `jaxcnn.<name>`; importing `jaxcnn` imports nothing heavy before a name is used.
This page is made by `python docs/make_api.py` from the source, and a test compares the two. In use:
[tutorial.md](tutorial.md), [howto.md](howto.md). What is not here (models, tasks, data sets,
augmentations, layers) is imported from its own file: `from jaxcnn.models.lenet import LeNet5`.
Arguments, shapes and errors: `help(jaxcnn.train)`.
"""
FILES = {name: f"jaxcnn/{place.replace('.', '/')}.py" for name, place in jaxcnn._HOME.items()}


def page() -> str:
    """The text of docs/api.md."""
    parts = [HEAD]
    for file in dict.fromkeys(FILES.values()):
        parts.append(f"## `{file}`\n")
        tree = ast.parse((ROOT / file).read_text())
        parts += [entry(name, tree) for name, place in FILES.items() if place == file]
    return "\n".join([*parts, entries()])


def entries() -> str:
    """The table of a batch's entries (`jaxcnn/core/batch.py`)."""
    head = ("entry", "axes", "stored as", "what it holds", "padding", "ignored")
    rows = [
        (f"`{name}`", e.axes, " or ".join(e.dtypes), e.meaning, e.padding, e.ignored)
        for name, e in ENTRIES.items()
    ]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return f"## The entries of a batch\n\n{inspect.getdoc(Entry)}\n\n" + "\n".join(lines) + "\n"


def entry(name: str, tree: ast.Module) -> str:
    """Heading, signature and first paragraph of a name that a module defines."""
    node = next(n for n in tree.body if name in _names(n))
    methods = ""
    if isinstance(node, ast.FunctionDef):
        shown, text = signature(node), first_paragraph(node)
    elif isinstance(node, ast.ClassDef):
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
        calls = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        init = next((n for n in calls if n.name == "__init__"), None)
        call = next((n for n in calls if n.name == "__call__"), None)
        one = init or call
        shown = signature(one, name) if one else _joined(name, [ast.unparse(f) for f in fields])
        text = first_paragraph(node)
        methods = "".join(
            f"- `{_dotted(name, n)}`: {first_paragraph(n)}\n" for n in calls if n.name[0] != "_"
        )
    else:
        shown, text = ast.unparse(node), first_paragraph(tree)
    shown = f"### {name}\n\n```\n{shown}\n```\n\n{text}\n"
    return shown + (f"\n{methods}" if methods else "")


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    return [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []


def signature(node: ast.FunctionDef, name: str | None = None) -> str:
    """`name(…) -> …` as it is written, one argument a line where it is long."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    shown = [_argument(p, d) for p, d in zip(positional, defaults, strict=True) if p.arg != "self"]
    if a.posonlyargs:
        shown.insert(len([p for p in a.posonlyargs if p.arg != "self"]), "/")
    if a.vararg or a.kwonlyargs:
        shown.append(f"*{ast.unparse(a.vararg)}" if a.vararg else "*")
    shown += [_argument(p, d) for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    if a.kwarg:
        shown.append(f"**{ast.unparse(a.kwarg)}")
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _joined(name or node.name, shown, result)


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    if default is None:
        return ast.unparse(argument)
    equals = " = " if argument.annotation else "="
    return f"{ast.unparse(argument)}{equals}{ast.unparse(default)}"


def _joined(name: str, arguments: list[str], result: str = "") -> str:
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {a}," for a in arguments), f"){result}"])


def _dotted(owner: str, node: ast.FunctionDef) -> str:
    """A method as it is called, a property without parentheses."""
    decorators = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
    if decorators & {"property", "cached_property"}:
        return f".{node.name}"
    head = owner if "staticmethod" in decorators else ""
    return f"{head}.{' '.join(signature(node).split())}"


def first_paragraph(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """Of a docstring, in one line; without a final colon's list."""
    text = inspect.cleandoc(ast.get_docstring(node) or "").partition("\n\n")[0]
    text = text.partition("\nErrors:")[0]
    return " ".join(textwrap.dedent(text).split())


if __name__ == "__main__":
    (ROOT / "docs" / "api.md").write_text(page())
