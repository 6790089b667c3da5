"""The peers of `bench`: the sameness of their networks, their environments, their variants."""

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxcnn import models
from jaxcnn.bench import definitions, measure, process, subjects, sweep
from jaxcnn.bench.networks import FAMILIES, layers_of
from jaxcnn.bench.process import Peer, optimizer_of, require
from jaxcnn.bench.torch_networks import defined
from jaxcnn.core import optimizers
from jaxcnn.errors import ConfigError, DependencyError
from jaxcnn.inspect.summary import summarize_layers, total_params
from jaxcnn.models.alexnet import AlexNet
from jaxcnn.models.convnext import ConvNeXt, convnext_tiny
from jaxcnn.models.densenet import DenseNet
from jaxcnn.models.fashion import FashionCNN
from jaxcnn.models.googlenet import GoogLeNet, googlenet, googlenet_bn
from jaxcnn.models.lenet import LeNet5, LeNet5Modern, RGBDigitNet
from jaxcnn.models.mlp import MLP
from jaxcnn.models.mobilenet import mobilenet_v2
from jaxcnn.models.resnet import (
    BasicBlock,
    Bottleneck,
    PreActBlock,
    PreActBottleneck,
    ResNet,
    resnet18,
    resnet50,
)
from jaxcnn.models.signals import FCN, ResNet1D
from jaxcnn.models.speed import SpeedNet
from jaxcnn.models.unet import UNet
from jaxcnn.models.vgg import VGG, vgg11
from jaxcnn.models.video import C3D, SmallVideoNet
from jaxcnn.runs import environment
from tests.tiny import tiny
from tests.torchvision_peer import import_torchvision

# name: (model, image size). Small where the family allows it; the whole networks are compared by
# their number of parameters.
NETWORKS = {
    "lenet": (LeNet5Modern(), (28, 28, 1)),
    "lenet_tanh_avg": (LeNet5Modern(activation="tanh", pooling="avg"), (28, 28, 1)),
    "rgb": (RGBDigitNet(), (32, 32, 3)),
    "fashion": (FashionCNN(), (28, 28, 1)),
    "resnet_basic_32": (ResNet((1, 2), BasicBlock, 10, (8, 16), "cifar", 8), (32, 32, 3)),
    "resnet_bottleneck": (ResNet((2, 1), Bottleneck, 7, (8, 16), "imagenet", 8), (33, 37, 3)),
    "resnext": (
        ResNet((1, 1), Bottleneck, 7, (64, 128), "cifar", 8, groups=4, base_width=4),
        (8, 8, 3),
    ),
    "vgg": (VGG((1, 2), 5, (8, 12), hidden=16, pool_size=(2, 2)), (12, 12, 3)),
    "vgg_bn": (VGG((1, 2), 5, (8, 12), hidden=16, batch_norm=True, pool_size=None), (12, 12, 3)),
    "googlenet": (GoogLeNet(6, auxiliary_heads=False), (40, 40, 3)),
    "googlenet_bn": (googlenet_bn(num_classes=6), (40, 40, 3)),
    "alexnet": (
        AlexNet(5, (8, 12, 12, 12, 8), hidden=16, dropout_first=True, pool_size=(2, 2)),
        (67, 67, 3),
    ),
    "pre_activation": (ResNet((1, 2), PreActBlock, 5, (8, 16), "cifar", 8), (8, 8, 3)),
    "pre_activation_bottleneck": (
        ResNet((2, 1), PreActBottleneck, 5, (8, 16), "imagenet", 8),
        (33, 33, 3),
    ),
    "densenet": (DenseNet((2, 1), 5, 4, 8), (32, 32, 3)),
    "densenet_cifar": (DenseNet((1, 2), 5, 4, 8, stem="cifar"), (8, 8, 3)),
    "mlp": (MLP((5, 4, 3)), (2,)),
    "unet": (UNet(3, (4, 6, 8)), (8, 12, 1)),
    "unet_bn": (UNet(3, (4, 6), batch_norm=True), (8, 8, 2)),
    "unet_3d": (UNet(3, (4, 6)), (4, 6, 8, 1)),
    "fcn": (FCN(3, (4, 6, 4)), (17, 2)),
    "resnet_1d": (ResNet1D(3, (4, 6, 6)), (17, 2)),
    "c3d": (C3D(3, ((4,), (6,), (8, 8)), hidden=8), (4, 20, 20, 1)),
    "small_video": (SmallVideoNet(3, (4, 6, 6, 4)), (3, 16, 16, 1)),
    "convnext": (ConvNeXt((1, 2), 5, (8, 16), drop_path=0.2), (32, 32, 3)),
}
WHOLE = {
    "resnet18": (resnet18(), (64, 64, 3)),
    "resnet50": (resnet50(), (64, 64, 3)),
    "vgg11": (vgg11(num_classes=10, hidden=256), (32, 32, 3)),
    "convnext_tiny": (convnext_tiny(), (32, 32, 3)),
}


def inputs(shape):
    return (jax.ShapeDtypeStruct((1, *shape), np.float32),)


# ---- the same network ----------------------------------------------------------------------------


def copy_weights(model, variables, shape, network):
    """Put our parameters into the PyTorch network, layer by layer in the order in which both are
    called.
    """
    torch = pytest.importorskip("torch")
    theirs = [m for m in network.modules() if list(m.parameters(recurse=False))]
    ours = [row for row in summarize_layers(model, inputs(shape)) if row.params]
    assert len(theirs) == len(ours)
    reshaped = None
    for row, module in zip(ours, theirs, strict=True):
        leaf, stats = variables["params"], variables.get("batch_stats", {})
        for part in row.name.split("/"):
            leaf, stats = leaf[part], stats.get(part, {})
        if "kernel" in leaf:
            kernel = np.asarray(leaf["kernel"])
            spatial = tuple(range(kernel.ndim - 2))
            if row.kind == "UpConv":  # transposed, and mirrored
                kernel = np.flip(kernel, spatial).transpose(-2, -1, *spatial)
            elif kernel.ndim > 2:
                kernel, channels = kernel.transpose(-1, -2, *spatial), kernel.shape[-1]
            else:
                if reshaped is None and ["flatten"] in layers_of(model) and len(shape) > 1:
                    # it reads a flattened map, whose axes PyTorch has in another order
                    reshaped = kernel.reshape(-1, channels, kernel.shape[-1]).transpose(1, 0, 2)
                    kernel = reshaped.reshape(kernel.shape)
                kernel = kernel.T
            module.weight.data = torch.tensor(kernel.copy())
        else:
            module.weight.data = torch.tensor(np.array(leaf.get("scale", leaf.get("layer_scale"))))
        if stats:
            module.running_mean.data = torch.tensor(np.array(stats["mean"]))
            module.running_var.data = torch.tensor(np.array(stats["var"]))
        if "bias" in leaf:
            module.bias.data = torch.tensor(np.array(leaf["bias"]))


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # pads a copy for even windows, as we do
@pytest.mark.parametrize("name", NETWORKS)
def test_the_torch_network_is_ours(name):
    torch = pytest.importorskip("torch")
    from jaxcnn.bench.torch_networks import torch_model

    model, shape = NETWORKS[name]
    random = np.random.default_rng(0)
    init = jax.eval_shape(
        lambda: model.init(jax.random.key(0), np.zeros((1, *shape), np.float32), train=False)
    )
    # Random in every leaf, also in those that start at 0 or 1; about unit variance from layer to
    # layer.
    scales = jax.tree.map(lambda leaf: max(1.0, float(np.prod(leaf.shape[:-1]))) ** -0.5, init)
    variables = jax.tree.map(
        lambda leaf, scale: (random.uniform(-2, 2, leaf.shape) * scale).astype(np.float32),
        init,
        scales,
    )
    for leaf in jax.tree.leaves(variables.get("batch_stats", {})):
        leaf[:] = np.abs(leaf) + 0.5
    network = torch_model({"layers": layers_of(model)}, shape, 0)
    copy_weights(model, variables, shape, network)
    assert sum(p.numel() for p in network.parameters()) == sum(
        x.size for x in jax.tree.leaves(variables["params"])
    )
    image = random.random((2, *shape), np.float32)
    with torch.inference_mode():
        theirs = network.eval()(torch.tensor(np.moveaxis(image, -1, 1).copy())).numpy()
    theirs = np.moveaxis(theirs, 1, -1)
    ours = np.asarray(jax.jit(partial(model.apply, train=False))(variables, image))
    assert ours.std() > 1e-3  # the comparison says something
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks_have_our_number_of_parameters(name):
    pytest.importorskip("torch")
    from jaxcnn.bench.torch_networks import torch_model

    model, shape = WHOLE[name]
    network = torch_model({"layers": layers_of(model)}, shape, 0)
    assert sum(p.numel() for p in network.parameters()) == total_params(
        summarize_layers(model, inputs(shape))
    )


@pytest.mark.parametrize(
    "model",
    [LeNet5(), googlenet(), resnet18(num_classes=0), SpeedNet(), mobilenet_v2(width=0.5)],
    ids=lambda m: type(m).__name__,
)
def test_networks_without_a_counterpart_are_refused_with_the_reason(model):
    for peer in ("torch", "keras"):
        with pytest.raises(ConfigError, match=f"--peer.*({REASONS[type(model).__name__]})"):
            definitions.network_of(model, peer)


REASONS = {
    "LeNet5": "radial outputs.*lenet5_modern",
    "GoogLeNet": "auxiliary_heads=False",
    "ResNet": "num_classes > 0",
    "SpeedNet": "whitening",
    "MobileNetV2": "other fields than mobilenet_v2",
}


def test_every_network_by_name_has_a_peer_or_a_reason():
    """One of torchvision or timm, a list of layers, or why there is neither."""
    for name in models.MODELS:
        defined, model = name in definitions.DEFINITIONS, models.build(name)[0]
        listed = isinstance(model, tuple(FAMILIES))
        assert defined or listed or name in definitions.WITHOUT, name
        if name in definitions.WITHOUT:
            continue
        definition = definitions.DEFINITIONS.get(name)
        model, _ = models.build(name, **(definition.fields if definition else {}))
        assert definitions.definition_of(model) == definition, name
        if not definition:
            assert definitions.network_of(model, "torch") == {"layers": layers_of(model)}


@pytest.mark.parametrize("name", definitions.DEFINITIONS)
def test_definitions_of_others_have_our_number_of_parameters(name):
    torch = pytest.importorskip("torch")
    definition = definitions.DEFINITIONS[name]
    pytest.importorskip(
        definition.package
    ) if definition.package == "timm" else import_torchvision()
    model, shape = models.build(name, num_classes=7, **definition.fields)
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        network = defined(num_classes=7, **definitions.network_of(model, "torch"))
    ours = jax.eval_shape(
        lambda: model.init(jax.random.key(0), np.zeros((1, *shape), np.float32), train=False)
    )["params"]
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(ours))
    assert sum(p.numel() for p in network.parameters()) == count


def test_a_definition_that_is_not_installed_gives_way_to_a_list_or_says_so(monkeypatch):
    monkeypatch.setattr(definitions.importlib.util, "find_spec", lambda name: None)
    assert "layers" in definitions.network_of(resnet18(), "torch")
    with pytest.raises(DependencyError, match="pip install --no-deps torchvision"):
        definitions.network_of(mobilenet_v2(), "torch")


@pytest.mark.parametrize(
    "name, network, dtype",
    [
        ("torch", "lenet", "float32"),
        ("torch", "resnet_basic_32", "bfloat16"),
        ("keras", "lenet", "float32"),
        *(
            pytest.param("keras", network, "float32", marks=pytest.mark.slow)
            for network in NETWORKS
            if network not in ("lenet", "googlenet")
        ),
        pytest.param("keras", "resnet_basic_32", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_peer_process_times_the_same_network(name, network, dtype):
    if importlib.util.find_spec(name) is None:  # importing Keras here would choose its backend
        pytest.skip(f"needs {name}")
    model, shape = NETWORKS[network]
    with Peer(name) as peer:
        peer.open(peer_experiment(model, dtype), {"layers": layers_of(model)}, shape)
        assert peer.params == total_params(summarize_layers(model, inputs(shape)))
        assert all(
            peer.time(kind, variant, 2) > 0
            for kind in measure.KINDS
            for variant in peer.variants[kind]
        )


def peer_experiment(model, dtype):
    return tiny(
        model=model,
        batch_size=2,
        compute_dtype=dtype,
        optimizer=partial(optimizers.sgd, learning_rate=0.01, momentum=0.9),
    )


@pytest.mark.parametrize(
    "optimizer, expected",
    [
        (
            partial(optax.sgd, 0.5),
            {"name": "sgd", "learning_rate": 0.5, "momentum": 0.0, "nesterov": False},
        ),
        (
            partial(
                optimizers.sgd, learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.01
            ),
            {
                "name": "sgd",
                "learning_rate": 0.1,
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 0.01,
            },
        ),
        (
            partial(optax.adam, 0.1, b2=0.99),
            {"name": "adam", "learning_rate": 0.1, "betas": (0.9, 0.99), "eps": 1e-8},
        ),
    ],
)
def test_optimizers_in_pytorchs_words(optimizer, expected):
    torch = pytest.importorskip("torch")
    from jaxcnn.bench.torch_peer import torch_optimizer

    numbers = optimizer_of(tiny(optimizer=optimizer))
    assert numbers == expected
    # one step of theirs is one step of ours
    start, grad = np.array([1.0, -2.0], np.float32), np.array([0.5, 0.25], np.float32)
    module = torch.nn.Module()
    module.p = torch.nn.Parameter(torch.tensor(start.copy()))
    module.p.grad = torch.tensor(grad.copy())
    torch_optimizer(module, **numbers).step()
    ours = optimizer()
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = ours.update(grad, ours.init(start), start)
    np.testing.assert_allclose(start + np.asarray(updates), module.p.detach().numpy(), rtol=1e-5)


def test_optimizers_without_a_counterpart_are_refused():
    with pytest.raises(ConfigError, match="lion"):
        optimizer_of(tiny(optimizer=partial(optax.lion, learning_rate=0.1)))


def test_a_decay_of_nothing_is_said_to_adamw_whose_own_is_something_else():
    numbers = optimizer_of(tiny(optimizer=partial(optax.adamw, 0.1, weight_decay=0.0)))
    assert numbers["weight_decay"] == 0.0


@pytest.mark.parametrize(
    "optimizer, message",
    [
        (partial(optax.adam, 0.1, nesterov=True), "adam with nesterov=True"),
        (partial(optax.adamw, 0.1, eps_root=0.5), "adamw with eps_root=0.5"),
        (partial(optax.adam, 0.1, mu_dtype="bfloat16"), "adam with mu_dtype=bfloat16"),
        (
            partial(optax.sgd, 0.1, 0.9, accumulator_dtype="bfloat16"),
            "sgd with accumulator_dtype=b.*",
        ),
        (partial(optimizers.sgd, 0.1, weight_decay=0.1, decoupled=True), "sgd with decoupled=True"),
        (partial(optax.sgd, optax.constant_schedule(0.1)), "a schedule as learning_rate"),
    ],
)
def test_an_optimizer_that_peers_have_under_other_options_alone_is_refused(optimizer, message):
    with pytest.raises(ConfigError, match=f"{message} has no counterpart"):
        optimizer_of(tiny(optimizer=optimizer))


@pytest.mark.parametrize(
    "name, field", [("fashion_mnist_sam", "program"), ("fashion_mnist_distilled", "objective")]
)
def test_a_step_of_ones_own_is_not_compared_with_a_plain_one(name, field):
    subject = subjects.choose(name, [], bare=True, synthetic=True)
    with pytest.raises(ConfigError, match=f"its own {field}"):
        sweep.counterpart(subject, "torch")


def test_keras_goes_without_what_is_no_classification():
    """A row of a suite is then measured beside the other peers, not lost."""
    subject = subjects.choose(
        "unet", ["model.widths=4,8", "data.shape=16,16,1"], bare=True, synthetic=True
    )
    assert sweep.counterpart(subject, "torch")["layers"]
    with pytest.raises(ConfigError, match="unet is no classification"):
        sweep.counterpart(subject, "keras")


def test_a_peers_failure_is_told_and_the_process_lives():
    pytest.importorskip("torch")
    model, shape = NETWORKS["lenet"]
    e, network = peer_experiment(model, "float32"), {"layers": layers_of(model)}
    with Peer("torch") as peer:
        with pytest.raises(Exception, match=r"--peer torch: .*(size|small)"):
            peer.open(e, network, (4, 4, 1))
        peer.open(e, network, shape)
        assert peer.params == 61_706


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_a_missing_peer_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match=f"pip install {name}"):
        require(name)


# ---- variants and tunings ------------------------------------------------------------------------

BASE = {
    "num_classes": 10,
    "batch_size": 2,
    "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9},
    "loss": "cross_entropy",
    "compile": False,
    "device": "cpu",
    "threads": 1,
}


def test_pytorch_is_tried_eager_channels_last_fused_folded_and_frozen():
    pytest.importorskip("torch")
    from jaxcnn.bench.torch_peer import open_network

    model, shape = NETWORKS["resnet_basic_32"]
    network = {"layers": layers_of(model)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and still among the fastest
        answer, timers = open_network(network=network, shape=shape, dtype="float32", **BASE)
    assert answer["variants"] == {
        "train": ["eager", "channels_last", "fused"],
        "inference": ["eager", "channels_last", "folded", "frozen"],
    }
    assert answer["left_out"] == {}
    assert all(timer(1) > 0 for of_kind in timers.values() for timer in of_kind.values())


def test_a_variant_that_pytorch_refuses_is_told(monkeypatch):
    pytest.importorskip("torch")
    from jaxcnn.bench import torch_peer

    def refuse(model):
        raise RuntimeError("no graph\nand more")

    monkeypatch.setattr(torch_peer, "folded", refuse)
    monkeypatch.setattr(torch_peer, "scripted", lambda model, x: model)
    model, shape = NETWORKS["lenet"]
    network = {"layers": layers_of(model)}
    answer, _ = torch_peer.open_network(network=network, shape=shape, dtype="bfloat16", **BASE)
    assert answer["left_out"] == {"inference folded": "RuntimeError: no graph"}
    assert "folded" not in answer["variants"]["inference"]


def test_folding_and_freezing_leave_the_outputs():
    torch = pytest.importorskip("torch")
    from jaxcnn.bench import torch_peer
    from jaxcnn.bench.torch_networks import torch_model

    model, shape = NETWORKS["resnet_basic_32"]
    network = torch_model({"layers": layers_of(model)}, shape, 10)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.uniform_(-1, 1)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = network.eval()(x)
        folded = torch_peer.folded(network)
        assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            torch_peer.scripted(network, x)(x), expected, rtol=1e-4, atol=1e-4
        )


def heap(environment, prepare=""):
    """What a fresh process keeps of 64 MB that it asked malloc for and gave back: (bytes in maps of
    their own while it had them, whether the heap kept them)."""
    code = f"""
import ctypes, json, os
{prepare}
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Info(ctypes.Structure): _fields_ = [(name, ctypes.c_size_t) for name in names]
c = ctypes.CDLL(None)
c.mallinfo2.restype, c.malloc.restype, c.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]
p = c.malloc(64 << 20)
mapped = c.mallinfo2().hblkhd
c.free(p)
print(json.dumps([mapped >= 64 << 20, c.mallinfo2().arena >= 64 << 20]))
"""
    command = [sys.executable, "-c", code]
    return json.loads(
        subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    )


@pytest.mark.skipif(not environment._keeps_memory(), reason="malloc is left alone here")
def test_a_tuned_peer_has_our_malloc_and_our_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_ours=1")
    outside = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    found = process.environments("both", outside)
    assert list(found) == list(process.TUNINGS)
    assert found["users"] == outside
    assert found["tuned"]["XLA_FLAGS"] == "--xla_of_ours=1"
    ours = "from jaxcnn.runs.environment import keep_memory; keep_memory()"
    assert heap(found["users"]) == [True, False]  # mapped, and given back
    assert heap(found["tuned"]) == heap(outside, ours) == [False, True]
    # the user's own settings are everybody's
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    assert process.environments("tuned", {"MALLOC_ARENA_MAX": "3"}) == {
        "tuned": {"MALLOC_ARENA_MAX": "3", "XLA_FLAGS": "--xla_of_ours=1"}
    }
