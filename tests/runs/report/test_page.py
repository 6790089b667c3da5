"""Markup, charts and diagrams: hostile text stays text, numbers stand where they belong."""

import json
import math

import numpy as np
import pytest

from jaxcnn.runs.report import charts, diagrams, page
from tests.runs.report.by_hand import tree, words
from tests.runs.report.reader import check

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "</style></title><script>alert(1)</script>",
    "javascript:alert(1)",
    "&lt;b&gt; \x1b[31m \x00 \x9b",
    "\ud800",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_never_obeyed(text):
    content = page.join(
        [
            page.tag("p", text, title=text, data_x=text),
            page.table((text,), [(text,)]),
            page.dotted(text),
            page.details(text, text),
            charts.line_chart(text, [charts.Series(text, [(0, 1.0), (1, 2.0)])]),
            diagrams.confusion([[1, 2], [3, 4]], [text, text]),
            diagrams.parallel([text, "m"], [(text, 1.0), (None, 2.0)], [0, 1]),
        ]
    )
    found = check(page.document(text, [page.Section(text, content)], left_out=[text]))
    shown = text.replace("\x1b", "\\x1b").replace("\x00", "\\x00").replace("\x9b", "\\x9b")
    assert shown.replace("\ud800", "?") in found.text


def test_a_dotted_path_may_be_broken_after_its_parts():
    assert page.dotted("task.size_weight") == "task.<wbr>size_<wbr>weight"
    (row,) = check(
        page.document("t", [page.Section("s", page.table((), [[page.dotted("a.b")]]))])
    ).rows
    assert row == ["a.b"]


def test_a_chart_holds_every_value_under_the_pointer():
    points = [(step, math.sin(step)) for step in range(30)]
    chart = charts.line_chart("loss", [charts.Series("a", points)])
    found = check(page.document("t", [page.Section("s", chart)]))
    (svg,) = found.all("svg")
    (series,) = json.loads(svg["data-series"])
    assert series["x"] == [x for x, _ in points]
    np.testing.assert_allclose(series["y"], [y for _, y in points], rtol=1e-4)
    # the line itself: pixels are an affine map of the values
    (line,) = found.all("polyline")
    pixels = np.array([[float(v) for v in p.split(",")] for p in line["points"].split()])
    assert abs(np.corrcoef(pixels[:, 1], [y for _, y in points])[0, 1] + 1) < 1e-4
    assert np.all(pixels[:, 1] >= charts.TOP - 1e-6)
    assert np.all(pixels[:, 1] <= charts.BOTTOM + 1e-6)


def test_one_value_is_said_and_not_drawn():
    """But for lines of which another has a curve, and of many thin ones: a table has those."""
    dot, line = charts.Series("b", [(3, 0.25)]), charts.Series("a", [(1, 1.0), (2, 2.0)])
    thin = [charts.Series("x", [(3, 0.5)], thin=True)] * 20
    wanted = [("loss", [line, dot]), ("AP", [dot]), ("b", [dot]), ("many", thin), ("none", [])]
    found = check(page.document("t", [page.Section("s", charts.panel(wanted))]))
    assert [svg["aria-label"] for svg in found.all("svg")] == ["loss"]
    assert len(found.all("circle")) == 1
    assert "Logged once, so no curve: AP (b 0.25); b (0.25); many." in found.text


def test_thinning_keeps_the_ends_and_every_peak():
    random = np.random.default_rng(0)
    points = [(i, float(y)) for i, y in enumerate(random.normal(size=10_001))]
    points[4321] = (4321, 99.0)
    kept = charts.thinned(points)
    assert len(kept) <= charts.MOST_POINTS + 1
    assert kept == sorted(kept)
    assert kept[-1] == points[-1]
    assert (4321, 99.0) in kept
    assert min(points, key=lambda p: p[1]) in kept


@pytest.mark.parametrize(
    "low, high", [(0, 1), (-3, 7), (5, 5), (0, 0), (1e-9, 3e9), (-1e299, 1e299)]
)
def test_marks_lie_around_all_values_at_1_2_or_5(low, high):
    least, most, marks = charts.ticks(low, high)
    assert least <= low <= high <= most
    assert 2 <= len(marks) <= 8
    steps = np.diff(np.array(marks) / max(map(abs, marks)))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    step = marks[1] / 2 - marks[0] / 2
    lead = step * 2 / 10 ** math.floor(math.log10(step * 2) + 1e-9)
    assert min(abs(lead - m) for m in (1, 2, 5, 10)) < 1e-6


@pytest.mark.parametrize(
    "value, shown",
    [
        (1234567, "1,234,567"),
        (-(10**15) + 1, "-999,999,999,999,999"),
        (10**15, "1e+15"),
        (0.123456, "0.1235"),
        (12345.678, "1.235e+04"),
        (2.0, "2"),
        (None, "–"),
        (True, "True"),
        ("x" * 41, "x" * 40),
    ],
    ids=str,
)
def test_numbers_in_short(value, shown):
    assert page.number(value) == shown


def test_a_page_links_its_sections_and_what_is_left_out_ends_it():
    """One without a title has neither heading nor link."""
    parts = [page.Section(name, page.note("body")) for name in ("first", "", "second")]
    found = check(page.document("title", parts, left_out=["gone <b>"]))
    assert [a["href"] for a in found.all("a")] == ["#s0", "#s2"]
    assert [s.get("id") for s in found.all("section")] == ["s0", "s1", "s2", "left-out"]
    assert found.titles == ["first", "second", "Left out"]
    assert len(found.all("h2")) == 3
    metas = {a.get("name"): a.get("content") for a in found.all("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["referrer"] == "no-referrer"
    assert found.all("meta")[0] == {"charset": "utf-8"}
    assert found.elements[0] == ("html", {"lang": "en"})
    assert [name for name, _ in found.elements if name in ("header", "nav", "main", "h1")] == [
        *("header", "h1", "nav", "main")
    ]
    assert "left-out" not in [s["id"] for s in check(page.document("t", parts)).all("section")]


def test_needed_sections_stay_whatever_their_length():
    """Of the others the largest, in bytes, go until the page is short enough."""
    half = page.MOST_BYTES // 2
    large, wide = page.note("x" * (half - 5000)), page.note("é" * (half // 2 + 5000))
    parts = [page.Section("large", large), page.Section("wide", wide)]
    found = check(page.document("t", [*parts, page.Section("small", page.note("kept"))]))
    assert found.titles == ["large", "small", "Left out"]
    size = len(wide.encode())
    assert f"wide: the page would be too long to be mailed ({size:,} bytes)" in found.text
    needed = [page.Section("a", large, needed=True), page.Section("b", wide, needed=True)]
    assert len(page.document("t", needed)) > page.MOST_BYTES
    assert page.MOST_BYTES == 5_000_000


def test_elements_of_a_page():
    assert page.tag("br") == "<br>"
    assert page.tag("circle", r=3, text_anchor=None, class_="a") == '<circle r="3" class="a"/>'
    assert page.tag("p", None, ["a", ("<", None)], 3) == "<p>a&lt;3</p>"
    assert page.tag("p") == "<p></p>"
    assert page.tag("rect", page.tag("title", "x")) == "<rect><title>x</title></rect>"
    found = tree(page.details("more", "a", "b", opened=True))[0]
    assert (found.get("open"), [one.tag for one in found], words(found)) == (
        *("open", ["summary"]),
        "moreab",
    )
    assert tree(page.details("more"))[0].get("open") is None
    assert tree(page.note("a", "b"))[0].attrib == {"class": "note"}


def test_columns_of_words_and_of_numbers():
    def kinds(**options):
        main = tree(page.table(("a", "b", "c"), [("x", 1, 2)], **options))
        cells = [cell.get("class") for cell in main.iter("td")]
        return cells, main.find("div/table").get("class"), main.find("div").get("class")

    assert kinds() == ([None, "number", "number"], None, "wide")
    assert kinds(words=2) == ([None, None, "number"], None, "wide")
    assert kinds(words=3) == ([None] * 3, "words", "wide")
    main = tree(page.table((), [("x", 1)]))
    assert main.find("div/table/thead") is None
    assert [cell.tag for cell in tree(page.table(("a",), [])).iter("th")] == ["th"]
