"""One HTML file that holds all that it shows and asks nobody for anything.

Markup is made by `tag` alone, which escapes every text and attribute: what a run's files say is
shown, never obeyed. A Content-Security-Policy forbids whatever might slip through: the one style
sheet and the one script are known to it by their digests, pictures are data: URIs, and nothing else
is loaded, sent or framed.
"""

import base64
import dataclasses
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxcnn.errors import ConfigError, ResourceError
from jaxcnn.runs.terminal import ESCAPED
from jaxcnn.weights.files import write_atomically

MOST_BYTES = 5 * 10**6  # what a mail takes
VOID = ("meta", "img", "br", "wbr", "rect", "line", "polyline", "circle", "path")
STYLE = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("page.js")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Html:
    """Any text as markup that shows it; control characters as \\x1b."""
    return value if isinstance(value, Html) else Html(html.escape(str(value).translate(ESCAPED)))


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """An element. Content that is no `Html` is escaped, None is left out, lists are taken apart. Of
    an attribute's name `class_` stands for class and `a_b` for a-b; None leaves it out.
    """
    head = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value).translate(ESCAPED))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID and not content:
        return Html(f"<{name}{head}>" if name in VOID[:4] else f"<{name}{head}/>")
    return Html(f"<{name}{head}>{join(content)}</{name}>")


def join(content: Iterable[object]) -> Html:
    """Several pieces one after another."""
    parts = []
    for piece in content:
        if isinstance(piece, list | tuple):
            parts.append(join(piece))
        elif piece is not None:
            parts.append(text(piece))
    return Html("".join(parts))


def dotted(name: str) -> Html:
    """A dotted path, which a narrow column breaks after its dots and underscores."""
    parts = re.split(r"(?<=[._])", name)
    return join([parts[0], [(tag("wbr"), part) for part in parts[1:]]])


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, words: int = 1) -> Html:
    """A table that scrolls sideways where it is wide; the first `words` columns are text, the
    others numbers.
    """

    def cells(kind: str, row: Sequence[object]) -> list[Html]:
        return [
            tag(kind, cell, class_=None if i < words else "number") for i, cell in enumerate(row)
        ]

    body = [tag("tr", cells("td", row)) for row in rows]
    top = tag("thead", tag("tr", cells("th", head))) if head else None
    kind = "words" if words >= len(head) else None
    return tag("div", tag("table", top, tag("tbody", body), class_=kind), class_="wide")


def details(title: object, *content: object, opened: bool = False) -> Html:
    """A part that is folded until somebody wants it; printed whole."""
    head = tag("summary", title)
    return tag("details", head, *content, open="open" if opened else None)


def note(*content: object) -> Html:
    """A remark in small print."""
    return tag("p", *content, class_="note")


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page. `needed`: never left out for size."""

    title: str
    body: Html
    needed: bool = False


def document(title: str, sections: Sequence[Section], *, left_out: Sequence[str] = ()) -> bytes:
    """The page, at most MOST_BYTES long: where it would be longer, its largest sections that are
    not `needed` give way to a sentence. `left_out`: sentences on what is missing, at its end.
    """
    kept, missing = list(sections), list(left_out)
    while True:
        page = _render(title, kept, missing).encode("utf-8", "replace")
        loose = [s for s in kept if not s.needed]
        if len(page) <= MOST_BYTES or not loose:
            return page
        largest = max(loose, key=lambda s: len(s.body.encode("utf-8", "replace")))
        kept.remove(largest)
        size = len(largest.body.encode("utf-8", "replace"))
        missing.append(f"{largest.title}: the page would be too long to be mailed ({size:,} bytes)")


def _render(title: str, sections: Sequence[Section], left_out: Sequence[str]) -> str:
    style, script = STYLE.read_text("utf-8"), SCRIPT.read_text("utf-8")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; "
        f"script-src {_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    parts = [_section(i, s) for i, s in enumerate(sections)]
    if left_out:
        missing = tag("ul", [tag("li", sentence) for sentence in left_out])
        parts.append(tag("section", tag("h2", "Left out"), missing, id="left-out"))
    links = [tag("a", s.title, href=f"#s{i}") for i, s in enumerate(sections) if s.title]
    head = join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", title),
            tag("style", Html(style)),
        ]
    )
    body = join(
        [
            tag("header", tag("h1", title), tag("nav", links)),
            tag("main", parts),
            tag("script", Html(script)),
        ]
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _section(number: int, section: Section) -> Html:
    head = tag("h2", section.title) if section.title else None
    return join([Html("\n"), tag("section", head, section.body, id=f"s{number}")])


def _digest(content: str) -> str:
    """As a policy names what may be within the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def refuse_folder(path: Path) -> None:
    """ConfigError where a page is to be written and a folder lies."""
    if path.is_dir():
        raise ConfigError(
            f"{path}: is a folder; give the name of a file, e.g. {path / 'page.html'}"
        )


def write(path: Path, page: bytes) -> None:
    """Write the page, whole or not at all. Errors: ResourceError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, [page])
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place by "
            "--output"
        ) from error


def number(value: Any) -> str:
    """A number in short: whole ones with commas, others with four digits; "–" for none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)[:40]
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**15 else f"{value:.4g}"
