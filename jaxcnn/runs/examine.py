"""What the examples of an experiment show: faults, counts of labels, duplicates, ranges of values.

Examples in memory are all looked at, streams by a sample that covers every class, or whole.
"""

import collections
import hashlib
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import numpy as np

from jaxcnn.core.batch import check_entry, kind
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.rendering import Json
from jaxcnn.data.dataset import SPLITS, Batch, Source, column, sample_rows
from jaxcnn.errors import DataError
from jaxcnn.tasks.task import num_classes

CHUNK, SAMPLE = 256, 256
UNBALANCED = 10  # the most frequent class by the rarest, from which on it is said
Progress = Callable[[int, int, str], None]  # done, total, what


def examine(
    e: Experiment, *, full: bool = False, progress: Progress = lambda done, total, text: None
) -> dict[str, Json]:
    """{split: what its examples show} of the splits that are there. `full`: all rows of streams,
    too.

    Of each split: "examples", "checked", "faults" ([{"kind", "count", "row", "message"}]: what the
    task or a reader refuses, one a row at most), "labels" {name: count}, "pixels" {dtype, low,
    high, mean, std, "constant"}, "duplicates" (rows whose inputs are those of an earlier one, to
    the byte), "conflicts" (of those, with another label), "also_in" {split: rows}, and "notes":
    sentences on what is odd. "error" alone where the data cannot be opened.
    """
    found: dict[str, Json] = {}
    names: tuple[str, ...] = ()
    seen: dict[str, set[bytes]] = {}  # split -> digests of its rows' inputs
    partly: set[str] = set()  # splits whose labels are those of a sample
    for split in SPLITS:
        try:
            names = tuple(e.data.label_names)
            if not e.data.size(split):
                continue
            source = e.data.open(split)
        except DataError as error:
            found[split] = {"error": str(error)}
            continue
        rows = np.arange(len(source))
        if source.arrays is None and not full:
            rows = sample_rows(source, SAMPLE)
        look = _Look(e, names)
        for batch, numbers in _batches(source, rows, look, progress, split):
            look.add(batch, numbers)
        found[split] = look.result(source, rows)
        if len(rows) < len(source) and _known_labels(source) is None:
            partly.add(split)
        others = {s: sum(look.copies[d] for d in own & set(look.copies)) for s, own in seen.items()}
        seen[split] = set(look.copies)
        found[split]["also_in"] = {s: count for s, count in others.items() if count}
    for split, result in found.items():
        if "error" not in result:
            labels = {s: r["labels"] for s, r in found.items() if "labels" in r}
            result["notes"] += list(_notes(split, result, labels, names, e, partly))
    return found


def _batches(
    source: Source, rows: np.ndarray, look: "_Look", progress: Progress, split: str
) -> Iterator[tuple[Batch, np.ndarray]]:
    """(examples that can be read, their rows) of a chunk at a time; others are faults."""
    arrays = source.arrays
    held = None if arrays is None else {n: np.asarray(jax.device_get(x)) for n, x in arrays.items()}
    said = CHUNK * max(1, len(rows) // CHUNK // 50)
    for start in range(0, len(rows), CHUNK):
        if held is None and start % said == 0:
            progress(start, len(rows), f"{split}: {start:,} of {len(rows):,} examples")
        numbers = rows[start : start + CHUNK]
        if held is not None:
            yield {n: x[numbers] for n, x in held.items()}, numbers
            continue
        try:
            yield jax.device_get(dict(source.take(numbers))), numbers
        except DataError:
            for row in numbers:
                try:
                    batch = jax.device_get(dict(source.take(np.array([row]))))
                except DataError as error:
                    look.fault(int(row), error)
                else:
                    yield batch, np.array([row])
    if held is None:
        progress(len(rows), len(rows), f"{split}: done")


class _Look:
    """What was seen of a split so far."""

    def __init__(self, e: Experiment, names: tuple[str, ...]):
        self._task, self._names = e.task, names
        self._faults: dict[str, dict[str, Json]] = {}
        self._labels: dict[int, int] = {}
        self._pixels: list[tuple[Any, ...]] = []  # dtype, low, high, sum, sum of squares, count
        self._constant = 0
        self._checked = self._conflicts = 0
        self._first: dict[bytes, int] = {}  # digest of a row's inputs -> the label of the first
        self.copies: collections.Counter[bytes] = collections.Counter()  # rows of each digest

    def fault(self, row: int, error: DataError) -> None:
        """Count a fault of a row under its kind: the message without its numbers and names."""
        text = str(error)
        sort = re.sub(r"'[^']*'|\S*[/\\]\S*|-?\d[\d.,e+-]*", "#", text)
        entry = {"kind": sort, "count": 0, "row": row, "message": text}
        self._faults.setdefault(sort, entry)["count"] += 1

    def add(self, batch: Batch, rows: np.ndarray) -> None:
        """Look at examples [B, ...] that are these rows of the split."""
        self._checked += len(rows)
        self._check(batch, rows)
        for numbers in _labels_in(batch):
            classes, counts = np.unique(numbers, return_counts=True)
            for k, count in zip(classes.tolist(), counts.tolist(), strict=True):
                self._labels[k] = self._labels.get(k, 0) + count
        inputs = [n for n in self._task.inputs if n in batch] or list(batch)
        label = batch.get("label", np.zeros(len(rows), np.int32))
        for i in range(len(rows)):
            digest = hashlib.blake2b(digest_size=16)
            for name in inputs:
                digest.update(np.ascontiguousarray(batch[name][i]).tobytes())
            own = hash(np.asarray(label[i]).tobytes())
            before = self._first.setdefault(digest.digest(), own)
            self._conflicts += before != own
            self.copies[digest.digest()] += 1
        self._look_at_pixels(batch, inputs)

    def _check(self, batch: Batch, rows: np.ndarray) -> None:
        """The rules of the task and of the table of entries; row by row where they are broken."""

        def check(part: Batch) -> None:
            self._task.check(part)
            for name, x in part.items():
                # of images and label maps the task has said what it takes, and what it ignores
                if kind(name) not in ("image", "classes"):
                    check_entry(name, x)

        try:
            check(batch)
        except DataError as whole:
            alone = False
            for i, row in enumerate(rows):
                try:
                    check({n: x[i : i + 1] for n, x in batch.items()})
                except DataError as error:
                    alone = True
                    self.fault(int(row), error)
            if not alone:  # a rule of all of them together
                self.fault(int(rows[0]), whole)

    def _look_at_pixels(self, batch: Batch, inputs: list[str]) -> None:
        for name in inputs:
            x = batch[name]
            if kind(name) != "image" or x.ndim < 3 or not x.size:
                continue
            flat = x.reshape(len(x), -1)
            self._constant += int((flat == flat[:, :1]).all(1).sum())
            wide = x.reshape(-1, x.shape[-1]).astype(np.float64)
            scale = 255.0 if x.dtype == np.uint8 else 1.0
            sums = (wide.sum(0) / scale, (wide**2).sum(0) / scale**2, len(wide))
            self._pixels.append((x.dtype.name, float(x.min()), float(x.max()), *sums))
            return

    def result(self, source: Source, rows: np.ndarray) -> dict[str, Json]:
        """As `examine` describes it."""
        labels = self._labels
        known = _known_labels(source)
        if known is not None and len(rows) < len(source):
            classes, counts = np.unique(known, return_counts=True)  # of all, without decoding
            labels = dict(zip(classes.tolist(), counts.tolist(), strict=True))
        out: dict[str, Json] = {"examples": len(source), "checked": self._checked}
        out["faults"] = sorted(self._faults.values(), key=lambda fault: -fault["count"])
        out["labels"] = {self._name(k): labels[k] for k in sorted(labels)}
        out["duplicates"] = self.copies.total() - len(self.copies)
        out["conflicts"], out["notes"] = self._conflicts, []
        if self._pixels:
            dtype, lows, highs, sums, squares, counts = zip(*self._pixels, strict=True)
            mean = np.sum(sums, axis=0) / sum(counts)
            std = np.sqrt(np.maximum(np.sum(squares, axis=0) / sum(counts) - mean**2, 0))
            out["pixels"] = {"dtype": dtype[0], "low": min(lows), "high": max(highs)}
            out["pixels"] |= {"mean": mean.round(4).tolist(), "std": std.round(4).tolist()}
            out["pixels"]["constant"] = self._constant
        if len(rows) < len(source):
            text = f"a sample of {len(rows):,} of {len(source):,} was looked at"
            out["notes"].append(f"{text}; --data looks at all")
        return out

    def _name(self, k: int) -> str:
        return self._names[k] if 0 <= k < len(self._names) else str(k)


def _known_labels(source: Source) -> np.ndarray | None:
    """The one label of each example, where it is known without decoding any."""
    known = column(source, "label")
    return known if known is not None and known.ndim == 1 else None


def _labels_in(batch: Batch) -> Iterator[np.ndarray]:
    """The class numbers of a batch, without padding."""
    if "label" in batch and batch["label"].ndim == 1 and batch["label"].dtype.kind in "iu":
        yield batch["label"]
    if "box_labels" in batch:
        there = batch.get("boxes_mask", np.ones(batch["box_labels"].shape)) > 0
        yield batch["box_labels"][there]


def _notes(
    split: str,
    result: dict[str, Json],
    labels: dict[str, dict[str, int]],
    names: tuple[str, ...],
    e: Experiment,
    partly: Collection[str],
) -> Iterator[str]:
    """What is odd, a sentence each; of labels in a sample (splits `partly`) no more than that."""
    counts = labels[split]
    here, there = ("in the sample " if s in partly else "" for s in (split, "train"))
    if split == "train" and counts:
        if len(counts) == 1:
            every = "all examples of the sample" if here else "all examples"
            yield f"{every} have one class, {next(iter(counts))}: nothing can be told apart"
        elif max(counts.values()) >= UNBALANCED * min(counts.values()):
            most, least = max(counts, key=lambda k: counts[k]), min(counts, key=lambda k: counts[k])
            yield (
                f"{here}unbalanced: {counts[most]:,} of {most} and {counts[least]:,} of {least}; "
                "see Balanced (jaxcnn.data.algebra) and class weights"
            )
        every = names or tuple(map(str, range(num_classes(e.task) or 0)))
        if missing := [name for name in every if name not in counts]:
            yield f"{here}no example of {len(missing)} classes: {', '.join(missing[:10])}"
    elif counts and (missing := [k for k in labels.get("train", counts) if k not in counts]):
        yield f"{here}no example of {len(missing)} classes of 'train': {', '.join(missing[:10])}"
    if strange := [k for k in counts if split != "train" and k not in labels.get("train", counts)]:
        yield f"classes that 'train' lacks{there and ' in its sample'}: {', '.join(strange[:10])}"
    for other, count in result["also_in"].items():
        yield f"{count:,} examples are also in {other!r}, to the byte: scores are too good"
    if result["conflicts"]:
        yield f"{result['conflicts']:,} examples are those of others, with another label"
    yield from _pixel_notes(result.get("pixels"), e)


def _pixel_notes(pixels: dict[str, Json] | None, e: Experiment) -> Iterator[str]:
    spec = e.data.spec().get("image")
    if spec is not None and len(spec.shape) == 3:
        height, width, channels = spec.shape
        if height in (1, 3, 4) and channels not in (1, 3, 4) and width > 4:
            yield (
                f"'image' is {list(spec.shape)}, which looks like [channels, height, width]; it "
                "must be [height, width, channels]"
            )
    if pixels is None:
        return
    if pixels["dtype"] == "uint8" and 0 < pixels["high"] <= 1:
        yield "images are bytes of 0 and 1 alone; bytes reach to 255, so all are black"
    if pixels["dtype"] != "uint8" and 0 < pixels["high"] <= 1.01 / 255:
        yield "images reach to 1/255 alone, as if divided by 255 twice"
    if pixels["constant"]:
        yield f"{pixels['constant']:,} images are of one value throughout"
