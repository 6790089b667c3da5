"""The samples of a tar archive in the form of WebDataset (A. Aizman, G. Maltby and T. Breuel, "High
performance I/O for large scale deep learning", 2019, section IV): the files of a sample follow one
another and have one name up to the first dot, such as `0001.jpg` and `0001.cls`.
"""

import json
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from jaxcnn.data.files.images import image_endings
from jaxcnn.data.files.sample_index import Archive, Sample
from jaxcnn.data.files.walk import is_hidden
from jaxcnn.data.stores import File, open_file
from jaxcnn.errors import DataError

LABEL_BYTES = 1 << 20  # a file of a label is no larger


def read_archive(file: File, *, image: str, label: str) -> Archive:
    """Where the samples of an archive lie, from its headers.

    image: the ending of the pictures; "" for any that pictures have. label: the ending of the file
    that holds the label; `json:NAME` an entry of a JSON object. Errors: DataError naming archive
    and file.
    """
    with open_file(file.place) as source:
        return Archive(file.place, list(_samples(source, file, image=image, label=label)))


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
                if member.issparse():
                    raise tarfile.ReadError(f"{member.name} is sparse: its bytes are not there")
                stem, _, ending = name.partition(".")
                yield f"{folder}/{stem}" if folder else stem, ending.lower(), member
    # a damaged archive raises TarError, OSError, ValueError, OverflowError, …
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{file.place}: cannot be read as a tar archive ({type(error).__name__}: {error}); if "
            "it is whole and can be reached, it may be compressed, and must be unpacked first "
            "(gzip -d), since its samples are read one by one, in any order"
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
