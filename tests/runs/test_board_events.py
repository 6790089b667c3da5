"""What TensorBoard's files hold, of events and runs that are written by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.inspect.contact_sheet import pictures
from jaxcnn.runs import board
from jaxcnn.runs.board import TensorBoard
from jaxcnn.runs.events import Event
from tests.runs.report.by_hand import SUMMARY, evaluation, step, write
from tests.runs.test_board import logged

pytest.importorskip("tensorboardX")


def told(kind, number, folder, **record):
    """An event of a kind, at a step."""
    make = evaluation if kind == "eval" else step
    own = make(number, **record) if kind in ("train", "eval") else record
    return Event(kind, number, own, lambda: pytest.fail("the state was asked for"), folder=folder)


def events(folder):
    """[(step, what it says)] of the events of a folder's files."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    found = []
    for event in logged(folder / "tensorboard"):
        if event.HasField("session_log"):
            found.append((event.step, "begin"))
        for value in event.summary.value:
            plugin = value.metadata.plugin_data
            if plugin.plugin_name == "hparams":
                status = HParamsPluginData.FromString(plugin.content).session_end_info.status
                words = {0: "values", 1: "success", 2: "failure"}[status]
                assert value.tag.endswith("start_info" if status == 0 else "end_info")
                found.append((event.step, words))
            else:
                number = value.simple_value if value.WhichOneof("value") == "simple_value" else None
                found.append((event.step, (value.tag, number)))
    return found


FIRST = [(0, ("experiment/text_summary", None)), (0, "values")]


def test_a_run_begins_with_its_first_record_and_ends_with_how_it_went(tmp_path):
    write(tmp_path, summary=SUMMARY)
    show = TensorBoard()
    show(told("start", 4, tmp_path))
    assert not (tmp_path / "tensorboard").exists(), "it may be refused before"
    show(told("train", 5, tmp_path, loss=0.5))
    show(told("eval", 6, tmp_path, accuracy=0.25))
    show(told("end", 7, tmp_path))
    shown = [(number, said) for number, said in events(tmp_path) if "seconds" not in str(said)]
    assert shown == [
        (5, "begin"),  # what was logged from there on before is hidden
        *FIRST,
        (5, ("train/loss", 0.5)),
        (6, ("eval/accuracy", 0.25)),
        (7, "success"),
    ]


def test_what_is_evaluated_can_be_read_at_once(tmp_path):
    write(tmp_path)
    show = TensorBoard()
    show(told("eval", 1, tmp_path, accuracy=0.25))
    assert (1, ("eval/accuracy", 0.25)) in events(tmp_path)
    assert events(tmp_path)[0] == (1, "begin")
    show(told("end", 2, tmp_path))


@pytest.mark.parametrize(
    "kind, why, completed, said",
    [
        ("end", None, True, "success"),
        ("end", None, False, None),
        ("end", None, None, None),
        ("stop", "diverged", True, "failure"),
        ("stop", "stopped early", False, "success"),
    ],
)
def test_how_a_run_ended(tmp_path, kind, why, completed, said):
    """It is to be gone on with where its summary does not say that it is complete."""
    known = completed is not None
    write(tmp_path, summary=SUMMARY | {"completed": completed} if known else None)
    show = TensorBoard()
    show(told("train", 1, tmp_path, loss=0.5))
    show(told(kind, 2, tmp_path, **({"why": why} if why else {})))
    ends = [words for _, words in events(tmp_path) if words in ("success", "failure")]
    assert ends == ([said] if said else [])
    show(told("end", 3, tmp_path))  # nothing is open any more
    assert max(number for number, _ in events(tmp_path)) <= 2


def test_a_run_that_is_gone_on_with_has_a_second_file_that_begins_later(tmp_path):
    write(tmp_path, summary=None)
    for begin in (0, 5):
        show = TensorBoard()
        show(told("start", begin, tmp_path))
        show(told("train", begin + 1, tmp_path, loss=0.5))
        show(told("stop", begin + 1, tmp_path))
    names = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert [name.rpartition(".")[2] for name in names] == ["0", "1"]
    found = [said for said in events(tmp_path) if isinstance(said[1], str) or said in FIRST]
    assert found == [(1, "begin"), *FIRST, (6, "begin")]


def test_two_runs_have_a_board_each_and_no_folder_none(tmp_path):
    show = TensorBoard()
    for name in ("a", "b"):
        write(tmp_path / name)
        show(told("start", 3, tmp_path / name))
    for name in ("a", "b", "a"):
        show(told("train", 4, tmp_path / name, loss=0.5))
    show(told("train", 4, None, loss=0.5))
    show(told("end", 4, tmp_path / "a"))
    show(told("end", 4, tmp_path / "b"))
    losses = [(number, said) for number, said in events(tmp_path / "a") if "loss" in str(said)]
    assert losses == [(4, ("train/loss", 0.5))] * 2
    assert len(list((tmp_path / "a" / "tensorboard").iterdir())) == 1


def test_the_code_of_a_run_is_shown_up_to_a_length(tmp_path):
    code = {"file": "mine.py", "local": {"a": "b.py", "again": "mine.py", "gone": "gone.py"}}
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "code" / "b.py").write_text("y" * 200_000)
    found = dict(board._code_of(tmp_path, {"code": code}))
    assert found == {"mine.py": "x = '\ufffd'\n", "b.py": "y" * 200_000}
    (tmp_path / "code" / "b.py").write_text("y" * 200_001)
    found = dict(board._code_of(tmp_path, {"code": code}))
    assert found["b.py"] == "y" * 200_000 + "\n… (cut here)"
    assert [*board._code_of(tmp_path, {"code": {"file": None}})] == []


def test_hyperparameters_are_numbers_and_words():
    rows = [("rate", 0.1), ("steps", 3), ("flag", False), ("none", None), ("shape", [1, 2])]
    rows.append(("long", "x" * 251))
    assert board._hyperparameters(rows) == {
        "rate": 0.1,
        "steps": 3,
        "flag": False,
        "shape": "[1, 2]",
        "long": "x" * 250,
    }


def test_arrays_of_finite_numbers_are_named_by_their_path():
    params = {
        "a": {"kernel": np.array([[1, 2]], np.int32), "bad": np.array([math.nan, 1.0])},
        "b": [np.float64(3), np.zeros(0), np.array([math.inf])],
    }
    found = {name: (x.dtype.name, x.tolist()) for name, x in board._named(params)}
    assert found == {"a/kernel": ("float32", [1, 2]), "b/0": ("float32", [3])}


def can_be_drawn(name, shape):
    try:
        return pictures({name: np.zeros((2, *shape), np.float32)}).shape[0] == 2
    except ConfigError:
        return False


@pytest.mark.parametrize("name", ["image", "right_image", "label"])
@pytest.mark.parametrize("shape", [(), (16,), (8, 8), (8, 8, 1), (8, 8, 5), (3, 8, 8, 1)])
def test_pictures_are_shown_of_examples_that_can_be_drawn(name, shape):
    spec = {name: SimpleNamespace(shape=shape, dtype=np.dtype(np.float32))}
    experiment = SimpleNamespace(data=SimpleNamespace(spec=lambda: spec))
    event = Event("eval", 1, evaluation(1), lambda: None, experiment=experiment)
    assert board._has_pictures(event) == can_be_drawn(name, shape)
    assert not board._has_pictures(Event("eval", 1, evaluation(1), lambda: None))


def test_details_need_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(board.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(board.DependencyError, match="tensorboardX"):
        TensorBoard(details=True)
    write(tmp_path)
    TensorBoard()(told("train", 1, tmp_path, loss=0.5))
    assert not (tmp_path / "tensorboard").exists()
