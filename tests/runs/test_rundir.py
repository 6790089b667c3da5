"""Run directories: of runs that begin together, of one that was killed before it began."""

import json

import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.runs import rundir
from jaxcnn.runs.rundir import locked
from jaxcnn.runs.writers import History


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
