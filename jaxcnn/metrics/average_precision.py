"""Average precision of detections, as the COCO and PASCAL VOC evaluations define it. NumPy, exact,
on the host.

`truths` and `predictions` are lists with one dict an image, as `jaxcnn.metrics.objects` says; each
is read once. Pixels are the unit: the size classes (small below 32², large above 96² pixels of the
original picture) depend on it, all else not. Some 80 bytes are held for each detection that touches
a truth, and 40 for each other one.

Sources: Lin et al., "Microsoft COCO: common objects in context", 2014, and its evaluation code;
Everingham et al., "The PASCAL visual object classes (VOC) challenge", 2010, section 4.2.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from jaxcnn.metrics import objects, scored_matching
from jaxcnn.metrics.objects import Objects
from jaxcnn.metrics.scored_matching import Compare

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


def coco_boxes(
    truths: Sequence[Objects], predictions: Sequence[Objects], *, num_classes: int | None = None
) -> dict[str, Any]:
    """AP, AP50, AP75, AP_small, AP_medium, AP_large, AR_1, AR_10, AR_100, AR_small, AR_medium,
    AR_large; -1 where there is no truth. With `num_classes`, K, also lists of K, for the labels 0
    to K - 1: per_class_ap and per_class_ap50, None for a class without a truth to be found, and
    per_class_support, how many of these there are; AP is the mean of per_class_ap.

    Truths that are "ignored", "difficult" or a "crowd" are neither missed nor found: a detection
    that matches one, since it matches no other, counts for nothing. Any number of detections may
    lie in a crowd, whose overlap is the shared area over the detection's own. A size class ignores
    truths outside it, and detections outside it that match nothing.
    """

    def compare(truth, prediction):
        found, crowd = objects.boxes(prediction), objects.flags(truth, "crowd")
        return objects.box_iou(found, objects.boxes(truth), crowd), objects.box_area(found)

    def area(truth):
        return objects.box_area(objects.boxes(truth))

    return _summary(
        _evaluate(
            *(truths, predictions, compare),
            truth_area=area,
            ignored=_not_wanted,
            sizes=SIZES,
            most=100,
        ),
        num_classes=num_classes,
    )


def coco_masks(
    truths: Sequence[Objects], predictions: Sequence[Objects], *, num_classes: int | None = None
) -> dict[str, Any]:
    """As `coco_boxes`, with the overlap of masks."""

    def compare(truth, prediction):
        return objects.mask_iou(prediction, truth), objects.mask_area(prediction)

    return _summary(
        _evaluate(
            *(truths, predictions, compare),
            truth_area=objects.mask_area,
            ignored=_not_wanted,
            sizes=SIZES,
            most=100,
        ),
        num_classes=num_classes,
    )


def coco_keypoints(
    truths: Sequence[Objects],
    predictions: Sequence[Objects],
    *,
    sigmas: Float64[np.ndarray, " J"] = COCO_SIGMAS,
) -> dict[str, float]:
    """AP, AP50, AP75, AP_medium, AP_large and AR likewise, by object keypoint similarity with at
    most 20 detections an image and class.

    Truths need "box" and "area". An object without a visible point is ignored, too.
    """

    def compare(truth, prediction):
        points = np.asarray(prediction["points"], np.float64).reshape(-1, len(sigmas), 2)
        extent = np.ptp(points, axis=1) if len(points) else np.zeros((0, 2))
        return objects.keypoint_similarity(points, truth, sigmas), extent[:, 0] * extent[:, 1]

    def ignored(truth):
        return _not_wanted(truth) | ~objects.any_visible(truth, len(sigmas))

    sizes = {name: SIZES[name] for name in ("all", "medium", "large")}
    results = _evaluate(
        *(truths, predictions, compare),
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
    there; one that overlaps an "ignored", "difficult" or "crowd" truth most counts for nothing.
    Boxes end where their last pixel ends; of VOC's files, whose corners are pixels, that is
    (ymin - 1, xmin - 1, ymax, xmax), and the numbers are then those of VOC's own code, which adds
    a pixel to each side.
    """
    rows: list[tuple[np.ndarray, ...]] = []
    total: dict[int, int] = {}
    for pairs in scored_matching.blocks(
        truths,
        predictions,
        _compare_plain,
        details={"difficult": lambda truth: _not_wanted(truth) | objects.flags(truth, "crowd")},
        least=iou_threshold,
        most=None,
    ):
        difficult = pairs.details["difficult"]
        for label, count in zip(
            *np.unique(pairs.truth_label[~difficult], return_counts=True), strict=True
        ):
            total[int(label)] = total.get(int(label), 0) + int(count)
        # each detection's best pair, the first of equals
        order = np.lexsort((pairs.column, -pairs.similarity, pairs.row))
        row, first = np.unique(pairs.row[order], return_index=True)
        best = pairs.column[order][first]
        hit, miss = np.zeros(pairs.label.size, bool), np.ones(pairs.label.size, bool)
        # rows are sorted by score within an image and class: the first at a truth is the best
        hit[row[np.unique(best, return_index=True)[1]]] = True
        miss[row[difficult[best]]] = hit[row[difficult[best]]] = False
        rows.append((pairs.label, pairs.score, hit, miss & ~hit))
    if not rows:
        return {"mAP": -1.0}
    label, score, hit, miss = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    order = np.lexsort((-score, label))
    found = {}
    for one, count in sorted(total.items()):
        low, high = np.searchsorted(label[order], [one, one + 1])
        of_class = order[low:high]
        found[one] = _voc_area(hit[of_class], miss[of_class], count, num_points)
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


@dataclasses.dataclass(frozen=True)
class _Class:
    """Of one class: its label; best score first, rank [D] (in its image) of all detections, matched
    and ignored [A, T, D]; the number of truths [A].
    """

    label: int
    rank: Int64[np.ndarray, " D"]
    matched: Bool[np.ndarray, "A T D"]
    ignored: Bool[np.ndarray, "A T D"]
    num_truths: Int64[np.ndarray, " A"]


def _evaluate(
    truths: Sequence[Objects],
    predictions: Sequence[Objects],
    compare: Compare,
    *,
    truth_area: Callable[[Objects], np.ndarray],
    ignored: Callable[[Objects], np.ndarray],
    sizes: dict[str, tuple[float, float]],
    most: int,
) -> Iterator[_Class]:
    """The matching of each class that has truths, in the order of labels."""

    def area_of(truth: Objects) -> np.ndarray:
        return np.asarray(truth["area"] if "area" in truth else truth_area(truth), np.float64)

    details = {"crowd": _flags("crowd"), "ignored": ignored, "area": area_of}
    parts, truth_label, ignore = [], [], []
    for pairs in scored_matching.blocks(
        truths, predictions, compare, details=details, least=IOU_THRESHOLDS[0], most=most
    ):
        crowd = pairs.details["crowd"]
        # [A, G]
        unwanted = _outside(pairs.details["area"], sizes) | crowd | pairs.details["ignored"]
        rows, matched, excused = scored_matching.greedy(
            pairs, ignore=unwanted, crowd=crowd, thresholds=IOU_THRESHOLDS
        )
        place = np.full(pairs.label.size, -1)
        place[rows] = np.arange(rows.size) + sum(part[-1].shape[-1] for part in parts)
        parts.append((pairs.label, pairs.score, pairs.rank, pairs.area, place, matched, excused))
        truth_label.append(pairs.truth_label)
        ignore.append(unwanted)
    if not parts:
        return
    label, score, rank, area, place, matched, excused = (
        np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)
    )
    # place -1, a detection like no truth, finds this last column
    none = np.zeros((*matched.shape[:2], 1), bool)
    matched, excused = (np.concatenate([array, none], axis=-1) for array in (matched, excused))
    true, unwanted = np.concatenate(truth_label), np.concatenate(ignore, axis=-1)
    order = np.lexsort((-score, label))  # stable: equals in the order of images
    for one in np.unique(true):
        low, high = np.searchsorted(label[order], [one, one + 1])
        chosen = order[low:high]
        hit, excuse = matched[..., place[chosen]], excused[..., place[chosen]]
        excuse |= ~hit & _outside(area[chosen], sizes)[:, None]
        count = np.sum(~unwanted[:, true == one], axis=1)
        yield _Class(int(one), rank[chosen], hit, excuse, count)


def _summary(
    results: Iterator[_Class],
    *,
    sizes: dict[str, tuple[float, float]] = SIZES,
    limits: tuple[int, ...] = (1, 10, 100),
    num_classes: int | None = None,
) -> dict[str, Any]:
    """Means over thresholds, recalls and classes; with `num_classes` those of each class."""
    of_class: dict[int, tuple[float, float, int]] = {}
    precisions: list[list[np.ndarray]] = [[] for _ in sizes]
    recalls: list[list[np.ndarray]] = [[] for _ in sizes]
    limited: list[list[np.ndarray]] = [[] for _ in limits]
    for result in results:
        for a in np.flatnonzero(result.num_truths):
            right = result.matched[a] & ~result.ignored[a]
            wrong = ~result.matched[a] & ~result.ignored[a]
            precision, recall = _curve(right, wrong, int(result.num_truths[a]))
            precisions[a].append(precision)
            if a == 0:
                means = float(precision.mean()), float(precision[0].mean())
                of_class[result.label] = (*means, int(result.num_truths[0]))
            recalls[a].append(recall)
            for i, limit in enumerate(limits if a == 0 else ()):
                found = np.count_nonzero(right[:, result.rank < limit], axis=1)
                limited[i].append(found / result.num_truths[0])

    def mean(values: list[np.ndarray], which: slice = slice(None)) -> float:
        return float(np.mean([value[which] for value in values])) if values else -1.0

    names = [f"_{name}" if name != "all" else "" for name in sizes]
    half, three_quarters = slice(0, 1), slice(5, 6)
    ap, ar = precisions[0], recalls[0]
    summary: dict[str, Any] = {"AP": mean(ap), "AP50": mean(ap, half)}
    summary |= {"AP75": mean(ap, three_quarters)}
    summary |= {f"AP{name}": mean(precisions[a]) for a, name in enumerate(names) if a}
    if len(limits) == 1:
        summary |= {"AR": mean(ar), "AR50": mean(ar, half), "AR75": mean(ar, three_quarters)}
    else:
        summary |= {f"AR_{n}": mean(limited[i]) for i, n in enumerate(limits)}
    summary |= {f"AR{name}": mean(recalls[a]) for a, name in enumerate(names) if a}
    rows = [of_class.get(label, (None, None, 0)) for label in range(num_classes or 0)]
    columns = ("per_class_ap", "per_class_ap50", "per_class_support")
    return summary | {name: [row[i] for row in rows] for i, name in enumerate(columns) if rows}


def _curve(
    right: Bool[np.ndarray, "T D"], wrong: Bool[np.ndarray, "T D"], num_truths: int
) -> tuple[Float64[np.ndarray, "T R"], Float64[np.ndarray, " T"]]:
    """Precision at the 101 recalls [T, 101] and the largest recall [T]; detections are sorted."""
    if not right.shape[1]:
        return np.zeros((len(right), len(RECALLS))), np.zeros(len(right))
    hits, misses = np.cumsum(right, axis=1), np.cumsum(wrong, axis=1)
    recall, precision = hits / num_truths, hits / np.maximum(hits + misses, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # recalls never reached have precision 0
    best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    at = np.stack([np.searchsorted(row, RECALLS, side="left") for row in recall])
    return np.take_along_axis(best, at, axis=1), recall[:, -1]


def _flags(name: str) -> Callable[[Objects], np.ndarray]:
    return lambda truth: objects.flags(truth, name)


def _compare_plain(truth: Objects, prediction: Objects) -> tuple[np.ndarray, np.ndarray]:
    """IoU of boxes, where a crowd is a box like any other."""
    found, true = objects.boxes(prediction), objects.boxes(truth)
    return objects.box_iou(found, true, np.zeros(len(true), bool)), objects.box_area(found)


def _not_wanted(truth: Objects) -> Bool[np.ndarray, " G"]:
    """Truths that need not be found and are no crowd."""
    return objects.flags(truth, "ignored") | objects.flags(truth, "difficult")


def _outside(
    area: Float64[np.ndarray, " N"], sizes: dict[str, tuple[float, float]]
) -> Bool[np.ndarray, "A N"]:
    """Whether each area lies outside each size class. [N] -> [A, N]"""
    return np.stack([(area < low) | (area > high) for low, high in sizes.values()])
