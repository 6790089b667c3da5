"""Arrays in a NumPy .npz archive. Nothing is unpickled, sizes are checked before memory is asked
for, and checksums before data are believed."""

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import jax
import numpy as np

from jaxcnn.data.memory import (
    MemorySource,
    canonical,
    check_split,
    header_spec,
    keep_split,
    num_held_out,
)
from jaxcnn.errors import DataError, did_you_mean

Header = tuple[tuple[int, ...], np.dtype]


@dataclass(frozen=True)
class Npz:
    """Arrays "image" [N, H, W, C] or [N, H, W] (uint8 in 0..255 or float in [0, 1]) and "label" [N]
    of .npz files.

    `image` and `label` name the arrays in the file (label="" for none). "eval" is `eval_path` where
    given; the arrays x_test, y_test where the file is named as Keras does (x_train, y_train,
    x_test, y_test); else `eval_fraction` held out of `path`. Errors: DataError.
    """

    path: str
    eval_path: str = ""
    test_path: str = ""
    eval_fraction: float = 0.2
    image: str = "image"
    label: str = "label"
    label_names: tuple[str, ...] = ()

    def _members(self, split: str) -> tuple[str, dict[str, str]] | None:
        """The file of a split and its arrays' names there, or None if there is no such split."""
        plain = {"image": self.image, "label": self.label} if self.label else {"image": self.image}
        other = {"eval": self.eval_path, "test": self.test_path}.get(check_split(split), "")
        if other:
            return other, plain
        if split == "test":
            return None
        if self.image not in read_npz_headers(self.path) and "x_train" in read_npz_headers(
            self.path
        ):
            suffix = "train" if split == "train" else "test"
            return self.path, {"image": f"x_{suffix}", "label": f"y_{suffix}"}
        return self.path, plain

    def _holds_out(self, split: str) -> bool:
        return split != "test" and self._members("train") == self._members("eval")

    def _headers(self, split: str) -> dict[str, Header]:
        members = self._members(split)
        if members is None:
            return {}
        path, names = members
        headers = read_npz_headers(path)
        missing = [name for name in names.values() if name not in headers]
        if missing:
            raise DataError(
                f"{path}: there is no array {missing[0]!r}; there are "
                f"{sorted(headers)}{did_you_mean(missing[0], headers)}"
            )
        return {name: headers[member] for name, member in names.items()}

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        headers = {
            name: (_one_column(shape) if name == "label" else shape, dtype)
            for name, (shape, dtype) in self._headers("train").items()
        }
        return header_spec(headers, where=self.path)

    def size(self, split: str) -> int:
        headers = self._headers(split)
        total = headers["image"][0][0] if headers and headers["image"][0] else 0
        if not self._holds_out(split):
            return total
        held = num_held_out(total, self.eval_fraction)
        return held if split == "eval" else total - held

    def open(self, split: str) -> MemorySource:
        members = self._members(split)
        if members is None or not self.size(split):
            raise DataError(
                f"Npz {self.path} has no {split!r} examples; give {split}_path"
                + (" or eval_fraction" if split == "eval" else "")
            )
        path, names = members
        self._headers(split)
        arrays = {name: read_npz(path, member) for name, member in names.items()}
        if "label" in arrays:
            arrays["label"] = arrays["label"].reshape(_one_column(arrays["label"].shape))
        arrays = canonical(arrays, where=path)
        return MemorySource(
            keep_split(arrays, split, self.eval_fraction) if self._holds_out(split) else arrays
        )


def _one_column(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of labels: [N, 1], as Keras ships CIFAR, is [N]."""
    return shape[:1] if len(shape) == 2 and shape[1] == 1 else shape


def read_npz_headers(path: str) -> dict[str, Header]:
    """Shape and dtype of every array of an .npz file, without reading the arrays. Errors:
    DataError.
    """
    try:
        with zipfile.ZipFile(Path(path).expanduser()) as archive:
            out = {}
            for info in archive.infolist():
                with archive.open(info) as file:
                    out[info.filename.removesuffix(".npy")] = _read_header(file, info.file_size)
            return out
    # zipfile raises OSError, BadZipFile, NotImplementedError, RuntimeError, zlib.error, ...
    except Exception as error:
        raise _unreadable(path, error) from error


def read_npz(path: str, name: str) -> np.ndarray:
    """One array of an .npz file; the archive's CRC-32 is checked. Errors: DataError."""
    try:
        with zipfile.ZipFile(Path(path).expanduser()) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as file:
                # refuses a size that is not there, before it is allocated
                _read_header(file, info.file_size)
            with archive.open(info) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                if file.read():  # to the end, where the CRC is compared
                    raise ValueError(f"data follow the array {name!r}")
                return array
    except Exception as error:
        raise _unreadable(path, error) from error


def _read_header(file: IO[bytes], file_size: int) -> Header:
    """Shape and dtype that an .npy header declares, if they agree with the `file_size` of the
    member.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f".npy version {version}; it must be 1.0 or 2.0")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(
            f"an array of Python objects (dtype {dtype}), which would have to be unpickled; store "
            "numbers"
        )
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != file_size - file.tell():
        raise ValueError(
            f"the header declares shape {shape} of {dtype}, but {file_size - file.tell()} bytes "
            "follow"
        )
    return shape, dtype


def _unreadable(path: str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: there is no such file")
    return DataError(
        f"{path}: cannot be read as .npz ({type(error).__name__}: {error}); write it anew with "
        "numpy.savez"
    )
