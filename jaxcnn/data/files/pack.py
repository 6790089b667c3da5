"""A folder of images, one sub-folder a class, as tar archives for `jaxcnn.data.files.shards.Shards`
and other readers of WebDataset's form.
"""

import io
import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxcnn.data.files.class_listing import Files, list_labelled
from jaxcnn.data.files.images import image_endings
from jaxcnn.data.stores import is_pattern
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
    if place.exists() or is_pattern(str(place)):
        raise ConfigError(
            f"{place}: is there already, or has one of {{*?[ in its name; name another folder"
        )
    parcels = {split: _parcels(files, largest) for split, files in parts.items()}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # written beside it, so that it is there whole or not at all
        with tempfile.TemporaryDirectory(dir=place.parent, ignore_cleanup_errors=True) as beside:
            for split, found in parcels.items():
                for number, rows in enumerate(found):
                    path = Path(beside) / "packed" / f"{split}-{number:05d}.tar"
                    path.parent.mkdir(exist_ok=True)
                    _write(path, parts[split], names, rows)
            os.replace(Path(beside) / "packed", place)
    except OSError as error:
        raise ResourceError(f"{place}: cannot be written ({error}); make room there") from error
    return _expression(place, names, parts)


def _expression(place: Path, names: tuple[str, ...], parts: Iterable[str]) -> str:
    """What reads the archives with the same classes, in the same order."""
    others = [
        f", {split}_path={f'{place}/{split}-*.tar'!r}"
        for split in ("eval", "test")
        if split in parts
    ]
    # numbers would be taken for the numbers of classes
    said = f", classes={names!r}" if all(name.isdigit() for name in names) else ""
    return f"Shards({f'{place}/train-*.tar'!r}{''.join(others)}{said})"


def _parcels(files: Files, largest: int) -> list[list[int]]:
    """Which files lie in which archive. Errors: DataError."""
    order = np.random.default_rng(0).permutation(len(files.paths)).tolist()
    out: list[list[int]] = []
    left = 0
    for i in order:
        try:
            size = os.stat(files.paths[i]).st_size
        except OSError as error:
            raise _unreadable(files.paths[i], error) from error
        if size > left or not out:
            out.append([])
            left = largest
        out[-1].append(i)
        left -= size
    return out


def _unreadable(picture: str, error: OSError) -> DataError:
    return DataError(f"{picture}: cannot be read ({error}); make it readable")


def _write(path: Path, files: Files, names: tuple[str, ...], rows: list[int]) -> None:
    with tarfile.open(path, "w") as archive:
        for i in rows:
            picture = files.paths[i]
            try:
                content = Path(picture).read_bytes()
            except OSError as error:
                raise _unreadable(picture, error) from error
            ending = os.path.splitext(picture)[1].lower()
            label = names[files.labels[i]].encode()
            for name, member in ((f"{i:08d}{ending}", content), (f"{i:08d}.cls", label)):
                info = tarfile.TarInfo(name)
                info.size = len(member)
                archive.addfile(info, io.BytesIO(member))
