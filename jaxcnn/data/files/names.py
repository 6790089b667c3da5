"""Names that are the same but for their bytes.

Text is compared in Unicode's normal form C (Unicode Standard Annex 15): "é" is one character,
whether it was typed as one or as an e with an accent after it, as macOS writes file names.
"""

import unicodedata
import warnings
from collections.abc import Iterable

from jaxcnn.errors import DataError


def nfc(text: str) -> str:
    """`text` in normal form C."""
    return unicodedata.normalize("NFC", text)


def require_distinct(names: Iterable[str], *, where: str) -> None:
    """DataError where two different names differ only in case, in normal form or in the blanks
    around them: one of them is a slip, and its examples would be a class of their own.

    Single letters may differ in case, since letters are classes too; that is said.
    """
    seen: dict[str, str] = {}
    letters = []
    for name in names:
        key = nfc(nfc(name).casefold()).strip()
        other = seen.setdefault(key, name)
        if other == name:
            continue
        if len(nfc(name)) == len(nfc(other)) == 1 and nfc(name) != nfc(other):
            letters.append((other, name))
            continue
        raise DataError(
            f"{where}: the classes {other!r} ({_points(other)}) and {name!r} ({_points(name)}) "
            "differ only in case, in blanks, or in how Unicode writes them; give them one name, "
            "or names that differ"
        )
    if letters:
        warnings.warn(
            f"{where}: the classes {letters[:10]} differ only in case; they are taken for "
            "different letters",
            stacklevel=3,
        )


def _points(text: str) -> str:
    """The code points of those characters that are not ASCII, or the text's length."""
    strange = [f"U+{ord(c):04X}" for c in text if not c.isascii()]
    return " ".join(strange[:8]) or f"{len(text)} characters"
