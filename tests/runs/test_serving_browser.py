"""The page of `serve` in a browser: a picture is dropped, a digit drawn, and the answer shown."""

import threading
from pathlib import Path

import pytest

from jaxcnn.runs.code import load
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.serving import Server
from tests.conftest import ROOT
from tests.tiny import fit


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):  # the browser first: without one nothing is trained
    folder = tmp_path_factory.mktemp("served") / "run"
    e = load("digits_lenet5", overrides=["steps=150"])
    fit(e, folder)
    server = Server(open_run(folder, e), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


SHOWN = "document.querySelectorAll('#rows tr').length"
MAPPED = "!by('heat').hidden && by('map').naturalWidth > 0"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_a_digit_that_is_drawn_is_answered(browser, server, width, dark, tmp_path):
    browser.open(server.url, width=width, dark=dark)
    browser.wait_for("by('about').textContent != ''")
    x, y, side = browser.evaluate(
        "(() => { const box = canvas.getBoundingClientRect(); return [box.x, box.y, box.width] })()"
    )
    stroke = [(x + 0.5 * side, y + share * side) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    browser.drag(*stroke)
    browser.wait_for(f"{SHOWN} > 0")
    assert browser.evaluate("document.querySelector('#rows td').textContent") == "1"
    browser.wait_for(MAPPED)
    assert "gradcam of 1" in browser.evaluate("by('because').textContent")
    (tmp_path / "page.png").write_bytes(browser.screenshot())
    assert browser.overflow() <= 0
    assert browser.errors == []
    assert all(url.startswith(server.url) for url in browser.requests)


def test_a_file_and_what_is_no_picture(browser, server):
    browser.open(server.url)
    data = Path(ROOT / "docs/images/digit.png").read_bytes()
    browser.evaluate(f"ask(new Blob([new Uint8Array({list(data)})]), false)")
    browser.wait_for(f"{SHOWN} > 0 && !by('shown').hidden && by('shown').naturalWidth > 0")
    browser.wait_for(MAPPED)
    browser.evaluate("by('method').value = 'layercam', by('target').value = '7', explain()")
    browser.wait_for("by('because').textContent.startsWith('layercam of 7')")
    before = len(browser.errors)
    browser.evaluate("ask(new Blob(['<b>no picture</b>']), false)")
    browser.wait_for("by('says').className == 'error'")
    assert "cannot be read as an image" in browser.evaluate("by('says').textContent")
    assert browser.evaluate(SHOWN) == 0
    assert browser.evaluate("by('heat').hidden")
    assert all("415" in error for error in browser.errors[before:])
    browser.errors.clear()


def test_a_picture_by_any_name_and_a_page_by_the_name_of_a_picture(browser, server):
    browser.open(server.url)
    data = list(Path(ROOT / "docs/images/digit.png").read_bytes())
    drop = """(() => { const files = new DataTransfer();
        files.items.add(new File([%s], %r, {type: %r}));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: files})); })()"""
    browser.evaluate(drop % (f"new Uint8Array({data})", "picture.html", "text/html"))
    browser.wait_for(f"{SHOWN} > 0 && {MAPPED}")
    browser.evaluate(drop % ("'<script>document.title = 1</script>'", "page.png", "image/png"))
    browser.wait_for("by('says').className == 'error'")
    assert browser.evaluate("document.title") != "1"
    browser.errors.clear()
