"""Localization: the class of an image's one main object, and its box.

Outputs: {"logits": [B, K], "box": [B, 4] (y0, x0, y1, x1) in [0, 1]}. Batch: "label" [B] integers
in [0, K), "boxes" [B, N, 4], of which the first is the object's, "boxes_mask" [B, N]; perhaps
"boxes_ignored" and "boxes_crowd" [B, N]. The setting of ILSVRC-LOC: Russakovsky et al., "ImageNet
large scale visual recognition challenge", 2015, section 4.2.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics.objects import box_iou
from jaxcnn.ops import boxes
from jaxcnn.tasks.checks import check_label
from jaxcnn.tasks.objects import (
    OPTIONAL,
    average,
    check_boxes,
    check_invalid,
    describe_object,
    existing_boxes,
    ignored_boxes,
    usable_boxes,
)
from jaxcnn.tasks.task import BaseTask, Batch, best_of, loss_sums, mean_loss


@dataclasses.dataclass(frozen=True)
class Localization(BaseTask):
    """One of `num_classes` labels and one box for each image.

    The loss is cross-entropy plus `box_weight` times (1 - GIoU), which has a gradient where boxes
    are apart: Rezatofighi et al.,
    "Generalized intersection over union", 2019, section 3. An image is localized if the class is
    right and the IoU at least `iou_threshold`
    (one half in ILSVRC-LOC). `invalid`: "error" refuses examples without a usable box (empty,
    outside the image, none at all); "skip" learns only the class of them, leaves them out of
    mean_iou and localized, and counts them as "skipped". An object that need not be found
    ("boxes_ignored", "boxes_crowd") is left out likewise, whatever `invalid` says, and counted as
    "ignored".
    """

    num_classes: int
    box_weight: float = 1.0
    iou_threshold: float = 0.5
    invalid: str = "error"
    inputs: tuple[str, ...] = ("image",)
    metric: str = "mean_iou"
    larger_is_better: bool = True

    blind_answer = "the mean box and the class that is right most often, always"

    def __post_init__(self):
        if self.num_classes < 1:
            raise ConfigError(
                f"Localization: num_classes is {self.num_classes}; it counts classes and is at "
                "least 1"
            )
        check_invalid("Localization", self.invalid)

    def loss(self, outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """Cross-entropy + box_weight * (1 - GIoU), [B] float32; without the second part where there
        is no usable box.
        """
        log_probabilities = jax.nn.log_softmax(outputs["logits"].astype(jnp.float32))
        picked = jnp.take_along_axis(
            log_probabilities, batch["label"][:, None].astype(jnp.int32), axis=-1
        )[:, 0]
        truth, usable = _first(batch)
        distance = 1.0 - boxes.giou(outputs["box"].astype(jnp.float32), truth)
        return jnp.where(usable, jnp.asarray(self.box_weight, jnp.float32) * distance, 0.0) - picked

    def statistics(self, outputs: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """Counts (int32) of examples, right classes, usable boxes, localized, ignored and skipped
        ones; summed IoU and loss.
        """
        truth, usable = _first(batch)
        real = batch["mask"] > 0
        boxed, ignored = real & usable, real & ignored_boxes(batch)[:, 0]
        right = jnp.argmax(outputs["logits"], axis=-1).astype(jnp.int32) == batch["label"].astype(
            jnp.int32
        )
        iou = boxes.iou(outputs["box"].astype(jnp.float32), truth)
        return {
            "correct": _count(real & right),
            "boxed": _count(boxed),
            "localized": _count(
                boxed & right & (iou >= jnp.asarray(self.iou_threshold, jnp.float32))
            ),
            "ignored": _count(ignored),
            "skipped": _count(real & ~usable & ~ignored),
            "iou": jnp.sum(
                jnp.where(boxed, iou, 0.0)
            ),  # where, not times: a padded row may hold NaN
            **loss_sums(self.loss(outputs, batch), batch),
        }

    def records(self, outputs: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """What is asked for: label [B] int32, box [B, 4] float32 and boxed [B] bool."""
        truth, usable = _first(batch)
        return {"label": batch["label"].astype(jnp.int32), "box": truth, "boxed": usable}

    def summarize(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """mean_iou and localized (shares of the images with a box), accuracy, loss,
        count, ignored, skipped; blind_mean_iou, blind_localized and blind_accuracy, of one class
        and one box for all, the mean of the evaluated examples' boxes.
        """
        count, boxed = int(sums["count"]), int(sums["boxed"])
        return {
            "mean_iou": float(sums["iou"]) / max(boxed, 1),
            "localized": int(sums["localized"]) / max(boxed, 1),
            "accuracy": int(sums["correct"]) / max(count, 1),
            **mean_loss(sums),
            "ignored": int(sums["ignored"]),
            "skipped": int(sums["skipped"]),
            **self._blind(*(np.asarray(records[name]) for name in ("label", "box", "boxed"))),
        }

    def predict(self, outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """label [B] int32, its probability [B], probabilities [B, K], box [B, 4]."""
        probabilities = jax.nn.softmax(outputs["logits"].astype(jnp.float32))
        return {
            "label": jnp.argmax(outputs["logits"], axis=-1).astype(jnp.int32),  # as the metrics do
            "probability": jnp.max(probabilities, axis=-1),
            "probabilities": probabilities,
            "box": outputs["box"].astype(jnp.float32),
        }

    def describe(self, row: dict[str, np.ndarray], *, names: tuple[str, ...]) -> dict[str, Any]:
        """The object and its box."""
        return {
            "objects": [describe_object(row["box"], row["label"], row["probability"], names=names)]
        }

    def explained(self, outputs: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The logits of the class, and the largest."""
        return best_of(outputs["logits"])

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for labels or first boxes that break a rule, and for what `BaseTask`
        refuses.
        """
        check_label(batch["label"], num_classes=self.num_classes)
        check_boxes(batch, invalid="skip")
        first = {n: np.asarray(batch[n])[:, :1] for n in ("boxes", *OPTIONAL) if n in batch}
        check_boxes(first, invalid=self.invalid)
        there = np.asarray(existing_boxes(first) | ignored_boxes(first))[:, 0]
        if self.invalid == "error" and not there.all():
            row = int(np.argmin(there))
            raise DataError(
                f"boxes_mask[{row}, 0] is 0: example {row} has no box; localization needs one an "
                "image, or invalid='skip'"
            )
        own = ("label", "boxes", "box_labels")
        super().check({name: x for name, x in batch.items() if name not in own})

    def ensemble(self, outputs: list) -> dict[str, jax.Array]:
        """Logits of the mean class probabilities, and the mean box."""
        probabilities = average([jax.nn.softmax(o["logits"].astype(jnp.float32)) for o in outputs])
        return {
            "logits": jnp.log(jnp.maximum(probabilities, 1e-30)),
            "box": average([o["box"] for o in outputs]),
        }

    def _blind(self, label: np.ndarray, box: np.ndarray, boxed: np.ndarray) -> dict[str, float]:
        """What the mean box and the best class score; nothing without examples."""
        if not boxed.any():
            return {}
        truth = box[boxed].astype(np.float64)
        iou = box_iou(truth.mean(0, keepdims=True), truth, np.zeros(len(truth), bool))[0]
        near = np.bincount(label[boxed][iou >= self.iou_threshold], minlength=1)
        return {
            "blind_mean_iou": float(iou.mean()),
            "blind_localized": int(near.max()) / len(truth),
            "blind_accuracy": int(np.bincount(label).max()) / len(label),
        }


def _first(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The first box [B, 4], and whether it can be learned from [B]; an unusable box is replaced by
    the whole image, so that nothing that it holds (NaN) reaches a gradient."""
    usable = usable_boxes(batch)[:, 0]
    whole = jnp.asarray([[0.0, 0.0, 1.0, 1.0]], jnp.float32)
    return jnp.where(usable[:, None], batch["boxes"][:, 0].astype(jnp.float32), whole), usable


def _count(chosen: jax.Array) -> jax.Array:
    return jnp.sum(chosen, dtype=jnp.int32)
