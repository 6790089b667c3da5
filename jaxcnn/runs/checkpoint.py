"""A tree of arrays to disk and back: one sealed file, written atomically, verified before use, no
pickle.

The file is a valid safetensors file (8 bytes: length of the header, little-endian; a JSON header;
raw row-major bytes), so any safetensors reader opens it without jaxcnn. Its metadata hold a SHA-256
over the whole file (with the digest's own place zeroed), so that any damage is noticed.
Writing is: temporary file, fsync, rename, fsync of the folder. A crash leaves either the old file
or the new one.
"""

import dataclasses
import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from jaxcnn.errors import CheckpointError, ResourceError

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


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """{'params/Conv_0/kernel': host array, …} of a tree; PRNG keys become their uint32 data."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_path(path): np.asarray(jax.device_get(_raw(leaf))) for path, leaf in leaves}


def digest(tree: Any) -> str:
    """SHA-256 (hex) of all bytes of a tree, with names, dtypes and shapes: equal only for trees
    equal in every bit.
    """
    sha = hashlib.sha256()
    for name, array in sorted(flatten(tree).items()):
        sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def write_arrays(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write named arrays and string metadata to `path`, sealed and atomically. Errors:
    ResourceError (disk full, no permission).
    """
    header: dict[str, Any] = {"__metadata__": {**metadata, "sha256": _NO_DIGEST}}
    position, chunks = 0, []
    for name, array in arrays.items():
        if array.dtype not in _NAMES:
            raise CheckpointError(f"{name}: dtype {array.dtype} cannot be stored; known are "
                                  f"{', '.join(map(str, _NAMES))}")
        data = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [position, position + len(data)]}
        position += len(data)
        chunks.append(data)
    text = _encode(header)
    sha = hashlib.sha256(text)
    for chunk in chunks:
        sha.update(chunk)
    header["__metadata__"]["sha256"] = sha.hexdigest()
    write_atomically(path, [_encode(header), *chunks])


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays, metadata) of a file of `write_arrays`. Errors: CheckpointError naming the file and
    what is wrong with it.
    """
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error

    def damaged(reason: str) -> CheckpointError:
        return CheckpointError(f"{path}: damaged ({reason})")

    length = int.from_bytes(blob[:8], "little")
    if len(blob) < 8 or not 2 <= length <= min(_MAX_HEADER, len(blob) - 8):
        raise damaged("the header's length does not fit the file")
    text, data = blob[8 : 8 + length], memoryview(blob)[8 + length :]
    try:
        header = json.loads(text)
        metadata = header.pop("__metadata__")
        claimed = metadata["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged("the header is not readable, or has no seal") from None
    if not isinstance(claimed, str) or not re.fullmatch("[0-9a-f]{64}", claimed) or text.count(claimed.encode()) != 1:
        raise damaged("the seal is not readable")
    sha = hashlib.sha256(blob[:8] + text.replace(claimed.encode(), _NO_DIGEST.encode()))
    sha.update(data)
    if sha.hexdigest() != claimed:
        raise damaged("SHA-256 does not match: bytes were changed or are missing")
    try:
        return {name: entry_array(entry, data) for name, entry in header.items()}, metadata
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(f"an entry is malformed: {error}") from None


def write_atomically(path: Path, chunks: list[bytes]) -> None:
    """Write bytes so that `path` holds either its old content or all of the new. Errors:
    ResourceError.
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
        temporary.unlink(missing_ok=True)
        raise ResourceError(f"{path}: cannot be written ({error.strerror}); free disk space or "
                            "choose another --run-dir") from error


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run: `last-<step>` (the newest `keep` are kept, so that a damaged one
    has a predecessor) and `best-<step>`.
    """

    folder: Path
    keep: int = 2

    def save(self, state: Any, *, step: int, best: bool = False) -> str:
        """Write `state`; with `best`, also as the best one. Returns its digest. Errors:
        ResourceError; older checkpoints are kept.
        """
        arrays, seal = flatten(state), digest(state)
        metadata = {"format": "jaxcnn 1", "step": str(step), "state_sha256": seal}
        for kind in ("last", "best") if best else ("last",):
            write_arrays(self.folder / f"{kind}-{step:09d}.safetensors", arrays, metadata)
        for path in self._files("last")[: -self.keep] + (self._files("best")[:-1] if best else []):
            path.unlink(missing_ok=True)
        return seal

    def clean(self) -> None:
        """Remove what a killed writer left."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def restore(self, template: Any, *, kind: str = "last", warn=lambda message: None) -> tuple[Any, int] | None:
        """(state, step) of the newest good checkpoint; None if there never was one.

        `template` is a state of the expected structure (shapes will do), or a function that makes
        one from the arrays in the file. A damaged one is reported through `warn`, set aside as
        `<name>.damaged`, and the one before it is used ("last" may fall back to
        "best").
        Errors: CheckpointError if all are damaged, or if the state does not fit `template` (the
        experiment's code has changed).
        """
        # Sorting is stable: of a "last" and a "best" one of the same step the last is tried first.
        files = self._files(kind) if kind != "last" else sorted(self._files("best") + self._files("last"), key=_step_of)
        for path in reversed(files):
            try:
                arrays, metadata = read_arrays(path)
                step = int(metadata["step"])
            except (CheckpointError, KeyError, ValueError) as error:
                warn(f"{error}; falling back to the checkpoint before it")
                if os.access(path.parent, os.W_OK):
                    path.rename(path.with_name(path.name + ".damaged"))
                continue
            return unflatten(template(arrays) if callable(template) else template, arrays, source=str(path)), step
        if files or list(self.folder.glob(f"{kind}-*.damaged")):
            raise CheckpointError(f"{self.folder}: every '{kind}' checkpoint is damaged; start a "
                                  "new run (nothing here was deleted)")
        return None

    def _files(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob(f"{kind}-*.safetensors"))


def _step_of(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def unflatten(template: Any, arrays: dict[str, np.ndarray], *, source: str) -> Any:
    """`arrays` in the structure of `template` (arrays or ShapeDtypeStructs). Errors:
    CheckpointError listing all that differs.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    wanted = {_path(path): leaf for path, leaf in leaves}
    problems = ["missing "
                f"{n}" for n in wanted if n not in arrays] + ["unknown "
                                                              f"{n}" for n in arrays if n not in wanted]
    for name in wanted.keys() & arrays.keys():
        expected, found = jax.eval_shape(_raw, wanted[name]), arrays[name]
        if (expected.shape, expected.dtype) != (found.shape, found.dtype):
            problems.append(f"{name}: {found.dtype}{list(found.shape)} in the file, "
                            f"{expected.dtype}{list(expected.shape)} expected")
    if problems:
        shown = "\n  ".join(sorted(problems)[:20])
        raise CheckpointError(f"{source}: does not fit this experiment ({len(problems)} "
                              f"differences)\n  {shown}")
    return jax.tree_util.tree_unflatten(structure, [_restore(leaf, arrays[name]) for name, leaf in wanted.items()])


def _is_key(leaf: Any) -> bool:
    return jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _restore(leaf: Any, array: np.ndarray) -> Any:
    return jax.random.wrap_key_data(jax.numpy.asarray(array)) if _is_key(leaf) else jax.numpy.asarray(array)


def _path(path: tuple) -> str:
    return "/".join(str(getattr(p, "key", getattr(p, "name", getattr(p, "idx", p)))) for p in path)


def _encode(header: dict) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def entry_array(entry: dict, data: memoryview) -> np.ndarray:
    """The array that one entry of a safetensors header describes, a view of `data`. Errors:
    KeyError, TypeError, ValueError.
    """
    dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("offsets do not fit the shape")
    return np.frombuffer(data[begin:end], dtype).reshape(shape)
