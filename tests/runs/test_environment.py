"""What a process is told before JAX starts."""

import gc
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcnn.runs.environment import collect_rarely
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
