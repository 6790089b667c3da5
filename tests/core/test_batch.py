"""The table of entries: what a name means, and what breaks a row of the table."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.core import batch
from jaxcnn.errors import ConfigError, DataError


@pytest.mark.parametrize(
    "name, kind",
    [
        ("image", "image"),
        ("target", "image"),
        ("left_image", "image"),
        ("image_b", "image"),
        ("images", "numbers"),
        ("instance_masks", "mask"),
        ("segmentation", "classes"),
        ("points", "points"),
        ("noise", "numbers"),
    ],
)
def test_a_name_says_what_an_entry_is(name, kind):
    assert batch.kind(name) == kind


def test_bytes_are_scaled_by_name_alone():
    rows = {
        "image": jnp.full((1, 2, 2, 3), 255, jnp.uint8),
        "left_image": jnp.full((1, 2, 2), 51, jnp.uint8),
        "instance_masks": jnp.full((1, 1, 2, 2), 255, jnp.uint8),
        "counts": jnp.full((1, 2), 255, jnp.uint8),
    }
    out = batch.unit_interval(rows)
    assert [float(out[name].max()) for name in rows] == pytest.approx([1.0, 0.2, 1.0, 255.0])
    with pytest.raises(ConfigError, match=r"'photo'.*'photo_image'"):
        batch.unit_interval({"photo": rows["image"]})


def test_what_is_no_picture_stays_as_it_is():
    rows = {
        "image": jnp.full((1, 2, 2, 3), 2.0, jnp.float32),
        "photo": jnp.full((1, 2, 2, 3), 2.0, jnp.float32),  # no bytes
        "table": jnp.full((1, 2, 3), 255, jnp.uint8),  # too few axes for pictures
    }
    out = batch.unit_interval(rows)
    assert all(out[name] is rows[name] for name in rows)


GOOD = {
    "image": np.zeros((2, 4, 4, 3), np.uint8),
    "label": np.zeros(2, np.int32),
    "weight": np.full(2, 3.5, np.float32),
    "boxes": np.tile(np.float32([0, 0, 1, 1]), (2, 5, 1)),
    "segmentation": np.full((2, 4, 4), batch.IGNORED, np.int32),
    "points": np.zeros((2, 7, 2), np.float32),
    "original_size": np.ones((2, 2), np.int32),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_rows(name):
    batch.check_entry(name, GOOD[name])
    objects = np.zeros((2, 3, 7, 2), np.float32)
    batch.check_entry("points", objects)  # one axis more, where each object has its own
    batch.check_entry("anything", np.zeros((2, 3), "complex64"))  # a user's own


@pytest.mark.parametrize(
    "name, array, message",
    [
        ("image", np.zeros((2, 4, 4), np.uint8), r"shape \[2, 4, 4\]; it must be \[B, H, W, C\]"),
        ("image", np.full((2, 4, 4, 3), 2.0, np.float32), r"\[2, 2\]; .* lie in \[0, 1\]"),
        ("image", np.full((2, 4, 4, 3), np.nan, np.float32), "finite"),
        ("values", np.full((2, 1), np.inf, np.float32), "finite"),
        ("label", np.zeros(2, np.float32), "dtype float32; it must be int32"),
        ("label", np.full(2, -1, np.int32), r"\[-1, -1\]"),
        ("boxes", np.zeros((2, 5, 3), np.float32), r"it must be \[B, N, 4\]"),
        ("segmentation", np.full((2, 4, 4), 256, np.int32), r"\[0, 255\]"),
        ("weight", np.full(2, -0.5, np.float32), r"\[0, inf\]"),
        # of several values one
        ("boxes", np.float32([[[-0.5, 0, 0, 1]]]), r"\[-0.5, 1\]"),
        ("boxes", np.float32([[[0.5, 0.5, 1.5, 1]]]), r"\[0.5, 1.5\]"),
        ("values", np.float32([[-np.inf], [1]]), "finite"),
        ("values", np.float32([[1], [np.inf]]), "finite"),
        ("original_size", np.ones((2, 3), np.int32), r"it must be \[B, 2\]"),
    ],
)
def test_rows_that_break_the_table_are_refused(name, array, message):
    with pytest.raises(DataError, match=f"^here: '{name}' .*{message}"):
        batch.check_entry(name, array, where="here")
    with pytest.raises(DataError, match=f"^'{name}' .*{message}"):
        batch.check_entry(name, array)


def test_no_rows_and_bytes_have_no_bounds_to_break():
    batch.check_entry("label", np.zeros(0, np.int32))
    batch.check_entry("instance_masks", np.full((1, 2, 4, 4), 255, np.uint8))


# by what the names mean: shares, flags and pixels; numbers of things; anything
SHARES = (
    *("image", "target", "clip", "mask", "label_weight", "labels", "labels_mask", "values_mask"),
    *("value_map_mask", "boxes", "boxes_mask", "boxes_ignored", "boxes_crowd", "instance_masks"),
    *("points_mask", "polygons_mask", "polygons_ignored"),
)
COUNTS = (
    *("weight", "label", "label_b", "box_labels", "box_areas", "boxes_dropped", "text"),
    "captions",
)
ANYTHING = ("signal", "values", "value_map", "points", "polygons")
BOUNDS = {
    **dict.fromkeys(SHARES, (0, 1)),
    **dict.fromkeys(COUNTS, (0, np.inf)),
    **dict.fromkeys(ANYTHING, (-np.inf, np.inf)),
    "original_size": (1, np.inf),
    "segmentation": (0, 255),
}


def rows_of(name: str, value: float) -> np.ndarray:
    entry = batch.ENTRIES[name]
    dtype = entry.dtypes[-1]  # float32 before uint8, which has no bounds to break
    sizes = [int(axis) if axis.isdigit() else 2 for axis in entry.axes.split() if axis != "..."]
    return np.full((1, *sizes), value, dtype)


@pytest.mark.parametrize("name", batch.ENTRIES)
def test_the_bounds_of_each_entry(name):
    low, high = BOUNDS[name]
    whole = batch.ENTRIES[name].dtypes == ("int32",)
    beyond = 1 if whole else 1e-3
    for inside in (max(low, -1e6), min(high, 1e6)):
        batch.check_entry(name, rows_of(name, inside))
    for outside in (low - beyond, high + beyond):
        if np.isfinite(outside):
            with pytest.raises(DataError, match="lie in"):
                batch.check_entry(name, rows_of(name, outside))


@pytest.mark.parametrize("name", batch.ENTRIES)
def test_no_axis_more_or_less_than_the_table_says(name):
    rows = rows_of(name, 1)
    batch.check_entry(name, rows)
    if name not in ("points", "points_mask"):  # of which objects may have their own
        with pytest.raises(DataError, match="shape"):
            batch.check_entry(name, rows[:, None])
    if rows.ndim > 1:
        with pytest.raises(DataError, match="shape"):
            batch.check_entry(name, rows[:, 0])


KINDS = {
    "image": ("image", "target"),
    "clip": ("clip",),
    "mask": ("instance_masks", "value_map_mask"),
    "classes": ("segmentation",),
    "boxes": ("boxes",),
    "points": ("points",),
    "polygons": ("polygons",),
}
# rows and places that are not used: of objects, points, letters, and rows of the batch
PADDED = {
    *("mask", "boxes", "boxes_mask", "box_labels", "boxes_ignored", "boxes_crowd", "box_areas"),
    *("instance_masks", "segmentation", "points", "points_mask", "polygons", "polygons_mask"),
    *("polygons_ignored", "text", "captions"),
}
IGNORING = {
    *("weight", "labels_mask", "values_mask", "value_map_mask", "points_mask", "segmentation"),
    *("boxes_ignored", "boxes_crowd", "polygons_ignored"),
}


def test_the_kind_and_the_padding_of_each_entry():
    moved = {name: kind for kind, names in KINDS.items() for name in names}
    assert {n: e.kind for n, e in batch.ENTRIES.items()} == {
        name: moved.get(name, "numbers") for name in batch.ENTRIES
    }
    assert {name for name, entry in batch.ENTRIES.items() if entry.padding} == PADDED
    assert {name for name, entry in batch.ENTRIES.items() if entry.ignored} == IGNORING
