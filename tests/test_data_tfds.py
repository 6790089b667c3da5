"""TFDS without TensorFlow: a tiny set of our own, prepared here, and the real MNIST where it lies prepared."""

import argparse
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.commands import prepare
from jaxcnn.data.memory import MemorySource
from jaxcnn.data.stream import StreamSource
from jaxcnn.data.tfds import Tfds
from jaxcnn.errors import ConfigError, DataError, DependencyError

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorflow_datasets", "ignore::DeprecationWarning:etils")

COLOURS = ("red", "green", "blue")


def picture(number: int) -> np.ndarray:
    """Example `number` of the tiny set, uint8 [6, 5, 3]."""
    return np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Twenty random pictures for training, eight to test; given as PIL images, so that nothing needs TensorFlow to encode them."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "photo": tfds.features.Image(shape=(6, 5, 3)),
            "any_size": tfds.features.Image(shape=(None, None, 3)),
            "colour": tfds.features.ClassLabel(names=COLOURS),
            "weight": np.float32,
            "number": np.int64,
            "title": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(20)), "test": self._generate_examples(range(100, 108))}

    def _generate_examples(self, numbers):
        for number in numbers:
            image = Image.fromarray(picture(number))
            yield (
                number,
                {
                    "photo": image,
                    "any_size": image.resize((8 + number % 3, 9)),
                    "colour": number % 3,
                    "weight": number / 2,
                    "number": number,
                    "title": f"picture {number}",
                },
            )


class UnreachablePictures(TinyPictures):
    """A set whose server does not answer."""

    def _split_generators(self, dl_manager):
        raise ConnectionError("no route to host")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    TinyPictures(data_dir=str(root), file_format="array_record").download_and_prepare()
    return root


@pytest.fixture
def damaged(prepared, tmp_path):
    """A copy of the prepared set, to be spoilt."""
    shutil.copytree(prepared, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tiny(root, **options) -> Tfds:
    return Tfds("tiny_pictures", data_dir=str(root), **{"image": "photo", "label": "colour", **options})


@pytest.mark.parametrize("memory_mib, kind", [(10, MemorySource), (0, StreamSource)])
def test_tiny_set_comes_back_exactly(prepared, memory_mib, kind):
    data, numbers = tiny(prepared, memory_mib=memory_mib), tiny(prepared, label="number")
    assert data.label_names == COLOURS
    assert (data.size("train"), data.size("eval"), data.size("test")) == (20, 8, 0)
    for split, expected in (("train", range(20)), ("eval", range(100, 108))):
        source = data.open(split)
        assert isinstance(source, kind)
        indices = np.arange(len(source)).reshape(2, -1)
        taken, number = source.take(indices), np.asarray(numbers.open(split).take(indices)["label"])
        assert sorted(number.ravel().tolist()) == list(expected)
        for place in np.ndindex(indices.shape):
            np.testing.assert_array_equal(taken["image"][place], picture(number[place]))
            assert taken["label"][place] == number[place] % 3
        for name, entry in data.spec().items():
            assert (taken[name].shape, taken[name].dtype) == ((*indices.shape, *entry.shape), entry.dtype)


def test_split_expressions(prepared):
    data = tiny(prepared, train="train[:90%]", eval="train[90%:]", test="train[:3]+test[2:4]", label="number")
    assert [data.size(split) for split in ("train", "eval", "test")] == [18, 2, 5]
    numbers = {
        split: set(np.asarray(data.open(split).take(np.arange(data.size(split)))["label"]).tolist()) for split in ("train", "eval", "test")
    }
    assert numbers["train"] | numbers["eval"] == set(range(20))
    assert not numbers["train"] & numbers["eval"]
    assert len(numbers["test"] & set(range(100, 108))) == 2


def test_images_of_many_sizes_need_a_size(prepared):
    with pytest.raises(ConfigError, match="image_size="):
        tiny(prepared, image="any_size").spec()
    data = tiny(prepared, image="any_size", image_size=(4, 4), label="weight")
    taken = data.open("train").take(np.arange(20))
    assert (taken["image"].shape, taken["label"].dtype) == ((20, 4, 4, 3), np.float32)
    assert sorted(np.asarray(taken["label"]).tolist()) == [number / 2 for number in range(20)]
    assert data.label_names == ()
    assert set(tiny(prepared, label="").open("train").take(np.arange(2))) == {"image"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image": "foto"}, "did you mean 'photo'"),
        ({"label": "color"}, "did you mean 'colour'"),
        ({"label": "title"}, "a label is a number"),
        ({"train": "trian"}, "did you mean 'train'"),
        ({"train": "train[:9"}, "split expression"),
    ],
)
def test_wrong_names_are_config_errors(prepared, options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(prepared, **options).open("train")


@pytest.mark.parametrize("name, message", [("no_such_set", "prepare no_such_set"), ("tiny_picture", "did you mean 'tiny_pictures'")])
def test_unprepared_set_names_the_command(prepared, name, message):
    with pytest.raises(DataError, match=message) as error:
        Tfds(name, data_dir=str(prepared)).size("train")
    assert "pip install 'jaxcnn[prepare]'" in str(error.value)
    assert f"python launch.py prepare {name} --data-dir {prepared}" in str(error.value)


def test_environment_says_where_and_the_newest_version_is_read(damaged, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(damaged))
    folder = damaged / "tiny_pictures"
    info = (folder / "1.0.0" / "dataset_info.json").read_text()
    for version in ("10.0.0", "9.0.0"):
        shutil.copytree(folder / "1.0.0", folder / version)
        (folder / version / "dataset_info.json").write_text(info.replace('"1.0.0"', f'"{version}"'))
    (folder / "10.0.0" / "features.json").unlink()
    with pytest.raises(DataError, match=r"10\.0\.0"):
        Tfds("tiny_pictures").size("train")
    assert Tfds("tiny_pictures:9.0.0").size("train") == 20


def test_damage_is_noticed_and_the_file_named(damaged):
    (file,) = (damaged / "tiny_pictures" / "1.0.0").glob("*train*record*")
    good = file.read_bytes()
    places = np.flatnonzero(np.frombuffer(good, np.uint8))  # the rest is padding to full blocks
    expected, random = np.asarray(tiny(damaged).open("train").take(np.arange(20))["image"]), np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        data = bytearray(good)
        data[random.choice(places)] ^= 1 << random.integers(8)
        file.write_bytes(data)
        try:
            np.testing.assert_array_equal(tiny(damaged, memory_mib=0).open("train").take(np.arange(20))["image"], expected)
        except DataError as error:
            assert file.name in str(error)  # noqa: PT017
            refused += 1
    assert refused > 20
    file.unlink()
    with pytest.raises(DataError, match=r"array_record.*missing"):
        tiny(damaged).open("train")


def test_an_undecodable_record_is_named_by_its_place_in_the_file(prepared, monkeypatch):
    """Example 3 of train[5:12] is record 8 of the file."""
    data = tiny(prepared, train="train[5:12]", memory_mib=0, image_size=(2, 2))
    source, seen = data.open("train"), []
    monkeypatch.setattr("jaxcnn.data.tfds.decode_image", lambda file, name, **_: seen.append(name) or np.zeros((2, 2, 3), np.uint8))
    source.take(np.array([3]))
    assert [name.partition(", ")[2] for name in seen] == ["record 8"]


def test_second_opening_uses_the_cache_until_the_files_change(damaged, tmp_path):
    first = np.asarray(tiny(damaged).open("eval").take(np.arange(8))["image"])
    (cached,) = (tmp_path / "cache" / "jaxcnn").iterdir()
    np.testing.assert_array_equal(tiny(damaged).open("eval").take(np.arange(8))["image"], first)
    (file,) = (damaged / "tiny_pictures" / "1.0.0").glob("*test*record*")
    os.utime(file, ns=(0, 0))
    tiny(damaged).open("eval")
    assert len(list(cached.parent.iterdir())) == 2


def test_other_formats_and_broken_metadata_are_refused(damaged):
    info = damaged / "tiny_pictures" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(DataError, match="prepared as tfrecord"):
        tiny(damaged).size("train")
    info.write_text("{")
    with pytest.raises(DataError, match="metadata cannot be read"):
        tiny(damaged).size("train")


def test_tensorflow_is_never_imported(prepared, tmp_path):
    """Even where TensorFlow is installed, reading a set does not import it: a package of that name that ends the process goes unnoticed."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('TensorFlow was imported')")
    code = f"""
import importlib.util, sys
sys.path.insert(0, {str(tmp_path)!r})
assert importlib.util.find_spec("tensorflow").origin.startswith({str(tmp_path)!r})
import numpy as np
from jaxcnn.data.tfds import Tfds
assert "tensorflow_datasets" not in sys.modules and "PIL" not in sys.modules, "imported before it is needed"
data = Tfds("tiny_pictures", image="photo", label="colour", data_dir={str(prepared)!r})
assert data.size("train") == 20 and data.label_names == {COLOURS!r}
assert data.open("train").take(np.arange(20))["image"].shape == (20, *data.spec()["image"].shape)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


# --- prepare ---


def run_prepare(*arguments) -> int:
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    return prepare.main(parser.parse_args([str(argument) for argument in arguments]))


def pretend_tensorflow(monkeypatch, present: bool):
    """Whether TensorFlow seems installed: the tiny sets do not use it, so that both cases can be tried anywhere."""
    real = importlib.util.find_spec
    fake = importlib.machinery.ModuleSpec("tensorflow", None) if present else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: fake if name == "tensorflow" else real(name, *rest))


def test_prepare_makes_a_set_that_tfds_reads(tmp_path, monkeypatch, capsys):
    pretend_tensorflow(monkeypatch, True)
    assert run_prepare("tiny_pictures", "--data-dir", tmp_path) == 0
    assert "train 20, test 8" in capsys.readouterr().out
    assert tiny(tmp_path).open("train").take(np.arange(20))["image"].shape == (20, 6, 5, 3)
    pretend_tensorflow(monkeypatch, False)
    assert run_prepare("tiny_pictures", "--data-dir", tmp_path) == 0  # it is there: nothing is needed


@pytest.mark.parametrize(
    "name, tensorflow, error, message",
    [
        ("minst", True, ConfigError, "did you mean 'mnist'"),
        ("mnist", False, DependencyError, r"pip install 'jaxcnn\[prepare\]'"),
        ("no good name", True, ConfigError, "NAME/CONFIG"),
        ("unreachable_pictures", True, DataError, "no route to host"),
    ],
)
def test_prepare_refuses(tmp_path, monkeypatch, name, tensorflow, error, message):
    pretend_tensorflow(monkeypatch, tensorflow)
    with pytest.raises(error, match=message):
        run_prepare(name, "--data-dir", tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json"))


# --- real MNIST ---

ROOTS = [Path(os.environ["TFDS_DATA_DIR"])] if os.environ.get("TFDS_DATA_DIR") else []
ROOTS.append(Path(__file__).parents[2] / "shared" / "tfds")
MNIST = next((root for root in ROOTS if (root / "mnist").is_dir()), None)
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of each digit among the 10,000


@pytest.mark.skipif(MNIST is None, reason="no prepared mnist in $TFDS_DATA_DIR")
def test_real_mnist():
    data = Tfds("mnist", data_dir=str(MNIST))
    assert (data.size("train"), data.size("eval")) == (60_000, 10_000)
    taken = data.open("eval").take(np.arange(10_000))
    np.testing.assert_array_equal(np.bincount(taken["label"]), TEST_COUNTS)
    (folder,) = (MNIST / "mnist").glob("*")
    raw = tfds.builder_from_directory(str(folder)).as_data_source("test", decoders={"image": tfds.decode.SkipDecoding()})
    for index in (0, 1, 77, 5000, 9999):
        with Image.open(io.BytesIO(raw[index]["image"])) as image:
            np.testing.assert_array_equal(taken["image"][index, ..., 0], np.asarray(image))
        assert taken["label"][index] == raw[index]["label"]
