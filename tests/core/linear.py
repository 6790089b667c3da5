"""A program without a network, for tests: the loss of a row is a few numbers times its own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.core import program, schedules
from jaxcnn.core.program import State
from tests.tiny import tiny

KEY = jax.random.key(0)
# of which each loss is x · w + b, so that the gradient is their mean
ROWS = np.float32([[1, 0], [3, 2], [5, 4], [7, -6]])


def objective(e, variables, batch, key):
    """Counts its calls, and logs two numbers."""
    loss = batch["x"] @ variables["params"]["w"] + variables["params"]["b"]
    calls = {"calls": {"n": variables["calls"]["n"] + 1}}
    return loss, calls, {"first": batch["x"][0, 0], "draw": jax.random.uniform(key)}


def experiment(**fields):
    plain = {
        "objective": objective,
        "schedule": schedules.constant,
        "clip_norm": None,
        "ema": None,
        "optimizer": partial(optax.sgd, learning_rate=0.5),
    }
    return tiny(**{**plain, **fields})


def state_of(e, **fields):
    params = {"w": jnp.asarray([2.0, 1.0]), "b": jnp.asarray(10.0)}
    trained = {k: v for k, v in params.items() if (k, 0.0) not in e.rates}
    plain = State(
        step=jnp.int32(3),
        params=params,
        model_state={"calls": {"n": jnp.float32(0)}},
        opt_state=program.make_optimizer(e).init({**dict.fromkeys(params), **trained}),
        key=KEY,
        hyperparams={"optimizer.learning_rate": jnp.float32(0.5)},
        ema=None,
        ema_state=None,
        live=jnp.asarray(True),
    )
    return plain.replace(**fields)
