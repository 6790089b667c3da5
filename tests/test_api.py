"""The grammar of public names: dm_pix's idea of testing the style itself."""

import ast

from tests.conftest import ROOT

PACKAGE = ROOT / "jaxcnn"


def functions():
    """(place, function, class or None) of all public ones of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{path.relative_to(PACKAGE)}:{node.name}", node, None
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for child in node.body:
                    if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                        place = f"{path.relative_to(PACKAGE)}:{node.name}.{child.name}"
                        yield place, child, node


def test_grammar():
    wrong = []
    for place, node, owner in functions():
        names = [a.arg for a in node.args.posonlyargs + node.args.args]
        if "rng" in names + [a.arg for a in node.args.kwonlyargs]:
            wrong.append(f"{place}: a PRNG key is called key")
        positional = [n for n in names if n not in ("self", "cls", "e", "experiment")]
        if "key" in positional and owner is None:
            objective = names[:1] == ["e"] and positional[-2:] == ["batch", "key"]
            if positional.index("key") != 0 and not objective:
                wrong.append(f"{place}: key comes first, or last as objectives")
        wrong += [f"{place}: {n}" for n in names if n.endswith(("_fn", "_lib"))]
    assert not wrong


# Signatures of somebody else (optax, jax.nn.initializers), and what users type all day.
POSITIONAL_OPTIONS = (
    *("core/optimizers.py:", "core/program.py:", "commands/_main.py:main"),
    *("models/speed.py:dirac", "models/super_resolution.py:small"),
    *("runs/open.py:", "runs/train.py:train"),
)


def test_options_are_keyword_only():
    wrong = {}
    for place, node, _ in functions():
        count = len(node.args.args) - len(node.args.defaults)
        options = [a.arg for a in node.args.args[count:]]
        if options and not place.startswith(POSITIONAL_OPTIONS):
            wrong[place] = options
    assert not wrong, "they have defaults, so they are keyword-only"


def test_modules_classes_and_functions_say_what_they_are_for():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if tree.body and not ast.get_docstring(tree):
            wrong.append(str(path))
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            needed = public and "commands" not in path.parts and len(node.body) > 1
            if needed and not ast.get_docstring(node):
                wrong.append(f"{path}:{node.lineno} {node.name}")
    assert not wrong, "no docstring"


def test_files_stay_readable():
    long = {p.name: n for p in PACKAGE.rglob("*.py") if (n := p.read_text().count("\n")) > 350}
    assert not long, f"split them: {long}"


def test_no_place_of_a_machine_is_named():
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "experiments").glob("*.py"), ROOT / "README.md"]:
        assert (
            str(ROOT.parent) + "/" not in path.read_text() if len(str(ROOT.parent)) > 1 else True
        ), path
