"""Labels as people have them: several an example, losses by choice, weights of classes and of
rows, calibration; against scikit-learn, PyTorch and formulas written out in NumPy.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.commands.evaluate import class_table
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics import calibration
from jaxcnn.ops import losses
from jaxcnn.runs.answers import as_json, csv_lines, sentence
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.multi_label import MultiLabel
from tests.trials import (
    ROWS,
    Trial,
    assert_close,
    evaluate,
    labels,
    normal,
    one_hot,
    rows_of,
    to_jax,
)

K = 4


def several(*, known: float = 1.0):
    """Random labels of K classes; the first rows have each class once and lack it once."""

    def batch(generator, rows):
        has = (generator.random((rows, K)) < 0.4).astype(np.float32)
        has[:2] = [[0], [1]]
        mask = (generator.random((rows, K)) < known).astype(np.float32)
        mask[:2] = 1
        return {"labels": has} if known == 1 else {"labels": has, "labels_mask": mask}

    return batch


def weighted(make):
    def batch(generator, rows):
        return make(generator, rows) | {"weight": generator.random(rows).astype(np.float32)}

    return batch


SURE = {"mAP": 1, "micro_f1": 1, "macro_f1": 1, "subset_accuracy": 1, "hamming_loss": 0}


def classification(name, best=None, **fields):
    task = Classification(num_classes=K, **fields)
    return Trial(name, task, labels(K), normal(K), one_hot(K), best or {"accuracy": 1})


def multi_label(name, **fields):
    known = fields.pop("known", 1.0)
    task = MultiLabel(num_classes=K, **fields)
    return Trial(
        name,
        task,
        several(known=known),
        normal(K),
        lambda batch: 80.0 * batch["labels"] - 40,
        SURE,
    )


TRIALS = [
    multi_label("multi-label"),
    multi_label("multi-label partly known", known=0.7, class_weights=(1.0, 2.0, 0.5, 3.0)),
    multi_label("multi-label focal", loss_name="focal"),
    multi_label("multi-label asymmetric", loss_name="asymmetric", thresholds=(0.5, 0.4, 0.3, 0.2)),
    classification("classification focal", loss_name="focal", label_smoothing=0.1),
    classification("classification asymmetric", loss_name="asymmetric"),
    classification("classification weighted classes", class_weights=(1.0, 2.0, 0.0, 3.0)),
    classification("classification calibrated", calibrated=True, temperature=1.5),
    dataclasses.replace(
        classification("classification of weighted rows", {"accuracy": 1, "loss": 0}),
        batch=weighted(labels(K)),
    ),
]


# ---- losses


def numbers(seed=0):
    generator = np.random.default_rng(seed)
    return 6 * generator.normal(size=(50, K)), generator.random((50, K)) < 0.4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("focus", [0.0, 0.5, 2.0])
def test_focal_is_equation_4_of_lin_2017(focus):
    logits, truth = numbers()
    right = np.where(truth, sigmoid(logits), 1 - sigmoid(logits))
    expected = -((1 - right) ** focus) * np.log(right)
    target = jnp.asarray(truth, jnp.float32)
    ours = losses.focal(jnp.asarray(logits, jnp.float32), target, focus=focus)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("focus, margin", [(4.0, 0.05), (0.0, 0.0), (1.0, 0.2)])
def test_asymmetric_is_equation_7_of_ridnik_2021(focus, margin):
    logits, truth = numbers()
    shifted = np.maximum(sigmoid(logits) - margin, 0)
    negative = np.where(shifted > 0, -(shifted**focus) * np.log1p(-shifted), 0)
    expected = np.where(truth, np.logaddexp(0, -logits), negative)
    ours = losses.asymmetric(
        jnp.asarray(logits, jnp.float32),
        jnp.asarray(truth, jnp.float32),
        focus_negative=focus,
        margin=margin,
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, t: losses.focal(x, t, focus=0.5),
        lambda x, t: losses.focal(x, t, focus=2.0),
        lambda x, t: losses.asymmetric(x, t, focus_negative=0.5, margin=0.0),
        lambda x, t: losses.asymmetric(x, t, focus_negative=4.0, margin=0.05),
        losses.sigmoid_cross_entropy,
        lambda x, t: losses.huber(x - t, delta=1.0),
    ],
)
def test_losses_have_finite_gradients_far_out(loss):
    x = jnp.asarray([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
    for target in (0.0, 0.3, 1.0):
        value, slope = jax.value_and_grad(lambda x, t=target: jnp.sum(loss(x, jnp.full(7, t))))(x)
        assert bool(jnp.isfinite(value)) & bool(jnp.isfinite(slope).all())


def test_sigmoid_losses_and_huber_equal_torch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    logits, truth = (x.astype(np.float32) for x in numbers())
    theirs = functional.binary_cross_entropy_with_logits(
        torch.tensor(logits), torch.tensor(truth), reduction="none"
    )
    ours = losses.sigmoid_cross_entropy(jnp.asarray(logits), jnp.asarray(truth))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)
    theirs = functional.huber_loss(
        torch.tensor(logits), torch.tensor(truth), reduction="none", delta=1.5
    )
    ours = losses.huber(jnp.asarray(logits - truth), delta=1.5)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_focal_classification_without_focus_is_cross_entropy_and_with_it_its_formula():
    generator = np.random.default_rng(0)
    logits, batch = jnp.asarray(3 * normal(K)(generator, ROWS)), to_jax(labels(K)(generator, ROWS))
    plain = Classification(num_classes=K, label_smoothing=0.1)
    same = dataclasses.replace(plain, loss_name="focal", focus=0.0)
    assert_close(same.loss(logits, batch), plain.loss(logits, batch))
    chance = np.asarray(jax.nn.softmax(logits))[np.arange(ROWS), batch["label"]]
    focal = Classification(num_classes=K, loss_name="focal", focus=2.0).loss(logits, batch)
    np.testing.assert_allclose(focal, -((1 - chance) ** 2) * np.log(chance), rtol=1e-4, atol=1e-6)


def test_one_against_all_is_the_mean_of_binary_losses_with_smoothed_and_mixed_targets():
    generator = np.random.default_rng(0)
    logits = normal(K)(generator, ROWS)
    batch = labels(K)(generator, ROWS)
    batch |= {
        "label_b": np.roll(batch["label"], 1),
        "label_weight": generator.random(ROWS).astype(np.float32),
    }
    share = batch["label_weight"][:, None]
    target = share * np.eye(K)[batch["label"]] + (1 - share) * np.eye(K)[batch["label_b"]]
    target = 0.9 * target + 0.1 / K
    expected = target * np.logaddexp(0, -logits) + (1 - target) * np.logaddexp(0, logits)
    task = Classification(num_classes=K, loss_name="bce", label_smoothing=0.1)
    np.testing.assert_allclose(
        task.loss(jnp.asarray(logits), to_jax(batch)), expected.mean(1), rtol=1e-5
    )
    predicted = task.predict(jnp.asarray(logits))
    np.testing.assert_allclose(predicted["probabilities"], sigmoid(logits), rtol=1e-5)


def test_class_weights_equal_torch_and_share_mixed_rows():
    weights = (1.0, 2.0, 0.5, 3.0)
    generator = np.random.default_rng(0)
    logits, batch = normal(K)(generator, ROWS), labels(K)(generator, ROWS)
    task, plain = Classification(num_classes=K, class_weights=weights), Classification(K)
    ours = task.loss(jnp.asarray(logits), to_jax(batch))
    own = np.asarray(weights)[batch["label"]]
    np.testing.assert_allclose(ours, own * plain.loss(jnp.asarray(logits), to_jax(batch)))
    mixed = to_jax(batch) | {
        "label_b": jnp.roll(batch["label"], 1),
        "label_weight": jnp.full(ROWS, 0.25),
    }
    shares = 0.25 * own + 0.75 * np.roll(own, 1)
    np.testing.assert_allclose(
        task.loss(jnp.asarray(logits), mixed),
        shares * plain.loss(jnp.asarray(logits), mixed),
        rtol=1e-6,
    )
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits),
        torch.tensor(batch["label"]).long(),
        weight=torch.tensor(weights),
        reduction="none",
    )
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


# ---- weights of rows


@pytest.mark.parametrize("trial", TRIALS[:1] + TRIALS[-1:], ids=["multi-label", "classification"])
def test_the_loss_is_the_mean_weighted_by_row_and_nothing_else_is(trial):
    outputs, batch = rows_of(trial)
    batch = {name: x for name, x in batch.items() if name != "weight"}
    weight = np.random.default_rng(2).random(ROWS).astype(np.float32)
    weight[3] = 0
    rows = np.asarray(trial.task.loss(outputs, batch))
    plain = trial.task.summarize(*evaluate(trial.task, outputs, batch))
    heavy = trial.task.summarize(
        *evaluate(trial.task, outputs, batch | {"weight": jnp.asarray(weight)})
    )
    assert plain["loss"] == pytest.approx(rows.mean(), rel=1e-5)
    assert heavy["loss"] == pytest.approx(np.average(rows, weights=weight), rel=1e-5)
    assert {**heavy, "loss": 0} == {**plain, "loss": 0}
    none = trial.task.summarize(*evaluate(trial.task, outputs, batch | {"weight": jnp.zeros(ROWS)}))
    assert none["loss"] == 0


def test_weighted_log_loss_equals_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    outputs, batch = rows_of(TRIALS[-1])
    summary = TRIALS[-1].task.summarize(*evaluate(TRIALS[-1].task, outputs, batch))
    chance = np.exp(np.asarray(outputs, np.float64))
    theirs = metrics.log_loss(
        batch["label"],
        chance / chance.sum(axis=1, keepdims=True),
        sample_weight=batch["weight"],
        labels=range(K),
    )
    assert summary["loss"] == pytest.approx(theirs, abs=1e-6)


# ---- classes, few and many


@pytest.mark.parametrize("num_classes, name", [(2, None), (3, "top2"), (5, "top4"), (6, "top5")])
def test_top_k_of_few_classes(num_classes, name):
    task, generator = Classification(num_classes), np.random.default_rng(0)
    logits, batch = normal(num_classes)(generator, ROWS), labels(num_classes)(generator, ROWS)
    batch = to_jax(batch | {"mask": np.ones(ROWS, np.float32)})
    summary = task.summarize(*evaluate(task, jnp.asarray(logits), batch))
    found = [key for key in summary if key.startswith("top")]
    assert found == ([f"{name}_accuracy"] if name else [])
    if name:
        k = int(name[3:])
        best = np.argsort(-logits, axis=1)[:, :k]
        expected = np.mean((best == np.asarray(batch["label"])[:, None]).any(1))
        assert summary[f"{name}_accuracy"] == pytest.approx(expected)


def test_many_classes_have_the_same_table_without_a_matrix():
    """The table of 101 classes is that of the first 100, of which alone there are examples."""
    generator = np.random.default_rng(0)
    logits, label = normal(100)(generator, 300), generator.integers(0, 100, 300).astype(np.int32)
    batch = {"label": jnp.asarray(label), "mask": jnp.ones(300)}
    padded = np.concatenate([logits, np.full((300, 1), -1e9, np.float32)], axis=1)
    few, many = (
        task.summarize(*evaluate(task, jnp.asarray(x), batch))
        for task, x in ((Classification(100), logits), (Classification(101), padded))
    )
    assert "confusion" in few
    assert "confusion" not in many
    for name in ("macro_f1", "balanced_accuracy", "mcc", "cohen_kappa", "ece", "nll"):
        assert many[name] == pytest.approx(few[name], rel=1e-6), name
    assert many["per_class_recall"] == [*few["per_class_recall"], None]
    assert many["per_class_support"] == [*few["per_class_support"], 0]


# ---- calibration


@pytest.mark.parametrize("loss_name", ["cross_entropy", "bce"])
def test_the_temperature_of_validation_calibrates_predictions_and_other_metrics(loss_name):
    task = Classification(K, loss_name=loss_name, calibrated=True)
    generator = np.random.default_rng(0)
    logits = 2 * normal(K)(generator, 4000)
    chance = np.asarray(jax.nn.softmax(logits))
    label = (chance.cumsum(1) > generator.random((4000, 1))).argmax(1).astype(np.int32)
    batch = {"label": jnp.asarray(label), "mask": jnp.ones(4000)}
    sure = jnp.asarray(4 * logits)
    before = task.summarize(*evaluate(task, sure, batch))
    calibrated = task.calibrate(before)
    after = calibrated.summarize(*evaluate(calibrated, sure, batch))
    assert after["temperature"] == before["best_temperature"] > 2
    assert after["nll"] < before["nll"]
    assert after["accuracy"] == before["accuracy"]
    assert after["loss"] == before["loss"]  # the loss of training knows of no temperature
    assert after["best_temperature"] == pytest.approx(before["best_temperature"])
    if loss_name == "cross_entropy":
        exact = calibration.fit_temperature(np.asarray(sure), label)
        assert calibrated.temperature == pytest.approx(exact, rel=0.01)
        assert after["ece"] < 0.02 < 0.2 < before["ece"]
        expected = jax.nn.softmax(sure / calibrated.temperature)
        np.testing.assert_allclose(
            calibrated.predict(sure)["probabilities"], expected, rtol=1e-4, atol=1e-7
        )
    plain = Classification(K)
    assert plain.calibrate(plain.summarize(*evaluate(plain, sure, batch))) is plain


# ---- several labels


def test_multi_label_summary_equals_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(1)
    truth = generator.random((300, K)) < (0.1, 0.3, 0.5, 0.9)
    # rounded, so that many scores are tied
    logits = np.round(2 * truth - 1 + normal(K)(generator, 300), 1).astype(np.float32)
    task = MultiLabel(K, thresholds=(0.5, 0.3, 0.6, 0.5))
    batch = to_jax({"labels": truth.astype(np.float32), "mask": np.ones(300, np.float32)})
    summary = task.summarize(*evaluate(task, jnp.asarray(logits), batch))
    called = sigmoid(logits.astype(np.float64)) >= task.thresholds
    expected = {
        "mAP": metrics.average_precision_score(truth, logits, average="macro"),
        "micro_f1": metrics.f1_score(truth, called, average="micro"),
        "macro_f1": metrics.f1_score(truth, called, average="macro"),
        "macro_recall": metrics.recall_score(truth, called, average="macro"),
        "subset_accuracy": metrics.accuracy_score(truth, called),
        "hamming_loss": metrics.hamming_loss(truth, called),
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    for name, score in (("f1", metrics.f1_score), ("precision", metrics.precision_score)):
        np.testing.assert_allclose(summary[f"per_class_{name}"], score(truth, called, average=None))
    calibrated = task.calibrate(summary)
    predicted = jax.device_get(calibrated.predict(jnp.asarray(logits)))["labels"]
    best = metrics.f1_score(truth, predicted, average="macro")
    assert best == pytest.approx(summary["best_macro_f1"])
    assert best > summary["macro_f1"]


def test_what_is_not_known_counts_nowhere():
    """As if the answers were not there: each class scored on the rows where it is known."""
    task = MultiLabel(K)
    outputs, batch = rows_of(TRIALS[1])
    summary = task.summarize(*evaluate(task, outputs, batch))
    known, wrong = np.asarray(batch["labels_mask"]) > 0, 1 - np.asarray(batch["labels"])
    for value in (wrong, np.nan):  # other answers there change nothing
        other = batch | {"labels": jnp.where(known, batch["labels"], value)}
        again = task.summarize(*evaluate(task, outputs, other))
        assert again == summary
        gradient = jax.grad(lambda o, b=other: jnp.sum(task.loss(o, b)))(outputs)
        assert bool(jnp.isfinite(gradient).all())
        assert bool((jnp.asarray(gradient)[~known] == 0).all())
    rows = sum(int(known[:, k].sum()) for k in range(K))
    hits = np.asarray(batch["labels"])[known] == (np.asarray(outputs)[known] > 0)
    assert summary["hamming_loss"] == pytest.approx(1 - hits.sum() / rows)
    metrics = pytest.importorskip("sklearn.metrics")
    for k in range(K):
        expected = metrics.average_precision_score(
            np.asarray(batch["labels"])[known[:, k], k], np.asarray(outputs)[known[:, k], k]
        )
        assert summary["per_class_ap"][k] == pytest.approx(expected)


def test_a_class_without_examples_has_no_ap_and_keeps_its_threshold():
    task = MultiLabel(2, thresholds=(0.5, 0.7))
    batch = {"labels": jnp.asarray([[1.0, 0], [0, 0]]), "mask": jnp.ones(2)}
    summary = task.summarize(*evaluate(task, jnp.asarray([[2.0, -1], [1, -2]]), batch))
    assert summary["per_class_ap"] == [1.0, None]
    assert summary["mAP"] == 1
    assert summary["best_thresholds"][1] == 0.7


def test_all_labels_above_their_thresholds_are_told():
    task = MultiLabel(3, thresholds=(0.9, 0.2, 0.5))
    predicted = jax.device_get(task.predict(jnp.asarray([[2.0, -1.0, 3.0], [0.0, -5.0, -5.0]])))
    rows = [{name: x[i] for name, x in predicted.items()} for i in range(2)]
    told = [task.describe(row, names=("cat", "dog"))["labels"] for row in rows]
    assert [[one["name"] for one in row] for row in told] == [["2", "dog"], []]
    assert told[0][1] == {"label": 1, "name": "dog", "probability": pytest.approx(sigmoid(-1))}


def test_labels_and_numbers_as_sentences_and_tables():
    label = {"label": 3, "name": "cat", "probability": 0.75}
    assert sentence({"labels": [label]}) == "cat 75.0%"
    assert sentence({"labels": []}) == "no label"
    assert sentence({"values": [{"name": "age", "value": 41.25}]}) == "age 41.25"
    head = ("image", "label", "name", "probability")
    assert csv_lines({"labels": [label, label]}, "a.png")[0] == head
    assert csv_lines({"labels": [label]}, "a.png")[1] == [("a.png", 3, "cat", 0.75)]
    assert csv_lines({"labels": []}, "a.png")[1] == []
    assert csv_lines({"values": [{"name": "age", "value": 41.25}]}, 7) == (
        ("image", "name", "value"),
        [(7, "age", 41.25)],
    )
    numbers = as_json({"value_map": np.arange(8, dtype=np.float32).reshape(2, 2, 2)})
    assert numbers["value_map"] == {"least": [0, 1], "mean": [3, 4], "most": [6, 7]}


def test_the_table_of_classes_that_evaluate_prints():
    metrics = {"accuracy": 1.0, "per_class_recall": [0.5, None], "per_class_support": [4, 0]}
    for names, shown in (
        (("cat", "dog"), ("cat", "dog")),
        ((), ("0", "1")),
        (("cat",), ("background", "cat")),  # of a segmentation
    ):
        lines = [line.split() for line in class_table(metrics, names)]
        assert lines[0] == ["class", "recall", "support"]
        assert lines[1:] == [[shown[0], "0.5000", "4"], [shown[1], "-", "0"]]
    assert class_table({"accuracy": 1.0}, ()) == []


# ---- what is refused


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Classification(3, loss_name="focall"), "loss_name is 'focall'.*did you mean"),
        (lambda: Classification(3, class_weights=(1.0, 2.0)), "2 numbers; give a tuple of 3"),
        (lambda: Classification(3, class_weights=(1.0, -2.0, 1.0)), "at least 0"),
        (lambda: Classification(3, temperature=0.0), "temperature is 0.0; it must be above 0"),
        (lambda: Classification(3, focus=-1.0), "focus is -1.0"),
        (lambda: Classification(3, rubbish_penalty=1.0, loss_name="bce"), "rubbish_penalty"),
        (lambda: Classification(3, rubbish_penalty=1.0, calibrated=True), "rubbish_penalty"),
        (lambda: MultiLabel(0), "num_classes is 0"),
        (lambda: MultiLabel(3, loss_name="cross_entropy"), "one of bce, focal, asymmetric"),
        (lambda: MultiLabel(3, thresholds=(0.5,)), "1 thresholds for 3 classes"),
        (lambda: MultiLabel(3, class_weights=(0.0, 0.0, 0.0)), "not all 0"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


HAS = np.zeros((4, 3), np.float32)


@pytest.mark.parametrize(
    "batch, says",
    [
        ({"label": np.zeros(4, np.int32)}, "needs 'labels' but the examples have"),
        ({"labels": HAS[:, :2]}, r"shape \(4, 2\); expected a number for each of the 3"),
        ({"labels": HAS.astype(np.int64)}, "dtype int64; it must be float32"),
        ({"labels": HAS + 2}, r"values in \[2, 2\]"),
        ({"labels": HAS, "labels_mask": HAS}, "0 everywhere"),
        ({"labels": HAS, "labels_mask": HAS[:, :1] + 1}, "must be that of labels"),
        ({"labels": HAS, "weight": np.array([1, 1, -1, 1], np.float32)}, "'weight' has values"),
        ({"labels": HAS, "image": 255 * np.ones((4, 2, 2, 1), np.float32)}, "unscaled"),
    ],
)
def test_bad_data_is_refused(batch, says):
    with pytest.raises(DataError, match=says):
        MultiLabel(3).check(batch)


def test_a_model_of_another_number_of_classes_is_refused():
    with pytest.raises(ConfigError, match=r"the model gives \[4, 2\]"):
        MultiLabel(3).loss(jnp.zeros((4, 2)), {"labels": jnp.asarray(HAS)})
