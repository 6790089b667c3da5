"""Connected components against scikit-image's, numbers and all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.ops.components import label_components


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.6, 0.9])
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (17, 23), (64, 64)])
def test_equals_scikit_image(size, density, diagonal):
    measure = pytest.importorskip("skimage.measure")
    generator = np.random.default_rng(0)
    for _ in range(5):
        mask = generator.random(size) < density
        labels, count = label_components(mask, diagonal=diagonal)
        expected, expected_count = measure.label(
            mask, connectivity=2 if diagonal else 1, return_num=True
        )
        np.testing.assert_array_equal(labels, expected)
        assert (count, labels.dtype) == (expected_count, np.int32)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=7))
def test_each_part_is_what_a_flood_reaches(rows):
    mask = np.array(rows)
    labels, count = label_components(mask)
    assert sorted(set(labels[mask].tolist())) == list(range(1, count + 1))
    assert not labels[~mask].any()
    for number in range(1, count + 1):
        reached = np.zeros_like(mask)
        reached[tuple(np.argwhere(labels == number)[0])] = True
        for _ in range(mask.size):
            padded = np.pad(reached, 1)
            around = [
                padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]]
                for dy in range(3)
                for dx in range(3)
            ]
            reached = np.any(around, axis=0) & mask
        np.testing.assert_array_equal(reached, labels == number)


@pytest.mark.parametrize(
    "picture, diagonal, count",
    [
        (["#.#", "#.#", "###"], True, 1),  # two arms that meet below
        (["#.#", ".#.", "#.#"], True, 1),
        (["#.#", ".#.", "#.#"], False, 5),
        (["..#", "#.."], True, 2),  # the end of one row does not touch the start of the next
        (["...", "..."], True, 0),
        (["#.#.#", "#.#.#", "#####"], False, 1),
    ],
)
def test_shapes(picture, diagonal, count):
    mask = np.array([[c == "#" for c in row] for row in picture])
    assert label_components(mask, diagonal=diagonal)[1] == count
