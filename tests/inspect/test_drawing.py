"""Drawings: what is described lies where it should, in its own colour, and nowhere else."""

import numpy as np
import pytest

from jaxcnn.inspect import heatmap
from jaxcnn.inspect.drawing import color_of, draw, to_image
from jaxcnn.ops import masks
from jaxcnn.runs.answers import as_json, sentence

GREY = np.full((300, 400, 3), 128, np.uint8)


def changed(described, pixels=GREY):
    """Where the drawing differs from the picture. [H, W] bool"""
    return (np.asarray(draw(pixels, described)) != pixels).any(-1)


def test_a_box_is_drawn_on_its_edges():
    where = changed({"objects": [{"label": 3, "box": [0.5, 0.25, 0.75, 0.5]}]})
    rows, columns = np.nonzero(where)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (150, 224, 100, 199)
    assert not where[155:220, 105:195].any()
    assert tuple(
        np.asarray(draw(GREY, {"objects": [{"label": 3, "box": [0.5, 0.25, 0.75, 0.5]}]}))[150, 150]
    ) == color_of(3)


def test_boxes_beyond_the_picture_and_upside_down_do_no_harm():
    for box in (
        [-1.0, -1.0, 2.0, 2.0],
        [0.9, 0.9, 0.1, 0.1],
        [0.0, 0.0, 0.0, 0.0],
        [0.99, 0.99, 1.0, 1.0],
    ):
        assert draw(
            GREY,
            {
                "objects": [
                    {"label": 0, "name": "a very long name of a thing", "score": 0.5, "box": box}
                ]
            },
        ).size == (400, 300)


def test_masks_and_segments_tint_their_pixels_alone():
    mask = np.zeros((30, 40), bool)
    mask[10:20, 5:15] = True
    large = np.kron(mask, np.ones((10, 10), bool))
    np.testing.assert_array_equal(changed({"objects": [{"label": 1, "mask": mask}]}), large)
    np.testing.assert_array_equal(changed({"segmentation": 2 * mask.astype(int)}), large)


def test_points_and_their_edges():
    where = changed({"points": [[0.5, 0.25, 1.0], [0.5, 0.75, 1.0]], "edges": [[0, 1]]})
    assert where[150, 100:301].all()
    assert not where[:140].any()
    assert not where[160:].any()


@pytest.mark.parametrize("shape", [(1, 400), (400, 1), (3, 5000), (16, 16)])
def test_a_strip_is_enlarged_as_far_as_memory_allows(shape):
    """By the side that is shorter alone, 1 x 400 pixels would become 26 million."""
    height, width = shape
    pixels = np.zeros((*shape, 1), np.uint8)
    for drawn in (draw(pixels, {}), heatmap.overlay(pixels, np.ones(shape))):
        factor = drawn.width // width
        assert drawn.size == (factor * width, factor * height)
        assert max(drawn.size) <= max(4096, *shape)
        larger = (factor + 1) * max(shape) > 4096
        assert larger or min(drawn.size) >= 256


def test_text_stands_below_and_small_pictures_are_enlarged():
    small = np.zeros((28, 28, 1), np.uint8)
    out = draw(small, {"text": "seven " * 40})
    assert out.width == 280
    assert out.height > 280 + 60
    assert np.asarray(out)[:280].max() == 0
    assert draw(small, {"text": ""}).height > 280


def test_a_made_picture_is_handed_through():
    made = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(draw(GREY, {"image": made})), made)
    assert to_image(made[..., :1]).mode == "L"


def test_rows_as_json():
    mask = np.zeros((6, 5), bool)
    mask[1:3, 2:4] = True
    row = as_json(
        {
            "objects": [{"mask": mask, "box": np.array([0.5, 0.25, 1, 1], np.float32)}],
            "segmentation": mask.astype(np.int32),
            "n": 1,
        }
    )
    np.testing.assert_array_equal(masks.decode(row["objects"][0]["mask"]), mask)
    assert row["objects"][0]["box"] == [0.5, 0.25, 1, 1]
    assert row["segmentation"] == {"0": pytest.approx(26 / 30), "1": pytest.approx(4 / 30)}
    assert (
        sentence({"segmentation": row["segmentation"], "segment_names": ["ground", "thing"]})
        == "ground 86.7%, thing 13.3%"
    )
    assert sentence({"objects": []}) == "nothing found"
