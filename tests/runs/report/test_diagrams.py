"""Diagrams: where cells, bars, labels and lines stand, worked out by hand."""

from xml.etree import ElementTree

import numpy as np
import pytest

from jaxcnn.runs.report import diagrams

MIDDLE = 4  # letters of 11 pixels stand on a line so far below their middle


def read(figure):
    figure = ElementTree.fromstring(figure)
    assert figure.tag == "figure"
    return figure, figure.find("svg")


def texts(svg, kind=None):
    """[(text, x, y, anchor)] of the words of a drawing, of one class."""
    found = [one for one in svg.iter("text") if one.get("class") == kind]
    return [(one.text, *numbers(one, "x", "y"), one.get("text-anchor")) for one in found]


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


# ---- confusion -------------------------------------------------------------------------------


def cells(svg):
    """[(x, y, width, height, opacity, words)]"""
    found = [one for one in svg.iter("rect") if one.get("class") == "cell"]
    sizes = ("x", "y", "width", "height", "fill-opacity")
    return [(*numbers(one, *sizes), one.find("title").text) for one in found]


def test_the_cells_of_a_confusion_matrix():
    """30 pixels for names of three letters, 205 a class; three of four, and one, of the first."""
    figure, svg = read(diagrams.confusion([[3000, 1000], [0, 2]], ["ox", "dog"]))
    assert figure.get("class") == "square"
    assert figure.find("figcaption").text.startswith("rows: true classes; columns: what they were")
    assert (svg.get("viewBox"), svg.get("role")) == ("0 0 440 440", "img")
    assert svg.get("aria-label") == "confusion matrix"
    assert cells(svg) == [
        (30, 30, 205, 205, 0.765, "ox called ox: 3,000 (75.0%)"),
        (235, 30, 205, 205, 0.295, "ox called dog: 1,000 (25.0%)"),
        (235, 235, 205, 205, 1.0, "dog called dog: 2 (100.0%)"),
    ]
    (frame,) = [one for one in svg.iter("rect") if one.get("class") == "axis"]
    assert numbers(frame, "x", "y", "width", "height") == [30, 30, 410, 410]


def test_the_counts_stand_in_the_middle_of_their_cells_and_can_be_read_on_dark():
    _, svg = read(diagrams.confusion([[3, 1], [2, 2]], ["cat", "dog"]))
    assert texts(svg, "count on-dark") == [("3", 132.5, 132.5 + MIDDLE, None)]
    assert texts(svg, "count") == [
        ("1", 337.5, 132.5 + MIDDLE, None),
        ("2", 132.5, 337.5 + MIDDLE, None),
        ("2", 337.5, 337.5 + MIDDLE, None),
    ]
    counts = [one for one in svg.iter("text") if one.get("class")]
    assert {one.get("pointer-events") for one in counts} == {"none"}, "the words are the cell's"


def test_the_names_stand_beside_the_middles_of_rows_and_columns():
    _, svg = read(diagrams.confusion([[1, 0], [0, 1]], ["cat", "dog"]))
    assert texts(svg) == [
        ("cat", 25, 132.5 + MIDDLE, "end"),
        ("dog", 25, 337.5 + MIDDLE, "end"),
        ("cat", 132.5, 25, "start"),
        ("dog", 337.5, 25, "start"),
    ]
    turned = [one.get("transform") for one in svg.iter("text") if not one.get("class")]
    assert turned == [None, None, "rotate(-60 132.5 25)", "rotate(-60 337.5 25)"]


def test_cells_and_names_are_drawn_to_a_tenth_of_a_pixel():
    """Of eight classes with names of one letter, 52.75 pixels each."""
    _, svg = read(diagrams.confusion(np.eye(8, dtype=int).tolist(), list("abcdefgh")))
    assert cells(svg)[1][:4] == pytest.approx([70.8, 70.8, 52.8, 52.8], abs=0.051)
    assert all(round(v, 1) == v for cell in cells(svg) for v in cell[:4])
    counts = texts(svg, "count on-dark")
    assert counts[1][1:3] == pytest.approx((97.1, 97.1 + MIDDLE), abs=0.11)
    for _, x, y, _ in [*texts(svg), *counts]:
        assert (round(x, 1), round(y, 1)) == (x, y)


@pytest.mark.parametrize("length, shown", [(18, "n" * 18), (19, "n" * 17 + "…")])
def test_long_names_end_in_dots_and_take_a_quarter_of_the_picture(length, shown):
    _, svg = read(diagrams.confusion([[1]], ["n" * length]))
    assert {text for text, *_ in texts(svg)} == {shown}
    assert cells(svg)[0][:3] == (110, 110, 330)


@pytest.mark.parametrize("count", [50, 51])
def test_so_many_names_that_none_can_be_read_are_left_out(count):
    _, svg = read(diagrams.confusion(np.eye(count, dtype=int).tolist(), ["n"] * count))
    assert len(texts(svg)) == (2 * count if count == 50 else 0)
    assert len(cells(svg)) == count


@pytest.mark.parametrize(
    "classes, letters, n, shown",
    [
        (20, 20, 10, True),  # 16.5 pixels a class
        (20, 20, 100, False),
        (21, 20, 1, False),
        (14, 6, 1000, True),  # 28 pixels, seven a digit
        (15, 6, 1000, False),
        (14, 6, 10000, False),
    ],
)
def test_counts_are_shown_where_they_have_room(classes, letters, n, shown):
    matrix = (n * np.eye(classes, dtype=int)).tolist()
    _, svg = read(diagrams.confusion(matrix, ["n" * letters] * classes))
    assert len(texts(svg, "count on-dark")) == (classes if shown else 0)


# ---- reliability -----------------------------------------------------------------------------

GOOD = {"from": 0.25, "to": 0.5, "count": 4000, "confidence": 0.4, "accuracy": 0.75}


def test_a_reliability_diagram():
    """240 pixels for the confidence and for the share that was right, from (36, 8) on."""
    whole = {"from": 0.0, "to": 1.0, "count": 1, "confidence": 1.0, "accuracy": 1.0}
    none = {"from": 0.0, "to": 1.0, "count": 1, "confidence": 0.0, "accuracy": 0.0}
    figure, svg = read(diagrams.reliability([GOOD, whole, none]))
    assert (figure.get("class"), svg.get("viewBox")) == ("small", "0 0 292 284")
    assert (svg.get("aria-label"), svg.get("role")) == ("reliability diagram", "img")
    assert figure.find("figcaption").text.startswith("bars: share that was right; points: ")
    frame, *bars = svg.iter("rect")
    sides = ("x", "y", "width", "height")
    assert (numbers(frame, *sides), frame.get("class")) == ([36, 8, 240, 240], "axis")
    assert [numbers(bar, *sides) for bar in bars] == [
        [96, 68, 60, 180],
        [36, 8, 240, 240],
        [36, 248, 240, 0],
    ]
    dots = [*svg.iter("circle")]
    assert [numbers(dot, "cx", "cy", "r") for dot in dots] == [
        [132, 68, 3],
        [276, 8, 3],
        [36, 248, 3],
    ]
    assert {(bar.get("class"), dot.get("class")) for bar, dot in zip(bars, dots, strict=True)} == {
        ("bar s0", "dot s1")
    }
    for one in (bars[0], dots[0]):
        assert one.find("title").text == "confidence 0.400, right 0.750, 4,000 examples"
    (diagonal,) = svg.iter("line")
    assert numbers(diagonal, "x1", "y1", "x2", "y2") == [36, 248, 276, 8]
    assert diagonal.get("class") == "axis"


def test_the_axes_of_a_reliability_diagram():
    _, svg = read(diagrams.reliability([GOOD]))
    assert texts(svg) == [
        ("0", 36, 262, "middle"),
        ("0", 31, 248 + MIDDLE, "end"),
        ("0.5", 156, 262, "middle"),
        ("0.5", 31, 128 + MIDDLE, "end"),
        ("1", 276, 262, "middle"),
        ("1", 31, 8 + MIDDLE, "end"),
        ("confidence", 156, 276, "middle"),
    ]


def test_bars_are_drawn_to_a_tenth_of_a_pixel():
    row = {"from": 0.3337, "to": 0.6548, "count": 1, "confidence": 0.4323, "accuracy": 0.4567}
    _, svg = read(diagrams.reliability([row]))
    _, bar = svg.iter("rect")
    assert numbers(bar, "x", "y", "width", "height") == [116.1, 138.4, 77.1, 109.6]
    (dot,) = svg.iter("circle")
    assert numbers(dot, "cx", "cy") == [139.8, 138.4]


@pytest.mark.parametrize(
    "odd",
    [
        {"confidence": None},
        {"accuracy": "1"},
        {"count": -1},
        {"count": 2**53},
        {"from": -0.1},
        {"to": 1.01},
        {"confidence": 1.01},
        {"accuracy": 1.01},
    ],
    ids=str,
)
def test_what_is_no_bin_is_not_drawn(odd):
    assert diagrams.reliability([GOOD | odd]) is None
    assert diagrams.reliability([]) is None
    _, svg = read(diagrams.reliability([GOOD | odd, GOOD | {"count": 2**53 - 1}]))
    (dot,) = svg.iter("circle")
    assert "9,007,199,254,740,991 examples" in dot.find("title").text


# ---- parallel coordinates --------------------------------------------------------------------

AXES = ("optimizer.learning_rate", "model.width", "accuracy")
ROWS = [(1e-4, 8, 0.5), (0.1, 16, None), (0.01, 12, 0.75)]
X = (51, 176, 301)  # 125 apart; half of the name of 13 letters, of 6.6 pixels each, at the left
TOP, BOTTOM = 28, 220


def test_each_row_is_a_line_through_its_values():
    """The first axis is logarithmic; a row without its last value ends before it."""
    figure, svg = read(diagrams.parallel(AXES, ROWS, [0, 7, 8]))
    assert (figure.get("class"), svg.get("role")) == ("wide", "img")
    assert svg.get("aria-label") == "parallel coordinates"
    # and at the right a name of 8 letters, of which half is outside
    assert (svg.get("viewBox"), svg.get("width")) == ("0 0 335 234", "335")
    lines = [*svg.iter("polyline")]
    assert [line.get("points") for line in lines] == [
        "51,220.0 176,220.0 301,220.0",
        "51,28.0 176,28.0",
        "51,92.0 176,124.0 301,28.0",
    ]
    assert [line.get("class") for line in lines] == ["series s0", "series s7", "series s0"]
    title = "optimizer.learning_rate 0.1, model.width 16, accuracy –"
    assert lines[1].find("title").text == title


def test_the_axes_of_parallel_coordinates():
    _, svg = read(diagrams.parallel(AXES, ROWS, [0, 1, 2]))
    axes = [*svg.iter("line")]
    assert [numbers(one, "x1", "x2", "y1", "y2") for one in axes] == [
        [x, x, TOP, BOTTOM] for x in X
    ]
    assert {one.get("class") for one in axes} == {"axis"}
    assert texts(svg) == [
        ("learning_rate", 51, 16, "middle"),
        ("width", 176, 16, "middle"),
        ("accuracy", 301, 16, "middle"),
    ]
    # outside of the last axis, before all others; the ends first
    assert texts(svg, "over") == [
        ("0.0001", 46, BOTTOM + MIDDLE, "end"),
        ("0.1", 46, TOP + MIDDLE, "end"),
        ("0.01", 46, 92 + MIDDLE, "end"),
        ("8", 171, BOTTOM + MIDDLE, "end"),
        ("16", 171, TOP + MIDDLE, "end"),
        ("12", 171, 124 + MIDDLE, "end"),
        ("0.5", 306, BOTTOM + MIDDLE, "start"),
        ("0.75", 306, TOP + MIDDLE, "start"),
    ]
    order = [one.tag for one in svg]
    assert order.index("text", order.index("polyline")) > order.index("polyline")
    assert order[-8:] == ["text"] * 8, "labels are drawn over the lines"


def test_long_values_have_room_outside():
    _, svg = read(diagrams.parallel(["a", "b"], [("x" * 8, 123456), ("y" * 3, 1)], [0, 0]))
    left, right = round(6.6 * 10) + 8, round(6.6 * 7) + 8  # 'xxxxxxxx' and 123,456
    assert [one.get("x1") for one in svg.iter("line")] == [str(left), str(left + 125)]
    assert svg.get("width") == str(left + 125 + right)


def heights(values):
    """(share of the axis of each row that has one, {label: share})."""
    _, svg = read(diagrams.parallel(["a"], [(value,) for value in values], [0] * len(values)))
    shares = [
        (BOTTOM - float(line.get("points").split(",")[1])) / (BOTTOM - TOP)
        for line in svg.iter("polyline")
        if line.get("points")
    ]
    shown = texts(svg, "over")
    labels = {text: round((BOTTOM + MIDDLE - y) / (BOTTOM - TOP), 2) for text, _, y, _ in shown}
    assert len(labels) == len(shown), "each once"
    return pytest.approx(shares, abs=1e-3), labels


def test_places_on_an_axis():
    assert heights([1, 2, 5]) == ([0, 0.25, 1], {"1": 0, "2": 0.25, "5": 1})
    assert heights([5, 5]) == ([0.5, 0.5], {"5": 0.5})
    assert heights([0.0, 1000.0, 500.0])[0] == [0, 1, 0.5], "no logarithm of zero"
    assert heights([1, 999, 500])[0] == [0, 1, 0.5]
    assert heights([1, 1000, 10])[0] == [0, 1, 1 / 3]
    assert heights([None, 1, 2, 5]) == ([0, 0.25, 1], {"1": 0, "2": 0.25, "5": 1})
    kinds = {"'sgd'": 0, "'adam'": 0.5, "3": 1}
    assert heights(["sgd", "adam", "sgd", None, 3]) == ([0, 0.5, 0, 1], kinds)
    assert heights(["one", "one"]) == ([0, 0], {"'one'": 0})
    assert heights(["x" * 30, "y"])[1] == {f"'{'x' * 19}": 0, "'y'": 1}


def test_an_axis_on_which_no_row_has_a_value_is_empty():
    _, svg = read(diagrams.parallel(["width", "loss"], [(1, None), (2, None)], [0, 1]))
    assert [one.get("points").count(",") for one in svg.iter("polyline")] == [1, 1]
    assert [text for text, *_ in texts(svg, "over")] == ["1", "2"]


def test_labels_that_would_cover_others_are_left_out():
    """The first and the last stay; a line of letters is 0.07 of an axis."""
    assert [*heights([0, 2, 50, 56, 58, 95, 100])[1]] == ["0", "100", "50", "58"]
    assert [*heights([0, 7, 92, 100])[1]] == ["0", "100", "7", "92"]
    assert [*heights([0, 6, 94, 100])[1]] == ["0", "100"]


@pytest.mark.parametrize(
    "names, shown",
    [
        (("a.b.rate", "c.width"), ["rate", "width"]),
        (("a.rate", "c.rate"), ["a.rate", "c.rate"]),
        (("n" * 18, "m" * 19), ["n" * 18, "…" + "m" * 17]),
    ],
)
def test_an_axis_is_called_by_the_last_part_of_its_path(names, shown):
    _, svg = read(diagrams.parallel(names, [(1, 1)], [0]))
    assert [text for text, *_ in texts(svg)] == shown
