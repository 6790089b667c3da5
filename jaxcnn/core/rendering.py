"""An experiment as JSON, and back.

Dataclasses and modules become {"type": "module:name", field: …}, partials {"partial":
"module:name",
argument: …}, functions and classes {"function": "module:name"}, a method with the object it is of
as "self", arrays their shape, dtype and SHA-256; tuples become lists. `build` is the inverse, where
everything can be imported.
"""

import dataclasses
import hashlib
import importlib
import inspect
import math
from collections.abc import Iterator
from functools import partial
from types import BuiltinMethodType, MethodType, MethodWrapperType, ModuleType
from typing import Any

import numpy as np

from jaxcnn.core.dotted import added_by_linen
from jaxcnn.errors import ConfigError

Json = Any  # what `json.dumps` takes and `json.loads` gives, which are typed Any themselves
NAMES = ("type", "partial", "function")


def without_nan(value: Json) -> Json:
    """As JSON can hold it (RFC 8259): None for a number that is not finite, such as one that does
    not exist (an AUROC without positives is 0 / 0).
    """
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render(value: Any) -> Json:
    """`value` as JSON."""
    if isinstance(value, partial):
        while isinstance(value.func, partial):  # of one that has a docstring, as optax.nadam
            inner = value.func
            value = partial(inner.func, *inner.args, *value.args, **inner.keywords | value.keywords)
        named = _arguments(value) | value.keywords
        called = _called(value.func)
        return called | {k: render(v) for k, v in named.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        hidden = added_by_linen(type(value), [f.name for f in fields])
        names = [f.name for f in fields if f.init and f.repr and f.name not in hidden]
        return {"type": _name(type(value))} | {n: render(getattr(value, n)) for n in names}
    if isinstance(value, dict):
        return {str(k): render(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [render(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "__qualname__"):
        return {"function": _name(value)} | _owner(value)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        array = np.ascontiguousarray(value)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return {"array": f"{array.dtype}{list(array.shape)}", "sha256": digest}
    return {"repr": repr(value)}


def _called(func: Any) -> dict[str, Json]:
    """The function of a partial; of an object that can be called, its method."""
    function = func if hasattr(func, "__qualname__") else func.__call__
    return {"partial": _name(function)} | _owner(function)


def _arguments(value: partial[Any]) -> dict[str, Any]:
    """The positional arguments of a partial by name; as "*" where one cannot be given by name."""
    try:
        parameters = list(inspect.signature(value.func).parameters.values())[: len(value.args)]
    except ValueError:  # a builtin that does not say what it takes
        parameters = []
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(named) < len(value.args):
        return {"*": value.args}
    return dict(zip(named, value.args, strict=True))


def _bound_to(value: Any) -> Any:
    """The object, class or module whose method a function is; None of one by itself."""
    bound = isinstance(value, MethodType | BuiltinMethodType | MethodWrapperType)
    return value.__self__ if bound else None


def _name(value: Any) -> str:
    owner = _bound_to(value)
    if isinstance(owner, type):  # a class method, perhaps of a class below the one that wrote it
        return f"{owner.__module__}:{owner.__qualname__}.{value.__name__}"
    return f"{value.__module__ or type(owner).__module__}:{value.__qualname__}"


def _owner(value: Any) -> dict[str, Json]:
    """{"self": rendering} of the object that a method is bound to; of one without a rendering its
    class, as its `repr` may be another in each process.
    """
    owner = _bound_to(value)
    if owner is None or isinstance(owner, type | ModuleType):  # builtins are bound to their module
        return {}
    rendered = render(owner)
    bare = isinstance(rendered, dict) and "repr" in rendered
    return {"self": {"repr": f"an object of {_name(type(owner))}"} if bare else rendered}


def build(rendered: Json) -> Any:
    """What was rendered. Errors: ConfigError for what has no name to import, or another meaning."""
    if isinstance(rendered, list):
        return tuple(build(v) for v in rendered)
    if not isinstance(rendered, dict):
        return rendered
    if "array" in rendered or "repr" in rendered:
        shown = rendered.get("array") or rendered.get("repr")
        raise ConfigError(f"{shown}: cannot be made again from its rendering")
    fields = {k: build(v) for k, v in rendered.items() if k not in NAMES}
    kind = next((k for k in NAMES if k in rendered), None)
    if kind is None:
        return fields
    found = resolve(rendered[kind])
    if kind != "type" and "self" in fields:
        owner = fields.pop("self")
        found = found.__get__(owner, type(owner))
    if kind == "function":
        return found
    try:
        if kind == "partial":
            return partial(found, *fields.pop("*", ()), **fields)
        return found(**fields)
    except TypeError as error:
        raise ConfigError(f"{rendered[kind]}: {error}") from error


def resolve(name: str) -> Any:
    """The class or function called "module:qualified.name". Errors: ConfigError."""
    module, _, path = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        where = "a notebook or a script" if module == "__main__" else f"module {module!r}"
        raise ConfigError(
            f"{path!r} of {where} cannot be found ({error}); define or import it first, or give "
            "the experiment: open(folder, experiment=…)"
        ) from error
    return found


def fields(rendered: Json, *, path: str = "", modules: bool = False) -> Iterator[tuple[str, Json]]:
    """(dotted path, value) of each field of a rendering: numbers, strings, lists of them, None;
    classes and functions by their last names, or with their `modules`.
    """
    if isinstance(rendered, dict):
        head = next((str(rendered[k]) for k in NAMES if k in rendered), None)
        if head is not None and path:
            yield path, head if modules else head.rpartition(":")[2]
        for name, value in rendered.items():
            if name not in NAMES:
                yield from fields(value, path=f"{path}.{name}".lstrip("."), modules=modules)
    elif isinstance(rendered, list) and any(isinstance(v, dict | list) for v in rendered):
        for i, value in enumerate(rendered):
            yield from fields(value, path=f"{path}.{i}", modules=modules)
    else:
        yield path, rendered


def render_text(value: object, *, indent: int = 0) -> str:
    """The rendering as an indented outline, one `field: value` a line."""
    return "\n".join(_lines(render(value), indent))


def _lines(value: Json, indent: int) -> list[str]:
    pad, out = "  " * indent, []
    pairs = value.items() if isinstance(value, dict) else ((str(i), v) for i, v in enumerate(value))
    for key, item in pairs:
        if key in NAMES:
            continue
        if isinstance(item, dict) or _holds_dicts(item):
            out += [f"{pad}{key}: {_head(item)}".rstrip(), *_lines(item, indent + 1)]
        else:
            out.append(f"{pad}{key}: {item}")
    return out


def _holds_dicts(item: Json) -> bool:
    return isinstance(item, list) and any(isinstance(v, dict) for v in item)


def _head(item: Json) -> str:
    names = [item[k] for k in NAMES if k in item] if isinstance(item, dict) else []
    return names[0].rpartition(":")[2] if names else ""
