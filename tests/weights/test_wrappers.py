"""What stands before the names of weights and beside them; how much must fit; in every format."""

import math
from functools import cache, partial

import jax
import numpy as np
import pytest

from jaxcnn.core import trees
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.models.lenet import LeNet5
from jaxcnn.models.resnet import ResNet
from jaxcnn.weights import files, load
from tests.weights import torch_files
from tests.weights.test_fine_tuning import in_torch

MODEL = ResNet((1, 1), num_classes=7, widths=(8, 16), stem="cifar", stem_width=8)


@cache
def shapes(model=MODEL):
    """(params, model_state) as shapes."""
    image = np.zeros((1, 8, 8, 3), np.float32)
    variables = dict(jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image))
    return variables.pop("params"), variables


def leaves(params, model_state):
    named = {f"batch_stats/{n}": x for n, x in trees.flatten(model_state["batch_stats"]).items()}
    return trees.flatten(params) | named


def values(seed):
    """Our leaves, random."""
    random = np.random.default_rng(seed)
    return {
        name: random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        for name, leaf in leaves(*shapes()).items()
    }


def state_dict(seed=0):
    """The same as torchvision names and lays them out, with its counters."""
    state = dict(in_torch(name, leaf) for name, leaf in values(seed).items())
    return {**state, "bn1.num_batches_tracked": np.array(9, np.int64)}


def behind(prefix, seed=0):
    return {prefix + name: array for name, array in state_dict(seed).items()}


def inner(word, seed=0):
    """The first stage wrapped by itself."""
    return {n.replace("layer1.", f"layer1.{word}"): x for n, x in state_dict(seed).items()}


OPTIMIZER = {
    "state": {0: {"exp_avg": np.ones(3, np.float32), "step": np.ones((), np.float32)}},
    "param_groups": [{"lr": 0.1, "params": [0]}],
}
NAMED_MOMENTS = {"exp_avg": state_dict(3)}  # as large and as named as the weights
BEFORE = [
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "encoder.",
    "net.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.module.backbone._orig_mod.",
    "student.trunk.",
]
WITHIN = ["module.", "_orig_mod.", "_checkpoint_wrapped_module.", "module._orig_mod."]
ALONE = {
    **{f"before: {prefix}": behind(prefix) for prefix in BEFORE},
    **{f"within: {word}": inner(word) for word in WITHIN},
    **{
        f"below: {key}": {key: state_dict(), "optimizer": OPTIMIZER, "epoch": 3, "lr": 0.1}
        for key in ("state_dict", "model", "model_state_dict", "net", "network", "weights")
    },
    "lightning": {
        "state_dict": {**behind("model."), "loss.weight": np.ones(4, np.float32)},
        "optimizer_states": [OPTIMIZER],
        "hyper_parameters": {"lr": 0.1},
        "epoch": 1,
    },
    "moments of the same names": {"optimizer": NAMED_MOMENTS, "model": state_dict()},
    "both": {"model": behind("module._orig_mod."), "optimizer": OPTIMIZER},
    "a list": [state_dict(), OPTIMIZER],
}
COUNT = {"n_averaged": np.array(3, np.int64)}
AVERAGED = {
    "swa_utils": {**COUNT, **behind("module.")},
    "swa_utils in a checkpoint": {"model": state_dict(1), "swa": {**COUNT, **behind("module.")}},
    "ema": {"model": state_dict(1), "ema": state_dict(), "optimizer": OPTIMIZER},
    "ema first": {"ema": state_dict(), "model": state_dict(1)},
    "ema of a module": {"model": state_dict(1), "ema": {"module": state_dict(), "updates": 7}},
    "model_ema": {"model": behind("module.", 1), "model_ema": state_dict()},
    "state_dict_ema": {"state_dict": state_dict(1), "state_dict_ema": behind("module.")},
    "ema_model": {**behind("model.", 1), **behind("ema_model.module.")},
    "params_ema": {"params_raw": state_dict(1), "params_ema": state_dict()},
}


def flat(tree, name=""):
    """{"a.b": array}: what a format without dicts in one another keeps of a tree."""
    if isinstance(tree, np.ndarray):
        return {name: tree}
    items = enumerate(tree) if isinstance(tree, list) else getattr(tree, "items", tuple)()
    found = [flat(value, f"{name}.{key}" if name else str(key)) for key, value in items]
    return {key: array for part in found for key, array in part.items()}


def write(tree, path):
    """A file of the format that the ending names."""
    if path.name.endswith("old.pth"):
        torch_files.save(tree, path, zipped=False)
    elif path.suffix == ".safetensors":
        files.write_arrays(path, flat(tree), {})
    elif path.suffix == ".npz":
        np.savez(path, **flat(tree))
    else:
        torch_files.save(tree, path)


FORMATS = ["w.pth", "old.pth", "w.ckpt", "w.pth.tar", "w.bin", "w.safetensors", "w.npz"]


def fill(path, **options):
    return load.fill(MODEL, *shapes(), path, **options)


def check_filled(found, expected):
    params, model_state, report = found
    filled = leaves(params, model_state)
    for name, leaf in expected.items():
        np.testing.assert_array_equal(filled[name], leaf, err_msg=name)
    assert (report.unmatched, report.adapted, report.new_head) == ((), (), ())
    assert report.share == 1
    assert len(report.loaded) == len(expected)
    assert "100 % of the model's parameters" in str(report)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("wrapper", ALONE)
def test_weights_are_found_in_every_wrapper(wrapper, ending, tmp_path):
    write(ALONE[wrapper], tmp_path / ending)
    found = fill(tmp_path / ending)
    check_filled(found, values(0))
    assert not found[-1].averaged
    assert not found[-1].others


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("wrapper", AVERAGED)
def test_of_raw_and_averaged_weights_the_average_is_taken_and_that_is_said(
    wrapper, ending, tmp_path
):
    write(AVERAGED[wrapper], tmp_path / ending)
    found = fill(tmp_path / ending)
    check_filled(found, values(0))
    assert found[-1].averaged
    assert "moving average of the weights" in str(found[-1])
    assert "n_averaged" not in str(found[-1])


def test_what_is_beside_and_what_would_fit_as_well_is_said(tmp_path):
    tree = {"a": state_dict(), "b": state_dict(1), "optimizer": OPTIMIZER}
    write(tree, tmp_path / "w.npz")
    report = fill(tmp_path / "w.npz")[-1]
    assert (report.prefix, report.others) == ("a.", ("b.",))
    count = len(state_dict())
    assert report.beside == (("b", count), ("optimizer", 2))
    assert "as much fits behind b." in str(report)
    assert f"left out beside them: b ({count}), optimizer (2)" in str(report)


def test_an_average_of_nothing_yet_is_not_called_one(tmp_path):
    write({"n_averaged": np.array(0, np.int64), **behind("module.")}, tmp_path / "w.npz")
    assert not fill(tmp_path / "w.npz")[-1].averaged


def test_a_head_of_another_number_of_classes_starts_fresh_and_that_is_said(tmp_path):
    other = {**state_dict(), "fc.weight": np.ones((99, 64), np.float32), "fc.bias": np.ones(99)}
    write(
        {"model": {f"module.{n}": x.astype(np.float32) for n, x in other.items()}},
        tmp_path / "w.pth",
    )
    *_, report = fill(tmp_path / "w.pth")
    assert set(report.new_head) == {"head/kernel", "head/bias"}
    assert "of another number of classes, start fresh" in str(report)
    sizes = {name: leaf.size for name, leaf in trees.flatten(shapes()[0]).items()}
    head = sizes["head/kernel"] + sizes["head/bias"]
    assert report.share == pytest.approx(1 - head / sum(sizes.values()))


def body():
    """The names of our parameters but for the head's."""
    return [name for name in trees.flatten(shapes()[0]) if not name.startswith("head/")]


@pytest.mark.parametrize("kept", [0, 1, 0.49, 0.5, 0.75])
def test_too_little_that_fits_is_refused(kept, tmp_path):
    """Below half of the arrays; how many and how much is said, and what is missing."""
    names = body()
    count = kept if isinstance(kept, int) else math.ceil(kept * len(names)) - (kept == 0.49)
    given = dict(in_torch(name, values(0)[name]) for name in names[:count])
    write({"extra.weight": np.ones(3, np.float32), **given}, tmp_path / "w.npz")
    if count < 0.5 * len(names):
        with pytest.raises(ConfigError) as error:
            fill(tmp_path / "w.npz")
        assert "extra.weight" in str(error.value)
        if count:
            assert names[count] in str(error.value)
            assert f"{count} of the {len(names)} arrays" in str(error.value)
            assert f"({len(names) - count})" in str(error.value)
            assert fill(tmp_path / "w.npz", least=0.0)[-1].loaded
    else:
        *_, report = fill(tmp_path / "w.npz")
        assert len(report.loaded) == count
        assert len(report.unmatched) == len(leaves(*shapes())) - count
        assert f"unmatched ({len(report.unmatched)})" in str(report)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_of_another_network_is_refused(ending, tmp_path):
    write({"encoder.a": np.ones(3, np.float32), "b": np.ones(2, np.float32)}, tmp_path / ending)
    with pytest.raises(ConfigError, match=r"none of the 2 arrays fits this model: .*encoder\.a, b"):
        fill(tmp_path / ending)
    with pytest.raises(ConfigError, match="none of the 1 arrays"):
        load.load_weights(*shapes(), {"a": np.ones(3)}, ((r"x", "y"),))


@pytest.mark.parametrize(
    "value, error, words",
    [
        (np.ones((8, 3, 3, 3), np.int8), ConfigError, "holds int8, not floats"),
        (np.ones((8, 3, 3, 3), np.complex64), ConfigError, "holds complex64"),
        (np.full((8, 3, 3, 3), np.nan, np.float32), DataError, "216 numbers that are not finite"),
        (np.full((8, 3, 3, 3), 1e300), DataError, "not finite"),
    ],
)
def test_numbers_that_are_no_weights_are_refused(value, error, words):
    state = {**state_dict(), "conv1.weight": value}
    with pytest.raises(error, match=f"'conv1.weight' .*{words}"):
        load.load_weights(*shapes(), state, load.rules_for(MODEL))


@pytest.mark.parametrize(
    "before, between", [("params/", "/"), ("params.", "."), ("", "/"), ("", ".")]
)
def test_variables_of_flax_are_taken_by_their_names(before, between, tmp_path):
    """Of a network that has no table of rules, too."""
    model = LeNet5(num_classes=4)
    params = jax.eval_shape(
        partial(model.init, train=False), jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32)
    )["params"]
    arrays = {n: np.full(x.shape, 0.5, np.float32) for n, x in trees.flatten(params).items()}
    named = {before + name.replace("/", between): array for name, array in arrays.items()}
    files.write_arrays(tmp_path / "w.safetensors", named, {})
    filled, _, report = load.fill(model, params, {}, tmp_path / "w.safetensors")
    for name, leaf in trees.flatten(filled).items():
        np.testing.assert_array_equal(leaf, arrays[name])
    assert report.share == 1


def test_a_sweep_is_no_single_run(tmp_path):
    (tmp_path / "replicas/0").mkdir(parents=True)
    with pytest.raises(DataError, match="is a sweep; choose one of its runs"):
        load.fill(MODEL, *shapes(), tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile itself
@pytest.mark.parametrize("wrapper", ["compile", "parallel", "average", "wrapped twice", "old"])
def test_what_torch_itself_writes(wrapper, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
    inside = torch.nn.Module()
    for name, array in state_dict().items():
        where = inside
        *parts, last = name.split(".")
        for part in parts:
            if not hasattr(where, part):
                where.add_module(part, torch.nn.Module())
            where = getattr(where, part)
        where.register_buffer(last, torch.from_numpy(array))
    net = inside
    if wrapper in ("compile", "wrapped twice"):
        net = torch.compile(net)
    if wrapper in ("parallel", "wrapped twice"):
        net = torch.nn.DataParallel(net)
    if wrapper == "average":
        net = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
        net.update_parameters(inside)
    saved = {"net": net.state_dict(), "epoch": 3} if wrapper == "parallel" else net.state_dict()
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=wrapper != "old")
    found = fill(tmp_path / "w.pth")
    check_filled(found, values(0))
    assert found[-1].averaged == (wrapper == "average")
