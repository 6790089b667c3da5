"""Which part of the input one output position sees: closed forms for chains of layers, and a walk
over a jaxpr for any network.

Everything is per spatial axis, in pixels of the input, and as in an unbounded image: padding and
borders do not cut the field.
Source of the closed forms: Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019.
"""

from collections.abc import Callable, Iterable
from typing import Any

from jaxcnn.errors import ConfigError
from jaxcnn.inspect.view_rules import output_views
from jaxcnn.inspect.views import View, join, moved, shared

# (equation, view of its first output, how often it runs) -> None
Visit = Callable[[Any, View | None, int], None]
Weigh = Callable[[Any], int]  # how much a jaxpr is; the branch of a `cond` that is most is visited


def output_size(
    size: int,
    window: int,
    *,
    stride: int = 1,
    padding: str | int | tuple[int, int] = "VALID",
    dilation: int = 1,
) -> int:
    """Output positions of a convolution or pooling along one axis; `padding` is "VALID", "SAME",
    pixels on both sides, or (low, high).
    """
    if padding == "SAME":
        return -(-size // stride)
    if isinstance(padding, str) and padding != "VALID":
        raise ConfigError(
            f"padding {padding!r} is unknown; it must be 'VALID', 'SAME', a number of pixels, or "
            "(low, high)"
        )
    if padding == "VALID":
        padding = 0
    low, high = (padding, padding) if isinstance(padding, int) else padding
    return max(0, (size + low + high - (window - 1) * dilation - 1) // stride + 1)


def receptive_field(layers: Iterable[tuple[int, ...]]) -> tuple[int, int]:
    """(receptive field, stride) along one axis after a chain of layers, each (window, stride) or
    (window, stride, dilation).
    """
    field, jump = 1, 1
    for window, stride, *dilation in layers:
        field += (window - 1) * (dilation[0] if dilation else 1) * jump
        jump *= stride
    return field, jump


def walk(
    jaxpr: Any,
    views: list[View | None],
    visit: Visit,
    *,
    times: int = 1,
    weigh: Weigh = lambda _: 0,
) -> list[View | None]:
    """Views of the outputs of `jaxpr` from those of its inputs (None: does not depend on the
    image).

    `visit(equation, view of its first output, times)` is called for every equation without a jaxpr
    of its own, in the order of tracing; `times` is how often it runs (the length of the scans
    around it), and the view that of the last time. Of a `cond` the branch that weighs most is
    visited (of equal ones the first), and its outputs see what those of any branch do. An operation
    that is not known here is taken to see the whole image.
    """
    known: dict[Any, View | None] = dict(zip(jaxpr.invars, views, strict=True))
    for eqn in jaxpr.eqns:
        # literals have `val`
        inputs = [None if hasattr(atom, "val") else known.get(atom) for atom in eqn.invars]
        inners, given = _inner(eqn, inputs)
        if not inners:
            outputs = output_views(eqn, inputs)
            visit(eqn, outputs[0] if outputs else None, times)
        else:
            visited = max(inners, key=weigh) if len(inners) > 1 else inners[0]
            left = [
                _through(eqn, inner, given, visit if inner is visited else _ignore, times, weigh)
                for inner in inners
            ]
            outputs = left[0] if len(left) == 1 else _of_any(eqn, left, inputs[0])
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [None if hasattr(atom, "val") else known.get(atom) for atom in jaxpr.outvars]


def _through(
    eqn, inner, given: list[View | None], visit: Visit, times: int, weigh: Weigh
) -> list[View | None]:
    """The views of an equation's outputs, by way of a jaxpr that it calls."""
    atoms = eqn.invars[len(eqn.invars) - len(given) :]
    entered = [
        _fit(view, atom, var) for view, atom, var in zip(given, atoms, inner.invars, strict=True)
    ]
    repeats = 1
    if eqn.primitive.name == "scan":
        entered, repeats = _before_the_last(eqn, inner, entered), eqn.params["length"]
    left = walk(inner, entered, visit, times=times * repeats, weigh=weigh)
    return [
        _fit(view, var, out)
        for view, var, out in zip(left, inner.outvars, eqn.outvars, strict=True)
    ]


def _of_any(eqn, left: list[list[View | None]], chooser: View | None) -> list[View | None]:
    """The views of the outputs of a `cond` from those that each branch gives: what any of them
    sees, and what the number of the branch depends on.
    """
    outputs = []
    for out, *views in zip(eqn.outvars, *left, strict=True):
        shape = tuple(out.aval.shape)
        seen = [(view, shape) for view in views if view is not None]
        seen += [] if chooser is None else [(chooser, ())]
        outputs.append(join(seen) if seen else None)
    return outputs


def _ignore(*_: Any) -> None:
    """A visit that does nothing."""


def _before_the_last(eqn, inner, entered: list[View | None]) -> list[View | None]:
    """The views that a scan's last step begins with: what is carried has been through all before
    it.
    """
    start = eqn.params["num_consts"]
    stop = start + eqn.params["num_carry"]
    for _ in range(eqn.params["length"] - 1):
        left = walk(inner, entered, _ignore)
        after = [*entered[:start], *left[: stop - start], *entered[stop:]]
        if after == entered:
            break
        entered = after
    return entered


def _inner(eqn, inputs):
    """The jaxprs that an equation calls, and the views for them: jit, scan, remat, custom
    derivatives; of a `cond` one for each branch.
    """
    if eqn.primitive.name == "cond":
        return [branch.jaxpr for branch in eqn.params["branches"]], inputs[1:]
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(key)
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and hasattr(inner, "eqns") and len(inner.invars) == len(inputs):
            return [inner], inputs
    return [], inputs


def _fit(view: View | None, source, target) -> View | None:
    """The view across the border of an inner jaxpr: unchanged, unless a scan adds or removes its
    axis.
    """
    if view is None or source.aval.shape == target.aval.shape:
        return view
    return moved(shared(view, source.aval.shape), {})
