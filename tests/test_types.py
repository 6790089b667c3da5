"""Types: Any is rare where programs and runs are made, protocols are kept, pyright is content."""

import ast
import importlib.util
import re
import subprocess
import sys

import pytest

from jaxcnn.core.experiment import members
from jaxcnn.data.dataset import Dataset, Source
from jaxcnn.data.made.digits import Digits
from jaxcnn.data.made.synthetic import Synthetic
from jaxcnn.tasks.binary import BinaryClassification
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import Task
from tests.conftest import ROOT

PACKAGE = ROOT / "jaxcnn"
ROOMS = ("core", "runs")
BOUND = 10  # uses of Any in 1,000 lines
ALIASES = {"Tree", "Device", "Json"}  # what Any stands for where it must; each says why


def sources():
    return {path: path.read_text() for room in ROOMS for path in (PACKAGE / room).glob("*.py")}


def uses_of_any(tree):
    """The names Any, in annotations that are written as text, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "Any":
            yield node.lineno
        elif isinstance(node, ast.arg) and isinstance(node.annotation, ast.Constant):
            yield from [node.lineno] * len(re.findall(r"\bAny\b", str(node.annotation.value)))


def test_any_is_rare_where_programs_and_runs_are_made():
    count = {path.name: len([*uses_of_any(ast.parse(text))]) for path, text in sources().items()}
    lines = sum(text.count("\n") for text in sources().values())
    rate = 1000 * sum(count.values()) / lines
    most = sorted(count.items(), key=lambda item: -item[1])[:5]
    assert rate <= BOUND, f"{rate:.1f} Any in 1,000 lines; most in {most}"


def test_any_has_few_other_names():
    found = {
        target.id
        for text in sources().values()
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name)
        for target in node.targets
        if isinstance(target, ast.Name) and node.value.id == "Any"
    }
    assert found == ALIASES


# a default for a name that is written out hides a value that does not keep its protocol
OF_PYTHON = {
    "__file__",
    "__name__",
    "__qualname__",
    "lineno",
    "experiment",
}  # of modules, functions and errors


def test_no_attribute_is_asked_for_that_may_be_missing():
    found = [
        f"{path.name}:{node.lineno} {node.args[1].value!r}"
        for path, text in sources().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and len(node.args) == 3
        and isinstance(node.args[1], ast.Constant)
        and node.args[1].value not in OF_PYTHON
    ]
    assert not found, f"use the protocol, or isinstance: {found}"


@pytest.mark.parametrize(
    "value, protocol",
    [
        (Classification(num_classes=3), Task),
        (BinaryClassification(), Task),
        (Digits(), Dataset),
        (Synthetic(), Dataset),
        (Synthetic().open("train"), Source),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_values_have_what_their_protocol_names(value, protocol):
    assert members(protocol)
    assert [name for name in members(protocol) if not hasattr(value, name)] == []


def test_what_a_protocol_names():
    """All of it is read-only, so that frozen dataclasses keep it."""
    named = {"inputs", "metric", "larger_is_better", "any_size", "training_inputs"}
    assert named <= set(members(Task))
    assert {"loss", "statistics", "records", "running", "summarize", "predict"} <= set(
        members(Task)
    )
    assert set(members(Dataset)) == {"label_names", "spec", "size", "open"}
    assert all(isinstance(vars(Task)[name], property) for name in named)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("pyright") is None, reason="pyright is not installed: it is in `dev`"
)
@pytest.mark.parametrize("options", [(), ("-p", "pyright-strict.json")], ids=["basic", "strict"])
def test_pyright_finds_nothing(options):
    command = [sys.executable, "-m", "pyright", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-5000:]
