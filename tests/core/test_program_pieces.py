"""The pieces that a training step is built of, by hand: a loss of a few numbers, no network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.core import optimizers, program
from jaxcnn.core.program import Gradient
from jaxcnn.errors import ConfigError
from tests.core.linear import KEY, ROWS, experiment, state_of


def found_by(e, **batch):
    return program.gradient(e, state_of(e), {"x": jnp.asarray(ROWS), **batch}, KEY)


def means(weights):
    """The loss and gradients by the definition of a weighted mean; nothing of no weight."""
    weights = np.asarray(weights, np.float64)
    if not weights.sum():
        return 0, [0, 0], 0
    share = weights / weights.sum()
    return share @ (ROWS @ [2, 1] + 10), share @ ROWS, 1


BATCHES = {  # entries of a batch: how much each row counts
    "plain": ({}, [1, 1, 1, 1]),
    "padded": ({"mask": [1, 1, 0, 1]}, [1, 1, 0, 1]),
    "one row": ({"mask": [0, 1, 0, 0]}, [0, 1, 0, 0]),
    "padding alone": ({"mask": [0, 0, 0, 0]}, [0, 0, 0, 0]),
    "weighted": ({"weight": [0, 0.5, 2, 1]}, [0, 0.5, 2, 1]),
    "lightly": ({"weight": [0, 0.1, 0.1, 0]}, [0, 0.1, 0.1, 0]),
    "weighted and padded": ({"weight": [3, 1, 2, 1], "mask": [0, 1, 1, 1]}, [0, 1, 2, 1]),
    "no weight": ({"weight": [0, 0, 0, 0]}, [0, 0, 0, 0]),
}


@pytest.mark.parametrize("name", BATCHES)
def test_the_loss_is_the_mean_of_the_rows_that_count(name):
    entries, weights = BATCHES[name]
    entries = {k: jnp.asarray(v, jnp.float32) for k, v in entries.items()}
    found = found_by(experiment(), **entries)
    loss, w, b = means(weights)
    assert float(found.loss) == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(found.grads["w"], w, rtol=1e-5)
    np.testing.assert_allclose(found.grads["b"], b, rtol=1e-5)
    assert float(found.model_state["calls"]["n"]) == 1
    assert float(found.numbers["first"]) == 1


def test_a_row_of_no_weight_may_have_a_loss_that_is_not_finite():
    rows = jnp.asarray(ROWS).at[0, 0].set(jnp.inf)
    found = found_by(experiment(), x=rows, weight=jnp.asarray([0, 1, 1, 1], jnp.int32))
    assert float(found.loss) == pytest.approx(means([0, 1, 1, 1])[0], rel=1e-6)


@pytest.mark.parametrize("weight", [None, [4.0, 0, 1, 1], [0.0, 0, 1, 0]], ids=str)
@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_are_parts_of_one_mean_and_go_one_after_another(weight, accumulate):
    e = experiment(accumulate=accumulate)
    entries = {} if weight is None else {"weight": jnp.asarray(weight)}
    found = found_by(e, **entries)
    loss, w, b = means([1, 1, 1, 1] if weight is None else weight)
    assert float(found.loss) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(found.grads["w"], w, rtol=1e-5)
    np.testing.assert_allclose(found.grads["b"], b, rtol=1e-5)
    assert float(found.model_state["calls"]["n"]) == accumulate
    assert float(found.numbers["first"]) == ROWS[:: 4 // accumulate, 0].mean()
    draws = [jax.random.uniform(key) for key in jax.random.split(KEY, accumulate)]
    assert float(found.numbers["draw"]) == pytest.approx(float(np.mean(draws)), rel=1e-6)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_with_unequal_numbers_of_rows_that_count(name, accumulate):
    entries, weights = BATCHES[name]
    entries = {k: jnp.asarray(v, jnp.float32) for k, v in entries.items()}
    found = found_by(experiment(accumulate=accumulate), **entries)
    loss, w, b = means(weights)
    assert float(found.loss) == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(found.grads["w"], w, rtol=1e-5)
    np.testing.assert_allclose(found.grads["b"], b, rtol=1e-5)


def test_micro_batches_make_a_loop_but_for_cpus():
    """On which a convolution inside a loop runs several times slower."""
    e = experiment(accumulate=4)
    traced = partial(program.gradient, e)
    text = str(jax.make_jaxpr(traced)(state_of(e), {"x": jnp.asarray(ROWS)}, KEY))
    assert f"unroll={4 if jax.default_backend() == 'cpu' else 1}" in text


def test_what_is_frozen_has_no_gradient_and_is_seen_by_the_objective():
    e = experiment(rates=(("b", 0.0),))
    found = program.gradient(e, state_of(e), {"x": jnp.asarray(ROWS)}, KEY)
    assert found.grads["b"] is None
    np.testing.assert_allclose(found.grads["w"], ROWS.mean(0))
    assert float(found.loss) == pytest.approx(means([1] * 4)[0])


GRADS = {"w": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(-4.0)}  # of norm 5
FOUND = Gradient(jnp.float32(1.0), GRADS, {"calls": {"n": jnp.float32(8)}}, {})
UPDATES = {  # fields: the updates of w and b at a rate of 0.5
    "plain": ({}, [-1.5, 0], 2),
    "clipped": ({"clip_norm": 1.0}, [-0.3, 0], 0.4),
    "short enough": ({"clip_norm": 6.0}, [-1.5, 0], 2),
    "rates": ({"rates": (("b", 0.5), ("w", 2.0))}, [-3, 0], 1),
    "frozen": ({"rates": (("b", 0.0),)}, [-1.5, 0], 0),
    "scheduled": ({"schedule": lambda progress: 1 - progress}, [-0.375, 0], 0.5),  # at 3 of 4
    "scheduled by a plain number": ({"schedule": lambda progress: 0.25}, [-0.375, 0], 0.5),
}


@pytest.mark.parametrize("name", UPDATES)
def test_an_update_is_what_the_optimizer_says_times_schedule_and_rates(name):
    fields, w, b = UPDATES[name]
    e = experiment(**fields)
    grads = {**GRADS, "b": None} if name == "frozen" else GRADS
    before = state_of(e)
    after, numbers = program.update(e, before, FOUND._replace(grads=grads), steps=4)
    np.testing.assert_allclose(after.params["w"] - before.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(after.params["b"] - before.params["b"], b, rtol=1e-5)
    assert float(after.model_state["calls"]["n"]) == 8
    assert (int(after.step), after.ema, after.ema_state) == (3, None, None)
    assert float(numbers["grad_norm"]) == pytest.approx(3 if name == "frozen" else 5)
    assert float(numbers["update_norm"]) == pytest.approx(np.hypot(w[0], b), rel=1e-5)
    length = np.sqrt((2 + w[0]) ** 2 + 1 + (10 + b) ** 2)
    assert float(numbers["param_norm"]) == pytest.approx(length, rel=1e-5)
    rate = 0.125 if name.startswith("scheduled") else 0.5
    assert float(numbers["learning_rate"]) == pytest.approx(rate)
    assert "schedule" not in numbers


def test_without_a_rate_in_the_state_the_schedule_is_logged():
    e = experiment(schedule=lambda progress: 1 - progress)
    _, numbers = program.update(e, state_of(e, hyperparams={}), FOUND, steps=4)
    assert float(numbers["schedule"]) == 0.25
    assert "learning_rate" not in numbers


def test_averages_take_the_new_weights_and_statistics():
    """(1 + 3) / (10 + 3) of the old ones after three updates; what is frozen stays as it is."""
    share = 4 / 13
    e = experiment(ema=0.9, rates=(("b", 0.0),))
    old = {"w": jnp.asarray([4.0, 1.0]), "b": jnp.asarray(10.0)}
    state = state_of(e, ema=old, ema_state={"calls": {"n": jnp.float32(4)}})
    found = FOUND._replace(grads={**GRADS, "b": None})
    after, _ = program.update(e, state, found, steps=4)
    np.testing.assert_allclose(after.ema["w"], [4 * share + 0.5 * (1 - share), 1], rtol=1e-5)
    assert float(after.ema["b"]) == 10
    assert float(after.ema_state["calls"]["n"]) == pytest.approx(4 * share + 8 * (1 - share))


def test_an_optimizer_that_asks_gets_the_loss_the_gradient_and_its_factor():
    def apply(updates, state, params, *, value, grad, scale):
        return {"w": grad["w"] + value, "b": scale["b"]}, state + 1

    asking = optax.GradientTransformationExtraArgs(lambda _: jnp.zeros(()), apply)
    e = experiment(optimizer=lambda: asking, clip_norm=0.5, rates=(("b", 3.0),))
    before = state_of(e)
    after, _ = program.update(e, before, FOUND, steps=4)
    np.testing.assert_allclose(after.params["w"] - before.params["w"], [4, 1])
    assert float(after.params["b"] - before.params["b"]) == 9
    assert float(after.opt_state) == 1


def test_there_is_another_look_where_there_is_the_batch():
    names = []

    def apply(updates, state, params, **more):
        names.append(set(more))
        return updates, state

    asking = optax.GradientTransformationExtraArgs(lambda _: jnp.zeros(()), apply)
    e = experiment(optimizer=lambda: asking)
    program.update(e, state_of(e), FOUND, steps=4)
    program.update(e, state_of(e), FOUND, steps=4, again=({"x": jnp.asarray(ROWS)}, KEY))
    plain = {"value", "grad", "scale"}
    assert names == [plain, plain | {"value_fn", "grad_fn"}]


@pytest.mark.parametrize("clip", [None, 0.5])
def test_an_optimizer_may_look_at_other_parameters_of_the_same_batch(clip):
    """At half the weights: the loss, its slope by JAX, and the gradient, clipped."""
    seen = {}

    def apply(updates, state, params, *, value_fn, grad_fn, **more):
        there = jax.tree.map(lambda p: p / 2, params)
        seen["value"] = value_fn(there)
        seen["slope"] = jax.grad(lambda p: 3 * value_fn(p))(there)
        seen["grad"] = grad_fn(there, 1)
        return updates, state

    asking = optax.GradientTransformationExtraArgs(lambda _: jnp.zeros(()), apply)
    e = experiment(optimizer=lambda: asking, clip_norm=clip, rates=(("b", 0.0),))
    batch = {"x": jnp.asarray(ROWS), "mask": jnp.asarray([1.0, 0, 1, 0])}
    found = FOUND._replace(grads={**GRADS, "b": None})
    program.update(e, state_of(e), found, steps=4, again=(batch, KEY))
    assert float(seen["value"]) == pytest.approx(np.mean(ROWS[::2] @ [1, 0.5]) + 10)
    np.testing.assert_allclose(seen["slope"]["w"], 3 * ROWS[::2].mean(0), rtol=1e-5)
    slope = ROWS[::2].mean(0)
    length = 1 if clip is None else clip / np.linalg.norm(slope)
    np.testing.assert_allclose(seen["grad"]["w"], slope * length, rtol=1e-5)
    assert seen["grad"]["b"] is None


@pytest.mark.parametrize("live, finite", [(True, True), (True, False), (False, True)])
def test_a_step_is_taken_and_counted_while_all_is_finite(live, finite):
    e = experiment()
    before = state_of(e, live=jnp.asarray(live))
    after = before.replace(params={"w": jnp.zeros(2), "b": jnp.asarray(jnp.nan)})
    found = program.advance(before, after, finite=jnp.asarray(finite))
    taken = live and finite
    assert bool(found.live) == taken
    assert int(found.step) == (4 if taken else 3)
    np.testing.assert_array_equal(found.params["w"], [0, 0] if taken else [2, 1])
    assert bool(jnp.isnan(found.params["b"])) == taken
    assert found.hyperparams == before.hyperparams


def test_what_a_state_is_evaluated_with():
    e, average = experiment(), {"w": jnp.zeros(2), "b": jnp.zeros(())}
    state = state_of(e)
    assert program.evaluation_variables(state) == {"params": state.params, **state.model_state}
    averaged = state.replace(ema=average, ema_state={"calls": {"n": 5}})
    expected = {"params": average, "calls": {"n": 5}}
    assert program.evaluation_variables(averaged) == expected
    assert program.evaluation_variables(state.replace(ema=average)) == {"params": average}
    e = experiment(optimizer=lambda: optimizers.lookahead(optax.sgd(0.1)))
    looking = state_of(e)
    slow = looking.replace(opt_state=looking.opt_state._replace(slow=average))
    assert program.evaluation_variables(slow) == {"params": average, **state.model_state}


def test_the_optimizers_state_has_no_weak_types():
    """One that turned strong after a step would compile that step again; keys stay keys."""

    def apply(updates, state, params=None):
        return updates, {"number": state["number"] * 2, "key": state["key"]}

    kept = optax.GradientTransformation(lambda _: {"number": 0.5, "key": KEY}, apply)
    made = program.make_optimizer(experiment(optimizer=lambda: kept))
    state = made.init({"w": jnp.ones(2)})
    for value in (0.5, 1.0, 2.0):
        assert float(state["number"]) == value
        assert not state["number"].weak_type
        assert jnp.issubdtype(state["key"].dtype, jax.dtypes.prng_key)
        _, state = jax.jit(made.update)({"w": jnp.ones(2)}, state)


def test_optimizers_that_cannot_be_made_are_refused():
    def rounded(learning_rate, times):
        return optax.sgd(learning_rate * int(times))

    def made(e, numbers):
        return program.make_optimizer(program.with_numbers(e, numbers)).init({"w": jnp.ones(2)})

    e = experiment(optimizer=partial(rounded, learning_rate=0.5, times=2.0))
    numbers = {"optimizer.times": jnp.float32(2.0)}
    with pytest.raises(ConfigError, match="its numbers times lie in the training state"):
        jax.eval_shape(partial(made, e), numbers)
    by_itself = experiment(optimizer=lambda: optax.sgd(float(jnp.ones(()))))  # traced in a step
    with pytest.raises(ConfigError, match="must know one of them when it is made"):
        jax.eval_shape(partial(made, by_itself), {})
    with pytest.raises(ConfigError, match="optimizer: lacks learning_rate"):
        program.make_optimizer(experiment(optimizer=optax.adam))
    with pytest.raises(ConfigError, match="optimizer: gives None"):
        program.make_optimizer(experiment(optimizer=lambda: None))
