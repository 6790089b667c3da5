"""Text set from real handwritten characters on real photographs: single lines to be read, and
scenes with slanted lines to be found.

Both are made on the device, example i of a split as a function of (seed, split, i) alone, as
`jaxcnn.data.made.scenes` does; characters and photographs of training are never seen in evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from jaxcnn.data import geometry
from jaxcnn.data.made.composed import ComposedSource
from jaxcnn.data.made.photos import EVAL_BACKGROUNDS, TRAIN_BACKGROUNDS
from jaxcnn.data.made.scenes import (
    Backgrounds,
    Cutouts,
    backgrounds,
    cutouts,
    dimmed_crop,
    render_item,
)
from jaxcnn.data.memory import check_split
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops import polygons

PLACES = 16  # places tried for a line before it is left out
APART = 3.0  # pixels between lines, at least
GAPS = (0.0, 0.25)  # between characters, in line heights, least and most
HEIGHTS = (0.85, 1.0)  # of characters, in line heights


@dataclass(frozen=True)
class TextLines:
    """Lines of `min_length` to `max_length` = L characters:

        image uint8 [H, W, 1]   a piece of a photograph, dimmed to 30-60 %, with the bright
        characters from left to right on it text int32 [L]          1 + the class of each character,
        then 0 for padding

    items: a data set of grey characters, bright on black, with "label"; its "train" part serves
        training, its "eval" part evaluation.
    heights: of a line, in pixels, least and most; a line too long for the image is made smaller.
    transposed: rows and columns of the items change places first (TFDS holds EMNIST's characters
        so).
    Errors: ConfigError, DataError as of `items` and of the photographs.
    """

    items: Any
    image_size: tuple[int, int] = (32, 112)
    min_length: int = 2
    max_length: int = 6
    heights: tuple[float, float] = (16.0, 28.0)
    num_train: int = 30_000
    num_eval: int = 1_000
    train_photos: tuple[str, ...] = TRAIN_BACKGROUNDS
    eval_photos: tuple[str, ...] = EVAL_BACKGROUNDS
    transposed: bool = False
    seed: int = 0

    def __post_init__(self):
        _check_fields(self)

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.items.label_names

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "image": jax.ShapeDtypeStruct((*self.image_size, 1), np.uint8),
            "text": jax.ShapeDtypeStruct((self.max_length,), np.int32),
        }

    def size(self, split: str) -> int:
        return {"train": self.num_train, "eval": self.num_eval, "test": 0}[check_split(split)]

    def open(self, split: str) -> ComposedSource:
        return _source(self, split, compose_line)


@dataclass(frozen=True)
class TextScenes:
    """Photographs with 1 to `max_lines` = N lines of `min_length` to `max_length` characters:

        image uint8 [H, W, 1]        a piece of a photograph, dimmed to 30-60 %, with bright lines
        on it polygons float32 [N, 4, 2]   corners (y, x) in [0, 1] of each line's rectangle, from
        its upper left one clockwise; 0 where none is polygons_mask float32 [N]    1 where there is
        a line

    degrees: half of the lines are turned by an angle uniform within +- this. Lines lie in the image
        as a whole and at least 3 pixels apart;
    one that finds no place is left out. Other fields: see `TextLines`.
    """

    items: Any
    image_size: tuple[int, int] = (96, 96)
    max_lines: int = 3
    min_length: int = 2
    max_length: int = 6
    heights: tuple[float, float] = (10.0, 18.0)
    degrees: float = 15.0
    num_train: int = 30_000
    num_eval: int = 1_000
    train_photos: tuple[str, ...] = TRAIN_BACKGROUNDS
    eval_photos: tuple[str, ...] = EVAL_BACKGROUNDS
    transposed: bool = False
    seed: int = 0

    def __post_init__(self):
        _check_fields(self)
        if self.max_lines < 1:
            raise ConfigError(
                f"TextScenes: max_lines is {self.max_lines}; it counts the lines of a scene and "
                "is at least 1"
            )
        if not 0 <= self.degrees <= 45:
            raise ConfigError(
                f"TextScenes: degrees is {self.degrees}; lines turn by at most so much to either "
                "side, 0 to 45"
            )

    @property
    def label_names(self) -> tuple[str, ...]:
        return ("text",)

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "image": jax.ShapeDtypeStruct((*self.image_size, 1), np.uint8),
            "polygons": jax.ShapeDtypeStruct((self.max_lines, 4, 2), np.float32),
            "polygons_mask": jax.ShapeDtypeStruct((self.max_lines,), np.float32),
        }

    def size(self, split: str) -> int:
        return {"train": self.num_train, "eval": self.num_eval, "test": 0}[check_split(split)]

    def open(self, split: str) -> ComposedSource:
        return _source(self, split, compose_scene)


def _source(data: TextLines | TextScenes, split: str, compose: Callable) -> ComposedSource:
    """The examples of a split, made by `compose(key, photos, characters, data)`."""
    size = data.size(split)
    if not size:
        fields = f"num_train={data.num_train}, num_eval={data.num_eval}"
        raise DataError(
            f"{type(data).__name__} has no {split!r} examples; it has train and eval ({fields})"
        )
    photos = backgrounds(
        data.train_photos if split == "train" else data.eval_photos, data.image_size
    )
    pictures, ink, labels = cutouts(data.items, split)
    if data.transposed:
        pictures, ink = pictures.swapaxes(1, 2), ink[:, jnp.array([1, 0, 3, 2])]
    material = (photos, (pictures, ink, labels))
    return ComposedSource(
        lambda key, *parts: compose(key, *parts, data),
        material,
        size=size,
        seed=data.seed,
        split=split,
    )


def compose_line(
    key: jax.Array, photos: Backgrounds, characters: Cutouts, data: TextLines
) -> dict[str, jax.Array]:
    """One example of `TextLines`."""
    photo_key, line_key, place_key = random.split(key, 3)
    ground = dimmed_crop(photo_key, photos, data.image_size)
    chosen, boxes, size = set_line(
        line_key, characters, data, room=jnp.float32(data.image_size[1] - 2)
    )
    corner = random.uniform(place_key, (2,)) * (jnp.asarray(data.image_size, jnp.float32) - size)
    layer = render_line(chosen, boxes + jnp.tile(corner, 2)[None], characters, data.image_size)
    labels = characters[2][chosen]
    text = jnp.where(boxes[:, 2] > 0, 1 + labels, 0)
    return {"image": as_image(jnp.maximum(ground, layer)), "text": text}


def compose_scene(
    key: jax.Array, photos: Backgrounds, characters: Cutouts, data: TextScenes
) -> dict[str, jax.Array]:
    """One example of `TextScenes`."""
    photo_key, count_key, *line_keys = random.split(key, 2 + data.max_lines)
    ground = dimmed_crop(photo_key, photos, data.image_size)
    height, width = data.image_size
    count = random.randint(count_key, (), 1, data.max_lines + 1)
    strip = (int(np.ceil(data.heights[1])) + 1, width)
    layers, places, outlines, exists = [], [], [], []
    for number, line_key in enumerate(line_keys):
        set_key, turn_key, place_key = random.split(line_key, 3)
        # A line turned by this much must fit into the image's height as well.
        room = jnp.float32(
            min(
                0.9 * width,
                (0.95 * height - data.heights[1]) / max(np.sin(np.deg2rad(data.degrees)), 1e-3),
            )
        )
        chosen, boxes, size = set_line(set_key, characters, data, room=room)
        angle = turn(turn_key, data.degrees)
        center, is_free = place_line(place_key, size, angle, outlines, data.image_size)
        exists.append(is_free & (number < count))
        # far from all others
        outlines.append(jnp.where(exists[-1], corners(center, size, angle), -1e4))
        layers.append(render_line(chosen, boxes, characters, strip))
        places.append((center, size, angle))
    exists = jnp.stack(exists)
    place = [jnp.stack(part) for part in zip(*places, strict=True)]
    turned = jax.vmap(lambda *line: lay(*line, image_size=data.image_size))(
        jnp.stack(layers), *place
    )
    layer = jnp.where(exists[:, None, None], turned, 0.0).max(0)
    scale = jnp.asarray(data.image_size, jnp.float32)[None, None]
    return {
        "image": as_image(jnp.maximum(ground, layer)),
        "polygons": jnp.where(exists[:, None, None], jnp.stack(outlines) / scale, 0.0),
        "polygons_mask": exists.astype(jnp.float32),
    }


def set_line(
    key: jax.Array, characters: Cutouts, data: Any, *, room: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Characters side by side: their numbers [L], boxes (y0, x0, y1, x1) in pixels [L, 4] (zeros
    where the line has ended) and the line's (height, width), at most `room` wide; the line starts
    at (0, 0).
    """
    choice_key, count_key, tall_key, size_key, gap_key, top_key = random.split(key, 6)
    length = data.max_length
    chosen = random.randint(choice_key, (length,), 0, len(characters[0]))
    exists = jnp.arange(length) < random.randint(count_key, (), data.min_length, length + 1)
    ink = characters[1][chosen]
    tall = random.uniform(tall_key, (), jnp.float32, *data.heights)
    height = tall * random.uniform(size_key, (length,), jnp.float32, *HEIGHTS)
    width = height * (ink[:, 3] - ink[:, 1]) / (ink[:, 2] - ink[:, 0])
    gap = (tall * random.uniform(gap_key, (length,), jnp.float32, *GAPS)).at[0].set(0.0)
    right = jnp.cumsum(jnp.where(exists, gap + width, 0.0))
    top = random.uniform(top_key, (length,)) * (tall - height)
    top = top - jnp.where(exists, top, tall).min()
    boxes = jnp.stack([top, right - width, top + height, right], axis=-1)
    boxes = jnp.where(exists[:, None], boxes * jnp.minimum(1.0, room / right[-1]), 0.0)
    return chosen, boxes, boxes[:, 2:].max(0)


def render_line(
    chosen: jax.Array, boxes: jax.Array, characters: Cutouts, size: tuple[int, int]
) -> jax.Array:
    """The characters in their boxes, the brightest on top. -> [*size] float32 in [0, 1]"""
    exists = boxes[:, 2] > boxes[:, 0]
    safe = jnp.where(exists[:, None], boxes, jnp.asarray([[0.0, 0.0, 1.0, 1.0]]))
    layers = jax.vmap(lambda i, box: render_item(characters[0][i], characters[1][i], box, size))(
        chosen, safe
    )
    return jnp.where(exists[:, None, None], layers, 0.0).max(0)


def turn(key: jax.Array, degrees: float) -> jax.Array:
    """An angle in radians: level as often as not, else uniform within +- `degrees`."""
    level_key, angle_key = random.split(key)
    angle = random.uniform(angle_key, (), jnp.float32, -1.0, 1.0) * np.deg2rad(degrees).astype(
        np.float32
    )
    return jnp.where(random.bernoulli(level_key), 0.0, angle)


def corners(center: jax.Array, size: jax.Array, angle: jax.Array) -> jax.Array:
    """Corners (y, x) of the rectangle of `size` (height, width) turned counter-clockwise as seen.
    center [..., 2] -> [..., 4, 2]
    """
    y, x = (
        jnp.asarray([-1.0, -1.0, 1.0, 1.0]) * size[0] / 2,
        jnp.asarray([-1.0, 1.0, 1.0, -1.0]) * size[1] / 2,
    )
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    turned = jnp.stack([cosine * y - sine * x, sine * y + cosine * x], axis=-1)  # [4, 2]
    return center[..., None, :] + turned.reshape((1,) * (center.ndim - 1) + (4, 2))


def place_line(
    key: jax.Array,
    size: jax.Array,
    angle: jax.Array,
    outlines: list[jax.Array],
    image_size: tuple[int, int],
) -> tuple[jax.Array, jax.Array]:
    """A centre (y, x) in pixels for a line, and whether it then keeps clear of the `outlines` [4,
    2] there are.
    """
    cosine, sine = jnp.cos(angle), jnp.abs(jnp.sin(angle))
    # of the turned rectangle
    reach = jnp.stack([cosine * size[0] + sine * size[1], sine * size[0] + cosine * size[1]]) / 2
    free = jnp.maximum(jnp.asarray(image_size, jnp.float32) - 2 * reach, 0.0)
    centers = reach[None] + random.uniform(key, (PLACES, 2)) * free[None]
    if not outlines:
        return centers[0], jnp.ones((), bool)
    wider = corners(centers, size + 2 * APART, angle)  # [PLACES, 4, 2]
    others = jnp.stack(outlines)  # [M, 4, 2]
    is_free = jax.vmap(
        lambda one: jax.vmap(lambda other: polygons.are_apart(one, other))(others).all()
    )(wider)
    return centers[jnp.argmax(is_free)], is_free.any()


def lay(
    layer: jax.Array,
    center: jax.Array,
    size: jax.Array,
    angle: jax.Array,
    *,
    image_size: tuple[int, int],
) -> jax.Array:
    """A line drawn from (0, 0), moved to `center` and turned. [h, w] -> [*image_size]"""
    y = (jnp.arange(image_size[0], dtype=jnp.float32) + 0.5)[:, None] - center[0]
    x = (jnp.arange(image_size[1], dtype=jnp.float32) + 0.5)[None, :] - center[1]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    rows, columns = cosine * y + sine * x + size[0] / 2, cosine * x - sine * y + size[1] / 2
    return geometry.sample_bilinear(layer[None, :, :, None], rows[None], columns[None])[0, :, :, 0]


def as_image(pixels: jax.Array) -> jax.Array:
    """[H, W] in [0, 1] -> uint8 [H, W, 1]"""
    return jnp.round(255 * pixels)[..., None].astype(jnp.uint8)


def _check_fields(data: Any) -> None:
    name = type(data).__name__
    if not 1 <= data.min_length <= data.max_length:
        raise ConfigError(
            f"{name}: min_length={data.min_length}, max_length={data.max_length}; they must be 1 "
            "<= min_length <= max_length"
        )
    if not 4 <= data.heights[0] <= data.heights[1] <= data.image_size[0]:
        raise ConfigError(
            f"{name}: heights={data.heights} must rise, from at least 4 to at most the image "
            f"{data.image_size}"
        )
    shared = sorted(set(data.train_photos) & set(data.eval_photos))
    if shared:
        raise ConfigError(f"{name}: {shared} lie behind both splits; keep them apart")
