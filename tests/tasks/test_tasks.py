"""Trials that every task must pass (one table, shared tests), and each task's numbers against
scikit-learn and PyTorch.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.inspect.drawing import draw
from jaxcnn.runs.answers import as_json, sentence
from jaxcnn.tasks.binary import BinaryClassification
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.multi_label import MultiLabel
from tests.tasks import (
    test_captioning,
    test_detection,
    test_keypoints,
    test_labels,
    test_regression,
    test_segmentation,
    test_style,
    test_super_resolution,
    test_text,
)
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

DESCRIBED = {
    *(
        "label",
        "name",
        "probability",
        "top",
        "objects",
        "segmentation",
        "segment_names",
        "points",
        "edges",
        "text",
        "image",
        "labels",
        "values",
        "value_map",
    ),
}


def mixed_labels(generator, rows):
    first = labels(4)(generator, rows)
    return first | {
        "label_b": labels(4)(generator, rows)["label"],
        "label_weight": generator.random(rows).astype(np.float32),
    }


TRIALS = [
    Trial(
        "classification",
        Classification(num_classes=4),
        labels(4),
        normal(4),
        one_hot(4),
        {"accuracy": 1, "per_class_recall": [1.0] * 4, "macro_f1": 1, "mcc": 1, "ece": 0},
    ),
    Trial(
        "classification top 5",
        Classification(num_classes=8, label_smoothing=0.1),
        labels(8),
        normal(8),
        one_hot(8),
        {"accuracy": 1, "top5_accuracy": 1},
    ),
    Trial(
        "classification rubbish",
        Classification(num_classes=3, rubbish_penalty=1.0),
        labels(3),
        normal(3),
        one_hot(3),
        {"accuracy": 1},
    ),
    Trial(
        "classification mixed",
        Classification(num_classes=4),
        mixed_labels,
        normal(4),
        one_hot(4),
        {"accuracy": 1},
    ),
    Trial(
        "classification many",
        Classification(num_classes=101),
        labels(101),
        normal(101),
        one_hot(101),
        {"accuracy": 1},
    ),
    Trial(
        "classification auxiliary",
        Classification(num_classes=4),
        labels(4),
        lambda generator, rows: (normal(4)(generator, rows), normal(4)(generator, rows)),
        lambda batch: (one_hot(4)(batch), one_hot(4)(batch)),
        {"accuracy": 1, "loss": 0},
    ),
    Trial(
        "binary",
        BinaryClassification(positive_weight=3.0),
        labels(2),
        normal(1),
        lambda batch: 80.0 * batch["label"][:, None].astype(np.float32) - 40,
        {
            "auroc": 1,
            "average_precision": 1,
            "accuracy": 1,
            "precision": 1,
            "recall": 1,
            "f1": 1,
            "best_f1": 1,
        },
    ),
    Trial(
        "binary of many",
        BinaryClassification(positive=(3, 5)),
        labels(6),
        normal(),
        lambda batch: 80.0 * np.isin(batch["label"], (3, 5)).astype(np.float32) - 40,
        {"auroc": 1, "average_precision": 1, "accuracy": 1, "f1": 1},
    ),
]
OTHERS = (
    *(test_captioning, test_detection, test_keypoints, test_labels, test_regression),
    *(test_segmentation, test_style),
    *(test_super_resolution, test_text),
)
TRIALS += [trial for module in OTHERS for trial in module.TRIALS]
one_of_each = list({type(trial.task): trial for trial in reversed(TRIALS)}.values())
# the first of each kind of task in every run of the tests, the others with the slow ones
each_kind = pytest.mark.parametrize(
    "trial",
    [
        pytest.param(
            trial,
            marks=() if any(trial is one for one in one_of_each) else pytest.mark.slow,
            id=trial.name.replace(" ", "-"),
        )
        for trial in TRIALS
    ],
)
every_task = pytest.mark.parametrize(
    "trial", TRIALS, ids=[trial.name.replace(" ", "-") for trial in TRIALS]
)


@every_task
def test_a_perfect_prediction_scores_best(trial):
    generator = np.random.default_rng(1)
    batch = trial.batch(generator, ROWS) | {"mask": np.ones(ROWS, np.float32)}
    summary = trial.task.summarize(
        *evaluate(trial.task, to_jax(trial.perfect(batch)), to_jax(batch))
    )
    assert trial.task.metric in summary
    for name, value in trial.best.items():
        assert summary[name] == pytest.approx(value, abs=1e-6), name
    worse, batch = rows_of(trial)
    gain = (
        summary[trial.task.metric]
        - trial.task.summarize(*evaluate(trial.task, worse, batch))[trial.task.metric]
    )
    assert gain > 0 if trial.task.larger_is_better else gain < 0


@pytest.mark.parametrize("trial", one_of_each, ids=[type(t.task).__name__ for t in one_of_each])
def test_the_loss_is_the_mean_weighted_by_row(trial):
    outputs, batch = rows_of(trial)
    weight = np.random.default_rng(2).random(ROWS).astype(np.float32)
    weight[3] = 0
    rows = np.asarray(jax.jit(trial.task.loss)(outputs, batch))
    weighted = batch | {"weight": jnp.asarray(weight)}
    summary = trial.task.summarize(*evaluate(trial.task, outputs, weighted))
    assert summary["loss"] == pytest.approx(np.average(rows, weights=weight), rel=1e-4)


@each_kind
@pytest.mark.parametrize(
    "filler",
    [
        pytest.param(0.0, marks=pytest.mark.slow, id="zeros"),
        pytest.param(1e30, marks=pytest.mark.slow, id="huge"),
        pytest.param(np.nan, id="nan"),
    ],
)
def test_padded_rows_change_nothing(trial, filler):
    outputs, batch = rows_of(trial)

    def pad(array):
        value = filler if jnp.issubdtype(array.dtype, jnp.floating) else 0
        return np.concatenate([array, np.full((3, *array.shape[1:]), value, array.dtype)])

    padded = {name: pad(value) for name, value in batch.items()} | {
        "mask": np.pad(batch["mask"], (0, 3))
    }
    plain, filled = (
        evaluate(trial.task, outputs, batch),
        evaluate(trial.task, jax.tree.map(pad, outputs), padded),
    )
    assert_close(plain, filled)


@each_kind
def test_sums_of_parts_are_the_sum_of_the_whole(trial):
    outputs, batch = rows_of(trial)
    parts = []
    for chosen in (slice(0, 5), slice(5, ROWS)):
        part = jax.tree.map(lambda array, chosen=chosen: array[chosen], (outputs, batch))
        parts.append(evaluate(trial.task, *part))
    sums = jax.tree.map(lambda a, b: a + b, parts[0][0], parts[1][0])
    records = {name: np.concatenate([parts[0][1][name], parts[1][1][name]]) for name in parts[0][1]}
    whole_sums, whole_records = evaluate(trial.task, outputs, batch)
    assert_close(sums, whole_sums)
    assert_close(records, whole_records)
    for name, value in whole_sums.items():  # counters are exact
        if np.issubdtype(value.dtype, np.integer):
            np.testing.assert_array_equal(sums[name], value)
            assert value.dtype == np.int32


# ten seconds each
COMPILED_LONG = {
    "instance segmentation",
    "dense detection",
    "text detection",
    "text detection as published",
}


@pytest.mark.parametrize(
    "trial",
    [
        pytest.param(
            trial,
            marks=pytest.mark.slow
            if trial.name in COMPILED_LONG or not any(trial is one for one in one_of_each)
            else (),
            id=trial.name.replace(" ", "-"),
        )
        for trial in TRIALS
    ],
)
@pytest.mark.parametrize("method", ["loss", "statistics", "records", "predict"])
def test_vmap_equals_a_loop(trial, method):
    function = jax.jit(getattr(trial.task, method))
    arguments = [rows_of(trial, seed=seed) for seed in range(3)]
    if method == "predict":
        arguments = [argument[:1] for argument in arguments]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *arguments)
    loop = [function(*argument) for argument in arguments]
    assert_close(
        jax.vmap(function)(*stacked), jax.tree.map(lambda *leaves: np.stack(leaves), *loop)
    )


@each_kind
def test_loss_is_float32_per_row_with_a_finite_gradient_in_bfloat16(trial):
    outputs, batch = rows_of(trial)
    outputs = jax.tree.map(
        lambda array: (
            array.astype(jnp.bfloat16) if jnp.issubdtype(array.dtype, jnp.floating) else array
        ),
        outputs,
    )

    def total(outputs):
        loss = trial.task.loss(outputs, batch)
        return jnp.sum(loss), loss

    gradient, loss = jax.jit(jax.grad(total, has_aux=True, allow_int=True))(outputs)
    assert (loss.shape, loss.dtype) == ((ROWS,), jnp.float32)
    gradient = jax.tree.leaves(gradient)
    # those of integers, such as decoded words
    gradient = [leaf for leaf in gradient if leaf.dtype != jax.dtypes.float0]
    gradient = [np.asarray(leaf, np.float32) for leaf in gradient]
    assert all(np.isfinite(leaf).all() and (leaf != 0).any() for leaf in gradient)


@every_task
def test_what_is_predicted_can_be_told_and_drawn(trial):
    outputs, _ = rows_of(trial)
    predicted = jax.device_get(jax.jit(trial.task.predict)(outputs))
    names = tuple("abcdefgh")
    for i in range(2):
        row = {name: value[i] for name, value in predicted.items()}
        for known in (names, ()):
            described = trial.task.describe(row, names=known)
            assert described
            assert set(described) <= DESCRIBED, "the entries of jaxcnn.tasks.task"
            json.dumps(
                as_json({name: value for name, value in described.items() if name != "image"})
            )
            assert (
                sentence(
                    as_json({name: value for name, value in described.items() if name != "image"})
                )
                or "image" in described
            )
            draw(np.zeros((20, 30, 1), np.uint8), described)


@every_task
def test_an_ensemble_of_equals_is_the_model_itself(trial):
    outputs, batch = rows_of(trial)
    together = jax.jit(lambda outputs: trial.task.ensemble([outputs, outputs]))(outputs)
    metric = trial.task.metric
    ours, alone = (
        trial.task.summarize(*evaluate(trial.task, o, batch))[metric] for o in (together, outputs)
    )
    assert ours == pytest.approx(alone, rel=1e-4, abs=1e-5)


@every_task
def test_tasks_are_values(trial):
    assert trial.task == dataclasses.replace(trial.task)
    assert hash(trial.task) == hash(dataclasses.replace(trial.task))


@every_task
def test_float_fields_may_be_traced(trial):
    outputs, batch = rows_of(trial)
    names = [
        field.name
        for field in dataclasses.fields(trial.task)
        if isinstance(getattr(trial.task, field.name), float)
    ]
    values = {name: jnp.float32(getattr(trial.task, name)) for name in names}
    loss = jax.jit(lambda values: dataclasses.replace(trial.task, **values).loss(outputs, batch))(
        values
    )
    assert_close(loss, jax.jit(trial.task.loss)(outputs, batch))


# ---- multi-class classification


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_equals_torch(smoothing):
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    logits, label = 5 * normal(7)(generator, ROWS), labels(7)(generator, ROWS)["label"]
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits),
        torch.tensor(label).long(),
        label_smoothing=smoothing,
        reduction="none",
    ).numpy()
    ours = Classification(num_classes=7, label_smoothing=smoothing).loss(
        jnp.asarray(logits), {"label": jnp.asarray(label)}
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_mixed_labels_equal_torch_with_soft_targets():
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    logits, batch = normal(4)(generator, ROWS), mixed_labels(generator, ROWS)
    weight = batch["label_weight"][:, None]
    target = weight * np.eye(4)[batch["label"]] + (1 - weight) * np.eye(4)[batch["label_b"]]
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(target.astype(np.float32)), reduction="none"
    )
    ours = Classification(num_classes=4).loss(jnp.asarray(logits), to_jax(batch))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_rubbish_class_is_equation_9_of_lecun_1998():
    generator = np.random.default_rng(0)
    penalties, label = 10 * generator.random((ROWS, 10)), labels(10)(generator, ROWS)["label"]
    j = 2.5
    expected = penalties[np.arange(ROWS), label] + np.log(
        np.exp(-j) + np.exp(-penalties).sum(axis=1)
    )
    task = Classification(num_classes=10, rubbish_penalty=j)
    ours = task.loss(jnp.asarray(-penalties, jnp.float32), {"label": jnp.asarray(label)})
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    reject = 1 - task.predict(jnp.asarray(-penalties, jnp.float32))["probabilities"].sum(axis=-1)
    np.testing.assert_allclose(
        reject, np.exp(-j) / (np.exp(-j) + np.exp(-penalties).sum(axis=1)), rtol=1e-3, atol=1e-6
    )


def test_auxiliary_classifiers_add_their_weighted_loss():
    generator = np.random.default_rng(0)
    main, second, third = (jnp.asarray(normal(4)(generator, ROWS)) for _ in range(3))
    batch, task = (
        to_jax(labels(4)(generator, ROWS)),
        Classification(num_classes=4, auxiliary_weight=0.3),
    )
    expected = task.loss(main, batch) + 0.3 * (task.loss(second, batch) + task.loss(third, batch))
    np.testing.assert_allclose(task.loss((main, second, third), batch), expected, rtol=1e-6)
    np.testing.assert_array_equal(task.predict((main, second))["label"], jnp.argmax(main, axis=-1))


def test_classification_summary_equals_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    task, generator = Classification(num_classes=9), np.random.default_rng(3)
    logits, label = normal(9)(generator, 300), labels(9)(generator, 300)["label"]
    summary = task.summarize(
        *evaluate(
            task, jnp.asarray(logits), to_jax({"label": label, "mask": np.ones(300, np.float32)})
        )
    )
    predicted = logits.argmax(axis=-1)
    assert summary["accuracy"] == metrics.accuracy_score(label, predicted)
    assert summary["top5_accuracy"] == metrics.top_k_accuracy_score(label, logits, k=5)
    assert summary["confusion"] == metrics.confusion_matrix(label, predicted).tolist()
    np.testing.assert_allclose(
        summary["per_class_recall"], metrics.recall_score(label, predicted, average=None)
    )
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert summary["loss"] == pytest.approx(metrics.log_loss(label, probabilities), rel=1e-5)
    assert summary["nll"] == pytest.approx(summary["loss"], rel=1e-6)
    assert summary["macro_f1"] == pytest.approx(metrics.f1_score(label, predicted, average="macro"))
    assert summary["mcc"] == pytest.approx(metrics.matthews_corrcoef(label, predicted))


def test_predict_lists_the_likeliest_classes():
    task, logits = (
        Classification(num_classes=8, top=3),
        jnp.asarray(normal(8)(np.random.default_rng(0), ROWS)),
    )
    predicted = jax.device_get(task.predict(logits))
    np.testing.assert_allclose(predicted["probabilities"], jax.nn.softmax(logits), rtol=1e-5)
    np.testing.assert_array_equal(
        predicted["top_labels"], np.argsort(-np.asarray(logits), axis=-1)[:, :3]
    )
    np.testing.assert_array_equal(predicted["top_labels"][:, 0], predicted["label"])
    np.testing.assert_array_equal(predicted["probability"], predicted["probabilities"].max(axis=-1))
    assert {name: value.dtype.name for name, value in predicted.items() if "label" in name} == {
        "label": "int32",
        "top_labels": "int32",
    }


@pytest.mark.parametrize("loss_name", ["cross_entropy", "bce"])
def test_classes_are_told_in_the_order_of_their_logits_where_probabilities_are_tied(loss_name):
    """Sigmoids of 20 and 30 are 1 in float32, exp(-200) and exp(-150) are 0; the metrics know."""
    task = Classification(num_classes=4, top=3, loss_name=loss_name)
    logits = np.array([[20, 30, -5, 25], [0, -300, -150, -200], [-9, 40, 40, 50]], np.float32)
    order = np.argsort(-logits, axis=-1, kind="stable")
    predicted = jax.device_get(task.predict(jnp.asarray(logits)))
    np.testing.assert_array_equal(predicted["top_labels"], order[:, :3])
    np.testing.assert_array_equal(predicted["label"], order[:, 0])
    batch = {"label": jnp.asarray(order[:, 0]), "mask": jnp.ones(3)}
    assert task.summarize(*evaluate(task, jnp.asarray(logits), batch))["accuracy"] == 1
    for i, row in enumerate(order.tolist()):
        told = task.describe({name: x[i] for name, x in predicted.items()}, names=())
        assert told["label"] == row[0]
        assert [one["label"] for one in told["top"]] == row


def test_a_class_without_examples_has_no_accuracy_and_many_classes_no_matrix():
    task = Classification(num_classes=3)
    batch = {"label": jnp.asarray([0, 0, 2]), "mask": jnp.ones(3)}
    assert task.summarize(*evaluate(task, jnp.eye(3), batch))["per_class_recall"] == [
        0.5,
        None,
        1.0,
    ]
    assert "confusion" not in Classification(num_classes=101).statistics(jnp.zeros((3, 101)), batch)


# ---- binary classification


@pytest.mark.parametrize("weight", [1.0, 0.2, 9.0])
def test_binary_loss_equals_torch(weight):
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    logits, label = 20 * normal(1)(generator, 40), labels(2)(generator, 40)["label"]
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits[:, 0]),
        torch.tensor(label).float(),
        pos_weight=torch.tensor(weight),
        reduction="none",
    )
    ours = BinaryClassification(positive_weight=weight).loss(
        jnp.asarray(logits), {"label": jnp.asarray(label)}
    )
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_mixed_rows_of_yes_or_no_cost_the_shares_of_both_answers():
    generator = np.random.default_rng(0)
    task = BinaryClassification(positive=(1, 3), positive_weight=2.0)
    logits, batch = normal(1)(generator, 40), mixed_labels(generator, 40)
    probability = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))
    expected = np.zeros(40)
    for name, share in (("label", batch["label_weight"]), ("label_b", 1 - batch["label_weight"])):
        truth = np.isin(batch[name], (1, 3))
        each = np.where(truth, -2 * np.log(probability), -np.log(1 - probability))
        expected += share.astype(np.float64) * each
    np.testing.assert_allclose(
        task.loss(jnp.asarray(logits), to_jax(batch)), expected, rtol=1e-5, atol=1e-6
    )


def test_binary_summary_equals_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    task, generator = BinaryClassification(positive=(1, 4), threshold=0.4), np.random.default_rng(3)
    label = labels(6)(generator, 400)["label"]
    truth = np.isin(label, (1, 4))
    # rounded, so that many scores are tied
    logits = np.round(truth + normal()(generator, 400), 1).astype(np.float32)
    summary = task.summarize(
        *evaluate(
            task, jnp.asarray(logits), to_jax({"label": label, "mask": np.ones(400, np.float32)})
        )
    )
    called = 1 / (1 + np.exp(-logits.astype(np.float64))) >= 0.4
    expected = {
        "auroc": metrics.roc_auc_score(truth, logits),
        "average_precision": metrics.average_precision_score(truth, logits),
        "accuracy": metrics.accuracy_score(truth, called),
        "precision": metrics.precision_score(truth, called),
        "recall": metrics.recall_score(truth, called),
        "f1": metrics.f1_score(truth, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, called),
        "specificity": metrics.recall_score(~truth, ~called),
        "mcc": metrics.matthews_corrcoef(truth, called),
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    calibrated = task.calibrate(summary)
    predicted = jax.device_get(calibrated.predict(jnp.asarray(logits)))
    assert metrics.f1_score(truth, predicted["label"]) == pytest.approx(summary["best_f1"])
    assert summary["best_f1"] > summary["f1"]


def test_ranking_survives_logits_whose_float32_probabilities_are_all_one():
    task, batch = BinaryClassification(), {"label": jnp.asarray([0, 0, 1, 1]), "mask": jnp.ones(4)}
    assert (
        task.summarize(*evaluate(task, jnp.asarray([20.0, 25.0, 30.0, 35.0]), batch))["auroc"]
        == 1.0
    )


@pytest.mark.parametrize("low", [-40.0, -1.0, 10.0, 20.0])
def test_a_threshold_among_sure_answers_calls_what_it_was_chosen_to_call(low):
    """Of logits above 17 the probability in float32 is 1; that of the threshold would be, too."""
    logits = low + np.arange(0.0, 12.0, 3.0).astype(np.float32)
    label = np.array([0, 0, 1, 1], np.int32)
    binary, several = BinaryClassification(), MultiLabel(2)
    batch = {"label": jnp.asarray(label), "mask": jnp.ones(4)}
    chosen = binary.calibrate(binary.summarize(*evaluate(binary, jnp.asarray(logits), batch)))
    np.testing.assert_array_equal(chosen.predict(jnp.asarray(logits))["label"], label)
    both = jnp.asarray(np.stack([logits, -logits], axis=1))
    batch = {"labels": jnp.asarray(np.stack([label, 1 - label], 1), jnp.float32)}
    batch["mask"] = jnp.ones(4)
    chosen = several.calibrate(several.summarize(*evaluate(several, both, batch)))
    np.testing.assert_array_equal(chosen.predict(both)["labels"], batch["labels"])


# ---- checks: what a wrong value, dtype or shape says


@pytest.mark.parametrize("trial", one_of_each, ids=[type(t.task).__name__ for t in one_of_each])
@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_weights_that_weigh_nothing_are_refused_by_every_task(trial, wrong):
    batch = trial.batch(np.random.default_rng(0), ROWS)
    weight = np.ones(ROWS, np.float32)
    trial.task.check(batch | {"weight": weight})
    weight[3] = wrong
    with pytest.raises(DataError, match=f"'weight' has values .*{wrong:g}"):
        trial.task.check(batch | {"weight": weight})


IMAGE = np.zeros((4, 2, 2, 1), np.uint8)
NAN = np.where(np.arange(16).reshape(4, 2, 2, 1) == 9, np.nan, 0.5).astype(np.float32)


@pytest.mark.parametrize(
    "task, batch, says",
    [
        (
            Classification(3),
            {"label": np.array([0, 1, 3, 5])},
            r"label\[2\] is 3; labels must lie in \[0, 3\).* 2 of 4",
        ),
        (Classification(3), {"label": np.array([0, -1])}, r"label\[1\] is -1"),
        (Classification(3), {"label": np.array([0.0, 1.0])}, "dtype float64; expected integers"),
        (Classification(3), {"label": np.eye(3, dtype=np.int32)}, r"shape \(3, 3\).*one-hot"),
        (
            Classification(3),
            {"label": np.zeros(4, np.int32), "image": 255 * np.ones((4, 2, 2, 1), np.float32)},
            "unscaled.* 255;.*Divide by 255",
        ),
        (
            Classification(3),
            {"label": np.zeros(4, np.int32), "image": -2.1 * np.ones((4, 2, 2, 1), np.float32)},
            "unscaled.* -2.1",
        ),
        (
            Classification(3),
            {"label": np.zeros(4, np.int32), "image": NAN},
            r"image\[2, 0, 1, 0\] is nan",
        ),
        (
            Classification(3),
            {"label": np.zeros(4, np.int32), "image": IMAGE.astype(np.int64)},
            "dtype int64; expected uint8",
        ),
        (
            BinaryClassification(),
            {"label": np.array([0, 1, 2])},
            r"label\[2\] is 2.*say which labels are positive",
        ),
        (BinaryClassification(positive=(2,)), {"label": np.array([0, -2])}, r"label\[1\] is -2"),
    ],
)
def test_bad_data_is_refused(task, batch, says):
    with pytest.raises(DataError, match=says):
        task.check(batch)


@pytest.mark.parametrize(
    "image",
    [IMAGE + 255, IMAGE.astype(np.float32) + 1, (IMAGE + 1).astype(jnp.bfloat16)],
    ids=lambda image: image.dtype.name,
)
def test_good_data_pass(image):
    Classification(3).check({"label": np.array([0, 1, 2, 2], np.uint8), "image": image})
    BinaryClassification(positive=(7,)).check({"label": np.array([0, 7, 2, 2]), "image": image})


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: Classification(1), "num_classes is 1"),
        (lambda: Classification(3, label_smoothing=1.0), "label_smoothing is 1.0"),
        (lambda: Classification(3, top=0), "top is 0"),
        (lambda: BinaryClassification(positive=()), "positive is"),
        (lambda: BinaryClassification(positive=3), "tuple of labels"),  # pyright: ignore[reportArgumentType]
        (lambda: BinaryClassification(positive_weight=0.0), "positive_weight is 0.0"),
    ],
)
def test_bad_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
