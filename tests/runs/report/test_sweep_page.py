"""The page of a sweep whose replicas are written by hand: two settings of two seeds each."""

import dataclasses
import shutil

import pytest

from jaxcnn.runs.open import Run
from jaxcnn.runs.report import reading, sweep
from jaxcnn.tasks.task import Blind
from tests.runs.report.by_hand import RECORD, SUMMARY, evaluation, rows, step, tree, words, write

POINTS = [{"seed": seed, "rate": rate} for rate in (0.1, 0.01) for seed in (0, 1)]
VALUES = (0.5, 0.75, 0.8, 0.6)
TOLD = {"metric": "accuracy", "settings": [], "replicas": [], "completed": True, "seconds": 90.5}
LOSS = RECORD["rendered"] | {"task": {"metric": "loss", "larger_is_better": False}}


def sweep_of(folder, points=POINTS, values=VALUES, *, summary=TOLD, ended="completed", **fields):
    """A sweep of which each replica has three records and ends with its value."""
    shutil.rmtree(folder, ignore_errors=True)
    run = write(folder, summary=summary, points=points, **fields)
    for i, (point, value) in enumerate(zip(points, values, strict=False)):
        metrics = [{"accuracy": v, "loss": 1 - v} for v in (0.1, value)]
        records = [evaluation(i + 1, **one) for i, one in enumerate(metrics)]
        records = [step(1, loss=2.0), records[0], step(2, loss=1.0), records[1]]
        own = None if ended is None else SUMMARY | {"verdict": ended, "eval": metrics[1]}
        place = folder / "replicas" / str(i)
        write(place, records, summary=own, replica=i, point=point, **fields)
    return run


def part(parts, title):
    (section,) = [section for section in parts.sections if section.title == title]
    return tree(section.body)


def test_the_page_has_the_settings_and_then_the_winner_s_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "experiment", property(lambda self: pytest.fail("executed")))
    parts = sweep.sections(sweep_of(tmp_path), files_only=True)
    assert [section.title for section in parts.sections] == [
        *("Verdict", "Settings", "Curves by setting", "Parallel coordinates"),
        *(f"Replica 2: {name}" for name in ("Verdict", "Curves", "Metrics")),
        *(f"Replica 2: {name}" for name in ("Experiment", "Code", "How it was made")),
    ]
    needed = [section.needed for section in parts.sections]
    assert needed == [True, True, False, False, True, True, True, True, False, True]
    assert parts.left_out == [
        "Replica 2: Examples, filters, feature maps, layers: only the run's files were read"
    ]
    assert words(part(parts, "Replica 2: Verdict")[0]) == "accuracy 0.8"


def test_the_verdict_is_the_mean_of_the_best_setting(tmp_path):
    """0.7 of 0.8 and 0.6, whose standard deviation is the root of 0.02."""
    found = part(sweep.sections(sweep_of(tmp_path), files_only=True), "Verdict")
    assert [(words(p), p.get("class")) for p in found] == [
        ("accuracy 0.7 ± 0.1414", "headline"),
        (
            "best setting by its mean, n = 2: rate=0.01; its best replica is 2, of which the page "
            "tells below.",
            None,
        ),
        (
            "The best of several settings looks better than it is: it was chosen by the very "
            "numbers that are shown.",
            "note",
        ),
        ("4 replicas; 90.5 s of training", None),
    ]


def test_settings_of_one_seed_have_no_spread(tmp_path):
    run = sweep_of(tmp_path, POINTS[:1], VALUES[:1])
    parts = sweep.sections(run, files_only=True)
    shown = [words(p) for p in part(parts, "Verdict")]
    assert shown[0] == "accuracy 0.5"
    assert shown[1].startswith("best setting by its mean, n = 1: rate=0.1;")
    assert shown[2] == "1 replicas; 90.5 s of training", "there is nothing that was chosen among"
    assert rows(part(parts, "Settings"))[1] == ["rate=0.1", "0.5", "–", "–", "1", "0"]


def test_the_table_of_settings(tmp_path):
    """The half of an interval of two values is 12.706 times the error of their mean."""
    found = part(sweep.sections(sweep_of(tmp_path), files_only=True), "Settings")
    assert rows(found) == [
        ["setting", "mean accuracy", "std", "95 % interval of the mean", "n", "lost"],
        ["rate=0.01", "0.7", "0.1414", "-0.5706 to 1.971", "2", "0"],  # 12.706 * 0.1
        ["rate=0.1", "0.625", "0.1768", "-0.9633 to 2.213", "2", "0"],  # 12.706 * 0.125
    ]
    notes = [words(p) for p in found.findall("p")]
    assert notes == [
        "lost: diverged, dropped, not ended, or no such metric. Intervals by Student's t."
    ]
    kinds = [cell.get("class") for cell in next(found.iter("tr"))]
    assert kinds == [None] + ["number"] * 5


def test_seeds_alone_are_one_setting_and_folds_are_warned_of(tmp_path):
    seeds = sweep_of(tmp_path, [{"seed": 0}, {"seed": 1}], VALUES)
    parts = sweep.sections(seeds, files_only=True)
    assert rows(part(parts, "Settings"))[1][0] == "all seeds"
    assert "n = 2: all seeds;" in words(part(parts, "Verdict")[1])
    folds = sweep_of(tmp_path, [{"fold": 0}, {"fold": 1}], VALUES)
    parts = sweep.sections(folds, files_only=True)
    assert "Folds share examples" in words(part(parts, "Settings").find("p"))


@pytest.mark.parametrize("count, said", [(200, []), (201, ["1 more"])])
def test_of_many_settings_some_have_a_row(tmp_path, count, said):
    points = [{"rate": i} for i in range(count)]
    settings = sweep.settings_table(
        [{"point": p, "verdict": "completed", "eval": {"m": 1.0}} for p in points],
        metric="m",
        larger_is_better=True,
    )
    found = tree(sweep._table(settings, "m", folds=False))
    assert len(rows(found)) == 201
    assert [words(p) for p in found.findall("p")][1:] == said


def test_a_smaller_metric_may_win(tmp_path):
    """Of the losses 0.5, 0.25; 0.2, 0.4 the best mean is 0.3, the best replica 0.2."""
    run = sweep_of(tmp_path, rendered=LOSS)
    parts = sweep.sections(run, files_only=True)
    shown = part(parts, "Verdict")
    assert words(shown[0]).startswith("loss 0.3 ±")
    assert "its best replica is 2," in words(shown[1])
    titles = [svg.get("aria-label") for svg in part(parts, "Curves by setting").iter("svg")]
    assert titles == ["loss, validation", "loss, training"]


def test_a_replica_that_is_the_best_of_a_worse_setting_does_not_win(tmp_path):
    run = sweep_of(tmp_path, values=(0.1, 0.99, 0.7, 0.8))
    parts = sweep.sections(run, files_only=True)
    assert "its best replica is 3," in words(part(parts, "Verdict")[1])


@pytest.mark.parametrize("ended", ["diverged at step 3", None])
def test_where_no_replica_ended_well_there_is_no_winner(tmp_path, ended):
    run = sweep_of(tmp_path, ended=ended, summary=None)
    parts = sweep.sections(run, files_only=True)
    assert [(words(p), p.get("class")) for p in part(parts, "Verdict")] == [
        ("no replica has a final value", "headline"),
        ("4 replicas, 4 of them without a final value", None),
        ("Interrupted: the sweep has not ended.", None),
    ]
    assert rows(part(parts, "Settings"))[1][1:] == ["–", "–", "–", "0", "2"]
    assert parts.left_out == ["The winner's page: no replica has a final value"]
    lines = [one.get("points") for one in part(parts, "Parallel coordinates").iter("polyline")]
    assert [line.count(",") for line in lines] == [2] * 4, "they end before the metric"


def test_replicas_that_have_not_begun_or_cannot_be_read_are_told_of(tmp_path):
    run = sweep_of(tmp_path, values=VALUES[:3])
    (tmp_path / "replicas" / "1" / "summary.json").write_text("odd")
    parts = sweep.sections(run, files_only=True)
    assert "2 of 4 replicas; 90.5 s of training" in [words(p) for p in part(parts, "Verdict")]
    assert parts.left_out[0].startswith("Replica 1: ")
    assert "cannot be read" in parts.left_out[0]
    nothing = sweep.sections(write(tmp_path / "new", points=POINTS, summary=TOLD), files_only=True)
    assert [words(p) for p in part(nothing, "Verdict")][1:] == [
        "0 of 4 replicas; 90.5 s of training"
    ]
    assert rows(part(nothing, "Settings"))[0][1] == "mean metric"
    write(tmp_path / "new" / "replicas" / "0", replica=0, point=POINTS[0], summary=None)
    begun = sweep.sections(Run(tmp_path / "new"), files_only=True)
    assert words(part(begun, "Verdict")[1]).startswith("1 of 4 replicas, 1 of them without a")


def test_replicas_that_are_no_better_than_blind_are_named(tmp_path):
    run = sweep_of(tmp_path)
    readings = [reading.read(one, files_only=True) for one in run.replicas]
    for i in (1, 3):
        verdict = dataclasses.replace(readings[i].verdict, blind=Blind(0.9, "always cat"))
        readings[i] = dataclasses.replace(readings[i], verdict=verdict)
    readings[0] = dataclasses.replace(readings[0], verdict=None)
    settings = sweep.settings(readings, "accuracy", True)
    best = sweep.winner(readings, "accuracy", True, settings)
    main = tree(sweep._headline(run, readings, "accuracy", settings, best))
    (warning,) = [p for p in main if p.get("class") == "warning"]
    assert words(warning) == "2 of 4 replicas are no better than a blind answer: 1, 3"
    assert (warning[0].tag, warning[0].get("class")) == ("b", "bad")
    assert "4 replicas, 1 of them without a final value" in words(main[-1])


def test_the_curves_have_a_line_a_replica_and_a_colour_a_setting(tmp_path):
    found = part(sweep.sections(sweep_of(tmp_path), files_only=True), "Curves by setting")
    titles = [svg.get("aria-label") for svg in found.iter("svg")]
    assert titles == ["accuracy, validation", "loss, validation", "loss, training"]
    for svg in found.iter("svg"):
        classes = [line.get("class") for line in svg.iter("polyline")]
        assert classes == [f"series s{i} thin" for i in (0, 0, 1, 1)]
    legend = next(one for one in found.iter("figcaption") if one.get("class") == "legend")
    assert [words(span) for span in legend] == ["rate=0.1", "rate=0.01"]
    assert found.find("p") is None


@pytest.mark.parametrize(
    "count, drawn, said",
    [
        (8, 8, []),
        (9, 9, ["Colours repeat: there are more settings than colours."]),
        (64, 64, ["Colours repeat: there are more settings than colours."]),
        (
            65,
            64,
            ["1 more replicas are not drawn", "Colours repeat: there are more "],
        ),
    ],
)
def test_of_many_replicas_some_are_drawn(tmp_path, count, drawn, said):
    run = sweep_of(tmp_path, POINTS[:1], VALUES[:1])
    (one,) = [reading.read(one, files_only=True) for one in run.replicas]
    readings = [dataclasses.replace(one, run=Pointed(one.run, {"rate": i})) for i in range(count)]
    found = tree(sweep._curves(readings, "accuracy"))
    svg = next(found.iter("svg"))
    assert len([*svg.iter("polyline")]) == drawn
    notes = [words(p) for p in found.findall("p")]
    assert len(notes) == len(said)
    assert all(note.startswith(text) for note, text in zip(notes, said, strict=True))


class Pointed:
    """A run as if of another point."""

    def __init__(self, run, point):
        self.record, self.summary = run.record | {"point": point}, run.summary


def test_parallel_coordinates_are_of_what_varies_and_the_metric(tmp_path):
    found = part(sweep.sections(sweep_of(tmp_path), files_only=True), "Parallel coordinates")
    assert words(found.find("p")).startswith("A line is a replica; one without a final value")
    names = [one.text for one in found.iter("text") if one.get("text-anchor") == "middle"]
    assert names == ["seed", "rate", "accuracy"]
    lines = [*found.iter("polyline")]
    assert [line.find("title").text for line in lines] == [
        f"seed {s}, rate {r}, accuracy {v}"
        for (s, r), v in zip(((0, 0.1), (1, 0.1), (0, 0.01), (1, 0.01)), VALUES, strict=True)
    ]
    assert [line.get("class") for line in lines] == [f"series s{i}" for i in (0, 0, 1, 1)]
