"""The default program by hand: how it begins, what a step does, what it gives for evaluation."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core import program, transforms
from jaxcnn.errors import ConfigError
from tests.core.linear import KEY, ROWS, experiment, state_of


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


class Told(nn.Module):
    """Gives back what it is told, with noise; its statistics are the number of its trainings."""

    @nn.compact
    def __call__(self, image, *, train):
        seen = self.variable("seen", "n", lambda: jnp.float32(0))
        if train:
            seen.value += 1
        noise = jax.random.uniform(self.make_rng("noise"))
        return jnp.stack([image.mean((1, 2, 3)), jnp.full(4, noise), jnp.full(4, 1.0 * train)], -1)


def marked(key, batch):
    return {**batch, "boxes_dropped": jnp.asarray([1, 0, 2, 0]), "drawn": jax.random.uniform(key)}


IMAGES = {"image": jnp.full((4, 2, 2, 1), 51, jnp.uint8), "label": jnp.zeros(4, jnp.int32)}


@pytest.mark.parametrize(
    "optimizer",
    [partial(optax.sgd, learning_rate=0.1, momentum=0.9), partial(optax.adam, learning_rate=0.1)],
    ids=["momentum", "adam"],
)
def test_a_donated_state_is_changed_where_it_lies(optimizer):
    class Wide(nn.Module):
        @nn.compact
        def __call__(self, image, *, train):
            x = nn.relu(nn.Dense(333)(image.reshape(len(image), -1)))
            return nn.Dense(3)(nn.relu(nn.Dense(444)(x)))

    e = experiment(model=Wide(), optimizer=optimizer, augment=(), objective=None)
    p = program.make_program(e, steps=4)
    jitted = jax.jit(p.train_step, donate_argnums=0, compiler_options=transforms.stepping())
    rows = e.data.open("train").take(np.arange(4))
    text = jitted.lower(p.init(KEY), rows).compile().as_text()
    assert "f32[333,444]" in text
    copied = re.findall(r"= f32\[333,444\]\S* copy\(", text)
    assert not copied, "XLA copies parameters or what the optimizer keeps before it changes them"


def test_the_default_objective_is_the_loss_of_the_augmented_batch_in_training():
    e = experiment(model=Told(), augment=(marked,), objective=None)
    variables = {"params": {}, "seen": {"n": jnp.float32(4)}}
    loss, collections, numbers = program.supervised(e, variables, IMAGES, KEY)
    assert float(collections["seen"]["n"]) == 5
    assert float(numbers["boxes_dropped"]) == 0.75
    augmented = program.prepare(e, IMAGES, key=jax.random.split(KEY)[0])
    outputs, _ = program.apply_model(
        e, variables, augmented, train=True, key=jax.random.split(KEY)[1], mutable=True
    )
    np.testing.assert_allclose(loss, e.task.loss(outputs, augmented), rtol=1e-6)
    assert set(numbers) == {"boxes_dropped", *e.task.running(outputs, augmented)}
    plain = program.supervised(experiment(model=Told(), augment=()), variables, IMAGES, KEY)
    assert "boxes_dropped" not in plain[2]


def test_outputs_are_those_of_evaluation_by_the_states_key():
    e = experiment(model=Told(), augment=(marked,))
    whole = program.make_program(e, steps=4)
    state = state_of(experiment(), params={}, model_state={"seen": {"n": jnp.float32(0)}})
    outputs, batch = whole.output_step(state, IMAGES)
    np.testing.assert_allclose(outputs[:, 0], 0.2, rtol=1e-6)
    assert not outputs[:, 2].any(), "not in training"
    assert set(batch) == {"image", "label", "mask"}
    again, other = (
        whole.output_step(state.replace(key=jax.random.key(seed)), IMAGES)[0] for seed in (0, 1)
    )
    np.testing.assert_array_equal(outputs, again)
    assert (outputs[:, 1] != other[:, 1]).all()


START = {"params": {"w": jnp.asarray([2.0, 1.0]), "b": jnp.asarray(10.0)}}
VARIABLES = {**START, "calls": {"n": jnp.float32(0)}}


def test_the_default_program_begins_with_what_it_is_given():
    begin = program.make_program(experiment(ema=0.9), steps=4).init
    state = begin(KEY, {"optimizer.learning_rate": 0.25, "task.label_smoothing": 0.5}, VARIABLES)
    assert (int(state.step), bool(state.live)) == (0, True)
    same(state.params, START["params"])
    same(state.ema, START["params"])
    assert state.ema["w"] is not state.params["w"], "one may be given away, the other not"
    assert state.model_state == state.ema_state == {"calls": {"n": 0}}
    assert {k: float(x) for k, x in state.hyperparams.items()} == {
        "optimizer.learning_rate": 0.25,
        "task.label_smoothing": 0.5,
    }
    assert {x.dtype for x in state.hyperparams.values()} == {jnp.dtype("float32")}
    plain = program.make_program(experiment(), steps=4).init(KEY, None, VARIABLES)
    assert (plain.ema, plain.ema_state) == (None, None)
    assert {k: float(x) for k, x in plain.hyperparams.items()} == {"optimizer.learning_rate": 0.5}
    assert "params" in VARIABLES, "what the caller has stays as it is"
    refused = experiment(optimizer=partial(optax.contrib.schedule_free_sgd, 0.1), ema=0.9)
    with pytest.raises(ConfigError, match=r"ema=0\.9: the optimizer is schedule-free"):
        program.make_program(refused, steps=4).init(KEY, None, VARIABLES)


def test_the_default_program_descends_by_numbers_of_the_state():
    whole = program.make_program(experiment(schedule=lambda progress: 1 - progress), steps=4)
    state = whole.init(KEY, {"optimizer.learning_rate": 0.25}, VARIABLES)
    draws = []
    for step in range(2):
        key = jax.random.fold_in(state.key, step)
        before, (state, numbers) = state, whole.train_step(state, {"x": jnp.asarray(ROWS)})
        moved = state.params["w"] - before.params["w"]
        np.testing.assert_allclose(moved, -0.25 * (1 - step / 4) * ROWS.mean(0), rtol=1e-5)
        assert int(state.step) == float(state.model_state["calls"]["n"]) == step + 1
        assert float(numbers["draw"]) == float(jax.random.uniform(key))
        draws.append(float(numbers["draw"]))
        expected = (ROWS @ np.asarray(before.params["w"])).mean() + before.params["b"]
        assert float(numbers["loss"]) == pytest.approx(float(expected), rel=1e-6)
    assert {"first", "grad_norm", "update_norm", "param_norm", "learning_rate"} < set(numbers)
    assert draws[0] != draws[1]
    other = whole.init(jax.random.key(1), None, VARIABLES)
    assert not jnp.array_equal(*map(jax.random.key_data, (other.key, state.key)))


def infinite_loss(x):
    return jnp.inf + 0 * x


def infinite_slope(x):
    return jnp.sqrt(x - jax.lax.stop_gradient(x))


@pytest.mark.parametrize("function", [infinite_loss, infinite_slope])
def test_a_loss_or_a_gradient_that_is_not_finite_ends_the_descent(function):
    def objective(e, variables, batch, key):
        return function(variables["params"]["b"]) + jnp.zeros(4), {}, {}

    whole = program.make_program(experiment(objective=objective), steps=4)
    begun = whole.init(KEY, None, START)
    state, numbers = whole.train_step(begun, {"x": jnp.asarray(ROWS)})
    assert (int(state.step), bool(state.live)) == (0, False)
    same(state.params, begun.params)
    kept = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(begun.params)))
    assert float(numbers["param_norm"]) == pytest.approx(kept)  # not of what was refused


def test_a_program_of_ones_own_is_made_for_the_length_of_the_run():
    e = experiment(program=lambda e, *, steps: (e, steps))
    assert program.make_program(e, steps=7) == (e, 7)
