"""Diagrams of a classification as inline SVG, and the parallel coordinates of a sweep."""

from collections.abc import Sequence
from typing import Any

from jaxcnn.runs.report.charts import COLORS, GAP, MIDDLE, is_logarithmic, share_of
from jaxcnn.runs.report.page import Html, join, number, tag
from jaxcnn.runs.report.reading import as_number

COUNTED = 20  # classes up to which the cells of a confusion matrix show their numbers
SIDE = 440
LETTER = 6.6  # the mean width of one, in the size of labels


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Html:
    """A confusion matrix [K][K] of counts, row: true class, column: predicted; the depth of colour
    is the share of the row. Empty cells are not drawn.
    """
    count = len(matrix)
    margin = min(110, 12 + 6 * max(map(len, names)))
    size = (SIDE - margin) / count
    shown = count <= 50
    parts = []
    centers = [margin + (i + 0.5) * size for i in range(count)]
    for i, row in enumerate(matrix):
        whole = sum(row)
        if shown:
            parts.append(_name(names[i], margin - GAP, centers[i] + MIDDLE, "end"))
        for j, n in enumerate(row):
            if n:
                x, y = round(margin + j * size, 1), round(margin + i * size, 1)
                parts.append(_cell(x, y, size, n / whole, n, f"{names[i]} called {names[j]}"))
    for j in range(count if shown else 0):
        turn = f"rotate(-60 {centers[j]:.1f} {margin - GAP})"
        parts.append(_name(names[j], centers[j], margin - GAP, "start", turn=turn))
    parts.append(
        tag("rect", x=margin, y=margin, width=SIDE - margin, height=SIDE - margin, class_="axis")
    )
    image = tag(
        "svg", parts, viewBox=f"0 0 {SIDE} {SIDE}", role="img", aria_label="confusion matrix"
    )
    words = "rows: true classes; columns: what they were called; colour: share of the row"
    return tag("figure", tag("figcaption", words), image, class_="square")


def _name(name: str, x: float, y: float, anchor: str, *, turn: str | None = None) -> Html:
    short = name if len(name) <= 18 else f"{name[:17]}…"
    return tag("text", short, x=round(x, 1), y=round(y, 1), text_anchor=anchor, transform=turn)


def _cell(x: float, y: float, size: float, share: float, n: int, words: str) -> Html:
    title = tag("title", f"{words}: {n:,} ({share:.1%})")
    side = round(size, 1)
    cell = tag(
        *("rect", title), x=x, y=y, width=side, height=side, class_="cell",
        fill_opacity=round(0.06 + 0.94 * share, 3),
    )  # fmt: skip
    if size < (SIDE - 110) / COUNTED or len(str(n)) * 7 > size:
        return cell
    kind = "count on-dark" if share > 0.5 else "count"
    label = tag(
        "text", n, x=round(x + size / 2, 1), y=round(y + size / 2 + MIDDLE, 1), class_=kind,
        pointer_events="none",
    )  # fmt: skip
    return join([cell, label])


def reliability(rows: Sequence[dict[str, Any]]) -> Html | None:
    """A reliability diagram of the rows of jaxcnn.metrics.calibration.reliability_table: the share
    that was right over the mean confidence of each bin, and the diagonal on which both are equal.
    """
    parts, side, left, top = [], 240, 36, 8
    for row in rows:
        found = [as_number(row.get(k)) for k in ("from", "to", "count", "confidence", "accuracy")]
        if any(value is None or not 0 <= value < 2**53 for value in found):
            continue  # an empty bin has no means
        low, high, count, confidence, right = (value or 0.0 for value in found)
        if max(low, high, confidence, right) > 1:
            continue
        title = tag(
            "title", f"confidence {confidence:.3f}, right {right:.3f}, {int(count):,} examples"
        )
        x, width = left + low * side, (high - low) * side
        y, height = top + (1 - right) * side, right * side
        parts += [
            tag("rect", title, x=round(x, 1), y=round(y, 1), width=round(width, 1),
                height=round(height, 1), class_="bar s0"),
            tag("circle", title, cx=round(left + confidence * side, 1), cy=round(y, 1), r=3,
                class_="dot s1"),
        ]  # fmt: skip
    if not parts:
        return None
    frame = [tag("rect", x=left, y=top, width=side, height=side, class_="axis")]
    frame.append(tag("line", x1=left, y1=top + side, x2=left + side, y2=top, class_="axis"))
    for value in (0, 0.5, 1):
        x, y = left + value * side, top + (1 - value) * side
        frame.append(tag("text", value, x=x, y=top + side + 14, text_anchor="middle"))
        frame.append(tag("text", value, x=left - GAP, y=y + MIDDLE, text_anchor="end"))
    frame.append(
        tag("text", "confidence", x=left + side / 2, y=top + side + 28, text_anchor="middle")
    )
    image = tag(
        *("svg", frame, parts), viewBox=f"0 0 {side + 52} {side + 44}", role="img",
        aria_label="reliability diagram",
    )  # fmt: skip
    words = "bars: share that was right; points: at the bin's mean confidence"
    return tag("figure", tag("figcaption", words), image, class_="small")


def parallel(axes: Sequence[str], rows: Sequence[Sequence[Any]], colors: Sequence[int]) -> Html:
    """Parallel coordinates: one line a row, through its value on each axis. An axis of numbers is
    linear from least to largest, over three decades logarithmic; one of other values has a place
    for each. Values that are None end the line. Drawn in its own size, so that it can be read on a
    phone: three axes fit one, more are scrolled to.
    """
    gap, top, bottom = 125, 28, 220
    scales = [_places([row[i] for row in rows]) for i in range(len(axes))]
    names = _short(axes)
    widest = [max((len(label) for label, _ in labels), default=0) for _, labels in scales]
    # the outer labels lie outside, and half of each name
    left, right = (
        round(LETTER * max(widest[i], len(names[i]) / 2)) + 8 for i in (0, len(axes) - 1)
    )
    width = left + gap * (len(axes) - 1) + right
    parts, labels = [], []  # these over the lines that end at them
    for i, name in enumerate(names):
        x, last = left + i * gap, i == len(axes) - 1
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="axis"))
        parts.append(tag("text", name, x=x, y=top - 12, text_anchor="middle"))
        labels += [
            tag("text", label, x=x + GAP if last else x - GAP, class_="over",
                y=round(bottom - share * (bottom - top) + MIDDLE),
                text_anchor="start" if last else "end")
            for label, share in scales[i][1]
        ]  # fmt: skip
    for row, color in zip(rows, colors, strict=True):
        shares = [scale[0].get(_key(value)) for scale, value in zip(scales, row, strict=True)]
        places = [
            f"{left + i * gap},{bottom - share * (bottom - top):.1f}"
            for i, share in enumerate(shares)
            if share is not None
        ]
        title = tag("title", ", ".join(f"{a} {number(v)}" for a, v in zip(axes, row, strict=True)))
        line = f"series s{color % COLORS}"
        parts.append(tag("polyline", title, points=" ".join(places), class_=line))
    image = tag(
        *("svg", parts + labels), viewBox=f"0 0 {width} {bottom + 14}", role="img",
        aria_label="parallel coordinates", width=width,
    )  # fmt: skip
    return tag("figure", image, class_="wide")


def _short(names: Sequence[str]) -> list[str]:
    """The last parts of dotted paths where that leaves them apart; of what no gap holds the end."""
    last = [name.rpartition(".")[2] for name in names]
    shown = last if len(set(last)) == len(last) else names
    return [name if len(name) <= 18 else f"…{name[-17:]}" for name in shown]


def _key(value: Any) -> str:
    return repr(value)


def _places(values: Sequence[Any]) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """({value: share of the axis}, [(label, share), …]) of the values on an axis."""
    numbers = [as_number(v) for v in values]
    pairs = list(zip(values, numbers, strict=True))
    given = {n: v for v, n in pairs if n is not None}
    known = sorted(given)
    if known and all(v is None or n is not None for v, n in pairs):
        low, high = known[0], known[-1]

        def place(n: float) -> float:
            return share_of(n, low, high, log=is_logarithmic(low, high)) if high > low else 0.5

        shares = {_key(v): place(n) for v, n in pairs if n is not None}
        return shares, _apart([(number(given[n]), place(n)) for n in known])
    kinds = list(dict.fromkeys(_key(v) for v in values if v is not None))
    at = [i / max(len(kinds) - 1, 1) for i in range(len(kinds))]
    labels = [(kind[:20], share) for kind, share in zip(kinds, at, strict=True)]
    return dict(zip(kinds, at, strict=True)), _apart(labels)


def _apart(labels: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The labels that do not cover one another, the first and the last before all."""
    kept = [*labels[:1], *labels[1:][-1:]]
    for label in labels:
        if all(abs(label[1] - share) >= 0.07 for _, share in kept):
            kept.append(label)
    return kept
