"""Mean teacher: its loss against NumPy; what it sees of the labels; the teacher against an average
of students; stopped and resumed; as replicas.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core import schedules
from jaxcnn.core.forward import apply_model, prepare
from jaxcnn.core.program import make_program
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError
from tests.recipes.checks import check_replicas, check_resume, recipe
from tests.tiny import TinyNet, arrays, fit, tiny

RECIPE = recipe("fashion_mnist_mean_teacher")
SGD = partial(optax.sgd, learning_rate=0.05, momentum=0.9)


def few_labels(train=None, labels=10):
    data = Arrays(train=arrays(50) if train is None else train, eval=arrays(21, seed=1))
    return RECIPE.FewLabels(data, labels)


def student(**fields):
    return tiny(**{"data": few_labels(), "program": RECIPE.mean_teacher, **fields})


def test_rows_are_pairs_of_few_labelled_and_all_images():
    data, all_ = few_labels(), arrays(50)
    indices = np.array([[3, 9, 10], [11, 49, 27]], np.int32)
    batch = data.open("train").take(indices)
    np.testing.assert_array_equal(batch["unlabelled_image"], all_["image"][indices])
    np.testing.assert_array_equal(batch["image"], all_["image"][indices % 10])
    np.testing.assert_array_equal(batch["label"], all_["label"][indices % 10])
    held = data.open("eval")
    np.testing.assert_array_equal(held.take(np.arange(21))["label"], arrays(21, seed=1)["label"])
    assert (len(held), data.size("eval"), data.size("test")) == (21, 21, 0)
    assert {name: batch[name].shape[2:] for name in batch} == {
        name: s.shape for name, s in data.spec().items()
    }


def test_the_loss_is_cross_entropy_and_weighted_squared_distance():
    e, key = student(model=TinyNet(dropout=0.0), augment=()), jax.random.key(0)
    batch = e.data.open("train").take(np.arange(20, 28))
    student_, teacher = (
        dict(e.model.init(k, jnp.zeros((1, 8, 8, 1)), train=False)) for k in jax.random.split(key)
    )
    loss, _, numbers = RECIPE.consistent(e, student_, batch, key, teacher=teacher, weight=3.0)

    both = np.concatenate([batch["image"], batch["unlabelled_image"]])
    seen = prepare(e, {"image": jnp.asarray(both)})
    own = apply_model(e, student_, seen, train=True, key=key, mutable=True)[0]
    known = apply_model(e, teacher, seen, train=True, key=key, mutable=True)[0]

    def softmax(logits):
        powers = np.exp(np.asarray(logits, np.float64))
        return powers / powers.sum(-1, keepdims=True)

    entropy = -np.log(softmax(own)[np.arange(8), batch["label"]])
    apart = np.square(softmax(own) - softmax(known)).mean(-1)
    np.testing.assert_allclose(loss, entropy + 3 * (apart[:8] + apart[8:]) / 2, rtol=1e-5)
    np.testing.assert_allclose(numbers["consistency"], apart.mean(), rtol=1e-5)
    assert apart.mean() > 1e-3


def test_no_other_label_is_seen(tmp_path):
    other = arrays(50)
    other["label"][10:] = (other["label"][10:] + 1) % 3
    summaries = [
        fit(student(data=few_labels(train), steps=6), tmp_path / name)
        for name, train in (("a", None), ("b", other))
    ]
    assert summaries[0]["state_sha256"] == summaries[1]["state_sha256"]


def test_the_teacher_is_the_average_of_the_students_and_is_what_is_evaluated():
    e = student(ema=0.5, schedule=schedules.constant)
    program, source = make_program(e, steps=6), e.data.open("train")
    state, step = program.init(jax.random.key(0)), jax.jit(program.train_step)
    average = np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    for i in range(6):
        state, _ = step(state, source.take(np.arange(8) + 8 * i))
        share = min(0.5, (1 + i) / (10 + i))
        average = share * average + (1 - share) * np.asarray(state.params["Dense_0"]["kernel"])
    np.testing.assert_allclose(state.ema["Dense_0"]["kernel"], average, atol=1e-6)
    batch = {**e.data.open("eval").take(np.arange(5)), "mask": np.ones(5, np.float32)}
    teacher = {"params": state.ema, **state.ema_state}
    logits = apply_model(e, teacher, prepare(e, batch), train=False)
    np.testing.assert_allclose(program.output_step(state, batch)[0], logits, atol=1e-6)


def test_the_weight_rises_from_almost_nothing_to_its_whole():
    """The loss with the teacher, less the loss without, over their distance."""
    e = student(model=TinyNet(dropout=0.0), program=partial(RECIPE.mean_teacher, weight=1e3))
    program, batch = make_program(e, steps=100), e.data.open("train").take(np.arange(8))
    state = program.init(jax.random.key(0))
    shifted = jax.tree.map(lambda x: 1.5 * x, state.params)  # a teacher that says otherwise
    losses = {}
    for at in (0, 10, 20, 80):
        now = state.replace(ema=shifted, step=jnp.asarray(at, jnp.int32), key=state.key)
        plain = dataclasses.replace(e, program=partial(RECIPE.mean_teacher, weight=0.0))
        with_ = jax.jit(program.train_step)(now, batch)[1]
        without = jax.jit(make_program(plain, steps=100).train_step)(now, batch)[1]
        losses[at] = float((with_["loss"] - without["loss"]) / with_["consistency"])
    expected = {0: 1e3 * np.exp(-5), 10: 1e3 * np.exp(-1.25), 20: 1e3, 80: 1e3}
    for at, weight in expected.items():
        np.testing.assert_allclose(losses[at], weight, rtol=2e-3)


def test_a_teacher_needs_an_average():
    with pytest.raises(ConfigError, match="ema=None"):
        make_program(student(ema=None), steps=1)


def test_a_stopped_run_resumes_to_the_same_bits(tmp_path):
    check_resume(student(steps=8), tmp_path)


@pytest.mark.slow  # of the recipes, SAM proves it in every run of the tests
def test_replicas_are_solo_runs(tmp_path):
    check_replicas(student(optimizer=SGD, steps=10), tmp_path)
