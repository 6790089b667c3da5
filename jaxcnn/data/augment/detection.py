"""Augmentations that make one picture of several, objects and maps included.

Rows of objects are padded to a number N that stays. Where more come together than there are rows,
the largest are kept, those to be found before those to be ignored; the others stay in the picture
without a label. "boxes_dropped" [B] int32 counts those that were to be found, and training logs its
mean per picture: read the data with more rows (`max_objects` and the like) where it is not small.
`box_areas` move along with their rows: they stay areas in the picture an object comes from.
"""

import jax
import jax.numpy as jnp
from jax import random

from jaxcnn.core.batch import ENTRIES, IGNORED
from jaxcnn.data import geometry, matrix
from jaxcnn.data.augment.draws import uniform
from jaxcnn.data.geometry import Batch
from jaxcnn.data.labels import box_area, still_there
from jaxcnn.errors import ConfigError

# what says something of a whole picture, or of places that are not cut here
REFUSED = ("label", "labels", "values", "value_map", "points", "polygons", "text", "captions")


def multi_scale(
    key: jax.Array,
    batch: Batch,
    *,
    factor: tuple[float, float] = (0.5, 2.0),
    fill: float = 0.5,
    segmentation_fill: int = IGNORED,
    min_visible: float = 0.25,
) -> Batch:
    """Magnify by a factor uniform in `factor` (smoothed where it shrinks) at unchanged image size:
    what is larger is cut at a uniform place, what is smaller lies at one amid `fill`.

    "Large-scale jittering" of G. Ghiasi et al., "Simple copy-paste is a strong data augmentation
    method for instance segmentation" (2021), section 3, with (0.1, 2). Each example has its own
    scale; a size of the whole batch that changes would be compiled anew each time.
    """
    count, height, width = batch["image"].shape[:3]
    factor_key, y_key, x_key = random.split(key, 3)
    scale = uniform(factor_key, count, *factor)
    offset = tuple(
        (1 - scale) * side * uniform(place_key, count, 0, 1)
        for place_key, side in ((y_key, height), (x_key, width))
    )
    return geometry.stretch(
        batch,
        matrix.scale_matrices((scale, scale), (offset[0], offset[1])),
        size=(height, width),
        fill=fill,
        segmentation_fill=segmentation_fill,
        min_visible=min_visible,
    )


def mosaic(
    key: jax.Array,
    batch: Batch,
    *,
    rate: float = 1.0,
    factor: tuple[float, float] = (0.5, 1.0),
    centre: tuple[float, float] = (0.25, 0.75),
    fill: float = 0.5,
    segmentation_fill: int = IGNORED,
    min_visible: float = 0.25,
) -> Batch:
    """With probability `rate`, four pictures as one: each example and the three rows before it meet
    with one corner at a point, and are cut at the borders of their quarters.

    A. Bochkovskiy et al., "YOLOv4: optimal speed and accuracy of object detection" (2020), section
    3.3.

    Args:
        factor: magnification of each picture, uniform. centre: the point, uniform between these
            shares of height and width, rounded to whole pixels. fill, segmentation_fill: what
            lies where a picture does not fill its quarter.
        min_visible: see `jaxcnn.data.labels.move_places`.
    Errors: ConfigError for a batch with labels that no picture of four can keep.
    """
    _refuse("mosaic", batch)
    count, height, width = batch["image"].shape[:3]
    rate_key, y_key, x_key, *factor_keys = random.split(key, 7)
    middle = [
        jnp.round(side * uniform(place_key, count, *centre))
        for place_key, side in ((y_key, height), (x_key, width))
    ]
    names = geometry.grid_names(batch)
    grids: Batch = {}
    objects: list[Batch] = []
    for corner, factor_key in enumerate(factor_keys):
        sides = (corner // 2, corner % 2)  # 1: below the point, to the right of it
        rows = {name: jnp.roll(x, corner, axis=0) for name, x in batch.items()}
        scale = uniform(factor_key, count, *factor)
        offset = [
            point if after else point - scale * side
            for point, after, side in zip(middle, sides, (height, width), strict=True)
        ]
        placed = geometry.stretch(
            {name: rows[name] for name in names},
            matrix.scale_matrices((scale, scale), (offset[0], offset[1])),
            size=(height, width),
            fill=fill,
            segmentation_fill=segmentation_fill,
        )
        low = [point if after else 0 * point for point, after in zip(middle, sides, strict=True)]
        high = [
            0 * point + side if after else point
            for point, after, side in zip(middle, sides, (height, width), strict=True)
        ]
        quarter = _inside(low, high, (height, width))
        for name, new in placed.items():
            if name == "instance_masks":
                rows[name] = new * quarter[:, None].astype(new.dtype)
            else:
                here = _like(quarter, new, name)
                grids[name] = jnp.where(here, new, grids.get(name, new))
        if "boxes" in batch:
            size = jnp.array((height, width) * 2, jnp.float32)[None]
            shift = jnp.stack(offset * 2, -1) / size
            whole = rows["boxes"] * scale[:, None, None] + shift[:, None]
            least = (jnp.stack(low * 2, -1) / size)[:, None]
            cut = jnp.clip(whole, least, (jnp.stack(high * 2, -1) / size)[:, None])
            rows |= still_there(rows, "boxes", box_area(cut), box_area(whole), min_visible)
            objects.append({**rows, "boxes": cut})
    new = {**batch, **grids, **_joined(batch, objects)}
    chosen = random.bernoulli(rate_key, rate, (count,))
    old = {**_with_masks(batch), "boxes_dropped": batch.get("boxes_dropped", 0)}
    return {
        name: jnp.where(chosen.reshape(-1, *[1] * (x.ndim - 1)), x, old[name])
        if name in (*names, *_row_names(new), "boxes_dropped")
        else x
        for name, x in new.items()
    }


def copy_paste(
    key: jax.Array, batch: Batch, *, rate: float = 0.5, min_visible: float = 0.25
) -> Batch:
    """Paste objects of the row before, each with probability `rate`, at their place into each
    picture; its own objects lose the pixels that are covered.

    G. Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance
    segmentation" (2021), section 3; flip and `multi_scale` before it, so that objects come in other
    places and sizes. An object that is partly covered gets the part of its box that holds the rest
    of it; `min_visible`: see `jaxcnn.data.labels.move_places`, as a share of its mask. Objects to
    be ignored are not pasted.
    Errors: ConfigError for a batch without boxes and instance masks, or with labels that it cannot
    keep.
    """
    _refuse("copy_paste", batch)
    if "boxes" not in batch or "instance_masks" not in batch:
        raise ConfigError(
            "copy_paste: the batch has no 'boxes' with 'instance_masks' (it has "
            f"{', '.join(sorted(batch))}); objects are cut along their masks"
        )
    own = _with_masks(batch)
    other = {name: jnp.roll(x, 1, axis=0) for name, x in own.items()}
    other.pop("boxes_dropped", None)  # what has no row is not pasted
    drawn = random.bernoulli(key, rate, own["boxes_mask"].shape) & (other["boxes_mask"] > 0)
    pasted = ((other["instance_masks"] > 0.5) & drawn[:, :, None, None]).any(1)
    new = dict(own)
    for name in geometry.grid_names(own):
        if name != "instance_masks":
            new[name] = jnp.where(_like(pasted, own[name], name), other[name], own[name])
    for name in ("boxes_mask", "boxes_ignored", "boxes_crowd"):
        if name in other:
            other[name] = other[name] * drawn.astype(other[name].dtype)
    before = own["instance_masks"].astype(jnp.float32)
    left = before * (~pasted)[:, None].astype(jnp.float32)
    area, rest = before.sum((2, 3)), left.sum((2, 3))
    box = own["boxes"].astype(jnp.float32)
    around = _boxes_around(left > 0.5)
    cut = jnp.concatenate(
        [jnp.maximum(box[..., :2], around[..., :2]), jnp.minimum(box[..., 2:], around[..., 2:])], -1
    )
    covered = (rest < area)[..., None]
    # an object without a mask cannot be seen to be covered
    masks = still_there(own, "boxes", jnp.where(area > 0, rest, 1.0), area, min_visible)
    mine = {
        **own,
        **masks,
        "boxes": jnp.where(covered, jnp.maximum(cut, 0.0), box),
        "instance_masks": left.astype(own["instance_masks"].dtype),
    }
    return {**new, **_joined(own, [mine, other])}


def _refuse(name, batch):
    if wrong := [entry for entry in REFUSED if entry in batch]:
        raise ConfigError(
            f"{name}: the batch has {', '.join(wrong)}, which a picture of several cannot keep; it "
            "is for boxes, instance masks and segmentation"
        )
    if "instance_masks" in batch and "boxes" not in batch:
        raise ConfigError(f"{name}: instance_masks without boxes; give both, a row for each object")


def _row_names(batch):
    """The entries with a row for each object."""
    return [n for n in batch if n in ENTRIES and ENTRIES[n].axes.split()[:1] == ["N"]]


def _with_masks(batch):
    """The batch, with a mask of its boxes."""
    if "boxes" not in batch:
        return batch
    return {"boxes_mask": jnp.ones(batch["boxes"].shape[:2], jnp.float32), **batch}


def _joined(batch, parts):
    """The objects of all parts, the largest N of them, and how many are left out. Parts are batches
    with rows [B, N, …]; {} where there are none.
    """
    if not parts:
        return {}
    count = batch["boxes"].shape[1]
    names = _row_names(parts[0])
    rows = {name: jnp.concatenate([part[name] for part in parts], axis=1) for name in names}
    wanted = rows["boxes_mask"] > 0
    there = wanted
    for name in ("boxes_ignored", "boxes_crowd"):
        if name in rows:
            there = there | (rows[name] > 0)
    size = box_area(rows["boxes"].astype(jnp.float32))
    rank = jnp.where(there, size + wanted.astype(jnp.float32), -1.0)
    order = jnp.argsort(-rank, axis=1, stable=True)[:, :count]
    kept = {}
    for name, x in rows.items():
        index = order.reshape(*order.shape, *[1] * (x.ndim - 2))
        exists = jnp.take_along_axis(there, order, 1).reshape(index.shape)
        taken = jnp.take_along_axis(x, index, axis=1)
        kept[name] = jnp.where(exists, taken, jnp.zeros_like(taken)).astype(
            batch[name].dtype if name in batch else x.dtype
        )
    dropped = wanted.sum(1, dtype=jnp.int32) - (kept["boxes_mask"] > 0).sum(1, dtype=jnp.int32)
    for part in parts:  # what an augmentation before this one had no row for is in the picture, too
        dropped = dropped + part.get("boxes_dropped", 0)
    return {**kept, "boxes_dropped": dropped}


def _inside(low, high, size):
    """Pixels between bounds [B] down and right, the last ones left out: [B, H, W] bool."""
    rows = jnp.arange(size[0], dtype=jnp.float32)[None, :, None]
    columns = jnp.arange(size[1], dtype=jnp.float32)[None, None, :]
    (top, left), (bottom, right) = ([x[:, None, None] for x in bound] for bound in (low, high))
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def _like(region, grid, name):
    """A region [B, H, W] to choose pixels of a grid. ConfigError where that has another size."""
    if grid.shape[1:3] != region.shape[1:]:
        raise ConfigError(
            f"{name} is {grid.shape[1]}x{grid.shape[2]}, the image {region.shape[1]}x"
            f"{region.shape[2]}: pictures are joined at one size; resize it"
        )
    return region.reshape(*region.shape, *[1] * (grid.ndim - 3))


def _boxes_around(masks):
    """(y0, x0, y1, x1) as shares around the pixels of masks [B, N, H, W] bool."""
    ends = []
    for axis in (3, 2):
        line = masks.any(axis)  # [B, N, H], then [B, N, W]
        length = line.shape[-1]
        first = jnp.argmax(line, axis=-1)
        last = length - jnp.argmax(line[..., ::-1], axis=-1)
        ends.append((first.astype(jnp.float32) / length, last.astype(jnp.float32) / length))
    (y0, y1), (x0, x1) = ends
    return jnp.stack([y0, x0, y1, x1], axis=-1)
