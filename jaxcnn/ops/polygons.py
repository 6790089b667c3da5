"""Convex polygons: area, filling on a grid, overlap, the smallest rectangle, and the shrinking and
growing of text detection.

A polygon is [..., P, 2]: corners (y, x) in pixels, one after the other around it, in either sense.
Functions that say so take JAX arrays; those with loops over single polygons are NumPy, on the host.

Source of shrinking: Liao, Wan, Yao, Chen, Bai, "Real-time Scene Text Detection with Differentiable
Binarization" (2020), section "Label generation": a text region of area A and perimeter L is inset
by D = A (1 - r^2) / L, so that neighbouring lines come apart.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Real

TINY = 1e-12

# NumPy, which makes a scalar of a lone polygon's number, or JAX
Numbers = Float[Array | np.ndarray | np.floating, "*batch"]
Corners = Float[Array | np.ndarray, "*batch P 2"]


def area(polygon: Corners) -> Numbers:
    """Area within the outline (shoelace formula). [..., P, 2] -> [...]; NumPy or JAX."""
    return abs(_signed_area(polygon))


def area_in_unit_square(polygon: Float[Array, "*batch P 2"]) -> Float[Array, "*batch"]:
    """Area of the part of a polygon that lies in [0, 1] x [0, 1]; exact for every outline that does
    not cross itself. [..., P, 2] -> [...]; JAX.

    By Green's theorem the integral, along the parts of the outline where y is in [0, 1], of x cut
    to [0, 1] over dy.
    """
    (y0, x0), (y1, x1) = (jnp.unstack(p, axis=-1) for p in (polygon, jnp.roll(polygon, -1, -2)))
    flat = jnp.abs(y1 - y0) < 1e-9
    slope = (x1 - x0) / jnp.where(flat, 1.0, y1 - y0)
    low, high = jnp.clip(y0, 0.0, 1.0), jnp.clip(y1, 0.0, 1.0)
    start, end = x0 + slope * (low - y0), x0 + slope * (high - y0)

    def primitive(x: Array) -> Array:  # of x cut to [0, 1]
        cut = jnp.clip(x, 0.0, 1.0)
        return cut * cut / 2 + jnp.maximum(x - 1.0, 0.0)

    steep = jnp.abs(end - start) < 1e-3  # there the middle is exact enough, and nothing cancels
    mean = jnp.where(
        steep,
        jnp.clip((start + end) / 2, 0.0, 1.0),
        (primitive(end) - primitive(start)) / jnp.where(steep, 1.0, end - start),
    )
    return jnp.abs(jnp.where(flat, 0.0, mean * (high - low)).sum(-1))


def perimeter(polygon: Corners) -> Numbers:
    """Length of the outline. [..., P, 2] -> [...]; NumPy or JAX."""
    return (((_after(polygon) - polygon) ** 2).sum(-1) ** 0.5).sum(-1)


def is_convex(polygon: Corners) -> Bool[Array | np.ndarray | np.bool, "*batch"]:
    """Whether the outline encloses an area and turns one way only, once around. [..., P, 2] ->
    [...] bool; NumPy or JAX.

    A corner on a straight edge does no harm; an outline that crosses itself is not convex. Of edges
    of length 1, turns and areas up to 1e-6 are taken for rounding.
    """
    arctan2 = (jnp if isinstance(polygon, jax.Array) else np).arctan2
    edge = _after(polygon) - polygon
    rounding = 1e-6 * (edge**2).sum(-1).max(-1)
    turn, along = _cross(edge, _after(edge)), (edge * _after(edge)).sum(-1)
    one_way = (turn >= -rounding[..., None]).all(-1) | (turn <= rounding[..., None]).all(-1)
    # a star turns one way too, but twice around
    once = abs(arctan2(turn, along).sum(-1)) < 3 * np.pi
    return one_way & once & (area(polygon) > rounding)


def inset_distance(polygon: Corners, ratio: float | Float[Array, ""]) -> Numbers:
    """How far a polygon is inset to shrink it by `ratio` in (0, 1]: A (1 - ratio^2) / L. [..., P,
    2] -> [...]; NumPy or JAX.
    """
    # a polygon of no length has no area either
    return area(polygon) * (1.0 - ratio**2) / (perimeter(polygon) + TINY)


def fill(
    polygon: Float[Array, "*batch P 2"],
    size: tuple[int, int],
    *,
    inset: Float[Array, "*batch"] | None = None,
) -> Bool[Array, "*batch {size[0]} {size[1]}"]:
    """The cells of a grid whose centres lie in a convex polygon, at least `inset` [...] from its
    edges. [..., P, 2] -> [..., *size] bool

    Cell (i, j) has its centre at (i + 0.5, j + 0.5). A polygon without area fills nothing. Exact
    for convex polygons; pure JAX.
    """
    y, x = (jnp.arange(n, dtype=polygon.dtype) + 0.5 for n in size)
    centers = jnp.stack(jnp.broadcast_arrays(y[:, None], x[None, :]), axis=-1)  # [H, W, 2]
    corner = polygon[..., :, None, None, :]  # [..., P, 1, 1, 2]
    edge = (_after(polygon) - polygon)[..., :, None, None, :]
    length = jnp.sqrt((edge**2).sum(-1))
    sense = jnp.sign(_signed_area(polygon))[..., None, None, None]
    offset = centers.reshape((1,) * (polygon.ndim - 1) + centers.shape) - corner
    depth = sense * _cross(edge, offset) / jnp.maximum(length, TINY)  # inwards of each edge
    least = jnp.zeros(polygon.shape[:-2], polygon.dtype) if inset is None else inset
    inside = (depth >= least[..., None, None, None]) | (length <= 0)  # a repeated corner is no edge
    return inside.all(-3) & (sense[..., 0, :, :] != 0)


def are_apart(
    first: Float[Array, "*#batch P 2"], second: Float[Array, "*#batch Q 2"]
) -> Bool[Array, "*batch"]:
    """Whether two convex polygons have no point in common. [..., P, 2], [..., Q, 2] -> [...] bool

    Separating axis theorem: convex sets are apart if and only if their shadows are, along the
    normal of one of the edges. Pure JAX.
    """
    # [..., P + Q, 2]
    edges = jnp.concatenate([_after(first) - first, _after(second) - second], axis=-2)
    normals = jnp.stack([-edges[..., 1], edges[..., 0]], axis=-1)
    shadow, other = (
        (normals[..., :, None, :] * polygon[..., None, :, :]).sum(-1) for polygon in (first, second)
    )
    return ((shadow.max(-1) < other.min(-1)) | (other.max(-1) < shadow.min(-1))).any(-1)


def intersection_area(
    first: Float[Array | np.ndarray, "P 2"], second: Float[Array | np.ndarray, "Q 2"]
) -> float:
    """Area that two convex polygons share. [P, 2], [Q, 2]. NumPy, on the host.

    One is cut along each edge of the other: Sutherland, Hodgman, "Reentrant polygon clipping"
    (1974).
    """
    first, second = (np.asarray(polygon, np.float64) for polygon in (first, second))
    sense = np.sign(_signed_area(second))
    corners = [tuple(corner) for corner in first]
    for (y0, x0), (y1, x1) in zip(second.tolist(), _after(second).tolist(), strict=True):
        depths = [sense * ((y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)) for y, x in corners]
        kept = []
        for i, (corner, depth) in enumerate(zip(corners, depths, strict=True)):
            before, depth_before = corners[i - 1], depths[i - 1]
            if (depth > 0) != (depth_before > 0):
                share = depth_before / (depth_before - depth)
                kept.append(
                    (
                        before[0] + share * (corner[0] - before[0]),
                        before[1] + share * (corner[1] - before[1]),
                    )
                )
            if depth > 0:
                kept.append(corner)
        corners = kept
        if not corners:
            return 0.0
    return float(area(np.array(corners)))


def pairwise_iou(
    first: Float[Array | np.ndarray, "N P 2"] | Sequence[Float[np.ndarray, "_ 2"]],
    second: Float[Array | np.ndarray, "M Q 2"] | Sequence[Float[np.ndarray, "_ 2"]],
) -> Float64[np.ndarray, "N M"]:
    """Intersection over union of each convex polygon with each other, float64. [N, P, 2], [M, Q, 2]
    -> [N, M]. NumPy, on the host.
    """
    shared = np.array(
        [[intersection_area(a, b) for b in second] for a in first], np.float64
    ).reshape(len(first), len(second))
    own, other = (
        np.array([area(np.asarray(p, np.float64)) for p in polygons], np.float64)
        for polygons in (first, second)
    )
    union = own[:, None] + other[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def smallest_rectangle(
    points: Real[Array | np.ndarray, "M 2"], *, margin: float = 0.0
) -> Float64[np.ndarray, "4 2"]:
    """Corners [4, 2] of the rectangle of least area, at any angle, around `points` [M, 2], grown by
    `margin` on all sides.

    One of its sides lies along an edge of the convex hull (Freeman, Shapira, "Determining the
    minimum-area encasing rectangle", 1975), so each edge is tried. The corners go around clockwise
    as seen, from the one that is the upper left when the rectangle is turned level.
    """
    hull = _convex_hull(np.asarray(points, np.float64))
    edge = _after(hull) - hull
    length = np.linalg.norm(edge, axis=-1, keepdims=True)
    # [M, 2]: of each edge; a lone point has none
    right = np.where(length > 0, edge / np.maximum(length, TINY), [0.0, 1.0])
    # steeper than 45 degrees: the other side is the level one
    turned = abs(right[:, :1]) > abs(right[:, 1:])
    right = np.where(turned, np.stack([right[:, 1], -right[:, 0]], -1), right)
    right = np.where(right[:, 1:] < 0, -right, right)
    down = np.stack([right[:, 1], -right[:, 0]], axis=-1)
    along, across = hull @ right.T, hull @ down.T  # [M, M]: a point a row, an edge a column
    low, high = (
        np.stack([across.min(0), along.min(0)], -1),
        np.stack([across.max(0), along.max(0)], -1),
    )
    best = int(np.argmin(np.prod(high - low + 2 * margin, axis=-1)))
    (top, left), (bottom, right_end) = low[best] - margin, high[best] + margin
    places = np.array([[top, left], [top, right_end], [bottom, right_end], [bottom, left]])
    return places @ np.stack([down[best], right[best]])


def unclip(
    rectangle: Float[Array | np.ndarray, "4 2"], *, ratio: float
) -> Float64[np.ndarray, "4 2"]:
    """The rectangle that inset by its `inset_distance` gives `rectangle`: corners [4, 2] -> [4, 2].
    NumPy, on the host.

    Of sides a and b, the D with 2 D (a + b + 4 D) = (1 - ratio^2) (a + 2 D) (b + 2 D), in closed
    form, where the article above grows by 1.5 times the shrunk area over its perimeter.
    """
    rectangle = np.asarray(rectangle, np.float64)
    a, b = np.linalg.norm(rectangle[1] - rectangle[0]), np.linalg.norm(rectangle[2] - rectangle[1])
    kept = 1.0 - ratio**2
    half = (1 - kept) * (a + b)  # of (8 - 4 kept) D^2 + 2 (1 - kept) (a + b) D - kept a b = 0
    distance = (np.sqrt(half**2 + (8 - 4 * kept) * kept * a * b) - half) / (8 - 4 * kept)
    across, along = (
        (rectangle[1] - rectangle[0]) / max(a, TINY),
        (rectangle[2] - rectangle[1]) / max(b, TINY),
    )
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return rectangle + distance * signs @ np.stack([across, along])


def _after(polygon):
    """The next corner (or edge) of each."""
    count = polygon.shape[-2]
    return polygon[..., np.arange(1, count + 1) % count, :]


def _cross(first, second):
    """y1 x2 - x1 y2 of vectors (y, x)."""
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


def _signed_area(polygon):
    # products of coordinates far from 0 would lose the digits that count
    origin = polygon[..., :1, :]
    return _cross(polygon - origin, _after(polygon) - origin).sum(-1) / 2


def _convex_hull(points: Float64[np.ndarray, "M 2"]) -> Float64[np.ndarray, "H 2"]:
    """Corners of the convex hull in order, without those on its edges. Andrew, "Another efficient
    algorithm for convex hulls" (1979).
    """
    ordered = np.unique(points, axis=0).tolist()

    def chain(rows):
        kept: list = []
        for y, x in rows:
            while len(kept) > 1 and (kept[-1][0] - kept[-2][0]) * (x - kept[-2][1]) <= (
                kept[-1][1] - kept[-2][1]
            ) * (y - kept[-2][0]):
                kept.pop()
            kept.append((y, x))
        return kept

    lower, upper = chain(ordered), chain(ordered[::-1])
    return np.array(lower[:-1] + upper[:-1] or lower)
