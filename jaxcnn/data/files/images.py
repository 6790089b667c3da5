"""Image files to arrays. Training and prediction share this one path, so a picture looks the same
to a model in both.
"""

import contextlib
import functools
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxcnn.data.crops import Cropping, Window
from jaxcnn.data.files.walk import walk
from jaxcnn.errors import ConfigError, DataError

# What may be opened. Pillow knows more, among them formats that start other programs (EPS starts
# Ghostscript), whatever the ending of the file says.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
# The largest picture that is decoded: a file of 100 kB can ask for gigabytes. It is 8192 x 8192.
MAX_PIXELS = 2**26
ORIENTATION = 0x0112  # the EXIF tag


def read_image(
    path: str | os.PathLike, *, size: tuple[int, int] | None, channels: int
) -> np.ndarray:
    """The picture in a file, uint8 [H, W, channels] in 0..255.

    Formats: see FORMATS; of an animation the first frame. The EXIF orientation is applied,
    transparency is laid over white, 16-bit greys are reduced to 8 bits (the value over 257),
    colours become RGB (channels=3) or luma (channels=1, ITU-R BT.601). `size` (height, width)
    resizes by a bilinear filter as wide as the reduction (so without aliasing), without regard to
    the aspect ratio, a JPEG that is to be reduced four times or more in part by decoding fewer of
    its frequencies; None keeps the size. Errors: DataError naming the file and the reason, also
    for more than MAX_PIXELS pixels.
    """
    return decode_image(path, name=os.fspath(path), size=size, channels=channels)


def decode_image(
    file: bytes | str | os.PathLike,
    *,
    name: str,
    size: tuple[int, int] | None,
    channels: int,
    window: Cropping | None = None,
) -> np.ndarray:
    """`read_image` for a path or the bytes of an image file; `name` stands for it in errors.
    `window`: from the (height, width) of the upright picture to the part of it that is resized.
    """
    if channels not in (1, 3):
        raise ConfigError(
            f"channels is {channels}; an image is read with 1 (grey) or 3 (RGB) channels"
        )
    with open_image(file, name=name) as image:
        mode = "L" if channels == 1 else "RGB"
        if size is None:
            image = _converted(image, mode)
        elif image.format in ("JPEG", "MPO"):
            image = _resized_jpeg(image, mode, size, window)
        else:
            image = _converted(image, mode)
            image = _resized(image, size, window((image.height, image.width)) if window else None)
        return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def _resized_jpeg(image: Any, mode: str, size: tuple[int, int], window: Cropping | None) -> Any:
    """A JPEG decoded at 1/2, 1/4 or 1/8 of its size, where that is still twice what is asked for,
    or more: some of the decoding is spared, and the filter has enough to go by.
    """
    turned = orientation(image) >= 5
    height, width = image.size if turned else image.size[::-1]
    top, left, bottom, right = window((height, width)) if window else (0, 0, height, width)
    enough = (
        math.ceil(2 * size[0] * height / (bottom - top)),
        math.ceil(2 * size[1] * width / (right - left)),
    )
    image.draft(None, enough if turned else enough[::-1])
    image = _converted(image, mode)
    down, along = image.height / height, image.width / width
    return _resized(image, size, (top * down, left * along, bottom * down, right * along))


def _resized(image: Any, size: tuple[int, int], window: tuple[float, ...] | None) -> Any:
    """A picture, or a window (top, left, bottom, right) of it, at `size`."""
    from PIL import Image

    top, left, bottom, right = window or (0, 0, image.height, image.width)
    if (image.height, image.width) == tuple(size) == (bottom - top, right - left):
        return image
    box = (left, top, min(right, image.width), min(bottom, image.height))
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)


class _File(io.BufferedReader):
    """A file that reads no more than it has: Pillow asks for as many bytes as a damaged length
    says, up to 2 GB, and Python takes the memory for them before it reads.
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@contextlib.contextmanager
def open_image(file: bytes | str | os.PathLike, *, name: str) -> Iterator[Any]:
    """A picture as Pillow opens it, of one of FORMATS and at most MAX_PIXELS pixels as its header
    says; no pixel is read yet. What goes wrong within the `with` is a DataError that names the
    file, too.
    """
    from PIL import Image

    try:
        with (
            io.BytesIO(file) if isinstance(file, bytes) else _File(file) as source,
            Image.open(source, formats=_formats()) as image,
        ):
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(
                    f"{image.width} x {image.height} pixels, perhaps a decompression bomb"
                )
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    except Image.UnidentifiedImageError as error:
        raise DataError(
            f"{name}: cannot be read as an image; the formats that are read are "
            f"{', '.join(_formats())}: convert, repair or remove it"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{name}: is not read ({error}); at most {MAX_PIXELS} pixels are decoded: make it "
            "smaller, or cut it into tiles"
        ) from error
    # on damaged bytes Pillow's decoders raise almost anything: OSError, SyntaxError, ValueError,
    # struct.error, ...
    except Exception as error:
        raise DataError(
            f"{name}: cannot be read as an image ({type(error).__name__}: {error}); repair or "
            "remove it"
        ) from error


def image_size(path: Path) -> tuple[tuple[int, int], int]:
    """The (height, width) of the stored pixels of an image file, and its EXIF orientation in 1..8
    (from 5 on height and width are exchanged when it is upright), from its header. Errors:
    DataError.
    """
    with open_image(path, name=str(path)) as image:
        size, turn = (image.height, image.width), orientation(image)
        # Pillow opens a TIFF with the size that it will have once it is upright
        return (size[::-1] if image.format == "TIFF" and turn >= 5 else size), turn


def turn_of(file: bytes | str | os.PathLike, *, name: str) -> int:
    """The EXIF orientation of an image file, or of its bytes, see `orientation`. Errors:
    DataError.
    """
    with open_image(file, name=name) as image:
        return orientation(image)


def orientation(image: Any) -> int:
    """The EXIF orientation, in 1..8; 1 where there is none or it has no meaning. No pixel is read,
    but for a PNG that holds EXIF data after its pixels.
    """
    from PIL import Image

    if image.format == "PNG" and image.fp is not None and not _png_has_exif(image.fp):
        tag = Image.Image.getexif(image).get(ORIENTATION, 1)  # PNG's own reads the pixels first
    else:
        tag = image.getexif().get(ORIENTATION, 1)
    return tag if tag in range(1, 9) else 1


def _png_has_exif(file: BinaryIO) -> bool:
    """Whether a PNG has an eXIf chunk, or is damaged so that nobody knows."""
    place = file.tell()
    file.seek(8)
    try:
        while len(head := file.read(8)) == 8:
            if head[4:] in (b"eXIf", b"IEND"):
                return head[4:] == b"eXIf"
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
        return True
    finally:
        file.seek(place)


def image_paths(root: Path) -> list[Path]:
    """The files below a folder whose endings say that they are images, see `walk.walk`. Errors:
    DataError where there is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; it must hold the image files")
    endings = image_endings()
    return [path for path in walk(root) if path.suffix.lower() in endings]


@functools.cache
def image_endings() -> frozenset[str]:
    """The endings of FORMATS, in lower case, with the dot."""
    from PIL import Image

    return frozenset(e for e, form in Image.registered_extensions().items() if form in FORMATS)


@functools.cache
def _formats() -> tuple[str, ...]:
    """FORMATS, but for those that this machine's Pillow was built without."""
    from PIL import Image, features

    Image.init()
    built = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
    return tuple(
        form
        for form in FORMATS
        if form in Image.OPEN and (form not in built or features.check(built[form]))
    )


def _converted(image: Any, mode: str) -> Any:
    """`image` upright, opaque and in 8-bit `mode`."""
    from PIL import Image, ImageOps

    if image.mode == mode and orientation(image) == 1 and "transparency" not in image.info:
        return image  # the common case, and most of the reading time of small images
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert(mode)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert(mode)


def _eight_bits(image: Any) -> Any:
    """A 16-bit grey (Pillow's modes I;16 and I, values in 0..65535) or float (F, values in [0, 1])
    image as mode L.
    """
    from PIL import Image

    pixels = np.asarray(image).astype(np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (pixels.min() >= 0 and pixels.max() <= top):
        raise ValueError(
            f"pixels of mode {image.mode} lie in [{pixels.min()}, {pixels.max()}]; they must lie "
            f"in [0, {top:g}]"
        )
    return Image.fromarray(np.round(pixels * (255 / top)).astype(np.uint8))


def resize_image(
    image: np.ndarray, size: tuple[int, int], *, window: Window | None = None
) -> np.ndarray:
    """An image uint8 [H, W, 1 or 3], or a window of it, at another size, by the same filter as
    `images.read_image`. -> uint8 [*size, C]
    """
    from PIL import Image

    if image.shape[:2] == tuple(size) and window is None:
        return image
    pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(_resized(pixels, size, window)).reshape(*size, image.shape[-1])


def resize_nearest(grids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks or label maps [..., H, W] at another size: each new pixel takes the old one under its
    centre. -> [..., *size]
    """
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, grids.shape[-2:], strict=True)
    )
    return grids[..., rows[:, None], columns]
