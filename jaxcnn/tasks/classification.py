"""Multi-class classification: cross-entropy and other losses, accuracy, a table of the classes,
calibration.

Outputs: logits [B, K], or in training a tuple (logits, *auxiliary logits), each [B, K]. Batch:
    "label" [B] integers in [0, K);
"label_b" [B] and "label_weight" [B] in [0, 1] where two examples were mixed (mixup, cutmix): the
target is then label_weight parts `label` and 1 - label_weight parts `label_b`.
"""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from jaxcnn.errors import ConfigError
from jaxcnn.metrics import calibration, classes
from jaxcnn.ops import losses
from jaxcnn.tasks.checks import (
    check_label,
    require_choice,
    require_entry,
    require_number,
    require_weights,
)
from jaxcnn.tasks.task import (
    BaseTask,
    Batch,
    Blind,
    View,
    best_of,
    by_probability,
    count,
    mean_sigmoid,
    mean_softmax,
    total,
)

LOSSES = ("cross_entropy", "focal", "bce", "asymmetric")
ONE_AGAINST_ALL = ("bce", "asymmetric")  # K yes-or-no questions

# above, the K x K matrix is left out: nobody reads it, and ImageNet's would add 4 MB to each
# evaluation
MAX_CONFUSION_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class Classification(BaseTask):
    """One of `num_classes` labels for each example.

    `loss_name`, of a row with the target t [K] (one-hot, smoothed, mixed):
        "cross_entropy" of the softmax;
        "focal": cross-entropy in which each class counts by (1 - p)^focus, so that what is sure
            already counts less (Lin et al., "Focal loss for dense object detection", 2017, of the
            softmax instead of a sigmoid);
        "bce": the mean over the classes of K binary cross-entropies, one against all (Wightman et
            al., "ResNet strikes back", 2021, section 2.1);
        "asymmetric": as "bce", easy negatives counting less, by `focus_negative` and `margin`
            (see `jaxcnn.ops.losses.asymmetric`).
    Probabilities are softmaxes, of the last two sigmoids, which need not sum to 1.
    `class_weights`, one a class, multiply the loss of its rows (of a mixed row, by its shares):
    `jaxcnn.metrics.classes.balanced_weights` makes them of the labels of the training split.
    `label_smoothing` in [0, 1) moves that share of the target evenly to all classes (Szegedy et
    al., "Rethinking the Inception architecture for computer vision", 2016, section 7).
    `rubbish_penalty` j adds a class of penalty j that stands for everything that is none of the
    classes: LeCun et al., "Gradient-based learning applied to document recognition", 1998, equation
    9, if the logits are minus the RBF penalties; probabilities then sum to less than 1.
    `auxiliary_weight` weighs the loss of each auxiliary classifier (Szegedy et al.,
    "Going deeper with convolutions", 2015, section 5: 0.3). `top` is the k of top-k accuracy and of
    the classes that `predict` lists; with K <= k classes the metric is top-(K-1) accuracy.
    `temperature` divides the logits in predictions and in the metrics nll and ece, never in the
    loss; with `calibrated`, it is chosen on validation (Guo et al., "On calibration of modern
    neural networks", 2017, section 4.2), as a threshold is: for predictions and for other splits.
    """

    num_classes: int
    label_smoothing: float = 0.0
    rubbish_penalty: float | None = None
    auxiliary_weight: float = 0.3
    top: int = 5
    inputs: tuple[str, ...] = ("image",)
    metric: str = "accuracy"
    larger_is_better: bool = True
    loss_name: str = "cross_entropy"
    focus: float = 2.0
    focus_negative: float = 4.0
    margin: float = 0.05
    class_weights: tuple[float, ...] | None = None
    temperature: float = 1.0
    calibrated: bool = False

    takes_mixed = True

    def __post_init__(self):
        if self.num_classes < 2:
            raise ConfigError(
                f"Classification: num_classes is {self.num_classes}; a choice needs at least 2 "
                "(one logit: BinaryClassification)"
            )
        if self.top < 1:
            raise ConfigError(
                f"Classification: top is {self.top}; it counts classes and is at least 1"
            )
        if isinstance(self.label_smoothing, int | float) and not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"Classification: label_smoothing is {self.label_smoothing}; it is a share in "
                "[0, 1)"
            )
        require_choice(self, "loss_name", LOSSES)
        for name in ("focus", "focus_negative", "margin"):
            require_number(self, name)
        require_number(self, "temperature", above=True)
        require_weights(self, "class_weights", self.num_classes)
        tempered = isinstance(self.temperature, int | float) and self.temperature != 1
        if self.rubbish_penalty is not None and (
            self.loss_name != "cross_entropy" or self.calibrated or tempered
        ):
            raise ConfigError(
                "Classification: rubbish_penalty belongs to the cross-entropy of penalties as they "
                f"are; leave loss_name ({self.loss_name!r}), temperature and calibrated as they are"
            )

    def loss(self, outputs: Any, batch: Batch) -> jax.Array:
        """The loss [B] float32 that `loss_name` chose, plus the weighted losses of auxiliary
        logits.
        """
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._loss(logits, batch)
        for more in auxiliary:
            loss = loss + jnp.asarray(self.auxiliary_weight, jnp.float32) * self._loss(more, batch)
        if self.class_weights is None:
            return loss
        weights = jnp.asarray(self.class_weights, jnp.float32)
        own = weights[batch["label"]]
        if "label_b" in batch:
            share = batch["label_weight"].astype(jnp.float32)
            own = share * own + (1.0 - share) * weights[batch["label_b"]]
        return own * loss

    def counts(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Exact counts (int32) of right and of top-k right rows; the confusion matrix [K, K] (row:
        true class, column: predicted), above 100 classes the hits, calls and examples of each
        class instead; the negative log-likelihood, of 64 temperatures where `calibrated`; the sums
        of the reliability bins.
        """
        logits, label, real = _first(outputs), batch["label"].astype(jnp.int32), batch["mask"] > 0
        predicted = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        right = predicted == label
        scaled = self._scaled(logits)
        sums = {
            "correct": count(real & right),
            "nll": total(real, self._unlikelihood(scaled, label)),
        }
        if self._top > 1:
            _, best = jax.lax.top_k(logits, self._top)  # [B, k]
            sums["top_correct"] = count(real & jnp.any(best == label[:, None], axis=-1))
        if self.num_classes <= MAX_CONFUSION_CLASSES:
            empty = jnp.zeros((self.num_classes, self.num_classes), jnp.int32)
            sums["confusion"] = empty.at[label, predicted].add(real.astype(jnp.int32))
        else:
            empty = jnp.zeros(self.num_classes, jnp.int32)
            sums["hits"] = empty.at[label].add((real & right).astype(jnp.int32))
            sums["called"] = empty.at[predicted].add(real.astype(jnp.int32))
            sums["support"] = empty.at[label].add(real.astype(jnp.int32))
        if self.calibrated:
            plain = logits.astype(jnp.float32)
            sums["nll_by_temperature"] = jax.lax.map(
                lambda t: total(real, self._unlikelihood(plain / t, label)),
                jnp.asarray(calibration.TEMPERATURES, jnp.float32),
            )
        confidence = jnp.exp(jnp.max(self._log_probabilities(scaled), axis=-1))
        return sums | calibration.reliability_sums(confidence, right, real)

    def running(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """accuracy: the share of rows whose likeliest class is `label`, mixed or not."""
        right = jnp.argmax(_first(outputs), axis=-1) == batch["label"]
        return {"accuracy": jnp.mean(right, dtype=jnp.float32)}

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """accuracy; top<k>_accuracy, left out where k would be 1; balanced_accuracy, macro_f1,
        macro_precision, macro_recall, cohen_kappa and mcc (see `jaxcnn.metrics.classes`); nll, the
        mean negative log-likelihood of the label, and ece, the expected calibration error, both at
        `temperature`; where `calibrated`, best_temperature; lists of K: per_class_recall,
        per_class_precision, per_class_f1, per_class_support; up to 100 classes confusion [K][K];
        reliability, the rows of `jaxcnn.metrics.calibration.reliability_table`.
        """
        size = max(int(sums["count"]), 1)
        found: dict[str, Any] = {"accuracy": int(sums["correct"]) / size}
        if "top_correct" in sums:
            found[f"top{self._top}_accuracy"] = int(sums["top_correct"]) / size
        if "confusion" in sums:
            confusion = np.asarray(sums["confusion"], np.int64)
            counts = (np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1))
        else:
            names = ("hits", "called", "support")
            counts = tuple(np.asarray(sums[name], np.int64) for name in names)
        found |= {**classes.averages(*counts), **classes.agreement(*counts)}
        found["nll"] = float(sums["nll"]) / size
        found["ece"] = calibration.expected_calibration_error(sums)
        if self.calibrated:
            found["best_temperature"] = calibration.best_temperature(sums["nll_by_temperature"])
        found |= {"temperature": float(self.temperature), **classes.per_class(*counts)}
        if "confusion" in sums:
            found["confusion"] = np.asarray(sums["confusion"]).tolist()
        return found | {"reliability": calibration.reliability_table(sums)}

    def predict(self, outputs: Any) -> dict[str, jax.Array]:
        """label [B] int32 and its probability [B]; probabilities [B, K]; top_labels [B, k] int32,
        top_probabilities [B, k], best first.
        """
        logits, listed = _first(outputs), min(self.top, self.num_classes)
        probabilities = jnp.exp(self._log_probabilities(self._scaled(logits)))
        top_probabilities, _ = jax.lax.top_k(probabilities, listed)
        # by the logits, as the metrics do: probabilities round to ties, at 1 and at 0
        _, top_labels = jax.lax.top_k(logits, listed)
        return {
            "label": top_labels[:, 0],
            "probability": top_probabilities[:, 0],
            "probabilities": probabilities,
            "top_labels": top_labels,
            "top_probabilities": top_probabilities,
        }

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """The likeliest class, and "top": all classes, likeliest first."""
        first = np.asarray(row["top_labels"]).tolist()
        top = by_probability(row["probabilities"], names=names, first=first)
        return {**top[0], "top": top}

    def blind(self, metrics: dict[str, Any]) -> Blind | None:
        """The most frequent class of the examples (for top-k the k most frequent), always."""
        support = sorted(metrics.get("per_class_support") or (), reverse=True)
        k = {"accuracy": 1, f"top{self._top}_accuracy": self._top}.get(self.metric)
        if not sum(support):
            return None
        if k is None:
            even = {"balanced_accuracy": 1 / sum(n > 0 for n in support)}
            even |= {"cohen_kappa": 0.0, "mcc": 0.0}
            return (
                Blind(even[self.metric], "any one class, always") if self.metric in even else None
            )
        what = "the most frequent class" if k == 1 else f"the {k} most frequent classes"
        return Blind(sum(support[:k]) / sum(support), f"{what}, always")

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for labels outside [0, K) or of a wrong dtype or shape, and for what `BaseTask`
        refuses.
        """
        check_label(require_entry(batch, "label", self), num_classes=self.num_classes)
        super().check({name: array for name, array in batch.items() if name != "label"})

    def explained(self, outputs: Any) -> tuple[jax.Array, jax.Array]:
        """The logits, and the largest."""
        return best_of(_first(outputs))

    def from_view(self, outputs: Any, view: View) -> Any:
        """The same: a class does not depend on the view."""
        return outputs

    def ensemble(self, outputs: list) -> jax.Array:
        """Logits [B, K] of the mean of the models' class probabilities."""
        logits = [_first(o) for o in outputs]
        return mean_sigmoid(logits) if self.loss_name in ONE_AGAINST_ALL else mean_softmax(logits)

    def calibrate(self, metrics: dict[str, Any]) -> Self:
        """This task with the temperature that gives the validation labels the highest likelihood,
        where `calibrated`.
        """
        if not self.calibrated:
            return self
        return dataclasses.replace(self, temperature=metrics["best_temperature"])

    @property
    def _top(self) -> int:
        """The k of the metric."""
        return min(self.top, self.num_classes - 1)

    def _scaled(self, logits: jax.Array) -> jax.Array:
        return logits.astype(jnp.float32) / jnp.asarray(self.temperature, jnp.float32)

    def _log_probabilities(self, logits: jax.Array) -> jax.Array:
        """[B, K] -> [B, K]"""
        if self.loss_name in ONE_AGAINST_ALL:
            return jax.nn.log_sigmoid(logits)
        return logits - self._log_normalizer(logits)[:, None]

    def _log_normalizer(self, logits: jax.Array) -> jax.Array:
        """log sum exp over the classes, and over the rubbish class if there is one. [B,
        K] -> [B]
        """
        total = logsumexp(logits, axis=-1)
        return (
            total
            if self.rubbish_penalty is None
            else jnp.logaddexp(total, -jnp.asarray(self.rubbish_penalty, logits.dtype))
        )

    def _unlikelihood(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Minus the log-likelihood [B] of the label; one against all, of all K answers."""
        if self.loss_name in ONE_AGAINST_ALL:
            target = jax.nn.one_hot(label, self.num_classes, dtype=jnp.float32)
            return jnp.sum(losses.sigmoid_cross_entropy(logits, target), axis=-1)
        return -_pick(self._log_probabilities(logits), label)

    def _loss(self, logits: jax.Array, batch: Batch) -> jax.Array:
        logits = logits.astype(jnp.float32)
        if self.loss_name == "cross_entropy":
            return self._cross_entropy(logits, batch)
        target = self._target(batch)
        if self.loss_name == "bce":
            return jnp.mean(losses.sigmoid_cross_entropy(logits, target), axis=-1)
        if self.loss_name == "asymmetric":
            options = {"focus_negative": self.focus_negative, "margin": self.margin}
            return jnp.mean(losses.asymmetric(logits, target, **options), axis=-1)
        log_probabilities = self._log_probabilities(logits)
        unsure = jnp.maximum(-jnp.expm1(log_probabilities), 1e-12)  # 0^x has no gradient for x < 1
        weight = unsure ** jnp.asarray(self.focus, jnp.float32)
        return -jnp.sum(target * weight * log_probabilities, axis=-1)

    def _target(self, batch: Batch) -> jax.Array:
        """The share of each class [B, K] float32, mixed and smoothed."""
        target = jax.nn.one_hot(batch["label"], self.num_classes, dtype=jnp.float32)
        if "label_b" in batch:
            other = jax.nn.one_hot(batch["label_b"], self.num_classes, dtype=jnp.float32)
            share = batch["label_weight"].astype(jnp.float32)[:, None]
            target = share * target + (1.0 - share) * other
        smoothing = jnp.asarray(self.label_smoothing, jnp.float32)
        return (1.0 - smoothing) * target + smoothing / self.num_classes

    def _cross_entropy(self, logits: jax.Array, batch: Batch) -> jax.Array:
        log_probabilities = self._log_probabilities(logits)  # [B, K]
        likelihood = _pick(log_probabilities, batch["label"])
        if "label_b" in batch:
            weight = batch["label_weight"].astype(jnp.float32)
            likelihood = weight * likelihood + (1.0 - weight) * _pick(
                log_probabilities, batch["label_b"]
            )
        smoothing = jnp.asarray(self.label_smoothing, jnp.float32)
        return -((1.0 - smoothing) * likelihood + smoothing * jnp.mean(log_probabilities, axis=-1))


def _first(outputs: Any) -> jax.Array:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _pick(values: jax.Array, label: jax.Array) -> jax.Array:
    """values[i, label[i]] for each row. [B, K], [B] -> [B]"""
    return jnp.take_along_axis(values, label[:, None].astype(jnp.int32), axis=-1)[:, 0]
