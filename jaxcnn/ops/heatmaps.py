"""Heatmaps: Gaussian targets, peaks, and sub-pixel points from a peak.

Heatmaps are [B, H, W, J], one channel a joint or class. Points are (y, x) in [0, 1]: cell (i, j) is
centered at ((i + 0.5) / H, (j + 0.5) / W). Widths (sigma) and offsets are in cells.
"""

import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32

Heatmap = Float[Array, "B H W J"]
Points = Float[Array, "B J 2"]
Scores = Float[Array, "B J"]
Cells = Int32[Array, "B J 2"]


def draw_gaussians(
    point: Float[Array, "*batch 2"],
    size: tuple[int, int],
    *,
    sigma: float | Float[Array, "*#batch"],
    snap: bool = False,
) -> Float[Array, "*batch H W"]:
    """A Gaussian of height 1 around each point. [..., 2] in [0, 1] -> [..., H, W]

    `sigma` is one width in cells, or one for each point [...]. `snap` moves the center to the cell
    that holds the point, whose value is then exactly 1 (as the focal loss of center heatmaps
    needs). Move the axis of joints to the end for [B, H, W, J].
    """
    extent = jnp.asarray(size, point.dtype)
    center = point * jnp.broadcast_to(extent, point.shape) - 0.5  # in cells
    if snap:
        center = jnp.round(jnp.clip(center, 0, jnp.broadcast_to(extent - 1, center.shape)))
    width = jnp.broadcast_to(jnp.asarray(sigma, point.dtype), point.shape[:-1])[..., None]

    def along(axis: int) -> Float[Array, "..."]:
        cell = jnp.arange(size[axis], dtype=point.dtype).reshape((1,) * (point.ndim - 1) + (-1,))
        return jnp.exp(-(((cell - center[..., axis, None]) / width) ** 2) / 2)

    return along(0)[..., :, None] * along(1)[..., None, :]


def gaussian_radius(
    height: Float[Array, "*batch"],
    width: Float[Array, "*batch"],
    *,
    min_iou: float | Float[Array, ""] = 0.7,
) -> Float[Array, "*batch"]:
    """How far, in the unit of the arguments, both corners of a box may be off for an IoU of at
    least `min_iou`. [...], [...] -> [...]

    The least over the three cases of Law and Deng, "CornerNet", 2018, section 3.2: box moved,
    shrunk, grown. Their heatmaps, and those of Zhou et al., "Objects as points", 2019, have a sigma
    of a third of it.
    """
    total, product = height + width, height * width
    moved = _lesser_root(1.0, -total, product * (1 - min_iou) / (1 + min_iou))
    shrunk = _lesser_root(4.0, -2 * total, product * (1 - min_iou))
    grown = -_lesser_root(4 * min_iou, -2 * min_iou * total, (min_iou - 1) * product)
    return jnp.minimum(jnp.minimum(moved, shrunk), grown)


def find_peaks(
    heatmap: Float[Array, "B H W K"], *, num_peaks: int
) -> tuple[Float[Array, "B N"], Int32[Array, "B N"], Int32[Array, "B N 2"]]:
    """The highest cells that no neighbor exceeds. [B, H, W, K] -> score [B, N], label [B, N] int32,
    cell [B, N, 2] int32 (row, column)

    A cell remains if it is the maximum of the 3 x 3 cells around it, in place of non-maximum
    suppression (Zhou et al., "Objects as points", 2019, section 4). Give logits: probabilities of
    sure cells round to the same 1. Where there are fewer peaks than `num_peaks`, or fewer cells,
    the rest have score -inf.
    """
    batch, height, width, num_classes = heatmap.shape
    # By its neighbors alone: its own number need not equal itself where XLA computes it for the
    # maximum once more, rounded otherwise.
    padded = jnp.pad(heatmap, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    kept = jnp.ones(heatmap.shape, bool)
    for down, along in itertools.product(range(3), range(3)):
        if (down, along) != (1, 1):
            neighbor = padded[:, down : down + height, along : along + width]
            kept = kept & (neighbor <= heatmap)  # so written, none beside a NaN
    peaks = jnp.where(kept, heatmap, -jnp.inf).reshape(batch, -1)
    score, index = lax.top_k(peaks, min(num_peaks, peaks.shape[1]))
    missing = ((0, 0), (0, num_peaks - score.shape[1]))
    score = jnp.pad(score, missing, constant_values=-jnp.inf)
    index = jnp.pad(index, missing)
    place, label = index // num_classes, index % num_classes
    return score, label, jnp.stack([place // width, place % width], axis=-1)


def gather_cells(
    features: Float[Array, "B H W C"], cell: Int[Array, "B N 2"]
) -> Float[Array, "B N C"]:
    """The features at cells (row, column). [B, H, W, C], [B, N, 2] int -> [B, N, C]"""
    return jax.vmap(lambda feature, place: feature[place[:, 0], place[:, 1]])(features, cell)


def decode_maximum(heatmap: Heatmap) -> tuple[Points, Scores]:
    """The center of the highest cell of each channel, and its value. [B, H, W, J] -> points [B, J,
    2], score [B, J]
    """
    cell, score = _highest(heatmap)
    return _to_points(cell.astype(heatmap.dtype), heatmap), score


def decode_quarter_offset(heatmap: Heatmap) -> tuple[Points, Scores]:
    """As `decode_maximum`, moved a quarter of a cell towards the higher neighbor along each axis.

    Newell et al., "Stacked hourglass networks for human pose estimation", 2016, section 3.3. No
    move at the border.
    """
    cell, score = _highest(heatmap)
    window = _window(heatmap, cell)
    offset = 0.25 * jnp.sign(
        jnp.stack(
            [window[..., 2, 1] - window[..., 0, 1], window[..., 1, 2] - window[..., 1, 0]], axis=-1
        )
    )
    inside = _is_inside(heatmap, cell)[..., None]
    return _to_points(cell.astype(heatmap.dtype) + jnp.where(inside, offset, 0), heatmap), score


def decode_newton(
    heatmap: Heatmap, *, least: float | Float[Array, ""] = 1e-10
) -> tuple[Points, Scores]:
    """As `decode_maximum`, moved by one Newton step on the logarithm of the heatmap, which is exact
    for a Gaussian.

    Zhang et al., "Distribution-aware coordinate representation for human pose estimation" (DARK),
    2020, section 3.1; blur a ragged heatmap first (section 3.2: `blur` with the targets' sigma).
    The step is limited to a cell, and is 0 at the border and where the peak is not concave.
    """
    cell, score = _highest(heatmap)
    v = jnp.log(jnp.maximum(_window(heatmap, cell), least))
    gradient = [(v[..., 2, 1] - v[..., 0, 1]) / 2, (v[..., 1, 2] - v[..., 1, 0]) / 2]
    yy, xx = (
        v[..., 2, 1] - 2 * v[..., 1, 1] + v[..., 0, 1],
        v[..., 1, 2] - 2 * v[..., 1, 1] + v[..., 1, 0],
    )
    yx = (v[..., 2, 2] - v[..., 2, 0] - v[..., 0, 2] + v[..., 0, 0]) / 4
    determinant = yy * xx - yx * yx
    usable = (determinant > 0) & (yy < 0) & _is_inside(heatmap, cell)
    divisor = jnp.where(usable, determinant, 1)
    step = (
        jnp.stack(
            [yx * gradient[1] - xx * gradient[0], yx * gradient[0] - yy * gradient[1]], axis=-1
        )
        / divisor[..., None]
    )
    return _to_points(
        cell.astype(heatmap.dtype) + jnp.where(usable[..., None], jnp.clip(step, -1, 1), 0), heatmap
    ), score


def soft_argmax(logits: Heatmap) -> Points:
    """The mean place under a softmax over all cells, differentiable. [B, H, W, J] -> points [B, J,
    2]

    Sun et al., "Integral human pose regression", 2018, section 2.
    """
    batch, height, width, joints = logits.shape
    share = jax.nn.softmax(logits.reshape(batch, height * width, joints), axis=1).reshape(
        logits.shape
    )
    y = jnp.einsum("bhwj,h->bj", share, (jnp.arange(height, dtype=share.dtype) + 0.5) / height)
    x = jnp.einsum("bhwj,w->bj", share, (jnp.arange(width, dtype=share.dtype) + 0.5) / width)
    return jnp.stack([y, x], axis=-1)


def blur(heatmap: Heatmap, *, sigma: float | Float[Array, ""]) -> Heatmap:
    """Convolve each channel with a Gaussian of `sigma` cells, cut at 3 sigma; zeros outside. [B, H,
    W, J] -> the same
    """

    def along(
        size: int,
    ) -> Float[Array, "{size} {size}"]:  # a banded matrix: the axes of a heatmap are short
        cells = jnp.arange(size, dtype=heatmap.dtype)
        offset = (cells[:, None] - cells[None, :]) / sigma
        kernel = jnp.exp(-(offset**2) / 2) * (jnp.abs(offset) <= 3).astype(heatmap.dtype)
        reach = jnp.arange(-int(3 * sigma), int(3 * sigma) + 1, dtype=heatmap.dtype)
        return kernel / jnp.sum(jnp.exp(-((reach / sigma) ** 2) / 2))

    return jnp.einsum("yh,bhwj,xw->byxj", along(heatmap.shape[1]), heatmap, along(heatmap.shape[2]))


def _highest(heatmap: Heatmap) -> tuple[Cells, Scores]:
    """Cell [B, J, 2] int32 and value [B, J] of the first maximum of each channel."""
    batch, _, width, joints = heatmap.shape
    flat = heatmap.reshape(batch, -1, joints)
    index = jnp.argmax(flat, axis=1).astype(jnp.int32)
    return jnp.stack([index // width, index % width], axis=-1), jnp.max(flat, axis=1)


def _window(heatmap: Heatmap, cell: Cells) -> Float[Array, "B J 3 3"]:
    """The 3 x 3 values around each cell, edges repeated. [B, H, W, J], [B, J, 2] -> [B, J, 3, 3]"""
    padded = jnp.pad(jnp.moveaxis(heatmap, -1, 1), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    cut = jax.vmap(
        jax.vmap(lambda plane, corner: lax.dynamic_slice(plane, (corner[0], corner[1]), (3, 3)))
    )
    return cut(padded, cell)


def _is_inside(heatmap: Heatmap, cell: Cells) -> Bool[Array, "B J"]:
    """Whether a cell has all eight neighbors. [B, J, 2] -> [B, J]"""
    row, column = cell[..., 0], cell[..., 1]
    return (row > 0) & (row < heatmap.shape[1] - 1) & (column > 0) & (column < heatmap.shape[2] - 1)


def _to_points(cell: Points, heatmap: Heatmap) -> Points:
    return (cell + 0.5) / jnp.broadcast_to(jnp.asarray(heatmap.shape[1:3], cell.dtype), cell.shape)


def _lesser_root(
    a: float | Float[Array, ""], b: Float[Array, "*batch"], c: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """The lesser root of a r² + b r + c for a > 0."""
    return (-b - jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0))) / (2 * a)


def log_shares(logits: Heatmap) -> Heatmap:
    """Logarithm of the softmax over all cells of each channel. [B, H, W, J] -> the same"""
    return jax.nn.log_softmax(logits, axis=(1, 2))


def divergence(log_shares: Heatmap, target: Heatmap) -> Scores:
    """Jensen-Shannon divergence, in nats, of two distributions over the cells, the first given by
    its logarithm. [B, H, W, J], [B, H, W, J] -> [B, J]
    """
    shares = jnp.exp(log_shares)
    log_target = jnp.log(jnp.maximum(target, 1e-30))
    log_middle = jnp.log(jnp.maximum((shares + target) / 2, 1e-30))
    return 0.5 * jnp.sum(
        shares * (log_shares - log_middle) + target * (log_target - log_middle), axis=(1, 2)
    )
