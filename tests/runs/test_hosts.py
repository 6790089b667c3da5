"""One run by several processes: the same numbers as by one, and an end for all when one ends."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import jaxcnn
from jaxcnn.commands._main import main
from jaxcnn.core import hosts as core_hosts
from jaxcnn.runs import environment
from jaxcnn.runs.hosts import Watch
from jaxcnn.runs.records import read_history
from tests.conftest import ROOT

# Which rows a process decodes is written to the file ROWS.<process>.
FILE = """
import os, sys
from functools import partial
import numpy as np
import optax
from jaxcnn.data.memory import Arrays, MemorySource
from tests.tiny import arrays, tiny

PROCESS = sys.argv[sys.argv.index("--process") + 1] if "--process" in sys.argv else "alone"


class Counted(MemorySource):
    streaming, arrays = True, None

    def take(self, indices):
        with open(os.environ["ROWS"] + "." + PROCESS, "a") as file:
            file.write("".join(f"{i}\\n" for i in np.ravel(indices)))
        return super().take(indices)


class Rows(Arrays):
    def open(self, split):
        return Counted(self._splits[split])


data = Rows(train=arrays(64), eval=arrays(21, seed=1))
experiment = tiny(
    data=data, optimizer=partial(optax.sgd, learning_rate=0.05, momentum=0.9), steps=60, ema=None,
    eval_every=2.5, log_every=1,
)
"""


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("code") / "counted.py"
    path.write_text(FILE)
    return path


def changed(file, folder, code):
    """The experiment's file with more code behind it."""
    path = folder / "changed.py"
    path.write_text(file.read_text() + code)
    return path


class Hosts:
    """Two processes of one run."""

    def __init__(self, *words, rows):
        words = [sys.executable, "launch.py", "train", *map(str, words), "--no-report"]
        words += ["--coordinator", f"localhost:{free_port()}", "--processes", "2", "--process"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ROWS": str(rows)}
        environment.setdefault("JAXCNN_FOUND_SECONDS", "40")
        self.each = [
            subprocess.Popen(
                [*words, str(i)],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]

    def end(self):
        """[(exit code, what was said)] of each."""
        try:
            said = [process.communicate(timeout=300)[1] for process in self.each]
        finally:
            for process in self.each:
                process.kill()
        return [(process.returncode, text) for process, text in zip(self.each, said, strict=True)]


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def history(run):
    return [(r["kind"], r["step"]) for r in run.history]


@pytest.fixture(scope="module")
def together(file, tmp_path_factory):
    """(the run of two processes, the folder in which they wrote what they decoded)."""
    folder = tmp_path_factory.mktemp("together")
    ended = Hosts(file, "--run-dir", folder / "run", rows=folder / "rows").end()
    assert [code for code, _ in ended] == [0, 0], ended
    return jaxcnn.open(folder / "run"), folder


def test_two_processes_train_as_one(file, together, tmp_path, monkeypatch):
    run, _ = together
    monkeypatch.setenv("ROWS", str(tmp_path / "rows"))
    alone = jaxcnn.train(file, tmp_path / "run", quiet=True)
    assert history(run) == history(alone)
    for a, b in zip(run.history, alone.history, strict=True):
        a, b = ({**r, **r.get("metrics", {})} for r in (a, b))
        # BatchNorm amplifies rounding from step to step
        first = {"rel": 1e-6, "abs": 1e-6}  # the larger holds: a norm is above 3
        near = first if a["step"] == 1 else {"rel": 1e-3, "abs": 1e-4}
        for name in ("loss", "accuracy", "grad_norm", "update_norm", "param_norm"):
            if name in b:
                assert a[name] == pytest.approx(b[name], **near), (name, b["step"])
    assert run.record["environment"]["num_hosts"] == 2
    said = environment.differences(alone.record["environment"], run.record["environment"])
    assert "num_hosts: 1 then, 2 now" in said


@pytest.mark.slow
def test_two_processes_each_of_which_divides_the_state(file, tmp_path, monkeypatch):
    """Among its two devices: the checkpoint is whole, and one process has the same numbers after
    a step, and evaluates it alike.
    """
    monkeypatch.setenv("ROWS", str(tmp_path / "rows"))
    alone = jaxcnn.train(file, tmp_path / "alone", overrides=["steps=1"], quiet=True)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    monkeypatch.setenv("NPROC", "8")
    words = (file, "steps=1", "mesh=data=2,fsdp=-1", "--run-dir", tmp_path / "run")
    ended = Hosts(*words, rows=tmp_path / "rows").end()
    assert [code for code, _ in ended] == [0, 0], ended
    run = jaxcnn.open(tmp_path / "run")
    for a, b in zip(
        jax.tree.leaves(run.state.params), jax.tree.leaves(alone.state.params), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert run.evaluate()["loss"] == pytest.approx(alone.summary["eval"]["loss"], abs=1e-5)


def test_each_process_decodes_its_rows_alone(together):
    _, folder = together
    rows = [[int(line) for line in (folder / f"rows.{i}").read_text().split()] for i in range(2)]
    looked_at = 64 + 21  # before training, all of them by both
    of_one = 60 * 8 + 3 * 21
    assert [len(r) - looked_at for r in rows] == [pytest.approx(of_one / 2, rel=0.02)] * 2
    ours = [np.array(r[looked_at:])[: 2 * 8] for r in rows]
    assert len({*ours[0][:16], *ours[1][:16]}) == 32  # of four steps of an epoch


def test_one_writes_and_speaks(together):
    run, folder = together
    assert run.summary["completed"]
    assert sorted(path.name for path in folder.iterdir()) == ["rows.0", "rows.1", "run"]
    assert [step for kind, step in history(run) if kind == "train"] == [*range(1, 61)]


@pytest.mark.parametrize("which", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_signal_to_one_saves_the_same_step_on_both(file, together, tmp_path, which):
    whole, _ = together
    folder = tmp_path / "run"
    hosts = Hosts(file, "--run-dir", folder, rows=tmp_path / "rows")
    wait_for(lambda: any(r["step"] >= 10 for r in read_history(folder / "metrics.jsonl")[0]))
    hosts.each[which].send_signal(signal.SIGTERM)
    start = time.monotonic()
    ended = hosts.end()
    assert [code for code, _ in ended] == [75, 75], ended
    assert time.monotonic() - start < 30  # 10 s on a machine that does nothing else
    words = [text.strip().splitlines()[-1] for _, text in ended]
    assert words[0] == words[1]
    assert f"state saved; go on with: train --resume {folder}" in words[0]
    assert Hosts("--resume", folder, rows=tmp_path / "rows").end()[0][0] == 0
    run = jaxcnn.open(folder)
    assert run.summary["state_sha256"] == whole.summary["state_sha256"]
    assert [s for k, s in history(run) if k == "eval"] == [
        s for k, s in history(whole) if k == "eval"
    ]


@pytest.mark.slow
def test_the_others_end_when_one_is_killed(file, together, tmp_path):
    whole, _ = together
    folder = tmp_path / "run"
    hosts = Hosts(file, "--run-dir", folder, rows=tmp_path / "rows")
    wait_for(lambda: list((folder / "checkpoints").glob("last-*")))
    hosts.each[1].kill()
    start = time.monotonic()
    (code, said), _ = hosts.end()
    assert (code, time.monotonic() - start < 60) == (6, True), said
    assert "host 1 of 2" in said
    assert "is lost" in said
    assert Hosts("--resume", folder, rows=tmp_path / "rows").end()[0][0] == 0
    assert jaxcnn.open(folder).summary["state_sha256"] == whole.summary["state_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_at_any_moment_nothing_is_lost(file, together, tmp_path, seed):
    """Twenty kills and ten signals, of either host, also while they start and compile."""
    whole, _ = together
    random, folder = np.random.default_rng(seed), tmp_path / "run"
    sent = signal.SIGKILL if seed < 20 else signal.SIGTERM
    which, delay = int(random.integers(2)), random.uniform(1.0, 1.1 * whole.summary["seconds"] + 8)
    hosts = Hosts(file, "--run-dir", folder, rows=tmp_path / "rows")
    time.sleep(delay)
    hosts.each[which].send_signal(sent)
    start = time.monotonic()
    ended = hosts.end()
    seconds = time.monotonic() - start
    codes = [code for code, _ in ended]
    print(f"{sent.name} to {which} after {delay:.1f} s: exit codes {codes} after {seconds:.1f} s")
    assert seconds < 60  # 40 of them where one was killed before it had found the other
    if codes != [0, 0]:  # unless a host was done already
        assert 0 not in codes or jaxcnn.open(folder).summary["completed"]
    if (folder / "run.json").is_file():
        again = Hosts("--resume", folder, rows=tmp_path / "rows").end()
    else:
        again = Hosts(file, "--run-dir", folder, rows=tmp_path / "rows").end()
    assert codes == [0, 0] or [code for code, _ in again] == [0, 0], again
    run = jaxcnn.open(folder)
    assert run.summary["state_sha256"] == whole.summary["state_sha256"]
    steps = [r["step"] for r in run.history if r["kind"] == "train"]
    assert steps == list(range(1, 61))


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_the_others_hear_of_an_error(file, tmp_path, process):
    code = f"""
if PROCESS == "{process}":
    Counted.take = lambda self, indices: 1 / 0 if np.ndim(indices) == 1 else None
"""
    hosts = Hosts(
        changed(file, tmp_path, code), "--run-dir", tmp_path / "run", rows=tmp_path / "rows"
    )
    ended = hosts.end()
    assert [ended[process][0], ended[1 - process][0]] == [1, 6], ended
    assert f"host {process} of 2" in ended[1 - process][1]
    assert "has failed: ZeroDivisionError division by zero" in ended[1 - process][1]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("process", ["0", "1"])
def test_one_whose_others_do_not_come_ends(process, tmp_path):
    words = [sys.executable, "launch.py", "train", "--run-dir", str(tmp_path / "run")]
    words += ["--coordinator", f"localhost:{free_port()}", "--processes", "2", "--process", process]
    soon = os.environ | {"JAXCNN_FOUND_SECONDS": "5"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, env=soon)
    assert done.returncode == 6
    assert done.stderr.startswith("error: --coordinator localhost:")
    assert "not all of the 2 processes came within 5 s" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_hosts_that_nobody_names_are_not_found():
    words = [sys.executable, "launch.py", "train", "--coordinator", "auto"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "none of SLURM" in done.stderr


@pytest.mark.parametrize(
    "error, said",
    [
        (
            ValueError("invalid literal for int() with base 10: 'two'"),
            "ValueError: invalid literal",
        ),
        (KeyError("OMPI_COMM_WORLD_SIZE"), "KeyError: 'OMPI_COMM_WORLD_SIZE'"),
        (FileNotFoundError(2, "No such file", "/var/run/secrets"), "FileNotFoundError: "),
    ],
)
def test_what_a_cluster_says_amiss_is_told(error, said, monkeypatch, capsys):
    """Clusters of JAX fail of variables that are none with errors of any kind."""

    def fail(**_):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    assert main(["train", "digits_lenet5", "--coordinator", "auto"]) == 2
    found = capsys.readouterr().err
    assert "error: --coordinator auto: this is none of SLURM" in found
    assert said in found


def test_who_is_behind_the_others_and_does_not_move_hangs(tmp_path, monkeypatch):
    """By what the hosts tell: the first, which looks, is as far as the third; the second is not."""
    monkeypatch.setitem(core_hosts._state, "count", 3)
    watch, said = Watch(tmp_path), []
    watch._stuck = 0.0
    watch._find = said.append

    def told(beat, *at):
        return {i: {"name": f"h{i}", "at": n, "beat": beat} for i, n in enumerate(at)}

    watch._look(told(1, 5, 4, 5))
    watch._look(told(2, 6, 5, 6))  # behind, but it moves
    assert said == []
    watch._look(told(3, 7, 5, 7))
    assert len(said) == 1
    assert said[0].startswith("host 1 of 3 (h1) hangs")
    watch._look(told(4, 7, 7, 7))  # waits, as all do
    watch._look(told(5, 7, 7, 7))
    assert len(said) == 1


@pytest.mark.slow
def test_one_that_hangs_is_named(file, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_STUCK_SECONDS", "5")
    code = """
import time
def take(self, indices, own=Counted.take):
    if PROCESS == "1" and np.ndim(indices) == 1 and np.size(indices) == 4:
        time.sleep(1000)
    return own(self, indices)
Counted.take = take
"""
    path = changed(file, tmp_path, code)
    hosts = Hosts(path, "--run-dir", tmp_path / "run", rows=tmp_path / "rows")
    hosts.each[0].wait(120)
    hosts.each[1].kill()
    (code, said), _ = hosts.end()
    assert code == 6, said
    assert "host 1 of 2" in said
    assert "hangs: behind the others for 5 s" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "other, said",
    [
        ("clip_norm=2.0", "experiment.clip_norm: 1.0 there, 2.0 here"),
        (
            "data=Rows(train=arrays(63), eval=arrays(21, seed=1))",
            "data.sizes.train: 64 there, 63 here",
        ),
    ],
)
def test_hosts_with_other_settings_or_data_are_refused(file, tmp_path, other, said):
    code = f"""
import dataclasses
if PROCESS == "1":
    experiment = dataclasses.replace(experiment, {other})
"""
    path = changed(file, tmp_path, code)
    ended = Hosts(path, "--run-dir", tmp_path / "run", rows=tmp_path / "rows").end()
    assert [code for code, _ in ended] == [6, 2], ended
    assert "host 1 is not as the first one" in ended[1][1]
    assert said in ended[1][1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (("--process", "0"), "belong to --coordinator"),
        (("--coordinator", "here"), "HOST:PORT of the first process goes with"),
        (("--coordinator", "auto", "--process", "1"), "auto goes alone"),
        (("--coordinator", "h", "--processes", "2", "--process", "0"), "must be HOST:PORT"),
        (("--coordinator", "h:1", "--processes", "0", "--process", "0"), "must be 1 or more"),
        (("--coordinator", "h:1", "--processes", "2", "--process", "2"), "one of 0 to 1"),
    ],
)
def test_what_does_not_name_the_hosts_is_refused(words, message, capsys):
    assert main(["train", "digits_lenet5", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1e12"])
def test_seconds_that_are_none_are_refused(text, monkeypatch, capsys):
    monkeypatch.setenv("JAXCNN_FOUND_SECONDS", text)
    words = ["--coordinator", "localhost:1", "--processes", "2", "--process", "1"]
    assert main(["train", "digits_lenet5", *words]) == 2
    assert f"JAXCNN_FOUND_SECONDS={text}: must be" in capsys.readouterr().err
