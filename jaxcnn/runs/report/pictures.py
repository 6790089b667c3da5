"""Arrays as pictures within the page."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from jaxcnn.runs.report.page import Html, tag

if TYPE_CHECKING:
    from PIL import Image

MOST_BYTES = 3 * 10**6  # of all pictures of a page, as they are written
LONGEST = 384  # pixels of a picture's longer side
JPEG_FROM = 20_000  # bytes of a PNG above which a JPEG is taken if it is half as long
QUALITY = 85


class Pictures:
    """The pictures of one page, of at most `most` bytes together; `refused` counts those for which
    there was no room.
    """

    def __init__(self, *, most: int = MOST_BYTES):
        self.room, self.refused = most, 0

    def add(self, picture: "Image.Image", words: str) -> Html | None:
        """The picture as an element, reduced to LONGEST; None where there is no room for it."""
        from PIL import Image

        picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        kind, content = "png", _encoded(picture, "PNG")
        if len(content) > JPEG_FROM:
            other = _encoded(picture, "JPEG")
            kind, content = ("jpeg", other) if 2 * len(other) < len(content) else (kind, content)
        data = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        if len(data) > self.room:
            self.refused += 1
            return None
        self.room -= len(data)
        return tag("img", src=data, alt=words, width=picture.width, height=picture.height)


def _encoded(picture: "Image.Image", form: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, optimize=True, quality=QUALITY)
    return stream.getvalue()


def tiles(maps: np.ndarray, *, columns: int = 8, least: int = 32) -> "Image.Image":
    """Maps [N, H, W] or [N, H, W, 3] side by side, each stretched from its least to its largest
    value (a constant one is grey) and enlarged to `least` pixels at least.
    """
    from PIL import Image

    maps = np.nan_to_num(np.asarray(maps, np.float64))
    low, high = (f(maps, axis=tuple(range(1, maps.ndim)), keepdims=True) for f in (np.min, np.max))
    flat = high - low < 1e-12
    bytes_ = np.where(flat, 128, 255 * (maps - low) / np.where(flat, 1, high - low)).astype(
        np.uint8
    )
    factor = -(-least // max(maps.shape[1:3]))
    bytes_ = bytes_.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = bytes_.shape[1:3]
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    shape = (rows * (height + 2) - 2, columns * (width + 2) - 2, *bytes_.shape[3:])
    sheet = np.full(shape, 128, np.uint8)
    for i, tile in enumerate(bytes_):
        y, x = i // columns * (height + 2), i % columns * (width + 2)
        sheet[y : y + height, x : x + width] = tile
    return Image.fromarray(sheet)
