"""What a run's model says of pictures and arrays, as rows that a person or a program can read."""

import csv
import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

import jax
import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Tree
from jaxcnn.core.rendering import Json
from jaxcnn.data.files.images import read_image
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.inspect.drawing import draw
from jaxcnn.ops import masks
from jaxcnn.runs.evaluation import predict_step

DRAWN = ("objects", "segmentation", "points", "image", "text")  # what of a row is worth a picture
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

Row = dict[str, Any]  # a prediction as the task describes it
Image = str | os.PathLike[str]  # a file, a folder or a glob
Inputs = Image | Iterable[Image] | np.ndarray | jax.Array | Mapping[str, np.ndarray]


def predict(predictor: "Predictor", inputs: Inputs) -> list[Row]:
    """See `jaxcnn.runs.open.Run.predict`."""
    if isinstance(inputs, Mapping):
        named = cast(Mapping[str, np.ndarray], inputs)
        return [row for row, _ in predictor.arrays(dict(named))]
    if isinstance(inputs, np.ndarray | jax.Array):
        return [row for row, _ in predictor.arrays({predictor.names[0]: np.asarray(inputs)})]
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    return [row for row, _ in predictor.files(find_images(paths))]


def find_images(paths: Iterable[Image]) -> list[Path]:
    """The files that paths, folders and globs stand for, folders in the order of names.

    Errors: DataError for a folder or a pattern without pictures.
    """
    found: list[Path] = []
    for path in map(str, paths):
        if os.path.isdir(path):
            inside = sorted(p for p in Path(path).rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise DataError(f"{path}: there are no pictures in this folder")
            found += inside
        elif glob.has_magic(path) and not os.path.exists(path):
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise DataError(f"{path}: matches no file")
            found += map(Path, matches)
        else:
            found.append(Path(path))
    return found


class Predictor:
    """A run's model, compiled once, for inputs in batches of `batch_size`.

    The class names and the preparation of pictures (size, channels, resizing) are those that the
    run recorded when it was trained.
    """

    def __init__(self, e: Experiment, state: Tree, *, batch_size: int):
        self._e, self._state, self._size = e, state, batch_size
        self._names, self._spec = tuple(e.data.label_names), e.data.spec()
        self._step = predict_step(e, state)
        self.names = tuple(n for n in e.task.inputs if n not in e.task.training_inputs)

    def arrays(self, inputs: dict[str, np.ndarray]) -> Iterator[tuple[Row, np.ndarray]]:
        """(row, its first input) of each row. Errors: ConfigError for inputs that are missing."""
        missing = [name for name in self.names if name not in inputs]
        if missing:
            raise ConfigError(
                f"this model takes {', '.join(self.names)}: {', '.join(missing)} is missing; give "
                "predict({name: array, …}), or --input NAME=FILE.npy"
            )
        unknown = [name for name in inputs if name not in self.names]
        if unknown:
            raise ConfigError(f"this model takes {', '.join(self.names)}, not {', '.join(unknown)}")
        ready = {name: self._canonical(name, array) for name, array in inputs.items()}
        if len({len(array) for array in ready.values()}) > 1:
            raise ConfigError(f"inputs of {[len(a) for a in ready.values()]} rows: must be as many")
        first = ready[self.names[0]]
        for start in range(0, len(first), self._size):
            part = {name: array[start : start + self._size] for name, array in ready.items()}
            yield from zip(self._rows(part), first[start : start + self._size], strict=True)

    def files(self, paths: list[Path]) -> Iterator[tuple[Row, np.ndarray]]:
        """({"path": path, …}, the picture's pixels) of each picture; {"path", "error"} for one
        that cannot be read.
        """
        (name, *others) = self.names
        shape = self._spec[name].shape
        if others or len(shape) != 3 or shape[-1] not in (1, 3):
            raise ConfigError(
                f"pictures will not do: this model takes {', '.join(self.names)}, "
                f"{name} {list(shape)}; give predict({{name: array, …}}), or --input NAME=FILE.npy"
            )
        any_size = self._e.task.any_size
        count = 1 if any_size else self._size
        for start in range(0, len(paths), count):
            names, pictures, faults = [], [], {}
            for path in paths[start : start + count]:
                try:
                    pictures.append(read_image(path, size=None, channels=shape[-1]))
                    names.append(path)
                except DataError as error:
                    faults[path] = str(error)
            small = [read_image(p, size=shape[:2], channels=shape[-1]) for p in names]
            ready = pictures if any_size else small
            rows = iter(self._rows({name: self._canonical(name, np.stack(ready))}) if ready else ())
            pixels = iter(pictures)
            for path in paths[start : start + count]:
                if path in faults:
                    yield {"path": str(path), "error": faults[path]}, np.zeros((1, 1, 3), np.uint8)
                else:
                    yield {"path": str(path), **next(rows)}, next(pixels)

    def _rows(self, batch: dict[str, np.ndarray]) -> list[Row]:
        """One described row for each row of a batch, which is padded to its full size."""
        count = len(next(iter(batch.values())))
        size = count if self._e.task.any_size else self._size
        for name in self._e.task.training_inputs:  # known in training alone: zeros stand for it
            spec = self._spec[name]
            batch = batch | {name: np.zeros((count, *spec.shape), spec.dtype)}
        rows = np.minimum(np.arange(size), count - 1)
        padded = {name: array[rows] for name, array in batch.items()}
        results = jax.device_get(self._step(self._state, padded))
        return [
            self._e.task.describe(jax.tree.map(lambda x, i=i: x[i], results), names=self._names)
            for i in range(count)
        ]

    def _canonical(self, name: str, array: np.ndarray) -> np.ndarray:
        """An input in the dtype of training. Errors: DataError for another shape or range."""
        array, spec = np.asarray(array), self._spec[name]
        if array.shape[1:] != spec.shape and not (self._e.task.any_size and array.ndim == 4):
            raise DataError(
                f"{name} has shape {list(array.shape)}; this run was trained on [N, "
                f"{', '.join(map(str, spec.shape))}]"
            )
        if spec.dtype == np.uint8 and array.dtype.kind == "f":
            if array.size and not (array.min() >= 0 and array.max() <= 1):
                raise DataError(
                    f"{name} is {array.dtype} with values in [{array.min():g}, {array.max():g}]; "
                    "floats lie in [0, 1], bytes are uint8"
                )
            return np.round(array * 255).astype(np.uint8)
        if spec.dtype != np.uint8 and array.dtype == np.uint8 and spec.dtype.kind == "f":
            return (array / 255).astype(spec.dtype)
        ready = array.astype(spec.dtype)
        if spec.dtype.kind in "iu" and not np.array_equal(ready, array):
            raise DataError(
                f"{name} is {array.dtype} with values in [{array.min()}, {array.max()}]; this run "
                f"was trained on {spec.dtype}, which cannot hold them"
            )
        return ready


def draw_row(row: Row, pixels: np.ndarray, folder: Path, *, taken: set[str]) -> Row:
    """The row as the command line gives it: "image" is the path, "drawing" the PNG in `folder` on
    which what can be drawn is drawn. `taken`: names of drawings that were given away.
    """
    out = {key: value for key, value in row.items() if key not in ("path", "image")}
    out = {"image": str(row.get("path", "")), **out}
    if not any(key in row for key in DRAWN):
        return out
    folder.mkdir(parents=True, exist_ok=True)
    stem = name = Path(out["image"] or "image").stem
    for n in range(1, 10**9):
        if name not in taken:
            break
        name = f"{stem}_{n}"
    taken.add(name)
    draw(pixels, row).save(folder / f"{name}.png")
    return out | {"drawing": str(folder / f"{name}.png")}


def to_coco(row: Row, size: tuple[int, int], image_id: int) -> list[Json]:
    """The objects of a row as COCO's results format has them, boxes [x, y, width, height] in pixels
    of the picture, whose (height, width) is `size`. The command line counts `image_id` from 0.

    category_id counts the class names of training from 1, as a COCO file does whose categories are
    numbered without a gap; "category_name" says which one is meant.
    """
    height, width = size
    results = []
    for thing in row["objects"]:
        y0, x0, y1, x1 = (float(v) for v in thing["box"])
        box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
        result = {
            "image_id": image_id,
            "file_name": str(row.get("path", "")),
            "category_id": int(thing.get("label", 0)) + 1,
            "category_name": thing.get("name"),
            "bbox": [round(v, 3) for v in box],
            "score": float(thing.get("score", 1.0)),
        }
        if "mask" in thing:
            result["segmentation"] = as_json(thing["mask"])
        results.append(result)
    return results


def as_json(value: object) -> Json:
    """A row without arrays: masks (bool) become COCO's run lengths, class maps the share of each
    class, all else lists.
    """
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if not isinstance(value, np.ndarray | np.generic):
        return value
    if value.ndim == 2 and value.dtype == bool:
        rle = masks.encode(value)
        return {"size": rle["size"], "counts": masks.compress(rle["counts"])}
    if value.ndim == 2 and value.dtype.kind in "iu":
        labels, counts = np.unique(value, return_counts=True)
        return {
            str(label): count / value.size
            for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
        }
    return value.tolist()


def sentence(row: Row) -> str:
    """A row in words."""
    if "error" in row:
        return f"cannot be read: {row['error']}"
    parts = []
    if "top" in row:
        parts.append(", ".join(f"{t['name']} {t['probability']:.1%}" for t in row["top"]))
    if "text" in row:
        parts.append(row["text"] or "(no text)")
    if "objects" in row:
        parts.append(
            ", ".join(f"{o.get('name', 'object')} {o.get('score', 1):.1%}" for o in row["objects"])
            or "nothing found"
        )
    if "segmentation" in row:
        names = row.get("segment_names", [])
        shares = ((int(label), share) for label, share in row["segmentation"].items())
        parts.append(
            ", ".join(f"{names[k] if k < len(names) else k} {share:.1%}" for k, share in shares)
        )
    if "points" in row:
        parts.append(f"{len(row['points'])} points")
    if "drawing" in row:
        parts.append(f"drawn in {row['drawing']}")
    return "; ".join(parts)


def write_csv(rows: list[Row], stream: TextIO) -> None:
    """Classes, objects, points or texts as CSV."""
    rows = [row for row in rows if "error" not in row]
    writer = csv.writer(stream)
    if all("top" in row for row in rows):
        writer.writerow(("image", "rank", "label", "name", "probability"))
        for row in rows:
            writer.writerows(
                (row["image"], rank, t["label"], t["name"], t["probability"])
                for rank, t in enumerate(row["top"], 1)
            )
    elif all("objects" in row for row in rows):
        writer.writerow(("image", "rank", "label", "name", "score", "y0", "x0", "y1", "x1"))
        for row in rows:
            for rank, o in enumerate(row["objects"], 1):
                writer.writerow(
                    (
                        row["image"],
                        rank,
                        o.get("label"),
                        o.get("name"),
                        o.get("score"),
                        *o.get("box", ()),
                    )
                )
    elif all("points" in row for row in rows):
        writer.writerow(("image", "point", "y", "x", "score"))
        for row in rows:
            writer.writerows((row["image"], i, *point) for i, point in enumerate(row["points"]))
    elif all("text" in row for row in rows):
        writer.writerow(("image", "text"))
        writer.writerows((row["image"], row["text"]) for row in rows)
    else:
        raise ConfigError("--csv: this task's results are no table; take --json, or the drawings")
