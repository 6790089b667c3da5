"""Keypoints: J named points of one object an image, such as the joints of a body. Heatmaps,
soft-argmax or plain coordinates.

Outputs: heatmaps [B, h, w, J] of any resolution (method "heatmap"), logits of heatmaps [B, h, w, J]
    ("dsnt") or points [B, J, 2] ("direct").
Batch: "points" [B, J, 2] float32 (y, x) in [0, 1]; "points_mask" [B, J], 1 where a point is visible
    (all, if absent).
Optional, as `jaxcnn.core.batch` says: "boxes_ignored" and "boxes_crowd" [B, N], of which the first
    is the object's: 1 for one that need not be found; "original_size" [B, 2] of what the image
    shows; "box_areas" [B, N], the first the object's.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.metrics import keypoints
from jaxcnn.ops import heatmaps
from jaxcnn.tasks.checks import check_points
from jaxcnn.tasks.task import BaseTask, Batch, loss_sums, mean_loss

METHODS = ("heatmap", "dsnt", "direct")
DECODERS = {
    "maximum": heatmaps.decode_maximum,
    "quarter": heatmaps.decode_quarter_offset,
    "newton": heatmaps.decode_newton,
}
LENGTHS = ("extent", "image")
INVALID = ("error", "skip")
TINY = 1e-6


@dataclasses.dataclass(frozen=True)
class Keypoints(BaseTask):
    """`num_points` points of the object in the image.

    method: "heatmap": mean squared error to Gaussians of `sigma` cells around the visible points
        (Xiao et al., "Simple baselines for human pose estimation and tracking", 2018, section 2);
        decoded as `decode` says (see `jaxcnn.ops.heatmaps`). "dsnt": the mean place under a softmax
        over the cells, its distance to the truth with a divergence from that Gaussian, weighed by
        `regularization` (Nibali et al., "Numerical coordinate regression with convolutional neural
        networks", 2018, sections 3 and 4). "direct": mean absolute error of coordinates.
    reference: the length that PCK and NME divide by: "extent", the longer side of the box around
        the visible points; "image", the image's longer side; or two points (i, j), their distance,
        such as the outer corners of the eyes.
    threshold: PCK counts the points that are at most this share of the reference length away.
    sigmas: the spread of each point among annotators, COCO's constants for its 17 (J numbers; ()
        leaves OKS out). The object's area is "box_areas" where "original_size" comes with it, else
        that of the box around the visible points.
    edges: lines between points for drawing, pairs (i, j).
    invalid: what `check` does about visible points outside [0, 1]: "error" raises, "skip" lets them
    pass, and they count as not visible.

    Distances are taken in a square unit: by "original_size", or where the batch lacks it by the
    image as the model sees it. The points of an object that need not be found count for nothing.
    """

    num_points: int
    method: str = "heatmap"
    sigma: float = 2.0
    decode: str = "newton"
    regularization: float = 1.0
    reference: str | tuple[int, int] = "extent"
    threshold: float = 0.1
    sigmas: tuple[float, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()
    invalid: str = "error"
    inputs: tuple[str, ...] = ("image",)
    metric: str = "pck"
    larger_is_better: bool = True

    blind_answer = "the mean of each point, always"

    def __post_init__(self):
        if self.num_points < 1:
            raise ConfigError(f"Keypoints: num_points is {self.num_points}; it is at least 1")
        for field, known in (
            ("method", METHODS),
            ("decode", tuple(DECODERS)),
            ("invalid", INVALID),
        ):
            value = getattr(self, field)
            if value not in known:
                raise ConfigError(
                    f"Keypoints: {field} is {value!r}; it is one of "
                    f"{', '.join(known)}{did_you_mean(value, known)}"
                )
        ends = self.reference if isinstance(self.reference, tuple) else ()
        if not ends and self.reference not in LENGTHS:
            raise ConfigError(
                f"Keypoints: reference is {self.reference!r}; it is one of {', '.join(LENGTHS)}, "
                "or two points (i, j)"
            )
        for i in (*ends, *(i for edge in self.edges for i in edge)):
            if not 0 <= i < self.num_points:
                raise ConfigError(
                    f"Keypoints: point {i} in reference or edges; there are points "
                    f"0..{self.num_points - 1}"
                )
        if self.sigmas and len(self.sigmas) != self.num_points:
            raise ConfigError(
                f"Keypoints: {len(self.sigmas)} sigmas for {self.num_points} points; give one a "
                "point, or none"
            )

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Mean loss of the visible points [B] float32 (see `method`); 0 for a row without any."""
        truth, visible = self._truth(outputs, batch)
        outputs = outputs.astype(jnp.float32)
        if self.method == "heatmap":
            target = self._gaussians(truth, outputs)
            losses = jnp.mean(jnp.square(outputs - target), axis=(1, 2))  # [B, J]
        elif self.method == "dsnt":
            target = self._gaussians(truth, outputs)
            target = target / jnp.maximum(jnp.sum(target, axis=(1, 2), keepdims=True), TINY)
            offset = (heatmaps.soft_argmax(outputs) - truth) * self._sides(outputs, batch)
            # the paper's image is 2 wide; smooth at 0
            distance = 2 * jnp.sqrt(jnp.sum(jnp.square(offset), axis=-1) + TINY**2)
            losses = distance + jnp.asarray(self.regularization, jnp.float32) * heatmaps.divergence(
                heatmaps.log_shares(outputs), target
            )
        else:
            losses = jnp.mean(jnp.abs((outputs - truth) * self._sides(outputs, batch)), axis=-1)
        return jnp.sum(jnp.where(visible, losses, 0.0), axis=-1) / jnp.maximum(
            jnp.sum(visible, axis=-1, dtype=jnp.float32), 1.0
        )

    def statistics(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Counts (int32) of rows, of ignored ones, of rows that can be measured (a visible point,
        and a reference length), of visible and of correct points [J] in these, of `invalid` points;
        sums of the loss, of the normalized errors and of the object keypoint similarities.
        """
        rows = self.records(outputs, batch)
        point, _ = self._decode(outputs.astype(jnp.float32))
        point = jnp.where(jnp.isfinite(point), point, -1.0)  # NaN is far away
        real, ignored = batch["mask"] > 0, _is_ignored(batch)
        _, visible = self._truth(outputs, batch)
        invalid = (_mask(batch) > 0) & ~visible & (real & ~ignored)[:, None]
        return {
            "ignored": jnp.sum(real & ignored, dtype=jnp.int32),
            "measured": jnp.sum(rows["measured"], dtype=jnp.int32),
            "visible": jnp.sum(rows["visible"], axis=0, dtype=jnp.int32),
            "invalid": jnp.sum(invalid, dtype=jnp.int32),
            **loss_sums(self.loss(outputs, batch), batch),
            **self._scores(point, rows),
        }

    def records(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Of each row: truth [B, J, 2], sides [B, 2] that make its unit square, length [B] and
        area [B] in that unit, measured [B] bool, and visible [B, J] bool, in measured rows alone.
        """
        truth, visible = self._truth(outputs, batch)
        size = jnp.broadcast_to(self._sides(outputs, batch), (truth.shape[0], 1, 2))
        if "original_size" in batch:
            size = jnp.maximum(batch["original_size"].astype(jnp.float32), 1.0)[:, None]
            size = size / jnp.max(size, axis=-1, keepdims=True)
        length, measurable = self._length(truth * size, visible)
        measured = (batch["mask"] > 0) & measurable
        area = jnp.prod(keypoints.extent(truth * size, visible), axis=-1)
        if "original_size" in batch and "box_areas" in batch:
            longer = jnp.max(batch["original_size"].astype(jnp.float32), axis=-1)
            area = batch["box_areas"][:, 0].astype(jnp.float32) / jnp.square(longer)
        return {
            "truth": truth,
            "sides": size[:, 0],
            "length": length,
            "area": area,
            "measured": measured,
            "visible": visible & measured[:, None],
        }

    def _scores(self, point: jax.Array, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Of points [B, J, 2]: how many are correct [J] int32; summed normalized errors and, with
        `sigmas`, similarities of the measured rows.
        """
        sides, visible = rows["sides"][:, None], rows["visible"].astype(jnp.float32)
        of = (point * sides, rows["truth"] * sides, visible)
        near = jnp.asarray(self.threshold, jnp.float32)
        right = keypoints.correct(*of, reference=rows["length"], threshold=near)
        error = keypoints.normalized_error(*of, reference=rows["length"])
        sums = {
            "correct": jnp.sum(right, axis=0, dtype=jnp.int32),
            "error": jnp.sum(jnp.where(rows["measured"], error, 0.0)),
        }
        if self.sigmas:
            sigmas = jnp.asarray(self.sigmas, jnp.float32)
            similarity = keypoints.similarity(*of, area=rows["area"], sigmas=sigmas)
            sums["similarity"] = jnp.sum(jnp.where(rows["measured"], similarity, 0.0))
        return sums

    def _blind(self, rows: dict[str, np.ndarray]) -> dict[str, float]:
        """blind_<metric> of the mean of each point over the rows that show it; {} without any."""
        if not rows["visible"].any():
            return {}
        seen = rows["visible"][..., None]
        total = np.where(seen, rows["truth"], 0.0).sum(0, np.float64)
        mean = np.where(seen.any(0), total / np.maximum(seen.sum(0), 1), 0.5)
        sums = self._scores(
            jnp.broadcast_to(jnp.asarray(mean, jnp.float32), rows["truth"].shape),
            jax.tree.map(jnp.asarray, rows),
        )
        found = self._means(jax.device_get(sums), rows["visible"].sum(), rows["measured"].sum())
        return {f"blind_{name}": value for name, value in found.items()}

    def _means(self, sums: Any, visible: Any, measured: Any) -> dict[str, float]:
        """pck, nme and, with `sigmas`, oks from sums over so many points and rows."""
        found = {
            "pck": int(sums["correct"].sum()) / max(int(visible), 1),
            "nme": float(sums["error"]) / max(int(measured), 1),
        }
        if self.sigmas:
            found["oks"] = float(sums["similarity"]) / max(int(measured), 1)
        return found

    def summarize(self, sums: Any, records: dict[str, Any]) -> dict[str, Any]:
        """pck, the share of visible points within `threshold` reference lengths, and per_point_pck
        [J] (None for a point never seen); nme, the mean over rows of the visible points' mean
        distance in reference lengths; with `sigmas` oks, the mean object keypoint similarity; loss;
        count, and of these ignored, the rows whose object need not be found, and skipped, other
        rows without a visible point or a reference length; invalid_points; blind_pck, blind_nme and
        blind_oks, of the mean of each point, always.
        """
        visible = np.asarray(sums["visible"], np.int64)
        correct = np.asarray(sums["correct"], np.int64)
        count, measured = int(sums["count"]), int(sums["measured"])
        return {
            **self._means(sums, visible.sum(), measured),
            "per_point_pck": [
                int(right) / int(seen) if seen else None
                for right, seen in zip(correct, visible, strict=True)
            ],
            **mean_loss(sums),
            "ignored": int(sums["ignored"]),
            "skipped": count - measured - int(sums["ignored"]),
            "invalid_points": int(sums["invalid"]),
            **self._blind(records),
        }

    def predict(self, outputs: jax.Array) -> dict[str, jax.Array]:
        """points [B, J, 2] (y, x) in [0, 1] and their score [B, J] in [0, 1]: the height of the
        peak ("heatmap"), its height over that of the Gaussian ("dsnt"), or 1 ("direct")."""
        point, score = self._decode(outputs.astype(jnp.float32))
        return {"points": jnp.clip(point, 0.0, 1.0), "score": jnp.clip(score, 0.0, 1.0)}

    def describe(self, row: dict[str, np.ndarray], *, names: tuple[str, ...]) -> dict[str, Any]:
        """points [[y, x, score], …] in [0, 1], and the edges [[i, j], …] that join them."""
        rows = np.concatenate([row["points"], np.asarray(row["score"])[:, None]], axis=-1)
        return {"points": rows.astype(float).tolist(), "edges": [list(edge) for edge in self.edges]}

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for points of a wrong dtype or shape, visible points that are not finite or
        (unless `invalid` is "skip") outside the image, where no point of all these examples is
        visible, and for what `BaseTask` refuses. Single examples without a visible point pass, and
        are skipped.
        """
        check_points(
            batch["points"],
            batch.get("points_mask"),
            num_points=self.num_points,
            skip_outside=self.invalid == "skip",
        )
        super().check({n: x for n, x in batch.items() if n not in ("points", "boxes")})

    def ensemble(self, outputs: list) -> jax.Array:
        """The mean of the models' heatmaps (of "dsnt", logits of their mean) or points."""
        outputs = [output.astype(jnp.float32) for output in outputs]
        if self.method == "dsnt":
            shares = jnp.exp(jnp.stack([heatmaps.log_shares(output) for output in outputs]))
            return jnp.log(jnp.maximum(jnp.mean(shares, axis=0), 1e-30))
        return jnp.mean(jnp.stack(outputs), axis=0)

    def _truth(self, outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Points [B, J, 2] and whether each is visible and in the image [B, J]; the others are
        moved to the middle, harmless numbers.
        """
        points = batch["points"].astype(jnp.float32)
        wanted = (self.num_points, 2) if self.method == "direct" else (self.num_points,)
        rank = 3 if self.method == "direct" else 4
        if (
            outputs.ndim != rank
            or outputs.shape[-len(wanted) :] != wanted
            or points.shape[1:] != (self.num_points, 2)
        ):
            form = "points [B, J, 2]" if self.method == "direct" else "heatmaps [B, h, w, J]"
            raise ConfigError(
                f"Keypoints: the model gives {outputs.shape} for points {points.shape}; method "
                f"{self.method!r} takes {form} with J = "
                f"{self.num_points}. Correct num_points of the model or the task"
            )
        visible = (_mask(batch) > 0) & jnp.all((points >= 0) & (points <= 1), axis=-1)
        visible = visible & ~_is_ignored(batch)[:, None]
        return jnp.where(visible[..., None], points, 0.5), visible

    def _gaussians(self, truth: jax.Array, outputs: jax.Array) -> jax.Array:
        """Targets of height 1, [B, h, w, J]."""
        drawn = heatmaps.draw_gaussians(
            truth, (outputs.shape[1], outputs.shape[2]), sigma=jnp.asarray(self.sigma, jnp.float32)
        )
        return jnp.moveaxis(drawn, 1, -1)

    def _decode(self, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Points [B, J, 2] and scores [B, J]."""
        if self.method == "heatmap":
            return DECODERS[self.decode](outputs)
        if self.method == "direct":
            return outputs, jnp.ones(outputs.shape[:2], jnp.float32)
        peak = jnp.exp(jnp.max(heatmaps.log_shares(outputs), axis=(1, 2)))
        return heatmaps.soft_argmax(outputs), peak * 2 * jnp.pi * jnp.square(
            jnp.asarray(self.sigma, jnp.float32)
        )

    def _sides(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Height and width over the longer of them [1, 1, 2], of the image, or of the heatmaps
        where the batch has none: distances are taken in a square unit."""
        maps = outputs.shape[1:3] if outputs.ndim == 4 else (1, 1)
        height, width = batch["image"].shape[1:3] if "image" in batch else maps
        return jnp.asarray([height, width], jnp.float32)[None, None] / max(height, width)

    def _length(self, truth: jax.Array, visible: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The reference length of each row [B], and whether it has one. `truth` in the unit of
        `_sides`.
        """
        measurable = jnp.any(visible, axis=-1)
        if isinstance(self.reference, tuple):
            i, j = self.reference
            length = keypoints.distance(truth[:, i], truth[:, j])
            measurable = visible[:, i] & visible[:, j]
        elif self.reference == "image":
            length = jnp.ones(truth.shape[:1], jnp.float32)
        else:
            length = jnp.max(keypoints.extent(truth, visible), axis=-1)
        measurable = measurable & (length > TINY)
        return jnp.where(measurable, length, 1.0), measurable


def _mask(batch: Batch) -> jax.Array:
    return batch.get("points_mask", jnp.ones(batch["points"].shape[:2], jnp.float32))


def _is_ignored(batch: Batch) -> jax.Array:
    """Whether the object of each row need not be found, [B] bool."""
    ignored = jnp.zeros(batch["points"].shape[:1], bool)
    for name in ("boxes_ignored", "boxes_crowd"):
        ignored = ignored | (batch[name][:, 0] > 0) if name in batch else ignored
    return ignored
