"""The rows of a table with a column of pictures: of an Arrow file where they lie in it; of a
Parquet file, which is compressed in groups of rows and has no row by itself, in a copy that is
kept.

"Arrow columnar format", version 1.5, section "Serialization and interprocess communication";
"Apache Parquet", section "File format". Read by pyarrow.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxcnn.data.files.sample_index import Archive, Sample
from jaxcnn.data.kept import kept_path, written
from jaxcnn.data.stores import File, is_elsewhere, open_file
from jaxcnn.errors import DataError, ResourceError, did_you_mean

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.ENOTDIR)
ROWS = 64  # of a Parquet file that are held in memory at a time


def read_table(file: File, *, image: str, label: str) -> Archive:
    """Where the pictures of the rows of a .parquet or .arrow file lie, or their copies. `image`,
    `label`: columns. Errors: DataError naming file and column; ResourceError where there is no room
    for a copy.
    """
    try:
        if file.place.endswith(".arrow") and not is_elsewhere(file.place):
            return _mapped(file, image, label)
        return _copied(file, image, label)
    except (DataError, ResourceError):
        raise
    # pyarrow raises ArrowInvalid, OSError, KeyError, NotImplementedError, …
    except Exception as error:
        raise DataError(
            f"{file.place}: cannot be read as a table ({type(error).__name__}: {error}); write it "
            "anew with datasets.Dataset.to_parquet or save_to_disk"
        ) from error


def _mapped(file: File, image: str, label: str) -> Archive:
    """An Arrow file, whose rows are read where they lie."""
    import pyarrow as pa

    with pa.memory_map(file.place) as source:
        whole = source.read_buffer(source.size())
        batches = _open_arrow(pa.BufferReader(whole))
        samples: list[Sample] = []
        for batch in batches:
            column = _bytes_of(batch, image, file.place)
            starts, counts = _extents(column)
            data = column.buffers()[2]
            base = 0 if data is None else data.address - whole.address
            if data is not None and not 0 <= base <= base + data.size <= whole.size:
                raise DataError(
                    f"{file.place}: is compressed within, so that no row can be read by itself; "
                    "write it anew without compression, or as .parquet"
                )
            samples += _samples(batch, label, base + starts, counts, len(samples), file.place)
        return Archive(file.place, samples, _class_names(batches.schema, label))


def _open_arrow(source: Any) -> Any:
    """The batches of an Arrow file of either kind, with their schema."""
    import pyarrow as pa

    start = source.read(6)
    source.seek(0)
    if start == b"ARROW1":
        return _Batches(pa.ipc.open_file(source))
    return pa.ipc.open_stream(source)


class _Batches:
    """A file of batches as a stream of them."""

    def __init__(self, reader: Any):
        self._reader, self.schema = reader, reader.schema

    def __iter__(self) -> Iterator[Any]:
        return (self._reader.get_batch(i) for i in range(self._reader.num_record_batches))


def _copied(file: File, image: str, label: str) -> Archive:
    """A file whose pictures are copied, one after the other, into the cache folder."""
    path = kept_path(f"pictures of {tuple(file)} {image!r}").with_suffix(".pictures")
    with open_file(file.place) as source, _written(path, file) as copy:
        samples: list[Sample] = []
        batches, schema = _batches(source, file, (image, label))
        for batch in batches:
            column = _bytes_of(batch, image, file.place)
            counts = _extents(column)[1]
            starts = copy.tell() + np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
            for value in column:
                copy.write(value.as_py() or b"")
            samples += _samples(batch, label, starts, counts, len(samples), file.place)
    return Archive(str(path), samples, _class_names(schema, label))


def _batches(source: BinaryIO, file: File, columns: tuple[str, ...]) -> tuple[Any, Any]:
    """The rows of a file that is read from its start to its end, a few at a time; its schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.place.endswith(".arrow"):
        batches = _open_arrow(pa.PythonFile(source, "r"))
        return batches, batches.schema
    table = pq.ParquetFile(source)
    for name in columns:
        _require_column(table.schema_arrow, name, file.place)
    return table.iter_batches(batch_size=ROWS, columns=list(columns)), table.schema_arrow


@contextmanager
def _written(path: Path, file: File) -> Iterator[BinaryIO]:
    """A file that is there whole, or not at all. Errors: ResourceError."""
    try:
        with written(path) as copy:
            yield copy
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise ResourceError(
            f"{path.parent}: the pictures of {file.place} ({file.size:,} bytes) cannot be copied "
            f"there ({error}); make room, or choose another folder: XDG_CACHE_HOME"
        ) from error


def _require_column(schema: Any, name: str, place: str) -> None:
    if name not in schema.names:
        raise DataError(
            f"{place}: there is no column {name!r}; there are {schema.names[:20]}"
            f"{did_you_mean(name, schema.names)}"
        )


def _bytes_of(batch: Any, name: str, place: str) -> Any:
    """The column of pictures, as bytes."""
    import pyarrow as pa

    _require_column(batch.schema, name, place)
    column = batch.column(name)
    column.validate(full=True)  # else lengths may lie outside the file
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = column.field("bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"{place}: the column {name!r} is of type {column.type}; pictures are bytes of image "
            "files, or a struct with an entry 'bytes'"
        )
    return column


def _extents(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where each value of a column of bytes begins in its buffer, and its length, int64 [N]; 0 for
    a value that is missing."""
    import pyarrow as pa

    wide = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    count, offset = len(column), column.offset
    if count == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    bounds = np.frombuffer(column.buffers()[1], wide)[offset : offset + count + 1].astype(np.int64)
    there = np.asarray(column.is_valid())
    return bounds[:-1], np.where(there, np.diff(bounds), 0)


def _samples(
    batch: Any, label: str, starts: np.ndarray, counts: np.ndarray, before: int, place: str
) -> list[Sample]:
    """The samples of some rows, of which `before` come before."""
    _require_column(batch.schema, label, place)
    out = []
    for i, value in enumerate(batch.column(label).to_pylist()):
        if isinstance(value, bool) or not isinstance(value, int | str | None):
            raise DataError(
                f"{place}: row {before + i} of column {label!r} is {value!r:.40}; a class is a "
                "whole number or a name"
            )
        text = "" if value is None else str(value).strip()
        # -1 is how these files say that the classes of a test set are kept secret
        text = "" if text == "-1" else text
        out.append(Sample(f"row {before + i}", text, int(starts[i]), int(counts[i])))
    return out


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    """The names of classes that Hugging Face's packages write into a schema; () without."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])
        names = said["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return (
        tuple(names) if isinstance(names, list) and all(isinstance(n, str) for n in names) else ()
    )
