"""Time series: the .ts format, normalization, errors; aeon's own reader where aeon is installed."""

import zipfile

import numpy as np
import pytest

from jaxcnn.data.files.series import Series, normalized, parse_ts
from jaxcnn.errors import DataError

HEADER = (
    "#A comment\n@problemName Toy\n@timeStamps false\n@univariate {univariate}\n@equalLength "
    "true\n@classLabel true up down\n@data\n"
)
TRAIN = HEADER.format(univariate="true") + "1,2,3:up\n3.0,2.5,-1e0:down\n\n0,0,6:up\n"
TEST = HEADER.format(univariate="true") + "5,5,5:down\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Toy").mkdir()
    (tmp_path / "Toy" / "Toy_TRAIN.ts").write_text(TRAIN)
    (tmp_path / "Toy" / "Toy_TEST.ts").write_text(TEST)
    return tmp_path


def test_univariate():
    names, signal, label = parse_ts(TRAIN, where="here")
    assert names == ("up", "down")
    np.testing.assert_array_equal(signal[..., 0], [[1, 2, 3], [3, 2.5, -1], [0, 0, 6]])
    np.testing.assert_array_equal(label, [0, 1, 0])


def test_several_dimensions_are_channels():
    _, signal, _ = parse_ts(HEADER.format(univariate="false") + "1,2,3:4,5,6:up\n", where="here")
    np.testing.assert_array_equal(signal, [[[1, 4], [2, 5], [3, 6]]])


def test_normalization():
    signal = np.random.default_rng(0).normal(3, 5, (4, 50, 2))
    signal[0, :, 1] = 7.25
    out = normalized(signal)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(out.std(1), [[1, 0], *[[1, 1]] * 3], atol=1e-5)
    np.testing.assert_allclose(normalized(signal * 9 - 4), out, atol=1e-5)


def test_splits_from_a_folder_and_from_a_package(folder, monkeypatch):
    data = Series("Toy", path=str(folder), normalize=False)
    assert (data.size("train"), data.size("eval"), data.size("test")) == (3, 1, 0)
    assert data.label_names == ("up", "down")
    assert data.spec()["signal"].shape == (3, 1)
    batch = data.open("train").take(np.array([1]))
    np.testing.assert_array_equal(batch["signal"][0, :, 0], [3, 2.5, -1])
    assert batch["label"][0] == 1
    monkeypatch.setenv("JAXCNN_DATA_DIR", str(folder))
    assert Series("Toy").size("train") == 3
    package = folder / "aeon-9.9-py3-none-any.whl"
    with zipfile.ZipFile(package, "w") as archive:
        for part in ("TRAIN", "TEST"):
            archive.write(
                folder / "Toy" / f"Toy_{part}.ts", f"aeon/datasets/data/Toy/Toy_{part}.ts"
            )
    np.testing.assert_array_equal(
        Series("Toy", path=str(package), normalize=False)
        .open("train")
        .take(np.array([1]))["signal"],
        batch["signal"],
    )
    with pytest.raises(DataError, match=r"no Tay_TRAIN.ts .*there are the sets \['Toy'\]"):
        Series("Tay", path=str(folder)).size("train")
    with pytest.raises(DataError, match="no 'test' split"):
        data.open("test")


@pytest.mark.parametrize(
    "text, message",
    [
        (TRAIN + "1,2:up\n", "lengths from 2 to 3.*_eq"),
        (TRAIN + "1,?,3:up\n", r"line 12: .*missing ones"),
        (TRAIN + "1,nan,3:up\n", "line 12: .*finite"),
        (
            TRAIN + "1,2,3:left\n",
            r"line 12: the class 'left' is not one of those of the header, \['up', 'down'\]",
        ),
        (TRAIN + "1,2,3\n", "line 12: the class"),
        (TRAIN + "1,2:1,2,3:up\n", "line 12: dimensions have lengths"),
        (TRAIN.replace("@timeStamps false", "@timeStamps true"), "time stamps"),
        (HEADER, "no series after @data"),
        ("", "no series after @data"),
    ],
)
def test_errors_name_the_line(text, message):
    with pytest.raises(DataError, match=message):
        parse_ts(text, where="here")


def test_parts_that_disagree(folder):
    (folder / "Toy" / "Toy_TEST.ts").write_text(TEST.replace("5,5,5", "5,5"))
    with pytest.raises(DataError, match="they must agree"):
        Series("Toy", path=str(folder)).spec()


def test_missing_set_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=f"pip download --no-deps --dest {tmp_path} aeon"):
        Series("OSULeaf").size("train")
    with pytest.raises(DataError, match="there is no /nowhere"):
        Series("OSULeaf", path="/nowhere").size("train")


# name: (train and test size, length, dimensions, classes), Dau et al. 2019 and Bagnall et al. 2018
ARCHIVE = {
    "OSULeaf": (200, 242, 427, 1, 6),
    "GunPoint": (50, 150, 150, 1, 2),
    "ItalyPowerDemand": (67, 1029, 24, 1, 2),
    "BasicMotions": (40, 40, 100, 6, 4),
}


@pytest.mark.parametrize("name", ARCHIVE)
def test_sets_of_the_archive(name):
    data = Series(name)
    try:
        sizes = data.size("train"), data.size("eval")
    except DataError as error:
        pytest.skip(str(error))
    assert (*sizes, *data.spec()["signal"].shape, len(data.label_names)) == ARCHIVE[name]


def test_the_same_numbers_as_aeon():
    datasets = pytest.importorskip("aeon.datasets", reason="needs aeon: pip install aeon")
    signal, label = datasets.load_classification("BasicMotions", split="train")  # [N, C, T]
    ours = Series("BasicMotions", normalize=False)
    batch = ours.open("train").take(np.arange(len(label)))
    np.testing.assert_allclose(np.asarray(batch["signal"]).transpose(0, 2, 1), signal, rtol=1e-6)
    assert [ours.label_names[i].lower() for i in np.asarray(batch["label"])] == [
        str(name).lower() for name in label
    ]
