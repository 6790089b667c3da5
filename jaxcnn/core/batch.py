"""A batch, and the one table of its entries.

A batch is a dict of arrays with a leading axis B. An entry has one name in all data sets, tasks and
augmentations, and the name says what it is: whether an array is a picture follows from its name,
never from its dtype. Readers, augmentation, tasks, `check` and the docs read the table below.

Names that the table lacks are a user's own. One whose words, parted by "_", include "image"
("left_image", "image_b") is an image; any other is handed to the model as it is stored.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import ConfigError, DataError

Batch = dict[str, Any]

IGNORED = 255  # the number in "segmentation" that no loss and no metric counts


class Entry(NamedTuple):
    """What an entry of a batch holds.

    kind: what augmentation and preparation do with it:
        "image"    a picture: bytes become float in [0, 1]; sampled bilinearly where it is moved
        "clip"     several pictures: bytes become float in [0, 1]; not moved
        "mask"     membership, 0 or 1: bytes 0 and 255 become 0 and 1; moved by the nearest pixel
        "classes"  a map of class numbers; moved by the nearest pixel
        "boxes", "points", "polygons"  places as shares of the image's height and width
        "numbers"  all else: handed through
    axes: of one example, by letters: H, W rows and columns of the image, C channels, T times,
        N objects, J points, P corners, K classes, V values, R references, L length; digits are
        sizes.
    dtypes: in which it may be stored. low, high: bounds of its values, None where there is none.
    padding: what stands in rows or places that are not used. ignored: what marks a row or a place
        that no loss and no metric counts; "" where there is nothing of the kind.
    """

    kind: str
    axes: str
    dtypes: tuple[str, ...]
    low: float | None
    high: float | None
    meaning: str
    padding: str = ""
    ignored: str = ""


_BYTES, _FLOAT, _INT = ("uint8", "float32"), ("float32",), ("int32",)

ENTRIES: Mapping[str, Entry] = {
    "image": Entry("image", "H W C", _BYTES, 0, 1, "the picture; C is 3 (RGB) or 1 (grey)"),
    "target": Entry("image", "H W C", _BYTES, 0, 1, "the picture wanted, perhaps of another size"),
    "clip": Entry("clip", "T H W C", _BYTES, 0, 1, "the pictures of a film, or slices"),
    "signal": Entry("numbers", "T C", _FLOAT, None, None, "C numbers at each of T times"),
    "mask": Entry("numbers", "", _FLOAT, 0, 1, "1 for a real row", padding="0"),
    "weight": Entry(
        "numbers", "", _FLOAT, 0, None, "how much the row's loss counts", ignored="0"
    ),
    "label": Entry("numbers", "", _INT, 0, None, "the class, in [0, K)"),
    "label_b": Entry("numbers", "", _INT, 0, None, "the other class of a mixed picture"),
    "label_weight": Entry("numbers", "", _FLOAT, 0, 1, "the share of `label` in a mixed picture"),
    "labels": Entry("numbers", "K", _FLOAT, 0, 1, "1 for each class that the example has"),
    "labels_mask": Entry(
        "numbers", "K", _FLOAT, 0, 1, "1 where it is known whether it has the class", ignored="0"
    ),
    "values": Entry("numbers", "V", _FLOAT, None, None, "numbers to be predicted"),
    "values_mask": Entry("numbers", "V", _FLOAT, 0, 1, "1 where the number is known", ignored="0"),
    "value_map": Entry(
        "numbers", "H W V", _FLOAT, None, None, "numbers to be predicted at each pixel"
    ),
    "value_map_mask": Entry("mask", "H W", _BYTES, 0, 1, "1 where they are known", ignored="0"),
    "boxes": Entry(
        "boxes", "N 4", _FLOAT, 0, 1, "(y0, x0, y1, x1) of each object", padding="rows of 0, last"
    ),
    "boxes_mask": Entry("numbers", "N", _FLOAT, 0, 1, "1 for an object to be found", padding="0"),
    "box_labels": Entry("numbers", "N", _INT, 0, None, "the object's class", padding="0"),
    "boxes_ignored": Entry(
        "numbers", "N", _FLOAT, 0, 1, "1 for an object that need not be found (difficult, crowd); "
        "its boxes_mask is 0", padding="0", ignored="1"
    ),
    "boxes_crowd": Entry(
        "numbers", "N", _FLOAT, 0, 1, "1 for a region of several objects, which any number of "
        "detections may lie in; ignored too", padding="0", ignored="1"
    ),
    "box_areas": Entry(
        "numbers", "N", _FLOAT, 0, None, "the object's area in pixels of the original picture",
        padding="0"
    ),
    "boxes_dropped": Entry(
        "numbers", "", _INT, 0, None, "objects in the picture for which there was no row"
    ),
    "original_size": Entry(
        "numbers", "2", _INT, 1, None, "(height, width) of the original picture in pixels"
    ),
    "instance_masks": Entry(
        "mask", "N H W", _BYTES, 0, 1, "the pixels of each object, rows in the order of the boxes",
        padding="rows of 0, last"
    ),
    "segmentation": Entry(
        "classes", "H W", _INT, 0, IGNORED, "the class of each pixel, 0 the background",
        padding=str(IGNORED), ignored=str(IGNORED)
    ),
    "points": Entry(
        "points", "... J 2", _FLOAT, None, None, "(y, x) of each keypoint, one axis N before J "
        "where each object has its own", padding="rows of 0, last"
    ),
    "points_mask": Entry(
        "numbers", "... J", _FLOAT, 0, 1, "1 where the point is labelled and in the image",
        padding="0", ignored="0"
    ),
    "polygons": Entry(
        "polygons", "N P 2", _FLOAT, None, None, "corners (y, x) of each text, in order around it",
        padding="rows of 0, last"
    ),
    "polygons_mask": Entry("numbers", "N", _FLOAT, 0, 1, "1 for a text to be found", padding="0"),
    "polygons_ignored": Entry(
        "numbers", "N", _FLOAT, 0, 1, "1 for text that cannot be read; its polygons_mask is 0",
        padding="0", ignored="1"
    ),
    "text": Entry(
        "numbers", "L", _INT, 0, None, "1 + the place of each character in the alphabet, or token "
        "numbers", padding="0"
    ),
    "captions": Entry(
        "numbers", "R L", _INT, 0, None, "token numbers of each reference: start, words, end",
        padding="0"
    ),
}  # fmt: skip


def kind(name: str) -> str:
    """The kind of an entry, see `Entry`; a name of the user's own is "image" or "numbers"."""
    if name in ENTRIES:
        return ENTRIES[name].kind
    return "image" if "image" in name.split("_") else "numbers"


def unit_interval(batch: Mapping[str, jax.Array]) -> Batch:
    """The batch with images and masks that are bytes as float32 in [0, 1], by name.

    Errors: ConfigError for bytes [B, H, W, ...] of a name that says nothing of an image.
    """
    out = dict(batch)
    for name, x in batch.items():
        if x.dtype != jnp.uint8:
            continue
        if kind(name) in ("image", "clip", "mask"):
            out[name] = x.astype(jnp.float32) / 255.0
        elif x.ndim > 3:
            raise ConfigError(
                f"the entry {name!r} is uint8 {list(x.shape)}, which looks like pictures, and its "
                f"name does not say so: call it {name + '_image'!r}, or store it as float32"
            )
    return out


def check_entry(name: str, array: np.ndarray, *, where: str = "") -> None:
    """Raise DataError where rows [B, ...] of an entry break its row of the table: number of axes,
    dtype, finite values within the bounds. Names of the user's own are not looked at; bytes have
    no bounds to break.
    """
    if name not in ENTRIES:
        return
    entry, said = ENTRIES[name], f"{where}: {name!r}" if where else repr(name)
    array, axes = np.asarray(array), entry.axes.split()
    fixed = [axis for axis in axes if axis != "..."]
    free = array.ndim - 1 - len(fixed)
    sizes = zip(reversed(fixed), reversed(array.shape[1:]), strict=False)
    if (
        free < 0
        or (free > 0 and "..." not in axes)
        or any(axis.isdigit() and int(axis) != size for axis, size in sizes)
    ):
        raise DataError(
            f"{said} has shape {list(array.shape)}; it must be [{', '.join(['B', *axes])}]: "
            f"{entry.meaning}"
        )
    if array.dtype.name not in (*entry.dtypes, "bfloat16"):
        raise DataError(
            f"{said} has dtype {array.dtype}; it must be {' or '.join(entry.dtypes)}: "
            f"{entry.meaning}"
        )
    if not array.size or array.dtype == np.uint8:
        return
    low, high = float(array.min()), float(array.max())
    least = -np.inf if entry.low is None else entry.low
    most = np.inf if entry.high is None else entry.high
    if not (least <= low and high <= most and np.isfinite([low, high]).all()):  # so NaN is refused
        raise DataError(
            f"{said} has values in [{low:g}, {high:g}]; they must be finite and lie in "
            f"[{least:g}, {most:g}]: {entry.meaning}"
        )
