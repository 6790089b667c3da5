"""Comparisons: disagreements by brute force, McNemar's test from the runs' own predictions, data
that are not the same.
"""

import argparse
import dataclasses
import json
import math
import shutil

import numpy as np
import pytest

from jaxcnn.commands import _main
from jaxcnn.commands import compare as verb
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, Preempted
from jaxcnn.runs.open import Run
from jaxcnn.runs.report.compare import _apart, compare, differing, pair_words, text_of
from jaxcnn.runs.report.compare_page import write_comparison
from jaxcnn.runs.train import train
from tests.runs.report.reader import check
from tests.tiny import arrays, stop_at, tiny


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(experiments, folders) of two runs on the same data."""
    place = tmp_path_factory.mktemp("pair")
    e = tiny(steps=20)
    experiments = [e, dataclasses.replace(e, seed=1, steps=4)]
    for i, one in enumerate(experiments):
        train(one, place / str(i), quiet=True)
    return experiments, [place / "0", place / "1"]


def runs_of(pair):
    return [Run(folder, e) for e, folder in zip(*pair, strict=True)]


def test_pairs_and_disagreements_are_those_of_the_predictions(pair):
    runs = runs_of(pair)
    truth = pair[0][0].data.eval["label"]
    a, b = (
        np.array([row["label"] for row in run.predict(pair[0][0].data.eval["image"])])
        for run in runs
    )
    found = compare(runs)
    (only,) = found.pairs
    first = sum(x == t != y for x, y, t in zip(a, b, truth, strict=True))
    second = sum(y == t != x for x, y, t in zip(a, b, truth, strict=True))
    assert (only["first_only"], only["second_only"]) == (first, second)
    assert only["both"] == sum(x == t == y for x, y, t in zip(a, b, truth, strict=True))
    n, least = first + second, min(first, second)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    assert only["p"] == pytest.approx(min(1.0, 2 * tail))
    apart = found.seen[1].loss.astype(np.float64) - found.seen[0].loss
    assert only["loss"]["mean"] == pytest.approx(apart.mean())
    low, high = only["loss"]["interval95"]
    assert low < apart.mean() < high
    rows = found.to_json()["disagreements"]
    apart = np.flatnonzero(a != b)
    assert {row["example"] for row in rows} <= set(apart.tolist())
    assert len(rows) == min(len(apart), 20)
    for row in rows:
        assert row["said"] == [a[row["example"]], b[row["example"]]]
        assert row["true"] == truth[row["example"]]
    gaps = [abs(np.subtract(*row["loss"])) for row in rows]
    assert gaps == sorted(gaps, reverse=True)


def test_a_loss_that_is_no_number_comes_first(pair):
    seen = compare(runs_of(pair)).seen
    rows = _apart(seen)
    first, second = (s.loss.copy() for s in seen)
    first[rows[-1]], second[rows[-1]] = 0.0, np.nan
    seen = [dataclasses.replace(s, loss=x) for s, x in zip(seen, (first, second), strict=True)]
    assert len(rows) > 1
    assert _apart(seen)[0] == rows[-1]


def test_what_differs_and_the_metrics(pair):
    found = compare(runs_of(pair))
    assert found.settings == {"seed": ["0", "1"], "steps": ["20", "4"]}
    for i, run in enumerate(runs_of(pair)):
        assert found.metrics["accuracy"][i] == run.summary["eval"]["accuracy"]
    assert json.loads(json.dumps(found.to_json()))["examples"] == 21
    lines = text_of(found)
    assert any("McNemar" in line and "95 % interval" in line for line in lines)


def test_of_many_examples_so_many_are_compared_as_the_verb_says_of_itself(pair):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    most = parser.parse_args(["a", "b"]).examples
    data = Arrays(train=arrays(50), eval=arrays(most + 1, seed=7))
    runs = runs_of(pair)
    for run in runs:  # of more examples than they were trained with
        run.experiment = dataclasses.replace(run.experiment, data=data)
    assert len(compare(runs).seen[0].indices) == most


def test_losses_of_tasks_without_right_and_wrong_are_compared():
    loss = {"mean": -0.25, "interval95": (-0.5, 0.0), "examples": 7, "left_out": 2}
    words = pair_words({"first": 0, "second": 1, "loss": loss})
    assert "loss of B less that of A -0.25 (95 % interval -0.5 to +0, n = 7), 2 that" in words
    assert "no test of right and wrong" in words
    nothing = {"mean": None, "interval95": None, "examples": 0, "left_out": 9}
    assert "no loss of A and B is finite" in pair_words({"first": 0, "second": 1, "loss": nothing})


def test_its_page(pair, tmp_path):
    runs = runs_of(pair)
    assert write_comparison(runs, compare(runs), tmp_path / "c.html") == []
    page = check((tmp_path / "c.html").read_bytes())
    assert ["seed", "0", "1"] in page.rows
    assert "exact test p" in page.text
    assert "loss of B less that of A" in page.text
    assert page.all("img")


def test_other_examples_are_not_paired(pair, tmp_path):
    """The same number of other examples; then another number."""
    experiments, folders = pair
    for size, words in ((21, "21 of 21 are others"), (20, "21, 20 of them")):
        data = Arrays(train=arrays(50), eval=arrays(size, seed=7))
        e = dataclasses.replace(experiments[0], data=data, steps=2)
        train(e, tmp_path / str(size), quiet=True)
        runs = [Run(folders[0], experiments[0]), Run(tmp_path / str(size), e)]
        found = compare(runs)
        assert found.seen is None
        assert "different examples" in found.unseen
        assert words in found.unseen
        assert any("not compared" in line for line in text_of(found))
        left_out = write_comparison(runs, found, tmp_path / "c.html")
        assert found.unseen in left_out[0]
        check((tmp_path / "c.html").read_bytes())


def test_without_data_the_rest_is_compared(pair, capsys, tmp_path):
    """By the verb: the runs' arrays were never kept."""
    _, folders = pair
    page = tmp_path / "c.html"
    assert _main.main(["compare", *map(str, folders), "--output", str(page)]) == 0
    out = capsys.readouterr().out
    assert "answers not compared" in out
    assert "steps" in out
    check(page.read_bytes())
    assert _main.main(["compare", *map(str, folders), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["steps"] == ["20", "4"]
    assert "not kept" in found["not_compared"]


def test_a_run_that_was_interrupted_is_compared_as_far_as_it_came(pair, tmp_path):
    """Before its first evaluation, without a checkpoint, and after its first evaluation."""
    experiments, folders = pair
    whole, e, folder = Run(folders[0], experiments[0]), experiments[0], tmp_path / "stopped"

    def found_with(other):
        found = compare([whole, Run(other, e)])
        json.dumps(found.to_json())
        write_comparison([whole, Run(other, e)], found, tmp_path / "c.html")
        check((tmp_path / "c.html").read_bytes())
        return found, "\n".join(text_of(found))

    with pytest.raises(Preempted):
        train(e, folder, quiet=True, observe=[stop_at(2)])
    found, text = found_with(folder)
    assert "no evaluation" in text
    assert found.metrics["accuracy"] == [whole.summary["eval"]["accuracy"], None]
    assert len(found.pairs) == 1  # its state answers all the same
    shutil.copytree(folder, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare/checkpoints")
    found, text = found_with(tmp_path / "bare")
    assert found.seen is None
    assert "has no 'last' checkpoint yet" in text
    with pytest.raises(Preempted):
        train(e, folder, resume=True, quiet=True, observe=[stop_at(12)])
    found, text = found_with(folder)
    assert "no evaluation" not in text
    assert found.to_json()["runs"][1]["step"] == found.readings[1].evaluation["step"] < 12
    assert len(found.pairs) == 1


def test_refused(pair, tmp_path, capsys):
    runs = runs_of(pair)
    with pytest.raises(ConfigError, match="two runs at least"):
        compare(runs[:1])
    assert _main.main(["compare", str(pair[1][0])]) == ConfigError.exit_code
    e = tiny(steps=2)
    train(e, tmp_path / "s", points=[{"seed": 0}, {"seed": 1}], quiet=True, way="loop")
    with pytest.raises(ConfigError, match="is a sweep"):
        compare([runs[0], Run(tmp_path / "s", e)])
    assert "two runs" in capsys.readouterr().err


def test_fields_that_one_lacks():
    a = {"type": "m:A", "x": 1, "y": {"type": "m:B", "z": [1, 2]}}
    b = {"type": "m:A", "x": 1, "y": {"type": "m:C", "w": 3}}
    assert differing([a, b]) == {"y": ["B", "C"], "y.z": ["[1, 2]", None], "y.w": [None, "3"]}


def test_fields_differ_by_their_whole_values():
    """Two classes of one name, and two long lists that begin alike, are not the same."""
    long = [f"class {i}" for i in range(100)]
    a = {"type": "m:A", "model": {"type": "mine:Net"}, "names": long, "other": {"type": "m:B"}}
    b = {**a, "model": {"type": "yours:Net"}, "names": [*long[:98], "class X", "class 99"]}
    found = differing([a, b])
    assert list(found) == ["model", "names"]
    assert found["model"] == ["mine:Net", "yours:Net"]
    assert "'class 98'" in found["names"][0]
    assert "'class X'" in found["names"][1]
    assert max(map(len, found["names"])) < 100
    assert differing([a, a]) == {}
    cut = differing([{"text": "x" * 500}, {"text": f"{'x' * 500}y"}, {}])["text"]
    assert (len(set(cut)), cut[1].rstrip("…")[-2:], cut[2]) == (3, "xy", None)
