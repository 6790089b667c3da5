"""What is set before JAX starts, and what is recorded of the machine, the packages and the code."""

import ctypes
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from jaxcnn.runs import environment


def test_the_package_and_the_users_private_folder(monkeypatch, tmp_path):
    assert (environment.PACKAGE / "runs" / "environment.py").is_file()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment.cache_folder() == tmp_path / "jaxcnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert environment.cache_folder() == tmp_path / "home" / ".cache" / "jaxcnn"


def test_the_processors_of_this_process_are_counted(monkeypatch):
    monkeypatch.setattr(
        environment.os, "sched_getaffinity", {0: {1, 3, 5}}.__getitem__, raising=False
    )
    assert environment._processors() == 3
    monkeypatch.delattr(environment.os, "sched_getaffinity")  # as on other systems
    for counted, number in ((6, 6), (None, 1)):
        monkeypatch.setattr(environment.os, "cpu_count", lambda counted=counted: counted)
        assert environment._processors() == number


@pytest.fixture
def glibc(monkeypatch):
    """A process under glibc without an accelerator, whose user has set nothing; what malloc was
    told.
    """
    for name in list(os.environ):
        if name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD"):
            monkeypatch.delenv(name)
    told, accelerators = [], set()
    find = accelerators.intersection
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: find([name]))
    library = SimpleNamespace(mallopt=lambda *what: told.append(what))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(environment.sys, "platform", "linux")
    monkeypatch.setattr(environment.os, "confstr_names", {"CS_GNU_LIBC_VERSION": 2}, raising=False)
    return SimpleNamespace(told=told, accelerators=accelerators)


# mallopt(3): M_ARENA_MAX is -8, M_MMAP_MAX -4, M_TRIM_THRESHOLD -1, of which -1 is never
TOLD = [(-8, 1), (-4, 0), (-1, -1)]
VARIABLES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "9223372036854775807",  # the largest of 64 bits with a sign
}


def test_malloc_keeps_memory_in_one_arena(glibc, monkeypatch):
    environment.keep_memory()
    assert glibc.told == TOLD
    monkeypatch.setenv("XLA_FLAGS", "--a --b")
    outside = {"HOME": "/a", "XLA_FLAGS": "--c"}
    assert environment.tuned(outside) == {"HOME": "/a", "XLA_FLAGS": "--a --b", **VARIABLES}
    monkeypatch.setenv("XLA_FLAGS", "")
    assert environment.tuned(outside) == {**outside, **VARIABLES}
    monkeypatch.delenv("XLA_FLAGS")
    assert environment.tuned(outside) == {**outside, **VARIABLES}


@pytest.mark.parametrize(
    "name", ["GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX", "MALLOC_PERTURB_", "jax_plugins",
             "libtpu", "darwin", "musl"],
)  # fmt: skip
def test_malloc_is_left_alone_where_it_is_the_users_anothers_or_of_no_use(glibc, monkeypatch, name):
    if name in ("jax_plugins", "libtpu"):
        glibc.accelerators.add(name)
    elif name == "darwin":
        monkeypatch.setattr(environment.sys, "platform", name)
    elif name == "musl":
        monkeypatch.setattr(environment.os, "confstr_names", {})
    else:
        monkeypatch.setenv(name, "1")
    environment.keep_memory()
    assert glibc.told == []
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    assert environment.tuned({"a": "b"}) == {"a": "b"}


def test_what_a_result_depends_on_is_recorded(monkeypatch):
    monkeypatch.setenv("NPROC", "3")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(environment, "_is_checkout", lambda: False)
    monkeypatch.setattr(environment, "source", lambda: {"core": "12"})
    found = environment.describe()
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    assert {name: found["versions"][name] for name in packages} == {
        name: importlib.metadata.version(name) for name in packages
    }
    assert environment._version("no-such-package") == ""
    assert found == {
        **{"command": sys.argv, "python": platform.python_version(), "NPROC": "3"},
        **{"platform": platform.platform(), "XLA_FLAGS": "", "source": {"core": "12"}},
        **{"backend": "cpu", "device": jax.devices()[0].device_kind},
        **{"num_devices": 1, "num_hosts": 1, "commit": None, "modified": False},
        **{"versions": found["versions"], "processor": found["processor"]},
        "settings": found["settings"],
    }
    assert found["settings"] == {
        **{"enable_x64": False, "default_matmul_precision": None, "random_seed_offset": 0},
        **{"default_prng_impl": "threefry2x32", "threefry_partitionable": True},
        "disable_most_optimizations": found["settings"]["disable_most_optimizations"],
    }
    monkeypatch.setenv("XLA_FLAGS", "--a")
    monkeypatch.setattr(environment, "_is_checkout", lambda: True)
    monkeypatch.setattr(environment, "commit", lambda folder: {"commit": "ab", "modified": folder})
    found = environment.describe()
    assert (found["XLA_FLAGS"], found["commit"]) == ("--a", "ab")
    assert found["modified"] == environment.PACKAGE


def test_the_processor_is_the_systems_name_of_it(monkeypatch):
    text = "processor\t: 0\nmodel name\t: A CPU: @ 2 GHz \nmodel name\t: another\n"
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert environment._processor() == "A CPU: @ 2 GHz"
    monkeypatch.setattr(environment.platform, "processor", lambda: "by Python")
    monkeypatch.setattr(Path, "read_text", lambda path: "processor\t: 0\n")
    assert environment._processor() == "by Python"


FACTS = {
    **{"versions": {"jax": "1"}, "backend": "cpu", "device": "cpu", "num_devices": 1},
    **{"num_hosts": 1, "NPROC": "2", "XLA_FLAGS": "", "convolution": "fast", "processor": "A"},
    **{"source": {"core": "1", "ops": "2"}, "commit": "old"},
}


@pytest.mark.parametrize("name", [name for name in FACTS if name not in ("source", "commit")])
def test_each_fact_that_changes_bits_is_named(name):
    assert environment.differences(FACTS, {**FACTS, name: "new", "command": "x"}) == [
        f"{name}: {FACTS[name]} then, new now"
    ]


def test_settings_of_jax_that_change_bits_are_named_and_older_records_say_none(monkeypatch):
    """With threefry_partitionable off, dropout takes other units."""
    before = environment.describe()
    try:
        jax.config.update("jax_threefry_partitionable", False)
        after = environment.describe()
    finally:
        jax.config.update("jax_threefry_partitionable", True)
    said = ["JAX's setting threefry_partitionable: True then, False now"]
    assert environment.differences(before, after) == said
    older = {name: fact for name, fact in before.items() if name != "settings"}
    assert environment.differences(older, after) == environment.differences(before, before) == []


def test_code_that_differs_is_named_by_its_rooms_and_older_records_say_less():
    new = {**FACTS, "source": {"core": "1", "ops": "3", "runs": "4"}, "commit": "new"}
    assert environment.differences(FACTS, new) == [
        "jaxcnn's own code in ops, runs (commit old then, new now)"
    ]
    assert environment.differences(FACTS, FACTS) == []
    assert environment.differences(FACTS, {**FACTS, "commit": "new"}) == []
    older = {k: v for k, v in FACTS.items() if k not in ("source", "num_hosts")}
    assert environment.differences(older, new) == []
    assert environment.differences(older, {**FACTS, "num_hosts": 2}) == ["num_hosts: 1 then, 2 now"]


def test_the_code_of_each_room_has_a_digest_of_names_and_contents(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)
    for name, text in {
        **{"core/a.py": "one", "core/sub/b.cc": "two", "core/notes.txt": "x", "top.py": "y"},
        **{"commands/c.py": "z", "empty/notes.txt": "w", "ops/b.py": "three", "ops/a.h": ""},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def digest(text):
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    assert environment.source() == {
        "core": digest("a.py 3\nonesub/b.cc 3\ntwo"),
        "ops": digest("a.h 0\nb.py 5\nthree"),
    }


def answering(monkeypatch, **answers):
    """Git that answers by its first word; what it was asked."""
    asked = []

    def git(folder, *words):
        asked.append((folder, words))
        return answers.get(words[0].replace("-", "_"))

    monkeypatch.setattr(environment, "_git", git)
    return asked


@pytest.mark.parametrize(
    "text, commit, modified",
    [
        (None, None, False),
        ("# branch.oid ab12\n# branch.head main", "ab12", False),
        ("# branch.oid ab12\n# branch.head main\n1 .M N... a.py", "ab12", True),
        ("# branch.oid ab12\n? unknown.py", "ab12", True),
        ("# branch.head main", None, False),
    ],
)
def test_the_commit_of_a_checkout(monkeypatch, tmp_path, text, commit, modified):
    asked = answering(monkeypatch, status=text)
    assert environment.commit(tmp_path) == {"commit": commit, "modified": modified}
    assert asked[0][0] == tmp_path


def test_changes_are_cut_where_they_are_very_many(monkeypatch):
    most = 1024 * 1024
    for length, cut in ((0, False), (5, False), (most - 1, False), (most, True), (most + 9, True)):
        answering(monkeypatch, diff="x" * length or None, ls_files="")
        found = environment.diff()
        if cut:
            said = f"\n… cut here, of {length + 1:,} characters\n"
            assert found == ("x" * length + "\n")[:most] + said
        else:
            assert found == "x" * length + ("\n" if length else "")
    answering(monkeypatch, diff="x")  # an installed package
    assert environment.diff() == ""


def test_changes_of_a_project_are_all_but_jaxcnns_own(monkeypatch, tmp_path):
    package = environment.PACKAGE
    asked = answering(monkeypatch, diff="x", rev_parse=str(package.parent))
    assert environment.project_diff(tmp_path) == "x\n"
    folder, words = asked[-1]
    assert folder == tmp_path
    assert words[words.index("--") + 1 :] == (":/", f":(top,exclude){package.name}")
    asked = answering(monkeypatch, diff="x", rev_parse=str(tmp_path))
    assert environment.project_diff(tmp_path) == "x\n"
    assert asked[-1][1][-2:] == ("--", ":/")
    answering(monkeypatch, diff="x")
    assert environment.project_diff(tmp_path) == ""  # outside a checkout


def test_git_is_asked_in_the_folder_whatever_bytes_it_answers(tmp_path):
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\n\n")
    assert environment._git(tmp_path, "rev-parse", "--is-inside-work-tree") == "true"
    blob = environment._git(tmp_path, "hash-object", "-w", "a.txt")
    assert environment._git(tmp_path, "cat-file", "blob", blob) == "\ufffd\ufffd"
    assert environment._git(tmp_path, "cat-file", "blob", "0" * 40) is None
    assert environment._git(tmp_path / "nowhere", "status") is None
