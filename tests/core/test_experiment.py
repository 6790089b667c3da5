"""The fields of an experiment: what they may be, and what is refused when it is made."""

import itertools
import math
from fractions import Fraction
from functools import partial

import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment, members, optimizer_numbers
from jaxcnn.data.algebra import Concat, Mixed, Take
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import Task
from tests.tiny import TinyNet, tiny

COUNTS = ("batch_size", "accumulate", "log_every")
COUNTS_OR_NONE = ("eval_batch_size", "steps", "patience", "steps_per_dispatch")
WRONG = [
    *((name, value) for name in COUNTS for value in (0, -1, 1.0, True, "4", None)),
    *((name, value) for name in COUNTS_OR_NONE for value in (0, 1.0, True, "4")),
    *((name, value) for name in ("epochs", "eval_every") for value in (0, -1.0, True, "1", None)),
    *(("epochs", value) for value in (float("inf"), float("nan"))),
    *(("clip_norm", value) for value in (0, -1.0, float("inf"), True)),
    *(("seed", value) for value in (-1, 2**32, 1.0, True, None)),
    *(("ema", value) for value in (0.0, 1.0, 1.5, -0.1, True, "0.9", float("nan"))),
    *(("compute_dtype", value) for value in ("float16", "float64", None)),
    *((name, value) for name in ("augment", "transform") for value in ([], len, ("flip",), None)),
    *(("rates", value) for value in ([], ("a", 0.0), (("a",),), ((1, 0.0),), (["a", 0.0],))),
    *(("rates", (("a", rate),)) for rate in (-1.0, "0", True, None, float("nan"), float("inf"))),
    *(("mesh", value) for value in (8, ("data",))),
    *(("layout", value) for value in ([], (("a",),), (("a", 0),), (("a", True),), ((1, -1),))),
    *(("layout", value) for value in ((("a", -1.0),), (["a", -1],))),
    *(("remat", value) for value in ("block", ["block"], (1,))),
    *(("optimizer", value) for value in (0.1, None)),
    *(("schedule", value) for value in (1.0, None)),
    *(("model", value) for value in (TinyNet, None, nn.relu, optax.identity())),  # an init alone
    *((name, 1) for name in ("objective", "program", "initialize")),
    *((name, value) for name in ("task", "data") for value in (None, Classification, {})),
]
RIGHT = [
    *((name, value) for name in COUNTS for value in (1, 2)),
    *((name, value) for name in COUNTS_OR_NONE for value in (1, None)),
    *((name, value) for name in ("epochs", "eval_every", "clip_norm") for value in (1, 1e-3)),
    ("clip_norm", None),
    *(("seed", value) for value in (0, 2**32 - 1)),
    *(("ema", value) for value in (1e-6, 0.9999, None)),
    *(("compute_dtype", value) for value in ("float32", "bfloat16")),
    *((name, value) for name in ("augment", "transform") for value in ((), (lambda *x: x[-1],))),
    *(("rates", value) for value in ((), (("a", 0.0),), (("a", 2), ("b", 0.5)))),
    *(("mesh", value) for value in (None, "data=4")),
    *(("layout", value) for value in (None, (), (("a", -1), ("b", None)))),
    *(("remat", value) for value in (None, (), ("a", "b"))),
    *((name, None) for name in ("objective", "program", "initialize")),
    ("optimizer", optax.adam),
    ("schedule", schedules.constant),
]


@pytest.mark.parametrize("name, value", WRONG)
def test_a_wrong_field_is_refused_by_its_name_and_alone(name, value):
    with pytest.raises(ConfigError) as caught:
        tiny(**{name: value})
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{name}={value!r}: ")


@pytest.mark.parametrize("name, value", RIGHT)
def test_a_right_field_is_taken(name, value):
    assert getattr(tiny(**{name: value}), name) == value


def test_what_is_not_said_is_as_the_docs_say():
    """Numbers on which results of experiment files rest that do not name them."""
    needed = ("model", "task", "data", "optimizer")
    e = Experiment(**{name: getattr(tiny(), name) for name in needed})
    assert (e.batch_size, e.accumulate, e.epochs, e.seed) == (128, 1, 10.0, 0)
    assert (e.eval_every, e.log_every, e.compute_dtype) == (1.0, 50, "float32")
    assert (e.augment, e.transform, e.rates, e.schedule) == ((), (), (), schedules.constant)
    for name in ("eval_batch_size", "steps", "patience", "clip_norm", "ema", "weights", "mesh"):
        assert getattr(e, name) is None
    for name in ("steps_per_dispatch", "layout", "remat", "objective", "program", "initialize"):
        assert getattr(e, name) is None


def test_micro_batches_divide_a_batch():
    tiny(batch_size=8, accumulate=4)
    with pytest.raises(ConfigError, match="accumulate=3: must divide batch_size=8"):
        tiny(batch_size=8, accumulate=3)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        tiny(batch_size=0, seed=-1, ema=2)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("rate", [0, 0.0, 1, 0.1])
def test_a_rate_of_at_least_0(rate):
    e = tiny(optimizer=partial(optax.sgd, learning_rate=rate))
    assert e.optimizer.keywords == {"learning_rate": rate}


@pytest.mark.parametrize("rate", [-1, -1e-9, float("nan"), float("inf"), True])
def test_a_rate_that_is_none(rate):
    with pytest.raises(ConfigError, match=r"learning_rate=.*at least 0"):
        tiny(optimizer=partial(optax.sgd, learning_rate=rate))


@pytest.mark.parametrize(
    "fields, size, steps",
    [
        ({"steps": 7, "epochs": 100.0}, 50, 7),  # steps win
        ({"steps": None, "epochs": 2.0}, 48, 12),
        ({"steps": None, "epochs": 2.0}, 50, 13),  # the last update has rows of a third pass
        ({"steps": None, "epochs": 0.01}, 50, 1),
    ],
)
def test_the_number_of_updates(fields, size, steps):
    assert tiny(batch_size=8, **fields).total_steps(size) == steps


@pytest.mark.parametrize("parts", [3, 7, 10, 100])
def test_the_number_of_updates_is_that_of_the_fraction(parts):
    """1.1 epochs of 100 updates are 110, as 11/10 of them are, and 5/3 of 1,500 are 2,500."""
    found, exact = [], []
    for size, batch, k in itertools.product((800, 50_000, 73), (8, 100), range(1, 200)):
        e = tiny(batch_size=batch, steps=None, epochs=k / parts)
        found.append(e.total_steps(size))
        exact.append(math.ceil(Fraction(k, parts) * size / batch))
    assert found == exact


@pytest.mark.parametrize("every, size, steps", [(1.0, 80, 10), (0.5, 80, 5), (0.001, 80, 1)])
def test_updates_between_evaluations(every, size, steps):
    assert tiny(batch_size=8, eval_every=every).eval_interval(size) == steps


def test_the_numbers_of_an_optimizer_that_live_in_the_state():
    e = tiny(optimizer=partial(optax.adamw, learning_rate=0.1, b1=0.8, nesterov=True))
    assert optimizer_numbers(e) == {"optimizer.learning_rate": 0.1, "optimizer.b1": 0.8}
    assert optimizer_numbers(tiny(optimizer=lambda: optax.sgd(0.1))) == {}


def test_what_lacks_a_part_of_a_protocol_is_refused_with_what_it_lacks():
    class Half:
        num_classes = 3

        def loss(self):
            pass

    with pytest.raises(ConfigError, match=r"task=.*: lacks .*metric.*; see the task") as said:
        tiny(task=Half())
    assert " loss" not in str(said.value)
    with pytest.raises(ConfigError, match=r"data=.*: lacks label_names, spec, size, open; see"):
        tiny(data=object())
    assert members(Dataset) == ["label_names", "spec", "size", "open"]
    assert {"inputs", "metric", "loss", "records"} <= set(members(Task))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda data: tiny(data=[data]),
        lambda data: tiny(model=data),
        lambda data: tiny(optimizer=[0.0] * 100_000),
        lambda data: Concat((data, data)),
        lambda data: Take(data, [*range(100_000)]),
        lambda data: Mixed((data, data), [*range(100_000)]),
        lambda data: Mixed(data, (1,)),
    ],
)
def test_a_message_has_no_pages_of_numbers(wrong):
    """Of arrays and long lists that stand where they should not, the form alone is said."""
    image = np.arange(4 * 9 * 9, dtype=np.int32).reshape(4, 9, 9).astype(np.uint8)
    split = {"image": image, "label": np.zeros(4, np.int32)}
    with pytest.raises(ConfigError) as raised:
        wrong(Arrays(split, split))
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)


def test_arrays_are_shown_by_their_form():
    split = {"image": np.zeros((4, 9, 9), np.uint8), "label": [0, 1]}
    shown = "{image: uint8[4, 9, 9], label: list}"
    assert repr(Arrays(split, split)) == f"Arrays(train={shown}, eval={shown})"
    assert repr(Arrays(3, split, split)) == f"Arrays(train=int, eval={shown}, test={shown})"
