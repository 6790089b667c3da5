"""Images of single lines of text, and a file that says what is written on each."""

import re
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data.files.annotated_images import AnnotatedImages
from jaxcnn.data.files.checks import check_image_file
from jaxcnn.data.files.faults import Faults
from jaxcnn.errors import DataError
from jaxcnn.ops.alphabet import encode, require_alphabet

# file, tab, text; or file, comma or blanks, text
LINE = re.compile(r"([^\t]+)\t(.*)|(\S+?)(?:\s*,\s*|\s+)(.*)")


@dataclass(frozen=True)
class TextLineFolder(AnnotatedImages):
    """Images of text lines in the folder `path`: "image" uint8 [H, W, channels], "text" int32 [L],
    1 + the place of each character in the alphabet, then 0.

    `labels` is a UTF-8 file in the folder, or elsewhere if it is an absolute path, with a line
    `FILE<tab>TEXT` for each image; instead of the tab there may be blanks or a comma, if no file
    name holds any; a text in double quotes loses them (so ICDAR's word lists are read
    too). Blank lines are passed over. `alphabet`: the characters in the order of their numbers, as
    the task's; "" for those that occur in
    training, sorted: they are label_names. `length`: L; 0 for the longest text.
    eval_path, eval_labels and test_path, test_labels: the same of these splits; without eval_path,
    `eval_fraction` is held out.
    Broken labels, as `invalid` says: missing images, lines without a text, characters that the
        alphabet lacks, texts longer than `length`.
    Errors: DataError naming file and line.
    """

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
        if self.alphabet:
            require_alphabet(self.alphabet)

    def read(self) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
        """The characters of the alphabet, and (image, text) of each split."""
        parts = {
            "train": (self.path, self.labels),
            "eval": (self.eval_path, self.eval_labels),
            "test": (self.test_path, self.test_labels),
        }
        out, alphabet = {}, self.alphabet
        for split, (path, labels) in parts.items():
            if not path:
                continue
            file = Path(path).expanduser() / labels
            faults = Faults(f"TextLineFolder {file}", self.invalid)
            out[split] = self._lines(file, Path(path).expanduser(), alphabet, faults)
            alphabet = alphabet or "".join(
                sorted({character for _, text in out[split] for character in text})
            )
            faults.warn()
        return tuple(alphabet), out

    def _lines(
        self, file: Path, root: Path, alphabet: str, faults: Faults
    ) -> list[tuple[Path, str]]:
        """(image, text) of each line that keeps the rules; any characters are allowed if `alphabet`
        is empty.
        """
        out = []
        for number, line in enumerate(read_lines(file), 1):
            if not line.strip():
                continue
            match, where = LINE.fullmatch(line.strip()), f"{file}, line {number}"
            name, text = (match[1] or match[3], match[2] or match[4] or "") if match else ("", "")
            text = unquote(text.strip())
            unknown = (
                sorted({character for character in text if character not in alphabet})
                if alphabet
                else []
            )
            if not text:
                faults.add(f"{where}: {line.strip()[:80]!r} has no text; a line is FILE<tab>TEXT")
            elif unknown:
                faults.add(
                    f"{where}: {text!r} has {unknown}, which the alphabet {alphabet!r} lacks; add "
                    "them or drop the line"
                )
            elif self.length and len(text) > self.length:
                faults.add(
                    f"{where}: {text!r} has {len(text)} characters; length={self.length} is room "
                    f"for {self.length}"
                )
            elif check_image_file(root / name, faults) is not None:
                out.append((root / name, text))
        return out

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        length = self.length or max(
            len(text) for items in self._read[1].values() for _, text in items
        )
        return self.image_spec() | {"text": jax.ShapeDtypeStruct((length,), np.int32)}

    def decode(self, item: tuple[Path, str], faults: Faults) -> dict[str, np.ndarray]:
        """One image and its text."""
        path, text = item
        length = self.spec()["text"].shape[0]
        return {
            "image": self.read_image(path),
            "text": encode([text], alphabet="".join(self.label_names), length=length)[0],
        }


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 text file, with or without a byte order mark. Errors: DataError."""
    try:
        return file.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such file of labels") from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read ({type(error).__name__}: {error}); it must be text in UTF-8"
        ) from error


def unquote(text: str) -> str:
    """`text` without the double quotes around it, and with the escaped ones within it as they are
    meant.
    """
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return text
