"""Semantic segmentation: a class for each pixel. Cross-entropy and soft Dice, mean IoU from a
confusion matrix.

Outputs: logits [B, H, W, K] at the size of the labels. Batch: "segmentation" [B, H, W] int32 with
    classes in [0, K), by convention 0 for
the background, and `ignore` (255) where no class is known: such pixels count neither in the loss
nor in a metric.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from jaxcnn.errors import ConfigError, DataError, did_you_mean
from jaxcnn.tasks.task import BaseTask, Batch, Blind, View, count, mean_softmax

INVALID = ("error", "skip")
MAX_CONFUSION_CLASSES = 100  # above, the matrix is summed but not listed: nobody reads it


@dataclasses.dataclass(frozen=True)
class Segmentation(BaseTask):
    """One of `num_classes` classes for each pixel.

    The loss of an image is the mean cross-entropy of its labelled pixels plus `dice_weight` times
    the Dice loss (Sudre et al., "Generalised Dice overlap as a deep learning loss function for
    highly unbalanced segmentations", 2017, section 2), averaged over the classes that the image
    holds. `names` are the classes' names (default: those of the data, after "background" where
    these are one fewer). `invalid` says what `check` does about classes outside [0, K) other than
    `ignore`: "error" raises, "skip" lets them pass, and they are ignored as `ignore` is, and
    counted.
    """

    num_classes: int
    dice_weight: float = 1.0
    ignore: int = 255
    invalid: str = "error"
    names: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("image",)
    metric: str = "mIoU"
    larger_is_better: bool = True

    def __post_init__(self):
        if self.num_classes < 2:
            raise ConfigError(
                f"Segmentation: num_classes is {self.num_classes}; it counts the background too "
                "and is at least 2"
            )
        if 0 <= self.ignore < self.num_classes:
            raise ConfigError(
                f"Segmentation: ignore is {self.ignore}, a class of [0, {self.num_classes}); take "
                "255, or -1"
            )
        if self.invalid not in INVALID:
            raise ConfigError(
                f"Segmentation: invalid is {self.invalid!r}; it is one of "
                f"{', '.join(INVALID)}{did_you_mean(self.invalid, INVALID)}"
            )
        if self.names and len(self.names) != self.num_classes:
            raise ConfigError(
                f"Segmentation: {len(self.names)} names for {self.num_classes} classes; give one "
                "a class, or none"
            )

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Cross-entropy plus weighted Dice loss [B] float32; 0 for an image without a labelled
        pixel.
        """
        truth, valid = self._truth(outputs, batch)
        logits = outputs.astype(jnp.float32)
        log_probabilities = logits - logsumexp(logits, axis=-1, keepdims=True)
        # zeros where nothing is known
        target = jax.nn.one_hot(jnp.where(valid, truth, -1), self.num_classes, dtype=jnp.float32)
        pixels = jnp.maximum(jnp.sum(valid, axis=(1, 2), dtype=jnp.float32), 1.0)
        cross_entropy = -jnp.sum(target * log_probabilities, axis=(1, 2, 3)) / pixels
        probabilities = jnp.exp(log_probabilities) * valid[..., None].astype(jnp.float32)
        # [B, K]
        shared, area = (
            jnp.sum(target * probabilities, axis=(1, 2)),
            jnp.sum(target, axis=(1, 2)),
        )
        present = area > 0
        total = jnp.where(present, area + jnp.sum(probabilities, axis=(1, 2)), 1.0)
        dice = jnp.sum(jnp.where(present, 1.0 - 2.0 * shared / total, 0.0), axis=-1) / jnp.maximum(
            jnp.sum(present, axis=-1, dtype=jnp.float32), 1.0
        )
        return cross_entropy + jnp.asarray(self.dice_weight, jnp.float32) * dice

    def counts(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """The confusion matrix [K, K] (int32) of pixels (row: true class, column: predicted);
        counts of ignored and of invalid pixels.
        """
        truth, valid = self._truth(outputs, batch)
        real = batch["mask"] > 0
        inside = jnp.broadcast_to(real[:, None, None], truth.shape)
        predicted = jnp.argmax(outputs, axis=-1).astype(jnp.int32)
        empty = jnp.zeros((self.num_classes, self.num_classes), jnp.int32)
        known = valid & inside
        return {
            "confusion": empty.at[jnp.where(known, truth, 0), predicted].add(
                known.astype(jnp.int32)
            ),
            "ignored": count(inside & (truth == self.ignore)),
            "invalid": count(inside & ~valid & (truth != self.ignore)),
        }

    def running(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """pixel_accuracy: the share of the labelled pixels whose likeliest class is theirs."""
        truth, valid = self._truth(outputs, batch)
        right = valid & (jnp.argmax(outputs, axis=-1) == truth)
        known = jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
        return {"pixel_accuracy": jnp.sum(right, dtype=jnp.float32) / known}

    def metrics(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """mIoU, the mean of per_class_iou [K] over the classes that occur (true or predicted;
        others are None); pixel_accuracy; ignored_pixels and invalid_pixels; with up to 100 classes
        confusion [K][K].

        IoU over all images together, as PASCAL VOC has it (Everingham et al., "The PASCAL visual
        object classes challenge: a retrospective", 2015, section 2.1.4).
        """
        confusion = np.asarray(sums["confusion"], np.int64)
        right = np.diagonal(confusion)
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
        ious = [int(r) / int(u) if u else None for r, u in zip(right, union, strict=True)]
        known = [iou for iou in ious if iou is not None]
        summary: dict[str, Any] = {
            "mIoU": sum(known) / max(len(known), 1),
            "pixel_accuracy": int(right.sum()) / max(int(confusion.sum()), 1),
            "per_class_iou": ious,
            "ignored_pixels": int(sums["ignored"]),
            "invalid_pixels": int(sums["invalid"]),
        }
        return summary | (
            {"confusion": confusion.tolist()} if self.num_classes <= MAX_CONFUSION_CLASSES else {}
        )

    def predict(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """segmentation [B, H, W] int32, the likeliest class of each pixel, and its probability [B,
        H, W] float32.
        """
        logits = outputs.astype(jnp.float32)
        return {
            "segmentation": jnp.argmax(logits, axis=-1).astype(jnp.int32),
            "probability": jnp.exp(jnp.max(logits, axis=-1) - logsumexp(logits, axis=-1)),
        }

    def explained(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Each class's logit summed over all pixels (K. Vinogradova, A. Dibrov, G. Myers, "Towards
        interpretable semantic segmentation via gradient-weighted class activation mapping", 2020,
        equation 2), and the class of most pixels besides 0, the background.
        """
        scores = jnp.sum(outputs.astype(jnp.float32), axis=(1, 2))
        classes = jax.nn.one_hot(jnp.argmax(outputs, axis=-1), self.num_classes)
        pixels = jnp.sum(classes, axis=(1, 2))
        found = 1 + jnp.argmax(pixels[:, 1:], axis=-1).astype(jnp.int32)
        return scores, jnp.where(jnp.sum(pixels[:, 1:], axis=-1) > 0, found, 0)

    def explained_names(self, *, names: tuple[str, ...]) -> tuple[str, ...]:
        """The K classes' names."""
        return self._names(names)

    def describe(self, row: dict[str, np.ndarray], *, names: tuple[str, ...]) -> dict[str, Any]:
        """segmentation int [H, W] and segment_names, the K classes' names. `names`: those of the
        data.
        """
        return {
            "segmentation": np.asarray(row["segmentation"]),
            "segment_names": list(self._names(names)),
        }

    def blind(self, metrics: dict[str, Any]) -> Blind | None:
        """The most frequent class of the pixels, everywhere."""
        pixels = [sum(row) for row in metrics.get("confusion") or ()]
        if not sum(pixels) or self.metric not in ("mIoU", "pixel_accuracy"):
            return None
        share = max(pixels) / sum(pixels)  # its IoU; that of all other classes is 0
        value = share if self.metric == "pixel_accuracy" else share / sum(n > 0 for n in pixels)
        return Blind(value, "the most frequent class, everywhere")

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for masks of another size than their images, of a wrong dtype or shape, or
        (unless `invalid` is "skip") with classes outside [0, K); and where no pixel of all these
        examples has a class.
        """
        truth = np.asarray(batch["segmentation"])
        if not np.issubdtype(truth.dtype, np.integer) or truth.dtype == np.uint8:
            raise DataError(
                f"segmentation has dtype {truth.dtype}; expected int32 (bytes would become floats "
                "in [0, 1], as images do). "
                "Convert with .astype('int32')"
            )
        if truth.ndim != 3:
            remedy = (
                "; drop the last axis, and turn colours into class numbers"
                if truth.ndim == 4
                else ""
            )
            raise DataError(
                f"segmentation has shape {truth.shape}; expected one class a pixel, [B, H, "
                f"W]{remedy}"
            )
        if "image" in batch:
            size = np.shape(batch["image"])[1:3]
            if size != truth.shape[1:]:
                raise DataError(
                    f"segmentation is {'x'.join(map(str, truth.shape[1:]))} but the images are "
                    f"{'x'.join(map(str, size))}; each pixel "
                    "needs its class: resize the masks with their images, by the nearest pixel"
                )
        super().check({name: x for name, x in batch.items() if name != "segmentation"})
        wrong = ((truth < 0) | (truth >= self.num_classes)) & (truth != self.ignore)
        if wrong.any() and self.invalid == "error":
            where = tuple(int(i) for i in np.unravel_index(np.argmax(wrong), truth.shape))
            raise DataError(
                f"segmentation{list(where)} is {int(truth[where])}; classes must lie in [0, "
                f"{self.num_classes}) or be {self.ignore} "
                f"(ignored), and {int(wrong.sum())} of {truth.size} pixels are not. Count classes "
                "from 0, correct num_classes of the task "
                "and the model, or set invalid='skip' of the task"
            )
        if truth.size and not (~wrong & (truth != self.ignore)).any():
            raise DataError(
                f"all {truth.size} pixels of segmentation are ignored or invalid; nothing can be "
                f"learned from these {len(truth)} examples"
            )

    def from_view(self, outputs: jax.Array, view: View) -> jax.Array:
        """Mirrored back. Errors: ConfigError for a window."""
        if view.window is not None:
            raise ConfigError(
                f"tta: {type(self).__name__}: the map of a window says nothing of the rest; take "
                "tta='flip'"
            )
        return jnp.flip(outputs, 2) if view.mirrored else outputs

    def ensemble(self, outputs: list) -> jax.Array:
        """Logits [B, H, W, K] whose softmax is the mean of the models' class probabilities."""
        return mean_softmax(outputs)

    def _truth(self, outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Classes [B, H, W] int32 and where they are valid. ConfigError where the outputs do not
        fit the labels.
        """
        truth = batch["segmentation"].astype(jnp.int32)
        if outputs.shape != (*truth.shape, self.num_classes):
            raise ConfigError(
                f"Segmentation: the model gives {outputs.shape} for labels {truth.shape} of "
                f"{self.num_classes} classes; its outputs must "
                "be [B, H, W, K] at the labels' size: resize the logits, or correct num_classes "
                "of the model"
            )
        return truth, (truth >= 0) & (truth < self.num_classes) & (truth != self.ignore)

    def _names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if self.names:
            return self.names
        names = ("background", *names) if len(names) == self.num_classes - 1 else tuple(names)
        return (
            names
            if len(names) == self.num_classes
            else tuple(str(k) for k in range(self.num_classes))
        )
