"""Where each sample of tar archives lies, in the form of WebDataset (A. Aizman, G. Maltby and T.
Breuel, "High performance I/O for large scale deep learning", 2019, section IV): the files of a
sample follow one another and have one name up to the first dot, such as `0001.jpg` and `0001.cls`.

The headers are read once, and the index is kept; then any sample is read by itself, in any order.
"""

import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxcnn.data.files.images import image_endings
from jaxcnn.data.files.walk import is_hidden
from jaxcnn.data.kept import keep, kept_path, read_kept
from jaxcnn.data.stores import File, is_elsewhere, open_file
from jaxcnn.errors import DataError

LABEL_BYTES = 1 << 20  # a file of a label is no larger
LONG = 1 << 28  # bytes of archives from which on their reading is said beforehand
AT_ONCE = 8  # archives that are read at the same time
FORM = "1"  # of the index; another one is made anew


class Index(NamedTuple):
    """Samples, in the order of the archives and within them, [N] each. keys, labels: UTF-8, "" for
    a sample without a label. archives: which of them. first, count: the bytes of the picture there;
    count is 0 for a sample without one.
    """

    keys: np.ndarray
    labels: np.ndarray
    archives: np.ndarray
    first: np.ndarray
    count: np.ndarray


class Sample(NamedTuple):
    """One of them, see `Index`."""

    key: str
    label: str = ""
    first: int = 0
    count: int = 0


def read_index(archives: Sequence[File], *, image: str, label: str, where: str) -> Index:
    """The index of archives, kept from the last time as long as none of them changes.

    image: the ending of the pictures; "" for any that pictures have. label: the ending of the file
    that holds the label; `json:NAME` an entry of a JSON object. Errors: DataError naming archive
    and file.
    """
    files = [
        file if is_elsewhere(file.place) else file._replace(place=os.path.abspath(file.place))
        for file in archives
    ]
    path = kept_path(f"tar index {FORM} {image!r} {label!r} {files}")
    arrays = read_kept(path, Index._fields)
    if arrays is not None:
        return Index(**arrays)
    size = sum(file.size for file in archives)
    if size >= LONG:
        print(
            f"{where}: reading the headers of {len(archives):,} archives of {size / 1e9:,.1f} GB, "
            f"to be kept in {path.parent}",
            file=sys.stderr,
            flush=True,
        )

    def read(file: File) -> list[Sample]:
        with open_file(file.place) as source:
            return list(_samples(source, file, image=image, label=label))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(read, archives))
    samples = [sample for inside in found for sample in inside]
    index = Index(
        keys=_texts([sample.key for sample in samples]),
        labels=_texts([sample.label for sample in samples]),
        archives=np.repeat(
            np.arange(len(found), dtype=np.int32), [len(inside) for inside in found]
        ),
        first=np.array([sample.first for sample in samples], np.int64),
        count=np.array([sample.count for sample in samples], np.int64),
    )
    keep(path, index._asdict())
    return index


def _texts(texts: list[str]) -> np.ndarray:
    """UTF-8 of a fixed width, [N]."""
    return np.array([text.encode("utf-8", "surrogateescape") for text in texts] or [b""], "S")[
        : len(texts)
    ]


def _samples(source: BinaryIO, file: File, *, image: str, label: str) -> Iterator[Sample]:
    """The samples of one archive."""
    seen: set[str] = set()
    sample = Sample("")
    for key, ending, member in _members(source, file):
        if key != sample.key:
            if sample.key:
                yield sample
            if key in seen:
                raise DataError(
                    f"{file.place}: the files of sample {key!r} do not follow one another, or "
                    "there are two of that name; write the archive anew, sorted by name"
                )
            seen.add(key)
            sample = Sample(key)
        if (ending == image) if image else (f".{ending}" in image_endings()):
            if sample.count:
                raise DataError(
                    f"{file.place}: sample {key!r} has two pictures; say which is meant by its "
                    f"ending, such as image={ending!r}"
                )
            sample = sample._replace(first=member.offset_data, count=member.size)
        if ending == label.partition(":")[0]:
            sample = sample._replace(
                label=_label(source, member, label, f"{file.place}: {member.name}")
            )
    if sample.key:
        yield sample


def _members(source: BinaryIO, file: File) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """(key, ending, header) of each file; folders, links and what systems leave are passed over."""
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] (it keeps them all)
                folder, _, name = member.name.rpartition("/")
                if not member.isreg() or is_hidden(name):
                    continue
                if member.issparse() or member.offset_data + member.size > file.size:
                    raise tarfile.ReadError(
                        f"{member.name} would be {member.size:,} bytes, which are not there"
                    )
                stem, _, ending = name.partition(".")
                yield f"{folder}/{stem}" if folder else stem, ending.lower(), member
    # a damaged archive raises TarError, OSError, ValueError, OverflowError, …
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{file.place}: cannot be read as a tar archive ({type(error).__name__}: {error}); a "
            "compressed one must be unpacked first (gzip -d), since its samples are read one by "
            "one, in any order"
        ) from error


def _label(source: BinaryIO, member: tarfile.TarInfo, label: str, where: str) -> str:
    """The label that a file holds, as text."""
    if member.size > LABEL_BYTES:
        raise DataError(f"{where}: has {member.size:,} bytes; a label has at most {LABEL_BYTES:,}")
    source.seek(member.offset_data)  # the archive seeks its next header itself
    content = source.read(member.size)
    try:
        text = content.decode("utf-8")
        _, entry, name = label.partition(":")
        return _entry(json.loads(text), name) if entry else text.strip()
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where}: holds no label ({type(error).__name__}: {error}); it must be a number or a "
            "name in UTF-8, or with label='json:NAME' a JSON object that has NAME"
        ) from error


def _entry(content: Any, name: str) -> str:
    value = content.get(name) if isinstance(content, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{name!r} is {value!r:.40}, neither a whole number nor a name")
    return str(value).strip()


def classes_of(labels: np.ndarray, *, names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The names of the classes that labels (UTF-8, [N]) are of: `names` where they are given; of
    whole numbers "0" to the highest; else the different labels, sorted."""
    if names:
        return names
    different = [text.decode("utf-8") for text in np.unique(labels).tolist()]
    if not all(re.fullmatch(r"[0-9]{1,9}", text) for text in different):
        return tuple(different)
    count = max(map(int, different), default=-1) + 1
    if count > 10 * len(different) + 1000:
        raise DataError(
            f"{where}: labels go up to {count - 1:,}, and there are {len(different):,} different "
            "ones; if they are no numbers of classes, give their names: classes=(…)"
        )
    return tuple(map(str, range(count)))


def numbers_of(labels: np.ndarray, classes: tuple[str, ...], *, where: str) -> np.ndarray:
    """The class of each label, int32 [N]: the place of its name among `classes`, or the number that
    it is. Errors: DataError naming the label."""
    places = {name: i for i, name in enumerate(classes)}
    different, inverse = np.unique(labels, return_inverse=True)
    numbers = []
    for text in (label.decode("utf-8") for label in different.tolist()):
        number = places.get(text, int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1)
        if not 0 <= number < len(classes):
            raise DataError(
                f"{where}: the label {text!r} is none of the {len(classes)} classes "
                f"{list(classes[:20])}"
            )
        numbers.append(number)
    return np.array(numbers, np.int32)[inverse.reshape(-1)] if numbers else np.zeros(0, np.int32)
