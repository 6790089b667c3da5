"""The names of classes, and the form of keypoints, where a file beside the labels says them."""

import re
from pathlib import Path

from jaxcnn.data.files.parsing import read_lines, read_text
from jaxcnn.errors import DataError

LISTS = ("classes.txt", "obj.names")
YAML = ("data.yaml", "dataset.yaml")
NAMES = re.compile(
    r"^names:[ \t]*(?:#.*)?(\[[^\]]*\]|\{[^}]*\}|(?:\n+[ \t]*(?:-|\d+:).*)+)", re.MULTILINE
)
ITEM = re.compile(
    r"(?:-[ \t]+|(\d+)\s*:\s*)?"  # "- name" or "3: name"
    r"(?:'([^']*)'|\"([^\"]*)\"|([^\s,'\"\[\]{}#-][^,\n\]}#]*))"
    r"[ \t]*(?:#.*)?"
)


def read_class_names(root: Path) -> tuple[str, ...]:
    """The classes that the folder's classes.txt or obj.names lists, a name a line, or the list
    "names" of its data.yaml. Errors: DataError where there is no such file, or it is another form
    of YAML than such lists have.
    """
    for name in LISTS:
        if (root / name).is_file():
            return tuple(line.strip() for line in read_lines(root / name) if line.strip())
    file = next((root / name for name in YAML if (root / name).is_file()), None)
    if file is None:
        raise DataError(
            f"{root}: has no {', '.join((*LISTS, *YAML))} that says what the classes are called; "
            "set names=('first', 'second', ...)"
        )
    text = _yaml(file)
    match = NAMES.search(text)
    items = ITEM.findall(match[1]) if match else []
    names = tuple((a or b or c).strip() for _, a, b, c in items)
    ordered = all(number in ("", str(place)) for place, (number, *_) in enumerate(items))
    count = re.search(r"^nc:[ \t]*(\d+)", text, re.MULTILINE)
    if not names or not all(names) or not ordered or (count and int(count[1]) != len(names)):
        raise DataError(
            f"{file}: its names cannot be read ({list(names)[:20]}); set names=('first', ...)"
        )
    return names


def read_keypoint_shape(root: Path) -> tuple[int, int] | None:
    """(how many, numbers of each: 2 or 3) of the keypoints that lines of labels have after their
    box, as data.yaml says it (kpt_shape); None where it says nothing. Errors: DataError.
    """
    file = next((root / name for name in YAML if (root / name).is_file()), None)
    found = None if file is None else re.search(r"^kpt_shape:(.*)", _yaml(file), re.MULTILINE)
    if found is None:
        return None
    match = re.match(r"\s*\[\s*(\d{1,6})\s*,\s*([23])\s*\]", found[1])
    if match is None:
        raise DataError(f"{file}: {found[0][:60]!r} is not kpt_shape: [count, 2 or 3]")
    return int(match[1]), int(match[2])


def _yaml(file: Path) -> str:
    """Its text, lines ended as on Unix."""
    return read_text(file).replace("\r\n", "\n")
