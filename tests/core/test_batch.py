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
    ],
)
def test_rows_that_break_the_table_are_refused(name, array, message):
    with pytest.raises(DataError, match=message):
        batch.check_entry(name, array, where="here")
