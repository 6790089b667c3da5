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


def test_the_constants_of_cocos_points_are_those_of_its_evaluation_page():
    of_part = {
        **{"nose": 0.026, "eyes": 0.025, "ears": 0.035, "shoulders": 0.079, "elbows": 0.072},
        **{"wrists": 0.062, "hips": 0.107, "knees": 0.087, "ankles": 0.089},
    }
    both = [value for part, value in of_part.items() for _ in range(1 + (part != "nose"))]
    np.testing.assert_allclose(average_precision.COCO_SIGMAS, both, rtol=1e-12)


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


def test_one_visible_joint_is_a_mean_over_one():
    point, truth = jnp.asarray([[[3.0, 4.0], [0.0, 0.0]]]), jnp.zeros((1, 2, 2))
    visible, ten = jnp.asarray([[1, 0]]), jnp.asarray([10.0])
    assert keypoints.normalized_error(point, truth, visible, reference=ten) == 0.5
    same = keypoints.similarity(truth, truth, visible, area=ten, sigmas=jnp.full(2, 0.1))
    assert same == 1


def test_an_object_without_visible_joints_is_compared_by_its_doubled_box_and_ignored():
    """COCO: grown by its own size to each side; whatever lies within agrees."""
    truth = {
        "points": np.zeros((1, 2, 2)),
        "visible": np.zeros((1, 2), bool),
        "box": np.array([[10.0, 20, 30, 60]]),
        "area": np.array([400.0]),
        "label": np.zeros(1, int),
    }
    sigmas = np.array([0.5, 0.25])
    # rows from -10 to 50, columns from -20 to 100
    points = np.array([[[-10.0, 100], [50, -20]], [[-13, 104], [20, 40]], [[55, 0], [0, -32]]])
    found = objects.keypoint_similarity(points, truth, sigmas)[:, 0]
    near = [np.exp(-d / (2 * s) ** 2 / 400 / 2) for d, s in ((25, 0.5), (25, 0.5), (144, 0.25))]
    np.testing.assert_allclose(found, [1, (near[0] + 1) / 2, (near[1] + near[2]) / 2], rtol=1e-9)

    seen = truth | {"visible": np.ones((1, 2), bool), "points": np.full((1, 2, 2), 500.0)}
    both = {name: np.concatenate([seen[name], truth[name]]) for name in truth}
    answer = {"points": seen["points"], "label": np.zeros(1, int), "score": np.ones(1)}
    score = average_precision.coco_keypoints([both], [answer], sigmas=sigmas)
    assert (score["AP"], score["AR"]) == (1, 1)
    unwanted = [both | {"ignored": np.array([True, False])}]
    assert average_precision.coco_keypoints(unwanted, [answer], sigmas=sigmas)["AP"] == -1


def test_what_is_predicted_for_invisible_joints_counts_for_nothing():
    """Also where its distance is infinite, or no number: infinity times 0 would be NaN."""
    point, truth, visible, reference = example()
    for huge in (1e30, np.inf, np.nan):
        other = jnp.where((visible > 0)[..., None], point, huge)
        for measure, given in (
            (keypoints.normalized_error, {"reference": reference}),
            (keypoints.similarity, {"area": reference, "sigmas": jnp.full(17, 0.1)}),
        ):
            np.testing.assert_array_equal(
                measure(other, truth, visible, **given), measure(point, truth, visible, **given)
            )
