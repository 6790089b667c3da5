"""How a host ends when it, another one or nobody is there, by one process alone."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.runs.test_hosts import free_port

# JAX's own store, in which the second of two hosts is what the test writes
ALONE = """
import json, sys, time
from pathlib import Path
import jax
from jaxcnn.core import hosts as core
from jaxcnn.runs import hosts

port, folder, other = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 1, 0)
hosts.several = lambda: True
hosts.LOST_SECONDS = 20.0 if "failed" in other else -4.5  # another's fault is waited for 5 s more
hosts.LINGER_SECONDS = 0.0
try:
    with hosts.session(Path(folder), resume=False) as own:
        assert str(own) == folder
        if "failed" in other:
            core._state["count"] = 2
            hosts._store().key_value_set(f"{hosts.KEY}/1", other)
        if other != "null":
            1 / 0
    ended = "well"
except BaseException as error:
    ended = f"{type(error).__name__}: {error}"
said = dict(hosts._store().key_value_dir_get(hosts.KEY))[f"{hosts.KEY}/0"]
print(json.dumps([ended, json.loads(said)]))
"""
FAILED = {"name": "h1", "at": 0, "beat": 1, "failed": "its disk is full"}


@pytest.mark.parametrize("other", [None, {}, FAILED])
def test_an_error_is_ones_own_unless_another_host_has_one(tmp_path, other):
    """How one ends is told to the others; what another's error makes of JAX's is that one's. other:
    what the other host says; None: there is no error at all.
    """
    folder = str(tmp_path / "run")
    words = [sys.executable, "-c", ALONE, str(free_port()), folder, json.dumps(other)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    ended, told = json.loads(done.stdout)
    if other is None:
        assert (ended, told["done"]) == ("well", True)
    elif not other:
        assert ended == "ZeroDivisionError: division by zero"
        assert told["failed"] == ended.replace(":", "")
    else:
        assert ended.startswith("ResourceError: host 1 of 2 (h1) has failed: its disk is full;")
        assert ended.endswith(f"train --resume {folder}")
        assert "failed" not in told


GIVES_UP = """
import sys
sys.stderr = open("said", "w")  # as a program may have it, which keeps what is said for itself
from jaxcnn.runs.hosts import _give_up
_give_up("there:1", 2, 5.0)
"""


def test_who_gives_up_waiting_has_said_why_where_errors_go(tmp_path):
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})" + GIVES_UP]
    done = subprocess.run(words, cwd=tmp_path, timeout=120)
    assert done.returncode == 6
    said = (tmp_path / "said").read_text()
    assert said.startswith("error: --coordinator there:1: not all of the 2 processes came within 5")
    assert said.endswith("start all of them, with the address of process 0\n")
