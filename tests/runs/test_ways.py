"""The trial of ways: what it costs, what it says, what it remembers."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.core.program import make_program
from jaxcnn.runs import ways
from jaxcnn.runs.records import read_run
from jaxcnn.runs.train import train
from jaxcnn.runs.ways import Trial, Way, by_bundle, choose
from tests.tiny import Lines, tiny


def trial(steps, say=lambda text: None, replicas=3, about="x"):
    e = tiny()
    program = make_program(e, steps=12)
    source = e.data.open("train")

    def batches(way):
        rows = [np.arange(8) + i for i in range(replicas)]
        parts = by_bundle(way.sizes, rows)
        return [source.take(p[0] if len(p) == 1 else np.stack(p)) for p in parts]

    def states():
        return [jax.jit(program.init)(jax.random.key(i)) for i in range(replicas)]

    return Trial(
        program, replicas, states, batches, steps, about, say, lambda done, total, text: say(text)
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxcnn" / "ways"


def test_a_short_run_is_not_kept_waiting_by_a_trial(cache):
    lines = []
    assert choose(trial(20, lines.append)).kind == "loop"
    assert any(line.startswith("vmap: not tried") for line in lines)
    assert not cache.exists(), "a longer run would try more, so nothing is remembered"


def test_a_long_run_tries_all_says_so_and_remembers(cache):
    lines = []
    chosen = choose(trial(10**7, lines.append))
    assert [line for line in lines if "compiling" in line] == [
        "ways to run 3 replicas: compiling loop",
        "compiling vmap",
        "compiling unrolled",
    ]
    assert len(list(cache.iterdir())) == 1
    lines.clear()
    assert choose(trial(20, lines.append)) == chosen
    assert lines == []
    choose(trial(20, lines.append, about="another experiment"))
    assert lines


def test_a_way_is_forced(cache):
    assert choose(trial(20), forced="vmap") == Way("vmap", (3,))
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"way": 3}', '{"way": "sideways"}', "null"])
def test_a_damaged_memory_is_measured_again(cache, content):
    one = trial(10)
    path = ways._memory(one)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert choose(one).kind == "loop"


def test_the_way_may_change_over_a_resume_which_is_said(tmp_path):
    from jaxcnn.errors import Preempted
    from tests.tiny import stop_at

    points = [{"seed": 0}, {"seed": 1}]
    with pytest.raises(Preempted):
        train(tiny(), tmp_path, points=points, way="loop", observe=[stop_at(5)], quiet=True)
    console = Lines()
    run = train(tiny(), tmp_path, resume=True, way="vmap", console=console)
    assert any("not bit-exact" in line and "vmap" in line for line in console.lines)
    solo = train(tiny(seed=1), tmp_path / "solo", quiet=True)
    second = run.replicas[1]
    difference = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), second.state.params, solo.state.params
    )
    assert max(jax.tree.leaves(difference)) < 1e-5
    assert [r["step"] for r in second.history] == [r["step"] for r in solo.history]


def test_the_way_outlasts_a_kill_before_the_first_replica(tmp_path):
    from jaxcnn.errors import Preempted
    from tests.tiny import stop_at

    points = [{"seed": 0}, {"seed": 1}]
    with pytest.raises(Preempted):
        train(tiny(), tmp_path, points=points, way="vmap", observe=[stop_at(5)], quiet=True)
    shutil.rmtree(tmp_path / "replicas")  # what such a kill leaves
    run = train(tiny(), tmp_path, resume=True, quiet=True)
    assert [read_run(replica.folder)["way"] for replica in run.replicas] == ["vmap", "vmap"]
