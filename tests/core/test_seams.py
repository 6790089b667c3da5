"""The open step: objectives and programs of one's own, what they may do and what is refused."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core.forward import apply_model, prepare
from jaxcnn.core.program import (
    advance,
    descend,
    gradient,
    make_optimizer,
    make_program,
    supervised,
    update,
)
from jaxcnn.core.protocols import Program
from jaxcnn.core.transforms import compile, scored
from jaxcnn.errors import ConfigError
from jaxcnn.runs.check import abstract_state
from jaxcnn.tasks.classification import Classification
from jaxcnn.tasks.task import BaseTask
from tests.tiny import TinyNet, fit, tiny


def batch_of(e, count=8):
    return e.data.open("train").take(np.arange(count))


def one_step(e, state=None):
    program = compile(make_program(e, steps=12))
    state = program.init(jax.random.key(0)) if state is None else state
    return program.train_step(state, batch_of(e))


def largest(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


def test_the_default_objective_written_out_is_the_default_objective():
    plain, numbers = one_step(tiny())
    written, again = one_step(tiny(objective=supervised))
    assert largest(plain.params, written.params) == 0
    assert numbers.keys() == again.keys()


def test_an_objective_of_two_terms_has_the_gradient_of_their_sum():
    """Weight decay as a part of the loss against weight decay in the optimizer."""

    def decayed(e, variables, batch, key):
        loss, collections, _ = supervised(e, variables, batch, key)
        squares = optax.tree.norm(variables["params"], squared=True)
        return loss + 0.05 * squares, collections, {"squares": squares}

    sgd = partial(optax.sgd, learning_rate=0.1)
    with_decay = partial(
        lambda learning_rate: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(learning_rate)),
        learning_rate=0.1,
    )
    common = {"clip_norm": None, "ema": None}
    by_loss, numbers = one_step(tiny(objective=decayed, optimizer=sgd, **common))
    by_optimizer, _ = one_step(tiny(optimizer=with_decay, **common))
    assert largest(by_loss.params, by_optimizer.params) < 1e-6
    start = compile(make_program(tiny(), steps=12)).init(jax.random.key(0)).params
    np.testing.assert_allclose(numbers["squares"], optax.tree.norm(start, squared=True), rtol=1e-6)


@pytest.mark.parametrize(
    "result, message",
    [
        (
            lambda loss: (loss.mean(), {}),
            r"loss has shape \[\]; it must be one number a row, \[8\]",
        ),
        (lambda loss: (loss[:3], {}), r"loss has shape \[3\]"),
        (lambda loss: (loss[:, None], {}), r"loss has shape \[8, 1\]"),
        (lambda loss: (loss, {"each": loss}), r"logs 'each' of shape \[8\]"),
        (lambda loss: (loss, {"step": loss.mean()}), "logs 'step', a name that every record has"),
        (lambda loss: (loss, {"schedule": loss.mean()}), "logs 'schedule', a name"),
    ],
)
def test_an_objective_of_a_wrong_form_is_refused_before_training(tmp_path, result, message):
    def wrong(e, variables, batch, key):
        loss, collections, _ = supervised(e, variables, batch, key)
        loss, numbers = result(loss)
        return loss, collections, numbers

    with pytest.raises(ConfigError, match=f"wrong: .*{message}"):
        fit(tiny(objective=wrong), tmp_path / "run")
    with pytest.raises(ConfigError, match="wrong: "):  # its twin with micro-batches
        fit(tiny(objective=wrong, accumulate=2), tmp_path / "other")


def test_a_number_that_is_not_finite_is_logged_as_null_and_said(tmp_path):
    from jaxcnn.runs.train import train
    from tests.tiny import Lines

    def half(e, variables, batch, key):
        loss, collections, _ = supervised(e, variables, batch, key)
        return loss, collections, {"ratio": jnp.zeros(()) / 0.0, "fine": jnp.ones(())}

    console = Lines()
    run = train(tiny(objective=half), tmp_path, console=console)
    rows = [r for r in run.history if r["kind"] == "train"]
    assert [r["ratio"] for r in rows] == [None] * 12
    assert [r["fine"] for r in rows] == [1.0] * 12
    assert sum("'ratio' is not finite" in line for line in console.lines) == 1


def test_what_is_logged(tmp_path):
    """Rate in force, norms and running accuracy, against their definitions."""
    from jaxcnn.runs.train import train

    e = tiny(optimizer=partial(optax.sgd, learning_rate=0.1), clip_norm=None, ema=None)
    program = compile(make_program(e, steps=12))
    state = program.init(jax.random.key(0))
    before = jax.device_get(state.params)
    run = train(e, tmp_path, quiet=True)
    first = next(r for r in run.history if r["kind"] == "train")
    assert first["learning_rate"] == pytest.approx(0.1 / 2.4)  # the first of a warm-up of 2.4
    from jaxcnn.data.dataset import batch_indices

    batch = e.data.open("train").take(batch_indices(0, 0, size=50, batch_size=8))
    found = gradient(e, program.init(jax.random.key(0)), batch, jax.random.fold_in(state.key, 0))
    norm = float(optax.tree.norm(found.grads))
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert first["update_norm"] == pytest.approx(norm * first["learning_rate"], rel=1e-5, abs=1e-9)
    after = jax.tree.map(lambda x, g: x - first["learning_rate"] * g, before, found.grads)
    assert first["param_norm"] == pytest.approx(float(optax.tree.norm(after)), rel=1e-5)
    last = [r for r in run.history if r["kind"] == "train"][-1]
    assert last["learning_rate"] == pytest.approx(0.1 * float(e.schedule(jnp.asarray(11 / 12))))
    assert 0 <= last["accuracy"] <= 1


class Noisy(nn.Module):
    """Noise under a name of its own, in training and in evaluation."""

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.Dense(3)(image.reshape(image.shape[0], -1))
        return x + 0.1 * jax.random.normal(self.make_rng("anything"), x.shape)


def test_every_rng_name_works_and_evaluation_is_reproducible(tmp_path):
    e = tiny(model=Noisy(), ema=None)
    summary = fit(e, tmp_path)
    program = scored(make_program(e, steps=12), e)
    state = program.init(jax.random.key(0))
    batch = batch_of(e)
    a, b = (program.output_step(state, batch)[0]["loss"] for _ in range(2))
    other = program.output_step(state.replace(key=jax.random.key(9)), batch)[0]["loss"]
    assert a == b
    assert a != other
    assert summary["verdict"] == "completed"


def two_steps(e, *, steps):
    """A program of one's own: the update of the gradient half a step ahead."""
    whole = descend(e, steps=steps)

    def train_step(state, batch):
        key = jax.random.fold_in(state.key, state.step)
        there, _ = update(e, state, gradient(e, state, batch, key), steps=steps)
        middle = state.replace(
            params=jax.tree.map(lambda a, b: (a + b) / 2, state.params, there.params)
        )
        found = gradient(e, middle, batch, key)
        new, numbers = update(e, state, found, steps=steps)
        return advance(state, new, finite=jnp.isfinite(found.loss)), {"loss": found.loss, **numbers}

    return whole._replace(train_step=train_step)


def test_a_midpoint_step_is_its_definition():
    e = tiny(
        program=two_steps,
        optimizer=partial(optax.sgd, learning_rate=0.1),
        augment=(),
        clip_norm=None,
        ema=None,
        model=TinyNet(dropout=0.0),
        schedule=lambda progress: jnp.ones_like(progress),
    )
    state = make_program(e, steps=12).init(jax.random.key(0))
    batch = batch_of(e)

    def loss(params):
        variables = {"params": params, **state.model_state}
        ready = prepare(e, batch)
        outputs, _ = apply_model(e, variables, ready, train=True, mutable=True)
        return e.task.loss(outputs, ready).mean()

    middle = jax.tree.map(lambda p, g: p - 0.05 * g, state.params, jax.grad(loss)(state.params))
    want = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, jax.grad(loss)(middle))
    got, _ = one_step(e)
    assert largest(want, got.params) < 1e-6


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda p: p.init, "must return a Program"),
        (lambda p: p._replace(init=lambda *a: p.init(*a).replace(live=None)), "must have 'live'"),
        (
            lambda p: p._replace(init=lambda *a: p.init(*a).replace(step=jnp.zeros(()))),
            r"must have 'step', int32 \[\]; it has float32\[\]",
        ),
        (lambda p: p._replace(init=lambda *a: {"params": 1.0}), "must have 'step'"),
        (lambda p: p._replace(train_step=lambda s, b: (s, {"epoch": s.step})), "logs 'epoch'"),
        (lambda p: p._replace(train_step=lambda s, b: (s, b)), "logs 'image' of shape"),
    ],
)
def test_a_program_without_what_the_loop_needs_is_refused(tmp_path, change, message):
    e = tiny(program=lambda e, *, steps: change(descend(e, steps=steps)))
    with pytest.raises(ConfigError, match=message):
        fit(e, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "nothing is left behind"
    with pytest.raises(ConfigError, match=message):
        abstract_state(e)


def test_a_task_that_lacks_a_method_is_refused_when_it_is_named():
    class Half:
        inputs, metric, larger_is_better = ("image",), "loss", False

        def loss(self, outputs, batch):
            return outputs[:, 0]

        statistics = summarize = loss

    with pytest.raises(ConfigError, match=r"lacks .*records"):
        tiny(task=Half())


@dataclasses.dataclass(frozen=True)
class MeanSquare(BaseTask):
    """The smallest task: what the base class does not have."""

    inputs: tuple = ("image",)
    metric: str = "loss"
    larger_is_better: bool = False

    def loss(self, outputs, batch):
        return jnp.square(outputs).mean(-1)

    def statistics(self, outputs, batch):
        return {"loss": (self.loss(outputs, batch) * batch["mask"]).sum(), "n": batch["mask"].sum()}

    def summarize(self, sums, records):
        return {"loss": float(sums["loss"] / sums["n"])}


def test_the_smallest_task_trains(tmp_path):
    summary = fit(tiny(task=MeanSquare(), steps=12), tmp_path)
    assert summary["eval"]["loss"] < 1


def test_a_metric_that_summarize_does_not_give_is_named(tmp_path):
    with pytest.raises(ConfigError, match="metric 'auroc' is not among"):
        fit(tiny(task=MeanSquare(metric="auroc"), steps=2), tmp_path)


def test_accumulated_numbers_are_means():
    def counted(e, variables, batch, key):
        loss, collections, _ = supervised(e, variables, batch, key)
        return loss, collections, {"mean": batch["image"].astype(jnp.float32).mean()}

    e = tiny(objective=counted, accumulate=4, augment=())
    _, numbers = one_step(e)
    np.testing.assert_allclose(numbers["mean"], np.asarray(batch_of(e)["image"]).mean(), rtol=1e-6)


def test_the_model_may_take_what_a_transform_makes():
    """Inputs need not be entries of the data."""

    def inverted(batch):
        return {**batch, "negative": 1.0 - batch["image"]}

    e = tiny(transform=(inverted,), task=Classification(num_classes=3, inputs=("negative",)))
    assert abstract_state(e) is not None
    missing = dataclasses.replace(e, transform=())
    with pytest.raises(ConfigError, match=r"needs .*negative"):
        abstract_state(missing)


def test_programs_are_of_three_functions():
    assert Program._fields == ("init", "train_step", "output_step")
    assert isinstance(make_program(tiny(), steps=1), Program)
    assert isinstance(make_optimizer(tiny()), optax.GradientTransformationExtraArgs)
