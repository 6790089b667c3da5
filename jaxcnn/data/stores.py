"""Where bytes lie: files here, or objects of a store elsewhere, by a place.

A place is a path, or a URL of a store that fsspec knows (s3://, gs://, hf://, memory://, …). A
pattern stands for many: `{0000..0127}` counts, `{a,b}` lists, and `*`, `?`, `[…]` are matched as a
shell does. What is read elsewhere needs `pip install 'jaxcnn[stores]'` and fsspec's own package of
that store (s3fs, gcsfs, …).
"""

import glob
import io
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from jaxcnn.errors import DataError, DependencyError

MOST = 100_000  # places that a pattern may stand for
BRACES = re.compile(r"\{([^{}]*)\}")
# what stores say that changes with a file's bytes, the surest first; "blob_id": of hf://
MARKS = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified")
AHEAD = 4 << 20  # bytes that are asked for at once of a store, where a file is read from its start


class File(NamedTuple):
    """A file: its place, its bytes, and what changes when it is written anew ("" if unknown)."""

    place: str
    size: int
    changed: str


def is_elsewhere(place: str) -> bool:
    """Whether a place is a URL."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", place) is not None


def is_pattern(place: str) -> bool:
    """Whether a place may stand for many."""
    return any(mark in place for mark in "{*?[")


def expand(pattern: str) -> list[str]:
    """The places that the braces of a pattern stand for, in their order: of `a-{08..10}` a-08, a-09
    and a-10, of `{x,y}` both. Errors: DataError for a range that has no end, and more than MOST.
    """
    pieces = BRACES.split(pattern)  # text, inside, text, inside, …, text
    words = [_words(piece, pattern) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    if (count := math.prod(map(len, words))) > MOST:
        raise DataError(f"{pattern}: stands for {count:,} places; at most {MOST:,}")
    return ["".join(chosen) for chosen in itertools.product(*words)]


def _words(inside: str, pattern: str) -> list[str]:
    """What the inside of braces stands for."""
    bounds = re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", inside)
    if bounds:
        first, last = int(bounds[1]), int(bounds[2])
        if not first <= last < first + MOST:
            raise DataError(
                f"{pattern}: {{{inside}}} must count upwards, over at most {MOST:,} numbers"
            )
        return [str(i).zfill(len(bounds[1])) for i in range(first, last + 1)]
    if "," in inside:
        return inside.split(",")
    raise DataError(
        f"{pattern}: {{{inside}}} is neither a range such as {{0000..0127}} nor a list such as "
        "{a,b}"
    )


def find(place: str, *, endings: Sequence[str] = ("",)) -> list[File]:
    """The files that a place stands for, sorted by place within each that its braces give: itself,
    those that a pattern matches, or of a folder those of these endings. Errors: DataError where one
    that is named is missing, and where there are none.
    """
    out, missing = [], []
    there = not is_elsewhere(place) and os.path.exists(os.path.expanduser(place))
    places = [place] if there else expand(place)  # a name may hold braces
    for one in places:
        found = (_find_elsewhere if is_elsewhere(one) else _find_here)(one, endings)
        out += found
        missing += [] if found else [one]
    if missing:
        many = f" ({len(missing)} of {len(places)} are missing)" if len(missing) > 1 else ""
        raise DataError(
            f"{missing[0]}: there is no such file, or no {' or '.join(endings)} in such a "
            f"folder{many}"
        )
    return out


def _find_here(place: str, endings: Sequence[str]) -> list[File]:
    path = os.path.expanduser(place)
    if os.path.isdir(path):
        inside = glob.glob(os.path.join(glob.escape(path), "*"))
        paths = [name for name in inside if name.endswith(tuple(endings))]
    else:
        paths = [path] if os.path.exists(path) else glob.glob(path)
    out = []
    for path in sorted(paths):
        if os.path.isfile(path):
            status = os.stat(path)
            out.append(File(path, status.st_size, str(status.st_mtime_ns)))
    return out


def _find_elsewhere(place: str, endings: Sequence[str]) -> list[File]:
    with _named(place):
        system, inside = _system(place)
        if not is_pattern(inside) and system.isdir(inside):
            inside = f"{inside.rstrip('/')}/*"
        else:
            endings = ("",)
        if is_pattern(inside):
            infos = system.glob(inside, detail=True)
            assert isinstance(infos, dict)
            found = list(infos.values())
        else:
            found = [system.info(inside)] if system.exists(inside) else []
    scheme = place.partition("://")[0]
    out = []
    for info in found:
        name = info["name"].partition("://")[2] or info["name"]
        if info["type"] == "file" and name.endswith(tuple(endings)):
            marks = (info.get(key) for key in MARKS)
            changed = next((str(mark) for mark in marks if mark), "")
            # a store that says nothing of changes may still say when it was made
            changed = changed or str(info.get("created", ""))
            out.append(File(f"{scheme}://{name.lstrip('/')}", info["size"], changed))
    return sorted(out)


def read(place: str, first: int, count: int) -> bytes:
    """`count` bytes from byte `first` of a file; callable from many threads. Errors: DataError, for
    a file that ends before, too."""
    with _named(place):
        if is_elsewhere(place):
            system, inside = _system(place)
            content = system.cat_file(inside, start=first, end=first + count)
        else:
            # opening costs hundredths of what decoding does
            with open(place, "rb", buffering=0) as file:
                file.seek(first)
                left = os.fstat(file.fileno()).st_size - first
                content = file.read(max(0, min(count, left)))  # memory is taken for what is there
    if len(content) != count:
        raise DataError(
            f"{place}: ends before byte {first + count:,}, to which it was to be read; it was cut "
            "off or written anew"
        )
    return content


@contextmanager
def open_file(place: str) -> Iterator[BinaryIO]:
    """A file to be read from its start on; seekable. Errors: DataError."""
    with _named(place):
        if is_elsewhere(place):
            system, inside = _system(place)
            file = system.open(inside, "rb", block_size=AHEAD, cache_type="readahead")
        else:
            file = io.BufferedReader(io.FileIO(place))
    with file:
        yield file


@contextmanager
def _named(place: str) -> Iterator[None]:
    """What goes wrong with a store becomes a DataError that names the place."""
    try:
        yield
    except (DataError, DependencyError):
        raise
    # the packages of stores raise errors of their own: of botocore, aiohttp, gcsfs, …
    except Exception as error:
        raise DataError(
            f"{place}: cannot be read ({type(error).__name__}: {error}); check its name, the "
            "network and the credentials"
        ) from error


def _system(place: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path within it. Errors: DependencyError."""
    scheme = place.partition("://")[0]
    try:
        import fsspec
    except ImportError:
        raise DependencyError(
            f"{place}: is read through fsspec: pip install 'jaxcnn[stores]'"
        ) from None
    try:
        return fsspec.core.url_to_fs(place)
    except ImportError as error:  # fsspec says which package a store needs
        raise DependencyError(f"{place}: {scheme}:// needs a package of its own: {error}") from None
