"""A run in the hand, from folders made without training: what is read, refused, decided, said."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.core.program import make_program
from jaxcnn.core.rendering import render
from jaxcnn.data.memory import Arrays
from jaxcnn.data.recorded import Recorded, record
from jaxcnn.errors import CheckpointError, ConfigError, DataError
from jaxcnn.runs import open as opening
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.runs.open import Run, ended_well, evaluate
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.rundir import replica_folder, write_json
from jaxcnn.runs.sweep import at
from jaxcnn.tasks.binary import BinaryClassification
from tests.runs.test_record_rules import RUN, SUMMARY
from tests.tiny import TinyNet, arrays, tiny

E = tiny(
    task=BinaryClassification(positive=(2,)),
    model=TinyNet(num_classes=1),
    data=Arrays(train=arrays(50), eval=arrays(21, seed=1), test=arrays(30, seed=2)),
)
POINTS = [{"seed": 3}, {"seed": 4}, {"seed": 5}]


@pytest.fixture(scope="module")
def state():
    """A state of E at a step; only its step and one number tell it from others."""
    fresh = jax.jit(make_program(E, steps=1).init)(jax.random.key(0))
    return lambda step: dataclasses.replace(fresh, step=jnp.int32(step))


def evaluated(step, threshold, **more):
    metrics = {"best_threshold": threshold, "accuracy": step / 16, **more}
    return {"kind": "eval", "step": step, "epoch": 1.0, "seconds": 1.0, "metrics": metrics}


def put(folder, *, e=E, saved=(), best=(), history=(), summary=None, **more):
    """A run directory with checkpoints [(step, state)] and a history."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("format", "id", "steps_per_dispatch", "environment", "experiment")
    content = {key: RUN[key] for key in keys}
    content |= {"code": {"file": None}, "rendered": render(e), "data": record(e.data).to_json()}
    write_json(folder / "run.json", content | more)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))
    if summary is not None:
        write_json(folder / "summary.json", {**SUMMARY, **summary})
    (folder / "checkpoints").mkdir(exist_ok=True)
    for step, one in saved:
        place = Checkpoints(folder / "checkpoints", RUN["id"], keep=9)
        place.save(one, step=step, best=step in best)
    return folder


def put_sweep(folder, count=3, *, saved=(), verdicts=(), models=(), history=(), points=POINTS):
    put(folder, points=points)
    for i in range(count):
        e = at(E, points[i])
        e = dataclasses.replace(e, model=models[i]) if models else e
        verdict = {"verdict": verdicts[i] if verdicts else "completed"}
        put(replica_folder(folder, i), e=e, saved=saved, summary=verdict, history=history,
            replica=i, point=points[i])  # fmt: skip
    return folder


def test_a_run_is_made_again_or_is_that_of_the_experiment_that_is_given(tmp_path):
    run = open_run(put(tmp_path / "a"))
    assert run.experiment.model == E.model
    assert isinstance(run.experiment.data, Recorded)
    assert run.data == record(E.data)
    assert (run.total_steps, run.is_sweep, run.replicas) == (12, False, [run])
    assert open_run(run.folder, E).experiment is E
    other = {"seed": 9, "batch_size": 4, "ema": None, "log_every": 5, "steps": 6, "eval_every": 2}
    others = dataclasses.replace(E, **other)
    with pytest.raises(ConfigError) as caught:
        _ = open_run(run.folder, others).experiment
    assert f"{run.folder}: is a run of another experiment: " in str(caught.value)
    assert str(caught.value).count(" then, ") == 5
    assert "batch_size: 8 then, 4 now" in str(caught.value)
    assert Run.of(run) is run
    assert Run.of(run.folder).folder == run.folder
    with pytest.raises(ConfigError, match="checkpoint='newest': must be 'last' or 'best'"):
        open_run(run.folder, checkpoint="newest")
    with pytest.raises(ConfigError, match="is not a run directory"):
        open_run(tmp_path)


def test_a_folder_is_named_whole_however_it_was_given(tmp_path, monkeypatch):
    put(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    assert open_run("a").folder == tmp_path / "a"


@pytest.mark.parametrize("given", [True, False])
def test_code_that_was_changed_is_said(tmp_path, monkeypatch, capsys, given):
    asked = []

    def changed(folder, record, *, given):
        asked.append((folder, given))
        return ["mine.py was edited"]

    monkeypatch.setattr(opening.keeping, "changed", changed)
    run = open_run(put(tmp_path / "a"), E if given else None)
    _ = run.experiment, run.experiment
    assert asked == [(run.folder, given)]
    text = f"warning: {run.folder}: mine.py was edited, since the run began; its results may be"
    assert capsys.readouterr().err.count(text) == 1


def test_what_was_recorded_is_read_as_it_is_now(tmp_path, capsys):
    run = open_run(put(tmp_path / "a"))
    assert (run.summary, run.history, run.metrics) == ({}, [], None)
    history = [evaluated(4, 0.25), {"kind": "train", "step": 5, "epoch": 1, "seconds": 1},
               evaluated(8, 0.5)]  # fmt: skip
    put(run.folder, history=history, summary={"verdict": "completed"})
    assert run.summary["verdict"] == "completed"
    assert run.history == history
    assert run.metrics == history[2]["metrics"]
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write("damaged\n")
    for _ in range(2):
        assert run.history == history
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1  # once
    assert "metrics.jsonl: line 4 is damaged" in said
    assert said.endswith("; it is left out\n")


def test_the_checkpoint_is_the_last_or_the_best_one(tmp_path, state, capsys):
    run = open_run(put(tmp_path / "a"))
    with pytest.raises(CheckpointError, match=f"{run.folder}: has no 'last' checkpoint yet; go on"):
        _ = run.state
    history = [evaluated(4, 0.25), evaluated(6, 0.75), evaluated(8, 0.5)]
    put(run.folder, saved=[(4, state(4)), (7, state(7))], best=(4,), history=history)
    last, best = open_run(run.folder), open_run(run.folder, checkpoint="best")
    assert (last.step, best.step) == (7, 4)
    assert last.validation["step"] == 6  # the one before it
    assert best.validation["step"] == 4
    assert open_run(put(tmp_path / "b", saved=[(2, state(2))], history=history)).validation is None
    newest = last.checkpoints.files()[-1]
    newest.write_bytes(b"damaged")
    assert open_run(run.folder).step == 4
    assert "falling back to the checkpoint before it" in capsys.readouterr().err
    assert newest.exists()  # a reader moves nothing


def test_replicas_are_runs_of_their_own(tmp_path, state):
    folder = put_sweep(tmp_path / "s", saved=[(3, state(3))])
    run = open_run(folder, checkpoint="best")
    assert run.is_sweep
    assert [one.folder.name for one in run.replicas] == ["0", "1", "2"]
    assert {one.checkpoint for one in run.replicas} == {"best"}
    assert [one.experiment.seed for one in run.replicas] == [3, 4, 5]
    assert open_run(folder, replica=2).experiment.seed == 5
    given = open_run(folder, E)
    assert [one.experiment.data is E.data for one in given.replicas] == [True] * 3
    assert given.replica(0).experiment.seed == 3
    for index in (-1, 3):
        with pytest.raises(ConfigError, match=f"replica={index}: {folder} has replicas 0 to 2"):
            run.replica(index)
    with pytest.raises(ConfigError, match=r"replica=0: .* is a single run, not a sweep"):
        run.replica(0).replica(0)
    with pytest.raises(ConfigError, match=r"is a sweep: explain one of its \.replicas"):
        run.explain(np.zeros((1, 8, 8, 1), np.uint8))
    (folder / "replicas/1/run.json").unlink()
    assert [one.folder.name for one in run.replicas] == ["0", "2"]
    (folder / "replicas/2").rename(folder / "replicas/x")
    (folder / "replicas/0").rename(folder / "replicas/2")
    with pytest.raises(CheckpointError, match="replicas/2: holds replica 0; put it back"):
        run.replica(2)


def test_a_program_of_ones_own_may_divide_by_its_steps(tmp_path, state):
    e = dataclasses.replace(E, program=lambda e, steps: make_program(E, steps=int(12 / steps)))
    assert open_run(put(tmp_path / "a", e=e, saved=[(4, state(4))]), e).step == 4


def test_a_sweep_is_the_ensemble_of_those_that_were_trained_to_the_end(tmp_path, state):
    verdicts = ["diverged at step 3", "completed", "stopped early at step 3"]
    run = open_run(put_sweep(tmp_path / "s", saved=[(3, state(3))], verdicts=verdicts))
    assert [one.folder.name for one in run.trained()] == ["1", "2"]
    assert isinstance(run.state, tuple)
    assert [int(one.step) for one in run.state] == [3, 3]
    assert (run.standalone().seed, run.standalone().data) == (4, record(E.data))
    lost = open_run(put_sweep(tmp_path / "lost", verdicts=["dropped at a rung"] * 3))
    with pytest.raises(ConfigError, match="no replica was trained to the end"):
        lost.trained()
    models = [TinyNet(num_classes=1, width=width) for width in (4, 5, 4)]
    mixed = open_run(put_sweep(tmp_path / "mixed", models=models, points=[
        {"seed": 3}, {"seed": 3, "model.width": 5}, {"seed": 4}]))  # fmt: skip
    with pytest.raises(ConfigError, match=r"different models; choose one, e\.g\. .*replicas/0"):
        mixed.trained()


@pytest.mark.parametrize(
    "verdict, well",
    [("completed", True), ("stopped early at step 3", True), ("diverged at step 3", False),
     ("dropped at a rung", False), ("not finished", False), (None, False)],
)  # fmt: skip
def test_which_replicas_ended_well(verdict, well):
    assert ended_well({} if verdict is None else {"verdict": verdict}) == well


@pytest.fixture
def scored(monkeypatch):
    """What was to be scored: (experiment, state, split, views)."""
    asked = []

    def evaluate_split(e, state, split, *, tta):
        asked.append((e, state, split, tta))
        return {"count": len(asked)}

    monkeypatch.setattr(opening.evaluation, "evaluate_split", evaluate_split)
    return asked


def test_a_run_is_scored_with_the_decision_of_its_own_validation(tmp_path, state, scored, capsys):
    history = [evaluated(4, 0.25), evaluated(8, 0.75)]
    folder = put(tmp_path / "a", saved=[(4, state(4))], history=history)
    run = open_run(folder, E)
    assert evaluate(run, "test", tta="flip") == {"count": 1}
    (e, one, split, tta) = scored[-1]
    assert (e.task.threshold, int(one.step), split, tta) == (0.25, 4, "test", "flip")
    assert e.data is E.data
    assert capsys.readouterr().err == ""
    run.evaluate()
    assert scored[-1][2:] == ("eval", None)
    said = capsys.readouterr().err
    assert said.startswith("warning: threshold=0.25 was chosen on this very split, so")
    other = Arrays(train=arrays(9), eval=arrays(20, seed=5))
    run.evaluate("eval", data=other)
    assert scored[-1][0].data is other
    assert capsys.readouterr().err == ""
    with pytest.raises(DataError, match=r"data differ in .*\(4, 4, 1\).* trained on .*\(8, 8, 1\)"):
        run.evaluate(data=Arrays(*({**arrays(9), "image": np.zeros((9, 4, 4, 1), np.uint8)},) * 2))
    fewer = dataclasses.replace(E, data=Arrays(train=arrays(49), eval=arrays(21, seed=1)))
    changed = put(tmp_path / "b", e=fewer, saved=[(4, state(4))])
    content = json.loads((changed / "run.json").read_text())
    write_json(changed / "run.json", {**content, "data": record(E.data).to_json()})
    open_run(changed, fewer).evaluate("test")
    assert "its data have changed since it was trained" in capsys.readouterr().err


def test_a_decision_of_another_step_is_said_and_without_one_the_experiments_holds(
    tmp_path, state, capsys
):
    history = [evaluated(4, 0.25), evaluated(8, 0.75)]
    run = open_run(put(tmp_path / "a", saved=[(6, state(6))], history=history))
    assert run.decided(E).task.threshold == 0.25
    text = "threshold=0.25 is that of the evaluation at step 4; the checkpoint of step 6 was not"
    assert text in capsys.readouterr().err
    same = dataclasses.replace(E, task=dataclasses.replace(E.task, threshold=0.25))
    assert run.decided(same) == same  # nothing that differs, nothing to say
    assert capsys.readouterr().err == ""
    run = open_run(put(tmp_path / "b", saved=[(6, state(6))]))
    assert run.decided(E) is E


def test_an_ensemble_keeps_the_decision_of_the_experiment_and_says_so(
    tmp_path, state, scored, capsys
):
    folder = put_sweep(tmp_path / "s", saved=[(4, state(4))], history=[evaluated(4, 0.25)])
    run = open_run(folder, E)
    run.evaluate("test")
    e, states, _, _ = scored[-1]
    assert (e.task, e.seed, len(states)) == (E.task, 3, 3)
    said = capsys.readouterr().err
    assert said.startswith("warning: the replicas by themselves would take threshold=0.25, thres")
    assert f"keeps the experiment's threshold={E.task.threshold!r}" in said
    run = open_run(put_sweep(tmp_path / "t", saved=[(4, state(4))]), E)
    run.evaluate("test")
    assert capsys.readouterr().err == ""


def test_folds_are_scored_together_on_what_none_was_trained_on(tmp_path, state, scored):
    points = [{"seed": 1}, {"seed": 2}, {"seed": 3}]
    folder = put_sweep(tmp_path / "s", saved=[(4, state(4))], points=points)
    content = json.loads((replica_folder(folder, 2) / "run.json").read_text())
    content["point"]["fold"] = [0, 2]  # one such point is enough
    write_json(replica_folder(folder, 2) / "run.json", content)
    run = open_run(folder)
    with pytest.raises(ConfigError, match="each fold's examples were trained on by the models"):
        run.evaluate()
    run.evaluate("eval", data=E.data)
    assert [split for _, _, split, _ in scored] == ["eval"]
    with pytest.raises(ConfigError, match="not on 'train'"):
        run.evaluate("train")


@pytest.fixture
def made(monkeypatch):
    """What predictors, explainers and exports were made of."""
    calls = []

    def of(name):
        def make(*things, **more):
            calls.append((name, things, more))
            return name

        return make

    monkeypatch.setattr(opening, "Predictor", of("predictor"))
    monkeypatch.setattr(opening, "Explainer", of("explainer"))
    monkeypatch.setattr(opening, "export_as", of("export"))
    monkeypatch.setattr(opening, "predict_with", of("rows"))
    return calls


def test_predictions_explanations_and_exports_are_of_the_decided_model(tmp_path, state, made):
    names = ("a", "b", "c")
    e = dataclasses.replace(E, data=dataclasses.replace(E.data, label_names=names))
    run = open_run(put(tmp_path / "a", e=e, saved=[(4, state(4))], history=[evaluated(4, 0.25)]), e)
    assert run.predict("a.png", batch_size=5, tta="flip") == "rows"
    (_, (experiment, one), more), (_, things, _) = made
    assert (experiment.task.threshold, experiment.data) == (0.25, record(e.data))
    assert (int(one.step), more) == (4, {"batch_size": 5, "tta": "flip"})
    assert things == ("predictor", "a.png")
    run.predict("a.png")
    assert made[-2][2] == {"batch_size": 64, "tta": None}
    run.explainer("why", batch_size=3)
    (_, (experiment, one, question), more) = made[-1]
    assert (experiment.data, int(one.step), question) == (record(e.data), 4, "why")
    assert more == {"batch_size": 3}
    for int8, data in ((0, record(e.data)), (9, e.data)):  # 8 bits take the data themselves
        run.export(tmp_path / "m", int8=int8, opset=18)
        (_, (experiment, _, path), more) = made[-1]
        assert (experiment.data, experiment.task.threshold) == (data, 0.25)
        assert path == tmp_path / "m"
        assert more == {"format": "stablehlo", "int8": int8, "label_names": names, "opset": 18}


def test_a_run_shows_itself_shortly(tmp_path):
    run = open_run(put(tmp_path / "a<b"))
    assert repr(run) == f"Run({str(run.folder)!r}, mine)"
    metrics = {"flag": "x", "loss": 0.123456, "count": 21, "more": 3.0}
    put(run.folder, summary={"step": 12, "eval": metrics})
    assert repr(run) == f"Run({str(run.folder)!r}, mine, step=12, loss=0.1235, count=21)"
    shown = run._repr_html_()
    for text in ("a&lt;b", ">mine<", ">12<", ">0.1235<", ">21<"):
        assert text in shown
    assert shown.count("<tr>") == 5
