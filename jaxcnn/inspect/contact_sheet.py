"""A contact sheet: the pictures of a batch as the model sees them, with their labels drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnn.core.batch import kind
from jaxcnn.errors import ConfigError
from jaxcnn.inspect.drawing import draw, with_text
from jaxcnn.ops.decoding import to_words

if TYPE_CHECKING:
    from PIL import Image

TILE = 256  # pixels of a picture's longer side
GAP = 8


def contact_sheet(
    batch: dict[str, np.ndarray],
    *,
    names: tuple[str, ...] = (),
    columns: int = 6,
    most: int = 24,
) -> Image.Image:
    """The first `most` rows of a prepared batch (jaxcnn.core.forward.prepare; host arrays), in
    `columns`. Images outside [0, 1], after a normalization, are stretched from their least to
    their largest value, all by the same numbers.

    Errors: ConfigError for a batch without pictures.
    """
    pixels = pictures(batch)[:most]
    rows = [described(batch, i, names=names) for i in range(len(pixels))]
    return arrange([tile(x, row) for x, row in zip(pixels, rows, strict=True)], columns=columns)


def tile(pixels: np.ndarray, what: dict[str, Any]) -> Image.Image:
    """One picture of a sheet, uint8 [H, W, 1 or 3], with `what` (jaxcnn.inspect.drawing.draw) on it
    and its "text" below.
    """
    from PIL import Image

    picture = draw(pixels, {name: value for name, value in what.items() if name != "text"})
    picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return with_text(picture, what["text"]) if "text" in what else picture


def arrange(drawn: list[Image.Image], *, columns: int) -> Image.Image:
    """Pictures in rows of `columns`, as one."""
    from PIL import Image

    rows = [drawn[i : i + columns] for i in range(0, len(drawn), columns)]
    heights = [max(picture.height for picture in row) + GAP for row in rows]
    width = max(sum(picture.width + GAP for picture in row) for row in rows)
    sheet = Image.new("RGB", (width + GAP, sum(heights) + GAP), (64, 64, 64))
    y = GAP
    for row, height in zip(rows, heights, strict=True):
        x = GAP
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + GAP
        y += height
    return sheet


def pictures(batch: dict[str, np.ndarray]) -> np.ndarray:
    """The pictures of a prepared batch as uint8 [B, H, W, 1 or 3]: of clips the middle frame, of
    other numbers of channels their mean.
    """
    found = [n for n, x in batch.items() if kind(n) == "image" and x.ndim >= 4]
    if not found:
        raise ConfigError(
            f"the batch has no pictures to draw, only {list(batch)}; a sheet shows images"
        )
    image = np.asarray(batch["image" if "image" in found else found[0]], np.float32)
    while image.ndim > 4:
        image = image[:, image.shape[1] // 2]
    if image.shape[-1] not in (1, 3):
        image = image.mean(-1, keepdims=True)
    low, high = float(np.nanmin(image)), float(np.nanmax(image))
    if low < -0.01 or high > 1.01:
        image = (image - low) / max(high - low, 1e-12)
    return (255 * np.clip(np.nan_to_num(image), 0, 1)).round().astype(np.uint8)


def described(
    batch: dict[str, np.ndarray], row: int, *, names: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What a row's labels say, in the terms of `jaxcnn.inspect.drawing.draw`."""
    out: dict[str, Any] = {}
    entry = {name: np.asarray(x[row]) for name, x in batch.items()}
    objects = [*_boxes(entry, names), *_polygons(entry)]
    if objects:
        out["objects"] = objects
    if "segmentation" in entry:
        out["segmentation"] = np.where(entry["segmentation"] == 255, 0, entry["segmentation"])
    if "points" in entry:
        points = entry["points"].reshape(-1, 2)
        shown = entry.get("points_mask", np.ones(len(points))).reshape(-1) > 0
        out["points"] = [(float(y), float(x), 1.0) for y, x in points[shown]]
    if words := _words(entry, names):
        out["text"] = words
    return out


def _name(k: Any, names: tuple[str, ...]) -> str:
    return names[int(k)] if 0 <= int(k) < len(names) else str(int(k))


def _boxes(entry: dict[str, np.ndarray], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The boxes that are to be found, and those that need not be, which are called so."""
    if "boxes" not in entry:
        return []
    boxes = entry["boxes"].reshape(-1, 4)
    drawn = entry["boxes_mask"] if "boxes_mask" in entry else np.any(boxes != 0, axis=-1)
    there = drawn.reshape(-1) > 0
    ignored = entry.get("boxes_ignored", np.zeros(len(boxes))).reshape(-1) > 0
    labels = entry["box_labels"].reshape(-1) if "box_labels" in entry else np.empty(0, np.int32)
    out = []
    for i in np.flatnonzero(there | ignored):
        thing: dict[str, Any] = {"box": boxes[i].tolist()}
        if len(labels):
            thing |= {"label": int(labels[i]), "name": _name(labels[i], names)}
        if ignored[i]:
            thing["name"] = f"ignored {thing.get('name', '')}".strip()
        if "instance_masks" in entry and entry["instance_masks"].ndim == 3:
            thing["mask"] = entry["instance_masks"][i] > 0.5
        out.append(thing)
    return out


def _polygons(entry: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    if "polygons" not in entry:
        return []
    there = entry.get("polygons_mask", np.ones(len(entry["polygons"]))) > 0
    ignored = entry.get("polygons_ignored", np.zeros(len(there))) > 0
    return [
        {"polygon": entry["polygons"][i].tolist(), **({"name": "ignored"} if ignored[i] else {})}
        for i in np.flatnonzero(there | ignored)
    ]


def _words(entry: dict[str, np.ndarray], names: tuple[str, ...]) -> str:
    """Classes, numbers and texts in words."""
    parts: list[str] = []
    if "label" in entry and entry["label"].ndim == 0:
        parts.append(_name(entry["label"], names))
        share = float(entry.get("label_weight", np.ones(())))
        if "label_b" in entry and share < 1:
            parts[-1] = (
                f"{share:.0%} {parts[-1]} + {1 - share:.0%} {_name(entry['label_b'], names)}"
            )
    if "labels" in entry:
        parts.append(", ".join(_name(k, names) for k in np.flatnonzero(entry["labels"] > 0.5)))
    if "values" in entry:
        parts.append(", ".join(f"{v:.4g}" for v in entry["values"].reshape(-1)))
    if "text" in entry:
        tokens = entry["text"].reshape(-1)
        letters = [_name(k - 1, names) if names else str(k) for k in tokens[tokens > 0]]
        parts.append(("" if names else " ").join(letters))
    if "captions" in entry:
        sentences = [" ".join(to_words(row, names=names)) for row in entry["captions"]]
        parts += list(dict.fromkeys(filter(None, sentences)))
    return "; ".join(part for part in parts if part)
