"""Image files to arrays. Training and prediction share this one path, so a picture looks the same
to a model in both.
"""

import io
import os
from typing import Any

import numpy as np

from jaxcnn.errors import ConfigError, DataError


def read_image(
    path: str | os.PathLike, *, size: tuple[int, int] | None, channels: int
) -> np.ndarray:
    """The picture in a file, uint8 [H, W, channels] in 0..255.

    Any format that Pillow reads; of an animation the first frame. The EXIF orientation is applied,
    transparency is laid over white, 16-bit greys are reduced to 8 bits (the value over 257),
    colours become RGB (channels=3) or luma (channels=1, ITU-R BT.601). `size` (height, width)
    resizes by a bilinear filter as wide as the reduction (so without aliasing), without regard to
    the aspect ratio; None keeps the
    size. Errors: DataError naming the file and the reason.
    """
    return decode_image(path, name=os.fspath(path), size=size, channels=channels)


def decode_image(
    file: bytes | str | os.PathLike, *, name: str, size: tuple[int, int] | None, channels: int
) -> np.ndarray:
    """`read_image` for a path or the bytes of an image file; `name` stands for it in errors."""
    from PIL import Image

    if channels not in (1, 3):
        raise ConfigError(
            f"channels is {channels}; an image is read with 1 (grey) or 3 (RGB) channels"
        )
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            image = _converted(image, "L" if channels == 1 else "RGB")
            if size is not None and image.size != (size[1], size[0]):
                image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    # on damaged bytes Pillow's decoders raise almost anything: OSError, SyntaxError, ValueError,
    # struct.error, ...
    except Exception as error:
        raise DataError(
            f"{name}: cannot be read as an image ({type(error).__name__}: {error}); repair or "
            "remove it"
        ) from error


def _converted(image: Any, mode: str) -> Any:
    """`image` upright, opaque and in 8-bit `mode`."""
    from PIL import Image, ImageOps

    if image.mode == mode and "exif" not in image.info and "transparency" not in image.info:
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


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image uint8 [H, W, 1 or 3] at another size, by the same filter as `images.read_image`. ->
    uint8 [*size, C]
    """
    from PIL import Image

    if image.shape[:2] == tuple(size):
        return image
    pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)).reshape(
        *size, image.shape[-1]
    )


def read_index_mask(file: bytes | str | os.PathLike, *, name: str) -> np.ndarray:
    """The numbers of an image file of labels, int32 [H, W]: the index of a palette image (as Pascal
    VOC's), or the grey value.

    A colour image whose channels are all equal counts as grey. Errors: DataError naming the file.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            mode, pixels = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    except (
        Exception
    ) as error:  # on damaged bytes Pillow raises almost anything, see `images.decode_image`
        raise DataError(
            f"{name}: cannot be read as an image ({type(error).__name__}: {error}); repair or "
            "remove it"
        ) from error
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "biu":
        raise DataError(
            f"{name}: is a mask of mode {mode}; it must hold one number a pixel (a palette or "
            "grey PNG). Where colours stand for classes, "
            "write their numbers instead"
        )
    return pixels.astype(np.int32)


def resize_nearest(grids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks or label maps [..., H, W] at another size: each new pixel takes the old one under its
    centre. -> [..., *size]
    """
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, grids.shape[-2:], strict=True)
    )
    return grids[..., rows[:, None], columns]
