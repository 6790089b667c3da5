"""Heatmaps: points are drawn and found again; peaks against a loop; boxes at the radius against
their IoU.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.ops import boxes, heatmaps
from tests.rounding import computed_anew, normalized

SIZE = (24, 32)


def random_points(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(0.15, 0.85, (*shape, 2)), jnp.float32)


def draw(point: jax.Array, sigma: float = 2.0) -> jax.Array:
    """[B, J, 2] -> [B, H, W, J]"""
    return jnp.moveaxis(heatmaps.draw_gaussians(point, SIZE, sigma=sigma), 1, -1)


def test_gaussians_equal_the_formula_cell_by_cell():
    point, sigma = random_points(0, 5), jnp.asarray([1.0, 2.0, 3.0, 0.5, 1.5])
    drawn = np.asarray(heatmaps.draw_gaussians(point, SIZE, sigma=sigma))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for i in range(5):
        squared = (y - float(point[i, 0]) * SIZE[0]) ** 2 + (x - float(point[i, 1]) * SIZE[1]) ** 2
        np.testing.assert_allclose(
            drawn[i], np.exp(-squared / (2 * float(sigma[i]) ** 2)), atol=1e-5
        )


def test_snapped_gaussians_are_exactly_1_in_the_cell_of_the_point():
    point = jnp.asarray([[0.0, 0.0], [1.0, 1.0], [0.51, 0.26]])
    drawn = np.asarray(heatmaps.draw_gaussians(point, SIZE, sigma=1.3, snap=True))
    assert [np.unravel_index(plane.argmax(), SIZE) for plane in drawn] == [
        (0, 0),
        (23, 31),
        (12, 8),
    ]
    assert (drawn.max(axis=(1, 2)) == 1).all()


@pytest.mark.parametrize(
    "decode, cells",  # largest error in cells along an axis
    [
        (heatmaps.decode_maximum, 0.5),
        (heatmaps.decode_quarter_offset, 0.25),
        (heatmaps.decode_newton, 0.001),
    ],
)
def test_decoding_finds_the_drawn_point(decode, cells):
    point = random_points(1, 6, 4)
    found, score = jax.jit(decode)(draw(point))
    error = np.abs(np.asarray(found - point)) * SIZE
    assert error.max() <= cells + 1e-3
    assert error.max() > cells / 2 or cells < 0.01  # the bound is not a loose one
    assert (found.shape, score.shape) == ((6, 4, 2), (6, 4))
    np.testing.assert_allclose(
        jax.vmap(lambda one: decode(one[None])[0][0])(draw(point)), found, atol=1e-6
    )


@pytest.mark.parametrize("slope", [0.6, -0.6])
def test_newton_step_is_exact_for_a_gaussian_that_lies_aslant(slope):
    """Its logarithm is a quadratic form with a mixed term, whose maximum one Newton step finds."""
    center = np.array([11.3, 15.8])  # in cells
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] - center[:, None, None]
    drawn = np.exp(-(y**2 + x**2 + 2 * slope * y * x) / 20)
    found, _ = heatmaps.decode_newton(jnp.asarray(drawn[None, ..., None], jnp.float32))
    np.testing.assert_allclose(np.asarray(found[0, 0]) * SIZE - 0.5, center, atol=2e-3)


def test_newton_step_survives_the_border_a_flat_and_an_empty_map():
    for drawn in (
        draw(jnp.asarray([[[0.0, 1.0]]])),
        jnp.ones((1, *SIZE, 1)),
        jnp.zeros((1, *SIZE, 1)),
    ):
        found, _ = heatmaps.decode_newton(drawn)
        assert bool(jnp.all(jnp.isfinite(found) & (found >= 0) & (found <= 1)))


def test_blur_keeps_the_place_and_adds_the_squares_of_widths():
    point = random_points(2, 3, 2) * 0.4 + 0.3
    blurred = heatmaps.blur(draw(point, sigma=1.5), sigma=2.0)
    np.testing.assert_allclose(heatmaps.decode_newton(blurred)[0], point, atol=2e-3)
    wider = draw(point, sigma=2.5)  # 1.5² + 2² = 2.5²
    np.testing.assert_allclose(
        blurred / jnp.max(blurred, axis=(1, 2), keepdims=True),
        wider / jnp.max(wider, axis=(1, 2), keepdims=True),
        atol=0.03,
    )


def test_blur_equals_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).random((2, *SIZE, 3))
    expected = ndimage.gaussian_filter(
        image, sigma=(0, 1.5, 1.5, 0), mode="constant", radius=(0, 4, 4, 0)
    )
    np.testing.assert_allclose(
        heatmaps.blur(jnp.asarray(image, jnp.float32), sigma=1.5), expected, atol=1e-5
    )


def test_soft_argmax_is_the_mean_and_has_a_gradient():
    point = random_points(3, 2, 3) * 0.4 + 0.3
    logits = jnp.log(draw(point) + 1e-20)
    np.testing.assert_allclose(heatmaps.soft_argmax(logits), point, atol=1e-3)
    gradient = jax.grad(lambda logits: jnp.sum(heatmaps.soft_argmax(logits)))(logits)
    assert bool(jnp.all(jnp.isfinite(gradient)) & jnp.any(gradient != 0))


def test_peaks_equal_a_loop_over_cells():
    heatmap = np.random.default_rng(4).random((2, 9, 11, 3)).astype(np.float32)
    score, label, cell = jax.device_get(
        jax.jit(lambda h: heatmaps.find_peaks(h, num_peaks=20))(heatmap)
    )
    for b in range(2):
        expected = []
        for i, j, k in np.ndindex(9, 11, 3):
            window = heatmap[b, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2, k]
            if heatmap[b, i, j, k] == window.max():
                expected.append((heatmap[b, i, j, k], k, i, j))
        expected = sorted(expected, reverse=True)[:20]
        found = [(s, k, i, j) for s, k, (i, j) in zip(score[b], label[b], cell[b], strict=True)]
        assert found[: len(expected)] == expected
    gathered = heatmaps.gather_cells(jnp.asarray(heatmap), jnp.asarray(cell))
    np.testing.assert_array_equal(
        np.take_along_axis(np.asarray(gathered), label[..., None], axis=-1)[..., 0], score
    )


def test_no_peak_is_lost_where_numbers_are_computed_anew():
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
    scale, offset = jnp.array([1.1, 0.9, 1.3]), jnp.array([0.1, -0.2, 0.3])

    def found(scale, offset):
        return heatmaps.find_peaks(jax.nn.sigmoid(normalized(x, scale, offset)), num_peaks=30)

    with jax.disable_jit():
        want = found(scale, offset)
    got = computed_anew(found, scale, offset)
    np.testing.assert_allclose(want[0], got[0], rtol=1e-5)
    np.testing.assert_array_equal(want[1], got[1])
    np.testing.assert_array_equal(want[2], got[2])


def test_beside_two_peaks_there_is_none():
    score, _, _ = heatmaps.find_peaks(draw(random_points(5, 1, 2)), num_peaks=5)
    assert np.all(score[0, 2:] <= 0)  # the flat ground, or nothing
    assert float(score[0, 1]) > 0.9


def test_more_peaks_than_cells_have_no_score_and_a_cell_of_the_map():
    heatmap = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (2, 3, 4, 2)), jnp.float32)
    score, label, cell = heatmaps.find_peaks(heatmap, num_peaks=30)
    fewer = heatmaps.find_peaks(heatmap, num_peaks=24)
    assert (score.shape, label.shape, cell.shape) == ((2, 30), (2, 30), (2, 30, 2))
    for more, less in zip((score, label, cell), fewer, strict=True):
        np.testing.assert_array_equal(more[:, :24], less)
    np.testing.assert_array_equal(score[:, 24:], -np.inf)
    assert (np.asarray(cell) < (3, 4)).all()


@pytest.mark.parametrize("height, width", [(10.0, 10.0), (3.0, 20.0), (16.0, 7.0)])
@pytest.mark.parametrize("least", [0.3, 0.7])
def test_boxes_off_by_the_radius_still_overlap_enough(height, width, least):
    radius = float(heatmaps.gaussian_radius(jnp.asarray(height), jnp.asarray(width), min_iou=least))
    box = jnp.asarray([0.0, 0.0, height, width])
    moves = radius * jnp.asarray(
        [(a, b, c, d) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1) for d in (-1, 1)],
        jnp.float32,
    )
    overlap = [float(boxes.iou(box, box + move)) for move in moves]
    # the worst of the 16 moves, and no larger radius would do
    assert min(overlap) == pytest.approx(least, abs=1e-4)
