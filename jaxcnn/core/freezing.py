"""Frozen parameters: those whose rate is 0 by the rules of `Experiment.rates`.

They get no gradient and no slot in the optimizer. A module all of whose parameters are frozen runs
as in evaluation: BatchNorm takes its running statistics, Dropout does nothing, and no collection of
its changes, so that means and variances do not drift either. A module without parameters is frozen
with the module around it; one that has statistics all the same (BatchNorm without scale and bias)
also by a rule that finds its name, such as ".*". Trees of parameters are nested dicts; a part of a
tree has None in the places of the other part, which JAX takes for no leaf at all.
"""

import contextlib
import re
from collections.abc import Callable, Generator
from typing import Protocol

import jax
from flax import linen as nn

from jaxcnn.core.optimizers import Rules, path_names, rate_multipliers
from jaxcnn.core.protocols import Collections, Params, Tree
from jaxcnn.core.trees import name_of
from jaxcnn.errors import ConfigError

Path = tuple[str, ...]  # of a module: the names from the model's down to its own

# what the modules of Flax that train otherwise than they evaluate are told by
SWITCHES = {nn.BatchNorm: "use_running_average", nn.Dropout: "deterministic"}


def split(tree: Params, rules: Rules) -> tuple[Params, Params]:
    """(what is trained, what is frozen) of a tree with the names of the parameters.

    Errors: ConfigError for rules that freeze everything.
    """
    if not any(rate == 0 for _, rate in rules):
        return tree, jax.tree.map(lambda _: None, tree)
    rates = rate_multipliers(tree, rules)
    if all(rate == 0 for rate in jax.tree.leaves(rates)):
        raise ConfigError(f"rates={rules!r}: freezes every parameter; leave one to be trained")
    trainable = jax.tree.map(lambda x, rate: None if rate == 0 else x, tree, rates)
    frozen = jax.tree.map(lambda x, rate: x if rate == 0 else None, tree, rates)
    return trainable, frozen


def merge(first: Params, second: Params) -> Params:
    """The whole tree of two parts of `split`."""
    none = lambda x: x is None  # noqa: E731
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=none)


class Frozen(Protocol):
    """Whether the module at a path is frozen; `statistics`: whether it has any."""

    def __call__(self, path: Path, *, statistics: bool) -> bool: ...


def frozen_modules(params: Params, rules: Rules) -> Frozen:
    """Which modules the rules freeze; see above."""
    rates = jax.tree.leaves(rate_multipliers(params, rules))
    names = [name.split("/") for name in jax.tree.leaves(path_names(params))]
    holders, trained = set(), set()  # modules with parameters in or below them
    for name, rate in zip(names, rates, strict=True):
        around = {tuple(name[:i]) for i in range(len(name))}
        holders |= around
        trained |= around if rate != 0 else set()

    def frozen(path: Path, *, statistics: bool) -> bool:
        if any(path[:i] in holders - trained for i in range(len(path) + 1)):
            return True
        name = "/".join(path) + "/"
        found = next((rate for expression, rate in rules if re.search(expression, name)), 1.0)
        return statistics and path not in holders and bool(found == 0)

    return frozen


@contextlib.contextmanager
def as_in_evaluation(params: Params, rules: Rules) -> Generator[None]:
    """A scope in which frozen modules run as in evaluation."""
    if not any(rate == 0 for _, rate in rules):
        yield
        return
    frozen = frozen_modules(params, rules)

    def call(
        method: Callable[..., Tree],
        arguments: tuple[Tree, ...],
        keywords: dict[str, Tree],
        context: nn.module.InterceptorContext,
    ) -> Tree:
        module = context.module
        switch = next((name for kind, name in SWITCHES.items() if isinstance(module, kind)), None)
        if (
            switch is None
            or context.method_name != "__call__"
            or getattr(module, switch) is True
            or not frozen(module.path, statistics=isinstance(module, nn.BatchNorm))
        ):
            return method(*arguments, **keywords)
        # the same module in the same place, told at construction
        told = module.clone(parent=module.scope, **{switch: True})
        keywords = {name: value for name, value in keywords.items() if name != switch}
        return told(*arguments[:1], **keywords)

    with nn.intercept_methods(call):
        yield


def keep_statistics(
    new: Collections, old: Collections, params: Params, rules: Rules
) -> Collections:
    """The collections `new`, with those of frozen modules as in `old`."""
    if not any(rate == 0 for _, rate in rules):
        return new
    frozen = frozen_modules(params, rules)

    def choose(path: tuple[object, ...], a: jax.Array, b: jax.Array) -> jax.Array:
        names = tuple(name_of(path).split("/"))  # collection, modules, leaf
        return b if frozen(names[1:-1], statistics=True) else a

    return jax.tree.map_with_path(choose, new, old)
