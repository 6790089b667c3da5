"""Free pieces of memory that a compiler leaves, in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

from jaxcnn.runs import environment

pytestmark = pytest.mark.skipif(
    not environment._keeps_memory(), reason="malloc is left alone on this system"
)

# The heap after 2,000 pieces of 1 to 400 kB, each between two that stay.
HEAP = """
import ctypes, json, sys
from jaxcnn.runs import environment, fragments
libc = fragments._glibc()
if libc is None:
    print("null"); raise SystemExit
environment.keep_memory()
free, stay = [], []
for number in range(2000):
    size = 1000 + number * 7919 % 400_000
    free.append(libc.malloc(size))
    ctypes.memset(free[-1], 1, size)
    stay.append(libc.malloc(600))
for piece in free:
    libc.free(piece)

def pieces():
    memory = libc.mallinfo2()
    return memory.fordblks - memory.keepcost

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def end():
    return libc.sbrk(0) - libc.mallinfo2().keepcost
"""


def run(code: str, **variables: str):
    found = subprocess.run(
        [sys.executable, "-c", HEAP + code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(found.stdout)
    if result is None:
        pytest.skip("this glibc has no mallinfo2")
    return result


def test_free_pieces_are_set_aside_their_memory_is_given_back_and_all_else_is_taken_at_the_end():
    before, taken, left, saved, later, again = run(
        """
before, there = pieces(), resident()
taken = fragments.set_aside()
left, saved, last = pieces(), there - resident(), end()
later = [libc.malloc(size) >= last for size in (5_000, 50_000, 399_000, 3_000_000)]
print(json.dumps([before, taken, left, saved, later, fragments.set_aside()]))
"""
    )
    assert before > 300e6
    assert taken > 0.97 * before
    assert left < 0.03 * before
    assert saved > 0.9 * before
    assert later == [True] * 4
    assert abs(again - taken) < 0.03 * before  # the same pieces, not those beside them


@pytest.mark.parametrize("limit", ["AS", "DATA"])
def test_nothing_is_set_aside_where_addresses_are_limited(limit):
    code = """
import resource
resource.setrlimit(resource.RLIMIT_WHAT, (2**36, 2**36))
print(json.dumps([fragments.set_aside(), len(fragments._held), pieces() > 300e6]))
"""
    assert run(code.replace("WHAT", limit)) == [0, 0, True]


def test_before_something_is_timed_they_are_set_aside_at_once_where_they_are_at_all():
    code = """
fragments.settle()
before = len(fragments._held)
environment.prepare_process()
fragments.settle()
print(json.dumps([before, len(fragments._held) > 1000]))
"""
    assert run(code) == [0, True]
    assert run(code, MALLOC_PERTURB_="0") == [0, False]


COMPILED = """
import jax
for _ in range(2):
    environment.prepare_process()
held = []
for seconds in (0.6, 0.3, 0.2, 0.8):
    jax.monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 9.0)
    jax.monitoring.record_event_duration_secs(
        "/jax/core/compile/backend_compile_duration", seconds
    )
    held.append(len(fragments._held) > 1000)
    while len(fragments._held) > 1000:  # as if they had never been
        libc.free(fragments._held.pop())
print(json.dumps(held))
"""


def test_they_are_set_aside_whenever_xla_has_compiled_for_a_second():
    # of the second sum, 0.8 seconds, nothing has come; both calls of prepare_process count once
    assert run(COMPILED) == [False, False, True, False]


def test_they_are_left_where_malloc_is():
    assert run(COMPILED, MALLOC_PERTURB_="0") == [False] * 4


def test_after_the_first_time_it_takes_a_twentieth_of_the_compilation_at_most():
    assert run(
        """
fragments.set_aside = lambda: fragments.time.sleep(0.1)
fragments._listen("/jax/core/compile/backend_compile_duration", 1.0)
print(json.dumps([fragments._compiled["seconds"], 2.0 <= fragments._compiled["due"] < 3.0]))
"""
    ) == [0.0, True]
