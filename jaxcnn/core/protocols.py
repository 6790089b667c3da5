"""What the pieces of a program are called and what they promise one another."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import jax
from jaxtyping import Array, Bool, Int32

from jaxcnn.tasks.task import Batch  # entries with a leading axis B; see jaxcnn.data.geometry

# A pytree: containers of arrays, however they are nested. No type checker can follow one through
# JAX, whose functions of trees are typed with Any themselves; the name at least says what is meant.
Tree = Any
Params = Tree  # nested dicts of float32 arrays, as Flax makes them
OptState = Tree  # what an optimizer of optax holds
Variables = Mapping[str, Tree]  # {"params": …, "batch_stats": …, …}
Collections = dict[str, Tree]  # variables without "params": what a forward pass may change
Device = Any  # jax.Device, a class without types
Numbers = dict[str, jax.Array]  # scalars by name, to be logged


class Model(Protocol):
    """What a program needs of a model: flax.linen.Module has it."""

    def init(self, rngs: Any, /, *args: Any, **kwargs: Any) -> Variables:
        """Fresh variables for inputs of these shapes."""
        ...

    def apply(self, variables: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Outputs, or (outputs, next collections) where some are `mutable`."""
        ...


class AnyState(Protocol):
    """What the loop needs of a program's state, a pytree of arrays that may hold anything else."""

    @property
    def step(self) -> Int32[Array, ""]:
        """Updates made."""
        ...

    @property
    def live(self) -> Bool[Array, ""]:
        """Whether the state still changes; false after a step that was not finite."""
        ...


class FlaxState(AnyState, Protocol):
    """A state made by flax.struct."""

    def replace(self, **overrides: Any) -> Self:
        """The state with other fields."""
        ...


@runtime_checkable
class HasNumbers(Protocol):
    """A state that holds numbers of the experiment, so that they can be swept in one program."""

    @property
    def hyperparams(self) -> dict[str, jax.Array]:
        """{"optimizer.learning_rate": float32 [], …}, by dotted path."""
        ...


@runtime_checkable
class HasParams(Protocol):
    """A state of one model, whose parameters can be counted."""

    @property
    def params(self) -> Params:
        """Nested dicts of arrays."""
        ...


class Program(NamedTuple):
    """The pure functions that an experiment determines. All else (evaluation, prediction,
    ensembles) follows from `output_step` and the task.
    """

    # (key, numbers={}, variables=None) -> state; `variables`: {"params": …, …} to start from
    init: Callable[..., Tree]
    # (state, batch) -> (state, numbers): scalars, whatever there is to be logged
    train_step: Callable[[Tree, Batch], tuple[Tree, Numbers]]
    # (state, batch) -> (the model's outputs in evaluation, the batch as the task sees it)
    output_step: Callable[[Tree, Batch], Tree]
