"""What the documentation shows is true: its code runs, its commands parse, its paths exist."""

import importlib.util
import subprocess
import sys

import pytest

from jaxcnn.commands import _main
from jaxcnn.core.override import override_all
from jaxcnn.data.made.digits import Digits
from jaxcnn.runs import code
from jaxcnn.runs.check import abstract_state
from jaxcnn.runs.sweep import parse
from tests.conftest import ROOT
from tests.docs import pages
from tests.rounding import quick_environment

RUN = ("README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/howto.md")
# LOG and CHANGELOG tell of the past, and performance.md of when its figures were taken
CURRENT = [p for p in pages.PAGES if p.name not in ("LOG.md", "CHANGELOG.md", "performance.md")]
MARKED = [(page, b) for page in RUN for b in pages.blocks(ROOT / page) if b.needs is not None]


def have():
    """The packages that marked blocks need and that are here."""
    return {b.needs for _, b in MARKED if importlib.util.find_spec(b.needs)}


@pytest.mark.parametrize("page", RUN)
def test_the_code_runs(page, tmp_path):
    """The blocks of a page, in one process of their own, without a file, as in a notebook."""
    (tmp_path / "page.py").write_text(pages.script(ROOT / page, have()))
    start = f"exec(compile(open('page.py').read(), {page!r}, 'exec'))"
    quickly = quick_environment()  # much is compiled, little run
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=tmp_path, capture_output=True, text=True, env=quickly
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page, block", MARKED, ids=lambda x: getattr(x, "needs", x))
def test_what_a_block_needs_is_here(page, block):
    """So that a report of the tests says which blocks were left out."""
    compile(block.code, page, "exec")
    if block.needs not in have():
        pytest.skip(
            f"{page}, line {block.line}: {block.needs} is not installed, the block was not run"
        )


@pytest.mark.parametrize(
    "page, line, arguments",
    [(page.relative_to(ROOT), *found) for page in CURRENT for found in pages.commands(page)],
    ids=lambda x: " ".join(x) if isinstance(x, list) else str(x),
)
def test_the_commands_parse(page, line, arguments, monkeypatch, tmp_path):
    """By the parser of the command line; experiments, overrides and axes of sweeps exist, and the
    state of those whose data are embedded can be made.
    """
    for path, text in pages.saved(ROOT / page).items():
        (tmp_path / "saved.py").write_text(text)
        arguments = [str(tmp_path / "saved.py") if a == path else a for a in arguments]
    monkeypatch.chdir(ROOT)
    seen = []
    for verb in _main.VERBS:
        module = importlib.import_module(f"jaxcnn.commands.{verb}")
        monkeypatch.setattr(module, "main", lambda args: seen.append(args) or 0)
    assert _main.main(arguments) == 0
    (args,) = seen
    if getattr(args, "experiment", None) and getattr(args, "resume", None) is None:
        overrides = list(getattr(args, "overrides", ()))
        if "=" in args.experiment:
            overrides.insert(0, args.experiment)
            args.experiment = code.DEFAULT
        e = override_all(code.load(args.experiment), overrides)
        parse(e, getattr(args, "sweep", None) or [])
        if isinstance(e.data, Digits):
            abstract_state(e)


@pytest.mark.parametrize("page", [*pages.PAGES, *pages.GALLERY], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    missing = [link for link in pages.links(page) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", CURRENT, ids=lambda p: p.name)
def test_the_files_that_are_named_exist(page):
    places = (ROOT, ROOT / "jaxcnn", page.parent)
    missing = [p for p in pages.paths(page) if not any((place / p).exists() for place in places)]
    assert not missing
