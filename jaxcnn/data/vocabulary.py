"""Words as numbers: vocabularies counted from training texts; documents and captions as rows.

Documents: number 0 is padding, 1 any token that the vocabulary lacks, 2 the vocabulary's first.
Captions: a vocabulary begins with the special words of `jaxcnn.ops.decoding`, and a token's number
is its place in it. Characters of lines of text: see `jaxcnn.ops.alphabet`. NumPy, on the host.
"""

import collections
import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from jaxcnn.errors import ConfigError
from jaxcnn.metrics.text_overlap import tokenize
from jaxcnn.ops.decoding import END, PAD, SPECIAL_WORDS, START, UNKNOWN

NUM_RESERVED = 2  # numbers of a document that stand for no token of the vocabulary
PADDING, UNKNOWN_TOKEN = range(NUM_RESERVED)
# a word, which may hold one apostrophe; or a mark, repeated or not
_WORD = re.compile(r"\w+(?:'\w+)?|([^\w\s])\1*")


def split_words(text: str) -> list[str]:
    """Words and marks in lower case, a repeated mark as one: "Don't panic!!" -> ["don't", "panic",
    "!!"].
    """
    return [match.group() for match in _WORD.finditer(_folded(text))]


def split_characters(text: str) -> list[str]:
    """Characters in lower case."""
    return list(_folded(text))


def _folded(text: str) -> str:
    """In lower case and Unicode's normal form C, so that an accent is a part of its letter."""
    return unicodedata.normalize("NFC", text.lower())


SPLITTERS = {"words": split_words, "characters": split_characters}


def rank_tokens(
    documents: Iterable[Sequence[str]], *, min_count: int = 1, limit: int | None = None
) -> tuple[str, ...]:
    """The tokens that occur at least `min_count` times, most frequent first and equally frequent
    ones in the order of their characters; at most `limit` of them.
    """
    counts = collections.Counter(token for document in documents for token in document)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(token for token, count in ranked if count >= min_count)[:limit]


def encode_documents(
    documents: Iterable[Sequence[str]], vocabulary: Sequence[str], *, length: int
) -> np.ndarray:
    """Token numbers [N, length] int32: each document cut after `length` tokens, or followed by
    0s.
    """
    numbers = {token: number for number, token in enumerate(vocabulary, NUM_RESERVED)}
    rows = [
        [numbers.get(token, UNKNOWN_TOKEN) for token in document[:length]] for document in documents
    ]
    out = np.full((len(rows), length), PADDING, np.int32)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out


def caption_vocabulary(
    sentences: Iterable[str], *, min_count: int = 1, limit: int | None = None
) -> tuple[str, ...]:
    """SPECIAL_WORDS, then the words of the sentences as `rank_tokens` has them."""
    words = rank_tokens(map(tokenize, sentences), min_count=min_count, limit=limit)
    return (*SPECIAL_WORDS, *words)


def encode_captions(
    sentences: Sequence[str], vocabulary: Sequence[str], *, num_captions: int, length: int
) -> np.ndarray:
    """Captions int32 [num_captions, length]: start, words, end, padding in each row; rows of
    padding where there are fewer sentences.

    Sentences beyond `num_captions` are left out, words beyond length - 2 are cut, words that the
    vocabulary lacks become UNKNOWN.
    Errors: ConfigError for a vocabulary that does not begin with SPECIAL_WORDS.
    """
    numbers = _caption_numbers(tuple(vocabulary))
    out = np.full((num_captions, length), PAD, np.int32)
    for row, sentence in zip(out, sentences, strict=False):
        words = [numbers.get(word, UNKNOWN) for word in tokenize(sentence)[: length - 2]]
        row[: len(words) + 2] = [START, *words, END]
    return out


@functools.lru_cache(maxsize=8)
def _caption_numbers(vocabulary: tuple[str, ...]) -> dict[str, int]:
    start = vocabulary[: len(SPECIAL_WORDS)]
    if start != SPECIAL_WORDS:
        raise ConfigError(f"a vocabulary begins with {SPECIAL_WORDS}, this one with {start}")
    return {word: number for number, word in enumerate(vocabulary)}
