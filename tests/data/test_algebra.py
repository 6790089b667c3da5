"""Data sets made of data sets: which rows they hold, and what they refuse."""

import dataclasses
import itertools
import warnings

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxcnn.core.override import override
from jaxcnn.core.rendering import build, render
from jaxcnn.data.algebra import Balanced, Concat, Fold, HeldOut, Mapped, Mixed, Splits, Take, choice
from jaxcnn.data.dataset import batch_indices, column
from jaxcnn.data.files.documents import Texts
from jaxcnn.data.made.composed import ComposedSource
from jaxcnn.data.made.synthetic import Synthetic
from jaxcnn.data.memory import Arrays, MemorySource, held_out
from jaxcnn.data.stream import StreamSource
from jaxcnn.errors import ConfigError, DataError

pytestmark = pytest.mark.filterwarnings("ignore:.*decodes all")


@dataclasses.dataclass(frozen=True)
class Made:
    """Rows whose "value" is their number in the split plus `offset`, in each kind of source."""

    labels: tuple[int, ...] = (0, 1, 2) * 4
    kind: str = "memory"
    offset: int = 0
    label_names: tuple[str, ...] = ("a", "b", "c")
    eval_size: int = 0
    test_size: int = 0

    def _rows(self, split):
        size = {"train": len(self.labels), "eval": self.eval_size, "test": self.test_size}[split]
        start = {"train": 0, "eval": 1000, "test": 2000}[split]
        label = np.resize(np.array(self.labels, np.int32), size)
        return {"value": np.arange(size, dtype=np.int32) + self.offset + start, "label": label}

    def spec(self):
        return {n: jax.ShapeDtypeStruct((), np.int32) for n in ("value", "label")}

    def size(self, split):
        return len(self._rows(split)["label"])

    def open(self, split):
        rows = self._rows(split)
        size = len(rows["label"])
        if self.kind == "memory":
            return MemorySource(rows)
        if self.kind == "composed":
            source = ComposedSource(lambda key: {}, (), size=size, seed=0, split=split)
            held = {n: jax.numpy.asarray(x) for n, x in rows.items()}
            source._make = lambda indices: {n: x[indices] for n, x in held.items()}
            return source
        known = {"label": rows["label"]} if self.kind == "stream" else {}
        examples = [{n: x[i] for n, x in rows.items()} for i in range(size)]
        return StreamSource(lambda i: [examples[k] for k in i], size, self.spec(), columns=known)


KINDS = ("memory", "stream", "bare stream", "composed")


def taken(data, split="train", name="value"):
    """Entry `name` of all examples, asked for out of order and in two axes."""
    source = data.open(split)
    order = np.random.default_rng(0).permutation(len(source))
    half = len(order) // 2 * 2
    out = np.empty(len(order), np.int32)
    out[order[:half]] = np.asarray(source.take(order[:half].reshape(2, -1))[name]).ravel()
    out[order[half:]] = np.asarray(source.take(order[half:])[name])
    assert len(source) == data.size(split)
    if source.arrays is not None:
        np.testing.assert_array_equal(source.arrays[name], out)
    known = column(source, name)
    assert known is None or known.tolist() == out.tolist()
    return out.tolist()


# --- which rows ---


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=40), st.data())
def test_shares_and_folds_are_stratified_disjoint_and_complete(labels, data):
    labels = np.array(labels)
    count = data.draw(st.integers(1, len(labels)))
    mask = choice.spread(len(labels), count, labels=labels)
    assert mask.sum() == count
    for k in set(labels.tolist()):
        own = labels == k
        assert abs(mask[own].sum() - own.sum() * count / len(labels)) < 1

    folds = data.draw(st.integers(2, len(labels)))
    numbers = choice.fold_numbers(len(labels), folds, labels=labels)
    for rows in (numbers, *(numbers[labels == k] for k in set(labels.tolist()))):
        counts = np.bincount(rows, minlength=folds)
        assert len(counts) == folds
        assert np.ptp(counts) <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=60))
def test_groups_lie_in_one_part(rows):
    groups, labels = np.array(rows).T
    part = choice.deal_groups(groups, (0.5, 0.3, 0.2), labels=labels)
    assert all(len(set(part[groups == g].tolist())) == 1 for g in groups)
    assert set(part.tolist()) <= {0, 1, 2}


def test_groups_are_dealt_out_evenly():
    """Where groups are small the parts have their shares of each class, as without groups."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), rng.integers(1, 4, 400))
    labels = rng.choice(3, len(groups), p=(0.7, 0.25, 0.05))
    part = choice.deal_groups(groups, (0.8, 0.2), labels=labels)
    for k in range(3):
        assert abs((part[labels == k] == 1).mean() - 0.2) < 0.02
    folds = choice.deal_groups(groups, (0.2,) * 5, labels=labels)
    for k in range(3):
        counts = np.bincount(folds[labels == k], minlength=5)
        assert counts.max() - counts.min() <= 2


def test_groups_of_one_class_each_fill_all_folds():
    """Patients with one diagnosis: a class of three patients lies in three folds, not always in the
    same three. As even as scikit-learn's."""
    StratifiedGroupKFold = pytest.importorskip("sklearn.model_selection").StratifiedGroupKFold
    groups = np.arange(300) // 10
    labels = groups // 3
    theirs = [len(rows) for _, rows in StratifiedGroupKFold(5).split(labels, labels, groups)]
    folds = choice.deal_groups(groups, (0.2,) * 5, labels=labels)
    assert np.bincount(folds, minlength=5).tolist() == theirs == [60] * 5
    for k in range(10):
        assert np.bincount(folds[labels == k], minlength=5).max() == 10


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1), st.data())
def test_no_fold_is_empty_where_there_are_groups_enough(rows, data):
    groups, labels = np.array(rows).T
    folds = data.draw(st.integers(1, len(set(groups.tolist()))))
    part = choice.deal_groups(groups, (1 / folds,) * folds, labels=labels)
    assert len(set(part.tolist())) == folds


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_balanced_classes_come_equally_often(labels):
    labels = np.array(labels)
    rows = choice.balanced_rows(labels)
    _, counts = np.unique(labels[rows], return_counts=True)
    assert set(counts.tolist()) == {np.bincount(labels).max()}
    uses = np.bincount(rows, minlength=len(labels))
    assert uses.min() >= 1
    assert all(np.ptp(uses[labels == k]) <= 1 for k in set(labels.tolist()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=4))
def test_mixed_parts_have_their_shares(parts):
    sizes, weights = zip(*parts, strict=True)
    rows = choice.mixed_rows(sizes, weights)
    uses = np.bincount(rows, minlength=sum(sizes))
    ends = np.cumsum(sizes)
    total = sum(weights)
    for size, weight, end in zip(sizes, weights, ends, strict=True):
        own = uses[end - size : end]
        assert own.min() >= 1
        assert np.ptp(own) <= 1
        assert abs(own.sum() - len(rows) * weight / total) <= 1
    # no fewer rows would do: with one less, a part of the wanted share could not hold its rows
    assert min((len(rows) - 1) * w / total - n for n, w in parts) < 1e-9


# --- the values ---

TABLE = [  # value of data, of split -> the rows it holds
    ("held out", lambda d: HeldOut(d, 0.25), "eval", [9, 10, 11]),
    ("held out, rest", lambda d: HeldOut(d, 0.25), "train", list(range(9))),
    ("take", lambda d: Take(d, 3), "train", [9, 10, 11]),
    ("share", lambda d: Take(d, 0.5), "train", [3, 4, 5, 9, 10, 11]),
    ("range", lambda d: Take(d, (2, 5)), "train", [2, 3, 4]),
    ("slice", lambda d: Take(d, slice(-2, None)), "train", [10, 11]),
    ("passed through", lambda d: Take(d, 3), "eval", [1000, 1001]),
    ("both", lambda d: Take(d, (1, 2), splits=("train", "eval")), "eval", [1001]),
    ("splits", lambda d: Splits(d, (Take(d, (0, 2)), "train")), "eval", [0, 1]),
    ("concat", lambda d: Concat(Take(d, (0, 2)), Take(d, (5, 6))), "train", [0, 1, 5]),
    ("concat eval", lambda d: Concat(d, d), "eval", [1000, 1001, 1000, 1001]),
    (
        "mixed",
        lambda d: Mixed((Take(d, (0, 2)), Take(d, (5, 6))), (1.0, 1.0)),
        "train",
        [0, 1, 5, 5],
    ),
    ("mixed eval", lambda d: Mixed((d, d), (1, 9)), "eval", [1000, 1001, 1000, 1001]),
    ("balanced", lambda d: Balanced(Take(d, (0, 5))), "train", [0, 3, 1, 4, 2, 2]),
    ("balanced eval", lambda d: Balanced(d), "eval", [1000, 1001]),
    ("mapped", lambda d: Mapped(Take(d, (0, 3)), double), "train", [0, 2, 4]),
]


def double(example):
    example["value"] *= 2  # what it is given is its own
    return example


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make, split, rows", [t[1:] for t in TABLE], ids=[t[0] for t in TABLE])
def test_rows(make, split, rows, kind):
    data = make(Made(kind=kind, eval_size=2))
    assert taken(data, split) == rows
    assert data.label_names == ("a", "b", "c")
    assert set(data.spec()) == {"value", "label"}
    # equal values hold equal rows, whatever was opened before
    assert taken(make(Made(kind=kind, eval_size=2)), split) == rows


def test_a_mapped_function_may_change_what_it_is_given():
    def darken(example):
        example["image"] //= 2
        return example

    image = np.full((3, 4, 4, 1), 200, np.uint8)
    found = Mapped(Arrays({"image": image}, {"image": image}), darken).open("train").arrays
    assert found["image"].max() == 100
    assert image.min() == 200  # the data's own are as before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [(0, 1, 2) * 4, (0,) * 9 + (1,) * 5, (2, 1, 0, 0, 0, 1, 1)])
def test_folds_are_disjoint_and_complete(kind, labels):
    """As scikit-learn's StratifiedKFold promises: sizes, and classes in each, differ by one."""
    data = Made(labels, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folds = [Fold(data, k, 3) for k in range(3)]
        held = [taken(fold, "eval") for fold in folds]
        kept = [taken(fold, "train") for fold in folds]
    assert sorted(itertools.chain(*held)) == list(range(len(labels)))
    for out, rest in zip(held, kept, strict=True):
        assert sorted(out + rest) == list(range(len(labels)))
    for k in set(labels):
        counts = [sum(labels[row] == k for row in out) for out in held]
        assert max(counts) - min(counts) <= 1


def test_folds_have_the_class_counts_of_scikit_learn():
    StratifiedKFold = pytest.importorskip("sklearn.model_selection").StratifiedKFold
    labels = np.random.default_rng(1).choice(4, 203, p=(0.6, 0.25, 0.1, 0.05))
    theirs = [
        sorted(np.bincount(labels[rows]).tolist())
        for _, rows in StratifiedKFold(5).split(labels, labels)
    ]
    data = Made(tuple(labels.tolist()))
    ours = [sorted(np.bincount(labels[taken(Fold(data, k, 5), "eval")]).tolist()) for k in range(5)]
    assert np.abs(np.sort(theirs, 0) - np.sort(ours, 0)).max() <= 1


def test_the_own_eval_split_becomes_the_test():
    data = Made(eval_size=2)
    assert taken(HeldOut(data, 0.25), "test") == taken(Fold(data, 0, 3), "test") == [1000, 1001]
    both = HeldOut(Made(eval_size=2, test_size=1), 0.25)
    with pytest.warns(UserWarning, match="2 examples that the data hold out as 'eval' are not"):
        held = taken(both, "eval")
    assert len(held) == 3
    assert taken(both, "test") == [2000]


def test_groups_stay_together():
    arrays = {"label": [0, 1] * 6, "writer": np.repeat(np.arange(4), 3)}
    arrays = {name: np.asarray(x, np.int32) for name, x in arrays.items()}
    folds = [Fold(Arrays(arrays, arrays), k, 4, groups="writer") for k in range(4)]
    for data in (HeldOut(Arrays(arrays, arrays), 0.25, groups="writer"), *folds):
        held = taken(data, "eval", "writer")
        assert len(set(held)) == 1
        assert len(held) == data.size("eval") == 3
        assert not set(held) & set(taken(data, "train", "writer"))
    with pytest.raises(ConfigError, match=r"'writr'.*'writer'"):
        HeldOut(Arrays(arrays, arrays), groups="writr").open("eval")
    with pytest.raises(DataError, match="4 groups"):
        Fold(Arrays(arrays, arrays), 0, 5, groups="writer").open("eval")


def test_classes_are_matched_by_name():
    first = Made((0, 1, 2), label_names=("ant", "bee", "cat"))
    second = Made((0, 1), label_names=("cat", "ant"), offset=50)
    for data in (Concat(first, second), Mixed((first, second), (3, 2))):
        assert taken(data, name="label") == [0, 1, 2, 2, 0]
        assert data.label_names == ("ant", "bee", "cat")
    splits = Splits(first, (Made((0, 1), "stream", label_names=("cat", "ant")), "train"))
    assert taken(splits, "eval", "label") == [2, 0]
    for other, words in (
        (dataclasses.replace(second, label_names=("cat", "dog")), r"\['dog'\] are unknown"),
        (dataclasses.replace(second, label_names=()), "has no names"),
    ):
        for make in (lambda a, b: Concat(a, b), lambda a, b: Splits(a, (b, "train"))):
            with pytest.raises(DataError, match=words):
                _ = make(first, other).label_names
            with pytest.raises(DataError, match=words):
                make(first, other).open("eval" if make(first, other).size("eval") else "train")


def test_padding_of_renumbered_boxes_stays_zero():
    boxes = np.array([[[0, 0, 0.5, 0.5], [0, 0, 0, 0]]], np.float32)
    arrays = {"boxes": boxes, "box_labels": np.array([[0, 0]], np.int32)}
    one = Arrays(arrays, arrays, label_names=("a", "b"))
    two = Arrays(arrays, arrays, label_names=("b", "a"))
    found = Concat(one, two).open("train").take(np.arange(2))["box_labels"]
    assert np.asarray(found).tolist() == [[0, 0], [1, 0]]
    maps = {"segmentation": np.zeros((1, 2, 2), np.int32)}
    with pytest.raises(DataError, match=r"segmentation.*cannot be renumbered"):
        Concat(
            Arrays(maps, maps, label_names=("a", "b")), Arrays(maps, maps, label_names=("b", "a"))
        ).open("train")


def test_numbers_of_tokens_mean_one_thing(tmp_path):
    """Texts of two data sets, each with a vocabulary of its own, are not read as those of one."""
    parts = []
    for name, words in (("a", ("ant", "bee")), ("b", ("bee", "cat"))):
        file = tmp_path / f"{name}.csv"
        file.write_text("text,label\n" + "".join(f"{w} {w},{i}\n" for i in range(2) for w in words))
        parts.append(Texts(str(file), length=4))
    one, other = parts
    assert one.vocabulary != other.vocabulary
    assert one.label_names == other.label_names
    for make in (
        lambda: Splits(one, (other, "train")),
        lambda: Splits(Take(one, 2), one, (HeldOut(other, 0.5), "train")),
        lambda: Concat(one, other),
        lambda: Mixed((one, Concat(other)), (1, 1)),
    ):
        with pytest.raises(DataError, match="the same number means two words"):
            _ = make().label_names
        with pytest.raises(DataError, match="the same number means two words"):
            make().open("train")
    assert Splits(one, (Texts(one.path, length=4), "train")).open("eval").take(np.arange(2))


def test_letters_of_another_alphabet_are_refused():
    def lines(alphabet):
        rows = {"text": np.array([[1, 2, 0]], np.int32)}
        return Arrays(rows, rows, label_names=tuple(alphabet))

    for make in (lambda a, b: Concat(a, b), lambda a, b: Splits(a, (b, "train"))):
        with pytest.raises(DataError, match=r"'text'.*cannot be renumbered"):
            make(lines("abc"), lines("bc")).open("eval")
        both = make(lines("abc"), lines("ab")).open("eval").take(np.arange(1))["text"]
        assert np.asarray(both).tolist() == [[1, 2, 0]]


def test_batches_are_functions_of_seed_and_step_alone():
    def batch(step):
        source = Mixed((Made(), Made(kind="stream", offset=100)), (3, 1)).open("train")
        return np.asarray(
            source.take(batch_indices(5, step, size=len(source), batch_size=4))["value"]
        )

    ahead = [batch(step) for step in (7, 0, 3)]
    np.testing.assert_array_equal(ahead[::-1], [batch(step) for step in (3, 0, 7)])


@pytest.mark.filterwarnings("ignore:.*have one example each")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_held_out_is_the_one_rule_of_all_readers(labels, fraction):
    """Every class of two or more is on both sides, whatever the fraction."""
    counts = np.bincount(labels, minlength=3)
    assume(counts.max() > 1)
    data = HeldOut(Made(tuple(labels)), fraction)
    held = [labels[i] for i in taken(data, "eval")]
    kept = [labels[i] for i in taken(data, "train")]
    assert set(held) == {k for k in range(3) if counts[k] > 1}
    assert set(kept) == set(labels)
    assert (len(held), len(kept)) == (data.size("eval"), data.size("train"))
    by_reader = np.flatnonzero(held_out(np.array(labels), fraction))
    assert taken(data, "eval") == by_reader.tolist()


@pytest.mark.filterwarnings("ignore:.*have one example each")
def test_nothing_can_be_held_out_of_lone_examples():
    with pytest.raises(DataError, match="of 2 examples none can be held out"):
        HeldOut(Made((0, 1)), 0.5).size("eval")


# --- what is said ---

SAID = [
    ("no label", lambda: HeldOut(Mapped(Made(), drop_label), 0.25), "have no 'label'"),
    (
        "one example of a class",
        lambda: Fold(Made((0, 0, 0, 1)), 1, 2),
        "1 of 2 classes.*'train'.*b",
    ),
    (
        "none to evaluate",
        lambda: HeldOut(Made((0,) * 8 + (1,)), 0.25),
        r"HeldOut: 1 classes have one example each of 9, .*\['b'\]",
    ),
    ("stream", lambda: HeldOut(Made(kind="bare stream"), 0.25), "decodes all 12 examples once"),
    ("gone", lambda: Take(Made(), 2), "no example of a is among the 2"),
]


def drop_label(example):
    return {"value": example["value"]}


@pytest.mark.parametrize("make, words", [t[1:] for t in SAID], ids=[t[0] for t in SAID])
@pytest.mark.filterwarnings("default:.*decodes all")
def test_warnings(make, words):
    with pytest.warns(UserWarning, match=words):
        make().open("train")


REPEATING = [
    lambda a: Balanced(a),
    lambda a: Mixed((a, Made()), (1, 5)),
    lambda a: Take(Balanced(a), 0.5),
    lambda a: Mapped(Balanced(a), double),
    lambda a: Concat(Made(), Balanced(a)),
    lambda a: Splits(Balanced(a), Made(eval_size=2)),
]


@pytest.mark.parametrize("make", REPEATING)
def test_nothing_is_held_out_of_examples_that_come_several_times(make):
    """One of two equal rows would be scored, the other trained on."""
    data = Made((0,) * 80 + (1,) * 17)
    for hold in (lambda d: HeldOut(d, 0.2), lambda d: Fold(d, 0, 5)):
        with pytest.raises(ConfigError, match=r"come several times.*Balanced\((HeldOut|Fold)"):
            hold(make(data))
        inside = make(hold(data))  # numbers of rows, of one split
        if not isinstance(inside, Mixed | Concat | Splits):
            assert not set(taken(inside)) & set(taken(inside, "eval"))
    splits = Splits((Balanced(Made(eval_size=9)), "eval"), Made(eval_size=2))
    assert taken(HeldOut(splits, 0.3), "eval")


REFUSED = [
    (lambda: HeldOut(Made(), 0), ConfigError, "fraction"),
    (lambda: HeldOut(Made(), 1.0), ConfigError, "fraction"),
    (lambda: HeldOut("photos"), ConfigError, "'photos' is not a Dataset"),
    (lambda: HeldOut(Made, 0.2), ConfigError, "not a Dataset"),
    (lambda: HeldOut(Made()).open("validation"), ConfigError, "validation"),
    (lambda: Fold(Made(), 3, 3), ConfigError, r"k in \[0, n\)"),
    (lambda: Fold(Made(), 0, 1), ConfigError, "at least 2"),
    (lambda: Fold(Made((0, 1)), 0, 3).open("eval"), DataError, "2 examples"),
    (lambda: Take(Made(), 0), ConfigError, "which is 0"),
    (lambda: Take(Made(), 1.5), ConfigError, "which"),
    (lambda: Take(Made(), True), ConfigError, "which"),
    (lambda: Take(Made(), slice(0, 9, 2)), ConfigError, "which"),
    (lambda: Take(Made(), 3, splits=("training",)), ConfigError, "'training'"),
    (lambda: Take(Made(), 13).open("train"), DataError, "13 of the 12"),
    (lambda: Take(Made(), 0.01).size("train"), DataError, "is 0 of the 12"),
    (lambda: Take(Made(), (12, 20)).size("train"), DataError, "0 of the 12"),
    (lambda: Splits(Made(), (Made(), "val")), ConfigError, "eval: split is 'val'"),
    (lambda: Splits(Made(), "photos"), ConfigError, "Splits, eval"),
    (lambda: Splits(Made(), Made(eval_size=1)).open("test"), DataError, "no 'test'"),
    (lambda: Splits(Made(), (Synthetic(), "train")).spec(), DataError, "'value' is .* and absent"),
    (lambda: Concat(), ConfigError, "at least one"),
    (lambda: Concat(Made()).open("test"), DataError, "no data set has a 'test'"),
    (
        lambda: Concat(Synthetic((8, 8, 1)), Synthetic((8, 8, 3))).spec(),
        DataError,
        r"uint8\[8, 8, 1\] and uint8\[8, 8, 3\]",
    ),
    (lambda: Mixed((Made(),), (0.0,)), ConfigError, "positive"),
    (lambda: Mixed((Made(), Made()), (1.0,)), ConfigError, "each of the 2"),
    (lambda: Mixed((Made(), Made(())), (1.0, 1.0)).size("train"), DataError, "data set 1 has no"),
    (lambda: Balanced(Mapped(Made(), drop_label)).size("train"), ConfigError, "no 'label'"),
    (lambda: Mapped(Made(), "double"), ConfigError, "must be a function"),
    (
        lambda: Mapped(Made(), lambda e: 1 // int(e["value"])).spec(),
        ConfigError,
        "example of zeros",
    ),
    (lambda: Mapped(Made(), lambda e: list(e)).spec(), ConfigError, "must give a dict"),
    (
        lambda: Mapped(Made(), lambda e: {"value": np.zeros(int(e["value"]))}).open("train"),
        DataError,
        "in shapes",
    ),
    (
        lambda: Mapped(Made(), double, entries=(("value", (2,), "int32"),)).open("train"),
        DataError,
        r"gave int32\[\] for 'value'; it must be int32\[2\]",
    ),
]


@pytest.mark.parametrize("make, error, words", REFUSED)
def test_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


# --- as part of an experiment ---


@pytest.mark.parametrize(
    "data, path, value",
    [
        (HeldOut(Synthetic(), 0.2), "data.num_classes", 3),
        (Balanced(Fold(Synthetic(), 1, 5)), "data.data.num_classes", 3),
        (Fold(Synthetic(), 1, 5), "k", 2),
        (Take(Synthetic(), slice(3, 7)), "data.num_train", 20),
        (Concat(Synthetic(), Synthetic(num_classes=4)), "datasets.1.num_classes", 3),
        (Mixed((Synthetic(), Synthetic()), (0.5, 0.5)), "weights.0", 0.9),
        (Splits(Synthetic(), (Synthetic(), "train")), "eval.0.num_train", 50),
        (Mapped(Synthetic(), double), "data.num_train", 5),
    ],
)
def test_overrides_reach_inside_and_renderings_are_values_again(data, path, value):
    edited = override(data, path, str(value))
    assert edited != data
    again = build(render(edited))
    assert again == edited
    assert hash(again) == hash(edited)
    found = again
    for name in path.split("."):
        found = found[int(name)] if isinstance(found, tuple) else getattr(found, name)
    assert found == value
