"""Masks against pycocotools, bit for bit, and by round trips."""

import numpy as np
import pytest

from jaxcnn.errors import DataError
from jaxcnn.ops import masks

# pycocotools 2.0.11 itself, under NumPy 2
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

SIZES = [(1, 1), (7, 5), (40, 33), (64, 80)]


def random_mask(size, seed=0):
    generator = np.random.default_rng(seed)
    coarse = generator.random((size[0] // 8 + 1, size[1] // 8 + 1)) > 0.5
    return np.kron(coarse, np.ones((8, 8), bool))[: size[0], : size[1]] ^ (
        generator.random(size) > 0.95
    )


@pytest.fixture(scope="module")
def peer():
    return pytest.importorskip("pycocotools.mask")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", ["random", "empty", "full"])
def test_run_lengths_equal_pycocotools(peer, size, fill):
    mask = {
        "random": random_mask(size),
        "empty": np.zeros(size, bool),
        "full": np.ones(size, bool),
    }[fill]
    ours, theirs = masks.encode(mask), peer.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert masks.compress(ours["counts"]) == theirs["counts"].decode()
    np.testing.assert_array_equal(masks.decode(theirs), mask)
    np.testing.assert_array_equal(peer.decode(peer.frPyObjects(ours, *size)), mask)


@pytest.mark.parametrize("size", SIZES)
def test_encode_and_compress_round_trip(size):
    mask = random_mask(size, seed=1)
    rle = masks.encode(mask)
    np.testing.assert_array_equal(masks.decode(rle), mask)
    assert masks.decompress(masks.compress(rle["counts"])) == rle["counts"]
    long = [0, 100_000, 3, 70_000, 1, 2_000_000, 0, 5]
    assert masks.decompress(masks.compress(long)) == long


@pytest.mark.parametrize("seed", range(30))
def test_filled_polygons_equal_pycocotools(peer, seed):
    generator = np.random.default_rng(seed)
    height, width = generator.integers(5, 60, 2)
    polygons = [
        generator.uniform(-4, 64, 2 * generator.integers(3, 9))
        .round(generator.integers(0, 3))
        .tolist()
        for _ in range(3)
    ]
    theirs = peer.decode(peer.merge(peer.frPyObjects(polygons, int(height), int(width))))
    np.testing.assert_array_equal(masks.fill_polygons(polygons, (int(height), int(width))), theirs)


def test_a_filled_rectangle_is_its_pixels():
    expected = np.zeros((10, 12), bool)
    expected[2:7, 3:9] = True
    filled = masks.fill_polygons([[3, 2, 9, 2, 9, 7, 3, 7]], (10, 12))
    np.testing.assert_array_equal(filled, expected)
    np.testing.assert_array_equal(masks.to_box(filled), [2, 3, 7, 9])
    np.testing.assert_array_equal(masks.to_box(np.zeros((3, 3), bool)), np.zeros(4))


def test_overlap_equals_pycocotools(peer):
    first, second = (
        np.stack([random_mask((24, 30), seed=seed + i) for i in range(4)]) for seed in (0, 10)
    )
    first[0] = second[0] = False
    crowd = np.array([False, False, True, True])
    encoded = [
        peer.encode(np.asfortranarray(np.moveaxis(mask, 0, -1).astype(np.uint8)))
        for mask in (first, second)
    ]
    theirs = peer.iou(encoded[0], encoded[1], crowd.tolist())
    np.testing.assert_allclose(
        masks.pairwise_iou(first, second, crowd=crowd), np.nan_to_num(theirs), atol=1e-12
    )
    assert masks.pairwise_iou(first[:0], second).shape == (0, 4)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: masks.fill_polygons([[0, 0, 1, 1]], (4, 4)), "at least 3 points"),
        (lambda: masks.fill_polygons([[0, 0, 1, 1, 2, 2, 3]], (4, 4)), "got 7 numbers"),
        (
            lambda: masks.decode({"size": [2, 3], "counts": [2, 5]}),
            "sum to 7; a mask of size 2 x 3 needs 6",
        ),
        (lambda: masks.decompress(masks.compress([0, 100_000])[:-1]), "cut short"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(DataError, match=says):
        call()
