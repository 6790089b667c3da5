"""Regression: V numbers for each example.

Outputs: [B, V]. Batch: "values" [B, V] float32; "values_mask" [B, V], where present, 1 where the
number is known: what is unknown counts in no loss and no metric. For numbers at each pixel see
`jaxcnn.tasks.dense_regression`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops import losses
from jaxcnn.tasks.checks import require_choice, require_entry, require_number
from jaxcnn.tasks.task import BaseTask, Batch, Blind, mean_of

LOSSES = ("mse", "mae", "huber")


@dataclasses.dataclass(frozen=True)
class Regression(BaseTask):
    """`num_values` numbers for each example.

    The loss of a row is the mean over its known numbers of the squared error ("mse"), the absolute
    error ("mae") or Huber's ("huber", which is half the square up to `delta`, then a line).
    `mean` and `std`, one each a value, standardize: the model then gives (value - mean) / std, and
    the loss is in that unit; predictions and metrics stay in the values' own. `moments` takes them
    from the training split. `names` are the values' names (default: those of the data, where there
    are as many).
    """

    num_values: int = 1
    loss_name: str = "mse"
    delta: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("image",)
    metric: str = "rmse"
    larger_is_better: bool = False

    def __post_init__(self):
        own = type(self).__name__
        if self.num_values < 1:
            raise ConfigError(f"{own}: num_values is {self.num_values}; it is at least 1")
        require_choice(self, "loss_name", LOSSES)
        require_number(self, "delta", above=True)
        for name in ("mean", "std", "names"):
            given = getattr(self, name)
            if not isinstance(given, tuple) or len(given) not in (0, self.num_values):
                raise ConfigError(
                    f"{own}: {name} is {given!r}; give a tuple of {self.num_values}, one a value, "
                    "or ()"
                )
        if any(isinstance(s, int | float) and not 0 < s < float("inf") for s in self.std):
            raise ConfigError(
                f"{own}: std is {self.std}; each must be above 0: a value that never changes "
                "needs no model"
            )

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """The mean over the known numbers [B] float32; 0 where none is known."""
        truth, known = self._truth(outputs, batch)
        # what is unknown or padding may hold NaN
        difference = jnp.where(known, outputs.astype(jnp.float32) - truth, 0.0)
        each = {
            "mse": jnp.square,
            "mae": jnp.abs,
            "huber": lambda x: losses.huber(x, delta=self.delta),
        }[self.loss_name](difference)
        axes = tuple(range(1, each.ndim))
        return jnp.sum(each, axis=axes) / jnp.maximum(
            jnp.sum(known, axis=axes, dtype=jnp.float32), 1.0
        )

    def records(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """predicted and values [B, V] float32 in the values' own unit, and known [B, V] bool."""
        _, known = self._truth(outputs, batch)
        return {"predicted": self._restored(outputs), "values": batch["values"], "known": known}

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """rmse, mae and r2, the means over the values of per_value_rmse, per_value_mae and
        per_value_r2 [V] (as scikit-learn's multioutput="uniform_average"), in the values' own
        units. None for a value that is never known; R² is None too where the truth never varies.
        """
        truth, predicted = (np.asarray(records[n], np.float64) for n in ("values", "predicted"))
        rows = []
        for k in range(self.num_values):
            known = np.asarray(records["known"])[:, k]
            y, error = truth[known, k], (predicted - truth)[known, k]
            spread = float(np.sum((y - y.mean()) ** 2)) if y.size else 0.0
            rows.append((y.size, float(np.abs(error).sum()), float((error**2).sum()), spread))
        return averaged(rows)

    def predict(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """values [B, V] float32 in their own unit."""
        return {"values": self._restored(outputs)}

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """ "values": [{"name", "value"}, …]"""
        named = zip(self._names(names), np.asarray(row["values"]).tolist(), strict=True)
        return {"values": [{"name": name, "value": value} for name, value in named]}

    def blind(self, metrics: dict[str, Any]) -> Blind | None:
        """The mean of each value over the evaluated examples, always; for rmse and r2."""
        if self.metric == "r2":
            return Blind(0.0, "the mean of each value, always")
        columns = (metrics.get("per_value_rmse") or (), metrics.get("per_value_r2") or ())
        pairs = list(zip(*columns, strict=True)) if len(columns[0]) == len(columns[1]) else []
        known = [(rmse, r2) for rmse, r2 in pairs if rmse is not None]
        # R^2 is 1 - (rmse / std)^2, so that the two give the std, which is the rmse of the mean
        if self.metric != "rmse" or not known or any(r2 is None or r2 >= 1 for _, r2 in known):
            return None
        spreads = [rmse / (1 - r2) ** 0.5 for rmse, r2 in known]
        return Blind(sum(spreads) / len(spreads), "the mean of each value, always")

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for another number of values than `num_values`, a mask of another shape or that
        is 0 everywhere, and for what `BaseTask` refuses (values that are not finite, …).
        """
        self._check(batch, "values", (self.num_values,))

    def explained(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The values in their own unit, and the first."""
        values = self._restored(outputs)
        return values, jnp.zeros(values.shape[0], jnp.int32)

    def explained_names(self, *, names: tuple[str, ...]) -> tuple[str, ...]:
        """The values' names."""
        return self._names(names)

    def ensemble(self, outputs: list) -> jax.Array:
        """The mean of the models' numbers."""
        return mean_of(outputs)

    def _check(self, batch: dict[str, Any], name: str, sizes: tuple[int, ...]) -> None:
        shape = np.shape(require_entry(batch, name, self))
        if shape[-len(sizes) :] != sizes:
            raise DataError(
                f"{name} has shape {shape}; with num_values={self.num_values} its last axis is "
                f"{self.num_values}. Correct num_values of the task and the model, or the data"
            )
        super().check(batch)
        mask = batch.get(f"{name}_mask")
        if mask is not None and np.size(mask) and not (np.asarray(mask) > 0).any():
            raise DataError(
                f"{name}_mask is 0 everywhere: nothing is known of these {shape[0]} examples, and "
                "nothing can be learned from them. 1 marks what is known"
            )

    def _truth(self, outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The standardized truth and where it is known, both of the outputs' shape."""
        return self._standardized(outputs, batch["values"], batch.get("values_mask"), "values_mask")

    def _standardized(
        self, outputs: jax.Array, values: jax.Array, mask: jax.Array | None, name: str
    ) -> tuple[jax.Array, jax.Array]:
        if outputs.shape != values.shape:
            raise ConfigError(
                f"the model gives {list(outputs.shape)}, the values are {list(values.shape)}; it "
                f"must give num_values={self.num_values} numbers in the same places"
            )
        if mask is not None and mask.shape != values.shape:
            raise ConfigError(f"{name} is {list(mask.shape)}, the values are {list(values.shape)}")
        mean, std = self._as_last_axis(values)
        known = jnp.ones(values.shape, bool) if mask is None else mask > 0
        return (values.astype(jnp.float32) - mean) / std, known

    def _restored(self, outputs: jax.Array) -> jax.Array:
        mean, std = self._as_last_axis(outputs)
        return outputs.astype(jnp.float32) * std + mean

    def _as_last_axis(self, array: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and std with as many axes as the array, the last of V."""
        shape = (*[1] * (array.ndim - 1), self.num_values)
        mean, std = (jnp.asarray(x, jnp.float32).reshape(shape) for x in self._moments())
        return mean, std

    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.mean or (0.0,) * self.num_values, self.std or (1.0,) * self.num_values

    def _names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if self.names or len(names) == self.num_values:
            return self.names or names
        return tuple(f"value {k}" for k in range(self.num_values))


def averaged(rows: list[tuple[int, float, float, float]]) -> dict[str, Any]:
    """Metrics from (number known, sum of absolute errors, of squared errors, of squared distances
    of the truth to its mean) of each value.
    """
    columns: dict[str, list[float | None]] = {
        "rmse": [(square / n) ** 0.5 if n else None for n, _, square, _ in rows],
        "mae": [absolute / n if n else None for n, absolute, _, _ in rows],
        "r2": [1 - square / spread if spread > 0 else None for _, _, square, spread in rows],
    }
    means = {}
    for name, column in columns.items():
        known = [x for x in column if x is not None]
        means[name] = sum(known) / len(known) if known else None
    return means | {f"per_value_{name}": column for name, column in columns.items()}


def moments(
    values: np.ndarray, *, mask: np.ndarray | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of each value over all other axes of values [..., V], where known: for `mean` and
    `std` of a task, from the training split.

    Errors: DataError for a value that is never known.
    """
    x = np.asarray(values, np.float64)
    known = (
        np.ones(x.shape, bool) if mask is None else np.broadcast_to(np.asarray(mask) > 0, x.shape)
    )
    axes = tuple(range(x.ndim - 1))
    count = known.sum(axes)
    if (count == 0).any():
        raise DataError(f"moments: value {int(np.argmin(count))} is never known")
    mean = np.where(known, x, 0).sum(axes) / count
    std = np.sqrt((np.where(known, x - mean, 0) ** 2).sum(axes) / count)
    return tuple(mean.tolist()), tuple(std.tolist())
