"""Sweeps by workers: the same table as in one process, whatever happens to the workers."""

import os
import signal
import subprocess
import sys
import time

import pytest

import jaxcnn
from jaxcnn.commands._main import main
from jaxcnn.errors import BusyError, ConfigError, DivergedError, Preempted, ResourceError
from jaxcnn.runs import launch, launchers
from jaxcnn.runs.launch import Launch, divided, together
from jaxcnn.runs.records import read_run
from jaxcnn.runs.rundir import owned, replica_folder
from jaxcnn.runs.sweep import grid
from jaxcnn.runs.train import commands_of, train, train_part
from jaxcnn.runs.writers import Console
from tests.conftest import ROOT
from tests.tiny import Lines, tiny

# whoever evaluates the third time while the file FLAG lies there takes it away and is killed
FILE = """
import dataclasses, itertools, os, signal, time
from jaxcnn.tasks.classification import Classification
from tests.tiny import tiny

evaluations = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Deadly(Classification):
    def metrics(self, sums, records):
        if next(evaluations) == 3:
            try:
                os.unlink(os.environ.get("FLAG", ""))
            except FileNotFoundError:
                pass
            else:
                time.sleep(2)  # what was begun is written
                os.kill(os.getpid(), signal.SIGKILL)
        return super().metrics(sums, records)


experiment = tiny(task=Deadly(num_classes=3))
"""
ALONE = """
import sys
from jaxcnn.runs.train import train
from tests.runs.test_launch import POINTS
train(sys.argv[1], sys.argv[2], points=POINTS, way="loop", quiet=True)
"""
PID = os.getpid()
POINTS = grid(seed=(0, 1), optimizer__learning_rate=(0.01, 0.03))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("code") / "few.py"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def here(file, tmp_path_factory):
    """The sweep in this process."""
    return train(file, tmp_path_factory.mktemp("here"), points=POINTS, way="loop", quiet=True)


@pytest.fixture(scope="module")
def alone(file, tmp_path_factory):
    """The sweep in a process that does nothing else, as workers do nothing else (docs/LOG.md)."""
    folder = tmp_path_factory.mktemp("alone")
    words = [sys.executable, "-c", ALONE, str(file), str(folder)]
    subprocess.run(words, cwd=ROOT, check=True)
    return jaxcnn.open(folder)


def table(run):
    """The table of a sweep, bits included, and the histories of its replicas."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.summary["replicas"]]
    kinds = [[(r["kind"], r["step"]) for r in replica.history] for replica in run.replicas]
    names = ("completed", "settings", "best", "metric", "rule")
    return {"rows": rows, "kinds": kinds, **{name: run.summary[name] for name in names}}


def apart(file, folder, monkeypatch, **fields):
    """The sweep by workers that import the tests' modules."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    console = Lines()
    by = Launch(**{"on": "local", "workers": 2, **fields})
    run = train(file, folder, points=POINTS, way="loop", launch=by, console=console)
    return run, "\n".join(console.lines)


def test_workers_give_the_table_of_one_process_though_one_is_killed(
    file, alone, tmp_path, monkeypatch
):
    (tmp_path / "flag").touch()
    monkeypatch.setenv("FLAG", str(tmp_path / "flag"))
    run, said = apart(file, tmp_path / "run", monkeypatch)
    assert not (tmp_path / "flag").exists()
    assert "ended with SIGKILL" in said
    assert "started again from step 5" in said
    assert table(run) == table(alone)


def test_jobs_of_submitit_give_the_table_of_one_process(file, alone, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    local = {"cluster": "local"}
    run, _ = apart(file, tmp_path / "run", monkeypatch, on="slurm", resources=local)
    assert table(run) == table(alone)


CLUSTER = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
input()
cluster.shutdown()
"""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_cluster_of_ray_gives_the_table_of_one_process(file, alone, tmp_path, monkeypatch):
    """Two nodes of one processor, on this machine."""
    ray = pytest.importorskip("ray")
    words = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True) as cluster:
        address = {"address": cluster.stdout.readline().strip()}
        try:
            run, _ = apart(file, tmp_path / "run", monkeypatch, on="ray", resources=address)
        finally:
            ray.shutdown()
            cluster.communicate("\n")
    assert table(run) == table(alone)


def test_parts_are_those_of_the_folder_in_whatever_process_they_are_trained(file, here, tmp_path):
    by, console = Launch("commands", 2), Console(quiet=True)
    run = train(file, tmp_path / "run", points=POINTS, way="1", launch=by, quiet=True)
    assert not run.replicas
    first, second, last = commands_of(run.folder, by)
    assert first[2:] == ["train", "--resume", str(run.folder), "--part", "0"]
    assert (second[-1], last) == ("1", first[:-2])
    with owned([replica_folder(run.folder, 2)]):
        for part in (1, None):  # None: the whole sweep, of which part 0 is trained meanwhile
            with pytest.raises(BusyError, match=f"2: another process trains here .pid {PID}"):
                go_on(run.folder, part, wait=0.1)
        with pytest.raises(BusyError), owned([replica_folder(run.folder, i) for i in (3, 2)]):
            pass
    assert [r.summary["completed"] for r in run.replicas] == [True, True]
    assert not (run.folder / "summary.json").exists()
    go_on(run.folder, 1)  # which finds the lock of 3 let go of, and the way that the folder keeps
    go_on(run.folder, 0)  # done: nothing happens
    assert read_run(replica_folder(run.folder, 3))["way"] == "1"
    with pytest.raises(ConfigError, match=r"--part 2: .* has the parts 0 to 1"):
        train_part(run.folder, 2, console=console)
    assert table(train(None, run.folder, resume=True, quiet=True)) == table(here)


def go_on(folder, part, *, wait=0.0):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxcnn.runs.train.WAIT", wait)
        if part is None:
            train(None, folder, resume=True, quiet=True)
        else:
            train_part(folder, part, console=Console(quiet=True))


def test_arrays_of_this_process_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="arrays in memory"):
        train(tiny(), tmp_path / "run", points=POINTS, launch=Launch("local", 2), quiet=True)
    assert not (tmp_path / "run").exists()


def test_points_are_divided_so_that_each_worker_has_a_part():
    assert [together(16, n, way=None, halving=None) for n in (1, 2, 3, 16, 99)] == [16, 8, 6, 1, 1]
    assert together(16, 3, way="4", halving=None) == 8, "bundles of 4 stay whole"
    assert together(16, 2, way="vmap", halving=3) is None
    assert divided([1, 3, 5, 7, 9], 2) == [[1, 3], [5, 7], [9]]
    assert divided([1, 3], None) == [[1, 3]]


def by_shell(folder, monkeypatch, text, *, stop=lambda: False):
    """Three parts of a replica each, two at a time, each `trained` by a line of sh in its
    checkpoints' folder, with $part; what was said.
    """
    monkeypatch.setattr(launchers, "POLL", 0.01)
    monkeypatch.setattr(launch, "POLL", 0.01)

    def words(folder, part, **options):
        place = replica_folder(folder, part) / "checkpoints"
        place.mkdir(parents=True, exist_ok=True)
        return ["sh", "-c", f"cd '{place}'; part={part}; {text}"]

    monkeypatch.setattr(launch, "command", words)
    parts, said = {i: [i] for i in range(3)}, []
    error = None
    try:
        launch.train_parts(folder, parts, Launch("local", 2), way=None, stop=stop, say=said.append)
    except Exception as raised:
        error = raised
    return error, "\n".join(said)


SAVE = "touch last-$(ls | wc -l).safetensors"


@pytest.mark.parametrize(
    "text, error, expected",
    [
        ("exit 0", None, {"started again": 0, "done": 3}),
        # as often as something was saved
        (f"{SAVE}; test $(ls | wc -l) -gt 5 || exit 75", None, {"started again": 15, "done": 3}),
        # at every third start
        (f"echo >> ../n; n=$(wc -l < ../n); test $((n % 3)) != 0 || {SAVE}; test $n = 6 || exit 75",
         None, {"started again": 15, "done": 3}),
        # not done, nothing saved
        ("test $part != 1 || (echo error: no disk; exit 6)", "given up: part 1 (replica 1)", {
            "exit code 6: no disk; started again": 2, "given up after 3 starts": 1, "done": 2,
        }),
        (f"{SAVE}; test $part != 1 || kill -9 $$", None, {"SIGKILL": 99}),
        ("test $part = 1 || exit 5", None, {"done": 1, "started again": 0}),
        ("exit 5", "all 3 replicas diverged", {"done": 0, "started again": 0}),
        ("echo warning: it is late; echo so", None, {"warning: part 2 (replica 2): it is late": 1}),
    ],
)  # fmt: skip
def test_what_becomes_of_a_part(tmp_path, monkeypatch, text, error, expected):
    if "SIGKILL" in expected:  # goes on as long as something is saved: ended by stop
        ends = iter(range(400))
        found, said = by_shell(tmp_path, monkeypatch, text, stop=lambda: next(ends) > 60)
        assert isinstance(found, Preempted)
        assert said.count("ended with SIGKILL; started again from step") > 3
        return
    found, said = by_shell(tmp_path, monkeypatch, text)
    assert str(found).startswith(error or "None")
    assert {words: said.count(words) for words in expected} == expected
    first, *lines = said.splitlines()
    workers = tmp_path / "workers"
    assert first == f"3 replicas in 3 parts, 2 at a time by local; what they print: {workers}"
    for i in range(3):  # each start is said
        again = sum(f"part {i} (" in line and "; started again" in line for line in lines)
        assert lines.count(f"part {i} (replica {i}): started") == 1 + again
    kinds = {"given": ResourceError, "all 3": DivergedError}
    assert error is None or isinstance(found, kinds[error[:5]])


def test_who_stops_the_sweep_stops_the_workers_and_waits_for_them(tmp_path, monkeypatch):
    text = "trap 'sleep 0.2; touch saved; exit 75' TERM; touch begun; while :; do sleep 0.02; done"
    places = [replica_folder(tmp_path, i) / "checkpoints" for i in range(3)]
    found, said = by_shell(
        tmp_path, monkeypatch, text, stop=lambda: all((p / "begun").exists() for p in places[:2])
    )
    assert isinstance(found, Preempted)
    assert "stopping 2 workers" in said
    assert [(p / "saved").exists() for p in places] == [True, True, False]


def test_what_a_job_was_lost_of_is_said(tmp_path, monkeypatch):
    """Of its last line, behind what its command printed, in the file of that."""

    def start(words, log, place):
        with log.open("a") as file:
            file.write("step 3\n")
        return launchers.Job(
            lambda: launchers._lost(RuntimeError("at\nthe node is down"), log), None
        )

    monkeypatch.setattr(launch, "launcher", lambda *_: start)
    found, said = by_shell(tmp_path, monkeypatch, "")
    assert isinstance(found, ResourceError)
    assert said.count("ended with its job, which was lost: the node is down; started again") == 6
    log = (tmp_path / "workers" / "part1.log").read_text()
    assert log == "step 3\nerror: the node is down\n" * 3


JOB = """
import signal, sys
from jaxcnn.runs.launchers import execute
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background has none
execute(["sh", "-c", sys.argv[1]], "log")
"""


def test_a_job_that_is_stopped_asks_its_command_to_save_and_waits_for_it(tmp_path):
    text = "trap 'sleep 0.3; touch saved; exit' TERM; touch begun; "
    text += "for i in $(seq 2000); do sleep 0.01; done"
    words = [sys.executable, "-c", JOB, text]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as job:
        try:
            end = time.monotonic() + 60
            while not (tmp_path / "begun").exists():
                assert time.monotonic() < end
                time.sleep(0.01)
            job.send_signal(signal.SIGINT)
            _, said = job.communicate(timeout=15)
        finally:
            job.kill()
    assert b"KeyboardInterrupt" in said
    assert (tmp_path / "saved").exists()
    assert launchers.execute(["sh", "-c", "exit 7"], str(tmp_path / "log")) == 7


def test_a_worker_stops_when_who_waits_for_it_has_gone(monkeypatch):
    assert not launchers.orphaned(), "started by hand"
    for parent, gone in ((os.getppid(), False), (os.getpid(), True)):
        monkeypatch.setenv(launchers.PARENT, str(parent))
        assert launchers.orphaned() is gone


@pytest.mark.parametrize("parent", ["", "none", "-5", "1.5", "²", "9" * 5000])
def test_who_waits_for_a_worker_is_a_number(parent, tmp_path, monkeypatch):
    monkeypatch.setenv(launchers.PARENT, parent)
    with pytest.raises(ConfigError, match=r"JAXCNN_PARENT=.*: is set by who starts a worker"):
        jaxcnn.train(tiny(), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_devices_of_one_machine_are_given_in_turns(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    start = launchers.launcher("local", tmp_path, {})
    for place in range(3):
        job = start(["sh", "-c", "echo $CUDA_VISIBLE_DEVICES"], tmp_path / str(place), place)
        while job.ended() is None:
            time.sleep(0.01)
    assert [(tmp_path / str(i)).read_text() for i in range(3)] == ["4\n", "7\n", "4\n"]


@pytest.mark.parametrize(
    "words, message",
    [
        ("--sweep seed=0,1 --on lokal", "did you mean 'local'"),
        ("--sweep seed=0,1 --on local", "--workers N"),
        ("--sweep seed=0,1 --on local --workers 0", "at least 1"),
        ("--on local --workers 2", "points of a --sweep"),
        ("--sweep seed=0,1 --workers 2", "belong to --on"),
        ("--sweep seed=0,1 --on slurm --workers 2 --resources gpus", "name=value"),
        ("--sweep seed=0,1 --on local --workers 2 --profile 1..2", "not with --on"),
        ("--sweep seed=0,1 --part 0", "belongs to --resume"),
    ],
)
def test_words_that_make_no_sense_are_refused(capsys, words, message):
    assert main(["train", "digits_lenet5", *words.split()]) == 2
    assert message in capsys.readouterr().err
