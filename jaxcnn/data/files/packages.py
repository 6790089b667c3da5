"""Data sets that come inside published packages: where they lie, and their files, whether unpacked
or not.
"""

import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxcnn.data.files.archives import open_zip, require_unswollen
from jaxcnn.errors import DataError


def data_folder() -> Path:
    """Where downloaded packages lie: $JAXCNN_DATA_DIR, else ~/jaxcnn_data."""
    return Path(os.environ.get("JAXCNN_DATA_DIR") or "~/jaxcnn_data").expanduser()


def find_package(path: str, patterns: tuple[str, ...], *, what: str, command: str) -> Path:
    """`path` if given, else the last of the files or folders in `data_folder` that fit the first
    fitting pattern.

    Errors: DataError that names `what`, the places looked at, and `command` with {folder} as where
    to download to.
    """
    folder = data_folder()
    matches = (
        [Path(path).expanduser()]
        if path
        else [place for pattern in reversed(patterns) for place in sorted(folder.glob(pattern))]
    )
    if matches and matches[-1].exists():
        return matches[-1]
    looked = (
        path
        or f"{' or '.join(patterns)} in {folder} (the environment variable JAXCNN_DATA_DIR "
        "chooses another folder)"
    )
    raise DataError(f"{what}: there is no {looked}. Fetch it once: {command.format(folder=folder)}")


def _members(
    archive: tarfile.TarFile, stored: int, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files that are `wanted`, in their own order; links and devices are no
    files. ValueError where an archive of `stored` bytes swells.
    """
    total = 0
    for member in archive:
        total += member.size
        require_unswollen(stored, total)
        file = archive.extractfile(member) if member.isfile() and wanted(member.name) else None
        if file is not None:
            yield member.name, file.read()


def read_members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each file whose name, relative to `path` and with "/", is `wanted`; in the
    order of the names.

    `path`: a folder, a .tgz or .tar.gz, or a .zip or .whl. Errors: DataError naming the file.
    """
    try:
        if path.is_dir():
            names = sorted(
                file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()
            )
            for name in filter(wanted, names):
                yield name, (path / name).read_bytes()
        elif zipfile.is_zipfile(path):
            with open_zip(path) as archive:
                for name in filter(wanted, sorted(archive.namelist())):
                    yield name, archive.read(name)
        else:
            # a stream: read once, in its own order, then sorted
            with tarfile.open(path, "r:*") as archive:
                yield from sorted(_members(archive, path.stat().st_size, wanted))
    # a damaged archive raises OSError, EOFError, TarError, BadZipFile, NotImplementedError,
    # RuntimeError, zlib.error, lzma.LZMAError, ...
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); fetch it anew"
        ) from error
