"""Pictures in large files of many: tar archives in the form of WebDataset, and tables as Hugging
Face keeps them. More than a file system likes to hold, here or in a store elsewhere.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxcnn.data.example import Example, Examples, Part
from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.class_listing import SPLIT_FOLDERS
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.sample_index import (
    Archive,
    Index,
    classes_of,
    given_names,
    numbers_of,
    read_index,
)
from jaxcnn.data.files.table_file import read_table
from jaxcnn.data.files.tar_archive import read_archive
from jaxcnn.data.stores import File, find, is_elsewhere
from jaxcnn.errors import DataError

AT_ONCE = 32  # samples that are asked for at once of a store elsewhere


@dataclass(frozen=True)
class _Positional:
    """The fields of `Shards` and `Tables` that may be given without their names, in this order."""

    path: str
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    eval_fraction: float = 0.2


@dataclass(frozen=True)
class _Packed(Annotated, _Positional):
    """What `Shards` and `Tables` share."""

    ENTRIES = ("label",)
    ENDINGS: ClassVar[Sequence[str]] = ()

    # again, since the base has them by name only
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    eval_fraction: float = 0.2
    eval_path: str = ""
    test_path: str = ""
    image: str = ""
    label: str = ""
    classes: tuple[str, ...] = ()

    def read_file(self, file: File) -> Archive:
        """Where the samples of a file lie. Errors: DataError."""
        raise NotImplementedError

    @property
    def workers(self) -> int:
        """See `Annotated.workers`; more of what lies elsewhere, which is mostly waited for."""
        return AT_ONCE if is_elsewhere(self.path) else 0

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """See `Annotated.parse`."""
        path = {"train": self.path, "eval": self.eval_path, "test": self.test_path}[split]
        if not path:
            return None
        where = f"{type(self).__name__} {path}"
        files = find(path, endings=self.ENDINGS)
        _require_one_part(files, where)
        form = f"{type(self).__name__} {self.image!r} {self.label!r}"
        index = read_index(files, self.read_file, form=form, where=where)
        places = [place.decode("utf-8", "surrogateescape") for place in index.places.tolist()]
        index = _whole(index, files, faults)
        names = names or classes_of(index, names=self.classes, where=where)
        given = () if self.classes else given_names(index)
        labels = numbers_of(index.labels, names, given=given, where=where)

        def make(i: int) -> Example:
            place = places[index.files[i]]
            part = Part(place, int(index.first[i]), int(index.count[i]))
            name = f"{files[index.files[i]].place}: {index.keys[i].decode('utf-8', 'replace')}"
            return Example(image=part, size=(0, 0), label=int(labels[i]), name=name)

        return names, Examples(make, len(labels), labels=labels)


@dataclass(frozen=True)
class Shards(_Packed):
    """Samples of tar archives as "image" uint8 [H, W, channels] and "label" int32.

    path: archives, as a pattern (`train-{0000..0127}.tar`, `train-*.tar`), a folder of .tar files
        or a URL of either (s3://, gs://, hf://, …, see `jaxcnn.data.stores`). Files whose names
        begin with the words of different parts (train-…, val-…) are refused.
    eval_path, test_path: the same of these splits; without eval_path, `eval_fraction` of each class
        is held out.
    image: the ending of the pictures; "" for any that pictures have.
    label: the ending of the file that holds the class, as a number or a name; `json:NAME` for an
        entry of a JSON object.
    classes: their names, in the order of their numbers; () for the different labels, sorted, or for
        the numbers themselves.

    The headers of the archives are read once (of what lies elsewhere all bytes are), and where the
    samples lie is kept in the cache folder as long as no archive changes its name, size or time; of
    a store that says nothing of changes it is not kept, and they are read at each start. Then any
    sample is read by itself: the order of training is that of any other data, not that of the
    archives. A sample without a picture or a label is a DataError, or left out and counted with
    invalid="skip".
    """

    ENDINGS = (".tar",)

    label: str = "cls"

    def read_file(self, file: File) -> Archive:
        """See `tar_archive.read_archive`."""
        return read_archive(file, image=self.image, label=self.label)


@dataclass(frozen=True)
class Tables(_Packed):
    """Rows of Parquet or Arrow files as "image" uint8 [H, W, channels] and "label" int32, as the
    packages of Hugging Face write them.

    path, eval_path, test_path: as of `Shards`, of .parquet files, or of the .arrow files that
        `datasets.Dataset.save_to_disk` writes.
    image: the column of the pictures: the bytes of image files, or a struct with an entry "bytes".
    label: the column of the classes, numbers or names.
    classes: their names, in the order of their numbers; () for those that the files give (those of
        other splits are matched by name), else for the different labels, sorted, or for the
        numbers themselves.

    Arrow files on disk are read where they lie. Parquet files are compressed in groups of rows, so
    that no row can be read by itself: their pictures are copied once into the cache folder, which
    takes as much room as they do. Rows without a picture or a label (-1 is none: so test sets keep
    theirs secret): as of `Shards`.
    """

    ENDINGS = (".parquet", ".arrow")

    image: str = "image"
    label: str = "label"

    def read_file(self, file: File) -> Archive:
        """See `table_file.read_table`."""
        return read_table(file, image=self.image, label=self.label)


def _require_one_part(files: Sequence[File], where: str) -> None:
    """DataError for files whose names begin with the words of different parts, such as train-0.tar
    and val-0.tar: what is scored would be trained on."""
    words = {word: split for split, found in SPLIT_FOLDERS.items() for word in found}
    parts: dict[str, str] = {}  # the first file of each
    for file in files:
        name = file.place.replace(os.sep, "/").rpartition("/")[2]
        part = words.get(re.split(r"[^a-z]", name.lower(), maxsplit=1)[0])
        if part:
            parts.setdefault(part, name)
    if len(parts) > 1:
        raise DataError(
            f"{where}: {' and '.join(parts.values())} are by their names different parts of the "
            f"data; name each by itself: path='…/{parts.get('train', 'train')}' or a pattern of "
            "such, eval_path=, test_path="
        )


def _whole(index: Index, files: Sequence[File], faults: Faults) -> Index:
    """The samples that have a picture and a label."""
    whole = (index.count > 0) & (index.labels != b"")
    for i in np.flatnonzero(~whole):
        missing = "picture" if index.count[i] == 0 else "label"
        key = index.keys[i].decode("utf-8", "replace")
        message = f"{files[index.files[i]].place}: sample {key!r} has no {missing}"
        faults.add(message, kind=f"no {missing}")
    return index.keep(whole)
