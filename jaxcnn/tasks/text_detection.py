"""Text detection: a map of shrunk text kernels, its connected parts grown back to rectangles at any
angle, precision, recall and H-mean.

Outputs: logits [B, h, w] of a grid over the image. Batch: "polygons" [B, N, 4, 2] corners (y, x) in
[0, 1] of convex outlines, in order around each; "polygons_mask" [B, N], 1 where there is one;
perhaps "polygons_ignored" [B, N], 1 for text that cannot be read (its mask is
0): neither finding nor missing it counts. Liao, Wan, Yao, Chen, Bai, "Real-time Scene Text
Detection with Differentiable
Binarization" (2020), without the learned threshold: its kernels, its loss on them, its way back to
outlines.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics import matching
from jaxcnn.ops import polygons
from jaxcnn.ops.components import label_components
from jaxcnn.tasks.task import BaseTask, Batch, Blind, loss_sums, mean_loss

# background cells that count for each kernel cell, the hardest (2020, section "Optimization")
NEGATIVES = 3
MIN_AREA = 1e-6  # of a polygon, in images: below, there is nothing to find


@dataclasses.dataclass(frozen=True)
class TextDetection(BaseTask):
    """Rectangles around lines of text.

    A line's kernel is its polygon inset by area (1 - shrink_ratio^2) / perimeter: 0.4 as published,
    more for text that is only a few cells high. Cells of probability at least `threshold` form the
    kernels found; each connected part of at least `min_cells` becomes the smallest rectangle around
    it, grown back, and stays if its cells' mean probability is at least `min_score`. The loss is
    binary cross-entropy over the kernels and three times as many of the hardest other cells, plus
    `dice_weight` times the Dice loss. A rectangle is right if its IoU with a polygon is above
    `iou_threshold`, one to one, see `matching.match`. `degenerate` says what becomes of polygons,
    ignored ones among them, without area or not convex: "error" refuses the data, "skip" leaves
    them out everywhere and counts them as `skipped`.
    """

    shrink_ratio: float = 0.4
    threshold: float = 0.5
    min_cells: int = 2
    min_score: float = 0.5
    dice_weight: float = 1.0
    iou_threshold: float = 0.5
    degenerate: str = "error"
    inputs: tuple[str, ...] = ("image",)
    metric: str = "hmean"
    larger_is_better: bool = True

    def __post_init__(self):
        if self.degenerate not in ("error", "skip"):
            raise ConfigError(
                f"TextDetection: degenerate is {self.degenerate!r}; it must be 'error' or 'skip'"
            )
        for name in ("shrink_ratio", "threshold", "iou_threshold"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0 < value <= 1:
                raise ConfigError(f"TextDetection: {name} is {value}; it lies in (0, 1]")

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Balanced cross-entropy in nats a cell plus weighted Dice loss, [B] float32."""
        logits = outputs.astype(jnp.float32).reshape(outputs.shape[0], -1)
        kernel = self.kernels(batch, outputs.shape[1:3]).reshape(logits.shape)
        counts = self._counts(batch, outputs.shape[1:3]).reshape(logits.shape)
        target = (kernel & counts).astype(jnp.float32)
        error = jax.nn.softplus(logits) - logits * target
        num_kernel = jnp.maximum(target.sum(-1), 1.0)
        # of the background, worst first
        hardest = -jnp.sort(jnp.where(kernel | ~counts, 0.0, -error), axis=-1)
        chosen = (
            jnp.arange(logits.shape[1], dtype=jnp.float32)[None, :]
            < NEGATIVES * num_kernel[:, None]
        )
        balanced = ((error * target).sum(-1) + jnp.where(chosen, hardest, 0.0).sum(-1)) / (
            (1 + NEGATIVES) * num_kernel
        )
        probability = jnp.where(counts, jax.nn.sigmoid(logits), 0.0)
        overlap = (2 * (probability * target).sum(-1) + 1.0) / (
            probability.sum(-1) + target.sum(-1) + 1.0
        )
        return balanced + jnp.asarray(self.dice_weight, jnp.float32) * (1.0 - overlap)

    def kernels(self, batch: Batch, size: tuple[int, ...]) -> jax.Array:
        """The cells of the shrunk polygons, drawn on a grid of `size`: [B, *size] bool."""
        outline = (
            batch["polygons"].astype(jnp.float32) * jnp.asarray(size, jnp.float32)[None, None, None]
        )
        inset = polygons.inset_distance(outline, jnp.asarray(self.shrink_ratio, jnp.float32))
        filled = polygons.fill(
            outline, (size[0], size[1]), inset=jnp.asarray(inset)
        )  # [B, N, *size]
        exists = (batch["polygons_mask"] > 0) & _is_sound(batch["polygons"].astype(jnp.float32))
        return (filled & exists[:, :, None, None]).any(1)

    def _counts(self, batch: Batch, size: tuple[int, ...]) -> jax.Array:
        """The cells outside all ignored polygons: [B, *size] bool."""
        if "polygons_ignored" not in batch:
            return jnp.ones((batch["polygons"].shape[0], *size), bool)
        outline = (
            batch["polygons"].astype(jnp.float32) * jnp.asarray(size, jnp.float32)[None, None, None]
        )
        ignored = (
            polygons.fill(outline, (size[0], size[1]))
            & ((batch["polygons_ignored"] > 0) & _is_sound(batch["polygons"].astype(jnp.float32)))[
                :, :, None, None
            ]
        )
        return ~ignored.any(1)

    def statistics(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Number of images (int32), and the summed loss."""
        return loss_sums(self.loss(outputs, batch), batch)

    def records(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """kernel [B, h, w], the cells' probabilities; polygons [B, N, 4, 2]; polygons_mask and
        polygons_ignored [B, N].
        """
        truths = {name: batch[name].astype(jnp.float32) for name in ("polygons", "polygons_mask")}
        ignored = batch.get("polygons_ignored", jnp.zeros_like(batch["polygons_mask"]))
        return self.predict(outputs) | truths | {"polygons_ignored": ignored.astype(jnp.float32)}

    def summarize(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """hmean, precision, recall over all images together (ICDAR 2015), loss, count (images),
        polygons (true ones), ignored ones, detections, skipped (polygons). A detection more than
        half of which lies in an ignored polygon is no detection.
        """
        matched = found = true = skipped = passed_over = 0
        names = ("kernel", "polygons", "polygons_mask", "polygons_ignored")
        for kernel, outline, mask, ignored in zip(*(records[name] for name in names), strict=True):
            truths, unreadable = outline[mask > 0], outline[ignored > 0]
            sound, regions = _is_sound(truths), unreadable[_is_sound(unreadable)]
            skipped += int((~sound).sum()) + len(unreadable) - len(regions)
            passed_over += len(regions)
            rectangles = [
                rectangle
                for rectangle, _ in self.find(kernel)
                if not _is_mostly_within(rectangle, regions)
            ]
            similarity = polygons.pairwise_iou(
                np.array(rectangles).reshape(-1, 4, 2), truths[sound]
            )
            matched += len(matching.match(similarity, threshold=float(self.iou_threshold)))
            found, true = found + len(rectangles), true + int(sound.sum())
        return {
            **matching.harmonic_mean(matched, found, true),
            **mean_loss(sums),
            "polygons": true,
            "ignored": passed_over,
            "detections": found,
            "skipped": skipped,
        }

    def find(self, kernel: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Rectangles (corners [4, 2] in [0, 1]) and scores from the probabilities of one grid [h,
        w]. NumPy, on the host.
        """
        kernel = np.asarray(kernel, np.float64)
        labels, count = label_components(kernel >= float(self.threshold))
        cells = np.argwhere(labels)
        of_cell = labels[tuple(cells.T)]
        found = []
        for number in range(1, count + 1):
            part = cells[of_cell == number]
            score = float(kernel[tuple(part.T)].mean())
            if len(part) < self.min_cells or score < float(self.min_score):
                continue
            # the cells' centres, and half a cell on all sides
            around = polygons.smallest_rectangle(part + 0.5, margin=0.5)
            found.append(
                (polygons.unclip(around, ratio=float(self.shrink_ratio)) / kernel.shape, score)
            )
        return found

    def predict(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """kernel [B, h, w]: of each cell the probability that it lies in a kernel."""
        return {"kernel": jax.nn.sigmoid(outputs.astype(jnp.float32))}

    def describe(
        self, row: dict[str, np.ndarray], *, names: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """{"objects": [{"label", "name", "score", "box", "polygon"}, …]} of one row of `predict`,
        best first.
        """
        objects = []
        for corners, score in sorted(self.find(row["kernel"]), key=lambda pair: -pair[1]):
            box = np.clip(np.concatenate([corners.min(0), corners.max(0)]), 0, 1)
            name = names[0] if names else "text"
            objects.append(
                {
                    "label": 0,
                    "name": name,
                    "score": score,
                    "box": box.tolist(),
                    "polygon": corners.tolist(),
                }
            )
        return {"objects": objects}

    def blind(self, metrics: dict[str, Any]) -> Blind | None:
        """Nothing found, which scores 0."""
        return None if metrics.get(self.metric) is None else Blind(0.0, "finding nothing")

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for polygons that are not [B, N, 4, 2] with a mask [B, N], both to be found and
        ignored, not finite, far outside the image, or (unless `degenerate` is "skip") without area
        or not convex, and for what `BaseTask` refuses.
        """
        outline, mask = np.asarray(batch["polygons"]), np.asarray(batch["polygons_mask"])
        ignored = np.asarray(batch.get("polygons_ignored", np.zeros(mask.shape)))
        if outline.ndim != 4 or outline.shape[2:] != (4, 2) or mask.shape != outline.shape[:2]:
            raise DataError(
                f"polygons has shape {outline.shape} and polygons_mask {mask.shape}; "
                "expected [B, N, 4, 2] and [B, N]: four corners (y, x) each"
            )
        if ignored.shape != mask.shape or ((ignored > 0) & (mask > 0)).any():
            raise DataError(
                f"polygons_ignored has shape {ignored.shape} for polygons_mask {mask.shape}; it "
                "has the same, and is 1 only where the mask is 0"
            )
        for row, number in np.argwhere((mask > 0) | (ignored > 0)).tolist():
            one, where = (
                outline[row, number],
                f"polygons[{row}, {number}] {outline[row, number].tolist()}",
            )
            if not np.isfinite(one).all() or one.min() < -1 or one.max() > 2:
                raise DataError(
                    f"{where} is not in or near the image; corners (y, x) lie in [0, 1]. Divide "
                    "pixels by (height, width)"
                )
            if self.degenerate == "error" and not _is_sound(one[None])[0]:
                raise DataError(
                    f"{where} has no area or is not convex; order the corners around it, drop it, "
                    "or degenerate='skip'"
                )
        super().check({name: x for name, x in batch.items() if name != "polygons"})

    def ensemble(self, outputs: list) -> jax.Array:
        """The logits [B, h, w] of the mean of the models' probabilities."""
        logits = jnp.stack([o.astype(jnp.float32) for o in outputs])
        return logsumexp(jax.nn.log_sigmoid(logits), axis=0) - logsumexp(
            jax.nn.log_sigmoid(-logits), axis=0
        )


def _is_sound(outline: Any) -> Any:
    """Which polygons [..., 4, 2] in [0, 1] are convex and have an area. -> [...] bool; NumPy or
    JAX.
    """
    return polygons.is_convex(outline) & (polygons.area(outline) > MIN_AREA)


def _is_mostly_within(rectangle: np.ndarray, regions: np.ndarray) -> bool:
    """Whether more than half of `rectangle` [4, 2] lies in one of the `regions` [M, 4, 2]."""
    return any(
        polygons.intersection_area(rectangle, region) > polygons.area(rectangle) / 2
        for region in regions
    )
