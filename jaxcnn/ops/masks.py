"""Binary masks: run lengths as COCO files hold them, polygons, boxes, overlap. NumPy, on the host.

A mask is [H, W] bool. Run lengths count pixels column by column, first a run of zeros (perhaps of
length 0), then of ones, and so on: {"size": [H, W], "counts": list of ints, or the compressed
string}. Source: the COCO API's format (Lin et al., "Microsoft COCO: common objects in context",
2014), whose results are matched bit for bit so that AP can be compared.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float64, Int64, Shaped

from jaxcnn.errors import DataError

RunLengths = dict[str, Any]

FINER = 5  # polygons are traced on a grid so many times finer than the pixels


def encode(mask: Shaped[Array | np.ndarray, "H W"]) -> RunLengths:
    """Run lengths of a mask [H, W], uncompressed."""
    flat = np.asarray(mask).astype(bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)) if flat.size else np.zeros(0, np.int64)
    counts = np.diff(np.concatenate([[0], changes, [flat.size]]))
    return {"size": [int(n) for n in np.shape(mask)], "counts": [int(n) for n in counts]}


def decode(rle: RunLengths) -> Bool[np.ndarray, "H W"]:
    """The mask [H, W] bool of run lengths, compressed or not.

    Errors: DataError if the runs do not add up to height times width.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    counts = decompress(counts) if isinstance(counts, str | bytes) else list(counts)
    if sum(counts) != height * width or any(n < 0 for n in counts):
        raise DataError(
            f"the mask's run lengths sum to {sum(counts)}; a mask of size {height} x {width} "
            f"needs {height * width}"
        )
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape((height, width), order="F")


def compress(counts: Sequence[int]) -> str:
    """Run lengths as COCO's string: from the fourth on the difference to the run two before, in
    groups of 5 bits from the lowest, bit 6 saying that more follow, each group as the character 48
    places later.
    """
    characters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)  # the top bit of the last group is the sign
            characters.append(chr(group + 32 * more + 48))
    return "".join(characters)


def decompress(text: str | bytes) -> list[int]:
    """Run lengths of COCO's string; see `compress`."""
    counts: list[int] = []
    value = shift = 0
    for character in text.encode() if isinstance(text, str) else text:
        group = character - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise DataError(
            f"the compressed mask ends within a number: …{text[-10:]!r}; the file is cut short or "
            "not COCO run lengths"
        )
    return counts


def fill_polygons(
    polygons: Sequence[Sequence[float]], size: tuple[int, int]
) -> Bool[np.ndarray, "{size[0]} {size[1]}"]:
    """The union of filled polygons as a mask [H, W] bool, pixel for pixel that of the COCO API.

    A polygon is (x, y, x, y, …) in pixels, closed by itself, as COCO files hold it; it may leave
    the image. Within one polygon a pixel is inside by the even-odd rule.

    Errors: DataError for a polygon of fewer than 3 points or an odd number of coordinates.
    """
    mask = np.zeros(size, bool)
    for polygon in polygons:
        points = np.asarray(polygon, np.float64)
        if points.ndim != 1 or points.size < 6 or points.size % 2:
            raise DataError(
                f"a polygon needs x, y of at least 3 points in one flat list; got {points.size} "
                f"numbers of shape {points.shape}"
            )
        mask |= _fill(points.reshape(-1, 2), size)
    return mask


def to_box(mask: Bool[np.ndarray, "H W"]) -> Float64[np.ndarray, " 4"]:
    """The tight box (y0, x0, y1, x1) in pixels, float64 [4]; zeros for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return np.zeros(4)
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], np.float64)


def pairwise_iou(
    first: Shaped[Array | np.ndarray, "N H W"],
    second: Shaped[Array | np.ndarray, "M H W"],
    *,
    crowd: Bool[np.ndarray, " M"] | None = None,
) -> Float64[np.ndarray, "N M"]:
    """Intersection over union of each mask with each other, float64. [N, H, W], [M, H, W] -> [N, M]

    Where `crowd` [M] is true, the intersection is divided by the area of the first mask alone (a
    group of unseparated objects).
    """
    if len(first) == 0 or len(second) == 0:
        return np.zeros((len(first), len(second)))
    first, second = (
        np.asarray(mask).astype(bool).reshape(len(mask), -1).astype(np.float32)
        for mask in (first, second)
    )
    shared = (first @ second.T).astype(np.float64)  # counts below 2^24 are exact in float32
    own, other = (
        first.sum(axis=1, dtype=np.float64)[:, None],
        second.sum(axis=1, dtype=np.float64)[None, :],
    )
    whole = own + other - shared
    if crowd is not None:
        whole = np.where(np.asarray(crowd, bool)[None, :], own, whole)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def _fill(
    points: Float64[np.ndarray, "N 2"], size: tuple[int, int]
) -> Bool[np.ndarray, "{size[0]} {size[1]}"]:
    """One polygon [N, 2] of (x, y). Its outline is traced on the finer grid; where it passes from
    one pixel column to the next, everything below in that column changes between inside and
    outside.
    """
    height, width = size
    x, y = _trace(np.trunc(FINER * points + 0.5).astype(np.int64)).T
    step = np.diff(x)
    column = (np.minimum(x[1:], x[:-1]) + 0.5) / FINER - 0.5
    row = np.ceil(np.clip((np.minimum(y[1:], y[:-1]) + 0.5) / FINER - 0.5, 0, height)).astype(
        np.int64
    )
    passes = (step != 0) & (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    changes = np.bincount(
        column[passes].astype(np.int64) * height + row[passes], minlength=height * width + 1
    )
    return (np.cumsum(changes[: height * width]) % 2 == 1).reshape((height, width), order="F")


def _trace(corners: Int64[np.ndarray, "N 2"]) -> Int64[np.ndarray, "M 2"]:
    """Grid points along the closed outline of integer corners [N, 2], one a step of each edge's
    longer side, ends included. -> [M, 2]
    """
    pieces = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dx, dy = np.abs(end - start)
        long = 0 if dx >= dy else 1
        # An edge is rounded from its lesser end on, so that two polygons sharing it, in opposite
        # directions, share its points.
        low, high = (end, start) if start[long] > end[long] else (start, end)
        steps = np.arange(max(dx, dy) + 1)
        slope = (high[1 - long] - low[1 - long]) / max(dx, dy, 1)
        piece = np.empty((steps.size, 2), np.int64)
        piece[:, long] = low[long] + steps
        piece[:, 1 - long] = np.trunc(low[1 - long] + slope * steps + 0.5)
        pieces.append(piece[::-1] if low is end else piece)
    return np.concatenate(pieces)
