"""Inputs for the fuzzer: for each parser a small valid data set, which of its files is changed, and
how the data set is read whole.
"""

import gc
import gzip
import io
import json
import os
import resource
import struct
import tarfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxcnn.data.dataset import Dataset
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.files.coco import Coco
from jaxcnn.data.files.documents import Texts
from jaxcnn.data.files.icdar import Icdar
from jaxcnn.data.files.idx import Idx
from jaxcnn.data.files.mask_folder import MaskFolder
from jaxcnn.data.files.npz import Npz
from jaxcnn.data.files.series import Series
from jaxcnn.data.files.shards import Shards, Tables
from jaxcnn.data.files.text_lines import TextLineFolder
from jaxcnn.data.files.voc import Voc
from jaxcnn.data.files.yolo import Yolo
from jaxcnn.errors import JaxcnnError

EXAMPLES = int(os.environ.get("JAXCNN_FUZZ", "40"))
FIRST = int(os.environ.get("JAXCNN_FUZZ_SEED", "0"))
SECONDS, BYTES = 1.0, 256 * 2**20
SIZE = (8, 8)
COMMON = {"image_size": SIZE, "eval_fraction": 0.0, "invalid": "skip"}


class Parser(NamedTuple):
    """A data set in a folder: `files` by path, of which `target` is changed; `data(folder)`."""

    files: dict[str, bytes]
    target: str
    data: Callable[[Path], Dataset]


def png(mode: str = "RGB", value: int = 1, form: str = "PNG") -> bytes:
    """A picture of 12 x 10 pixels."""
    file = io.BytesIO()
    image = Image.new(mode, (12, 10), value if mode != "RGB" else (value, 2, 3))
    image.paste(0, (0, 0, 6, 10))
    image.save(file, form)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def table(ending: str) -> bytes:
    rows = pa.table({"image": [png(), png(value=2)], "label": [0, 1]})
    out = io.BytesIO()
    if ending == ".parquet":
        pq.write_table(rows, out)
    else:
        with pa.ipc.new_file(out, rows.schema) as writer:
            writer.write_table(rows)
    return out.getvalue()


def idx(array: np.ndarray) -> bytes:
    counts = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + counts + array.astype(np.uint8).tobytes()


COCO = {
    "images": [{"id": 1, "file_name": "1.png", "height": 10, "width": 12}],
    "categories": [{"id": 1, "name": "cat", "keypoints": ["a", "b"]}, {"id": 2, "name": "dog"}],
    "annotations": [
        {
            "id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 6, 5], "area": 30.0,
            "iscrowd": 0, "segmentation": [[1, 1, 7, 1, 7, 6, 1, 6]],
            "keypoints": [2, 2, 2, 0, 0, 0],
        },
        {
            "id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 4, 4], "iscrowd": 1,
            "segmentation": {"size": [10, 12], "counts": [0, 20, 100]},
        },
        {"id": 3, "image_id": 1, "caption": "a cat and a dog"},
    ],
}  # fmt: skip
ICDAR = [
    {"points": [[1, 1], [9, 1], [9, 5], [1, 5]], "transcription": "word", "illegibility": False},
    {"points": [[1, 6], [9, 6], [9, 9], [1, 9]], "transcription": "###", "illegibility": True},
]
XML = (
    b"<annotation><filename>1.png</filename><size><width>12</width><height>10</height></size>"
    b"<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin>"
    b"<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
)
TS = b"@problemName T\n@classLabel true a b\n@data\n1,2,3:4,5,6:a\n2,3,4:5,6,7:b\n"
DIGITS = np.arange(5 * 6 * 4).reshape(5, 6, 4) % 256
LABELS = np.array([0, 1, 0, 1, 1])

PARSERS = {
    "idx": Parser(
        {"x": idx(DIGITS), "y": idx(LABELS)}, "x",
        lambda f: Idx(str(f / "x"), str(f / "y"), eval_fraction=0.0),
    ),
    "idx.gz": Parser(
        {"x": gzip.compress(idx(DIGITS)), "y": idx(LABELS)}, "x",
        lambda f: Idx(str(f / "x"), str(f / "y"), eval_fraction=0.0),
    ),
    "npz": Parser(
        {"a.npz": npz(image=DIGITS.astype(np.uint8), label=LABELS)}, "a.npz",
        lambda f: Npz(str(f / "a.npz"), eval_fraction=0.0),
    ),
    "image": Parser(
        {"a/1.png": png(), "b/1.png": png(), "b/2.png": png()}, "b/1.png",
        lambda f: Folder(str(f), image_size=SIZE, eval_fraction=0.0),
    ),
    "jpeg": Parser(
        {"a/1.png": png(), "b/1.jpg": png(form="JPEG"), "b/2.png": png()}, "b/1.jpg",
        lambda f: Folder(str(f), image_size=SIZE, eval_fraction=0.0),
    ),
    "tar": Parser(
        {"a.tar": tar({"1.png": png(), "1.cls": b"0", "2.png": png(), "2.cls": b"1"})}, "a.tar",
        lambda f: Shards(str(f / "a.tar"), image_size=SIZE, eval_fraction=0.0, memory_mib=0),
    ),
    "parquet": Parser(
        {"a.parquet": table(".parquet")}, "a.parquet",
        lambda f: Tables(str(f / "a.parquet"), image_size=SIZE, eval_fraction=0.0, memory_mib=0),
    ),
    "arrow": Parser(
        {"a.arrow": table(".arrow")}, "a.arrow",
        lambda f: Tables(str(f / "a.arrow"), image_size=SIZE, eval_fraction=0.0, memory_mib=0),
    ),
    "mask": Parser(
        {"i/1.png": png(), "m/1.png": png("L")}, "m/1.png",
        lambda f: MaskFolder(str(f / "i"), str(f / "m"), names=("no", "yes"), **COMMON),
    ),
    "coco": Parser(
        {"a.json": json.dumps(COCO).encode(), "1.png": png()}, "a.json",
        lambda f: Coco(
            str(f / "a.json"), entries=("boxes", "instance_masks", "segmentation", "points"),
            **COMMON,
        ),
    ),
    "coco captions": Parser(
        {"a.json": json.dumps(COCO).encode(), "1.png": png()}, "a.json",
        lambda f: Coco(str(f / "a.json"), entries=("captions",), min_count=1, **COMMON),
    ),
    "voc": Parser(
        {"JPEGImages/1.png": png(), "Annotations/1.xml": XML}, "Annotations/1.xml",
        lambda f: Voc(str(f), names=(), **COMMON),
    ),
    "voc image set": Parser(
        {"JPEGImages/1.png": png(), "Annotations/1.xml": XML, "ImageSets/Main/train.txt": b"1 1\n"},
        "ImageSets/Main/train.txt",
        lambda f: Voc(str(f), eval="", names=("cat",), **COMMON),
    ),
    "yolo": Parser(
        {
            "images/1.png": png(),
            "labels/1.txt": b"0 0.5 0.5 0.4 0.4\n1 0.1 0.1 0.6 0.1 0.6 0.6\n",
            "classes.txt": b"cat\ndog\n",
        },
        "labels/1.txt",
        lambda f: Yolo(str(f), **COMMON),
    ),
    "icdar": Parser(
        {"1.png": png(), "gt_1.txt": b"1,1,9,1,9,5,1,5,word\n1,6,9,6,9,9,1,9,###\n"}, "gt_1.txt",
        lambda f: Icdar(str(f), **COMMON),
    ),
    "icdar json": Parser(
        {"i/1.png": png(), "a.json": json.dumps({"1": ICDAR}).encode()}, "a.json",
        lambda f: Icdar(str(f / "i"), labels=str(f / "a.json"), **COMMON),
    ),
    "text lines": Parser(
        {"1.png": png(), "2.png": png(), "labels.txt": b"1.png\tword\n2.png\tother\n"},
        "labels.txt",
        lambda f: TextLineFolder(str(f), **COMMON),
    ),
    "jsonl": Parser(
        {"a.jsonl": b'{"text": "good one", "label": "a"}\n{"text": "bad", "label": "b"}\n'},
        "a.jsonl",
        lambda f: Texts(str(f / "a.jsonl"), eval_fraction=0.0, length=4),
    ),
    "csv": Parser(
        {"a.csv": b'text,label\n"good, one",a\nbad,b\n'}, "a.csv",
        lambda f: Texts(str(f / "a.csv"), eval_fraction=0.0, length=4),
    ),
    "series": Parser(
        {"T_TRAIN.ts": TS, "T_TEST.ts": TS}, "T_TRAIN.ts", lambda f: Series("T", str(f))
    ),
}  # fmt: skip

# what has broken readers before: numbers that are none, that no type holds, marks of encodings,
# ends of lines, nesting, formats that are not meant
TOKENS = (
    *(b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b'"1"', b"1.0", b"9" * 400, b"4294967295"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"\0", b"\x1a", b"\r", b"\n"),
    *(b"[" * 2000, b"{", b"}", b"]", b'"', b"\\", b",", b"\t", b" ", b"/", b"..", b"<a>", b"</a>"),
    *(
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    ),
)


def mutate(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """`data` changed at places (modulo its length); `cut` and `twice` take so many bytes."""
    for kind, place, new in edits:
        at = place % (len(data) + 1)
        head, tail, count = data[:at], data[at:], len(new)
        data = {
            "set": head + new + tail[1:],
            "insert": head + new + tail,
            "replace": head + new + tail[count:],
            "cut": head + tail[count:],
            "end": head,
            "twice": head + tail[:count] + tail,
        }[kind]
    return data


def changed(original: bytes) -> Callable[[Random], bytes]:
    """Makes changed contents of a file, now and then any bytes."""

    def edit(random: Random) -> tuple[str, int, bytes]:
        kind = random.choice(("set", "insert", "replace", "cut", "end", "twice"))
        if kind == "set":
            new = random.randbytes(1)
        elif kind in ("insert", "replace"):
            new = random.choice(TOKENS)
        else:
            new = b"" if kind == "end" else bytes(random.randint(1, 40))
        return kind, random.getrandbits(32), new

    def make(random: Random) -> bytes:
        if random.randrange(4) == 0:
            return random.randbytes(random.randrange(200))
        return mutate(original, [edit(random) for _ in range(random.randint(1, 6))])

    return make


def measure(act: Callable[[], Any], error: type[Exception]) -> tuple[float, int, Exception | None]:
    """Seconds of the processor, bytes of memory at the peak, and with which `error` it ends."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, ended = time.process_time(), None
    tracemalloc.start()  # here alone: hypothesis takes twice as long under it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            act()
    except error as caught:
        ended = caught.with_traceback(None)
    finally:
        took, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    return took, max(peak, resident * 1024), ended


def refused(
    make: Callable[[Random], Any],
    act: Callable[[Any], Any],
    *,
    error: type[Exception] = JaxcnnError,
) -> list[Any]:
    """Those of EXAMPLES inputs that `make` makes at which `act` raises `error`. Any other error of
    it, more than SECONDS or BYTES, is an AssertionError or that error. Prints what the dearest
    input cost. Few inputs are hypothesis's, which finds the smallest that fails; of many it would
    take four fifths of the time, so they are those of the seeds from JAXCNN_FUZZ_SEED on.
    """
    out: list[Any] = []
    costs: list[tuple[float, int]] = []

    def check(random: Random) -> None:
        data = make(random)
        for _ in range(3):  # what is slow once only is the machine's doing
            took, grew, ended = measure(lambda: act(data), error)
            if took < SECONDS:
                break
        if ended is not None:
            out.append(data)
        costs.append((took, grew))
        assert took < SECONDS
        assert grew < BYTES

    gc.collect()
    gc.freeze()  # else a reader pays for a search of garbage among everything that is imported
    try:
        if EXAMPLES < 1000:
            shrinking = settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            shrinking(given(st.randoms(use_true_random=False))(check))()
        else:
            for seed in range(FIRST, FIRST + EXAMPLES):
                try:
                    check(Random(seed))
                except Exception as failure:
                    failure.add_note(f"input: {make(Random(seed))!r} (JAXCNN_FUZZ_SEED={seed})")
                    raise
    finally:
        gc.unfreeze()
    seconds, grown = (max(column) for column in zip(*costs, strict=True))
    print(
        f"{len(costs)} inputs, {len(out)} refused, the slowest {seconds:.2f} s, the largest "
        f"{grown / 2**20:.1f} MB"
    )
    return out


def write(parser: Parser, folder: Path) -> None:
    for name, data in parser.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def read_whole(data: Dataset) -> int:
    """Rows of the training split, all of which are taken."""
    data.spec()
    source = data.open("train")
    source.take(np.arange(len(source)))
    return len(source)
