"""Dense regression: V numbers at each pixel, such as depth, heat or a density.

Outputs: [B, H, W, V] at the size of the truth. Batch: "value_map" [B, H, W, V] float32;
"value_map_mask" [B, H, W], where present, 1 where the numbers are known: what is unknown counts in
no loss and no metric.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import DataError
from jaxcnn.tasks.regression import Regression, averaged
from jaxcnn.tasks.task import Batch


@dataclasses.dataclass(frozen=True)
class DenseRegression(Regression):
    """`num_values` numbers at each pixel. Fields: see `Regression`.

    The metrics are of all known pixels of all images together. Their sums are taken of standardized
    values in float32: R² has its digits where `mean` and `std` are about those of the data.
    """

    def counts(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """[V] each: known pixels (int32); sums, in the standardized unit, of absolute and squared
        errors, of the truth and its square.
        """
        truth, known = self._truth(outputs, batch)
        known = known & (batch["mask"] > 0)[:, None, None, None]
        # what is unknown or padding may hold NaN
        truth = jnp.where(known, truth, 0.0)
        error = jnp.where(known, outputs.astype(jnp.float32) - truth, 0.0)

        def summed(x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sum(x, axis=(1, 2)), axis=0)

        return {
            "known": jnp.sum(known, axis=(0, 1, 2), dtype=jnp.int32),
            "absolute": summed(jnp.abs(error)),
            "square": summed(jnp.square(error)),
            "truth": summed(truth),
            "truth_square": summed(jnp.square(truth)),
        }

    def records(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """None: sums are enough."""
        return {}

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """rmse, mae and r2 and the lists per value, as of `Regression`; known_pixels [V]."""
        names = ("known", "absolute", "square", "truth", "truth_square")
        columns = [np.asarray(sums[name], np.float64) for name in names]
        rows = []
        for std, n, absolute, square, truth, squares in zip(
            self._moments()[1], *columns, strict=True
        ):
            spread = squares - truth**2 / max(n, 1)
            # float32 sums cannot tell a smaller one from none at all
            spread = spread if spread > 1e-6 * squares else 0.0
            rows.append((int(n), std * absolute, std**2 * square, std**2 * spread))
        return averaged(rows) | {"known_pixels": np.asarray(sums["known"]).tolist()}

    def predict(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """value_map [B, H, W, V] float32 in the values' own unit."""
        return {"value_map": self._restored(outputs)}

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """ "value_map" [H, W, V]; "values", the mean of each over the picture; "image", the first
        value as a grey picture, its least black and its most white.
        """
        value_map = np.asarray(row["value_map"])
        first = value_map[..., :1]
        shade = (first - first.min()) / max(float(np.ptp(first)), 1e-12)
        means = zip(self._names(names), value_map.mean((0, 1)).tolist(), strict=True)
        return {
            "values": [{"name": f"mean {name}", "value": value} for name, value in means],
            "value_map": value_map,
            "image": np.round(255 * shade).astype(np.uint8),
        }

    def explained(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The means of the values over the picture, in their own unit, and the first."""
        values = jnp.mean(self._restored(outputs), axis=(1, 2))
        return values, jnp.zeros(values.shape[0], jnp.int32)

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for maps of another size than their images, another number of values, a mask
        that is 0 everywhere, and for what `BaseTask` refuses.
        """
        self._check(batch, "value_map", (self.num_values,))
        size = np.shape(batch["value_map"])[1:3]
        for name in ("image", "value_map_mask"):
            if name in batch and np.shape(batch[name])[1:3] != size:
                raise DataError(
                    f"value_map is {'x'.join(map(str, size))} but {name} is "
                    f"{'x'.join(map(str, np.shape(batch[name])[1:3]))}; each pixel needs its "
                    "numbers: resize the maps with their images"
                )

    def _truth(self, outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        mask, values = batch.get("value_map_mask"), batch["value_map"]
        if mask is not None and mask.shape == values.shape[:-1]:
            mask = jnp.broadcast_to(mask[..., None], values.shape)
        return self._standardized(outputs, values, mask, "value_map_mask")
