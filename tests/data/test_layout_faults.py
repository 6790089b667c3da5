"""Folders of classes, files of texts, arrays and splits as people have them: each kind of fault is
read as it is meant, or refused, and what is left out is said."""

import json
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.files.documents import Texts
from jaxcnn.data.files.idx import read_idx
from jaxcnn.data.files.names import require_distinct
from jaxcnn.data.files.npz import Npz
from jaxcnn.data.files.parsing import decode_text, split_lines
from jaxcnn.data.files.series import parse_ts
from jaxcnn.data.memory import Arrays, held_out, num_held_out
from jaxcnn.data.vocabulary import split_words
from jaxcnn.errors import DataError
from tests.data.faults import check, outcome, picture, take_all

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def pictures(*paths: str, count: int = 2):
    """Makes `count` pictures in each folder."""

    def make():
        for path in paths:
            for i in range(count):
                picture(Path(path, f"{i}.png"), (2, 2))

    return make


def all_of(*steps):
    def make():
        for step in steps:
            step()

    return make


def file(path: str, content: bytes = b"x"):
    def make():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)

    return make


def folder(path: str):
    return lambda: os.makedirs(path)


def link(target: str, path: str):
    return lambda: os.symlink(os.path.abspath(target), path)


TWO = pictures("cat", "dog")
CLASSES = ("cat", "dog")


def counts(**options):
    """(class names, number of files of each split) of the folder "." """
    data = Folder(".", (2, 2), eval_fraction=0.0, **options)
    return data.label_names, tuple(data.size(split) for split in ("train", "eval", "test"))


@pytest.mark.parametrize(
    "make, expected, said",
    [
        pytest.param(TWO, (CLASSES, (4, 0, 0)), "", id="classes"),
        pytest.param(
            pictures("Train/cat", "Train/dog", "TEST/cat", "TEST/dog", "Val/cat", "Val/dog"),
            (CLASSES, (4, 4, 4)), "", id="parts in capitals",
        ),
        pytest.param(
            pictures("training/cat", "training/dog", "validation/cat", "validation/dog"),
            (CLASSES, (4, 4, 0)), "", id="other words",
        ),
        pytest.param(
            pictures("train/cat", "train/dog", "val/dog"), (CLASSES, (4, 2, 0)),
            r"1 of 2 classes have no examples there.*\['cat'\]", id="val lacks a class",
        ),
        pytest.param(
            all_of(pictures("train/cat", "train/dog", "val/dog"), folder("val/cat")),
            (CLASSES, (4, 2, 0)), r"1 of 2 classes have no examples", id="empty class in val",
        ),
        pytest.param(
            all_of(TWO, folder("bee")), "bee: holds no files", "", id="empty class in train"
        ),
        pytest.param(pictures("Train/cat", "Train/dog", "train/cat"), "could each be", "",
                     id="Train and train"),
        pytest.param(pictures("train/cat", "train/dog", "val/cat", "valid/cat"),
                     r"\['val', 'valid'\].*could each be", "", id="val and valid"),
        pytest.param(pictures("test/cat", "test/dog", "val/cat"), "no train/ beside", "",
                     id="no train"),
        pytest.param(pictures("cat", "dog", "test"), "no train/ beside", "", id="test beside"),
        pytest.param(pictures("bus", "car", "train"), (("bus", "car", "train"), (6, 0, 0)), "",
                     id="a class of trains"),
        pytest.param(pictures("train/cat", "train/dog", "more/cat"), (CLASSES, (4, 0, 0)),
                     r"\['more'\].* left out", id="a folder beside the parts"),
        pytest.param(pictures("data/cat", "data/dog"), "single class, .*'data'", "",
                     id="one level too high"),
        pytest.param(pictures("data/train/cat", "data/train/dog"), "single class", "",
                     id="parts one level too high"),
        pytest.param(pictures("cat"), "single class", "", id="one class"),
        pytest.param(pictures("seg_train/cat", "seg_train/dog", "seg_test/cat"),
                     "look like classes or parts", "", id="parts of other names"),
        pytest.param(pictures("cat/train", "cat/val", "dog/train", "dog/val"),
                     "look like classes or parts", "", id="parts within classes"),
        pytest.param(pictures("cat", "dog", "more/a", "more/b"),
                     (("cat", "dog", "more"), (8, 0, 0)), "hold sub-folders only", id="one deep"),
        pytest.param(
            all_of(TWO, pictures("cat/.ipynb_checkpoints", "dog/@eaDir", "__MACOSX/cat", ".git")),
            (CLASSES, (4, 0, 0)), "", id="hidden folders",
        ),
        pytest.param(
            all_of(TWO, file("cat/Thumbs.db"), file("cat/.DS_Store"), file("cat/._0.png")),
            (CLASSES, (4, 0, 0)), "", id="hidden files",
        ),
        pytest.param(all_of(TWO, file("cat/0.heic"), file("dog/a.txt")), (CLASSES, (4, 0, 0)),
                     r"2 files of other endings.*\.heic \(1\)", id="other files"),
        pytest.param(all_of(TWO, file("loose.png")), (CLASSES, (4, 0, 0)),
                     "1 files lie beside the class folders", id="loose files"),
        pytest.param(all_of(TWO, pictures("../store"), link("../store", "cat/more")),
                     (CLASSES, (6, 0, 0)), "", id="a link to a folder"),
        pytest.param(all_of(pictures("cat", "../store"), link("../store", "dog")),
                     (CLASSES, (4, 0, 0)), "", id="a class that is a link"),
        pytest.param(all_of(TWO, pictures("../store"), link("../store/0.png", "cat/9.png")),
                     (CLASSES, (5, 0, 0)), "", id="a link to a file"),
        pytest.param(all_of(TWO, link("cat", "cat/again"), link(".", "dog/up")),
                     "cannot be of the classes 'cat' and 'dog'", "", id="a link to both"),
        pytest.param(all_of(TWO, link("cat/0.png", "dog/9.png")),
                     "cannot be of the classes 'cat' and 'dog'", "", id="a link to the other"),
        pytest.param(all_of(TWO, link("cat", "cat/again")), (CLASSES, (4, 0, 0)), "",
                     id="a circle"),
        pytest.param(all_of(TWO, link("nowhere", "cat/9.png")), (CLASSES, (4, 0, 0)),
                     "1 links lead nowhere", id="a link to nothing"),
        pytest.param(all_of(TWO, lambda: os.symlink("self", "cat/self")), (CLASSES, (4, 0, 0)),
                     "1 links lead nowhere", id="a link to itself"),
        pytest.param(
            all_of(pictures("train/cat", "train/dog"), folder("val"),
                   link("train/cat", "val/cat"), pictures("val/dog")),
            (CLASSES, (4, 4, 0)), "2 files are in two parts", id="val links to train",
        ),
        pytest.param(pictures(f"train/{NFC}", "train/tea", f"val/{NFD}", "val/tea"),
                     ((NFC, "tea"), (4, 4, 0)), "", id="composed and decomposed"),
        pytest.param(pictures(NFC, NFD), r"differ only in case.*how Unicode", "",
                     id="both in one part"),
        pytest.param(pictures("Cat", "cat"), "'Cat'.*'cat'.*differ only in case", "", id="case"),
        pytest.param(pictures("train/cat", "train/dog", "val/Cat"),
                     r"\['Cat'\].*has not.*compare \['cat'\]", "", id="case of val"),
        pytest.param(pictures("a", "A"), (("A", "a"), (4, 0, 0)), "different letters",
                     id="letters"),
    ],
)  # fmt: skip
def test_layouts(tmp_path, monkeypatch, make, expected, said):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    make()
    check(counts, expected, said)


def test_nested_says_that_sub_folders_are_no_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures("cat/monday", "cat/friday", "dog/monday")()
    check(lambda: counts(nested=True), (CLASSES, (6, 0, 0)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all folders")
def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TWO()
    os.chmod("cat", 0)
    check(counts, "cat: cannot be listed")


# --- holding out ---


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.2, 0.5, 0.9, 0.99])
def test_every_class_is_on_both_sides(fraction):
    random = np.random.default_rng(0)
    for sizes in random.integers(2, 9, (20, 12)):
        labels = random.permutation(np.repeat(np.arange(12), sizes))
        mask = held_out(labels, fraction)
        held = np.bincount(labels[mask], minlength=12)
        assert ((held >= 1) & (held < sizes)).all()
        # elsewhere the share, to within one
        assert (np.abs(held - np.clip(fraction * sizes, 1, sizes - 1)) <= 1).all()
        np.testing.assert_array_equal(mask, held_out(labels, fraction))


@pytest.mark.parametrize(
    "labels, fraction, expected, said",
    [
        ([0] * 4 + [1] + [2] * 4, 0.25, [0, 2], r"1 classes have one example.*\['b'\]"),
        ([0, 1, 2], 0.5, [], "3 classes have one example"),
        ([], 0.2, [], ""),
        ([0], 0.0, [], ""),
        ([0, 1], 0.0, [], ""),
        ([7, 7], 0.01, [7], ""),
        ([0.1, 0.2, 0.3, 0.4], 0.5, [0.2, 0.4], ""),  # numbers, not classes
    ],
)
def test_classes_of_one(labels, fraction, expected, said):
    def held():
        return np.asarray(labels)[held_out(np.array(labels), fraction, names="abc")].tolist()

    check(held, expected, said)


@pytest.mark.filterwarnings("ignore:1 classes have one example")
@pytest.mark.parametrize("size", range(12))
def test_the_announced_number_is_held_out(size):
    for fraction in (0.0, 0.1, 0.34, 0.9):
        assert held_out(np.zeros(size, int), fraction).sum() == num_held_out(size, fraction)


def test_sizes_of_archives_follow_the_labels(tmp_path):
    path, labels = str(tmp_path / "a.npz"), np.repeat(np.arange(5), 2)
    np.savez(path, image=np.zeros((10, 8, 8), np.uint8), label=labels)
    data = Npz(path, eval_fraction=0.1)
    assert (data.size("train"), data.size("eval")) == (5, 5)
    for split in ("train", "eval"):
        assert sorted(take_all(data, split)["label"].tolist()) == list(range(5))


# --- texts ---


@pytest.mark.parametrize(
    "data, expected",
    [
        ("café".encode(), "café"),
        ("café".encode("utf-8-sig"), "café"),
        ("café".encode("utf-16"), "café"),
        ("\ufeffcafé".encode("utf-16-be"), "café"),
        ("café".encode("utf-32"), "café"),
        ("a\ncafé".encode("latin-1"), "x, line 2: .*0xe9.*Latin-1.*save it as UTF-8"),
        ("café".encode("utf-16-le"), "x.*(no text|zero bytes)"),
        (b"a\0b", "zero bytes"),
    ],
)
def test_encodings(data, expected):
    if expected == "café":
        assert decode_text(data, name="x") == expected
    else:
        with pytest.raises(DataError, match=expected):
            decode_text(data, name="x")


def test_only_line_ends_end_lines():
    text = "a\u2028b\r\nc\u0085d\x0b\x0ce\rf\x1cg\n\nh\n"
    assert split_lines(text) == ["a\u2028b", "c\u0085d\x0b\x0ce", "f\x1cg", "", "h"]
    assert split_lines("") == []


@pytest.mark.parametrize("pair", [("a b", "A b"), (NFC, NFD), ("cat ", "cat"), ("ß", "SS")])
def test_names_that_are_hardly_two(pair):
    with pytest.raises(DataError, match=r"here: the classes .*differ only"):
        require_distinct(pair, where="here")
    require_distinct(("cat", "cats", "cat"), where="here")


def rows(*pairs) -> bytes:
    return "\n".join(json.dumps({"text": t, "label": label}) for t, label in pairs).encode()


LONG = b"label,text\na," + b"x" * 200_000 + b"\nb,y\n"
COMMA = b"label,text\na,one, two\nb,x\n"


@pytest.mark.parametrize(
    "name, content, expected, said",
    [
        ("a.jsonl", rows(("x", 1), ("y", "1"), ("z", 1.0), ("w", 2)), ("1", "2"), ""),
        ("a.jsonl", rows(("x", "1.0"), ("y", 2.0)), ("1", "2"), ""),
        ("a.jsonl", rows(("x", None), ("y", 1)), "example 1: 'label' is null", ""),
        ("a.jsonl", rows(("x", float("nan")), ("y", 1)), "example 1: 'label' is nan", ""),
        ("a.jsonl", rows(("x", "NaN"), ("y", 1)), "example 1: 'label' is 'NaN'", ""),
        ("a.jsonl", rows((float("nan"), 1), ("y", 2)), "example 1: 'text' is nan", ""),
        ("a.jsonl", rows((["x"], 1), ("y", 2)), "example 1: 'text' is", ""),
        ("a.jsonl", rows(("x", {}), ("y", 2)), "example 1: 'label' is {}", ""),
        ("a.jsonl", b'{"text": "x", "label": 1e400}\n', "'label' is inf", ""),
        ("a.jsonl", rows(("x", 10**400), ("y", 2)), (f"{10**400}", "2"), ""),
        ("a.jsonl", b'{"text": "x", "label": 1' + b"0" * 5000 + b"}", "cannot be read as JSON", ""),
        ("a.jsonl", b"[" * 100_000, "example 1: cannot be read as JSON", ""),
        ("a.jsonl", b"[1]\n", "each line is an object", ""),
        ("a.jsonl", b"\xef\xbb\xbf" + rows(("x", 1), ("y", 2)), ("1", "2"), ""),
        ("a.jsonl", rows(("x", 1), ("y", 2)).decode().encode("utf-16"), ("1", "2"), ""),
        ("a.jsonl", rows(("x\u2028y", NFC), ("y", NFD), ("z", "b")), ("b", NFC), ""),
        ("a.jsonl", rows(("x", "cat"), ("y", "Cat")), "differ only in case", ""),
        ("a.jsonl", rows(("", "cat"), ("y", "dog")), ("cat", "dog"), "1 texts are empty"),
        ("a.jsonl", rows(("x", "cat"), ("y", "cat")), "a single class", ""),
        ("a.csv", b"label,text\n1.0,x\n1,y\n 2 ,z\n", ("1", "2"), ""),
        ("a.csv", b"label,text\n,x\n1,y\n", "example 1: 'label' is ''", ""),
        ("a.csv", b"\xef\xbb\xbflabel,text\na,x\nb,y\n", ("a", "b"), ""),
        ("a.csv", COMMA, "example 1: has 3 entries.*double quotes", ""),
        ("a.csv", b"label,label,text\na,b,x\n", "names .'label'. more than once", ""),
        ("a.csv", LONG, ("a", "b"), ""),
        ("a.csv", b'label,text\na,"x\nb,y\n', "cannot be read as .csv", ""),
        ("a.csv", b"label,text\na,x\0\nb,y\n", "zero bytes", ""),
        ("a.csv", "label,text\na,é\nb,y\n".encode("latin-1"), "Latin-1", ""),
        ("a.tsv", b'label\ttext\na\t"x\ty\nz"\nb\ty\n', ("a", "b"), ""),
    ],
)
def test_files_of_texts(tmp_path, name, content, expected, said):
    (tmp_path / name).write_bytes(content)

    def names():
        data = Texts(str(tmp_path / name), eval_fraction=0.0)
        return len(data.open("train")) and data.label_names

    check(names, expected, said)


@pytest.mark.parametrize(
    "paths, expected, said",
    [
        (["Train/a/0.txt", "Train/b/0.txt", "Test/a/0.txt", "Test/b/0.txt"], (2, 0, 2), ""),
        (["a/0.txt", "b/0.txt", "b/.ipynb_checkpoints/0.txt"], (2, 0, 0), ""),
        (["data/a/0.txt", "data/b/0.txt"], "single class", ""),
        (["a/0.txt", "b/0.txt", "b/0.md"], (2, 0, 0), "1 files of other endings"),
    ],
)
def test_folders_of_texts(tmp_path, paths, expected, said):
    for path in paths:
        file(str(tmp_path / path), b"word")()
    data = Texts(str(tmp_path), eval_fraction=0.0)
    check(lambda: tuple(map(data.size, ("train", "eval", "test"))), expected, said)


def test_words_are_compared_in_one_form():
    assert split_words(NFD) == split_words(NFC) == [NFC]


def test_series_with_marks_and_remarks():
    text = "# caf\u2028é\n@classLabel true up d\u0085own\n@data\n1,2:up\r3,4:up\r\n"
    assert parse_ts(text, where="x")[1].shape == (2, 2, 1)


# --- arrays ---

COUNT = 20
LABEL = np.arange(COUNT) % 2


@pytest.mark.parametrize(
    "image, options, expected, said",
    [
        (np.full((COUNT, 3, 32, 32), 9, np.uint8), {}, r"transpose\(0, 2, 3, 1\)", ""),
        (np.full((COUNT, 1, 28, 28), 9, np.uint8), {}, r"transpose\(0, 2, 3, 1\)", ""),
        (np.zeros((COUNT, 3, 32, 28), np.float32), {"channels_first": True}, (32, 28, 3), ""),
        (np.zeros((COUNT, 28, 28), np.float32), {"channels_first": True}, "is for .N, C, H, W", ""),
        (np.full((32, 24, 3), 9, np.uint8), {}, "looks like one image", ""),
        (np.full((COUNT, 784), 9, np.uint8), {}, "reshape the rows", ""),
        (np.full((32, 32, 3, COUNT), 9, np.uint8), {}, r"transpose\(3, 0, 1, 2\)", ""),
        (np.full((COUNT, 28, 28), 9, np.uint8), {}, (28, 28, 1), ""),
        (np.full((COUNT, 3, 3, 3), 9, np.uint8), {}, (3, 3, 3), ""),
        (np.ones((COUNT, 8, 8), np.uint8), {}, (8, 8, 1), "values 0 and 1 only"),
        (np.ones((COUNT, 8, 8), bool), {}, (8, 8, 1), ""),
        (np.full((COUNT, 8, 8), 1 / 255, np.float32), {}, (8, 8, 1), "divided by 255 twice"),
        (np.full((COUNT, 8, 8), 9.0), {}, "scale the pixels", ""),
        (np.full((COUNT, 8, 8), "x"), {}, "must be numbers", ""),
    ],
)
def test_layouts_of_arrays(tmp_path, image, options, expected, said):
    path = str(tmp_path / "a.npz")
    np.savez(path, image=image, label=LABEL)

    def shape():
        data = Npz(path, eval_fraction=0.0, **options)
        spec = data.spec()["image"].shape  # refuses what looks wrong before the file is read
        assert take_all(data)["image"].shape[1:] == spec
        return spec

    check(shape, expected, said)
    if not options:
        given = {"image": image, "label": LABEL}
        check(lambda: Arrays(given, given).spec()["image"].shape, expected, said)


def test_bools_are_black_and_white():
    given = {"image": np.eye(4, dtype=bool)[None], "label": np.zeros(1, int)}
    np.testing.assert_array_equal(
        take_all(Arrays(given, given))["image"][0, ..., 0], 255 * np.eye(4)
    )


@pytest.mark.parametrize(
    "label, message",
    [
        (np.array(["a", "b"] * 10), r"shape \(20,\).*is text; labels are numbers: .*numpy.unique"),
        (np.array(["a", "b"] * 10, object), "Python objects"),
        (np.zeros((COUNT,), "datetime64[s]"), "must be numbers"),
    ],
)
def test_labels_that_are_no_numbers(tmp_path, label, message):
    path = str(tmp_path / "a.npz")
    np.savez(path, image=np.zeros((COUNT, 8, 8), np.uint8), label=label, allow_pickle=True)
    for call in (Npz(path).spec, lambda: Npz(path).open("train")):
        with pytest.raises(DataError, match=message):
            call()


def npy(shape: tuple[int, ...], descr: str = "|u1", body: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


@pytest.mark.parametrize(
    "image, message",
    [
        (npy((2**40, 8, 8)), "declares shape"),
        (npy((-1, 8)), "declares shape"),
        (npy((0, 2**70, 8)), "image.*shape|no 'train' examples"),
        (npy((0, 8, 8)), "no 'train' examples|no examples"),
        (b"", "cannot be read as .npz"),
        (b"\x93NUMPY\x03\x00" + bytes(200), "version"),
        (npy((1,) * 70, body=b"x"), "shape|dimension"),
    ],
)
def test_headers_that_lie(tmp_path, image, message):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", image)
        archive.writestr("label.npy", npy((1,), body=b"0"))
    data = Npz(str(tmp_path / "a.npz"))
    errors = [outcome(call)[0] for call in (data.spec, lambda: data.open("train"))]
    assert any(isinstance(error, DataError) for error in errors)
    assert all(not isinstance(e, DataError) or "a.npz" in str(e) for e in errors), message


def test_bombs_are_refused_by_their_headers(tmp_path):
    """A gzip file of 300 kB that holds 300 MB, and a .npz of as much."""
    import gzip

    size = 300 * 2**20
    with gzip.open(tmp_path / "a.gz", "wb", compresslevel=1) as archive:
        archive.write(b"\0\0\x08\x01" + size.to_bytes(4, "big"))
        for _ in range(300):
            archive.write(bytes(2**20))
    with pytest.raises(DataError, match="swell to"):
        read_idx(str(tmp_path / "a.gz"))
    body = npy((300, 2**10, 2**10), body=bytes(size))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("image.npy", body)
    with pytest.raises(DataError, match="swell to"):
        Npz(str(tmp_path / "a.npz"), label="").open("train")
