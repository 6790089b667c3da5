"""Regression of numbers and of maps of numbers: metrics against scikit-learn and a loop, losses
against PyTorch, what is not known, and what is refused.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.tasks.dense_regression import DenseRegression
from jaxcnn.tasks.regression import Regression, moments
from tests.trials import ROWS, Trial, evaluate, normal, rows_of, to_jax

MEAN, STD = (30.0, -2.0, 0.5), (10.0, 3.0, 0.1)


def values(*shape, known=1.0, mean=(0.0,), std=(1.0,)):
    def batch(generator, rows):
        truth = generator.normal(size=(rows, *shape)) * np.asarray(std) + np.asarray(mean)
        name = "values" if len(shape) == 1 else "value_map"
        size = truth.shape if name == "values" else truth.shape[:-1]
        mask = (generator.random(size) < known).astype(np.float32)
        mask.reshape(-1)[:6] = 1
        entries = {name: truth.astype(np.float32)}
        return entries if known == 1 else entries | {f"{name}_mask": mask}

    return batch


def standardized(name, mean=MEAN, std=STD):
    return lambda batch: ((batch[name] - np.asarray(mean)) / np.asarray(std)).astype(np.float32)


BEST = {"rmse": 0, "mae": 0, "r2": 1, "loss": 0}
SMALL = (4, 5, 2)

TRIALS = [
    Trial("regression", Regression(), values(1), normal(1), lambda batch: batch["values"], BEST),
    Trial(
        "regression standardized",
        Regression(num_values=3, loss_name="huber", mean=MEAN, std=STD),
        values(3, known=0.8, mean=MEAN, std=STD),
        normal(3),
        standardized("values"),
        {"r2": 1, "loss": 0},
    ),
    Trial(
        "dense regression",
        DenseRegression(num_values=2, loss_name="mae"),
        values(*SMALL, known=0.7),
        normal(*SMALL),
        lambda batch: batch["value_map"],
        BEST,
    ),
    Trial(
        "dense regression standardized",
        DenseRegression(num_values=2, mean=MEAN[:2], std=STD[:2]),
        values(*SMALL, mean=MEAN[:2], std=STD[:2]),
        normal(*SMALL),
        standardized("value_map", MEAN[:2], STD[:2]),
        {"r2": 1, "loss": 0},
    ),
]


def test_metrics_equal_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    task, generator = Regression(3, mean=MEAN, std=STD), np.random.default_rng(0)
    truth = values(3, mean=MEAN, std=STD)(generator, 200)["values"]
    outputs = standardized("values")({"values": truth}) + 0.5 * normal(3)(generator, 200)
    batch = to_jax({"values": truth, "mask": np.ones(200, np.float32)})
    predicted = np.asarray(task.predict(jnp.asarray(outputs))["values"], np.float64)
    summary = task.summarize(*evaluate(task, jnp.asarray(outputs), batch))
    pairs = {
        "mae": metrics.mean_absolute_error,
        "rmse": metrics.root_mean_squared_error,
        "r2": metrics.r2_score,
    }
    for name, score in pairs.items():
        each = score(truth.astype(np.float64), predicted, multioutput="raw_values")
        np.testing.assert_allclose(summary[f"per_value_{name}"], each, rtol=1e-6)
        assert summary[name] == pytest.approx(each.mean(), rel=1e-6)


def test_dense_metrics_are_those_of_the_known_pixels_as_rows():
    """A map is a table of its known pixels."""
    dense = DenseRegression(2, mean=MEAN[:2], std=STD[:2])
    generator = np.random.default_rng(0)
    batch = values(*SMALL, known=0.6, mean=MEAN[:2], std=STD[:2])(generator, ROWS)
    outputs = normal(*SMALL)(generator, ROWS)
    known = batch["value_map_mask"] > 0
    flat = {"values": jnp.asarray(batch["value_map"][known]), "mask": jnp.ones(known.sum())}
    table = Regression(2, mean=MEAN[:2], std=STD[:2])
    expected = table.summarize(*evaluate(table, jnp.asarray(outputs[known]), flat))
    batch = to_jax(batch | {"mask": np.ones(ROWS, np.float32)})
    summary = dense.summarize(*evaluate(dense, jnp.asarray(outputs), batch))
    assert summary["known_pixels"] == [known.sum()] * 2
    for name in ("mae", "rmse", "r2"):
        assert summary[name] == pytest.approx(expected[name], rel=1e-5)
        np.testing.assert_allclose(
            summary[f"per_value_{name}"], expected[f"per_value_{name}"], rtol=1e-5
        )


@pytest.mark.parametrize("loss_name", ["mse", "mae", "huber"])
def test_losses_equal_torch_in_the_standardized_unit(loss_name):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    task = Regression(3, loss_name=loss_name, delta=0.7, mean=MEAN, std=STD)
    generator = np.random.default_rng(0)
    truth, outputs = values(3, mean=MEAN, std=STD)(generator, ROWS), normal(3)(generator, ROWS)
    pair = torch.tensor(outputs), torch.tensor(standardized("values")(truth))
    theirs = {
        "mse": lambda: functional.mse_loss(*pair, reduction="none"),
        "mae": lambda: functional.l1_loss(*pair, reduction="none"),
        "huber": lambda: functional.huber_loss(*pair, reduction="none", delta=0.7),
    }[loss_name]()
    ours = task.loss(jnp.asarray(outputs), to_jax(truth))
    np.testing.assert_allclose(ours, theirs.numpy().mean(1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trial", TRIALS[1:3], ids=["values", "maps"])
def test_what_is_not_known_counts_nowhere(trial):
    outputs, batch = rows_of(trial)
    name = "values" if "values" in batch else "value_map"
    known = batch[f"{name}_mask"] > 0
    known = known if name == "values" else known[..., None]
    summary = trial.task.summarize(*evaluate(trial.task, outputs, batch))
    for value in (1e9, np.nan):
        other = batch | {name: jnp.where(known, batch[name], value)}
        assert trial.task.summarize(*evaluate(trial.task, outputs, other)) == summary
        gradient = jax.grad(lambda o, b=other: jnp.sum(trial.task.loss(o, b)))(outputs)
        assert bool(jnp.isfinite(gradient).all())
        assert bool((jnp.where(known, 0, gradient) == 0).all())


def test_values_that_are_never_known_or_never_vary_have_no_number():
    task = Regression(2)
    batch = {
        "values": jnp.asarray([[1.0, 0], [1, 0]]),
        "values_mask": jnp.asarray([[1.0, 0], [1, 0]]),
        "mask": jnp.ones(2),
    }
    summary = task.summarize(*evaluate(task, jnp.asarray([[2.0, 0], [2, 0]]), batch))
    assert summary["per_value_rmse"] == [1.0, None]
    assert summary["rmse"] == 1.0
    assert summary["r2"] is None
    dense = DenseRegression(1)
    batch = {"value_map": jnp.full((2, 3, 3, 1), 7.3), "mask": jnp.ones(2)}
    assert dense.summarize(*evaluate(dense, jnp.zeros((2, 3, 3, 1)), batch))["r2"] is None


def test_moments_standardize_what_is_known():
    truth = values(4, 5, 3, mean=MEAN, std=STD)(np.random.default_rng(0), 50)["value_map"]
    mean, std = moments(truth)
    np.testing.assert_allclose(mean, truth.reshape(-1, 3).mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, truth.reshape(-1, 3).std(0), rtol=1e-5)
    mask = np.arange(50) < 20
    mean, _ = moments(truth, mask=mask[:, None, None, None])
    np.testing.assert_allclose(mean, truth[:20].reshape(-1, 3).mean(0), rtol=1e-5)
    with pytest.raises(DataError, match="value 0 is never known"):
        moments(truth, mask=np.zeros(truth.shape))


def test_numbers_are_told_by_name():
    task = Regression(2, mean=(10.0, 0.0), std=(2.0, 1.0), names=("age", "weight"))
    predicted = task.predict(jnp.asarray([[1.0, 0.5]]))
    row = {name: np.asarray(x)[0] for name, x in predicted.items()}
    told = [{"name": "age", "value": 12.0}, {"name": "weight", "value": 0.5}]
    assert task.describe(row, names=())["values"] == told
    data = [one["name"] for one in Regression(2).describe(row, names=("a", "b"))["values"]]
    assert data == ["a", "b"]
    numbered = [one["name"] for one in Regression(2).describe(row, names=("a",))["values"]]
    assert numbered == ["value 0", "value 1"]


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Regression(0), "num_values is 0"),
        (lambda: Regression(loss_name="rmse"), "loss_name is 'rmse'"),
        (lambda: Regression(delta=0.0), "delta is 0.0"),
        (lambda: Regression(2, mean=(1.0,)), "mean is .*tuple of 2"),
        (lambda: Regression(1, std=(0.0,)), "must be above 0"),
        (lambda: DenseRegression(2, names=("a",)), "DenseRegression: names is"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


V, M = np.zeros((4, 2), np.float32), np.zeros((4, 3, 3, 1), np.float32)


@pytest.mark.parametrize(
    "task, batch, says",
    [
        (Regression(), {"label": np.zeros(4, np.int32)}, "Regression needs 'values'"),
        (Regression(3), {"values": V}, "num_values=3"),
        (Regression(2), {"values": V + np.nan}, "must be finite"),
        (Regression(2), {"values": V, "values_mask": V}, "values_mask is 0 everywhere"),
        (DenseRegression(), {"value_map": M[..., 0]}, "value_map"),
        (
            DenseRegression(),
            {"value_map": M, "image": np.zeros((4, 6, 6, 1), np.uint8)},
            "value_map is 3x3 but image is 6x6",
        ),
    ],
)
def test_bad_data_is_refused(task, batch, says):
    with pytest.raises(DataError, match=says):
        task.check(batch)


@pytest.mark.parametrize("shape", [(4, 3), (4,)])
def test_a_model_of_another_shape_is_refused(shape):
    with pytest.raises(ConfigError, match="the model gives"):
        Regression(2).loss(jnp.zeros(shape), {"values": jnp.asarray(V)})
