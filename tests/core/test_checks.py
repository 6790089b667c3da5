"""What is refused when a step is made or traced, and what is not."""

import dataclasses
from functools import partial

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core import checks, optimizers, schedules
from jaxcnn.data import augment
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError
from jaxcnn.runs.check import abstract_state
from jaxcnn.tasks.binary import BinaryClassification
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.regression import Regression
from tests.tiny import TinyNet, arrays, tiny

BATCH = {"image": np.zeros((8, 2, 2, 1), np.uint8), "label": np.zeros(8, np.int32)}


class Halved:
    """An objective that is an object."""

    def __call__(self, e, variables, batch, key):
        raise NotImplementedError


def by_hand(e, variables, batch, key):
    raise NotImplementedError


WHO = {
    "the task's loss": None,
    "by_hand": by_hand,
    "by_hand, with options": partial(by_hand, key=1),
    "Halved": Halved(),
    "Halved, with options": partial(Halved(), key=1),
}


@pytest.mark.parametrize("who", WHO)
def test_a_loss_is_a_number_a_row_and_who_gives_another_is_said(who):
    e = tiny(objective=WHO[who])
    checks.check_objective(e, jnp.zeros(8), {"accuracy": jnp.zeros(())}, BATCH)
    for shape in ((), (3,), (8, 1)):
        message = rf"^{who.split(',')[0]}: the loss has shape \[{', '.join(map(str, shape))}\];"
        with pytest.raises(ConfigError, match=message + r" it must be one number a row, \[8\]"):
            checks.check_objective(e, jnp.zeros(shape), {}, BATCH)


@pytest.mark.parametrize("name", [*checks.OF_RECORDS, *checks.OF_DESCENT])
def test_an_objective_logs_no_name_that_a_record_has(name):
    with pytest.raises(ConfigError, match=f"^the task's loss: logs '{name}', a name that every"):
        checks.check_objective(tiny(), jnp.zeros(8), {"fine": 1.0, name: 1.0}, BATCH)


def test_a_program_of_ones_own_may_log_what_descent_logs():
    checks.check_numbers("mine", {"loss": 1.0, "grad_norm": jnp.zeros(())})
    with pytest.raises(ConfigError, match=r"^mine: logs 'epoch', a name"):
        checks.check_numbers("mine", {"loss": 1.0, "epoch": 1.0})


@pytest.mark.parametrize("value", [jnp.zeros(1), np.zeros((2, 3))], ids=str)
def test_what_is_logged_is_a_single_number(value):
    checks.check_numbers("mine", {"a": 1, "b": np.float32(2), "c": jnp.zeros(())})
    with pytest.raises(ConfigError, match=r"^mine: logs 'b' of shape .*take its mean"):
        checks.check_numbers("mine", {"a": 1.0, "b": value}, taken=("b",))


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
@pytest.mark.parametrize("task", [
    Regression(num_values=3), BinaryClassification(), Classification(num_classes=3)
], ids=lambda task: type(task).__name__)  # fmt: skip
def test_mixed_pictures_need_a_loss_that_knows_both_truths(task, mix):
    rows = arrays(50) | {"values": np.zeros((50, 3), np.float32)}
    width = 1 if isinstance(task, BinaryClassification) else 3
    e = tiny(
        task=task,
        data=Arrays(train=rows, eval=rows),
        model=TinyNet(num_classes=width),
        augment=(mix,),
    )
    if isinstance(task, Regression):
        abstract_state(dataclasses.replace(e, augment=()))
        with pytest.raises(ConfigError, match=r"mixed .* loss of Regression knows one .* alone"):
            abstract_state(e)
    else:
        abstract_state(e)


def with_rest(learning_rate, *others, momentum, **more):
    return optax.sgd(learning_rate, momentum)


@pytest.mark.parametrize("optimizer, lacking", [
    (optax.adam, "learning_rate"),
    (partial(optax.adam, b1=0.8), "learning_rate"),
    (with_rest, "learning_rate, momentum"),
    (partial(with_rest, 0.1), "momentum"),
])  # fmt: skip
def test_an_optimizer_that_lacks_a_number_is_refused_by_its_name(optimizer, lacking):
    e = tiny(optimizer=optimizer)
    with pytest.raises(
        ConfigError, match=f"^optimizer: lacks {lacking}; .*{lacking.split(',')[0]}="
    ):
        checks.check_complete(e)


@pytest.mark.parametrize("optimizer", [
    partial(optax.adam, 0.1), partial(with_rest, 0.1, momentum=0.9), lambda rate=0.1: None, max
])  # fmt: skip
def test_an_optimizer_that_lacks_nothing_or_tells_nothing_is_taken(optimizer):
    checks.check_complete(tiny(optimizer=optimizer))


class Half:
    """An init without an update."""

    def init(self, params):
        return params


class OtherHalf:
    def update(self, updates, state, params=None):
        return updates, state


@pytest.mark.parametrize(
    "made", [None, optax.adam, Half(), OtherHalf(), 0.1], ids=lambda x: type(x).__name__
)
def test_what_an_optimizer_must_give(made):
    checks.check_made(optax.adam(0.1))
    with pytest.raises(ConfigError, match=r"^optimizer: gives .*GradientTransformation"):
        checks.check_made(made)


PARAMS = {"kernel": jnp.ones((2, 2))}
PLAIN = optax.adam(0.1)
FREE = optax.contrib.schedule_free_sgd(0.1)
FACTORS = {
    "schedule": schedules.cosine,
    "ema": 0.9,
    "rates": (("kernel", 0.5), ("bias", 1.0)),
}


def experiment(**fields):
    return tiny(**{"schedule": schedules.constant, "ema": None, **fields})


@pytest.mark.parametrize("name", FACTORS)
def test_a_factor_breaks_an_optimizer_that_chooses_its_places_alone(name):
    e = experiment(**{name: FACTORS[name]})
    checks.check_factors(e, PLAIN.init(PARAMS))
    with pytest.raises(
        ConfigError, match=rf"^{name}=[^;]*: the optimizer is schedule-free"
    ) as said:
        checks.check_factors(e, FREE.init(PARAMS))
    assert all(f"{other}=" not in str(said.value) for other in FACTORS if other != name)


@pytest.mark.parametrize("rates", [(), (("kernel", 1), ("bias", 0)), (("bias", 0.0),)], ids=str)
def test_what_is_frozen_or_as_it_is_breaks_nothing(rates):
    checks.check_factors(experiment(rates=rates), FREE.init(PARAMS))


def test_pairs_of_parameters_are_refused_with_what_to_use():
    pairs = optax.LookaheadParams.init_synced(PARAMS)
    state = optax.lookahead(PLAIN, 5, 0.5).init(pairs)
    with pytest.raises(ConfigError, match=r"optax.lookahead takes pairs.*optimizers\.lookahead"):
        checks.check_factors(experiment(), state)
    ours = optimizers.lookahead(PLAIN, period=5)
    checks.check_factors(experiment(), ours.init(PARAMS))
