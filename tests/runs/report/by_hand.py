"""Run directories that are written by hand, and fragments of pages as trees."""

import json
import re
from xml.etree import ElementTree

from jaxcnn.runs.open import Run

DATA = {
    "entries": [["image", [8, 8, 1], "uint8"], ["label", [], "int32"]],
    "label_names": ["cat", "dog"],
    "sizes": {"train": 50, "eval": 20},
}
RECORD = {
    "format": 2,
    "id": "0" * 32,
    "experiment": "by_hand",
    "code": {"file": None},
    "steps_per_dispatch": 1,
    "data": DATA,
    "rendered": {
        "type": "m:Experiment",
        "data": {"type": "m:Pets"},
        "model": {"type": "m:Net", "width": 4},
        "task": {"type": "m:Task", "metric": "accuracy", "larger_is_better": True},
        "steps": 10,
    },
    "environment": {"device": "a chip", "versions": {"jax": "0.7"}, "python": "3.12"},
}
SUMMARY = {
    "completed": True,
    "seconds": 12.5,
    "verdict": "completed",
    "step": 10,
    "epoch": 2.0,
    "eval": {"accuracy": 0.75},
    "num_params": 1234,
}


def step(number, **values):
    """A record of training."""
    own = {"kind": "train", "step": number, "epoch": number / 5, "seconds": float(number)}
    return own | values


def evaluation(number, **metrics):
    """A record of an evaluation."""
    return step(number) | {"kind": "eval", "metrics": metrics}


def write(folder, records=(), *, summary=SUMMARY, **changed):
    """The run in a folder that holds these records; `changed`: of run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(RECORD | changed))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return Run(folder)


def tree(markup):
    """A fragment of a page as an element."""
    closed = re.sub(r"<((?:br|wbr|img|meta)\b[^>]*[^/>]|br|wbr)>", r"<\1/>", markup)
    return ElementTree.fromstring(f"<main>{closed}</main>")


def words(element):
    """All text of an element."""
    return "".join(element.itertext())


def rows(element):
    """The cells of each row of its tables."""
    return [[words(cell) for cell in row] for row in element.iter("tr")]
