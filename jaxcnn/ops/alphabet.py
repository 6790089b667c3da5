"""Text as numbers: 0 is padding (and the blank of CTC), 1 + i the character `alphabet[i]`. NumPy,
on the host.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Array, Int32, Integer

from jaxcnn.errors import ConfigError, DataError

Row = Integer[Array | np.ndarray, " _"] | Iterable[int]


def require_alphabet(alphabet: str) -> None:
    """ConfigError for an alphabet that is empty or repeats a character."""
    repeated = sorted({c for c in alphabet if alphabet.count(c) > 1})
    if not alphabet or repeated:
        raise ConfigError(
            f"alphabet {alphabet!r} {f'repeats {repeated}' if repeated else 'is empty'}; it holds "
            "each character once"
        )


def encode(lines: Sequence[str], *, alphabet: str, length: int) -> Int32[np.ndarray, "N {length}"]:
    """Lines as numbers, int32 [N, length], padded with 0.

    Errors: DataError for a character that the alphabet lacks, and for a line longer than `length`.
    """
    require_alphabet(alphabet)
    numbers = {character: number for number, character in enumerate(alphabet, 1)}
    rows = np.zeros((len(lines), length), np.int32)
    for i, line in enumerate(lines):
        unknown = sorted({c for c in line if c not in numbers})
        if unknown:
            raise DataError(
                f"line {i} {line!r} has {unknown}, which the alphabet {alphabet!r} lacks; add "
                "them, or drop the line"
            )
        if len(line) > length:
            raise DataError(
                f"line {i} {line!r} has {len(line)} characters; at most {length} fit. Raise the "
                "length, or cut the line"
            )
        rows[i, : len(line)] = [numbers[c] for c in line]
    return rows


def decode(rows: Integer[Array | np.ndarray, "N L"] | Iterable[Row], *, alphabet: str) -> list[str]:
    """Rows of numbers, as `encode` makes them, as lines; numbers of 0 and below are padding."""
    return ["".join(alphabet[number - 1] for number in row if number > 0) for row in rows]
