"""Multi-class classification: softmax cross-entropy, top-1 and top-k accuracy, confusion matrix.

Outputs: logits [B, K], or in training a tuple (logits, *auxiliary logits), each [B, K]. Batch:
    "label" [B] integers in [0, K);
"label_b" [B] and "label_weight" [B] in [0, 1] where two examples were mixed (mixup, cutmix): the
target is then label_weight parts `label` and 1 - label_weight parts `label_b`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from jaxcnn.errors import ConfigError
from jaxcnn.tasks.checks import check_image, check_label
from jaxcnn.tasks.task import BaseTask, Batch, View

# above, the K x K matrix is left out: nobody reads it, and ImageNet's would add 4 MB to each
# evaluation
MAX_CONFUSION_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class Classification(BaseTask):
    """One of `num_classes` labels for each example.

    `label_smoothing` in [0, 1) moves that share of the target evenly to all classes (Szegedy et
    al., "Rethinking the Inception architecture for computer vision", 2016, section 7).
    `rubbish_penalty` j adds a class of penalty j that stands for everything that is none of the
    classes: LeCun et al., "Gradient-based learning applied to document recognition", 1998, equation
    9, if the logits are minus the RBF penalties; probabilities then sum to less than 1.
    `auxiliary_weight` weighs the loss of each auxiliary classifier (Szegedy et al.,
    "Going deeper with convolutions", 2015, section 5: 0.3). `top` is the k of top-k accuracy and of
    the classes that `predict` lists.
    """

    num_classes: int
    label_smoothing: float = 0.0
    rubbish_penalty: float | None = None
    auxiliary_weight: float = 0.3
    top: int = 5
    inputs: tuple[str, ...] = ("image",)
    metric: str = "accuracy"
    larger_is_better: bool = True

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

    def loss(self, outputs: Any, batch: Batch) -> jax.Array:
        """Cross-entropy [B] float32 in nats, plus the weighted cross-entropies of
        auxiliary logits.
        """
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = self._cross_entropy(logits, batch)
        for more in auxiliary:
            loss = loss + jnp.asarray(self.auxiliary_weight, jnp.float32) * self._cross_entropy(
                more, batch
            )
        return loss

    def statistics(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Exact counts (int32) of examples, of right and of top-k right ones, the confusion matrix
        [K, K] (row: true class, column: predicted), and the summed loss."""
        logits, label, real = _first(outputs), batch["label"].astype(jnp.int32), batch["mask"] > 0
        predicted = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        sums = {
            "count": _count(real),
            "correct": _count(real & (predicted == label)),
            "loss": jnp.sum(
                jnp.where(real, self.loss(outputs, batch), 0.0)
            ),  # where, not times: a padded row may hold NaN
        }
        if self.num_classes > self.top:
            _, best = jax.lax.top_k(logits, self.top)  # [B, top]
            sums["top_correct"] = _count(real & jnp.any(best == label[:, None], axis=-1))
        if self.num_classes <= MAX_CONFUSION_CLASSES:
            empty = jnp.zeros((self.num_classes, self.num_classes), jnp.int32)
            sums["confusion"] = empty.at[label, predicted].add(real.astype(jnp.int32))
        return sums

    def running(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """accuracy: the share of rows whose likeliest class is `label`, mixed or not."""
        right = jnp.argmax(_first(outputs), axis=-1) == batch["label"]
        return {"accuracy": jnp.mean(right, dtype=jnp.float32)}

    def summarize(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """accuracy, top<k>_accuracy (if K > k), loss, count; up to 100 classes also
        per_class_accuracy [K] (None for a class without examples) and confusion [K][K]."""
        count = int(sums["count"])
        summary: dict[str, Any] = {"accuracy": int(sums["correct"]) / max(count, 1)}
        if "top_correct" in sums:
            summary[f"top{self.top}_accuracy"] = int(sums["top_correct"]) / max(count, 1)
        summary |= {"loss": float(sums["loss"]) / max(count, 1), "count": count}
        if "confusion" in sums:
            confusion = np.asarray(sums["confusion"])
            pairs = zip(
                np.diagonal(confusion).tolist(), confusion.sum(axis=1).tolist(), strict=True
            )
            summary["per_class_accuracy"] = [
                right / total if total else None for right, total in pairs
            ]
            summary["confusion"] = confusion.tolist()
        return summary

    def predict(self, outputs: Any) -> dict[str, jax.Array]:
        """label [B] int32 and its probability [B]; probabilities [B, K]; top_labels [B, k] int32,
        top_probabilities [B, k], best first.
        """
        logits = _first(outputs).astype(jnp.float32)
        probabilities = jnp.exp(logits - self._log_normalizer(logits)[:, None])
        top_probabilities, top_labels = jax.lax.top_k(
            probabilities, min(self.top, self.num_classes)
        )
        return {
            "label": top_labels[:, 0],
            "probability": top_probabilities[:, 0],
            "probabilities": probabilities,
            "top_labels": top_labels,
            "top_probabilities": top_probabilities,
        }

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """The likeliest class, and "top": all classes, likeliest first."""
        probabilities = np.asarray(row["probabilities"])
        top = [
            {
                "label": int(k),
                "name": names[k] if k < len(names) else str(k),
                "probability": float(probabilities[k]),
            }
            for k in np.argsort(-probabilities, kind="stable")
        ]
        return {**top[0], "top": top}

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for labels outside [0, K) or of a wrong dtype or shape, and for unscaled or
        non-finite images.
        """
        check_label(batch["label"], num_classes=self.num_classes)
        if "image" in batch:
            check_image(batch["image"])

    def from_view(self, outputs: Any, view: View) -> Any:
        """The same: a class does not depend on the view."""
        return outputs

    def ensemble(self, outputs: list) -> jax.Array:
        """Logits [B, K] whose softmax is the mean of the models' class probabilities."""
        log_probabilities = [jax.nn.log_softmax(_first(o).astype(jnp.float32)) for o in outputs]
        return logsumexp(jnp.stack(log_probabilities), axis=0) - jnp.log(jnp.float32(len(outputs)))

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

    def _cross_entropy(self, logits: jax.Array, batch: Batch) -> jax.Array:
        logits = logits.astype(jnp.float32)
        log_probabilities = logits - self._log_normalizer(logits)[:, None]  # [B, K]
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


def _count(chosen: jax.Array) -> jax.Array:
    return jnp.sum(chosen, dtype=jnp.int32)


def _pick(values: jax.Array, label: jax.Array) -> jax.Array:
    """values[i, label[i]] for each row. [B, K], [B] -> [B]"""
    return jnp.take_along_axis(values, label[:, None].astype(jnp.int32), axis=-1)[:, 0]
