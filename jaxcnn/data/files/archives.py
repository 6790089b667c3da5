"""The sizes that archives claim, compared with what is there before memory is asked for."""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

# What swells to more than so many bytes, and to more than so many times what is stored, is a bomb:
# no pictures are so alike.
SWOLLEN_BYTES, SWOLLEN = 2**28, 100


def require_unswollen(stored: int, size: int) -> None:
    """ValueError for `stored` bytes that swell to so many more that they are no pictures."""
    if size > SWOLLEN_BYTES and size > SWOLLEN * stored:
        raise ValueError(
            f"{stored} compressed bytes swell to {size}, more than {SWOLLEN} times as many; if "
            "that is meant, store them uncompressed"
        )


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip archive, with the sizes of all its members compared: each lies within the file, is as
    long as it says where it is not compressed, and neither it nor all together swell.

    Errors: ValueError, and those of `zipfile`.
    """
    with zipfile.ZipFile(path) as archive:
        present = os.stat(path).st_size
        for info in archive.infolist():
            # `zipfile` asks for as much memory as a member claims to take in the file
            if info.header_offset + info.compress_size > present:
                raise ValueError(
                    f"{info.filename} claims {info.compress_size} bytes of a file of {present}"
                )
            encrypted = info.flag_bits & 1  # by some bytes longer, and refused when it is read
            plain = info.compress_type == zipfile.ZIP_STORED and not encrypted
            if plain and info.file_size != info.compress_size:
                raise ValueError(
                    f"{info.filename}, which is not compressed, takes {info.compress_size} bytes, "
                    f"and claims to be {info.file_size}"
                )
            require_unswollen(info.compress_size, info.file_size)
        # several members may claim the same bytes
        require_unswollen(present, sum(info.file_size for info in archive.infolist()))
        yield archive
