"""`bench`: the arithmetic of its numbers, the sameness of its peers' networks, the command as a
user meets it. No speed is asserted.
"""

import argparse
import csv
import gzip
import importlib.util
import io
import json
import os
import re
import statistics
import sys
from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxcnn.bench import augmentation, measure, roofline, subjects, suites
from jaxcnn.bench.networks import layers_of
from jaxcnn.bench.process import Peer, optimizer_of, require
from jaxcnn.commands import _main
from jaxcnn.commands import bench as command
from jaxcnn.core import optimizers
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.errors import ConfigError, DependencyError, ResourceError
from jaxcnn.inspect.summary import summarize_layers, total_params
from jaxcnn.models.convnext import ConvNeXt, convnext_tiny
from jaxcnn.models.fashion import FashionCNN
from jaxcnn.models.googlenet import GoogLeNet, googlenet, googlenet_bn
from jaxcnn.models.lenet import LeNet5, LeNet5Modern, RGBDigitNet
from jaxcnn.models.resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet50, seresnet50
from jaxcnn.models.vgg import VGG, vgg11
from jaxcnn.runs.cost import compiled_bytes
from tests.tiny import tiny

PEAK = {"flops_per_second": 1e12, "bytes_per_second": 1e11}

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
    for row, module in zip(ours, theirs, strict=True):
        leaf, stats = variables["params"], variables.get("batch_stats", {})
        for part in row.name.split("/"):
            leaf, stats = leaf[part], stats.get(part, {})
        if "kernel" in leaf:
            kernel = np.asarray(leaf["kernel"])
            if kernel.ndim == 4:
                kernel, channels = kernel.transpose(3, 2, 0, 1), kernel.shape[-1]
            else:
                if row is first_dense(ours) and ["flatten"] in layers_of(
                    model
                ):  # it reads a flattened map, whose axes PyTorch has in another order
                    side = int((len(kernel) // channels) ** 0.5)
                    kernel = (
                        kernel.reshape(side, side, channels, -1)
                        .transpose(2, 0, 1, 3)
                        .reshape(len(kernel), -1)
                    )
                kernel = kernel.T
            module.weight.data = torch.tensor(kernel.copy())
        else:
            module.weight.data = torch.tensor(np.array(leaf.get("scale", leaf.get("layer_scale"))))
        if stats:
            module.running_mean.data = torch.tensor(np.array(stats["mean"]))
            module.running_var.data = torch.tensor(np.array(stats["var"]))
        if "bias" in leaf:
            module.bias.data = torch.tensor(np.array(leaf["bias"]))


def first_dense(rows):
    return next(row for row in rows if row.kind == "Dense")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_torch_network_is_ours(name):
    torch = pytest.importorskip("torch")
    from jaxcnn.bench.torch_peer import torch_model

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
    network = torch_model(layers_of(model), shape)
    copy_weights(model, variables, shape, network)
    assert sum(p.numel() for p in network.parameters()) == sum(
        x.size for x in jax.tree.leaves(variables["params"])
    )
    image = random.random((2, *shape), np.float32)
    with torch.inference_mode():
        theirs = network.eval()(torch.tensor(image.transpose(0, 3, 1, 2).copy())).numpy()
    ours = np.asarray(jax.jit(partial(model.apply, train=False))(variables, image))
    assert ours.std() > 1e-3  # the comparison says something
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks_have_our_number_of_parameters(name):
    pytest.importorskip("torch")
    from jaxcnn.bench.torch_peer import torch_model

    model, shape = WHOLE[name]
    network = torch_model(layers_of(model), shape)
    assert sum(p.numel() for p in network.parameters()) == total_params(
        summarize_layers(model, inputs(shape))
    )


@pytest.mark.parametrize(
    "model",
    [LeNet5(), googlenet(), seresnet50(), resnet18(num_classes=0)],
    ids=lambda m: type(m).__name__,
)
def test_networks_without_a_counterpart_are_refused(model):
    with pytest.raises(ConfigError, match="--peer"):
        layers_of(model)


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
        peer.open(peer_experiment(model, dtype), layers_of(model), shape)
        assert peer.params == total_params(summarize_layers(model, inputs(shape)))
        assert all(
            peer.time(kind, variant, 2) > 0 for kind in measure.KINDS for variant in peer.variants
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


def test_a_peers_failure_is_told_and_the_process_lives():
    pytest.importorskip("torch")
    model, shape = NETWORKS["lenet"]
    with Peer("torch") as peer:
        with pytest.raises(Exception, match=r"--peer torch: .*(size|small)"):
            peer.open(peer_experiment(model, "float32"), layers_of(model), (4, 4, 1))
        peer.open(peer_experiment(model, "float32"), layers_of(model), shape)
        assert peer.params == 61_706


@pytest.mark.parametrize("name", ["torch", "keras"])
def test_a_missing_peer_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match=f"pip install {name}"):
        require(name)


# ---- arithmetic ----------------------------------------------------------------------------------


def test_blocks_alternate_and_the_order_turns_round():
    asked = []
    timers = {name: lambda steps, name=name: asked.append((name, steps)) or 6.0 for name in "abc"}
    seconds = measure.alternate(timers, steps=3, rounds=3)
    assert "".join(name for name, _ in asked) == "abccbaabc"
    assert seconds == dict.fromkeys("abc", [2.0] * 3)


def test_throughput_times_time_is_the_batch():
    seconds = [0.25, 0.125, 0.5, 0.3]
    t = measure.timing(seconds, batch_size=12)
    assert t["images_per_second"] * t["ms_per_step"] / 1e3 == pytest.approx(12)
    assert t["ms_per_step"] == pytest.approx(1e3 * statistics.median(seconds))
    low, high = t["ms_quartiles"]
    assert low <= t["ms_per_step"] <= high


def test_the_ratio_is_ours_over_the_best_of_theirs():
    result = measure.compare(
        6.0, {"eager": {"ms_per_step": 4.0}, "channels_last": {"ms_per_step": 3.0}}
    )
    assert (result["variant"], result["ratio"], result["ms_per_step"]) == (
        "channels_last",
        2.0,
        3.0,
    )


@pytest.mark.parametrize("seconds_a_step, steps", [(0.5, 1), (0.01, 50), (1e-9, 1000)])
def test_a_block_lasts_about_as_long_as_wanted(seconds_a_step, steps):
    assert measure.fitting_steps(lambda n: n * seconds_a_step, block_seconds=0.5) == steps


def test_roofline():
    # 100 FLOP/byte lie right of the ridge at 10, 1 FLOP/byte left of it
    right = roofline.position(10**9, 0.002, 1e7, PEAK)
    assert (right["bound"], right["arithmetic_intensity"]) == ("compute", 100)
    assert right["share_of_roof"] == right["share_of_peak"] == pytest.approx(0.5)
    left = roofline.position(10**9, 0.02, 1e9, PEAK)
    assert left["bound"] == "memory"
    assert left["share_of_roof"] == pytest.approx(0.5)  # 1e9 bytes take 0.01 s at least
    assert left["share_of_peak"] == pytest.approx(0.05)


def test_roofline_without_the_compilers_estimate():
    class Silent:
        def cost_analysis(self):
            return None

        memory_analysis = cost_analysis

    assert roofline.bytes_accessed(Silent()) is None
    assert compiled_bytes(Silent()) is None
    place = roofline.position(10**9, 0.002, None, PEAK)
    assert place["share_of_peak"] == pytest.approx(0.5)
    assert place["bound"] is None


def test_peaks_are_positive_numbers():
    peak = roofline.measure_peak("bfloat16", size=64, copy_bytes=1 << 16, repeats=1)
    assert all(0 < value < float("inf") for value in peak.values())


# ---- an experiment, measured ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_measured_experiment(dtype):
    e = tiny(batch_size=5, compute_dtype=dtype)
    source = measure.Noise(e, 7)
    batch = source.take(np.arange(7))
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == {
        name: (s.shape, s.dtype) for name, s in e.data.spec().items()
    }
    assert 0 <= batch["label"].min() <= batch["label"].max() < 3
    with jax.numpy_dtype_promotion(
        "strict" if dtype == "float32" else "standard"
    ):  # Flax's BatchNorm promotes bfloat16
        result = measure.measure(e, source=source, peak=PEAK, steps=2, rounds=3)
    for kind, passes in (("train", 3), ("inference", 1)):
        t = result[kind]
        # TinyNet: 8 x 8 positions of 3 x 3 x 1 x 4, and 4 x 4 x 4 inputs of 3 outputs
        assert t["flops"] == passes * 2 * (64 * 9 * 4 + 64 * 3) * 5
        assert t["images_per_second"] * t["ms_per_step"] == pytest.approx(5e3)
        assert (t["rounds"], t["steps"]) == (3, 2)
        assert result["memory"]["compiled_bytes"][kind] > result["params"] * 4
    assert result["compile_seconds"] == pytest.approx(
        sum(result["compile"]["train"][part] for part in ("trace", "lower", "compile"))
    )
    assert 0 <= result["data_stall_share"] <= 1
    assert result["peers"] == {}
    assert not result["diverged"]


def test_a_batch_that_memory_cannot_hold_is_refused_before_it_runs(monkeypatch):
    monkeypatch.setattr(roofline, "available_bytes", lambda: 1000)
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED") as caught:
        measure.measure(tiny(), source=measure.Noise(tiny(), 8), peak=PEAK, steps=1, rounds=1)
    assert roofline.out_of_memory(caught.value)
    assert not roofline.out_of_memory(RuntimeError("something else"))


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, monkeypatch):
    """`bench` with arguments in this process -> what it prints; small peaks, and the environment as
    it was.
    """
    before = dict(os.environ)
    monkeypatch.setattr(roofline, "measure_peak", lambda dtype: PEAK)

    def call(*arguments):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        assert command.main(parser.parse_args([*arguments, "--steps=1", "--rounds=2"])) == 0
        return capsys.readouterr().out

    yield call
    os.environ.clear()
    os.environ.update(before)


def test_json(run):
    pytest.importorskip("torch")
    result = json.loads(run("lenet5_modern", "batch_size=3", "--peer=torch", "--json"))
    assert {
        "images_per_second",
        "ms_per_step",
        "ms_quartiles",
        "flops_per_second",
        "share_of_peak",
    } <= set(result["train"])
    assert set(result["inference"]) == set(result["train"])
    assert {
        "compile_seconds",
        "compile",
        "memory",
        "data_stall_share",
        "environment",
        "peak",
    } <= set(result)
    # MACs: 117,600 + 240,000 + 48,000 + 10,080 + 840
    assert result["train"]["flops"] == 3 * 2 * 416_520 * 3
    torch = result["peers"]["torch"]
    best = min(variant["ms_per_step"] for variant in torch["variants"].values())
    assert torch["ms_per_step"] == best
    assert torch["ratio"] == pytest.approx(result["train"]["ms_per_step"] / best)
    assert torch["params"] == result["params"] == 61_706
    assert set(torch["variants"]) == {"eager", "channels_last"}


def test_several_results_as_csv_and_one_as_text(run):
    rows = list(csv.DictReader(io.StringIO(run("sigmoid_mlp", "--batch-size=4,2", "--csv"))))
    assert [(row["dtype"], row["batch_size"]) for row in rows] == [
        ("float32", "2"),
        ("float32", "4"),
    ]
    assert all(float(row["train.images_per_second"]) > 0 for row in rows)
    assert "bfloat16, 2 images a step" in run("sigmoid_mlp", "batch_size=2", "--dtype=bfloat16")


def test_a_sweep_ends_with_memory(run, monkeypatch):
    (row,) = csv.DictReader(io.StringIO(run("sigmoid_mlp", "--batch-size=16", "--csv")))
    room = int(row["memory.compiled_bytes.train"]) / 0.9 + 1
    monkeypatch.setattr(roofline, "available_bytes", lambda: room)
    table = [
        line.split("|")
        for line in run("sigmoid_mlp", "--batch-size=auto", "--markdown").splitlines()
    ]
    assert len({len(line) for line in table}) == 1
    assert [line[3].strip() for line in table[2:]] == ["8", "16", "32"]
    assert [" out of memory " in line for line in table[2:]] == [False, False, True]


def test_memory_that_suffices_for_nothing_is_an_error(run, monkeypatch):
    monkeypatch.setattr(roofline, "available_bytes", lambda: 1)
    with pytest.raises(ResourceError, match="batch"):
        run("sigmoid_mlp")


def test_an_experiment_is_compared_without_what_peers_lack(run):
    overrides = ["clip_norm=1.0", "ema=0.9", "model.num_classes=7"]
    subject = subjects.choose("fashion_cnn", overrides, bare=True, synthetic=True)
    e = subject.experiment
    assert isinstance(e, Experiment)
    assert subject.dropped == ["clip_norm", "ema"]
    assert (e.clip_norm, e.ema, e.task.num_classes, e.data.num_classes) == (None, None, 7, 7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("lenet6",), "lenet"),
        (("lenet5", "--batch-size=0"), "--batch-size 0"),
        (("lenet5", "--dtype=float16"), "float16"),
        (("lenet5", "model.colour=3"), "colour"),
        (("lenet5_modern", "data.shape=4,4,1"), "4"),
    ],
)
def test_mistakes_are_explained(run, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run(*arguments)


def test_augmentations_are_timed_one_by_one(capsys):
    args = ["bench", "augment", "invert", "mosaic", "shape=8,10,3", "--batch-size", "4"]
    assert _main.main([*args, "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["name"] for result in found] == ["mosaic", "invert"]
    for result in found:
        assert result["shape"] == [8, 10, 3]
        assert result["rounds"] == 2
        assert result["images_per_second"] == pytest.approx(4e3 / result["ms_per_step"])
    assert augmentation.as_markdown(found).count("\n") == 3
    assert "mosaic" in augmentation.as_text(found[0])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["inwert"], "'inwert' is none of.*invert"),
        (["shape=8,8"], "shape=8,8: must be shape=HEIGHT,WIDTH,CHANNELS"),
        (["--peer", "torch"], "not --peer"),
    ],
)
def test_what_cannot_be_timed_of_augmentations_is_refused(arguments, message, capsys):
    assert _main.main(["bench", "augment", *arguments]) != 0
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_every_augmentation_can_be_timed():
    """All of `jaxcnn.data.augment` but what draws captions, repeats, or only composes."""
    others = {"IMAGENET_EIGENVALUES", "IMAGENET_EIGENVECTORS", "chain", "crop", "draw_caption"}
    others |= {"repeat", "resize", "standardize"}
    assert set(augmentation.augmentations(8, 8, 3)) == set(augment.__all__) - others


def test_a_trace_has_steps_of_both_kinds(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure_peak", lambda dtype: PEAK)
    subject = subjects.Subject("a/tiny.py", tiny(), [], synthetic=False)
    (found,) = suites.results([subject], {}, batch_size="2", steps=1, rounds=1, trace=tmp_path)
    assert "train" in found
    (path,) = (tmp_path / "tiny-float32-2").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    for kind in ("train", "inference"):
        steps = [e["args"]["step_num"] for e in events if e.get("name") == kind and e["ph"] == "X"]
        assert sorted(steps) == ["1", "2", "3", "4", "5"]


def test_a_trace_that_cannot_be_written_is_refused_before_anything_is_timed(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert _main.main(["bench", "lenet5_modern", "--trace", str(tmp_path / "file" / "t")]) == 6
    assert "choose another folder" in capsys.readouterr().err
    assert _main.main(["bench", "augment", "--trace", str(tmp_path / "t")]) == 2
    assert "--trace" in capsys.readouterr().err
