"""Multi-label classification: any number of the K classes for each example, one sigmoid each.

Outputs: logits [B, K]. Batch: "labels" [B, K] float32, 1 for each class that the example has (or
between 0 and 1 where labels are mixed); "labels_mask" [B, K], where present, 1 where it is known
whether it has the class: what is unknown counts in no loss and no metric.
"""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics import calibration, classes, ranking
from jaxcnn.ops import losses
from jaxcnn.tasks.checks import require_choice, require_entry, require_number, require_weights
from jaxcnn.tasks.task import BaseTask, Batch, Blind, best_of, by_probability, mean_sigmoid

LOSSES = ("bce", "focal", "asymmetric")
BLIND = {  # the best answer by each metric that does not look
    "mAP": "one score for each label",
    "micro_f1": "the most frequent labels",
    "macro_f1": "every label",
    "subset_accuracy": "the most frequent set of labels",
    "hamming_loss": "the labels that most examples have",
}


@dataclasses.dataclass(frozen=True)
class MultiLabel(BaseTask):
    """Which of `num_classes` labels has this example?

    The loss of a row is the mean over its known classes of what `loss_name` says: "bce", binary
    cross-entropy; "focal" with `focus` (Lin et al., "Focal loss for dense object detection", 2017);
    "asymmetric" with `focus_negative` and `margin` (Ridnik et al., "Asymmetric loss for multi-label
    classification", 2021; the defaults are theirs); see `jaxcnn.ops.losses`. `class_weights`, one a
    class, multiply its terms.
    A class is called where its probability is at least its threshold: `thresholds` holds one a
    class, () means 0.5 for all; `calibrate` takes them from the validation metrics.
    """

    num_classes: int
    loss_name: str = "bce"
    focus: float = 2.0
    focus_negative: float = 4.0
    margin: float = 0.05
    class_weights: tuple[float, ...] | None = None
    thresholds: tuple[float, ...] = ()
    inputs: tuple[str, ...] = ("image",)
    metric: str = "mAP"
    larger_is_better: bool = True

    def __post_init__(self):
        if self.num_classes < 1:
            raise ConfigError(
                f"MultiLabel: num_classes is {self.num_classes}; it counts classes and is at least "
                "1"
            )
        require_choice(self, "loss_name", LOSSES)
        for name in ("focus", "focus_negative", "margin"):
            require_number(self, name)
        require_weights(self, "class_weights", self.num_classes)
        if self.thresholds and len(self.thresholds) != self.num_classes:
            raise ConfigError(
                f"MultiLabel: {len(self.thresholds)} thresholds for {self.num_classes} classes; "
                "give one a class, or () for 0.5"
            )

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """The mean over the known classes [B] float32; 0 where none is known."""
        known = self._known(batch)
        logits = self._logits(outputs, batch)
        # what is unknown or padding may hold NaN
        target = jnp.where(known, batch["labels"].astype(jnp.float32), 0.0)
        if self.loss_name == "focal":
            each = losses.focal(logits, target, focus=self.focus)
        elif self.loss_name == "asymmetric":
            each = losses.asymmetric(
                logits, target, focus_negative=self.focus_negative, margin=self.margin
            )
        else:
            each = losses.sigmoid_cross_entropy(logits, target)
        if self.class_weights is not None:
            each = each * jnp.asarray(self.class_weights, jnp.float32)[None]
        total = jnp.sum(jnp.where(known, each, 0.0), axis=-1)
        return total / jnp.maximum(jnp.sum(known, axis=-1, dtype=jnp.float32), 1.0)

    def running(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """accuracy: the share of the known answers on the right side of a probability of 1/2."""
        known = self._known(batch)
        right = known & ((outputs > 0) == (batch["labels"] > 0.5))
        answers = jnp.maximum(jnp.sum(known, dtype=jnp.float32), 1.0)
        return {"accuracy": jnp.sum(right, dtype=jnp.float32) / answers}

    def records(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """score [B, K] float32 (the logits), labels and known [B, K] bool."""
        return {
            "score": self._logits(outputs, batch),
            "labels": batch["labels"] > 0.5,
            "known": self._known(batch),
        }

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """mAP, the mean of per_class_ap over the classes that have examples (NaN if none has);
        micro_f1 of all answers together; macro_f1, macro_precision, macro_recall, the means over
        the classes that occur; subset_accuracy, the share of examples all of whose known labels are
        right; hamming_loss, the share of wrong answers; ece, the calibration error of all answers'
        probabilities; per_class_ap, per_class_recall, per_class_precision, per_class_f1,
        per_class_support, thresholds and best_thresholds, those of each class's highest F1 (its
        threshold as it is for a class without examples), lists of K; best_macro_f1,
        theirs, which is no held-out result; blind_<metric>, see `blind`.
        """
        labels, known = (np.asarray(records[name]).astype(bool) for name in ("labels", "known"))
        probability = np.exp(-np.logaddexp(0.0, -np.asarray(records["score"], np.float64)))
        thresholds = np.asarray(self._thresholds())
        called = known & (probability >= thresholds)
        positive = known & labels
        counts = [x.sum(axis=0) for x in (called & positive, called, positive)]
        wrong, rows = known & (called != labels), known.any(axis=1)
        precisions = [
            ranking.average_precision(labels[known[:, k], k], records["score"][known[:, k], k])
            for k in range(self.num_classes)
        ]
        real = [p for p in precisions if not np.isnan(p)]
        best = self._best_thresholds(labels, known, probability)
        called_best = known & (probability >= np.asarray(best))
        best_counts = [x.sum(axis=0) for x in (called_best & positive, called_best, positive)]
        return {
            "mAP": float(np.mean(real)) if real else float("nan"),
            "micro_f1": 2 * int(counts[0].sum()) / max(int(counts[1].sum() + counts[2].sum()), 1),
            **{k: v for k, v in classes.averages(*counts).items() if k != "balanced_accuracy"},
            "subset_accuracy": float(np.mean(~wrong[rows].any(axis=1))) if rows.any() else 0.0,
            "hamming_loss": int(wrong.sum()) / max(int(known.sum()), 1),
            "ece": calibration.expected_calibration_error(
                calibration.reliability(probability[known], labels[known])
            ),
            "best_macro_f1": classes.averages(*best_counts)["macro_f1"],
            "per_class_ap": [None if np.isnan(p) else p for p in precisions],
            **classes.per_class(*counts),
            "thresholds": thresholds.tolist(),
            "best_thresholds": best,
            **self._blind(positive, known),
        }

    def blind(self, metrics: dict[str, Any]) -> Blind | None:
        """What labels score that are the same for every example, by the evaluated examples' own
        frequencies: the best for each of the metrics of BLIND; of others none is known.
        """
        value = metrics.get(f"blind_{self.metric}")
        return None if value is None else Blind(value, f"{BLIND[self.metric]}, always")

    def predict(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """labels [B, K] int32, 1 for each class that is called, and probabilities [B, K]."""
        logits = outputs.astype(jnp.float32)
        # by the logits: probabilities near 1 round to ties
        called = logits >= jnp.asarray(calibration.least_logits(self._thresholds()))[None]
        return {"labels": called.astype(jnp.int32), "probabilities": jax.nn.sigmoid(logits)}

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """ "labels": all that are called, likeliest first; none at all is an empty list."""
        called = np.asarray(row["labels"])
        every = by_probability(row["probabilities"], names=names)
        return {"labels": [one for one in every if called[one["label"]]]}

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for labels of another number of classes, for known ones that are all missing,
        and for what `BaseTask` refuses (labels outside [0, 1], …).
        """
        shape = np.shape(require_entry(batch, "labels", self))
        if len(shape) != 2 or shape[1] != self.num_classes:
            raise DataError(
                f"labels has shape {shape}; expected a number for each of the {self.num_classes} "
                "classes, [B, K]. Lists of class numbers become rows of 0 and 1 (multi-hot)"
            )
        super().check(batch)
        if "labels_mask" in batch and np.size(batch["labels_mask"]):
            if np.shape(batch["labels_mask"]) != shape:
                raise DataError(
                    f"labels_mask has shape {np.shape(batch['labels_mask'])}; it must be that of "
                    f"labels, {shape}"
                )
            if not (np.asarray(batch["labels_mask"]) > 0).any():
                raise DataError(
                    f"labels_mask is 0 everywhere: nothing is known of these {shape[0]} examples, "
                    "and nothing can be learned from them. 1 marks what is known"
                )

    def explained(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The logits, and the largest."""
        return best_of(outputs)

    def ensemble(self, outputs: list) -> jax.Array:
        """Logits [B, K] of the mean of the models' probabilities."""
        return mean_sigmoid(outputs)

    def calibrate(self, metrics: dict[str, Any]) -> Self:
        """This task with the thresholds of the validation metrics' highest F1 of each class."""
        return dataclasses.replace(self, thresholds=tuple(metrics["best_thresholds"]))

    def _thresholds(self) -> tuple[float, ...]:
        return self.thresholds or (0.5,) * self.num_classes

    def _logits(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        if outputs.shape != batch["labels"].shape:
            raise ConfigError(
                f"the model gives {list(outputs.shape)} and the labels are "
                f"{list(batch['labels'].shape)}; it must give a logit for each of the "
                f"{self.num_classes} classes"
            )
        return outputs.astype(jnp.float32)

    def _known(self, batch: Batch) -> jax.Array:
        """[B, K] bool"""
        if "labels_mask" not in batch:
            return jnp.ones(batch["labels"].shape, bool)
        return batch["labels_mask"] > 0

    def _blind(self, positive: np.ndarray, known: np.ndarray) -> dict[str, float]:
        """blind_<metric> of the task's metric from who has which label, and whether that is known,
        [N, K] bool each; {} where it does not exist.
        """
        has, seen = positive.sum(0), known.sum(0)
        if self.metric not in BLIND or not has.any():
            return {}
        rate = has / np.maximum(seen, 1)
        if self.metric == "mAP":
            value = rate[has > 0].mean()
        elif self.metric == "micro_f1":  # it is best to call the most frequent ones, so many
            order = np.argsort(-rate, kind="stable")
            called, hits = seen[order].cumsum(), has[order].cumsum()
            value = (2 * hits / (called + has.sum())).max()
        elif self.metric == "macro_f1":  # of what has no label there is nothing to call
            value = classes.averages(has, np.where(has > 0, seen, 0), has)["macro_f1"]
        elif self.metric == "subset_accuracy":
            rows = known.any(axis=1)
            sets, counts = np.unique(positive[rows], axis=0, return_counts=True)
            likely = sets[counts.argmax()]
            value = (~known[rows] | (positive[rows] == likely)).all(axis=1).mean()
        else:
            value = np.minimum(has, seen - has).sum() / max(seen.sum(), 1)
        return {f"blind_{self.metric}": float(value)}

    def _best_thresholds(
        self, labels: np.ndarray, known: np.ndarray, probability: np.ndarray
    ) -> list[float]:
        best = list(self._thresholds())
        for k in range(self.num_classes):
            rows = known[:, k]
            if labels[rows, k].any():
                best[k], _ = ranking.best_f1_threshold(labels[rows, k], probability[rows, k])
        return best
