"""The contact sheet: what of a batch is drawn, and where."""

import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.inspect.contact_sheet import GAP, TILE, contact_sheet, described, pictures

NAMES = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    "entry, expected",
    [
        ({"label": np.int32(1)}, {"text": "bee"}),
        (
            {"label": np.int32(1), "label_b": np.int32(2), "label_weight": np.float32(0.75)},
            {"text": "75% bee + 25% cat"},
        ),
        ({"labels": np.float32([1, 0, 1])}, {"text": "ant, cat"}),
        ({"values": np.float32([0.5, 2])}, {"text": "0.5, 2"}),
        ({"text": np.int32([3, 1, 0])}, {"text": "catant"}),
        (
            {
                "boxes": np.float32([[0, 0, 0.5, 1], [0, 0, 1, 1], [0, 0, 0, 0]]),
                "boxes_mask": np.float32([1, 0, 0]),
                "boxes_ignored": np.float32([0, 1, 0]),
                "box_labels": np.int32([2, 0, 0]),
            },
            {
                "objects": [
                    {"box": [0, 0, 0.5, 1], "label": 2, "name": "cat"},
                    {"box": [0, 0, 1, 1], "label": 0, "name": "ignored ant"},
                ]
            },
        ),
        (
            {
                "polygons": np.float32([[[0, 0], [0, 1], [1, 1]]]),
                "polygons_mask": np.float32([1]),
            },
            {"objects": [{"polygon": [[0, 0], [0, 1], [1, 1]]}]},
        ),
        (
            {"points": np.float32([[0.5, 0.25], [0, 0]]), "points_mask": np.float32([1, 0])},
            {"points": [(0.5, 0.25, 1.0)]},
        ),
        ({"weight": np.float32(2)}, {}),
    ],
)
def test_labels_in_words_and_places(entry, expected):
    batch = {name: np.asarray(x)[None] for name, x in entry.items()}
    assert described(batch, 0, names=NAMES) == expected


def test_pictures_of_any_range_and_number_of_channels():
    image = np.random.default_rng(0).random((2, 4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(pictures({"image": image}), np.round(255 * image))
    stretched = pictures({"image": 6 * image - 2})
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert pictures({"image": np.zeros((2, 4, 5, 7), np.float32)}).shape == (2, 4, 5, 1)
    clip = np.zeros((2, 3, 4, 5, 1), np.float32)
    clip[:, 1] = 1
    assert pictures({"image": clip}).min() == 255
    with pytest.raises(ConfigError, match="no pictures"):
        pictures({"text": np.zeros((2, 4), np.int32)})


def test_each_picture_lies_in_its_cell():
    colors = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]])
    image = np.broadcast_to(colors[:, None, None], (5, 8, 8, 3))
    sheet = np.asarray(contact_sheet({"image": image}, columns=2, most=4))
    assert sheet.shape == (2 * TILE + 3 * GAP, 2 * TILE + 3 * GAP, 3)
    for i, color in enumerate(colors[:4]):
        y, x = (GAP + TILE // 2 + (TILE + GAP) * k for k in divmod(i, 2))
        np.testing.assert_array_equal(sheet[y, x], 255 * color)
