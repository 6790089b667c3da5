"""Line charts as inline SVG, with the values under the pointer."""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence

from jaxcnn.runs.report.page import Html, join, note, number, tag

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 48, 352, 8, 186  # of the plot within
GAP = 5  # between a label and what it stands beside
MIDDLE = 4  # from the middle of its letters down to the line that they stand on
COLORS = 8
MOST_POINTS = 400  # of a line
DECADES = 3.0  # from so many on an axis of positive numbers is logarithmic
TINY = 1e-290  # what is nearer to 0 is no number to be told apart from it


@dataclasses.dataclass(frozen=True)
class Series:
    """A line: points (x, y) in the order of x. `thin`: one of many; `color`: 0 to 7."""

    name: str
    points: Sequence[Point]
    color: int = 0
    dashed: bool = False
    thin: bool = False


def thinned(points: Sequence[Point], *, most: int = MOST_POINTS) -> list[Point]:
    """At most `most` (and the last) of many points: of each run of neighbours the least and the
    largest, so that no peak is lost.
    """
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // (most // 2))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def line_chart(title: str, series: Sequence[Series]) -> Html | None:
    """A figure with the lines that have points; None where none has two: one value is no curve.
    Positive values that span three decades are drawn on a logarithmic axis, and the caption says
    so.
    """
    drawn = [dataclasses.replace(s, points=thinned(s.points)) for s in series if s.points]
    if all(len(s.points) < 2 for s in drawn):
        return None
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    log = is_logarithmic(min(ys), max(ys))
    low, high, marks = log_ticks(min(ys), max(ys)) if log else ticks(min(ys), max(ys))
    x0, x1 = min(xs), max(xs)

    def place(x: float, y: float) -> Point:
        along = share_of(x, x0, x1) if x1 > x0 else 0.0
        up = share_of(y, low, high, log=log)
        return LEFT + along * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)

    parts = [_rule(place(x0, y)[1], y) for y in marks]
    steps = [(LEFT, number(x0), "start"), ((LEFT + RIGHT) / 2, "step", "middle")]
    steps += [(RIGHT, number(x1), "end")] if x1 > x0 else []
    parts += [tag("text", s, x=x, y=BOTTOM + 16, text_anchor=anchor) for x, s, anchor in steps]
    parts += [_line(s, [place(*p) for p in s.points]) for s in drawn]
    parts.append(tag("line", y1=TOP, y2=BOTTOM, class_="pointer"))
    plot = {"left": LEFT, "right": RIGHT, "x0": x0, "x1": x1, "name": "step"}
    image = tag(
        "svg",
        parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=title,
        data_series=json.dumps([_values(s) for s in drawn], separators=(",", ":")),
        data_plot=json.dumps(plot),
    )
    caption = [tag("b", title), " (logarithmic)" if log else None]
    box = tag("div", class_="hover")
    return tag("figure", tag("figcaption", caption), legend(drawn), image, box)


def panel(wanted: Iterable[tuple[str, Sequence[Series]]]) -> Html:
    """The charts of (title, lines) side by side; in words what has one value, and so no curve."""
    charts, once = [], []
    for title, series in wanted:
        logged = [s for s in series if s.points]
        if chart := line_chart(title, logged):
            charts.append(chart)
        elif logged:
            once.append(_in_words(title, logged))
    grid = tag("div", charts, class_="charts") if charts else None
    return join([grid, note(f"Logged once, so no curve: {'; '.join(once)}.") if once else None])


def _in_words(title: str, series: Sequence[Series]) -> str:
    """The one value of each line; of many thin ones, which a table has, the title alone."""
    if any(s.thin for s in series):
        return title
    values = [
        number(y) if s.name == title else f"{s.name} {number(y)}"
        for s in series
        for _, y in s.points
    ]
    return f"{title} ({', '.join(values)})"


def legend(series: Sequence[Series]) -> Html:
    """Which line is which, with its last value; each name once."""
    named = {s.name: s for s in series}
    spans = [
        tag("span", _key(s), f"{s.name} {number(s.points[-1][1])}" if not s.thin else s.name)
        for s in list(named.values())[:12]
    ]
    more = f"… {len(named) - 12} more" if len(named) > 12 else None
    return tag("figcaption", spans, more, class_="legend")


def _key(s: Series) -> Html:
    return tag("i", class_=f"key s{s.color % COLORS}{' dashed' if s.dashed else ''}")


def _rule(y: float, value: float) -> Html:
    y = round(y, 1)
    mark = tag("text", number(value), x=LEFT - GAP, y=y + MIDDLE, text_anchor="end")
    return join([tag("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="axis"), mark])


def _line(s: Series, places: Sequence[Point]) -> Html:
    name = f"series s{s.color % COLORS}{' dashed' if s.dashed else ''}{' thin' if s.thin else ''}"
    if len(places) == 1:
        x, y = places[0]
        return tag("circle", cx=round(x, 1), cy=round(y, 1), r=3, class_=f"{name} dot")
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_=name)


def _values(s: Series) -> dict[str, object]:
    """What the script shows: numbers of five digits."""
    return {
        "name": s.name,
        "x": [x for x, _ in s.points],
        "y": [float(f"{y:.5g}") for _, y in s.points],
    }


def is_logarithmic(low: float, high: float) -> bool:
    """Whether the axis of numbers between these is: positive ones that span DECADES."""
    return low > TINY and math.log10(high) - math.log10(low) >= DECADES


def share_of(value: float, low: float, high: float, *, log: bool = False) -> float:
    """Where a value lies between the ends of an axis, 0 at `low` and 1 at `high`."""
    if log:
        value, low, high = math.log10(value), math.log10(low), math.log10(high)
    return (value - low) / (high - low)


def ticks(low: float, high: float, *, count: int = 4) -> tuple[float, float, list[float]]:
    """(least, largest, marks) of a linear axis: about `count` marks at 1, 2 or 5 times a power of
    ten around all values. Where the digits of marks do not tell the values apart, as if all were
    the first.
    """
    if high - low <= max(1e-8 * abs(high), TINY):
        half = abs(low) / 2 if abs(low) > TINY else 0.5
        low, high = low - half, low + half
    rough = (high / count) - (low / count)  # their difference may be larger than any float
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [float(f"{i * step:.10g}") for i in range(first, last + 1)]
    return marks[0], marks[-1], marks


def log_ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """(least, largest, marks) of a logarithmic axis over DECADES and more: powers of ten around all
    values, at most six of them marked.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = -(-(last - first) // 5)
    return 10.0**first, 10.0**last, [10.0**i for i in range(first, last + 1, every)]
