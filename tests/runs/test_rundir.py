"""Run directories: made, owned by one process, taken back; and the signals that ask it to stop."""

import errno
import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from jaxcnn.errors import BusyError, ConfigError, ResourceError
from jaxcnn.runs import rundir
from jaxcnn.runs.rundir import locked, owned
from jaxcnn.runs.writers import History
from tests.runs.test_record_rules import RUN


def test_runs_that_begin_in_the_same_second_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rundir.time, "strftime", lambda form: "now")
    folders = [rundir.new_folder("mine") for _ in range(3)]
    assert [folder.name for folder in folders] == ["mine-now", "mine-now-2", "mine-now-3"]
    with pytest.raises(ZeroDivisionError), locked(folders[1], resume=False, new=True):
        _ = 1 / 0
    assert not folders[1].exists()
    assert folders[2].exists()


def test_a_run_that_was_killed_before_it_began_is_begun_again(tmp_path):
    (tmp_path / "code").mkdir()
    with pytest.raises(ConfigError, match="holds files already"), locked(tmp_path, resume=False):
        pass  # a folder `code` of somebody else's
    assert (tmp_path / "code").exists()
    (tmp_path / "run.lock").touch()
    (tmp_path / ".run.owner.tmp").touch()  # killed while it was written
    with locked(tmp_path, resume=False):
        pass
    (tmp_path / "run.json").touch()
    with pytest.raises(ConfigError, match="holds files already"), locked(tmp_path, resume=False):
        pass


@pytest.mark.parametrize("torn", [b"{", b"3\n", b"\xff\xfe\x00", b'{"step"', b"\x00\x00", b"[]"])
def test_a_history_ends_where_it_was_torn(tmp_path, torn):
    good = json.dumps({"kind": "train", "step": 1, "epoch": 0.1, "seconds": 1.0}).encode() + b"\n"
    (tmp_path / "metrics.jsonl").write_bytes(good + torn)
    assert [record["step"] for record in History(tmp_path / "metrics.jsonl").records] == [1]


def test_a_file_is_written_for_people_to_read_a_key_a_line(tmp_path):
    rundir.write_json(tmp_path / "a.json", {"one": 1, "two": [2]})
    assert (tmp_path / "a.json").read_text() == '{\n "one": 1,\n "two": [\n  2\n ]\n}'


def test_a_folder_is_made_with_those_above_it_or_there_already(tmp_path):
    for _ in range(2):
        rundir.make_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="file: cannot be made"):
        rundir.make_folder(tmp_path / "file")


def test_the_place_where_data_begin_moves_with_a_run_that_lies_within_it(tmp_path):
    work, run = tmp_path / "work", tmp_path / "work" / "runs" / "a"
    run.mkdir(parents=True)
    kept = rundir.kept_start(run, work)
    assert rundir.start_of(run, {"started_in": kept}) == work
    assert rundir.start_of(tmp_path / "moved/runs/a", {"started_in": kept}) == tmp_path / "moved"
    elsewhere = tmp_path / "elsewhere"
    kept = rundir.kept_start(run, elsewhere)
    for place in (run, tmp_path / "moved/runs/a"):
        assert rundir.start_of(place, {"started_in": kept}) == elsewhere
    assert rundir.start_of(run, {}) == Path.cwd()
    assert rundir.replica_folder(run, 3) == run / "replicas" / "3"


def made_by_a_run(folder):
    for name in ("checkpoints", "replicas/0/code", "wandb"):
        (folder / name).mkdir(parents=True)
    for name in ("run.json", "metrics.jsonl", "replicas/0/run.json", "code"):
        (folder / name).touch()  # the last a file of an odd kind, which goes as well


def fail_after(make, folder, **options):
    """A new run that makes something and then ends in an error."""

    def run():
        with locked(folder, resume=False, **options):
            make()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()


def names_in(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else None


OWN = {"run.lock", "run.owner"}
MADE = {"checkpoints", "replicas", "wandb", "run.json", "metrics.jsonl", "code"}


@pytest.mark.parametrize("before, new, left", [(False, False, None), (True, False, set()),
                                               (True, True, None)])  # fmt: skip
def test_a_new_run_that_fails_before_it_trained_leaves_nothing(tmp_path, before, new, left):
    folder = tmp_path / "run"
    if before:
        folder.mkdir()
    fail_after(lambda: made_by_a_run(folder), folder, new=new)
    assert names_in(folder) == left


@pytest.mark.parametrize(
    "file", ["metrics.jsonl", "checkpoints/last-1.safetensors", "replicas/0/metrics.jsonl",
             "workers/0.log"]
)  # fmt: skip
def test_a_new_run_that_fails_after_it_trained_keeps_all(tmp_path, file):
    def trained():
        made_by_a_run(tmp_path)
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}\n")

    fail_after(trained, tmp_path)
    assert names_in(tmp_path) >= MADE | OWN


def test_what_a_link_in_a_run_points_to_is_never_removed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    link = tmp_path / "run" / "tensorboard"
    fail_after(lambda: link.symlink_to(tmp_path / "elsewhere"), tmp_path / "run")
    assert names_in(tmp_path) == {"elsewhere"}
    assert names_in(tmp_path / "elsewhere") == {"file"}


def test_a_run_that_goes_on_is_there_already_and_loses_nothing_by_an_error(tmp_path):
    nowhere = locked(tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="is not a run directory"), nowhere:
        pass
    assert not (tmp_path / "run").exists()
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    with pytest.raises(ZeroDivisionError), locked(tmp_path, resume=True):
        _ = 1 / 0
    with locked(tmp_path, resume=True):
        pass
    assert names_in(tmp_path) == {"run.json", *OWN}


def test_a_run_that_began_keeps_its_lock_and_one_that_made_nothing_does_not(tmp_path):
    """Whoever waits for a lock that is removed would own it beside the next."""
    with locked(tmp_path / "a", resume=False):
        (tmp_path / "a" / "run.json").touch()
    assert names_in(tmp_path / "a") == {"run.json", *OWN}
    with locked(tmp_path / "b", resume=False):
        pass
    assert not (tmp_path / "b").exists()
    with locked(tmp_path / "c", resume=False):
        shutil.rmtree(tmp_path / "c")  # by somebody else
    assert not (tmp_path / "c").exists()


def test_a_second_owner_is_refused_at_once_with_who_the_first_is(tmp_path):
    def refusal():
        start = time.monotonic()
        with pytest.raises(BusyError) as caught, locked(tmp_path, resume=False):
            pass
        with pytest.raises(BusyError), owned([tmp_path]):
            pass
        assert time.monotonic() - start < 0.9
        return str(caught.value)

    with locked(tmp_path, resume=False):
        assert f"(pid {os.getpid()} on {socket.gethostname()})" in refusal()
        (tmp_path / "run.owner").write_bytes(b"\xff" + b"x" * 300)
        assert f"(\ufffd{'x' * 199})" in refusal()
        (tmp_path / "run.owner").unlink()
        assert "(it has just begun)" in refusal()
    with owned([tmp_path / "a/0", tmp_path / "a/1"]):
        assert names_in(tmp_path / "a/1") == OWN
        with pytest.raises(BusyError), owned([tmp_path / "a/1"]):
            pass
    with owned([tmp_path / "a/1"]):
        pass


def test_an_owner_that_is_about_to_end_is_waited_for(tmp_path):
    held = threading.Event()

    def hold():
        with owned([tmp_path]):
            held.set()
            time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with owned([tmp_path], wait=30):
        assert names_in(tmp_path) == OWN
    thread.join()


def test_a_folder_that_cannot_be_locked_is_refused_not_guarded_by_a_file(tmp_path, monkeypatch):
    """A file that stands for a lock outlasts a process that is killed."""

    def no_locks(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    lock = locked(tmp_path, resume=False)
    with pytest.raises(ResourceError, match=r"locked \(Function not implemented\)"), lock:
        pass


class Released:
    """A lock, and what happens when it is let go of."""

    def __init__(self, then):
        self.release = then


@pytest.mark.parametrize("signed", [True, False])
def test_the_lock_of_a_run_that_began_in_between_is_left(tmp_path, signed):
    (tmp_path / "run.lock").touch()
    if signed:
        (tmp_path / "run.owner").touch()
    another = Released(lambda: (tmp_path / "run.lock").write_text("another's"))
    rundir._leave(tmp_path, another, remove=True, new=True)
    assert (tmp_path / "run.lock").read_text() == "another's"


@pytest.mark.parametrize("system", ["lets it be", "removes it"])
def test_a_lock_that_cannot_be_removed_while_it_is_held_is_removed_then(
    tmp_path, monkeypatch, system
):
    """As on Windows, where no file that is in use can be removed."""
    folder, unlink, in_use = tmp_path / "run", Path.unlink, [True]
    folder.mkdir()
    (folder / "run.lock").touch()

    def unlink_there(path, missing_ok=False):
        if path.name == "run.lock" and in_use:
            raise PermissionError(errno.EACCES, "in use")
        unlink(path, missing_ok=missing_ok)

    def release():
        in_use.clear()
        if system == "removes it":
            (folder / "run.lock").unlink()

    monkeypatch.setattr(Path, "unlink", unlink_there)
    rundir._leave(folder, Released(release), remove=True, new=True)
    assert not folder.exists()


@pytest.fixture
def ended(monkeypatch):
    """The codes with which this process would have ended."""
    codes = []
    monkeypatch.setattr(rundir.os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_ends(number, ended, request):
    own = signal.signal(number, signal.SIG_DFL)  # these tests may run under nohup, or behind a `&`
    request.addfinalizer(lambda: signal.signal(number, own))
    before = signal.getsignal(number)
    with rundir.signals() as stopped:
        assert not stopped()
        signal.raise_signal(number)
        assert stopped()
        assert ended == []
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        else:
            signal.raise_signal(number)
            assert ended == [128 + number]  # as a shell names a process that a signal ended
    assert signal.getsignal(number) is before


def test_who_is_not_to_be_hung_up_goes_on_and_other_threads_hear_nothing(ended):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with rundir.signals() as stopped:
            signal.raise_signal(signal.SIGHUP)
            assert not stopped()
    finally:
        signal.signal(signal.SIGHUP, before)
    heard = []

    def listen():
        with rundir.signals() as stopped:
            heard.append((stopped(), signal.getsignal(signal.SIGTERM)))

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard == [(False, handler)]
