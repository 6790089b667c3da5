"""What the pages of the documentation hold: blocks of code, commands, links and paths."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
GALLERY = sorted((ROOT / "docs" / "gallery").glob("*.md"))
OF_A_RUN = ("runs/tutorial/", "code/", "checkpoints/")  # what a run directory holds
COMMAND = re.compile(r"^ *(?:\w+=\S+ )*(?:python launch\.py|jaxcnn)(?= |$)")


class Block(NamedTuple):
    """A block of Python, the line that it starts at (from 1), and the package that it needs."""

    code: str
    line: int
    needs: str | None


def blocks(page: Path) -> list[Block]:
    """The ```python blocks of a page, and those marked ```python needs=PACKAGE."""
    text, found = page.read_text(), []
    for match in re.finditer(r"^```python(?: needs=(\w+))?\n(.*?)^```", text, re.M | re.S):
        found.append(Block(match[2], text[: match.start(2)].count("\n") + 1, match[1]))
    return found


def script(page: Path, have: set[str]) -> str:
    """The page's code as one script, each line where the page has it, without the blocks that need
    packages which are not in `have`.
    """
    lines = [""] * page.read_text().count("\n")
    for block in blocks(page):
        if block.needs is None or block.needs in have:
            code = block.code.splitlines()
            lines[block.line - 1 : block.line - 1 + len(code)] = code
    return "\n".join(lines) + "\n"


def commands(page: Path) -> list[tuple[int, list[str]]]:
    """(line, arguments) of each `python launch.py …` or `jaxcnn …` that a page shows, in indented
    lines, in blocks and in running text, without comments and redirections.
    """
    found = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        shown = [line] if line.startswith("    ") else []
        shown += re.findall(r"`([^`]*)`", line)
        for text in shown:
            if match := COMMAND.match(text):
                arguments = shlex.split(text[match.end() :].partition(" > ")[0], comments=True)
                found.append((number, arguments))
    return found


def shell(page: Path) -> list[tuple[int, str]]:
    """(line, command) of the indented lines of a page that a shell is given, comments and all."""
    lines = enumerate(page.read_text().splitlines(), 1)
    words = re.compile(r"    (make|mkdir|pip|python3?|jaxcnn) ")
    return [(number, line.strip()) for number, line in lines if words.match(line)]


def saved(page: Path) -> dict[str, str]:
    """{path: code} of the experiment files that a page has its reader write: the last block before
    "Save it as `path`".
    """
    text, found = page.read_text(), {}
    for match in re.finditer(r"Save it as `([^`]+)`", text):
        line = text[: match.start()].count("\n")
        found[match[1]] = [block for block in blocks(page) if block.line < line][-1].code
    return found


def links(page: Path) -> list[str]:
    """The relative targets of a page's links and pictures, without their anchors."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [t.partition("#")[0] for t in targets if "://" not in t and not t.startswith("#")]


def paths(page: Path) -> list[str]:
    """The files and folders of the project that a page names between backticks."""
    named = re.findall(r"`([\w.-]+(?:/[\w.-]+)*/(?:[\w-]+\.\w+)?)`", page.read_text())
    return [p for p in named if p not in saved(page) and p not in OF_A_RUN]
