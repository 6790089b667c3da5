"""The site holds every page, and builds without a warning where Sphinx is installed."""

import fnmatch
import re
import subprocess
import sys

import pytest

import jaxcnn
from jaxcnn.runs.code import module_of
from tests.conftest import ROOT

DOCS = ROOT / "docs"
WRITTEN = sorted([*DOCS.glob("*.md"), *(DOCS / "gallery").glob("*.md")])


def listed():
    """What the tables of contents of docs/index.md name, patterns among it."""
    tables = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.S)
    lines = [line for table in tables for line in table.splitlines()]
    return [line for line in lines if line and not line.startswith(":")]


def test_every_page_is_in_a_table_of_contents():
    pages = {str(p.relative_to(DOCS).with_suffix("")) for p in WRITTEN} - {"index"}
    missing = {p for p in pages if not any(fnmatch.fnmatchcase(p, name) for name in listed())}
    assert not missing
    plain = {name for name in listed() if "*" not in name}
    assert plain <= pages, "these are listed and not there"


def test_every_public_name_has_a_place():
    """In the reference, which is made of the modules of the rooms, and on docs/api.md."""
    configuration = module_of(DOCS / "conf.py")
    rooms = {name for room in configuration.ROOMS for name in configuration.modules(room)}
    homes = {f"jaxcnn.{home}" for home in jaxcnn._HOME.values()}
    assert homes <= rooms
    headings = set(re.findall(r"^### (\w+)$", (DOCS / "api.md").read_text(), re.M))
    assert set(jaxcnn._HOME) == headings


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Of `x` [B, C], *all* a_b.", r"Of \ ``x``\  [B, C], \*all\* a\_b."),
        ("a: one\n    more\nb: two", "- a: one more\n- b: two"),
        ("It is so\nor apart: as said.", "It is so or apart: as said."),
        ("First line\nsecond.\n\n    python x.py", "First line second.\n\n::\n\n    python x.py"),
    ],
)
def test_a_docstring_in_restructured_text(text, expected):
    lines = text.splitlines()
    module_of(DOCS / "conf.py").as_rst(None, "function", "f", None, None, lines)
    assert "\n".join(lines) == expected


def test_it_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "myst_parser", "pydata_sphinx_theme"):
        pytest.importorskip(package, reason="the site is built by `pip install 'jaxcnn[docs]'`")
    command = [sys.executable, "-m", "sphinx", "-q", "--fail-on-warning", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    core = (tmp_path / "reference" / "core.html").read_text()
    assert 'id="jaxcnn.core.experiment.Experiment"' in core
    assert (tmp_path / "gallery" / "convolution.html").exists()
    assert not re.search(r'(?:src|href)="https?://[^"]*\.(?:js|css|woff2?)', core), "it asks others"
