"""Labelled time series in the .ts format of the UCR and UEA archives.

Dau et al., "The UCR Time Series Archive" (2019); Bagnall et al., "The UEA Multivariate Time Series
Classification Archive, 2018" (2018).

A file has lines `@name value`, then `@data`, then one series a line: dimensions separated by ":",
values by ",", the class last.
"""

import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxcnn.data.files.names import nfc
from jaxcnn.data.files.packages import find_package, read_members
from jaxcnn.data.files.parsing import decode_text, split_lines
from jaxcnn.data.memory import MemorySource, check_split
from jaxcnn.errors import DataError

SUFFIXES = {"train": "TRAIN", "eval": "TEST"}
COMMAND = "`pip download --no-deps --dest {folder} aeon`, or `pip install --no-deps aeon`"
Series_ = tuple[tuple[str, ...], np.ndarray, np.ndarray]  # class names, signal [N, T, C], label [N]


@dataclass(frozen=True)
class Series:
    """A set of the archive by name, such as "OSULeaf": "signal" float32 [T, C] and "label" int32.
    "train" is the archive's TRAIN part and
    "eval" its TEST part; there is no "test".

    `path`: a folder that holds NAME_TRAIN.ts and NAME_TEST.ts, at any depth, or a package with them
    (.whl, .zip, .tgz). By default it is looked for in $JAXCNN_DATA_DIR: a folder NAME, then aeon's
    wheel, which carries a dozen sets; then in an installed aeon. `normalize` brings each dimension
    of each series to mean 0 and standard deviation 1 (a constant one to 0).
    Errors: DataError where the set is not there or damaged, has missing values or time stamps, or
    series of different lengths.
    """

    name: str
    path: str = ""
    normalize: bool = True

    @property
    def label_names(self) -> tuple[str, ...]:
        return self._splits["train"][0]

    @functools.cached_property
    def _splits(self) -> dict[str, Series_]:
        where = self._place()
        wanted = {f"{self.name}_{suffix}.ts": split for split, suffix in SUFFIXES.items()}
        found = {
            wanted[name.rpartition("/")[2]]: (name, data)
            for name, data in read_members(where, lambda n: n.rpartition("/")[2] in wanted)
        }
        for file, split in wanted.items():
            if split not in found:
                there = sorted(
                    {
                        n.rpartition("/")[2][:-9]
                        for n, _ in read_members(where, lambda n: n.endswith("_TRAIN.ts"))
                    }
                )
                raise DataError(
                    f"Series({self.name!r}): there is no {file} in {where}; there are the sets "
                    f"{there}"
                )
        splits = {
            split: parse_ts(_decoded(data, f"{where}: {name}"), where=f"{where}: {name}")
            for split, (name, data) in found.items()
        }
        (names, train, _), (other_names, test, _) = splits["train"], splits["eval"]
        if names != other_names or train.shape[1:] != test.shape[1:]:
            raise DataError(
                f"Series({self.name!r}) in {where}: TRAIN has classes {names} and series "
                f"{train.shape[1:]}, TEST {other_names} and "
                f"{test.shape[1:]}; they must agree"
            )
        return splits

    def _place(self) -> Path:
        aeon = importlib.util.find_spec("aeon") if not self.path else None
        try:
            return find_package(
                self.path, (self.name, "aeon-*.whl"), what=f"Series({self.name!r})", command=COMMAND
            )
        except DataError:
            if aeon is None or not aeon.submodule_search_locations:
                raise
            return Path(aeon.submodule_search_locations[0]) / "datasets" / "data"

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        shape = self._splits["train"][1].shape[1:]
        return {
            "signal": jax.ShapeDtypeStruct(shape, np.float32),
            "label": jax.ShapeDtypeStruct((), np.int32),
        }

    def size(self, split: str) -> int:
        return 0 if check_split(split) == "test" else len(self._splits[split][2])

    def open(self, split: str) -> MemorySource:
        if not self.size(split):
            raise DataError(f"Series({self.name!r}) has no {split!r} split; it has train, eval")
        _, signal, label = self._splits[split]
        return MemorySource(
            {
                "signal": normalized(signal) if self.normalize else signal.astype(np.float32),
                "label": label,
            }
        )


def _decoded(data: bytes, name: str) -> str:
    """The text of a .ts file. Remarks, which start with #, may be in another encoding than the
    rest.
    """
    lines = re.split(rb"(\r\n|\n|\r)", data)
    return decode_text(
        b"".join(b"#" if line.lstrip().startswith(b"#") else line for line in lines), name=name
    )


def normalized(signal: np.ndarray) -> np.ndarray:
    """[N, T, C] -> float32 [N, T, C] with mean 0 and standard deviation 1 over T; a constant series
    becomes 0.
    """
    centred = signal - signal.mean(1, keepdims=True)
    deviation = centred.std(1, keepdims=True)
    return (centred / np.where(deviation < 1e-8, 1.0, deviation)).astype(np.float32)


def parse_ts(text: str, *, where: str) -> Series_:
    """Class names in the order of the header, signal [N, T, C] float64, label [N] int32, of the
    text of a .ts file.

    Errors: DataError naming `where`, the line, and what is wrong.
    """
    header, names, rows, labels, in_data = {}, (), [], [], False
    for number, line in enumerate(split_lines(nfc(text)), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not in_data:
            word, *rest = line.split()
            header[word.lower()] = rest
            in_data = word.lower() == "@data"
            names = tuple(header.get("@classlabel", ())[1:])
            continue
        *dimensions, label = line.split(":")
        if not names or label.strip() not in names:
            raise DataError(
                f"{where}, line {number}: the class {label.strip()[:40]!r} is not one of those of "
                f"the header, {list(names)}"
            )
        rows.append(_values(dimensions, header, f"{where}, line {number}"))
        labels.append(names.index(label.strip()))
    if not rows:
        raise DataError(
            f"{where}: there is no series after @data; it must be a .ts file of the UCR or UEA "
            "archive"
        )
    if len({row.shape for row in rows}) > 1:
        lengths = [row.shape[0] for row in rows]
        raise DataError(
            f"{where}: series have lengths from {min(lengths)} to {max(lengths)} (or differ in "
            "dimensions); they must be equal: choose the "
            "set's version of equal length, where there is one (its name ends in _eq), or pad or "
            "resample the series"
        )
    return names, np.stack(rows), np.array(labels, np.int32)


def _values(dimensions: list[str], header: dict[str, list[str]], where: str) -> np.ndarray:
    """[T, C] of one line."""
    if header.get("@timestamps", ["false"])[0].lower() == "true":
        raise DataError(
            f"{where}: values with time stamps are not read; resample them to equal steps"
        )
    try:
        values = [np.array(dimension.split(","), np.float64) for dimension in dimensions]
    except ValueError as error:
        raise DataError(
            f"{where}: {error}; values must be numbers, and missing ones ('?') be filled in"
        ) from error
    if (
        not values
        or len({len(v) for v in values}) > 1
        or not all(np.isfinite(v).all() for v in values)
    ):
        raise DataError(
            f"{where}: dimensions have lengths {[len(v) for v in values]}; they must be equal, "
            "and all values finite"
        )
    return np.stack(values, -1)
