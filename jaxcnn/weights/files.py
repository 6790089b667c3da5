"""Files of named arrays: our own, sealed and written atomically; and those of other frameworks.

Our file is a valid safetensors file (8 bytes: length of the header, little-endian; a JSON header;
raw row-major little-endian bytes), so any safetensors reader opens it without jaxcnn; no pickle.
Its metadata hold two SHA-256: `state_sha256` of the arrays, and `sha256` of the header that holds
it (with the digest's own place zeroed). Each byte of the data belongs to an array, so that any
damage to the file is noticed, and large arrays are hashed once. Writing is: temporary file, fsync,
rename, fsync of the folder. A crash leaves either the old file or the new one.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxcnn.data.files.archives import require_unswollen
from jaxcnn.data.files.npz import read_npz, read_npz_headers
from jaxcnn.errors import CheckpointError, DataError, DependencyError, ResourceError
from jaxcnn.weights.kinds import kind_of, refused
from jaxcnn.weights.pytorch import read_pytorch

Arrays = dict[str, np.ndarray]

_DTYPES = {
    "BOOL": np.dtype(bool),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 100 * 2**20
_NO_DIGEST = "0" * 64
_BY_PARTS = "header, arrays"  # how a file is sealed; those of earlier versions do not say
_CHANGED = "SHA-256 does not match: bytes were changed or are missing"
_AGAIN = "fetch or write it again"


def write_arrays(path: Path, arrays: Arrays, metadata: dict[str, str]) -> str:
    """Write named arrays and string metadata to `path`, sealed and atomically. Returns `digest`.

    Errors: ResourceError (disk full, no permission); CheckpointError for a dtype that safetensors
    does not know.
    """
    entries, position, chunks = {}, 0, []
    for name, array in arrays.items():
        if array.dtype not in _NAMES:
            raise CheckpointError(
                f"{name}: dtype {array.dtype} cannot be stored; known are "
                f"{', '.join(map(str, _NAMES))}"
            )
        data = bytes_of(array)
        entries[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, position + len(data)],
        }
        position += len(data)
        chunks.append(data)
    content = digest(arrays)
    own = {"state_sha256": content, "sealed": _BY_PARTS, "sha256": _NO_DIGEST}
    header = {"__metadata__": metadata | own, **entries}
    header["__metadata__"]["sha256"] = hashlib.sha256(_encode(header)).hexdigest()
    write_atomically(path, [_encode(header), *chunks])
    return content


def digest(arrays: Arrays) -> str:
    """SHA-256 (hex) of the bytes of named arrays, with names, dtypes and shapes, in the order of
    the names: equal only for arrays equal in every bit.
    """
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha.update(bytes_of(array))
    return sha.hexdigest()


def bytes_of(array: np.ndarray) -> memoryview:
    """An array's bytes in the order of its rows, without a copy where they lie so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _encode(header: dict[str, Any]) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_atomically(path: Path, chunks: Sequence[bytes | memoryview]) -> None:
    """Write bytes so that `path` holds either its old content or all of the new.

    Errors: ResourceError.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ResourceError(
            f"{path}: cannot be written ({error.strerror}); free disk space, or choose another "
            "place"
        ) from error


def read_sealed(path: Path) -> tuple[Arrays, dict[str, str]]:
    """(arrays, metadata) of a file of `write_arrays`, verified; the arrays are read-only.

    Errors: CheckpointError naming the file and what is wrong with it.
    """
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        header, metadata, data = _parse(blob)
        _verify(blob, metadata)
        arrays = _entries(header, data)
        if _by_parts(metadata) and digest(arrays) != metadata.get("state_sha256"):
            raise ValueError(_CHANGED)
        return arrays, metadata
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, from its header alone: nothing is verified.

    Errors: CheckpointError.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            length = min(int.from_bytes(start, "little"), _MAX_HEADER)
            return _parse(start + file.read(length))[1]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None


def read_arrays(path: str | Path) -> Arrays:
    """The arrays of a .safetensors, .npz, PyTorch (.pt, .pth, .bin, .ckpt, .pth.tar) or HDF5 (.h5,
    .hdf5) file, by name: "." between the keys of PyTorch's dicts in one another, "/" between HDF5
    groups. A safetensors file with our seal is verified. No code of a file is ever run.

    Errors: DataError for a file that is missing, damaged, or something else than its ending says
    (jaxcnn.weights.kinds); CheckpointError for a sealed file that is damaged, DependencyError where
    h5py is needed and missing.
    """
    path = Path(path)
    read = {
        "safetensors": _read_safetensors,
        "PyTorch": read_pytorch,
        "NumPy": _read_numpy,
        "HDF5": _read_hdf5,
    }
    return read[kind_of(path)](path)


def _read_safetensors(path: Path) -> Arrays:
    try:
        header, metadata, data = _parse(path.read_bytes())
        if not _is_ours(metadata):
            return _entries(header, data)
    except (ValueError, OSError) as error:
        raise refused(path, f"is not a whole safetensors file ({error})", _AGAIN) from None
    return read_sealed(path)[0]


def _parse(blob: bytes) -> tuple[dict[str, Any], dict[str, str], memoryview]:
    """(entries by name, metadata, their bytes) of a safetensors file. ValueError says what is
    wrong.
    """
    length = int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or not 2 <= length <= min(_MAX_HEADER, len(blob) - 8):
        raise ValueError("the header's length does not fit the file")
    try:
        header = json.loads(blob[8 : 8 + length], object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise ValueError("the header is not readable") from None
    metadata = header.pop("__metadata__", None) or {} if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("the header is not readable")
    return header, metadata, memoryview(blob)[8 + length :]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. ValueError for a name in it twice, which readers take differently."""
    out = dict(pairs)
    if len(out) < len(pairs):
        raise ValueError("a name is there twice")
    return out


def _is_ours(metadata: dict[str, str]) -> bool:
    """Whether a file was sealed; two marks, so that damage to one does not hide the seal."""
    return "sha256" in metadata or str(metadata.get("format")).startswith("jaxcnn")


def _by_parts(metadata: dict[str, str]) -> bool:
    return metadata.get("sealed") == _BY_PARTS


def _verify(blob: bytes, metadata: dict[str, str]) -> None:
    """ValueError where the seal is missing, or is not that of these bytes: of the header or, in
    files of earlier versions, of header and data.
    """
    claimed = metadata.get("sha256")
    if not isinstance(claimed, str) or not re.fullmatch("[0-9a-f]{64}", claimed):
        raise ValueError("the header has no seal")
    end = 8 + int.from_bytes(blob[:8], "little")
    if blob.count(claimed.encode(), 0, end) != 1:
        raise ValueError("the seal is not readable")
    sha = hashlib.sha256(blob[:end].replace(claimed.encode(), _NO_DIGEST.encode()))
    if not _by_parts(metadata):
        sha.update(memoryview(blob)[end:])
    if sha.hexdigest() != claimed:
        raise ValueError(_CHANGED)


def _entries(header: dict[str, Any], data: memoryview) -> Arrays:
    """The arrays that a header describes, views of `data`, all of whose bytes belong to one of
    them. ValueError names a malformed entry.
    """
    arrays, spans = {}, []
    for name, entry in header.items():
        try:
            dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            fits = 0 <= begin <= end <= len(data)
            if not fits or end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError("offsets do not fit the shape")
            arrays[name] = np.frombuffer(data[begin:end], dtype).reshape(shape)
            spans.append((begin, end))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the entry {name!r} is malformed: {error}") from None
    ends = [0, *(end for _, end in sorted(spans))]
    if [begin for begin, _ in sorted(spans)] != ends[:-1] or ends[-1] != len(data):
        raise ValueError("bytes belong to two entries, or to none")
    return arrays


def _read_numpy(path: Path) -> Arrays:
    try:
        return {name: read_npz(str(path), name) for name in read_npz_headers(str(path))}
    except DataError as error:
        raise refused(path, f"is damaged, or holds no plain arrays ({error})", _AGAIN) from None


def _read_hdf5(path: Path) -> Arrays:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError(f"weights: {str(path)!r} needs h5py: pip install h5py") from error
    arrays = {}

    def take(name, item):  # is not called for soft and external links
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf":
            if item.external or item.is_virtual:
                raise ValueError(f"{name} stands for numbers in other files; only its own are read")
            require_unswollen(item.id.get_storage_size(), item.nbytes)
            arrays[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except Exception as error:  # as above
        raise refused(path, f"was cut short or damaged ({error})", _AGAIN) from None
    return arrays
