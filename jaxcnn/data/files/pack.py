"""A folder of images, one sub-folder a class, as tar archives for `jaxcnn.data.files.shards.Shards`
and other readers of WebDataset's form.
"""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxcnn.data.files.class_listing import Files, list_labelled
from jaxcnn.data.files.images import image_endings
from jaxcnn.errors import ConfigError, DataError, ResourceError

LARGEST = 500_000_000  # bytes of pictures of an archive, but for a single picture that has more


def pack(folder: str, out: str, *, largest: int = LARGEST, nested: bool = False) -> str:
    """Write each part of a folder (see `jaxcnn.data.files.class_folder.Folder`) as archives
    `train-00000.tar`, …, in a new folder `out`, its pictures as they are and the names of their
    classes; the expression of the data set that reads them.

    The pictures are in a random order, always the same, since other readers go through an archive
    from its start. Errors: those of `Folder`; ConfigError where `out` is there already;
    ResourceError where it cannot be written.
    """
    root, place = Path(folder).expanduser(), Path(out).expanduser()
    names, parts = list_labelled(root, image_endings(), nested=nested, where=f"Folder {folder}")
    if place.exists():
        raise ConfigError(f"{place}: is there already; name a folder that is not")
    try:
        place.mkdir(parents=True)
        for split, files in parts.items():
            for number, rows in enumerate(_parcels(files, largest)):
                _write(place / f"{split}-{number:05d}.tar", files, names, rows)
    except OSError as error:
        raise ResourceError(f"{place}: cannot be written ({error}); make room there") from error
    return _expression(place, names, parts)


def _expression(place: Path, names: tuple[str, ...], parts: Iterable[str]) -> str:
    """What reads the archives with the same classes, in the same order."""
    others = [
        f', {split}_path="{place}/{split}-*.tar"' for split in ("eval", "test") if split in parts
    ]
    # numbers would be taken for the numbers of classes
    said = f", classes={names!r}" if all(name.isdigit() for name in names) else ""
    return f'Shards("{place}/train-*.tar"{"".join(others)}{said})'


def _parcels(files: Files, largest: int) -> Iterator[list[int]]:
    """Which files lie in which archive."""
    order = np.random.default_rng(0).permutation(len(files.paths)).tolist()
    rows: list[int] = []
    total = 0
    for i in order:
        size = os.stat(files.paths[i]).st_size
        if rows and total + size > largest:
            yield rows
            rows, total = [], 0
        rows.append(i)
        total += size
    if rows:
        yield rows


def _write(path: Path, files: Files, names: tuple[str, ...], rows: list[int]) -> None:
    """An archive that is there whole, or not at all."""
    temporary = path.with_suffix(".tmp")
    with tarfile.open(temporary, "w") as archive:
        for i in rows:
            picture = files.paths[i]
            try:
                content = Path(picture).read_bytes()
            except OSError as error:
                raise DataError(f"{picture}: cannot be read ({error}); make it readable") from error
            ending = os.path.splitext(picture)[1].lower()
            label = names[files.labels[i]].encode()
            for name, member in ((f"{i:08d}{ending}", content), (f"{i:08d}.cls", label)):
                info = tarfile.TarInfo(name)
                info.size = len(member)
                archive.addfile(info, io.BytesIO(member))
    os.replace(temporary, path)
