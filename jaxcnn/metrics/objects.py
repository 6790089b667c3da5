"""The objects of an image, as the evaluations of detections take them, and how alike two are.
NumPy, on the host.

A dict of arrays, one row an object. Of a truth: "label" [G] int, "box" [G, 4] (y0, x0, y1, x1),
optionally "area" [G], "ignored" [G] bool (it need not be found), "difficult" [G] bool (the same, as
VOC calls it) and "crowd" [G] bool (a region of several objects: not to be found either, and any
number of detections may lie in it). Of a prediction: "label" [D] int, "score" [D], "box" [D, 4],
optionally "area" [D]. For masks "mask" [G or D, H, W] bool in place of "box"; for keypoints
"points" [G or D, J, 2] (y, x), and of the truth "visible" [G, J] too. "area" decides the size class
where masks or boxes are not in the original picture's pixels; without it, it is theirs.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from jaxcnn.ops import masks

Objects = dict[str, Any]


def flags(objects: Objects, name: str) -> Bool[np.ndarray, " N"]:
    """The entry `name` [N] bool, all False where it is missing."""
    if name not in objects:
        return np.zeros(np.size(objects["label"]), bool)
    return np.asarray(objects[name], bool).ravel()


def boxes(objects: Objects) -> Float64[np.ndarray, "N 4"]:
    """[N, 4] float64."""
    return np.asarray(objects["box"], np.float64).reshape(-1, 4)


def box_area(box: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, " N"]:
    """[N, 4] -> [N]"""
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])


def mask_area(objects: Objects) -> Float64[np.ndarray, " N"]:
    """Pixels of each mask, [N] float64."""
    return np.asarray(objects["mask"], bool).sum(axis=(1, 2)).astype(np.float64)


def mask_iou(prediction: Objects, truth: Objects) -> Float64[np.ndarray, "D G"]:
    """Intersection over union of the masks of each class, 0 between classes; with a crowd the union
    is the detection's own area.
    """
    found, true = np.asarray(prediction["label"]).ravel(), np.asarray(truth["label"]).ravel()
    crowd, overlap = flags(truth, "crowd"), np.zeros((found.size, true.size))
    for label in np.intersect1d(found, true):  # all at once would take much memory
        rows, columns = np.flatnonzero(found == label), np.flatnonzero(true == label)
        overlap[np.ix_(rows, columns)] = masks.pairwise_iou(
            np.asarray(prediction["mask"])[rows],
            np.asarray(truth["mask"])[columns],
            crowd=crowd[columns],
        )
    return overlap


def box_iou(
    first: Float64[np.ndarray, "D 4"],
    second: Float64[np.ndarray, "G 4"],
    crowd: Bool[np.ndarray, " G"],
) -> Float64[np.ndarray, "D G"]:
    """[D, 4], [G, 4] -> [D, G]; with a crowd the union is the first box's own area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    own = box_area(first)[:, None]
    whole = np.where(crowd[None], own, own + box_area(second)[None] - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def keypoint_similarity(
    points: Float64[np.ndarray, "D J 2"], truth: Objects, sigmas: Float64[np.ndarray, " J"]
) -> Float64[np.ndarray, "D G"]:
    """Object keypoint similarity of detections [D, J, 2] and truths -> [D, G]: the mean over
    visible points of a Gaussian of the distance, whose width is 2 sigma times the root of the
    object's area. A truth without visible points is compared by the distance to its doubled box.
    """
    target = np.asarray(truth["points"], np.float64).reshape(-1, len(sigmas), 2)
    visible = np.asarray(truth["visible"], bool).reshape(-1, len(sigmas))
    box, area = boxes(truth), np.asarray(truth["area"], np.float64)
    offset = points[:, None] - target[None]  # [D, G, J, 2]
    # the box grown by its own size to each side
    low, high = 2 * box[:, :2] - box[:, 2:], 2 * box[:, 2:] - box[:, :2]
    beyond = np.maximum(low[None, :, None] - points[:, None], 0) + np.maximum(
        points[:, None] - high[None, :, None], 0
    )
    has_points = any_visible(truth, len(sigmas))
    offset = np.where(has_points[None, :, None, None], offset, beyond)
    exponent = (
        np.sum(offset**2, axis=-1) / (2 * sigmas) ** 2 / (area + np.spacing(1))[None, :, None] / 2
    )
    weight = np.where(has_points[:, None], visible, True)[None].astype(np.float64)
    return np.sum(np.exp(-exponent) * weight, axis=-1) / np.sum(weight, axis=-1)


def any_visible(truth: Objects, num_points: int) -> Bool[np.ndarray, " G"]:
    """Whether an object has a visible point, [G] bool."""
    return np.count_nonzero(np.asarray(truth["visible"]).reshape(-1, num_points), axis=1) > 0
