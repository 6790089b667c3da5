"""Arrays that are kept in the user's cache folder, since they take long to make anew."""

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxcnn.data.files.npz import read_npz
from jaxcnn.errors import DataError

LEFT_SECONDS = 86_400.0  # after which nobody is writing to a file any more


def kept_path(key: str) -> Path:
    """Where arrays are kept that depend on `key` alone: $XDG_CACHE_HOME or ~/.cache, in jaxcnn/."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxcnn"
    return root / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


@contextlib.contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file to be kept that is there whole, or not at all. It is written beside its place under a
    name that no other writer has: numbers of processes are alike in containers that share the
    folder, and in the threads of one process. What killed writers left there a day ago is removed.
    Errors: OSError.
    """
    temporary = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_left(path.parent)
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _remove_left(folder: Path) -> None:
    for left in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                left.unlink()


def read_kept(path: Path, names: Iterable[str]) -> dict[str, np.ndarray] | None:
    """The arrays of a kept file, whose checksums are compared; None where there is none or it is
    damaged.
    """
    try:
        return {name: read_npz(str(path), name) for name in names}
    except DataError:
        return None


def keep(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a kept file whole or not at all. A full or read-only disk is no error: it only saves
    time.
    """
    with contextlib.suppress(OSError), written(path) as file:
        np.savez(file, **dict(arrays))  # pyright: ignore[reportArgumentType]
