"""Dotted edits of an experiment.

An experiment is a tree of frozen dataclasses, Linen modules, `functools.partial`s and tuples.
`override` follows a dotted path through it and returns a new tree; nothing is changed in place.
Values are Python literals; where a model, a function or the like stands, its import path
(jaxcnn.core.dotted). Nothing is evaluated.
"""

import ast
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from jaxcnn.core import dotted
from jaxcnn.errors import ConfigError, did_you_mean

T = TypeVar("T")
# fields of an experiment that hold functions: a call sets their keywords
FUNCTIONS = ("optimizer", "schedule", "augment", "transform", "objective", "program", "initialize")


def override_all(tree: T, assignments: Iterable[str]) -> T:
    """`tree` with every `path=value` of `assignments` applied. Errors: one ConfigError that names
    all wrong ones.
    """
    problems, done = [], []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            problems.append(f"{assignment!r} is not of the form path=value, e.g. batch_size=64")
            continue
        if undone := [part for part in done if part.startswith(f"{path.strip()}.")]:
            problems.append(f"{assignment}: undoes {undone[0]} before it; give it first")
        done.append(path.strip())
        try:
            tree = override(tree, path.strip(), text.strip())
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return tree


def override(tree: T, path: str, text: str) -> T:
    """`tree` with the leaf at dotted `path` replaced by what `text` says.

    A literal has the type of the old one (an int may become a float), or one that the field's
    annotation names; in a field of texts alone "2024" and "None" are texts. Where the old one is a
    module, a task, a function, …, `text` is an import path, "optax.adamw", or a call of one,
    "mynets.Net(width=8)" (jaxcnn.core.dotted). In the fields FUNCTIONS of an experiment a call sets
    keywords, as a partial; elsewhere it is made.
    Errors: ConfigError for an unknown name (lists what exists), a wrong type or an unreadable
    value.
    """

    def parse(old: object, allowed: tuple[type, ...]) -> object:
        tree = dotted.parsed(text) if _may_be_named(old, allowed) else None
        if tree is not None:
            return _imported(path, text, tree, old)
        return _literal(path, text, old, allowed)

    return _edit(tree, path, path.split("."), parse)


def replace_at(tree: T, path: str, value: object) -> T:
    """`tree` with the leaf at dotted `path` replaced by `value` as it is (it may be a traced
    array).
    """
    return _edit(tree, path, path.split("."), lambda old, allowed: value)


def get_at(tree: object, path: str) -> Any:
    """The leaf at dotted `path`. Errors: ConfigError for an unknown name."""
    for name in path.split("."):
        node = _node(tree, path)
        _require(node, name, path)
        tree = node.get(name)
    return tree


class _Node(NamedTuple):
    """How to look into one kind of node: what it is called, the names of its children, and three
    functions of a name.
    """

    label: str
    names: list[str]
    get: Callable[[str], Any]
    put: Callable[[str, object], Any]
    allowed: Callable[[str], tuple[type, ...]]  # the types its annotation allows


def _edit(
    tree: object, path: str, names: list[str], leaf: Callable[[object, tuple[type, ...]], object]
) -> Any:
    node, (head, *rest) = _node(tree, path), names
    _require(node, head, path)
    old = node.get(head)
    try:
        return node.put(
            head, _edit(old, path, rest, leaf) if rest else leaf(old, node.allowed(head))
        )
    except ConfigError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        # the constructor of the edited value refused it
        raise ConfigError(f"{path}: {error}") from error


def _require(node: _Node, name: str, path: str) -> None:
    if name not in node.names:
        known = ", ".join(node.names) or "none"
        raise ConfigError(
            f"{path}: no field {name!r} in {node.label}; it has: "
            f"{known}{did_you_mean(name, node.names)}"
        )


def _node(tree: object, path: str) -> _Node:
    if isinstance(tree, partial | types.FunctionType):
        return _partial_node(partial(tree))  # of a partial that partial
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return _dataclass_node(tree)
    if isinstance(tree, tuple):
        return _Node(
            label="tuple",
            names=[str(i) for i in range(len(tree))],
            get=lambda name: tree[int(name)],
            put=lambda name, value: (*tree[: int(name)], value, *tree[int(name) + 1 :]),
            allowed=lambda name: (),
        )
    raise ConfigError(f"{path!r}: {tree!r} is a value and has no fields")


def _partial_node(tree: partial[Any]) -> _Node:
    parameters = inspect.signature(tree.func).parameters
    named = [
        n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    defaults = {n: None if p.default is p.empty else p.default for n, p in parameters.items()}
    return _Node(
        label=_shown(tree.func),
        names=named[len(tree.args) :],
        get=lambda name: tree.keywords.get(name, defaults[name]),
        put=lambda name, value: partial(tree.func, *tree.args, **{**tree.keywords, name: value}),
        allowed=lambda name: _types_of(parameters[name].annotation),
    )


def _dataclass_node(tree: Any) -> _Node:
    def allowed(name: str) -> tuple[type, ...]:
        try:
            return _types_of(typing.get_type_hints(type(tree)).get(name))
        except (NameError, TypeError):  # an annotation that cannot be resolved: no types to offer
            return ()

    names = [f.name for f in dataclasses.fields(tree) if f.init]
    hidden = dotted.added_by_linen(type(tree), names)
    return _Node(
        label=type(tree).__name__,
        names=[name for name in names if name not in hidden],
        get=lambda name: getattr(tree, name),
        put=lambda name, value: dataclasses.replace(tree, **{name: value}),
        allowed=allowed,
    )


def _types_of(annotation: object) -> tuple[type, ...]:
    """The plain types in an annotation: `float | None` -> (float, NoneType); () if it says nothing
    useful.
    """
    members = (
        typing.get_args(annotation)
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
        else (annotation,)
    )
    plain = [typing.get_origin(m) or m for m in members]
    return tuple(m for m in plain if m in (int, float, bool, str, tuple, type(None)))


def is_named(value: object) -> bool:
    """Whether a value is given by an import path: a module, a task, data, a function, a class."""
    return callable(value) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _may_be_named(old: object, allowed: tuple[type, ...]) -> bool:
    plain = any(kind is not type(None) for kind in allowed)
    return is_named(old) or isinstance(old, tuple) or (old is None and not plain)


def _imported(path: str, text: str, tree: ast.expr, old: object) -> object:
    """What an import path, or a call of one, stands for."""
    try:
        head, *rest = path.split(".")
        value = dotted.make(tree, options=head in FUNCTIONS and all(map(str.isdigit, rest)))
        made = dataclasses.is_dataclass(old) and not isinstance(old, type)
        if (
            made
            and isinstance(tree, ast.Attribute)
            and isinstance(value, type | types.FunctionType)
        ):
            value = dotted.called(ast.unparse(tree), value)  # model=mynets.Net: with its defaults
    except ConfigError as error:
        raise ConfigError(f"{path}={text}: {error}") from error
    return value


def _literal(path: str, text: str, old: object, allowed: tuple[type, ...]) -> object:
    try:
        new = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        new = text
    if isinstance(new, list):
        new = tuple(new)
    expected = (*(() if old is None else (type(old),)), *allowed)
    if (
        isinstance(new, int)
        and not isinstance(new, bool)
        and float in expected
        and int not in expected
    ):
        try:
            new = float(new)
        except OverflowError:
            new = math.inf
    if isinstance(old, str) and type(new) not in (str, *allowed):
        new = text  # `data.train=2024` means the name
    if isinstance(new, float) and not math.isfinite(new):
        raise ConfigError(f"{path}={text}: the value must be finite")
    if is_named(old) and type(new) not in allowed:
        raise ConfigError(
            f"{path}={text}: must be an import path, such as package.module.Name, or a call of "
            f"one; now it is {_shown(old)}"
        )
    if expected and type(new) not in expected:
        wanted = " or ".join(
            dict.fromkeys("None" if t is type(None) else t.__name__ for t in expected)
        )
        raise ConfigError(
            f"{path}={text}: expected {wanted} like {old!r}, got {type(new).__name__}"
        )
    return new


def _shown(value: object) -> str:
    name = getattr(value, "__qualname__", None) or type(value).__name__
    return _shown(value.func) if isinstance(value, partial) else name
