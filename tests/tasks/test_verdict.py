"""What a blind answer scores, against the metrics of outputs that do not look; and the verdict."""

from itertools import product

import jax
import numpy as np
import pytest

from jaxcnn.ops.decoding import END, START
from jaxcnn.runs.evaluation import merge
from jaxcnn.tasks.binary import BinaryClassification
from jaxcnn.tasks.captioning import Captioning
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.detection import CenterDetection
from jaxcnn.tasks.keypoints import Keypoints
from jaxcnn.tasks.localization import Localization
from jaxcnn.tasks.multi_label import MultiLabel
from jaxcnn.tasks.recognition import TextRecognition
from jaxcnn.tasks.regression import Regression
from jaxcnn.tasks.segmentation import Segmentation
from jaxcnn.tasks.style_transfer import StyleTransfer
from jaxcnn.tasks.super_resolution import SuperResolution
from jaxcnn.tasks.task import BaseTask, Blind
from jaxcnn.tasks.verdict import Verdict, judge
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


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_alone_is_always_guessed(only):
    task = BinaryClassification(metric="balanced_accuracy")
    label = np.full(ROWS, only, np.int32)
    right = metrics_of(task, np.full((ROWS, 1), 6 * only - 3, np.float32), label=label)
    assert task.blind(right).value == right["balanced_accuracy"] == 1.0
    assert judge(task, right).no_better


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


@pytest.mark.parametrize("larger", [True, False])
def test_a_score_that_rounding_alone_makes_better_is_no_better(larger):
    """Sums of float32 in another order: 0.6856318 and 0.6856319 are the same answer's."""
    sign = 1 if larger else -1
    for gain, expected in ((0, True), (1e-7, True), (1e-4, False), (-1e-4, True)):
        value, blind = 0.7 * (1 + sign * gain), Blind(0.7, "the mean, always")
        found = Verdict("m", value, None, None, blind, larger_is_better=larger)
        assert found.no_better is expected


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


# ---- answers that the metrics of an evaluation carry


def answered(task, outputs, blind, **batch):
    """The verdict on a model with these outputs, and what outputs that do not look score."""
    found, same = metrics_of(task, outputs, **batch), metrics_of(task, blind, **batch)
    assert judge(task, same).no_better
    assert task.blind(found).answer.endswith(", always")
    return judge(task, found), same[task.metric]


def boxes(count):
    low = RANDOM.uniform(0, 0.5, (count, 1, 2))
    return np.concatenate([low, low + RANDOM.uniform(0.3, 0.5, (count, 1, 2))], -1).astype("f4")


@pytest.mark.parametrize("metric", ["mean_iou", "localized", "accuracy"])
def test_localization_scores_what_the_mean_box_scores(metric):
    task = Localization(3, metric=metric, iou_threshold=0.4, invalid="skip")
    box = boxes(ROWS)
    mask = (np.arange(ROWS) % 7 > 0).astype(np.float32)[:, None]
    rows = {"boxes": box, "boxes_mask": mask, "label": LABELS}
    mean = np.broadcast_to(box[mask[:, 0] > 0, 0].mean(0), (ROWS, 4))
    each = [{"logits": always(label), "box": mean} for label in range(3)]
    verdict, _ = answered(
        task, {"logits": 9 * np.eye(3)[LABELS], "box": box[:, 0]}, each[2], **rows
    )
    assert not verdict.no_better
    best = max(metrics_of(task, outputs, **rows)[metric] for outputs in each)
    assert verdict.blind.value == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("metric, larger", [("pck", True), ("nme", False), ("oks", True)])
def test_keypoints_score_what_the_mean_points_score(metric, larger):
    task = Keypoints(
        4, method="direct", metric=metric, larger_is_better=larger, threshold=0.3,
        sigmas=(0.1, 0.2, 0.1, 0.3), invalid="skip",
    )  # fmt: skip
    points = RANDOM.uniform(0.1, 0.9, (ROWS, 4, 2)).astype(np.float32)
    visible = (RANDOM.random((ROWS, 4)) > 0.3).astype(np.float32)
    visible[:, 3], visible[5] = 0, 0
    points[7, 0], points[visible == 0] = 1.5, np.nan  # outside: skipped
    rows = {
        "points": points,
        "points_mask": visible,
        "original_size": RANDOM.integers(40, 90, (ROWS, 2)).astype(np.int32),
        "box_areas": RANDOM.uniform(400, 2000, (ROWS, 1)).astype(np.float32),
        "boxes_ignored": (np.arange(ROWS) == 9).astype(np.float32)[:, None],
    }
    seen = visible.astype(bool) & (points < 1).all(-1)
    seen[9] = False
    mean = np.full((4, 2), 0.5)
    for j in range(4):
        shown = [points[i, j] for i in range(ROWS) if seen[i, j] and seen[i].sum() > 1]
        mean[j] = np.mean(shown, axis=0) if shown else 0.5
    near = np.where(np.isnan(points), 0.5, points) + np.float32(0.01)
    verdict, value = answered(task, near, np.broadcast_to(mean, (ROWS, 4, 2)).astype("f4"), **rows)
    assert not verdict.no_better
    assert verdict.blind.value == pytest.approx(value, rel=1e-5)


def test_keypoints_that_nobody_sees_are_compared_with_nothing():
    hidden = {"points": np.zeros((ROWS, 2, 2), "f4"), "points_mask": np.zeros((ROWS, 2), "f4")}
    task = Keypoints(2, method="direct")
    assert task.blind(metrics_of(task, np.zeros((ROWS, 2, 2), "f4"), **hidden)) is None


def constants(classes, levels=(-5.0, 5.0)):
    return [
        np.broadcast_to(np.float32(row), (ROWS, classes)) for row in product(levels, repeat=classes)
    ]


@pytest.mark.parametrize(
    "metric, larger",
    [("mAP", True), ("micro_f1", True), ("macro_f1", True), ("subset_accuracy", True),
     ("hamming_loss", False)],
)  # fmt: skip
@pytest.mark.parametrize("known", [1.0, 0.8])
def test_labels_score_what_the_best_constant_answer_scores(metric, larger, known):
    """Of all answers that are the same for each example, tried one by one."""
    task = MultiLabel(4, metric=metric, larger_is_better=larger)
    labels = (RANDOM.random((ROWS, 4)) < [0.7, 0.4, 0.2, 0.0]).astype(np.float32)
    mask = (RANDOM.random((ROWS, 4)) < known).astype(np.float32)
    rows = {"labels": labels, "labels_mask": mask}
    batch = to_jax(rows | {"mask": np.ones(ROWS, np.float32)})
    step = jax.jit(lambda x: (task.statistics(x, batch), task.records(x, batch)))
    results = [jax.device_get(step(to_jax(logits))) for logits in constants(4)]
    scores = [merge(task, [(ROWS, result)])[metric] for result in results]
    found = metrics_of(task, 10 * labels - 5, **rows)
    blind = task.blind(found).value
    best = max(scores) if larger else min(scores)
    if metric == "subset_accuracy" and known < 1:  # the most frequent of the sets that occur
        assert 0 < blind <= best
    else:
        assert blind == pytest.approx(best, abs=1e-6)
    assert not judge(task, found).no_better


def test_a_calibration_error_is_compared_with_nothing():
    labels = (RANDOM.random((ROWS, 2)) < 0.5).astype(np.float32)
    task = MultiLabel(2, metric="ece", larger_is_better=False)
    assert task.blind(metrics_of(task, 5 * labels, labels=labels)) is None


LINES = ["ab", "b a", "ab", "aab", "ab", "b", "a", "aa"] * (ROWS // 8)


def spelled(lines, frames=7):
    """(text, logits that read the lines) in the alphabet "ab "."""
    text, logits = np.zeros((len(lines), 4), np.int32), np.zeros((len(lines), frames, 4), "f4")
    for row, line in enumerate(lines):
        text[row, : len(line)] = ["ab ".index(c) + 1 for c in line]
        path = [label for c in text[row] for label in (c, 0)][:frames]
        logits[row, range(frames), path] = 9
    return text, logits


@pytest.mark.parametrize("metric, larger", [("exact", True), ("cer", False), ("wer", False)])
def test_recognition_scores_what_one_line_scores(metric, larger):
    task = TextRecognition("ab ", metric=metric, larger_is_better=larger)
    text, read = spelled(LINES)
    each = [spelled([line] * ROWS)[1] for line in ("ab", "")]
    scores = [metrics_of(task, logits, text=text)[metric] for logits in each]
    found = metrics_of(task, read, text=text)
    assert task.blind(found).value == pytest.approx(max(scores) if larger else min(scores))
    assert not judge(task, found).no_better
    assert judge(task, metrics_of(task, spelled([""] * ROWS)[1], text=text)).no_better


@pytest.mark.parametrize("metric", ["exact", "bleu2", "cider", "rouge_l"])
def test_captions_score_what_the_most_frequent_one_scores(metric):
    task = Captioning(9, metric=metric)
    sentences = [[[4, 5, 6], [4, 6, 5]], [[4, 5, 6], []], [[7, 8, 4], [6, 6, 8]], [[5, 5, 7], []]]
    captions = np.zeros((ROWS, 2, 5), np.int32)
    for row in range(ROWS):
        for place, words in enumerate(sentences[row % 4]):
            if words:
                captions[row, place] = [START, *words, END]

    def said(sentences):
        tokens = np.asarray([[*words, END, 0] for words in sentences], np.int32)
        sums = {"loss": 0.0, "count": ROWS}
        return task.summarize(sums, {"tokens": tokens, "references": captions})

    right, same = said([sentences[row % 4][0] for row in range(ROWS)]), said([[4, 5, 6]] * ROWS)
    assert task.blind(right).value == pytest.approx(same[metric])
    assert not judge(task, right).no_better
    assert judge(task, same).no_better


def test_a_style_has_no_blind_answer_and_says_why():
    verdict = judge(StyleTransfer(), {"style_ratio": 0.5, "count": 1})
    assert verdict.no_better is None
    assert "no right answer" in verdict.why_not


def test_metrics_of_a_run_made_before_are_compared_with_nothing():
    assert judge(Localization(3), {"mean_iou": 0.4, "count": 3}).no_better is None
