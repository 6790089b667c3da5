"""Exact evaluation: every example once, sums in 64 bits; which examples are looked at before."""

import dataclasses
import math
import warnings
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.runs import evaluation
from jaxcnn.runs.evaluation import Best, CheckedStream, collect, evaluate, merge, rank
from tests.tiny import tiny


class Rows:
    """Examples that are their own numbers."""

    def __init__(self, size, *, arrays=None, streaming=False):
        self.size, self.arrays, self.streaming = size, arrays, streaming

    def __len__(self):
        return self.size

    def take(self, indices):
        assert ((indices >= 0) & (indices < self.size)).all()
        return {"x": np.asarray(indices)}


def sized(batch_size=8, eval_batch_size=None, task=None):
    return SimpleNamespace(batch_size=batch_size, eval_batch_size=eval_batch_size, task=task)


@pytest.mark.parametrize(
    "size, e, rows, devices",
    [
        (600, sized(), 256, 1),  # at least 256, and as many as in training
        (600, sized(batch_size=300), 300, 1),
        (600, sized(eval_batch_size=7), 7, 1),
        (10, sized(), 10, 1),
        (600, sized(), 258, 3),  # as many on each device
        (1, sized(), 3, 3),
        (9, sized(eval_batch_size=3), 3, 3),
    ],
)
def test_every_example_is_scored_once_in_batches_of_one_size(monkeypatch, size, e, rows, devices):
    monkeypatch.setattr(evaluation.hosts, "devices", lambda: [None] * devices)
    seen = {"a": [], "b": []}

    def step(name):
        def of(state, batch):
            assert state == name.upper()
            seen[name].append(batch)
            return f"{name}{len(seen[name])}"

        return of

    found = collect([(step("a"), "A"), (step("b"), "B")], Rows(size), e)
    assert [batch["x"].shape for batch in seen["a"]] == [(rows,)] * math.ceil(size / rows)
    assert [[one is two for one, two in zip(a, b, strict=True)] for a, b in [seen.values()]] == [
        [True] * len(seen["a"])
    ]  # taken once for both
    real = [batch["x"][batch["mask"] == 1] for batch in seen["a"]]
    np.testing.assert_array_equal(np.concatenate(real), np.arange(size))
    assert {batch["mask"].dtype for batch in seen["a"]} == {np.dtype(np.float32)}
    counts = [len(part) for part in real]
    assert found == [
        [(count, f"{name}{i}") for i, count in enumerate(counts, 1)] for name in ("a", "b")
    ]


class Summed:
    """A task that gives back what it is given."""

    def summarize(self, sums, records):
        return {"sums": sums, "records": records}


def test_sums_are_added_in_64_bits_and_records_of_real_rows_appended():
    large, light = np.int64(2**53), np.float32(2**24)  # to which floats of 64 and 32 add no 1
    results = [
        (3, ({"n": large, "x": light}, {"id": np.array([1, 2, 3, 0])})),
        (1, ({"n": np.int32(5), "x": np.float32(1)}, {"id": np.array([4, 0, 0, 0])})),
        (2, ({"n": np.int32(2), "x": np.float32(0.25)}, {"id": np.array([5, 6])})),
    ]
    found = merge(Summed(), results)
    assert found["sums"] == {"n": 2**53 + 7, "x": 2**24 + 1.25}
    assert found["records"]["id"].tolist() == [1, 2, 3, 4, 5, 6]
    counted = evaluate(
        SimpleNamespace(output_step=lambda state, batch: ({"n": batch["mask"].sum()}, {})),
        None,
        Rows(300),
        sized(task=Summed()),
    )
    assert counted["sums"] == {"n": 300}


class Split:
    """Data with splits of these sizes."""

    def __init__(self, **sizes):
        self.sizes = sizes

    def size(self, split):
        return self.sizes.get(split, 0)

    def open(self, split):
        raise DataError(f"{split}: nothing there")


def test_a_split_that_is_not_there_is_told_from_data_that_are_not():
    e = SimpleNamespace(data=Split(train=3, eval=2))
    evaluation.require_split(e, "eval")
    with pytest.raises(ConfigError, match="--split test: this experiment's data have no 'test'"):
        evaluation.require_split(e, "test")
    with pytest.raises(DataError, match="test: nothing there"):
        evaluation.require_split(SimpleNamespace(data=Split()), "test")
    with pytest.raises(ConfigError):
        evaluation.evaluate_split(SimpleNamespace(data=Split(train=3)), None, "test")


@pytest.mark.parametrize("metrics, threshold", [(None, 0.5), ({}, 0.5), ({"best": 0.25}, 0.25)])
def test_a_split_is_scored_with_the_decisions_of_a_validation(monkeypatch, metrics, threshold):
    """The program, its views and the checked examples are those of the experiment as decided."""

    @dataclasses.dataclass(frozen=True)
    class Decided:
        threshold: float = 0.5

        def calibrate(self, metrics):
            return Decided(metrics["best"])

    @dataclasses.dataclass(frozen=True)
    class Asked:
        task: Decided
        data: Split

    parts = {"program_of": "program", "scored": "scored", "open_checked": "rows",
             "evaluate": "metrics"}  # fmt: skip
    calls = {}
    for name, found in parts.items():

        def of(*given, name=name, found=found, **more):
            calls[name] = (given, more)
            return found

        monkeypatch.setattr(evaluation, name, of)
    monkeypatch.setattr(evaluation.transforms, "on_devices", lambda program: f"{program} there")
    e = Asked(Decided(), Split(test=3))
    assert evaluation.evaluate_split(e, "state", "test", metrics=metrics, tta="flip") == "metrics"
    decided = Asked(Decided(threshold), e.data)
    assert calls == {
        "program_of": ((decided, "state"), {"tta": "flip"}),
        "scored": (("program", decided), {}),
        "open_checked": ((decided, "test"), {}),
        "evaluate": (("scored there", "state", "rows", decided), {}),
    }


def test_a_tuple_of_states_is_an_ensemble_and_views_are_of_each_picture():
    e = tiny(ema=None)
    batch = {"image": jax.ShapeDtypeStruct((8, 8, 8, 1), np.uint8)}
    one = evaluation.program_of(e, None)
    state = jax.eval_shape(one.init, jax.random.key(0))

    def mirrored(states, **options):
        step = evaluation.predict_step(e, states, **options)
        shapes = jax.eval_shape(step, states, batch)
        assert shapes["probabilities"].shape == (8, 3)
        return " rev[" in str(jax.make_jaxpr(step)(states, batch))

    for states in (state, (state, state)):
        assert not mirrored(states)
        assert mirrored(states, tta="flip")


def opened(source, split="train", spec=None, task=None):
    checked = []
    task = task or SimpleNamespace(check=checked.append)
    spec = {"x": SimpleNamespace(shape=())} if spec is None else spec
    data = SimpleNamespace(open=lambda name: source, spec=lambda: spec)
    found = evaluation.open_checked(SimpleNamespace(data=data, task=task), split)
    return found, checked


@pytest.fixture(autouse=True)
def questions(monkeypatch):
    """What of the rows was questioned."""
    asked = []
    monkeypatch.setattr(
        evaluation, "question_rows", lambda rows, *, where: asked.append((where, len(rows["x"])))
    )
    return asked


def test_examples_are_checked_all_in_memory_and_a_sample_elsewhere(questions):
    rows = {"x": np.arange(300)}
    held = Rows(300, arrays=rows)
    found, (checked,) = opened(held)
    assert found is held
    np.testing.assert_array_equal(checked["x"], rows["x"])
    made = Rows(300)
    found, (checked,) = opened(made, "eval")
    assert found is made  # no stream: the others are not looked at
    assert (len(checked["x"]), checked["x"][0], checked["x"][-1]) == (64, 0, 299)
    found, checked = opened(Rows(300, streaming=True))
    assert isinstance(found, CheckedStream)
    assert len(checked) == 1
    found.take(np.array([5, 6]))
    assert checked[1]["x"].tolist() == [5, 6]
    assert questions == [("the 'train' examples", 300), ("the 'train' examples", 64)]
    with pytest.raises(DataError, match="the 'eval' split is empty"):
        opened(Rows(0), "eval")


def test_examples_of_another_shape_than_trainings_are_said_where_they_are_opened():
    rows = {"x": np.zeros((3, 4, 5)), "own": np.zeros((3, 9))}
    source = Rows(3, arrays=rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened(source, "eval", spec={"x": SimpleNamespace(shape=(4, 5))})
        assert caught == []
        opened(source, "eval", spec={"x": SimpleNamespace(shape=(4, 6))})
    (one,) = caught
    assert str(one.message).startswith("the 'eval' examples: 'x' is [4, 5], and [4, 6] for train")
    assert one.filename == __file__


def test_a_checked_stream_shows_its_rows_flat(monkeypatch):
    class Drawn(Rows):
        drawn = True

        def take(self, indices, *, draws=None):
            return {"x": np.asarray(indices)[..., None] * np.ones(3), "draws": draws}

    seen = []
    stream = CheckedStream(Drawn(9, streaming=True), seen.append)
    assert (len(stream), stream.streaming, stream.arrays, stream.drawn) == (9, True, None, True)
    plain = CheckedStream(Rows(9, streaming=True), seen.append)
    assert plain.drawn is False
    batch = plain.take(np.array([[1, 2], [3, 4], [5, 6]]))
    assert batch["x"].shape == (3, 2)
    assert seen[0]["x"].tolist() == [1, 2, 3, 4, 5, 6]

    def refuse(rows):
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        CheckedStream(Rows(9), refuse).take(np.array([1]))


@dataclasses.dataclass(frozen=True)
class Scored:
    """A task with a metric."""

    larger_is_better: bool
    metric: str = "score"


@pytest.mark.parametrize("larger", [True, False])
def test_the_first_of_equally_good_evaluations_is_the_best(larger):
    best, sign = Best(Scored(larger)), 1 if larger else -1
    values = [None, 2.0, 2.0, 1.0, None, 3.0, 2.5]
    news = [True, True, False, False, False, True, False]
    since = [0, 0, 1, 2, 3, 0, 1]
    assert (best.record, best.since) == (None, 0)
    records = [{"metrics": {} if v is None else {"score": sign * v}} for v in values]
    for record, new, count in zip(records, news, since, strict=True):
        assert best.add(record) is new
        assert best.since == count
    assert best.record is records[5]


def test_the_rank_of_metrics_is_their_value_the_larger_the_better():
    assert rank(Scored(True), {"score": 0.5, "loss": 9.0}) == 0.5
    assert rank(Scored(False), {"score": 0.5}) == -0.5
    for metrics in (None, {}, {"score": None}):
        for larger in (True, False):
            assert rank(Scored(larger), metrics) == -math.inf
