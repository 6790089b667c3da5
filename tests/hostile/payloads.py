"""Hostile bytes: pickles that act when they are loaded, archives that swell or lie, pictures that
claim what they are not.
"""

import bz2
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

from PIL import Image

GIB = 2**30
FOUR = 2**32 - 1


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self.call


def pickles() -> dict[str, bytes]:
    """Pickles that touch a file "canary" beside the folder of data, one way each."""
    import builtins
    import os
    import subprocess

    shell, code = "touch ../canary", "open('../canary', 'w').close()"
    return {
        "os.system": pickle.dumps(Call(os.system, shell), 2),
        "eval": pickle.dumps(Call(builtins.eval, code), 4),
        "exec": pickle.dumps(Call(builtins.exec, code), 0),
        "subprocess": pickle.dumps(Call(subprocess.Popen, shell, -1, None, None, None), 2),
        "INST": b"(S'touch ../canary'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'touch ../canary'\no.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(X\x0f\0\0\0touch ../canaryt\x81.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ftouch ../canary\x85R.",
        "nested": pickle.dumps({"a": [OrderedCall(shell)]}, 2),
    }


def OrderedCall(shell: str) -> dict[str, Any]:
    """A state dict of which one entry acts."""
    import os

    return {"weight": Call(os.system, shell)}


def zeros(size: int) -> bytes:
    """A raw deflate stream of so many MiB of zeros: a few kB, made at once."""
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = block.compress(bytes(2**20)) + block.flush(zlib.Z_FULL_FLUSH)
    return part * size + block.flush()


def gzip_bomb(head: bytes, mib: int) -> bytes:
    """`head`, stored, and so many MiB of zeros behind it."""
    stored = struct.pack("<BHH", 0, len(head), len(head) ^ 0xFFFF) + head
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + stored + zeros(mib) + bytes(8)


def tar_bomb(name: str, mib: int, count: int) -> bytes:
    """A compressed tar archive of so many files of so many MiB of zeros, each small enough."""
    head = tar_of(name, b"", size=mib * 2**20)[:512]
    stored = struct.pack("<BHH", 0, len(head), len(head) ^ 0xFFFF) + head
    ends = zeros(0)
    part = stored + zeros(mib)[: -len(ends)]
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + part * count + zeros(1) + bytes(8)


def zip_of(members: Mapping[str, bytes], *, store: bool = True) -> bytes:
    """A zip archive; names are taken as they are."""
    file = io.BytesIO()
    how = zipfile.ZIP_STORED if store else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def zip_bomb(name: str, head: bytes, mib: int) -> bytes:
    """A zip archive of one member that swells to `head` and so many MiB of zeros; its CRC-32 is
    wrong, which nobody sees who does not read it to the end.
    """
    packed = struct.pack("<BHH", 0, len(head), len(head) ^ 0xFFFF) + head + zeros(mib)
    size = len(head) + mib * 2**20
    info = struct.pack("<HHHHHIII", 20, 0, 8, 0, 0, 0, len(packed), size)
    local = b"PK\x03\x04" + info + struct.pack("<HH", len(name), 0) + name.encode()
    entry = b"PK\x01\x02" + struct.pack("<H", 20) + info
    entry += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name.encode()
    body = local + packed
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(entry), len(body), 0)
    return body + entry + b"PK\x05\x06" + end


def claiming(archive: bytes, name: str, size: int) -> bytes:
    """The zip archive whose directory says that the member `name` takes, and is, `size` bytes."""
    at = archive.rindex(name.encode()) - 46  # the directory follows all members
    return archive[: at + 20] + struct.pack("<II", size, size) + archive[at + 28 :]


def sharing(archive: bytes, count: int) -> bytes:
    """The zip archive of one member under `count` names, each for the same bytes."""
    begin = archive.rindex(b"PK\x01\x02")
    entry, end = archive[begin:-22], archive[-22:]
    entries = [entry[:46] + b"%04d" % i + entry[50:] for i in range(count)]
    told = struct.pack("<HHII", count, count, count * len(entry), begin)
    return archive[:begin] + b"".join(entries) + end[:8] + told + end[20:]


def npy(shape: str, dtype: str = "'|u1'", *, version: int = 1, body: bytes = b"") -> bytes:
    """A .npy file whose header says what is given, literally."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


def objects(payload: bytes) -> bytes:
    """A .npy file of one Python object: the pickle follows the header."""
    return npy("(1,)", "'|O'", body=payload)


def tar_of(name: str, data: bytes, *, size: int | None = None, kind: bytes = b"0") -> bytes:
    """A tar archive of one member, a link to `data` where `kind` says so; `size` as it claims."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data) if size is None else size
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname, info.size = data.decode(), 0
        data = b""
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512) + bytes(1024)


def sparse_tar(name: str, size: int) -> bytes:
    """A tar archive of a sparse file (GNU's form) of so many bytes, none of which is stored."""
    info = tarfile.TarInfo(name)
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    head[156:157] = b"S"
    head[124:136] = b"00000000000\0"
    head[386:410] = f"{size:011o}\0".encode() + b"00000000000\0"
    head[483:495] = f"{size:011o}\0".encode()
    head[148:156] = b"        "
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    return bytes(head) + bytes(1024)


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file; `header` is JSON, or its text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def png_chunk(kind: bytes, data: bytes, *, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack(">I", size) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *chunks: bytes, pixels: bytes = b"", bits: int = 8) -> bytes:
    """A PNG whose header claims that size, of greys."""
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = [png_chunk(b"IHDR", head), *chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_bomb(side: int) -> bytes:
    """A PNG of side x side black pixels, all of which are there."""
    mib = side * (side + 1) // 2**20 + 1
    return png_of(side, side, pixels=b"\x78\x9c" + zeros(mib) + bytes(4))


def tiff(entries: list[tuple[int, int, int, int]], *, again: int = 0, body: bytes = b"") -> bytes:
    """A little-endian TIFF of (tag, type, count, value); the next directory is at `again`."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return head + packed + struct.pack("<I", again) + body


def grey_tiff(width: int, height: int, **tags: int) -> list[tuple[int, int, int, int]]:
    """The entries of a TIFF of greys without compression."""
    known = {"bits": 258, "compression": 259, "kind": 262, "strips": 273, "samples": 277}
    known |= {"rows": 278, "counts": 279}
    values = {"bits": 8, "compression": 1, "kind": 1, "strips": 8, "samples": 1, "rows": height}
    values |= {"counts": width * height % 2**32, **tags}
    sizes = [(256, 4, 1, width), (257, 4, 1, height)]
    return sizes + [(known[name], 4, 1, value) for name, value in values.items()]


def saved(form: str, *, mode: str = "RGB", size: tuple[int, int] = (12, 10)) -> bytes:
    """A picture as Pillow writes that format."""
    file = io.BytesIO()
    Image.new(mode, size, 7 if mode in ("L", "P") else (1, 2, 3)).save(file, form)
    return file.getvalue()


def gif(width: int, height: int, frame: tuple[int, int], *, left: int = 0) -> bytes:
    """A GIF whose first frame claims another size than the screen."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF0, 0, 0) + bytes(6)
    head += b"," + struct.pack("<HHHHB", left, 0, *frame, 0)
    return head + b"\x02\x02\x44\x01\x00;"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 10\n%%EndComments\nshowpage\n%%EOF\n"
NO_PICTURES = {
    "eps": EPS,
    "eps dos": b"\xc5\xd0\xd3\xc6" + struct.pack("<IIIIIIHH", 32, len(EPS), 0, 0, 0, 0, 0, 0) + EPS,
    "ps": b"%!PS-Adobe-3.0\n/f (../canary) (w) file def\nshowpage\n",
    "pdf": b"%PDF-1.4\n1 0 obj<</OpenAction<</S/Launch/F(touch)>>>>endobj\n%%EOF\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(2) + struct.pack("<4hH", 0, 0, 12, 10, 72) + bytes(50),
    "emf": struct.pack("<II", 1, 88) + bytes(32) + b" EMF" + bytes(60),
    "fli": struct.pack("<IHHHHHH", 128, 0xAF12, 1, 12, 10, 8, 3) + bytes(114),
    "xpm": b'/* XPM */\nstatic char *a[] = {"1 1 1 1", "a c #000", "a"};\n',
    "html": b"<html><img src='http://127.0.0.1:9/x'></html>",
    "msl": b"<?xml version='1.0'?><image><read filename='/etc/passwd'/></image>",
    "mvg": b"push graphic-context\nfill 'url(https://127.0.0.1:9/\"|touch ../canary\")'\n",
    "fits": b"SIMPLE  =                    T".ljust(80) + b"NAXIS   = 99999".ljust(80),
    "psd": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 30000, 30000, 8, 3) + bytes(12),
    "ico": b"\0\0\1\0\1\0\0\0\0\0\1\0\x20\0" + struct.pack("<II", FOUR, 22),
    "dds": b"DDS " + struct.pack("<7I", 124, 0x1007, FOUR, FOUR, 0, 0, 0) + bytes(96),
    "icns": b"icns" + struct.pack(">I", FOUR) + b"ic10" + struct.pack(">I", FOUR),
    "sgi": b"\x01\xda\x01\x01\x00\x03" + struct.pack(">HHH", 65535, 65535, 4) + bytes(500),
    "pcx": b"\x0a\x05\x01\x08" + struct.pack("<HHHH", 0, 0, 65535, 65535) + bytes(116),
    "tga": b"\0\0\x0a" + bytes(9) + struct.pack("<HH", 65535, 65535) + b"\x18\0",
    "pickle": pickles()["os.system"],
    "zip": zip_of({"../canary": b"1"}),
    "bz2": bz2.compress(bytes(2**20)),
    "gzip": gzip.compress(b"1"),
}
