"""Experiments by name and by file; making one again from what a run kept of it."""

import dataclasses
import importlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from jaxcnn.core.rendering import build, render
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.recorded import Recorded, record
from jaxcnn.errors import ConfigError
from jaxcnn.runs import code
from jaxcnn.runs.keeping import Origin
from tests.tiny import tiny

TINY = "from tests.tiny import tiny\nexperiment = tiny({})\n"


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What loading adds to the path and to the modules goes with the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with experiments of its own, one with the name of one of jaxcnn's."""
    (tmp_path / "experiments").mkdir()
    for name in ("xor_mlp.py", "mine_named.py", "_hidden.py"):
        (tmp_path / "experiments" / name).write_text(TINY.format("steps=4"))
    (tmp_path / "experiments" / "notes.txt").touch()
    (tmp_path / "elsewhere.py").write_text(TINY.format("steps=5"))
    (tmp_path / "elsewhere.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_experiments_are_found_here_first_and_then_those_of_jaxcnn(place):
    own = place / "experiments"
    assert code.folders()[0] == own
    found = code.files()
    assert found["mine_named"] == own / "mine_named.py"
    assert found["xor_mlp"] == own / "xor_mlp.py"
    assert found["digits_lenet5"].read_text().startswith('"""')
    assert found["digits_lenet5"].parent != own
    assert not {"_hidden", "notes"} & found.keys()
    for name in ("mine_named", "mine_named.py", "somewhere/mine_named"):
        assert code.find(name) == (own / "mine_named.py").resolve()
    assert code.find("elsewhere.py") == place / "elsewhere.py"
    assert code.find(Path("experiments/_hidden.py")) == own / "_hidden.py"
    for name in ("elsewhere", "elsewhere.txt", "mine_named.txt", "gone.py", "_hidden"):
        with pytest.raises(ConfigError, match=f"no experiment '{name}'"):
            code.find(name)
    with pytest.raises(ConfigError, match="mine_named"):
        code.find("mine_name")


def test_a_file_gives_its_experiment_with_overrides(place):
    assert code.load("elsewhere.py").steps == 5
    assert code.load(place / "elsewhere.py", overrides=["steps=6", "seed=7"]).steps == 6
    (place / "none.py").write_text("experiment = 3\n")
    with pytest.raises(ConfigError, match=r"none\.py: must end in .*; found int"):
        code.load("none.py")
    (place / "empty.py").touch()
    with pytest.raises(ConfigError, match="found NoneType"):
        code.load("empty.py")


FAILS = """import beside_that_fails
def one(): two()
def two():
    three()
def three():

    beside_that_fails.fail()
one()
"""


@pytest.mark.parametrize(
    "text, message",
    [
        (FAILS, ":7: ZeroDivisionError: division by zero"),
        ("x = 1\ny = = 2\n", ":2: SyntaxError: "),
        ("x = 1\n\nimport beside_that_fails as b\nx = 1; b.fail()", ":4: ZeroDivisionError"),
        ("from jaxcnn.runs.code import find\nfind('no such')", ": no experiment 'no such'"),
    ],
    ids=["called", "syntax", "at the end", "ours"],
)
def test_what_goes_wrong_in_a_file_is_named_by_its_last_line(place, text, message):
    (place / "beside_that_fails.py").write_text("\n" * 20 + "def fail(): 1 / 0\n")
    (place / "wrong.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        code.module_of(place / "wrong.py")
    assert str(caught.value).startswith(f"{place / 'wrong.py'}{message}")


def test_what_is_no_file_of_python_says_so(place):
    with pytest.raises(ConfigError, match=r"elsewhere\.txt: is not a Python file"):
        code.module_of(place / "elsewhere.txt")
    with pytest.raises(ConfigError, match=r"gone\.py:\?: FileNotFoundError"):
        code.module_of(place / "gone.py")


def test_a_module_has_a_name_by_which_what_it_defines_is_found(place):
    assert code.module_of(place / "elsewhere.py").__name__ == "experiment_elsewhere"
    module = code.module_of(place / "elsewhere.py", name="another_name")
    assert sys.modules["another_name"] is module


def test_an_experiments_neighbours_come_before_others_of_their_name(place, monkeypatch):
    other = place / "other"
    other.mkdir()
    (other / "beside_twice.py").write_text("x = 'other'\n")
    (place / "beside_twice.py").write_text("x = 'own'\n")
    (place / "uses.py").write_text("import beside_twice\nx = beside_twice.x\n")
    monkeypatch.syspath_prepend(other)
    assert code.module_of(place / "uses.py").x == "own"
    again = place / "again"
    (again / "beside_twice").mkdir(parents=True)
    (again / "uses.py").write_text("import beside_twice\n")
    for own in (again / "beside_twice.py", again / "beside_twice" / "__init__.py"):
        own.write_text("x = 'another'\n")
        with pytest.raises(ConfigError, match="imports beside_twice, which this process has"):
            code.module_of(again / "uses.py")
        own.write_text("x = 'own'\n")  # the same text means the same
        code.module_of(again / "uses.py")


def test_where_an_experiment_was_imported_from(place, monkeypatch):
    e = tiny()
    assert code.origin_of(e) is None
    main, bare, named = ModuleType("__main__"), ModuleType("bare"), ModuleType("of_e")
    main.experiment = bare.experiment = named.experiment = e
    main.__file__, named.__file__ = str(place / "main.py"), str(place / "link.py")
    (place / "link.py").symlink_to(place / "elsewhere.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setitem(sys.modules, "bare", bare)
    assert code.origin_of(e) is None
    monkeypatch.setitem(sys.modules, "of_e", named)
    assert code.origin_of(e) == Origin((place / "elsewhere.py").resolve(), "of_e")


@pytest.mark.parametrize(
    "old, new, told",
    [
        ({"a": 1, "b": [1, {"c": 2}]}, {"a": 1, "b": [1, {"c": 2}]}, []),
        ({"a": 1, "b": 2}, {"a": 3, "c": 4}, ["a: 1 was, 3 is", "b: 2 was, None is",
                                              "c: None was, 4 is"]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ["a.b.c: 1 was, 2 is"]),
        ({"a": [1, 2, [3]]}, {"a": [1, 4, [5]]}, ["a.1: 2 was, 4 is", "a.2.0: 3 was, 5 is"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a: [1] was, [1, 2] is"]),
        ({"a": [1]}, {"a": 1}, ["a: [1] was, 1 is"]),
        ({"a": 1}, {"a": [1]}, ["a: 1 was, [1] is"]),
        ({"a": {"b": 1}}, {"a": 2}, ["a: {'b': 1} was, 2 is"]),
        ({"a": 2}, {"a": {"b": 1}}, ["a: 2 was, {'b': 1} is"]),
        ({"a": "x" * 60}, {"a": "y" * 61}, [f"a: {'x' * 60} was, {'y' * 57}… is"]),
    ],
)  # fmt: skip
def test_what_differs_between_two_renderings(old, new, told):
    assert code.differences(old, new, words=("was", "is")) == told
    now = [text.replace(" was, ", " then, ").removesuffix(" is") + " now" for text in told]
    assert code.differences(old, new) == now


def kept(folder, e, *, file=None, **more):
    """The run.json of a run of `e`, as far as making it again needs it."""
    content = {"file": None} if file is None else {"file": file, "module": file[:-3]}
    return {
        "code": {**content, "overrides": [], "local": {}, **more},
        "rendered": json.loads(json.dumps(render(e))),
        "data": record(e.data).to_json(),
    }


def test_an_experiment_of_a_file_is_made_again_from_the_runs_own_code(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_run.py").write_text(TINY.format("steps=4, seed=5"))
    e = tiny(steps=4, seed=6, clip_norm=2.0)
    kept_of_it = kept(tmp_path, e, file="my_run.py", overrides=["seed=6"])
    again = code.reopen(tmp_path, {**kept_of_it, "point": {"clip_norm": 2.0}})
    assert render(again) == render(e)
    with pytest.raises(ConfigError) as caught:
        code.reopen(tmp_path, kept_of_it)
    assert str(caught.value).startswith(
        f"{tmp_path}: its experiment now means something else than when it ran: "
        "clip_norm: 2.0 then, 1.0 now ("
    )
    other = kept(tmp_path, tiny(seed=1, batch_size=4, steps=1, log_every=2, ema=0.5, eval_every=2),
                 file="my_run.py")  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        code.reopen(tmp_path, other)
    assert str(caught.value).count(" then, ") == 5  # of 6, the first
    (tmp_path / "code" / "my_run.py").unlink()
    with pytest.raises(ConfigError) as caught:
        code.reopen(tmp_path, kept_of_it)
    assert str(caught.value).count(str(tmp_path)) == 1
    assert "my_run.py: the experiment's code is gone; give the experiment" in str(caught.value)


def test_an_experiment_without_a_file_is_made_again_from_its_rendering(tmp_path):
    e = tiny(steps=4)
    again = code.reopen(tmp_path, kept(tmp_path, e))
    assert again.data == Recorded.from_json(record(e.data).to_json())  # its arrays are gone
    assert render(dataclasses.replace(again, data=e.data)) == render(e)
    for key, value, says in (
        ("steps", "many", "steps"),
        ("model", {"type": "no.such:Net"}, r"^.*: 'Net' of module 'no\.such' cannot be found"),
        ("no_such_field", 3, r"run\.json: its experiment cannot be made again .*no_such_field"),
    ):
        edited = kept(tmp_path, e)
        edited["rendered"][key] = value
        with pytest.raises(ConfigError, match=says) as caught:
            code.reopen(tmp_path, edited)
        assert str(caught.value).startswith(str(tmp_path))
        assert str(caught.value).count(str(tmp_path)) == 1


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A value with methods, for renderings."""

    by: int = 1

    def of(self, x, *more, y=0):
        return type(self).__name__, self.by * x, more, y

    @classmethod
    def made(cls, by):
        return cls(by)


@dataclasses.dataclass(frozen=True)
class Negated(Scaled):
    def of(self, x, *more, y=0):
        return "not this one"

    def above(self):
        return super().of


def first_alone(x, /, *more):
    return x, more


class Bare:
    def of(self, x):
        return x


@pytest.mark.parametrize(
    "function",
    [
        Scaled(4).of,
        Negated(4).of,
        Negated(4).above(),
        Negated.made,
        partial(Scaled(4).of, y=3),
        partial(Scaled(4).of, 2, 3, 5),
        partial(first_alone, 7),
        partial(max, 20),
        "abc".find,
        len,
    ],
)
def test_a_method_is_made_again_with_its_object_and_a_partial_with_its_arguments(function):
    again = build(json.loads(json.dumps(render(function))))
    argument = "bc" if getattr(function, "__self__", None) == "abc" else 10
    if function is len:
        argument = "four"
    assert again(argument) == function(argument)
    assert render(again) == render(function)


def test_a_method_of_an_object_without_a_rendering_is_not_made_again():
    """Its rendering is the same in each process, with no address in it."""
    assert render(Bare().of) == render(Bare().of)
    assert render(Scaled(1).of) != render(Scaled(2).of)
    with pytest.raises(ConfigError, match=r"object of .*:Bare: cannot be made again"):
        build(render(Bare().of))


def test_relative_places_of_data_begin_where_the_run_was_started(tmp_path, monkeypatch):
    for name in ("cat", "dog", "../run", "../here"):
        (tmp_path / "there" / name).mkdir(parents=True)
        for i in range(8):
            (tmp_path / "there" / name / f"{i}.png").touch()
    e = tiny(data=Folder(path=".", image_size=(8, 8), channels=1))
    monkeypatch.chdir(tmp_path / "there")
    started = {**kept(tmp_path, e), "started_in": str(tmp_path / "there")}
    monkeypatch.chdir(tmp_path / "here")
    found = code.reopen(tmp_path / "run", started).data
    assert found == dataclasses.replace(e.data, path=str(tmp_path / "there"))
    there = dataclasses.replace(e, data=found)
    absolute = {**kept(tmp_path, there), "started_in": "/"}
    assert code.reopen(tmp_path / "run", absolute).data == found


@pytest.fixture
def two_texts(tmp_path, monkeypatch):
    """(run folder, project folder), in each a helper, of which the project's is imported."""
    for name in ("run/code", "project"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "helper_twice.py").write_text(f"x = {name!r}\n")
    monkeypatch.syspath_prepend(tmp_path / "project")
    importlib.import_module("helper_twice")
    return tmp_path / "run", tmp_path / "project"


def test_a_runs_own_modules_are_imported_for_it_alone(two_texts):
    run, project = two_texts
    mine, path = sys.modules["helper_twice"], list(sys.path)
    content = {"file": "main_twice.py", "module": "main_twice", "local": {
        "helper_twice": "helper_twice.py"}}  # fmt: skip
    main = sys.modules["main_twice"] = ModuleType("main_twice")  # another of its name
    with code._own_modules(run / "code", content):
        assert importlib.import_module("helper_twice").x == "run/code"
        assert "main_twice" not in sys.modules
    assert sys.modules["helper_twice"] is mine
    assert sys.modules["main_twice"] is main
    assert sys.path == path
    (run / "code" / "helper_twice.py").write_text((project / "helper_twice.py").read_text())
    with code._own_modules(run / "code", content):
        assert importlib.import_module("helper_twice") is mine  # of the same text
    del mine.__file__  # as of a folder without __init__.py
    with code._own_modules(run / "code", content):
        assert importlib.import_module("helper_twice") is not mine


def test_a_file_that_was_kept_a_moment_ago_is_found(two_texts):
    """Python remembers what is in a folder until the folder's time changes."""
    run, _ = two_texts
    content = {"file": "main_twice.py", "module": "main_twice"}
    with code._own_modules(run / "code", content):
        with pytest.raises(ImportError):
            importlib.import_module("late_twice")
        seen = (run / "code").stat().st_mtime_ns
    (run / "code" / "late_twice.py").write_text("x = 1\n")
    os.utime(run / "code", ns=(seen, seen))
    with code._own_modules(run / "code", content):
        assert importlib.import_module("late_twice").x == 1
