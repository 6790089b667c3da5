"""The training step against PyTorch and against itself: what one step means."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core import schedules
from jaxcnn.core.program import make_program
from jaxcnn.core.transforms import compile, scan, scored
from jaxcnn.data.memory import Arrays
from tests.tiny import TinyNet, arrays, tiny


def batches(e, count):
    source = e.data.open("train")
    return [
        source.take(np.arange(i * e.batch_size, (i + 1) * e.batch_size) % len(source))
        for i in range(count)
    ]


def steps_of(e, count=3, hyperparams=None):
    program = compile(make_program(e, steps=e.steps))
    state = program.init(jax.random.key(e.seed), hyperparams)
    for batch in batches(e, count):
        state, metrics = program.train_step(state, batch)
    return state, metrics


def difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


class Linear(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        return nn.Dense(3)(image.reshape(image.shape[0], -1))


def test_five_steps_equal_pytorch():
    torch = pytest.importorskip("torch")
    e = tiny(
        model=Linear(),
        optimizer=partial(optax.sgd, learning_rate=0.1, momentum=0.9),
        augment=(),
        ema=None,
        clip_norm=0.5,
    )
    e = dataclasses.replace(e, schedule=partial(schedules.linear))
    program = compile(make_program(e, steps=e.steps))
    state = program.init(jax.random.key(0))
    layer = torch.nn.Linear(64, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.asarray(state.params["Dense_0"]["kernel"]).T))
        layer.bias.copy_(torch.tensor(np.asarray(state.params["Dense_0"]["bias"])))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    velocity_free_rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1 - step / e.steps
    )
    for batch in batches(e, 5):
        image = torch.tensor(np.asarray(batch["image"])).float().reshape(8, -1) / 255
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            layer(image), torch.tensor(np.asarray(batch["label"])).long()
        )
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(layer.parameters(), 0.5)
        optimizer.step()
        velocity_free_rate.step()
        state, metrics = program.train_step(state, batch)
        np.testing.assert_allclose(metrics["loss"], loss.item(), rtol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], norm.item(), rtol=1e-5)
    np.testing.assert_allclose(
        state.params["Dense_0"]["kernel"], layer.weight.detach().numpy().T, atol=1e-6
    )


def test_numbers_in_the_state_mean_the_same_as_numbers_in_the_experiment():
    written = tiny(optimizer=partial(optax.adamw, learning_rate=0.03, weight_decay=0.2))
    given = tiny(optimizer=partial(optax.adamw, learning_rate=0.01, weight_decay=0.01))
    a, _ = steps_of(written)
    b, _ = steps_of(
        given, hyperparams={"optimizer.learning_rate": 0.03, "optimizer.weight_decay": 0.2}
    )
    c, _ = steps_of(given)
    assert difference(a.params, b.params) == 0
    assert difference(a.params, c.params) > 1e-3


def test_a_number_of_the_task_can_live_in_the_state():
    smoothed = tiny()
    smoothed = dataclasses.replace(
        smoothed, task=dataclasses.replace(smoothed.task, label_smoothing=0.2)
    )
    a, _ = steps_of(smoothed)
    b, _ = steps_of(tiny(), hyperparams={"task.label_smoothing": 0.2})
    assert difference(a.params, b.params) < 1e-6


def test_micro_batches_add_up_to_the_whole_gradient():
    plain = tiny(model=Linear(), optimizer=partial(optax.sgd, learning_rate=0.1), augment=())
    a, _ = steps_of(plain)
    b, _ = steps_of(dataclasses.replace(plain, accumulate=4))
    assert difference(a.params, b.params) < 1e-6


def test_a_step_that_is_not_finite_is_not_taken_nor_any_after_it():
    e = tiny(model=Linear(), augment=())
    program = compile(make_program(e, steps=e.steps))
    state = program.init(jax.random.key(0))
    good, bad = batches(e, 2)
    bad = {**bad, "image": jnp.full(bad["image"].shape, jnp.nan)}
    state, _ = program.train_step(state, good)
    before = jax.device_get(state.params)
    state, _ = program.train_step(state, bad)
    assert not state.live
    state, _ = program.train_step(state, good)
    assert not state.live
    assert int(state.step) == 1
    assert difference(before, state.params) == 0


def test_bfloat16_computes_low_and_keeps_float32():
    with jax.numpy_dtype_promotion("standard"):  # Flax's BatchNorm relies on it
        check_bfloat16()


def check_bfloat16():
    seen = []

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, image, *, train):
            x = nn.BatchNorm(use_running_average=not train)(
                nn.Conv(4, (3, 3), use_bias=False)(image)
            )
            seen.append((image.dtype, x.dtype))
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    e = tiny(model=Spy(), compute_dtype="bfloat16")
    low, low_metrics = steps_of(e)
    assert (jnp.bfloat16, jnp.bfloat16) in seen
    assert {x.dtype for x in jax.tree.leaves((low.params, low.model_state, low.opt_state))} <= {
        jnp.dtype("float32"),
        jnp.dtype("int32"),
    }
    _, high_metrics = steps_of(dataclasses.replace(e, compute_dtype="float32"))
    np.testing.assert_allclose(low_metrics["loss"], high_metrics["loss"], rtol=0.05)


def test_evaluation_uses_the_average_of_the_weights():
    e = tiny(ema=0.5)
    state, _ = steps_of(e)
    batch = batches(e, 1)[0]
    plain = dataclasses.replace(e, ema=None)

    def loss(experiment, state):
        program = scored(make_program(experiment, steps=12), experiment)
        return program.output_step(state, batch)[0]["loss"]

    averaged = loss(e, state)
    raw = {"ema": None, "ema_state": None}
    own = {**raw, "params": state.ema, "model_state": state.ema_state}
    assert averaged == loss(plain, state.replace(**own))
    assert averaged != loss(plain, state.replace(**raw))
    assert averaged != loss(plain, state.replace(**raw, params=state.ema)), "statistics of its own"


def test_weights_and_statistics_are_averaged():
    """By hand, from those after each step."""
    e = tiny(ema=0.5)
    program = compile(make_program(e, steps=12))
    state = program.init(jax.random.key(0))
    means, kernels = np.zeros(4), np.asarray(state.params["Dense_0"]["kernel"], np.float64)
    for i, batch in enumerate(batches(e, 4)):
        state, _ = program.train_step(state, batch)
        share = min(0.5, (1 + i) / (10 + i))
        now = np.asarray(state.model_state["batch_stats"]["BatchNorm_0"]["mean"], np.float64)
        means = share * means + (1 - share) * now
        kernel = np.asarray(state.params["Dense_0"]["kernel"], np.float64)
        kernels = share * kernels + (1 - share) * kernel
    averaged = state.ema_state["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(averaged, means, atol=1e-6)
    assert np.abs(means - now).max() > 1e-4
    np.testing.assert_allclose(state.ema["Dense_0"]["kernel"], kernels, atol=1e-6)
    assert np.abs(kernels - kernel).max() > 1e-4


def test_scanned_steps_equal_single_steps():
    e = tiny(model=TinyNet(dropout=0.0))
    single, _ = steps_of(e, 4)
    program = compile(scan(make_program(e, steps=e.steps)))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches(e, 4))
    scanned, metrics = program.train_step(program.init(jax.random.key(0)), stacked)
    assert metrics["loss"].shape == (4,)
    assert difference(single.params, scanned.params) < 1e-4


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    a, b, c = steps_of(tiny())[0], steps_of(tiny())[0], steps_of(tiny(seed=1))[0]
    assert difference(a.params, b.params) == 0
    assert difference(a.params, c.params) > 0


def test_learning_happens():
    e = tiny(
        data=Arrays(train=arrays(400), eval=arrays(90, seed=1)),
        steps=150,
        batch_size=16,
        optimizer=partial(optax.adam, learning_rate=0.02),
    )
    program = compile(make_program(e, steps=e.steps))
    state, _ = steps_of(e, 150)
    sums, _ = scored(program, e).output_step(state, e.data.open("eval").take(np.arange(90)))
    assert int(sums["correct"]) >= 81
