"""Edit distance, and the character and word error rate of lines of text."""

from collections.abc import Sequence

from jaxcnn.errors import DataError


def edit_distance(first: Sequence, second: Sequence) -> int:
    """The fewest insertions, deletions and substitutions that turn one sequence (characters, words,
    labels) into the other.

    Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals", 1966.
    """
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def character_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Edits over characters of the references, summed over all lines; can exceed 1.

    Errors: DataError if the lists differ in length or all references are empty.
    """
    return _error_rate(predictions, references, "characters")


def word_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Edits over words (separated by white space) of the references, summed over all lines; can
    exceed 1.

    Errors: DataError if the lists differ in length or all references are empty.
    """
    return _error_rate(
        [line.split() for line in predictions], [line.split() for line in references], "words"
    )


def _error_rate(
    predictions: Sequence[Sequence], references: Sequence[Sequence], unit: str
) -> float:
    if len(predictions) != len(references):
        raise DataError(
            f"{len(predictions)} predictions for {len(references)} references; give one of each a "
            "line"
        )
    total = sum(map(len, references))
    if not total:
        raise DataError(
            f"the {len(references)} references hold no {unit}; an error rate needs some to count "
            "errors against"
        )
    return sum(map(edit_distance, predictions, references)) / total
