"""Pages of tasks that say other things than a class: pictures with what was said drawn on them, or
made of them; losses against those of an evaluation.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.memory import Arrays
from jaxcnn.layers import Conv
from jaxcnn.ops.decoding import END, SPECIAL_WORDS, START
from jaxcnn.ops.pixel_shuffle import pixel_shuffle
from jaxcnn.runs.open import Run
from jaxcnn.runs.report.cards import say
from jaxcnn.runs.report.examples import Viewer
from jaxcnn.runs.report.write import write_report
from jaxcnn.tasks.captioning import Captioning
from jaxcnn.tasks.detection import CenterDetection
from jaxcnn.tasks.regression import Regression
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.tasks.super_resolution import SuperResolution
from jaxcnn.tasks.task import BaseTask
from tests.runs.report.reader import check
from tests.tiny import fit

ROWS = 5
RANDOM = np.random.default_rng(0)


class Maps(nn.Module):
    """Images [B, H, W, 1] to maps [B, H, W, K], or, of `heads`, a dict of such."""

    features: int = 3
    heads: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        x = Conv(4, (3, 3), name="first")(image)
        if not self.heads:
            return Conv(self.features, (1, 1))(x)
        sizes = {"heatmap": self.features, "size": 2, "offset": 2}
        return {name: Conv(count, (1, 1), name=name)(x) for name, count in sizes.items()}


class Larger(nn.Module):
    """Images [B, H, W, 1] to twice the size, with noise by a name of its own that shows nowhere."""

    @nn.compact
    def __call__(self, image, *, train: bool):
        image = image + 1e-12 * jax.random.normal(self.make_rng("noise"), image.shape)
        return pixel_shuffle(Conv(4, (3, 3))(image), 2)


class Speaker(nn.Module):
    """Says "<a> b" of every picture, and knows the mean word."""

    @nn.compact
    def __call__(self, image, captions, *, train: bool):
        word = self.param("word", nn.initializers.zeros, (6,))
        rows, references, length = captions.shape
        logits = jnp.broadcast_to(word, (rows, references, length - 1, 6))
        tokens = jnp.broadcast_to(jnp.asarray([4, 5, END], jnp.int32), (rows, 3))
        return {"logits": logits, "tokens": tokens}


class Painter(nn.Module):
    """Rows z [B, 4] to pictures; what others look like is known in training alone."""

    @nn.compact
    def __call__(self, z, image, *, train: bool):
        return nn.sigmoid(nn.Dense(256)(z)).reshape(-1, 16, 16, 1)


@dataclasses.dataclass(frozen=True)
class Painting(BaseTask):
    """Bright pictures."""

    inputs: tuple[str, ...] = ("z", "image")
    training_inputs: tuple[str, ...] = ("image",)
    metric: str = "loss"
    larger_is_better: bool = False

    def loss(self, outputs, batch):
        return 1 - outputs.mean((1, 2, 3))

    def predict(self, outputs):
        return {"image": jnp.round(255 * outputs).astype(jnp.uint8)}

    def describe(self, row, *, names):
        return {"image": np.asarray(row["image"])}


class Numbers(nn.Module):
    """Rows x [B, L] to one number: no pictures at all."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        return nn.Dense(1)(x)


def image(size=16, rows=ROWS):
    return RANDOM.integers(0, 255, (rows, size, size, 1)).astype(np.uint8)


def boxes(rows=ROWS):
    corners = np.tile(np.float32([[0.1, 0.2, 0.6, 0.7], [0, 0, 0, 0]]), (rows, 1, 1))
    mask = np.tile(np.float32([1, 0]), (rows, 1))
    return {"boxes": corners, "boxes_mask": mask, "box_labels": np.zeros((rows, 2), np.int32)}


def captions(rows=ROWS):
    return np.tile(np.int32([[START, 3, 4, END]]), (rows, 1, 1))


def target(small):
    return np.repeat(np.repeat(small, 2, 1), 2, 2)


SMALL = image()
CASES = {
    "segmentation": (
        Maps(3),
        Segmentation(3),
        {"image": image(), "segmentation": RANDOM.integers(0, 3, (ROWS, 16, 16)).astype(np.int32)},
        ("one", "two"),
    ),
    "detection": (
        Maps(2, heads=True),
        CenterDetection(num_classes=2, image_size=(16, 16), max_objects=2, threshold=0.01),
        {"image": image(), **boxes()},
        ("<one>", "two"),
    ),
    "super-resolution": (
        Larger(),
        SuperResolution(2),
        {"image": SMALL, "target": target(SMALL)},
        (),
    ),
    "captioning": (
        Speaker(),
        Captioning(6),
        {"image": image(), "captions": captions()},
        (*SPECIAL_WORDS, "<a>", "b"),
    ),
    "painting": (
        Painter(),
        Painting(),
        {"z": RANDOM.normal(size=(ROWS, 4)).astype(np.float32), "image": image()},
        (),
    ),
    "regression": (
        Numbers(),
        Regression(1, inputs=("x",)),
        {"x": RANDOM.normal(size=(ROWS, 8)).astype(np.float32),
         "values": RANDOM.normal(size=(ROWS, 1)).astype(np.float32)},
        (),
    ),
}  # fmt: skip
# what is drawn of each example, and what has no part on the page
DRAWN = {"segmentation": 2, "detection": 2, "super-resolution": 3, "captioning": 1, "regression": 0}
DRAWN["painting"] = 1  # what it made, and nothing that it did not begin with
LEFT_OUT = {
    "captioning": ["Filters of the first layer", "Feature maps of one example"],
    "painting": ["Filters of the first layer", "Feature maps of one example"],
    "regression": ["Filters of the first layer", "Feature maps of one example"],
}


def write(name, folder):
    """Train one of the CASES for three steps, evaluate it once, write its page: (run, left out)."""
    model, task, rows, names = CASES[name]
    e = Experiment(
        model=model,
        task=task,
        data=Arrays(train=rows, eval=rows, label_names=names),
        optimizer=partial(optax.sgd, learning_rate=1e-3),
        batch_size=ROWS,
        steps=3,
        eval_every=100.0,
        log_every=1,
    )
    fit(e, folder)
    run = Run(folder, e)
    return run, write_report(run)


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("task") / request.param
    run, left_out = write(request.param, folder)
    return request.param, run, check((folder / "report.html").read_bytes()), left_out


def test_a_page_of_each_task(made):
    name, run, page, left_out = made
    assert [s.partition(":")[0] for s in left_out] == LEFT_OUT.get(name, [])
    pictures = [a for a in page.all("img") if a["alt"].startswith("example")]
    assert len(pictures) == ROWS * DRAWN[name]  # the worst are all five; they come once
    assert [" before" in a["alt"] for a in pictures].count(True) == ROWS * (DRAWN[name] == 3)
    assert f"{run.summary['eval']['loss']:.4g}" in page.prose


def test_of_one_value_there_is_no_curve(made):
    """The metric, which was evaluated once, is said in words."""
    _, run, page, _ = made
    curves = {svg["aria-label"] for svg in page.all("svg") if "data-series" in svg}
    assert {"loss", "learning rate", "norms"} <= curves
    if (metric := run.experiment.task.metric) != "loss":
        assert metric not in curves
        assert f"no curve: {metric} (validation {run.summary['eval'][metric]:.4g}" in page.prose


def test_losses_are_those_of_the_evaluation(made):
    _, run, page, _ = made
    seen = Viewer(run).see()
    assert np.mean(seen.loss) == pytest.approx(run.summary["eval"]["loss"], rel=1e-5)
    for loss in seen.loss:
        assert f"{loss:.4g}" in page.prose


def test_what_is_said_is_what_is_predicted(made):
    """And with it what is true: sentences stand beside one another."""
    name, run, page, _ = made
    rows = run.predict({n: run.experiment.data.eval[n] for n in run.predictor().names})
    for row in rows:
        assert say(row) in page.prose
    if name == "captioning":
        assert "true: <unknown> <a>" in page.prose
        assert "said: <a> b" in page.prose
    if name == "segmentation":
        assert "background" in page.prose
