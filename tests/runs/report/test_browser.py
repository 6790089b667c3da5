"""A page in a browser: nothing wider than the window, nothing asked for; on paper what a screen
folds is left out or shown whole.
"""

import pytest

from jaxcnn.runs.open import Run
from jaxcnn.runs.report.write import write_report
from tests.tiny import fit, tiny


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):  # the browser first: without one nothing is trained
    folder = tmp_path_factory.mktemp("seen") / "run"
    e = tiny(steps=6)
    fit(e, folder)
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "jaxcnn.diff").write_text("+ a line of a patch\n" * 2000)
    write_report(Run(folder, e))
    return (folder / "report.html").as_uri()


HEIGHT = "document.querySelector('{}').getBoundingClientRect().height"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_its_window_and_asks_for_nothing(browser, page, width, dark):
    browser.requests.clear()
    browser.open(page, width=width, dark=dark)
    assert browser.overflow() <= 0
    assert browser.errors == []
    assert browser.requests == [page]


def test_paper_gets_what_is_folded_but_not_the_pages_of_a_patch(browser, page):
    browser.open(page)
    assert browser.evaluate(HEIGHT.format(".screen")) > 0
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(HEIGHT.format(".screen")) == 0
    assert browser.evaluate(HEIGHT.format("details:not([open]) .charts")) > 100
    right = "Math.max(...[...document.querySelectorAll('.pictures img')].map(e => e.x + e.width))"
    assert browser.evaluate(f"{right} <= innerWidth")
    browser.call("Emulation.setEmulatedMedia", media="")
