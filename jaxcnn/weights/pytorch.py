"""The arrays of a file of `torch.save`, read without PyTorch and without running any code of it.

Such a file is a pickle, in which a tensor is a call of a function of PyTorch on a storage, an
offset, a shape and strides, and a storage is a name. Since torch 1.6 it lies in a zip archive as
data.pkl, and the storages beside it as data/<name>; before, the pickle came in a row of pickles,
and the storages followed one another behind it. Whatever else the pickle names (a class of
somebody's, a function) becomes an empty `Unknown` and is never imported.
"""

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxcnn.data.files.archives import open_zip, require_unswollen
from jaxcnn.errors import DataError
from jaxcnn.weights.kinds import refused
from jaxcnn.weights.prefixes import NO_WEIGHTS

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file before zip archives
_STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(bool),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "ComplexDoubleStorage": np.dtype(np.complex128),
}


class Storage(NamedTuple):
    """The numbers that tensors look into: its name in the file and what they are."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Unknown(dict):
    """What stands for an object of a class or a result of a function that is not known here."""

    source = ""

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def add(self, _: Any) -> None:
        pass


def read_pytorch(path: Path) -> dict[str, np.ndarray]:
    """Its arrays by name, "." between the keys of dicts in one another ("state_dict.fc.weight").

    Errors: DataError for a damaged file, one that holds a whole module instead of its weights, or
    tensors of a kind that is not known (quantized, sparse).
    """
    try:
        if zipfile.is_zipfile(path):
            with open_zip(path) as archive:
                return _named(path, *_open_archive(archive))
        return _named(path, *_open_row(path.read_bytes()))
    except DataError:
        raise
    except MemoryError:
        raise refused(path, "is damaged (it asks for more memory than there is)", _AGAIN) from None
    except Exception as error:  # a pickle can go wrong in any way; none of them is a bug of ours
        why = f"{type(error).__name__}: {error}"[:200]
        raise refused(path, f"is damaged, or not of torch.save ({why})", _AGAIN) from None


_AGAIN = "fetch it again, or write it again: torch.save(model.state_dict(), path)"


def _open_archive(archive: zipfile.ZipFile) -> tuple[Any, Callable[[Storage], Any]]:
    """(what was saved, the bytes of a storage) of a zip archive."""
    names = set(archive.namelist())
    pickled = min((name for name in names if name.rpartition("/")[2] == "data.pkl"), key=len)
    folder = pickled.removesuffix("data.pkl")

    def read(name: str) -> bytes:
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed, which torch.save does not do")
        return archive.read(name)

    if f"{folder}byteorder" in names and read(f"{folder}byteorder") == b"big":
        raise ValueError("its numbers are big-endian")
    saved = Unpickler(io.BytesIO(read(pickled))).load()
    return saved, lambda storage: read(f"{folder}data/{storage.key}")


def _open_row(blob: bytes) -> tuple[Any, Callable[[Storage], Any]]:
    """The same of a row of pickles."""
    file = io.BytesIO(blob)
    if Unpickler(file).load() != _MAGIC:
        raise ValueError("a pickle of something else")
    _, system = Unpickler(file).load(), Unpickler(file).load()
    if not system.get("little_endian", True):
        raise ValueError("its numbers are big-endian")
    unpickler = Unpickler(file)
    saved, keys = unpickler.load(), Unpickler(file).load()
    at, places, view = file.tell(), {}, memoryview(blob)
    for key in keys:
        size = int.from_bytes(view[at : at + 8], "little") * unpickler.storages[key].dtype.itemsize
        places[key] = view[at + 8 : at + 8 + size]
        at += 8 + size
    return saved, lambda storage: places[storage.key]


# The one written in Python keeps its memo in a dict, so that no number in a file asks for memory.
class Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Makes tensors and plain containers; imports nothing."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    # A state is never set: what is wanted of a file are names and tensors, and this instruction
    # could change the functions below. Bytes of a claimed length are not asked for either.
    dispatch = {
        code: act
        for code, act in pickle._Unpickler.dispatch.items()
        if code != pickle.BYTEARRAY8[0]  # pyright: ignore[reportAttributeAccessIssue]
    } | {pickle.BUILD[0]: lambda self: self.stack.pop()}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global name of the pickle."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("collections", "defaultdict"):
            return lambda *_: {}
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch._utils" and name in _REBUILDERS:
            return _REBUILDERS[name]
        if (module, name) == ("torch._tensor", "_rebuild_from_type_v2"):
            return _rebuild_from_type
        return type("Unknown", (Unknown,), {"source": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        """A storage; for the source text of a class, the class."""
        kind, what, *more = pid
        if kind == "module":
            return what
        key, _, size = more[:3]
        dtype = what if isinstance(what, np.dtype) else np.dtype(np.uint8)
        return self.storages.setdefault(key, Storage(key, dtype, int(size)))


def _rebuild_tensor(
    storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> Tensor:
    return Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _rebuild_from_type(function: Callable[..., Any], _: Any, arguments: tuple, *__: Any) -> Any:
    known = function in _REBUILDERS.values()
    return function(*arguments) if known else Unknown()


_REBUILDERS = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_parameter": _rebuild_parameter,
    "_rebuild_parameter_with_state": _rebuild_parameter,
}


def _leaves(saved: Any, seen: set[int], name: str = "") -> Iterator[tuple[str, Any]]:
    """(name, tensor or unknown object) of what was saved; of a dict in two places, once."""
    if isinstance(saved, Tensor | Unknown):
        yield name, saved
    elif isinstance(saved, dict | list | tuple) and id(saved) not in seen:
        seen.add(id(saved))
        items = saved.items() if isinstance(saved, dict) else enumerate(saved)
        for key, value in items:
            yield from _leaves(value, seen, f"{name}.{key}" if name else str(key))


def _named(path: Path, saved: Any, read: Callable[[Storage], Any]) -> dict[str, np.ndarray]:
    """The arrays of what was saved."""
    leaves = dict(_leaves(saved, set()))
    tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
    unknown = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Unknown)}
    for name, leaf in unknown.items():
        if leaf.source.startswith("torch._utils._rebuild"):
            raise refused(
                path,
                f"holds {name!r} as {leaf.source}, a kind of tensor that is not read",
                "save plain tensors (dequantize() or to_dense() them first)",
            )
    if "" in tensors or all(NO_WEIGHTS.search(name) for name in tensors):
        what = "holds no named tensors"
        if unknown:
            name, leaf = next(iter(unknown.items()))
            place = f"its {name!r} is" if name else "it is"
            what = f"holds a whole object of Python ({place} a {leaf.source}); none is made here"
        raise refused(path, what, "save the weights alone: torch.save(model.state_dict(), path)")
    asked = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in tensors.values())
    require_unswollen(path.stat().st_size, asked)  # tensors may share numbers, and each is copied
    blocks: dict[str, np.ndarray] = {}
    return {name: _array(name, tensor, read, blocks) for name, tensor in tensors.items()}


def _array(
    name: str,
    tensor: Tensor,
    read: Callable[[Storage], Any],
    blocks: dict[str, np.ndarray],
) -> np.ndarray:
    """A tensor's numbers. Errors: ValueError where the file does not hold them."""
    storage, offset, shape, strides = tensor
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    if storage.key not in blocks:
        blocks[storage.key] = np.frombuffer(read(storage), np.uint8)
    numbers = blocks[storage.key]
    size, item = math.prod(shape), storage.dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides)) < 0 or (last + 1) * item > numbers.size:
        raise ValueError(f"{name} asks for more numbers than there are")
    if size * item > numbers.size:
        raise ValueError(f"{name} has more elements than its storage")
    view = numbers[offset * item : (last + 1) * item].view(storage.dtype)
    steps = [step * item for step in strides]
    return np.lib.stride_tricks.as_strided(view, shape, steps).copy()
