"""Rows of Parquet and Arrow files, written by pyarrow: what they give is what the same pictures
give in a folder, whatever the format, the batches and the place.
"""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.files.images import decode_image
from jaxcnn.data.files.shards import Tables
from jaxcnn.data.files.table_file import _extents, _written
from jaxcnn.data.kept import keep, read_kept
from jaxcnn.data.stores import File
from jaxcnn.errors import DataError, ResourceError
from tests.data.test_shards import CLASSES, SIZE, picture

COUNT = 10
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def table(kind=STRUCT, *, labels=None, names=(), count: int = COUNT) -> pa.Table:
    """Rows as the package `datasets` writes them, with the names of classes in the schema."""
    pictures = [picture(i) for i in range(count)]
    rows = [{"bytes": p, "path": "x.png"} for p in pictures] if kind is STRUCT else pictures
    labels = pa.array([i % 3 for i in range(count)] if labels is None else labels)
    schema = pa.schema([("other", pa.int8()), ("image", kind), ("label", labels.type)])
    if names:
        said = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        schema = schema.with_metadata({"huggingface": json.dumps(said)})
    columns = [pa.array([0] * count, pa.int8()), pa.array(rows, kind), labels]
    return pa.Table.from_arrays(columns, schema=schema)


def write(path, rows: pa.Table, form: str):
    """The file of a form: its ending, and how it is written."""
    path = path.with_suffix(form.split()[0])
    if form.startswith(".parquet"):
        pq.write_table(rows, path, row_group_size=4, compression=form.split()[1])
        return path
    options = pa.ipc.IpcWriteOptions(compression="zstd" if "zstd" in form else None)
    new = pa.ipc.new_file if "file" in form else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as out, new(out, rows.schema, options=options) as writer:
        writer.write_table(rows, max_chunksize=3)
    return path


FORMS = [".parquet snappy", ".parquet zstd", ".parquet none", ".arrow stream", ".arrow file"]


@pytest.mark.parametrize("kind", [STRUCT, pa.binary(), pa.large_binary()], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_they_give_what_the_same_pictures_give_in_folders(tmp_path, form, kind):
    for i in range(COUNT):
        folder = tmp_path / "plain" / str(i % 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:04d}.png").write_bytes(picture(i))
    plain = Folder(str(tmp_path / "plain"), SIZE, eval_fraction=0.0).open("train")
    path = write(tmp_path / "a", table(kind, names=CLASSES), form)
    data = Tables(str(path), SIZE, eval_fraction=0.0, memory_mib=0)
    assert (data.label_names, data.size("train")) == (CLASSES, COUNT)
    rows = np.random.default_rng(0).permutation(COUNT)
    ours, theirs = data.open("train").take(rows), plain.take(np.arange(COUNT))
    order = np.argsort(np.argsort(np.arange(COUNT) % 3, kind="stable"))[rows]
    for name in ("image", "label"):
        np.testing.assert_array_equal(ours[name], theirs[name][order])


@pytest.mark.parametrize("form", [".parquet snappy", ".arrow stream", ".arrow file"])
def test_several_files_and_a_store_elsewhere_give_the_same(tmp_path, form):
    fsspec = pytest.importorskip("fsspec")
    root = tmp_path / "tables"
    root.mkdir()
    whole = table()
    for i, first in enumerate(range(0, COUNT, 4)):
        write(root / f"part-{i}", whole.slice(first, 4), form)
    (root / "dataset_info.json").write_text("{}")  # lies beside the files of save_to_disk
    system = fsspec.filesystem("memory")
    system.put(str(root), "/tables", recursive=True)
    try:
        sources = [
            Tables(place, SIZE, eval_fraction=0.0, memory_mib=0)
            .open("train")
            .take(np.arange(COUNT))
            for place in (str(root), "memory://tables")
        ]
    finally:
        system.rm("/tables", recursive=True)
    np.testing.assert_array_equal(sources[0]["image"], sources[1]["image"])
    np.testing.assert_array_equal(sources[0]["label"], np.arange(COUNT) % 3)


def test_a_copy_is_made_once_and_again_where_it_is_gone(tmp_path):
    path = write(tmp_path / "a", table(), ".parquet snappy")
    data = Tables(str(path), SIZE, eval_fraction=0.0, memory_mib=0)
    first = data.open("train").take(np.arange(COUNT))["image"]
    (copy,) = (tmp_path / "cache" / "jaxcnn").glob("*.pictures")
    made = copy.stat().st_mtime_ns
    assert Tables(str(path), SIZE).size("train") > 0
    assert copy.stat().st_mtime_ns == made
    copy.unlink()
    again = Tables(str(path), SIZE, eval_fraction=0.0, memory_mib=0).open("train")
    np.testing.assert_array_equal(again.take(np.arange(COUNT))["image"], first)


def test_names_of_classes_may_be_given_or_be_the_labels(tmp_path):
    path = write(
        tmp_path / "a", table(labels=[CLASSES[i % 3] for i in range(COUNT)]), ".arrow file"
    )
    assert Tables(str(path), SIZE).label_names == CLASSES
    path = write(tmp_path / "b", table(names=("x", "y", "z")), ".arrow file")
    assert Tables(str(path), SIZE).label_names == ("x", "y", "z")
    assert Tables(str(path), SIZE, classes=CLASSES).label_names == CLASSES
    path = write(tmp_path / "c", table(), ".arrow file")
    assert Tables(str(path), SIZE).label_names == ("0", "1", "2")


def test_files_that_name_their_classes_differently_are_refused(tmp_path):
    write(tmp_path / "a", table(names=("x", "y", "z")), ".arrow file")
    write(tmp_path / "b", table(names=("x", "z", "y")), ".arrow file")
    with pytest.raises(DataError, match=r"name different classes: \['x', 'y', 'z'\] and"):
        Tables(str(tmp_path), SIZE).size("train")


def labels_of(data, split="train"):
    source = data.open(split)
    return np.asarray(source.take(np.arange(len(source)))["label"]).tolist()


@pytest.mark.parametrize("form", [".parquet snappy", ".arrow file"])
def test_numbers_stay_numbers_where_classes_are_called_by_numbers(tmp_path, form):
    """Ratings of 1 to 5 stars are numbered from 0."""
    numbers = [i % 5 for i in range(COUNT)]
    path = write(tmp_path / "a", table(labels=numbers, names=tuple("12345")), form)
    data = Tables(str(path), SIZE, eval_fraction=0.0)
    assert data.label_names == tuple("12345")
    assert labels_of(data) == numbers


def test_other_splits_are_matched_by_the_names_of_their_files(tmp_path):
    numbers = [i % 3 for i in range(COUNT)]
    train = write(tmp_path / "a", table(labels=numbers, names=("x", "y", "z")), ".arrow file")
    other = write(tmp_path / "b", table(labels=numbers, names=("z", "x", "y")), ".arrow file")
    data = Tables(str(train), SIZE, eval_path=str(other))
    assert labels_of(data) == numbers
    assert labels_of(data, "eval") == [(2, 0, 1)[k] for k in numbers]
    said = Tables(str(train), SIZE, eval_path=str(other), classes=("p", "q", "r"))
    assert labels_of(said, "eval") == numbers
    strange = write(tmp_path / "c", table(labels=numbers, names=("x", "y", "w")), ".arrow file")
    with pytest.raises(DataError, match="label '2', which the files call 'w', is none of the 3"):
        Tables(str(train), SIZE, eval_path=str(strange)).size("eval")


@pytest.mark.parametrize("form", [".parquet snappy", ".arrow stream"])
def test_rows_without_a_picture_or_a_label_are_refused_or_counted(tmp_path, form):
    rows = table(labels=[None, -1, *(i % 3 for i in range(COUNT - 2))]).to_pylist()
    rows[4]["image"] = None
    rows[5]["image"] = {"bytes": None, "path": "elsewhere.png"}
    broken = pa.Table.from_pylist(rows, schema=table().schema)
    path = write(tmp_path / "a", broken, form)
    with pytest.raises(DataError, match="row 0' has no label"):
        Tables(str(path), SIZE, eval_fraction=0.0).size("train")
    data = Tables(str(path), SIZE, invalid="skip", eval_fraction=0.0, memory_mib=0)
    with pytest.warns(UserWarning, match=r"4 labels.*no label \(2\), no picture \(2\)"):
        size = data.size("train")
    assert size == COUNT - 4
    whole = write(tmp_path / "b", table(), form)
    expected = Tables(str(whole), SIZE, eval_fraction=0.0, memory_mib=0).open("train")
    kept = np.array([2, 3, 6, 7, 8, 9])
    np.testing.assert_array_equal(
        data.open("train").take(np.arange(COUNT - 4))["image"], expected.take(kept)["image"]
    )


def test_more_rows_than_are_held_at_a_time(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(count=150), path)
    data = Tables(str(path), SIZE, eval_fraction=0.0, memory_mib=0)
    expected = [decode_image(picture(i), name="x", size=SIZE, channels=3) for i in range(150)]
    np.testing.assert_array_equal(data.open("train").take(np.arange(150))["image"], expected)


def arrow(path, starts, valid):
    """A file of three rows, of which the first picture is a picture; where they start is given."""
    content, valid = picture(0) + bytes(50), pa.array(valid).buffers()[1]
    starts = pa.py_buffer(np.array(starts, np.int32))
    image = pa.Array.from_buffers(pa.binary(), 3, [valid, starts, pa.py_buffer(content)])
    rows = pa.Table.from_arrays([image, pa.array([0, 1, 0])], ["image", "label"])
    return write(path, rows, ".arrow file")


def test_a_picture_that_is_missing_may_have_bytes(tmp_path):
    """The format says nothing of what they are."""
    first = len(picture(0))
    path = arrow(tmp_path / "a", (0, first, first + 20, first + 20), [True, False, False])
    data = Tables(str(path), SIZE, invalid="skip", eval_fraction=0.0)
    with pytest.warns(UserWarning, match="no picture"):
        size = data.size("train")
    assert size == 1


def test_lengths_that_lie_outside_the_file_are_refused(tmp_path):
    first = len(picture(0))
    path = arrow(tmp_path / "a", (0, first, first + 20, first + 21), [True] * 3)
    content = path.read_bytes()
    bounds = np.array([first + 20, first + 21], np.int32).tobytes()
    assert content.count(bounds) == 1
    wrong = np.array([first + 20, first + 10_000], np.int32).tobytes()
    path.write_bytes(content.replace(bounds, wrong))
    with pytest.raises(DataError, match="cannot be read as a table"):
        Tables(str(path), SIZE).size("train")


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
@pytest.mark.parametrize("first", [0, 3])
def test_lengths_of_a_part_of_a_column(kind, first):
    texts = [b"a" * (i * i) if i != 4 else None for i in range(9)]
    starts, counts = _extents(pa.array(texts, kind)[first:8])
    assert counts.tolist() == [len(text or b"") for text in texts[first:8]]
    assert starts.tolist() == np.cumsum([0, *(len(t or b"") for t in texts)])[first:8].tolist()


BAD = {
    "column": (table(), {"image": "imgae"}, "no column 'imgae'.*did you mean 'image'"),
    "label": (table(), {"label": "klass"}, "no column 'klass'"),
    "type": (table(), {"image": "other"}, "'other' is of type int8; pictures are bytes"),
    "share": (table(labels=[0.5] * COUNT), {}, "row 0 of column 'label' is 0.5"),
}


@pytest.mark.parametrize("form", [".parquet snappy", ".arrow stream"])
@pytest.mark.parametrize("rows, options, message", BAD.values(), ids=BAD)
def test_columns_that_do_not_fit_are_named(tmp_path, rows, options, message, form):
    path = write(tmp_path / "a", rows, form)
    with pytest.raises(DataError, match=message):
        Tables(str(path), SIZE, **options).size("train")


def test_two_that_copy_the_same_file_at_once_do_not_write_into_one(tmp_path):
    """As in two containers that share the cache folder, whose processes have one number."""
    path, file = tmp_path / "cache" / "a.pictures", File("a.parquet", 9, "")
    with _written(path, file) as first:
        first.write(b"whole")
        first.flush()
        with _written(path, file) as second:
            second.write(b"who")
            second.flush()
            assert len({name.read_bytes() for name in path.parent.iterdir()}) == 2
            second.write(b"le")
        assert path.read_bytes() == b"whole"
    assert path.read_bytes() == b"whole"
    assert [name.name for name in path.parent.iterdir()] == ["a.pictures"]


def test_two_that_keep_the_same_arrays_at_once_do_not_write_into_one(tmp_path, monkeypatch):
    path, savez, inner = tmp_path / "a.npz", np.savez, []

    def interrupted(file, **arrays):
        savez(file, **arrays)
        if not inner:
            inner.append(True)
            keep(path, {"x": np.arange(3)})

    monkeypatch.setattr(np, "savez", interrupted)
    keep(path, {"x": np.arange(5)})
    kept = read_kept(path, ["x"])
    assert kept is not None
    assert kept["x"].tolist() == [0, 1, 2, 3, 4]  # of the one that ended last, whole
    assert os.listdir(tmp_path) == ["a.npz"]


def test_what_killed_writers_left_in_the_cache_is_removed_in_time(tmp_path):
    old, new, other = (tmp_path / name for name in ("a.1.tmp", "b.2.tmp", "c.npz"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    keep(tmp_path / "d.npz", {"x": np.arange(3)})
    assert sorted(os.listdir(tmp_path)) == ["b.2.tmp", "c.npz", "d.npz"]


def test_a_writer_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path / "a.npz", {"x": np.arange(3)})
    assert not os.listdir(tmp_path)


def test_an_arrow_file_that_is_compressed_within_is_refused(tmp_path):
    path = write(tmp_path / "a", table(), ".arrow file zstd")
    with pytest.raises(DataError, match="compressed within"):
        Tables(str(path), SIZE).size("train")


@pytest.mark.parametrize("form", [".parquet snappy", ".arrow stream", ".arrow file"])
def test_what_is_cut_off_is_refused_and_leaves_no_copy(tmp_path, form):
    path = write(tmp_path / "a", table(), form)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=f"a{form.split()[0]}: cannot be read as a table"):
        Tables(str(path), SIZE).size("train")
    assert not list((tmp_path / "cache").rglob("*.pictures"))
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_where_there_is_no_room_for_a_copy_it_is_said(tmp_path, monkeypatch):
    path = write(tmp_path / "a", table(), ".parquet snappy")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match=r"cannot be copied there.*XDG_CACHE_HOME"):
        Tables(str(path), SIZE).size("train")


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs root")
def test_a_full_disk_leaves_no_half_copy(tmp_path, monkeypatch):
    path = write(tmp_path / "a", table(pa.binary(), count=200), ".parquet none")
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=16k tmpfs {small} 2>/dev/null") != 0:
        pytest.skip("nothing can be mounted here")
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(small))
        with pytest.raises(ResourceError, match=r"cannot be copied there.*space"):
            Tables(str(path), SIZE).size("train")
        assert not [file for file in small.rglob("*") if file.is_file()]
    finally:
        os.system(f"umount {small}")


def test_labels_that_differ_in_case_alone_are_refused(tmp_path):
    path = write(tmp_path / "a", table(labels=["cat", "dog", "Cat"] * 4, count=12), FORMS[0])
    with pytest.raises(DataError, match=r"'Cat'.*'cat'.*differ only in case"):
        _ = Tables(str(path), SIZE).label_names
