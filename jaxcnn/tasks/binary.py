"""Binary classification by one logit: sigmoid cross-entropy, ranking metrics, a threshold chosen on
validation.

Outputs: logits [B] or [B, 1]. Batch: "label" [B] integers: 0 and 1, or, with `positive`, the labels
of a multi-class set; "label_b" [B] and "label_weight" [B] where two examples were mixed (see
`jaxcnn.tasks.classification`).
"""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics import calibration, classes, ranking
from jaxcnn.tasks.checks import check_label, require_entry
from jaxcnn.tasks.task import BaseTask, Batch, Blind, View, mean_sigmoid


@dataclasses.dataclass(frozen=True)
class BinaryClassification(BaseTask):
    """Is this example positive? `positive` lists the labels that count as such (a "cat detector" on
    ten classes); None: label 1.

    `positive_weight` multiplies the loss of positives: negatives / positives balances a rare class.
    An example is called positive where its probability is at least `threshold`; `calibrate` takes
    it from the validation metrics.
    """

    positive: tuple[int, ...] | None = None
    positive_weight: float = 1.0
    threshold: float = 0.5
    inputs: tuple[str, ...] = ("image",)
    metric: str = "auroc"
    larger_is_better: bool = True

    takes_mixed = True

    def __post_init__(self):
        if self.positive is not None and not (isinstance(self.positive, tuple) and self.positive):
            raise ConfigError(
                f"BinaryClassification: positive is {self.positive!r}; give a tuple of labels "
                "such as (3,), or None for 0/1 labels"
            )
        if isinstance(self.positive_weight, int | float) and self.positive_weight <= 0:
            raise ConfigError(
                f"BinaryClassification: positive_weight is {self.positive_weight}; a weight is "
                "above 0 (1: no weighting)"
            )

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Sigmoid cross-entropy [B] float32 in nats: positive_weight * y * -log p + (1 - y) *
        -log(1 - p); of a mixed row the shares of both labels' losses.
        """
        own = self._loss(_logit(outputs), batch["label"])
        if "label_b" not in batch:
            return own
        share = batch["label_weight"].astype(jnp.float32)
        return share * own + (1.0 - share) * self._loss(_logit(outputs), batch["label_b"])

    def running(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """accuracy: the share of rows on the right side of a probability of 1/2."""
        right = (_logit(outputs) > 0) == self._is_positive(batch["label"])
        return {"accuracy": jnp.mean(right, dtype=jnp.float32)}

    def records(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """score [B] float32 (the logit: probabilities near 1 would round to ties) and label [B]
        int32 (1: positive).
        """
        return {
            "score": _logit(outputs),
            "label": self._is_positive(batch["label"]).astype(jnp.int32),
        }

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """Metrics: auroc and average_precision (NaN if a class is absent); accuracy, precision,
        recall, f1, specificity, balanced_accuracy and mcc at `threshold`; best_threshold, the
        probability at which F1 is highest (`threshold` if there is no positive), and that best_f1,
        which is no held-out result: it was chosen on the rows that it is of; support, the number
        of positives; ece, the calibration error of the probability of being positive, and the rows
        of its bins, reliability (see `jaxcnn.metrics.calibration`).

        Precision is 0 where nothing is called positive.
        """
        label, score = (
            np.asarray(records["label"]).astype(bool),
            np.asarray(records["score"], np.float64),
        )
        probability = np.exp(-np.logaddexp(0.0, -score))
        called = probability >= float(self.threshold)
        hits, num_called, num_positive = (
            int(np.sum(called & label)),
            int(np.sum(called)),
            int(np.sum(label)),
        )
        best_threshold, best_f1 = (
            ranking.best_f1_threshold(label, probability)
            if num_positive
            else (float(self.threshold), 0.0)
        )
        negatives = label.size - num_positive
        correct = hits + negatives - (num_called - hits)
        counts = (
            np.array([correct - hits, hits]),
            np.array([label.size - num_called, num_called]),
            np.array([negatives, num_positive]),
        )
        bins = calibration.reliability(probability, label)
        return {
            "auroc": ranking.auroc(label, score),
            "average_precision": ranking.average_precision(label, score),
            "accuracy": float(np.mean(called == label)) if label.size else 0.0,
            "precision": hits / max(num_called, 1),
            "recall": hits / max(num_positive, 1),
            "f1": 2 * hits / max(num_called + num_positive, 1),
            "specificity": (correct - hits) / max(negatives, 1),
            "balanced_accuracy": classes.averages(*counts)["balanced_accuracy"],
            "mcc": classes.agreement(*counts)["mcc"],
            "threshold": float(self.threshold),
            "best_threshold": best_threshold,
            "best_f1": best_f1,
            "support": num_positive,
            "ece": calibration.expected_calibration_error(bins),
            "reliability": calibration.reliability_table(bins),
        }

    def predict(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """label [B] int32 (1: positive) and probability [B] of being positive."""
        logit = _logit(outputs)
        # by the logits: probabilities near 1 round to ties
        called = logit >= jnp.asarray(calibration.least_logits(self.threshold))
        return {"label": called.astype(jnp.int32), "probability": jax.nn.sigmoid(logit)}

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """The class on whose side of the threshold the probability lies, and "top": both, likelier
        first.
        """
        sides = self._sides(names)
        probability, label = float(row["probability"]), int(row["label"])
        both = [
            {"label": k, "name": sides[k], "probability": p}
            for k, p in ((1, probability), (0, 1 - probability))
        ]
        return {**both[1 - label], "top": sorted(both, key=lambda side: -side["probability"])}

    def explained(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The one logit, of being positive."""
        logit = _logit(outputs)
        return logit[:, None], jnp.zeros(logit.shape, jnp.int32)

    def explained_names(self, *, names: tuple[str, ...]) -> tuple[str, ...]:
        """That of the positive class."""
        return self._sides(names)[1:]

    def blind(self, metrics: dict[str, Any]) -> Blind | None:
        """Any constant probability; for accuracy the more frequent class, always."""
        size, positive = metrics.get("count"), metrics.get("support")
        if not size or positive is None:
            return None
        if self.metric == "accuracy":
            return Blind(max(positive, size - positive) / size, "the more frequent class, always")
        even = {"auroc": 0.5, "average_precision": positive / size}
        # of one class alone the right constant is always right
        even |= {"balanced_accuracy": 0.5 if 0 < positive < size else 1.0, "mcc": 0.0}
        return Blind(even[self.metric], "one score for all") if self.metric in even else None

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for labels that are not 0 and 1 (without `positive`), a wrong dtype or shape,
        and for what `BaseTask` refuses.
        """
        label = np.asarray(require_entry(batch, "label", self))
        try:
            check_label(label, num_classes=2 if self.positive is None else None)
        except DataError as error:
            if self.positive is None and np.issubdtype(label.dtype, np.integer) and label.ndim == 1:
                raise DataError(
                    f"{error}; or say which labels are positive: "
                    "BinaryClassification(positive=(…,))"
                ) from None
            raise
        super().check({name: array for name, array in batch.items() if name != "label"})

    def from_view(self, outputs: Any, view: View) -> Any:
        """The same: a class does not depend on the view."""
        return outputs

    def ensemble(self, outputs: list) -> jax.Array:
        """The logit [B] of the mean of the models' probabilities."""
        return mean_sigmoid([_logit(o) for o in outputs])

    def calibrate(self, metrics: dict[str, Any]) -> Self:
        """This task with the threshold at which the validation metrics had the highest F1."""
        return dataclasses.replace(self, threshold=metrics["best_threshold"])

    def _loss(self, logit: jax.Array, label: jax.Array) -> jax.Array:
        weight = jnp.asarray(self.positive_weight, jnp.float32)
        return jnp.where(
            self._is_positive(label), weight * jax.nn.softplus(-logit), jax.nn.softplus(logit)
        )

    def _is_positive(self, label: jax.Array) -> jax.Array:
        return (
            label == 1
            if self.positive is None
            else jnp.isin(label, jnp.asarray(self.positive, label.dtype))
        )

    def _sides(self, names: tuple[str, ...]) -> tuple[str, str]:
        """What a negative and a positive example are called."""
        if self.positive is None:
            return (names[0], names[1]) if len(names) >= 2 else ("negative", "positive")
        positive = " or ".join(names[k] if k < len(names) else str(k) for k in self.positive)
        return f"not {positive}", positive


def _logit(outputs: jax.Array) -> jax.Array:
    """[B] or [B, 1] -> [B] float32"""
    return (outputs[:, 0] if outputs.ndim == 2 else outputs).astype(jnp.float32)
