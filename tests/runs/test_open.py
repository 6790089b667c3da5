"""A run in the hand: opened anywhere, asked without its data, continued with other settings."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap
from functools import partial

import jax
import numpy as np
import optax
import pytest
from PIL import Image

import jaxcnn
from jaxcnn.commands._main import main
from jaxcnn.core.rendering import render as rendered
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import CheckpointError, ConfigError, DataError, Preempted
from jaxcnn.runs import sweep
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.report.facts import command
from jaxcnn.runs.report.reading import read
from jaxcnn.runs.train import train
from jaxcnn.tasks.binary import BinaryClassification
from tests.conftest import ROOT
from tests.tiny import Lines, arrays, fit, stop_at, tiny

EXPERIMENT = '''
"""Two classes of pictures in a folder; the network lies in a neighbour file."""
from functools import partial

import optax

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.tasks.classification import Classification
from neighbour import Net

experiment = Experiment(
    model=Net(), task=Classification(num_classes=2),
    data=Folder("photos", image_size=(8, 8), channels=1),
    optimizer=partial(optax.sgd, learning_rate=0.1), batch_size=4, steps=6, log_every=2,
)
'''
NEIGHBOUR = """
from flax import linen as nn
from layers_of_mine.dense import Dense


class Net(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        return Dense(2)(image.reshape(image.shape[0], -1))
"""


def launch(*arguments, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A user's project with pictures, an experiment that imports its neighbours, and a run."""
    folder = tmp_path_factory.mktemp("project")
    random = np.random.default_rng(0)
    for name, level in (("cat", 40), ("dog", 200)):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = random.integers(level - 30, level + 30, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")
    (folder / "mine.py").write_text(EXPERIMENT)
    (folder / "neighbour.py").write_text(NEIGHBOUR)
    (folder / "layers_of_mine").mkdir()
    (folder / "layers_of_mine/__init__.py").write_text("")
    (folder / "layers_of_mine/dense.py").write_text("from flax.linen import Dense as Dense\n")
    done = launch("train", "mine.py", "--run-dir", "run", "--quiet", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def moved(project, tmp_path):
    """The run alone, elsewhere, its data and its code gone from where they were."""
    shutil.copytree(project / "run", tmp_path / "elsewhere" / "renamed")
    return tmp_path / "elsewhere" / "renamed"


def test_a_run_is_whole_in_itself(project, moved, tmp_path):
    """Copied away: it predicts with the class names of training, exports and opens."""
    shutil.copy(project / "photos/dog/3.png", tmp_path / "new.png")
    done = launch("predict", moved, tmp_path / "new.png", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["name"] == "dog"
    assert [t["name"] for t in row["top"]] == ["dog", "cat"]
    done = launch("export", moved, "--output", tmp_path / "m.jax", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["label_names"] == ["cat", "dog"]
    done = launch("evaluate", moved, cwd=tmp_path)
    assert done.returncode == 3, "the data are gone, which is said"
    assert "photos" in done.stderr
    other = launch(
        "evaluate", moved, "--data", f"path={project / 'photos'}", "--json", cwd=tmp_path
    )
    assert other.returncode == 0, other.stderr
    kept = json.loads((moved / "summary.json").read_text())
    assert json.loads(other.stdout)["confusion"] == kept["eval"]["confusion"]
    assert (moved / "code/neighbour.py").read_text() == NEIGHBOUR
    assert (moved / "code/layers_of_mine/dense.py").exists()


def test_a_new_folder_of_pictures_does_not_shift_the_names(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    (tmp_path / "copy/photos/aardvark").mkdir()
    shutil.copy(project / "photos/cat/0.png", tmp_path / "copy/photos/aardvark/0.png")
    rows = json.loads(
        launch("predict", "run", "photos/dog", "--json", cwd=tmp_path / "copy").stdout
    )
    assert len(rows) == 10
    assert {row["name"] for row in rows} == {"dog"}


def test_other_data_of_another_kind_are_refused(project, moved, tmp_path):
    shutil.copytree(project / "photos", tmp_path / "photos")
    (tmp_path / "photos/cat").rename(tmp_path / "photos/zebra")
    done = launch("evaluate", moved, "--data", f"path={tmp_path / 'photos'}", cwd=tmp_path)
    assert done.returncode == 3
    assert "zebra" in done.stderr


def test_folders_patterns_and_a_picture_that_cannot_be_read(project, moved, tmp_path):
    (tmp_path / "broken.png").write_text("no picture")
    pattern = str(project / "photos/cat/[0-2].png")
    done = launch("predict", moved, pattern, tmp_path / "broken.png", "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert [("error" in row) for row in rows] == [False] * 3 + [True]
    assert done.returncode == 3
    assert "broken.png" in done.stderr
    done = launch("predict", moved, tmp_path / "nothing*.png", cwd=tmp_path)
    assert (done.returncode, "matches no file" in done.stderr) == (3, True)


def test_a_changed_copy_of_the_code_is_refused(moved):
    (moved / "code/mine.py").write_text(EXPERIMENT.replace("batch_size=4", "batch_size=2"))
    with pytest.raises(ConfigError, match="batch_size: 4 then, 2 now"):
        _ = open_run(moved).experiment


def test_a_run_without_its_code_or_of_another_version_says_so(moved):
    (moved / "code/mine.py").unlink()
    with pytest.raises(ConfigError, match="code is gone"):
        _ = open_run(moved).state
    record = json.loads((moved / "run.json").read_text())
    (moved / "run.json").write_text(json.dumps({**record, "format": 1}))
    with pytest.raises(ConfigError, match="an older version"):
        _ = open_run(moved).experiment


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_text("x"), lambda p: None])
def test_what_is_no_run_is_refused(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(ConfigError, match="is not a run directory"):
        open_run(tmp_path / "x")


def test_a_run_made_in_python_is_made_again_from_its_rendering(tmp_path):
    """TinyNet can be imported; the arrays cannot, so that prediction works and evaluation asks."""
    images = arrays(5, seed=3)["image"]
    run_rows = train(tiny(), tmp_path / "a", quiet=True).predict(images)
    shutil.move(tmp_path / "a", tmp_path / "b")
    opened = open_run(tmp_path / "b")
    assert opened.predict(images) == run_rows
    assert opened.experiment.model == tiny().model
    with pytest.raises(DataError, match="were not kept"):
        opened.evaluate()
    metrics = opened.evaluate(data=tiny().data)
    assert metrics == {**opened.summary["eval"], "loss": pytest.approx(metrics["loss"])}
    assert open_run(tmp_path / "b", tiny()).evaluate()["confusion"] == metrics["confusion"]
    with pytest.raises(ConfigError, match="steps: 12 then, 13 now"):
        open_run(tmp_path / "b", tiny(steps=13)).evaluate()


def test_what_python_cannot_import_again_must_be_given(tmp_path):
    def doubled(batch):
        return batch

    e = tiny(transform=(doubled,))
    run = train(e, tmp_path / "a", quiet=True)
    with pytest.raises(ConfigError, match="open\\(folder, experiment=…\\)"):
        _ = open_run(tmp_path / "a").experiment
    given = open_run(tmp_path / "a", e)
    assert len(given.predict(arrays(3)["image"])) == 3
    assert given.step == run.step == 12


def test_predictions_are_those_of_the_model(tmp_path):
    run = train(tiny(), tmp_path, quiet=True)
    images = arrays(70, seed=3)["image"]
    rows = run.predict(images, batch_size=16)
    e, state = tiny(), run.state
    variables = jaxcnn.evaluation_variables(state)
    batch = jaxcnn.prepare(e, {"image": jax.numpy.asarray(images)})
    logits = jaxcnn.apply_model(e, variables, batch, train=False, key=state.key)
    want = np.asarray(jax.nn.softmax(logits))
    got = [[t["probability"] for t in sorted(r["top"], key=lambda t: t["label"])] for r in rows]
    np.testing.assert_allclose(got, want, atol=1e-6)
    as_floats = run.predict(images / 255.0, batch_size=16)
    assert [r["label"] for r in as_floats] == [r["label"] for r in rows]
    with pytest.raises(DataError, match="floats lie in"):
        run.predict(images.astype(np.float32))
    with pytest.raises(DataError, match="has shape"):
        run.predict(images[:, :4])
    with pytest.raises(DataError, match="cannot hold them"):
        run.predict(images.astype(np.int64) + 300)


def test_a_replica_is_opened_evaluated_and_trained_on_alone(tmp_path):
    points = [{"seed": 0}, {"seed": 1, "optimizer.learning_rate": 0.02}]
    sweep = train(tiny(), tmp_path / "many", points=points, way="vmap", quiet=True)
    second = sweep.replicas[1]
    assert second.experiment.seed == 1
    assert second.experiment.optimizer.keywords["learning_rate"] == 0.02
    metrics = second.evaluate(data=tiny().data)
    assert metrics["confusion"] == second.summary["eval"]["confusion"]
    longer = dataclasses.replace(second.experiment, steps=20, data=tiny().data)
    alone = train(longer, tmp_path / "on", start=second, quiet=True)
    assert alone.step == 20
    assert [r["step"] for r in alone.history if r["kind"] == "train"] == list(range(1, 21))
    joined = sweep.predict(arrays(4)["image"])
    assert len(joined) == 4
    with pytest.raises(ConfigError, match="has replicas 0 to 1"):
        open_run(tmp_path / "many", replica=2)


def test_training_longer_carries_state_and_history_and_says_what_changes(tmp_path):
    first = train(tiny(ema=None), tmp_path / "a", quiet=True)
    console = Lines()
    e = tiny(
        ema=None, steps=24, optimizer=partial(optax.adamw, learning_rate=0.02, weight_decay=0.01)
    )
    run = train(e, tmp_path / "b", start=first, console=console)
    text = "\n".join(console.lines)
    assert "steps: 12 then, 24 now" in text
    assert "optimizer.learning_rate: 0.01 then, 0.02 now" in text
    assert "the schedule's multiplier goes from" in text
    rows = [r for r in run.history if r["kind"] == "train"]
    assert [r["step"] for r in rows] == list(range(1, 25))
    assert rows[:12] == [r for r in first.history if r["kind"] == "train"]
    moments = jax.tree.leaves(open_run(tmp_path / "a", tiny(ema=None)).state.opt_state)
    assert max(float(abs(x).max()) for x in moments) > 0, (
        "the control: there was something to carry"
    )
    by_hand = rows[12]["learning_rate"]
    assert by_hand == pytest.approx(0.02 * float(e.schedule(jax.numpy.asarray(12 / 24))))
    with pytest.raises(ConfigError, match="has made 12 updates"):
        train(tiny(ema=None, steps=12), tmp_path / "c", start=first, quiet=True)
    other = tiny(ema=None, steps=24, model=dataclasses.replace(tiny().model, width=5))
    with pytest.raises(CheckpointError, match="parameters do not fit"):
        train(other, tmp_path / "d", start=first, quiet=True)


def test_a_run_is_verified_from_any_folder(project, tmp_path):
    """Its pictures are where they were, in photos/ beside it; here is another photos/."""
    shutil.copytree(project / "photos" / "cat", tmp_path / "photos" / "cat")
    done = launch("verify", project / "run", "--steps", 4, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["to"], found["same"]) == (6, True)


def test_best_and_patience_are_of_the_runs_own_evaluations(tmp_path):
    """Those that were carried over may be of other data, which no later one need ever equal."""
    train(tiny(), tmp_path / "a", quiet=True)
    file = tmp_path / "a" / "metrics.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        if record["kind"] == "eval":
            record["metrics"]["accuracy"] = 1.0
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    e = tiny(steps=60, patience=2, data=Arrays(train=arrays(50), eval=arrays(40, seed=2)))
    with pytest.raises(Preempted):
        train(e, tmp_path / "b", start=tmp_path / "a", observe=[stop_at(18)], quiet=True)
    run = train(e, tmp_path / "b", resume=True, quiet=True)

    own = [r for r in run.history if r["kind"] == "eval" and r["step"] > 12]
    values = [record["metrics"]["accuracy"] for record in own]
    assert len(run.history) > len(own) > 2
    assert max(values) < 1.0
    first = values.index(max(values))
    assert run.summary["best"]["step"] == own[first]["step"]
    assert open_run(tmp_path / "b", e, checkpoint="best").step == own[first]["step"]
    assert read(open_run(tmp_path / "b", e, checkpoint="best")).evaluation == own[first]
    waited = [n - values.index(max(values[: n + 1])) for n in range(len(values))]
    assert all(n < 2 for n in waited[:-1])
    assert (run.summary["verdict"] == "completed") == (own[-1]["step"] == 60)
    assert waited[-1] == 2 or own[-1]["step"] == 60


def test_what_goes_on_from_a_replica_or_with_another_optimizer_is_opened_again(tmp_path):
    points = [{"seed": 0}, {"seed": 7, "optimizer.learning_rate": 0.03, "fold": (1, 2)}]
    first = ["steps=2", "optimizer.learning_rate=0.02"]
    train("xor_mlp", tmp_path / "many", overrides=first, points=points, way="loop", quiet=True)
    start, folder = tmp_path / "many" / "replicas" / "1", tmp_path / "on"
    slower, swapped = "optimizer.learning_rate=0.01", "optimizer=jaxcnn.core.optimizers.sgd"
    for i, more in enumerate(([slower], [swapped, slower], ["seed=3"])):
        words = ("train", "--from", start, f"steps={4 + i}", *more, "--run-dir", folder, "--quiet")
        assert main(list(map(str, words))) == 0
        assert main(["train", "--resume", str(folder), "--quiet"]) == 0
        run = open_run(folder)
        assert run.step == 4 + i
        assert rendered(run.experiment)["optimizer"] == run.record["rendered"]["optimizer"]
        assert (run.experiment.data.k, run.experiment.data.n) == (1, 2)
        assert run.experiment.seed == (3 if i == 2 else 7)
        start, folder = folder, tmp_path / f"on{i}"
    with pytest.raises(ConfigError, match="it went on from step"):  # no command makes it again
        command(run)


def test_from_on_the_command_line(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    done = launch("train", "--from", "run", "steps=9", "--run-dir", "longer", cwd=tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert "steps: 6 then, 9 now" in done.stderr
    summary = json.loads((tmp_path / "copy/longer/summary.json").read_text())
    assert summary["step"] == 9
    again = launch("train", "--resume", "longer", cwd=tmp_path / "copy")
    assert again.returncode == 0, again.stderr


def test_resume_with_another_experiment_is_refused_whole(tmp_path):
    with pytest.raises(Preempted):
        train(tiny(), tmp_path, observe=[stop_at(4)], quiet=True)
    for change in ({"batch_size": 4}, {"steps": 14}, {"seed": 3}):
        (name,) = change
        with pytest.raises(ConfigError, match=f"{name}: "):
            train(tiny(**change), tmp_path, resume=True, quiet=True)
    golden = fit(tiny(), tmp_path / "golden")
    assert fit(tiny(), tmp_path, resume=True)["state_sha256"] == golden["state_sha256"]


def test_import_is_quick_and_offers_the_names():
    code = """
        import time, sys
        started = time.process_time()  # other processes may have the processor meanwhile
        import jaxcnn
        seconds = time.process_time() - started
        assert 'jax' not in sys.modules and 'numpy' not in sys.modules
        assert {"Experiment", "train", "open", "evaluate", "Program", "State"} <= set(dir(jaxcnn))
        assert all(getattr(jaxcnn, name) is not None for name in jaxcnn.__all__)
        print(seconds)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1


def test_what_a_launcher_sets_holds_from_python():
    code = "import jaxcnn; jaxcnn.train; import os; print(os.environ.get('NPROC'))"
    clean = {k: v for k, v in os.environ.items() if k not in ("NPROC", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(len(os.sched_getaffinity(0)))


def test_a_script_is_never_run_again_by_opening_its_run(tmp_path):
    """One that trains when it is imported, without a guard."""
    (tmp_path / "script.py").write_text(
        "from tests.tiny import tiny\nfrom tests.tiny import TinyNet\nimport jaxcnn\n"
        "class Mine(TinyNet):\n    pass\n"
        "open('ran.txt', 'a').write('x')\n"
        "jaxcnn.train(tiny(model=Mine(), steps=2), 'run', quiet=True)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "script.py"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    done = launch("evaluate", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "experiment=…" in done.stderr
    assert (tmp_path / "ran.txt").read_text() == "x"


def test_what_was_carried_over_survives_an_early_kill(tmp_path):
    """The process ends as soon as the loop starts, before any step or save of its own."""

    def die(event):
        if event.kind == "start":
            raise KeyboardInterrupt

    first = train(tiny(), tmp_path / "a", quiet=True)
    e = tiny(steps=18)
    with pytest.raises(KeyboardInterrupt):
        train(e, tmp_path / "b", start=first, observe=[die], quiet=True)
    cut = train(e, tmp_path / "b", resume=True, quiet=True)
    whole = train(e, tmp_path / "c", start=first, quiet=True)
    assert cut.summary["state_sha256"] == whole.summary["state_sha256"]
    rows = [[r["step"] for r in run.history] for run in (cut, whole)]
    assert rows[0] == rows[1]
    for path in (tmp_path / "b/checkpoints").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match="start it anew"):
        train(e, tmp_path / "b", resume=True, quiet=True)


def test_what_is_given_to_a_resume_must_be_what_the_run_was_started_with(tmp_path):
    points = [{"seed": 0}, {"seed": 1}]
    with pytest.raises(Preempted):
        train(tiny(), tmp_path, points=points, way="loop", observe=[stop_at(3)], quiet=True)
    for wrong in ({"points": points[:1]}, {"halving": 2}, {"name": "another"}):
        with pytest.raises(ConfigError, match="was started otherwise"):
            train(tiny(), tmp_path, resume=True, quiet=True, **wrong)
    with pytest.raises(ConfigError, match="no start"):
        train(None, tmp_path, resume=True, start=tmp_path, quiet=True)
    run = train(tiny(), tmp_path, points=points, resume=True, quiet=True)
    assert [r["verdict"] for r in run.summary["replicas"]] == ["completed"] * 2
    with pytest.raises(ConfigError, match="is a sweep"):
        train(tiny(steps=20), tmp_path / "on", start=run, quiet=True)
    with pytest.raises(ConfigError, match="points of a sweep"):
        train(tiny(), tmp_path / "solo", way="vmap", quiet=True)


def test_replicas_of_an_experiment_that_cannot_be_imported_are_given_it(tmp_path):
    def same(batch):
        return batch

    e = tiny(transform=(same,))
    run = train(e, tmp_path, points=[{"seed": 0}, {"seed": 1}], way="loop", quiet=True)
    images = arrays(3)["image"]
    assert [len(replica.predict(images)) for replica in run.replicas] == [3, 3]
    assert len(run.predict(images)) == 3
    assert open_run(tmp_path, e, replica=1).experiment.seed == 1
    with pytest.raises(ConfigError, match="experiment=…"):
        _ = open_run(tmp_path).replicas[0].experiment


def test_a_reader_says_a_damaged_checkpoint_and_touches_nothing(tmp_path, capsys):
    run = train(tiny(), tmp_path, quiet=True)
    newest = sorted((tmp_path / "checkpoints").glob("last-*"))[-1]
    for path in (tmp_path / "checkpoints").glob(f"*{newest.stem.split('-')[1]}*"):
        damaged = path.read_bytes()[:-1]
        path.unlink()
        path.write_bytes(damaged)
    before = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert open_run(run.folder, tiny()).step < 12
    assert "damaged" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == before


def binary(**fields):
    """Its best evaluation is the first, since a count never changes."""
    return tiny(
        task=BinaryClassification(positive=(2,), metric="count"),
        model=dataclasses.replace(tiny().model, num_classes=1),
        data=Arrays(train=arrays(50), eval=arrays(21, seed=1), test=arrays(30, seed=2)),
        **fields,
    )


def forge_thresholds(folder):
    """{step: best_threshold} that its history says from now on."""
    path, told = folder / "metrics.jsonl", {}
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record["kind"] == "eval":
            told[record["step"]] = 0.1 + 0.01 * record["step"]
            record["metrics"]["best_threshold"] = told[record["step"]]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return told


def test_each_checkpoint_has_the_threshold_of_its_own_evaluation(tmp_path, capsys):
    """In evaluation, prediction and export; and what was chosen on what is scored is said."""
    run = train(binary(), tmp_path, quiet=True)
    told, images = forge_thresholds(tmp_path), arrays(6)["image"]
    best = run.summary["best"]["step"]
    assert best == min(told) < max(told) == run.step
    for checkpoint, step in (("best", best), ("last", run.step)):
        opened = open_run(tmp_path, binary(), checkpoint=checkpoint)
        assert opened.step == step
        assert opened.validation["step"] == step
        assert opened.evaluate("test")["threshold"] == told[step]
        assert "held-out" not in capsys.readouterr().err
        assert opened.evaluate("eval")["threshold"] == told[step]
        said = capsys.readouterr().err
        assert f"threshold={told[step]!r} was chosen on this very split" in said
        other = dataclasses.replace(binary().data, eval=arrays(20, seed=5))
        opened.evaluate("eval", data=other)
        assert "held-out" not in capsys.readouterr().err
        for row in opened.predict(images):
            positive = next(side for side in row["top"] if side["label"] == 1)
            assert row["label"] == (positive["probability"] >= told[step])
        opened.export(tmp_path / "model")
        call = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes())).call
        found = call({"image": images})
        np.testing.assert_array_equal(found["label"], found["probability"] >= told[step])


def test_a_checkpoint_between_evaluations_takes_the_threshold_before_it_and_says_so(
    tmp_path, capsys
):
    run = train(binary(eval_every=0.8), tmp_path, quiet=True)
    told = forge_thresholds(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    kept = [x for x in lines if (json.loads(x)["kind"], json.loads(x)["step"]) != ("eval", 12)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    before = max(step for step in told if step < run.step)
    assert open_run(tmp_path, binary()).evaluate("test")["threshold"] == told[before]
    said = capsys.readouterr().err
    assert f"that of the evaluation at step {before}; the checkpoint of step 12" in said


def test_an_ensemble_says_that_it_keeps_the_threshold_of_the_experiment(tmp_path, capsys):
    run = train(binary(), tmp_path, points=sweep.grid(seed=(0, 1)), way="loop", quiet=True)
    assert run.evaluate("test")["threshold"] == 0.5
    assert "keeps the experiment's threshold=0.5" in capsys.readouterr().err
