"""IDX files, the format of the original MNIST files, plain or gzipped.

Layout (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "The IDX
file format"): two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
32-bit count, then the elements in C order, big-endian. Headers are not
trusted: a size is compared with what the file can hold before memory is asked for. A gzip file is
    always read to its end, where its CRC-32
stands: reading only as many bytes as the header asks for leaves nearly all damage unnoticed.
"""

import functools
import gzip
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import jax
import numpy as np

from jaxcnn.data.files.archives import require_unswollen
from jaxcnn.data.layout import question_pixels
from jaxcnn.data.memory import (
    MemorySource,
    canonical,
    check_split,
    header_spec,
    held_rows,
    keep_split,
)
from jaxcnn.errors import DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
DEFLATE_RATIO = (
    1032  # the most that a byte of deflate can expand to (RFC 1951: 258 bytes from 2 bits)
)
CHUNK = 2**20
Header = tuple[tuple[int, ...], np.dtype]


@dataclass(frozen=True)
class Idx:
    """IDX files of images [N, H, W] or [N, H, W, C] in 0..255 and of labels [N]:
    `Idx("train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz")`.

    "eval" is read from `eval_images` and `eval_labels` where given, else `eval_fraction` is held
    out; "test" likewise, but never held out.
    Errors: DataError.
    """

    images: str
    labels: str
    eval_images: str = ""
    eval_labels: str = ""
    test_images: str = ""
    test_labels: str = ""
    eval_fraction: float = 0.2
    label_names: tuple[str, ...] = ()

    def _paths(self, split: str) -> dict[str, str]:
        """The files of a split; {} if there is no such split."""
        given = {
            "train": (self.images, self.labels),
            "eval": (self.eval_images, self.eval_labels),
            "test": (self.test_images, self.test_labels),
        }[check_split(split)]
        if any(given) and not all(given):
            raise DataError(
                f"Idx: the {split!r} split has images {given[0]!r} and labels {given[1]!r}; it "
                "needs both"
            )
        if not any(given) and split == "eval":
            return self._paths("train")
        return {"image": given[0], "label": given[1]} if any(given) else {}

    def _holds_out(self, split: str) -> bool:
        return split != "test" and not self.eval_images

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return header_spec(
            {name: read_idx_header(path) for name, path in self._paths("train").items()},
            where=self.images,
        )

    def size(self, split: str) -> int:
        paths = self._paths(split)
        if not paths:
            return 0
        total = read_idx_header(paths["image"])[0][0]
        if not self._holds_out(split):
            return total
        held = int(held_rows({"label": self._label}, self.eval_fraction, **self._said).sum())
        return held if split == "eval" else total - held

    @functools.cached_property
    def _label(self) -> np.ndarray:
        """The labels for training, which say what is held out."""
        return read_idx(self.labels)

    @property
    def _said(self) -> dict[str, Any]:
        return {"names": self.label_names, "where": f"Idx {self.images}"}

    def open(self, split: str) -> MemorySource:
        paths = self._paths(split)
        if not paths or not self.size(split):
            raise DataError(
                f"Idx {self.images} has no {split!r} examples; give {split}_images and "
                f"{split}_labels"
            )
        where = f"{paths['image']} and {paths['label']}"
        arrays = canonical({name: read_idx(path) for name, path in paths.items()}, where=where)
        question_pixels(arrays, where=where)
        if self._holds_out(split):
            arrays = keep_split(arrays, split, self.eval_fraction, **self._said)
        return MemorySource(arrays)


def read_idx_header(path: str) -> Header:
    """Shape and element type (big-endian) that an IDX file declares. Errors: DataError."""
    try:
        with _open(path) as file:
            return _read_header(file)
    except Exception as error:
        raise _unreadable(path, error) from error


def read_idx(path: str) -> np.ndarray:
    """The array of an IDX file, in the byte order of this machine. Errors: DataError naming the
    file and what is wrong.
    """
    try:
        with _open(path) as file:
            shape, dtype = _read_header(file)
            size = math.prod(shape) * dtype.itemsize
            available = os.path.getsize(Path(path).expanduser()) * (
                DEFLATE_RATIO if isinstance(file, gzip.GzipFile) else 1
            )
            if size > available:
                raise ValueError(
                    f"the header declares {shape} of {dtype}, {size} bytes; the file cannot hold "
                    "them"
                )
            if isinstance(file, gzip.GzipFile):
                require_unswollen(available // DEFLATE_RATIO, size)
            chunks, length = [], 0
            # + 1: reaches the end, or finds that it lies further
            while length <= size and (chunk := file.read(min(CHUNK, size - length + 1))):
                chunks.append(chunk)
                length += len(chunk)
        if length != size:
            raise ValueError(
                f"the header declares {shape} of {dtype}, {size} bytes; "
                f"{'more' if length > size else f'only {length}'} follow"
            )
        return (
            np.frombuffer(b"".join(chunks), dtype)
            .reshape(shape)
            .astype(dtype.newbyteorder("="), copy=False)
        )
    except Exception as error:
        raise _unreadable(path, error) from error


def _open(path: str) -> BinaryIO:
    """The file, seen through gzip where its first bytes say so: endings lie."""
    path = os.fspath(Path(path).expanduser())
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if zipped else open(path, "rb")


def _read_header(file: BinaryIO) -> Header:
    magic = file.read(4)
    if len(magic) != 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= 8:
        raise ValueError(
            f"it starts with {magic.hex(' ')}; an IDX file starts with 00 00, a type code (08, "
            "09, 0b..0e) and 1 to 8 dimensions"
        )
    counts = file.read(4 * magic[3])
    if len(counts) != 4 * magic[3]:
        raise ValueError("it ends inside its header")
    return struct.unpack(f">{magic[3]}I", counts), np.dtype(TYPES[magic[2]])


def _unreadable(path: str, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: there is no such file")
    return DataError(
        f"{path}: cannot be read as IDX ({type(error).__name__}: {error}); fetch or write it anew"
    )
