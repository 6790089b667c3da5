"""Networks for texts, signals and clips: counts of the papers, and the numbers of torchvision and
of plain PyTorch versions.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.models import signals, text, video
from jaxcnn.weights.load import load_weights
from jaxcnn.weights.rules import rules_for
from tests.torchvision_peer import import_torchvision

KEY = jax.random.key(0)
WORDS, SIGNAL, CLIP = (64,), (427, 1), (16, 112, 112, 3)

# model, input shape, parameters
PARAMETERS = [
    (
        text.TextCNN(vocabulary_size=18_765),
        WORDS,
        360_902 + 300 * 18_765,
    ),  # Kim 2014, table 1: MR has 18,765 words; conv 360,300, head 602
    (
        signals.FCN(6),
        SIGNAL,
        264_192 + 129 * 6,
    ),  # 8·128 + 5·128·256 + 3·256·128 weights, 2·512 of BatchNorm, linear
    (signals.FCN(6), (100, 3), 264_192 + 2 * 8 * 128 + 129 * 6),
    (
        video.C3D(),
        CLIP,
        78_409_573,
    ),  # Tran et al. 2015: "C3D", sums of the layers of figure 3 with 101 classes
    (video.r3d_18(), CLIP, 33_371_472),  # torchvision's documentation
    (video.r2plus1d_18(), CLIP, 31_505_325),  # torchvision's documentation
]
SMALL = [
    (text.TextCNN(50, embedding_size=8, maps=5), (12,)),
    (text.CharCNN(2, 30, width=8, hidden=16), (150,)),
    (signals.FCN(3, (4, 6, 4)), (20, 2)),
    (signals.ResNet1D(3, (4, 6, 6)), (20, 2)),
    (video.C3D(3, ((4,), (4,), (4, 4)), hidden=8), (8, 16, 16, 1)),
    pytest.param(
        video.VideoResNet(3, widths=(4, 8), blocks=1), (4, 12, 12, 1), marks=pytest.mark.slow
    ),
    (video.VideoResNet(3, True, widths=(4, 8), blocks=1), (4, 12, 12, 1)),
    (video.SmallVideoNet(3, (4, 4, 4)), (4, 16, 16, 1)),
]


def name_of(value) -> str:
    return (
        f"{type(value).__name__}"
        if hasattr(value, "apply")
        else "x".join(map(str, value))
        if isinstance(value, tuple)
        else str(value)
    )


def example(model, shape, batch: int = 2):
    """Token numbers for a text network, normal numbers for all others."""
    if isinstance(model, text.TextCNN | text.CharCNN):
        return np.random.default_rng(0).integers(1, 30, (batch, *shape), np.int32)
    return np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)


def init(model, inputs):
    return jax.jit(lambda inputs: model.init(KEY, inputs, train=False))(inputs)


def num_params(model, shape) -> int:
    variables = jax.eval_shape(lambda: model.init(KEY, example(model, shape, 1), train=False))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("model, shape, expected", PARAMETERS, ids=name_of)
def test_parameter_count(model, shape, expected):
    assert num_params(model, shape) == expected


def test_parameter_count_of_the_character_network():
    """Layer by layer, from the output lengths (l - 96) / 27 of section 2.3: 1,014 characters leave
    34.
    """
    layers = [
        (70 * 7, 256),
        (256 * 7, 256),
        *[(256 * 3, 256)] * 4,
        ((1014 - 96) // 27 * 256, 1024),
        (1024, 1024),
        (1024, 4),
    ]
    assert num_params(text.CharCNN(4), (1014,)) == sum(
        inputs * outputs + outputs for inputs, outputs in layers
    )


def test_parameter_count_of_the_signal_resnet():
    """Figure 1 c: three convolutions a block and BatchNorm after each; a 1x1 shortcut where the
    maps change, else BatchNorm alone.
    """
    expected, channels = 0, 1
    for width in (64, 128, 128):
        expected += (8 * channels + 5 * width + 3 * width) * width + 3 * 2 * width
        expected += 2 * width + (channels * width if channels != width else 0)
        channels = width
    assert num_params(signals.ResNet1D(6), SIGNAL) == expected + 128 * 6 + 6


@pytest.mark.parametrize("model, shape", SMALL, ids=name_of)
def test_shape_gradient_and_bfloat16(model, shape):
    """Flax's BatchNorm mixes its float32 statistics with bfloat16 maps on purpose, hence the
    standard promotion.
    """
    x = example(model, shape)
    variables = init(model, x)
    params, state = variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def loss(params):
        y, _ = model.apply(
            {"params": params, **state},
            jnp.asarray(x),
            train=True,
            rngs={"dropout": KEY},
            mutable=list(state),
        )
        return jnp.square(y).sum()

    gradient = jax.device_get(jax.jit(jax.grad(loss))(params))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(np.any(leaf != 0) for name, leaf in gradient["head"].items())
    half = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.bfloat16), params)
    inputs = x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard" if "batch_stats" in state else "strict"):
        out = jax.eval_shape(
            lambda p: model.apply({"params": p, **state}, inputs, train=False), half
        )
    assert out.shape == (2, model.num_classes)
    assert out.dtype == jnp.bfloat16


@pytest.mark.parametrize("model, shape", SMALL, ids=name_of)
def test_wrong_input_is_refused_by_name(model, shape):
    with pytest.raises(ConfigError, match=type(model).__name__):
        model.init(KEY, jnp.zeros((1, 8, 8, 1)), train=False)


# ---- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 2, 4, 9, 12])
def test_padding_changes_nothing(length):
    """However much padding follows a text, also one shorter than the windows, the logits are the
    same.
    """
    model = text.TextCNN(50, embedding_size=8, maps=5)
    words = jnp.where(jnp.arange(12)[None] < length, example(model, (12,)), 0)
    params = init(model, words)
    # biases that are not zero would show in an empty window
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    apply = jax.jit(lambda words: model.apply(params, words, train=False))
    expected = apply(words)
    for width in {max(length, 1), length + 1, length + 30}:
        other = jnp.pad(words, ((0, 0), (0, 40)))[:, :width]
        np.testing.assert_allclose(apply(other), expected, atol=1e-6)


def test_text_network_equals_a_torch_version():
    torch = pytest.importorskip("torch")
    model = text.TextCNN(50, num_classes=3, embedding_size=8, maps=5)
    words = np.random.default_rng(0).integers(1, 50, (4, 12))
    lengths = [12, 7, 5, 3]
    for row, length in zip(words, lengths, strict=True):
        row[length:] = 0
    params = init(model, jnp.asarray(words, jnp.int32))["params"]
    ours = model.apply({"params": params}, jnp.asarray(words, jnp.int32), train=False)
    p = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), params)
    expected = []
    for row, length in zip(
        words, lengths, strict=True
    ):  # one text at a time, cut to its own length
        x = p["embedding"]["embedding"][torch.from_numpy(row[: max(length, 5)])].T.clone()
        x[:, length:] = 0
        features = []
        for width in (3, 4, 5):
            conv = p[f"conv{width}"]
            y = torch.nn.functional.conv1d(
                x[:, : max(length, width)], conv["kernel"].permute(2, 1, 0), conv["bias"]
            )
            features.append(torch.relu(y).max(1).values)
        expected.append(torch.cat(features) @ p["head"]["kernel"] + p["head"]["bias"])
    np.testing.assert_allclose(ours, torch.stack(expected).numpy(), atol=1e-5)


def test_character_network_equals_a_torch_version():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    model = text.CharCNN(3, 30, width=6, hidden=10)
    letters = np.random.default_rng(0).integers(0, 32, (3, 150)).astype(np.int32)
    params = init(model, jnp.asarray(letters))["params"]
    p = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), params)
    # neither padding nor unknown
    x = functional.one_hot(torch.from_numpy(letters).long(), 32)[..., 2:].float().permute(0, 2, 1)
    for number in range(1, 7):
        x = torch.relu(
            functional.conv1d(
                x, p[f"conv{number}"]["kernel"].permute(2, 1, 0), p[f"conv{number}"]["bias"]
            )
        )
        x = functional.max_pool1d(x, 3) if number in (1, 2, 6) else x
    x = x.permute(0, 2, 1).flatten(1)
    for name in ("dense1", "dense2"):
        x = torch.relu(x @ p[name]["kernel"] + p[name]["bias"])
    x = x @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(
        model.apply({"params": params}, jnp.asarray(letters), train=False), x.numpy(), atol=1e-5
    )


def test_too_short_texts_name_the_field():
    with pytest.raises(ConfigError, match="`length`"):
        text.CharCNN(2, 30, width=8, hidden=16).init(KEY, jnp.ones((1, 40), jnp.int32), train=False)


def test_a_pooling_after_a_convolution_that_is_not_there_is_refused():
    """Three windows have no sixth convolution, after which the default pools."""
    model = text.CharCNN(2, 30, width=8, hidden=16, windows=(7, 7, 3))
    with pytest.raises(ConfigError, match=r"pooled=\(1, 2, 6\) names \[6\]"):
        num_params(model, (150,))
    assert num_params(model.clone(pooled=(1, 2, 3)), (150,)) > 0


# ---- signals -------------------------------------------------------------------------------------


def random_state(model, x):
    """Variables with random scales, biases and statistics of BatchNorm."""
    variables = init(model, x)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(KEY, len(leaves))
    drawn = [
        jax.random.uniform(k, v.shape, minval=0.5, maxval=1.5) if v.ndim == 1 else v
        for k, v in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, drawn)


@pytest.mark.parametrize(
    "model", [signals.FCN(3, (4, 6, 4)), signals.ResNet1D(3, (4, 6, 6))], ids=name_of
)
def test_signal_networks_equal_torch_versions(model):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    signal = jax.random.normal(KEY, (2, 21, 2))
    variables = random_state(model, signal)
    p, s = (
        jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), variables[name])
        for name in ("params", "batch_stats")
    )

    def norm(x, params, state):
        return functional.batch_norm(
            x, state["mean"], state["var"], params["scale"], params["bias"], eps=1e-5
        )

    def conv_norm(x, name):
        kernel = p[name]["conv"]["kernel"].permute(2, 1, 0)
        total = kernel.shape[-1] - 1
        # "same", as Keras pads
        x = functional.conv1d(functional.pad(x, (total // 2, total - total // 2)), kernel)
        return norm(x, p[name]["norm"], s[name]["norm"])

    x = torch.from_numpy(np.array(signal)).permute(0, 2, 1)
    if isinstance(model, signals.FCN):
        for number in (1, 2, 3):
            x = torch.relu(conv_norm(x, f"conv{number}"))
    else:
        for block in (1, 2, 3):
            y = torch.relu(
                conv_norm(torch.relu(conv_norm(x, f"block{block}_conv1")), f"block{block}_conv2")
            )
            name = f"block{block}_shortcut"
            shortcut = conv_norm(x, name) if "conv" in p[name] else norm(x, p[name], s[name])
            x = torch.relu(conv_norm(y, f"block{block}_conv3") + shortcut)
    expected = x.mean(2) @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(
        model.apply(variables, signal, train=False), expected.numpy(), atol=1e-4, rtol=1e-5
    )


# ---- clips ---------------------------------------------------------------------------------------


def test_a_stage_of_c3d_has_as_many_convolutions_as_widths():
    """However many: the parameters of nine are counted one by one."""
    widths = (4, 5, 6, 7, 8, 9, 8, 7, 6)
    params = init(video.C3D(3, (widths,), hidden=8), jnp.zeros((1, 2, 4, 4, 2)))["params"]
    found = sum(leaf.size for layer in params.values() for leaf in layer.values())
    convolutions = sum(27 * a * b + b for a, b in itertools.pairwise((2, *widths)))
    dense = [(2 * 2 * 2 * 6, 8), (8, 8), (8, 3)]
    assert found == convolutions + sum(a * b + b for a, b in dense)


def test_c3d_equals_a_torch_version():
    """With 12x12 frames the last pooling meets 3x3, which it rounds up to 2x2."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    model = video.C3D(3, ((4,), (6,), (6, 5)), hidden=8)
    clip = jax.random.normal(KEY, (2, 8, 12, 12, 2))
    params = init(model, clip)["params"]
    p = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), params)
    x = torch.from_numpy(np.array(clip)).permute(0, 4, 1, 2, 3)
    for names, window in ((("conv1a",), (1, 2, 2)), (("conv2a",), 2), (("conv3a", "conv3b"), 2)):
        for name in names:
            x = torch.relu(
                functional.conv3d(
                    x, p[name]["kernel"].permute(4, 3, 0, 1, 2), p[name]["bias"], padding=1
                )
            )
        x = functional.max_pool3d(x, window, ceil_mode=True)
    assert x.shape[2:] == (2, 2, 2)
    x = x.permute(0, 2, 3, 4, 1).flatten(1)
    for name in ("dense6", "dense7"):
        x = torch.relu(x @ p[name]["kernel"] + p[name]["bias"])
    x = x @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(
        model.apply({"params": params}, clip, train=False), x.numpy(), atol=1e-6
    )


@pytest.mark.parametrize(
    "name, model",
    [("r3d_18", video.r3d_18(num_classes=7)), ("r2plus1d_18", video.r2plus1d_18(num_classes=7))],
)
def test_parity_with_torchvision(name, model):
    """Random weights and BatchNorm statistics copied: the same logits, to 1e-4."""
    torch = pytest.importorskip("torch")
    peer = getattr(import_torchvision().models.video, name)(weights=None, num_classes=7)
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(2, 3, 5, 20, 20, generator=generator)
    with torch.no_grad():
        for parameter in peer.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
        for module in peer.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.momentum = 1.0  # the statistics become those of this batch
        peer.train()(clip)
        expected = peer.eval()(clip).numpy()
    x = jnp.asarray(clip.permute(0, 2, 3, 4, 1).numpy())
    shapes = jax.eval_shape(lambda: model.init(KEY, x, train=False))
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state = {key: value.numpy() for key, value in peer.state_dict().items()}
    params, model_state, report = load_weights(
        empty["params"], {"batch_stats": empty["batch_stats"]}, state, rules_for(model)
    )
    assert not report.unmatched
    assert not report.unused
    ours = jax.jit(lambda variables: model.apply(variables, x, train=False))(
        {"params": params, **model_state}
    )
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, atol=1e-4, rtol=0)


def test_parameter_count_of_the_small_video_net():
    pairs = itertools.pairwise((1, 16, 32, 48, 48))
    assert (
        num_params(video.SmallVideoNet(), (8, 32, 32, 1))
        == sum(27 * a * b + 2 * b for a, b in pairs) + 48 * 8 + 8
    )


def test_small_video_net_sees_the_order_of_frames():
    model = video.SmallVideoNet(3, (4, 4, 4))
    clip = jax.random.normal(KEY, (2, 4, 16, 16, 1))
    variables = init(model, clip)
    apply = jax.jit(lambda clip: model.apply(variables, clip, train=False))
    assert np.abs(apply(clip) - apply(clip[:, ::-1])).max() > 1e-3
