"""Traces of steps: which steps are in them, and what refuses them."""

import gzip
import json
import re

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.commands._main import main
from jaxcnn.errors import ConfigError
from jaxcnn.runs import profiling
from jaxcnn.runs.train import train
from tests.tiny import Lines, fit, tiny


def marked(folder, name="train"):
    """The step numbers of the marks in the trace that Perfetto reads, and in the one of xprof."""
    (path,) = folder.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    perfetto = sorted(
        int(e["args"]["step_num"]) for e in events if e.get("name") == name and e["ph"] == "X"
    )
    (path,) = folder.rglob("*.xplane.pb")
    xprof = []
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            of_line = [dict(event.stats) for event in line.events if event.name == name]
            xprof += [int(stats["step_num"]) for stats in of_line if "step_num" in stats]
    assert sorted(xprof) == perfetto
    return perfetto


@pytest.fixture(scope="module")
def untraced(tmp_path_factory):
    return fit(tiny(), tmp_path_factory.mktemp("untraced"))["state_sha256"]


def test_each_step_of_a_profile_is_marked_and_the_run_is_the_same(tmp_path, untraced):
    console = Lines()
    run = train(tiny(), tmp_path, profile=(3, 7), console=console)
    assert marked(tmp_path / "profile") == [3, 4, 5, 6, 7]
    assert f"profile of steps 3 to 7: {tmp_path / 'profile'}" in console.lines
    assert run.summary["state_sha256"] == untraced


def test_dispatches_are_traced_whole(tmp_path):
    """Of four steps each, from a multiple of the evaluations on: 1–4, 5–8, 9–12."""
    console = Lines()
    e = tiny(steps_per_dispatch=4, log_every=4, eval_every=100)
    train(e, tmp_path, profile=(6, 9), console=console)
    assert marked(tmp_path / "profile") == [5, 9]
    (line,) = [line for line in console.lines if line.startswith("profile of")]
    assert "steps 5 to 12" in line
    assert "asked for: 6 to 9; dispatches are whole" in line


def test_a_sweep_has_one_trace_of_its_replicas(tmp_path):
    """Of the program that they share; the second group, of another width, has none."""
    points = [{"seed": 0}, {"seed": 1}, {"model.width": 2}]
    console = Lines()
    train(tiny(), tmp_path, points=points, way="vmap", profile=(2, 3), console=console)
    assert marked(tmp_path / "profile") == [2, 3]
    assert sum(line.startswith("profile of") for line in console.lines) == 1


def test_a_run_that_ends_within_its_profile_keeps_what_there_is(tmp_path):
    def stop(event):
        if event.kind == "train" and event.step == 6:
            raise KeyboardInterrupt

    console = Lines()
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path, observe=[stop], profile=(5, 9), console=console)
    assert marked(tmp_path / "profile") == [5, 6]
    assert any("steps 5 to 6" in line and "ended before" in line for line in console.lines)
    # it goes on from step 5
    with pytest.raises(ConfigError, match=r"profile 2\.\.4: this run makes the steps 6 to 12"):
        train(tiny(), tmp_path, resume=True, profile=(2, 4), quiet=True)
    assert train(tiny(), tmp_path, resume=True, quiet=True).summary["completed"]


@pytest.mark.parametrize("first, last", [(0, 3), (5, 4), (-1, 2)])
def test_steps_that_are_none_are_refused(tmp_path, first, last):
    with pytest.raises(ConfigError, match=re.escape(f"profile {first}..{last}: goes from a step")):
        train(tiny(), tmp_path / "run", profile=(first, last), quiet=True)
    assert not (tmp_path / "run").exists()


def test_steps_beyond_the_last_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"profile 3\.\.13: this run makes the steps 1 to 12"):
        train(tiny(), tmp_path / "run", profile=(3, 13), quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_trace_that_cannot_be_made_is_said_and_training_goes_on(tmp_path, untraced):
    def block(event):
        if event.kind == "start":
            (tmp_path / "run" / "profile").touch()  # where its folder should be

    console = Lines()
    run = train(tiny(), tmp_path / "run", observe=[block], profile=(3, 7), console=console)
    (tmp_path / "run" / "profile").unlink()
    jax.profiler.stop_trace()  # JAX keeps a trace that it could not write, and begins no other
    assert sum(line.startswith("warning: no profile: ") for line in console.lines) == 1
    assert run.summary["state_sha256"] == untraced


@pytest.mark.parametrize("text", ["5", "5-7", "..7", "a..b", "1.5..2", "5..4"])
def test_the_command_line_takes_two_steps(tmp_path, text, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits_lenet5", "--profile", text, "--quiet"]) == 2
    assert f"profile {text}: " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_file_for_perfetto_that_jax_cuts_is_warned_of(tmp_path, monkeypatch):
    """Cut where it holds as many events as JAX writes at most; marks over a block's end count."""
    train(tiny(), tmp_path, profile=(3, 7), quiet=True)
    (path,) = tmp_path.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    count = sum(e.get("ph") == "X" for e in events)
    assert count > 10
    assert profiling.cut_short(tmp_path) == []
    monkeypatch.setattr(profiling, "EVENTS", count)
    for block in (1 << 24, 5):
        monkeypatch.setattr(profiling, "BLOCK", block)
        (line,) = profiling.cut_short(tmp_path)
        assert str(path) in line
        assert "trace fewer steps" in line
    monkeypatch.setattr(profiling, "EVENTS", count + 1)
    assert profiling.cut_short(tmp_path) == []


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"no gzip" + b])
def test_an_older_trace_that_is_damaged_ends_no_run(tmp_path, damage, monkeypatch):
    older = tmp_path / "profile" / "plugins" / "profile" / "older" / "vm.trace.json.gz"
    older.parent.mkdir(parents=True)
    older.write_bytes(damage(gzip.compress(b"some bytes" * 1000)))
    console = Lines()
    profile = profiling.Profile(1, 1, tmp_path / "profile")
    with profile.dispatch(1, 1, settle=lambda: None, say=console.line):
        pass
    assert any(f"{older}: cannot be read" in line for line in console.lines)
    (line,) = (w for w in profiling.cut_short(tmp_path) if "cannot be read" in w)
    assert str(older) in line
    monkeypatch.setattr(profiling, "EVENTS", 1)  # the new one is cut, the old one cannot be read
    assert len(profiling.cut_short(tmp_path)) == 2


@pytest.mark.slow
def test_jax_cuts_at_a_million_events(tmp_path):
    step = jax.jit(lambda x: x + 1)
    x = step(jnp.zeros(3))
    with profiling.tracing(tmp_path):
        for _ in range(300_000):
            x = step(x)
    assert len(profiling.cut_short(tmp_path)) == 1
