"""Test-time augmentation: what the views show, how their outputs are joined, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.commands import _main
from jaxcnn.core import transforms, views
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Program
from jaxcnn.errors import ConfigError
from jaxcnn.runs.open import open as open_run
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.keypoints import Keypoints
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.tasks.super_resolution import SuperResolution
from jaxcnn.tasks.task import View
from tests.tiny import fit, tiny

IMAGE = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3)).astype(np.uint8)


def outputs_of(task, model, tta, image=IMAGE):
    """The joined outputs for a program whose model is a function of the image."""

    def output_step(_, batch):
        return model(views.unit_interval(batch)["image"]), batch

    e = Experiment.__new__(Experiment)
    object.__setattr__(e, "task", task)
    program = transforms.viewed(Program(output_step, output_step, output_step), e, tta)
    outputs, batch = program.output_step(None, {"image": image, "label": np.arange(2)})
    np.testing.assert_array_equal(batch["image"], image)  # what is scored is the picture itself
    return outputs


def test_flip_averages_the_two_probabilities():
    left = lambda image: image[:, :, :12].mean((1, 2)) * 5  # noqa: E731 (differs when mirrored)
    together = jax.nn.softmax(outputs_of(Classification(3), left, "flip"))
    halves = [IMAGE[:, :, :12] / 255, IMAGE[:, :, 12:] / 255]
    each = [jax.nn.softmax(jnp.asarray(half.mean((1, 2)) * 5)) for half in halves]
    np.testing.assert_allclose(together, sum(each) / 2, atol=1e-5)


def test_segmentation_is_mirrored_back():
    model = lambda image: image * 5  # noqa: E731 (pixel by pixel: the same for both views)
    together = outputs_of(Segmentation(3), model, "flip")
    np.testing.assert_allclose(
        jax.nn.softmax(together), jax.nn.softmax(jnp.asarray(IMAGE / 255 * 5)), atol=1e-5
    )
    ramp = jnp.linspace(0, 1, 24, dtype=jnp.float32)[None, None, :, None]
    model = lambda image: 0 * image + ramp  # noqa: E731 (a place, whatever the picture is)
    flat = outputs_of(SuperResolution(), model, "flip")
    np.testing.assert_allclose(flat, 0.5, atol=1e-6)


def test_crops_are_windows_of_the_picture():
    shown = []
    outputs_of(Classification(3), lambda x: shown.append(np.asarray(x)) or x.mean((1, 2)), "crops")
    assert len(shown) == 12
    assert {x.shape for x in shown} == {(2, 16, 24, 3)}
    np.testing.assert_allclose(shown[0], IMAGE / 255, atol=1e-6)
    for one, mirrored in zip(shown[::2], shown[1::2], strict=True):
        np.testing.assert_allclose(mirrored, one[:, :, ::-1], atol=1e-6)
    # 14 x 21 of 16 x 24; the corners of the magnified windows are the windows' own corners
    for window, (top, left) in zip(
        shown[2::2], [(0, 0), (0, 3), (2, 0), (2, 3), (1, 2)], strict=True
    ):
        np.testing.assert_allclose(window[:, 0, 0], IMAGE[:, top, left] / 255, atol=1e-6)
        np.testing.assert_allclose(
            window[:, -1, -1], IMAGE[:, top + 13, left + 20] / 255, atol=1e-6
        )


def test_a_picture_of_one_pixel_is_its_own_window():
    image = np.full((1, 1, 1, 3), 51, np.uint8)
    for view in views.VIEWS["crops"]:
        shown = views.show({"image": image}, view, ("image",))["image"]
        np.testing.assert_allclose(views.unit_interval({"image": shown})["image"], 0.2, atol=1e-6)


def test_of_the_inputs_pictures_alone_are_looked_at():
    """One picture among the inputs suffices; what else there is stays, pictures of targets too."""
    names = ("image", "table")
    assert views.views_of("flip", Classification(3, inputs=names)) == views.VIEWS["flip"]
    batch = {name: np.float32([[[[1], [2]]]]) for name in ("image", "table", "target")}
    shown = views.show(batch, View(mirrored=True), names)
    np.testing.assert_array_equal(np.ravel(shown["image"]), [2, 1])
    assert all(shown[name] is batch[name] for name in ("table", "target"))


def test_what_makes_no_sense_is_refused():
    mean = lambda image: image.mean((1, 2))  # noqa: E731
    with pytest.raises(ConfigError, match=r"tta='flop': must be one of flip, crops.*flip"):
        outputs_of(Classification(3), mean, "flop")
    with pytest.raises(ConfigError, match="this model takes text, no picture"):
        outputs_of(Classification(3, inputs=("text",)), mean, "flip")
    with pytest.raises(ConfigError, match="tta: Keypoints cannot carry its outputs over"):
        outputs_of(Keypoints(5), mean, "flip")
    with pytest.raises(ConfigError, match=r"Segmentation: the map of a window.*tta='flip'"):
        outputs_of(Segmentation(3), lambda image: image, "crops")
    with pytest.raises(ConfigError, match=r"there are other views of pictures \[B, H, W, C\]"):
        views.show({"image": np.zeros((1, 2, 2), np.float32)}, View(mirrored=True), ("image",))


def test_a_run_evaluates_and_predicts_with_views(tmp_path, capsys):
    fit(tiny(), tmp_path / "run")
    run = open_run(tmp_path / "run", tiny())
    held = tiny().data.open("eval").arrays or {}
    images, label = np.asarray(held["image"]), np.asarray(held["label"])

    def probabilities(rows):
        return np.array([[t["probability"] for t in sorted(r["top"], key=lambda t: t["label"])]
                         for r in rows])  # fmt: skip

    one, mirrored = (probabilities(run.predict(x)) for x in (images, images[:, :, ::-1]))
    both = probabilities(run.predict(images, tta="flip"))
    np.testing.assert_allclose(both, (one + mirrored) / 2, atol=1e-5)
    accuracy = (both.argmax(1) == label).mean()
    assert run.evaluate(tta="flip")["accuracy"] == pytest.approx(accuracy)
    assert run.evaluate(tta="crops")["count"] == len(images)
    for verb in ("evaluate", "predict"):
        with pytest.raises(SystemExit):
            _main.main([verb, "--help"])
        assert "--tta {flip,crops}" in capsys.readouterr().out
    assert json.dumps(run.summary)
