"""What a file of weights is, by its first bytes; what is no weights is told from them, too: what a
server, Git or an archiver puts in the place of the file that was meant.
"""

import zipfile
from pathlib import Path

from jaxcnn.errors import DataError

ENDINGS = {
    ".safetensors": "safetensors",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".bin": "PyTorch",
    ".ckpt": "PyTorch",
    ".tar": "PyTorch",  # model.pth.tar, which is no archive
    ".npz": "NumPy",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
}
_PRINTED = bytes({7, 8, 9, 10, 12, 13, 27, *range(32, 127), *range(128, 256)})


def kind_of(path: Path) -> str:
    """ "safetensors", "PyTorch", "NumPy" or "HDF5".

    Errors: DataError for a file that is missing, cannot be read, is none of them, or ends otherwise
    than it is.
    """
    if not path.is_file():
        raise DataError(f"weights: no file {str(path)!r}")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise refused(path, f"cannot be read ({error.strerror})", "allow it to be read") from error
    kind = _by_content(path, head)
    known = ", ".join(dict.fromkeys(ENDINGS))
    ends = path.suffix.lower()
    right = next(ending for ending, of in ENDINGS.items() if of == kind)
    if ends not in ENDINGS:
        raise refused(
            path,
            f"has none of the endings {known}",
            f"its content is that of a {kind} file: if these are weights, name it "
            f"{path.stem}{right}",
        )
    if ENDINGS[ends] != kind:
        raise refused(
            path,
            f"ends in {ends}, but its content is that of a {kind} file",
            f"name it {path.stem}{right}",
        )
    return kind


def refused(path: Path, what: str, remedy: str) -> DataError:
    """The error for a file: what is wrong with it, and what to do."""
    return DataError(f"weights: {str(path)!r} {what}; {remedy}")


def _by_content(path: Path, head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    again = "fetch it again, and compare its size with that of the source"
    if not head:
        raise refused(path, "is empty", again)
    if not text.strip(b"\0"):
        raise refused(path, "begins with nothing but zeros", again)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "HDF5"
    if head.startswith(b"PK"):
        return _of_zip(path)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "PyTorch"  # a pickle, as torch.save wrote before it wrote zip archives
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors"
    if text.startswith(b"<"):
        raise refused(
            path,
            "is a web page (HTML or XML), which a server sent in the place of the weights",
            "fetch the file itself, by its direct link or signed in",
        )
    if text.startswith(b"version https://git-lfs"):
        raise refused(
            path,
            "is a pointer of Git LFS, a few lines that stand for the weights",
            "run `git lfs pull` in its repository",
        )
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise refused(path, f"is compressed ({name})", "unpack it, and give what is inside")
    if head[257:262] == b"ustar":
        raise refused(path, "is a tar archive", "unpack it, and give what is inside")
    if not head.translate(None, _PRINTED):
        shown = text[:40].decode("utf-8", "replace")
        raise refused(path, f"is text, no weights (it begins {shown!r})", again)
    kinds = ", ".join(dict.fromkeys(ENDINGS.values()))
    raise refused(
        path,
        f"is no whole file of any of the kinds {kinds}: its first bytes belong to none of them",
        again,
    )


def _of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise refused(
            path, f"was cut short or damaged ({error})", "fetch it again, or write it again"
        ) from None
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "PyTorch"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy"
    shown = ", ".join(names[:3]) or "nothing"
    raise refused(path, f"is a zip archive that holds {shown}", "unpack it, and give the weights")
