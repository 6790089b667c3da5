"""Networks that make pictures: pixel shuffle and style statistics against PyTorch, parameter counts
against the papers, frozen features.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.core.program import make_program
from jaxcnn.core.trees import flatten
from jaxcnn.errors import ConfigError
from jaxcnn.metrics.image_quality import luma, resize_bicubic
from jaxcnn.models import style_transfer
from jaxcnn.models.style_transfer import (
    AdaINStylizer,
    Decoder,
    FreePicture,
    JohnsonNet,
    ReflectConv,
    Stylizer,
    picture_logits,
    wanted_style,
)
from jaxcnn.models.super_resolution import EDSR, ESPCN, SRCNN, LumaResidual, edsr, edsr_baseline
from jaxcnn.models.vgg import VGG
from jaxcnn.ops.gram import adaptive_instance_norm, gram, moments, total_variation
from jaxcnn.ops.pixel_shuffle import pixel_shuffle, pixel_unshuffle
from jaxcnn.runs.check import pre_flight
from jaxcnn.runs.code import load
from tests.conftest import ROOT
from tests.trials import to_jax

SMALL_VGG = VGG((1, 1), 0, (4, 8))


def apply(model: Any, *arguments, **options) -> Any:
    return model.apply(*arguments, **options)  # Flax's annotation is of every possible result


def init(model: Any, *inputs) -> Any:
    return jax.jit(lambda *inputs: model.init(jax.random.key(0), *inputs, train=False))(*inputs)


def jit_apply(model: Any, variables, *inputs) -> Any:
    return jax.jit(lambda v, *inputs: model.apply(v, *inputs, train=False))(variables, *inputs)


def rng(seed=0):
    return np.random.default_rng(seed)


def picture(*shape, seed=0):
    return jnp.asarray(rng(seed).random(shape), jnp.float32)


def torch_of(array):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    return torch.from_numpy(np.moveaxis(np.asarray(array), -1, 1).copy())


def of_torch(tensor):
    return np.moveaxis(tensor.numpy(), 1, -1)


# ---- operations


@pytest.mark.parametrize("scale, channels", [(2, 1), (2, 3), (3, 2), (4, 1)])
def test_pixel_shuffle_equals_torch_and_has_an_inverse(scale, channels):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    x = picture(2, 3, 5, channels * scale**2)
    large = pixel_shuffle(x, scale)
    np.testing.assert_array_equal(large, of_torch(torch.pixel_shuffle(torch_of(x), scale)))
    np.testing.assert_array_equal(pixel_unshuffle(large, scale), x)
    np.testing.assert_array_equal(
        pixel_unshuffle(large, scale), of_torch(torch.pixel_unshuffle(torch_of(large), scale))
    )


def test_pixel_shuffle_refuses_what_does_not_divide():
    with pytest.raises(ConfigError, match="6 channels are no multiple of scale"):
        pixel_shuffle(picture(1, 2, 2, 6), 2)
    with pytest.raises(ConfigError, match="3 x 4 is no multiple of scale 2"):
        pixel_unshuffle(picture(1, 3, 4, 1), 2)


def test_gram_matrices_and_their_gradient_equal_torch():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    x, wanted = (
        rng().normal(size=(2, 6, 5, 7)).astype(np.float32),
        rng(1).normal(size=(2, 7, 7)).astype(np.float32),
    )
    theirs = torch_of(x).requires_grad_()
    flat = theirs.flatten(2)
    matrices = torch.bmm(flat, flat.transpose(1, 2)) / (6 * 5 * 7)
    torch.square(matrices - torch.from_numpy(wanted)).sum().backward()
    np.testing.assert_allclose(
        gram(jnp.asarray(x)), matrices.detach().numpy(), rtol=1e-5, atol=1e-6
    )
    gradient = jax.grad(lambda x: jnp.sum(jnp.square(gram(x) - wanted)))(jnp.asarray(x))
    assert theirs.grad is not None
    np.testing.assert_allclose(gradient, of_torch(theirs.grad), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("statistics", [gram, moments])
def test_style_forgets_places(statistics):
    x = picture(1, 6, 6, 5)
    shuffled = rng(1).permutation(np.asarray(x).reshape(36, 5)).reshape(1, 6, 6, 5)
    np.testing.assert_allclose(statistics(jnp.asarray(shuffled)), statistics(x), rtol=1e-5)
    np.testing.assert_allclose(statistics(jnp.tile(x, (1, 2, 3, 1))), statistics(x), rtol=1e-5)


def test_adaptive_instance_norm_has_the_moments_of_the_style():
    content, style = picture(2, 6, 5, 4), 3 * picture(2, 4, 8, 4, seed=1) + 1
    result = adaptive_instance_norm(content, style)
    assert result.shape == content.shape
    np.testing.assert_allclose(moments(result), moments(style), rtol=1e-3)
    np.testing.assert_allclose(adaptive_instance_norm(content, content), content, atol=1e-5)
    correlation = np.corrcoef(
        np.asarray(result)[0, ..., 2].ravel(), np.asarray(content)[0, ..., 2].ravel()
    )
    assert correlation[0, 1] == pytest.approx(1, abs=1e-5), "only scaled and moved"


def test_total_variation_of_a_checkerboard_and_of_a_flat_picture():
    board = jnp.asarray(np.indices((4, 6)).sum(0) % 2, jnp.float32)[None, ..., None]
    np.testing.assert_allclose(
        total_variation(jnp.concatenate([board, jnp.ones_like(board)])), [2.0, 0.0]
    )


# ---- super-resolution


def shapes_of(model, *inputs):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))["params"]


def count(tree, *, kernels=False):
    return sum(
        int(np.prod(leaf.shape))
        for name, leaf in flatten(tree).items()
        if not kernels or name.endswith("kernel")
    )


GREY, RGB = jnp.zeros((1, 16, 16, 1)), jnp.zeros((1, 16, 16, 3))


@pytest.mark.parametrize(
    "model, image, kernels, expected",
    [
        pytest.param(
            SRCNN(), GREY, True, 8_032, id="SRCNN 9-1-5"
        ),  # Dong et al., 2015, section 4.3.2
        pytest.param(SRCNN(windows=(9, 3, 5)), GREY, True, 24_416, id="SRCNN 9-3-5"),
        pytest.param(SRCNN(windows=(9, 5, 5)), GREY, True, 57_184, id="SRCNN 9-5-5"),
        pytest.param(ESPCN(3), GREY, True, 25 * 64 + 9 * 64 * 32 + 9 * 32 * 9, id="ESPCN"),
        pytest.param(edsr_baseline(), RGB, False, 1_369_859, id="EDSR-baseline x2"),
        pytest.param(
            edsr_baseline(scale=4), RGB, False, 1_517_571, id="EDSR-baseline x4"
        ),  # 1.5 M in table 1
        pytest.param(edsr(), RGB, False, 40_729_603, id="EDSR x2"),
        pytest.param(edsr(scale=4), RGB, False, 43_089_923, id="EDSR x4"),  # 43 M in table 1
        pytest.param(
            JohnsonNet(conv_bias=True), RGB, False, 1_679_235, id="Johnson"
        ),  # PyTorch's example fast_neural_style
        pytest.param(JohnsonNet(), RGB, False, 1_677_635, id="Johnson without redundant biases"),
    ],
)
def test_parameter_counts(model, image, kernels, expected):
    assert count(shapes_of(model, image), kernels=kernels) == expected


def test_the_decoder_of_adain_has_the_published_parameters():
    shapes = jax.eval_shape(lambda: Decoder().init(jax.random.key(0), jnp.zeros((1, 4, 4, 512))))[
        "params"
    ]
    assert count(shapes) == 3_505_219


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    "model, channels",
    [
        (lambda scale: SRCNN(scale, widths=(4, 3)), 1),
        (lambda scale: ESPCN(scale, widths=(4, 3)), 1),
        (lambda scale: EDSR(scale, width=4, num_blocks=1), 3),
        (lambda scale: LumaResidual(ESPCN(scale, widths=(4, 3))), 3),
    ],
    ids=["SRCNN", "ESPCN", "EDSR", "LumaResidual"],
)
def test_pictures_of_any_size_become_scale_times_larger(model, channels, scale):
    model = model(scale)
    variables = init(model, picture(1, 8, 8, channels))
    large = jit_apply(model, variables, picture(2, 7, 10, channels))
    assert large.shape == (2, 7 * scale, 10 * scale, channels)
    assert np.all(np.isfinite(large))


def test_edsr_equals_torch():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    functional = torch.nn.functional
    model, image = EDSR(4, width=6, num_blocks=2, residual_scale=0.1), picture(2, 7, 6, 3)
    params = model.init(jax.random.key(1), image, train=False)["params"]

    def conv(x, name):
        kernel = torch.from_numpy(np.array(params[name]["kernel"]).transpose(3, 2, 0, 1).copy())
        return functional.conv2d(
            x, kernel, torch.from_numpy(np.array(params[name]["bias"])), padding=1
        )

    mean = torch.tensor((0.4488, 0.4371, 0.4040)).reshape(1, 3, 1, 1)
    head = x = conv(torch_of(image) - mean, "head")
    for block in range(2):
        x = x + 0.1 * conv(functional.relu(conv(x, f"block{block}_conv1")), f"block{block}_conv2")
    x = head + conv(x, "body")
    for up in range(2):
        x = torch.pixel_shuffle(conv(x, f"up{up}"), 2)
    theirs = of_torch(conv(x, "tail") + mean)
    np.testing.assert_allclose(
        apply(model, {"params": params}, image, train=False), theirs, atol=1e-5
    )


def test_luma_residual_starts_from_bicubic_and_moves_luma_alone():
    model, image = LumaResidual(ESPCN(2, widths=(4, 3))), picture(1, 8, 9, 3)
    variables = model.init(jax.random.key(0), image, train=False)
    bicubic = resize_bicubic(image, (16, 18))
    np.testing.assert_allclose(apply(model, variables, image, train=False), bicubic, atol=0.01)
    variables = jax.tree.map(lambda w: w + 0.1, variables)
    moved = apply(model, variables, image, train=False) - bicubic
    lacking = apply(
        ESPCN(2, widths=(4, 3)),
        {"params": variables["params"]["network"]},
        luma(image),
        train=False,
    )
    assert float(jnp.abs(lacking).mean()) > 0.1
    np.testing.assert_allclose(luma(moved) - 16 / 255, lacking, rtol=1e-4, atol=1e-5)
    # the same in R, G and B: neither hue difference moves
    np.testing.assert_allclose(moved[..., 0], moved[..., 2], atol=1e-5)


@pytest.mark.parametrize(
    "model, image, says",
    [
        (EDSR(5), RGB, "scale is 5; it must be one of"),
        (EDSR(mean=(0.5, 0.5)), RGB, "mean has 2 values for 3 channels"),
        (SRCNN(), RGB, "C = 1"),
        (LumaResidual(ESPCN()), jnp.zeros((1, 8, 8, 2)), "grey or RGB"),
        (ReflectConv(3, 9), jnp.zeros((1, 4, 9, 3)), "cannot be reflected by 4"),
    ],
)
def test_bad_inputs_are_refused(model, image, says):
    options: Any = {} if isinstance(model, ReflectConv) else {"train": False}
    with pytest.raises(ConfigError, match=says):
        model.init(jax.random.key(0), image, **options)


# ---- style


def test_reflected_convolution_with_instance_norm_equals_torch():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    functional = torch.nn.functional
    layer, x = ReflectConv(6, 5, stride=2, bias=False, norm=True), picture(2, 9, 8, 3)
    params = layer.init(jax.random.key(0), x)["params"]
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng(leaf.size).normal(size=leaf.shape), jnp.float32), params
    )
    kernel = torch.from_numpy(np.array(params["conv"]["kernel"]).transpose(3, 2, 0, 1).copy())
    theirs = functional.conv2d(
        functional.pad(torch_of(x), (2, 2, 2, 2), mode="reflect"), kernel, stride=2
    )
    scale, bias = (torch.from_numpy(np.array(params["norm"][name])) for name in ("scale", "bias"))
    theirs = functional.instance_norm(theirs, weight=scale, bias=bias, eps=1e-5)
    np.testing.assert_allclose(apply(layer, {"params": params}, x), of_torch(theirs), atol=1e-4)


@pytest.mark.parametrize("height, width", [(16, 16), (17, 22)])
def test_johnson_net_keeps_the_size(height, width):
    model, image = JohnsonNet(widths=(4, 5, 6), num_blocks=1), picture(2, height, width, 3)
    out = jit_apply(model, init(model, image), image)
    assert out.shape == image.shape
    assert 0 <= float(out.min()) < float(out.max()) <= 1


def stylizer(network=None):
    return Stylizer(
        network or FreePicture((16, 16)), SMALL_VGG, ("relu2_1",), ("relu1_1", "relu2_1")
    )


def test_the_loss_network_is_frozen_and_no_parameter():
    model, image = stylizer(), picture(1, 16, 16, 3)
    variables = init(model, image)
    assert set(flatten(variables["params"])) == {"network/logits"}
    assert set(variables) == {"params", "loss_network", "style"}

    def loss(variables):
        out = apply(model, variables, image, train=True)
        return sum(jnp.sum(s) for s in out.style) + sum(jnp.sum(c) for c in out.content)

    gradient = jax.jit(jax.grad(loss))(variables)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient["loss_network"]))
    assert np.all(
        np.any(np.asarray(gradient["params"]["network"]["logits"]), axis=(0, 3)).mean() > 0.9
    )


def test_the_loss_network_sees_what_vgg_sees():
    model, image = stylizer(), picture(2, 16, 18, 3)
    variables = init(model, picture(1, 16, 16, 3))
    out = jit_apply(model, variables, image)
    mean = np.array([123.68, 116.779, 103.939], np.float32)  # of R, G and B
    bgr = (255 * np.asarray(image) - mean)[..., ::-1]
    _, sown = apply(
        SMALL_VGG,
        {"params": variables["loss_network"]["params"]},
        jnp.asarray(bgr),
        train=False,
        mutable=["intermediates"],
    )
    maps = {name: value[0] for name, value in sown["intermediates"].items()}
    np.testing.assert_allclose(out.wanted_content[0], maps["relu2_1"], rtol=1e-4, atol=1e-2)
    for seen, name in zip(out.start_style, ("relu1_1", "relu2_1"), strict=True):
        np.testing.assert_allclose(seen, gram(maps[name]), rtol=1e-4, atol=1e-2)


def test_a_picture_in_its_own_style_is_where_it_shall_be():
    # black and white have no logits
    image, style = (
        0.1 + 0.8 * picture(1, 16, 16, 3),
        picture(1, 20, 24, 3, seed=1),
    )
    model = stylizer()
    variables = dict(model.init(jax.random.key(0), image, train=False))
    own = apply(
        model, {**variables, "style": wanted_style(model, variables, image)}, image, train=False
    )
    for start, wanted in zip(own.start_style, own.wanted_style, strict=True):
        np.testing.assert_array_equal(start, wanted)
    variables["params"] = {"network": {"logits": picture_logits(image)}}
    variables["style"] = wanted_style(model, variables, style)
    same = apply(model, variables, image, train=False)
    np.testing.assert_allclose(
        same.content[0], same.wanted_content[0], rtol=0, atol=1e-5 * float(same.content[0].max())
    )
    assert all(
        np.any(wanted != start)
        for wanted, start in zip(same.wanted_style, same.start_style, strict=True)
    )


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_adain_asks_its_decoder_for_the_content_in_the_styles_moments(strength):
    model, image, style = (
        AdaINStylizer(strength=strength),
        picture(1, 33, 32, 3),
        picture(1, 32, 40, 3, seed=1),
    )
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, style, train=False))
    assert count(shapes["params"]) == 3_505_219
    variables = jax.tree.map(
        lambda s: jnp.asarray(rng(s.shape[-1]).normal(0, 0.05, s.shape), jnp.float32), shapes
    )
    out = jax.jit(lambda v: apply(model, v, image, style, train=False))(variables)
    assert out.picture.shape == image.shape
    (target,) = out.wanted_content
    vgg = style_transfer.LOSS_NETWORK
    weights = {"params": variables["loss_network"]["params"]}

    @jax.jit
    def encode(p):
        p = style_transfer.caffe_input(p)
        _, sown = apply(vgg, weights, p, train=False, mutable=["intermediates"])
        return sown["intermediates"]["relu4_1"][0]

    padded = np.pad(image, ((0, 0), (0, 7), (0, 0), (0, 0)), mode="edge")
    encoded, styled = encode(padded), encode(style)
    expected = strength * adaptive_instance_norm(encoded, styled) + (1 - strength) * encoded
    np.testing.assert_allclose(
        target, expected, rtol=1e-3, atol=1e-3 * float(jnp.abs(encoded).max())
    )


@pytest.mark.parametrize(
    "model, says",
    [
        # which its decoder would enlarge to four pictures, and cut off all but the first
        (AdaINStylizer(style_layers=("relu1_1", "relu3_1")), "end in 'relu3_1'.*stride 8"),
        (AdaINStylizer(style_layers=("relu4_1", "relu1_1")), "end in 'relu1_1'.*stride 8"),
        (AdaINStylizer(style_layers=("relu5_1",)), "name relu5_1, which the loss network lacks"),
        (style_transfer.Stylizer(JohnsonNet(), content_layers=("relu4_9",)), "name relu4_9"),
    ],
)
def test_layers_that_a_stylizer_cannot_take_are_refused(model, says):
    pictures = [picture(1, 32, 32, 3)] * (2 if isinstance(model, AdaINStylizer) else 1)
    with pytest.raises(ConfigError, match=says):
        jax.eval_shape(lambda: model.init(jax.random.key(0), *pictures, train=False))


# ---- experiments for accelerators: their data are not here, their step is


@pytest.mark.parametrize(
    "name, size",
    [("div2k_edsr", (32, 32)), pytest.param("style_johnson", (32, 32), marks=pytest.mark.slow)],
)
def test_the_pre_flight_passes_without_data_and_the_step_runs_on_random_pictures(name, size):
    e = load(ROOT / "experiments" / f"{name}.py", overrides=[])
    assert pre_flight(e)["params"] == {"div2k_edsr": 1_369_859, "style_johnson": 1_677_635}[name]
    e = dataclasses.replace(
        e, batch_size=1, steps=1, data=dataclasses.replace(e.data, image_size=size)
    )
    program, generator = make_program(e, steps=1), rng()
    state = program.init(jax.random.key(0))
    batch = {
        entry: generator.integers(0, 256, (1, *s.shape), np.uint8)
        if s.dtype == np.uint8
        else generator.random((1, *s.shape), np.float32)
        for entry, s in e.data.spec().items()
    }
    after, metrics = jax.jit(program.train_step)(state, to_jax(batch))
    assert after.live
    assert metrics["grad_norm"] > 0
    assert any(
        np.any(a != b)
        for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True)
    )
