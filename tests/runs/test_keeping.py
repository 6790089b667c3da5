"""Which code a run keeps, and how it notices that it is another's."""

import hashlib
import importlib
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy
import pytest

from jaxcnn.runs import keeping
from jaxcnn.runs.environment import PACKAGE
from jaxcnn.runs.keeping import Origin
from tests.tiny import tiny

FILES = {
    "mine_kept.py": "import json, numpy, jaxcnn\nimport helper_kept as h, pack_kept.sub\n",
    "helper_kept.py": "import mine_kept\nfrom spaced_kept import one\n"
    "def late():\n    import later_kept, lazy_kept.part\n",
    "later_kept.py": "import no_such_module, sys, zipimport\n",
    "pack_kept/__init__.py": "from . import inner\n",
    "pack_kept/inner.py": "from .deep.leaf import x\n",
    "pack_kept/sub.py": "",
    "pack_kept/deep/__init__.py": "",
    "pack_kept/deep/leaf.py": "from ..other import y\nx = 1\n",
    "pack_kept/other.py": "y = 2\nfrom alone_kept import z\n",
    "alone_kept/__init__.py": "z = 3\n",
    "alone_kept/by_name.py": "",
    "spaced_kept/one.py": "",
    "spaced_kept/by_name.py": "",
    "lazy_kept/__init__.py": "raise AssertionError('was run')\n",
    "lazy_kept/part.py": "",
    "extra_kept/__init__.py": "",
    "extra_kept/options.py": "fast = 1\n",
    "unrelated_kept.py": "",
}
# all but what nobody imports, and part, which only running its package could find
KEPT = {file for file in FILES if not file.startswith(("mine", "unrelated", "lazy_kept/part"))}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of several modules, imported as an experiment would."""
    folder = tmp_path / "project"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    importlib.import_module("mine_kept")
    for name in ("alone_kept.by_name", "spaced_kept.by_name", "extra_kept.options"):
        importlib.import_module(name)  # as a program does that finds modules by their names
    yield folder
    for name in [name for name in sys.modules if "_kept" in name]:
        del sys.modules[name]


def keep(project, folder, *overrides):
    origin = Origin(project / "mine_kept.py", "mine_kept", overrides)
    return keeping.keep(folder, tiny(), origin)


def test_the_file_and_all_of_its_project_that_it_may_import_are_kept(project, tmp_path):
    folder = tmp_path / "run" / "code"
    overrides = ("steps=3", "model=extra_kept.options.fast")
    found = keep(project, folder, *overrides)
    assert found == json.loads(json.dumps(found))
    assert found["file"] == "mine_kept.py"
    assert found["module"] == "mine_kept"
    assert found["source"] == str(project / "mine_kept.py")
    assert found["overrides"] == [*overrides]
    modules = {n.removesuffix(".py").removesuffix("/__init__").replace("/", "."): n for n in KEPT}
    assert found["local"] == modules
    assert set(found["sha256"]) == KEPT | {"mine_kept.py"}
    for name, digest in found["sha256"].items():
        assert (folder / name).read_bytes() == (project / name).read_bytes()
        assert digest == hashlib.sha256(FILES[name].encode()).hexdigest()[:16]
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    assert kept == set(found["sha256"])
    assert keep(project, folder, *overrides) == found  # once more, over the first


def test_without_an_override_that_names_it_a_module_is_not_kept(project, tmp_path):
    local = keep(project, tmp_path / "code", "steps=3")["local"]
    assert not [name for name in local if name.startswith("extra_kept")]


def doubled(batch):
    return batch


@pytest.mark.parametrize("shell", ["none", "IPython without a shell", "a notebook"])
def test_of_an_experiment_made_in_python_its_modules_and_cells_are_kept(
    tmp_path, monkeypatch, shell
):
    cells = ["", "a = 1", " \n", "b = 2\nc = 3"]
    shells = {
        "none": None,
        "IPython without a shell": SimpleNamespace(get_ipython=lambda: None),
        "a notebook": SimpleNamespace(
            get_ipython=lambda: SimpleNamespace(user_ns={"In": cells})
        ),
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, "IPython", shells[shell])
    found = keeping.keep(tmp_path / "code", tiny(augment=(partial(doubled),)), None)
    assert found["file"] is None
    assert found["local"]["tests.tiny"] == "tests/tiny.py"  # of its model
    assert found["local"][__name__] == "tests/runs/test_keeping.py"  # of a function in a list
    assert not [name for name in found["local"] if name.startswith(("jaxcnn", "optax"))]
    assert set(found["sha256"]) == set(found["local"].values())
    place = tmp_path / "code" / "notebook_cells.py"
    if shell == "a notebook":
        assert place.read_text() == "a = 1\n\n# %%\nb = 2\nc = 3\n"
    else:
        assert not place.exists()


def test_a_module_without_a_specification_is_found_by_its_file(project, monkeypatch):
    """As one that was loaded from its file by hand."""
    module = ModuleType("by_hand_kept")
    module.__file__ = str(project / "unrelated_kept.py")
    monkeypatch.setitem(sys.modules, "by_hand_kept", module)
    assert keeping.local_modules(["by_hand_kept"]) == {
        "by_hand_kept": project / "unrelated_kept.py"
    }


@pytest.mark.parametrize(
    "file, local",
    [
        ("/home/a/mine.py", True),
        ("/home/a/mine.so", False),
        ("/home/a/.venv/lib/python3/site-packages/mine.py", False),
        ("/usr/lib/python3/dist-packages/mine.py", False),
        (json.__file__, False),
        (numpy.__file__, False),
        (PACKAGE / "runs" / "keeping.py", False),
        (PACKAGE.parent / "mine.py", True),
    ],
    ids=[
        "mine",
        "compiled",
        "installed",
        "of-the-system",
        "of-python",
        "numpy",
        "jaxcnn",
        "beside",
    ],
)
def test_what_is_installed_is_nobodys_own(file, local):
    assert keeping._is_local(Path(file)) == local


@pytest.mark.parametrize(
    "file, module, text, names",
    [
        ("a.py", "a", "import b.c, d as e", {"b.c", "d"}),
        ("a.py", "a", "from b import c, d as e", {"b", "b.c", "b.d"}),
        ("b.py", "a.b", "from c.d import e", {"c.d", "c.d.e"}),
        ("b.py", "a.b", "from . import c", {"a", "a.c"}),
        ("b.py", "a.b", "from .c import d", {"a.c", "a.c.d"}),
        ("c.py", "a.b.c", "from .. import d", {"a", "a.d"}),
        ("c.py", "a.b.c", "from ..d.e import f", {"a.d.e", "a.d.e.f"}),
        ("__init__.py", "a", "from . import b", {"a", "a.b"}),
        ("__init__.py", "a.b", "from ..c import d", {"a.c", "a.c.d"}),
        ("a.py", "a", "if x:\n  def f():\n    import b", {"b"}),
        ("a.py", "a", "x = 'import b'", set()),
    ],
)
def test_the_names_that_a_module_may_import(tmp_path, file, module, text, names):
    """As Python's language reference resolves them."""
    (tmp_path / file).write_text(text)
    assert set(keeping.imported(tmp_path / file, module)) == names


def test_kept_code_that_was_edited_or_removed_is_named(project, tmp_path):
    run = tmp_path / "run"
    record = {"code": keep(project, run / "code")}
    assert keeping.changed(run, record) == []
    assert keeping.changed(run, record, given=True) == []
    (run / "code/helper_kept.py").write_text("x = 1\n")
    (run / "code/pack_kept/sub.py").unlink()
    wanted = {"code/helper_kept.py was edited", "code/pack_kept/sub.py is gone"}
    assert set(keeping.changed(run, record)) == wanted
    older = {"code": {**record["code"], "sha256": {}}}  # of before there were digests
    del older["code"]["sha256"]
    assert keeping.changed(run, older) == []
    assert keeping.changed(run, older, given=True) == []


def test_modules_of_a_given_experiment_that_are_others_are_named(project, tmp_path):
    run = tmp_path / "run"
    record = {"code": keep(project, run / "code")}
    (project / "mine_kept.py").write_text("x = 1\n")
    (project / "helper_kept.py").write_text("x = 1\n")
    del sys.modules["pack_kept.sub"]
    (project / "pack_kept/sub.py").write_text("x = 1\n")  # not imported: not what was given
    assert keeping.changed(run, record) == []
    assert set(keeping.changed(run, record, given=True)) == {
        f"the module {name}_kept ({project / name}_kept.py) is not what was kept as "
        f"code/{name}_kept.py"
        for name in ("mine", "helper")
    }
    shutil.rmtree(run / "code")
    record["code"] |= {"file": None, "local": {}, "sha256": {}}
    assert keeping.changed(run, record, given=True) == []
