"""What `check` finds in data: faults, duplicates, classes; and what is refused before training."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcnn.commands._main import main
from jaxcnn.core.program import make_program
from jaxcnn.data.dataset import sample_rows
from jaxcnn.data.memory import Arrays, MemorySource
from jaxcnn.data.stream import StreamSource
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.runs.check import abstract_state, check_classes, pre_flight
from jaxcnn.runs.evaluation import open_checked
from jaxcnn.runs.examine import examine
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.segmentation import Segmentation
from tests.tiny import TinyNet, arrays, tiny


@dataclasses.dataclass(frozen=True)
class Stream:
    """Streamed rows; some cannot be read."""

    rows: dict
    broken: tuple[int, ...] = ()
    told: bool = True  # whether the labels are known without decoding
    label_names: tuple[str, ...] = ()

    def spec(self):
        return {n: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for n, x in self.rows.items()}

    def size(self, split):
        return len(self.rows["label"]) if split == "train" else 3

    def open(self, split):
        if split != "train":
            return MemorySource({n: x[:3] for n, x in self.rows.items()})

        def read(indices):
            for i in set(indices) & set(self.broken):
                raise DataError(f"photos/{i}.png: cannot be read as an image; repair it")
            return [{n: x[i] for n, x in self.rows.items()} for i in indices]

        known = {"label": self.rows["label"]} if self.told else {}
        return StreamSource(read, self.size(split), self.spec(), columns=known)


def with_data(data, **fields):
    return tiny(data=data, **fields)


def test_faults_are_counted_by_kind_wherever_they_are():
    rows = arrays(600)
    rows["label"][[7, 599]] = 3, 9
    e = with_data(Stream(rows, broken=(300, 301, 580)))
    found = examine(e, full=True)["train"]
    assert found["examples"] == 600
    assert found["checked"] == 597
    assert [(f["count"], f["row"]) for f in found["faults"]] == [(3, 300), (2, 7)]
    assert "photos/300.png" in found["faults"][0]["message"]
    assert "num_classes=3" in found["faults"][1]["message"]


@pytest.mark.parametrize("value, faults", [(-1, 0), (-2, 1), (255, 1)])
def test_what_a_label_map_ignores_is_the_tasks_to_say(value, faults):
    maps = np.zeros((4, 8, 8), np.int32)
    maps[1, 2, 3] = value
    rows = {"image": np.zeros((4, 8, 8, 1), np.uint8), "segmentation": maps}
    task = Segmentation(num_classes=3, ignore=-1)
    found = examine(tiny(task=task, data=Arrays(train=rows, eval=rows)))["train"]["faults"]
    assert sum(fault["count"] for fault in found) == faults


def test_all_rows_in_memory_are_looked_at():
    rows = arrays(600)
    rows["label"][599] = 3
    found = examine(with_data(Arrays(rows, arrays(9, seed=1))))
    assert [(f["count"], f["row"]) for f in found["train"]["faults"]] == [(1, 599)]
    assert found["eval"]["faults"] == []


def test_labels_pixels_and_copies_equal_a_plain_count():
    train, held = arrays(40), arrays(12, seed=1)
    train["image"][5] = train["image"][4]
    train["label"][5] = (train["label"][4] + 1) % 3
    train["image"][6] = train["image"][4]
    train["label"][6] = train["label"][4]
    train["image"][9] = 7
    held["image"][:2] = train["image"][:2]
    names = ("a", "b", "c")
    found = examine(with_data(Arrays(train, held, label_names=names)))
    one = found["train"]
    assert one["labels"] == {n: int((train["label"] == k).sum()) for k, n in enumerate(names)}
    assert (one["duplicates"], one["conflicts"]) == (2, 1)
    assert found["eval"]["also_in"] == {"train": 2}
    assert any("2 examples are also in 'train'" in note for note in found["eval"]["notes"])
    np.testing.assert_allclose(one["pixels"]["mean"], train["image"].mean() / 255, atol=1e-4)
    np.testing.assert_allclose(one["pixels"]["std"], train["image"].std() / 255, atol=1e-4)
    assert one["pixels"]["constant"] == 1


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


ODD = [  # training rows -> what is said of them
    (lambda: {**arrays(30), "label": np.zeros(30, np.int32)}, "one class, ant: nothing"),
    (
        lambda: {**arrays(30), "label": (np.arange(30) == 3).astype(np.int32)},
        "29 of ant and 1 of b",
    ),
    (
        lambda: {**arrays(30), "label": np.arange(30, dtype=np.int32) % 2},
        "no example of 1 classes: c",
    ),
    (lambda: {**arrays(30), "image": images(30, 3, 8, 8)}, "[channels, height, width]"),
    (lambda: {**arrays(30), "image": images(30, 8, 8, 1) // 128}, "bytes of 0 and 1 alone"),
    (lambda: {**arrays(30), "image": images(30, 8, 8, 1) / 255.0**2}, "divided by 255 twice"),
]


@pytest.mark.parametrize("make, words", ODD, ids=[words for _, words in ODD])
def test_what_is_odd_is_said(make, words):
    rows = make()
    rows["image"] = rows["image"] if rows["image"].dtype == np.uint8 else np.float32(rows["image"])
    data = Stream(rows, label_names=("ant", "b", "c"))
    notes = examine(with_data(data))["train"]["notes"]
    assert any(words in note for note in notes), notes


def test_a_sample_of_a_stream_covers_every_class_and_counts_all_labels():
    label = np.sort(np.random.default_rng(0).choice(3, 2000, p=(0.98, 0.015, 0.005))).astype(
        np.int32
    )
    rows = {"image": images(2000, 8, 8, 1), "label": label}
    found = examine(with_data(Stream(rows)))["train"]
    assert found["checked"] <= 256
    assert list(found["labels"].values()) == np.bincount(label).tolist()
    assert any("a sample of" in note for note in found["notes"])
    source = Stream(rows).open("train")
    for count in (1, 2, 3, 4, 64, 5000):
        chosen = sample_rows(source, count)
        assert len(chosen) <= max(count, 3)
        assert len(np.unique(chosen)) == len(chosen)
        assert set(label[chosen]) >= ({0, 1, 2} if count >= 3 else {0})
    assert np.ptp(sample_rows(Stream(rows, told=False).open("train"), 64)) == 1999


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_of_a_sample_no_more_is_said_than_that(told, full):
    label = np.where(np.arange(3000) % 20 == 3, 1, 0).astype(np.int32)
    label[5] = 2
    rows = {"image": images(3000, 8, 8, 1), "label": label}
    rows["label"][:3] = 0, 1, 2  # which are those of the other splits, too
    found = examine(with_data(Stream(rows, told=told)), full=full)
    notes = found["train"]["notes"] + found["eval"]["notes"]
    lacking = [note for note in notes if "no example of" in note or "lacks" in note]
    if told or full:
        assert lacking == []
        assert any(note.startswith("unbalanced: 2,") for note in notes)
    else:
        assert "in the sample no example of 1 classes: 2" in lacking
        assert "classes that 'train' lacks in its sample: 2" in lacking
        assert any(note.startswith("in the sample unbalanced: ") for note in notes)


@pytest.mark.parametrize("told", [True, False])
def test_a_stream_with_more_classes_than_the_task_is_refused_before_training(told):
    """Sorted by class, so that the first 64 examples have one class alone."""
    rows = {"image": images(600, 8, 8, 1), "label": np.repeat(np.arange(3, dtype=np.int32), 200)}
    e = with_data(Stream(rows, told=told), task=Classification(2), model=TinyNet(num_classes=2))
    with pytest.raises(DataError, match=r"num_classes=2"):
        open_checked(e, "train")


def test_a_check_traces_the_model_once_for_each_of_its_uses():
    """To initialize, train and predict: a check of a large network takes its time for that."""
    uses = []

    class Told(TinyNet):
        def __call__(self, *inputs, train):
            uses.append("train" if train else "not train")
            return super().__call__(*inputs, train=train)

    pre_flight(tiny(model=Told()))
    assert sorted(uses) == ["not train", "not train", "train"]


def test_the_classes_of_data_task_and_model_are_compared():
    data = Arrays(arrays(9), arrays(9), label_names=("ant", "bee", "cat"))
    check_classes(with_data(data))
    assert abstract_state(with_data(data)) is not None
    for count in (2, 4):
        e = with_data(data, task=Classification(count), model=TinyNet(num_classes=count))
        with pytest.raises(
            ConfigError, match=r"3 classes \(ant, bee, cat\): set task.num_classes=3"
        ):
            abstract_state(e)
    with pytest.raises(ConfigError, match=r"the model gives 5 classes and task.num_classes=3"):
        abstract_state(with_data(data, model=TinyNet(num_classes=5)))


EXPERIMENT = """
import dataclasses
import numpy as np
from tests.tiny import arrays, tiny
from jaxcnn.data.memory import Arrays
label = arrays(30)
label["label"][{row}] = 5
experiment = dataclasses.replace(
    tiny(), data=Arrays(label, arrays(9, seed=1), label_names=("ant", "bee", "cat"))
)
"""


def test_command_line(tmp_path, monkeypatch, capsys):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.py").write_text(EXPERIMENT.format(row="30:"))
    (tmp_path / "bad.py").write_text(EXPERIMENT.format(row="29"))
    assert main(["check", "good.py", "--data", "--sheet", "sheet.png"]) == 0
    shown = capsys.readouterr().out
    assert "30 examples, 30 looked at" in shown
    assert "no faults" in shown
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 1000
    assert main(["check", "bad.py"]) == 3
    shown = capsys.readouterr()
    assert "faulty examples: 1 in 'train'" in shown.err
    assert main(["check", "bad.py", "--no-data"]) == 0
    assert main(["check", "bad.py", "--no-data", "--data"]) == 2
    assert main(["check", "good.py", "--sheet", "sheet.nothing"]) == 2


def test_data_that_are_not_there_are_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = (
        "import dataclasses",
        "from tests.tiny import tiny",
        "from jaxcnn.data.files.class_folder import Folder",
        "data = Folder('nowhere', image_size=(8, 8), channels=1)",
        "experiment = dataclasses.replace(tiny(), data=data)",
    )
    (tmp_path / "gone.py").write_text("\n".join(lines))
    assert main(["check", "gone.py"]) == 3
    shown = capsys.readouterr()
    assert "nowhere" not in shown.out.split("train examples")[1]
    assert shown.err.startswith("error: train, eval, test: Folder nowhere")
    assert shown.err.count("is not a folder") == 1
    assert main(["check", "gone.py", "--no-data"]) == 0
    assert capsys.readouterr().err == ""


def test_faults_and_a_split_that_is_not_there_are_both_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "train.npz", **arrays(20))
    lines = (
        "from tests.tiny import TinyNet, tiny",
        "from jaxcnn.data.files.npz import Npz",
        "from jaxcnn.tasks.classification import Classification",
        "data = Npz('train.npz', eval_path='gone.npz')",
        "task, model = Classification(2), TinyNet(num_classes=2)",
        "experiment = tiny(data=data, task=task, model=model)",
    )
    (tmp_path / "part.py").write_text("\n".join(lines))
    assert main(["check", "part.py"]) == 3
    shown = capsys.readouterr()
    assert "train: 20 examples, 20 looked at" in shown.out
    first, second = shown.err.splitlines()
    assert first.startswith("error: faulty examples")
    assert second.startswith("eval: gone.npz")


def test_sizes_are_those_of_a_state():
    e = tiny(ema=None)
    state = jax.jit(make_program(e, steps=1).init)(jax.random.key(0))
    found = pre_flight(e)

    def numbers(tree):
        return sum(x.size for x in jax.tree.leaves(tree))

    assert found["params"] == numbers(state.params)
    assert found["param_bytes"] == 4 * numbers(state.params)
    assert found["model_state_bytes"] == 4 * numbers(state.model_state)
    assert found["optimizer_bytes"] == 4 * numbers(state.opt_state)
    assert found["batch_bytes"] == 8 * (8 * 8 + 4)  # bytes of pixels, a label of 4
    assert found["state_bytes"] > 4 * numbers((state.params, state.opt_state, state.model_state))
