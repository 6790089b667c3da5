"""Draws what a task says of a picture, on the picture: boxes, masks, class maps, points, words."""

from __future__ import annotations

import colorsys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

LEAST_SIDE = 256  # smaller pictures are enlarged, so that names can be read
MOST_SIDE = 4096  # but not beyond this, or a strip of a few rows would need gigabytes
MASK_SHARE = 0.45  # of a mask's colour over the picture


def draw(pixels: np.ndarray, described: dict[str, Any]) -> Image.Image:
    """The picture with its description drawn on it, or the picture that was made of it.

    Args:
        pixels: uint8 [H, W, 1 or 3].
        described: of a task's `describe`: "image", or any of "segmentation", "objects", "points"
        (with "edges"), "text".
    """
    from PIL import Image

    if "image" in described:
        return to_image(described["image"])
    canvas = to_image(pixels).convert("RGB")
    factor = enlargement(canvas.size)
    canvas = canvas.resize(
        (canvas.width * factor, canvas.height * factor), Image.Resampling.NEAREST
    )
    if "segmentation" in described:
        canvas = _draw_segmentation(canvas, described["segmentation"])
    if "objects" in described:
        canvas = _draw_objects(canvas, described["objects"])
    if "points" in described:
        _draw_points(canvas, described["points"], described.get("edges", []))
    return with_text(canvas, described["text"]) if "text" in described else canvas


def enlargement(size: tuple[int, int]) -> int:
    """By what whole factor a picture of these sides is enlarged, so that what is drawn on it can be
    read: until the shorter is LEAST_SIDE, or the longer would exceed MOST_SIDE.
    """
    return max(1, min(-(-LEAST_SIDE // min(size)), MOST_SIDE // max(size)))


def to_image(pixels: np.ndarray) -> Image.Image:
    """uint8 [H, W, 1 or 3] as a picture."""
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def color_of(number: int) -> tuple[int, int, int]:
    """A bright colour for class or object `number`; neighbouring numbers lie a golden section of
    the colour circle apart.
    """
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_segmentation(canvas: Image.Image, segmentation: np.ndarray) -> Image.Image:
    for label in np.unique(segmentation):
        if label > 0:  # 0 is the background
            canvas = _tint(canvas, segmentation == label, color_of(int(label)))
    return canvas


def _draw_objects(canvas: Image.Image, objects: list[dict[str, Any]]) -> Image.Image:
    from PIL import ImageDraw

    # masks first: outlines and names lie above all of them
    for number, thing in enumerate(objects):
        if "mask" in thing:
            canvas = _tint(canvas, thing["mask"], color_of(number))
    pen, font = ImageDraw.Draw(canvas), _font(canvas)
    for number, thing in enumerate(objects):
        color = color_of(number if "mask" in thing else int(thing.get("label", number)))
        corner = (2.0, 2.0)
        if "polygon" in thing:
            corners = [(x * canvas.width, y * canvas.height) for y, x in thing["polygon"]]
            pen.polygon(corners, outline=color, width=_line(canvas))
            corner = min(corners, key=lambda p: p[1])
        elif "box" in thing:
            y0, x0, y1, x1 = (float(v) for v in thing["box"])
            left, right = sorted((x0 * canvas.width, x1 * canvas.width - 1))
            top, bottom = sorted((y0 * canvas.height, y1 * canvas.height - 1))
            pen.rectangle((left, top, right, bottom), outline=color, width=_line(canvas))
            corner = (left, top)
        score = [f"{thing['score']:.2f}"] if "score" in thing else []
        if words := " ".join([*filter(None, [thing.get("name")]), *score]):
            _label(pen, corner, words, color, font)
    return canvas


def _draw_points(canvas: Image.Image, points: list, edges: list) -> None:
    from PIL import ImageDraw

    pen, radius = ImageDraw.Draw(canvas), 2 * _line(canvas)
    places = [(point[1] * canvas.width, point[0] * canvas.height) for point in points]
    for start, stop in edges:
        pen.line((*places[start], *places[stop]), fill=(255, 255, 255), width=_line(canvas))
    for number, (x, y) in enumerate(places):
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            fill=color_of(number),
            outline=(0, 0, 0),
        )


def with_text(canvas: Image.Image, text: str) -> Image.Image:
    """The picture above a strip with the text."""
    from PIL import Image, ImageDraw

    font = _font(canvas)
    letter = max(1.0, font.getlength("n"))
    lines = textwrap.wrap(text, max(1, int((canvas.width - 8) / letter))) or ["(no text)"]
    height = sum(font.getbbox("Ag")[2:]) // 2 + 8
    out = Image.new("RGB", (canvas.width, canvas.height + height * len(lines) + 4), (255, 255, 255))
    out.paste(canvas, (0, 0))
    for i, line in enumerate(lines):
        ImageDraw.Draw(out).text(
            (4, canvas.height + 2 + i * height), line, fill=(0, 0, 0), font=font
        )
    return out


def _tint(canvas: Image.Image, mask: np.ndarray, color: tuple[int, int, int]) -> Image.Image:
    from PIL import Image

    share = Image.fromarray((255 * MASK_SHARE * np.asarray(mask)).astype(np.uint8)).resize(
        canvas.size, Image.Resampling.NEAREST
    )
    return Image.composite(Image.new("RGB", canvas.size, color), canvas, share)


def _label(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    words: str,
    color: tuple[int, int, int],
    font: Any,
) -> None:
    x0, y0, x1, y1 = pen.textbbox((0, 0), words, font=font)
    x = max(0.0, min(corner[0], pen.im.size[0] - (x1 - x0) - 4))
    y = max(0.0, corner[1] - (y1 - y0) - 4)
    pen.rectangle((x, y, x + x1 - x0 + 4, y + y1 - y0 + 4), fill=color)
    pen.text((x + 2 - x0, y + 2 - y0), words, fill=(0, 0, 0), font=font)


def _line(canvas: Image.Image) -> int:
    return max(1, round(min(canvas.size) / 200))


def _font(canvas: Image.Image) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(max(11, round(min(canvas.size) / 28)))
