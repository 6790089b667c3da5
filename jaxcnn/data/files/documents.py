"""Labelled texts as rows of token numbers, with a vocabulary from the training split alone: 0 is
padding, 1 any token that the vocabulary lacks, 2 the most frequent token of the training texts, and
so on (see `jaxcnn.data.vocabulary`).
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import numpy as np

from jaxcnn.data.files.labelled_texts import read_texts
from jaxcnn.data.files.names import require_distinct
from jaxcnn.data.memory import MemorySource, check_split, held_out
from jaxcnn.data.vocabulary import NUM_RESERVED, SPLITTERS, encode_documents, rank_tokens
from jaxcnn.errors import ConfigError, DataError, did_you_mean

Texts_ = list[tuple[str, int]]  # text and label


@dataclass(frozen=True, kw_only=True)
class TextDataset:
    """Base of data sets of texts: "text" int32 [length] token numbers and "label" int32. A subclass
    says where the texts come from.

    tokens: "words" (see `vocabulary.split_words`) or "characters", both in lower case.
    length: tokens of an example: longer texts are cut, shorter ones padded with 0 at the end.
    vocabulary_size: numbers in use, with the two reserved ones; the model's must be at least as
    large (its `alphabet_size` at least this minus 2). All tokens come from the training split.
    """

    tokens: str = "words"
    length: int = 256
    vocabulary_size: int = 20_000

    def __post_init__(self):
        name = type(self).__name__
        if self.tokens not in SPLITTERS:
            raise ConfigError(
                f"{name}: tokens is {self.tokens!r}{did_you_mean(self.tokens, SPLITTERS)}; "
                "'words' or 'characters'"
            )
        if self.length < 1 or self.vocabulary_size <= NUM_RESERVED:
            raise ConfigError(
                f"{name}: length is {self.length} and vocabulary_size is {self.vocabulary_size}; "
                f"they must be at least 1 and {NUM_RESERVED + 1}"
            )

    def read(self) -> tuple[tuple[str, ...], dict[str, Texts_]]:
        """Class names, and the labelled texts of each split that there is. Errors: DataError."""
        raise NotImplementedError

    @functools.cached_property
    def _read(self) -> tuple[tuple[str, ...], dict[str, Texts_]]:
        return self.read()

    @functools.cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """The tokens of the numbers from 2 on."""
        documents = (SPLITTERS[self.tokens](text) for text, _ in self._read[1]["train"])
        return rank_tokens(documents, limit=self.vocabulary_size - NUM_RESERVED)

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """The token numbers [N, length] int32 of any texts, such as new ones to predict."""
        documents = map(SPLITTERS[self.tokens], texts)
        return encode_documents(documents, self.vocabulary, length=self.length)

    @property
    def token_names(self) -> tuple[str, ...]:
        """See `jaxcnn.data.algebra.agreement.check_tokens`."""
        return self.vocabulary

    @property
    def label_names(self) -> tuple[str, ...]:
        return self._read[0]

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "text": jax.ShapeDtypeStruct((self.length,), np.int32),
            "label": jax.ShapeDtypeStruct((), np.int32),
        }

    def size(self, split: str) -> int:
        return len(self._read[1].get(check_split(split), ()))

    def open(self, split: str) -> MemorySource:
        if not self.size(split):
            raise DataError(
                f"{type(self).__name__} has no {split!r} texts; it has "
                f"{', '.join(k for k, v in self._read[1].items() if v)}"
            )
        texts = self._read[1][split]
        return MemorySource(
            {
                "text": self.encode(text for text, _ in texts),
                "label": np.array([label for _, label in texts], np.int32),
            }
        )


@dataclass(frozen=True)
class Texts(TextDataset):
    """Texts of your own: `path` is a folder with one sub-folder of .txt files for each class, or
    with train/, val/ and test/ that have those, or a .jsonl, .csv or .tsv file.

    Lines of .jsonl are objects; .csv and .tsv start with a line of names. `text` and `label` name
    the entries that hold the text and the class. Classes are sorted by name; the numbers 1 and 1.0
    are the class "1", and names that differ in case or in how Unicode writes them only are
    refused. "eval" is `eval_path` where given, else val/ of the folder, else `eval_fraction` of
    `path` is held out; "test" is `test_path` or test/.
    Files are UTF-8, or what their byte order mark says. Errors: DataError naming file and example.
    """

    path: str
    eval_path: str = ""
    test_path: str = ""
    eval_fraction: float = 0.2
    text: str = "text"
    label: str = "label"

    def read(self) -> tuple[tuple[str, ...], dict[str, Texts_]]:
        """Class names and texts by split."""
        found = read_texts(self.path, text=self.text, label=self.label)
        for split, path in {"eval": self.eval_path, "test": self.test_path}.items():
            if path:
                found[split] = read_texts(path, text=self.text, label=self.label)["train"]
        names = tuple(sorted({name for _, name in found["train"]}))
        every = dict.fromkeys(name for texts in found.values() for _, name in texts)
        require_distinct(every, where=f"Texts {self.path}")
        strange = sorted(set(every) - set(names))
        if strange:
            raise DataError(
                f"Texts {self.path}: the classes {strange[:5]} occur in evaluation only; those "
                f"for training are {list(names)[:20]}"
            )
        if len(names) == 1:
            raise DataError(
                f"Texts {self.path}: there is a single class, {names[0]!r}; there must be two or "
                "more"
            )
        number = {name: number for number, name in enumerate(names)}
        splits = {
            split: [(text, number[name]) for text, name in texts] for split, texts in found.items()
        }
        if "eval" not in splits:
            labels = np.array([label for _, label in splits["train"]], np.int32)
            where = f"Texts {self.path}"
            chosen = held_out(labels, self.eval_fraction, names=names, where=where)
            splits["eval"] = [
                entry for entry, out in zip(splits["train"], chosen, strict=True) if out
            ]
            splits["train"] = [
                entry for entry, out in zip(splits["train"], chosen, strict=True) if not out
            ]
        return names, splits
