"""docs/api.md is what docs/make_api.py makes, and its signatures are those that Python sees."""

import inspect

import jaxcnn
from jaxcnn.runs.code import module_of
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "api.md"


def test_it_is_up_to_date():
    made = module_of(ROOT / "docs" / "make_api.py").page()
    assert made == PAGE.read_text(), "run `python docs/make_api.py`"


def test_every_public_name_is_there_with_all_its_arguments():
    text = PAGE.read_text()
    for name in jaxcnn.__all__:
        if name.startswith("__"):
            continue
        section = text.partition(f"### {name}\n")[2].partition("\n###")[0]
        assert section, name
        found = getattr(jaxcnn, name)
        if inspect.isfunction(found):
            missing = [p for p in inspect.signature(found).parameters if p not in section]
            assert not missing, f"{name}: {missing}"
