"""Trackers are told each record once, whatever becomes of the run, and never end it."""

import json
import os

import pytest

import jaxcnn
from jaxcnn.errors import ConfigError, DependencyError
from jaxcnn.runs.train import train
from tests.tiny import Lines, fit, tiny


class Memory:
    """A plain logger, and what it was opened for."""

    def __init__(self, run):
        self.run, self.told, self.summaries = run, [], []

    def log(self, step, values):
        self.told.append((step, dict(values)))

    def close(self, summary):
        self.summaries.append(dict(summary))


def memories():
    """(an observer, the loggers that it opened)."""
    opened = []

    def mine(run):
        opened.append(Memory(run))
        return opened[-1]

    return jaxcnn.track(mine), opened


def interrupt_at(step):
    """An observer that ends the process's run at a step, once, as a kill would."""
    broken = []

    def observe(event):
        if event.kind == "train" and event.step == step and not broken:
            broken.append(event)
            raise KeyboardInterrupt

    return observe


def of_history(run):
    """[(step, {name: number})] of metrics.jsonl."""
    found = []
    for record in run.history:
        if record["kind"] != "stop":
            numbers = record.get("metrics", record)
            own = {
                f"{record['kind']}/{name}": value
                for name, value in numbers.items()
                if isinstance(value, int | float) and name not in ("step", "epoch", "replica")
            }
            found.append((record["step"], own))
    return found


def without_time(told):
    """What is the same when a step is made again."""
    of_time = ("train/seconds", "train/images_per_second")
    return [(step, {k: v for k, v in row.items() if k not in of_time}) for step, row in told]


def test_a_logger_gets_config_numbers_and_summary(tmp_path):
    observer, opened = memories()
    run = train(tiny(seed=3), tmp_path / "mine", observe=[observer], quiet=True)
    (logger,) = opened
    about = logger.run
    assert (about.name, about.group, about.resumed) == ("mine", None, False)
    assert (about.id, about.folder) == (run.record["id"], run.folder)
    wanted = {"seed": 3, "optimizer": "adamw", "optimizer.learning_rate": 0.01, "model.width": 4}
    wanted |= {"augment.0": "shift", "augment.0.pixels": 1, "clip_norm": 1.0, "patience": None}
    assert wanted.items() <= about.config.items()
    assert logger.told == of_history(run)
    (summary,) = logger.summaries
    assert (summary["completed"], summary["verdict"], summary["step"]) == (True, "completed", 12)
    assert summary["eval/accuracy"] == run.summary["eval"]["accuracy"]
    assert summary["best/step"] == run.summary["best"]["step"]
    assert all(isinstance(value, bool | int | float | str) for value in summary.values())


def test_a_run_that_was_killed_is_gone_on_with_and_no_step_is_told_twice(tmp_path):
    """Killed at step 8, when 5 was the last that was saved: 6 to 8 are made again."""
    observer, opened = memories()
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path, observe=[observer, interrupt_at(8)], quiet=True)
    run = train(tiny(), tmp_path, observe=[observer], resume=True, quiet=True)
    first, second = opened
    assert first.run.id == second.run.id
    assert (first.run.resumed, second.run.resumed) == (False, True)
    assert without_time(first.told + second.told) == without_time(of_history(run))
    assert [step for step, _ in first.told] == [1, 2, 3, 4, 5, 5, 6, 7, 8]
    assert first.summaries == [{"completed": False, "verdict": "not finished", "step": 8}]
    assert second.summaries[0]["verdict"] == "completed"
    kept = json.loads((tmp_path / "track.json").read_text())
    assert kept == {"mine": {"id": run.record["id"], "logged": {"train": 12, "eval": 12}}}


def test_a_run_that_is_tracked_later_tells_its_earlier_steps_first(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path, observe=[interrupt_at(8)], quiet=True)
    observer, opened = memories()
    run = train(tiny(), tmp_path, observe=[observer], resume=True, quiet=True)
    assert [logger.run.resumed for logger in opened] == [False]
    assert opened[0].told == of_history(run)


def test_the_replicas_of_a_sweep_are_runs_of_a_group(tmp_path):
    """And one that is dropped at a rung is closed there."""
    observer, opened = memories()
    points = [{"seed": 0}, {"seed": 5}]
    folder = tmp_path / "seeds"
    run = train(
        tiny(), folder, points=points, way="loop", halving=2, observe=[observer], quiet=True
    )
    assert [(x.run.name, x.run.group) for x in opened] == [
        ("seeds-0", "seeds"),
        ("seeds-1", "seeds"),
    ]
    assert [x.run.config["seed"] for x in opened] == [0, 5]
    assert [x.run.config["replica"] for x in opened] == [0, 1]
    assert [x.run.id for x in opened] == [f"{run.record['id']}-{i}" for i in (0, 1)]
    for logger, replica in zip(opened, run.replicas, strict=True):
        assert logger.told == of_history(replica)
    verdicts = sorted(x.summaries[0]["verdict"] for x in opened)
    assert verdicts == ["completed", "dropped at a rung"]
    assert all(len(x.summaries) == 1 for x in opened)


@pytest.mark.parametrize("method", ["open", "log", "close"])
def test_a_tracker_that_fails_is_said_once_and_training_goes_on(tmp_path, method, whole):
    calls = []

    class Broken(Memory):
        def log(self, step, values):
            if method == "log" and step == 3:
                calls.append(step)
                raise ConnectionError("no network")

        def close(self, summary):
            calls.append("close")
            raise OSError("no space left on device")

    def broken(run):
        if method == "open":
            calls.append("open")
            raise TimeoutError("no answer")
        return Broken(run)

    console = Lines()
    run = train(tiny(), tmp_path, observe=[jaxcnn.track(broken, name="theirs")], console=console)
    assert len(calls) == 1
    said = [line for line in console.lines if "the observer theirs raised" in line]
    assert len(said) == 1
    assert "training goes on" in said[0]
    assert run.summary["state_sha256"] == whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fit(tiny(), tmp_path_factory.mktemp("untracked"))["state_sha256"]


def test_a_damaged_memory_is_said_and_not_overwritten(tmp_path):
    observer, opened = memories()
    console = Lines()

    def damage(event):
        if event.kind == "start":
            (tmp_path / "track.json").write_text("{")

    train(tiny(), tmp_path, observe=[damage, observer], console=console)
    assert sum("track.json: cannot be read" in line for line in console.lines) == 1
    assert not opened
    assert (tmp_path / "track.json").read_text() == "{"


def test_trackers_are_named():
    with pytest.raises(ConfigError, match=r"none of .*did you mean 'mlflow'"):
        jaxcnn.track("mlfow")
    with pytest.raises(ConfigError, match="project belong to a tracker with a name"):
        jaxcnn.track(Memory, project="digits")


def test_a_tracker_that_is_not_installed_is_refused_before_training(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)  # as if it were not there
    with pytest.raises(DependencyError, match=r"pip install 'jaxcnn\[trackio\]'"):
        jaxcnn.track("trackio")


# ---- the real packages, offline --------------------------------------------------------------

REASON = "trackers are installed by test-parity"
SECRET = "0123456789abcdef" * 2 + "01234567"  # of the form of a key of W&B


def tracked(name, folder, **options):
    """(a run that was killed at 8 and gone on with, a sweep of two seeds) that `name` was told."""
    observer = jaxcnn.track(name, **options)
    console = Lines()
    watch = {"observe": [observer], "console": console}
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), folder / "one", observe=[observer, interrupt_at(8)], console=console)
    one = train(tiny(), folder / "one", resume=True, **watch)
    points = [{"seed": 0}, {"seed": 1}]
    many = train(tiny(), folder / "many", points=points, way="loop", **watch)
    assert not [line for line in console.lines if "raised" in line]
    return one, many


def curve(run, name):
    return [(step, row[name]) for step, row in of_history(run) if name in row]


@pytest.mark.filterwarnings("default")  # of its own packages
def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason=REASON)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    one, many = tracked("mlflow", tmp_path, project="tiny")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("tiny").experiment_id
    found = {r.info.run_name: r for r in client.search_runs([experiment])}
    assert set(found) == {"one", "many-0", "many-1"}
    for name, run in zip(("one", "many-0", "many-1"), (one, *many.replicas), strict=True):
        for metric in ("train/loss", "eval/accuracy"):
            points = client.get_metric_history(found[name].info.run_id, metric)
            assert [(p.step, p.value) for p in points] == curve(run, metric), metric
        assert found[name].info.status == "FINISHED"
        assert found[name].data.params["optimizer.learning_rate"] == "0.01"
    data = found["one"].data
    assert data.metrics["summary/eval/accuracy"] == one.summary["eval"]["accuracy"]
    assert found["many-1"].data.params["seed"] == "1"
    assert {found[f"many-{i}"].data.tags["jaxcnn.group"] for i in (0, 1)} == {"many"}
    # a store that does not know the run is said, and training goes on
    with pytest.raises(KeyboardInterrupt):
        train(
            tiny(), tmp_path / "two", observe=[jaxcnn.track("mlflow"), interrupt_at(8)], quiet=True
        )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    mlflow.set_tracking_uri(None)
    console = Lines()
    observe = [jaxcnn.track("mlflow")]
    assert train(tiny(), tmp_path / "two", observe=observe, resume=True, console=console).summary[
        "completed"
    ]
    assert sum("set MLFLOW_TRACKING_URI" in line for line in console.lines) == 1


@pytest.mark.filterwarnings("default")
def test_trackio(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason=REASON)
    from trackio.sqlite_storage import SQLiteStorage

    one, many = tracked("trackio", tmp_path, project="tiny")
    assert capsys.readouterr().out == "", "results on stdout stay alone"
    found = {name.rpartition("-")[0]: name for name in SQLiteStorage.get_runs("tiny")}
    assert set(found) == {"one", "many-0", "many-1"}
    for name, run in zip(("one", "many-0", "many-1"), (one, *many.replicas), strict=True):
        logs = SQLiteStorage.get_logs("tiny", found[name])
        for metric in ("train/loss", "eval/accuracy"):
            points = [(row["step"], row[metric]) for row in logs if metric in row]
            assert points == curve(run, metric), metric
        config = SQLiteStorage.get_run_config("tiny", found[name])
        assert config["optimizer.learning_rate"] == 0.01
        assert config["seed"] == (1 if name == "many-1" else 0)
    assert logs[-1]["summary/eval/accuracy"] == run.summary["eval"]["accuracy"]


def offline(folder):
    """[records] of each file that W&B keeps of a run until it is uploaded, in the order of time.

    Such a file is a header of 7 bytes and a log as LevelDB has it: blocks of 32 KiB of pieces, each
    a checksum (4 bytes), a length (2), a type (whole, first, middle, last) and bytes.
    """
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        blob, at, part, records = path.read_bytes(), 7, b"", []
        while at + 7 <= len(blob):
            if 32768 - at % 32768 < 7:  # no room for a piece: zeros
                at += 32768 - at % 32768
                continue
            length = int.from_bytes(blob[at + 4 : at + 6], "little")
            kind = blob[at + 6]
            part += blob[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # whole, last
                records.append(wandb_internal_pb2.Record.FromString(part))
                part = b""
        found.append(records)
    return found


@pytest.mark.filterwarnings("default")
def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason=REASON)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    one, many = tracked("wandb", tmp_path, project="tiny")
    for run, group in ((one, ""), *((replica, "many") for replica in many.replicas)):
        files = offline(run.folder)
        assert len(files) == (1 if group else 2)
        rows, summary = [], {}
        for records in files:
            (about,) = [r.run for r in records if r.HasField("run")][:1]
            assert (about.run_id, about.project) == (run.record["id"], "tiny")
            assert about.run_group == group
            config = {c.key: json.loads(c.value_json) for c in about.config.update}
            assert config["optimizer.learning_rate"] == 0.01
            assert config["seed"] == run.record["rendered"]["seed"]
            for record in [r for r in records if r.HasField("history")]:
                items = {
                    x.key or ".".join(x.nested_key): json.loads(x.value_json)
                    for x in record.history.item
                }
                rows.append((items["_step"], items))
            for record in [r for r in records if r.HasField("summary")]:
                for x in record.summary.update:
                    summary[x.key or ".".join(x.nested_key)] = json.loads(x.value_json)
        for metric in ("train/loss", "eval/accuracy"):
            assert [(s, row[metric]) for s, row in rows if metric in row] == curve(run, metric)
        assert summary["verdict"] == "completed"
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
