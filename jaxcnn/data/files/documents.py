"""Labelled texts as rows of token numbers, with a vocabulary from the training split alone: 0 is
padding, 1 any token that the vocabulary lacks, 2 the most frequent token of the training texts, and
so on (see `jaxcnn.data.vocabulary`).
"""

import csv
import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

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
    """Texts of your own: `path` is a folder with one sub-folder of .txt files for each class, or a
    .jsonl, .csv or .tsv file.

    Lines of .jsonl are objects; .csv and .tsv start with a line of names. `text` and `label` name
    the entries that hold the text and the class. Classes are sorted by name. "eval" is `eval_path`
    where given, else `eval_fraction` of `path` is held out; "test" is `test_path`.
    Files are UTF-8. Errors: DataError naming file and line.
    """

    path: str
    eval_path: str = ""
    test_path: str = ""
    eval_fraction: float = 0.2
    text: str = "text"
    label: str = "label"

    def read(self) -> tuple[tuple[str, ...], dict[str, Texts_]]:
        """Class names and texts by split."""
        paths = {"train": self.path, "eval": self.eval_path, "test": self.test_path}
        found = {
            split: read_texts(path, text=self.text, label=self.label)
            for split, path in paths.items()
            if path
        }
        names = tuple(sorted({name for _, name in found["train"]}))
        strange = sorted({name for texts in found.values() for _, name in texts} - set(names))
        if strange:
            raise DataError(
                f"Texts {self.path}: the classes {strange[:5]} occur in evaluation only; those "
                f"for training are {list(names)[:20]}"
            )
        splits = {
            split: [(text, names.index(name)) for text, name in texts]
            for split, texts in found.items()
        }
        if "eval" not in splits:
            chosen = held_out(np.array([label for _, label in splits["train"]]), self.eval_fraction)
            splits["eval"] = [
                entry for entry, out in zip(splits["train"], chosen, strict=True) if out
            ]
            splits["train"] = [
                entry for entry, out in zip(splits["train"], chosen, strict=True) if not out
            ]
        return names, splits


def read_texts(path: str, *, text: str = "text", label: str = "label") -> list[tuple[str, str]]:
    """(text, class name) of each example of a folder, .jsonl, .csv or .tsv; see `Texts`. Errors:
    DataError.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"{place}: there is no such file or folder")
    try:
        if place.is_dir():
            files = sorted(
                place.glob("*/**/*.txt"), key=lambda file: file.relative_to(place).as_posix()
            )
            out = [(file.read_text("utf-8"), file.relative_to(place).parts[0]) for file in files]
        elif place.suffix in (".jsonl", ".csv", ".tsv"):
            with open(place, encoding="utf-8", newline="") as file:
                rows: Iterable[Any] = map(json.loads, file)
                if place.suffix != ".jsonl":
                    rows = csv.DictReader(
                        file, delimiter="\t" if place.suffix == ".tsv" else ",", strict=True
                    )
                out = [
                    (_entry(row, text, place, i), _entry(row, label, place, i))
                    for i, row in enumerate(rows, 1)
                ]
        else:
            raise DataError(f"{place}: is neither a folder nor a .jsonl, .csv or .tsv file")
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{place}: cannot be read ({type(error).__name__}: {error}); it must be UTF-8 text of "
            "the kind its ending says"
        ) from error
    if not out:
        raise DataError(
            f"{place}: there are no texts; a folder holds one sub-folder of .txt files for each "
            "class"
        )
    return out


def _entry(row: Any, name: str, place: Path, number: int) -> str:
    """Entry `name` of a row as a string."""
    if not isinstance(row, dict) or row.get(name) is None:
        there = [key for key in row if key is not None] if isinstance(row, dict) else []
        raise DataError(
            f"{place}, example {number}: there is no {name!r}; there are "
            f"{there}{did_you_mean(name, there)}"
        )
    return str(row[name])
