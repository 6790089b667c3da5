"""A run whose data have changed is not resumed as if they had not."""

import dataclasses
import shutil
from functools import partial

import numpy as np
import optax
import pytest

from jaxcnn.commands._main import main
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.algebra import Concat, HeldOut, Take
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.files.documents import Texts
from jaxcnn.data.memory import Arrays
from jaxcnn.data.recorded import files_of
from jaxcnn.errors import DataError, Preempted
from jaxcnn.models.text import TextCNN
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.report.compare import compare, text_of
from jaxcnn.runs.report.examples import Viewer
from jaxcnn.runs.report.pictures import Pictures
from jaxcnn.runs.report.solo import looked_at
from jaxcnn.runs.train import train as train_run
from jaxcnn.runs.writers import Console
from jaxcnn.tasks.classification import Classification
from tests.tiny import arrays, fit, stop_at, tiny, train


def photos(root, classes="abc", count=5):
    from PIL import Image

    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng(100 * k + i).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")


def grow(root):
    photos(root, "abc", 6)


def add_class(root):
    photos(root, "abcd")


def rename(root):
    (root / "a/0.png").rename(root / "a/00.png")


def rewrite(root):
    with open(root / "b/1.png", "ab") as file:
        file.write(b"0")


def hide(root):
    (root / "a/.DS_Store").write_bytes(b"0")


def nothing(root):
    (root / "a/0.png").touch()


class Lines(Console):
    """What was said."""

    def __init__(self):
        super().__init__(quiet=True)
        self.said = []

    def line(self, text):
        self.said.append(text)


@pytest.mark.parametrize(
    "change, refused, said",
    [
        (grow, "numbers of examples .*'train': 12.*'train': 15", None),
        (add_class, r"classes \['a', 'b', 'c'\] then, \['a', 'b', 'c', 'd'\] now", None),
        (rename, None, "data.path: 15 files"),
        (rewrite, None, "data.path: 15 files"),
        (hide, None, None),
        (nothing, None, None),
    ],
)
def test_resume(tmp_path, change, refused, said):
    photos(tmp_path / "photos")
    data = Folder(str(tmp_path / "photos"), image_size=(8, 8), channels=1)
    e = tiny(data=data, steps=4, augment=(), ema=None, eval_every=0.7)
    with pytest.raises(Preempted):
        fit(e, tmp_path / "run", observe=(stop_at(2),))
    change(tmp_path / "photos")
    e = dataclasses.replace(e, data=dataclasses.replace(data))  # what was listed is not kept
    console = Lines()
    if refused:
        with pytest.raises(DataError, match=refused):
            train(e, tmp_path / "run", resume=True, console=console)
        return
    train(e, tmp_path / "run", resume=True, console=console)
    warned = [line for line in console.said if line.startswith("warning")]
    warned = [line for line in warned if "no better than a blind answer" not in line]  # few data
    assert len(warned) == (said is not None)
    assert all(said in line for line in warned)


@pytest.mark.parametrize("points", [None, [{"seed": 0}]])
def test_who_scores_a_run_on_data_that_have_changed_is_told(tmp_path, capsys, points):
    photos(tmp_path / "photos")
    data = Folder(str(tmp_path / "photos"), image_size=(8, 8), channels=1)
    e = tiny(data=data, steps=2, augment=(), ema=None)
    fit(e, tmp_path / "run", points=points)
    run = tmp_path / "run" if points is None else tmp_path / "run/replicas/0"
    e = dataclasses.replace(e, data=dataclasses.replace(data))

    def said():
        opened = open_run(run, e)
        opened.evaluate()
        page = str(looked_at(Viewer(opened), Pictures(), most=9))
        found = compare([opened, open_run(run, e)])
        return capsys.readouterr().err, page, "\n".join(text_of(found))

    text = "its data have changed since it was trained"
    assert not [one for one in said() if text in one]
    rename(tmp_path / "photos")
    e = dataclasses.replace(e, data=dataclasses.replace(data))  # what was listed is not kept
    for one in said():
        assert text in one
        assert "data.path: 15 files" in one
    grow(tmp_path / "photos")
    e = dataclasses.replace(e, data=dataclasses.replace(data))
    assert all("numbers of examples {'train': 12" in one.replace("&#x27;", "'") for one in said())


def test_going_on_with_other_classes_is_said(tmp_path):
    def data(names):
        return Arrays(arrays(20), arrays(9), label_names=names)

    few = {"steps": 2, "eval_every": 5.0}
    fit(tiny(data=data(("a", "b", "c")), **few), tmp_path / "one")
    console = Lines()
    e = tiny(data=data(("b", "a", "c")), **{**few, "steps": 3})
    train(e, tmp_path / "two", start=tmp_path / "one", console=console)
    assert any("classes were ['a', 'b', 'c']" in line for line in console.said)


def test_texts_that_are_numbered_otherwise_are_not_scored(tmp_path, capsys):
    """The vocabulary is that of the training texts: with another one, word 2 is another word."""
    for name, pairs in {"old": ("good fine", "bad poor"), "new": ("great", "awful")}.items():
        rows = [f"{text} {text},{i}" for _ in range(4) for i, text in enumerate(pairs)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows, f"{pairs[1]},1"]))
    old, new = (str(tmp_path / f"{name}.csv") for name in ("old", "new"))
    e = Experiment(
        model=TextCNN(vocabulary_size=8, num_classes=2, embedding_size=4, maps=4),
        task=Classification(num_classes=2, inputs=("text",)),
        data=Texts(old, length=8, vocabulary_size=8),
        optimizer=partial(optax.adam, learning_rate=0.1),
        batch_size=4,
        steps=4,
    )
    run = train_run(e, tmp_path / "run", quiet=True)
    for other in (Texts(new, length=8, vocabulary_size=8), HeldOut(Texts(new, length=8), 0.3)):
        with pytest.raises(DataError, match="number their tokens otherwise"):
            run.evaluate("eval", data=other)
    again = Texts(old, test_path=new, length=8, vocabulary_size=8)
    assert run.evaluate("test", data=again)["count"] == 9
    (tmp_path / "old.csv").write_text((tmp_path / "new.csv").read_text())
    changed = dataclasses.replace(e, data=dataclasses.replace(e.data))
    reopened = open_run(tmp_path / "run", changed)
    reopened.evaluate("eval")
    assert "a digest of the numbers of tokens" in capsys.readouterr().err


def test_files_inside_other_data_sets_are_found(tmp_path):
    photos(tmp_path / "a", count=2)
    photos(tmp_path / "b", count=3)
    one, two = (Folder(str(tmp_path / name)) for name in "ab")
    found = files_of(Concat(Take(one, 3), two))
    assert {field: count for field, (count, *_) in found.items()} == {
        "datasets.0.data.path": 6,
        "datasets.1.path": 9,
    }
    assert files_of(Folder(str(tmp_path / "nowhere"))) == {}
    assert files_of(Arrays(arrays(3), arrays(3))) == {}


def test_relative_places_are_those_of_the_folder_in_which_the_run_was_started(
    tmp_path, monkeypatch
):
    home, other = tmp_path / "home", tmp_path / "other"
    photos(home / "photos")
    photos(other / "photos", "abc", 9)  # a folder of the same name that is not meant
    monkeypatch.chdir(home)
    data = Folder("photos", image_size=(8, 8), channels=1)
    e = tiny(data=data, batch_size=4, steps=4, augment=(), ema=None, eval_every=0.7)
    whole = train(e, home / "whole")
    with pytest.raises(Preempted):
        train(e, home / "run", observe=[stop_at(2)])
    points = [{"data.path": "photos"}, {"data.path": "photos", "batch_size": 3}]
    with pytest.raises(Preempted):
        train(e, home / "sweep", points=points, observe=[stop_at(2)])
    monkeypatch.chdir(other)
    run = train(None, home / "run", resume=True)
    assert run.summary["state_sha256"] == whole.summary["state_sha256"]
    assert open_run(home / "run").evaluate()["count"] == whole.metrics["count"]
    assert train(None, home / "sweep", resume=True).replica(1).evaluate()["count"] == 3
    monkeypatch.chdir(home)
    assert open_run(home / "sweep").replica(1).evaluate() is not None


def test_a_run_that_was_moved_with_its_data_takes_those_where_it_is_now(tmp_path, monkeypatch):
    photos(tmp_path / "old/photos")
    monkeypatch.chdir(tmp_path / "old")
    data = Folder("photos", image_size=(8, 8), channels=1)
    e = tiny(data=data, batch_size=4, steps=2, augment=(), ema=None, eval_every=2.0)
    train(e, "run")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    assert open_run("new/run").experiment.data.path == str(tmp_path / "new/photos")
    assert open_run("old/run").experiment.data.path == str(tmp_path / "old/photos")
    shutil.rmtree(tmp_path / "old")
    assert open_run("new/run").evaluate()["count"] > 0
    (tmp_path / "new/run").rename(tmp_path / "run")
    assert open_run("run").experiment.data.path == "photos"  # neither is there any more


FILE = """
from functools import partial
import optax
from flax import linen as nn
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.tasks.classification import Classification

class Net(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        return nn.Dense(3)(image.mean((1, 2)))

experiment = Experiment(model=Net(), task=Classification(3), batch_size=4, steps=2,
    optimizer=partial(optax.sgd, learning_rate=0.1), data=Folder("photos", image_size=(8, 8)))
"""


def test_what_goes_on_from_a_run_elsewhere_can_be_resumed(tmp_path, monkeypatch):
    photos(tmp_path / "home/photos")
    (tmp_path / "home/net.py").write_text(FILE)
    monkeypatch.chdir(tmp_path / "home")
    train_run("net.py", "run", quiet=True)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for verb in (
        ["--from", "../home/run", "steps=3", "--run-dir", "longer"],
        ["--resume", "longer"],
    ):
        assert main(["train", *verb, "--quiet"]) == 0
    assert open_run("longer").evaluate()["count"] == 3
