"""The files in checkpoints/: which are kept, which is read, what the list of them says."""

import errno
import os
import random
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import CheckpointError, ConfigError, ResourceError
from jaxcnn.runs import checkpoint
from jaxcnn.runs.checkpoint import Checkpoints, digest, from_arrays
from jaxcnn.runs.inventory import inventory, prune
from jaxcnn.runs.rundir import write_json
from tests.runs.test_record_rules import RUN

LAST = "last-{:09d}.safetensors".format
BEST = "best-{:09d}.safetensors".format


def state(value):
    return {"x": np.full(3, value, np.float32)}


def value_of(found):
    """(number in the state, step) of what was restored."""
    return float(found[0]["x"][0]), found[1]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_of_many_differences_twenty_are_named_and_all_are_counted():
    wanted = {f"x{i:02d}": np.zeros(2, np.float32) for i in range(25)}
    with pytest.raises(CheckpointError) as caught:
        from_arrays(wanted, {"x00": np.zeros(2, np.float32)}, source="a file")
    first, *lines = str(caught.value).splitlines()
    assert first == "a file: does not fit this experiment (24 differences)"
    assert lines == [f"  missing x{i:02d}" for i in range(1, 21)]


def test_the_digest_tells_forms_and_kinds_of_number_apart():
    same_bytes = [np.zeros(4, np.float32), np.zeros((2, 2), np.float32), np.zeros(4, np.int32)]
    assert len({digest({"a": array}) for array in same_bytes}) == 3


def test_the_newest_two_are_kept_and_the_best_beside_them_is_one_file(tmp_path):
    saved = Checkpoints(tmp_path)
    for step in (1, 2):
        seal = saved.save(state(step), step=step)
        assert seal == digest(state(step))
    assert names(tmp_path) == [LAST(1), LAST(2)]
    assert saved.write({"x": state(3)["x"]}, step=3) == digest(state(3))
    assert names(tmp_path) == [LAST(2), LAST(3)]
    saved.save(state(4), step=4, best=True)
    assert names(tmp_path) == [BEST(4), LAST(3), LAST(4)]
    assert (tmp_path / BEST(4)).samefile(tmp_path / LAST(4))
    assert value_of(saved.restore(state(0), kind="best")) == (4.0, 4)
    assert value_of(saved.restore(state(0))) == (4.0, 4)


def test_a_host_that_does_not_write_saves_nothing(tmp_path):
    assert Checkpoints(tmp_path, writes=False).save(state(1), step=1) is None
    assert names(tmp_path) == []


@pytest.mark.parametrize("seed", range(20))
def test_pruning_keeps_the_best_as_of_each_last_that_is_kept(tmp_path, seed):
    """By brute force over random steps of which there are files."""
    draw = random.Random(seed)
    last = draw.sample(range(1, 12), draw.randrange(1, 6))
    best = draw.sample(range(1, 12), draw.randrange(0, 6))
    keep = draw.randrange(1, 4)
    for path in (*map(LAST, last), *map(BEST, best)):
        (tmp_path / path).touch()
    newest = [step for step in last if sum(other > step for other in last) < keep]
    wanted = {max((b for b in best if b <= step), default=None) for step in newest}
    wanted = (wanted | {max(best, default=None)}) - {None}
    every = {*map(LAST, last), *map(BEST, best)}
    kept = {*map(LAST, newest), *map(BEST, wanted)}
    removed = Checkpoints(tmp_path).prune(keep)
    assert set(names(tmp_path)) == kept
    assert {path.name for path in removed} == every - kept


def test_what_lies_after_the_step_to_go_on_from_is_forgotten(tmp_path):
    Checkpoints(tmp_path, keep=9).save(state(2), step=2)
    for step in (3, 4, 5):
        Checkpoints(tmp_path, keep=9).save(state(step), step=step, best=True)
    Checkpoints(tmp_path).forget(after=4)
    assert names(tmp_path) == [BEST(3), BEST(4), LAST(3), LAST(4)]


def test_what_a_killed_writer_left_is_cleaned_and_never_written_through(tmp_path):
    """A kill between the second name of a file and its renaming leaves a name of a good file."""
    saved = Checkpoints(tmp_path)
    saved.save(state(1), step=1, best=True)
    (tmp_path / "x.tmp").touch()  # not a writer's
    for name in (f".{LAST(2)}.tmp", f".{LAST(3)}.tmp"):
        os.link(tmp_path / BEST(1), tmp_path / name)
    saved.save(state(2), step=2, best=True)
    assert value_of(saved.restore(state(0), among=[1])) == (1.0, 1)
    saved.clean()
    assert names(tmp_path) == [BEST(1), BEST(2), LAST(1), LAST(2), "x.tmp"]


def test_without_hard_links_the_best_is_copied(tmp_path, monkeypatch):
    def no_links(existing, new):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(checkpoint.os, "link", no_links)
    Checkpoints(tmp_path).save(state(1), step=1, best=True)
    assert names(tmp_path) == [BEST(1), LAST(1)]
    assert (tmp_path / BEST(1)).read_bytes() == (tmp_path / LAST(1)).read_bytes()


def test_a_second_name_that_cannot_be_given_is_a_lack_of_room_and_leaves_nothing(tmp_path):
    (tmp_path / LAST(1) / "in the way").mkdir(parents=True)
    with pytest.raises(ResourceError, match=f"{LAST(1)}: cannot be written"):
        Checkpoints(tmp_path).save(state(1), step=1, best=True)
    assert names(tmp_path) == [BEST(1), LAST(1)]
    with pytest.raises(ResourceError, match="new: cannot be written"):
        checkpoint._same_file(tmp_path / "gone", tmp_path / "new")


def test_what_somebody_else_removed_meanwhile_is_no_fault(tmp_path, monkeypatch):
    glob = Path.glob

    def gone_at_once(folder, pattern):
        found = list(glob(folder, pattern))
        for path in found:
            path.unlink()
        return found

    for name in (LAST(3), BEST(1), BEST(2), BEST(3), f".{LAST(4)}.tmp"):
        (tmp_path / name).touch()
    monkeypatch.setattr(Path, "glob", gone_at_once)
    Checkpoints(tmp_path).prune(1)
    Checkpoints(tmp_path).clean()
    assert names(tmp_path) == []


def test_a_checkpoint_that_cannot_be_removed_says_so(tmp_path):
    for step in (1, 2):
        (tmp_path / LAST(step)).mkdir()  # which no unlink removes
    with pytest.raises(ResourceError, match=f"{LAST(1)}: cannot be removed"):
        Checkpoints(tmp_path).prune(1)


def test_files_and_steps_are_in_the_order_of_steps_whatever_their_number_of_digits(tmp_path):
    steps = (7, 999_999_999, 1_000_000_000)
    paths = [LAST(7), BEST(8), LAST(999_999_999), f"{LAST(1_000_000_000)}.damaged"]
    for name in (*paths, "notes.safetensors", "last-x.safetensors", "first-1.safetensors"):
        (tmp_path / name).touch()
    assert [path.name for path in Checkpoints(tmp_path).files()] == paths
    (tmp_path / paths[-1]).rename(tmp_path / LAST(1_000_000_000))
    assert Checkpoints(tmp_path).steps() == [1_000_000_000, 999_999_999, 8, 7]
    assert Checkpoints(tmp_path).steps(kind="best") == [8]
    assert [path.name for path in Checkpoints(tmp_path).prune(2)] == [LAST(7)]
    assert Checkpoints(tmp_path).steps()[:2] == [*reversed(steps[1:])]


@pytest.fixture
def three(tmp_path):
    """Of steps 1, 2 (the best) and 3."""
    saved = Checkpoints(tmp_path, "mine", keep=9)
    for step in (1, 2, 3):
        saved.save(state(step), step=step, best=step == 2)
    return saved


def test_the_newest_good_one_is_read_of_those_asked_for(three):
    assert value_of(three.restore(state(0))) == (3.0, 3)
    assert value_of(three.restore(state(0), kind="best")) == (2.0, 2)
    assert value_of(three.restore(state(0), among=[1, 2])) == (2.0, 2)
    assert three.restore(state(0), among=[]) is None
    (three.folder / LAST(3)).unlink()
    (three.folder / LAST(2)).unlink()
    assert value_of(three.restore(state(0))) == (2.0, 2)  # the best one, though a last is there
    (three.folder / LAST(3)).write_bytes((three.folder / LAST(1)).read_bytes())
    with pytest.raises(CheckpointError, match=f"{LAST(1)}: does not fit"):
        three.restore({"y": np.zeros(3, np.float32)}, among=[1])


@pytest.mark.parametrize("way", ["set aside", "read alone", "read-only"])
def test_a_damaged_one_is_said_and_set_aside_by_who_trains_alone(three, monkeypatch, way):
    damaged, said = three.folder / LAST(3), []
    damaged.write_bytes(b"damaged")
    if way == "read-only":
        monkeypatch.setattr(checkpoint.os, "access", lambda place, mode: False)
    found = three.restore(state(0), set_aside=way != "read alone", warn=said.append)
    assert value_of(found) == (2.0, 2)
    assert len(said) == 1
    assert said[0].startswith(f"{damaged}: damaged")
    assert said[0].endswith("; falling back to the checkpoint before it")
    aside = way == "set aside"
    assert damaged.exists() != aside
    assert (three.folder / f"{LAST(3)}.damaged").exists() == aside


def test_another_runs_is_not_taken(three):
    said = []
    with pytest.raises(CheckpointError, match="every 'last' checkpoint is damaged or not this"):
        Checkpoints(three.folder, "another").restore(state(0), warn=said.append, set_aside=False)
    assert len(said) == 4
    assert all("belongs to another run" in text for text in said)


def test_none_is_none_until_one_was_set_aside(tmp_path):
    saved = Checkpoints(tmp_path)
    assert saved.restore(state(0)) is None
    (tmp_path / f"{LAST(1)}.damaged").touch()
    assert saved.restore(state(0), kind="best") is None
    assert saved.restore(state(0), among=[1]) is None
    with pytest.raises(CheckpointError, match="every 'last' checkpoint is damaged"):
        saved.restore(state(0))
    (tmp_path / f"{LAST(1)}.damaged").rename(tmp_path / f"{BEST(1)}.damaged")
    with pytest.raises(CheckpointError, match="every 'best' checkpoint is damaged"):
        saved.restore(state(0), kind="best")


def test_keys_and_numbers_come_back_as_what_they_were(tmp_path):
    saved = Checkpoints(tmp_path)
    tree = {"key": jax.random.key(5), "n": jnp.uint32(5), "pair": jnp.arange(2, dtype=jnp.uint32)}
    saved.save(tree, step=1)
    found, _ = saved.restore(jax.eval_shape(lambda: tree))
    assert jax.random.uniform(found["key"]) == jax.random.uniform(tree["key"])
    assert (int(found["n"]), found["pair"].tolist()) == (5, [0, 1])


def as_run(three, **fields):
    """What the list of checkpoints asks of a run."""
    history = [
        {"kind": "train", "step": 1, "loss": 0.5},
        {"kind": "eval", "step": 2, "metrics": {"accuracy": 0.5, "count": 21, "curve": [1, 2]}},
        {"kind": "eval", "step": 3, "metrics": {"accuracy": 0.25}},
    ]
    one = SimpleNamespace(checkpoints=three, history=history, record={"replica": 4})
    own = {"replicas": [one], "record": {}, "is_sweep": False, "folder": three.folder}
    return SimpleNamespace(**own, **fields)


def test_the_list_has_a_row_for_each_file_with_what_is_wrong_with_it(three):
    run = as_run(three)
    rows = inventory(run)
    assert [(Path(row["file"]).name, row["kind"], row["step"]) for row in rows] == [
        *((LAST(1), "last", 1), (BEST(2), "best", 2), (LAST(2), "last", 2), (LAST(3), "last", 3)),
    ]
    size = (three.folder / LAST(1)).stat().st_size
    for row in rows:
        assert "replica" not in row
        assert (row["seal"], row["bytes"], row["fault"]) == ("not verified", size, None)
        assert row["state_sha256"] == digest(state(row["step"]))
    best = {"accuracy": 0.5, "count": 21}  # numbers alone
    assert [row["metrics"] for row in rows] == [None, best, best, {"accuracy": 0.25}]
    assert {row["seal"] for row in inventory(run, verify=True)} == {"good"}

    blob = bytearray((three.folder / LAST(3)).read_bytes())
    blob[-1] ^= 1
    (three.folder / LAST(3)).write_bytes(blob)
    (three.folder / LAST(2)).rename(three.folder / f"{LAST(4)}.damaged")
    (three.folder / BEST(2)).rename(three.folder / f"{BEST(2)}.damaged")
    (three.folder / LAST(1)).write_bytes(b"short")
    three.write(state(5), step=5)
    Checkpoints(three.folder, "another", keep=9).write(state(6), step=6)
    faults = {row["step"]: row for row in inventory(run, verify=True)}
    assert faults[1]["fault"].startswith("damaged (")
    assert (faults[1]["bytes"], faults[1]["state_sha256"]) == (5, None)
    assert faults[2]["fault"] == "set aside: it was found damaged"
    assert (faults[3]["seal"], faults[3]["metrics"]) == ("bad", None)
    assert "SHA-256 does not match" in faults[3]["fault"]
    assert faults[4]["fault"] == "set aside: is the checkpoint of step 2, named as step 4"
    assert (faults[5]["fault"], faults[5]["seal"]) == (None, "good")
    assert faults[6]["fault"] == "belongs to another run"
    run.is_sweep = True
    assert [row["replica"] for row in inventory(run)] == [4] * 6


@pytest.mark.parametrize("is_sweep, least", [(False, 1), (True, 2)])
def test_a_run_keeps_one_at_least_and_a_sweep_two(three, is_sweep, least):
    write_json(three.folder / "run.json", RUN)
    run = as_run(three)
    run.is_sweep = is_sweep
    for keep in (least - 1, -1):
        with pytest.raises(ConfigError, match=f"prune {keep}: keep at least {least} of"):
            prune(run, keep)
    wanted = [str(three.folder / LAST(step)) for step in (1, 2)[: 3 - least]]
    assert prune(run, least) == wanted
    assert len(three.steps(kind="last")) == 2
