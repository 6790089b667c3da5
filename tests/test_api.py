"""The grammar of public names: dm_pix's idea of testing the style itself."""

import ast

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "jaxcnn"


def functions():
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield pytest.param(path, node, None, id=f"{path.relative_to(PACKAGE)}:{node.name}")
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for child in node.body:
                    if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                        yield pytest.param(
                            path,
                            child,
                            node,
                            id=f"{path.relative_to(PACKAGE)}:{node.name}.{child.name}",
                        )


@pytest.mark.parametrize("path, node, owner", list(functions()))
def test_grammar(path, node, owner):
    names = [a.arg for a in node.args.posonlyargs + node.args.args]
    assert "rng" not in names + [a.arg for a in node.args.kwonlyargs], "a PRNG key is called key"
    positional = [n for n in names if n not in ("self", "cls", "e", "experiment")]
    if "key" in positional and owner is None:
        objective = names[:1] == ["e"] and positional[-2:] == ["batch", "key"]
        assert positional.index("key") == 0 or objective, "key comes first, or last as objectives"
    assert not names or all(not n.endswith(("_fn", "_lib")) for n in names)


# Signatures of somebody else (optax, jax.nn.initializers), and what users type all day.
POSITIONAL_OPTIONS = (
    *("core/optimizers.py:", "core/program.py:", "commands/_main.py:main"),
    *("models/speed.py:dirac", "models/super_resolution.py:small"),
    *("runs/open.py:", "runs/train.py:train"),
)


@pytest.mark.parametrize("path, node, owner", list(functions()))
def test_options_are_keyword_only(path, node, owner):
    place = f"{path.relative_to(PACKAGE)}:{owner.name + '.' if owner else ''}{node.name}"
    count = len(node.args.args) - len(node.args.defaults)
    options = [a.arg for a in node.args.args[count:]]
    if not place.startswith(POSITIONAL_OPTIONS):
        assert not options, f"{place}: {options} have defaults, so they are keyword-only"


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_modules_classes_and_functions_say_what_they_are_for(path):
    tree = ast.parse(path.read_text())
    if tree.body:
        assert ast.get_docstring(tree), f"{path}: no docstring"
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if public and "commands" not in path.parts and len(node.body) > 1:
            assert ast.get_docstring(node), f"{path.name}:{node.lineno} {node.name}: no docstring"


def test_files_stay_readable():
    long = {p.name: n for p in PACKAGE.rglob("*.py") if (n := p.read_text().count("\n")) > 350}
    assert not long, f"split them: {long}"


def test_no_place_of_a_machine_is_named():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "experiments").glob("*.py"), ROOT / "README.md"]:
        assert (
            str(ROOT.parent) + "/" not in path.read_text() if len(str(ROOT.parent)) > 1 else True
        ), path
