"""What is refused when a step is made or traced: results of an objective of a wrong form, and
optimizers that the rest of the experiment would break.
"""

import inspect
from functools import partial
from types import FunctionType

import jax
import jax.numpy as jnp
import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Batch, Numbers, OptState
from jaxcnn.errors import ConfigError
from jaxcnn.tasks.task import BaseTask

# What every training record has, and what `descend` logs besides the numbers of the objective.
OF_RECORDS = ("kind", "step", "epoch", "seconds", "images_per_second", "replica")
OF_DESCENT = ("loss", "grad_norm", "param_norm", "update_norm", "learning_rate", "schedule")


def check_objective(e: Experiment, loss: jax.Array, numbers: Numbers, batch: Batch) -> None:
    """ConfigError for an objective's results of a wrong form; seen when the step is traced."""
    objective = e.objective.func if isinstance(e.objective, partial) else e.objective
    name = "the task's loss" if objective is None else type(objective).__name__
    if isinstance(objective, FunctionType):
        name = objective.__name__
    rows = next(iter(batch.values())).shape[0]
    if jnp.shape(loss) != (rows,):
        raise ConfigError(
            f"{name}: the loss has shape {list(jnp.shape(loss))}; it must be one number a row, "
            f"[{rows}], so that padding can be left out: return losses before any mean over rows"
        )
    check_numbers(name, numbers, taken=(*OF_RECORDS, *OF_DESCENT))


def check_mixed(e: Experiment, batch: Batch) -> None:
    """ConfigError for mixed pictures (mixup, cutmix) and a task whose truths stay those of one of
    the two; seen when the step is traced. A task that does not say is let pass.
    """
    if "label_b" in batch and isinstance(e.task, BaseTask) and not e.task.takes_mixed:
        raise ConfigError(
            f"augment: pictures are mixed ('label_b' is in the batch), and the loss of "
            f"{type(e.task).__name__} knows one picture's truth alone; leave mixup and cutmix out, "
            "or, in a task of your own that reads label_b and label_weight, say takes_mixed = True"
        )


def check_numbers(who: str, numbers: Numbers, *, taken: tuple[str, ...] = OF_RECORDS) -> None:
    """ConfigError for what cannot be logged: no scalar, or a name that is taken."""
    for key, value in dict(numbers).items():
        if jnp.shape(value) != ():
            raise ConfigError(
                f"{who}: logs {key!r} of shape {list(jnp.shape(value))}; what is logged is a "
                "single number: take its mean"
            )
        if key in taken:
            raise ConfigError(f"{who}: logs {key!r}, a name that every record has; choose another")


def check_complete(e: Experiment) -> None:
    """ConfigError for an optimizer that lacks a number."""
    try:
        parameters = inspect.signature(e.optimizer).parameters.values()
    except (ValueError, TypeError):  # not written in Python
        return
    required = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    if lacking := [p.name for p in required if p.default is p.empty]:
        raise ConfigError(
            f"optimizer: lacks {', '.join(lacking)}; give it, e.g. optimizer.{lacking[0]}=0.001"
        )


def check_made(made: object) -> None:
    """ConfigError for what an experiment's optimizer gives, if it is none."""
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise ConfigError(
            f"optimizer: gives {made!r}; it must give an optax.GradientTransformation, as "
            "partial(optax.adam, learning_rate=0.001) does"
        )


def check_factors(e: Experiment, opt_state: OptState) -> None:
    """ConfigError for factors of the update, and averages, that would break what the optimizer does
    by itself.
    """
    if optimizers.state_of(opt_state, optax.LookaheadState) is not None:
        raise ConfigError(
            "optimizer: optax.lookahead takes pairs of parameters; use "
            "jaxcnn.core.optimizers.lookahead(inner, period=…, share=…)"
        )
    optimizer = optimizers.mover(opt_state)
    wrong = {
        "schedule": e.schedule is not schedules.constant,
        "ema": e.ema is not None,
        "rates": any(rate not in (0, 1) for _, rate in e.rates),
    }
    if optimizer and any(wrong.values()):
        names = ", ".join(f"{name}={getattr(e, name)!r}" for name, bad in wrong.items() if bad)
        raise ConfigError(
            f"{names}: the optimizer is {optimizer}, so any factor of its updates, or average of "
            "the places it passes, would break it; leave these at their defaults (rates of 0 and 1 "
            "are fine)"
        )
