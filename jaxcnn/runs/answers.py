"""Predictions as rows that a person or a program can read: sentences, JSON, CSV, COCO results."""

import csv
import io
import json
from typing import Any, TextIO

import numpy as np

from jaxcnn.core.rendering import Json, without_nan
from jaxcnn.errors import ConfigError
from jaxcnn.ops import masks

Row = dict[str, Any]  # a prediction as the task describes it
Line = tuple[Any, ...]  # of a table


def to_coco(row: Row, size: tuple[int, int], image_id: int) -> list[Json]:
    """The objects of a row as COCO's results format has them, boxes [x, y, width, height] and masks
    in pixels of the picture, whose (height, width) is `size`: a mask of another size is brought to
    it, each pixel as the nearest one. The command line counts `image_id` from 0.

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
            mask = np.asarray(thing["mask"])
            rows, columns = (
                ((np.arange(new) + 0.5) * old / new).astype(np.int64)
                for new, old in zip(size, mask.shape, strict=True)
            )
            result["segmentation"] = as_json(mask[rows[:, None], columns])
        results.append(result)
    return results


def as_json(value: object) -> Json:
    """A row without arrays: masks (bool) become COCO's run lengths, class maps the share of each
    class, maps of numbers [H, W, V] the least, mean and largest of each number, all else lists.
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
    if value.ndim == 3 and value.dtype.kind == "f":
        ends = {"least": value.min((0, 1)), "mean": value.mean((0, 1)), "most": value.max((0, 1))}
        return {name: numbers.tolist() for name, numbers in ends.items()}
    return value.tolist()


def class_name(label: int, *, names: tuple[str, ...], count: int | None = None) -> str:
    """The name of one of `count` classes, its number where it has none. One class more than there
    are names: the first is the background, as a segmentation has it.
    """
    if names and count == len(names) + 1:
        names = ("background", *names)
    return names[label] if 0 <= label < len(names) else str(label)


def sentence(row: Row) -> str:
    """A row in words."""
    if "error" in row:
        return row["error"].removeprefix(f"{row.get('image')}: ")
    parts = []
    if "top" in row:
        parts.append(", ".join(f"{t['name']} {t['probability']:.1%}" for t in row["top"]))
    if "labels" in row:
        called = ", ".join(f"{one['name']} {one['probability']:.1%}" for one in row["labels"])
        parts.append(called or "no label")
    if "values" in row:
        parts.append(", ".join(f"{one['name']} {one['value']:.5g}" for one in row["values"]))
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


def csv_lines(row: Row, image: str | int) -> tuple[Line, list[Line]]:
    """(head, lines) of a row's classes, labels, numbers, objects, points or text as a table;
    `image` is its name.

    Errors: ConfigError for a task whose results are no table.
    """
    if "top" in row:
        head = ("image", "rank", "label", "name", "probability")
        return head, [
            (image, rank, t["label"], t["name"], t["probability"])
            for rank, t in enumerate(row["top"], 1)
        ]
    if "labels" in row:  # none at all is no line
        names = ("label", "name", "probability")
        return ("image", *names), [(image, *(o[n] for n in names)) for o in row["labels"]]
    if "values" in row:
        lines = [(image, one["name"], one["value"]) for one in row["values"]]
        return ("image", "name", "value"), lines
    if "objects" in row:
        names = ("label", "name", "score")
        return ("image", "rank", *names, "y0", "x0", "y1", "x1"), [
            (image, rank, *(o.get(name) for name in names), *o.get("box", ()))
            for rank, o in enumerate(row["objects"], 1)
        ]
    if "points" in row:
        lines = [(image, i, *point) for i, point in enumerate(row["points"])]
        return ("image", "point", "y", "x", "score"), lines
    if "text" in row:
        return ("image", "text"), [(image, row["text"])]
    raise ConfigError("--csv: this task's results are no table; take --json, or the drawings")


class Printer:
    """Prints rows as they come: "text", "json" (one list), "csv" or "coco" (one list); in JSON null
    stands for a number that is not finite."""

    def __init__(self, form: str, stream: TextIO):
        self._form, self._stream = form, stream
        self._rows = self._count = 0  # the rows so far, and the items that were printed

    def row(self, row: Row, results: list[Json]) -> None:
        """Print a row of `as_json`, or for "coco" its `results`."""
        path = row.get("image")
        image = path if isinstance(path, str) else self._rows  # arrays have no names
        self._rows += 1
        if self._form in ("json", "coco"):
            for item in [row] if self._form == "json" else results:
                self._write(f"{', ' if self._count else '['}{json.dumps(without_nan(item))}")
        elif self._form == "text":
            self._write(f"{image}: {sentence(row)}\n" if image != "" else f"{sentence(row)}\n")
        elif "error" not in row:
            head, lines = csv_lines(row, image)
            text = io.StringIO()
            csv.writer(text).writerows(lines if self._count else [head, *lines])
            self._write(text.getvalue())

    def end(self) -> None:
        """Close the list."""
        if self._form in ("json", "coco"):
            self._write("]\n" if self._count else "[]\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
        self._count += 1
