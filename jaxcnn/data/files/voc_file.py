"""What the files of a VOC folder say: XML annotations and lists of images, as tools write them."""

import codecs
import functools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.names import nfc
from jaxcnn.data.files.parsing import LONGEST, flag, number, read_lines
from jaxcnn.errors import DataError

CORNERS = ("ymin", "xmin", "ymax", "xmax")
FLAGGED = re.compile(r"(.*\S)\s+(?:-1|0|1)")  # an image, and whether it shows a class
# what the parser leaves to Python: encodings of several bytes a character. Python knows others,
# some of which take time with the square of the text
ENCODINGS = ("big5", "cp9", "euc", "gb", "hz", "iso2022", "johab", "shift", "utf")
DECLARATION = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)[\"'][^>]*\?>")


@dataclass(frozen=True)
class VocFile:
    """The annotation of the image `stem`; nothing is read of it where it is not `needed`."""

    stem: str
    path: Path
    needed: bool

    @functools.cached_property
    def _read(self) -> tuple[ElementTree.Element, str]:
        """The root, and why there is none."""
        empty = ElementTree.Element("annotation")
        if not self.needed:
            return empty, ""
        try:
            return read_xml(self.path), ""
        except DataError as error:
            return empty, str(error)

    @property
    def problem(self) -> str:
        """Why it cannot be read; "" if it can."""
        return self._read[1]

    def class_names(self) -> set[str]:
        """The classes of its objects."""
        return {nfc(_text(item, "name")) for item in self._read[0].iter("object")} - {""}

    def image_stem(self) -> str:
        """The name of the image without folder and ending, as the file itself says it."""
        name = _text(self._read[0], "filename") or _text(self._read[0], "path")
        return nfc(_stem(name.replace("\\", "/").rpartition("/")[2]))

    def declared_size(self, faults: Faults) -> tuple[float, float] | None:
        """The (height, width) that it says; None where it does not know them (0 or -1)."""
        said = [_text(self._read[0], f"size/{name}") for name in ("height", "width")]
        height, width = map(number, said)
        if (height is None and said[0]) or (width is None and said[1]):
            faults.mend(
                f"{self.path}: its size is (height, width) = {tuple(said)}; they are numbers of "
                "pixels",
                kind="size that is no number, taken as unknown",
            )
        if not (height and width and min(height, width) > 0):
            return None
        return height, width

    def objects(self, faults: Faults) -> list[tuple[str, list[float] | None, bool]]:
        """Name, box (ymin, xmin, ymax, xmax; None where it is not four numbers), and whether it is
        difficult, of each object."""
        out = []
        for place, item in enumerate(self._read[0].iter("object"), 1):
            said = _text(item, "difficult")
            difficult = flag(said)
            if difficult is None:
                faults.mend(
                    f"{self.path}: object {place} has difficult={said!r}; it is 0 or 1",
                    kind="difficult that is neither 0 nor 1, taken as 0",
                )
            found = [_float(_text(item, f"bndbox/{corner}")) for corner in CORNERS]
            box = [corner for corner in found if corner is not None]
            box = box if len(box) == len(CORNERS) else None
            out.append((nfc(_text(item, "name")), box, bool(difficult)))
        return out


def read_xml(file: Path) -> ElementTree.Element:
    """The root of an XML file, also where the parser does not know its encoding, or blanks stand
    before it. Errors: DataError naming the file and the place.
    """
    try:
        data = file.read_bytes().lstrip()
        if b"<!ENTITY" in data.replace(b"\0", b""):
            raise ValueError("it declares entities, which may swell or stand for other files")
        declared = DECLARATION.match(data)
        try:
            return ElementTree.fromstring(data)
        except (ValueError, LookupError):
            if declared is None:
                raise
            name = declared[1].decode("ascii")
            if not codecs.lookup(name).name.replace("_", "").startswith(ENCODINGS):
                raise
            text = data[declared.end() :].decode(name)
            return ElementTree.fromstring(text)
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such annotation file") from None
    except (ElementTree.ParseError, OSError, ValueError, LookupError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as XML ({error}); repair or remove it") from error


def listed_stems(file: Path, images: set[str], faults: Faults) -> list[str]:
    """The names of the images of a list, each once, in its order.

    A line is the name of one of the `images`, with or without ending and folder, and perhaps -1, 0
    or 1 after it; since names may hold blanks, the longest reading that is an image counts. Errors:
    DataError.
    """
    out: dict[str, int] = {}
    for place, line in enumerate(read_lines(file), 1):
        if not line.strip():
            continue
        stem = _listed(nfc(line.strip()[:LONGEST]), images)
        if stem in out:
            faults.note(
                f"{file}, line {place}: {stem!r} stands in line {out[stem]}, too; it is taken once",
                kind="image listed twice",
            )
        out.setdefault(stem, place)
    return list(out)


def _listed(line: str, images: set[str]) -> str:
    flagged = FLAGGED.fullmatch(line)
    readings = [line, *([flagged[1]] if flagged else []), line.split()[0]]
    for reading in readings:
        path = reading.replace("\\", "/").removeprefix("./")
        while path:
            for stem in (path, _stem(path)):
                if stem in images:
                    return stem
            path = path.partition("/")[2]
    return flagged[1] if flagged else line


def _stem(name: str) -> str:
    """`name` without an ending."""
    return re.sub(r"\.\w{1,5}$", "", name)


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _float(text: str) -> float | None:
    """The number in a text, finite or not; None where there is none."""
    try:
        return float(text)
    except ValueError:
        return None
