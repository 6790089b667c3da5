"""Opens reports in a headless Chromium at 1,280 and 390 pixels, light and dark, and makes a picture
of each, docs/images/report_NAME.png: its top, and below it the section that is named. The first
report's top alone is docs/images/report.png. Ends where a page asks for anything, is wider than its
window or has the console complain.

    python docs/make_screenshots.py digits=RUN:Classes detection=RUN:Examples …
"""

import io
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402

from tests.browser import Browser  # noqa: E402

PICTURES = ROOT / "docs" / "images"
HEIGHT = 1000
SCALE, GAP, COLOURS = 0.6, 10, 256
FIND = "[...document.querySelectorAll('h2')].find(e => e.textContent == {!r}).scrollIntoView()"
# (width, dark, whether it shows the section) of each row's windows
ROWS = (
    ((1280, False, False), (390, True, False)),
    ((1280, True, True), (390, False, True)),
)


def view(
    browser: Browser, page: str, width: int, *, dark: bool, section: str = "", height: int = HEIGHT
) -> Image.Image:
    """The window on a page, at its top or at a section. Errors: ValueError for what is wrong."""
    browser.requests.clear()
    browser.errors.clear()
    browser.open(page, width=width, height=height, dark=dark)
    browser.call("Emulation.setScrollbarsHidden", hidden=True)
    if section:
        browser.evaluate(FIND.format(section))
    asked = [url for url in browser.requests if url != page]
    if browser.errors or asked or browser.overflow() > 0:
        raise ValueError(
            f"{page} at {width}: console {browser.errors}, requests {asked}, "
            f"{browser.overflow()} pixels too wide"
        )
    return Image.open(io.BytesIO(browser.screenshot())).convert("RGB")


def montage(browser: Browser, page: str, section: str) -> Image.Image:
    """All of ROWS in one picture, reduced to SCALE."""
    rows = [
        [view(browser, page, w, dark=dark, section=section * below) for w, dark, below in row]
        for row in ROWS
    ]
    small = [[one.resize([round(SCALE * n) for n in one.size]) for one in row] for row in rows]
    width = sum(one.width for one in small[0]) + GAP
    height = sum(row[0].height for row in small) + GAP
    sheet = Image.new("RGB", (width, height), "#808080")
    for i, (left, right) in enumerate(small):
        sheet.paste(left, (0, i * (left.height + GAP)))
        sheet.paste(right, (left.width + GAP, i * (left.height + GAP)))
    return sheet


def save(picture: Image.Image, name: str) -> None:
    """With a palette: the pages have few colours, and all of the pictures fit into a clone."""
    palette = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, 3, dither=Image.Dither.NONE)
    palette.save(PICTURES / name, optimize=True)
    print(f"{name}: {(PICTURES / name).stat().st_size:,} bytes")


def main(arguments: list[str]) -> None:
    """NAME=RUN:SECTION of each report."""
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile)
        try:
            for i, argument in enumerate(arguments):
                name, _, place = argument.partition("=")
                run, _, section = place.rpartition(":")
                page = (Path(run) / "report.html").resolve().as_uri()
                if i == 0:
                    save(view(browser, page, 1280, dark=False, height=760), "report.png")
                save(montage(browser, page, section), f"report_{name}.png")
            version = browser.call("Browser.getVersion")["product"]
            print(f"{version}: no request, nothing too wide, no word in the console")
        finally:
            browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
