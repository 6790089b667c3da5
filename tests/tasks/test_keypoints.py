"""Keypoints: losses and metrics against plain loops, decoding, and what the task says of bad
points.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics import objects
from jaxcnn.ops import heatmaps
from jaxcnn.tasks.keypoints import Keypoints
from tests.trials import ROWS, Trial, evaluate, normal, to_jax

SIZE = (12, 16)  # of heatmaps
JOINTS = 4


def points(generator, rows, *, hidden: float = 0.3):
    """Random points, a share of them invisible and then not a number; each row shows at
    least two.
    """
    point = generator.uniform(0.2, 0.8, (rows, JOINTS, 2)).astype(np.float32)
    visible = generator.random((rows, JOINTS)) >= hidden
    visible[:, :2] = True
    return {
        "points": np.where(visible[..., None], point, np.nan).astype(np.float32),
        "points_mask": visible.astype(np.float32),
        "image": np.zeros((rows, 4 * SIZE[0], 4 * SIZE[1], 1), np.float32),
    }


def points_or_none_to_find(generator, rows):
    """As `points`, of pictures of another size; the objects of rows 2 and 3 need not be found."""
    row = np.arange(rows)[:, None]
    return points(generator, rows) | {
        "boxes_ignored": np.isin(row, (2, 3)).astype(np.float32),
        "boxes_crowd": (row == 3).astype(np.float32),
        "box_areas": generator.uniform(100, 4000, (rows, 1)).astype(np.float32),
        "original_size": generator.integers(50, 100, (rows, 2)).astype(np.int32),
    }


def drawn(sigma: float):
    """The heatmaps that the task wants: Gaussians around the visible points."""

    def outputs(batch):
        truth = np.nan_to_num(batch["points"], nan=0.5)
        return np.array(
            jnp.moveaxis(heatmaps.draw_gaussians(jnp.asarray(truth), SIZE, sigma=sigma), 1, -1)
        )

    return outputs


def logarithms(sigma: float):
    return lambda batch: np.log(np.maximum(drawn(sigma)(batch), 1e-20))


TRIALS = [
    Trial(
        "keypoints",
        Keypoints(JOINTS, sigma=1.5),
        points_or_none_to_find,
        normal(*SIZE, JOINTS),
        drawn(1.5),
        {"pck": 1, "loss": 0, "skipped": 0, "ignored": 2},
    ),
    Trial(
        "keypoints by quarter offset",
        Keypoints(JOINTS, sigma=1.0, decode="quarter", reference=(0, 1), sigmas=(0.1,) * JOINTS),
        points_or_none_to_find,
        normal(*SIZE, JOINTS),
        drawn(1.0),
        {"loss": 0},
    ),
    Trial(
        "keypoints dsnt",
        Keypoints(JOINTS, method="dsnt", sigma=1.2, reference="image"),
        points_or_none_to_find,
        normal(*SIZE, JOINTS),
        logarithms(1.2),
        {"pck": 1},
    ),
    Trial(
        "keypoints direct",
        Keypoints(JOINTS, method="direct", sigmas=(0.1, 0.2, 0.3, 0.4)),
        points_or_none_to_find,
        normal(JOINTS, 2),
        lambda batch: np.nan_to_num(batch["points"], nan=0.5),
        {"pck": 1, "nme": 0, "oks": 1, "per_point_pck": [1.0] * JOINTS},
    ),
]


def rows(seed: int = 0):
    batch = points(np.random.default_rng(seed), ROWS)
    return batch | {"mask": np.ones(ROWS, np.float32)}


def summary(task, outputs, batch):
    return task.summarize(*evaluate(task, jnp.asarray(outputs), to_jax(batch)))


@pytest.mark.parametrize("reference", ["extent", "image", (0, 1)])
def test_pck_nme_and_oks_equal_a_loop(reference):
    """In pixels of a picture that is not square; OKS as the COCO evaluation has it."""
    batch, generator = rows(), np.random.default_rng(5)
    guess = (
        np.nan_to_num(batch["points"], nan=0.3) + 0.06 * generator.normal(size=(ROWS, JOINTS, 2))
    ).astype(np.float32)
    sigmas = (0.1, 0.05, 0.2, 0.15)
    task = Keypoints(JOINTS, method="direct", reference=reference, threshold=0.1, sigmas=sigmas)
    found = summary(task, guess, batch)
    size = np.array(batch["image"].shape[1:3])
    right, errors, similarities = [], [], []
    for p, t, v in zip(guess * size, batch["points"] * size, batch["points_mask"] > 0, strict=True):
        extent = np.ptp(t[v], axis=0)
        length = {"extent": extent.max(), "image": size.max(), (0, 1): np.hypot(*(t[0] - t[1]))}[
            reference
        ]
        distance = np.hypot(*(p[v] - t[v]).T)
        right += list(distance <= 0.1 * length)
        errors.append(distance.mean() / length)
        truth = {
            "points": np.nan_to_num(t)[None],
            "visible": v[None],
            "area": extent.prod()[None],
            "box": np.zeros((1, 4)),
        }
        similarities.append(
            objects.keypoint_similarity(p[None].astype(np.float64), truth, np.array(sigmas))[0, 0]
        )
    assert found["pck"] == pytest.approx(np.mean(right))
    assert 0.1 < found["pck"] < 0.99
    assert found["nme"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert found["oks"] == pytest.approx(np.mean(similarities), rel=1e-4)


def test_heatmap_loss_is_the_mean_square_over_the_cells_of_visible_points():
    batch, outputs = rows(), normal(*SIZE, JOINTS)(np.random.default_rng(1), ROWS)
    ours = Keypoints(JOINTS, sigma=1.5).loss(jnp.asarray(outputs), to_jax(batch))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for i in range(ROWS):
        losses = []
        for j in np.flatnonzero(batch["points_mask"][i]):
            squared = (y - batch["points"][i, j, 0] * SIZE[0]) ** 2 + (
                x - batch["points"][i, j, 1] * SIZE[1]
            ) ** 2
            losses.append(np.square(outputs[i, ..., j] - np.exp(-squared / (2 * 1.5**2))).mean())
        np.testing.assert_allclose(ours[i], np.mean(losses), rtol=1e-4)


def test_dsnt_divergence_equals_scipy_and_its_distance_that_of_the_mean():
    distance = pytest.importorskip("scipy.spatial.distance")
    batch, outputs = rows(), normal(*SIZE, JOINTS)(np.random.default_rng(1), ROWS)
    batch["points_mask"][:] = [1, 0, 0, 0]
    with_divergence, without = (
        Keypoints(JOINTS, method="dsnt", sigma=1.5, regularization=w).loss(
            jnp.asarray(outputs), to_jax(batch)
        )
        for w in (1.0, 0.0)
    )
    share = np.exp(outputs[..., 0]) / np.exp(outputs[..., 0]).sum(axis=(1, 2), keepdims=True)
    target = drawn(1.5)(batch)[..., 0]
    y, x = (np.arange(SIZE[0]) + 0.5) / SIZE[0], (np.arange(SIZE[1]) + 0.5) / SIZE[1]
    for i in range(ROWS):
        # SciPy gives the root
        divergence = distance.jensenshannon(share[i].ravel(), target[i].ravel()) ** 2
        np.testing.assert_allclose((with_divergence - without)[i], divergence, rtol=1e-3)
        mean = np.array([(share[i] * y[:, None]).sum(), (share[i] * x).sum()])
        # the longer side is the unit, and the paper's image 2 wide
        offset = (mean - batch["points"][i, 0]) * [
            SIZE[0] / SIZE[1],
            1,
        ]
        np.testing.assert_allclose(without[i], 2 * np.hypot(*offset), rtol=1e-3)


@pytest.mark.parametrize("method", ["heatmap", "dsnt", "direct"])
def test_invisible_points_have_no_gradient_and_rows_without_any_are_skipped_and_counted(method):
    batch = rows()
    batch["points_mask"][3] = 0
    shape = (JOINTS, 2) if method == "direct" else (*SIZE, JOINTS)
    outputs = jnp.asarray(normal(*shape)(np.random.default_rng(2), ROWS))
    task = Keypoints(JOINTS, method=method)
    gradient = jax.grad(jax.jit(lambda outputs: jnp.sum(task.loss(outputs, to_jax(batch)))))(
        outputs
    )
    per_point = jnp.abs(gradient).sum(axis=2 if method == "direct" else (1, 2))
    np.testing.assert_array_equal(per_point > 0, batch["points_mask"] > 0)
    found = summary(task, outputs, batch)
    assert (found["skipped"], found["count"]) == (1, ROWS)
    others = {name: np.delete(value, 3, axis=0) for name, value in batch.items()}
    rest = summary(task, jnp.delete(outputs, 3, axis=0), others)
    assert (found["pck"], found["nme"]) == pytest.approx((rest["pck"], rest["nme"]))


def test_points_outside_the_image_count_as_invisible_where_a_field_says_so():
    batch = rows()
    batch["points"][0, 0] = (1.2, 0.5)
    batch["points"][1, 1] = (0.5, -0.1)
    hidden = {name: value.copy() for name, value in batch.items()}
    hidden["points_mask"][0, 0] = hidden["points_mask"][1, 1] = 0
    task, outputs = (
        Keypoints(JOINTS, invalid="skip"),
        normal(*SIZE, JOINTS)(np.random.default_rng(1), ROWS),
    )
    task.check(batch)
    found, expected = summary(task, outputs, batch), summary(task, outputs, hidden)
    assert (found.pop("invalid_points"), expected.pop("invalid_points")) == (2, 0)
    assert found == expected


def test_without_a_mask_all_points_are_visible():
    batch = {name: value for name, value in rows().items() if name != "points_mask"}
    batch["points"] = np.nan_to_num(batch["points"], nan=0.4)
    task, outputs = (
        Keypoints(JOINTS),
        jnp.asarray(normal(*SIZE, JOINTS)(np.random.default_rng(1), ROWS)),
    )
    task.check(batch)
    ones = batch | {"points_mask": np.ones((ROWS, JOINTS), np.float32)}
    assert summary(task, outputs, batch) == summary(task, outputs, ones)


@pytest.mark.parametrize("decode, cells", [("maximum", 0.5), ("quarter", 0.25), ("newton", 0.01)])
def test_predicted_points_are_those_drawn_to_a_part_of_a_cell(decode, cells):
    batch = rows()
    predicted = Keypoints(JOINTS, sigma=1.5, decode=decode).predict(jnp.asarray(drawn(1.5)(batch)))
    seen = batch["points_mask"] > 0
    error = np.abs(np.asarray(predicted["points"]) - batch["points"])[seen] * SIZE
    assert error.max() <= cells + 1e-3
    assert np.asarray(predicted["score"])[seen].min() > 0.8


def test_dsnt_scores_a_gaussian_of_the_right_width_about_1_and_a_flat_map_about_0():
    task = Keypoints(JOINTS, method="dsnt", sigma=1.2)
    sharp = task.predict(jnp.asarray(logarithms(1.2)(rows())))["score"]
    flat = task.predict(jnp.zeros((2, *SIZE, JOINTS)))["score"]
    assert float(jnp.min(sharp)) > 0.7
    assert float(jnp.max(flat)) < 0.1


def test_ensembles_are_means():
    generator = np.random.default_rng(0)
    maps = [jnp.asarray(normal(*SIZE, JOINTS)(generator, 2)) for _ in range(3)]
    np.testing.assert_allclose(
        Keypoints(JOINTS).ensemble(maps), sum(maps) / 3, rtol=1e-5, atol=1e-6
    )

    def share(x):
        return jax.nn.softmax(x.reshape(2, -1, JOINTS), axis=1)

    together = Keypoints(JOINTS, method="dsnt").ensemble(maps)
    np.testing.assert_allclose(share(together), sum(share(m) for m in maps) / 3, rtol=1e-4)


def test_describe_gives_points_with_scores_and_their_edges():
    task = Keypoints(JOINTS, edges=((0, 1), (1, 3)))
    predicted = jax.device_get(task.predict(jnp.asarray(drawn(2.0)(rows()))))
    described = task.describe({name: value[0] for name, value in predicted.items()}, names=())
    assert described["edges"] == [[0, 1], [1, 3]]
    np.testing.assert_allclose(np.array(described["points"])[:, :2], predicted["points"][0])
    np.testing.assert_allclose(np.array(described["points"])[:, 2], predicted["score"][0])


MIDDLE, SEEN = np.full((2, JOINTS, 2), 0.5, np.float32), np.ones((2, JOINTS), np.float32)
NAN = np.where(np.arange(16).reshape(2, JOINTS, 2) == 5, np.nan, MIDDLE)


@pytest.mark.parametrize(
    "batch, says",
    [
        (
            {"points": MIDDLE + 1, "points_mask": SEEN},
            r"points\[0, 0\] is \[1.5, 1.5\], visible but not in \[0, 1\], as 8 of 8",
        ),
        (
            {"points": 64 * MIDDLE, "points_mask": SEEN},
            "divide pixels by the image's height and width",
        ),
        ({"points": NAN, "points_mask": SEEN}, r"points\[0, 2\] is \[0.5, nan\]"),
        ({"points": MIDDLE, "points_mask": 0 * SEEN}, "no point of these 2 examples is visible"),
        ({"points": MIDDLE[:, :3]}, r"shape \(2, 3, 2\); expected \(y, x\) of 4 points"),
        ({"points": MIDDLE.astype(np.int32)}, "dtype int32"),
        ({"points": MIDDLE, "points_mask": SEEN[:, :2]}, r"points_mask has shape \(2, 2\)"),
        ({"points": MIDDLE, "image": np.full((2, 4, 4, 1), 99.0, np.float32)}, "unscaled"),
    ],
)
def test_bad_points_are_refused(batch, says):
    with pytest.raises(DataError, match=says):
        Keypoints(JOINTS).check(batch)


def test_good_points_pass():
    Keypoints(JOINTS).check(
        {"points": NAN, "points_mask": (~np.isnan(NAN).any(-1)).astype(np.float32)}
    )


@pytest.mark.parametrize(
    "task, shape",
    [
        (Keypoints(JOINTS), (2, *SIZE, 5)),
        (Keypoints(JOINTS), (2, JOINTS, 2)),
        (Keypoints(JOINTS, method="direct"), (2, 8)),
    ],
)
def test_outputs_of_another_form_are_named(task, shape):
    with pytest.raises(ConfigError, match="the model gives"):
        task.loss(jnp.zeros(shape), to_jax({"points": MIDDLE}))


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"num_points": 0}, "num_points is 0"),
        ({"method": "heatmaps"}, "did you mean 'heatmap'"),
        ({"decode": "newtn"}, "did you mean 'newton'"),
        ({"invalid": "ignore"}, "invalid is 'ignore'"),
        ({"reference": "box"}, "reference is 'box'"),
        ({"reference": (0, 9)}, "point 9"),
        ({"edges": ((0, 4),)}, "point 4"),
        ({"sigmas": (0.1,)}, "1 sigmas for 4 points"),
    ],
)
def test_bad_settings_are_refused(fields, says):
    with pytest.raises(ConfigError, match=says):
        Keypoints(**{"num_points": JOINTS, **fields})
