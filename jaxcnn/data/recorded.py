"""What a run recorded of its data: enough to predict and to export where the data are gone."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data import stores
from jaxcnn.data.dataset import SPLITS, Dataset, Source
from jaxcnn.errors import DataError, DependencyError


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Shapes, names and sizes of the data that a run was trained on, without the examples.

    entries: (name, shape of one example, dtype). sizes: (split, number of examples). tokens: a
    digest of what the numbers of texts stand for; "" where the data do not say it.
    """

    entries: tuple[tuple[str, tuple[int, ...], str], ...]
    label_names: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    tokens: str = ""

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            name: jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
            for name, shape, dtype in self.entries
        }

    def size(self, split: str) -> int:
        return dict(self.sizes).get(split, 0)

    def open(self, split: str) -> Source:
        """Errors: DataError, since the examples were not kept."""
        raise DataError(
            f"the {split!r} examples of this run were not kept with it; give the data, e.g. "
            "open(folder).evaluate(data=…)"
        )

    def to_json(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "entries": [[name, list(shape), dtype] for name, shape, dtype in self.entries],
            "label_names": list(self.label_names),
            "sizes": dict(self.sizes),
            **({"tokens": self.tokens} if self.tokens else {}),
        }

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Recorded":
        """The inverse of `to_json`."""
        return Recorded(
            tuple((name, tuple(shape), dtype) for name, shape, dtype in content["entries"]),
            tuple(content["label_names"]),
            tuple(content["sizes"].items()),
            content.get("tokens", ""),
        )


def record(data: Dataset) -> Recorded:
    """What to keep of a data set."""
    spec = data.spec()
    entries = tuple((name, tuple(s.shape), np.dtype(s.dtype).name) for name, s in spec.items())
    sizes = tuple((split, data.size(split)) for split in SPLITS)
    words = "\0".join(getattr(data, "token_names", ()))
    tokens = hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Recorded(entries, tuple(data.label_names), sizes, tokens if words else "")


def check_same_kind(trained: Recorded, data: Dataset) -> None:
    """DataError for data with other entries, shapes, class names or numbers of tokens than those of
    training."""
    other = record(data)
    if other.label_names != trained.label_names:
        raise DataError(
            f"these data have the classes {list(other.label_names)}, the run was trained on "
            f"{list(trained.label_names)}; labels would mean something else"
        )
    if trained.tokens and other.tokens and other.tokens != trained.tokens:
        raise DataError(
            "these data number their tokens otherwise than the run's, so that each text would be "
            "read as other words; numbers follow from the training texts: give new texts as "
            "another part of the run's own data (test_path=…), or the same vocabulary"
        )
    old, new = trained.spec(), other.spec()
    wrong = [
        n
        for n in old
        if n not in new or (old[n].shape, old[n].dtype) != (new[n].shape, new[n].dtype)
    ]
    if wrong:
        raise DataError(
            f"these data differ in {wrong}: {[new.get(n) for n in wrong]}, trained on "
            f"{[old[n] for n in wrong]}"
        )


# the last words of the names of fields that say where files are
PLACES = ("path", "images", "labels", "masks")


def files_of(data: Any) -> dict[str, list[Any]]:
    """{dotted field: [number of files, bytes, digest of their names and sizes]} of the files and
    folders that the fields of a data set name, those inside it too. No file is read; hidden ones
    are left out.
    """
    return {field: _listing(place) for field, place in _places(data, "")}


def _places(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _places(item, f"{prefix}{i}.")
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return
    for field in dataclasses.fields(value):
        item, path = getattr(value, field.name, None), f"{prefix}{field.name}"
        if isinstance(item, str) and item and field.name.split("_")[-1] in PLACES:
            if _is_there(item):
                yield path, item
        else:
            yield from _places(item, f"{path}.")


def _is_there(place: str) -> bool:
    """Whether there is a file or a folder, or a pattern stands for some."""
    if not stores.is_elsewhere(place) and Path(place).expanduser().exists():
        return True
    try:
        return (stores.is_elsewhere(place) or stores.is_pattern(place)) and bool(stores.find(place))
    except (DataError, DependencyError):  # who opens the data hears of it
        return False


def located(data: Any, start: Path) -> Any:
    """A data set in which relative places are those beneath the folder `start`, in which its run
    was started, wherever the process is now. A place that is not there is left as it is: the run
    was moved together with its data.
    """
    return data if start == Path.cwd() else _located(data, start)


def _located(value: Any, start: Path) -> Any:
    if isinstance(value, tuple):
        return tuple(_located(item, start) for item in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    new = {
        name: _place(name, item, start, fields.get("path"))
        if isinstance(item, str)
        else _located(item, start)
        for name, item in fields.items()
    }
    changed = {name: item for name, item in new.items() if item is not fields[name]}
    return dataclasses.replace(value, **changed) if changed else value


def _place(name: str, value: str, start: Path, root: object) -> str:
    word = name.split("_")[-1]
    if not value or word not in (*PLACES, "dir"):
        return value
    if word == "labels" and isinstance(root, str) and (start / root / value).exists():
        return value  # TextLines' labels are a file within its folder
    place = Path(value).expanduser()
    if stores.is_elsewhere(value) or place.is_absolute():
        return value
    return str(start / place) if _is_there(str(start / place)) else value


def _listing(place: str) -> list[Any]:
    found: list[tuple[str, int]] = []
    root = os.path.expanduser(place)
    if os.path.isdir(root):
        found += _inside(root)
    else:
        # the names alone, since the run may be moved together with its data
        found += [(os.path.basename(file.place), file.size) for file in stores.find(place)]
    digest = hashlib.sha256()
    for i, (name, size) in enumerate(sorted(found)):  # one by one: there may be millions
        text = f"{name}\0{size}" if i == 0 else f"\0{name}\0{size}"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return [len(found), sum(size for _, size in found), digest.hexdigest()[:16]]


def _inside(root: str) -> Iterator[tuple[str, int]]:
    """(path below a folder, bytes) of its files, links followed."""
    start = len(root.rstrip(os.sep)) + 1
    for folder, inside, names in os.walk(root, followlinks=True):
        inside[:] = [name for name in inside if not name.startswith(".")]
        below = folder[start:].replace(os.sep, "/")
        for name in names:
            if name.startswith("."):
                continue
            try:
                size = os.stat(f"{folder}{os.sep}{name}").st_size
            except OSError:  # a link that leads nowhere
                continue
            yield (f"{below}/{name}" if below else name), size


def check_unchanged(old: dict[str, Any], data: Dataset, *, where: str) -> list[str]:
    """Compare the data of a run with what run.json recorded of them: sentences on files that are
    others, by name or size, though their number of examples and classes is the same.

    Errors: DataError for other entries, names of classes or numbers of examples.
    """
    if wrong := changed_kind(old, data):
        raise DataError(
            f"{where}: its data have changed: {'; '.join(wrong)}. A run goes on with the data that "
            "it was started on: put them back, or go on in a new run: train --from"
        )
    return changed_files(old, data)


def changed_kind(old: dict[str, Any], data: Dataset) -> list[str]:
    """Sentences on entries, names of classes and numbers of examples that are not those of then."""
    new = record(data).to_json()
    words = {"entries": "entries", "label_names": "classes", "sizes": "numbers of examples"}
    words["tokens"] = "a digest of the numbers of tokens"
    return [
        f"{words[name]} {old[name]} then, {new.get(name)} now"
        for name in words
        if name in old and old[name] != new.get(name)
    ]


def changed_files(old: dict[str, Any], data: Dataset) -> list[str]:
    """Sentences on files that are others, by name or size."""
    files = files_of(data)
    return [
        f"data.{field}: {count:,} files of {size:,} bytes then, {files[field][0]:,} of "
        f"{files[field][1]:,} bytes now, with other names or sizes"
        for field, (count, size, digest) in old.get("files", {}).items()
        if field in files and files[field][2] != digest
    ]


def no_longer_those(old: dict[str, Any], data: Dataset) -> str:
    """A sentence for who scores a run on its own data after they have changed; "" where nothing
    shows that they have. Which examples are held out depends on all of them.
    """
    found = [*changed_kind(old, data), *changed_files(old, data)]
    if not found:
        return ""
    return (
        f"its data have changed since it was trained: {'; '.join(found)}. Examples that it was "
        "trained on may now be among those that are held out"
    )
