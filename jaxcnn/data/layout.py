"""Whether arrays are laid out as entries of a batch are, asked where another layout is likelier."""

import warnings
from collections.abc import Mapping

import numpy as np

from jaxcnn.errors import DataError

CHANNELS = (1, 3, 4)  # of pictures as people have them


def require_numbers(name: str, shape: tuple[int, ...], dtype: np.dtype, where: str) -> None:
    """DataError for an array that cannot be an entry: of text or objects, without an axis of
    examples, or an image of a layout other than [N, H, W, C].
    """
    said = f"{where}: {name!r} has shape {shape} and dtype {dtype}"
    if dtype.kind in "US" and name == "label":
        raise DataError(
            f"{said}, which is text; labels are numbers: `names, label = numpy.unique(label, "
            "return_inverse=True)` makes them, and label_names=tuple(names) keeps the names"
        )
    if not shape or dtype.kind not in "buif":
        raise DataError(f"{said}; it must be numbers with a leading example axis")
    if name == "image":
        require_layout(shape, where)


def require_layout(shape: tuple[int, ...], where: str) -> None:
    """DataError for the shape of an array of images that is not [N, H, W, C] or [N, H, W], or that
    looks like another layout: [N, C, H, W], or a single image [H, W, C].
    """
    said = f"{where}: 'image' has shape {tuple(shape)}"
    if len(shape) not in (3, 4):
        hint = "; reshape the rows of pixels" if len(shape) == 2 else ""
        raise DataError(f"{said}; it must be [N, H, W, C], or [N, H, W] for greyscale{hint}")
    sides = [size for size in shape[1:] if size > max(CHANNELS)]
    if len(shape) == 4 and shape[1] in CHANNELS and len(sides) == 2:
        raise DataError(
            f"{said}, which looks like [N, channels, height, width]: as [N, H, W, C] it would be "
            f"images of {shape[1]} x {shape[2]} pixels with {shape[3]} channels. Store "
            "image.transpose(0, 2, 3, 1) instead, where channels are last"
        )
    if len(shape) == 3 and shape[2] in CHANNELS and min(shape[:2]) >= 8:
        raise DataError(
            f"{said}, which looks like one image [height, width, channels]: as [N, H, W] it would "
            f"be {shape[0]} grey images of {shape[1]} x {shape[2]} pixels. Give one image as "
            "image[None], and grey ones as image[..., None]"
        )


def question_pixels(arrays: Mapping[str, np.ndarray], *, where: str) -> None:
    """Warn of images whose values keep the rules and are hardly what was meant: bytes of 0 and 1
    only, or floats that were divided by 255 twice.
    """
    image = arrays.get("image")
    if image is None or not image.size:
        return
    high = image.max()
    if image.dtype == np.uint8 and high == 1:
        warnings.warn(
            f"{where}: 'image' is uint8 with values 0 and 1 only; bytes reach from 0 to 255, so "
            "that all pictures are black: multiply by 255, or store floats in [0, 1]",
            stacklevel=3,
        )
    elif image.dtype.kind == "f" and 0 < high <= 1 / 255 + 1e-6:
        warnings.warn(
            f"{where}: 'image' has floats of at most {high:.2g}, as if divided by 255 twice; "
            "they must lie in [0, 1]",
            stacklevel=3,
        )


# what marks the rows of something to be learned, and how it is called where there is none
MARKS = {
    "boxes_mask": "no object is to be found",
    "polygons_mask": "no text is to be found",
    "labels": "no example has a class",
    "text": "all texts are empty",
    "weight": "no example counts",
    "mask": "no example counts",
}


def question_rows(arrays: Mapping[str, np.ndarray], *, where: str) -> None:
    """Warn of examples for training that break no rule and of which nothing can be learned: a
    single one, one class, inputs or numbers that are the same throughout, nothing to be found.
    """
    size = len(next(iter(arrays.values())))
    if size == 1:
        _question(where, "there is one example; a network learns it by heart")
        return
    for name, rows in arrays.items():
        if name == "label" and rows.ndim == 1 and (rows == rows[0]).all():
            _question(where, f"all {size:,} examples have one class, label {rows[0]}")
        elif name == "segmentation" and (rows == rows.flat[0]).all():
            _question(where, f"all pixels of {size:,} class maps have one class, {rows.flat[0]}")
        elif name in MARKS and not rows.any():
            _question(where, f"{name!r} is 0 everywhere: {MARKS[name]}")
        elif name in ("image", "clip", "signal", "values", "value_map") and _equal(rows):
            _question(
                where, f"{name!r} is equal in all {size:,} examples, which tells nothing apart"
            )


def _equal(rows: np.ndarray) -> bool:
    """Whether all rows are the same; found out at the first that is not."""
    return all(np.array_equal(rows[0], row) for row in rows)


def _question(where: str, text: str) -> None:
    warnings.warn(f"{where}: {text}; nothing can be learned", stacklevel=4)
