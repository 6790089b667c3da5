"""Words as numbers: tokens, vocabularies, documents and captions."""

import numpy as np
import pytest

from jaxcnn.data.vocabulary import (
    caption_vocabulary,
    encode_captions,
    encode_documents,
    rank_tokens,
    split_words,
)
from jaxcnn.errors import ConfigError
from jaxcnn.ops.decoding import END, PAD, SPECIAL_WORDS, START, UNKNOWN, to_words


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("Don't panic!!", ["don't", "panic", "!!"]),
        ("e-mail: 3.14 -----?!", ["e", "-", "mail", ":", "3", ".", "14", "-----", "?", "!"]),
        ("Öl\n\tund snow_man", ["öl", "und", "snow_man"]),
        ("''a'' b'", ["''", "a", "''", "b", "'"]),
        ("", []),
    ],
)
def test_words(text, tokens):
    assert split_words(text) == tokens


def test_vocabulary_and_numbers():
    """The most frequent first, equals in the order of their characters; what is left over is
    unknown, the end is padding.
    """
    documents = [list("cabbage"), list("bad")]
    # a 3, b 3, then c, d, e, g once each
    assert rank_tokens(documents, limit=3) == (
        "a",
        "b",
        "c",
    )
    np.testing.assert_array_equal(
        encode_documents([list("bead"), list("abcabc"), []], ("a", "b", "c"), length=5),
        [[3, 1, 2, 1, 0], [2, 3, 4, 2, 3], [0] * 5],
    )


def test_encode_keeps_each_token_of_the_vocabulary():
    """Decoding gives the text back."""
    words = split_words("it was the best of times, it was the worst of times")
    vocabulary = rank_tokens([words])
    row = encode_documents([words], vocabulary, length=20)[0]
    assert [vocabulary[number - 2] for number in row if number] == words


def test_a_vocabulary_counts_words():
    said = ["A cat, a dog.", "the cat's dog", "a bird"]
    assert caption_vocabulary(said) == (*SPECIAL_WORDS, "a", "dog", "bird", "cat", "cat's", "the")
    assert caption_vocabulary(said, min_count=2) == (*SPECIAL_WORDS, "a", "dog")
    assert caption_vocabulary(said, limit=1) == (*SPECIAL_WORDS, "a")


def test_encoding_cuts_pads_and_marks_unknown_words():
    names = caption_vocabulary(["a black cat"])
    out = encode_captions(
        ["A cat!", "a black cat on a mat", "", "left out"], names, num_captions=3, length=6
    )
    a, black, cat = (names.index(word) for word in ("a", "black", "cat"))
    assert out.dtype == np.int32
    assert out.tolist() == [
        [START, a, cat, END, PAD, PAD],
        [START, a, black, cat, UNKNOWN, END],
        [START, END, PAD, PAD, PAD, PAD],
    ]
    assert encode_captions([], names, num_captions=1, length=3).tolist() == [[PAD] * 3]
    assert to_words(out[0], names=names) == ("a", "cat")
    with pytest.raises(ConfigError, match="a vocabulary begins with"):
        encode_captions(["a"], ("a", "b"), num_captions=1, length=3)
