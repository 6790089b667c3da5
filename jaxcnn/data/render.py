"""An example becomes arrays: the one place where pictures are read and cut, masks drawn, label maps
painted, texts turned to numbers and rows padded, as `jaxcnn.core.batch.ENTRIES` has them. NumPy, on
the host.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.core.batch import IGNORED
from jaxcnn.data.crops import Cropping, Window
from jaxcnn.data.example import Example, Numbered, Objects, Part, Picture, Shape
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import decode_image, resize_image, resize_nearest
from jaxcnn.data.files.label_images import read_index_mask
from jaxcnn.data.stores import read
from jaxcnn.data.vocabulary import encode_captions
from jaxcnn.ops import masks
from jaxcnn.ops.alphabet import encode


def render(
    example: Example,
    spec: Mapping[str, jax.ShapeDtypeStruct],
    *,
    faults: Faults,
    alphabet: str = "",
    vocabulary: Sequence[str] = (),
    crop: Cropping | None = None,
) -> dict[str, np.ndarray]:
    """The entries of `spec` for one example; with `crop` a window of a picture that has none yet
    and no labels with places but a map. Errors: DataError, by `faults` too."""
    shape = spec["image"].shape
    window = example.window or crop
    out = {"image": _picture(example, example.image, example.name, window, shape)}
    if example.target is not None and "target" in spec:
        name, larger = f"{example.name}, target", spec["target"].shape
        scale, window = larger[0] // shape[0], example.window
        window = window and tuple(scale * place for place in window)
        out["target"] = _picture(example, example.target, name, window, larger)
    if example.label is not None:
        out["label"] = np.asarray(example.label, np.int32)
    if example.objects is not None:
        out |= _rows(example, example.objects, spec)
    if "segmentation" in spec:
        out["segmentation"] = _label_map(example, spec["segmentation"].shape, faults, crop)
    if example.polygons is not None:
        corners, ignored = example.polygons
        columns = {"polygons": corners, "polygons_mask": ~ignored, "polygons_ignored": ignored}
        out |= {name: _pad(column, spec, name) for name, column in columns.items()}
    if "text" in spec:
        out["text"] = encode([example.text], alphabet=alphabet, length=spec["text"].shape[0])[0]
    if "captions" in spec:
        count, length = spec["captions"].shape
        out["captions"] = encode_captions(
            example.captions, vocabulary, num_captions=count, length=length
        )
    out |= example.extra
    return {name: out[name] for name in spec}


def _pad(column: np.ndarray, spec: Mapping[str, Any], name: str) -> np.ndarray:
    return pad_rows(np.asarray(column, spec[name].dtype), spec[name].shape[0])


def pad_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """`rows` [n, ...] followed by zeros. -> [count, ...]"""
    out = np.zeros((count, *rows.shape[1:]), rows.dtype)
    out[: len(rows)] = rows
    return out


def cut(grid: np.ndarray, window: tuple[int, int, int, int], *, fill: int) -> np.ndarray:
    """The window (top, left, bottom, right) of a grid [h, w, ...]; `fill` lies around it."""
    top, left, bottom, right = window
    if 0 <= top <= bottom <= grid.shape[0] and 0 <= left <= right <= grid.shape[1]:
        return grid[top:bottom, left:right]
    out = np.full((bottom - top, right - left, *grid.shape[2:]), fill, grid.dtype)
    low_y, low_x = max(top, 0), max(left, 0)
    inner = grid[low_y : max(bottom, 0), low_x : max(right, 0)]
    out[low_y - top : low_y - top + len(inner), low_x - left : low_x - left + inner.shape[1]] = (
        inner
    )
    return out


def _picture(
    example: Example,
    file: Picture,
    name: str,
    window: Window | Cropping | None,
    shape: tuple[int, ...],
) -> np.ndarray:
    """uint8 [*shape]"""
    size, channels = (shape[0], shape[1]), shape[2]
    if isinstance(file, np.ndarray):
        whole = file
    else:
        name = name or (os.fspath(file) if isinstance(file, Path) else "image")
        file = read(*file) if isinstance(file, Part) else file
        # a window that is drawn lies within the picture, so that it can be decoded for its size
        within = None if isinstance(window, tuple) else window
        wanted = None if isinstance(window, tuple) else size
        whole = decode_image(file, name=name, size=wanted, channels=channels, window=within)
        window = None if within else window
    if callable(window):
        return resize_image(whole, size, window=window(whole.shape[:2]))
    if window is not None:
        whole = cut(whole, window, fill=0)
    return resize_image(whole, size)


def _rows(
    example: Example, objects: Objects, spec: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, np.ndarray]:
    """The entries that have a row for each object, or describe the only one."""
    out: dict[str, np.ndarray] = {}
    if "boxes" in spec:
        columns = {
            "boxes": objects.boxes,
            "boxes_mask": ~objects.ignored,
            "box_labels": objects.labels,
            "boxes_ignored": objects.ignored,
            "boxes_crowd": objects.crowd,
            "box_areas": objects.areas,
        }
        out = {name: _pad(column, spec, name) for name, column in columns.items() if name in spec}
        out["original_size"] = np.asarray(example.size, np.int32)
    if "instance_masks" in spec:
        out["instance_masks"] = np.zeros(spec["instance_masks"].shape, np.uint8)
        read: dict[Path, np.ndarray] = {}
        for mask, shape in zip(out["instance_masks"], objects.shapes, strict=False):
            mask[draw(shape, example.size, mask.shape, read=read)] = 255
    if "points" in spec and objects.points.size:
        top, left, bottom, right = example.window or (0, 0, *example.size)
        scale, corner = np.array(example.size), np.array([top, left])
        places = objects.points[..., :2]
        if example.window is not None:
            places = (places * scale - corner) / np.array([bottom - top, right - left])
        inside = (places >= 0).all(axis=-1) & (places <= 1).all(axis=-1)
        visible = (objects.points[..., 2] > 0) & inside
        places = np.where(visible[..., None], places, 0.0)
        found = {"points": places, "points_mask": visible}
        for name, column in found.items():
            single = len(spec[name].shape) < column.ndim
            out[name] = column[0].astype(np.float32) if single else _pad(column, spec, name)
    elif "points" in spec:
        out |= {name: np.zeros(spec[name].shape, np.float32) for name in ("points", "points_mask")}
    return out


def draw(
    shape: Shape,
    size: tuple[int, int],
    new_size: tuple[int, ...],
    *,
    read: dict[Path, np.ndarray] | None = None,
) -> np.ndarray:
    """An object's shape, of a picture of `size`, as a mask [*new_size] bool. `read` keeps files of
    numbers that several objects share."""
    height, width = new_size
    if shape is None:
        return np.zeros((height, width), bool)
    if isinstance(shape, dict):
        return resize_nearest(masks.decode(shape), (height, width))
    if isinstance(shape, Numbered):
        read = {} if read is None else read
        if shape.file not in read:
            read[shape.file] = read_index_mask(shape.file, name=str(shape.file))
        return resize_nearest(read[shape.file], (height, width)) == shape.number
    if isinstance(shape, np.ndarray):
        return resize_nearest(shape, (height, width)) > 0
    scale = np.array([width / size[1], height / size[0]])
    return masks.fill_polygons(
        [(np.reshape(part, (-1, 2)) * scale).ravel().tolist() for part in shape], (height, width)
    )


def _label_map(
    example: Example, size: tuple[int, ...], faults: Faults, crop: Cropping | None
) -> np.ndarray:
    """int32 [*size]"""
    height, width = size
    if example.segmentation is None and crop is None:
        return paint(example, (height, width))
    pixels = example.segmentation(faults) if example.segmentation else paint(example, example.size)
    if crop is not None:
        top, left, bottom, right = crop((pixels.shape[0], pixels.shape[1]))
        pixels = pixels[top:bottom, left:right]
    elif example.window is not None:
        pixels = cut(pixels, example.window, fill=IGNORED)
    return resize_nearest(pixels, (height, width)).astype(np.int32)


def paint(example: Example, new_size: tuple[int, int]) -> np.ndarray:
    """The label map int32 [*new_size] of an example's objects: 0, or 1 + label of the smallest
    object there, or 255 where only an ignored one is.
    """
    out, objects = np.zeros(new_size, np.int32), example.objects
    if objects is None:
        return out
    drawn = [draw(shape, example.size, new_size) for shape in objects.shapes]
    rows = range(len(drawn))
    for i in sorted(rows, key=lambda i: (not objects.ignored[i], -int(drawn[i].sum()))):
        out[drawn[i]] = IGNORED if objects.ignored[i] else 1 + objects.labels[i]
    return out
