"""Rules for operations number by number; any order of axes will do, and what broadcasts may."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.errors import ConfigError
from jaxcnn.runs.onnx_export.arrays import chosen
from jaxcnn.runs.onnx_export.graph import Graph, Value, made, rule

PLAIN = {
    **{"abs": "Abs", "acos": "Acos", "asin": "Asin", "atan": "Atan", "ceil": "Ceil", "cos": "Cos"},
    **{"cosh": "Cosh", "div": "Div", "erf": "Erf", "exp": "Exp", "floor": "Floor"},
    **{"log": "Log", "logistic": "Sigmoid", "mul": "Mul", "neg": "Neg", "pow": "Pow"},
    **{"sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh"},
    **{"eq": "Equal", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "lt": "Less"},
}
LOGIC = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}


def elementwise(g: Graph, eqn: Any, values: tuple[Value, ...], make: Callable[..., str]) -> Value:
    """`make(*names)` of values that broadcast, stored in the order of the first that has one."""
    shape = tuple(eqn.outvars[0].aval.shape)
    full = [v for v in values if tuple(v.shape) == shape and not v.thin]
    tensors = [v for v in full if v.array is None] or [v for v in values if v.array is None]
    orders = [v.order for v in tensors if v.order and len(v.order) == len(shape)]
    order = orders[0] if orders else ()
    name = make(*(g.loose(value, order=order) for value in values))
    return made(eqn, name, order=order, thin=not full)


def number(g: Graph, value: float, like: Value) -> str:
    """A scalar of the dtype of `like`."""
    return g.constant(np.array(value, like.dtype))


def _register() -> None:
    for primitive, op in {**PLAIN, **LOGIC}.items():

        @rule(primitive, elementwise=True)
        def plain(g: Graph, eqn: Any, *values: Value, op: str = str(op)) -> Value:
            if op in LOGIC.values() and values[0].dtype != bool:
                op = f"Bitwise{op}"
            return elementwise(g, eqn, values, lambda *names: g.once(op, *names))


_register()


def _is_all(value: Value, number: float) -> bool:
    return value.array is not None and bool(np.all(value.array == number))


@rule("add", "add_any", elementwise=True)
def _add(g: Graph, eqn: Any, *values: Value) -> Value:
    return elementwise(g, eqn, values, lambda *names: g.once("Add", *names))


@rule("sub", elementwise=True)
def _sub(g: Graph, eqn: Any, x: Value, y: Value) -> Value:
    if y.array is not None and np.issubdtype(y.dtype, np.floating):
        # as a sum, which runtimes join to the convolution before it
        y = Value(y.shape, y.dtype, -y.array, thin=y.thin)
        return elementwise(g, eqn, (x, y), lambda *names: g.once("Add", *names))
    return elementwise(g, eqn, (x, y), lambda *names: g.once("Sub", *names))


@rule("max", elementwise=True)
def _max(g: Graph, eqn: Any, x: Value, y: Value) -> Value:
    for one, other in ((x, y), (y, x)):
        whole = one.shape and tuple(one.shape) == tuple(eqn.outvars[0].aval.shape)
        if whole and _is_all(other, 0) and np.issubdtype(one.dtype, np.floating):
            return elementwise(g, eqn, (one,), lambda name: g.once("Relu", name))
    return elementwise(g, eqn, (x, y), lambda *names: g.once("Max", *names))


@rule("min", elementwise=True)
def _min(g: Graph, eqn: Any, x: Value, y: Value) -> Value:
    return elementwise(g, eqn, (x, y), lambda *names: g.once("Min", *names))


@rule("clamp")
def _clamp(g: Graph, eqn: Any, low: Value, x: Value, high: Value) -> Value:
    return elementwise(
        g, eqn, (x, low, high), lambda x, low, high: g.once("Min", g.once("Max", x, low), high)
    )


@rule("rem", elementwise=True)
def _rem(g: Graph, eqn: Any, *values: Value) -> Value:
    return elementwise(g, eqn, values, lambda *names: g.once("Mod", *names, fmod=1))


@rule("ne", elementwise=True)
def _ne(g: Graph, eqn: Any, *values: Value) -> Value:
    return elementwise(g, eqn, values, lambda *names: g.once("Not", g.once("Equal", *names)))


@rule("square", elementwise=True)
def _square(g: Graph, eqn: Any, x: Value) -> Value:
    return elementwise(g, eqn, (x,), lambda name: g.once("Mul", name, name))


@rule("rsqrt", elementwise=True)
def _rsqrt(g: Graph, eqn: Any, x: Value) -> Value:
    return elementwise(g, eqn, (x,), lambda name: g.once("Reciprocal", g.once("Sqrt", name)))


@rule("integer_pow", elementwise=True)
def _integer_pow(g: Graph, eqn: Any, x: Value) -> Value:
    exponent = number(g, eqn.params["y"], x)
    return elementwise(g, eqn, (x,), lambda name: g.once("Pow", name, exponent))


@rule("exp2", elementwise=True)
def _exp2(g: Graph, eqn: Any, x: Value) -> Value:
    return elementwise(g, eqn, (x,), lambda name: g.once("Pow", number(g, 2, x), name))


@rule("erfc", elementwise=True)
def _erfc(g: Graph, eqn: Any, x: Value) -> Value:
    return elementwise(
        g, eqn, (x,), lambda name: g.once("Sub", number(g, 1, x), g.once("Erf", name))
    )


@rule("log1p", elementwise=True)
def _log1p(g: Graph, eqn: Any, x: Value) -> Value:
    """log(1 + x); near 0, where u = 1 + x has lost digits of x, x log(u) / (u - 1), whose two
    errors cancel (Goldberg, "What Every Computer Scientist Should Know About Floating-Point
    Arithmetic", 1991, theorem 4).
    """

    def make(name: str) -> str:
        one = number(g, 1, x)
        u = g.once("Add", name, one)
        return _careful(g, x, name, log := g.once("Log", u), g.once("Sub", u, one), log)

    return elementwise(g, eqn, (x,), make)


@rule("expm1", elementwise=True)
def _expm1(g: Graph, eqn: Any, x: Value) -> Value:
    """exp(x) - 1; near 0, with u = exp(x), x (u - 1) / log(u) by the same reason."""

    def make(name: str) -> str:
        u = g.once("Exp", name)
        less = g.once("Sub", u, number(g, 1, x))
        return _careful(g, x, name, less, g.once("Log", u), less)

    return elementwise(g, eqn, (x,), make)


def _careful(g: Graph, x: Value, name: str, over: str, under: str, far: str) -> str:
    """x over / under within 1/2 of 0, x itself where `under` is 0; `far` elsewhere."""
    zero, one = number(g, 0, x), number(g, 1, x)
    lost = g.once("Equal", under, zero)
    ratio = g.once("Div", g.once("Mul", name, over), g.once("Where", lost, one, under))
    near = g.once("Less", g.once("Abs", name), number(g, 0.5, x))
    return g.once("Where", near, g.once("Where", lost, name, ratio), far)


@rule("is_finite", elementwise=True)
def _is_finite(g: Graph, eqn: Any, x: Value) -> Value:
    return elementwise(
        g,
        eqn,
        (x,),
        lambda name: g.once("Not", g.once("Or", g.once("IsInf", name), g.once("IsNaN", name))),
    )


@rule("round", elementwise=True)
def _round(g: Graph, eqn: Any, x: Value) -> Value:
    def away(name: str) -> str:
        up = g.once("Floor", g.once("Add", g.once("Abs", name), number(g, 0.5, x)))
        return g.once("Mul", g.once("Sign", name), up)

    even = eqn.params["rounding_method"] == jax.lax.RoundingMethod.TO_NEAREST_EVEN
    return elementwise(g, eqn, (x,), (lambda name: g.once("Round", name)) if even else away)


@rule("select_n", elementwise=True)
def _select_n(g: Graph, eqn: Any, which: Value, *cases: Value) -> Value:
    if which.dtype != bool:
        raise ConfigError(f"it chooses among {len(cases)} cases by number")
    first, second = cases
    return elementwise(
        g, eqn, (second, first, which), lambda yes, no, at: chosen(g, at, yes, no, first.dtype)
    )


@rule("convert_element_type")
def _convert(g: Graph, eqn: Any, x: Value) -> Value:
    if x.array is not None:
        dtype = eqn.outvars[0].aval.dtype
        return Value(x.shape, dtype, x.array.astype(dtype), thin=x.thin)
    to = np.dtype(eqn.params["new_dtype"])
    result = elementwise(g, eqn, (x,), lambda name: g.once("Cast", name, to=to))
    return Value(result.shape, result.dtype, name=result.name, order=result.order, thin=x.thin)
