"""The faults that `make mutants` makes are faults, and its lists are those of the package."""

import ast
import json

import pytest

from tests.conftest import ROOT
from tests.mutants.__main__ import EQUIVALENT
from tests.mutants.mutations import mutants, replaced, sample
from tests.mutants.named import NAMED
from tests.mutants.nearest import LEFT_OUT, NEAREST

SOURCE = '''
def share(a, *, most=4) -> float | None:
    """A text of 3 words."""
    if a < most and not a == 2:
        raise ValueError(f"{a} is less than 1")
    return max(a + 1, most) if a else f(a, most, key=0)
'''


def test_each_fault_is_one_change_of_what_is_computed():
    found = mutants("share.py", SOURCE)
    texts = {mutant.source for mutant in found}
    assert len(texts) == len(found)
    for old, new in (
        ("a < most and", "(a <= most) and"),
        ("a < most and not a == 2", "((a < most) or (not a == 2))"),
        ("not a == 2", "(a == 2)"),
        ("most=4", "most=5"),
        ("most=4", "most=3"),
        ("max(a", "min(a"),
        ("f(a, most, key=0)", "f(most, a, key=0)"),
        ("f(a, most, key=0)", "f(a, most)"),
        ("a + 1", "((a) - (1))"),
        ("a < most and not a == 2", "False"),
        ("a < most and not a == 2", "True"),
    ):
        assert SOURCE.replace(old, new) in texts, new
    for mutant in found:
        ast.parse(mutant.source)
        for kept in ("A text of 3 words.", "is less than 1", "float | None"):
            assert kept in mutant.source
    assert sample(found, 5, seed=1) == sample(found, 5, seed=1) != sample(found, 5, seed=2)


def test_each_file_has_nearest_tests_that_exist():
    rooms = ("core", "runs", "metrics", "ops")
    there = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / "jaxcnn" / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert there == {p for p in NEAREST if p.split("/")[1] in rooms} | set(LEFT_OUT)
    assert all((ROOT / test).is_file() for tests in NEAREST.values() for test in tests)


@pytest.mark.parametrize("path, old, new, what", NAMED, ids=[one[3] for one in NAMED])
def test_named_faults_are_of_the_present_text(path, old, new, what):
    ast.parse(replaced(path, (ROOT / path).read_text(), old, new, what).source)


def test_what_is_no_fault_has_a_reason():
    for one in json.loads(EQUIVALENT.read_text()):
        assert len(one["why"]) > 10
        found = mutants(one["path"], (ROOT / one["path"]).read_text())
        assert (one["old"], one["new"]) in {(m.old, m.new) for m in found}, one["old"]
