"""Average precision of detections, as the COCO and PASCAL VOC evaluations define it. NumPy, exact,
on the host.

`truths` and `predictions` are lists with one dict an image, as `jaxcnn.metrics.objects` says.
Pixels are the unit: the size classes (small below 32², large above 96² pixels) depend on it, all
else not. Sources: Lin et al., "Microsoft COCO: common objects in context", 2014, and its evaluation
code; Everingham et al., "The PASCAL visual object classes (VOC) challenge", 2010, section 4.2.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from jaxcnn.metrics import objects
from jaxcnn.metrics.objects import Objects
from jaxcnn.ops import masks

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
SIZES = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
# Per-keypoint constants of COCO's 17 body points (nose, eyes, ears, shoulders, elbows, wrists,
# hips, knees, ankles), from its evaluation page.
# fmt: off
COCO_SIGMAS = np.array([
    0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89,
    0.89,
]) / 10
# fmt: on


def coco_boxes(truths: Sequence[Objects], predictions: Sequence[Objects]) -> dict[str, float]:
    """AP, AP50, AP75, AP_small, AP_medium, AP_large, AR_1, AR_10, AR_100, AR_small, AR_medium,
    AR_large; -1 where there is no truth.
    """

    def compare(truth, prediction):
        found, crowd = objects.boxes(prediction), objects.flags(truth, "crowd")
        return objects.box_iou(found, objects.boxes(truth), crowd), objects.box_area(found)

    def area(truth):
        return objects.box_area(objects.boxes(truth))

    return _summary(_evaluate(truths, predictions, compare, truth_area=area))


def coco_masks(truths: Sequence[Objects], predictions: Sequence[Objects]) -> dict[str, float]:
    """As `coco_boxes`, with the overlap of masks."""

    def compare(truth, prediction):
        crowd = objects.flags(truth, "crowd")
        overlap = masks.pairwise_iou(prediction["mask"], truth["mask"], crowd=crowd)
        return overlap, objects.mask_area(prediction)

    return _summary(_evaluate(truths, predictions, compare, truth_area=objects.mask_area))


def coco_keypoints(
    truths: Sequence[Objects],
    predictions: Sequence[Objects],
    *,
    sigmas: Float64[np.ndarray, " J"] = COCO_SIGMAS,
) -> dict[str, float]:
    """AP, AP50, AP75, AP_medium, AP_large and AR likewise, by object keypoint similarity with at
    most 20 detections an image and class.

    Truths need "box" and "area". An object without a visible point is ignored.
    """

    def compare(truth, prediction):
        points = np.asarray(prediction["points"], np.float64).reshape(-1, len(sigmas), 2)
        extent = np.ptp(points, axis=1) if len(points) else np.zeros((0, 2))
        return objects.keypoint_similarity(points, truth, sigmas), extent[:, 0] * extent[:, 1]

    def ignored(truth):
        return ~objects.any_visible(truth, len(sigmas))

    sizes = {name: SIZES[name] for name in ("all", "medium", "large")}
    results = _evaluate(
        truths,
        predictions,
        compare,
        truth_area=lambda truth: np.asarray(truth["area"]),
        ignored=ignored,
        sizes=sizes,
        most=20,
    )
    return _summary(results, sizes=sizes, limits=(20,))


def voc_boxes(
    truths: Sequence[Objects],
    predictions: Sequence[Objects],
    *,
    iou_threshold: float = 0.5,
    num_points: int | None = None,
) -> dict[Any, float]:
    """Average precision of each class, {label: AP}, and their mean under "mAP".

    `num_points=11` is the mean of the best precision at recalls 0, 0.1 … 1 (VOC 2007); None is the
    area under that curve (VOC 2010 on). A detection is compared with the truth of its class that it
    overlaps most, and is right if the IoU reaches the threshold and no better-scored one was right
    there; "difficult" truths count for nothing. Boxes are continuous: VOC's own code adds a pixel
    to each side.
    """
    objects.check(truths, predictions)
    found = {}
    for label in objects.labels(truths):
        total, scores, hits, misses = 0, [], [], []
        for truth, prediction in zip(truths, predictions, strict=True):
            truth, prediction = (
                objects.of_class(truth, label),
                objects.by_score(objects.of_class(prediction, label), None),
            )
            difficult = objects.flags(truth, "difficult")
            total += int(np.sum(~difficult))
            no_crowd = np.zeros(len(difficult), bool)
            overlap = objects.box_iou(objects.boxes(prediction), objects.boxes(truth), no_crowd)
            taken = np.zeros(len(difficult), bool)
            for row, score in zip(overlap, prediction["score"], strict=True):
                best = int(np.argmax(row)) if row.size else -1
                is_match = best >= 0 and row[best] >= iou_threshold
                scores.append(score)
                hits.append(is_match and not difficult[best] and not taken[best])
                misses.append(not is_match or (not difficult[best] and taken[best]))
                if is_match:
                    taken[best] = True
        if total:
            order = np.argsort(-np.array(scores, np.float64), kind="stable")
            found[label] = _voc_area(
                np.array(hits, bool)[order], np.array(misses, bool)[order], total, num_points
            )
    return found | {"mAP": float(np.mean(list(found.values()))) if found else -1.0}


def _voc_area(
    hits: Bool[np.ndarray, " D"], misses: Bool[np.ndarray, " D"], total: int, num_points: int | None
) -> float:
    hits, misses = np.cumsum(hits), np.cumsum(misses)
    recall, precision = hits / total, hits / np.maximum(hits + misses, 1)
    # the best precision at this recall or a higher one
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if num_points is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * best))
    at = np.searchsorted(recall, np.linspace(0, 1, num_points) - 1e-12)
    return float(np.mean(np.append(best, 0.0)[np.minimum(at, best.size)]))


def _evaluate(
    truths: Sequence[Objects],
    predictions: Sequence[Objects],
    compare: Callable[[Objects, Objects], tuple[np.ndarray, np.ndarray]],
    *,
    truth_area: Callable[[Objects], np.ndarray],
    ignored: Callable[[Objects], np.ndarray] | None = None,
    sizes: dict[str, tuple[float, float]] = SIZES,
    most: int = 100,
) -> list[dict[str, np.ndarray]]:
    """For each class: score [D] and rank [D] (in its image) of all detections; matched and ignored
    [A, T, D]; number of truths [A].
    """
    objects.check(truths, predictions)
    results = []
    for label in objects.labels(truths):
        pieces, num_truths = [], np.zeros(len(sizes), np.int64)
        for truth, prediction in zip(truths, predictions, strict=True):
            truth, prediction = (
                objects.of_class(truth, label),
                objects.by_score(objects.of_class(prediction, label), most),
            )
            similarity, area = compare(truth, prediction)
            crowd = objects.flags(truth, "crowd")
            # [A, G]
            other_size = _outside(
                np.asarray(truth["area"] if "area" in truth else truth_area(truth), np.float64),
                sizes,
            )
            ignore = other_size | crowd[None] | (ignored(truth)[None] if ignored else False)
            matched, excused = _match(similarity, ignore, crowd)
            excused |= ~matched & _outside(area, sizes)[:, None, :]
            num_truths += np.sum(~ignore, axis=1)
            pieces.append(
                (
                    np.asarray(prediction["score"], np.float64),
                    np.arange(len(area)),
                    matched,
                    excused,
                )
            )
        score, rank, matched, excused = (
            np.concatenate(piece, axis=-1) for piece in zip(*pieces, strict=True)
        )
        results.append(
            {
                "score": score,
                "rank": rank,
                "matched": matched,
                "ignored": excused,
                "num_truths": num_truths,
            }
        )
    return results


def _match(
    similarity: Float64[np.ndarray, "D G"],
    ignore: Bool[np.ndarray, "A G"],
    crowd: Bool[np.ndarray, " G"],
) -> tuple[Bool[np.ndarray, "A T D"], Bool[np.ndarray, "A T D"]]:
    """Greedy matching of detections [D], best score first, to truths [G], at each size class A and
    threshold T at once.

    A detection takes the free truth most like it (the last of equals) that reaches the threshold,
    and an ignored one only if no other does; a crowd is never used up. Returns whether each
    detection is matched, and whether to an ignored truth, both [A, T, D].
    """
    num_detections, num_truths = similarity.shape
    shape = (len(ignore), len(IOU_THRESHOLDS))
    matched, excused = (
        np.zeros((*shape, num_detections), bool),
        np.zeros((*shape, num_detections), bool),
    )
    free = np.ones((*shape, num_truths), bool)
    least = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[None, :, None]
    for d in range(num_detections):
        row = similarity[d]
        if not num_truths or row.max() < IOU_THRESHOLDS[0]:
            continue  # most detections touch nothing
        candidate = free & (row[None, None, :] >= least)
        counted = candidate & ~ignore[:, None, :]
        candidate = np.where(counted.any(axis=-1, keepdims=True), counted, candidate)
        values = np.where(candidate, row[None, None, :], -1.0)
        chosen = num_truths - 1 - np.argmax(values[..., ::-1], axis=-1)  # [A, T]
        matched[..., d] = candidate.any(axis=-1)
        excused[..., d] = matched[..., d] & np.take_along_axis(ignore, chosen, axis=1)
        used = matched[..., d] & ~crowd[chosen]
        a, t = np.nonzero(used)
        free[a, t, chosen[a, t]] = False
    return matched, excused


def _summary(
    results: list[dict[str, np.ndarray]],
    *,
    sizes: dict[str, tuple[float, float]] = SIZES,
    limits: tuple[int, ...] = (1, 10, 100),
) -> dict[str, float]:
    """Means over thresholds, recalls and classes."""
    curves = [
        [curve for result in results if (curve := _curves(result, a, limits[-1])) is not None]
        for a in range(len(sizes))
    ]

    def mean(which: int, a: int, thresholds: slice = slice(None)) -> float:
        return (
            float(np.mean([curve[which][thresholds] for curve in curves[a]])) if curves[a] else -1.0
        )

    def mean_recall(limit: int) -> float:
        values = [
            found[1] for result in results if (found := _curves(result, 0, limit)) is not None
        ]
        return float(np.mean(values)) if values else -1.0

    names = [f"_{name}" if name != "all" else "" for name in sizes]
    summary = {"AP": mean(0, 0), "AP50": mean(0, 0, slice(0, 1)), "AP75": mean(0, 0, slice(5, 6))}
    summary |= {f"AP{name}": mean(0, a) for a, name in enumerate(names) if a}
    if len(limits) == 1:
        summary |= {
            "AR": mean(1, 0),
            "AR50": mean(1, 0, slice(0, 1)),
            "AR75": mean(1, 0, slice(5, 6)),
        }
    else:
        summary |= {f"AR_{limit}": mean_recall(limit) for limit in limits}
    return summary | {f"AR{name}": mean(1, a) for a, name in enumerate(names) if a}


def _curves(
    result: dict[str, np.ndarray], a: int, limit: int
) -> tuple[Float64[np.ndarray, "T R"], Float64[np.ndarray, " T"]] | None:
    """Of one class: precision at the 101 recalls [T, 101] and the largest recall [T], or None if
    there is no truth to find.
    """
    if not result["num_truths"][a]:
        return None
    kept = np.flatnonzero(result["rank"] < limit)
    kept = kept[np.argsort(-result["score"][kept], kind="stable")]
    matched, ignored = result["matched"][a][:, kept], result["ignored"][a][:, kept]
    hits, misses = np.cumsum(matched & ~ignored, axis=1), np.cumsum(~matched & ~ignored, axis=1)
    if not kept.size:
        return np.zeros((len(IOU_THRESHOLDS), len(RECALLS))), np.zeros(len(IOU_THRESHOLDS))
    recall, precision = hits / result["num_truths"][a], hits / np.maximum(hits + misses, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # recalls never reached have precision 0
    best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    at = np.stack([np.searchsorted(row, RECALLS, side="left") for row in recall])
    return np.take_along_axis(best, at, axis=1), recall[:, -1]


def _outside(
    area: Float64[np.ndarray, " N"], sizes: dict[str, tuple[float, float]]
) -> Bool[np.ndarray, "A N"]:
    """Whether each area lies outside each size class. [N] -> [A, N]"""
    return np.stack([(area < low) | (area > high) for low, high in sizes.values()])
