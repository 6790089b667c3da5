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


def test_call_bytes_are_with_those_of_the_arguments_where_it_is_said():
    x = jnp.ones((256, 256))
    plain = jax.jit(lambda x: x + 1).lower(x).compile()
    donated = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
    assert memory.call_bytes(plain, arguments=True) == 2 * x.nbytes
    assert memory.call_bytes(donated, arguments=True) == x.nbytes


class Silent:
    """What a compiler gives that does not say what a call takes, or not on this machine."""

    def __init__(self, error=None):
        self.error = error

    def memory_analysis(self):
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, NotImplementedError(), RuntimeError()], ids=repr)
def test_a_compiler_need_not_say_what_a_call_takes(error):
    assert memory.call_bytes(Silent(error)) is None


def test_what_just_fits_is_not_refused(monkeypatch):
    for free in (4 * MIB, None):
        monkeypatch.setattr(memory, "free_bytes", lambda free=free: (free, "a limit"))
        memory.check(4 * MIB, "a thing", "buy more")
    monkeypatch.setattr(memory, "free_bytes", lambda: (4 * MIB - 1, "a limit"))
    with pytest.raises(ResourceError, match=r"^a thing needs 4\.0 MiB .*\(a limit\); buy more$"):
        memory.check(4 * MIB, "a thing", "buy more")


def test_what_takes_nothing_runs_where_nothing_is_left(monkeypatch):
    free = [memory.COMPILING, 0]
    monkeypatch.setattr(memory, "free_bytes", lambda: (free.pop(0), "a limit"))
    count = memory.Fitting(lambda x: x + 1, "counting", "stop", donated=(0,))
    x = jnp.zeros(8)
    assert float(count(x)[0]) == 1
    assert x.is_deleted(), "its memory is the result's"


def test_options_reach_the_compiler():
    x = jnp.zeros(8)
    memory.Fitting(lambda x: x, "", "", options={"xla_backend_optimization_level": 1})(x)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        memory.Fitting(lambda x: x, "", "", options={"no_such_option": 1})(x)


SOURCES = ("_of_machine", "_of_group", "_of_address_space")
MACHINE, GROUP, SPACE = (
    "the machine's memory and swap",
    "the limit of the control group",
    "the limit of the address space, ulimit -v",
)


@pytest.mark.parametrize("found, least", [
    ((50, 20, 70), (20, GROUP)),
    ((50, None, 40), (40, SPACE)),
    ((OSError(), 60, 70), (60, GROUP)),
    ((50, KeyError(), ValueError()), (50, MACHINE)),
    ((ImportError(), None, 70), (70, SPACE)),
    ((50, -5, 70), (0, GROUP)),
    ((None, OSError(), None), (None, "")),
], ids=str)  # fmt: skip
def test_the_least_of_what_is_known_is_free(found, least, monkeypatch):
    for name, free in zip(SOURCES, found, strict=True):

        def read(free=free):
            if isinstance(free, Exception):
                raise free
            return free

        monkeypatch.setattr(memory, name, read)
    assert memory.free_bytes() == least


def reading(monkeypatch, **texts):
    """Files of the system, by their names, that are read in place of this one's."""
    read = Path.read_text
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self: texts[self.name] if str(self).startswith("/proc/") else read(self),
    )


def test_numbers_of_a_file_of_the_system(tmp_path):
    text = "Free:   3 kB\nanon 100\nAlone\n\nflags a b\nname: 7 kB more\n9 4\n"
    (tmp_path / "file").write_text(text)
    found = memory._table(str(tmp_path / "file"))
    assert found == {"Free": 3 * 1024, "anon": 100, "name": 7 * 1024, "9": 4}


def test_what_the_machine_has_left(monkeypatch):
    reading(monkeypatch, meminfo="MemTotal: 9 kB\nMemAvailable: 5 kB\nSwapFree: 3 kB\n")
    assert memory._of_machine() == 8 * 1024
    reading(monkeypatch, meminfo="MemTotal: 9 kB\nMemAvailable: 5 kB\n")
    assert memory._of_machine() == 5 * 1024


def test_what_the_address_space_has_left(monkeypatch):
    reading(monkeypatch, statm="1000 200 30 4 0 50 0\n")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**9, resource.RLIM_INFINITY))
    assert memory._of_address_space() == 10**9 - 1000 * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert memory._of_address_space() is None


def limited(folder, limit, current, stat="anon 100\ninactive_file 120\n"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(stat)


def test_the_least_limit_of_a_control_group_and_those_around_it_counts(tmp_path, monkeypatch):
    """What files hold in the cache is given back. Above the root, which has none, nothing does."""
    root = tmp_path / "root"
    pod, box = root / "pod", root / "pod" / "box"
    limited(tmp_path, 10, 5)
    for own in ("/pod/box", "/pod/box/"):
        reading(monkeypatch, cgroup=f"1:cpu:/other\n0::{own}\n")
        limited(box, "max", 50)
        limited(pod, 1000, 300)
        assert memory._of_group(root) == 1000 - 300 + 120
        limited(box, 400, 100, "anon 100\n")
        assert memory._of_group(root) == 400 - 100
        limited(pod, 500, 300)
        assert memory._of_group(root) == 300
        limited(pod, 400, 300)
        assert memory._of_group(root) == 400 - 300 + 120
    limited(box, "max", 50)
    limited(pod, "max", 50)
    assert memory._of_group(root) is None
    limited(root, 90, 80)
    assert memory._of_group(root) == 90 - 80 + 120
    reading(monkeypatch, cgroup="1:cpu:/pod/box\n")  # of the first version
    assert memory._of_group(root) is None


@pytest.mark.parametrize("count, text", [
    (0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (1536, "1.5 KiB"),
    (2**20, "1.0 MiB"), (3.5 * 2**20, "3.5 MiB"), (2**30, "1.0 GiB"), (5 * 2**40, "5,120.0 GiB"),
])  # fmt: skip
def test_sizes_are_written_for_people(count, text):
    assert memory.format_bytes(count) == text


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


def test_the_machines_memory_is_known():
    free, _ = memory.free_bytes()
    total = memory._table("/proc/meminfo")["MemTotal"]
    assert 0 < free <= total + memory._table("/proc/meminfo")["SwapTotal"]
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
