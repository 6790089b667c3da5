"""The pointing game against a loop over pixels."""

import numpy as np

from jaxcnn.metrics.pointing import pointing_hits


def test_against_a_loop():
    random = np.random.default_rng(0)
    maps = random.integers(0, 9, (40, 6, 8)).astype(np.float32)  # with ties
    corners = np.sort(random.uniform(size=(40, 2, 2)), axis=1)
    boxes = corners.reshape(40, 4)
    for tolerance in (0.0, 1.2):
        found = pointing_hits(maps, boxes, tolerance=tolerance)
        for values, (y0, x0, y1, x1), share in zip(maps, boxes, found, strict=True):
            hits = [
                6 * y0 - tolerance <= y + 0.5 <= 6 * y1 + tolerance
                and 8 * x0 - tolerance <= x + 0.5 <= 8 * x1 + tolerance
                for y in range(6)
                for x in range(8)
                if values[y, x] == values.max()
            ]
            assert share == sum(hits) / len(hits)


def test_a_map_that_says_nothing_hits_by_chance():
    found = pointing_hits(np.zeros((1, 10, 10)), np.array([[0.0, 0.5, 0.5, 1.0]]))
    np.testing.assert_allclose(found, 0.25)


def test_one_place_hits_or_misses():
    maps = np.zeros((2, 4, 4))
    maps[:, 1, 2] = 1
    boxes = np.array([[0.25, 0.5, 0.5, 0.75], [0.5, 0.5, 1.0, 1.0]])
    np.testing.assert_array_equal(pointing_hits(maps, boxes), [1, 0])
    np.testing.assert_array_equal(pointing_hits(maps, boxes, tolerance=0.5), [1, 1])
