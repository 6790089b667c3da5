"""Calibration against netcal, scikit-learn, a loop and a dense grid; tables of classes against
scikit-learn.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import DataError
from jaxcnn.metrics import calibration, classes


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sure_and_wrong(size=400, num_classes=5, *, factor=3.0, seed=0):
    """Logits of a model that is `factor` times too sure: labels are drawn from softmax(logits /
    factor).
    """
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(size, num_classes)) * 2
    chance = softmax(logits)
    label = (chance.cumsum(1) > generator.random((size, 1))).argmax(1)
    return logits * factor, label


def loop_ece(confidence, right):
    """Section 2 of Guo et al., word by word."""
    total, size = 0.0, len(confidence)
    for i in range(15):
        inside = [j for j in range(size) if i / 15 < confidence[j] <= (i + 1) / 15]
        if inside:
            gap = np.mean([right[j] for j in inside]) - np.mean([confidence[j] for j in inside])
            total += len(inside) / size * abs(gap)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_ece_equals_a_loop_on_the_host_and_on_the_device(seed):
    logits, label = sure_and_wrong(seed=seed)
    probabilities = softmax(logits)
    # of many classes the surest may have little
    confidence = np.append(probabilities.max(1), (0.01, 0.06, 0.07))
    right = np.append(probabilities.argmax(1) == label, (False, True, False))
    expected = loop_ece(confidence, right)
    ours = calibration.expected_calibration_error(calibration.reliability(confidence, right))
    assert ours == pytest.approx(expected, abs=1e-12)
    parts = [slice(0, 150), slice(150, None)]  # sums add; what is not real may be anything
    sums = [
        calibration.reliability_sums(
            jnp.asarray(np.append(confidence[part], np.nan), jnp.float32),
            jnp.asarray(np.append(right[part], True)),
            jnp.arange(len(confidence[part]) + 1) < len(confidence[part]),
        )
        for part in parts
    ]
    added = {name: np.asarray(sums[0][name]) + np.asarray(sums[1][name]) for name in sums[0]}
    inside = [(i / 15 < confidence) & (confidence <= (i + 1) / 15) for i in range(15)]
    assert added["bin_count"].tolist() == [int(mask.sum()) for mask in inside]
    assert added["bin_right"].tolist() == [int(right[mask].sum()) for mask in inside]
    assert calibration.expected_calibration_error(added) == pytest.approx(expected, abs=1e-6)


def test_ece_equals_netcal():
    metrics = pytest.importorskip("netcal.metrics")
    logits, label = sure_and_wrong(size=2000)
    probabilities = softmax(logits)
    theirs = metrics.ECE(bins=15).measure(probabilities, label)
    bins = calibration.reliability(probabilities.max(1), probabilities.argmax(1) == label)
    assert calibration.expected_calibration_error(bins) == pytest.approx(theirs, abs=1e-6)
    positive = probabilities[:, 0]
    theirs = metrics.ECE(bins=15).measure(positive, (label == 0).astype(int))
    bins = calibration.reliability(positive, label == 0)
    assert calibration.expected_calibration_error(bins) == pytest.approx(theirs, abs=1e-6)


def test_reliability_table_is_scikit_learns_calibration_curve():
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    logits, label = sure_and_wrong()
    probability, truth = softmax(logits)[:, 0], label == 0
    rows = calibration.reliability_table(calibration.reliability(probability, truth))
    accuracy, confidence = curve(truth, probability, n_bins=15)
    full = [row for row in rows if row["count"]]
    np.testing.assert_allclose([row["accuracy"] for row in full], accuracy)
    np.testing.assert_allclose([row["confidence"] for row in full], confidence)
    assert sum(row["count"] for row in rows) == len(label)


def test_no_examples_have_no_error_and_logits_are_refused():
    empty = calibration.reliability(np.zeros(0), np.zeros(0, bool))
    assert np.isnan(calibration.expected_calibration_error(empty))
    with pytest.raises(DataError, match=r"confidence\[1\] is 3.0.* 1 of 2"):
        calibration.reliability(np.array([0.5, 3.0]), np.array([True, False]))


def nll(logits, label, temperature):
    scaled = logits / temperature
    return np.mean(
        np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1))
        + scaled.max(1)
        - scaled[np.arange(len(label)), label]
    )


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_the_temperature_is_the_best_of_a_dense_grid_and_undoes_what_was_done(factor):
    logits, label = sure_and_wrong(size=3000, factor=factor)
    grid = np.geomspace(0.05, 20, 4001)
    best = grid[np.argmin([nll(logits, label, t) for t in grid])]
    assert calibration.fit_temperature(logits, label) == pytest.approx(best, rel=2e-3)
    assert best == pytest.approx(factor, rel=0.08)
    sums = np.array([nll(logits, label, t) * len(label) for t in calibration.TEMPERATURES])
    assert calibration.best_temperature(sums) == pytest.approx(best, rel=0.01)


def test_temperatures_without_a_best_one_are_an_end_of_the_range():
    logits, label = 5 * np.eye(3), np.arange(3)
    assert calibration.fit_temperature(logits, label) == pytest.approx(1e-3, rel=1e-3)
    assert calibration.fit_temperature(-logits, label) == pytest.approx(1e3, rel=1e-3)
    assert calibration.best_temperature(np.arange(64.0)) == calibration.TEMPERATURES[0]
    with pytest.raises(DataError, match="expected"):
        calibration.fit_temperature(logits, label[:2])
    with pytest.raises(DataError, match="NaN"):
        calibration.fit_temperature(logits * np.nan, label)
    for other, says in (
        (-1, r"label\[1\] is -1 .* labels lie in 0\.\."),
        (99, "is 99"),
        (0.5, "dtype"),
    ):
        wrong = np.where(np.arange(len(label)) == 1, other, label)
        with pytest.raises(DataError, match=says):
            calibration.fit_temperature(logits, wrong)


@pytest.mark.parametrize("right", [[1, -1], [1.0, np.nan], [1, 2], [1]])
def test_rows_that_are_neither_right_nor_wrong_are_refused(right):
    with pytest.raises(DataError, match="right is bool, or 0 and 1, for each confidence"):
        calibration.reliability(np.array([0.5, 0.75]), np.array(right))


# ---- tables of classes


def counts_of(label, called, num_classes):
    hits = np.bincount(label[label == called], minlength=num_classes)
    return hits, *(np.bincount(x, minlength=num_classes) for x in (called, label))


@pytest.mark.parametrize("seed", range(3))
def test_classes_equal_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 6, 200)
    called = np.where(generator.random(200) < 0.5, label, generator.integers(0, 6, 200))
    called[called == 4] = 2  # one class is never called
    counts = counts_of(label, called, 6)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        label, called, zero_division=0
    )
    table = classes.per_class(*counts)
    assert table["per_class_precision"][4] is None
    given = [p or 0.0 for p in table["per_class_precision"]]
    np.testing.assert_allclose(given, precision)
    np.testing.assert_allclose(table["per_class_recall"], recall)
    np.testing.assert_allclose(table["per_class_f1"], f1)
    assert table["per_class_support"] == support.tolist()
    ours = {**classes.averages(*counts), **classes.agreement(*counts)}
    assert ours == pytest.approx(
        {
            "macro_precision": precision.mean(),
            "macro_recall": recall.mean(),
            "macro_f1": f1.mean(),
            "balanced_accuracy": metrics.balanced_accuracy_score(label, called),
            "cohen_kappa": metrics.cohen_kappa_score(label, called),
            "mcc": metrics.matthews_corrcoef(label, called),
        },
        abs=1e-12,
    )


def test_classes_that_do_not_occur_are_left_out_of_the_averages():
    label, called = np.array([0, 0, 3]), np.array([0, 1, 3])
    table = classes.per_class(*counts_of(label, called, 5))
    assert table["per_class_recall"] == [0.5, None, None, 1.0, None]
    assert table["per_class_precision"] == [1.0, 0.0, None, 1.0, None]
    assert table["per_class_f1"] == [2 / 3, 0.0, None, 1.0, None]
    means = classes.averages(*counts_of(label, called, 5))
    assert means["balanced_accuracy"] == 0.75  # of classes 0 and 3
    assert means["macro_recall"] == 0.5  # of classes 0, 1 and 3
    one = counts_of(np.zeros(4, int), np.zeros(4, int), 2)
    assert np.isnan(classes.agreement(*one)["cohen_kappa"])
    assert classes.agreement(*one)["mcc"] == 0


def test_balanced_weights_equal_scikit_learn():
    utils = pytest.importorskip("sklearn.utils.class_weight")
    label = np.repeat([0, 1, 2], [100, 10, 1])
    theirs = utils.compute_class_weight("balanced", classes=np.arange(3), y=label)
    weights = classes.balanced_weights(label, num_classes=3)
    np.testing.assert_allclose(weights, theirs)
    assert np.mean(np.array(weights)[label]) == pytest.approx(1)
    half = np.array(classes.balanced_weights(label, num_classes=3, power=0.5))
    assert half[2] / half[0] == pytest.approx(10)
    assert np.mean(half[label]) == pytest.approx(1)
    with pytest.raises(DataError, match=r"classes \[3\] have no examples"):
        classes.balanced_weights(label, num_classes=4)
    with pytest.raises(DataError, match="labels reach 2"):
        classes.balanced_weights(label, num_classes=2)


def test_the_least_logit_is_the_first_whose_probability_is_enough():
    probability = np.array([1e-30, 1e-9, 0.1, 0.6, 0.9, 1 - 1e-6, 1 - 1e-12])
    found = calibration.least_logits(tuple(probability))
    assert found.dtype == np.float32
    below, above = (np.nextafter(found, np.float32(s * np.inf)) for s in (-1, 1))

    def of(logit):
        """1 - p and p of sigmoids, each with its digits."""
        wide = logit.astype(np.float64)
        return np.exp(-np.logaddexp(0, wide)), np.exp(-np.logaddexp(0, -wide))

    assert ((of(below)[1] < probability) | (of(below)[0] > 1 - probability)).all()
    assert ((of(above)[1] >= probability) | (of(above)[0] <= 1 - probability)).all()
    assert calibration.least_logits(0.5) == 0
    assert calibration.least_logits((0.0, 2.0)).tolist() == [-np.inf, np.inf]
    assert 37 < calibration.least_logits(1.0) < 38  # from where it is 1 in float64
    traced = jax.jit(calibration.least_logits)(0.9)
    assert float(traced) == pytest.approx(np.log(9), rel=1e-6)
