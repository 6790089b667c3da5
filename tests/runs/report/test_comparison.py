"""Comparisons of runs and answers that are written by hand, in words, as JSON and as a page."""

import dataclasses
import json

import numpy as np
import pytest

from jaxcnn.runs.report import compare, compare_page, reading
from jaxcnn.runs.report.compare import Comparison
from jaxcnn.runs.report.examples import Seen
from jaxcnn.tasks.task import Blind
from jaxcnn.tasks.verdict import Verdict
from tests.runs.report.by_hand import RECORD, evaluation, rows, step, tree, words, write
from tests.runs.report.reader import check
from tests.runs.report.test_examples_page import Told

LABELS = (np.array([0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 0]))
TRUTH = np.array([0, 1, 0, 0, 1])
LOSSES = ([0.1, 0.5, 2.0, 0.25, 1.0], [0.1, 1.5, 2.0, 0.5, np.inf])


def seen_of(losses, **columns):
    places = np.arange(5) * 1000
    return Seen(5000, places, np.float32(losses), tuple("abcde"), **columns)


def found_of(folder, *, labels=True, unseen=None, changed=("", "the data have changed")):
    """Two runs of which the second is no better than blind."""
    readings = []
    for i, accuracy in enumerate((0.75, 0.5)):
        records = [step(1, loss=2.0), step(2, loss=1.0), evaluation(2, accuracy=accuracy, loss=i)]
        rendered = RECORD["rendered"] | {"steps": 10 + i}
        rendered |= {"extra": 3} if i else {}
        run = write(folder / "ab"[i], records, rendered=rendered)
        verdict = Verdict("accuracy", accuracy, 20, None, Blind(0.5, "always cat"), True)
        readings.append(reading.Reading(run, records, records[-1], verdict, None))
    seen = [
        seen_of(loss, **({"label": label, "truth": TRUTH} if labels else {}))
        for loss, label in zip(LOSSES, LABELS, strict=True)
    ]
    pictures = {"image": np.zeros((5000, 4, 4, 1), np.float32), "label": np.zeros(5000, int)}
    viewers = [
        Told(one, [{"text": f"{letter}{i}"} for i in range(5000)], changed=text, **pictures)
        for one, letter, text in zip(seen, "xy", changed, strict=True)
    ]
    gone = unseen is not None
    return Comparison(
        readings,
        compare.differing([one.record["rendered"] for one in readings]),
        compare._metrics(readings),
        None if gone else seen,
        [] if gone else viewers,
        unseen,
        [] if gone else compare._pairs(seen),
        np.empty(0, int) if gone else compare._apart(seen),
    )


# ---- what is found ---------------------------------------------------------------------------


def test_runs_disagree_where_they_say_other_labels_first_where_losses_differ_most():
    """The labels of the second, fourth and fifth are others; the loss of the fifth is infinite."""
    both = [
        seen_of(loss, label=label, truth=TRUTH) for loss, label in zip(LOSSES, LABELS, strict=True)
    ]
    assert compare._apart(both).tolist() == [4, 1, 3]
    alike = [seen_of(loss) for loss in LOSSES]
    assert compare._apart(alike).tolist() == [4, 1, 3, 0, 2]
    assert compare._apart([both[0], alike[1]]).tolist() == [4, 1, 3, 0, 2]
    third = seen_of(LOSSES[0], label=np.array([0, 1, 0, 0, 1]), truth=TRUTH)
    assert sorted(compare._apart([*both, third])) == [1, 2, 3, 4]
    many = [Seen(50, np.arange(50), np.full(50, v, np.float32), ()) for v in (0, 1)]
    assert compare._apart(many).tolist() == list(range(20))


def test_pairs_of_runs_are_tested_where_answers_are_right_or_wrong():
    both = [
        seen_of(loss, label=label, truth=TRUTH) for loss, label in zip(LOSSES, LABELS, strict=True)
    ]
    alone = seen_of(LOSSES[0])
    pairs = compare._pairs([*both, alone])
    assert [(pair["first"], pair["second"]) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    assert ["p" in pair for pair in pairs] == [True, False, False]
    counts = [pairs[0][k] for k in ("both", "first_only", "second_only", "neither")]
    assert counts == [1, 3, 0, 1]
    assert pairs[0]["loss"]["mean"] == pytest.approx((0 + 1 + 0 + 0.25) / 4)
    assert pairs[0]["loss"]["left_out"] == 1
    assert pairs[1]["loss"]["mean"] == 0


def test_settings_and_metrics_that_differ(tmp_path):
    found = found_of(tmp_path)
    assert found.settings == {"steps": ["10", "11"], "extra": [None, "3"]}
    assert found.metrics == {"accuracy": [0.75, 0.5], "loss": [0.0, 1.0]}


# ---- in words --------------------------------------------------------------------------------


def test_a_comparison_in_words(tmp_path):
    found = found_of(tmp_path)
    lines = compare.text_of(found)
    assert lines[:16] == [
        f"A: {tmp_path / 'a'}",
        "   accuracy 0.75 on 20 examples; a blind answer (always cat) scores 0.5",
        f"B: {tmp_path / 'b'}",
        "   accuracy 0.5 on 20 examples; a blind answer (always cat) scores 0.5",
        "   no better than a blind answer",
        "",
        "settings that differ  A   B",
        "steps                 10  11",
        "extra                 –   3",
        "",
        "metric    A     B",
        "accuracy  0.75  0.5",
        "loss      0     1",
        "",
        "warning: of run B the data have changed",
        "on 5 examples of validation:",
    ]
    assert lines[16].startswith("  loss of B less that of A +0.3125 (95 % interval ")
    assert lines[16].endswith(
        "n = 4), 1 that are not finite left out; A alone right 3, B alone right 0, both 1, "
        "neither 1; McNemar's exact test p = 0.25"
    )
    assert lines[17:] == [
        "  #4000: dog, said dog, cat; losses 1, –",
        "  #1000: dog, said dog, cat; losses 0.5, 1.5",
        "  #3000: cat, said cat, dog; losses 0.25, 0.5",
    ]


def test_of_answers_without_right_and_wrong_the_losses_are_told(tmp_path):
    lines = compare.text_of(found_of(tmp_path, labels=False, changed=("", "")))
    assert "warning" not in "".join(lines)
    assert lines[-5:] == [
        *("  #4000: losses 1, –", "  #1000: losses 0.5, 1.5", "  #3000: losses 0.25, 0.5"),
        *("  #0: losses 0.1, 0.1", "  #2000: losses 2, 2"),
    ]


def test_examples_that_cannot_be_compared_are_said_so(tmp_path):
    found = found_of(tmp_path, unseen="the data are gone")
    lines = compare.text_of(found)
    assert lines[-2:] == ["", "answers not compared: the data are gone"]
    content = json.loads(json.dumps(found.to_json()))
    assert content["not_compared"] == "the data are gone"
    assert "examples" not in content
    assert content["changed"] == content["pairs"] == []


def test_a_comparison_as_json(tmp_path):
    found = found_of(tmp_path)
    content = json.loads(json.dumps(found.to_json()))
    assert content["runs"][1] == {
        "run": str(tmp_path / "b"),
        "experiment": "by_hand",
        "step": 2,
        "seconds": 12.5,
        "metric": "accuracy",
        "value": 0.5,
        "count": 20,
        "interval95": None,
        "blind": 0.5,
    }
    assert content["settings"] == {"steps": ["10", "11"], "extra": [None, "3"]}
    assert content["metrics"] == found.metrics
    assert content["examples"] == 5
    assert content["changed"] == ["of run B the data have changed"]
    assert content["not_compared"] is None
    assert content["disagreements"] == [
        {"example": 4000, "true": 1, "said": [1, 0], "loss": [1.0, None]},
        {"example": 1000, "true": 1, "said": [1, 0], "loss": [0.5, 1.5]},
        {"example": 3000, "true": 0, "said": [0, 1], "loss": [0.25, 0.5]},
    ]
    mixed = dataclasses.replace(found, seen=[found.seen[0], seen_of(LOSSES[1])])
    row = {"example": 4000, "true": 1, "said": [1, None], "loss": [1.0, None]}
    assert mixed.to_json()["disagreements"][0] == row
    alike = found_of(tmp_path, labels=False).to_json()["disagreements"]
    assert alike[0] == {"example": 4000, "loss": [1.0, None]}


def test_runs_without_an_evaluation_and_settings_that_are_the_same(tmp_path):
    bare = [
        reading.Reading(write(tmp_path / name, summary=None), [], None, None, None) for name in "ab"
    ]
    found = Comparison(bare, {}, {}, None, [], "gone", [], np.empty(0, int))
    lines = compare.text_of(found)
    assert lines[1] == lines[3] == "   no evaluation"
    assert lines[4:8] == ["", "settings that differ: none", "", "metric: none"]
    row = found.to_json()["runs"][0]
    assert [row[k] for k in ("step", "seconds", "metric", "value", "count", "blind")] == [None] * 6
    assert words(tree(compare_page._settings(found))).startswith("Nothing: the experiments are")
    paragraphs = [words(p) for p in tree(compare_page._runs(found))]
    assert paragraphs == [f"{x.upper()} by_hand, {tmp_path / x}no evaluation" for x in "ab"]
    assert rows(tree(compare_page._metrics(found))) == [["metric", "A", "B"]]


@pytest.mark.parametrize("place, letter", [(0, "A"), (25, "Z"), (26, "27"), (27, "28")])
def test_what_a_run_is_called(place, letter):
    assert compare.letter_of(place) == letter


def test_long_values_are_cut_in_a_table_of_words():
    lines = compare._columns("head", ["A", "B"], {"x": ["v" * 40, None]})
    assert lines == [f"head  A{' ' * 31}  B", f"x     {'v' * 32}  –"]


# ---- the page --------------------------------------------------------------------------------


def test_of_a_page_that_is_too_long_the_numbers_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(compare_page.page, "MOST_BYTES", 1000)
    found = found_of(tmp_path)
    compare_page.write_comparison([], found, tmp_path / "c.html")
    titles = check((tmp_path / "c.html").read_bytes()).titles
    assert titles == [*("Runs", "What differs", "Metrics", "One against the other"), "Left out"]


def test_the_page_of_a_comparison(tmp_path):
    found = found_of(tmp_path)
    runs = [one.run for one in found.readings]
    assert compare_page.write_comparison(runs, found, tmp_path / "c.html") == []
    page = check((tmp_path / "c.html").read_bytes())
    assert page.titles == [
        *("Runs", "What differs", "Metrics", "Curves", "One against the other"),
        "Examples on which they disagree",
    ]
    assert "a · b" in page.text
    gone = found_of(tmp_path, unseen="the data are gone")
    left_out = compare_page.write_comparison(runs, gone, tmp_path / "c.html")
    assert left_out == ["Answers to single examples: the data are gone"]
    page = check((tmp_path / "c.html").read_bytes())
    assert page.titles == ["Runs", "What differs", "Metrics", "Curves", "Left out"]


def test_the_runs_and_what_differs(tmp_path):
    found = found_of(tmp_path)
    first, second = tree(compare_page._runs(found))
    assert words(first).startswith(f"A by_hand, {tmp_path / 'a'}accuracy 0.75 on 20 examples")
    assert first.find("b").text == "A"
    assert [(b.text, b.get("class")) for b in second.iter("b")] == [
        ("B", None),
        (" No better than blind.", "bad"),
    ]
    assert len([*first.iter("b")]) == 1
    settings = tree(compare_page._settings(found))
    assert rows(settings) == [["field", "A", "B"], ["steps", "10", "11"], ["extra", "–", "3"]]
    assert {cell.get("class") for cell in settings.iter("td")} == {None}


def test_the_table_of_metrics_has_their_intervals(tmp_path):
    found = found_of(tmp_path)
    table = [["metric", "A", "B"], ["accuracy", "0.75", "0.5"], ["loss", "0", "1"]]
    assert rows(tree(compare_page._metrics(found))) == table
    sure = dataclasses.replace(found.readings[0].verdict, interval=(0.5, 0.875))
    found.readings[0] = dataclasses.replace(found.readings[0], verdict=sure)
    assert found.to_json()["runs"][0]["interval95"] == (0.5, 0.875)
    table.insert(1, ["accuracy, 95 % interval", "0.5000 to 0.8750", "–"])
    assert rows(tree(compare_page._metrics(found))) == table
    other = dataclasses.replace(sure, metric="f1", interval=(0.25, 0.5))  # of another task
    found.readings[1] = dataclasses.replace(found.readings[1], verdict=other)
    table.insert(2, ["f1, 95 % interval", "–", "0.2500 to 0.5000"])
    assert rows(tree(compare_page._metrics(found))) == table


def test_the_curves_of_both_runs_are_drawn_together(tmp_path):
    found = tree(compare_page._curves(found_of(tmp_path)))
    (svg,) = found.iter("svg")
    assert svg.get("aria-label") == "loss, training"
    assert [one.get("class") for one in svg.iter("polyline")] == ["series s0", "series s1"]
    names = [words(span) for span in found.iter("span")]
    assert names == ["A 1", "B 1"]
    said = words(found.findall("p")[-1])
    assert "loss, validation (A 0, B 1); accuracy, validation (A 0.75, B 0.5)" in said


def test_pairs_are_told_with_their_number_and_what_has_changed(tmp_path):
    main = tree(compare_page._pairs(found_of(tmp_path)))
    assert [p.get("class") for p in main] == ["warning", "note", None]
    assert main[0].text == "of run B the data have changed"
    assert main[1].text == "On 5 examples that all of them were evaluated on."
    assert "McNemar" in main[2].text


def test_disagreements_that_are_not_shown_are_counted(tmp_path):
    found = found_of(tmp_path)
    assert found.to_json()["disagree"] == 3 == sum(LABELS[0] != LABELS[1])
    assert " more on which" not in "\n".join(compare.text_of(found)) + compare_page._apart(found)
    first = dataclasses.replace(found, apart=found.apart[:1])
    assert first.to_json()["disagree"] == 3
    assert compare.text_of(first)[-1] == "  … and 2 more on which they disagree"
    assert "… and 2 more on which they disagree" in compare_page._apart(first)
    alike = found_of(tmp_path, labels=False)
    assert alike.to_json()["disagree"] is None
    shown = dataclasses.replace(alike, apart=alike.apart[:1])
    assert " more on which" not in "\n".join(compare.text_of(shown))


def cards(found):
    (grid,) = tree(compare_page._apart(found))
    return grid.get("class"), [
        (words(one.find("figcaption")), [i.get("alt") for i in one.iter("img")]) for one in grid
    ]


def test_examples_on_which_they_disagree(tmp_path):
    found = found_of(tmp_path)
    kind, shown = cards(found)
    assert kind == "pictures"
    assert shown == [
        ("#4,000 true: catA: x4000 (loss 1)B: y4000 (loss inf)", ["example 4000"]),
        ("#1,000 true: catA: x1000 (loss 0.5)B: y1000 (loss 1.5)", ["example 1000"]),
        ("#3,000 true: catA: x3000 (loss 0.25)B: y3000 (loss 0.5)", ["example 3000"]),
    ]
    drawn = {"objects": [{"box": (0.0, 0.0, 1.0, 1.0), "name": "cat", "score": 0.5}]}
    expected = ["A on 4000"], ["A on 4000", "B on 4000"]
    for viewer, pictures in zip(found.viewers, expected, strict=True):
        viewer.said = [drawn] * 5000
        kind, shown = cards(found)
        assert kind == "pictures drawn"
        assert shown[0][1] == pictures
    for viewer in found.viewers:
        viewer.batch = {"vector": np.zeros((5000, 3))}
    assert [pictures for _, pictures in cards(found)[1]] == [[], [], []]
    assert cards(found)[1][0][0].startswith("#4,000A: ")
    alike = dataclasses.replace(found, apart=np.empty(0, int))
    assert words(tree(compare_page._apart(alike))) == "They say the same of every example."
