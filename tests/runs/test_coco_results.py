"""Answers: COCO results are in pixels of the picture, whatever size the model sees; classes have
their names.
"""

import numpy as np
import pytest

from jaxcnn.ops import masks
from jaxcnn.runs.answers import class_name, to_coco


@pytest.mark.parametrize("size", [(16, 24), (40, 18), (8, 12)], ids=str)
def test_boxes_and_masks_have_the_size_of_the_picture(size):
    seen = np.zeros((8, 12), bool)  # as the model drew it: the lower right quarter
    seen[4:, 6:] = True
    row = {
        "path": "a.png",
        "objects": [
            {"label": 2, "name": "dog", "score": 0.5, "box": [0.5, 0.5, 1, 1], "mask": seen}
        ],
    }
    [result] = to_coco(row, size, 7)
    height, width = size
    assert result["bbox"] == [width / 2, height / 2, width / 2, height / 2]
    assert (result["image_id"], result["category_id"]) == (7, 3)
    assert result["segmentation"]["size"] == [height, width]
    expected = np.zeros(size, bool)
    expected[height // 2 :, width // 2 :] = True
    np.testing.assert_array_equal(masks.decode(result["segmentation"]), expected)


@pytest.mark.parametrize(
    "label, count, name",
    [
        (0, None, "cat"),
        (1, 2, "dog"),
        (2, 2, "2"),
        (-1, 2, "-1"),
        (0, 3, "background"),
        (2, 3, "dog"),
        (0, 1, "cat"),
    ],
)
def test_a_class_has_its_name_and_one_more_is_the_background(label, count, name):
    assert class_name(label, names=("cat", "dog"), count=count) == name
    assert class_name(label, names=(), count=count) == str(label)
