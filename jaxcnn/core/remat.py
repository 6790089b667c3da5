"""Modules whose inner numbers are computed anew in the backward pass in place of being kept: more
arithmetic for less memory (T. Chen et al., "Training deep nets with sublinear memory cost", 2016).
"""

import contextlib
from collections.abc import Callable, Generator, Iterable

import jax
import numpy as np
from flax import linen as nn

from jaxcnn.core.protocols import Tree
from jaxcnn.core.trees import check_rules, pattern_of

# XLA's pass for CPUs that takes away, before common expressions are joined, the barriers which hold
# what is computed twice apart: without it nothing would be saved.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


@contextlib.contextmanager
def computed_anew(expressions: Iterable[str]) -> Generator[None]:
    """A scope in which the modules in whose names 'a/b' one of the regular expressions is found
    keep their inputs and outputs alone, the outermost of those that lie in one another.

    Errors: ConfigError for an expression that is found in the name of no module that is called.
    """
    expressions = tuple(expressions)
    if not expressions:
        yield
        return
    patterns = [pattern_of("remat", expression) for expression in expressions]
    names: dict[str, None] = {}
    within = False

    def call(
        method: Callable[..., Tree],
        arguments: tuple[Tree, ...],
        keywords: dict[str, Tree],
        context: nn.module.InterceptorContext,
    ) -> Tree:
        name = "/".join(context.module.path)
        if context.method_name != "__call__" or not name:
            return method(*arguments, **keywords)
        names[name] = None
        if within or not any(pattern.search(name) for pattern in patterns):
            return method(*arguments, **keywords)
        # by their places and names
        everything = {str(i): value for i, value in enumerate(arguments)} | keywords
        arrays = {key: value for key, value in everything.items() if _is_traced(value)}

        def body(module: nn.Module, arrays: dict[str, Tree]) -> Tree:
            nonlocal within
            given = {key: arrays.get(key, value) for key, value in everything.items()}
            within = True
            try:
                return module(  # pyright: ignore[reportCallIssue]
                    *(given[str(i)] for i in range(len(arguments))),
                    **{name: given[name] for name in keywords},
                )
            finally:
                within = False

        return nn.remat(body)(context.module, arrays)

    with nn.intercept_methods(call):
        yield
    check_rules("remat", [(each, None) for each in expressions], list(names), of="module")


def _is_traced(value: Tree) -> bool:
    """Whether an argument consists of arrays, so that it may be handed on as such."""
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves)
