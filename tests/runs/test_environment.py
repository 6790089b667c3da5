"""What a process is told before JAX starts."""

import gc
import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from jaxcnn.runs import environment
from jaxcnn.runs.environment import collect_rarely, prepare_process
from tests.conftest import ROOT

# Page faults of the last of three rounds in which a thread fills and frees 60 MB, as a training
# step does.
FAULTS = """
import ctypes, resource, sys, threading
from jaxcnn.runs.environment import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t

def step():
    memory = libc.malloc(60_000_000)
    libc.memset(memory, 1, 60_000_000)
    libc.free(memory)

for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="a setting of glibc"
)
@pytest.mark.skipif(
    LARGE_PAGES.exists() and "[always]" in LARGE_PAGES.read_text(),
    reason="pages are large here, so there are few faults to save",
)
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu")),
    reason="left alone beside an accelerator",
)
@pytest.mark.parametrize(
    "theirs", [{}, {"MALLOC_ARENA_TEST": "3"}], ids=["ours", "set by the user"]
)
def test_a_step_finds_the_memory_of_the_step_before(theirs):
    """Without a new page: it was not given back. Where the user has set malloc, nothing changes."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))
    }

    def faults(mode):
        command = [sys.executable, "-c", FAULTS, mode]
        return int(
            subprocess.run(
                command, env=clean | theirs, cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
        )

    assert faults("left") > 10_000, (
        "this machine's malloc keeps memory by itself, or its pages "
        "are large; the test would be empty"
    )
    assert (faults("kept") < 1000) == (not theirs)


@pytest.mark.parametrize(
    ("theirs", "ours"), [(0, 0), (700, 10_000), (50_000, 50_000)], ids=["off", "Python's", "rare"]
)
def test_cycles_are_collected_less_often_never_more(theirs, ours):
    """And not at all where the user has turned that off."""
    before = gc.get_threshold()
    try:
        gc.set_threshold(theirs, 7, 3)
        collect_rarely()
        assert gc.get_threshold() == (ours, 7, 3)
    finally:
        gc.set_threshold(*before)


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """call(recorded, **the user's variables) -> the variables that JAX will read."""
    monkeypatch.setattr(environment, "collect_rarely", lambda: None)
    monkeypatch.setattr(environment, "keep_memory", lambda: None)

    def call(recorded=None, **theirs):
        own = {"XDG_CACHE_HOME": str(tmp_path), **theirs}
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", own)
            prepare_process(recorded=recorded)
        return own

    return call


@pytest.mark.parametrize("system", ["Linux", "another"])
def test_the_number_of_threads_is_the_users_then_the_runs_then_the_machines(
    prepared, monkeypatch, system
):
    if system == "another":
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        machines = os.cpu_count()
    else:
        machines = len(os.sched_getaffinity(0))
    assert prepared()["NPROC"] == str(machines)
    assert prepared({"NPROC": "77"})["NPROC"] == "77"
    assert prepared({"NPROC": "77"}, NPROC="3")["NPROC"] == "3"


def test_the_formulation_of_convolutions_is_the_users_then_the_runs(prepared):
    assert "JAXCNN_CONVOLUTION" not in prepared()
    run = {"convolution": "natural"}
    assert prepared(run)["JAXCNN_CONVOLUTION"] == "natural"
    assert prepared(run, JAXCNN_CONVOLUTION="fast")["JAXCNN_CONVOLUTION"] == "fast"


def test_flags_of_xla_are_the_users_then_those_of_a_run_by_the_same_jaxlib(prepared):
    default = prepared()["XLA_FLAGS"]
    run = {"XLA_FLAGS": "--of_a_run=1", "versions": {"jaxlib": version("jaxlib")}}
    assert prepared(run)["XLA_FLAGS"] == "--of_a_run=1"
    assert prepared(run, XLA_FLAGS="--mine=2")["XLA_FLAGS"] == "--mine=2"
    assert prepared({**run, "versions": {"jaxlib": "0.0.1"}})["XLA_FLAGS"] == default


def test_compiled_programs_lie_in_a_private_folder_unless_the_user_names_one(prepared, tmp_path):
    place = Path(prepared()["JAX_COMPILATION_CACHE_DIR"])
    assert place.is_relative_to(tmp_path)
    assert place.stat().st_mode & 0o777 == 0o700
    assert prepared(JAX_COMPILATION_CACHE_DIR="x")["JAX_COMPILATION_CACHE_DIR"] == "x"
    (tmp_path / "file").touch()
    assert "JAX_COMPILATION_CACHE_DIR" not in prepared(XDG_CACHE_HOME=str(tmp_path / "file"))


@pytest.mark.parametrize(
    "version, flagged",
    [("0.10", True), ("0.10.3", True), ("0.9.1", False), ("0.100.0", False), ("0.1.0", False)],
)
def test_flags_are_those_of_a_series_of_jaxlib(prepared, monkeypatch, version, flagged):
    monkeypatch.setattr(environment, "_version", lambda package: version)
    flag = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    assert prepared()["XLA_FLAGS"] == (flag if flagged else "")
    assert prepared({"XLA_FLAGS": "--a"})["XLA_FLAGS"] == "--a"  # of a run that names no version


def test_compiled_code_is_kept_and_the_process_prepared(prepared, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(environment, "collect_rarely", lambda: calls.append("cycles"))
    monkeypatch.setattr(environment, "keep_memory", lambda: calls.append("memory"))
    for _ in range(2):  # the folder may be there
        found = prepared(XDG_CACHE_HOME=str(tmp_path / "deep" / "cache"))
        assert float(found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) == 0.1
    assert calls == ["cycles", "memory"] * 2
    found = prepared(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="7")
    assert found["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "7"
