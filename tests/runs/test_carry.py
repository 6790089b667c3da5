"""What of a run's state another one takes over, and what is said of its learning rate."""

import dataclasses
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jaxcnn.core import schedules
from jaxcnn.core.program import make_program
from jaxcnn.errors import ConfigError
from jaxcnn.runs.carry import _carried, _say_schedule
from tests.tiny import tiny


@pytest.fixture(scope="module")
def begun():
    """A fresh state of `tiny`, with an average of the weights or without."""
    return {
        ema: jax.jit(make_program(tiny(ema=ema), steps=12).init)(jax.random.key(3))
        for ema in (None, 0.9)
    }


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("before", [None, 0.9])
@pytest.mark.parametrize("now", [None, 0.9])
def test_an_average_is_carried_over_or_begins_at_the_weights(begun, before, now):
    """Of arrays of its own: a step takes the memory of those that it is given."""
    old, new = begun[before], begun[now]
    old = dataclasses.replace(old, params=jax.tree.map(lambda x: x + 1, old.params))
    if before is not None:
        old = dataclasses.replace(old, ema=jax.tree.map(lambda x: x + 2, old.params))
    start = SimpleNamespace(folder=Path("runs/a"), experiment=tiny(ema=before))
    replica, said = SimpleNamespace(experiment=tiny(ema=now)), []
    found = _carried(start, old, new, replica, said.append)
    assert same(found.params, old.params)
    if now is None:
        assert found.ema is None
        return
    assert same(found.ema, old.params if before is None else old.ema)
    for x, y in zip(jax.tree.leaves(found.ema), jax.tree.leaves(found.params), strict=True):
        assert x.unsafe_buffer_pointer() != y.unsafe_buffer_pointer()
    assert said == []


def said_of(then, now, *, total=12, steps=12, at=6):
    start = SimpleNamespace(experiment=tiny(schedule=then), total_steps=total)
    said = []
    _say_schedule(start, SimpleNamespace(experiment=tiny(schedule=now)), at, steps, said.append)
    return said


def test_a_jump_of_the_learning_rate_is_said_and_nothing_where_there_is_none():
    cosine, constant = partial(schedules.cosine), partial(schedules.constant)
    assert said_of(cosine, cosine) == said_of(constant, constant, steps=24) == []
    assert said_of(cosine, cosine, total=None, steps=24) == []  # how long it was is not known
    longer = (1 + math.cos(math.pi / 4)) / 2  # a quarter of the run is done instead of a half
    words = f"the schedule's multiplier goes from 0.5 to {longer:.4g} at step 6 of 24"
    assert said_of(cosine, cosine, steps=24) == [words]
    words = "the schedule's multiplier goes from 1 to 0.5 at step 6 of 12"
    assert said_of(constant, cosine) == [words]


class Own(NamedTuple):
    """The state of a program of one's own."""

    step: jax.Array
    x: jax.Array


def test_a_state_of_another_form_is_not_carried_over():
    old, same, other = (Own(np.int32(3), np.zeros(n, np.float32)) for n in (2, 2, 4))
    start = SimpleNamespace(folder=Path("runs/a"))
    assert _carried(start, old, same, None, print) is old
    with pytest.raises(ConfigError, match="another form than this program's"):
        _carried(start, old, other, None, print)
