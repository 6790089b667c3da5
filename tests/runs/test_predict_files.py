"""Predictions of files: each answered by itself, none held, each drawn under its own name."""

import weakref

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DataError, ResourceError
from jaxcnn.runs import predict
from jaxcnn.runs.train import train
from tests.tiny import tiny


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    return train(tiny(steps=2), folder / "run", quiet=True).predictor(batch_size=4)


def pictures(folder, count, *, damaged=()):
    folder.mkdir()
    for i in range(count):
        path = folder / f"{i:02}.png"
        Image.fromarray(np.full((20, 30), 8 * i, np.uint8)).save(path)
        if i in damaged:
            path.write_bytes(path.read_bytes()[:40])
    return sorted(folder.iterdir())


@pytest.mark.parametrize("channels, wrong", [(1, False), (3, False), (2, True), (4, True)])
def test_pictures_are_grey_or_in_colour(channels, wrong):
    rows = {"image": np.zeros((4, 8, 8, channels), np.uint8), "label": np.zeros(4, np.int32)}
    e = tiny(data=Arrays(train=rows, eval=rows))
    if wrong:
        with pytest.raises(ConfigError, match="pictures will not do"):
            predict.picture_of(e)
    else:
        assert predict.picture_of(e) == ("image", (8, 8), channels)


@pytest.mark.parametrize("damaged", [(), (0,), (3, 4), (0, 1, 2, 3), (8,), range(9)])
def test_a_damaged_picture_costs_its_own_answer_alone(predictor, tmp_path, damaged):
    paths = pictures(tmp_path / "in", 9, damaged=damaged)
    rows = [row for row, _ in predictor.files(paths)]
    assert [row["path"] for row in rows] == list(map(str, paths))
    assert [i for i, row in enumerate(rows) if "error" in row] == list(damaged)
    alone = [next(iter(predictor.files([path])))[0] for path in paths]
    assert [row.get("label") for row in rows] == [row.get("label") for row in alone]


def test_a_picture_is_known_by_its_content_not_by_its_ending(predictor, tmp_path):
    """Named, it is answered, whatever it is called; of a folder only endings of pictures are."""
    (path,) = pictures(tmp_path / "in", 1)
    page = path.rename(path.with_name("x.html"))
    same = tmp_path / "in/same.png"
    same.write_bytes(page.read_bytes())
    text = tmp_path / "in/text.html"
    text.write_text("<!doctype html><p>no picture")
    assert predict.find_images([tmp_path / "in"]) == [same]
    first, second, third = (
        row for row, _ in predictor.files(predict.find_images([page, same, text]))
    )
    assert first["path"] == str(page)
    assert first["top"] == second["top"]
    assert "text.html: cannot be read as an image" in third["error"]


def test_pictures_are_not_held(predictor, tmp_path, monkeypatch):
    """However many there are: of no more than two batches at once, and none in its own size."""
    held, most, sizes = weakref.WeakSet(), [], set()
    read = predict.read_image

    class Held(np.ndarray):
        __hash__ = object.__hash__

    def watched(path, *, size, channels):
        picture = read(path, size=size, channels=channels).view(Held)
        held.add(picture)
        most.append(len(held))
        sizes.add(size)
        return picture

    monkeypatch.setattr(predict, "read_image", watched)
    count = sum("label" in row for row, _ in predictor.files(pictures(tmp_path / "in", 30)))
    assert count == len(most) == 30
    assert max(most) <= 8
    assert sizes == {(8, 8)}


def test_a_drawing_reads_the_picture_in_its_own_size(predictor, tmp_path):
    ((row, pixels),) = predictor.files(pictures(tmp_path / "in", 1))
    assert pixels().shape == (20, 30, 1)
    out = predict.draw_row(row | {"text": "a"}, pixels, tmp_path / "out", taken=set())
    assert out["image"].endswith("00.png")
    assert "drawing" in out


NAMES = [
    ["a/x.png", "b/x.png", "c/x.jpg"],
    ["a/x.png", "b/x.png", "a/x_1.png", "b/x_1.png"],
    ["a/x_1.png", "a/x.png", "b/x.png"],
    ["a/x.png", "a/X.png", "a/X.PNG"],
    ["a/stra\u00dfe.png", "a/STRASSE.png"],
    ["a/\u00e9.png", "a/e\u0301.png", "a/\u00c9.png"],
    ["", "", ""],
    ["a/.png", "b/.png"],
]


@pytest.mark.parametrize("paths", NAMES)
def test_every_drawing_has_a_name_of_its_own_on_every_file_system(tmp_path, paths):
    import unicodedata

    taken = set()
    rows = [
        predict.draw_row(
            {"path": path, "text": "t"},
            lambda: np.zeros((4, 4, 1), np.uint8),
            tmp_path,
            taken=taken,
        )
        for path in paths
    ]
    names = [unicodedata.normalize("NFD", row["drawing"]).upper().lower() for row in rows]
    assert len(set(names)) == len(paths)
    assert len(list(tmp_path.iterdir())) == len(paths)


def test_a_drawing_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot be written.*--out"):
        predict.draw_row(
            {"path": "x.png", "text": "t"},
            lambda: np.zeros((4, 4, 1), np.uint8),
            tmp_path / "file/in it",
            taken=set(),
        )


def test_what_counts_as_a_picture_of_a_folder(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.webp", ".ipynb_checkpoints/b.png", "._b.png", "t.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = [p.relative_to(tmp_path).as_posix() for p in predict.find_images([tmp_path])]
    assert found == ["a.JPG", "b.png", "sub/c.webp"]
    assert predict.find_images([tmp_path / "._b.png"]) == [tmp_path / "._b.png"]
    with pytest.raises(DataError, match="no pictures"):
        predict.find_images([tmp_path / "folder.png"])


def test_a_drawing_of_another_command_names_its_own_option(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"choose another place by --output$"):
        predict.save(lambda: None, tmp_path / "file/a.png", option="--output")
