"""Dotted edits of an experiment, and its rendering.

An experiment is a tree of frozen dataclasses, Linen modules, `functools.partial`s and tuples. `override` follows a dotted path through it and returns
a new tree; nothing is changed in place. Values are Python literals, never evaluated.
"""

import ast
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from jaxcnn.errors import ConfigError, did_you_mean

_HIDDEN = ("parent", "name")  # fields that Linen adds to every module


def override_all(tree: Any, assignments: Iterable[str]) -> Any:
    """`tree` with every `path=value` of `assignments` applied. Errors: one ConfigError that names all wrong ones."""
    problems = []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            problems.append(f"{assignment!r} is not of the form path=value, e.g. batch_size=64")
            continue
        try:
            tree = override(tree, path.strip(), text.strip())
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return tree


def override(tree: Any, path: str, text: str) -> Any:
    """`tree` with the leaf at dotted `path` replaced by the literal in `text`.

    The new value has the type of the old one (an int may become a float); where the old one is None, of the field's annotation.
    Errors: ConfigError for an unknown name (lists what exists), a wrong type or an unreadable value.
    """

    def parse(old: Any, allowed: tuple[type, ...]) -> Any:
        return _literal(path, text, old, allowed)

    return _edit(tree, path, path.split("."), parse)


def replace_at(tree: Any, path: str, value: Any) -> Any:
    """`tree` with the leaf at dotted `path` replaced by `value` as it is (it may be a traced array)."""
    return _edit(tree, path, path.split("."), lambda old, allowed: value)


def get_at(tree: Any, path: str) -> Any:
    """The leaf at dotted `path`. Errors: ConfigError for an unknown name."""
    for name in path.split("."):
        tree = _children(tree, path)[0](name)
    return tree


def _edit(tree: Any, path: str, names: list[str], leaf: Callable[[Any, tuple[type, ...]], Any]) -> Any:
    get, put, allowed = _children(tree, path)
    head, *rest = names
    old = get(head)
    try:
        return put(head, _edit(old, path, rest, leaf) if rest else leaf(old, allowed(head)))
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:  # the constructor of the edited value refused it
        raise ConfigError(f"{path}: {error}") from error


def _children(tree: Any, path: str) -> tuple[Callable, Callable, Callable]:
    """(get, put, allowed types) by name for one node of the tree."""
    if isinstance(tree, partial):
        parameters = inspect.signature(tree.func).parameters
        names = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][len(tree.args) :]
        label = getattr(tree.func, "__name__", repr(tree.func))

        def get(name):
            default = parameters[name].default
            return tree.keywords.get(name, None if default is inspect.Parameter.empty else default)

        def put(name, value):
            return partial(tree.func, *tree.args, **{**tree.keywords, name: value})

        def allowed(name):
            return _types_of(parameters[name].annotation)

    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [f.name for f in dataclasses.fields(tree) if f.init and f.name not in _HIDDEN]
        label = type(tree).__name__

        def get(name):
            return getattr(tree, name)

        def put(name, value):
            return dataclasses.replace(tree, **{name: value})

        def allowed(name):
            try:
                return _types_of(typing.get_type_hints(type(tree)).get(name))
            except (NameError, TypeError):  # an annotation that cannot be resolved: no types to offer
                return ()

    elif isinstance(tree, tuple):
        names, label = [str(i) for i in range(len(tree))], "tuple"

        def get(name):
            return tree[int(name)]

        def put(name, value):
            return (*tree[: int(name)], value, *tree[int(name) + 1 :])

        def allowed(name):
            return ()

    else:
        raise ConfigError(f"{path!r}: {tree!r} is a value and has no fields")

    def known(function):
        def checked(name, *value):
            if name not in names:
                raise ConfigError(f"{path}: no field {name!r} in {label}; it has: {', '.join(names) or 'none'}{did_you_mean(name, names)}")
            return function(name, *value)

        return checked

    return known(get), known(put), known(allowed)


def _types_of(annotation: Any) -> tuple[type, ...]:
    """The plain types in an annotation: `float | None` -> (float, NoneType); () if it says nothing useful."""
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union else (annotation,)
    plain = [typing.get_origin(m) or m for m in members]
    return tuple(m for m in plain if m in (int, float, bool, str, tuple, type(None)))


def _literal(path: str, text: str, old: Any, allowed: tuple[type, ...]) -> Any:
    try:
        new = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        new = text
    if isinstance(new, list):
        new = tuple(new)
    expected = (*(() if old is None else (type(old),)), *allowed)
    if isinstance(new, int) and not isinstance(new, bool) and float in expected and int not in expected:
        new = float(new)
    if isinstance(old, str) and not isinstance(new, str):
        new = text  # `data.train=2024` means the name
    if isinstance(new, float) and not math.isfinite(new):
        raise ConfigError(f"{path}={text}: the value must be finite")
    if expected and type(new) not in expected:
        wanted = " or ".join(dict.fromkeys("None" if t is type(None) else t.__name__ for t in expected))
        raise ConfigError(f"{path}={text}: expected {wanted} like {old!r}, got {type(new).__name__}")
    return new


def render(value: Any) -> Any:
    """`value` as JSON: dataclasses, modules and partials become {"type": "module:name", field: …}, functions "module:name"."""
    if isinstance(value, partial):
        named = dict(zip(inspect.signature(value.func).parameters, value.args, strict=False)) | value.keywords
        return {"type": render(value.func)} | {k: render(v) for k, v in named.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.init and f.repr and f.name not in _HIDDEN]
        return {"type": render(type(value))} | {name: render(getattr(value, name)) for name in fields}
    if isinstance(value, dict):
        return {str(k): render(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [render(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return repr(value)


def render_text(value: Any, *, indent: int = 0) -> str:
    """The rendering as an indented outline, one `field: value` a line."""
    return "\n".join(_lines(render(value), indent))


def _lines(value: Any, indent: int) -> list[str]:
    pad, out = "  " * indent, []
    for key, item in value.items() if isinstance(value, dict) else ((str(i), v) for i, v in enumerate(value)):
        if key == "type":
            continue
        if isinstance(item, dict) or (isinstance(item, list) and any(isinstance(v, dict) for v in item)):
            head = item["type"].rpartition(":")[2] if isinstance(item, dict) and "type" in item else ""
            out += [f"{pad}{key}: {head}".rstrip(), *_lines(item, indent + 1)]
        else:
            out.append(f"{pad}{key}: {item}")
    return out
