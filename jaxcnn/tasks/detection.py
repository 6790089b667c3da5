"""Object detection: what all forms share, and detection by center points (no anchors, no
non-maximum suppression, static shapes).

Outputs of the latter: {"heatmap": [B, h, w, K] logits, "size": [B, h, w, 2], "offset": [B, h, w,
    2]}, as `jaxcnn.ops.centers` says.
Batch: "boxes" [B, N, 4], "boxes_mask" [B, N], "box_labels" [B, N], and what may come with them (see
`jaxcnn.tasks.objects`). Zhou, Wang, Krähenbühl, "Objects as points" (CenterNet), 2019.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError
from jaxcnn.metrics import average_precision
from jaxcnn.ops import centers, heatmaps
from jaxcnn.tasks.objects import (
    average,
    check_boxes,
    check_invalid,
    count_boxes,
    covered,
    describe_objects,
    to_predictions,
    to_truths,
    truth_records,
    usable_boxes,
)
from jaxcnn.tasks.task import BaseTask, Batch, Blind, best_of, loss_sums, mean_loss

LEAST_SCORE = (
    0.01  # detections below change no average precision that anybody reports, and there are many
)


@dataclasses.dataclass(frozen=True)
class BoxDetection(BaseTask):
    """Base of the forms of detection: counting, COCO's average precision, pictures. A subclass has
    `loss`, `predict` and `ensemble`.

    `max_objects` detections are kept of an image. A detection is shown if its score reaches
    `threshold`. `invalid`: "error" refuses boxes that are empty, outside the image or labelled
    outside [0, K); "skip" learns and scores without them and counts them as "skipped".

    Objects that need not be found ("boxes_ignored", "boxes_crowd") are neither missed nor found, as
    `average_precision.coco_boxes` says, and where they lie no class is told that it sees
    background. COCO's size classes (AP_small is below 32² pixels) go by "box_areas", and
    detections' by their boxes in pixels of "original_size"; where the batch lacks the first, truths
    go by their boxes, and where it lacks the second, pixels are those of `image_size` (height,
    width).
    """

    num_classes: int
    image_size: tuple[int, int] = (64, 64)
    max_objects: int = 20
    threshold: float = 0.3
    invalid: str = "error"
    inputs: tuple[str, ...] = ("image",)
    metric: str = "AP"
    larger_is_better: bool = True

    def __post_init__(self):
        for name in ("num_classes", "max_objects"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{type(self).__name__}: {name} is {getattr(self, name)}; it is at least 1"
                )
        check_invalid(type(self).__name__, self.invalid)

    def loss(self, outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """Loss of each row, [B] float32."""
        raise NotImplementedError

    def predict(self, outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """boxes [B, D, 4], scores [B, D] in [0, 1], labels [B, D] int32, best first; D =
        max_objects. Score 0: no detection.
        """
        raise NotImplementedError

    def statistics(self, outputs: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """Counts (int32) of images, of objects to be found and of skipped boxes; summed loss."""
        boxes = count_boxes(batch, num_classes=self.num_classes)
        return boxes | loss_sums(self.loss(outputs, batch), batch)

    def records(self, outputs: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """boxes [B, D, 4], scores [B, D], labels [B, D], and `objects.truth_records`."""
        return self.predict(outputs) | truth_records(
            batch, num_classes=self.num_classes, image_size=self.image_size
        )

    def summarize(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """AP, AP50, AP75 and the others of `average_precision.coco_boxes` (-1 where there is no
        truth); of each class per_class_ap, per_class_ap50 (None without a truth) and
        per_class_support; loss, count, objects, ignored, skipped.
        """
        records = records | {
            "scores": np.where(records["scores"] >= LEAST_SCORE, records["scores"], 0.0)
        }
        metrics = average_precision.coco_boxes(
            to_truths(records), to_predictions(records), num_classes=self.num_classes
        )
        return metrics | {
            **mean_loss(sums),
            "objects": int(sums["objects"]),
            "ignored": int(np.sum(records["truth_ignored"])),
            "skipped": int(sums["skipped"]),
        }

    def describe(self, row: dict[str, np.ndarray], *, names: tuple[str, ...]) -> dict[str, Any]:
        """The objects whose score reaches `threshold`."""
        return {"objects": describe_objects(row, names=names, threshold=float(self.threshold))}

    def blind(self, metrics: dict[str, Any]) -> Blind | None:
        """Nothing found, which scores 0."""
        return None if metrics.get(self.metric) is None else Blind(0.0, "finding nothing")

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for boxes or labels that break a rule, and for what `BaseTask` refuses."""
        check_boxes(batch, invalid=self.invalid, num_classes=self.num_classes)
        super().check({n: x for n, x in batch.items() if n not in ("boxes", "box_labels")})


@dataclasses.dataclass(frozen=True)
class CenterDetection(BoxDetection):
    """All objects of `num_classes` classes in an image, each by its center.

    The loss (equation 4) is the penalty-reduced focal loss of the centers plus `size_weight` times
    the L1 distance of the sizes, in cells, plus `offset_weight` times that of the offsets; each is
    a sum over the image divided by its number of objects (the paper divides by the batch's, which
    would make a row's loss depend on other rows). `min_iou` sets the width of the target's
    Gaussians.
    """

    size_weight: float = 0.1
    offset_weight: float = 1.0
    min_iou: float = 0.7

    def loss(self, outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """Focal + size_weight * L1(size) + offset_weight * L1(offset), [B] float32."""
        logits, size, offset = (
            outputs[name].astype(jnp.float32) for name in ("heatmap", "size", "offset")
        )
        grid = (logits.shape[1], logits.shape[2])
        usable = usable_boxes(batch, num_classes=self.num_classes)
        boxes = jnp.where(usable[..., None], batch["boxes"].astype(jnp.float32), 0.0)
        target = centers.draw_centers(
            boxes,
            batch["box_labels"],
            usable,
            size=grid,
            num_classes=self.num_classes,
            min_iou=self.min_iou,
        )
        true_size, true_offset = centers.center_targets(boxes, grid)
        cell = centers.center_cells(boxes, grid)
        # [B, N]
        size_error = jnp.sum(jnp.abs(heatmaps.gather_cells(size, cell) - true_size), axis=-1)
        offset_error = jnp.sum(jnp.abs(heatmaps.gather_cells(offset, cell) - true_offset), axis=-1)
        error = (
            jnp.asarray(self.size_weight, jnp.float32) * size_error
            + jnp.asarray(self.offset_weight, jnp.float32) * offset_error
        )
        focal = center_loss(logits, target, ignored=self._ignored_cells(batch, grid))
        total = jnp.sum(jnp.where(usable, error, 0.0), axis=-1) + focal
        return total / jnp.maximum(jnp.sum(usable, axis=-1), 1).astype(jnp.float32)

    def predict(self, outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """boxes [B, D, 4], scores [B, D] in [0, 1], labels [B, D] int32, best first; D =
        max_objects.
        """
        heatmap, size, offset = (
            outputs[name].astype(jnp.float32) for name in ("heatmap", "size", "offset")
        )
        boxes, scores, labels = centers.decode_centers(
            heatmap, size, offset, num_objects=self.max_objects
        )
        return {"boxes": boxes, "scores": scores, "labels": labels}

    def explained(self, outputs: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Of each class its best object's logit, and the class of the best object."""
        return best_of(jnp.max(outputs["heatmap"], axis=(1, 2)))

    def _ignored_cells(self, batch: Batch, grid: tuple[int, int]) -> jax.Array:
        """The cells that a box touches which need not be found, [B, *grid] bool."""
        size = np.array(grid)
        low = np.stack(np.meshgrid(*(np.arange(n) for n in grid), indexing="ij"), axis=-1)
        low = low.reshape(-1, 2)
        cells = covered(batch, low / size, (low + 1) / size, num_classes=self.num_classes)
        return cells.reshape(-1, *grid)

    def ensemble(self, outputs: list) -> dict[str, jax.Array]:
        """The logits of the mean probabilities; mean sizes and offsets."""
        probability = average([jax.nn.sigmoid(o["heatmap"].astype(jnp.float32)) for o in outputs])
        mean = {name: average([o[name] for o in outputs]) for name in ("size", "offset")}
        return mean | {"heatmap": jax.scipy.special.logit(jnp.clip(probability, 1e-7, 1 - 1e-7))}


def center_loss(
    logits: jax.Array,
    target: jax.Array,
    *,
    alpha: float = 2.0,
    beta: float = 4.0,
    ignored: jax.Array | None = None,
) -> jax.Array:
    """The penalty-reduced focal loss (Zhou et al. 2019, equation 1), summed over each row. [B, h,
    w, K], [B, h, w, K] -> [B]

    Where the target is 1: -(1 - p)^alpha log p. Elsewhere: -(1 - target)^beta p^alpha log(1 - p),
    so that cells beside a center cost less, and nothing in cells that are `ignored` [B, h, w] bool.
    """
    probability = jax.nn.sigmoid(logits)
    positive = (1 - probability) ** alpha * jax.nn.softplus(-logits)
    negative = (1 - target) ** beta * probability**alpha * jax.nn.softplus(logits)
    if ignored is not None:
        negative = jnp.where(ignored[..., None], 0.0, negative)
    return jnp.sum(jnp.where(target >= 1, positive, negative), axis=(1, 2, 3))
