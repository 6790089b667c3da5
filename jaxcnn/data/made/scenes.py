"""Labelled scenes of real things on real photographs: digits, or other small pictures, at random
places, with all that is known of them.

One scene serves many tasks: boxes, classes, a segmentation, a mask and points of each item are read
off the same rendering. Scenes are made on the device, scene i of a split as a function of (seed,
split, i) alone; items and photographs of training are never seen in evaluation.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from jaxcnn.data.made.composed import ComposedSource
from jaxcnn.data.made.photos import EVAL_BACKGROUNDS, TRAIN_BACKGROUNDS, read_photo
from jaxcnn.data.memory import check_split
from jaxcnn.errors import ConfigError, DataError, did_you_mean

INK = 0.5  # what is at least this bright belongs to an item
PLACES = 12  # places tried for an item before it is left out
POINT_NAMES = ("topmost", "lowest", "leftmost", "rightmost", "centroid")


@dataclass(frozen=True)
class Scenes:
    """Scenes with the entries asked for, N = max_items and (H, W) = image_size:

        image uint8 [H, W, 1]                      a piece of a photograph, dimmed to 30-60 %, with
        bright items on it boxes float32 [N, 4]                       (y0, x0, y1, x1) in [0, 1],
        tight around each item's ink; zeros where there is none boxes_mask float32 [N]
        1 where there is an item box_labels int32 [N], label int32 []       the items' classes; the
        first item's class segmentation int32 [H, W]                  0 on the photograph, 1 + class
        on an item instance_masks uint8 [N, H, W]             255 on the item's ink, else 0
        points float32 [5, 2], points_mask [5]     (y, x) in [0, 1] of the first item: POINT_NAMES;
        where several pixels are topmost
                                                   (lowest, …), their middle

    items: a data set of grey pictures, bright on black, with "label"; its "train" part is used in
        training, its "eval" part in evaluation.
    item_heights: of the ink, in pixels, least and most. max_iou: of any two items' boxes; an item
        that finds no place is left out.
    Errors: ConfigError, DataError as of `items` and of `read_photo`.
    """

    items: Any
    entries: tuple[str, ...] = ("image", "boxes", "boxes_mask", "box_labels")
    image_size: tuple[int, int] = (64, 64)
    min_items: int = 1
    max_items: int = 3
    item_heights: tuple[float, float] = (16.0, 32.0)
    max_iou: float = 0.1
    num_train: int = 30_000
    num_eval: int = 1_000
    train_photos: tuple[str, ...] = TRAIN_BACKGROUNDS
    eval_photos: tuple[str, ...] = EVAL_BACKGROUNDS
    seed: int = 0

    def __post_init__(self):
        known = self._shapes()
        for name in self.entries:
            if name not in known:
                raise ConfigError(
                    f"Scenes: entry {name!r} is unknown{did_you_mean(name, known)}; there are "
                    f"{', '.join(known)}"
                )
        if not 1 <= self.min_items <= self.max_items:
            raise ConfigError(
                f"Scenes: min_items={self.min_items}, max_items={self.max_items}; they must be 1 "
                "<= min_items <= max_items"
            )
        if not 4 <= self.item_heights[0] <= self.item_heights[1] <= min(self.image_size):
            raise ConfigError(
                f"Scenes: item_heights={self.item_heights} must rise, from at least 4 to at most "
                f"the image {self.image_size}"
            )
        if set(self.train_photos) & set(self.eval_photos):
            raise ConfigError(
                f"Scenes: {sorted(set(self.train_photos) & set(self.eval_photos))} lie behind "
                "both splits; keep them apart"
            )

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.items.label_names

    def _shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        count, size = self.max_items, self.image_size
        return {
            "image": jax.ShapeDtypeStruct((*size, 1), np.uint8),
            "boxes": jax.ShapeDtypeStruct((count, 4), np.float32),
            "boxes_mask": jax.ShapeDtypeStruct((count,), np.float32),
            "box_labels": jax.ShapeDtypeStruct((count,), np.int32),
            "label": jax.ShapeDtypeStruct((), np.int32),
            "segmentation": jax.ShapeDtypeStruct(size, np.int32),
            "instance_masks": jax.ShapeDtypeStruct((count, *size), np.uint8),
            "points": jax.ShapeDtypeStruct((len(POINT_NAMES), 2), np.float32),
            "points_mask": jax.ShapeDtypeStruct((len(POINT_NAMES),), np.float32),
        }

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        shapes = self._shapes()
        return {name: shapes[name] for name in self.entries}

    def size(self, split: str) -> int:
        return {"train": self.num_train, "eval": self.num_eval, "test": 0}[check_split(split)]

    def open(self, split: str) -> ComposedSource:
        if not self.size(split):
            raise DataError(
                f"Scenes has no {split!r} scenes; it has train and eval "
                f"(num_train={self.num_train}, num_eval={self.num_eval})"
            )
        names = self.train_photos if split == "train" else self.eval_photos

        def compose(key: jax.Array, photos: Backgrounds, items: Cutouts) -> dict[str, jax.Array]:
            whole = compose_scene(key, photos, items, self)
            return {name: whole[name] for name in self.entries}

        material = (backgrounds(names, self.image_size), cutouts(self.items, split))
        return ComposedSource(compose, material, size=self.size(split), seed=self.seed, split=split)


# pixels of all photographs in a row, uint8 [P]; (start, height, width) of each, int32 [N, 3]
Backgrounds = tuple[jax.Array, jax.Array]
# pictures uint8 [M, h, w]; ink boxes (y0, x0, y1, x1) float32 [M, 4] in pixels; label [M]
Cutouts = tuple[jax.Array, jax.Array, jax.Array]


@functools.lru_cache(maxsize=8)
def backgrounds(names: tuple[str, ...], image_size: tuple[int, int]) -> Backgrounds:
    """The grey photographs of these names (see `read_photo`), each at least `image_size`. Errors:
    DataError.
    """
    photos = [read_photo(name, channels=1) for name in names]
    for name, photo in zip(names, photos, strict=True):
        if photo.shape[0] < image_size[0] or photo.shape[1] < image_size[1]:
            raise DataError(
                f"{name}: is {photo.shape[:2]}, smaller than the scenes ({image_size}); take a "
                "larger one, or smaller scenes"
            )
    starts = np.cumsum([0] + [photo.size for photo in photos[:-1]])
    places = np.array(
        [(start, *photo.shape[:2]) for start, photo in zip(starts, photos, strict=True)], np.int32
    )
    return jnp.asarray(np.concatenate([photo.ravel() for photo in photos])), jnp.asarray(places)


@functools.lru_cache(maxsize=8)
def cutouts(items: Any, split: str) -> Cutouts:
    """All pictures of a split with the tight boxes of their ink. Errors: ConfigError for pictures
    that are not grey.
    """
    source = items.open(split)
    whole = jax.device_get(source.take(np.arange(len(source))))
    image, label = whole["image"], whole["label"]
    if image.ndim != 4 or image.shape[-1] != 1 or image.dtype != np.uint8:
        raise ConfigError(
            f"Scenes: items give images {image.shape[1:]} of {image.dtype}; they must be grey, "
            "uint8 [H, W, 1]"
        )
    ink = image[..., 0] >= 255 * INK
    chosen = ink.any((1, 2))  # a picture without ink cannot be found
    image, ink, label = image[chosen, ..., 0], ink[chosen], label[chosen]
    rows, columns = ink.any(2), ink.any(1)
    height, width = ink.shape[1:]
    first, last = (
        (rows.argmax(1), columns.argmax(1)),
        (height - rows[:, ::-1].argmax(1), width - columns[:, ::-1].argmax(1)),
    )
    return (
        jnp.asarray(image),
        jnp.asarray(np.stack([*first, *last], 1).astype(np.float32)),
        jnp.asarray(label.astype(np.int32)),
    )


def compose_scene(
    key: jax.Array, photos: Backgrounds, items: Cutouts, scenes: Scenes
) -> dict[str, jax.Array]:
    """One scene with all entries that `Scenes` knows."""
    photo_key, count_key, *item_keys = random.split(key, 2 + scenes.max_items)
    ground = dimmed_crop(photo_key, photos, scenes.image_size)
    count = random.randint(count_key, (), scenes.min_items, scenes.max_items + 1)
    layers, labels, boxes = [], [], []
    for i, item_key in enumerate(item_keys):
        choice_key, size_key, place_key = random.split(item_key, 3)
        chosen = random.randint(choice_key, (), 0, len(items[0]))
        ink = items[1][chosen]
        box, is_free = place_item(size_key, place_key, ink, boxes, scenes)
        exists = is_free & (i < count)
        boxes.append(jnp.where(exists, box, -1.0))  # an empty box far from all others
        layers.append(
            jnp.where(exists, render_item(items[0][chosen], ink, box, scenes.image_size), 0.0)
        )
        labels.append(items[2][chosen])
    layers, labels = jnp.stack(layers), jnp.stack(labels)  # [N, H, W] in [0, 1], [N]
    masks = layers >= INK
    exists = masks.any((1, 2))
    labels = jnp.where(exists, labels, 0)
    top = layers.argmax(0)  # the brightest item hides the others
    segmentation = jnp.where(masks.any(0), 1 + labels[top], 0)
    points = extreme_points(masks[0])
    return {
        "image": jnp.round(255 * jnp.maximum(ground, layers.max(0)))[..., None].astype(jnp.uint8),
        "boxes": jax.vmap(tight_box)(masks),
        "boxes_mask": exists.astype(jnp.float32),
        "box_labels": labels,
        "label": labels[0],
        "segmentation": segmentation,
        "instance_masks": 255 * masks.astype(jnp.uint8),
        "points": points,
        "points_mask": jnp.ones(points.shape[0], jnp.float32),
    }


def dimmed_crop(
    key: jax.Array,
    photos: Backgrounds,
    size: tuple[int, int],
    *,
    brightness: tuple[float, float] = (0.3, 0.6),
) -> jax.Array:
    """A random piece of a random photograph, dimmed to a random brightness in [0, 1]. -> [*size]
    float32
    """
    pixels, places = photos
    choice_key, top_key, left_key, dim_key = random.split(key, 4)
    start, height, width = places[random.randint(choice_key, (), 0, len(places))]
    top = random.randint(top_key, (), 0, height - size[0] + 1)
    left = random.randint(left_key, (), 0, width - size[1] + 1)
    index = start + (top + jnp.arange(size[0]))[:, None] * width + left + jnp.arange(size[1])[None]
    piece = pixels.at[index].get(mode="promise_in_bounds").astype(jnp.float32) / 255.0
    return piece * random.uniform(dim_key, (), jnp.float32, *brightness)


def place_item(
    size_key: jax.Array, place_key: jax.Array, ink: jax.Array, boxes: list, scenes: Scenes
) -> tuple[jax.Array, jax.Array]:
    """A box (y0, x0, y1, x1) in pixels for an item with this ink box, and whether it keeps clear of
    the `boxes` there are.
    """
    height, width = scenes.image_size
    shape = ink[2:] - ink[:2]  # height, width
    tall = random.uniform(size_key, (), jnp.float32, *scenes.item_heights)
    wide = tall * shape[1] / shape[0]
    shrink = jnp.minimum(1.0, width / wide)  # a flat item, such as a shoe, must fit too
    tall, wide = tall * shrink, wide * shrink
    corner = random.uniform(place_key, (PLACES, 2)) * jnp.stack([height - tall, width - wide])[None]
    # [PLACES, 4]
    candidates = jnp.concatenate([corner, corner + jnp.stack([tall, wide])[None]], axis=1)
    if not boxes:
        return candidates[0], jnp.ones((), bool)
    is_free = (_pixel_iou(candidates[:, None], jnp.stack(boxes)[None]) <= scenes.max_iou).all(1)
    return candidates[is_free.argmax()], is_free.any()


def render_item(
    picture: jax.Array, ink: jax.Array, box: jax.Array, size: tuple[int, int]
) -> jax.Array:
    """`picture` [h, w] uint8 scaled and moved so that its ink box fills `box` (both in pixels). ->
    [*size] float32 in [0, 1]
    """
    scale = (box[2:] - box[:2]) / (ink[2:] - ink[:2])
    moved = jax.image.scale_and_translate(
        picture.astype(jnp.float32) / 255.0,
        size,
        (0, 1),
        scale,
        box[:2] - scale * ink[:2],
        "linear",
        precision=lax.Precision.HIGHEST,
    )
    return jnp.clip(moved, 0.0, 1.0)


def tight_box(mask: jax.Array) -> jax.Array:
    """(y0, x0, y1, x1) in [0, 1] around the true pixels, zeros if there are none. [H, W] bool ->
    [4] float32
    """

    def ends(line):
        size = line.shape[0]
        return jnp.argmax(line), size - jnp.argmax(line[::-1])

    (y0, y1), (x0, x1) = ends(mask.any(1)), ends(mask.any(0))
    scale = jnp.asarray([*mask.shape, *mask.shape], jnp.float32)
    box = jnp.stack([y0, x0, y1, x1]).astype(jnp.float32) / scale
    return jnp.where(mask.any(), box, 0.0)


def extreme_points(mask: jax.Array) -> jax.Array:
    """The middles of the topmost, lowest, leftmost and rightmost true pixels and the centroid: (y,
    x) in [0, 1]. [H, W] -> [5, 2]
    """
    height, width = mask.shape
    y, x = (
        (jnp.arange(height, dtype=jnp.float32) + 0.5)[:, None],
        (jnp.arange(width, dtype=jnp.float32) + 0.5)[None],
    )
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
    filled_rows, filled_columns = mask.any(1), mask.any(0)
    chosen = (
        rows == jnp.argmax(filled_rows),
        rows == height - 1 - jnp.argmax(filled_rows[::-1]),
        columns == jnp.argmax(filled_columns),
        columns == width - 1 - jnp.argmax(filled_columns[::-1]),
        jnp.ones_like(mask),
    )

    def middle(part):
        weight = (mask & part).astype(jnp.float32)
        total = jnp.maximum(weight.sum(), 1.0)
        return jnp.stack([(weight * y).sum() / total / height, (weight * x).sum() / total / width])

    return jnp.stack([middle(part) for part in chosen])


def _pixel_iou(first: jax.Array, second: jax.Array) -> jax.Array:
    low, high = (
        jnp.maximum(first[..., :2], second[..., :2]),
        jnp.minimum(first[..., 2:], second[..., 2:]),
    )
    shared = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
    areas = [jnp.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (first, second)]
    return shared / (areas[0] + areas[1] - shared)
