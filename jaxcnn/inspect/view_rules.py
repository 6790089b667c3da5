"""How JAX's primitives change what an array sees of the image (jaxcnn.inspect.views)."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

from jaxcnn.inspect.views import Axis, View, join, moved, shared

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
    "while",
    "triangular_solve",
    "pure_callback",
    "ffi_call",
}


def output_views(eqn: Any, inputs: list[View | None]) -> list[View | None]:
    """Views of the outputs of an equation of a jaxpr from those of its inputs (None: does not
    depend on the image). A primitive that is not known here is taken to see the whole image.
    """
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
        view, before = join(tracked), tracked[0][1]
        kept = [d for d in range(len(before)) if d not in gone]
        view = moved(shared(view, before, dims=gone), {d: i for i, d in enumerate(kept)})
        return [view] * len(eqn.outvars)
    # elementwise; an axis of size 1 is seen by all
    mixing = name in _MIXING or name.startswith("scatter")
    if not mixing and all(_broadcasts(before, shape) for _, before in tracked):
        spread = []
        for view, before in tracked:
            dims = {d for d in range(len(shape)) if before[d] != shape[d]}
            spread.append((shared(view, before, dims=dims), before))
        return [join(spread)] * len(eqn.outvars)
    mixed = join([(shared(view, before), before) for view, before in tracked])
    return [
        mixed if len(out.aval.shape) == len(tracked[0][1]) else moved(mixed, {})
        for out in eqn.outvars
    ]


def _broadcasts(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return len(before) == len(after) and all(
        b in (1, a) for b, a in zip(before, after, strict=True)
    )


def _conv(eqn, view, shape):
    p = eqn.params
    if p["batch_group_count"] != 1 or len(shape) != len(p["dimension_numbers"].lhs_spec):
        return None
    _, _, *spatial = p["dimension_numbers"].lhs_spec
    _, _, *kernel = p["dimension_numbers"].rhs_spec
    batch, feature, *out = p["dimension_numbers"].out_spec
    window = [eqn.invars[1].aval.shape[d] for d in kernel]
    view = shared(view, shape, dims=set(p["dimension_numbers"].lhs_spec[:2]))
    slid = []
    for a in view:
        if a.dim in spatial:
            i = spatial.index(a.dim)
            a = a.window(
                window[i],
                p["window_strides"][i],
                dilation=p["rhs_dilation"][i],
                low=p["padding"][i][0],
                base=p["lhs_dilation"][i],
            )
        slid.append(a)
    lhs_batch, lhs_feature = p["dimension_numbers"].lhs_spec[:2]
    return moved(
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
    rows = [
        {"window": window, "stride": stride, "dilation": dilation, "low": low, "base": base}
        for window, stride, dilation, (low, _), base in each
    ]
    return tuple(a if a.dim is None else a.window(**rows[a.dim]) for a in view)


def _pad(eqn, view, shape):
    config = eqn.params["padding_config"]  # (low, high, interior) of each axis
    return tuple(
        a if a.dim is None else a.window(1, 1, low=config[a.dim][0], base=config[a.dim][2] + 1)
        for a in view
    )


def _slice(eqn, view, shape):
    starts, strides = eqn.params["start_indices"], eqn.params["strides"] or (1,) * len(shape)
    return tuple(
        a if a.dim is None else a.window(1, strides[a.dim], low=-starts[a.dim]) for a in view
    )


def _transpose(eqn, view, shape):
    return moved(view, {d: i for i, d in enumerate(eqn.params["permutation"])})


def _squeeze(eqn, view, shape):
    kept = [d for d in range(len(shape)) if d not in eqn.params["dimensions"]]
    return moved(view, {d: i for i, d in enumerate(kept)})


def _broadcast(eqn, view, shape):
    to, after = eqn.params["broadcast_dimensions"], eqn.params["shape"]
    spread = {d for d in range(len(shape)) if after[to[d]] != shape[d]}
    return moved(shared(view, shape, dims=spread), dict(enumerate(to)))


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


def _split(eqn, view, shape):
    apart = any(a.dim == eqn.params["axis"] and not a.shared for a in view)
    return None if apart else view  # of an axis of the image its parts see different pixels


def _rev(eqn, view, shape):
    return shared(view, shape, dims=set(eqn.params["dimensions"]))


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
            views.append((moved(shared(view, before, dims=set(gone)), dims), shape))
    return join(views)


def _concatenate(eqn, inputs) -> View:
    along = {eqn.params["dimension"]}
    shape = tuple(eqn.outvars[0].aval.shape)
    tracked = [
        (view, atom.aval.shape)
        for view, atom in zip(inputs, eqn.invars, strict=True)
        if view is not None
    ]
    return join([(shared(view, before, dims=along), shape) for view, before in tracked])


_RULES = {
    "conv_general_dilated": _conv,
    "pad": _pad,
    "slice": _slice,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "split": _split,
    "rev": _rev,
}
