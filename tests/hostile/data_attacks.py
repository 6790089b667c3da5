"""Hostile data sets, one an entry: the files of a folder, how they are read, and what the error
says, "" where they are read and what comes of it is harmless.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.commands.predict import read_inputs
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.files.coco import Coco
from jaxcnn.data.files.documents import Texts
from jaxcnn.data.files.idx import Idx
from jaxcnn.data.files.npz import Npz
from jaxcnn.data.files.series import Series
from jaxcnn.data.files.text_lines import TextLineFolder
from jaxcnn.data.files.voc import Voc
from jaxcnn.data.files.yolo import Yolo
from tests.data.fuzz import COCO, COMMON, LABELS, TS, XML, idx, png, read_whole
from tests.hostile import payloads as p


class Attack(NamedTuple):
    """`files` of the folder "set", beside which lies "secret.png"; `read(folder)`; `says`, a
    regular expression for the message of the error.
    """

    files: dict[str, bytes]
    read: Callable[[Path], Any]
    says: str


def folder_of_images(path: Path) -> int:
    return read_whole(Folder(str(path), image_size=(8, 8), eval_fraction=0.0))


def image(data: bytes, says: str = "cannot be read as an image", name: str = "1.png") -> Attack:
    return Attack({f"a/{name}": data, "b/1.png": png()}, folder_of_images, says)


def arrays(data: bytes, says: str, **fields: Any) -> Attack:
    def read(path: Path) -> int:
        return read_whole(Npz(str(path / "a.npz"), eval_fraction=0.0, **fields))

    return Attack({"a.npz": data}, read, says)


def coco(says: str, *, strict: bool = True, **changes: Any) -> Attack:
    """A COCO file with changes: entries of the image by `image_`, of the annotation by `object_`,
    of the category by `category_`.
    """
    content: dict[str, Any] = json.loads(json.dumps(COCO))
    content["annotations"] = content["annotations"][:1]
    places = {
        "image": content["images"][0],
        "object": content["annotations"][0],
        "category": content["categories"][0],
    }
    for name, value in changes.items():
        where, _, key = name.partition("_")
        places[where][key] = value
    text = json.dumps(content).replace('"400 digits"', "9" * 400).encode()
    return coco_file(text, says, strict=strict)


def coco_file(text: bytes, says: str, *, strict: bool = True) -> Attack:
    fields = COMMON | ({"invalid": "error"} if strict else {})
    entries = ("boxes", "instance_masks", "segmentation", "points")

    def read(path: Path) -> int:
        return read_whole(Coco(str(path / "a.json"), entries=entries, **fields))

    return Attack({"a.json": text, "1.png": png()}, read, says)


def voc(xml: bytes, says: str, *, listed: bytes = b"1\n", strict: bool = True) -> Attack:
    fields = COMMON | ({"invalid": "error"} if strict else {})
    files = {"JPEGImages/1.png": png(), "Annotations/1.xml": xml}
    files |= {"ImageSets/Main/train.txt": listed}
    return Attack(files, lambda f: read_whole(Voc(str(f), eval="", names=(), **fields)), says)


def yolo(
    says: str, *, yaml: bytes = b"names: [cat]\n", labels: bytes = b"0 .5 .5 .4 .4\n"
) -> Attack:
    files = {"images/1.png": png(), "labels/1.txt": labels, "data.yaml": yaml}
    return Attack(files, lambda f: read_whole(Yolo(str(f), **COMMON)), says)


def lines(text: bytes, says: str, *, strict: bool = True) -> Attack:
    fields = COMMON | ({"invalid": "error"} if strict else {})
    files = {"1.png": png(), "labels.txt": text}
    return Attack(files, lambda f: read_whole(TextLineFolder(str(f), **fields)), says)


def texts(name: str, text: bytes, says: str) -> Attack:
    def read(path: Path) -> int:
        return read_whole(Texts(str(path / name), eval_fraction=0.0, length=4))

    return Attack({name: text}, read, says)


def series(name: str, data: bytes, says: str) -> Attack:
    return Attack({name: data}, lambda f: read_whole(Series("T", str(f / name))), says)


def inputs(data: bytes, says: str = "cannot be read as .npy") -> Attack:
    return Attack({"x.npy": data}, lambda f: read_inputs([f"image={f / 'x.npy'}"]), says)


def index(x: bytes, says: str) -> Attack:
    def read(path: Path) -> int:
        return read_whole(Idx(str(path / "x"), str(path / "y"), eval_fraction=0.0))

    return Attack({"x": x, "y": idx(LABELS)}, read, says)


def entities(depth: int) -> bytes:
    """XML whose text swells tenfold with each entity."""
    more = b"".join(b'<!ENTITY a%d "%s">' % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, depth))
    head = b'<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a0 "ha">' + more + b"]>"
    return head + XML.replace(b"cat", b"&a%d;" % (depth - 1))


def external(what: bytes) -> bytes:
    return b"<!DOCTYPE annotation [<!ENTITY a " + what + b">]>" + XML.replace(b"cat", b"&a;")


BIG = struct.pack(">3I", p.FOUR, p.FOUR, p.FOUR)
IMAGE = p.npy("(5, 6, 4)", body=bytes(120))
GOOD = {"image.npy": IMAGE, "label.npy": p.npy("(5,)", body=bytes(5))}
MIB = 300  # more than is ever believed of a bomb
DEEP = b"[" * 100_000

PICKLED = {
    f"npz {array}.npy is a pickle of {name}": arrays(
        p.zip_of(GOOD | {f"{array}.npy": p.objects(data)}), "Python objects"
    )
    for array in ("image", "label")
    for name, data in p.pickles().items()
}
ARRAYS = {
    "npz objects within a structure": arrays(
        p.zip_of(GOOD | {"image.npy": p.npy("(1,)", "[('a', '|O'), ('b', '|u1')]", body=bytes(9))}),
        "Python objects",
    ),
    "npz shape of 2^32-1": arrays(
        p.zip_of(GOOD | {"image.npy": p.npy(f"({p.FOUR}, {p.FOUR}, 4)", body=bytes(9))}), "declares"
    ),
    "npz shape below 0": arrays(
        p.zip_of(GOOD | {"image.npy": p.npy("(-5, -6, 4)", body=bytes(120))}), "declares"
    ),
    "npz shape without examples, of sizes that no array has": arrays(
        p.zip_of(GOOD | {"image.npy": p.npy(f"(0, {10**30}, 4)")}), "has shape|declares"
    ),
    "npz header of brackets": arrays(
        p.zip_of(GOOD | {"image.npy": p.npy("(" * 9000 + ")" * 9000, body=bytes(9))}),
        "cannot be read as .npz",
    ),
    "npz header with code": arrays(
        p.zip_of(GOOD | {"image.npy": p.npy("__import__('os').system('touch ../canary')")}),
        "cannot be read as .npz",
    ),
    "npz version 3": arrays(
        p.zip_of(GOOD | {"image.npy": p.npy("(5, 6, 4)", version=3, body=bytes(120))}), "version"
    ),
    "npz that swells": arrays(
        p.zip_bomb("image.npy", p.npy(f"({MIB}, 1024, 1024)"), MIB), "swell", label=""
    ),
    "npz member of 4 GB that are not there": arrays(
        p.claiming(
            p.zip_of(GOOD | {"image.npy": p.npy(f"({2**32 - 1 - 67},)")}), "image.npy", 2**32 - 1
        ),
        "claims",
    ),
    "npz header that swells": arrays(
        p.zip_bomb("image.npy", p.npy("", version=2)[:8] + struct.pack("<I", 2**32 - 1), MIB),
        "swell",
        label="",
    ),
    "npz with names of paths": arrays(
        p.zip_of({"../image.npy": IMAGE, "/etc/image.npy": IMAGE, "..\\label.npy": IMAGE}),
        "no array 'image'",
    ),
    "npz cut short": arrays(p.zip_of(GOOD)[:-30], "cannot be read as .npz"),
    "npy of a pickle for predict": inputs(p.objects(p.pickles()["os.system"])),
    "a pickle alone for predict": inputs(p.pickles()["os.system"]),
    "npy for predict that claims 2^40 numbers": inputs(p.npy(f"({2**20}, {2**20})", body=b"1")),
    "npy for predict of nothing": inputs(b""),
    "npz for predict": inputs(p.zip_of(GOOD)),
    "idx of 2^32-1 three times": index(b"\0\0\x08\x03" + BIG + bytes(99), "too big|declares"),
    "idx of 255 axes": index(b"\0\0\x08\xff" + BIG * 85, "shape|declares|dimensions|axes"),
    "idx that swells": index(
        p.gzip_bomb(b"\0\0\x08\x03" + struct.pack(">3I", MIB, 1024, 1024), MIB), "swell"
    ),
    "idx that swells to more than it declares": index(
        p.gzip_bomb(idx(np.zeros((5, 6, 4))), MIB), "more"
    ),
    "idx that is a pickle": index(p.pickles()["os.system"], "cannot be read as IDX|IDX"),
}
PICTURES = {
    f"{name} named {ending}": image(data, name=f"1{ending}")
    for name, data in p.NO_PICTURES.items()
    for ending in (".png", ".jpg")
} | {
    "png of 50000 x 50000": image(p.png_of(50000, 50000), "is not read|perhaps a decompression"),
    "png of 13300 x 13300, all there": image(p.png_bomb(13300), "at most"),
    "png of 2^31-1": image(p.png_of(2**31 - 1, 2**31 - 1), "at most"),
    "png of no size": image(p.png_of(0, 0)),
    "png whose text swells": image(
        p.png_of(12, 10, p.png_chunk(b"zTXt", b"a\0\0\x78\x9c" + p.zeros(MIB)))
    ),
    "png whose profile swells": image(
        p.png_of(12, 10, p.png_chunk(b"iCCP", b"a\0\0\x78\x9c" + p.zeros(MIB)))
    ),
    "png with a chunk of 2^31": image(p.png_of(12, 10, p.png_chunk(b"tEXt", b"a", length=2**31))),
    "png cut short": image(png()[:60]),
    "gif with a frame of 65535": image(p.gif(12, 10, (65535, 65535)), "at most|cannot be read"),
    "gif with a frame beside its screen": image(p.gif(12, 10, (12, 10), left=60000), "."),
    "gif cut short": image(p.saved("GIF", mode="P")[:30]),
    "tiff of 65535 x 65535": image(p.tiff(p.grey_tiff(65535, 65535)), "at most"),
    "tiff with a tag of 2^32-1 values": image(
        p.tiff([*p.grey_tiff(12, 10), (700, 1, p.FOUR, 8)], body=bytes(200)), ""
    ),
    "tiff with its numbers outside": image(
        p.tiff(p.grey_tiff(12, 10, strips=2**31), body=bytes(200))
    ),
    "tiff whose directory follows itself": image(
        p.tiff(p.grey_tiff(12, 10), again=8, body=bytes(200)), ""
    ),
    "tiff of 2^31 samples": image(p.tiff(p.grey_tiff(12, 10, samples=2**31), body=bytes(200))),
    "tiff of 60000 rows in a strip": image(
        p.tiff([*p.grey_tiff(8000, 8000, rows=60000, compression=5)], body=bytes(20))
    ),
    "bmp of 2^31": image(
        b"BM"
        + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, *6 * [0]),
        "at most",
    ),
    "jpeg of 65535 x 65535": image(
        p.saved("JPEG").replace(b"\x08\0\x0a\0\x0c\x03", b"\x08\xff\xff\xff\xff\x03"), "at most"
    ),
    "jpeg cut short": image(p.saved("JPEG")[:300]),
    "jpeg 2000 of 2^32-1": image(
        p.saved("JPEG2000").replace(b"\0\0\0\x0a\0\0\0\x0c", b"\xff" * 8), "."
    ),
    "webp of 16384 x 16384": image(
        b"RIFF"
        + struct.pack("<I", 30)
        + b"WEBPVP8X\x0a\0\0\0"
        + bytes(4)
        + b"\xff\x3f\0" * 2
        + bytes(20),
        ".",
    ),
    "ppm of 10^400": image(b"P6 " + b"9" * 400 + b" 9 255 "),
    "ppm of 10^8": image(b"P6 99999999 99999999 255 ", "at most"),
    "pfm of what is no number": image(b"Pf 12 10 nan " + bytes(480)),
}

OUT = "lies outside|outside"
TREES = {
    "coco names a file above": coco(OUT, image_file_name="../secret.png"),
    "coco names a file by its whole path": coco(OUT, image_file_name="{outside}/secret.png"),
    "coco names a file with backslashes": coco(OUT, image_file_name="..\\secret.png"),
    "coco names a file with percents": coco("no such image", image_file_name="%2e%2e/secret.png"),
    "coco names a file through a folder": coco(OUT, image_file_name="x/../../secret.png"),
    "coco names the passwords": coco(OUT, image_file_name="../../../../../../etc/passwd"),
    "coco names a file with a null": coco("no such image", image_file_name="1.png\0.jpg"),
    "coco names a file of 10^5 letters": coco("no such image", image_file_name="a" * 10**5),
    "coco names a file of 10^5 parts": coco("no such image", image_file_name="a/" * 10**5 + "b"),
    "a list names a file above": lines(b"../secret.png\tword\n", OUT),
    "a list names a quoted file above": lines(b'"../secret.png", "word"\n', OUT),
    "a list names a file above by blanks": lines(b"../secret.png word\n", OUT),
    "voc names a file above": voc(
        XML.replace(b"1.png", b"../../secret.png"), "", listed=b"../../secret\n", strict=False
    ),
    "voc lists a file above": voc(XML, "no image", listed=b"../../secret.png\n"),
}
COUNTS = "run lengths|of size"
TEXTS = {
    "coco mask of 30000 x 30000": coco(
        "of size", object_segmentation={"size": [30000, 30000], "counts": [0, 9 * 10**8]}
    ),
    "coco mask of 10^6 x 10^6": coco(
        "of size", object_segmentation={"size": [10**6, 10**6], "counts": [0, 10**12]}
    ),
    "coco mask of 10^400 pixels": coco(
        COUNTS, object_segmentation={"size": [10, 12], "counts": [0, "400 digits"]}
    ),
    "coco mask of runs below 0": coco(
        COUNTS, object_segmentation={"size": [10, 12], "counts": [200, -80]}
    ),
    "coco mask of packed runs without an end": coco(
        COUNTS, object_segmentation={"size": [10, 12], "counts": "o" * 10**4}
    ),
    "coco box of 400 digits": coco("no such|numbers|bbox", object_bbox=[0, 0, "400 digits", 1]),
    "coco size of 400 digits": coco("size", image_height="400 digits"),
    "coco id of 400 digits": coco(".", image_id="400 digits"),
    "coco area of 400 digits": coco("", object_area="400 digits"),
    "coco polygon of 1e308": coco(".", object_segmentation=[[1e308, -1e308] * 4]),
    "coco nested deep": coco_file(b'{"images": ' + DEEP, "cannot be read as JSON"),
    "coco of 5000 digits": coco_file(b"9" * 5000, "cannot be read as JSON"),
    "coco of NaN": coco("bbox", object_bbox=[float("nan")] * 4),
    "coco keys twice": coco_file(b'{"images": [], "images": [], "annotations": []}', "."),
    "voc of a billion laughs": voc(entities(10), "cannot be read as XML"),
    "voc of long entities": voc(
        b'<!DOCTYPE annotation [<!ENTITY a "'
        + b"h" * 10**5
        + b'">]>'
        + XML.replace(b"cat", b"&a;" * 10**4),
        "cannot be read as XML",
    ),
    "voc with an entity of a file": voc(external(b"SYSTEM 'file:///etc/passwd'"), "as XML"),
    "voc with an entity of a place": voc(external(b"SYSTEM 'http://127.0.0.1:9/'"), "as XML"),
    "voc with rules elsewhere": voc(
        b"<!DOCTYPE annotation SYSTEM 'http://127.0.0.1:9/a.dtd'>" + XML, ""
    ),
    "voc nested deep": voc(b"<annotation>" + b"<a>" * 10**4 + b"</a>" * 10**4 + XML, "as XML"),
    "voc in an encoding that is a program": voc(
        b'<?xml version="1.0" encoding="zlib_codec"?>' + p.zeros(9), "as XML"
    ),
    "voc in an encoding that is slow": voc(
        b'<?xml version="1.0" encoding="punycode"?>' + b"a-" + b"9" * 10**5, "as XML"
    ),
    "yolo with a tag": yolo(
        "its names cannot be read",
        yaml=b"names: !!python/object/apply:os.system ['touch ../canary']\n",
    ),
    "yolo with a tag in its list": yolo(
        "", yaml=b"names:\n- !!python/object/apply:os.system ['touch ../canary']\n"
    ),
    "yolo of a billion laughs": yolo(
        "its names", yaml=b"a: &a [x,x,x,x,x,x]\nnames: &b [*a,*a,*a,*a]\n"
    ),
    "yolo with parts elsewhere": yolo("", yaml=b"train: /etc\nval: ../..\nnames: [cat]\n"),
    "yolo of empty lines": yolo("its names", yaml=b"names:" + b"\n" * 10**5),
    "yolo of digits": yolo("", yaml=b"names: [" + b"1" * 10**5 + b"]"),
    "yolo label of 400 digits": yolo("", labels=b"9" * 400 + b" .5 .5 .4 .4\n"),
    "yolo of 10^5 numbers": yolo("", labels=b"0" + b" .5" * 10**4 + b"\n"),
    "text lines of blanks": lines(b"a " * 10**5 + b"\n", "no such image|no text"),
    "text lines of names": lines(b"a.png " * 10**5 + b"\n", "no such image|no text"),
    "text lines of commas": lines(b"," * 10**5 + b"\n", "."),
    "voc list of folders": voc(XML, "no image", listed=b"a/" * 10**5 + b"\n"),
    "voc list of blanks": voc(XML, "no image", listed=b"a " * 10**5 + b"\n"),
    "jsonl nested deep": texts("a.jsonl", DEEP, "cannot be read as JSON"),
    "jsonl label of 400 digits": texts(
        "a.jsonl", b'{"text": "a", "label": ' + b"9" * 400 + b"}\n", "single class"
    ),
    "jsonl label of 1e999": texts(
        "a.jsonl", b'{"text": "a", "label": 1e999}\n', "must be a string or a number"
    ),
    "csv of quotes": texts("a.csv", b"text,label\n" + b'"' * 99_999, "cannot be read as .csv"),
    "series of digits": series(
        "a.zip",
        p.zip_of({"T_TRAIN.ts": TS.replace(b"1,2", b"9" * 400 + b",2"), "T_TEST.ts": TS}),
        "finite",
    ),
}
ARCHIVES = {
    "wheel with paths as names": series(
        "a.whl", p.zip_of({"../../T_TRAIN.ts": TS, "/etc/T_TEST.ts": TS}), ""
    ),
    "zip that swells": series("a.zip", p.zip_bomb("T_TRAIN.ts", b"", MIB), "swell"),
    "zip of 4 GB that are not there": series(
        "a.zip", p.claiming(p.zip_of({"T_TRAIN.ts": TS}), "T_TRAIN.ts", 2**32 - 1), "claims"
    ),
    "zip of names for the same bytes": series(
        "a.zip", p.sharing(p.zip_bomb("0000_TRAIN.ts", b"", 90), 900), "swell"
    ),
    "tar that swells": series(
        "a.tgz", p.gzip_bomb(p.tar_of("T_TRAIN.ts", b"", size=MIB * 2**20)[:512], MIB), "swell"
    ),
    "tar of files that swell together": series("a.tgz", p.tar_bomb("unwanted", 134, 12), "swell"),
    "tar with a sparse file of 8 GiB": series(
        "a.tar", p.sparse_tar("T_TRAIN.ts", 2**33 - 1), "swell|cannot be read"
    ),
    "tar with a link to a file": series(
        "a.tar", p.tar_of("T_TRAIN.ts", b"../secret.png", kind=b"2"), "there is no"
    ),
    "tar with a hard link to a file": series(
        "a.tar", p.tar_of("T_TRAIN.ts", b"/etc/passwd", kind=b"1"), "there is no"
    ),
    "tar with a device": series("a.tar", p.tar_of("T_TRAIN.ts", b"", kind=b"3"), "there is no"),
    "zip with damaged numbers": series(
        "a.zip",
        p.zip_of({"T_TRAIN.ts": TS * 9, "T_TEST.ts": TS}, store=False).replace(b"\xac", b"\xff"),
        "cannot be read",
    ),
    "zip that is a pickle": series("a.zip", p.pickles()["os.system"], "cannot be read"),
}

ATTACKS = {**PICKLED, **ARRAYS, **PICTURES, **TREES, **TEXTS, **ARCHIVES}


def placed(attack: Attack, folder: Path) -> Attack:
    """The attack with the files' "{outside}" replaced by the folder around them."""
    there = {
        name: data.replace(b"{outside}", str(folder).encode())
        for name, data in attack.files.items()
    }
    return attack._replace(files=there)
