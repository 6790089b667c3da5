"""Weights from other frameworks: layouts, names, adaptation, errors; and our own files, against the
safetensors package.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.core import trees
from jaxcnn.errors import CheckpointError, ConfigError, DataError
from jaxcnn.layers.conv import Conv
from jaxcnn.layers.conv_norm import ConvNorm
from jaxcnn.weights import load
from jaxcnn.weights.files import read_arrays, read_sealed, write_arrays
from jaxcnn.weights.identity import metadata_of

DTYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "uint32",
    "int16",
    "int8",
    "uint8",
    "bool",
)


class Net(nn.Module):
    """A convolution with BatchNorm, a depthwise convolution, a dense layer on the flattened map, a
    head.
    """

    channels: int = 3
    num_classes: int = 5

    @nn.compact
    def __call__(self, image, *, train: bool):
        x = Conv(4, (3, 3), padding=1, use_bias=False, name="conv")(image)
        x = nn.BatchNorm(not train, epsilon=1e-5, name="norm")(x)
        x = Conv(4, (3, 3), padding=1, feature_group_count=4, name="depthwise")(x)
        x = nn.relu(nn.Dense(6, name="dense")(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_classes, name="head")(x)


RULES = (
    (r"0\.", "conv/"),
    (r"1\.", "norm/"),
    (r"2\.", "depthwise/"),
    (r"4\.", "dense/", (4, 6, 8)),
    (r"6\.", "head/"),
)


def init(model, channels=3):
    variables = dict(model.init(jax.random.key(0), jnp.zeros((1, 6, 8, channels)), train=False))
    return variables.pop("params"), variables


def save(path, params, model_state):
    """As a checkpoint has them."""
    tree = {"params": params, "model_state": model_state}
    arrays = {name: np.asarray(leaf) for name, leaf in trees.flatten(tree).items()}
    write_arrays(path, arrays, {"format": "jaxcnn 1", "step": "1"})


def torch_net():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4)
    depthwise = torch.nn.Conv2d(4, 4, 3, padding=1, groups=4)
    net = torch.nn.Sequential(
        conv,
        norm,
        depthwise,
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 6 * 8, 6),
        torch.nn.ReLU(),
        torch.nn.Linear(6, 5),
    )
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return torch, net.eval()


@pytest.mark.parametrize(
    "container", ["dict", "data_parallel", ".pth", "wrapped.pt", ".safetensors"]
)
def test_torch_weights_give_torch_outputs(container, tmp_path):
    torch, net = torch_net()
    state, source = net.state_dict(), tmp_path / f"net{container}"
    if container == "dict":
        source = state
    elif container == "data_parallel":
        source = torch.nn.DataParallel(net).state_dict()
    elif container == ".safetensors":
        pytest.importorskip(
            "safetensors.torch", reason="needs safetensors: pip install safetensors"
        ).save_file(state, source)
    else:
        torch.save(
            {"state_dict": state, "epoch": 3} if container == "wrapped.pt" else state, source
        )
    model = Net()
    params, model_state, report = load.load_weights(*init(model), source, RULES)
    image = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
    ours = model.apply({"params": params, **model_state}, image, train=False)
    with torch.no_grad():
        theirs = net(torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert (report.unmatched, report.unused, report.adapted, report.new_head) == ((), (), (), ())


def test_keras_file_is_taken_as_it_is(tmp_path):
    """Keras kernels have our layout; its depthwise ones [H, W, C, multiplier] become ours [H, W, 1,
    C multiplier].
    """
    import h5py

    rng = np.random.default_rng(0)
    params, state = init(Net())
    expected = {
        path: rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in trees.flatten(params).items()
    }
    with h5py.File(tmp_path / "net.weights.h5", "w") as file:
        for path, array in expected.items():
            file[f"layers/{path}"] = (
                array.reshape(3, 3, 4, 1) if path == "depthwise/kernel" else array
            )
        file["layers/norm/moving_mean"] = np.arange(4.0, dtype=np.float32)
        file["layers/norm/moving_variance"] = np.arange(1.0, 5.0, dtype=np.float32)
    params, state, report = load.load_weights(
        params, state, tmp_path / "net.weights.h5", ((r"layers/", ""),)
    )
    assert not report.unmatched
    for path, array in trees.flatten(params).items():
        np.testing.assert_array_equal(array, expected[path])
    np.testing.assert_array_equal(state["batch_stats"]["norm"]["var"], [1, 2, 3, 4])


def test_grey_first_layer_answers_as_the_same_image_in_rgb():
    torch, net = torch_net()
    grey = np.random.default_rng(0).normal(size=(2, 6, 8, 1)).astype(np.float32)
    params, state, report = load.load_weights(*init(Net(), channels=1), net.state_dict(), RULES)
    ours = Net().apply({"params": params, **state}, grey, train=False)
    with torch.no_grad():
        theirs = net(torch.from_numpy(np.repeat(grey, 3, axis=3).transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert report.adapted == ("conv/kernel: (4, 3, 3, 3) -> (3, 3, 1, 4)",)


def test_first_layer_for_four_channels_repeats_rgb_scaled_by_three_quarters():
    """timm's rule: an image whose channels are all equal gives the same responses."""
    _, net = torch_net()
    kernel = net.state_dict()["0.weight"].numpy()
    params, _, _ = load.load_weights(*init(Net(), channels=4), net.state_dict(), RULES)
    expected = kernel[:, [0, 1, 2, 0]].transpose(2, 3, 1, 0) * 0.75
    np.testing.assert_allclose(params["conv"]["kernel"], expected, rtol=1e-6)


def test_head_for_another_class_count_keeps_its_values_and_is_reported():
    _, net = torch_net()
    before, state = init(Net(num_classes=9))
    params, _, report = load.load_weights(before, state, net.state_dict(), RULES)
    assert report.new_head == ("head/kernel", "head/bias")
    np.testing.assert_array_equal(params["head"]["kernel"], before["head"]["kernel"])
    assert "new head (2)" in str(report)


def test_bias_before_batch_norm_goes_into_the_running_mean():
    torch, net = torch_net()
    net[0].bias = torch.nn.Parameter(torch.randn(4))
    unit = ConvNorm(4, 3, activation=None)
    variables = dict(unit.init(jax.random.key(0), jnp.zeros((1, 6, 8, 3)), train=False))
    params, state, report = load.load_weights(
        variables.pop("params"),
        variables,
        net[:2].state_dict(),
        ((r"0\.", "conv/"), (r"1\.", "norm/")),
    )
    image = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = (
            net[:2](torch.from_numpy(image.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
        )
    np.testing.assert_allclose(
        unit.apply({"params": params, **state}, image, train=False), theirs, atol=1e-5
    )
    assert report.unmatched == report.unused == ()


def test_bias_before_batch_norm_leaves_the_mean_by_that_much():
    """Normalizing x + b by the mean m is normalizing x by m - b."""
    unit, random = ConvNorm(4, 3, activation=None), np.random.default_rng(0)
    variables = dict(unit.init(jax.random.key(0), jnp.zeros((1, 6, 8, 3)), train=False))
    norm = {name: random.normal(size=4) for name in ("weight", "bias", "running_mean")}
    source = {f"1.{name}": x for name, x in norm.items()} | {"1.running_var": np.ones(4)}
    source |= {"0.weight": random.normal(size=(4, 3, 3, 3)), "0.bias": random.normal(size=4)}
    _, state, report = load.load_weights(
        variables.pop("params"), variables, source, ((r"0\.", "conv/"), (r"1\.", "norm/"))
    )
    mean = state["batch_stats"]["norm"]["mean"]
    expected = norm["running_mean"] - source["0.bias"]
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
    assert report.unused == ()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_numbers_are_kept_as_exactly_as_the_model_holds_them(dtype):
    with jax.enable_x64(True):
        kernel = np.random.default_rng(0).normal(size=(2, 3))  # [out, in], as PyTorch has it
        source = {"fc.weight": kernel, "fc.bias": kernel[:, 0]}
        ours = {"head": {"kernel": jnp.zeros((3, 2), dtype), "bias": jnp.zeros(2, dtype)}}
        params, _, _ = load.load_weights(ours, {}, source, ((r"fc\.", "head/"),))
        assert params["head"]["kernel"].dtype == dtype
        np.testing.assert_array_equal(params["head"]["kernel"], kernel.T.astype(dtype))
        large = {"fc.weight": kernel * 1e300, "fc.bias": kernel[:, 0]}
        if dtype == jnp.float32:  # which does not hold them
            with pytest.raises(DataError, match="not finite"):
                load.load_weights(ours, {}, large, ((r"fc\.", "head/"),))
        else:
            params, _, _ = load.load_weights(ours, {}, large, ((r"fc\.", "head/"),))
            np.testing.assert_array_equal(params["head"]["kernel"], 1e300 * kernel.T)


@pytest.mark.parametrize("shape", [(5,), (1,), (2, 2), ()])
def test_a_bias_that_goes_into_the_mean_has_its_shape(shape):
    mean = np.zeros(4, np.float32)
    ours = {"conv": {"kernel": np.zeros((3, 3, 3, 4), np.float32)}}
    source = {"0.weight": np.ones((4, 3, 3, 3), np.float32), "1.running_mean": mean}
    rules = ((r"0\.", "conv/"), (r"1\.", "norm/"))
    statistics = {"batch_stats": {"norm": {"mean": mean}}}
    wrong = source | {"0.bias": np.ones(shape, np.float32)}
    with pytest.raises(ConfigError, match=r"'0\.bias' has shape"):
        load.load_weights(ours, statistics, wrong, rules)
    right = source | {"0.bias": np.ones((4, 1), np.float32)}  # but for axes of one
    _, state, _ = load.load_weights(ours, statistics, right, rules)
    np.testing.assert_array_equal(state["batch_stats"]["norm"]["mean"], mean - 1)


def test_a_map_that_cannot_have_been_flattened_so_is_refused():
    rules = ((r"fc\.", "dense/", (2, 3, 3)),)
    ours = {"dense": {"kernel": np.zeros((18, 4), np.float32)}}
    with pytest.raises(ConfigError, match=r"'fc\.weight' has shape \(4, 17\).*'dense/kernel'"):
        load.load_weights(ours, {}, {"fc.weight": np.zeros((4, 17), np.float32)}, rules)


def test_report_names_what_was_not_used_and_not_found():
    _, net = torch_net()
    _, _, report = load.load_weights(
        *init(Net()), {**net.state_dict(), "extra.weight": np.zeros(3)}, RULES[:-1]
    )
    assert report.unused == ("6.weight", "6.bias", "extra.weight")
    assert report.unmatched == ("head/bias", "head/kernel")


@pytest.mark.parametrize(
    "change, rules, parts",
    [
        (
            {"4.weight": np.zeros((7, 192))},
            RULES,
            ["4.weight", "(7, 192)", "dense/kernel", "(192, 6)"],
        ),
        ({}, ((r"0\.", "convolution/"),), ["0.weight", "convolution/weight"]),
        ({}, ((r"[04]\.", "dense/"),), ["0.weight", "(4, 3, 3, 3)"]),
    ],
)
def test_errors_name_key_and_shapes(change, rules, parts):
    _, net = torch_net()
    with pytest.raises(ConfigError) as error:
        load.load_weights(*init(Net()), {**net.state_dict(), **change}, rules)
    for part in parts:
        assert part in str(error.value)


def test_our_files_are_read_by_the_safetensors_package(tmp_path):
    numpy_io = pytest.importorskip(
        "safetensors.numpy", reason="needs safetensors: pip install safetensors"
    )
    params, state = init(Net())
    save(tmp_path / "net.safetensors", params, state)
    arrays = numpy_io.load_file(tmp_path / "net.safetensors")
    assert set(arrays) == {f"params/{path}" for path in trees.flatten(params)} | {
        "model_state/batch_stats/norm/mean",
        "model_state/batch_stats/norm/var",
    }
    np.testing.assert_array_equal(arrays["params/dense/kernel"], params["dense"]["kernel"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_survives_both_ways(dtype, tmp_path):
    numpy_io = pytest.importorskip(
        "safetensors.numpy", reason="needs safetensors: pip install safetensors"
    )
    arrays = {
        "a/b": np.arange(6).reshape(2, 3).astype(jnp.dtype(dtype)),
        "scalar": np.array(1).astype(jnp.dtype(dtype)),
    }
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    write_arrays(ours, arrays, {})
    numpy_io.save_file(arrays, theirs)
    for read in (read_arrays(ours), read_arrays(theirs), numpy_io.load_file(ours)):
        for name, array in arrays.items():
            assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "missing", "suffix"])
def test_damaged_file_is_named(damage, tmp_path):
    path = tmp_path / ("net.npz" if damage == "suffix" else "net.safetensors")
    save(path, *init(Net()))
    data = path.read_bytes()
    damaged = {"cut": data[:-7], "header": data[:8] + b"?" + data[9:], "empty": b""}.get(
        damage, data
    )
    path.unlink() if damage == "missing" else path.write_bytes(damaged)
    with pytest.raises(DataError if damage != "cut" else CheckpointError, match=r"net\."):
        load.load_weights(*init(Net()), path, RULES)


def test_every_flipped_bit_of_a_sealed_file_is_noticed(tmp_path):
    path = tmp_path / "net.safetensors"
    metadata = {"format": "jaxcnn 1"}
    write_arrays(path, {"params/kernel": np.arange(6, dtype=np.float32)}, metadata)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises((CheckpointError, DataError)):
            read_arrays(path)
        with pytest.raises(CheckpointError):
            read_sealed(path)


def checkpoint(folder, kind, step, value, **parts):
    """A checkpoint of Net in a run directory, all of whose parameters are `value`, those of `parts`
    (such as ema=2.0) likewise.
    """
    params, model_state = init(Net())
    tree = {
        part: jax.tree.map(lambda leaf, value=v: np.full(leaf.shape, value, leaf.dtype), params)
        for part, v in {"params": value, **parts}.items()
    }
    (folder / "checkpoints").mkdir(exist_ok=True)
    path = folder / f"checkpoints/{kind}-{step:09d}.safetensors"
    arrays = trees.flatten({**tree, "model_state": model_state, "step": np.int32(step)})
    metadata = metadata_of(run=None, step=step, best=kind == "best")
    write_arrays(path, {n: np.asarray(x) for n, x in arrays.items()}, metadata)
    return path


def filled_with(folder):
    """The one value that all parameters have after `fill`, and the report."""
    params, _, report = load.fill(Net(), *init(Net()), folder)
    (value,) = {float(x) for leaf in jax.tree.leaves(params) for x in np.ravel(leaf)}
    assert (report.unmatched, report.unused, report.new_head) == ((), (), ())
    return value, report


@pytest.mark.parametrize("ema", [True, False])
def test_the_moving_average_of_a_run_is_taken_where_there_is_one(ema, tmp_path):
    checkpoint(tmp_path, "best", 7, 1.0, **({"ema": 2.0} if ema else {}))
    value, report = filled_with(tmp_path)
    assert value == (2.0 if ema else 1.0)
    assert ("moving average of the weights" in str(report)) == ema


def test_the_best_checkpoint_of_a_run_is_taken_else_the_last(tmp_path):
    checkpoint(tmp_path, "last", 30, 1.0)
    checkpoint(tmp_path, "last", 40, 2.0)
    assert filled_with(tmp_path)[0] == 2.0
    checkpoint(tmp_path, "best", 10, 3.0)
    checkpoint(tmp_path, "best", 20, 4.0)
    assert filled_with(tmp_path)[0] == 4.0
    assert filled_with(tmp_path / "checkpoints/best-000000010.safetensors")[0] == 3.0


def test_no_other_checkpoint_is_taken_for_a_damaged_one(tmp_path):
    checkpoint(tmp_path, "last", 40, 1.0)
    checkpoint(tmp_path, "best", 10, 2.0)
    best = checkpoint(tmp_path, "best", 20, 3.0)
    data = bytearray(best.read_bytes())
    data[-5] ^= 4
    best.write_bytes(data)
    with pytest.raises(CheckpointError, match=best.name):
        filled_with(tmp_path)
    best.rename(best.with_name(best.name + ".damaged"))  # as a resumed run does
    with pytest.raises(CheckpointError, match=best.name):
        filled_with(tmp_path)
    checkpoint(tmp_path, "best", 20, 4.0)  # made again
    assert filled_with(tmp_path)[0] == 4.0
