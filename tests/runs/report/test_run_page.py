"""The parts of the page of a run that its files alone tell, for files that are written by hand."""

import dataclasses

import pytest

from jaxcnn.errors import DataError
from jaxcnn.runs.report import solo
from jaxcnn.runs.report.pictures import Pictures
from jaxcnn.runs.report.reading import Reading
from jaxcnn.tasks.task import Blind
from jaxcnn.tasks.verdict import Verdict
from tests.runs.report.by_hand import SUMMARY, evaluation, rows, step, tree, words, write

VERDICT = Verdict("accuracy", 0.75, 1200, (0.7, 0.8), Blind(0.5, "always cat"), True)


def reading_of(folder, records=(), *, verdict=VERDICT, missing=None, **options):
    run = write(folder, records, **options)
    evaluations = [r for r in records if r["kind"] == "eval"] or [evaluation(1234, accuracy=0.75)]
    return Reading(run, list(records), evaluations[-1], verdict, missing)


def paragraphs(markup):
    return [(words(one), one.get("class")) for one in tree(markup)]


def test_the_verdict_comes_first(tmp_path):
    assert paragraphs(solo.headline(reading_of(tmp_path))) == [
        ("accuracy 0.75", "headline"),
        (
            "on validation data, n = 1,200 examples, 95 % interval 0.7000 to 0.8000 (Wilson); "
            "step 1,234, epoch 246.8. Blind (always cat): 0.5.",
            None,
        ),
        ("completed, 10 steps, 2 epochs.", None),
        ("1,234 parameters; 12.5 s of training on a chip", None),
    ]


def test_a_run_that_is_no_better_than_blind_is_warned_of(tmp_path):
    blind = dataclasses.replace(VERDICT, blind=Blind(0.78, "always cat"))
    found = tree(solo.headline(reading_of(tmp_path, verdict=blind)))
    (warning,) = [one for one in found if one.get("class") == "warning"]
    assert (warning[0].tag, warning[0].get("class")) == ("b", "bad")
    assert words(warning).startswith("No better than a blind answer")


@pytest.mark.parametrize(
    "changed, missing, said",
    [
        (
            {"count": None, "interval": None},
            None,
            "n examples unknown; step 1,234, epoch 246.8. Blind",
        ),
        (
            {"blind": None},
            "gone",
            "Not compared with a blind answer, since the experiment was not opened.",
        ),
        ({"blind": None, "why_not": "a task of pictures"}, None, "answer: a task of pictures."),
        ({"blind": None}, None, "What a blind answer would score is not known for this task and"),
        ({}, "gone", "Blind (always cat): 0.5."),
    ],
)
def test_how_sure_it_is_as_far_as_that_is_known(tmp_path, changed, missing, said):
    verdict = dataclasses.replace(VERDICT, **changed)
    found = paragraphs(solo.headline(reading_of(tmp_path, verdict=verdict, missing=missing)))
    assert said in found[1][0]


def test_a_metric_may_have_no_value_and_a_run_no_evaluation(tmp_path):
    nothing = dataclasses.replace(VERDICT, value=None, interval=None)
    assert paragraphs(solo.headline(reading_of(tmp_path, verdict=nothing)))[0] == (
        "accuracy no value",
        "headline",
    )
    found = paragraphs(solo.headline(reading_of(tmp_path, verdict=None)))
    assert found[0] == ("no evaluation", "headline")
    assert found[1][0].startswith("The run has not been evaluated")


def test_how_it_ended_and_how_long_it_took(tmp_path):
    def last(summary, records=(), **changed):
        found = paragraphs(solo.headline(reading_of(tmp_path, records, summary=summary, **changed)))
        return [text for text, _ in found[-2:]]

    stopped = SUMMARY | {"completed": False, "verdict": "stopped", "num_params": None}
    assert last(stopped) == [
        "Interrupted: stopped, 10 steps, 2 epochs; not all that was asked for.",
        "12.5 s of training on a chip",
    ]
    (tmp_path / "summary.json").unlink()
    seen = {"backend": "cpu", "processor": "a core"}
    assert last(None, [step(7), step(8), step(1500)], environment=seen) == [
        "Interrupted: the run has not ended; its last record is of step 1,500.",
        "1500 s of training on cpu, a core",
    ]
    assert last(None, environment={}) == [
        "Interrupted: the run has not ended; its last record is of step 0.",
        "0 s of training on ?",
    ]


# ---- curves ----------------------------------------------------------------------------------


def charts(markup):
    """{title: [(name, class)] of its lines}, in order."""
    found = {}
    for svg in tree(markup).iter("svg"):
        lines = [one.get("class") for one in svg.iter("polyline")]
        assert svg.get("aria-label") not in found
        found[svg.get("aria-label")] = lines
    return found


def logged(**changing):
    """Two records of training and two evaluations, `changing` among them unless it is a text."""
    records = []
    for i in (1, 2):
        own = {"learning_rate": i / 10, "images_per_second": 10.0 * i}
        own |= dict.fromkeys(("grad_norm", "update_norm", "param_norm"), i * 2.0)
        records.append(step(i, loss=1.0 / i, accuracy=i / 4, **own))
        metrics = {"accuracy": i / 4, "loss": 1.0 / i, "blind_accuracy": 0.5, **changing}
        records.append(
            evaluation(i, **{k: v if v == "text" else i * 1.0 for k, v in metrics.items()})
        )
    return records


def test_the_curves_and_their_order(tmp_path):
    markup = solo.curves(reading_of(tmp_path, logged()))
    both = ["series s0 dashed", "series s1"]
    assert charts(markup) == {
        "loss": both,
        "accuracy": [*both, "series s2 dashed"],
        "learning rate": ["series s0"],
        "norms": ["series s0", "series s1", "series s2 dashed"],
        "images/s": ["series s0"],
    }
    assert [*charts(markup)] == ["loss", "accuracy", "learning rate", "norms", "images/s"]
    names = [words(span).rpartition(" ")[0] for span in tree(markup).iter("span")]
    assert names == [
        *("training", "validation", "training", "validation", "blind"),
        *("learning rate", "gradient", "update", "parameters", "images/s"),
    ]


def test_a_loss_that_is_the_metric_is_drawn_once_and_a_metric_without_blind_answer_alone(tmp_path):
    records = [r | {"metrics": {"loss": r["step"]}} if "metrics" in r else r for r in logged()]
    of_loss = dataclasses.replace(VERDICT, metric="loss")
    found = charts(solo.curves(reading_of(tmp_path, records, verdict=of_loss)))
    assert [*found][:3] == ["loss", "learning rate", "norms"]
    found = charts(solo.curves(reading_of(tmp_path, logged(), verdict=None)))
    assert [*found] == ["loss", "learning rate", "norms", "images/s", "accuracy"]
    for record in (records := logged()):
        record.get("metrics", {}).pop("blind_accuracy", None)
    assert len(charts(solo.curves(reading_of(tmp_path, records)))["accuracy"]) == 2


def test_other_numbers_follow_four_beside_the_rest_folded(tmp_path):
    names = [f"n{i}" for i in range(6)]
    markup = solo.curves(reading_of(tmp_path, logged(**dict.fromkeys(names, 1.0), word="text")))
    main = tree(markup)
    (fold,) = main.iter("details")
    assert (words(fold.find("summary")), fold.get("open")) == ("other numbers", None)
    assert [svg.get("aria-label") for svg in fold.iter("svg")] == ["n4", "n5"]
    assert [svg.get("aria-label") for svg in main[0].iter("svg")][-4:] == names[:4]
    for count in (4, 5):
        records = logged(**dict.fromkeys(names[:count], 1.0))
        main = tree(solo.curves(reading_of(tmp_path, records)))
        assert len([*main.iter("details")]) == (count > 4)


@pytest.mark.parametrize("count, said", [(24, ""), (25, "1 more numbers were logged")])
def test_of_many_numbers_some_are_drawn_and_the_others_counted(tmp_path, count, said):
    names = [f"n{i}" for i in range(count)]
    markup = solo.curves(reading_of(tmp_path, logged(**dict.fromkeys(names, 1.0))))
    assert len([name for name in charts(markup) if name.startswith("n")]) == 24 + 1  # norms
    assert "".join(words(p) for p in tree(markup).iter("p")) == said


def test_numbers_that_stay_the_same_or_are_those_of_the_program_have_no_curve(tmp_path):
    records = logged()
    for record in records:
        record["replica"] = record["step"]
        if record["kind"] == "train":
            record |= {"constant": 1.0, "schedule": record["step"]}
        else:
            names = ("count", "temperature", "why", "at", "epoch")
            record["metrics"] |= dict.fromkeys(names, record["step"])
    assert [*charts(solo.curves(reading_of(tmp_path, records)))] == [
        *("loss", "accuracy", "learning rate", "norms", "images/s")
    ]
    with pytest.raises(DataError, match="nothing was logged"):
        solo.curves(reading_of(tmp_path))


# ---- metrics, classes, calibration -----------------------------------------------------------


def test_the_table_of_metrics(tmp_path):
    record = evaluation(10, accuracy=0.75, loss=None, matrix=[[1]], flag=True, count=1200)
    alone = [["metric", "validation"], ["accuracy", "0.75"], ["loss", "–"], ["count", "1,200"]]
    assert rows(tree(solo.metrics(reading_of(tmp_path, [record])))) == alone
    test = SUMMARY | {"test": {"accuracy": 0.5, "count": "many"}}
    assert rows(tree(solo.metrics(reading_of(tmp_path, [record], summary=test)))) == [
        ["metric", "validation", "test"],
        ["accuracy", "0.75", "0.5"],
        ["loss", "–", "–"],
        ["count", "1,200", "–"],
    ]
    # the test split was scored at the end, and this is the evaluation of the best checkpoint
    best = record | {"step": 8}
    assert rows(tree(solo.metrics(reading_of(tmp_path, [best], summary=test)))) == alone
    assert solo.metrics(reading_of(tmp_path, [evaluation(1)])) is None


def test_the_confusion_matrix_and_the_table_of_classes(tmp_path):
    metrics = {
        "confusion": [[3, 1], [0, 2]],
        "per_class_recall": [0.75, 1.0],
        "per_class_count": [4],
        "per_class_odd": 3,
    }
    three = {"confusion": [[0] * 3, [0] * 3, [0, 0, 1]], "per_class_n": [1, 2, 3]}
    main = tree(solo.classes(reading_of(tmp_path, [evaluation(1, **three)])))
    assert [words(one) for one in main.iter("title")] == ["dog called dog: 1 (100.0%)"]
    assert [row[0] for row in rows(main)] == ["class", "background", "cat", "dog"]
    main = tree(solo.classes(reading_of(tmp_path, [evaluation(1, **metrics)])))
    titles = [words(one) for one in main.iter("title")]
    assert titles[1] == "cat called dog: 1 (25.0%)"
    assert rows(main) == [
        ["class", "recall", "count"],
        ["cat", "0.75", "4"],
        ["dog", "1", "–"],
    ]
    assert solo.classes(reading_of(tmp_path, [evaluation(1, confusion=[[1], []])])) is None
    (figure,) = tree(solo.classes(reading_of(tmp_path, [evaluation(1, confusion=[[1]])])))
    assert figure.tag == "figure"
    (table,) = tree(solo.classes(reading_of(tmp_path, [evaluation(1, per_class_a=[1, 2])])))
    assert [*table.iter("table")]


@pytest.mark.parametrize("count, said", [(200, ""), (201, "1 more classes")])
def test_of_many_classes_two_hundred_have_a_row(tmp_path, count, said):
    values = list(range(count))
    main = tree(solo.classes(reading_of(tmp_path, [evaluation(1, per_class_n=values)])))
    assert rows(main)[2:] == [["dog", "1"], *([str(i), str(i)] for i in range(2, 200))]
    assert "".join(words(p) for p in main.iter("p")) == said


def test_calibration_has_a_diagram_and_its_error(tmp_path):
    row = {"from": 0.0, "to": 0.5, "count": 3, "confidence": 0.3, "accuracy": 0.4}
    record = evaluation(1, reliability=[row, "odd"], ece=0.12345)
    main = tree(solo.calibration(reading_of(tmp_path, [record])))
    assert len([*main.iter("circle")]) == 1
    assert words(main.find("p")) == "expected calibration error 0.1235"
    alone = tree(solo.calibration(reading_of(tmp_path, [evaluation(1, reliability=[row])])))
    assert alone.find("p") is None
    assert solo.calibration(reading_of(tmp_path, [evaluation(1, reliability=3)])) is None


# ---- the whole -------------------------------------------------------------------------------


def test_the_sections_of_a_page_of_files_alone(tmp_path):
    records = logged(confusion=[[1]])
    code = {"file": "mine.py", "module": "mine", "overrides": []}
    run = write(tmp_path, records, code=code)
    album = Pictures()
    album.refused = 3
    parts = solo.sections(run, files_only=True, album=album)
    needed = {section.title: section.needed for section in parts.sections}
    assert needed == {
        "Verdict": True,
        "Curves": True,
        "Metrics": True,
        "Experiment": True,
        "Code": False,
        "How it was made": True,
    }
    assert parts.left_out == [
        "Examples, filters, feature maps, layers: only the run's files were read",
        "code/mine.py: the file is gone",
        "3 pictures: the page would be too long to be mailed",
    ]
    assert len(solo.sections(run, files_only=True).left_out) == 2
