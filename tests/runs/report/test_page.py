"""Markup, charts and diagrams: hostile text stays text, numbers stand where they belong."""

import json
import math

import numpy as np
import pytest

from jaxcnn.runs.report import charts, diagrams, page
from jaxcnn.runs.report.pictures import Pictures, tiles
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


def test_a_page_that_is_too_long_loses_its_largest_part_and_says_so():
    large = page.tag("p", "x" * page.MOST_BYTES)
    parts = [page.Section("large", large), page.Section("small", page.tag("p", "kept"))]
    found = check(page.document("t", parts))
    assert "kept" in found.text
    assert "large: the page would be too long" in found.text


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


def test_tiles_are_the_maps_each_stretched():
    maps = np.arange(3 * 2 * 2, dtype=float).reshape(3, 2, 2)
    pixels = np.asarray(tiles(maps, columns=2, least=2))
    assert pixels.shape == (2 + 2 + 2, 2 + 2 + 2)
    expected = np.array([[0, 85], [170, 255]])
    assert (pixels[:2, :2] == expected).all()
    assert (pixels[:2, 4:] == expected).all()
    assert (pixels[4:, :2] == expected).all()
    assert (np.asarray(tiles(np.full((1, 2, 2), np.nan))) == 128).all()


def test_pictures_end_where_there_is_no_room():
    from PIL import Image

    album = Pictures(most=2_000)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8))
    found = [album.add(noise, "noise") for _ in range(3)]
    assert [element is not None for element in found] == [True, False, False]
    assert album.refused == 2
