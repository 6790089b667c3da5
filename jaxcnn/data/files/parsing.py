"""Texts, numbers and paths as people and exporters write them."""

import codecs
import math
import os.path
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote as unquote_url

from jaxcnn.data.files.walk import stored_path
from jaxcnn.errors import DataError

# byte order marks, the longer first: UTF-32's little-endian mark begins with UTF-16's
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LONGEST = 4096  # characters of a path; no system opens a longer one
DRIVE = re.compile(r"[A-Za-z]:")
# a flag that is written as a word
FLAGS = {"": False, "false": False, "no": False, "true": True, "yes": True}


def decode_text(data: bytes, *, name: str) -> str:
    """The text of a file's bytes: UTF-8, or what a byte order mark says; the mark is no part of it.

    Errors: DataError naming the file for other encodings and for zero bytes.
    """
    mark, encoding = next(((m, e) for m, e in MARKS if data.startswith(m)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, len(mark) + error.start) + 1
        raise DataError(
            f"{name}, line {line}: is no text in {encoding.upper()} (byte 0x"
            f"{data[len(mark) + error.start]:02x} at {len(mark) + error.start}: {error.reason}); "
            "perhaps it is Latin-1 or Windows-1252: save it as UTF-8"
        ) from error
    if "\0" in text:
        raise DataError(
            f"{name}: holds zero bytes; it is no text, or UTF-16 without a byte order mark: save "
            "it as UTF-8"
        )
    return text


def read_text(file: Path, *, what: str = "file of labels") -> str:
    """The text of a file, see `decode_text`. Errors: DataError naming the file."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such {what}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({type(error).__name__}: {error})") from error
    return decode_text(data, name=str(file))


def split_lines(text: str) -> list[str]:
    """Lines parted by line feeds, carriage returns or both, and by nothing else: U+2028, U+0085 and
    form feeds may stand within a text."""
    lines = re.split(r"\r\n|\n|\r", text)
    return lines[:-1] if lines[-1] == "" else lines


def read_lines(file: Path, *, what: str = "file of labels") -> list[str]:
    """The lines of a text file, see `read_text` and `split_lines`. Errors: DataError."""
    return split_lines(read_text(file, what=what))


def unquote(text: str) -> str:
    """`text` without the double quotes around it, and with the escaped ones within it as they are
    meant.
    """
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return text


def number(value: Any) -> float | None:
    """A finite number, also one written as a string; None for all else, such as true, null, NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        out = float(value)
    except (ValueError, OverflowError):
        return None
    return out if math.isfinite(out) else None


def numbers(values: Any, *, count: int | None = None) -> list[float] | None:
    """A list of (`count`) finite numbers, which may be written as strings; None for all else."""
    if not isinstance(values, list) or (count is not None and len(values) != count):
        return None
    if all(type(v) is float or type(v) is int for v in values):  # the common case, and the fastest
        try:
            return values if all(map(math.isfinite, values)) else None
        except OverflowError:  # an integer beyond all floats
            return None
    out = [number(v) for v in values]
    return None if None in out else out  # pyright: ignore[reportReturnType]


def identity(value: Any) -> int | str | None:
    """An id: 7, 7.0, "7" and "7.0" are one and the same; other strings stand for themselves. None
    where there is none, such as null, NaN or 7.5."""
    if type(value) is int:
        return value
    if isinstance(value, str) and not value.strip():
        return None
    as_number = number(value)
    if as_number is None:
        return value if isinstance(value, str) else None
    return int(as_number) if as_number.is_integer() else None


def flag(value: Any) -> bool | None:
    """Yes or no, as a number, a string, a truth value or null (no); None for all else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    as_number = number(value)
    if as_number is None:
        return FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
    return {0.0: False, 1.0: True}.get(as_number)


def find_file(root: Path, name: str) -> tuple[Path | None, bool]:
    """The file that `name` means below `root`, and whether that had to be guessed; None where the
    name leads out of `root`: no file elsewhere is read, whatever a list says.

    Backslashes part folders where there is no file of that very name, and names are the same in
    any of Unicode's normal forms. Only where nothing is found
    so is it guessed: %20 and the like are characters of an address, and of a path of another
    machine ("C:/photos/a/1.jpg", "/data/upload/1.jpg") only the end counts. Where nothing is found
    at all, the path is `root / name`.
    """
    if len(name) > LONGEST:
        return root / name, False
    slashed = name.replace("\\", "/")
    for written in dict.fromkeys((name, slashed)):
        path = inside(root, written)
        if path is not None and exists(path):
            return path, False
    plain = inside(root, slashed)
    stored = None if ".." in slashed.split("/") else stored_path(root, slashed)
    if stored is not None and exists(stored):
        return stored, False
    for written in dict.fromkeys((slashed, unquote_url(slashed))):
        parts = PurePosixPath(DRIVE.sub("", written, count=1) if _drive(written) else written).parts
        parts = tuple(part for part in parts if part not in ("/", "//", "..", "."))
        for start in range(len(parts)):
            path = root.joinpath(*parts[start:])
            if exists(path):
                return path, True
    return (None if plain is None else root / name), False


def inside(root: Path, name: str) -> Path | None:
    """The path `name` from `root`, ".." undone by name alone; None where it is not below `root`."""
    part = os.path.normpath(name) if ".." in name else name
    if os.path.isabs(part):
        return Path(part) if Path(part).is_relative_to(os.path.abspath(root)) else None
    return None if part.split("/")[0] == ".." else root / part


def _drive(name: str) -> bool:
    return DRIVE.match(name) is not None


def exists(path: Path) -> bool:
    """Whether there is such a file; there is none of a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, a null character
        return False
