"""Connected components of a binary map: which of its cells hang together. NumPy, on the host."""

import numpy as np
from jaxtyping import Array, Bool, Int32, Int64


def label_components(
    mask: Bool[Array | np.ndarray, "H W"], *, diagonal: bool = True
) -> tuple[Int32[np.ndarray, "H W"], int]:
    """A number for each connected part of `mask` [H, W] bool -> (labels [H, W] int32, how many
    parts); 0 is the background.

    Parts are numbered from 1 in the order in which their first cells are read, row by row. Cells
    that touch at a corner are connected if `diagonal`. Runs of each row are joined to those they
    touch in the row above: Rosenfeld, Pfaltz, "Sequential operations in digital picture processing"
    (1966), with whole runs in place of cells.
    """
    mask = np.asarray(mask, bool)
    height, width = mask.shape
    # a gap after each row, so that no run passes a row's end
    flat = np.zeros((height, width + 2), np.int8)
    flat[:, 1:-1] = mask
    change = np.diff(flat.ravel(), prepend=0)
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    row, first = np.divmod(starts, width + 2)
    last = ends - row * (width + 2) - 1
    parents = _join(row.tolist(), first.tolist(), last.tolist(), reach=int(diagonal))
    roots, numbers = np.unique(parents, return_inverse=True)  # a root is the first run of its part
    labels = np.zeros(height * (width + 2), np.int32)
    for start, end, number in zip(starts.tolist(), ends.tolist(), numbers.tolist(), strict=True):
        labels[start:end] = number + 1
    return labels.reshape(height, width + 2)[:, 1:-1], len(roots)


def _join(
    row: list[int], first: list[int], last: list[int], *, reach: int
) -> Int64[np.ndarray, " N"]:
    """The first run of the part that each run belongs to, for runs in reading order."""
    parents = list(range(len(row)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    above = 0  # the first run of the row above that may still touch
    for run in range(len(row)):
        while above < run and (
            row[above] < row[run] - 1
            or (row[above] == row[run] - 1 and last[above] + reach < first[run])
        ):
            above += 1
        other = above
        while other < run and row[other] == row[run] - 1 and first[other] <= last[run] + reach:
            one, two = root(run), root(other)
            parents[max(one, two)] = min(one, two)
            other += 1
    return np.array([root(run) for run in range(len(row))], np.int64)
