"""The learning-rate finder: where the loss of a quadratic is smallest is known in closed form; what
its schedule is; a run that diverges still has its curve.
"""

import contextlib
import dataclasses
from functools import partial

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core import optimizers
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DivergedError
from jaxcnn.runs.open import open as open_run
from jaxcnn.tasks.task import BaseTask
from tests.recipes.checks import recipe
from tests.tiny import fit, tiny

FINDER = recipe("digits_lr_finder")
CURVATURE = 40.0


class Weight(nn.Module):
    """One number, whatever the input."""

    @nn.compact
    def __call__(self, x, *, train: bool):
        return jnp.broadcast_to(self.param("w", nn.initializers.ones, (1,)), x.shape)


@dataclasses.dataclass(frozen=True)
class Quadratic(BaseTask):
    """CURVATURE / 2 · w², of which gradient descent diverges at rates above 2 / CURVATURE."""

    inputs: tuple[str, ...] = ("x",)
    metric: str = "loss"
    larger_is_better: bool = False

    def loss(self, outputs, batch):
        return CURVATURE / 2 * jnp.square(outputs)

    def statistics(self, outputs, batch):
        return {"loss": jnp.where(batch["mask"] > 0, self.loss(outputs, batch), 0.0).sum()}

    def summarize(self, sums, records):
        return {"loss": float(sums["loss"])}


def quadratic(**options):
    data = Arrays(train={"x": np.zeros(16, np.float32)}, eval={"x": np.zeros(2, np.float32)})
    plain = {"augment": (), "ema": None, "clip_norm": None}
    e = tiny(model=Weight(), task=Quadratic(), data=data, **plain)
    e = dataclasses.replace(e, optimizer=partial(optimizers.sgd, learning_rate=0.1))
    return FINDER.range_test(e, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finder") / "run"
    fit(quadratic(lowest=1e-3, highest=0.5, steps=40), folder)
    return open_run(folder)


def test_the_rate_rises_by_the_same_factor_from_lowest_to_highest(run):
    rates = [r["learning_rate"] for r in run.history if r["kind"] == "train"]
    np.testing.assert_allclose(rates, 1e-3 * 500 ** (np.arange(40) / 40), rtol=1e-4)


def test_the_smallest_loss_is_where_gradient_descent_turns_unstable(run):
    """|1 - rate · curvature| is less than 1 up to 2 / curvature: the loss falls until there."""
    factor = 500 ** (1 / 40)
    found = 10 * FINDER.suggest(run.history, window=1)
    assert 1 <= found / (2 / CURVATURE) * (1 + 1e-5) <= factor * (1 + 2e-5)


def test_the_average_is_over_the_steps_around(run):
    losses = np.array([r["loss"] for r in run.history if r["kind"] == "train"])
    curve = FINDER.averaged(run.history, window=5)
    np.testing.assert_allclose(
        [loss for _, loss in curve], np.convolve(losses, np.ones(5) / 5, "valid")
    )
    assert curve[0][0] == [r for r in run.history if r["kind"] == "train"][2]["learning_rate"]


def test_a_run_that_diverges_has_its_curve(tmp_path):
    with contextlib.suppress(DivergedError):
        fit(quadratic(lowest=1e-3, highest=1e4, steps=60), tmp_path / "run")
    found = FINDER.suggest(open_run(tmp_path / "run").history, window=1)
    assert 0.1 / CURVATURE < found < 1 / CURVATURE


def test_the_picture(run, tmp_path):
    FINDER.plot(run.history, tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_an_optimizer_without_a_rate_is_refused():
    with pytest.raises(ConfigError, match="the finder sets its learning_rate"):
        FINDER.range_test(tiny(optimizer=partial(optax.scale, -0.1)))
