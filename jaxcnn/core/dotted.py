"""Values of an override that are no literals: things by their import path, and calls of them.

    optax.adamw    optax.adamw(learning_rate=1e-3)    mynets.Net(act=jax.nn.gelu, widths=(8, 16))

The text is parsed as Python and never evaluated: dotted names are imported, and what the text calls
is called with literals, tuples, names and calls. No other syntax is known.
"""

import ast
import importlib
import importlib.util
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxcnn.errors import ConfigError, did_you_mean


def added_by_linen(kind: object, names: Iterable[str]) -> tuple[str, ...]:
    """Of a class's fields or keywords those that Linen adds to every module, which say nothing of
    it; () of any other class, whose "name" is its own. Flax is not imported to ask.
    """
    added = ("parent", "name")
    return added if hasattr(kind, "apply") and set(added) <= set(names) else ()


def parsed(text: str) -> ast.expr | None:
    """The syntax tree of a text that names something by its import path: a dotted name, a call, or
    a tuple with one of these; None for any other.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return tree if _names(tree) else None


def _names(tree: ast.expr) -> bool:
    if isinstance(tree, ast.Tuple | ast.List):
        return any(map(_names, tree.elts))
    return isinstance(tree, ast.Attribute | ast.Call)


def names_in(text: str) -> list[str]:
    """The dotted names in a text as `parsed` takes it; [] for any other."""
    tree = parsed(text)
    found = [] if tree is None else ast.walk(tree)
    return [ast.unparse(node) for node in found if isinstance(node, ast.Attribute)]


def make(tree: ast.expr, *, options: bool) -> Any:
    """What a syntax tree stands for. `options`: a call of a function, there or in a tuple, sets its
    keywords, as `functools.partial` does; otherwise it is called. A class is called always.

    Errors: ConfigError for what cannot be imported, is not called so, or fails when called.
    """
    if isinstance(tree, ast.Tuple | ast.List):
        return tuple(make(part, options=options) for part in tree.elts)
    if isinstance(tree, ast.Call):
        return _call(tree, options=options)
    if isinstance(tree, ast.Attribute):
        return named(ast.unparse(tree))
    if isinstance(tree, ast.Name):
        raise ConfigError(
            f"{tree.id}: give a name with its module, such as jax.nn.relu; text stands in quotes"
        )
    try:
        value = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ConfigError(
            f"{ast.unparse(tree)}: is neither a literal, nor a name with its module, nor a call of "
            "one"
        ) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{ast.unparse(tree)}: the value must be finite")
    return value


def _call(tree: ast.Call, *, options: bool) -> Any:
    name = ast.unparse(tree.func)
    if not isinstance(tree.func, ast.Attribute):
        raise ConfigError(f"{name}: give it with its module, such as optax.{name}(…)")
    function = named(name)
    if any(word.arg is None for word in tree.keywords):
        raise ConfigError(f"{ast.unparse(tree)}: write each keyword out, without **")
    positional = [make(part, options=False) for part in tree.args]
    keywords = {str(word.arg): make(word.value, options=False) for word in tree.keywords}
    if not callable(function):
        raise ConfigError(f"{name}: is {function!r}, which cannot be called")
    options = options and not isinstance(function, type)
    if options and positional:
        raise ConfigError(
            f"{ast.unparse(tree)}: give every value by its keyword, {_first_keywords(function)}, "
            "so that it can be changed and swept by its path"
        )
    _check_keywords(name, function, keywords)
    if options:
        return partial(function, **_as_floats(function, keywords))
    return called(name, function, *positional, **keywords)


def called(name: str, function: Any, /, *positional: Any, **keywords: Any) -> Any:
    """The result of a call. Errors: ConfigError, whatever it raises."""
    try:
        return function(*positional, **keywords)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{name}(…): {type(error).__name__}: {error}") from error


def _check_keywords(name: str, function: Callable[..., Any], keywords: Iterable[str]) -> None:
    """ConfigError for a keyword that a function does not have."""
    parameters = _parameters(function)
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [n for n, p in parameters.items() if p.kind is not p.VAR_POSITIONAL]
    for word in keywords:
        if word not in known:
            there = ", ".join(known) or "none"
            raise ConfigError(
                f"{name}: has no keyword {word!r}; it has: {there}{did_you_mean(word, known)}"
            )


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """By name; None of what was not written in Python."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):
        return None
    hidden = added_by_linen(function, parameters)
    return {name: p for name, p in parameters.items() if name not in hidden}


def _first_keywords(function: Callable[..., Any]) -> str:
    names = list(_parameters(function) or ("name",))
    return ", ".join(f"{name}=…" for name in names[:2])


def _as_floats(function: Callable[..., Any], keywords: dict[str, object]) -> dict[str, object]:
    """Integers as floats where the function takes floats: learning_rate=1 can then be swept."""
    parameters = _parameters(function) or {}

    def as_float(name: str, value: object) -> object:
        parameter = parameters.get(name)
        if type(value) is not int or parameter is None:
            return value
        types = (type(parameter.default), *typing.get_args(parameter.annotation))
        types = (*types, parameter.annotation)
        return float(value) if float in types and int not in types else value

    return {name: as_float(name, value) for name, value in keywords.items()}


def named(name: str) -> Any:
    """What the import path "package.module.thing" names: the longest part of it that is a module is
    imported, also from the folder of the process. Errors: ConfigError.
    """
    head, *rest = name.split(".")
    found: Any = _module(head)
    if found is None and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # it stays for what is imported late
        found = _module(head)
    if found is None:
        known = {module.partition(".")[0] for module in sys.modules}
        raise ConfigError(f"{name}: there is no module {head!r}{did_you_mean(head, known)}")
    done = head
    for part in rest:
        inner = getattr(found, part, None)
        if inner is None and isinstance(found, ModuleType) and hasattr(found, "__path__"):
            inner = _module(f"{done}.{part}")
        if inner is None:
            raise ConfigError(f"{name}: {done} has no {part!r}{did_you_mean(part, dir(found))}")
        found, done = inner, f"{done}.{part}"
    return found


def _module(name: str) -> ModuleType | None:
    """None where there is none. Errors: ConfigError for one that fails when it is imported."""
    try:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            return None
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
