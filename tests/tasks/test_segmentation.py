"""Semantic segmentation: its loss against PyTorch, its metrics against scikit-learn and a loop, and
what it says of bad masks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.tasks.segmentation import Segmentation
from tests.trials import ROWS, Trial, evaluate, normal, to_jax

SIZE = (5, 6)


def masks(num_classes: int, *, ignored: float = 0.0):
    """Random classes for each pixel, a share of them 255."""

    def batch(generator, rows):
        truth = generator.integers(0, num_classes, (rows, *SIZE))
        truth.reshape(-1)[:num_classes] = np.arange(num_classes)  # each class occurs
        hidden = generator.random(truth.shape) < ignored
        hidden.reshape(-1)[:num_classes] = False
        return {"segmentation": np.where(hidden, 255, truth).astype(np.int32)}

    return batch


def perfect(num_classes: int):
    return lambda batch: (
        40
        * np.eye(num_classes, dtype=np.float32)[
            np.where(batch["segmentation"] == 255, 0, batch["segmentation"])
        ]
    )


TRIALS = [
    Trial(
        "segmentation",
        Segmentation(num_classes=4),
        masks(4),
        normal(*SIZE, 4),
        perfect(4),
        {"mIoU": 1, "pixel_accuracy": 1, "per_class_iou": [1.0] * 4, "loss": 0},
    ),
    Trial(
        "segmentation ignoring",
        Segmentation(num_classes=3, dice_weight=0.0),
        masks(3, ignored=0.3),
        normal(*SIZE, 3),
        perfect(3),
        {"mIoU": 1, "pixel_accuracy": 1, "per_class_iou": [1.0] * 3, "loss": 0},
    ),
]


def rows(num_classes: int, *, ignored: float = 0.0, seed: int = 0):
    generator = np.random.default_rng(seed)
    return normal(*SIZE, num_classes)(generator, ROWS), masks(num_classes, ignored=ignored)(
        generator, ROWS
    )


@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_cross_entropy_equals_torch(ignored):
    torch = pytest.importorskip("torch")
    logits, batch = rows(5, ignored=ignored)
    ours = Segmentation(5, dice_weight=0.0).loss(jnp.asarray(logits), to_jax(batch))
    for i in range(ROWS):
        theirs = torch.nn.functional.cross_entropy(
            torch.tensor(logits[i]).permute(2, 0, 1)[None],
            torch.tensor(batch["segmentation"][i : i + 1]).long(),
            ignore_index=255,
        )
        np.testing.assert_allclose(ours[i], theirs.numpy(), rtol=1e-5)


def test_dice_loss_equals_a_loop_over_classes():
    logits, batch = rows(4, ignored=0.2)
    batch["segmentation"][0] = 2  # an image of one class
    both, alone = (
        Segmentation(4, dice_weight=w).loss(jnp.asarray(logits), to_jax(batch)) for w in (2.0, 0.0)
    )
    probability = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for i in range(ROWS):
        truth, known, losses = batch["segmentation"][i], batch["segmentation"][i] != 255, []
        for k in np.unique(truth[known]):
            p, y = probability[i][known][:, k], (truth[known] == k)
            losses.append(1 - 2 * (p * y).sum() / (p.sum() + y.sum()))
        np.testing.assert_allclose((both - alone)[i], 2 * np.mean(losses), rtol=1e-4)


def test_summary_equals_scikit_learn_and_ignored_pixels_count_for_nothing():
    metrics = pytest.importorskip("sklearn.metrics")
    logits, batch = rows(6, ignored=0.25)
    task = Segmentation(6)
    summary = task.summarize(
        *evaluate(task, jnp.asarray(logits), to_jax(batch | {"mask": np.ones(ROWS, np.float32)}))
    )
    known = batch["segmentation"] != 255
    truth, called = batch["segmentation"][known], logits.argmax(axis=-1)[known]
    np.testing.assert_allclose(
        summary["per_class_iou"], metrics.jaccard_score(truth, called, average=None)
    )
    assert summary["mIoU"] == pytest.approx(metrics.jaccard_score(truth, called, average="macro"))
    assert summary["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(truth, called))
    assert summary["confusion"] == metrics.confusion_matrix(truth, called).tolist()
    assert (summary["ignored_pixels"], summary["invalid_pixels"]) == (int((~known).sum()), 0)
    # whatever is said about an ignored pixel
    changed = np.where(known[..., None], logits, 9.0).astype(np.float32)
    assert_same(
        task.summarize(
            *evaluate(
                task, jnp.asarray(changed), to_jax(batch | {"mask": np.ones(ROWS, np.float32)})
            )
        ),
        summary,
    )


def assert_same(summary, expected):
    assert summary.pop("loss") == pytest.approx(expected.pop("loss"))
    assert summary == expected


def test_a_class_that_never_occurs_has_no_iou_and_does_not_lower_the_mean():
    task, truth = Segmentation(4), np.array([[[0, 1], [1, 0]]], np.int32)
    logits = 9 * np.eye(4, dtype=np.float32)[np.array([[[0, 1], [0, 0]]])]
    summary = task.summarize(
        *evaluate(
            task,
            jnp.asarray(logits),
            to_jax({"segmentation": truth, "mask": np.ones(1, np.float32)}),
        )
    )
    assert summary["per_class_iou"] == pytest.approx([2 / 3, 1 / 2, None, None])
    assert summary["mIoU"] == pytest.approx(7 / 12)


def test_an_image_without_a_labelled_pixel_has_loss_0_and_a_finite_gradient():
    logits, batch = rows(3)
    batch["segmentation"][4] = 255
    loss, gradient = jax.value_and_grad(lambda x: jnp.sum(Segmentation(3).loss(x, to_jax(batch))))(
        jnp.asarray(logits)
    )
    assert np.isfinite(loss)
    assert bool(jnp.all(jnp.isfinite(gradient)) & jnp.all(gradient[4] == 0))
    assert float(Segmentation(3).loss(jnp.asarray(logits), to_jax(batch))[4]) == 0


def test_invalid_classes_are_ignored_and_counted_where_a_field_says_so():
    logits, batch = rows(3)
    batch["segmentation"][0, 0, :3] = (3, -1, 77)
    task = Segmentation(3, invalid="skip")
    task.check(batch)
    summary = task.summarize(
        *evaluate(task, jnp.asarray(logits), to_jax(batch | {"mask": np.ones(ROWS, np.float32)}))
    )
    ignoring = batch["segmentation"].copy()
    ignoring[0, 0, :3] = 255
    expected = task.summarize(
        *evaluate(
            task,
            jnp.asarray(logits),
            to_jax({"segmentation": ignoring, "mask": np.ones(ROWS, np.float32)}),
        )
    )
    assert (summary.pop("invalid_pixels"), summary.pop("ignored_pixels")) == (3, 0)
    assert (expected.pop("invalid_pixels"), expected.pop("ignored_pixels")) == (0, 3)
    assert_same(summary, expected)


def test_ensemble_is_the_mean_of_probabilities():
    logits = [jnp.asarray(rows(4, seed=seed)[0]) for seed in range(3)]
    mean = jax.nn.softmax(Segmentation(4).ensemble(logits))
    np.testing.assert_allclose(mean, sum(jax.nn.softmax(x) for x in logits) / 3, rtol=1e-5)


@pytest.mark.parametrize(
    "task, data_names, expected",
    [
        (Segmentation(3), ("cat", "dog"), ["background", "cat", "dog"]),
        (Segmentation(3), ("sky", "cat", "dog"), ["sky", "cat", "dog"]),
        (Segmentation(3), (), ["0", "1", "2"]),
        (
            Segmentation(3, names=("pet", "ground", "border")),
            ("cat", "dog"),
            ["pet", "ground", "border"],
        ),
    ],
)
def test_describe_names_the_classes(task, data_names, expected):
    row = {
        name: np.asarray(value)[0] for name, value in task.predict(jnp.asarray(rows(3)[0])).items()
    }
    described = task.describe(row, names=data_names)
    assert described["segment_names"] == expected
    np.testing.assert_array_equal(described["segmentation"], rows(3)[0][0].argmax(axis=-1))


GOOD = np.zeros((2, 4, 4), np.int32)


@pytest.mark.parametrize(
    "batch, says",
    [
        (
            {"segmentation": GOOD, "image": np.zeros((2, 8, 4, 1), np.uint8)},
            "segmentation is 4x4 but the images are 8x4",
        ),
        (
            {"segmentation": GOOD + 3},
            r"segmentation\[0, 0, 0\] is 3; classes must lie in \[0, 3\).* 32 of 32",
        ),
        ({"segmentation": GOOD - 1}, "is -1;"),
        ({"segmentation": GOOD.astype(np.float32)}, "dtype float32; expected int32"),
        ({"segmentation": GOOD.astype(np.uint8)}, "dtype uint8; expected int32"),
        ({"segmentation": GOOD[..., None]}, r"shape \(2, 4, 4, 1\).*drop the last axis"),
        ({"segmentation": GOOD + 255}, "all 32 pixels"),
        ({"segmentation": GOOD, "image": np.full((2, 4, 4, 1), 200.0, np.float32)}, "unscaled"),
    ],
)
def test_bad_masks_are_refused(batch, says):
    with pytest.raises(DataError, match=says):
        Segmentation(3).check(batch)


def test_good_masks_pass():
    Segmentation(3).check(
        {
            "segmentation": np.where(np.arange(32).reshape(2, 4, 4) % 5 == 0, 255, GOOD + 2),
            "image": GOOD[..., None].astype(np.uint8),
        }
    )


def test_outputs_of_another_size_are_named():
    with pytest.raises(
        ConfigError, match=r"gives \(12, 5, 6, 4\) for labels \(12, 5, 6\) of 3 classes"
    ):
        Segmentation(3).loss(jnp.asarray(rows(4)[0]), to_jax(rows(3)[1]))


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Segmentation(1), "num_classes is 1"),
        (lambda: Segmentation(9, ignore=8), "ignore is 8"),
        (lambda: Segmentation(3, invalid="skipp"), "did you mean 'skip'"),
        (lambda: Segmentation(3, names=("a", "b")), "2 names for 3 classes"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
