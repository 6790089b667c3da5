"""Runs docs/notebook.ipynb from top to bottom and keeps what it shows.

python docs/run_notebook.py      # needs nbclient and ipykernel: pip install 'jaxcnn[test]'
"""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")
SHOWN = "/home/you"  # in place of the folder in which the notebook ran


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook as it is after a run in `folder`, with no trace of where that is, or when.

    Errors: nbclient.exceptions.CellExecutionError for a cell that fails and is not tagged
    "raises-exception".
    """
    options = {"resources": {"metadata": {"path": str(folder)}}, "record_timing": False}
    done = NotebookClient(notebook, timeout=300, kernel_name="python3", **options).execute()
    done.metadata = {"kernelspec": dict(done.metadata.kernelspec)}
    places = {str(folder.resolve()), str(folder)}
    for cell in done.cells:
        for output in cell.get("outputs", []):
            _scrub(output, places)
    return done


def _scrub(node: nbformat.NotebookNode, places: set[str]) -> None:
    """Replace the places in every string of an output."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        if isinstance(value, str):
            for place in places:
                value = value.replace(place, SHOWN)
            node[key] = value
        elif isinstance(value, dict | list):
            _scrub(value, places)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        ready = execute(nbformat.read(NOTEBOOK, as_version=4), Path(place))
    nbformat.write(ready, NOTEBOOK)
