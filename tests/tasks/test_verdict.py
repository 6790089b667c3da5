"""What a blind answer scores, against the metrics of outputs that do not look; and the verdict."""

import numpy as np
import pytest

from jaxcnn.runs.evaluation import merge
from jaxcnn.tasks.binary import BinaryClassification
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.detection import CenterDetection
from jaxcnn.tasks.regression import Regression
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.tasks.super_resolution import SuperResolution
from jaxcnn.tasks.task import BaseTask
from jaxcnn.tasks.verdict import judge
from tests.trials import evaluate, to_jax

ROWS = 40
RANDOM = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2, 2], ROWS // 4).astype(np.int32)


def metrics_of(task, outputs, **batch):
    outputs, batch = to_jax((outputs, batch | {"mask": np.ones(ROWS, np.float32)}))
    return merge(task, [(ROWS, evaluate(task, outputs, batch))])


def always(label, classes=3):
    """Logits of a model that always says the same."""
    return np.broadcast_to(10 * np.eye(classes, dtype=np.float32)[label], (ROWS, classes))


NAMES = ("accuracy", "top2_accuracy", "balanced_accuracy", "cohen_kappa", "mcc")


@pytest.mark.parametrize("metric", NAMES)
def test_classification_scores_what_the_most_frequent_class_scores(metric):
    task = Classification(3, metric=metric)
    logits = always(2) + 0.1 * always(1)
    blind = metrics_of(task, logits, label=LABELS)
    better = metrics_of(task, 10 * np.eye(3, dtype=np.float32)[LABELS], label=LABELS)
    assert task.blind(better).value == pytest.approx(blind[metric], abs=1e-6)
    assert judge(task, blind).no_better
    assert not judge(task, better).no_better


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "accuracy", "mcc"])
def test_binary(metric):
    task = BinaryClassification(metric=metric)
    label = (np.arange(ROWS) % 4 == 0).astype(np.int32)
    constant = metrics_of(task, np.full((ROWS, 1), -3, np.float32), label=label)
    sharp = metrics_of(task, 20 * label[:, None].astype(np.float32) - 10, label=label)
    assert task.blind(sharp).value == pytest.approx(constant[metric], abs=1e-6)
    assert judge(task, constant).no_better
    assert not judge(task, sharp).no_better


@pytest.mark.parametrize("metric, larger", [("rmse", False), ("r2", True)])
def test_regression_scores_what_the_mean_scores(metric, larger):
    task = Regression(2, metric=metric, larger_is_better=larger)
    values = RANDOM.normal(3, 2, (ROWS, 2)).astype(np.float32)
    blind = metrics_of(task, np.broadcast_to(values.mean(0), (ROWS, 2)), values=values)
    better = metrics_of(task, values + 0.1, values=values)
    assert task.blind(better).value == pytest.approx(blind[metric], rel=1e-4, abs=1e-5)
    assert not judge(task, better).no_better
    worse = metrics_of(task, values + 100, values=values)
    assert judge(task, worse).no_better


@pytest.mark.parametrize("metric", ["mIoU", "pixel_accuracy"])
def test_segmentation_scores_what_one_class_everywhere_scores(metric):
    task = Segmentation(3, metric=metric)
    truth = RANDOM.choice(3, p=[0.6, 0.3, 0.1], size=(ROWS, 4, 4)).astype(np.int32)
    logits = np.broadcast_to(np.float32([9, 0, 0]), (ROWS, 4, 4, 3))
    blind = metrics_of(task, logits, segmentation=truth)
    better = metrics_of(task, 9 * np.eye(3, dtype=np.float32)[truth], segmentation=truth)
    assert task.blind(better).value == pytest.approx(blind[metric], abs=1e-6)
    assert judge(task, blind).no_better
    assert not judge(task, better).no_better


def test_what_others_are_compared_with():
    found = {"psnr": 30.0, "bicubic_psnr": 28.0, "count": 5}
    assert SuperResolution().blind(found).value == 28.0
    detection = CenterDetection(num_classes=2, image_size=(8, 8))
    assert judge(detection, {"AP": 0.0, "count": 3}).no_better
    assert not judge(detection, {"AP": 0.1, "count": 3}).no_better
    assert judge(detection, {"AP": None, "count": 3}).no_better is None


def test_within_its_interval_is_no_better():
    """Of 100 examples, half of one class: 60 right could be luck, 61 hardly (Wilson: 0.5020)."""
    task = Classification(2)

    def of(right):
        return {"accuracy": right / 100, "count": 100, "per_class_support": [50, 50]}

    assert judge(task, of(59)).no_better
    assert not judge(task, of(60)).no_better
    assert (
        "a blind answer (the most frequent class, always) scores 0.5"
        in judge(task, of(59)).sentence()
    )


def test_a_task_of_ones_own_is_not_compared():
    class Own(BaseTask):
        inputs, metric, larger_is_better = ("image",), "loss", False

        def loss(self, outputs, batch):
            return outputs

    assert judge(Own(), {"loss": 1.0, "count": 3}).no_better is None


@pytest.mark.parametrize("support", [None, [], [0, 0]])
def test_metrics_that_do_not_tell(support):
    found = {"accuracy": 0.5, "count": 2, "per_class_support": support}
    assert Classification(2).blind(found) is None
