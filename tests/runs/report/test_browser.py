"""Pages in a browser: nothing wider than the window, nothing asked for, values under the pointer;
on paper what a screen folds is left out or shown whole.
"""

import json
import re

import pytest

from jaxcnn.runs.code import module_of
from jaxcnn.runs.open import Run
from jaxcnn.runs.report.compare import compare
from jaxcnn.runs.report.compare_page import write_comparison
from jaxcnn.runs.report.write import write_report
from jaxcnn.runs.train import train
from tests.conftest import ROOT
from tests.runs.report import test_tasks
from tests.tiny import fit, tiny


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):  # the browser first: without one nothing is trained
    folder = tmp_path_factory.mktemp("seen") / "run"
    e = tiny(steps=6)
    fit(e, folder)
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "jaxcnn.diff").write_text("+ a line of a patch\n" * 2000)
    write_report(Run(folder, e))
    return folder / "report.html"


def of_a_sweep(folder):
    """Pages of a sweep, and of two of its replicas beside one another."""
    e, points = tiny(steps=6), [{"seed": s, "optimizer.learning_rate": 0.01} for s in (0, 1)]
    train(e, folder, points=points, quiet=True, way="loop")
    run = Run(folder, e)
    write_report(run)
    write_comparison(run.replicas, compare(run.replicas), folder / "comparison.html")


@pytest.fixture(scope="module")
def pages(browser, page, tmp_path_factory):
    """{kind: address}"""
    place = tmp_path_factory.mktemp("pages")
    of_a_sweep(place / "sweep")
    for name in ("detection", "super-resolution"):
        test_tasks.write(name, place / name)
    found = {path.parent.name: path for path in place.glob("*/report.html")}
    found |= {"classification": page, "comparison": place / "sweep" / "comparison.html"}
    return {name: path.as_uri() for name, path in found.items()}


HEIGHT = "document.querySelector('{}').getBoundingClientRect().height"
KINDS = ("classification", "detection", "super-resolution", "sweep", "comparison")
CHART = "document.querySelector('svg[aria-label=loss]')"
BOX = "document.querySelector('svg[aria-label=loss] ~ .hover')"
PLACE = "(e => [e.x, e.y, e.width, e.height])({}.getBoundingClientRect())"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_its_window_and_asks_for_nothing(browser, pages, kind, width, dark):
    browser.requests.clear()
    browser.open(pages[kind], width=width, dark=dark)
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 3 * 128) == dark
    assert browser.evaluate("document.querySelectorAll('svg[data-series]').length") > 0
    assert browser.overflow() <= 0
    assert browser.errors == []
    assert browser.requests == [pages[kind]]


def test_what_is_too_wide_is_noticed(browser, page):
    """On a phone, too, which zooms out until all of it is seen."""
    for width in (1280, 390):
        browser.open(page.as_uri(), width=width)
        browser.evaluate("document.querySelector('h1').style.width = innerWidth + 60 + 'px'")
        assert browser.overflow() > 0


@pytest.mark.parametrize("kind", ("classification", "sweep"))
def test_diagrams_can_be_read_on_a_phone(browser, pages, kind):
    """Their letters are 8 pixels high at least, and none lies where nobody can scroll to."""
    browser.open(pages[kind], width=390)
    texts = "[...document.querySelectorAll('svg text')].filter(e => e.getClientRects().length)"
    size = """e => parseFloat(getComputedStyle(e).fontSize)
        * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b)"""
    assert browser.evaluate(f"{texts}.length") > 20
    assert browser.evaluate(f"Math.min(...{texts}.map({size}))") >= 8
    left = "e => e.getBoundingClientRect().x - e.closest('svg').getBoundingClientRect().x"
    assert browser.evaluate(f"Math.min(...{texts}.map({left}))") >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_words_stand_in_a_thin_column_on_a_phone(browser, pages, kind):
    browser.open(pages[kind], width=390)
    tall = "Math.max(...[...document.querySelectorAll('td')].map(e => e.clientHeight))"
    assert 0 < browser.evaluate(tall) < 200


def test_screenshots_are_of_pages_without_fault(browser, page, tmp_path):
    """Those of the documentation, by docs/make_screenshots.py: two sizes, two colour schemes."""
    make = module_of(ROOT / "docs" / "make_screenshots.py")
    sheet = make.montage(browser, page.as_uri(), "Classes")
    right, bottom = sheet.width - 1, sheet.height - 1
    corners = [sheet.getpixel(at)[0] for at in ((0, 0), (right, 0), (0, bottom), (right, bottom))]
    assert [value > 200 for value in corners] == [True, False, False, True]
    with pytest.raises(AssertionError, match="scrollIntoView"):
        make.montage(browser, page.as_uri(), "No such section")
    wide = page.read_text().replace("<h1>", "<h1><img width=2000 height=1 alt=''>")
    (tmp_path / "wide.html").write_text(wide)
    with pytest.raises(ValueError, match="pixels too wide"):
        make.view(browser, (tmp_path / "wide.html").as_uri(), 1280, dark=False)


def over_the_loss(browser, page, step, width):
    """Where, in pixels of the window, a step stands in the chart of the loss."""
    browser.open(page.as_uri(), width=width)
    browser.evaluate(f"{CHART}.scrollIntoView({{block: 'center'}})")
    x, y, wide, high = browser.evaluate(PLACE.format(CHART))
    plot = json.loads(browser.evaluate(f"{CHART}.dataset.plot"))
    share = (step - plot["x0"]) / (plot["x1"] - plot["x0"])
    across = plot["left"] + share * (plot["right"] - plot["left"])
    scale = wide / browser.evaluate(f"{CHART}.viewBox.baseVal.width")
    return x + across * scale, y + high / 2


def logged(page, kind, step):
    lines = (page.parent / "metrics.jsonl").read_text().splitlines()
    rows = [r for r in map(json.loads, lines) if r["kind"] == kind and r["step"] == step]
    return (rows[0]["metrics"] if kind == "eval" else rows[0])["loss"]


def shown(browser):
    """The lines of the box with the values, [] while it is hidden."""
    if browser.evaluate(f"getComputedStyle({BOX}).visibility") == "hidden":
        return []
    return browser.evaluate(f"{BOX}.textContent").split("\n")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_values_under_the_pointer_are_those_that_were_logged(browser, page, width):
    """Of the nearest step; of a line without a value there the nearest one, and its step."""
    for step, evaluated, behind in ((3, 5, " (5)"), (5, 5, "")):
        x, y = over_the_loss(browser, page, step, width)
        assert shown(browser) == []
        browser.hover(x + 2, y)
        head, training, validation = shown(browser)
        assert head == f"step {step}"
        number = float(training.removeprefix("training "))
        assert number == pytest.approx(logged(page, "train", step), rel=1e-4)
        (number,) = re.fullmatch(rf"validation (\S+){re.escape(behind)}", validation).groups()
        assert float(number) == pytest.approx(logged(page, "eval", evaluated), rel=1e-4)
        rule, _, _, _ = browser.evaluate(PLACE.format(f"{CHART}.querySelector('.pointer')"))
        assert rule == pytest.approx(x, abs=1)
        left, _, wide, _ = browser.evaluate(PLACE.format(BOX))
        assert not left <= x <= left + wide
        browser.hover(1, 1)
        assert shown(browser) == []


def test_a_finger_leaves_the_values_where_it_was(browser, page):
    x, y = over_the_loss(browser, page, 3, 390)
    browser.touch(x, y)
    assert shown(browser)[0] == "step 3"


def test_paper_gets_what_is_folded_but_not_the_pages_of_a_patch(browser, page):
    browser.open(page.as_uri())
    assert browser.evaluate(HEIGHT.format(".screen")) > 0
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(HEIGHT.format(".screen")) == 0
    assert browser.evaluate(HEIGHT.format("details:not([open]) .charts")) > 100
    right = "Math.max(...[...document.querySelectorAll('.pictures img')].map(e => e.x + e.width))"
    assert browser.evaluate(f"{right} <= innerWidth")
    browser.call("Emulation.setEmulatedMedia", media="")
