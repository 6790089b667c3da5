"""Starting from weights: a run, our own files, PyTorch's; new heads, new channel counts, frozen
layers; from the command line.
"""

import dataclasses
import json
import re
from functools import partial

import jax
import numpy as np
import optax
import pytest

import jaxcnn
from jaxcnn.core import optimizers, schedules, trees
from jaxcnn.core.program import evaluation_variables
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import DataError
from jaxcnn.models.resnet import ResNet
from jaxcnn.tasks.classification import Classification
from jaxcnn.weights import files, load
from tests.commands.test_cli import launch
from tests.tiny import Lines, arrays, tiny


def test_a_run_is_fine_tuned_with_a_new_head_and_a_frozen_body(tmp_path):
    first = tiny()
    source = jaxcnn.train(first, tmp_path / "first", quiet=True)
    console = Lines()
    second = tiny(
        model=dataclasses.replace(first.model, num_classes=5),
        task=Classification(num_classes=5),
        data=Arrays(train=arrays(50, classes=4), eval=arrays(20, classes=4)),
        weights=str(tmp_path / "first"),
        rates=(("Dense_0", 1.0), (".*", 0.0)),
        optimizer=partial(
            optax.adamw, learning_rate=0.01, weight_decay=0.01, mask=optimizers.kernels
        ),
    )
    tuned = jaxcnn.train(second, tmp_path / "second", console=console).state
    best = sorted((tmp_path / "first/checkpoints").glob("best-*"))[-1]
    taken = files.read_arrays(best)
    for name, leaf in trees.flatten(tuned.params).items():
        if not name.startswith("Dense_0/"):
            np.testing.assert_array_equal(leaf, taken[f"ema/{name}"])
    for name, leaf in trees.flatten(tuned.model_state).items():
        np.testing.assert_array_equal(leaf, taken[f"ema_state/{name}"])
        assert (taken[f"ema_state/{name}"] != taken[f"model_state/{name}"]).any()
    assert tuned.params["Dense_0"]["kernel"].shape[-1] == 5
    assert source.state.params["Dense_0"]["kernel"].shape[-1] == 3
    report = next(line for line in console.lines if "weights of" in line)
    assert "Dense_0/kernel" in report


OPTIMIZERS = {  # whose places in training are not those that are scored
    "schedule-free": lambda rate: optax.contrib.schedule_free_adamw(rate),
    "lookahead": lambda rate: optimizers.lookahead(optax.sgd(rate), period=7),
    "in a chain": lambda rate: optax.chain(
        optax.clip(1.0), optimizers.lookahead(optax.adam(rate), period=7)
    ),
    "sam": lambda rate: optax.contrib.sam(
        optax.sgd(rate), optimizers.sgd(0.05), sync_period=5, reset_state=False
    ),
}


@pytest.mark.parametrize("frozen", [(), (("Conv_0", 0.0),)], ids=["all", "frozen"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_of_a_run_the_weights_are_taken_that_were_scored(name, frozen, tmp_path):
    optimizer = partial(OPTIMIZERS[name], 0.05)
    e = tiny(ema=None, schedule=schedules.constant, rates=frozen, optimizer=optimizer)
    state = jaxcnn.train(e, tmp_path, quiet=True).state
    scored = trees.flatten(evaluation_variables(state)["params"])
    raw = trees.flatten(state.params)
    fresh = jax.tree.map(np.zeros_like, (state.params, state.model_state))
    last = sorted((tmp_path / "checkpoints").glob("last-*"))[-1]
    taken = trees.flatten(load.fill(e.model, *fresh, last)[0])
    assert taken.keys() == scored.keys()
    for leaf, value in scored.items():
        np.testing.assert_allclose(taken[leaf], value, rtol=1e-6, atol=1e-7)
    assert any((np.asarray(raw[leaf]) != scored[leaf]).any() for leaf in raw)


def test_a_directory_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no checkpoints"):
        load.fill(tiny().model, {}, {}, tmp_path)


MINE = """
from functools import partial

import optax

from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.digits import Digits
from jaxcnn.models.resnet import ResNet
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    model=ResNet((1, 1), num_classes=10, widths=(8, 16), stem="cifar", stem_width=8),
    task=Classification(num_classes=10),
    data=Digits(),
    optimizer=partial(optax.adamw, learning_rate=0.01, weight_decay=0.1),
    batch_size=16,
    steps=3,
)
"""

KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean"}


def in_torch(name, leaf):
    """Name and array of one of our leaves as torchvision has them: layer1.0.conv1.weight, OIHW."""
    *modules, kind = name.removeprefix("batch_stats/").split("/")
    module = ".".join(modules)
    module = module.replace("stem.conv", "conv1").replace("stem.norm", "bn1").replace("head", "fc")
    module = re.sub(r"stage(\d)_block(\d)\.", r"layer\1.\2.", module)
    module = re.sub(r"conv(\d)\.norm$", r"bn\1", re.sub(r"(conv\d)\.conv$", r"\1", module))
    for i, part in enumerate(("conv", "norm")):
        module = module.replace(f"shortcut.{part}", f"downsample.{i}")
    array = np.asarray(leaf)
    array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return f"{module}.{KINDS.get(kind, 'running_var')}", array


def test_a_file_of_torchvision_is_fine_tuned_from_the_command_line(tmp_path):
    """A narrow ResNet of 100 classes for RGB; the head is new and trained, the rest stays."""
    model = ResNet((1, 1), num_classes=100, widths=(8, 16), stem="cifar", stem_width=8)
    shapes = jax.eval_shape(
        lambda key: model.init(key, np.zeros((1, 8, 8, 3), np.float32), train=False),
        jax.random.key(0),
    )
    random = np.random.default_rng(0)
    ours = trees.flatten(shapes["params"]) | {
        f"batch_stats/{name}": leaf for name, leaf in trees.flatten(shapes["batch_stats"]).items()
    }
    ours = {k: random.uniform(0.5, 1.5, x.shape).astype(np.float32) for k, x in ours.items()}
    theirs = dict(in_torch(name, leaf) for name, leaf in ours.items())
    assert {"conv1.weight", "layer1.0.bn2.running_var", "layer2.0.downsample.1.bias"} <= set(theirs)
    files.write_arrays(tmp_path / "resnet.safetensors", theirs, {"format": "pt"})
    (tmp_path / "mine.py").write_text(MINE)
    overrides = ("weights=resnet.safetensors", "rates=(('head', 1.0), ('.*', 0.0))")
    done = launch("train", "mine.py", *overrides, "--run-dir", "tuned", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "new head (2): head/" in done.stdout + done.stderr
    state = jaxcnn.open(tmp_path / "tuned").state
    kept = trees.flatten(state.params) | trees.flatten(state.model_state)
    for name, leaf in kept.items():
        if name == "stem/conv/kernel":  # grey images: the sum over RGB
            np.testing.assert_allclose(leaf[..., 0, :], ours[name].sum(2), rtol=1e-6)
        elif not name.startswith("head/"):
            np.testing.assert_array_equal(leaf, ours[name], err_msg=name)
    assert kept["head/kernel"].shape == (64, 10)
    held = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert held == 2 * (64 * 10 + 10)


@pytest.mark.slow
def test_fine_tuning_from_the_command_line(tmp_path):
    done = launch("train", "digits_lenet5", "steps=30", "--run-dir", tmp_path / "a", "--quiet")
    assert done.returncode == 0, done.stderr
    overrides = (f"weights={tmp_path / 'a'}", "steps=1", "rates=(('F6', 1.0), ('.*', 0.0))")
    done = launch("train", "digits_lenet5", *overrides, "--run-dir", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    best = sorted((tmp_path / "a/checkpoints").glob("best-*"))[-1]
    before, after = (
        files.read_arrays(p) for p in (best, next((tmp_path / "b/checkpoints").glob("last-*")))
    )
    np.testing.assert_array_equal(before["params/C1/kernel"], after["params/C1/kernel"])
    assert json.loads((tmp_path / "b/run.json").read_text())["rendered"]["weights"] == str(
        tmp_path / "a"
    )
