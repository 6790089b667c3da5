"""Line charts: where points, marks and words stand, worked out by hand from the frame."""

import json
import re
from xml.etree import ElementTree

import pytest

from jaxcnn.runs.report import charts, page
from jaxcnn.runs.report.charts import Series

# of 360 x 210: room for marks on the left and for steps below
LEFT, TOP, RIGHT, BOTTOM = 48, 8, 352, 186


def drawn(*series, title="loss"):
    return ElementTree.fromstring(charts.line_chart(title, series))


def texts(element):
    """{text: (x, y, anchor)} of the words of a drawing."""
    return {
        one.text: (float(one.get("x")), float(one.get("y")), one.get("text-anchor"))
        for one in element.iter("text")
    }


def places(line):
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


def test_points_marks_and_steps_stand_by_the_linear_axes():
    figure = drawn(Series("a", [(10, 0.0), (20, 1.0), (30, 0.25)]))
    svg = figure.find("svg")
    assert (figure.tag, svg.get("viewBox"), svg.get("role")) == ("figure", "0 0 360 210", "img")
    assert svg.get("aria-label") == "loss"
    (line,) = svg.iter("polyline")
    assert places(line) == [(LEFT, BOTTOM), (200, TOP), (RIGHT, 141.5)]
    assert texts(svg) == {
        "0": (43, 190, "end"),  # each beside its rule, the middle of its letters on it
        "0.5": (43, 101, "end"),
        "1": (43, 12, "end"),
        "10": (LEFT, 202, "start"),
        "30": (RIGHT, 202, "end"),
        "step": (200, 202, "middle"),
    }
    *rules, pointer = svg.iter("line")
    for rule, y in zip(rules, (BOTTOM, 97, TOP), strict=True):
        assert [float(rule.get(k)) for k in ("x1", "y1", "x2", "y2")] == [LEFT, y, RIGHT, y]
        assert rule.get("class") == "axis"
    assert (pointer.get("y1"), pointer.get("y2")) == (str(TOP), str(BOTTOM))
    assert pointer.get("class") == "pointer"


def test_rules_are_drawn_to_a_tenth_of_a_pixel():
    figure = drawn(Series("a", [(0, 0.0), (1, 3.0)]))
    rules = [rule.get("y1") for rule in figure.find("svg").iter("line")]
    assert rules[:4] == ["186.0", "126.7", "67.3", "8.0"]


def test_positive_values_over_three_decades_are_drawn_by_their_logarithms():
    figure = drawn(Series("a", [(0, 0.01), (1, 1.0), (3, 10.0)]))
    (line,) = figure.find("svg").iter("polyline")
    assert places(line) == [(LEFT, BOTTOM), (149.3, 67.3), (RIGHT, TOP)]
    marks = {text: y - 4 for text, (x, y, _) in texts(figure).items() if x < LEFT}
    assert marks == pytest.approx({"0.01": BOTTOM, "0.1": 126.7, "1": 67.3, "10": TOP})
    assert "".join(figure.find("figcaption").itertext()) == "loss (logarithmic)"


@pytest.mark.parametrize(
    "values, logarithmic",
    [
        ((0.01, 9.9), False),
        ((0.01, 10.0), True),
        ((0.0, 1000.0), False),
        ((-1.0, 1000.0), False),
        ((2e-290, 1.0), True),
        ((1e-290, 1.0), False),  # near the least that computers have
        ((2e-290, 1e299), True),
    ],
)
def test_which_axes_are_logarithmic(values, logarithmic):
    figure = drawn(Series("a", [*enumerate(values)]))
    caption = "".join(figure.find("figcaption").itertext())
    assert caption == ("loss (logarithmic)" if logarithmic else "loss")
    (line,) = figure.find("svg").iter("polyline")
    (x0, y0), (x1, y1) = places(line)
    assert (x0, x1) == (LEFT, RIGHT)
    assert TOP <= y1 < y0 <= BOTTOM


def test_all_lines_share_the_axes():
    figure = drawn(Series("a", [(10, 2.0), (20, 4.0)]), Series("b", [(0, 0.0), (5, 3.0)]))
    lines = [places(line) for line in figure.find("svg").iter("polyline")]
    assert lines == [[(200, 97), (RIGHT, TOP)], [(LEFT, BOTTOM), (124, 52.5)]]


def test_points_of_one_step_stand_at_the_left_and_the_step_is_said_once():
    figure = drawn(Series("a", [(5, 1.0), (5, 2.0)]))
    (line,) = figure.find("svg").iter("polyline")
    assert {x for x, _ in places(line)} == {LEFT}
    below = {text: x for text, (x, y, _) in texts(figure).items() if y > 200}
    assert below == {"5": LEFT, "step": 200}


def test_a_single_point_beside_a_line_is_a_dot_where_it_belongs():
    figure = drawn(Series("a", [(0, 0.0), (10, 1.0)]), Series("b", [(5, 0.5)], 1))
    (dot,) = figure.find("svg").iter("circle")
    assert (dot.get("cx"), dot.get("cy")) == ("200.0", "97.0")
    assert dot.get("class") == "series s1 dot"
    third = drawn(Series("a", [(0, 0.0), (3, 3.0)]), Series("b", [(1, 1.0)]))
    (dot,) = third.find("svg").iter("circle")
    assert (dot.get("cx"), dot.get("cy"), dot.get("r")) == ("149.3", "126.7", "3")


def test_without_two_points_there_is_no_chart():
    assert charts.line_chart("loss", []) is None
    assert charts.line_chart("loss", [Series("a", [])]) is None
    assert charts.line_chart("loss", [Series("a", [(0, 1.0)]), Series("b", [(1, 1.0)])]) is None
    assert charts.line_chart("loss", [Series("a", [(0, 1.0), (1, 1.0)])]) is not None


def test_the_style_of_a_line_and_of_its_key():
    points = [(0, 0.0), (1, 1.0)]
    wanted = [
        (Series("plain", points), "s0"),
        (Series("last", points, 7), "s7"),
        (Series("again", points, 8), "s0"),
        (Series("dashed", points, 9, dashed=True), "s1 dashed"),
        (Series("thin", points, 2, thin=True), "s2 thin"),
    ]
    figure = drawn(*(series for series, _ in wanted))
    found = [line.get("class") for line in figure.find("svg").iter("polyline")]
    assert found == [f"series {name}" for _, name in wanted]
    keys = [key.get("class") for key in figure.iter("i")]
    assert keys == [f"key {name.removesuffix(' thin')}" for _, name in wanted]


def test_each_colour_is_in_the_style_sheet():
    named = re.findall(r"^\.s(\d)|\} \.s(\d) \{", page.STYLE.read_text(), re.M)
    assert [int(a or b) for a, b in named] == [*range(charts.COLORS)]


def test_the_legend_names_each_line_once_with_its_last_value():
    points = [(0, 0.25), (1, 0.125)]
    series = [Series("a", points), Series("b", points[:1]), Series("c", points, thin=True)] * 2
    _, legend = drawn(*series).iter("figcaption")
    assert legend.get("class") == "legend"
    assert ["".join(span.itertext()) for span in legend] == ["a 0.125", "b 0.25", "c"]
    assert [span.tag for span in legend] == ["span"] * 3


@pytest.mark.parametrize("count, more", [(12, None), (13, "… 1 more"), (20, "… 8 more")])
def test_of_many_lines_the_legend_names_twelve(count, more):
    series = [Series(f"line {i}", [(0, 0.0), (1, 1.0)]) for i in range(count)]
    _, legend = drawn(*series).iter("figcaption")
    assert [span.tag for span in legend] == ["span"] * 12
    assert legend[-1].tail == more


def test_the_script_is_told_the_values_and_where_they_stand():
    svg = drawn(Series("a", [(10, 1 / 3), (30, 123456.7)]), Series("b", [(20, 1.0)])).find("svg")
    a, b = json.loads(svg.get("data-series"))
    assert a == {"name": "a", "x": [10, 30], "y": [0.33333, 123460.0]}
    assert b == {"name": "b", "x": [20], "y": [1.0]}
    assert " " not in svg.get("data-series"), "it is the largest part of a page of curves"
    plot = json.loads(svg.get("data-plot"))
    assert plot == {"left": LEFT, "right": RIGHT, "x0": 10, "x1": 30, "name": "step"}
    (box,) = drawn(Series("a", [(0, 0.0), (1, 1.0)])).iter("div")
    assert box.get("class") == "hover"


def test_charts_stand_in_a_grid_and_one_value_is_said_in_words():
    curve, once = Series("a", [(0, 0.0), (1, 1.0)]), Series("validation", [(1, 0.5)])
    wanted = [("first", [curve]), ("AP", [once]), ("second", [Series("empty", []), curve])]
    found = ElementTree.fromstring(f"<main>{charts.panel(wanted)}</main>")
    grid, words = found
    assert (grid.tag, grid.get("class"), len(grid)) == ("div", "charts", 2)
    assert [svg.get("aria-label") for svg in grid.iter("svg")] == ["first", "second"]
    assert words.text == "Logged once, so no curve: AP (validation 0.5)."
    assert len(ElementTree.fromstring(f"<main>{charts.panel(wanted[:1])}</main>")) == 1
    assert len(ElementTree.fromstring(f"<main>{charts.panel(wanted[1:2])}</main>")) == 1
    assert charts.panel([("none", [])]) == ""


def test_the_title_alone_stands_for_lines_of_which_one_is_thin():
    lines = [Series("a", [(1, 0.5)]), Series("b", [(1, 0.25)], thin=True)]
    assert "no curve: AP." in charts.panel([("AP", lines)])


@pytest.mark.parametrize("most", [6, 7])
def test_thinning_keeps_the_least_and_the_largest_of_each_run_of_neighbours(most):
    """Ten points in three runs, of four, four and two."""
    points = [*enumerate([0.0, 3.0, -1.0, 2.0, 7.0, 5.0, 6.0, 6.0, 1.0, 0.0])]
    kept = [points[i] for i in (1, 2, 4, 5, 8, 9)]
    assert charts.thinned(points, most=most) == kept
    # and the last of all, which is neither
    points = [*enumerate([0.0, 3.0, -1.0, 2.0, 7.0, 5.0, 6.0, 6.0, 1.0, 0.0, 0.5])]
    assert charts.thinned(points, most=most) == [*kept, points[-1]]


def test_four_hundred_points_are_all_drawn():
    same = [(i, 1.0) for i in range(401)]
    assert charts.thinned(same[:400]) == same[:400]
    assert len(charts.thinned(same)) < 400
    svg = drawn(Series("a", same)).find("svg")
    assert len(places(next(svg.iter("polyline")))) == len(charts.thinned(same))


@pytest.mark.parametrize(
    "low, high, marks",
    [
        (0, 1, [0, 0.5, 1]),
        (0, 4, [0, 1, 2, 3, 4]),
        (0, 8, [0, 2, 4, 6, 8]),
        (1, 9, [0, 2, 4, 6, 8, 10]),
        (-3, 7, [-5, 0, 5, 10]),
        (0, 36, [0, 10, 20, 30, 40]),
        (0, 0.3, [0, 0.1, 0.2, 0.3]),
        # as computers have them, 0.3 / 0.1 is less than 3, and 0.07 - 0.03 and 0.07 / 0.01 more
        (0.3, 0.7, [0.3, 0.4, 0.5, 0.6, 0.7]),
        (0.03, 0.07, [0.03, 0.04, 0.05, 0.06, 0.07]),
        (5, 5, [2, 4, 6, 8]),
        (-5, -5, [-8, -6, -4, -2]),
        (0, 0, [-0.5, 0, 0.5]),
        # no digits are left to tell them apart
        (0.1 + 0.2, 0.3, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (0, 5e-324, [-0.5, 0, 0.5]),
    ],
)
def test_marks_of_a_linear_axis(low, high, marks):
    low, high = sorted((low, high))
    assert charts.ticks(low, high) == (marks[0], marks[-1], marks)


def test_values_that_are_all_but_the_same_have_a_curve():
    for values in ((1.0, 1.0 + 1e-15), (3e12, 3e12 + 0.5), (1e-323, 1.5e-323)):
        figure = drawn(Series("a", [*enumerate(values)]))
        (line,) = figure.find("svg").iter("polyline")
        assert all(TOP < y < BOTTOM for _, y in places(line))


@pytest.mark.parametrize(
    "low, high, marks",
    [
        (1, 1000, [1, 10, 100, 1000]),
        (0.002, 30, [0.001, 0.01, 0.1, 1, 10, 100]),
        (1, 1e6, [1, 100, 1e4, 1e6]),
        (2e-6, 9e5, [1e-6, 1e-3, 1, 1e3, 1e6]),
    ],
)
def test_marks_of_a_logarithmic_axis(low, high, marks):
    assert charts.log_ticks(low, high) == (marks[0], marks[-1], pytest.approx(marks))
