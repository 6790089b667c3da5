"""What a published folder is made of, part by part, of runs that are written by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.errors import ConfigError, DataError, ResourceError
from jaxcnn.runs import publish, published
from jaxcnn.runs.open import Run
from tests.runs.report.by_hand import RECORD, SUMMARY, evaluation, step, write

# ---- what is copied --------------------------------------------------------------------------


def test_what_is_of_one_machine_alone_stays_there(tmp_path):
    run = write(
        tmp_path,
        code={"file": None, "source": "/home/me/mine.py"},
        data=RECORD["data"] | {"files": {"/home/me/a": [1, 2, "x"]}},
        environment={"command": ["train"], "python": "3.12"},
        started_in="/home/me",
        weights={"hf://a/b": "there"},
    )
    found = publish._record(run, 7)
    assert found == {
        "format": 2,
        "id": RECORD["id"],
        "experiment": "by_hand",
        "steps_per_dispatch": 1,
        "rendered": RECORD["rendered"],
        "weights": {"hf://a/b": "there"},
        "code": {"file": None},
        "data": RECORD["data"],
        "environment": {"python": "3.12"},
        "published": {"step": 7, "checkpoint": "last"},
    }


def test_places_of_this_machine_are_named():
    rendered = {"data": {"root": "/data", "names": ["a", "~/b"]}, "rate": 0.1, "empty": ""}
    assert publish._places(rendered) == [
        "run.json names a place of this machine: data.root = '/data'",
        "run.json names a place of this machine: data.names.1 = '~/b'",
    ]


CODE = {"file": "mine.py", "module": "mine", "overrides": [], "local": {"a": "a/b.py"}}


def test_the_code_is_copied_and_what_is_gone_or_elsewhere_said(tmp_path):
    run = write(tmp_path / "run", code=CODE)
    for name in ("mine.py", "a/b.py", "jaxcnn.diff", "other.py"):
        (tmp_path / "run" / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / "code" / name).write_text(name)

    def copied(name):
        notes = publish._code(run, tmp_path / name)
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / name)): path.read_text() for path in files}, notes

    three = {name: name for name in ("mine.py", "a/b.py", "jaxcnn.diff")}
    assert copied("all") == (three, [])
    (tmp_path / "run" / "code" / "jaxcnn.diff").unlink()
    (tmp_path / "run" / "code" / "mine.py").unlink()
    (tmp_path / "secret").write_text("hush")
    (tmp_path / "run" / "code" / "a" / "b.py").unlink()
    (tmp_path / "run" / "code" / "a" / "b.py").symlink_to(tmp_path / "secret")
    assert copied("none") == (
        {},
        [
            "code/mine.py is gone",
            "code/a/b.py: a link that leads out of the run's folder; left out",
        ],
    )
    bare = write(tmp_path / "bare")
    assert publish._code(bare, tmp_path / "nothing") == []


class AtStep:
    """A run as it was at a step."""

    def __init__(self, run, validation):
        self.history, self.summary, self.validation = run.history, run.summary, validation


def test_the_history_ends_with_the_checkpoint(tmp_path):
    records = [step(4), evaluation(5, accuracy=0.5), step(6), evaluation(10, accuracy=0.75)]
    own = SUMMARY | {"test": {"accuracy": 1.0}, "state_sha256": "x" * 64}
    run = write(tmp_path / "run", records, summary=own)

    def kept(name, at, validation):
        (tmp_path / name).mkdir()
        publish._history(AtStep(run, validation), tmp_path / name, at)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], Run(write(tmp_path / "x").folder)

    history, _ = kept("last", 10, records[-1])
    assert history == records
    assert json.loads((tmp_path / "last" / "summary.json").read_text()) == own
    history, _ = kept("best", 5, records[1])
    assert history == records[:2]
    summary = json.loads((tmp_path / "best" / "summary.json").read_text())
    assert summary == SUMMARY | {"step": 5, "epoch": 1.0, "eval": {"accuracy": 0.5}}
    kept("unseen", 4, None)
    summary = json.loads((tmp_path / "unseen" / "summary.json").read_text())
    assert summary == SUMMARY, "what was measured at the end is left out, and nothing is added"
    (tmp_path / "run" / "summary.json").unlink()
    run = Run(tmp_path / "run")
    kept("running", 10, records[-1])
    assert not (tmp_path / "running" / "summary.json").exists()


# ---- the example -----------------------------------------------------------------------------


def experiment(*, inputs=("image",), in_training=(), any_size=False, **entries):
    spec = {
        name: jax.ShapeDtypeStruct(shape, np.dtype(dtype))
        for name, (shape, dtype) in entries.items()
    }
    task = SimpleNamespace(inputs=inputs, training_inputs=in_training, any_size=any_size)
    return SimpleNamespace(task=task, data=SimpleNamespace(spec=lambda: spec))


def test_noise_has_the_form_of_the_inputs():
    """Those of predictions: what training alone takes is no input of a published model."""
    e = experiment(
        inputs=("image", "mask", "label"),
        in_training=("label",),
        image=((64, 64, 3), "uint8"),
        mask=((9,), "int32"),
        label=((), "int32"),
    )
    found = publish._random(e)
    assert {name: (x.shape, x.dtype.name) for name, x in found.items()} == {
        "image": ((1, 64, 64, 3), "uint8"),
        "mask": ((1, 9), "int32"),
    }
    assert (found["image"].min(), found["image"].max()) == (0, 255)
    assert set(np.unique(found["mask"])) == {0, 1}
    (floats,) = publish._random(experiment(image=((50,), "float32"))).values()
    assert floats.dtype == np.float32
    assert 0 <= floats.min() < floats.max() <= 1
    np.testing.assert_array_equal(publish._random(e)["image"], found["image"])


@pytest.mark.parametrize(
    "batch, shown",
    [
        ({"image": np.full((1, 4, 5, 1), 7, np.uint8)}, (4, 5)),
        ({"image": np.full((1, 4, 5, 3), 7, np.uint8)}, (4, 5, 3)),
        ({"image": np.full((1, 4, 5, 2), 7, np.uint8)}, None),
        ({"image": np.full((1, 4, 5, 3), 7, np.float32)}, None),
        ({"image": np.full((1, 4, 3), 7, np.uint8)}, None),
        ({"image": np.full((1, 4, 5, 1), 7, np.uint8), "mask": np.ones((1, 2))}, None),
    ],
    ids=["grey", "colour", "two channels", "floats", "flat", "two inputs"],
)
def test_a_sample_is_a_picture_too_where_it_is_one(tmp_path, batch, shown):
    publish._sample(None, tmp_path, batch, {"label": np.int32(3)})
    kept = np.load(tmp_path / "sample.npz")
    assert {name: kept[name].tolist() for name in kept} == {n: x.tolist() for n, x in batch.items()}
    content = json.loads((tmp_path / "sample.json").read_text())
    wanted = {"inputs": "sample.npz", "answer": {"label": 3}}
    wanted |= {"from": "the first validation example"}
    assert content == wanted | ({"picture": "sample.png"} if shown else {})
    assert (tmp_path / "sample.png").exists() == (shown is not None)
    if shown:
        assert np.asarray(Image.open(tmp_path / "sample.png")).shape == shown


def test_why_there_is_no_example(tmp_path):
    def gone(split):
        raise DataError("the data are gone")

    run = SimpleNamespace(experiment=SimpleNamespace(data=SimpleNamespace(open=gone)))
    assert publish._example(run, None) == (None, "the data are gone")


# ---- the preparation -------------------------------------------------------------------------


def preparation(e, transform=()):
    run = SimpleNamespace(record={"rendered": {"transform": list(transform)}})
    return publish._preparation(run, e, {"outputs": {"label": "int32"}, "label_names": ["a"]})


def test_how_inputs_are_prepared():
    e = experiment(inputs=("image", "x"), image=((4, 5, 3), "uint8"), x=((7,), "float32"))
    transform = [{"partial": "m:f"}, {"function": "m:g"}, {"type": "m:T"}, "odd"]
    assert preparation(e, transform) == {
        "inputs": {
            "image": {
                "shape": ["rows", 4, 5, 3],
                "dtype": "uint8",
                "layout": "NHWC",
                "colour": "RGB",
                "size": {"height": 4, "width": 5},
                "resize": "bilinear, as wide as the reduction; the aspect ratio is not kept",
                "range": [0, 255],
            },
            "x": {"shape": ["rows", 7], "dtype": "float32"},
        },
        "inside_the_model": ["uint8 pictures become float32 in [0, 1]", "m:f", "m:g", "m:T"],
        "outputs": {"label": "int32"},
        "class_names": ["a"],
    }


def test_grey_pictures_of_floats_and_models_of_any_size():
    e = experiment(any_size=True, image=((4, 5, 1), "float32"))
    image = preparation(e)["inputs"]["image"]
    assert image["colour"].startswith("grey")
    assert image["range"] == [0.0, 1.0]
    assert "model.jax takes this one alone" in image["other_sizes"]
    assert "layout" not in preparation(experiment(image=((4, 5, 2), "uint8")))["inputs"]["image"]


# ---- the whole -------------------------------------------------------------------------------


def test_where_it_cannot_be_published(tmp_path):
    run = write(tmp_path / "run")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="holds files already"):
        publish.publish(run, tmp_path / "file")
    sweep = write(tmp_path / "sweep", points=[{"seed": 0}])
    with pytest.raises(ConfigError, match="is a sweep"):
        publish.publish(sweep, tmp_path / "new")
    with pytest.raises(ResourceError, match="choose another --output"):
        publish.publish(run, tmp_path / "file" / "new")


def test_a_published_model_is_not_trained_on():
    published.refuse(Path("folder"), {})
    with pytest.raises(ConfigError, match="weights=folder"):
        published.refuse(Path("folder"), {"published": {}})


@pytest.mark.parametrize(
    "left, right, off",
    [
        ([1.0, -2.0], [1.5, 0.0], 2.0),
        ([np.nan, np.inf], [np.nan, np.inf], 0.0),
        ([np.nan], [1.0], np.inf),
        ([1.0], [np.nan], np.inf),
        ([np.inf], [-np.inf], np.inf),
        ([1, 2], [1, 2], 0.0),
        ([], [], 0.0),
        ([True], [False], np.inf),
    ],
    ids=str,
)
def test_the_largest_difference(left, right, off):
    assert published.difference([np.array(left)], [np.array(right)]) == off
    others = np.array([0.0, 3.0]), np.array([0.0, 2.5])
    found = published.difference([others[0], np.array(left)], [others[1], np.array(right)])
    assert found == max(off, 0.5)
