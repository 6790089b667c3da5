"""Arrays that are kept in the user's cache folder, since they take long to make anew."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from jaxcnn.data.files.npz import read_npz
from jaxcnn.errors import DataError


def kept_path(key: str) -> Path:
    """Where arrays are kept that depend on `key` alone: $XDG_CACHE_HOME or ~/.cache, in jaxcnn/."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxcnn"
    return root / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"


def beside(path: Path) -> Path:
    """Where a kept file is written before it is there: a name that no other writer has. Numbers of
    processes are alike in containers that share the folder, and in the threads of one process.
    """
    return path.with_suffix(f".{secrets.token_hex(8)}.tmp")


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
    temporary = beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(temporary, "wb") as file:
            np.savez(file, **dict(arrays))  # pyright: ignore[reportArgumentType]
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
