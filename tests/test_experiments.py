"""Every experiment file: it documents itself, its pre-flight passes, and it trains two steps and
evaluates on a few examples.
"""

import ast
import dataclasses
import warnings

import jax
import numpy as np
import pytest

from jaxcnn.bench import measure
from jaxcnn.core.program import make_program
from jaxcnn.core.transforms import compile, scored
from jaxcnn.errors import DataError
from jaxcnn.runs.check import pre_flight
from jaxcnn.runs.code import load
from jaxcnn.runs.evaluation import evaluate, open_checked
from tests.conftest import ROOT

FILES = sorted(p for p in (ROOT / "experiments").glob("*.py") if not p.name.startswith("_"))
BATCH = 4


class Few:
    """The first few examples of a source."""

    def __init__(self, source, count):
        self.source, self.count = source, min(count, len(source))

    def __len__(self):
        return self.count

    def take(self, indices):
        return self.source.take(np.asarray(indices) % self.count)


# which tests/recipes/ trains
RECIPES = {
    *("mnist_gan", "mnist_vae", "two_inputs", "digits_lr_finder", "fashion_mnist_sam"),
    *("fashion_mnist_simclr", "fashion_mnist_distilled", "fashion_mnist_mean_teacher"),
}


# the task and the kind of network of another file, with other data or another augmentation
OF_OTHERS = {
    *("fashion_mnist_trivial", "fashion_mnist_speed", "digits_unbalanced", "rgb_digits_lenet"),
    *("mnist_lenet5_modern", "mnist_dense", "fashion_mnist_lenet_rates", "digits_rotation"),
}


def is_large(path):
    """Whether two steps take long on a CPU, or are taken elsewhere: meant for an accelerator, a
    task whose step takes ten seconds and more to compile, or a recipe; or like another one.
    """
    meant = "accelerator" in (ast.get_docstring(ast.parse(path.read_text())) or "")
    return (
        meant
        or path.stem in RECIPES
        or path.stem in OF_OTHERS
        or (path.stem.startswith(("scenes_", "photos_")) and path.stem != "scenes_localization")
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_docstring_holds_command_and_result(path):
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert f"experiments/{path.name}" in doc, "the docstring gives the command"
    assert "±" in doc or "n = 1" in doc, (
        "the docstring gives the result with its spread, or says that there is one run only"
    )


def data_of(e):
    """Real examples where they are at hand, else random ones of the same shapes."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the 'eval' examples: .* for training")
            return open_checked(e, "eval")  # the smaller split is enough here
    except DataError as error:
        try:
            return measure.Noise(e, 2 * BATCH)
        except DataError:
            pytest.skip(str(error))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_pre_flight_passes(path):
    e = load(path, overrides=[])
    try:
        e.data.spec()
    except DataError as error:
        pytest.skip(str(error))
    with jax.numpy_dtype_promotion("standard"):  # Flax's BatchNorm promotes bfloat16
        assert pre_flight(e)["params"] > 0


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.slow if is_large(p) else ()) for p in FILES],
    ids=lambda p: p.stem,
)
def test_two_steps(path):
    e = load(path, overrides=[])
    source = data_of(e)
    e = dataclasses.replace(e, batch_size=BATCH, accumulate=1, steps=2, eval_batch_size=BATCH)
    with jax.numpy_dtype_promotion("standard"):
        program = compile(scored(make_program(e, steps=2), e))
        state = program.init(jax.random.key(0))
        for step in range(2):
            state, metrics = program.train_step(
                state, source.take((np.arange(BATCH) + step * BATCH) % len(source))
            )
            assert state.live
        metrics = evaluate(program, state, Few(source, 6), e)
    assert np.isfinite(metrics["loss"])
    assert e.task.metric in metrics
