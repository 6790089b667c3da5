"""Tar archives, here and elsewhere: what they give is what the same files give in folders, whatever
the archive, the place and the order; damage is a DataError that names archive and sample."""

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.commands import _main
from jaxcnn.data import stores
from jaxcnn.data.dataset import batch_indices
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.files.pack import pack as pack_folder
from jaxcnn.data.files.shards import Shards, Tables
from jaxcnn.data.recorded import files_of, located
from jaxcnn.errors import ConfigError, DataError, ResourceError

SIZE = (8, 8)
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(i: int, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (11, 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def pack(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    """An archive of these files, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def sample(i: int, label: str) -> dict[str, bytes]:
    return {f"{i:04d}.png": picture(i), f"{i:04d}.cls": label.encode()}


def shards(root: Path, *, count: int = 10, each: int = 4, form: int = tarfile.PAX_FORMAT) -> Path:
    """Archives of `each` samples, whose classes are numbers."""
    for first in range(0, count, each):
        files = {}
        for i in range(first, min(first + each, count)):
            files |= sample(i, str(i % 3))
        pack(root / f"part-{first // each:03d}.tar", files, form)
    return root


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_they_give_what_the_same_files_give_in_folders(tmp_path, form):
    shards(tmp_path / "tar", form=form)
    for i in range(10):
        folder = tmp_path / "plain" / str(i % 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:04d}.png").write_bytes(picture(i))
    plain = Folder(str(tmp_path / "plain"), SIZE, eval_fraction=0.0).open("train")
    data = Shards(str(tmp_path / "tar"), SIZE, eval_fraction=0.0, memory_mib=0)
    assert (data.label_names, data.size("train")) == (("0", "1", "2"), 10)
    source = data.open("train")
    assert source.streaming
    ours, theirs = source.take(np.arange(10)), plain.take(np.arange(10))
    order = np.argsort(np.arange(10) % 3, kind="stable")  # folders are in the order of classes
    for name in ("image", "label"):
        np.testing.assert_array_equal(ours[name][order], theirs[name])


def test_an_epoch_in_any_order_sees_each_sample_once(tmp_path):
    data = Shards(str(shards(tmp_path / "tar")), SIZE, eval_fraction=0.0, memory_mib=0)
    source = data.open("train")
    whole = source.take(np.arange(10))["image"]
    rows = np.concatenate([batch_indices(3, s, size=10, batch_size=5) for s in range(2)])
    assert sorted(rows) == list(range(10))
    assert list(rows) != list(range(10))
    np.testing.assert_array_equal(source.take(rows)["image"], whole[rows])


def test_a_pattern_a_folder_and_a_store_elsewhere_give_the_same(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    root = shards(tmp_path / "tar")
    system = fsspec.filesystem("memory")
    system.put(str(root), "/bucket/tar", recursive=True)
    places = [
        str(root),
        str(root / "part-*.tar"),
        str(root / "part-{000..002}.tar"),
        "memory://bucket/tar",
        "memory://bucket/tar/part-*.tar",
        "memory://bucket/tar/part-{000..002}.tar",
    ]
    try:
        found = [
            Shards(place, SIZE, memory_mib=0, eval_fraction=0.3).open("train").take(np.arange(7))
            for place in places
        ]
        files = [files_of(Shards(place))["path"] for place in places]
    finally:
        system.rm("/bucket", recursive=True)
    for other in found[1:]:
        for name in ("image", "label"):
            np.testing.assert_array_equal(found[0][name], other[name])
    assert all(listing == files[0] for listing in files)  # a run is not told of changed data
    assert files[0][0] == 3


def test_the_headers_are_read_once_as_long_as_nothing_changes(tmp_path):
    path = pack(tmp_path / "a.tar", sample(0, "0") | sample(1, "1"))
    assert Shards(str(path), SIZE, eval_fraction=0.0).size("train") == 2
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    kept = Shards(str(path), SIZE, eval_fraction=0.0, memory_mib=0)
    assert kept.size("train") == 2  # nothing shows that it is another archive
    with pytest.raises(DataError, match=r"a.tar: 0001.*cannot be read as an image"):
        kept.open("train").take(np.array([1]))
    os.utime(path, ns=(0, 1))
    with pytest.raises(DataError, match="no examples"):
        Shards(str(path), SIZE).size("train")


@pytest.mark.parametrize("mark", [None, "blob_id"])
def test_an_index_is_not_kept_of_a_store_that_tells_no_changes(tmp_path, mark):
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class Silent(MemoryFileSystem):
        """Says as little of a file as a store may, or as much as hf:// does."""

        protocol, marks = "silent", {mark: "first"}

        @classmethod
        def _strip_protocol(cls, path):
            return MemoryFileSystem._strip_protocol(path.removeprefix("silent:/"))

        def info(self, path, **kwargs):
            found = super().info(path, **kwargs)
            own = {} if mark is None else self.marks
            return {name: found[name] for name in ("name", "size", "type")} | own

    fsspec.register_implementation("silent", Silent, clobber=True)
    system = fsspec.filesystem("memory")
    try:
        for labels in ("01", "10"):  # archives of the same size
            Silent.marks = {mark: labels}
            content = sample(0, labels[0]) | sample(1, labels[1])
            system.pipe("/b/a.tar", pack(tmp_path / "a.tar", content).read_bytes())
            data = Shards("silent://b/a.tar", SIZE, eval_fraction=0.0, memory_mib=0)
            found = data.open("train").take(np.arange(2))["label"]
            assert found.tolist() == [int(label) for label in labels]
    finally:
        system.rm("/b", recursive=True)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == (0 if mark is None else 2)


LONG = "9" * 64
BAD = {
    "no picture": ({"a.cls": b"0"} | sample(1, "1"), {}, "'a' has no picture"),
    "no label": ({"a.png": picture(0)} | sample(1, "1"), {}, "'a' has no label"),
    "an empty label": ({"a.png": picture(0), "a.cls": b" \n"}, {}, "has no label"),
    "two pictures": ({"a.png": picture(0), "a.jpg": picture(0), "a.cls": b"0"}, {}, "two pictures"),
    "apart": (sample(0, "0") | {"b.png": b""} | {"0000.txt": b""}, {}, "do not follow one another"),
    "not UTF-8": ({"a.png": picture(0), "a.cls": b"\xff"}, {}, "a.cls: holds no label"),
    "no JSON": ({"a.png": picture(0), "a.json": b"{"}, {"label": "json:y"}, "a.json: holds no"),
    "no entry": ({"a.png": picture(0), "a.json": b"{}"}, {"label": "json:y"}, "'y' is None"),
    "a share": ({"a.png": picture(0), "a.json": b'{"y": 1.5}'}, {"label": "json:y"}, "is 1.5"),
    "true": ({"a.png": picture(0), "a.json": b'{"y": true}'}, {"label": "json:y"}, "is True"),
    "not among": (sample(0, "3"), {"classes": CLASSES}, "label '3' is none of the 3 classes"),
    "no number": (
        sample(0, "0") | sample(1, LONG),
        {"classes": CLASSES},
        f"label '{LONG}' is none",
    ),
    "far apart": (sample(0, "0") | sample(1, "99999999"), {}, "go up to 99,999,999"),
    "nothing": ({}, {}, "no examples for training"),
}


@pytest.mark.parametrize("files, options, message", BAD.values(), ids=BAD)
def test_what_makes_no_sample_is_refused(tmp_path, files, options, message):
    path = pack(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=message):
        Shards(str(path), SIZE, eval_fraction=0.0, **options).size("train")


def test_or_left_out_and_counted_also_from_the_kept_index(tmp_path):
    files = {"a.cls": b"0", "b.png": picture(0)} | sample(1, "1") | sample(2, "0")
    path = pack(tmp_path / "a.tar", files)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"2 labels break a rule.*no picture \(1\)"):
            assert Shards(str(path), SIZE, invalid="skip", eval_fraction=0.0).size("train") == 2


@pytest.mark.parametrize("kind", ["names", "given", "json"])
def test_labels_may_be_names_or_numbers(tmp_path, kind):
    texts = {"names": CLASSES, "given": ("0", "bee", "2"), "json": CLASSES}[kind]
    files = {}
    for i, text in enumerate(texts):
        files |= {f"{i}.png": picture(i), f"{i}.cls": text.encode() + b"\n"}
        files |= {f"{i}.json": json.dumps({"y": text, "z": [1]}).encode()}
    options = {"json": {"label": "json:y"}, "given": {"classes": CLASSES}}.get(kind, {})
    path = pack(tmp_path / "a.tar", files)
    data = Shards(str(path), SIZE, eval_fraction=0.0, memory_mib=0, **options)
    assert data.label_names == CLASSES
    np.testing.assert_array_equal(data.open("train").take(np.arange(3))["label"], [0, 1, 2])


def test_other_splits_have_the_classes_of_training(tmp_path):
    pack(tmp_path / "t.tar", sample(0, "a") | sample(1, "b"))
    pack(tmp_path / "e.tar", sample(2, "b"))
    pack(tmp_path / "f.tar", sample(2, "c"))
    data = Shards(str(tmp_path / "t.tar"), SIZE, eval_path=str(tmp_path / "e.tar"))
    assert (data.size("train"), data.size("eval"), data.size("test")) == (2, 1, 0)
    assert data.open("eval").take(np.array([0]))["label"] == 1
    with pytest.raises(DataError, match=r"f.tar: the label 'c' is none of the 2 classes"):
        Shards(str(tmp_path / "t.tar"), SIZE, test_path=str(tmp_path / "f.tar")).size("train")


def test_numbers_of_classes_that_are_called_by_numbers_are_no_names(tmp_path):
    """Labels from 0 of ratings of 1 to 3 stars: "0" and "1" would both be the class "1"."""
    stars = ("1", "2", "3")
    path = pack(tmp_path / "a.tar", sample(0, "0") | sample(1, "1") | sample(2, "2"))
    with pytest.raises(DataError, match=r"\['1', '2'\] are names of classes and \['0'\] are not"):
        Shards(str(path), SIZE, classes=stars).size("train")
    path = pack(tmp_path / "b.tar", sample(0, "3") | sample(1, "1") | sample(2, "2"))
    data = Shards(str(path), SIZE, eval_fraction=0.0, classes=stars)
    np.testing.assert_array_equal(data.open("train").take(np.arange(3))["label"], [2, 0, 1])


@pytest.mark.parametrize("cut", [100, 700, 1100, -11_000])
def test_an_archive_that_was_cut_off_is_refused(tmp_path, cut):
    path = pack(tmp_path / "a.tar", sample(0, "0") | sample(1, "1") | {"2.png": bytes(9000)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.tar"):
        Shards(str(path), SIZE, eval_fraction=0.0).size("train")


def test_one_that_is_cut_off_later_is_noticed_when_it_is_read(tmp_path):
    path = pack(tmp_path / "a.tar", sample(0, "0") | sample(1, "1"))
    source = Shards(str(path), SIZE, eval_fraction=0.0, memory_mib=0).open("train")
    os.truncate(path, 2100)
    with pytest.raises(DataError, match=r"a.tar: ends before byte 2,936"):
        source.take(np.array([1]))


def test_memory_is_taken_for_what_is_there(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(DataError, match="a: ends before byte 1,099,511,627,777"):
        stores.read(str(tmp_path / "a"), 1, 1 << 40)


def test_what_lies_elsewhere_is_asked_for_by_many_threads():
    assert Shards("memory://a.tar").workers > os.cpu_count()
    assert Shards("a.tar").workers == 0  # one for each core


def test_compressed_archives_and_sparse_files_are_refused(tmp_path):
    path = pack(tmp_path / "a.tar", sample(0, "0"))
    packed = tmp_path / "b.tar"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="must be unpacked first"):
        Shards(str(packed), SIZE).size("train")
    if shutil.which("tar") is None:
        pytest.skip("there is no tar")
    with open(tmp_path / "hole.png", "wb") as file:
        file.truncate(1 << 20)
    subprocess.run(["tar", "-cSf", "c.tar", "hole.png"], cwd=tmp_path, check=True)
    with pytest.raises(DataError, match=r"c.tar: cannot be read.*hole.png is sparse"):
        Shards(str(tmp_path / "c.tar"), SIZE).size("train")


def test_links_folders_and_hidden_files_are_no_samples(tmp_path):
    path = pack(tmp_path / "a.tar", sample(0, "0") | {"._0000.png": b"x", "d/.DS_Store": b""})
    with tarfile.open(path, "a") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("e.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert Shards(str(path), SIZE, eval_fraction=0.0).size("train") == 1


PATTERNS = ["a{0..3}b", "a{08..11}", "{x,y}-{1..2}", "{a,}b", "plain", "{000..002}.tar"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_braces_stand_for_what_they_do_in_a_shell(pattern):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    said = subprocess.run(["bash", "-c", f"echo {pattern}"], capture_output=True, text=True)
    assert stores.expand(pattern) == said.stdout.split()


@pytest.mark.parametrize("pattern", ["a{3..1}", "a{}", "a{x}", "{0..99999}{0..9}", "{0..999999}"])
def test_braces_that_stand_for_nothing_or_too_much_are_refused(pattern):
    with pytest.raises(DataError, match=r"\{"):
        stores.expand(pattern)


def test_what_is_missing_is_named_and_counted(tmp_path):
    shards(tmp_path)
    with pytest.raises(DataError, match=r"part-003.tar: there is no such file.*2 of 5 are"):
        Shards(str(tmp_path / "part-{000..004}.tar")).size("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.tar in such a folder"):
        Shards(str(tmp_path / "empty")).size("train")


def test_a_name_with_braces_that_is_there_is_taken_as_it_is(tmp_path):
    path = pack(tmp_path / "a{1..2}[x].tar", sample(0, "0") | sample(1, "1"))
    assert Shards(str(path), SIZE, eval_fraction=0.0).size("train") == 2
    assert files_of(Shards(str(path)))["path"][0] == 1


@pytest.mark.parametrize("place", ["nowhere3://b/a.tar", "memory://none/a-{0..1}.tar"])
def test_stores_that_are_not_there_are_named(place):
    pytest.importorskip("fsspec")
    with pytest.raises(DataError, match=place.partition("{")[0]):
        Shards(place).size("train")
    assert files_of(Shards(place)) == {}


def test_a_pattern_beneath_the_folder_of_a_run_is_found_again(tmp_path, monkeypatch):
    shards(tmp_path / "start" / "tar")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    data = located(Shards("tar/part-*.tar", SIZE), tmp_path / "start")
    assert data.size("train") + data.size("eval") == 10
    for place in ("s3://bucket/a.tar", "gone-*.tar"):
        assert located(Shards(place), tmp_path / "start").path == place


@pytest.mark.parametrize("names", [("1", "02", "10"), ("b", "a", "é")])
def test_a_folder_that_is_packed_is_read_as_before(tmp_path, names, capsys):
    for part, count in (("train", 4), ("val", 2)):
        for k, name in enumerate(names):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                file = tmp_path / "photos" / part / name / f"{i}.v2.{'PNG' if i % 2 else 'jpg'}"
                file.write_bytes(picture(10 * k + i, "PNG" if i % 2 else "JPEG"))
    out = tmp_path / "packed"
    assert _main.main(["prepare", str(tmp_path / "photos"), "--shards", str(out)]) == 0
    said = capsys.readouterr().out.partition("data=")[2]
    packed = eval(said, {"Shards": partial(Shards, image_size=SIZE, memory_mib=0)})
    plain = Folder(str(tmp_path / "photos"), SIZE)
    assert packed.label_names == plain.label_names
    for split in ("train", "eval"):
        size = plain.size(split)
        assert packed.size(split) == size
        ours, theirs = (d.open(split).take(np.arange(size)) for d in (packed, plain))
        rows = [
            sorted((int(y), x.tobytes()) for x, y in zip(side["image"], side["label"], strict=True))
            for side in (ours, jax.device_get(theirs))
        ]
        assert rows[0] == rows[1]
    assert _main.main(["prepare", str(tmp_path / "photos"), "--shards", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_archives_are_no_larger_than_asked_for(tmp_path):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(6):
            (tmp_path / "photos" / name / f"{i}.png").write_bytes(picture(i) + bytes(1000))
    pack_folder(str(tmp_path / "photos"), str(tmp_path / "out"), largest=4000)
    sizes = []
    for path in sorted((tmp_path / "out").glob("train-*.tar")):
        with tarfile.open(path) as archive:
            sizes.append(sum(m.size for m in archive if m.name.endswith(".png")))
    assert len(sizes) > 2
    assert max(sizes) <= 4000
    assert Shards(str(tmp_path / "out"), SIZE, eval_fraction=0.0).size("train") == 12
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out", "cache"}


def test_packing_that_fails_leaves_nothing(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.png").write_bytes(picture(0))

    def fail(self):
        raise OSError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(DataError, match=r"0.png: cannot be read \(gone\)"):
            pack_folder(str(tmp_path / "photos"), str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    with pytest.raises(ResourceError, match="cannot be written"):
        pack_folder(str(tmp_path / "photos"), str(tmp_path / "photos" / "a" / "0.png" / "out"))
    with pytest.raises(ConfigError, match=r"out\*: .* name another folder"):
        pack_folder(str(tmp_path / "photos"), str(tmp_path / "out*"))


@pytest.mark.parametrize("kind, ending", [(Shards, "tar"), (Tables, "parquet")])
def test_parts_in_one_folder_are_not_taken_for_one(tmp_path, kind, ending):
    for name in ("train-00000-of-00001", "validation-00000-of-00001", "other"):
        pack(tmp_path / f"{name}.{ending}", sample(0, "0"))
    with pytest.raises(DataError, match=r"train-00000.*validation-00000.*different parts"):
        kind(str(tmp_path), SIZE).size("train")
    with pytest.raises(DataError, match=r"are by their names different parts"):
        kind(f"{tmp_path}/*0000*.{ending}", SIZE).size("train")


def test_folders_elsewhere_are_refused_with_what_is_read_there():
    with pytest.raises(DataError, match=r"s3://bucket/photos: .* --shards OUT.*Shards"):
        Folder("s3://bucket/photos").size("train")
