"""How an array sees the image: for each spatial axis, which pixels each of its positions depends
on.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True)
class Axis:
    """How an array sees one spatial axis of the input: position i along `dim` sees the pixels
    stride * i + low ... stride * i + high.

    `slack`: after a transposed convolution some positions see as much further up, by so much at
    most, since the zeros between its inputs lie otherwise under the window.
    Where `shared`, all positions see low ... high (after a global pool, say); `dim` is None where
    the array no longer has the axis.
    """

    dim: int | None
    stride: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)
    shared: bool = False
    slack: Fraction = Fraction(0)

    @property
    def field(self) -> int:
        """Receptive field in pixels."""
        return math.floor(self.high - self.low) + 1

    def share(self, size: int) -> "Axis":
        """The axis after something that mixes all its `size` positions."""
        if self.shared:
            return self
        return replace(self, high=self.high + self.stride * (size - 1), shared=True)

    def window(
        self, window: int, stride: int, *, dilation: int = 1, low: int = 0, base: int = 1
    ) -> "Axis":
        """After a sliding window, `low` positions of padding before the first; `base` > 1 spreads
        the input (transposed).
        """
        low, base = int(low), int(base)  # JAX hands on NumPy's, which would end up in the summary
        jump = self.stride * Fraction(int(stride), base)
        if self.shared:
            return replace(self, stride=jump)
        start = self.low - self.stride * Fraction(low, base)
        # A window over a spread input touches at most this many steps of it; the zeros between
        # count nothing.
        taps, rest = divmod(int(window - 1) * int(dilation), base)
        return replace(
            self,
            stride=jump,
            low=start,
            high=start + (self.high - self.low) + self.stride * taps,
            slack=self.slack + self.stride * Fraction(rest, base),
        )


View = tuple[Axis, ...]  # one Axis for each spatial axis of the input


def input_view(ndim: int) -> View:
    """The view of the input itself, [B, *spatial, C]."""
    return tuple(Axis(dim) for dim in range(1, ndim - 1))


def shared(view: View, shape: Sequence[int], *, dims: Collection[int] | None = None) -> View:
    """The view after all positions along `dims` (default: all) are mixed."""
    return tuple(
        a.share(shape[a.dim]) if a.dim is not None and (dims is None or a.dim in dims) else a
        for a in view
    )


def moved(view: View, dims: dict[int, int]) -> View:
    """The view after each dim d became dims[d]; those not in `dims` are gone."""
    return tuple(replace(a, dim=None if a.dim is None else dims.get(a.dim)) for a in view)


def join(views: list[tuple[View, tuple[int, ...]]]) -> View:
    """The view of something that depends on several arrays (view, shape) elementwise: the union of
    what they see.
    """
    joined = []
    for axes in zip(*(view for view, _ in views), strict=True):
        dims = {a.dim for a in axes} - {None}
        strides = {a.stride for a in axes if a.dim is not None}
        if any(a.shared or a.dim is None for a in axes) or len(dims) > 1 or len(strides) > 1:
            axes = [
                a.share(shape[a.dim]) if a.dim is not None else replace(a, shared=True)
                for a, (_, shape) in zip(axes, views, strict=True)
            ]
        stride = max(strides or {a.stride for a in axes})
        dim = dims.pop() if len(dims) == 1 else None
        low, high = min(a.low for a in axes), max(a.high for a in axes)
        slack = max(a.high + a.slack for a in axes) - high
        joined.append(Axis(dim, stride, low, high, axes[0].shared, slack))
    return tuple(joined)
