"""Files of texts with a class each: folders of .txt files, .jsonl, .csv and .tsv, as people and
programs write them.
"""

import contextlib
import csv
import io
import json
import math
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxcnn.data.files.class_listing import list_labelled
from jaxcnn.data.files.names import nfc
from jaxcnn.data.files.parsing import read_text, split_lines
from jaxcnn.errors import DataError, did_you_mean

ENDINGS = (".jsonl", ".csv", ".tsv")
MISSING = ("", "nan", "null")  # how tables write that there is no label
_WHOLE = re.compile(r"([-+]?\d+)\.0*")  # a whole number that was a float once

Rows = list[tuple[str, str]]  # text and class name


def read_texts(path: str, *, text: str = "text", label: str = "label") -> dict[str, Rows]:
    """The (text, class name) of each example: of each part that a folder has (see
    `class_listing.list_labelled`), or as "train" those of a .jsonl, .csv or .tsv file, whose
    entries `text` and `label` are.

    A class is a name: the numbers 1 and 1.0 and the string "1" are the class "1". Errors: DataError
    naming file and example.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        names, files = list_labelled(place, (".txt",), nested=False, where=f"Texts {path}")
        out = {
            split: [
                (read_text(Path(file), what="text"), names[number])
                for file, number in zip(found.paths, found.labels, strict=True)
            ]
            for split, found in files.items()
        }
    elif not place.exists():
        raise DataError(f"{place}: there is no such file or folder")
    elif place.suffix.lower() not in ENDINGS:
        raise DataError(f"{place}: is neither a folder nor a .jsonl, .csv or .tsv file")
    else:
        rows = _lines(place) if place.suffix.lower() == ".jsonl" else _table(place)
        out = {
            "train": [
                (_text(row, text, where), _class_name(row, label, where)) for where, row in rows
            ]
        }
    if not out["train"]:
        raise DataError(
            f"{place}: there are no texts; a folder holds one sub-folder of .txt files for each "
            "class"
        )
    empty = sum(not content.strip() for found in out.values() for content, _ in found)
    if empty:
        warnings.warn(f"{place}: {empty} texts are empty", stacklevel=2)
    return out


def _lines(place: Path) -> Iterator[tuple[str, Any]]:
    """Where it is, and the object, of each line of a .jsonl file; blank ones are passed over."""
    for number, line in enumerate(split_lines(read_text(place)), 1):
        if not line.strip():
            continue
        where = f"{place}, example {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where}: cannot be read as JSON ({type(error).__name__}: {error}); each line is "
                "an object"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: is {line.strip()[:40]!r}; each line is an object")
        yield where, row


def _table(place: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Where it is, and the entries, of each row of a .csv or .tsv file, whose first has the
    names."""
    text, mark = read_text(place), "\t" if place.suffix.lower() == ".tsv" else ","
    try:
        with _unlimited_fields():
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{place}: cannot be read as {place.suffix} ({error}); a text with {mark!r}, quotes or "
            "line ends in it stands in double quotes, which are doubled within it"
        ) from error
    rows = [row for row in rows if row]
    names = [name.strip() for name in rows[0]] if rows else []
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{place}: the first line names {twice} more than once")
    for number, row in enumerate(rows[1:], 1):
        where = f"{place}, example {number}"
        if len(row) > len(names):
            raise DataError(
                f"{where}: has {len(row)} entries and the first line {len(names)} names; a text "
                f"with {mark!r} in it stands in double quotes"
            )
        yield where, dict(zip(names, row, strict=False))


@contextlib.contextmanager
def _unlimited_fields() -> Iterator[None]:
    """Texts may be longer than the 128 KiB to which Python's csv limits a field; the file is in
    memory already."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _entry(row: dict[str, Any], name: str, where: str) -> Any:
    """The entry `name` of a row: a string or a finite number."""
    value = row.get(name)
    if value is None:
        there = list(row)
        hint = did_you_mean(name, there)
        if name in row:
            raise DataError(f"{where}: {name!r} is null; leave the example out, or fill it in")
        raise DataError(f"{where}: there is no {name!r}; there are {there}{hint}")
    if not isinstance(value, str | int | float) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise DataError(f"{where}: {name!r} is {str(value)[:40]}; it must be a string or a number")
    return value


def _text(row: dict[str, Any], name: str, where: str) -> str:
    return str(_entry(row, name, where))


def _class_name(row: dict[str, Any], name: str, where: str) -> str:
    """The label as the name of a class."""
    value = _entry(row, name, where)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    out = nfc(str(value)).strip()
    if out.lower() in MISSING:
        raise DataError(
            f"{where}: {name!r} is {out!r}, as where there is none; leave the example out, or "
            "fill it in"
        )
    whole = _WHOLE.fullmatch(out)
    return whole[1] if whole else out
