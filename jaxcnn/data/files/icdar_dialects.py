"""The dialects in which text on pictures is labelled, told apart by all lines of a folder at once:
a line such as `5,5,25,5,25,15,5,15,Latin,###` is right in several of them and means another thing
in each. What cannot be told is refused.

Sources of the forms: Karatzas et al., "ICDAR 2013 robust reading competition", 2013, and "ICDAR
2015 competition on robust reading", 2015; Nayef et al., "ICDAR2017 robust reading challenge on
multi-lingual scene text detection and script identification", 2017; Shi et al., "ICDAR2017
competition on reading Chinese text in the wild (RCTW-17)", 2017; Ch'ng, Chan, "Total-Text", 2017;
Liu et al., "Curved scene text detection via transverse and longitudinal sequence connection", 2019
(SCUT-CTW1500).
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxcnn.data.files.parsing import unquote
from jaxcnn.errors import DataError

DIALECTS: Mapping[str, str] = {
    "2013": "left,top,right,bottom,TEXT",
    "2015": "x1,y1,x2,y2,x3,y3,x4,y4,TEXT",
    "2017": "x1,y1,x2,y2,x3,y3,x4,y4,SCRIPT,TEXT",
    "rctw": 'x1,y1,x2,y2,x3,y3,x4,y4,DIFFICULT,"TEXT"',
    "polygons": "x1,y1,...,xn,yn,TEXT",
    "ctw1500": "x1,y1,...,x14,y14,####TEXT, or left,top,right,bottom and 28 offsets",
    "total-text": "x: [[x1 ... xn]], y: [[y1 ... yn]], ornt: ['c'], transcriptions: ['TEXT']",
}
SCRIPTS = {
    *("Arabic", "Bangla", "Chinese", "Devanagari", "Hindi", "Japanese", "Kannada", "Korean"),
    *("Latin", "Mixed", "None", "Symbols", "Thai", "Cyrillic", "Greek", "Hebrew", "Tamil"),
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
# a number, and what parts it from the next
_COMMA = re.compile(rf"\s*({_NUMBER})\s*(,|$)")
_BLANK = re.compile(rf"\s*({_NUMBER})(\s+|$)")
_SCRIPT = re.compile(r"\s*([A-Z][A-Za-z]+)\s*,")
_TOTAL_TEXT = re.compile(
    r"x\s*:\s*\[\[([-\d.,\s]*)\]\]\s*,\s*y\s*:\s*\[\[([-\d.,\s]*)\]\]"
    r"(?:\s*,\s*ornt\s*:\s*\[[^\]]*\])?"
    r"(?:\s*,\s*transcriptions\s*:\s*\[\s*u?(['\"])(.*)\3\s*\])?\s*"
)


class Line(NamedTuple):
    """A line of a label file: the numbers that it starts with, where each of them begins, and what
    follows them, None where nothing does (not even an empty text)."""

    where: str
    line: str
    numbers: tuple[float, ...]
    starts: tuple[int, ...]
    rest: str | None

    def after(self, count: int) -> str | None:
        """What follows the first `count` numbers, with the numbers there."""
        if len(self.numbers) > count:
            return self.line[self.starts[count] :]
        return self.rest


class Text(NamedTuple):
    """A text of a picture: its corners (x, y) in pixels, what is written, and whether that counts
    for nothing."""

    corners: list[tuple[float, float]]
    text: str
    ignored: bool


def read_line(line: str, where: str) -> Line:
    """The numbers at the start of a line, parted by commas or by blanks, whichever comes first."""
    comma = re.match(rf"\s*{_NUMBER}\s*,", line) is not None
    pattern, numbers, starts, place = _COMMA if comma else _BLANK, [], [], 0
    while match := pattern.match(line, place):
        numbers.append(float(match[1]))
        starts.append(match.start(1))
        place = match.end()
        if not match[2] or (not comma and place == len(line)):
            return Line(where, line, tuple(numbers), tuple(starts), None)
    return Line(where, line, tuple(numbers), tuple(starts), line[place:].strip())


def join_wrapped(lines: Sequence[str]) -> list[str]:
    """Lines of Total-Text, whose arrays run over several, each put together; others as they are."""
    if not any(_is_total(line) for line in lines):
        return list(lines)
    out: list[str] = []
    for line in lines:
        if out and line.strip() and not _is_total(line):
            out[-1] = f"{out[-1]} {line.strip()}"
        else:
            out.append(line)
    return out


def tell_dialect(lines: Sequence[Line], *, where: str) -> str:
    """The dialect of the lines of a folder. Errors: DataError where there are several that fit, or
    parts of the lines are of different ones.
    """
    total = sum(_is_total(line.line) for line in lines)
    boxes = sum(len(line.numbers) == 4 for line in lines)
    long = [line for line in lines if len(line.numbers) >= 8]
    kinds = {"total-text": total, "2013": boxes, "2015 or alike": len(long)}
    kinds = {kind: count for kind, count in kinds.items() if count}
    if len(kinds) > 1:
        raise _untold(where, kinds)
    if total:
        return "total-text"
    # lines of 5 to 7 numbers: texts of digits in 2013, faults in the others
    digits = not long and all(len(n.numbers) == 5 and n.rest is None for n in lines)
    if boxes or (lines and digits):
        return "2013"
    for dialect, fits in _SIGNS.items():
        count = sum(map(fits, long))
        if count == len(long):
            return dialect
        if count:
            raise _untold(where, {dialect: count, "2015 or alike": len(long) - count})
    flags = sum(len(line.numbers) > 8 and line.numbers[8] in (0, 1) for line in long)
    if len(long) >= 3 and flags == len(long):
        raise _untold(where, {"rctw": flags, "2015": flags})
    words = [match[1] for line in long if (match := _SCRIPT.match(line.after(8) or ""))]
    if len(words) == len(long) >= 3 and 3 * len(set(words)) <= len(long):
        raise _untold(where, {"2017": len(long), "2015": len(long)})
    return "2015"


def _untold(where: str, counts: Mapping[str, int]) -> DataError:
    forms = "; ".join(f"{name}: {form}" for name, form in DIALECTS.items())
    return DataError(
        f"{where}: the lines could be of several dialects ("
        + ", ".join(f"{name}: {count} lines" for name, count in counts.items())
        + f"), which mean different things; set dialect to one of these: {forms}"
    )


def parse_line(line: Line, dialect: str) -> Text | None:
    """What a line says in a dialect, or None where it is not of it."""
    found = _PARSERS[dialect](line)
    if found is None:
        return None
    corners, text, ignored = found
    text = unquote(text.strip())
    # ### in all; a single # in Total-Text
    marks = r"#+" if dialect == "total-text" else r"#{3,}"
    return Text(corners, text, ignored or re.fullmatch(marks, text) is not None)


Found = tuple[list[tuple[float, float]], str, bool] | None


def _pairs(values: Sequence[float]) -> list[tuple[float, float]]:
    return list(itertools.pairwise(values))[::2]


def _box(line: Line) -> Found:
    if len(line.numbers) < 4:
        return None
    left, top, right, bottom = line.numbers[:4]
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    # exchanged or empty: perhaps left, top, width, height; never a box turned over
    return (corners if left < right and top < bottom else [], line.after(4) or "", False)


def _quadrilateral(line: Line) -> Found:
    if len(line.numbers) < 8:
        return None
    return _pairs(line.numbers[:8]), line.after(8) or "", False


def _script(line: Line) -> Found:
    match = _SCRIPT.match(line.after(8) or "") if len(line.numbers) >= 8 else None
    if match is None:
        return None
    return _pairs(line.numbers[:8]), (line.after(8) or "")[match.end() :], False


def _difficulty(line: Line) -> Found:
    if len(line.numbers) < 9 or line.numbers[8] not in (0, 1):
        return None
    text = (line.after(9) or "").rstrip("; ")  # which some files have at the end of their lines
    return _pairs(line.numbers[:8]), text, line.numbers[8] == 1


def _polygon(line: Line) -> Found:
    count = len(line.numbers)
    if count % 2 and line.rest is None:  # the text is a number
        count -= 1
    if count < 8 or count % 2:
        return None
    return _pairs(line.numbers[:count]), line.after(count) or "", False


def _ctw1500(line: Line) -> Found:
    if _is_offsets(line):
        left, top, _, _, *offsets = line.numbers
        return [(left + x, top + y) for x, y in _pairs(offsets)], "", False
    rest, count = line.rest or "", len(line.numbers)
    if count < 8 or count % 2 or not rest.startswith("####"):
        return None
    return _pairs(line.numbers), rest[4:], False


def _total_text(line: Line) -> Found:
    match = _TOTAL_TEXT.fullmatch(line.line.strip())
    if match is None:
        return None
    try:
        x, y = (list(map(float, re.split(r"[\s,]+", part.strip()))) for part in match.group(1, 2))
    except ValueError:
        return None
    text = match[4] if match[3] else "#"  # without a transcription nothing is known to be written
    return (list(zip(x, y, strict=True)), text, False) if len(x) == len(y) >= 4 else None


_PARSERS: Mapping[str, Callable[[Line], Found]] = {
    "2013": _box,
    "2015": _quadrilateral,
    "2017": _script,
    "rctw": _difficulty,
    "polygons": _polygon,
    "ctw1500": _ctw1500,
    "total-text": _total_text,
}


def _is_total(line: str) -> bool:
    return re.match(r"\s*x\s*:\s*\[\[", line) is not None


def _is_offsets(line: Line) -> bool:
    """Whether 28 of 32 numbers are offsets from the upper left corner of the box in the first 4."""
    if len(line.numbers) != 32 or line.rest:
        return False
    left, top, right, bottom, *offsets = line.numbers
    return all(
        -1 <= x <= right - left + 1 and -1 <= y <= bottom - top + 1 for x, y in _pairs(offsets)
    )


# what only lines of the dialect have, the rarest first
_SIGNS: Mapping[str, Callable[[Line], bool]] = {
    "ctw1500": lambda line: (
        _is_offsets(line) or (len(line.numbers) >= 12 and (line.rest or "").startswith("####"))
    ),
    "rctw": lambda line: (
        _difficulty(line) is not None and (line.after(9) or "").lstrip().startswith('"')
    ),
    "2017": lambda line: (
        len(line.numbers) == 8
        and (match := _SCRIPT.match(line.after(8) or "")) is not None
        and match[1] in SCRIPTS
    ),
    "polygons": lambda line: (
        # an even number and a text after it, or more than a text of digits can account for
        (len(line.numbers) >= 10 and len(line.numbers) % 2 == 0 and bool(line.rest))
        or (len(line.numbers) >= 12 and not line.rest)
    ),
}
