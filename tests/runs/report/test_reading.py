"""What a run's files say, written by hand: readings, facts, parts, and the page that is made."""

import shlex

import pytest

from jaxcnn.errors import ConfigError, DataError, ResourceError
from jaxcnn.runs.open import Run
from jaxcnn.runs.report import facts, page, reading
from jaxcnn.runs.report.parts import Parts
from jaxcnn.runs.report.write import write_report
from tests.runs.report.by_hand import RECORD, evaluation, rows, step, tree, words, write
from tests.runs.report.reader import check

# ---- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, found",
    [
        (3, 3.0),
        (-2.5, -2.5),
        (0, 0.0),
        (9.9e299, 9.9e299),
        (1e300, None),
        (-1e300, None),
        (10**400, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("3", None),
        (None, None),
    ],
    ids=str,
)
def test_what_counts_as_a_number(value, found):
    assert reading.as_number(value) == found
    assert isinstance(reading.as_number(value), float | None)


def test_a_matrix_of_counts_is_square_and_whole():
    good = [[0, 2**53 - 1], [3, 4]]
    assert reading.as_counts(good) == good
    odd = [-1, 2**53, 1.0, True, "1"]
    assert [reading.as_counts([[1, n], [3, 4]]) for n in odd] == [None] * len(odd)
    for wrong in ([], [[1, 2]], [[1, 2], [3]], [[1, 2], "ab"], 3, None, {}):
        assert reading.as_counts(wrong) is None


# ---- reading ---------------------------------------------------------------------------------


def test_points_are_the_numbers_of_one_kind_of_record(tmp_path):
    records = [step(1, loss=1.0), step(2, loss="odd"), evaluation(2, loss=0.5), step(3, loss=0.25)]
    found = reading.read(write(tmp_path, records), files_only=True)
    assert found.points("train", "loss") == [(1, 1.0), (3, 0.25)]
    assert found.points("eval", "loss") == [(2, 0.5)]
    assert found.points("eval", "accuracy") == []
    assert found.missing == "only the run's files were read"
    assert found.metrics == {"loss": 0.5}
    assert [found.name(i, of=3) for i in range(4)] == ["background", "cat", "dog", "3"]
    assert found.name(0) == "cat"


EVALUATIONS = [evaluation(i, accuracy=v) for i, v in enumerate((0.5, 0.75, 0.25, None, 0.75), 1)]
LOWER = RECORD["rendered"] | {"task": {"metric": "accuracy", "larger_is_better": False}}


@pytest.mark.parametrize(
    "checkpoint, rendered, chosen",
    [("last", {}, 5), ("best", {}, 2), ("best", {"rendered": LOWER}, 3)],
)
def test_the_evaluation_is_that_of_the_checkpoint(tmp_path, checkpoint, rendered, chosen):
    write(tmp_path, [step(1), *EVALUATIONS], **rendered)
    found = reading.read(Run(tmp_path, checkpoint=checkpoint), files_only=True)
    assert found.evaluation["step"] == chosen
    assert found.verdict.metric == "accuracy"
    assert found.verdict.value == found.metrics["accuracy"]
    assert found.verdict.larger_is_better is (not rendered)


def test_without_evaluations_there_is_no_verdict(tmp_path):
    found = reading.read(write(tmp_path, [step(1)]), files_only=True)
    assert (found.evaluation, found.verdict, found.metrics) == (None, None, {})
    nameless = RECORD["rendered"] | {"task": None}
    found = reading.read(write(tmp_path, [evaluation(1)], rendered=nameless), files_only=True)
    assert found.evaluation["step"] == 1
    assert found.verdict is None
    write(tmp_path, [evaluation(1), evaluation(2)], rendered=nameless)
    best = reading.read(Run(tmp_path, checkpoint="best"), files_only=True)
    assert best.evaluation["step"] == 2, "nothing says which is best"


def test_a_run_that_cannot_be_opened_again_says_why(tmp_path):
    found = reading.read(write(tmp_path, [evaluation(1, accuracy=0.5)]))
    assert "made in Python" in found.missing or "experiment" in found.missing
    assert found.verdict.value == 0.5


# ---- facts -----------------------------------------------------------------------------------


def test_the_experiment_is_a_table_of_its_fields(tmp_path):
    rendered = RECORD["rendered"] | {"note": "x" * 401, "short": "y" * 400}
    main = tree(facts.experiment(RECORD | {"rendered": rendered}))
    assert rows(main)[0] == ["field", "value"]
    found = dict(rows(main)[1:])
    assert (found["model.width"], found["data"]) == ("4", "Pets")
    assert (found["note"], found["short"]) == ("x" * 400 + "…", "y" * 400)
    assert main.find("p") is None
    assert {cell.get("class") for cell in main.iter("td")} == {None}


@pytest.mark.parametrize("count, said", [(1000, None), (1002, "2 more fields")])
def test_of_many_fields_a_thousand_are_shown(count, said):
    rendered = {"type": "m:E", **{f"f{i}": i for i in range(count)}}
    names = [name for name, _ in facts.fields(rendered)]
    main = tree(facts.experiment({"rendered": rendered}))
    assert [row[0] for row in rows(main)[1:]] == names[:1000]
    assert [words(p) for p in main.findall("p")] == ([said] if said else [])


CODE = {"file": "mine.py", "module": "mine", "overrides": ["steps=3"], "local": {"a": "a/b.py"}}


def folds(folder, **changed):
    """([(title, text, whether it is open, class of what it stands in)], what is left out)."""
    shown, left_out = facts.code(write(folder, code=CODE, **changed))
    found = []
    for one in tree(shown):
        fold = one if one.tag == "details" else one.find("details")
        kind = one.get("class")
        text = words(fold.find("pre"))
        found.append((words(fold.find("summary")), text, fold.get("open"), kind))
    return found, left_out


def test_the_code_of_a_run_and_changes_to_what_it_is_of(tmp_path):
    code = tmp_path / "code"
    (code / "a").mkdir(parents=True)
    texts = {"mine.py": "x = 1 < 2", "a/b.py": "b", "project.diff": "+p", "jaxcnn.diff": "+j"}
    for name, text in texts.items():
        (code / name).write_text(text)
    changes = "changes to {} since its commit (git diff)"
    assert folds(tmp_path) == (
        [
            ("mine.py", "x = 1 < 2", "open", None),
            ("a/b.py", "b", None, None),
            (changes.format("the project"), "+p", None, "screen"),
            (changes.format("jaxcnn"), "+j", None, "screen"),
        ],
        [],
    )
    for name in ("a/b.py", "jaxcnn.diff"):
        (code / name).unlink()
    (code / "notebook_cells.py").write_text("cell")
    found, left_out = folds(tmp_path)
    assert [title for title, *_ in found][-1] == "notebook_cells.py"
    assert left_out == ["code/a/b.py: the file is gone"], "changes there need not be"


def test_a_link_that_leads_out_is_left_out_and_the_others_are_shown(tmp_path):
    (tmp_path / "run" / "code" / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text("hush")
    (tmp_path / "run" / "code" / "mine.py").symlink_to(tmp_path / "secret")
    (tmp_path / "run" / "code" / "a" / "b.py").write_text("b")
    found, left_out = folds(tmp_path / "run")
    assert [title for title, *_ in found] == ["a/b.py"]
    assert left_out == ["code/mine.py: a link that leads out of the run's folder"]


def test_an_experiment_without_a_file_says_so(tmp_path):
    shown, left_out = facts.code(write(tmp_path))
    assert "without a file" in words(tree(shown))
    assert left_out == []


@pytest.mark.parametrize("size, cut", [(200_000, False), (200_001, True)])
def test_a_long_file_is_cut(tmp_path, size, cut):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text("x" * size)
    shown, _ = facts.code(write(tmp_path, code=CODE | {"local": {}}))
    assert len(words(tree(shown).find("details/pre"))) == 200_000
    remarks = [words(p) for p in tree(shown).iter("p")]
    assert remarks == (["cut here, of 200,001 bytes"] if cut else [])


def test_the_command_that_makes_it_again(tmp_path):
    point = {"seed": 2, "width": "a b"}
    run = write(tmp_path / "a run", code=CODE, point=point, environment={"NPROC": "4"})
    folder = run.folder
    assert shlex.split(facts.command(run)) == [
        *("NPROC=4", "python", "launch.py", "train", f"{folder}/code/mine.py", "steps=3"),
        *("seed=2", "width=a b", "--run-dir", f"{folder}-again"),
    ]
    assert facts.command(write(tmp_path, code=CODE)).startswith("python launch.py train ")
    for more, says in (
        ({"point": {"seed": 2, "fold": 1}}, "without fold 1 of its examples"),
        ({"started_from": {"run": "first", "step": 1500}}, "from step 1,500 of first"),
    ):  # without the fold, or from the beginning, it would be another run
        with pytest.raises(ConfigError, match=says):
            facts.command(write(tmp_path, code=CODE, **more))
    with pytest.raises(ConfigError, match="made in Python"):
        facts.command(write(tmp_path))


def test_how_it_was_made(tmp_path):
    seen = {"command": ["launch.py", "train", 3], "python": "3.12", "commit": "abc"}
    seen |= {"versions": {"jax": "0.7", "flax": ""}, "modified": True, "device": "chip"}
    seen |= {"num_devices": 2, "processor": "", "NPROC": None, "platform": "linux"}
    run = write(
        tmp_path,
        code=CODE,
        environment=seen,
        started_in="/there",
        started_from={"run": "first", "step": 1500},
        point={"seed": 2, "width": 3},
        project={"commit": "def", "modified": True},
    )
    main = tree(facts.circumstances(run))
    found = rows(main)
    again = found.pop(2)
    with pytest.raises(ConfigError) as caught:
        facts.command(run)
    assert again == ["to make it again", str(caught.value)]
    assert found == [
        ["run", str(tmp_path)],
        ["identity", "0" * 32],
        ["started by", "launch.py train 3"],
        ["started in", "/there"],
        ["goes on from", "first, step 1,500"],
        ["point of a sweep", "seed=2, width=3"],
        ["versions", "Python 3.12, jax 0.7, flax ?"],
        ["commit of jaxcnn", "abc, with changes (see the code)"],
        ["commit of the project", "def, with changes"],
        ["device", "chip"],
        ["num_devices", "2"],
        ["platform", "linux"],
    ]
    assert [words(one) for one in main.iter("code")] == ["launch.py train 3"]
    alone = write(tmp_path, code=CODE, environment=seen)
    shown = tree(facts.circumstances(alone))
    assert words(next(shown.iter("code"))) == facts.command(alone)
    assert main.find("div/table").get("class") == "words"
    assert {cell.get("class") for cell in main.iter("td")} == {None}


def test_of_how_it_was_made_what_is_not_known_is_not_said(tmp_path):
    run = write(tmp_path, environment={"commit": "abc"}, project={"commit": "def"}, id="1" * 32)
    found = rows(tree(facts.circumstances(run)))
    assert found[2][1].startswith("the experiment was made in Python")
    assert found[3:] == [
        ["started in", "–"],
        ["versions", "Python ?, "],
        ["commit of jaxcnn", "abc"],
        ["commit of the project", "def"],
    ]
    for project in ({"commit": None}, None):
        assert len(rows(tree(facts.circumstances(write(tmp_path, project=project))))) == 6


# ---- parts -----------------------------------------------------------------------------------


def test_a_part_that_fails_is_said_and_the_others_are_kept(monkeypatch):
    def fails(error):
        raise error

    monkeypatch.delenv("JAXCNN_DEBUG", raising=False)
    parts = Parts()
    parts.add("one", lambda: page.note("x"), needed=True)
    parts.add("none", lambda: None)
    parts.add("two", lambda: fails(DataError("no data")))
    parts.add("three", lambda: fails(ValueError("odd")))
    parts.add("four", lambda: page.note("y"))
    assert [(s.title, s.needed) for s in parts.sections] == [("one", True), ("four", False)]
    assert parts.left_out == ["two: no data", "three: ValueError: odd"]
    monkeypatch.setenv("JAXCNN_DEBUG", "1")
    parts.add("two", lambda: fails(DataError("no data")))
    with pytest.raises(ValueError, match="odd"):
        parts.add("three", lambda: fails(ValueError("odd")))


# ---- the page --------------------------------------------------------------------------------


def test_a_report_lies_in_the_folder_or_where_it_is_wanted(tmp_path):
    run = write(tmp_path / "run", [step(1, loss=1.0), step(2, loss=0.5)])
    left_out = write_report(run, files_only=True)
    content = (tmp_path / "run" / "report.html").read_bytes()
    found = check(content)
    assert found.titles[:2] == ["Verdict", "Curves"]
    assert found.titles[-1] == "Left out"
    assert [s for s in left_out if s not in found.text] == []
    assert "by_hand: run" in found.text
    place = tmp_path / "new" / "er" / "r.html"
    write_report(run, path=place, files_only=True, examples=1)
    assert place.read_bytes() == content
    with pytest.raises(ConfigError, match="--examples 0: look at 1"):
        write_report(run, examples=0)
    with pytest.raises(ResourceError, match=r"cannot be written .*--output"):
        write_report(run, path=tmp_path / "run" / "run.json" / "r.html", files_only=True)
