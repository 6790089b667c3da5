"""Where each sample of large files lies, so that any is read by itself, in any order.

A file is read once, from its start to its end, and what is found is kept in the cache folder as
long as no file changes its name, size or time. Of a store that tells nothing of when a file was
written anew nothing is kept, and its files are read each time.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from jaxcnn.data.files.names import require_distinct
from jaxcnn.data.kept import keep, kept_path, read_kept
from jaxcnn.data.stores import File, is_elsewhere
from jaxcnn.errors import DataError

LONG = 1 << 28  # bytes of files from which on their reading is said beforehand
AT_ONCE = 8  # files that are read at the same time
FORM = "2"  # of what is kept; another one is made anew


class Sample(NamedTuple):
    """Its name, its label as text ("" where it has none), and the bytes of its picture in the file
    (`count` is 0 where it has none).
    """

    key: str
    label: str = ""
    first: int = 0
    count: int = 0


class Archive(NamedTuple):
    """The samples of a file. place: where their pictures are read, the file itself or a copy.
    classes: names that the file gives to the numbers of its labels."""

    place: str
    samples: list[Sample]
    classes: tuple[str, ...] = ()


class Index(NamedTuple):
    """Samples, in the order of the files and within them. places, classes: UTF-8, see `Archive`;
    keys, labels: UTF-8, [N]; files: which of the places, int32 [N]; first, count: int64 [N]."""

    places: np.ndarray
    classes: np.ndarray
    keys: np.ndarray
    labels: np.ndarray
    files: np.ndarray
    first: np.ndarray
    count: np.ndarray

    def keep(self, rows: np.ndarray) -> "Index":
        """Only those samples, by a mask."""
        return Index(*self[:2], *(column[rows] for column in self[2:]))


def read_index(
    files: Sequence[File], read: Callable[[File], Archive], *, form: str, where: str
) -> Index:
    """The index of files, kept from the last time as long as nothing changes. `read` finds the
    samples of one, and is called from several threads; `form` says all that this depends on besides
    the file. Errors: those of `read`; DataError where files name their classes differently.
    """
    named = [
        file if is_elsewhere(file.place) else file._replace(place=os.path.abspath(file.place))
        for file in files
    ]
    path = kept_path(f"index {FORM} {form} {named}")
    # of a store that does not say when a file was written anew, nothing kept can be trusted
    known = all(file.changed for file in named)
    arrays = read_kept(path, Index._fields) if known else None
    if arrays is not None:
        index = Index(**arrays)
        places = [place.decode("utf-8", "surrogateescape") for place in index.places.tolist()]
        if all(is_elsewhere(place) or os.path.exists(place) for place in places):
            return index
    size = sum(file.size for file in files)
    if size >= LONG:
        kept = f"is kept in {path.parent}" if known else "is not kept: the store tells no changes"
        print(
            f"{where}: looking through {len(files):,} files of {size / 1e9:,.1f} GB; what is found "
            f"{kept}",
            file=sys.stderr,
            flush=True,
        )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(read, named))
    different = {archive.classes for archive in found}
    if len(different) > 1:
        raise DataError(
            f"{where}: the files name different classes: "
            f"{' and '.join(str(list(names)[:10]) for names in sorted(different)[:2])}"
        )
    index = _index_of(found)
    if known:
        keep(path, index._asdict())
    return index


def _index_of(found: Sequence[Archive]) -> Index:
    samples = [sample for archive in found for sample in archive.samples]
    counts = [len(archive.samples) for archive in found]
    return Index(
        places=_texts([archive.place for archive in found]),
        classes=_texts(list(found[0].classes) if found else []),
        keys=_texts([sample.key for sample in samples]),
        labels=_texts([sample.label for sample in samples]),
        files=np.repeat(np.arange(len(found), dtype=np.int32), counts),
        first=np.array([sample.first for sample in samples], np.int64),
        count=np.array([sample.count for sample in samples], np.int64),
    )


def _texts(texts: list[str]) -> np.ndarray:
    """UTF-8 of a fixed width, [N]."""
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    return np.array(encoded or [b""], "S")[: len(texts)]


def given_names(index: Index) -> tuple[str, ...]:
    """The names that the files give to the numbers of their labels; () where they give none."""
    return tuple(name.decode("utf-8") for name in index.classes.tolist())


def classes_of(index: Index, *, names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The names of the classes: `names` where they are given, else those that the files give; of
    labels that are whole numbers "0" to the highest; else the different labels, sorted."""
    names = names or given_names(index)
    if names:
        return names
    labels = index.labels
    different = [text.decode("utf-8") for text in np.unique(labels).tolist()]
    if not all(re.fullmatch(r"[0-9]{1,9}", text) for text in different):
        require_distinct(different, where=where)
        return tuple(different)
    count = max(map(int, different), default=-1) + 1
    if count > 10 * len(different) + 1000:
        raise DataError(
            f"{where}: labels go up to {count - 1:,}, and there are {len(different):,} different "
            "ones; if they are no numbers of classes, give their names: classes=(…)"
        )
    return tuple(map(str, range(count)))


def numbers_of(
    labels: np.ndarray, classes: tuple[str, ...], *, given: tuple[str, ...] = (), where: str
) -> np.ndarray:
    """The class of each label, int32 [N]: the place of its name among `classes`, or the number that
    it is. `given`: what the files call their numbers, which then stand for these names, also where
    a name is itself a number. Errors: DataError naming the label."""
    places = {name: i for i, name in enumerate(classes)}
    different, inverse = np.unique(labels, return_inverse=True)
    texts, numbers = [label.decode("utf-8") for label in different.tolist()], []
    if not given:
        _require_one_reading(texts, places, where)
    for text in texts:
        number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
        if given and number >= 0:
            name = given[number] if number < len(given) else ""
            number = places.get(name, -1)
        else:
            name, number = "", places.get(text, number)
        if not 0 <= number < len(classes):
            called = f", which the files call {name!r}," if name else ""
            raise DataError(
                f"{where}: the label {text!r}{called} is none of the {len(classes)} classes "
                f"{list(classes[:20])}; names in the order of the numbers: classes=(…)"
            )
        numbers.append(number)
    return np.array(numbers, np.int32)[inverse.reshape(-1)] if numbers else np.zeros(0, np.int32)


def _require_one_reading(texts: list[str], places: dict[str, int], where: str) -> None:
    """DataError where classes are called by numbers, some labels are such names and others can but
    be numbers of classes: two labels would be one class."""
    numbers = {text: int(text) for text in texts if re.fullmatch(r"[0-9]{1,9}", text)}
    names = [text for text, number in numbers.items() if places.get(text, number) != number]
    others = [text for text in numbers if text not in places]
    if names and others:
        raise DataError(
            f"{where}: of the labels, {names[:8]} are names of classes and {others[:8]} are not, "
            f"so that all may be numbers from 0 of the classes {list(places)[:20]}; give these "
            "other names than numbers, or write them into the files throughout"
        )
