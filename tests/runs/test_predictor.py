"""What a model is given of pictures and arrays, and where drawings go; the model made by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn.errors import ConfigError, DataError
from jaxcnn.runs import predict
from jaxcnn.runs.predict import Predictor, draw_row, find_images, inputs_of, picture_of, place_for


def task_of(inputs=("image",), training_inputs=(), any_size=False):
    return SimpleNamespace(
        inputs=inputs,
        training_inputs=training_inputs,
        any_size=any_size,
        describe=lambda row, *, names: {"row": row, "names": names},
    )


def experiment(task=None, **spec):
    spec = {"image": ((2, 3, 1), np.uint8)} | spec
    shapes = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in spec.items()}
    data = SimpleNamespace(label_names=["a", "b"], spec=lambda: shapes)
    return SimpleNamespace(task=task or task_of(), data=data)


@pytest.fixture
def predictor(monkeypatch):
    """Makes predictors that answer each row with what the model was given of it."""

    def make(e, batch_size=4, tta=None):
        given = []

        def predict_step(e, state, *, tta):
            def step(state, batch):
                assert state == "state"
                given.append(batch)
                return {**batch, "tta": np.full(len(next(iter(batch.values()))), tta or "none")}

            return step

        monkeypatch.setattr(predict, "predict_step", predict_step)
        return Predictor(e, "state", batch_size=batch_size, tta=tta), given

    return make


def numbered(count, shape=(2, 3, 1), dtype=np.uint8):
    return np.arange(count, dtype=dtype).reshape(-1, *(1 for _ in shape)) * np.ones(
        (1, *shape), dtype
    )


@pytest.mark.parametrize("count, sizes", [(0, []), (1, [4]), (4, [4]), (9, [4, 4, 4])])
def test_rows_are_answered_in_their_order_in_batches_of_one_size(predictor, count, sizes):
    one, given = predictor(experiment(), tta="mirror")
    found = list(one.arrays({"image": numbered(count)}))
    assert [row["row"]["image"][0, 0, 0] for row, _ in found] == list(range(count))
    assert [pixels()[1, 2, 0] for _, pixels in found] == list(range(count))
    assert all(row["names"] == ("a", "b") for row, _ in found)
    assert all(row["row"]["tta"] == "mirror" for row, _ in found)
    assert [len(batch["image"]) for batch in given] == sizes
    for batch in given[-1:]:  # what is too much is the last row again
        filled = batch["image"][(count - 1) % 4 :]
        assert (filled == filled[0]).all()


def test_rows_of_any_size_are_not_padded_and_may_have_one(predictor):
    e = experiment(task_of(any_size=True))
    one, given = predictor(e)
    assert len(list(one.arrays({"image": numbered(3, (5, 7, 1))}))) == 3
    assert [batch["image"].shape for batch in given] == [(3, 5, 7, 1)]
    with pytest.raises(DataError, match=r"image has shape \[3, 5, 7\]"):
        list(one.arrays({"image": numbered(3, (5, 7))}))


def test_what_training_alone_knows_is_zeros(predictor):
    e = experiment(task_of(("image", "truth"), ("truth",)), truth=((2,), np.float32))
    assert inputs_of(e) == ("image",)
    one, given = predictor(e)
    assert one.names == ("image",)
    list(one.arrays({"image": numbered(1)}))
    assert given[0]["truth"].dtype == np.float32
    np.testing.assert_array_equal(given[0]["truth"], np.zeros((4, 2)))


@pytest.mark.parametrize(
    "inputs, says",
    [
        ({"image": 3}, "this model takes image, other: other is missing"),
        ({}, "image, other is missing"),
        ({"image": 3, "other": 3, "more": 3}, "this model takes image, other, not more"),
        ({"image": 3, "other": 4}, r"inputs of \[3, 4\] rows: must be as many"),
    ],
)
def test_inputs_are_those_of_the_model_with_as_many_rows(predictor, inputs, says):
    e = experiment(task_of(("image", "other")), other=((2, 3, 1), np.uint8))
    one, _ = predictor(e)
    with pytest.raises(ConfigError, match=says):
        list(one.arrays({name: numbered(count) for name, count in inputs.items()}))
    both = {"other": numbered(3), "image": numbered(3) + 5}
    assert [pixels()[0, 0, 0] for _, pixels in one.arrays(both)] == [5, 6, 7]  # of the first input


@pytest.mark.parametrize(
    "dtype, given, seen",
    [
        (np.uint8, np.uint8([0, 255]), np.uint8([0, 255])),
        (np.uint8, np.float32([0, 0.2, 0.498, 1]), np.uint8([0, 51, 127, 255])),
        (np.uint8, np.float64([0.001, 0.003]), np.uint8([0, 1])),  # to the nearest
        (np.uint8, np.int64([0, 255]), np.uint8([0, 255])),
        (np.uint8, np.float32([]), np.uint8([])),
        (np.float32, np.uint8([0, 51, 255]), np.float32([0, 0.2, 1])),
        (np.float32, np.float64([-3.5, 300]), np.float32([-3.5, 300])),
        (np.float32, np.int32([-3, 300]), np.float32([-3, 300])),
        (np.int32, np.int64([-3, 300]), np.int32([-3, 300])),
        (np.int32, np.float32([-3, 300]), np.int32([-3, 300])),
        (np.int32, np.uint8([3]), np.int32([3])),
    ],
    ids=str,
)
def test_inputs_have_the_type_and_scale_of_training(predictor, dtype, given, seen):
    one, _ = predictor(experiment(x=((), dtype)))
    found = one._canonical("x", given)
    assert found.dtype == seen.dtype
    np.testing.assert_array_equal(found, seen)


@pytest.mark.parametrize(
    "dtype, given, says",
    [
        (np.uint8, np.float32([0, 1.5]), r"x is float32 with values in \[0, 1.5\]; floats lie"),
        (np.uint8, np.float32([-0.5, 0.5]), r"\[-0.5, 0.5\]; floats lie in \[0, 1\]"),
        (np.uint8, np.float32([0.5, np.nan]), "floats lie"),
        (np.uint8, np.int32([0, 256]), r"x is int32 .*\[0, 256\]; .*uint8, which cannot hold"),
        (np.int32, np.float32([0.5]), "int32, which cannot hold them"),
        (np.int32, np.int64([2**40]), "int32, which cannot hold them"),
        (np.float32, np.zeros((2, 3)), r"x has shape \[2, 3\]; this run was trained on \[N, \]"),
    ],
    ids=str,
)
def test_what_training_could_not_have_held_is_refused(predictor, dtype, given, says):
    one, _ = predictor(experiment(x=((), dtype)))
    with pytest.raises(DataError, match=says):
        one._canonical("x", given)


@pytest.mark.parametrize("any_size", [False, True])
def test_pictures_of_files_are_answered_with_their_pixels(predictor, tmp_path, any_size):
    task = task_of(any_size=any_size)
    one, given = predictor(experiment(task, image=((4, 6, 3), np.uint8)))
    for i in range(5):
        picture = np.full((8 + i, 12, 3), 10 * i, np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    assert one.picture == ("image", None if any_size else (4, 6), 3)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    found = list(one.files(paths))
    assert [row["path"] for row, _ in found] == list(map(str, paths))
    assert "1.png" in found[1][0]["error"]
    for i in (0, 2, 3, 4):
        row, pixels = found[i]
        assert pixels().shape == (8 + i, 12, 3)  # in its own size
        assert (row["row"]["image"] == 10 * i).all()
        assert row["row"]["image"].shape == ((8 + i, 12, 3) if any_size else (4, 6, 3))
    assert [len(batch["image"]) for batch in given] == ([1] * 4 if any_size else [4, 4])


@pytest.mark.parametrize(
    "shape, good",
    [
        *(((4, 6, 1), True), ((4, 6, 3), True), ((4, 6, 2), False), ((4, 6, 4), False)),
        *(((4, 6), False), ((4, 6, 1, 1), False), ((3, 1, 6), False), ((4, 6, 0), False)),
    ],
    ids=str,
)
def test_a_picture_has_one_or_three_channels(shape, good):
    e = experiment(image=(shape, np.uint8))
    if good:
        assert picture_of(e) == ("image", (4, 6), shape[-1])
    else:
        with pytest.raises(ConfigError, match="pictures will not do: this model takes image, ima"):
            picture_of(e)
    two = experiment(task_of(("image", "other")), image=(shape, np.uint8), other=((2,), np.uint8))
    with pytest.raises(ConfigError, match="this model takes image, other"):
        picture_of(two)


def test_arrays_mappings_and_paths_are_told_apart(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    calls = []

    class Told:
        names = ("first", "second")

        def arrays(self, inputs):
            calls.append({name: type(array) for name, array in inputs.items()})
            yield "row", None

        def files(self, paths):
            calls.append(paths)
            yield "row", None

    array = np.zeros(3)
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    for inputs, call in (
        (array, {"first": np.ndarray}),
        (jnp.zeros(3), {"first": np.ndarray}),
        ({"second": array}, {"second": np.ndarray}),
        (str(a), [a]),
        (a, [a]),
        ([a, str(b)], [a, b]),
        ((path for path in (b, a)), [b, a]),
        (tmp_path, [a, b]),
    ):
        assert predict.predict(Told(), inputs) == ["row"]
        assert calls.pop() == call


def test_patterns_stand_for_files_unless_a_file_is_called_so(tmp_path):
    for name in ("a.png", "b.txt", "sub/c.png", "x[1].png", "x1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern):
        return [p.relative_to(tmp_path).as_posix() for p in find_images([tmp_path / pattern])]

    assert found("**/*.png") == ["a.png", "sub/c.png", "x1.png", "x[1].png"]
    assert found("?.*") == ["a.png", "b.txt"]
    assert found("x[1].png") == ["x[1].png"]
    assert found("x[12].png") == ["x1.png"]
    assert found("gone.png") == ["gone.png"]  # of which its reader will say that it is gone
    with pytest.raises(DataError, match=r"y\*: matches no file"):
        found("y*")


def test_drawings_are_numbered_where_their_names_are_given_away(tmp_path):
    taken = set()
    names = [place_for(tmp_path, stem, taken=taken) for stem in ("a", "a", "A", "b", "a_1")]
    assert [path.name for path in names] == ["a.png", "a_1.png", "A_2.png", "b.png", "a_1_1.png"]
    assert {path.parent for path in names} == {tmp_path}


def test_a_row_is_drawn_where_there_is_something_to_draw(tmp_path):
    def pixels():
        return np.full((6, 8, 1), 100, np.uint8)

    plain = {"path": "in/a.png", "top": []}
    out = draw_row(plain, pixels, tmp_path / "x", taken=set())
    assert out == {"image": "in/a.png", "top": []}
    assert not (tmp_path / "x").exists()
    taken = set()
    for name in ("a.png", "a_1.png"):
        row = {"path": "in/a.png", "text": "t", "label": 1}
        out = draw_row(row, pixels, tmp_path / "x" / "y", taken=taken)
        place = tmp_path / "x" / "y" / name
        assert out == {"image": "in/a.png", "text": "t", "label": 1, "drawing": str(place)}
        with Image.open(place) as drawing:
            assert drawing.size[0] >= 8
    shown = draw_row({"image": pixels()}, pixels, tmp_path, taken=set())
    assert shown == {"image": "", "drawing": str(tmp_path / "image.png")}
