"""Files as torch.save writes them, made without PyTorch: a pickle that calls its functions by name,
and the numbers beside it (zip archive) or behind it (the form before torch 1.6).
"""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from types import ModuleType
from unittest import mock

import numpy as np

TORCH, UTILS = ModuleType("torch"), ModuleType("torch._utils")


class FloatStorage:
    pass


class LongStorage:
    pass


def _rebuild_tensor_v2():
    pass


for where, thing in ((TORCH, FloatStorage), (TORCH, LongStorage), (UTILS, _rebuild_tensor_v2)):
    thing.__module__ = where.__name__
    setattr(where, thing.__name__, thing)


class Storage:
    """The numbers of a tensor."""

    def __init__(self, array):
        self.array = np.ascontiguousarray(array)


class Tensor:
    """Pickles as a tensor does."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def __reduce__(self):
        steps = np.zeros(self.array.shape, np.int8).strides  # of one byte: in elements
        more = (0, self.array.shape, steps, False, OrderedDict())
        return _rebuild_tensor_v2, (Storage(self.array), *more)


class Pickler(pickle.Pickler):
    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def persistent_id(self, thing):
        if not isinstance(thing, Storage):
            return None
        self.storages.append(thing.array)
        kind = LongStorage if thing.array.dtype == np.int64 else FloatStorage
        return "storage", kind, str(len(self.storages) - 1), "cpu", thing.array.size


def tensors(tree):
    """The tree with tensors in the places of arrays."""
    if isinstance(tree, dict):
        return OrderedDict((name, tensors(value)) for name, value in tree.items())
    if isinstance(tree, list):
        return [tensors(value) for value in tree]
    return Tensor(tree) if isinstance(tree, np.ndarray) else tree


def dump(thing):
    """(pickle, its storages)"""
    file = io.BytesIO()
    with mock.patch.dict(sys.modules, {"torch": TORCH, "torch._utils": UTILS}):
        pickler = Pickler(file)
        pickler.dump(tensors(thing))
    return file.getvalue(), pickler.storages


def save(tree, path, *, zipped=True):
    """As torch.save(tree, path) does; arrays of float32 and int64."""
    pickled, storages = dump(tree)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
            archive.writestr("archive/byteorder", "little")
            for i, array in enumerate(storages):
                archive.writestr(f"archive/data/{i}", array.tobytes())
        return
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    parts = [dump(part)[0] for part in head]
    keys = dump([str(i) for i in range(len(storages))])[0]
    numbers = [x for a in storages for x in (a.size.to_bytes(8, "little"), a.tobytes())]
    path.write_bytes(b"".join([*parts, pickled, keys, *numbers]))
