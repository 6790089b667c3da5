"""Hostile files of weights, as `data_attacks` has data sets."""

import io
import pickle
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.weights import pytorch
from jaxcnn.weights.files import read_arrays, read_sealed
from tests.hostile import payloads as p
from tests.hostile.data_attacks import DEEP, GOOD, MIB, Attack


def file(name: str, data: bytes, says: str = "") -> Attack:
    return Attack({name: data}, lambda folder: read_arrays(folder / name), says)


def sealed(data: bytes, says: str) -> Attack:
    name = "last-000000001.safetensors"
    return Attack({name: data}, lambda folder: read_sealed(folder / name), says)


def archive(pickled: bytes, *, numbers: bytes = bytes(16), storages: int = 1) -> bytes:
    """A file as torch.save writes it, with that data.pkl, and so many storages of these numbers."""
    data = {f"a/data/{i}": numbers for i in range(storages)}
    return p.zip_of({"a/data.pkl": pickled, "a/byteorder": b"little", **data})


def tensor(shape: Sequence[int], strides: Sequence[int], *, offset: int = 0) -> bytes:
    """data.pkl of a state dict of one tensor, written by hand."""

    def number(n: int) -> bytes:
        return b"L%dL\n" % n

    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    sizes, steps = (b"(" + b"".join(map(number, x)) + b"t" for x in (shape, strides))
    arguments = b"(" + storage + number(offset) + sizes + steps + b"I00\n(dt"
    return b"(dS'w'\nctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def shared(count: int) -> bytes:
    """A file of so many tensors, each of all the numbers of one storage."""
    one = tensor([2**18], [1])
    body, copies = one[len(b"(dS'w'\n") : -2].replace(b"I4\n", b"I%d\n" % 2**18), b""
    for i in range(count):
        copies += b"S'w%d'\n" % i + body + b"s"
    return archive(b"(d" + copies + b".", numbers=bytes(2**20))


def told(function: str) -> bytes:
    """A pickle that gives a function of the reader other defaults."""
    return f"ctorch._utils\n{function}\n(N(dS'__defaults__'\n(I1\ntstb(d.".encode()


def entry(shape: Any, begin: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def hdf5(make: Callable[[Any, Any], None], says: str) -> Attack:
    """An HDF5 file that h5py writes into the folder; `make(h5py, file)`."""

    def read(folder: Path) -> Any:
        found = read_arrays(folder / "w.h5")
        assert not any(np.any(array == 7) for array in found.values())  # what lies outside
        return found

    def written() -> bytes:
        import h5py  # pyright: ignore[reportMissingImports]

        memory = io.BytesIO()
        with h5py.File(memory, "w") as out:
            make(h5py, out)
        return memory.getvalue()

    return Attack({"w.h5": written}, read, says)  # pyright: ignore[reportArgumentType]


def _external_storage(h5py: Any, out: Any) -> None:
    out.create_dataset("w", (16,), "u1", external=[("../secret.png", 0, 16)])


def _virtual(h5py: Any, out: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("../secret.h5", "w", (4,))
    out.create_virtual_dataset("w", layout, fillvalue=7)


def _links(h5py: Any, out: Any) -> None:
    out["w"] = np.zeros(4, np.float32)
    out["outside"] = h5py.ExternalLink("../secret.h5", "/w")
    out["soft"], out["loop"] = h5py.SoftLink("/w"), h5py.SoftLink("/loop")
    out["group/itself"] = out["/"]


def _terabyte(h5py: Any, out: Any) -> None:
    out.create_dataset("w", (2**20, 2**17), "f4", chunks=(2**10, 2**10))


def _pickled(h5py: Any, out: Any) -> None:
    out["w"] = np.zeros(4, np.float32)
    out.attrs["model_config"] = np.void(p.pickles()["os.system"])
    out["text"] = "__import__('os').system('touch ../canary')"


DAMAGED, ROW = "is damaged|holds a whole object|holds no named", pickle.dumps(pytorch._MAGIC, 2)
HEAD = ROW + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
PICKLES = {
    f"{form} with a pickle of {name}": file(f"w{ending}", data, says)
    for name, payload in p.pickles().items()
    for form, ending, data, says in (
        ("torch zip", ".pth", archive(payload), DAMAGED),
        ("torch row", ".pth", HEAD + payload + pickle.dumps([], 2), DAMAGED),
        ("torch of a pickle alone", ".bin", payload, ".|"),
        ("npz", ".npz", p.zip_of({"w.npy": p.objects(payload)}), "Python objects"),
    )
}
TORCH = {
    "torch tensor of 2^62 numbers": file("w.pth", archive(tensor([2**62], [1])), "swell"),
    "torch tensor of one number 2^40 times": file("w.pth", archive(tensor([2**40], [0])), "swell"),
    "torch tensor of sizes below 0": file(
        "w.pth", archive(tensor([-2, -2], [1, 1])), "more numbers"
    ),
    "torch tensor before its storage": file(
        "w.pth", archive(tensor([4], [1], offset=-4)), "more numbers"
    ),
    "torch tensor of no numbers and 2^70 rows": file(
        "w.pth", archive(tensor([2**70, 0], [1, 1])), "is damaged"
    ),
    "torch tensors that share their numbers": file("w.pth", shared(2000), "swell"),
    "torch bytes of 8 GiB": file(
        "w.pth", archive(b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"."), "is damaged"
    ),
    "torch text of 2^62 bytes": file(
        "w.pth", archive(b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"."), "is damaged"
    ),
    "torch frame of 2^62 bytes": file(
        "w.pth", archive(b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N."), "."
    ),
    "torch memo of 2^32-1": file("w.pth", archive(b"\x80\x02(dr\xff\xff\xff\xff."), "."),
    "torch nested deep": file("w.pth", archive(b"(" * 10**4 + b"t" * 10**4 + b"."), "."),
    "torch lists in lists": file(
        "w.pth",
        archive(
            b"\x80\x02]"
            + b"("
            + b"".join(b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 90))
            + b"e."
        ),
        ".",
    ),
    "torch in a compressed archive": file(
        "w.pth", p.zip_bomb("a/data.pkl", b"", MIB), "compressed"
    ),
    "torch numbers cut short": file("w.pth", archive(tensor([4], [1]), numbers=bytes(3)), "more"),
    "torch storage by the name of a file": file(
        "w.pth", archive(tensor([4], [1]).replace(b"S'0'", b"S'../../../secret.png'")), "is damaged"
    ),
    "torch storage of 4 GB that are not there": file(
        "w.pth", p.claiming(archive(tensor([4], [1])), "a/data/0", 2**32 - 1), "claims"
    ),
    "torch cut short": file("w.pth", archive(tensor([4], [1]))[:-40], "cut short"),
    "npz that swells": file(
        "w.npz", p.zip_bomb("w.npy", p.npy(f"({MIB}, 1024, 1024)"), MIB), "swell"
    ),
    "npz with names of paths": file("w.npz", p.zip_of({"../../w.npy": GOOD["label.npy"]}), ""),
    "npz of 2^62 numbers": file("w.npz", p.zip_of({"w.npy": p.npy(f"({2**62},)")}), "declares"),
    "a place in the net": Attack(
        {}, lambda f: read_arrays("https://127.0.0.1:9/w.pth"), "no file 'https:"
    ),
    "a pickle named .safetensors": file("w.safetensors", p.pickles()["eval"], "ends in|is no"),
    "a pickle named .h5": file("w.h5", p.pickles()["os.system"], "ends in"),
}
LENGTH = "header's length|damaged|no whole file"
SAFE = {
    "safetensors header of 2^63": (p.safetensors({}, length=2**63), LENGTH),
    "safetensors header of 2^39": (p.safetensors({}, length=2**39), LENGTH),
    "safetensors header longer than the file": (p.safetensors({}, length=99), LENGTH),
    "safetensors nested deep": (p.safetensors(b'{"a":' + DEEP), "not readable"),
    "safetensors that is a list": (p.safetensors(b'{"a":1}]'), "not readable"),
    "safetensors of 5000 digits": (p.safetensors(b'{"a":' + b"9" * 5000 + b"}"), "not readable"),
    "safetensors entries that overlap": (
        p.safetensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
        "two entries",
    ),
    "safetensors with a hole": (
        p.safetensors({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
        "two entries",
    ),
    "safetensors with more behind": (
        p.safetensors({"a": entry([1], 0, 4)}, bytes(12)),
        "two entries",
    ),
    "safetensors shape that overflows": (
        p.safetensors({"a": entry([2**32, 2**32], 0, 0)}),
        "offsets do not fit",
    ),
    "safetensors shape of 0 and 10^400": (
        p.safetensors({"a": entry([0, 10**400], 0, 0)}),
        "malformed",
    ),
    "safetensors shape below 0": (
        p.safetensors({"a": entry([-2, -2], 0, 16)}, bytes(16)),
        "malformed",
    ),
    "safetensors shape of floats": (
        p.safetensors({"a": entry([4.0], 0, 16)}, bytes(16)),
        "malformed",
    ),
    "safetensors shape of 10^4 axes": (
        p.safetensors({"a": entry([1] * 10**4, 0, 4)}, bytes(4)),
        "malformed",
    ),
    "safetensors offsets below 0": (
        p.safetensors({"a": entry([1], -4, 0)}, bytes(4)),
        "offsets do not fit",
    ),
    "safetensors offsets of text": (p.safetensors({"a": entry([1], "0", "4")}), "malformed"),
    "safetensors offsets of NaN": (
        p.safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[NaN,NaN]}}'),
        "malformed|fit",
    ),
    "safetensors of objects": (p.safetensors({"a": entry([1], 0, 8, "O")}, bytes(8)), "malformed"),
    "safetensors names twice": (
        p.safetensors(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":0}'),
        "twice|not",
    ),
    "safetensors metadata of a list": (p.safetensors({"__metadata__": [1]}), "not readable"),
    "safetensors entry of a number": (p.safetensors({"a": 1}), "malformed"),
}
SAFETENSORS = {
    **{name: file("w.safetensors", *attack) for name, attack in SAFE.items()},
    **{f"checkpoint: {name}": sealed(data, "damaged") for name, (data, _) in SAFE.items()},
}
HDF5 = {
    "hdf5 with its numbers in another file": hdf5(_external_storage, "other files"),
    "hdf5 that is a view of another file": hdf5(_virtual, "other files"),
    "hdf5 with links to other files": hdf5(_links, ""),
    "hdf5 of 512 GiB": hdf5(_terabyte, "swell"),
    "hdf5 with pickles and code as text": hdf5(_pickled, ""),
}
ATTACKS = {**PICKLES, **TORCH, **SAFETENSORS}
DEFAULTS = {name: told(name) for name in pytorch._REBUILDERS}
