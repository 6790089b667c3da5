"""The site: the pages of this folder, and a reference made of the docstrings.

make docs-site      # or: python -m sphinx --fail-on-warning docs docs/_build
"""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

import jaxcnn  # noqa: E402

project, author = "jaxcnn", "the jaxcnn developers"
copyright = "the jaxcnn developers, Apache-2.0"
version = release = jaxcnn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # the log's days have no heading above them
nitpicky = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 88
html_theme = "pydata_sphinx_theme"
html_title = f"jaxcnn {version}"
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_sidebars = {"**": ["globaltoc.html"]}
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "navbar_center": [],  # all pages are in the sidebar
}

ROOMS = {  # the rooms of docs/design.md whose names are imported from their own files
    "core": "Experiments, programs, optimizers, schedules",
    "runs": "Training, runs, reports",
    "models": "Models",
    "tasks": "Tasks",
    "data": "Data sets and augmentation",
    "layers": "Layers",
    "ops": "Array functions",
    "metrics": "Metrics",
    "inspect": "Looking into networks",
    "weights": "Weights of others",
}


# what begins an item of a list in a docstring: "name: …", "name, other: …", "Args:", "- …"
ITEM = re.compile(r"`?[*\w.]+`?(, `?[*\w.]+`?)*: |\w+:$|- ")


def modules(room: str) -> list[str]:
    """The public modules of a room, jaxcnn.<room>.<…>, in order."""
    package = DOCS.parent / "jaxcnn"
    paths = sorted((package / room).rglob("*.py"))
    names = [path.relative_to(package.parent).with_suffix("").parts for path in paths]
    return [".".join(n) for n in names if not any(part.startswith("_") for part in n)]


def write_reference(app: object) -> None:
    """docs/reference/<room>.md: a section for each module of a room. Made by each build."""
    folder = DOCS / "reference"
    folder.mkdir(exist_ok=True)
    for room, title in ROOMS.items():
        parts = [f"# {title}\n"]
        for name in modules(room):
            module = f".. automodule:: {name}\n   :members:\n"
            parts.append(f"## {name}\n\n```{{eval-rst}}\n{module}```\n")
        page = folder / f"{room}.md"
        text = "\n".join(parts)
        if not page.exists() or page.read_text() != text:  # a page that is as it was is not made
            page.write_text(text)


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """A docstring of ours as reStructuredText: paragraphs, `code`, and "name: …" as lists."""
    blocks = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    lines[:] = "\n\n".join(filter(None, map(_block, blocks))).splitlines()


def _block(text: str) -> str:
    lines = text.splitlines()
    if all(line.startswith("    ") for line in lines):  # commands, formulas
        return "::\n\n" + text
    items = _items(lines)
    if len(items) == 1:
        return items[0][2:]
    return "\n".join(items)


def _items(lines: list[str], depth: int = 0) -> list[str]:
    """Lines as items of a list: what is indented below "Args:" is a list of its own, what is
    indented below anything else goes on.
    """
    listed = ITEM.match(lines[0].strip())  # else it is running text that holds a colon
    out: list[str] = []
    i = 0
    while i < len(lines):
        indent = _indent(lines[i])
        below = i + 1
        while below < len(lines) and _indent(lines[below]) > indent:
            below += 1
        head, rest = lines[i].strip(), lines[i + 1 : below]
        shift = "  " * depth
        starts = not out or (listed and ITEM.match(head))
        if head.endswith(":") and rest:
            out += [f"{shift}- {_inline(head)}", "", *_items(rest, depth + 1), ""]
        elif starts or not out[-1]:
            out.append(f"{shift}- {_inline(' '.join([head.removeprefix('- '), *_strip(rest)]))}")
        else:
            out[-1] += " " + _inline(" ".join([head, *_strip(rest)]))
        i = below
    return out


def _strip(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _inline(text: str) -> str:
    """Marks that mean something to reStructuredText are escaped; `code` becomes ``code``."""
    parts = re.split(r"`([^`]+)`", text)
    plain = [re.sub(r"([\\*_|`])", r"\\\1", part) for part in parts[::2]]
    code = [f"\\ ``{part.strip()}``\\ " for part in parts[1::2]]
    return "".join(a + b for a, b in zip(plain, [*code, ""], strict=True))


def setup(app) -> None:
    """Sphinx calls this."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", as_rst)
