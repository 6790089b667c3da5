"""Arrays in a NumPy .npz archive. Nothing is unpickled, sizes are checked before memory is asked
for, and checksums before data are believed."""

import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from jaxcnn.data.files.archives import open_zip
from jaxcnn.data.layout import question_pixels
from jaxcnn.data.memory import (
    MemorySource,
    canonical,
    check_split,
    header_spec,
    held_rows,
    keep_split,
    num_held_out,
)
from jaxcnn.errors import DataError, did_you_mean

Header = tuple[tuple[int, ...], np.dtype]


@dataclass(frozen=True)
class Npz:
    """Arrays "image" [N, H, W, C] or [N, H, W] (uint8 in 0..255 or float in [0, 1]) and "label" [N]
    of .npz files.

    `channels_first`: the images are [N, C, H, W] and are transposed; a shape that looks so is
    refused where this is not said. Archives that swell as `archives.open_zip` says are refused.

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
    channels_first: bool = False

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
            keras = {"image": f"x_{suffix}", "label": f"y_{suffix}"}
            return self.path, {name: keras[name] for name in plain}
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
            name: (self._shape(name, shape), dtype)
            for name, (shape, dtype) in self._headers("train").items()
        }
        return header_spec(headers, where=self.path)

    def _shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape as it is stored: labels [N, 1], as Keras ships CIFAR, are [N]."""
        if name == "image" and self.channels_first:
            if len(shape) != 4:
                raise DataError(
                    f"{self.path}: 'image' has shape {shape}; channels_first is for [N, C, H, W]"
                )
            return (shape[0], *shape[2:], shape[1])
        return shape[:1] if name == "label" and len(shape) == 2 and shape[1] == 1 else shape

    def _stored(self, name: str, array: np.ndarray) -> np.ndarray:
        shape = self._shape(name, array.shape)
        if name == "image" and self.channels_first:
            return np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        return array.reshape(shape)

    def size(self, split: str) -> int:
        headers = self._headers(split)
        total = headers["image"][0][0] if headers and headers["image"][0] else 0
        if not total or not self._holds_out(split):
            return total
        held = self._num_held(total)
        return held if split == "eval" else total - held

    def _num_held(self, total: int) -> int:
        """How many examples are held out, which the labels say where there are any."""
        if not self.label:
            return num_held_out(total, self.eval_fraction)
        return int(held_rows({"label": self._label}, self.eval_fraction, **self._said).sum())

    @functools.cached_property
    def _label(self) -> np.ndarray:
        """The labels of the training file."""
        members = self._members("train")
        assert members is not None
        return self._stored("label", read_npz(members[0], members[1]["label"]))

    @property
    def _said(self) -> dict[str, Any]:
        return {"names": self.label_names, "where": f"Npz {self.path}"}

    def open(self, split: str) -> MemorySource:
        members = self._members(split)
        if members is None or not self.size(split):
            raise DataError(
                f"Npz {self.path} has no {split!r} examples; give {split}_path"
                + (" or eval_fraction" if split == "eval" else "")
            )
        path, names = members
        self._headers(split)
        arrays = {
            name: self._stored(name, read_npz(path, member)) for name, member in names.items()
        }
        arrays = canonical(arrays, where=path)
        question_pixels(arrays, where=path)
        if self._holds_out(split):
            arrays = keep_split(arrays, split, self.eval_fraction, **self._said)
        return MemorySource(arrays)


def read_npz_headers(path: str) -> dict[str, Header]:
    """Shape and dtype of every array of an .npz file, without reading the arrays. Errors:
    DataError.
    """
    try:
        with open_zip(Path(path).expanduser()) as archive:
            out = {}
            for info in archive.infolist():
                try:
                    with archive.open(info) as file:
                        header = _read_header(file, info.file_size)
                except ValueError as error:
                    raise ValueError(f"{info.filename}: {error}") from error
                out[info.filename.removesuffix(".npy")] = header
            return out
    # zipfile raises OSError, BadZipFile, NotImplementedError, RuntimeError, zlib.error, ...
    except Exception as error:
        raise _unreadable(path, error) from error


def read_npz(path: str, name: str) -> np.ndarray:
    """One array of an .npz file; the archive's CRC-32 is checked. Errors: DataError."""
    try:
        with open_zip(Path(path).expanduser()) as archive:
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


def read_npy(path: str) -> np.ndarray:
    """The array of an .npy file, whose size is compared with the file's before memory is asked for;
    nothing is unpickled. Errors: DataError.
    """
    try:
        with open(Path(path).expanduser(), "rb") as file:
            _read_header(file, os.fstat(file.fileno()).st_size)
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, error, kind=".npy") from error


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


def _unreadable(path: str, error: Exception, *, kind: str = ".npz") -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: there is no such file")
    return DataError(
        f"{path}: cannot be read as {kind} ({type(error).__name__}: {error}); write it anew with "
        f"numpy.{'savez' if kind == '.npz' else 'save'}"
    )
