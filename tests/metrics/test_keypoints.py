"""Keypoint measures against plain loops, and OKS against the evaluation of average precision
(itself equal to pycocotools).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.metrics import average_precision, keypoints, objects


def example(rows: int = 5, joints: int = 17):
    generator = np.random.default_rng(0)
    truth = generator.random((rows, joints, 2)).astype(np.float32)
    point = (truth + 0.05 * generator.normal(size=truth.shape)).astype(np.float32)
    visible = generator.integers(0, 3, (rows, joints)).astype(np.int32)
    reference = generator.uniform(0.5, 1, rows).astype(np.float32)
    return tuple(map(jnp.asarray, (point, truth, visible, reference)))


def test_correct_and_normalized_error_equal_a_loop():
    point, truth, visible, reference = example()
    found = jax.jit(lambda *a: keypoints.correct(*a[:3], reference=a[3], threshold=0.1))(
        point, truth, visible, reference
    )
    error = keypoints.normalized_error(point, truth, visible, reference=reference)
    for i in range(5):
        distance = [
            float(np.hypot(*np.asarray(p - t))) for p, t in zip(point[i], truth[i], strict=True)
        ]
        assert list(np.asarray(found[i])) == [
            bool(v > 0 and d <= 0.1 * reference[i])
            for v, d in zip(visible[i], distance, strict=True)
        ]
        seen = [d for v, d in zip(visible[i], distance, strict=True) if v > 0]
        np.testing.assert_allclose(error[i], np.mean(seen) / reference[i], rtol=1e-5)


def test_similarity_equals_that_of_average_precision():
    point, truth, visible, reference = example()
    area = reference**2
    ours = keypoints.similarity(
        point,
        truth,
        visible,
        area=area,
        sigmas=jnp.asarray(average_precision.COCO_SIGMAS, jnp.float32),
    )
    theirs = objects.keypoint_similarity(
        np.asarray(point, np.float64),
        {"points": truth, "visible": visible, "area": area, "box": np.zeros((5, 4))},
        average_precision.COCO_SIGMAS,
    )
    np.testing.assert_allclose(ours, np.diagonal(theirs), rtol=1e-4, atol=1e-6)
    assert 0.05 < float(jnp.mean(ours)) < 0.95


def test_rows_without_a_visible_joint_are_finite():
    point, truth, visible, reference = example()
    none = jnp.zeros_like(visible)
    np.testing.assert_array_equal(
        keypoints.normalized_error(point, truth, none, reference=reference), 0
    )
    np.testing.assert_array_equal(
        keypoints.similarity(point, truth, none, area=0 * reference, sigmas=jnp.full(17, 0.1)), 0
    )


def test_a_joint_exactly_at_the_threshold_is_correct():
    """3, 4, 5: whole numbers, so that the distance is exact; PCK's threshold is inclusive."""
    point, truth = jnp.asarray([[[3.0, 4.0], [3.0, 4.001]]]), jnp.zeros((1, 2, 2))
    found = keypoints.correct(
        point, truth, jnp.ones((1, 2)), reference=jnp.asarray([10.0]), threshold=0.5
    )
    assert found.tolist() == [[True, False]]
