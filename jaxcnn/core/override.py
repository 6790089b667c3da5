"""Dotted edits of an experiment.

An experiment is a tree of frozen dataclasses, Linen modules, `functools.partial`s and tuples.
`override` follows a dotted path through it and returns a new tree; nothing is changed in place.
Values are Python literals, never evaluated.
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

from jaxcnn.errors import ConfigError, did_you_mean

T = TypeVar("T")
_HIDDEN = ("parent", "name")  # fields that Linen adds to every module


def override_all(tree: T, assignments: Iterable[str]) -> T:
    """`tree` with every `path=value` of `assignments` applied. Errors: one ConfigError that names
    all wrong ones.
    """
    problems = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            problems.append(f"{assignment!r} is not of the form path=value, e.g. batch_size=64")
            continue
        try:
            tree = override(tree, path.strip(), text.strip())
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return tree


def override(tree: T, path: str, text: str) -> T:
    """`tree` with the leaf at dotted `path` replaced by the literal in `text`.

    The new value has the type of the old one (an int may become a float); where the old one is
    None, of the field's annotation.
    Errors: ConfigError for an unknown name (lists what exists), a wrong type or an unreadable
    value.
    """

    def parse(old: object, allowed: tuple[type, ...]) -> object:
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
    if isinstance(tree, partial):
        return _partial_node(tree)
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
        label=getattr(tree.func, "__name__", repr(tree.func)),
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

    return _Node(
        label=type(tree).__name__,
        names=[f.name for f in dataclasses.fields(tree) if f.init and f.name not in _HIDDEN],
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
    if isinstance(old, str) and not isinstance(new, str):
        new = text  # `data.train=2024` means the name
    if isinstance(new, float) and not math.isfinite(new):
        raise ConfigError(f"{path}={text}: the value must be finite")
    if expected and type(new) not in expected:
        wanted = " or ".join(
            dict.fromkeys("None" if t is type(None) else t.__name__ for t in expected)
        )
        raise ConfigError(
            f"{path}={text}: expected {wanted} like {old!r}, got {type(new).__name__}"
        )
    return new
