"""Which part of the input one output position sees: closed forms for chains of layers, and a walk
over a jaxpr for any network.

Everything is per spatial axis, in pixels of the input, and as in an unbounded image: padding and
borders do not cut the field.
Source of the closed forms: Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from jaxcnn.errors import ConfigError


def output_size(
    size: int,
    window: int,
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
    low, high = (
        (0, 0)
        if isinstance(padding, str)
        else (padding, padding)
        if isinstance(padding, int)
        else padding
    )
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


@dataclass(frozen=True)
class Axis:
    """How an array sees one spatial axis of the input: position i along `dim` sees the pixels
    stride * i + low ... stride * i + high.

    Where `shared`, all positions see low ... high (after a global pool, say); `dim` is None where
    the array no longer has the axis.
    """

    dim: int | None
    stride: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)
    shared: bool = False

    @property
    def field(self) -> int:
        """Receptive field in pixels."""
        return math.floor(self.high - self.low) + 1

    def share(self, size: int) -> "Axis":
        """The axis after something that mixes all its `size` positions."""
        return (
            self
            if self.shared
            else replace(self, high=self.high + self.stride * (size - 1), shared=True)
        )

    def window(
        self, window: int, stride: int, dilation: int = 1, low: int = 0, base: int = 1
    ) -> "Axis":
        """After a sliding window, `low` positions of padding before the first; `base` > 1 spreads
        the input (transposed).
        """
        # JAX hands NumPy integers on, which would end up in the summary
        low, base = (
            int(low),
            int(base),
        )
        jump = self.stride * Fraction(int(stride), base)
        if self.shared:
            return replace(self, stride=jump)
        start = self.low - self.stride * Fraction(low, base)
        # A window over a spread input touches at most this many steps of it; the zeros between
        # count nothing.
        taps = int(window - 1) * int(dilation) // base
        return replace(
            self, stride=jump, low=start, high=start + (self.high - self.low) + self.stride * taps
        )


View = tuple[Axis, ...]  # one Axis for each spatial axis of the input
Visit = Callable[[Any, View | None, int], None]


def input_view(ndim: int) -> View:
    """The view of the input itself, [B, *spatial, C]."""
    return tuple(Axis(dim) for dim in range(1, ndim - 1))


def walk(jaxpr: Any, views: list[View | None], visit: Visit, times: int = 1) -> list[View | None]:
    """Views of the outputs of `jaxpr` from those of its inputs (None: does not depend on the
    image).

    `visit(equation, view of its first output, times)` is called for every equation without a jaxpr
    of its own, in the order of tracing; `times` is how often it runs (the length of the scans
    around it). An operation that is not known here is taken to see the whole image.
    """
    known: dict[Any, View | None] = dict(zip(jaxpr.invars, views, strict=True))
    for eqn in jaxpr.eqns:
        # literals have `val`
        inputs = [None if hasattr(atom, "val") else known.get(atom) for atom in eqn.invars]
        inner, given = _inner(eqn, inputs)
        if inner is None:
            outputs = _outputs(eqn, inputs)
            visit(eqn, outputs[0] if outputs else None, times)
        else:
            atoms = eqn.invars[len(eqn.invars) - len(given) :]
            entered = [
                _fit(view, atom, var)
                for view, atom, var in zip(given, atoms, inner.invars, strict=True)
            ]
            left = walk(
                inner,
                entered,
                visit,
                times * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else times,
            )
            outputs = [
                _fit(view, var, out)
                for view, var, out in zip(left, inner.outvars, eqn.outvars, strict=True)
            ]
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [None if hasattr(atom, "val") else known.get(atom) for atom in jaxpr.outvars]


def _inner(eqn, inputs):
    """The jaxpr that an equation calls, and the views for it: jit, scan, remat, custom derivatives;
    of a `cond` the last branch.
    """
    if eqn.primitive.name == "cond":
        return eqn.params["branches"][-1].jaxpr, inputs[1:]
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(key)
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and hasattr(inner, "eqns") and len(inner.invars) == len(inputs):
            return inner, inputs
    return None, inputs


def _fit(view: View | None, source, target) -> View | None:
    """The view across the border of an inner jaxpr: unchanged, unless a scan adds or removes its
    axis.
    """
    return (
        view
        if view is None or source.aval.shape == target.aval.shape
        else _moved(_shared(view, source.aval.shape), {})
    )


def _shared(view: View, shape, dims=None) -> View:
    """The view after all positions along `dims` (default: all) are mixed."""
    return tuple(
        a.share(shape[a.dim]) if a.dim is not None and (dims is None or a.dim in dims) else a
        for a in view
    )


def _moved(view: View, dims: dict[int, int]) -> View:
    """The view after each dim d became dims[d]; those not in `dims` are gone."""
    return tuple(replace(a, dim=None if a.dim is None else dims.get(a.dim)) for a in view)


def _join(views: list[tuple[View, tuple[int, ...]]]) -> View:
    """The view of something that depends on several arrays (view, shape) elementwise: the union of
    what they see.
    """
    joined = []
    for axes in zip(*(view for view, _ in views), strict=True):
        dims, strides = (
            {a.dim for a in axes} - {None},
            {a.stride for a in axes if a.dim is not None},
        )
        if any(a.shared or a.dim is None for a in axes) or len(dims) > 1 or len(strides) > 1:
            axes = [
                a.share(shape[a.dim]) if a.dim is not None else replace(a, shared=True)
                for a, (_, shape) in zip(axes, views, strict=True)
            ]
        stride = max(strides or {a.stride for a in axes})
        dim = dims.pop() if len(dims) == 1 else None
        joined.append(
            Axis(dim, stride, min(a.low for a in axes), max(a.high for a in axes), axes[0].shared)
        )
    return tuple(joined)


def _outputs(eqn, inputs: list[View | None]) -> list[View | None]:
    """Views of the outputs of one primitive."""
    tracked = [
        (view, tuple(atom.aval.shape))
        for view, atom in zip(inputs, eqn.invars, strict=True)
        if view is not None
    ]
    if not tracked:
        return [None] * len(eqn.outvars)
    name, shape = eqn.primitive.name, tuple(eqn.outvars[0].aval.shape)
    rule = _RULES.get(name) or (_reduce_window if name.startswith("reduce_window") else None)
    if rule is not None and len(tracked) == 1 and (view := rule(eqn, *tracked[0])) is not None:
        return [view] * len(eqn.outvars)
    if name in ("dot_general", "concatenate"):
        return [(_dot_general if name == "dot_general" else _concatenate)(eqn, inputs)]
    if name.startswith(("reduce_", "arg")) and "axes" in eqn.params:
        gone = set(eqn.params["axes"])
        view, before = _join(tracked), tracked[0][1]
        kept = [d for d in range(len(before)) if d not in gone]
        return [_moved(_shared(view, before, gone), {d: i for i, d in enumerate(kept)})] * len(
            eqn.outvars
        )
    if name not in _MIXING and all(
        _broadcasts(before, shape) for _, before in tracked
    ):  # elementwise; an axis of size 1 is seen by all
        spread = [{d for d in range(len(shape)) if before[d] != shape[d]} for _, before in tracked]
        return [
            _join(
                [
                    (_shared(view, before, dims), before)
                    for (view, before), dims in zip(tracked, spread, strict=True)
                ]
            )
        ] * len(eqn.outvars)
    mixed = _join([(_shared(view, before), before) for view, before in tracked])
    return [
        mixed if len(out.aval.shape) == len(tracked[0][1]) else _moved(mixed, {})
        for out in eqn.outvars
    ]


def _broadcasts(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return len(before) == len(after) and all(
        b in (1, a) for b, a in zip(before, after, strict=True)
    )


# Primitives that keep the shape and yet are not elementwise.
_MIXING = {
    "sort",
    "fft",
    "gather",
    "cumsum",
    "cumprod",
    "cummax",
    "cummin",
    "cumlogsumexp",
    "dynamic_update_slice",
    "scatter",
    "scatter-add",
}


def _conv(eqn, view, shape):
    p = eqn.params
    if p["batch_group_count"] != 1 or len(shape) != len(p["dimension_numbers"].lhs_spec):
        return None
    _, _, *spatial = p["dimension_numbers"].lhs_spec
    _, _, *kernel = p["dimension_numbers"].rhs_spec
    batch, feature, *out = p["dimension_numbers"].out_spec
    window = [eqn.invars[1].aval.shape[d] for d in kernel]
    view = _shared(view, shape, set(p["dimension_numbers"].lhs_spec[:2]))
    slid = []
    for a in view:
        if a.dim in spatial:
            i = spatial.index(a.dim)
            a = a.window(
                window[i],
                p["window_strides"][i],
                p["rhs_dilation"][i],
                p["padding"][i][0],
                p["lhs_dilation"][i],
            )
        slid.append(a)
    lhs_batch, lhs_feature = p["dimension_numbers"].lhs_spec[:2]
    return _moved(
        tuple(slid),
        {**dict(zip(spatial, out, strict=True)), lhs_batch: batch, lhs_feature: feature},
    )


def _reduce_window(eqn, view, shape):
    p = eqn.params
    each = zip(
        p["window_dimensions"],
        p["window_strides"],
        p["window_dilation"],
        p["padding"],
        p["base_dilation"],
        strict=True,
    )
    rows = [(k, s, d, low, base) for k, s, d, (low, _), base in each]
    return tuple(a if a.dim is None else a.window(*rows[a.dim]) for a in view)


def _pad(eqn, view, shape):
    config = eqn.params["padding_config"]
    return tuple(
        a if a.dim is None else a.window(1, 1, 1, config[a.dim][0], config[a.dim][2] + 1)
        for a in view
    )


def _slice(eqn, view, shape):
    starts, strides = eqn.params["start_indices"], eqn.params["strides"] or (1,) * len(shape)
    return tuple(
        a if a.dim is None else a.window(1, strides[a.dim], 1, -starts[a.dim]) for a in view
    )


def _transpose(eqn, view, shape):
    return _moved(view, {d: i for i, d in enumerate(eqn.params["permutation"])})


def _squeeze(eqn, view, shape):
    kept = [d for d in range(len(shape)) if d not in eqn.params["dimensions"]]
    return _moved(view, {d: i for i, d in enumerate(kept)})


def _broadcast(eqn, view, shape):
    to, after = eqn.params["broadcast_dimensions"], eqn.params["shape"]
    spread = {d for d in range(len(shape)) if after[to[d]] != shape[d]}
    return _moved(_shared(view, shape, spread), dict(enumerate(to)))


def _reshape(eqn, view, shape):
    """An axis that stays keeps its view, one split in two lies along the first half, one merged
    with channels is finer; others mix.
    """
    return tuple(
        a if a.dim is None else _reshaped(a, view, shape, eqn.params["new_sizes"]) for a in view
    )


def _reshaped(a: Axis, view: View, shape, after) -> Axis:
    assert a.dim is not None
    size, before = shape[a.dim], math.prod(shape[: a.dim])
    # where an output dim begins where this one began
    starts = [d for d in range(len(after)) if math.prod(after[:d]) == before]
    same = [d for d in starts if after[d] == size]
    if same:
        return replace(a, dim=a.dim if a.dim in same else same[-1])
    for d in starts:
        if after[d] > 1 and size % after[d] == 0:
            return replace(a.window(size // after[d], size // after[d]), dim=d)
        finer = after[d] // size
        merged = [
            other
            for other in range(a.dim + 1, len(shape))
            if math.prod(shape[a.dim : other + 1]) <= after[d]
        ]
        alone = all(b.dim not in merged or shape[b.dim] == 1 for b in view)
        if (
            size > 1
            and alone
            and math.prod(shape[i] for i in merged) == finer
            and size * finer == after[d]
            and not a.shared
        ):
            # Each position became `finer` ones; which of them is not known later, so the field is
            # widened to hold for all.
            return replace(
                a, dim=d, stride=a.stride / finer, low=a.low - a.stride * Fraction(finer - 1, finer)
            )
    return replace(a.share(size), dim=None)


def _rev(eqn, view, shape):
    return _shared(view, shape, set(eqn.params["dimensions"]))


def _dot_general(eqn, inputs) -> View:
    contracted, batched = eqn.params["dimension_numbers"]
    views: list[tuple[View, tuple[int, ...]]] = []
    shape, position = tuple(eqn.outvars[0].aval.shape), len(batched[0])
    for atom, view, gone, batch in zip(eqn.invars, inputs, contracted, batched, strict=True):
        before = atom.aval.shape
        free = [d for d in range(len(before)) if d not in gone and d not in batch]
        dims = {
            **{d: i for i, d in enumerate(batch)},
            **{d: position + i for i, d in enumerate(free)},
        }
        position += len(free)
        if view is not None:
            views.append((_moved(_shared(view, before, set(gone)), dims), shape))
    return _join(views)


def _concatenate(eqn, inputs) -> View:
    along = {eqn.params["dimension"]}
    shape = tuple(eqn.outvars[0].aval.shape)
    tracked = [
        (view, atom.aval.shape)
        for view, atom in zip(inputs, eqn.invars, strict=True)
        if view is not None
    ]
    return _join([(_shared(view, before, along), shape) for view, before in tracked])


_RULES = {
    "conv_general_dilated": _conv,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "rev": _rev,
}
