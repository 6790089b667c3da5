"""What is imported is declared, and what is declared has a least version that is tested."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.conftest import ROOT
from tests.oldest import oldest
from tests.test_imports import files

# frameworks to compare with, and a format of one: whoever has such files has the package
OF_OTHERS = {"torch", "torchvision", "timm", "keras"}


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared():
    """Names of all distributions in pyproject.toml, with those of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {plain(re.match(r"[\w.-]+", text)[0]) for one in lists for text in one}


def test_every_import_of_the_package_is_of_a_declared_dependency():
    of_module = packages_distributions()
    known, undeclared = declared(), set()
    for path in [*files(), *(ROOT / "experiments").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for module in {name.split(".")[0] for name in names} - {"jaxcnn"} - OF_OTHERS:
                distributions = {plain(name) for name in of_module.get(module, [module])}
                if module not in sys.stdlib_module_names and not distributions & known:
                    undeclared.add((module, path.name))
    assert not undeclared


def numbers(version):
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_the_pinned_versions_are_allowed():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {plain(name): version for name, version in pinned.items()}
    for name, least in oldest().items():
        assert numbers(pinned[plain(name)]) >= numbers(least), f"{name} is older in constraints.txt"
