"""What the tables of faults share: making small inputs, and looking at what came of them."""

import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from jaxcnn.errors import DataError


def picture(path: Path, size=(8, 12), *, seed=0, **options) -> None:
    """A picture of noise of (height, width) `size`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def grey_png(numbers, *, depth: int, kind: int = 0) -> bytes:
    """A PNG of rows of samples, of a bit depth and colour type that Pillow does not write."""
    rows = [row if isinstance(row, bytes) else bytes(row) for row in numbers]
    width = {2: 4, 4: 2, 16: 1}[depth] * len(rows[0]) // {0: 1, 2: 6, 4: 4}[kind]

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def outcome(make) -> tuple[object, list[str]]:
    """What `make` gives, or the DataError it raises, and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = make()
        except DataError as error:
            result = error
    return result, [str(entry.message) for entry in caught]


def check(make, expected, said: str = "") -> None:
    """That `make` gives `expected`, or a DataError that fits it where that is a str, and that all
    that is said fits `said`, "" for nothing."""
    result, messages = outcome(make)
    if isinstance(expected, str):
        assert isinstance(result, DataError), f"{result} instead of an error, {messages}"
        assert re.search(expected, str(result)), str(result)
        return
    if isinstance(result, DataError):
        raise result
    assert result == expected
    assert bool(said) == bool(messages), messages
    assert all(re.search(said, message) for message in messages), messages


def take_all(data, split="train") -> dict[str, np.ndarray]:
    source = data.open(split)
    return {k: np.asarray(v) for k, v in source.take(np.arange(len(source))).items()}
