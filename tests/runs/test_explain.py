"""`explain`: what is said and drawn of pictures, by name, one by one; and what is refused."""

import dataclasses
import json
from functools import partial

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from jaxcnn.commands import _main
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.inspect import attribution, explained
from jaxcnn.runs.question import METHODS, OF_CLASSES, Question, find_target
from jaxcnn.runs.train import train
from jaxcnn.tasks.regression import Regression
from tests.tiny import arrays, tiny

NAMES = ("low", "middle", "high")


def named(**fields):
    data = Arrays(train=arrays(50), eval=arrays(21, seed=1), label_names=NAMES)
    return tiny(data=data, **fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Opened with the experiment, as a notebook does: its folder alone cannot make it again."""
    return train(named(steps=20), tmp_path_factory.mktemp("explain") / "run", quiet=True)


@pytest.fixture
def verb(run, monkeypatch, capsys):
    """The verb on this run: (exit code, what it printed, its errors)."""
    from jaxcnn.runs import open as opening

    monkeypatch.setattr(opening, "open", lambda *_, **__: run)

    def call(*arguments):
        code = _main.main(["explain", str(run.folder), *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def pictures(folder, count, *, damaged=()):
    folder.mkdir()
    for i in range(count):
        path = folder / f"{i}.png"
        grey = np.random.default_rng(i).integers(0, 255, (20, 30)).astype(np.uint8)
        Image.fromarray(grey).save(path)
        if i in damaged:
            path.write_bytes(path.read_bytes()[:40])
    return sorted(folder.iterdir())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_and_draws(verb, tmp_path, method):
    paths = [] if method == "filters" else pictures(tmp_path / "in", 3)
    code, out, err = verb(*paths, "--method", method, "--json", "--output", tmp_path / "out")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert len(rows) == (1 if method in ("filters", "patches") else 3)
    for row in rows:
        assert row["method"] == method
        with Image.open(row["drawing"]) as drawing:
            assert min(drawing.size) >= 5
            assert np.ptp(np.asarray(drawing.convert("L"))) > 0, "something is drawn"
    if method in OF_CLASSES:
        assert [row["image"] for row in rows] == list(map(str, paths))
        assert all(row["name"] == NAMES[row["label"]] for row in rows)


def test_a_map_is_that_of_the_pure_functions(run, verb, tmp_path):
    """Of the picture as it is resized for the model, for the predicted class and for another."""
    (path,) = pictures(tmp_path / "in", 1)
    small = Image.open(path).resize((8, 8), Image.Resampling.BILINEAR)
    image = np.asarray(small, np.float32)[None, ..., None] / 255
    e = run.standalone()
    model = explained.network(e, run.state)
    for target in (None, "high", 0):
        label = int(explained.predicted(e, model, image)[0]) if target is None else target
        label = find_target(label, NAMES)
        score = explained.target_score(e, model, label)
        expected = np.sum(attribution.integrated_gradients(score, image), axis=-1)
        found = run.explain(image, method="integrated", target=target)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        asked = () if target is None else ("--target", target)
        _, out, _ = verb(path, "--method", "integrated", "--json", *asked)
        (row,) = json.loads(out)
        assert (row["label"], row["name"]) == (label, NAMES[label])
        np.testing.assert_allclose(row["score"], score(image)[0], atol=1e-4)
        np.testing.assert_allclose(row["most"], expected.max(), atol=1e-4)
        place = np.unravel_index(expected.argmax(), (1, 8, 8))[1:]
        np.testing.assert_allclose(row["peak"], (np.array(place) + 0.5) / 8)


def test_the_network_is_the_one_that_predicts(run):
    """With the averaged weights and the prediction's class."""
    images = arrays(9, seed=3)["image"]
    model = explained.network(run.standalone(), run.state)
    labels = explained.predicted(run.standalone(), model, images / np.float32(255))
    assert labels.tolist() == [row["label"] for row in run.predict(images)]


def test_pictures_in_batches_are_explained_as_alone(run):
    images = arrays(9, seed=3)["image"]
    question = Question("layercam", layer="Conv_0")
    together = run.explainer(question, batch_size=4).arrays(images)
    alone = [run.explainer(question, batch_size=1).arrays(images[i : i + 1])[0] for i in (0, 4, 8)]
    assert together.shape == (9, 8, 8)
    np.testing.assert_allclose(together[[0, 4, 8]], alone, atol=1e-6)
    assert run.explain(images[:0]).shape == (0, 8, 8)


def test_a_damaged_picture_costs_its_own_answer_alone(verb, tmp_path):
    paths = pictures(tmp_path / "in", 4, damaged=(0, 2))
    for method in ("gradient", "patches"):
        code, out, err = verb(*paths, "--method", method, "--json", "--output", tmp_path / "out")
        assert code == DataError.exit_code
        assert err.count("warning") == 2
        rows = json.loads(out)
        assert sum("error" in row for row in rows) == 2
        assert all("0.png" in r["image"] or "2.png" in r["image"] for r in rows if "error" in r)
    code, _, err = verb(paths[0], paths[2])
    assert (code, err.count("error:")) == (DataError.exit_code, 1)


def test_a_picture_is_known_by_its_content_not_by_its_ending(verb, tmp_path):
    (path,) = pictures(tmp_path / "in", 1)
    page = path.rename(path.with_name("x.html"))
    code, out, err = verb(page, "--json", "--output", tmp_path / "out")
    assert (code, err) == (0, "")
    assert json.loads(out)[0]["drawing"] == str(tmp_path / "out/x_gradcam.png")
    page.write_text("<!doctype html><p>no picture")
    code, _, err = verb(page, "--output", tmp_path / "out")
    assert code == 3
    assert "x.html: cannot be read as an image" in err


def test_drawings_never_share_a_name(verb, tmp_path):
    first, second = pictures(tmp_path / "a", 1), pictures(tmp_path / "b", 1)
    _, out, _ = verb(*first, *second, "--output", tmp_path / "out", "--method", "gradient")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "0_gradient.png",
        "0_gradient_1.png",
    ]
    assert out.count("\n") == 2
    assert "gradient of " in out


def test_a_dream_answers_more_than_what_it_began_with(run, verb, tmp_path):
    _, out, _ = verb("--method", "dream", "--target", "high", "--output", tmp_path, "--json")
    (row,) = json.loads(out)
    assert row["image"] == ""
    dreamt = np.asarray(Image.open(row["drawing"]).convert("L"))[2:-2, 2:-2][::32, ::32]
    images = np.stack([np.full((8, 8, 1), 128, np.uint8), dreamt[:8, :8, None]])
    model = explained.network(run.standalone(), run.state)
    grey, high = explained.target_score(run.standalone(), model, 2)(images / np.float32(255))
    assert high > grey + 1


def test_patches_are_the_best_there_are(run, verb, tmp_path):
    """Against a loop over all pictures and places; the layer sees 3x3 pixels."""
    paths = pictures(tmp_path / "in", 5)
    _, out, _ = verb(*paths, "--method", "patches", "--layer", "Conv_0", "--channel", 2, "--json")
    (row,) = json.loads(out)
    kernel = np.asarray(run.state.ema["Conv_0"]["kernel"])[..., 0, 2]
    found = []
    for path in paths:
        small = np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BILINEAR)) / 255
        padded = np.pad(small, 1)
        values = {
            (y, x): (padded[y : y + 3, x : x + 3] * kernel).sum()
            for y in range(8)
            for x in range(8)
        }
        place = max(values, key=values.get)
        found.append((values[place], str(path), list(place)))
    found.sort(reverse=True)
    assert [(p["path"], p["place"]) for p in row["patches"]] == [f[1:] for f in found]
    np.testing.assert_allclose([p["value"] for p in row["patches"]], [f[0] for f in found], 1e-4)
    for patch in row["patches"]:
        (top, bottom), (left, right) = patch["pixels"]
        y, x = patch["place"]
        assert (top, bottom) == (max(y - 1, 0), min(y + 2, 8))
        assert (left, right) == (max(x - 1, 0), min(x + 2, 8))


WRONG = [
    (("--method", "gradcamm"), r"must be one of.*did you mean 'gradcam'"),
    (("--target", "hihg"), r"no class has this name.*did you mean 'high'"),
    (("--target", "3"), r"numbered 0 to 2"),
    (("--target", "-1"), r"numbered 0 to 2"),
    (("--layer", "Conv_1"), r"no layer 'Conv_1'.*did you mean 'Conv_0'"),
    (("--layer", "Dense_0"), r"gives \[3\] for a picture"),
    (("--method", "gradient", "--layer", "Conv_0"), r"is not of a layer"),
    (("--method", "features", "--target", "low"), r"not of a class"),
    (("--method", "features", "--channel", "4"), r"channels 0 to 3"),
    (("--method", "dream", "--target", "low", "--layer", "Conv_0"), r"not of both"),
    (("--method", "dream", "--channel", "0", "1"), r"of one channel"),
    (("--channel", "0"), r"of no single channels"),
]


@pytest.mark.parametrize("arguments, message", WRONG, ids=lambda x: " ".join(x))
def test_what_is_asked_wrongly(verb, tmp_path, arguments, message):
    import re

    code, out, err = verb(*pictures(tmp_path / "in", 1), *arguments)
    assert (code, out) == (ConfigError.exit_code, "")
    assert re.search(message, err), err


def test_pictures_that_are_missing_or_too_many(verb, tmp_path):
    assert verb()[0] == ConfigError.exit_code
    assert verb(*pictures(tmp_path / "in", 1), "--method", "filters")[0] == ConfigError.exit_code
    assert verb(tmp_path / "none.png")[0] == DataError.exit_code


def test_arrays_that_do_not_fit(run):
    with pytest.raises(DataError, match="trained on"):
        run.explain(np.zeros((1, 9, 8, 1), np.float32))
    with pytest.raises(DataError, match=r"lie in \[0, 1\]"):
        run.explain(np.full((1, 8, 8, 1), 2.0))
    with pytest.raises(ConfigError, match="gives no map"):
        run.explain(np.zeros((1, 8, 8, 1)), method="features")


class Flat(nn.Module):
    """No convolution: [B, …] to one number."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        return nn.Dense(1)(x.reshape(x.shape[0], -1))


def untrained(name, shape, values=1):
    """(experiment, state) of a regression on an entry of this shape; [B, values] of what it is."""
    rows = {name: np.zeros((4, *shape), np.float32), "values": np.ones((4, values), np.float32)}
    e = Experiment(
        model=Flat(),
        task=Regression(num_values=values, inputs=(name,)),
        data=Arrays(train=rows, eval=rows),
        optimizer=partial(optax.sgd, learning_rate=0.1),
    )
    from jaxcnn.core.program import make_program

    return e, make_program(e, steps=1).init(jax.random.key(0))


def test_a_model_without_convolutions():
    from jaxcnn.runs.explain import Explainer

    e, state = untrained("image", (4, 4, 3))
    with pytest.raises(ConfigError, match="no layer with places"):
        Explainer(e, state, Question("gradcam"))
    with pytest.raises(ConfigError, match="no layer with a learned kernel"):
        list(Explainer(e, state, Question("filters")).files([]))
    images = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype(np.float32)
    kernel = np.asarray(state.params["Dense_0"]["kernel"]).reshape(4, 4, 3)
    found = Explainer(e, state, Question("integrated")).arrays(images)
    np.testing.assert_allclose(found, (images * kernel).sum(-1), atol=1e-5)


@pytest.mark.parametrize("name, shape", [("signal", (9, 2)), ("clip", (3, 4, 4, 1))])
def test_models_of_something_else_than_a_picture(name, shape):
    from jaxcnn.runs.explain import Explainer

    with pytest.raises(ConfigError, match="only a model of one picture"):
        Explainer(*untrained(name, shape), Question("gradient"))


def test_a_map_that_is_not_finite_is_said(run, tmp_path):
    from jaxcnn.runs.explain import Explainer

    state = run.state.replace(ema=jax.tree.map(lambda x: x * np.nan, run.state.ema))
    ((row, _),) = Explainer(run.standalone(), state, Question("gradient")).files(
        pictures(tmp_path / "in", 1)
    )
    assert "not finite" in row["error"]


def test_of_a_sweep_the_first_that_was_trained_is_explained(tmp_path, monkeypatch, capsys):
    from jaxcnn.runs import open as opening
    from jaxcnn.runs.sweep import grid

    e = dataclasses.replace(named(steps=2))
    sweep = train(e, tmp_path / "sweep", points=grid(seed=(0, 1)), way="loop", quiet=True)
    with pytest.raises(ConfigError, match=r"explain one of its \.replicas"):
        sweep.explain(np.zeros((1, 8, 8, 1)))
    monkeypatch.setattr(
        opening,
        "open",
        lambda *_, replica=None, **__: sweep if replica is None else sweep.replica(replica),
    )
    (path,) = pictures(tmp_path / "in", 1)
    for asked, said in (((), "replica 0 is explained"), (("--replica", "1"), "")):
        code = _main.main(["explain", str(sweep.folder), str(path), "--json", *asked])
        out, err = capsys.readouterr()
        assert code == 0
        assert said in err
        assert bool(said) == bool(err)
        assert json.loads(out)[0]["drawing"].startswith(str(sweep.folder))
