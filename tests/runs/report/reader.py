"""Reads a page as a browser would: its elements, texts and attributes, by Python's own parser."""

import base64
import hashlib
import re
from html.parser import HTMLParser

VOID = ("meta", "img", "br", "wbr")
FRAGMENT = re.compile(r"#[\w-]+")


class Page(HTMLParser):
    """elements: [(name, {attribute: value})]; texts of each element by name; `rows` of all
    tables, a list of cells each; `titles` of its sections; `folds`: {title: whether it is open} of
    what can be folded; `prose`, the text but for what is
    preformatted, as code is: of a page that shows the code of a test the text has its words.
    Unbalanced elements fail.
    """

    def __init__(self, content: bytes):
        super().__init__(convert_charrefs=True)
        self.elements, self.rows, self.text = [], [], ""
        self.titles, self.prose = [], ""
        self.folds, self._summary = {}, ""
        self.scripts, self.styles = [], []
        self._open = []
        self.feed(content.decode())
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "summary":
            self._summary = ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes another element"
        if tag == "summary":
            self.folds[self._summary] = "open" in self.all("details")[-1]

    def handle_data(self, data):
        if "script" in self._open:
            self.scripts.append(data)
        elif "style" in self._open:
            self.styles.append(data)
        else:
            self.text += data + " "
            if "summary" in self._open:
                self._summary += data
            if "h2" in self._open:
                self.titles.append(data)
            if "pre" not in self._open:
                self.prose += data + " "
            if "tr" in self._open and self.rows and self.rows[-1]:
                self.rows[-1][-1] += data

    def all(self, name):
        """The attributes of all elements of a name."""
        return [attrs for tag, attrs in self.elements if tag == name]


def check(content: bytes, *, most: int = 5 * 10**6) -> Page:
    """A page that keeps its promises: parsed, balanced, small, and nothing in it that asks, sends
    or runs anything but its own script, which its policy names.
    """
    assert len(content) <= most
    page = Page(content)
    for name, attrs in page.elements:
        assert name not in ("iframe", "object", "embed", "link", "form", "base", "video", "audio")
        for key, value in attrs.items():
            assert not key.startswith("on"), (name, key)
            assert key != "style", "the policy allows none"
            if key == "src":
                assert re.match(r"data:image/(png|jpeg);base64,[\w+/=]+$", value), value[:80]
            if key in ("href", "xlink:href", "action", "srcset", "poster"):
                assert FRAGMENT.fullmatch(value), value[:80]
    policies = [a["content"] for a in page.all("meta") if "content-security" in str(a).lower()]
    assert len(policies) == len(page.scripts) == len(page.styles) == 1
    for text in (*page.scripts, *page.styles):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policies[0]
    assert "default-src 'none'" in policies[0]
    assert "unsafe" not in policies[0]
    assert "url(" not in page.styles[0]
    assert "@import" not in page.styles[0]
    ids = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert all(a["href"][1:] in ids for a in page.all("a"))
    return page
