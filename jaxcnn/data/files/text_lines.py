"""Images of single lines of text, and a file that says what is written on each."""

import re
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from jaxcnn.data.example import Example
from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.checks import check_image_file
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import image_endings
from jaxcnn.data.files.names import nfc
from jaxcnn.data.files.parsing import LONGEST, exists, find_file, read_lines, unquote
from jaxcnn.errors import ConfigError
from jaxcnn.ops.alphabet import require_alphabet


@dataclass(frozen=True)
class TextLineFolder(Annotated):
    """Images of text lines in the folder `path`: "image" uint8 [H, W, channels], "text" int32 [L],
    1 + the place of each character in the alphabet, then 0.

    `labels` is a UTF-8 file in the folder, or elsewhere if it is an absolute path, with a line
    `FILE<tab>TEXT` for each image; instead of the tab there may be blanks or a comma after the name
    of a file that there is; a text in double quotes loses them (so ICDAR's word lists are read
    too). Blank lines are passed over. Texts are in Unicode's normal form C.
    alphabet: the characters in the order of their numbers, as the task's; "" for those that occur
        in training, sorted: they are label_names. length: L; 0 for the longest text.
    eval_path, eval_labels and test_path, test_labels: the same of these splits; without eval_path,
    `eval_fraction` is held out.
    Broken labels, as `invalid` says: missing images, lines without a text, characters that the
        alphabet lacks, texts longer than `length`.
    Errors: DataError naming file and line.
    """

    ENTRIES = ("text",)

    path: str
    labels: str = "labels.txt"
    alphabet: str = ""
    length: int = 0
    eval_path: str = ""
    eval_labels: str = "labels.txt"
    test_path: str = ""
    test_labels: str = "labels.txt"
    _: KW_ONLY
    image_size: tuple[int, int] = (32, 128)
    channels: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.alphabet:
            require_alphabet(self.alphabet)
        if self.alphabet != nfc(self.alphabet):
            raise ConfigError(
                f"TextLineFolder: the alphabet {self.alphabet!r} is not in Unicode's normal form "
                "C, in which texts are compared: unicodedata.normalize('NFC', alphabet)"
            )

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """See `Annotated.parse`; the names are the characters of the alphabet."""
        path, labels = {
            "train": (self.path, self.labels),
            "eval": (self.eval_path, self.eval_labels),
            "test": (self.test_path, self.test_labels),
        }[split]
        if not path:
            return None
        root = Path(path).expanduser()
        file, alphabet, out = root / labels, self.alphabet or "".join(names), []
        for number, line in enumerate(read_lines(file), 1):
            if line.strip():
                example = self._example(line, f"{file}, line {number}", root, alphabet, faults)
                out += [example] if example else []
        found = {character for example in out for character in example.text}
        return tuple(alphabet or sorted(found)), out

    def _example(
        self, line: str, where: str, root: Path, alphabet: str, faults: Faults
    ) -> Example | None:
        """The example of a line that keeps the rules; any characters are allowed if `alphabet` is
        empty.
        """
        path, text = split_line(line, root, where, faults)
        if path is None:
            return faults.add(
                f"{where}: {line.strip()[:80]!r} names a file outside {root}; images are files of "
                "that folder",
                kind="file outside the folder",
            )
        unknown = sorted({c for c in text if c not in alphabet}) if alphabet else []
        if not text:
            return faults.add(
                f"{where}: {line.strip()[:80]!r} has no text; a line is FILE<tab>TEXT",
                kind="no text",
            )
        if unknown:
            return faults.add(
                f"{where}: {text!r} has {unknown}, which the alphabet {alphabet!r} lacks; add "
                "them or drop the line",
                kind="characters that the alphabet lacks",
            )
        if self.length and len(text) > self.length:
            return faults.add(
                f"{where}: {text!r} has {len(text)} characters; length={self.length} is room "
                f"for {self.length}",
                kind="text too long",
            )
        size = check_image_file(path, faults)
        return size and Example(image=path, size=size, name=str(path), text=text)

    def axis(self, letter: str) -> int:
        return self.length if letter == "L" and self.length else super().axis(letter)


def split_line(line: str, root: Path, where: str, faults: Faults) -> tuple[Path | None, str]:
    """The image file (None where it lies outside `root`) and the text of a line; no text where
    there is none.

    A tab parts them; without one, a comma or blanks after the name of a file that there is, so that
    names may hold blanks. Where several files fit ("a" and "a b.png"), that is a fault.
    """
    line = line.strip()
    name, tab, text = line.partition("\t")
    quoted = re.fullmatch(r'"([^"]+)"(?:\s*,\s*|\s+)(.*)', line)
    if tab or quoted:
        name, text = quoted.groups() if quoted and not tab else (name, text)
        return find_file(root, unquote(name.strip()))[0], _text(text)
    gaps = re.finditer(r"\s*,\s*|\s+", line[: 2 * LONGEST])
    parts = [(line[: m.start()], m.end()) for m in gaps if m.start() <= LONGEST]
    named = [part for part in parts if Path(part[0]).suffix.lower() in image_endings()]
    files = [(find_file(root, name)[0], end) for name, end in named]
    found = [(path, end) for path, end in files if path is not None and exists(path)]
    if len(found) > 1:
        faults.add(
            f"{where}: {line[:80]!r} starts with the names of {len(found)} files, {found[0][0]} "
            f"and {found[1][0]}; part file and text by a tab",
            kind="several files fit",
        )
        return found[0][0], ""
    if found:
        return found[0][0], _text(line[found[0][1] :])
    name, end = (named or parts or [(line, len(line))])[0]
    return find_file(root, name)[0], _text(line[end:])


def _text(text: str) -> str:
    return nfc(unquote(text.strip()))
