"""Object detection with a prediction at every place of several maps, and non-maximum suppression of
what they agree on.

Outputs: {"logits": [B, A, K], "distances": [B, A, 4] above 0 (from the place up, left, down and
    right to the box's sides, in strides of its
map), "centerness": [B, A] logits}, A places: those of the map of the first stride row by row, then
of the second and so on. Batch: that of
`jaxcnn.tasks.detection`. Tian, Shen, Chen, He, "FCOS: Fully convolutional one-stage object
detection", 2019.
"""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError
from jaxcnn.ops import boxes, losses
from jaxcnn.tasks.detection import LEAST_SCORE, BoxDetection
from jaxcnn.tasks.objects import average, covered, usable_boxes
from jaxcnn.tasks.task import Batch, best_of


@dataclasses.dataclass(frozen=True)
class DenseDetection(BoxDetection):
    """All objects of `num_classes` classes in an image, as FCOS finds them.

    A place answers for a box if it lies inside it, within `center_radius` strides of its center
    along both axes (infinity: anywhere inside, as in 2019), and its largest distance to a side is
    above the map's limit before and at most its own; of several boxes, for the smallest (section
    3.2). `limits` are those distances in pixels of `image_size`, one for each of the `strides` but
    the last. The loss of a row is the focal loss (Lin et al., "Focal loss for dense object
    detection", 2017: alpha 0.25, gamma 2) over the number of places that answer, plus (1 - GIoU) of
    their boxes weighted by centerness, plus the cross-entropy of centerness. Scores are the
    geometric mean of class probability and centerness; of the `num_candidates` best, one of the
    same class that overlaps a better one by more than `suppression_iou` is dropped.
    """

    strides: tuple[int, ...] = (4, 8)
    limits: tuple[float, ...] = (16.0,)
    center_radius: float = 1.5
    suppression_iou: float = 0.6
    num_candidates: int = 100

    def __post_init__(self):
        super().__post_init__()
        if len(self.limits) != len(self.strides) - 1:
            raise ConfigError(
                f"DenseDetection: limits {self.limits} do not part strides {self.strides}; there "
                "is one between each two, in pixels"
            )
        if not all(a < b for a, b in itertools.pairwise((0.0, *self.limits, math.inf))):
            raise ConfigError(
                f"DenseDetection: limits are {self.limits}; they are pixels above 0 in ascending "
                "order, or a map would answer for no box"
            )

    def loss(self, outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """Focal + box + centerness, [B] float32."""
        logits, centerness = (
            outputs["logits"].astype(jnp.float32),
            outputs["centerness"].astype(jnp.float32),
        )
        label, truth, answers = self._targets(batch)
        count = jnp.maximum(jnp.sum(answers, axis=-1), 1).astype(jnp.float32)
        wanted = (label[..., None] == jnp.arange(self.num_classes)[None, None]) & answers[..., None]
        # inside a box that need not be found nobody says what a place that answers for none sees
        points = self.places()[0] / np.array(self.image_size)
        unknown = covered(batch, points, points, num_classes=self.num_classes) & ~answers
        focal = jnp.where(unknown[..., None], 0.0, focal_loss(logits, wanted))
        focal = jnp.sum(focal, axis=(1, 2)) / count
        centered = jnp.where(answers, self._centerness(truth), 0.0)
        distance = jnp.where(answers, 1 - boxes.giou(self._boxes(outputs), truth), 0.0)
        boxed = jnp.sum(centered * distance, axis=-1) / jnp.maximum(
            jnp.sum(centered, axis=-1), 1e-6
        )
        unsure = jnp.where(answers, jax.nn.softplus(centerness) - centered * centerness, 0.0)
        return focal + boxed + jnp.sum(unsure, axis=-1) / count

    def predict(self, outputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """boxes [B, D, 4], scores [B, D] in [0, 1], labels [B, D] int32, best first; D =
        max_objects, score 0 where there is none.
        """
        inside = jax.nn.sigmoid(outputs["centerness"].astype(jnp.float32))[..., None]
        # [B, A, K]
        score = jnp.sqrt(jax.nn.sigmoid(outputs["logits"].astype(jnp.float32)) * inside)
        flat = score.reshape(score.shape[0], -1)
        score, index = jax.lax.top_k(flat, min(self.num_candidates, flat.shape[1]))
        label = (index % self.num_classes).astype(jnp.int32)
        box = jnp.take_along_axis(
            boxes.clip(self._boxes(outputs)), (index // self.num_classes)[..., None], axis=1
        )
        remains = jax.vmap(
            lambda b, s, k: boxes.suppress(b, s, label=k, iou_threshold=self.suppression_iou)
        )(box, score, label)
        score, order = jax.lax.top_k(
            jnp.where(remains & (score >= LEAST_SCORE), score, 0.0),
            min(self.max_objects, score.shape[1]),
        )
        found = {
            "boxes": jnp.take_along_axis(box, order[..., None], axis=1),
            "scores": score,
            "labels": jnp.take_along_axis(label, order, axis=1),
        }
        missing = (0, self.max_objects - score.shape[1])
        return {
            name: jnp.pad(x, ((0, 0), missing, *[(0, 0)] * (x.ndim - 2)))
            for name, x in found.items()
        }

    def explained(self, outputs: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Of each class the logarithm of its best object's score (see `predict`), and the class of
        the best object.
        """
        inside = jax.nn.log_sigmoid(outputs["centerness"].astype(jnp.float32))[..., None]
        score = (jax.nn.log_sigmoid(outputs["logits"].astype(jnp.float32)) + inside) / 2
        return best_of(jnp.max(score, axis=1))

    def ensemble(self, outputs: list) -> dict[str, jax.Array]:
        """The logits of the mean probabilities; mean distances."""
        joined = {"distances": average([o["distances"] for o in outputs])}
        for name in ("logits", "centerness"):
            probability = average([jax.nn.sigmoid(o[name].astype(jnp.float32)) for o in outputs])
            joined[name] = jax.scipy.special.logit(jnp.clip(probability, 1e-7, 1 - 1e-7))
        return joined

    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the maps' places lie: points (y, x) in pixels [A, 2], their strides [A], least and
        largest distances [A, 2], float32.
        """
        points, strides, limits = [], [], []
        borders = (0.0, *self.limits, math.inf)
        for stride, low, high in zip(self.strides, borders[:-1], borders[1:], strict=True):
            y, x = (np.arange(-(-side // stride)) * stride + stride / 2 for side in self.image_size)
            points.append(np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2))
            strides.append(np.full(len(points[-1]), stride))
            limits.append(np.tile([low, high], (len(points[-1]), 1)))
        return tuple(
            np.concatenate(parts).astype(np.float32) for parts in (points, strides, limits)
        )  # pyright: ignore[reportReturnType]

    def _boxes(self, outputs: dict[str, jax.Array]) -> jax.Array:
        """The boxes that the distances mean, in [0, 1] but for what sticks out. [B, A, 4]"""
        distances = outputs["distances"].astype(jnp.float32)
        points, strides, _ = self.places()
        if len(points) != distances.shape[1]:
            raise ConfigError(
                f"DenseDetection: the model predicts at {distances.shape[1]} places, and maps of "
                f"strides {self.strides} have "
                f"{len(points)} in images of {self.image_size}; correct strides or image_size"
            )
        signs = np.array([-1, -1, 1, 1], np.float32)[None]
        corners = (
            jnp.asarray(np.tile(points, (1, 2)))[None]
            + distances * jnp.asarray(signs * strides[:, None])[None]
        )
        return corners / jnp.asarray([*self.image_size, *self.image_size], jnp.float32)[None, None]

    def _targets(self, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What each place should say: label [B, A], box [B, A, 4] in [0, 1] (the whole image where
        none), whether it answers [B, A].
        """
        usable = usable_boxes(batch, num_classes=self.num_classes)[:, None]  # [B, 1, N]
        true = jnp.where(usable[:, 0, :, None], batch["boxes"].astype(jnp.float32), 0.0)
        # [B, 1, N, 4] pixels
        sides = (true * jnp.asarray([*self.image_size, *self.image_size], jnp.float32)[None, None])[
            :, None
        ]
        # To 1/64 pixel: a place on the side of a box of whole pixels lies exactly there, however
        # the program above was compiled.
        sides = jnp.round(sides * 64) / 64
        # [1, A, 1, …]
        points, strides, limits = (jnp.asarray(array)[None, :, None] for array in self.places())
        # [B, A, N, 4]
        distances = jnp.concatenate([points - sides[..., :2], sides[..., 2:] - points], axis=-1)
        furthest = jnp.max(distances, axis=-1)
        off_center = jnp.max(jnp.abs(points - (sides[..., :2] + sides[..., 2:]) / 2), axis=-1)
        answers = (
            usable
            & (jnp.min(distances, axis=-1) > 0)
            & (off_center < jnp.asarray(self.center_radius, jnp.float32) * strides)
        )
        answers = answers & (furthest > limits[..., 0]) & (furthest <= limits[..., 1])
        area = jnp.where(answers, boxes.area(sides), jnp.inf)
        chosen = jnp.argmin(area, axis=-1)  # [B, A]
        found = jnp.any(answers, axis=-1)
        box = jnp.take_along_axis(true, chosen[..., None], axis=1)
        whole = jnp.asarray([0.0, 0.0, 1.0, 1.0], jnp.float32)[None, None]
        label = jnp.take_along_axis(batch["box_labels"].astype(jnp.int32), chosen, axis=1)
        return label, jnp.where(found[..., None], box, whole), found

    def _centerness(self, box: jax.Array) -> jax.Array:
        """How far in the middle of its box each place lies, in [0, 1] (equation 3). [B, A, 4] ->
        [B, A]
        """
        points = (
            jnp.asarray(self.places()[0])[None]
            / jnp.asarray(self.image_size, jnp.float32)[None, None]
        )
        # [B, A, 2]
        before, behind = (
            jnp.maximum(points - box[..., :2], 0),
            jnp.maximum(box[..., 2:] - points, 0),
        )
        share = jnp.minimum(before, behind) / jnp.maximum(jnp.maximum(before, behind), 1e-9)
        return jnp.sqrt(jnp.prod(share, axis=-1))


def focal_loss(
    logits: jax.Array, positive: jax.Array, *, alpha: float = 0.25, gamma: float = 2.0
) -> jax.Array:
    """The sigmoid focal loss of each number, of the shape of both arguments (Lin et al. 2017,
    equation 5).

    alpha (1 - p)^gamma * -log p where `positive`, else (1 - alpha) p^gamma * -log(1 - p): what is
    already right costs next to nothing.
    """
    balance = jnp.where(positive, alpha, 1 - alpha)
    return balance * losses.focal(logits, positive.astype(logits.dtype), focus=gamma)
