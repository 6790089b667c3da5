"""Polygons against shapely, against grids of points, and the shrinking and growing of rectangles
against each other.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.ops import polygons

RANDOM = np.random.default_rng(0)
SQUARE = np.array([[1.0, 1.0], [1.0, 5.0], [5.0, 5.0], [5.0, 1.0]])
BOW_TIE = np.array([[0.0, 0.0], [4.0, 4.0], [0.0, 4.0], [4.0, 0.0]])
DART = np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 4.0], [4.0, 2.0]])
# turns one way only, twice around
STAR = np.array([[np.sin(angle), np.cos(angle)] for angle in np.arange(5) * 4 * np.pi / 5])


def rectangle(center, size, degrees):
    """Corners (y, x), clockwise as seen from the upper left one, of a rectangle turned
    counter-clockwise as seen.
    """
    y, x = np.array([-1, -1, 1, 1]) * size[0] / 2, np.array([-1, 1, 1, -1]) * size[1] / 2
    angle = np.deg2rad(degrees)
    return np.stack(
        [np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x], -1
    ) + np.asarray(center)


def random_convex(generator, count=6, scale=10.0):
    """Points on a circle, stretched, turned and moved: always convex."""
    angles = np.sort(generator.uniform(0, 2 * np.pi, count))
    points = np.stack([np.sin(angles), np.cos(angles)], -1) @ generator.normal(size=(2, 2)) * scale
    return points + generator.uniform(-scale, scale, 2)


def covered(points, polygon):
    """Which points [..., 2] lie in a convex polygon: on one side of all its edges."""
    edges = np.roll(polygon, -1, 0) - polygon
    offsets = points[..., None, :] - polygon
    side = edges[:, 0] * offsets[..., 1] - edges[:, 1] * offsets[..., 0]
    return (side >= 0).all(-1) | (side <= 0).all(-1)


def test_area_and_perimeter_equal_shapely():
    shapely = pytest.importorskip("shapely")
    for _ in range(50):
        polygon = random_convex(RANDOM)
        theirs = shapely.Polygon(polygon)
        assert polygons.area(polygon) == pytest.approx(theirs.area)
        assert polygons.area(polygon[::-1]) == pytest.approx(theirs.area)
        assert polygons.perimeter(polygon) == pytest.approx(theirs.length)
        np.testing.assert_allclose(polygons.area(jnp.asarray(polygon)), theirs.area, rtol=1e-4)


@pytest.mark.parametrize(
    "polygon, convex",
    [
        (SQUARE, True),
        (SQUARE[::-1], True),
        (SQUARE[[0, 1, 2]], True),
        (SQUARE[[0, 1, 2, 2]], True),  # a repeated corner
        (np.insert(SQUARE, 1, [1.0, 3.0], axis=0), True),  # a corner on an edge
        (BOW_TIE, False),
        (DART, False),
        (DART[::-1], False),
        (STAR, False),
        (SQUARE[[0, 1, 0, 1]], False),  # no area
        (np.zeros((4, 2)), False),
    ],
)
def test_is_convex(polygon, convex):
    assert bool(polygons.is_convex(polygon)) is convex
    assert bool(polygons.is_convex(jnp.asarray(polygon, jnp.float32))) is convex
    assert bool(polygons.is_convex(polygon * 1e-3)) is convex


def test_random_convex_polygons_are_convex_and_shuffled_ones_are_not():
    for _ in range(100):
        polygon = random_convex(RANDOM)
        assert polygons.is_convex(polygon)
        assert not polygons.is_convex(polygon[[0, 3, 1, 4, 2, 5]])


def test_fill_covers_the_cells_whose_centres_are_inside():
    centers = np.stack(np.mgrid[:20, :30], -1) + 0.5
    shapes = np.stack([random_convex(RANDOM) + 12 for _ in range(40)]).astype(np.float32)
    found = jax.jit(lambda p: polygons.fill(p, (20, 30)))(shapes)
    expected = np.stack([covered(centers, polygon) for polygon in shapes.astype(np.float64)])
    assert found.shape == (40, 20, 30)
    assert (np.asarray(found) != expected).mean() < 1e-4  # a centre on an edge may fall either way
    np.testing.assert_array_equal(polygons.fill(jnp.asarray(shapes[:, ::-1]), (20, 30)), found)


@pytest.mark.parametrize(
    "degenerate",
    [np.zeros((4, 2)), np.tile([[3.0, 3.0], [3.0, 9.0]], (2, 1)), np.full((4, 2), 5.5)],
)
def test_fill_of_nothing_is_empty(degenerate):
    assert not polygons.fill(jnp.asarray(degenerate, jnp.float32), (12, 12)).any()


def test_fill_with_an_inset_keeps_its_distance_from_the_edges():
    shape = rectangle((10.3, 11.7), (9.0, 16.0), 20)
    centers = np.stack(np.mgrid[:20, :30], -1) + 0.5
    found = polygons.fill(jnp.asarray(shape, jnp.float32), (20, 30), inset=jnp.float32(2.5))
    np.testing.assert_array_equal(found, covered(centers, rectangle((10.3, 11.7), (4.0, 11.0), 20)))


def test_inset_filling_equals_shapely_negative_buffer():
    shapely = pytest.importorskip("shapely")
    for _ in range(20):
        shape = random_convex(RANDOM, count=4, scale=8.0) + 12
        distance = polygons.inset_distance(shape, 0.6)
        shrunk = shapely.Polygon(shape).buffer(-distance, join_style="mitre")
        found = np.asarray(
            polygons.fill(jnp.asarray(shape, jnp.float32), (30, 30), inset=jnp.float32(distance))
        )
        expected = np.array(
            [[shrunk.covers(shapely.Point(y + 0.5, x + 0.5)) for x in range(30)] for y in range(30)]
        )
        assert (found != expected).mean() < 2e-3


def test_are_apart_agrees_with_the_intersection():
    pairs = [(random_convex(RANDOM), random_convex(RANDOM)) for _ in range(300)]
    first, second = (jnp.asarray(np.stack(side), jnp.float32) for side in zip(*pairs, strict=True))
    apart = np.asarray(polygons.are_apart(first, second))
    shared = np.array([polygons.intersection_area(a, b) for a, b in pairs])
    assert 20 < apart.sum() < 280
    np.testing.assert_array_equal(apart, shared == 0)


def test_intersection_and_iou_equal_shapely():
    shapely = pytest.importorskip("shapely")
    first, second = ([random_convex(RANDOM) for _ in range(12)] for _ in range(2))
    ours = polygons.pairwise_iou(np.stack(first), np.stack(second))
    for i, one in enumerate(map(shapely.Polygon, first)):
        for j, other in enumerate(map(shapely.Polygon, second)):
            assert ours[i, j] == pytest.approx(
                one.intersection(other).area / one.union(other).area, abs=1e-9
            )


def test_iou_equals_counting_points():
    points = np.stack(np.mgrid[-40:40:0.1, -40:40:0.1], -1)
    for _ in range(5):
        one, other = random_convex(RANDOM, count=4), random_convex(RANDOM, count=5)
        a, b = covered(points, one), covered(points, other)
        assert polygons.pairwise_iou(one[None], other[None])[0, 0] == pytest.approx(
            (a & b).sum() / (a | b).sum(), abs=0.01
        )


def test_iou_of_same_apart_nested_and_empty():
    inner = SQUARE * 0.5 + 1.5
    found = polygons.pairwise_iou(
        np.stack([SQUARE, SQUARE[::-1]]), np.stack([SQUARE, SQUARE + 20, inner, np.zeros((4, 2))])
    )
    np.testing.assert_allclose(found, [[1, 0, 0.25, 0]] * 2, atol=1e-12)
    assert polygons.pairwise_iou(np.zeros((0, 4, 2)), SQUARE[None]).shape == (0, 1)
    assert polygons.pairwise_iou(SQUARE[None], np.zeros((0, 4, 2))).shape == (1, 0)


def test_smallest_rectangle_has_the_area_of_shapely():
    shapely = pytest.importorskip("shapely")
    for _ in range(50):
        points = RANDOM.normal(size=(RANDOM.integers(3, 30), 2)) @ RANDOM.normal(size=(2, 2))
        found = polygons.smallest_rectangle(points)
        assert polygons.area(found) == pytest.approx(
            shapely.MultiPoint(points).minimum_rotated_rectangle.area
        )
        assert shapely.Polygon(found).buffer(1e-9).covers(shapely.MultiPoint(points))


@pytest.mark.parametrize("degrees", [-40, -15, 0, 1, 15, 44])
def test_smallest_rectangle_finds_corners_in_reading_order(degrees):
    expected = rectangle((20.0, 30.0), (6.0, 25.0), degrees)
    inside = expected.mean(0) + RANDOM.uniform(-0.9, 0.9, (50, 1)) * (
        expected[RANDOM.integers(0, 4, 50)] - expected.mean(0)
    )
    points = RANDOM.permutation(np.concatenate([expected, inside]))
    np.testing.assert_allclose(polygons.smallest_rectangle(points), expected, atol=1e-9)
    np.testing.assert_allclose(
        polygons.smallest_rectangle(points, margin=2.0),
        rectangle((20, 30), (10, 29), degrees),
        atol=1e-9,
    )


@pytest.mark.parametrize(
    "points, size",
    [
        ([[3.5, 4.5]], (1, 1)),
        ([[2.5, 1.5], [2.5, 2.5], [2.5, 5.5]], (1, 5)),
        ([[1, 1], [1, 1]], (1, 1)),
    ],
)
def test_smallest_rectangle_of_a_point_or_a_row(points, size):
    points = np.array(points, float)
    center = (points.min(0) + points.max(0)) / 2
    np.testing.assert_allclose(
        polygons.smallest_rectangle(points, margin=0.5), rectangle(center, size, 0), atol=1e-12
    )


@settings(deadline=None)
@given(
    size=st.tuples(st.floats(1, 40), st.floats(1, 200)),
    degrees=st.floats(-45, 45),
    ratio=st.floats(0.2, 1.0),
)
def test_unclip_undoes_the_inset(size, degrees, ratio):
    whole = rectangle((5.0, -3.0), size, degrees)
    distance = polygons.inset_distance(whole, ratio)
    shrunk = rectangle((5.0, -3.0), (size[0] - 2 * distance, size[1] - 2 * distance), degrees)
    np.testing.assert_allclose(polygons.unclip(shrunk, ratio=ratio), whole, rtol=1e-6, atol=1e-6)


def test_inset_distance_is_that_of_the_article():
    """A(1 - r^2) / L of a 10 x 40 rectangle and r = 0.4: 400 x 0.84 / 100."""
    assert polygons.inset_distance(rectangle((0, 0), (10, 40), 30), 0.4) == pytest.approx(3.36)
    assert polygons.inset_distance(np.zeros((4, 2)), 0.4) == 0
