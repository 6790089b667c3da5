"""Optimizers that ask for more than a gradient: the loss, other points of the batch, the factor of
their update. Each in whole runs, and by its definition or somebody else's numbers.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.special
from flax import linen as nn

import jaxcnn
from jaxcnn.core import optimizers, schedules
from jaxcnn.core.program import Gradient, evaluation_variables, gradient, make_program, update
from jaxcnn.core.transforms import compile
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import Preempted
from tests.tiny import arrays, fit, stop_at, tiny


class Linear(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        return nn.Dense(3)(image.reshape(image.shape[0], -1))


class Small(nn.Module):
    """For Muon: a convolution between two others."""

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2), name="stem")(image))
        x = nn.relu(nn.Conv(6, (3, 3), name="middle")(x))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def plateau(learning_rate, *, patience=2):
    halved = optax.contrib.reduce_on_plateau(factor=0.5, patience=patience)
    return optax.chain(optax.sgd(learning_rate), halved)


def sam(learning_rate, *, rho=0.05, opaque):
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
    return optax.contrib.sam(optax.sgd(learning_rate), ascent, opaque_mode=opaque)


def lookahead(learning_rate, *, share=0.5, momentum=0.9):
    return optimizers.lookahead(optax.sgd(learning_rate, momentum), period=3, share=share)


def clipped_lbfgs(learning_rate):
    """In a chain every extra argument reaches the line search."""
    return optax.chain(optax.clip(1.0), optax.lbfgs(learning_rate))


OPTIMIZERS = {
    "lbfgs": partial(optax.lbfgs, learning_rate=1.0),
    "lbfgs in a chain": partial(clipped_lbfgs, learning_rate=1.0),
    "polyak": partial(optax.polyak_sgd, max_learning_rate=0.5),
    "plateau": partial(plateau, learning_rate=0.2),
    "sam, opaque": partial(sam, learning_rate=0.2, opaque=True),
    "sam, in turns": partial(sam, learning_rate=0.2, opaque=False),
    "schedule-free sgd": partial(optax.contrib.schedule_free_sgd, learning_rate=0.2),
    "schedule-free adamw": partial(optax.contrib.schedule_free_adamw, learning_rate=0.02),
    "lookahead": partial(lookahead, learning_rate=0.1),
    "muon": partial(optimizers.muon, learning_rate=0.02, adam=("^stem/", "^head/")),
}
FEW = ("lbfgs", "sam, in turns", "schedule-free adamw", "lookahead")
UNSCALED = ("sam, in turns", "schedule-free sgd", "schedule-free adamw")


def experiment(optimizer, **fields):
    """Five updates of a linear model, of the convolutions for Muon."""
    muon = isinstance(optimizer, partial) and optimizer.func is optimizers.muon
    plain = {
        "model": Small() if muon else Linear(),
        "augment": (),
        "ema": None,
        "clip_norm": None,
        "schedule": schedules.constant,
        "steps": 5,
        "eval_every": 100.0,
    }
    return tiny(**{"optimizer": optimizer, **plain, **fields})


def run_of(name, **fields):
    factor = {} if name in UNSCALED else {"schedule": schedules.cosine}
    return experiment(OPTIMIZERS[name], clip_norm=1.0, **factor, **fields)


def batches(e, count):
    source = e.data.open("train")
    rows = np.arange(count * e.batch_size) % len(source)
    return [source.take(part) for part in np.split(rows, count)]


def states(e, count=5):
    """The states from the first on, on the host."""
    program = compile(make_program(e, steps=e.steps))
    found = [program.init(jax.random.key(0))]
    for batch in batches(e, count):
        kept = jax.device_get(found[-1])
        found[-1], state = kept, program.train_step(found[-1], batch)[0]
        found.append(state)
    return found


def weights(state):
    return np.asarray(state.params["Dense_0"]["kernel"], np.float64)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FEW else pytest.mark.slow)  # ten seconds each
        for name in OPTIMIZERS
    ],
)
def test_runs_resume_to_the_same_bits_and_replicas_equal_solo_runs(name, tmp_path):
    """With a swept number of each, under clipping, and a schedule where that makes sense."""
    whole = jaxcnn.train(run_of(name), tmp_path / "whole", quiet=True)
    with pytest.raises(Preempted):
        fit(run_of(name), tmp_path / "parts", observe=[stop_at(3)])
    parts = fit(run_of(name), tmp_path / "parts", resume=True)
    assert whole.summary["state_sha256"] == parts["state_sha256"]

    (path,) = (f"optimizer.{k}" for k, v in OPTIMIZERS[name].keywords.items() if type(v) is float)
    value = OPTIMIZERS[name].keywords[path.removeprefix("optimizer.")]
    points = [{path: value}, {path: value / 4}]
    sweep = jaxcnn.train(run_of(name), tmp_path / "sweep", points=points, way="vmap", quiet=True)
    first, second = (r.state.params for r in sweep.replicas)
    for a, b in zip(*map(jax.tree.leaves, (whole.state.params, first)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    pairs = zip(*map(jax.tree.leaves, (first, second)), strict=True)
    moved = [np.abs(a - b).max() for a, b in pairs]
    # a line search finds its own step, whatever the first guess
    assert max(moved) > 1e-4 or "lbfgs" in name


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_loss_of_other_weights_is_that_of_the_step_and_so_is_its_gradient(accumulate):
    """Seen by an optimizer whose update is minus the gradient of value_fn at the weights."""

    def apply(grads, state, params, *, value, grad, value_fn, **more):
        again, slope = jax.value_and_grad(value_fn)(params)
        gap = optax.tree.norm(optax.tree.sub(slope, grad)) + abs(again - value)
        return jax.tree.map(lambda g: -g, slope), gap

    watch = optax.GradientTransformationExtraArgs(lambda _: jnp.zeros((), jnp.float32), apply)
    e = experiment(lambda: watch, accumulate=accumulate, clip_norm=1e-3)
    before, after = states(e, 1)
    slope = loss_and_slope(e, before, batches(e, 1)[0])[1]
    assert float(after.opt_state) < 1e-6
    np.testing.assert_allclose(weights(after), weights(before) - slope["kernel"], atol=1e-6)


DATA = Arrays(train=arrays(40), eval=arrays(8, seed=1))


def decayed(e, variables, batch, key):
    """Logistic regression with an L2 penalty, so that there is one minimum."""
    losses, collections, numbers = jaxcnn.supervised(e, variables, batch, key)
    squares = optax.tree.norm(variables["params"], squared=True)
    return losses + 0.05 * squares, collections, numbers


@pytest.mark.parametrize("accumulate", [1, 4])
def test_lbfgs_finds_the_minimum_that_scipy_finds(accumulate):
    e = experiment(
        partial(optax.lbfgs, memory_size=10),
        data=DATA,
        batch_size=40,
        steps=40,
        objective=decayed,
        accumulate=accumulate,
    )
    last = states(e, 40)[-1]
    rows = DATA.open("train").take(np.arange(40))
    images = np.asarray(rows["image"], np.float64).reshape(40, -1) / 255
    labels = np.asarray(rows["label"])

    def loss(flat):
        flat = flat.reshape(65, 3)
        logits = images @ flat[:64] + flat[64]
        logs = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
        residual = np.exp(logs) - np.eye(3)[labels]
        slope = np.vstack([images.T @ residual, residual.sum(0)]) / 40 + 0.1 * flat
        value = -logs[np.arange(40), labels].mean() + 0.05 * (flat**2).sum()
        return value, slope.ravel()

    theirs = scipy.optimize.minimize(loss, np.zeros(65 * 3), jac=True, method="L-BFGS-B", tol=1e-12)
    ours = np.concatenate([weights(last).ravel(), last.params["Dense_0"]["bias"]])
    assert loss(ours)[0] == pytest.approx(theirs.fun, rel=1e-6)
    np.testing.assert_allclose(ours, theirs.x, atol=2e-3)


def loss_and_slope(e, state, batch):
    """Of the kernel and the bias, by the piece that the program is made of."""
    found = gradient(e, state, batch, jax.random.key(0))
    return float(found.loss), {k: np.asarray(v) for k, v in found.grads["Dense_0"].items()}


def norm_of(slope):
    return np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in slope.values()))


@pytest.mark.parametrize("bound", [0.01, 100.0])
def test_polyak_steps_by_its_formula(bound):
    """N. Loizou et al. 2021, equation 4 with c = 1: min((f - f*) / |∇f|², bound)."""
    e = experiment(partial(optax.polyak_sgd, max_learning_rate=bound, f_min=0.1))
    found = states(e, 3)
    seen = []
    for before, after, batch in zip(found, found[1:], batches(e, 3), strict=False):
        value, slope = loss_and_slope(e, before, batch)
        seen.append(min((value - 0.1) / norm_of(slope) ** 2, bound))
        np.testing.assert_allclose(
            weights(after), weights(before) - seen[-1] * slope["kernel"], atol=1e-6
        )
    assert all((step == bound) == (bound < 1) for step in seen)


def test_a_plateau_halves_the_rate_when_it_should():
    """By losses made by hand: two in a row that are no better than the best halve it."""
    e = experiment(partial(plateau, learning_rate=1.0, patience=2), steps=9)
    state = make_program(e, steps=9).init(jax.random.key(0))
    ones = jax.tree.map(jnp.ones_like, state.params)
    step = jax.jit(lambda s, v: update(e, s, Gradient(v, ones, {}, {}), steps=9)[0])
    losses = [3.0, 2.0, 2.0, 1.0, 1.5, 1.5, 1.5, 0.5, 0.4]
    rates = [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    for loss, rate in zip(losses, rates, strict=True):
        before, state = weights(state), step(state, jnp.float32(loss))
        np.testing.assert_allclose(before - weights(state), rate, rtol=1e-5)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_sam_descends_by_the_gradient_uphill(clip):
    """P. Foret et al. 2021, algorithm 1: the gradient at w + rho g / |g|, on the same batch; the
    gradients are clipped as they are everywhere.
    """
    optimizer = partial(sam, learning_rate=0.2, opaque=True)
    e = experiment(optimizer, clip_norm=clip, schedule=schedules.linear)
    before, after = states(e, 1)
    (batch,) = batches(e, 1)
    slope = loss_and_slope(e, before, batch)[1]
    uphill = {k: before.params["Dense_0"][k] + 0.05 * g / norm_of(slope) for k, g in slope.items()}
    uphill = {k: jnp.asarray(v, jnp.float32) for k, v in uphill.items()}
    there = loss_and_slope(e, before.replace(params={"Dense_0": uphill}), batch)[1]
    shrink = 1.0 if clip is None else min(1.0, clip / norm_of(there))
    by_hand = weights(before) - 0.2 * shrink * there["kernel"]
    np.testing.assert_allclose(weights(after), by_hand, atol=1e-6)
    assert np.abs(there["kernel"] - slope["kernel"]).max() > 1e-4


def test_sam_in_turns_is_evaluated_where_it_descends():
    """Odd states lie uphill of those that are evaluated; two of its steps are one of the above if
    the batch is the same.
    """
    e = experiment(
        partial(sam, learning_rate=0.2, opaque=False),
        data=Arrays(train=arrays(8), eval=arrays(8)),
    )
    once = experiment(partial(sam, learning_rate=0.2, opaque=True), data=e.data)
    turns, steps = states(e, 4), states(once, 2)
    for i, state in enumerate(turns):
        at = evaluation_variables(state)["params"]["Dense_0"]["kernel"]
        np.testing.assert_allclose(at, weights(steps[i // 2]), atol=1e-6)
        away = np.linalg.norm(weights(state) - at)
        assert (away > 0.01) == (i % 2 == 1)


def test_schedule_free_is_evaluated_at_its_average():
    """A. Defazio et al. 2024, equations 2 to 4, in NumPy: y between z and x, z descends, x is the
    mean of the z.
    """
    e = experiment(partial(optax.contrib.schedule_free_sgd, learning_rate=0.5, b1=0.8), steps=6)
    found, beta = states(e, 6), 0.8
    z = x = weights(found[0])
    for t, (before, after, batch) in enumerate(zip(found, found[1:], batches(e, 6), strict=False)):
        np.testing.assert_allclose(weights(before), (1 - beta) * z + beta * x, atol=1e-5)
        z = z - 0.5 * loss_and_slope(e, before, batch)[1]["kernel"]
        x = x + (z - x) / (t + 1)
        at = evaluation_variables(after)["params"]["Dense_0"]["kernel"]
        np.testing.assert_allclose(at, x, atol=1e-5)
    assert np.abs(weights(found[-1]) - x).max() > 1e-3


def test_schedule_free_leaves_what_is_frozen():
    e = experiment(OPTIMIZERS["schedule-free sgd"], rates=(("bias", 0.0), ("kernel", 1.0)))
    first, *_, last = states(e, 3)
    at = evaluation_variables(last)["params"]["Dense_0"]
    np.testing.assert_array_equal(at["bias"], first.params["Dense_0"]["bias"])


def middle(progress):
    """A schedule that is 0 at some steps, small at others."""
    return jnp.where(jnp.abs(progress - 0.5) < 0.2, 0.0, 1.001 - progress)


@pytest.mark.parametrize(
    "schedule", [schedules.constant, schedules.cosine, middle], ids=["constant", "cosine", "middle"]
)
def test_lookahead_equals_a_loop_in_numpy(schedule):
    """M. R. Zhang et al. 2019, algorithm 1, with momentum inside; the bias at a tenth of the rate.
    Steps of rate 0 move nothing and do not count.
    """
    e = experiment(
        partial(lookahead, learning_rate=0.3, share=0.4),
        schedule=schedule,
        rates=(("bias", 0.1),),
        steps=12,
    )
    found = states(e, 12)
    fast = {k: np.asarray(v, np.float64) for k, v in found[0].params["Dense_0"].items()}
    slow, velocity, count = dict(fast), dict.fromkeys(fast, 0.0), 0
    for i, (before, after, batch) in enumerate(zip(found, found[1:], batches(e, 12), strict=False)):
        slope = loss_and_slope(e, before, batch)[1]
        factor = float(schedule(jnp.float32(i / 12)))
        count += factor != 0
        for k, rate in (("kernel", 0.3), ("bias", 0.03)):
            velocity[k] = 0.9 * velocity[k] + slope[k]
            fast[k] = fast[k] - factor * rate * velocity[k]
            if count and count % 3 == 0 and factor:
                slow[k] = slow[k] + 0.4 * (fast[k] - slow[k])
                fast[k] = slow[k]
            np.testing.assert_allclose(after.params["Dense_0"][k], fast[k], atol=1e-5)
            at = evaluation_variables(after)["params"]["Dense_0"][k]
            np.testing.assert_allclose(at, slow[k], atol=1e-5)
    assert count >= 6


def test_lookahead_hands_on_what_its_inner_optimizer_asks_for():
    inner = optimizers.lookahead(sam(0.1, opaque=True), period=2)
    e = experiment(lambda: inner, steps=4)
    assert np.isfinite(weights(states(e, 4)[-1])).all()
