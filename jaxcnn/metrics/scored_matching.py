"""Which detections are right, when all are ranked by score: the pairs of detections and truths that
could be matched, of all classes and many images at once, and COCO's greedy matching of them. NumPy,
on the host.

Loops over images and classes would cost most of an evaluation; here only the comparison of boxes is
done image by image. `jaxcnn.metrics.objects` says how images are given.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from jaxcnn.errors import DataError
from jaxcnn.metrics.objects import Objects

BLOCK = 1024  # images that are matched at once, which bounds the memory that matching takes

# similarity [D, G] of an image's detections and truths, and the detections' areas [D]
Compare = Callable[[Objects, Objects], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Detections and truths of a block of images, and the pairs of one class that are alike.

    Detections [D] are sorted by image, class and score, best first, equals as they were given;
    `group` [D] numbers their (image, class), `rank` [D] counts within it. Truths [G] are in the
    order given; `details` holds what the caller asked of them, [G] each. A pair is `row` [P], of a
    detection, `column` [P], of a truth, and their `similarity` [P].
    """

    label: Int64[np.ndarray, " D"]
    score: Float64[np.ndarray, " D"]
    area: Float64[np.ndarray, " D"]
    group: Int64[np.ndarray, " D"]
    rank: Int64[np.ndarray, " D"]
    truth_label: Int64[np.ndarray, " G"]
    details: dict[str, np.ndarray]
    row: Int64[np.ndarray, " P"]
    column: Int64[np.ndarray, " P"]
    similarity: Float64[np.ndarray, " P"]


def blocks(
    truths: Sequence[Objects],
    predictions: Sequence[Objects],
    compare: Compare,
    *,
    details: dict[str, Callable[[Objects], np.ndarray]],
    least: float,
    most: int | None,
) -> Iterator[Pairs]:
    """The pairs whose similarity is at least `least`, in blocks of images; `most` detections, the
    best, are kept of an image and class (None: all). Each image is read once.

    Errors: DataError unless there is one dict an image of each, and every score is a number.
    """
    if len(truths) != len(predictions):
        raise DataError(
            f"{len(truths)} images have truths and {len(predictions)} have predictions; give one "
            "dict an image to each"
        )
    for start in range(0, len(truths), BLOCK):
        images = [
            _pair(truths[i], predictions[i], compare, details, least, most, image=i)
            for i in range(start, min(start + BLOCK, len(truths)))
        ]
        yield _join(images)


def greedy(
    pairs: Pairs,
    *,
    ignore: Bool[np.ndarray, "A G"],
    crowd: Bool[np.ndarray, " G"],
    thresholds: Float64[np.ndarray, " T"],
) -> tuple[Int64[np.ndarray, " C"], Bool[np.ndarray, "A T C"], Bool[np.ndarray, "A T C"]]:
    """COCO's matching of detections, best score first, to truths, with each row of `ignore` and at
    each threshold.

    A detection takes the free truth most like it (the last of equals) that reaches the threshold,
    and an ignored one only if no other does; a crowd is never used up. Returns the rows [C] of the
    detections that are like any truth, whether each is matched, and whether to an ignored truth.
    """
    rows, turn = _turns(pairs)
    order = np.lexsort((pairs.column, pairs.similarity, pairs.row, turn))
    row, column = np.searchsorted(rows, pairs.row[order]), pairs.column[order]
    reaches = pairs.similarity[order] >= np.minimum(thresholds, 1 - 1e-10)[:, None]  # [T, P]
    shape = (len(ignore), len(thresholds))
    matched, excused = np.zeros((*shape, rows.size), bool), np.zeros((*shape, rows.size), bool)
    free = np.ones((*shape, ignore.shape[1]), bool)
    # The detections whose turn it is, one of each image and class, do not compete.
    borders = np.searchsorted(turn[order], np.arange(turn.max(initial=-1) + 2))
    for start, end in itertools.pairwise(borders):
        truth, count = column[start:end], end - start
        possible = free[:, :, truth] & reaches[None, :, start:end]
        wanted = possible & ~ignore[:, None, truth]
        # A detection's pairs lie together, the best last: the largest number is the one to take.
        number = possible * np.arange(1, count + 1) + wanted * count
        first = np.flatnonzero(np.diff(row[start:end], prepend=-1))
        best = np.maximum.reduceat(number, first, axis=-1)
        taken, now = truth[(best - 1) % count], row[start:end][first]
        matched[..., now], excused[..., now] = best > 0, (best > 0) & (best <= count)
        used = (best > 0) & ~crowd[taken]
        a, t, _ = np.nonzero(used)
        free[a, t, taken[used]] = False
    return rows, matched, excused


def _turns(pairs: Pairs) -> tuple[Int64[np.ndarray, " C"], Int64[np.ndarray, " P"]]:
    """The detections that have pairs, and for each pair when its detection's turn is among those of
    its image and class.
    """
    rows, which = np.unique(pairs.row, return_inverse=True)
    return rows, place_in_run(pairs.group[rows])[which]


def place_in_run(values: np.ndarray) -> Int64[np.ndarray, " N"]:
    """Where each element stands in its run of equal neighbours, from 0: 5 5 7 5 -> 0 1 0 0."""
    places = np.arange(values.size)
    is_first = np.ones(values.size, bool)
    is_first[1:] = values[1:] != values[:-1]
    return places - np.maximum.accumulate(np.where(is_first, places, 0))


def _pair(
    truth: Objects,
    prediction: Objects,
    compare: Compare,
    details: dict[str, Callable[[Objects], np.ndarray]],
    least: float,
    most: int | None,
    *,
    image: int,
) -> dict[str, Any]:
    """The fields of `Pairs` of one image, `group` left out."""
    label = np.asarray(prediction["label"]).ravel().astype(np.int64)
    truth_label = np.asarray(truth["label"]).ravel().astype(np.int64)
    score = np.asarray(prediction["score"], np.float64).ravel()
    if np.isnan(score).any():
        raise DataError(
            f"a detection in image {image} has score NaN; detections are ranked by score: look at "
            "the loss of this run"
        )
    order = np.lexsort((-score, label))  # stable
    rank = place_in_run(label[order])
    if most is not None and rank.max(initial=-1) >= most:
        order, rank = order[rank < most], rank[rank < most]
    chosen = {name: np.asarray(value)[order] for name, value in prediction.items()}
    similarity, area = compare(truth, chosen)
    label = label[order]
    alike = (label[:, None] == truth_label[None]) & (similarity >= least)
    row, column = np.nonzero(alike)
    return {
        "label": label,
        "score": score[order],
        "area": np.asarray(chosen.get("area", area), np.float64).ravel(),
        "rank": rank,
        "truth_label": truth_label,
        "details": {name: get(truth) for name, get in details.items()},
        "row": row,
        "column": column,
        "similarity": similarity[row, column],
    }


def _join(images: list[dict[str, Any]]) -> Pairs:
    """One `Pairs` of those of several images."""

    def together(name: str) -> np.ndarray:
        return np.concatenate([image[name] for image in images])

    before = {}  # rows and columns count on from image to image
    for name, counted in (("row", "label"), ("column", "truth_label")):
        sizes = [image[counted].size for image in images]
        starts = np.cumsum([0, *sizes[:-1]])
        before[name] = np.repeat(starts, [image["row"].size for image in images])
    rank = together("rank")
    plain = {name: together(name) for name in ("label", "score", "area", "truth_label")}
    return Pairs(
        **plain,
        group=np.cumsum(rank == 0),  # each image and class begins at rank 0
        rank=rank,
        details={
            name: np.concatenate([image["details"][name] for image in images])
            for name in images[0]["details"]
        },
        row=together("row") + before["row"],
        column=together("column") + before["column"],
        similarity=together("similarity"),
    )
