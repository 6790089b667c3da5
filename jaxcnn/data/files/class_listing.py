"""Files whose folder says their class, as people lay them out: which folders are parts of the data
(train, eval, test), which are classes, and which are neither.

What can be read in two ways is refused, and what is left out is said.
"""

import collections
import os
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcnn.data.files.names import nfc, require_distinct
from jaxcnn.data.files.walk import is_hidden, list_folder, walk_found
from jaxcnn.errors import DataError

# in any case of letters
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "eval": ("eval", "val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLIT_WORDS = {word for words in SPLIT_FOLDERS.values() for word in words}


class Files(NamedTuple):
    """Files and their labels, int32 [N], sorted by class and path; strings, since there may be
    millions."""

    paths: list[str]
    labels: np.ndarray
    links: list[str]  # those of the paths that are links

    def keep(self, rows: np.ndarray) -> "Files":
        """Only those, by a mask."""
        paths = [self.paths[i] for i in np.flatnonzero(rows)]
        return Files(paths, self.labels[rows], self.links)


def list_labelled(
    root: Path, endings: Collection[str], *, nested: bool, where: str
) -> tuple[tuple[str, ...], dict[str, Files]]:
    """The class names, sorted and in normal form C, and the files of each part that there is: of
    `root/<class>/**`, or of `root/train/<class>/**` with `root/val` and `root/test`.

    `endings`: of the files that are data, in lower case with the dot. `nested`: class folders hold
    sub-folders only, which are no classes. Errors: DataError naming the folder.
    """
    if not root.is_dir():
        raise DataError(
            f"{where}: {root} is not a folder; it must hold one sub-folder of files per class, or "
            "train/ and eval/ with those"
        )
    roots = split_roots(root, endings, where)
    names = _class_names(roots["train"], endings, nested, where)
    files = {split: _labelled(place, names, split, endings) for split, place in roots.items()}
    _check_links(files, names)
    return names, files


def split_roots(root: Path, endings: Collection[str], where: str) -> dict[str, Path]:
    """The folder of each part; {"train": root} where there are no parts. Errors: DataError."""
    folders, _ = list_folder(root)
    found = {
        split: [folder for folder in folders if folder.name.lower() in words]
        for split, words in SPLIT_FOLDERS.items()
    }
    others = [folder.name for folder in folders if folder.name.lower() not in SPLIT_WORDS]
    for split, places in found.items():
        if len(places) > 1:
            raise DataError(
                f"{where}: {[p.name for p in places]} in {root} could each be the {split!r} part; "
                "keep one, or move the others elsewhere"
            )
    parts = [place.name for places in found.values() for place in places]
    if not found["train"]:
        if parts:
            raise DataError(
                f"{where}: {root} has {parts}, by its name a part of the data and no class, and no "
                "train/ beside it; move the classes for training into train/, or rename it"
            )
        return {"train": root}
    train = found["train"][0]
    if others and parts == [train.name] and _holds(train, endings) and not list_folder(train)[0]:
        return {"train": root}  # of vehicles, say: bus, car, train
    if others:
        warnings.warn(
            f"{where}: beside {parts} there are {others[:10]} in {root}, which are left out",
            stacklevel=2,
        )
    return {split: places[0] for split, places in found.items() if places}


def _class_names(root: Path, endings: Collection[str], nested: bool, where: str) -> tuple[str, ...]:
    """The classes of the part for training: the sub-folders of `root`, looked at whether they can
    be classes.
    """
    folders, _ = list_folder(root)
    names = [folder.name for folder in folders]
    require_distinct(names, where=where)
    if not folders:
        raise DataError(
            f"{where}: {root} has no sub-folder; there must be one per class, with its files"
        )
    if len(folders) == 1:
        raise DataError(
            f"{where}: {root} has a single class, the sub-folder {names[0]!r}; there must be two "
            f"or more. If the classes are the sub-folders of that, name it: {folders[0]}"
        )
    deep = {
        folder.name: subs
        for folder in folders
        if not _holds(folder, endings) and (subs := [sub.name for sub in list_folder(folder)[0]])
    }
    shown = "; ".join(f"{name}: {', '.join(subs[:4])}" for name, subs in list(deep.items())[:4])
    parts = any(nfc(sub).lower() in SPLIT_WORDS for subs in deep.values() for sub in subs)
    if deep and not nested and (len(deep) == len(folders) or parts):
        raise DataError(
            f"{where}: the sub-folders of {root} hold no files themselves, only sub-folders "
            f"({shown}), which look like classes or parts: name the folder that holds the classes, "
            "or train/ and val/ with them. If all below a sub-folder is of its class: nested=True"
        )
    if deep and not nested:
        warnings.warn(
            f"{where}: the classes {list(deep)[:10]} hold sub-folders only ({shown}); all files "
            "below are taken for that class",
            stacklevel=2,
        )
    return tuple(sorted(map(nfc, names)))


def _holds(folder: Path, endings: Collection[str]) -> bool:
    """Whether data lie in the folder itself."""
    try:
        with os.scandir(folder) as entries:  # up to the first: there may be thousands
            return any(
                not is_hidden(entry.name) and _kind(entry.name) in endings and entry.is_file()
                for entry in entries
            )
    except OSError:  # a link that leads to itself, or what list_folder says of the folder
        return any(_kind(file.name) in endings for file in list_folder(folder)[1])


def _labelled(root: Path, names: Sequence[str], split: str, endings: Collection[str]) -> Files:
    """The files of a part; the order is the same on every machine."""
    folders, loose = list_folder(root)
    require_distinct([folder.name for folder in folders], where=str(root))
    places = {nfc(folder.name): folder for folder in folders}
    strange = sorted(set(places) - set(names))
    if strange:
        folded = {name.casefold().strip(): name for name in names}
        alike = [folded[n.casefold().strip()] for n in strange if n.casefold().strip() in folded]
        raise DataError(
            f"{root}: has sub-folders {strange[:20]} that the training part has not; its classes "
            f"are {list(names)[:20]}"
            + (f" (compare {alike}: upper and lower case)" if alike else "")
        )
    paths: list[str] = []
    links: list[str] = []
    labels: list[np.ndarray] = []
    empty, other = [], collections.Counter()
    loose = [file.name for file in loose if file.suffix.lower() in endings]
    if loose:
        warnings.warn(
            f"{root}: {len(loose)} files lie beside the class folders and are left out; the "
            f"first: {loose[0]}",
            stacklevel=2,
        )
    for label, name in enumerate(names):
        found = walk_found(places[name]) if name in places else []
        kinds = [_kind(file.path) for file in found]
        kept = [file.path for file, kind in zip(found, kinds, strict=True) if kind in endings]
        links += [file.path for file in found if file.link]
        other.update(kind for kind in kinds if kind not in endings)
        if not kept and split == "train":
            raise DataError(
                f"{places[name]}: holds no files of the endings {sorted(endings)}; remove it, or "
                f"put examples of class {name!r} there"
            )
        empty += [] if kept else [name]
        paths += kept
        labels.append(np.full(len(kept), label, np.int32))
    if other:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in other.most_common(8))
        warnings.warn(
            f"{root}: {other.total()} files of other endings are left out: {kinds}", stacklevel=2
        )
    if empty:
        warnings.warn(
            f"{root}: {len(empty)} of {len(names)} classes have no examples there and are not "
            f"scored: {empty[:10]}",
            stacklevel=2,
        )
    return Files(paths, np.concatenate(labels), links)


def _kind(path: str) -> str:
    """The ending of a file in lower case, or its name where it has none."""
    name = os.path.basename(path)
    stem, dot, ending = name.rpartition(".")
    return f".{ending.lower()}" if dot and stem and ending else name


def _check_links(files: dict[str, Files], names: Sequence[str]) -> None:
    """Refuse a file that links put into two classes, and say where they put it into two parts."""
    folders = {os.path.dirname(path) for found in files.values() for path in found.paths}
    real = {folder: os.path.realpath(folder) for folder in folders}
    links = {path for found in files.values() for path in found.links}
    if not links and len(set(real.values())) == len(real):
        return  # no file is reached by two paths
    seen: dict[str, tuple[str, int, str]] = {}
    shared = []
    for split, found in files.items():
        for path, label in zip(found.paths, found.labels.tolist(), strict=True):
            folder, name = os.path.split(path)
            place = os.path.realpath(path) if path in links else f"{real[folder]}/{name}"
            part, other, first = seen.setdefault(place, (split, label, path))
            if other != label:
                raise DataError(
                    f"{path}: is the same file as {first}, by a link, and cannot be of the classes "
                    f"{names[other]!r} and {names[label]!r}"
                )
            if part != split:
                shared.append((path, first))
    if shared:
        warnings.warn(
            f"{len(shared)} files are in two parts of the data, by links; the first: "
            f"{shared[0][0]} is {shared[0][1]}, so that what is scored was trained on",
            stacklevel=2,
        )
