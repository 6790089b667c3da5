"""docs/notebook.ipynb runs from top to bottom, and what it shows was made by doing so."""

import re

import nbformat
import pytest

from jaxcnn.runs.code import module_of
from tests.conftest import ROOT

RUNNER = module_of(ROOT / "docs" / "run_notebook.py")
ABSOLUTE = re.compile(r"/(?:home|root|tmp|var|opt|usr|work|Users)/[^\s\"'<]*")


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(RUNNER.NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(committed, tmp_path_factory):
    return RUNNER.execute(nbformat.from_dict(committed), tmp_path_factory.mktemp("notebook"))


def outputs(notebook, name):
    (cell,) = [cell for cell in notebook.cells if cell.id == name]
    return cell.outputs


def kinds(notebook):
    """The kinds of each cell's outputs: numbers and pictures differ from machine to machine."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {c.id: [(o.output_type, sorted(o.get("data", []))) for o in c.outputs] for c in cells}


def test_it_shows_what_running_it_shows(committed, executed):
    assert kinds(committed) == kinds(executed), "run `python docs/run_notebook.py`"


def test_a_stopped_run_is_one_line(executed):
    (error,) = [o for o in outputs(executed, "interrupt") if o.output_type == "error"]
    assert error.ename == "Preempted"
    assert error.traceback == [f"Preempted: {error.evalue}"]
    assert "state saved" in error.evalue


def test_the_resumed_run_ends_at_the_last_step(executed):
    html = outputs(executed, "resume")[-1].data["text/html"]
    assert "90" in re.findall(r"<td[^>]*>([^<]*)</td>", html)
    assert float(outputs(executed, "evaluate")[-1].data["text/plain"]) > 0.9


def test_it_is_small_and_names_no_place_of_the_machine_that_ran_it(committed):
    text = RUNNER.NOTEBOOK.read_text()
    assert len(text.encode()) < 200_000
    assert all(path.startswith(RUNNER.SHOWN) for path in ABSOLUTE.findall(text))
    assert all(kind for name, kind in kinds(committed).items() if name != "experiment")
