"""The JSON dialects of text on pictures, of ICDAR's competitions of 2019. They say themselves what
they are, and what is none of them is refused.

ArT and LSVT, one file for all images:
    {"gt_1": [{"points": [[x, y], ...], "transcription": "TEXT", "illegibility": false}, ...], ...}
ReCTS, one file for each image:
    {"lines": [{"points": [x1, y1, ...], "transcription": "TEXT", "ignore": 0}, ...], "chars": ...}

Sources of the forms: Chng et al., "ICDAR2019 robust reading challenge on arbitrary-shaped text -
RRC-ArT", 2019; Sun et al., "ICDAR 2019 competition on large-scale street view text with partial
labeling - RRC-LSVT", 2019; Zhang et al., "ICDAR 2019 robust reading challenge on reading Chinese
text on signboard", 2019 (ReCTS).
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.icdar_dialects import Text
from jaxcnn.data.files.parsing import flag, numbers, read_text
from jaxcnn.errors import DataError

Placed = tuple[str, Text]  # where it stands, and the text
FORMS = (
    'ArT and LSVT: one file for all images, {"gt_1": [{"points": [[x, y], ...], "transcription": '
    '"TEXT", "illegibility": false}, ...], ...}; ReCTS: one file for each image, {"lines": '
    '[{"points": [x1, y1, ...], "transcription": "TEXT", "ignore": 0}, ...]}'
)


def read_set(file: Path, faults: Faults) -> dict[str, list[Placed]]:
    """The texts of all images, by image, of a file in the form of ArT or LSVT. Errors: DataError
    for another form."""
    found = _load(file)
    if "lines" in found and "chars" in found:
        raise DataError(
            f"{file}: holds the labels of one image, as ReCTS has them; name the folder of these "
            "files: labels='.../gt'"
        )
    strange = [name for name, items in found.items() if not isinstance(items, list)]
    if strange or not found or "annotations" in found:
        raise DataError(
            f"{file}: is in none of the forms of JSON that are read ({FORMS}); it has the entries "
            f"{list(found)[:8]}. Coco reads files with images, annotations and categories"
        )
    return {
        name: _texts(items, "illegibility", f"{file}, {name!r}", faults)
        for name, items in found.items()
    }


def read_picture(file: Path, faults: Faults) -> list[Placed]:
    """The lines of text of an image of a file in the form of ReCTS; its single characters are not
    read. Errors: DataError for another form."""
    found = _load(file)
    if not isinstance(found.get("lines"), list):
        raise DataError(
            f"{file}: has no 'lines', as the file of one image has; it has the entries "
            f"{list(found)[:8]}. The forms of JSON that are read: {FORMS}. A file for all images "
            "is named itself: labels='.../train_labels.json'"
        )
    return _texts(found["lines"], "ignore", f"{file}, 'lines'", faults)


def _load(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(file), object_pairs_hook=lambda pairs: _distinct(pairs, file))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: cannot be read as JSON ({type(error).__name__}: {error}); repair it"
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{file}: holds no object; the forms of JSON that are read: {FORMS}")
    return found


def _distinct(pairs: list[tuple[str, Any]], file: Path) -> dict[str, Any]:
    """The entries of an object, of which JSON would keep the last of a name only."""
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{file}: has {twice[:5]} more than once; each image has one entry")
    return out


def _texts(items: list[Any], passed: str, where: str, faults: Faults) -> list[Placed]:
    """The texts of an image that keep the form. `passed`: the flag of those that cannot be read."""
    out = []
    for number, item in enumerate(items, 1):
        place = f"{where}, text {number}"
        problem, text = _text(item, passed)
        if text is None:
            faults.add(f"{place}: {problem}", kind="text of another form")
        else:
            out.append((place, text))
    return out


def _text(item: Any, passed: str) -> tuple[str, Text | None]:
    """What is wrong with a text, or the text."""
    if not isinstance(item, dict):
        return f"is {str(item)[:40]!r}; a text is an object with points and transcription", None
    if "points" not in item:
        return (
            f"has no 'points', but {list(item)[:6]}; where a text lies must be known (the weak "
            "labels of LSVT do not say it, its full labels do)",
            None,
        )
    flat = item["points"]
    if isinstance(flat, list) and flat and all(isinstance(pair, list) for pair in flat):
        flat = list(itertools.chain(*flat)) if all(len(pair) == 2 for pair in flat) else None
    values = numbers(flat)
    if values is None or len(values) < 8 or len(values) % 2:
        return (
            f"its points are {str(item['points'])[:80]}; they must be four or more corners (x, y)",
            None,
        )
    text, ignored = item.get("transcription"), flag(item.get(passed))
    if not isinstance(text, str):
        return f"its transcription is {str(text)[:40]}; it must be a string", None
    if passed not in item or ignored is None:
        shown = str(item.get(passed, "absent"))[:40]
        return f"its {passed!r} is {shown}; it must be true or false (1 or 0)", None
    ignored = ignored or re.fullmatch(r"#{3,}", text) is not None
    return "", Text(list(itertools.pairwise(values))[::2], text, ignored)
