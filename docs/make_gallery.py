"""Runs the scripts of docs/gallery and writes a page of each, docs/gallery/NAME.md: its text, its
picture (docs/images/gallery/NAME.png), what it prints, and its code.

    python docs/make_gallery.py [NAME …]     # needs matplotlib: pip install 'jaxcnn[plots]'
"""

import ast
import contextlib
import io
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "images" / "gallery"
ORDER = (  # as the index has them
    "convolution", "padding", "stride", "pooling", "receptive_field", "dimensions", "filters",
    "why_convolutions", "backpropagation", "lrn", "dropout", "inception", "residuals",
    "augmentation",
)  # fmt: skip
HEAD = """# Gallery

Each concept of convolutional networks as one short script with one picture. They run as they are,
in a few seconds: `python docs/gallery/convolution.py` draws `convolution.png` (needs matplotlib:
`pip install 'jaxcnn[plots]'`). Tests run them all and compare their numbers with brute force
(`tests/docs/test_gallery.py`). These pages are made by `python docs/make_gallery.py`.
"""


def run(name: str, folder: Path) -> tuple[dict[str, Any], str]:
    """(the names that a script has defined at its end, what it printed), run in `folder`, where its
    picture then lies.
    """
    printed = io.StringIO()
    with _beside_the_scripts(), contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        names = runpy.run_path(str(DOCS / "gallery" / f"{name}.py"))
    return names, printed.getvalue()


@contextlib.contextmanager
def _beside_the_scripts() -> Iterator[None]:
    """As Python has it for `python docs/gallery/NAME.py`: neighbours can be imported."""
    sys.path.insert(0, str(DOCS / "gallery"))
    try:
        yield
    finally:
        sys.path.pop(0)


def parts(name: str) -> tuple[str, str, str]:
    """(title, text, code) of a script."""
    source = (DOCS / "gallery" / f"{name}.py").read_text()
    tree = ast.parse(source)
    title, _, text = (ast.get_docstring(tree) or "").partition("\n\n")
    return title, text, "\n".join(source.splitlines()[tree.body[0].end_lineno or 0 :]).strip()


def page(name: str, printed: str) -> str:
    """The text of docs/gallery/NAME.md."""
    title, text, code = parts(name)
    picture = f"![{title}](../images/gallery/{name}.png)"
    shown = f"## It prints\n\n```text\n{printed.strip()}\n```"
    listing = f"## The script\n\n`docs/gallery/{name}.py`\n\n```python\n{code}\n```"
    return "\n\n".join((f"# {title}", text, picture, shown, listing)) + "\n"


def index() -> str:
    """The text of docs/gallery/README.md: titles and pictures."""
    shown = [HEAD]
    for name in ORDER:
        title, text, _ = parts(name)
        first = " ".join(text.partition("\n\n")[0].split())
        link = f"## [{title}]({name}.md)\n\n{first}\n"
        shown.append(f"{link}\n[![{title}](../images/gallery/{name}.png)]({name}.md)\n")
    return "\n".join(shown)


def main(names: list[str]) -> None:
    """Draw and write the pages of `names`, all by default, and the index."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in names or ORDER:
        _, printed = run(name, PICTURES)
        (DOCS / "gallery" / f"{name}.md").write_text(page(name, printed))
    (DOCS / "gallery" / "README.md").write_text(index())


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main(sys.argv[1:])
