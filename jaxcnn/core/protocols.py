"""What the pieces of a program are called and what they promise one another."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

Batch = dict[str, jax.Array]  # entries with a leading axis B; see jaxcnn.data.geometry
Variables = Mapping[str, Any]  # {"params": …, "batch_stats": …, …}
Collections = dict[str, Any]  # variables without "params": what a forward pass may change
Numbers = dict[str, jax.Array]  # scalars by name, to be logged


class AnyState(Protocol):
    """What the loop needs of a program's state, a pytree of arrays that may hold anything else."""

    @property
    def step(self) -> jax.Array:
        """int32 []: updates made."""
        ...

    @property
    def live(self) -> jax.Array:
        """bool []: whether the state still changes; false after a step that was not finite."""
        ...


@runtime_checkable
class HasNumbers(Protocol):
    """A state that holds numbers of the experiment, so that they can be swept in one program."""

    hyperparams: dict[str, jax.Array]


class Program(NamedTuple):
    """The pure functions that an experiment determines. All else (evaluation, prediction,
    ensembles) follows from `output_step` and the task.
    """

    # (key, numbers={}, variables=None) -> state; `variables`: {"params": …, …} to start from
    init: Callable[..., Any]
    # (state, batch) -> (state, numbers): scalars, whatever there is to be logged
    train_step: Callable[[Any, Batch], tuple[Any, Numbers]]
    # (state, batch) -> (the model's outputs in evaluation, the batch as the task sees it)
    output_step: Callable[[Any, Batch], Any]
