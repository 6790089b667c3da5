"""The page of a run: each part against numbers that are worked out otherwise, and runs that lack
something.
"""

import json
import re
import shlex
import shutil
from functools import partial

import numpy as np
import optax
import pytest

from jaxcnn.core.rendering import fields, render
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import Preempted
from jaxcnn.runs import code
from jaxcnn.runs.open import Run
from jaxcnn.runs.report.examples import Viewer
from jaxcnn.runs.report.facts import command
from jaxcnn.runs.report.reading import read
from jaxcnn.runs.report.write import write_report
from jaxcnn.runs.train import train
from tests.runs.report.reader import check
from tests.tiny import Lines, arrays, fit, stop_at, tiny

NAMES = ("<script>alert('x')</script>", '"><img src=x onerror=alert(1)>', "naïve & co")
TITLES = (
    *("Verdict", "Curves", "Metrics", "Classes", "Calibration", "Examples"),
    *("Filters of the first layer", "Feature maps of one example", "Layers", "Experiment"),
    *("Code", "How it was made"),
)


def experiment(**options):
    data = Arrays(train=arrays(50), eval=arrays(21, seed=1), label_names=NAMES)
    return tiny(data=data, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(experiment, folder, page, left out) of a run that has everything."""
    e, folder = experiment(), tmp_path_factory.mktemp("report") / "run <b>"
    fit(e, folder)
    left_out = write_report(Run(folder, e))
    return e, folder, check((folder / "report.html").read_bytes()), left_out


@pytest.fixture(scope="module")
def said(made):
    """(logits' likeliest class, probability, true class) of each validation example."""
    e, folder, _, _ = made
    rows = Run(folder, e).predict(e.data.eval["image"])
    label = np.array([row["label"] for row in rows])
    return label, np.array([row["probability"] for row in rows]), e.data.eval["label"]


def titles(page):
    return [title for title in page.titles if title in TITLES]


def test_it_has_every_part_and_says_what_is_missing(made):
    _, _, page, left_out = made
    assert titles(page) == list(TITLES)
    assert left_out == []
    for name in NAMES:
        assert name in page.prose
    assert "run <b>" in page.prose
    assert page.folds["layer table"]  # seen without being asked for


def test_the_confusion_matrix_is_a_count_by_hand(made, said):
    _, _, page, _ = made
    label, _, truth = said
    shown = re.findall(r"(\S[^:]*?) called ([^:]*?): ([\d,]+) \(([\d.]+)%\)", page.prose)
    found = {(a.strip(), b.strip()): (int(n), float(s)) for a, b, n, s in shown}
    count = 0
    for i, j in np.ndindex(3, 3):
        n = int(np.sum((truth == i) & (label == j)))
        mine = [v for (a, b), v in found.items() if a.endswith(NAMES[i]) and b == NAMES[j]]
        assert [v[0] for v in mine] == ([n] if n else [])
        if n:
            assert mine[0][1] == pytest.approx(100 * n / np.sum(truth == i), abs=0.05)
        count += n
    assert count == 21


def test_the_verdict_is_the_share_that_is_right(made, said):
    _, _, page, _ = made
    label, _, truth = said
    assert f"accuracy {np.mean(label == truth):.4g} " in page.prose
    blind = np.bincount(truth).max() / len(truth)
    assert f"Blind (the most frequent class, always): {blind:.4g}." in page.prose
    assert "n = 21 examples" in page.prose


def test_the_table_of_the_classes(made, said):
    _, _, page, _ = made
    label, _, truth = said
    for i, name in enumerate(NAMES):
        (row,) = [r for r in page.rows if r and r[0] == name]
        recall = np.sum((truth == i) & (label == i)) / np.sum(truth == i)
        assert f"{recall:.4g}" == row[1]
        assert str(np.sum(truth == i)) == row[4]


def test_the_calibration_diagram(made, said):
    _, _, page, _ = made
    label, probability, truth = said
    shown = re.findall(r"confidence ([\d.]+), right ([\d.]+), (\d+) examples", page.prose)
    bins = np.clip(np.ceil(probability * 15).astype(int) - 1, 0, 14)
    wanted = [
        (probability[bins == b].mean(), (label == truth)[bins == b].mean(), np.sum(bins == b))
        for b in np.unique(bins)
    ]
    found = [tuple(map(float, row)) for row in shown]
    assert sorted(set(found)) == pytest.approx(np.array(sorted(wanted)), abs=1e-3)


def test_the_curves_hold_what_was_logged(made):
    _, folder, page, _ = made
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (loss, *_) = [json.loads(svg["data-series"]) for svg in page.all("svg") if "data-series" in svg]
    training = [(r["step"], r["loss"]) for r in records if r["kind"] == "train"]
    validation = [(r["step"], r["metrics"]["loss"]) for r in records if r["kind"] == "eval"]
    for series, wanted in zip(loss, (training, validation), strict=True):
        assert series["x"] == [step for step, _ in wanted]
        assert series["y"] == pytest.approx([value for _, value in wanted], rel=1e-4)
    charts = [svg.get("aria-label") for svg in page.all("svg")]
    assert {"loss", "accuracy", "learning rate", "norms", "images/s"} <= set(charts)


def test_a_number_that_stays_the_same_has_no_curve(made, tmp_path):
    _, folder, _, _ = made
    shutil.copytree(folder, tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for i, record in enumerate(r for r in lines if r["kind"] == "eval"):
        record["metrics"] |= {"other": i, "same": 77.0}
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    write_report(Run(tmp_path / "run"), files_only=True)
    page = check((tmp_path / "run" / "report.html").read_bytes())
    charts = [svg.get("aria-label") for svg in page.all("svg")]
    assert "other" in charts
    assert "same" not in charts
    assert ["same", "77"] in page.rows


def test_worst_and_most_confident_wrong_are_so(made, said):
    """The order of the losses against cross-entropies of the probabilities."""
    e, folder, page, _ = made
    label, probability, truth = said
    seen = Viewer(Run(folder, e)).see()
    rows = Run(folder, e).predict(e.data.eval["image"])
    of_truth = [
        next(t["probability"] for t in row["top"] if t["label"] == k)
        for row, k in zip(rows, truth, strict=True)
    ]
    np.testing.assert_allclose(seen.loss, -np.log(of_truth), rtol=1e-3)
    worst = np.argsort(-seen.loss)[:8]
    assert seen.worst(8).tolist() == worst.tolist()
    wrong = np.flatnonzero(label != truth)
    wanted = wrong[np.argsort(-probability[wrong])][:8]
    assert seen.confident_wrong(8).tolist() == wanted.tolist()
    numbers = re.findall(r"#(\d+)", page.prose)
    assert numbers == [str(i) for i in (*wanted, *worst)]


def test_of_many_examples_some_are_looked_at_evenly(made):
    e, folder, _, _ = made
    seen = Viewer(Run(folder, e)).see(most=7)
    assert seen.indices.tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert len(set(seen.digests)) == 7
    every = Viewer(Run(folder, e)).see()
    np.testing.assert_allclose(seen.loss, every.loss[::3], rtol=1e-5)
    assert seen.digests == every.digests[::3]
    write_report(Run(folder, e), path=folder / "few.html", examples=7)
    assert "7 of the 21 validation examples" in check((folder / "few.html").read_bytes()).prose


def test_experiment_versions_and_layers(made):
    _, folder, page, _ = made
    record = Run(folder).record
    assert {"optimizer.learning_rate", "model.width", "task.num_classes"} <= {
        name for name, _ in fields(record["rendered"])
    }
    assert ["optimizer.learning_rate", "0.01"] in page.rows
    assert page.all("wbr")  # where a phone breaks it
    assert record["environment"]["versions"]["jax"] in page.prose
    (total,) = [r for r in page.rows if r and r[0] == "total"]
    assert total[3] == f"{Run(folder).summary['num_params']:,}"


def test_without_its_data_the_rest_is_told(made, tmp_path):
    """The arrays were never kept, so a run that is opened from its folder alone has none."""
    _, folder, _, _ = made
    left_out = write_report(Run(folder), path=tmp_path / "r.html")
    page = check((tmp_path / "r.html").read_bytes())
    kept = [t for t in TITLES if t not in ("Examples", "Feature maps of one example")]
    assert titles(page) == kept
    assert any(s.startswith("Examples: the 'eval' examples") for s in left_out)
    assert "Feature maps of one example: they need an example" in left_out
    assert all(sentence in page.prose for sentence in left_out)


def test_files_only_executes_nothing_and_says_what_it_lacks(made, tmp_path, monkeypatch):
    _, folder, _, _ = made
    monkeypatch.setattr(Run, "experiment", property(lambda self: pytest.fail("executed")))
    left_out = write_report(Run(folder), path=tmp_path / "r.html", files_only=True)
    page = check((tmp_path / "r.html").read_bytes())
    assert len(left_out) == 1
    assert "only the run's files were read" in left_out[0]
    assert "Wilson" in page.prose
    assert "Not compared with a blind answer" in page.prose


def test_a_run_that_learned_nothing_is_told_so(tmp_path):
    lines = Lines()
    e = tiny(optimizer=partial(optax.sgd, learning_rate=0.0), steps=2)
    train(e, tmp_path / "run", console=lines)
    (warning,) = [line for line in lines.lines if "blind" in line]
    assert warning.startswith("warning: no better than a blind answer: accuracy")
    write_report(Run(tmp_path / "run", e))
    page = check((tmp_path / "run" / "report.html").read_bytes())
    assert "No better than a blind answer" in page.prose


def test_interrupted_and_without_evaluations(tmp_path):
    e = tiny(eval_every=100.0)
    with pytest.raises(Preempted):
        train(e, tmp_path / "run", quiet=True, observe=[stop_at(3)])
    (tmp_path / "run" / "summary.json").unlink(missing_ok=True)
    left_out = write_report(Run(tmp_path / "run", e))
    page = check((tmp_path / "run" / "report.html").read_bytes())
    assert "no evaluation" in page.prose
    assert "Interrupted" in page.prose
    assert not any("Traceback" in s or "Error" in s for s in left_out), left_out
    assert "Classes" not in titles(page)


def test_a_sweep(tmp_path):
    e = tiny(steps=6)
    points = [{"seed": s, "optimizer.learning_rate": r} for r in (1e-5, 0.01) for s in (0, 1)]
    run = train(e, tmp_path / "run", points=points, quiet=True, way="loop")
    left_out = write_report(Run(tmp_path / "run", e))
    assert left_out == []
    page = check((tmp_path / "run" / "report.html").read_bytes())
    values = [one.summary["eval"]["accuracy"] for one in run.replicas]
    for rate, pair in ((1e-5, values[:2]), (0.01, values[2:])):
        (row,) = [r for r in page.rows if r and r[0] == f"optimizer.learning_rate={rate}"]
        assert row[1:3] == [f"{np.mean(pair):.4g}", f"{np.std(pair, ddof=1):.4g}"]
        assert row[4:] == ["2", "0"]
    best = values[:2] if np.mean(values[:2]) >= np.mean(values[2:]) else values[2:]
    winner = values.index(max(best))
    assert f"Replica {winner}: Verdict" in page.prose
    lines = [a["aria-label"] for a in page.all("svg")]
    assert "parallel coordinates" in lines


def test_an_edited_history_is_shown_as_far_as_it_makes_sense(made, tmp_path):
    """Metrics of any JSON, in the place of numbers, lists and matrices."""
    e, folder, _, _ = made
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    odd = ["<b>", None, [], {"a": 1}, [["x"]], [[1, 2]], -1, 1e308, True, [None, "y", 10**400]]
    names = [*lines[-1]["metrics"], "<i>", "per_class_new"]
    for shift, _ in enumerate(odd):
        place = tmp_path / f"run{shift}"
        shutil.copytree(folder, place)
        changed = {name: odd[(i + shift) % len(odd)] for i, name in enumerate(names)}
        records = [*lines[:-1], {**lines[-1], "metrics": changed}]
        (place / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        write_report(Run(place, e), files_only=shift > 0, examples=3)
        check((place / "report.html").read_bytes())


def test_a_link_out_of_the_folder_is_not_followed(made, tmp_path):
    _, folder, _, _ = made
    secret = tmp_path / "secret.txt"
    secret.write_text("hush" * 3)
    shutil.copytree(folder, tmp_path / "run")
    link = tmp_path / "run" / "code" / "jaxcnn.diff"
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    left_out = write_report(Run(tmp_path / "run"), files_only=True)
    assert any("jaxcnn.diff" in sentence for sentence in left_out)
    assert "hush" * 3 not in (tmp_path / "run" / "report.html").read_text()


def test_the_command_makes_it_again(tmp_path):
    """From the code that the run keeps: the same rendered experiment."""
    train("xor_mlp", tmp_path / "a run", overrides=["steps=2", "seed=3"], quiet=True)
    run = Run(tmp_path / "a run")
    words = shlex.split(command(run))
    at = words.index("train")
    assert words[at + 3 :] == ["seed=3", "--run-dir", f"{run.folder}-again"]
    again = code.load(words[at + 1], overrides=words[at + 2 : at + 4])
    assert read(run).missing is None
    assert render(again) == render(run.experiment)
