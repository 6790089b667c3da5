"""Boxes against torchvision where it can be imported, against counting pixels, and by
properties.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.ops import boxes
from tests.torchvision_peer import import_torchvision


def random_boxes(number: int, seed: int) -> jax.Array:
    corners = np.random.default_rng(seed).random((number, 2, 2))
    return jnp.asarray(
        np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=-1), jnp.float32
    )


@pytest.mark.parametrize(
    "name, theirs", [("pairwise_iou", "box_iou"), ("pairwise_giou", "generalized_box_iou")]
)
def test_overlap_equals_torchvision(name, theirs):
    torch = pytest.importorskip("torch")
    first, second = random_boxes(9, 0), random_boxes(7, 1)
    expected = getattr(import_torchvision().ops, theirs)(
        *(torch.tensor(np.asarray(box)[:, [1, 0, 3, 2]]) for box in (first, second))
    )
    np.testing.assert_allclose(
        jax.jit(getattr(boxes, name))(first, second), expected.numpy(), rtol=1e-4, atol=1e-6
    )


def test_iou_is_the_share_of_pixels_in_common():
    generator, size = np.random.default_rng(2), 12
    corner = generator.integers(0, 6, (2, 20, 2))
    box = np.concatenate([corner, corner + generator.integers(1, 7, (2, 20, 2))], axis=-1)

    def paint(box):
        mask = np.zeros((size, size), bool)
        mask[box[0] : box[2], box[1] : box[3]] = True
        return mask

    expected = [
        np.sum(paint(a) & paint(b)) / np.sum(paint(a) | paint(b)) for a, b in zip(*box, strict=True)
    ]
    unit = boxes.from_pixels(jnp.asarray(box, jnp.float32), (size, size))
    np.testing.assert_allclose(boxes.iou(unit[0], unit[1]), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(boxes.area(unit[0]), [np.mean(paint(a)) for a in box[0]], rtol=1e-5)


def test_giou_has_a_gradient_where_boxes_are_apart_and_is_finite_where_they_are_empty():
    here, there = jnp.asarray([0.0, 0.0, 0.2, 0.2]), jnp.asarray([0.6, 0.6, 0.9, 0.9])
    assert float(boxes.iou(here, there)) == 0
    assert float(jnp.sum(jnp.abs(jax.grad(boxes.giou)(here, there)))) > 0.1
    empty = jnp.asarray([0.5, 0.5, 0.5, 0.5])
    for function in (boxes.iou, boxes.giou):
        value, gradient = jax.value_and_grad(function)(empty, empty)
        assert float(value) == 0
        assert bool(jnp.all(jnp.isfinite(gradient)))
        assert float(function(here, here)) == pytest.approx(1)


@pytest.mark.parametrize(
    "there, back",
    [
        (boxes.to_center, boxes.from_center),
        (boxes.to_xywh, boxes.from_xywh),
        (lambda box: boxes.to_pixels(box, (30, 50)), lambda box: boxes.from_pixels(box, (30, 50))),
    ],
    ids=["center", "xywh", "pixels"],
)
def test_conversions_invert_each_other(there, back):
    box = random_boxes(20, 3).reshape(4, 5, 4)
    np.testing.assert_allclose(back(there(box)), box, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.vmap(there))(box), there(box), atol=1e-6)


def test_conversions_put_numbers_in_the_named_order():
    box = jnp.asarray([0.1, 0.2, 0.5, 0.8])
    np.testing.assert_allclose(boxes.to_xywh(box), [0.2, 0.1, 0.6, 0.4], rtol=1e-6)
    np.testing.assert_allclose(boxes.to_center(box), [0.3, 0.5, 0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(boxes.to_pixels(box, (10, 100)), [1, 20, 5, 80], rtol=1e-6)
    np.testing.assert_allclose(boxes.clip(jnp.asarray([-0.1, 0.2, 0.5, 1.8])), [0, 0.2, 0.5, 1])


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
def test_suppression_equals_the_greedy_loop(threshold):
    # with ties
    box, score = (
        random_boxes(40, 4),
        jnp.asarray(np.random.default_rng(5).integers(0, 12, 40) / 12, jnp.float32),
    )
    overlap, expected = np.asarray(boxes.pairwise_iou(box, box)), np.zeros(40, bool)
    for i in np.argsort(-np.asarray(score), kind="stable"):
        expected[i] = not (overlap[i][expected] > threshold).any()
    suppress = jax.jit(lambda box, score: boxes.suppress(box, score, iou_threshold=threshold))
    np.testing.assert_array_equal(suppress(box, score), expected)
    assert 1 < expected.sum() < 40


def test_an_overlap_equal_to_the_threshold_does_not_suppress():
    """Half of the first box: an IoU of exactly 0.5, which does not exceed 0.5."""
    box, score = jnp.asarray([[0.0, 0, 1, 1], [0, 0, 0.5, 1]]), jnp.asarray([0.9, 0.8])
    assert list(boxes.suppress(box, score, iou_threshold=0.5)) == [True, True]
    assert list(boxes.suppress(box, score, iou_threshold=0.4999)) == [True, False]
