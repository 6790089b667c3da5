"""The files below a folder: what systems and programs leave there is passed over, links are
followed, and the order is the same on every machine.
"""

import functools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxcnn.data.files.names import nfc
from jaxcnn.errors import DataError

# besides all that starts with a dot (.ipynb_checkpoints, .DS_Store, ._x of macOS)
SYSTEM_NAMES = {
    *("__macosx", "@eadir", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    *("lost+found", "$recycle.bin", "system volume information", "#recycle", "#snapshot"),
}


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data of the user's."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


class Found(NamedTuple):
    """A file or folder: its path, and whether a link leads to it."""

    path: str
    link: bool


def list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in a folder that are not hidden, links followed, sorted by name. A
    link that leads nowhere is said. Errors: DataError.
    """
    folders, files = (
        [Path(found.path) for found in kind] for kind in _list_folder(os.fspath(folder))
    )
    return sorted(folders, key=_order), sorted(files, key=_order)


def _list_folder(folder: str) -> tuple[list[Found], list[Found]]:
    """`list_folder` in no order, with strings, since there may be millions."""
    folders, files, dead = [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                found = Found(entry.path, entry.is_symlink())
                # without a look at the file, but for links, which may lead to themselves
                if os.path.isdir(found.path) if found.link else entry.is_dir():
                    folders.append(found)
                elif os.path.isfile(found.path) if found.link else entry.is_file():
                    files.append(found)
                elif found.link:
                    dead.append(entry.name)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({type(error).__name__}: {error}); make it readable"
        ) from error
    if dead:
        warnings.warn(
            f"{folder}: {len(dead)} links lead nowhere and are left out; the first: {min(dead)}",
            stacklevel=2,
        )
    return folders, files


def walk(root: Path) -> Iterator[Path]:
    """All files below a folder that are in no hidden folder and not hidden, sorted by path.

    Links to folders are followed; a folder that links lead to twice, or that holds itself, is
    listed once, where it comes first. Errors: DataError.
    """
    return (Path(found.path) for found in walk_found(root))


def walk_found(root: Path) -> list[Found]:
    """`walk`, with strings."""
    start = len(os.fspath(root)) + 1
    return sorted(_walk(os.fspath(root), set()), key=lambda file: _text_order(file.path[start:]))


def _walk(folder: str, seen: set[tuple[int, int]]) -> Iterator[Found]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({type(error).__name__}: {error}); make it readable"
        ) from error
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    folders, files = _list_folder(folder)
    yield from files
    # what really lies here comes before what links lead to
    for sub in sorted(folders, key=lambda sub: (sub.link, _text_order(sub.path))):
        yield from _walk(sub.path, seen)


def stored_path(root: Path, name: str) -> Path | None:
    """The path `name` below `root`, its parts in whichever normal form they are stored; None where
    there is none.
    """
    place = root
    for part in name.split("/"):
        if part not in ("", ".", "..") and not os.path.exists(place / part):
            part = _stored_names(place).get(nfc(part))
            if part is None:
                return None
        place = place / part
    return place


def _stored_names(folder: Path) -> dict[str, str]:
    """The names in a folder as they are stored, by their normal form C."""
    try:
        return _listed_names(folder, folder.stat().st_mtime_ns)
    except (OSError, ValueError):
        return {}


@functools.lru_cache(maxsize=64)
def _listed_names(folder: Path, changed: int) -> dict[str, str]:
    """`_stored_names` of a folder that was last changed at that time."""
    return {nfc(entry.name): entry.name for entry in folder.iterdir()}


def _order(path: Path) -> tuple[str, str]:
    return _text_order(os.fspath(path))


def _text_order(path: str) -> tuple[str, str]:
    """The same on every machine, also where file names are stored decomposed."""
    path = path.replace(os.sep, "/")
    return nfc(path), path
