"""Labels of YOLO with keypoints: the box is read, wherever data.yaml says that they follow it."""

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.files.yolo import Yolo
from jaxcnn.errors import DataError

HEIGHT, WIDTH = 40, 20
BOX, SECOND = "0 0.5 0.5 0.3 0.2", "1 0.25 0.5 0.5 1"
POINTS = " 0.4 0.45 2 0.6 0.55 1"  # two of x y visibility: ten numbers, as a polygon may have


def folder(path, lines, yaml):
    (path / "images").mkdir()
    (path / "labels").mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path / "images/a.png")
    (path / "labels/a.txt").write_text("\n".join(lines))
    (path / "data.yaml").write_bytes(f"names: [cat, dog]\n{yaml}".encode())
    return Yolo(str(path), image_size=(HEIGHT, WIDTH), eval_fraction=0.0)


@pytest.mark.parametrize(
    "points, shape",
    [(POINTS, "[2, 3]"), (" 0.4 0.45 0.6 0.55", "[2, 2]  # x y"), (" 0.4 0.45 0", "[1,3]")],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_boxes_before_keypoints_are_those_without_them(tmp_path, points, shape, end):
    data = folder(tmp_path, [BOX + points, SECOND + points], f"kpt_shape: {shape}{end}nc: 2{end}")
    with pytest.warns(UserWarning, match="keypoints are not read"):
        rows = data.open("train").take(np.arange(1))
    assert rows["boxes_mask"].tolist() == [[1, 1]]
    np.testing.assert_allclose(rows["boxes"][0], [[0.4, 0.35, 0.6, 0.65], [0, 0, 1, 0.5]])


def test_lines_of_another_form_than_data_yaml_says_are_refused(tmp_path):
    data = folder(tmp_path, [BOX + POINTS, BOX, SECOND + " 0.1 0.2 0.3 0.4"], "kpt_shape: [2, 3]\n")
    with pytest.raises(DataError, match=r"line 3.*kpt_shape \(2, 3\)"):
        data.size("train")


def test_what_may_be_keypoints_or_a_polygon_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"line 1.*kpt_shape: \[count, 3\]"):
        folder(tmp_path, [BOX + POINTS], "").size("train")


@pytest.mark.parametrize("shape", ["17", "[17]", "[17, 4]", "[-1, 2]", ""])
def test_a_shape_that_is_none_is_refused(tmp_path, shape):
    with pytest.raises(DataError, match=r"data\.yaml.*kpt_shape: \[count, 2 or 3\]"):
        folder(tmp_path, [BOX], f"kpt_shape: {shape}\n").size("train")


def test_names_in_a_block_of_lines_that_end_as_on_windows(tmp_path):
    data = folder(tmp_path, [BOX], "")
    (tmp_path / "data.yaml").write_bytes(b"train: x\r\nnames:\r\n  - cat\r\n  - dog\r\nnc: 2\r\n")
    assert data.label_names == ("cat", "dog")
