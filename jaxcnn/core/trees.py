"""The names of a tree's leaves: the keys, attributes and indices on the way to a leaf, joined by
"/", such as "params/Conv_0/kernel". Rules, checkpoints and weights files all name leaves so.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from jaxcnn.core.protocols import Tree
from jaxcnn.errors import ConfigError, did_you_mean


def name_of(path: tuple[object, ...]) -> str:
    """The name of the leaf at `path`, a key path of `jax.tree_util`: "Conv_0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Tree) -> dict[str, Any]:
    """{name: leaf} of any tree, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {name_of(path): leaf for path, leaf in leaves}


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Tree]:
    """The nested dict whose leaves have these names: of nested dicts, `flatten`'s inverse."""
    tree: dict[str, Tree] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


def pattern_of(what: str, expression: str) -> re.Pattern[str]:
    """A regular expression; ConfigError, naming whose it is, where it is none."""
    try:
        return re.compile(expression)
    except re.error as error:
        raise ConfigError(f"{what}: {expression!r} is not a regular expression: {error}") from None


def check_rules(what: str, rules: Iterable[tuple[str, Any]], names: list[str], *, of: str) -> None:
    """ConfigError where the regular expression that a rule begins with is none, or is found in no
    one of the names. what: whose rules; of: what the names are.
    """
    for expression, _ in rules:
        pattern = pattern_of(what, expression)
        if not any(pattern.search(name) for name in names):
            raise ConfigError(
                f"{what}: the rule {expression!r} matches no {of}"
                f"{did_you_mean(expression, names) or '.'} They are: {', '.join(names)}"
            )


def is_key(leaf: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether a leaf is PRNG keys."""
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def raw(leaf: jax.Array) -> jax.Array:
    """A leaf as numbers: PRNG keys become their uint32 data."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf
