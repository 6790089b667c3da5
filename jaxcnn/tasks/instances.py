"""Instance segmentation: each object's box, class and mask.

Outputs: those of `jaxcnn.tasks.detection` and, in evaluation, "masks" [B, D, m, m], the logits
inside the D = max_objects boxes that `centers.decode_centers` gives; in training "truth_masks" [B,
N, m, m], the logits inside the true boxes. Batch: that of detection and
"instance_masks" [B, N, H, W] float, 0 or 1 (uint8 0 or 255 in the data), rows in the order of the
boxes. He et al., "Mask R-CNN", 2017.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import DataError
from jaxcnn.metrics import average_precision
from jaxcnn.ops import centers
from jaxcnn.ops.boxes import pairwise_iou
from jaxcnn.ops.roi_align import roi_align
from jaxcnn.ops.roi_paste import roi_paste
from jaxcnn.tasks.detection import LEAST_SCORE, CenterDetection
from jaxcnn.tasks.objects import (
    average,
    describe_object,
    existing_boxes,
    ignored_boxes,
    to_predictions,
    to_truths,
    usable_boxes,
)
from jaxcnn.tasks.task import Batch

# a box that overlaps a true one at least so much is judged by that one's mask (He et al. 2017,
# section 3.1)
MATCHED = 0.5


@dataclasses.dataclass(frozen=True)
class InstanceSegmentation(CenterDetection):
    """`CenterDetection` with masks; its fields mean the same.

    `mask_weight` times the mask loss is added: sigmoid cross-entropy, mean over the m x m cells of
    a box and then over the boxes of the image that match a true one. `image_size` (height, width)
    must be that of the masks: detections are compared at that resolution, and their pixels count
    for the size classes as so many of the original picture's as they cover. Crowds are rows of
    "instance_masks" like all else. An evaluation keeps (max_objects + N) * H * W / 8 bytes an
    image.
    """

    mask_weight: float = 1.0
    inputs: tuple[str, ...] = ("image", "boxes")
    training_inputs = ("boxes",)
    metric: str = "mask_AP"

    def loss(self, outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """The loss of detection + mask_weight * cross-entropy of the masks, [B] float32."""
        return super().loss(outputs, batch) + jnp.asarray(
            self.mask_weight, jnp.float32
        ) * self._mask_loss(outputs, batch)

    def records(self, outputs: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """Those of detection; masks [B, D, bytes] and truth_masks [B, N, bytes] uint8, the pixels
        of the image packed, eight in a byte.
        """
        detected = super().records(
            {name: outputs[name] for name in ("heatmap", "size", "offset")}, batch
        )
        masks = (
            roi_paste(
                jax.nn.sigmoid(outputs["masks"].astype(jnp.float32)),
                detected["boxes"],
                size=self.image_size,
            )
            >= 0.5
        )
        return detected | {
            "masks": _pack(masks),
            "truth_masks": _pack(batch["instance_masks"] >= 0.5),
        }

    def summarize(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """mask_AP, mask_AP50 and the others of `average_precision.coco_masks`; AP, AP50 … of the
        boxes and the rest as in detection; of each class per_class_mask_ap and per_class_mask_ap50.
        """
        scores = np.where(records["scores"] >= LEAST_SCORE, records["scores"], 0.0)
        kept = records | {"scores": scores}
        pixel = np.prod(records["picture_size"], axis=1) / np.prod(self.image_size)
        truths = _WithMasks(
            to_truths(kept),
            records["truth_masks"],
            np.asarray(records["truth_mask"]) | np.asarray(records["truth_ignored"]),
            self.image_size,
            pixel,
        )
        found = _WithMasks(
            to_predictions(kept), records["masks"], scores > 0, self.image_size, pixel
        )
        masks = average_precision.coco_masks(truths, found, num_classes=self.num_classes)
        del masks["per_class_support"]  # that of the boxes
        return {_of_masks(name): value for name, value in masks.items()} | super().summarize(
            sums, records
        )

    def predict(self, outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """As detection, and masks [B, D, H, W] bool of the size `image_size`."""
        detected = super().predict(outputs)
        if "masks" not in outputs:
            return detected
        masks = roi_paste(
            jax.nn.sigmoid(outputs["masks"].astype(jnp.float32)),
            detected["boxes"],
            size=self.image_size,
        )
        return detected | {"masks": masks >= 0.5}

    def describe(self, row: dict[str, np.ndarray], *, names: tuple[str, ...]) -> dict[str, Any]:
        """The objects whose score reaches `threshold`, each with its mask."""
        shown = [
            i
            for i in np.argsort(-row["scores"], kind="stable")
            if row["scores"][i] >= float(self.threshold)
        ]
        return {
            "objects": [
                describe_object(row["boxes"][i], row["labels"][i], row["scores"][i], names=names)
                | {"mask": np.asarray(row["masks"][i])}
                for i in shown
            ]
        }

    def check(self, batch: dict[str, Any]) -> None:
        """As detection; also DataError for masks of another size than image and `image_size`, of
        values other than 0 and 255, or empty.
        """
        super().check(batch)
        masks, boxes = np.asarray(batch["instance_masks"]), np.asarray(batch["boxes"])
        size = np.shape(batch["image"])[1:3] if "image" in batch else self.image_size
        if tuple(size) != self.image_size or masks.shape != (*boxes.shape[:2], *size):
            raise DataError(
                f"instance_masks have shape {masks.shape}, images the size {tuple(size)}, and the "
                f"task image_size={self.image_size}; for "
                f"boxes {boxes.shape} masks of {(*boxes.shape[:2], *self.image_size)} are "
                "expected. Resize the masks with the images, or "
                "correct image_size"
            )
        full = 255 if masks.dtype == np.uint8 else 1
        if not np.isin(masks, (0, full)).all():
            value = masks[~np.isin(masks, (0, full))][0]
            raise DataError(
                f"instance_masks ({masks.dtype}) hold the value {value}; they hold 0 and {full}. "
                "Multiply a 0/1 mask by 255"
            )
        exists = np.asarray(existing_boxes(batch) | ignored_boxes(batch))
        empty = exists & ~masks.any(axis=(2, 3))
        if self.invalid == "error" and empty.any():
            row, column = (int(i) for i in np.argwhere(empty)[0])
            raise DataError(
                f"instance_masks[{row}, {column}] is empty, but its box exists; "
                f"{int(empty.sum())} of {int(exists.sum())} are. Repair the "
                "data, or learn such objects' boxes alone: invalid='skip'"
            )

    def ensemble(self, outputs: list) -> dict[str, jax.Array]:
        """Mean maps; each of their boxes gets the mean of the mask logits that each model draws in
        its own box nearest to it.
        """
        maps = super().ensemble(outputs)
        boxes = super().predict(maps)["boxes"]

        def nearest(single: dict[str, jax.Array]) -> jax.Array:
            own = CenterDetection.predict(self, single)["boxes"]
            index = jnp.argmax(pairwise_iou(boxes, own), axis=-1)
            return jnp.take_along_axis(single["masks"], index[..., None, None], axis=1)

        return maps | {"masks": average([nearest(single) for single in outputs])}

    def _mask_loss(self, outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """Mean cross-entropy of the masks of boxes that match a true one, [B]; 0 where
        none does.
        """
        truth, masks = (
            batch["boxes"].astype(jnp.float32),
            batch["instance_masks"].astype(jnp.float32),
        )
        drawn = usable_boxes(batch, num_classes=self.num_classes) & jnp.any(masks > 0, axis=(2, 3))
        truth = jnp.where(drawn[..., None], truth, 0.0)
        if "truth_masks" in outputs:
            logits, rois = outputs["truth_masks"].astype(jnp.float32), truth
        else:
            logits = outputs["masks"].astype(jnp.float32)
            maps = (outputs[name].astype(jnp.float32) for name in ("heatmap", "size", "offset"))
            rois = jax.lax.stop_gradient(
                centers.decode_centers(*maps, num_objects=logits.shape[1])[0]
            )
        overlap = pairwise_iou(rois, truth)  # [B, R, N]
        matched = jnp.max(overlap, axis=-1) >= MATCHED
        target = _crop(
            masks, jnp.argmax(overlap, axis=-1), rois, size=(logits.shape[2], logits.shape[3])
        )
        error = jnp.mean(jax.nn.softplus(logits) - target * logits, axis=(2, 3))  # [B, R]
        return jnp.sum(jnp.where(matched, error, 0.0), axis=-1) / jnp.maximum(
            jnp.sum(matched, axis=-1), 1
        ).astype(jnp.float32)


def _crop(
    masks: jax.Array, index: jax.Array, box: jax.Array, *, size: tuple[int, int]
) -> jax.Array:
    """The part of mask index[b, r] inside box[b, r], binary. [B, N, H, W], [B, R], [B, R, 4] -> [B,
    R, *size]
    """
    chosen = jnp.take_along_axis(masks, index[..., None, None], axis=1)  # [B, R, H, W]
    flat = chosen.reshape(-1, *masks.shape[2:], 1)
    cropped = roi_align(flat, box.reshape(-1, 1, 4), size=size)
    return (cropped.reshape(*index.shape, *size) >= 0.5).astype(masks.dtype)


def _of_masks(name: str) -> str:
    """What a metric of boxes is called of masks."""
    group = "per_class_" if name.startswith("per_class_") else ""
    return f"{group}mask_{name.removeprefix(group)}"


def _pack(masks: jax.Array) -> jax.Array:
    """[B, N, H, W] bool -> [B, N, bytes] uint8"""
    return jnp.packbits(masks.reshape(*masks.shape[:2], -1), axis=-1)


class _WithMasks(Sequence):
    """Objects of each image with their masks, unpacked as they are asked for: all at once would
    take eight times the memory. "area" is that of the masks where nothing better is known; `pixel`
    [R] says how many of the original picture's pixels one of a mask covers.
    """

    def __init__(
        self,
        objects: list[dict[str, np.ndarray]],
        packed: np.ndarray,
        chosen: np.ndarray,
        size: tuple[int, int],
        pixel: np.ndarray,
    ):
        self._objects, self._packed, self._chosen, self._size = objects, packed, chosen, size
        self._pixel = pixel

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index):
        height, width = self._size
        packed = np.asarray(self._packed[index])[np.asarray(self._chosen[index]) > 0]
        masks = (
            np.unpackbits(packed, axis=-1, count=height * width)
            .astype(bool)
            .reshape(-1, height, width)
        )
        area = masks.sum(axis=(1, 2)) * float(self._pixel[index])
        return {"area": area} | self._objects[index] | {"mask": masks}
