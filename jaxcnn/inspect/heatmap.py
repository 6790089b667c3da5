"""Draws explanations: a map over its picture, and many small pictures in a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxcnn.inspect.drawing import enlargement

if TYPE_CHECKING:
    from PIL import Image

# From where nothing speaks to where most does. Red for, blue against: told apart by those who do
# not tell red from green, and both by lightness from grey.
FOR = ((255, 237, 160), (254, 178, 76), (227, 26, 28))
AGAINST = ((222, 235, 247), (107, 174, 214), (8, 81, 156))
COVER = 0.85  # how much of the picture the strongest place hides
GAP = 2
BACKGROUND = 64


def overlay(pixels: np.ndarray, values: np.ndarray) -> Image.Image:
    """The picture in grey, with the map over it: yellow to red where its values are positive, blue
    where they are negative, the stronger the larger their share of the largest absolute value. A
    map of zeros leaves the picture as it is.

    Args:
        pixels: uint8 [H, W, 1 or 3]. values: float [h, w], finite; stretched over the picture.
    """
    from PIL import Image

    grey = pixels.mean(-1).round().astype(np.uint8)
    canvas = Image.fromarray(grey)
    factor = enlargement(canvas.size)
    size = canvas.width * factor, canvas.height * factor
    base = np.asarray(canvas.resize(size, Image.Resampling.NEAREST), np.float32)[..., None]
    top = float(np.abs(values).max())
    share = np.asarray(values, np.float32) / (top if top > 0 else 1.0)
    stretched = Image.fromarray(share).resize(size, Image.Resampling.BILINEAR)
    strength = np.clip(np.asarray(stretched), -1, 1)
    colour = np.where(strength[..., None] >= 0, _ramp(strength, FOR), _ramp(-strength, AGAINST))
    cover = COVER * np.sqrt(np.abs(strength))[..., None]  # weak places are seen too
    mixed = (1 - cover) * base + cover * colour
    return Image.fromarray(np.clip(np.round(mixed), 0, 255).astype(np.uint8))


def _ramp(share: np.ndarray, colours: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """Colours [H, W, 3] of shares [H, W] in [0, 1], linear between neighbours."""
    places = np.linspace(0, 1, len(colours))
    channels = [np.interp(share, places, [c[i] for c in colours]) for i in range(3)]
    return np.stack(channels, -1)


def grid(tiles: list[list[np.ndarray]], *, side: int = 64) -> Image.Image:
    """Rows of small pictures uint8 [h, w, 1 or 3], each enlarged by whole pixels to about `side`
    and no smaller than it is, on dark grey.
    """
    from PIL import Image

    largest = max(max(tile.shape[:2]) for row in tiles for tile in row)
    factor = max(1, side // largest)
    step = largest * factor + GAP
    columns = max(len(row) for row in tiles)
    sheet = Image.new("RGB", (columns * step + GAP, len(tiles) * step + GAP), (BACKGROUND,) * 3)
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            three = np.broadcast_to(tile, (*tile.shape[:2], 3)) if tile.shape[-1] == 1 else tile
            large = three.repeat(factor, 0).repeat(factor, 1)
            sheet.paste(
                Image.fromarray(np.ascontiguousarray(large)), (GAP + j * step, GAP + i * step)
            )
    return sheet


def folded(tiles: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Tiles in rows, about as many rows as columns."""
    columns = max(1, int(np.ceil(np.sqrt(len(tiles)))))
    return [tiles[i : i + columns] for i in range(0, len(tiles), columns)]


def stretched(values: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 1] of a map [h, w]: its least value black, its largest white; grey where all are
    equal.
    """
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    return np.round(255 * share).astype(np.uint8)[..., None]


def filter_tile(kernel: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 1 or 3] of a filter [h, w, C]: 0 is mid-grey, its largest absolute weight black
    or white. Of other numbers of channels than 1 and 3, their mean.
    """
    shown = kernel if kernel.shape[-1] in (1, 3) else kernel.mean(-1, keepdims=True)
    largest = float(np.abs(shown).max())
    share = shown / (largest if largest > 0 else 1.0)
    return np.round(127.5 * (1 + share)).astype(np.uint8)
