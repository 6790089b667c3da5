"""RoIAlign against torchvision's, and by a plane that bilinear sampling must reproduce."""

import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.ops.roi_align import roi_align
from jaxcnn.ops.roi_paste import roi_paste
from tests.ops.test_boxes import random_boxes
from tests.torchvision_peer import import_torchvision


@pytest.mark.parametrize("size", [(7, 7), (3, 5), (14, 14)])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_equals_torchvision(size, samples, monkeypatch):
    torch = pytest.importorskip("torch")
    theirs = import_torchvision().ops.roi_align
    # where the C++ operator is absent, its Python version serves, here without compiling it
    source = sys.modules[theirs.__module__]
    monkeypatch.setattr(source, "_roi_align", inspect.unwrap(source._roi_align))
    features = np.random.default_rng(0).normal(size=(2, 11, 13, 4)).astype(np.float32)
    box = np.stack([np.asarray(random_boxes(6, seed)) for seed in (0, 1)])
    box[:, 0] = [-0.05, -0.05, 1.05, 1.05]  # outside the image, by less than a cell
    box[:, 1] = [0.4, 0.4, 0.4, 0.4]  # empty
    rois = [
        torch.tensor(np.ascontiguousarray(rows[:, [1, 0, 3, 2]]))
        for rows in box * np.array([11, 13, 11, 13], np.float32)
    ]
    expected = theirs(
        torch.tensor(features).permute(0, 3, 1, 2), rois, size, sampling_ratio=samples, aligned=True
    )
    ours = jax.jit(lambda f, b: roi_align(f, b, size=size, samples=samples))(features, box)
    np.testing.assert_allclose(
        ours.reshape(12, *size, 4), expected.permute(0, 2, 3, 1).numpy(), rtol=1e-4, atol=1e-4
    )


def test_a_plane_is_resampled_exactly():
    """Each bin of a linear ramp holds the ramp at the bin's center."""
    y, x = np.mgrid[:8, :10] + 0.5
    features = jnp.asarray(2 * y / 8 + 3 * x / 10, jnp.float32)[None, ..., None]
    box = jnp.asarray([[[0.2, 0.3, 0.7, 0.9]]])
    rows, columns = 0.2 + 0.5 * (np.arange(4) + 0.5) / 4, 0.3 + 0.6 * (np.arange(6) + 0.5) / 6
    np.testing.assert_allclose(
        roi_align(features, box, size=(4, 6))[0, 0, ..., 0],
        2 * rows[:, None] + 3 * columns[None, :],
        rtol=1e-5,
    )


def test_samples_more_than_a_cell_outside_are_zero():
    """The rule of torchvision's C++ kernel, sample by sample (its Python version repeats the border
    for ever).
    """
    features, size = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32), (9, 8)
    y0, x0, y1, x1 = box = np.array([-0.5, -0.4, 1.7, 1.3], np.float32)

    def sample(y, x):
        if not (-1 <= y <= 5 and -1 <= x <= 6):
            return 0.0
        y, x = min(max(y, 0), 4), min(max(x, 0), 5)
        top, left = min(int(y), 3), min(int(x), 4)
        down, right = y - top, x - left
        upper = features[top, left] * (1 - right) + features[top, left + 1] * right
        lower = features[top + 1, left] * (1 - right) + features[top + 1, left + 1] * right
        return upper * (1 - down) + lower * down

    def place(i, j):
        return 5 * (y0 + (y1 - y0) * (i + 0.5) / 9) - 0.5, 6 * (
            x0 + (x1 - x0) * (j + 0.5) / 8
        ) - 0.5

    expected = [[sample(*place(i, j)) for j in range(8)] for i in range(9)]
    ours = roi_align(
        jnp.asarray(features)[None, ..., None], jnp.asarray(box)[None, None], size=size, samples=1
    )
    np.testing.assert_allclose(ours[0, 0, ..., 0], expected, atol=1e-5)
    assert 10 < np.sum(np.array(expected) == 0) < 60


def test_bins_have_two_samples_along_each_axis_unless_others_are_asked_for():
    """By hand: one bin of a row of cells 0, 1, 4, 9, sampled at its quarters."""
    row = jnp.asarray([0.0, 1.0, 4.0, 9.0]).reshape(1, 1, 4, 1)
    (found,) = roi_align(row, jnp.asarray([[[0.0, 0.0, 1.0, 1.0]]]), size=(1, 1)).ravel().tolist()
    # at 1 and 3 of 4 cells, halfway between the middles of two
    assert found == pytest.approx((0.5 + 6.5) / 2)


def test_what_is_put_into_a_box_of_no_extent_is_nothing():
    """At the middle of a pixel, where zero would be divided by zero."""
    for box in ([0.375, 0.0, 0.375, 1.0], [0.0, 0.375, 1.0, 0.375]):
        found = roi_paste(jnp.ones((1, 4, 4)), jnp.asarray([box]), size=(4, 4))
        np.testing.assert_array_equal(found, np.zeros((1, 4, 4)))
