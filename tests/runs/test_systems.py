"""What only some systems have is not needed to import jaxcnn, to lock or to be stopped; a run is
begun whole or not at all, and says what has changed of what it depends on.
"""

import collections
import importlib
import os
import signal
import subprocess
import sys
import time

import pytest

from jaxcnn.errors import BusyError, ConfigError, DataError, JaxcnnError
from jaxcnn.runs import environment, keeping
from jaxcnn.runs.rundir import locked, signals
from tests.conftest import ROOT
from tests.tiny import Lines, fit, tiny

WITHOUT = """
import importlib, pkgutil, signal, sys
absent = ("resource", "termios", "pwd", "grp", "fcntl")
import filelock  # which has a way of its own for each system
list(map(getattr, [filelock] * 2, ["FileLock", "Timeout"]))
for name in absent:
    sys.modules[name] = None
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
import jaxcnn
for module in pkgutil.walk_packages(jaxcnn.__path__, "jaxcnn."):
    if "_peer" not in module.name and ".experiments" not in module.name:
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:  # of an extra
            if error.name != "onnx":
                raise
from jaxcnn.runs.rundir import signals
with signals() as stop:
    signal.raise_signal(signal.SIGTERM)
    print(stop())
"""


def test_nothing_that_windows_lacks_is_imported():
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr[-2000:]


def test_nohup_is_heard_and_signals_are_given_back():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


HOLD = """
import sys, time
from pathlib import Path
from jaxcnn.runs.rundir import locked
with locked(Path(sys.argv[1]), resume=False):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_a_killed_owner_leaves_no_lock_and_the_run_is_begun_again(tmp_path):
    """The folder is made by a process that is killed before its run.json; a second start in the
    meantime is told who owns it and takes nothing.
    """
    folder = tmp_path / "run"
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout.readline() == "mine\n"
        with pytest.raises(BusyError, match=f"pid {owner.pid} on "), locked(folder, resume=False):
            pass
        assert sorted(os.listdir(folder)) == ["run.lock", "run.owner"]
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    (folder / "code").mkdir()  # of a later moment
    assert fit(tiny(steps=2), folder)["completed"]


@pytest.mark.slow
def test_of_two_starts_in_one_folder_one_wins_and_loses_nothing(tmp_path):
    command = [sys.executable, str(ROOT / "launch.py"), "train", "xor_mlp", "steps=2000"]
    command += ["--run-dir", str(tmp_path / "run"), "--quiet"]
    for delay in (0.0, 0.1, 0.5):
        folder = tmp_path / f"run{delay}"
        command[-2] = str(folder)
        first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        time.sleep(delay)
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        first.communicate()
        assert sorted([first.returncode, second.returncode])[0] == 0
        assert sorted([first.returncode, second.returncode])[1] in (2, 7), second.stderr
        resumed = [*command[:3], "--resume", str(folder), "--quiet"]
        assert subprocess.run(resumed, cwd=ROOT, capture_output=True).returncode == 0


class Gone(type(tiny().data)):
    """Data that are missing."""

    def open(self, split):
        raise DataError("gone")


@pytest.mark.parametrize("fault", ["weights", "data", "program", "sweep"])
def test_a_start_that_fails_leaves_nothing_behind(tmp_path, fault):
    def nothing(e, *, steps):
        raise ConfigError("no program")

    e = {
        "weights": tiny(weights=str(tmp_path / "none.safetensors")),
        "data": tiny(data=Gone(train=tiny().data.train, eval=tiny().data.eval)),
        "program": tiny(program=nothing),
        "sweep": tiny(weights=str(tmp_path / "none.safetensors")),
    }[fault]
    points = [{"seed": 0}, {"seed": 1}] if fault == "sweep" else None
    for folder in (tmp_path / "new", tmp_path / "empty"):
        if folder.name == "empty":
            folder.mkdir()
        for _ in range(2):  # the same command again
            with pytest.raises(JaxcnnError) as caught:
                fit(e, folder, points=points)
            assert "holds files already" not in str(caught.value)
        assert not folder.exists() or not os.listdir(folder)
    assert fit(tiny(steps=2), tmp_path / "empty")["completed"]


PROJECT = {
    "mine.py": "from jaxcnn.runs.code import load\nimport beside\nexperiment = load('xor_mlp', "
    "overrides=['steps=6', 'log_every=1', 'eval_every=0.02'])\n"
    "def late():\n    import later\n",
    "beside.py": "x = 1\n",
    "later.py": "y = 1\n",
}


def test_what_a_run_depends_on_is_kept_and_compared(tmp_path):
    """An edited copy, an edited neighbour of a given experiment, another jaxcnn: each is named."""
    from jaxcnn.runs.train import train

    for name, text in PROJECT.items():
        (tmp_path / name).write_text(text)
    run = train(tmp_path / "mine.py", tmp_path / "run", quiet=True)
    code = run.record["code"]
    assert set(code["local"].values()) == {"beside.py", "later.py"}
    assert {"commit", "modified"} <= set(run.record["project"])

    def said(**options):
        console = Lines()
        train(None, tmp_path / "run", resume=True, console=console, **options)
        return [line for line in console.lines if "not bit-exact" in line]

    assert said() == []
    (tmp_path / "run/code/beside.py").write_text("x = 2\n")
    assert any("code/beside.py was edited" in line for line in said())
    (tmp_path / "run/code/beside.py").write_text(PROJECT["beside.py"])
    (tmp_path / "beside.py").write_text("x = 3\n")
    assert said() == []  # the run has its own
    given = keeping.changed(tmp_path / "run", run.record, given=True)
    assert len(given) == 1
    assert "beside" in given[0]


def test_the_changes_of_a_project_since_its_commit_are_kept_and_shown(tmp_path, monkeypatch):
    """As a patch that git takes; not what git does not know."""
    from jaxcnn.runs.report.facts import code as code_of
    from jaxcnn.runs.train import train

    def git(*words):
        names = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *names, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "far").mkdir()
    (tmp_path / "far/notes.md").write_text("one\n\ntwo\n\n")
    (tmp_path / "of_xor.py").write_text(
        "from jaxcnn.runs.code import load\nexperiment = load('xor_mlp', overrides=['steps=2'])\n"
    )
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    git("config", "color.ui", "always")
    (tmp_path / "far/notes.md").write_text("<one>\n\ntwo\n\n")
    (tmp_path / "unknown.txt").write_text("hush")
    run = train(tmp_path / "of_xor.py", tmp_path / "run", quiet=True)
    kept = tmp_path / "run/code/project.diff"
    assert run.record["project"]["modified"]
    assert "\n+<one>\n" in kept.read_text()
    assert "hush" not in kept.read_text()
    git("apply", "--reverse", str(kept))
    assert (tmp_path / "far/notes.md").read_text() == "one\n\ntwo\n\n"
    page, _ = code_of(run)
    assert "changes to the project since its commit" in str(page)
    assert "+&lt;one&gt;" in str(page)
    monkeypatch.setattr(environment, "MOST_DIFF", 20)
    git("apply", str(kept))
    assert "\n… cut here, of " in environment.project_diff(tmp_path / "far")
    monkeypatch.setattr(environment, "PACKAGE", tmp_path / "far")  # jaxcnn.diff has that part
    assert environment.project_diff(tmp_path) == ""


def test_each_module_of_a_project_is_looked_up_once(tmp_path, monkeypatch):
    """However often others import it: a run of a large project would begin with seconds of that."""
    names = [f"crowd.m{i}" for i in range(30)]
    (tmp_path / "crowd").mkdir()
    everyone = (
        "import json\nfrom . import " + ", ".join(name.partition(".")[2] for name in names) + "\n"
    )
    for name in ("__init__", *(name.partition(".")[2] for name in names)):
        (tmp_path / "crowd" / f"{name}.py").write_text(everyone)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("crowd")
    asked, look_up = collections.Counter(), keeping._file_of

    def counted(module):
        asked[module] += 1
        return look_up(module)

    monkeypatch.setattr(keeping, "_file_of", counted)
    try:
        assert set(keeping.local_modules(["crowd.m0"])) == {"crowd", *names}
    finally:
        for name in ("crowd", *names):
            del sys.modules[name]
    assert set(asked.values()) == {1}


def test_two_neighbours_of_one_name_are_not_taken_for_each_other(tmp_path):
    """Two projects in one process, as in a notebook: Python would give the second experiment the
    first one's module.
    """
    from jaxcnn.runs.code import load

    for folder, seed in (("a", 1), ("b", 2), ("same", 1)):
        (tmp_path / folder / "layers_beside").mkdir(parents=True)
        (tmp_path / folder / "layers_beside/__init__.py").write_text("")
        (tmp_path / folder / "layers_beside/chosen.py").write_text(f"seed = {seed}\n")
        (tmp_path / folder / "mine.py").write_text(
            "from jaxcnn.runs.code import load\nfrom layers_beside.chosen import seed\n"
            "experiment = load('xor_mlp', overrides=[f'seed={seed}'])\n"
        )
    assert load(tmp_path / "a/mine.py").seed == 1
    assert load(tmp_path / "same/mine.py").seed == 1
    with pytest.raises(ConfigError, match=r"imports layers_beside\.chosen, .* rename one"):
        load(tmp_path / "b/mine.py")


def test_another_jaxcnn_is_named_by_the_rooms_that_differ():
    old = environment.describe()
    assert environment.differences(old, old) == []
    assert {"core", "runs", "ops", "tasks", "data"} <= set(old["source"])
    new = {**old, "source": {**old["source"], "core": "0" * 16}, "commit": "abc"}
    (text,) = environment.differences(old, new)
    assert text.startswith("jaxcnn's own code in core (commit ")
    assert text.endswith("abc now)")
