"""Frozen parameters: those whose rate is 0 by the rules of `Experiment.rates`.

They get no gradient and no slot in the optimizer, and a module all of whose parameters are frozen
runs as in evaluation, so that its statistics (BatchNorm's means and variances) do not drift either.
Trees of parameters are nested dicts; a part of a tree has None in the places of the other part,
which JAX takes for no leaf at all.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from flax import linen as nn

from jaxcnn.core.optimizers import Rules, path_names, rate_multipliers
from jaxcnn.errors import ConfigError


def split(tree: Any, rules: Rules) -> tuple[Any, Any]:
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


def merge(first: Any, second: Any) -> Any:
    """The whole tree of two parts of `split`."""
    none = lambda x: x is None  # noqa: E731
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=none)


def frozen_modules(params: Any, rules: Rules) -> frozenset[tuple[str, ...]]:
    """The paths of the modules all of whose parameters are frozen."""
    if not any(rate == 0 for _, rate in rules):
        return frozenset()
    rates = jax.tree.leaves(rate_multipliers(params, rules))
    names = [name.split("/") for name in jax.tree.leaves(path_names(params))]
    trained, all_of = set(), set()
    for name, rate in zip(names, rates, strict=True):
        modules = {tuple(name[:i]) for i in range(len(name))}
        all_of |= modules
        trained |= modules if rate != 0 else set()
    return frozenset(all_of - trained)


@contextlib.contextmanager
def frozen_statistics(params: Any, rules: Rules) -> Iterator[None]:
    """A scope in which every BatchNorm in a frozen module uses its running statistics."""
    frozen = frozen_modules(params, rules)
    if not frozen:
        yield
        return

    def call(method, arguments, keywords, context):
        module = context.module
        if isinstance(module, nn.BatchNorm) and _lies_in(module.path, frozen):
            if module.use_running_average is None:
                keywords = {**keywords, "use_running_average": True}
                arguments = arguments[:1]
            else:  # given at construction, to this clone that lives for one `apply`
                object.__setattr__(module, "use_running_average", True)
        return method(*arguments, **keywords)

    with nn.intercept_methods(call):
        yield


def keep_statistics(new: Any, old: Any, params: Any, rules: Rules) -> Any:
    """The collections `new`, with those of frozen modules as in `old`."""
    frozen = frozen_modules(params, rules)
    if not frozen:
        return new

    def choose(path, a, b):
        names = tuple(str(getattr(part, "key", part)) for part in path)  # collection, modules, leaf
        return b if _lies_in(names[1:-1], frozen) else a

    return jax.tree.map_with_path(choose, new, old)


def _lies_in(path: tuple[str, ...], modules: frozenset[tuple[str, ...]]) -> bool:
    return any(path[:i] in modules for i in range(len(path) + 1))
