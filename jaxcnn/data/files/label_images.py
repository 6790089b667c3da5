"""Images whose pixels are numbers of classes or objects, not colours: what is stored is read, and
where that has two meanings the file is refused.
"""

import os
from typing import Any

import numpy as np

from jaxcnn.data.files.images import open_image, orientation
from jaxcnn.errors import DataError

# Pillow stretches greys of 2 and 4 bits to 0..255; by how much their numbers are multiplied
STRETCHED = {"L;2": 85, "L;4": 17}


def read_index_mask(
    file: bytes | str | os.PathLike, *, name: str, turn: int | None = None, colours: str = "colours"
) -> np.ndarray:
    """The numbers of an image file of labels, int32 [H, W], upright: the index of a palette image
    (as Pascal VOC's), or the grey value, of 1 to 16 bits.

    A colour image whose channels are all equal counts as grey. An alpha channel is passed over
    where it adds nothing: it is the same everywhere, or 0 only where the number is 0 and the same
    elsewhere. `turn`: the EXIF orientation to be undone, None for the file's own. `colours`: the
    field in which colours are said, for messages.
    Errors: DataError naming the file, also for numbers that Pillow would change (colours of 16
    bits) and for palettes of greys in falling order, where index and grey contradict each other.
    """
    pixels, mode, palette = _load(file, name, turn)
    if pixels.ndim == 3:
        pixels = _without_alpha(pixels, mode, name)
        if (pixels != pixels[..., :1]).any():
            raise DataError(
                f"{name}: is a mask of mode {mode}; it must hold one number a pixel (a palette or "
                f"grey PNG). Where colours stand for classes, say which: {colours}=((r, g, b), ...)"
            )
        pixels = pixels[..., 0]
    if pixels.dtype.kind not in "biu":
        raise DataError(
            f"{name}: is a mask of mode {mode}, whose pixels are {pixels.dtype}; class numbers are "
            "integers: save it as a grey PNG of 8 or 16 bits"
        )
    if palette is not None:
        _check_palette(np.unique(pixels), palette, name, colours)
    return pixels.astype(np.int32)


def read_colour_mask(
    file: bytes | str | os.PathLike, *, name: str, turn: int | None = None
) -> np.ndarray:
    """The colours of an image file of labels as numbers, see `colour_number`, int32 [H, W],
    upright; those of the palette where it has one. Errors: DataError, as `read_index_mask`.
    """
    pixels, mode, palette = _load(file, name, turn)
    if palette is not None:
        if pixels.ndim == 3:
            pixels = _without_alpha(pixels, mode, name)[..., 0]
        if pixels.max(initial=0) >= len(palette):
            raise DataError(
                f"{name}: has the index {pixels.max()} and a palette of {len(palette)} colours"
            )
        pixels = palette[pixels.astype(np.int64)]
    elif pixels.ndim == 3:
        pixels = _without_alpha(pixels, mode, name)
    if pixels.dtype == bool:
        pixels = pixels * np.uint8(255)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.shape[-1] not in (1, 3):
        raise DataError(
            f"{name}: is a mask of mode {mode}; colours are read from 8-bit RGB, grey or palette "
            "images"
        )
    red, green, blue = np.moveaxis(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), -1, 0)
    return (red.astype(np.int32) << 16) + (green.astype(np.int32) << 8) + blue


def colour_number(colour: tuple[int, int, int]) -> int:
    """65536 r + 256 g + b."""
    red, green, blue = colour
    return (red << 16) + (green << 8) + blue


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Pixels [H, W, ...] as the EXIF orientation `turn` (1..8) says that they are shown."""
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    # the first row or column stored is the last one shown
    rows = -1 if turn in (3, 4, 7, 8) else 1
    columns = -1 if turn in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


def _load(
    file: bytes | str | os.PathLike, name: str, turn: int | None
) -> tuple[np.ndarray, str, np.ndarray | None]:
    """The pixels, upright, Pillow's mode, and the palette [colours, 3] where there is one."""
    with open_image(file, name=name) as image:
        mode, raw = image.mode, _raw_mode(image)  # before a pixel is read: it is forgotten then
        own = orientation(image)
        if image.format == "TIFF":  # Pillow turns these itself as it loads them
            if turn not in (None, own) and own != 1:
                raise DataError(f"{name}: a TIFF is read upright by its own orientation, {own}")
            own = turn if turn is not None and turn != own else 1
            turn = None
        if "16" in raw and mode in ("RGB", "RGBA"):
            raise DataError(
                f"{name}: is a colour or grey + alpha image of 16 bits, of which only the upper 8 "
                "would be read; save the numbers as a grey PNG of 8 or 16 bits without alpha"
            )
        if image.format in ("JPEG", "MPO"):
            raise DataError(
                f"{name}: is a JPEG, whose compression changes numbers; save masks as PNG"
            )
        pixels = np.asarray(image)
        palette = None
        if mode in ("P", "PA"):
            palette = np.array(image.convert("P").getpalette("RGB"), np.uint8).reshape(-1, 3)
    if raw in STRETCHED:
        pixels = pixels // STRETCHED[raw]
    return upright(pixels, own if turn is None else turn), mode, palette


def _raw_mode(image: Any) -> str:
    """How the numbers are stored, in Pillow's words ("L;4", "RGB;16B")."""
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _without_alpha(pixels: np.ndarray, mode: str, name: str) -> np.ndarray:
    """Pixels [H, W, channels] without the alpha channel, which must add nothing."""
    if mode not in ("LA", "PA", "RGBA"):
        return pixels
    numbers, alpha = pixels[..., :-1], pixels[..., -1]
    clear = (alpha == 0) & ~numbers.any(-1)
    rest = alpha[~clear]
    if rest.size and rest.min() != rest.max():
        raise DataError(
            f"{name}: its alpha channel differs from pixel to pixel (from {rest.min()} to "
            f"{rest.max()}) and what that means for a class is not known; save it without alpha"
        )
    return numbers


def _check_palette(used: np.ndarray, palette: np.ndarray, name: str, field: str) -> None:
    """DataError where a palette shows the indices in use as greys in falling order: index 0 is
    white, so that either the index or the grey can be the class.
    """
    if used.max(initial=0) >= len(palette):
        return
    colours = palette[used].astype(np.int64)
    grey = (colours == colours[:, :1]).all()
    if grey and len(used) > 1 and (np.diff(colours[:, 0]) < 0).any():
        shown = dict(zip(used.tolist(), colours[:, 0].tolist(), strict=True))
        raise DataError(
            f"{name}: its palette shows the indices as greys in another order ({shown}), so that "
            "index and grey contradict each other; save it as a grey PNG, or say the colours: "
            f"{field}=((r, g, b), ...)"
        )
