"""Whether memory suffices is asked before a compiled function runs."""

import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.core import memory, transforms
from jaxcnn.core.protocols import Program
from jaxcnn.errors import ResourceError
from tests.conftest import ROOT

MIB = 2**20


def program():
    """One whose functions each need a square of 1,024 numbers, 4 MiB, which they return."""
    square = lambda x: jnp.outer(x["a"], x["a"])  # noqa: E731
    return Program(
        init=square,
        train_step=lambda state, batch: (state + square(batch).sum(), {"x": square(batch)}),
        output_step=lambda state, batch: square(batch) + state,
    )


BATCH = {"a": jnp.ones(1024)}
CALLS = {
    "init": (BATCH,),
    "train_step": (jnp.zeros(()), BATCH),
    "output_step": (jnp.zeros(()), BATCH),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_does_not_fit_is_refused_before_it_runs(name, monkeypatch):
    free = [memory.COMPILING + 1, 4 * MIB - 1]
    monkeypatch.setattr(memory, "free_bytes", lambda: (free.pop(0), "a limit"))
    function = getattr(transforms.compile(program()), name)
    with pytest.raises(
        ResourceError, match=r"needs .* MiB .* 4.0 MiB are free \(a limit\); choose"
    ):
        function(*CALLS[name])
    assert function.count_compiled() == 0  # of calls


def test_too_little_to_compile_with_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: (memory.COMPILING - 1, "a limit"))
    with pytest.raises(ResourceError, match=r"compiling the initial state needs 96\.0 MiB"):
        transforms.compile(program()).init(BATCH)


def test_what_fits_runs_is_compiled_once_and_asked_for_once_a_shape(monkeypatch):
    asked, compiled = [], []
    monkeypatch.setattr(memory, "free_bytes", lambda: (asked.append(1), (2**40, ""))[1])
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    step = transforms.compile(program()).output_step
    state = jnp.zeros(())
    before, compiled[:] = jax.jit(program().output_step)(state, BATCH), []
    for _ in range(3):
        after = step(state, BATCH)
    assert len(compiled) == 1
    assert len(asked) == 2
    assert step.count_compiled() == 1
    assert (before == after).all()
    step(state, {"a": jnp.ones(8)})
    assert len(asked) == 4
    assert step.count_compiled() == 2


def test_it_may_be_traced():
    step = transforms.compile(program()).output_step
    assert jax.jit(step)(jnp.zeros(()), BATCH).shape == (1024, 1024)
    assert jax.vmap(step, in_axes=(0, None))(jnp.zeros(2), BATCH).shape == (2, 1024, 1024)


def test_call_bytes_are_those_of_the_results_and_not_of_what_is_donated():
    x = jnp.ones((256, 256))  # 0.25 MiB
    plain = jax.jit(lambda x: x + 1).lower(x).compile()
    donated = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
    assert memory.call_bytes(plain) == x.nbytes
    assert memory.call_bytes(donated) == 0


def test_a_limit_of_the_address_space_is_known():
    code = (
        "import resource, sys; from jaxcnn.core import memory\n"
        "free = lambda: memory.free_bytes()\n"
        f"taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (taken + {50 * MIB},) * 2)\n"
        "print(*free(), sep='|')\n"
        f"held = bytearray({20 * MIB}); print(*free(), sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    (before, name), (after, _) = (line.split("|") for line in done.stdout.splitlines())
    assert name == "the limit of the address space, ulimit -v", done.stderr
    assert abs(int(before) - 50 * MIB) < 2 * MIB
    assert abs(int(after) - 30 * MIB) < 4 * MIB


@pytest.mark.parametrize("mib", [5, 60, 100])
def test_a_run_is_not_begun_where_jax_could_not_start(mib, tmp_path):
    """Its threads ended the process with a signal."""
    code = (
        "import resource, sys; from jaxcnn.runs.train import train; from tests.tiny import tiny\n"
        "from jaxcnn.errors import ResourceError\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (taken + {mib * MIB},) * 2)\n"
        f"try: train(tiny(), {str(tmp_path / 'run')!r}, quiet=True)\n"
        "except ResourceError as error: print(error)"
    )
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "training needs 160.0 MiB of memory besides what is held" in done.stdout
    assert not (tmp_path / "run").exists()


def test_a_limit_of_a_control_group_is_known(tmp_path, monkeypatch):
    own = tmp_path / "pod" / "box"
    own.mkdir(parents=True)
    for folder, limit, current in ((own, "max", 50), (own.parent, "1000", 300)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text("anon 100\ninactive_file 120\n")
    read = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self: "0::/pod/box\n" if str(self) == "/proc/self/cgroup" else read(self),
    )
    assert memory._of_group(tmp_path) == 1000 - 300 + 120
    (own.parent / "memory.max").write_text("max\n")
    assert memory._of_group(tmp_path) is None


def test_the_machines_memory_is_known():
    free, _ = memory.free_bytes()
    total = memory._table("/proc/meminfo")["MemTotal"]
    assert 0 < free <= total + memory._table("/proc/meminfo")["SwapTotal"]
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
