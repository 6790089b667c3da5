"""Starting from weights: a run, our own files, PyTorch's; new heads, new channel counts, frozen
layers; from the command line.
"""

import dataclasses
import json
from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxcnn.core import optimizers
from jaxcnn.core.program import make_program
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import DataError
from jaxcnn.runs import loop
from jaxcnn.runs.checkpoint import Checkpoints
from jaxcnn.runs.writers import Console
from jaxcnn.tasks.classification import Classification
from jaxcnn.weights import files, load
from tests.commands.test_cli import launch
from tests.tiny import arrays, tiny

QUIET = Console(quiet=True)


def final_state(e, folder):
    return Checkpoints(folder / "checkpoints").restore(
        jax.eval_shape(make_program(e, steps=1).init, jax.random.key(0))
    )[0]


def test_a_run_is_fine_tuned_with_a_new_head_and_a_frozen_body(tmp_path):
    first = tiny()
    loop.train(first, tmp_path / "first", console=QUIET)
    source = final_state(first, tmp_path / "first")
    lines = []
    console = Console(quiet=True)
    console.line = lines.append
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
    loop.train(second, tmp_path / "second", console=console)
    tuned = final_state(second, tmp_path / "second")
    best = sorted((tmp_path / "first/checkpoints").glob("best-*"))[-1]
    taken = files.read_arrays(best)
    np.testing.assert_array_equal(tuned.params["Conv_0"]["kernel"], taken["ema/Conv_0/kernel"])
    assert tuned.params["Dense_0"]["kernel"].shape[-1] == 5
    assert source.params["Dense_0"]["kernel"].shape[-1] == 3
    report = next(line for line in lines if "weights of" in line)
    assert "Dense_0/kernel" in report


def test_a_directory_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no checkpoints"):
        load.fill(tiny().model, {}, {}, tmp_path)


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
