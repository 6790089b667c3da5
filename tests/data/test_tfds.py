"""TFDS without TensorFlow: a tiny set of our own, prepared here, and the real MNIST where it lies
prepared.
"""

import argparse
import dataclasses
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import optax
import pytest
from PIL import Image

from jaxcnn.commands import prepare
from jaxcnn.commands._main import main
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.memory import MemorySource
from jaxcnn.data.stream import StreamSource
from jaxcnn.errors import ConfigError, DataError, DependencyError
from tests.conftest import ROOT

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:tensorflow_datasets", "ignore::DeprecationWarning:etils"
)

COLOURS = ("red", "green", "blue")


def picture(number: int) -> np.ndarray:
    """Example `number` of the tiny set, uint8 [6, 5, 3]."""
    return np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Twenty random pictures for training, eight to test; given as PIL images, so that nothing
    needs TensorFlow to encode them.
    """

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
        return {
            "train": self._generate_examples(range(20)),
            "test": self._generate_examples(range(100, 108)),
        }

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
    return Tfds(
        "tiny_pictures", data_dir=str(root), **{"image": "photo", "label": "colour", **options}
    )


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
            assert (taken[name].shape, taken[name].dtype) == (
                (*indices.shape, *entry.shape),
                entry.dtype,
            )


def test_split_expressions(prepared):
    data = tiny(
        prepared,
        train="train[:90%]",
        eval="train[90%:]",
        test="train[:3]+test[2:4]",
        label="number",
    )
    assert [data.size(split) for split in ("train", "eval", "test")] == [18, 2, 5]
    numbers = {
        split: set(np.asarray(data.open(split).take(np.arange(data.size(split)))["label"]).tolist())
        for split in ("train", "eval", "test")
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


@pytest.mark.parametrize(
    "name, message",
    [("no_such_set", "prepare no_such_set"), ("tiny_picture", "did you mean 'tiny_pictures'")],
)
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
    expected, random = (
        np.asarray(tiny(damaged).open("train").take(np.arange(20))["image"]),
        np.random.default_rng(0),
    )
    refused = 0
    for _ in range(40):
        data = bytearray(good)
        data[random.choice(places)] ^= 1 << random.integers(8)
        file.write_bytes(data)
        try:
            np.testing.assert_array_equal(
                tiny(damaged, memory_mib=0).open("train").take(np.arange(20))["image"], expected
            )
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
    monkeypatch.setattr(
        "jaxcnn.data.files.tfds.decode_image",
        lambda file, name, **_: seen.append(name) or np.zeros((2, 2, 3), np.uint8),
    )
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
    """Even where TensorFlow is installed, reading a set does not import it: a package of that name
    that ends the process goes unnoticed.
    """
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text(
        "raise SystemExit('TensorFlow was imported')"
    )
    code = f"""
import importlib.util, sys
sys.path.insert(0, {str(tmp_path)!r})
assert importlib.util.find_spec("tensorflow").origin.startswith({str(tmp_path)!r})
import numpy as np
from jaxcnn.data.files.tfds import Tfds
early = [name for name in ("tensorflow_datasets", "PIL") if name in sys.modules]
assert not early, early
data = Tfds("tiny_pictures", image="photo", label="colour", data_dir={str(prepared)!r})
assert data.size("train") == 20 and data.label_names == {COLOURS!r}
assert data.open("train").take(np.arange(20))["image"].shape == (20, *data.spec()["image"].shape)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# --- boxes, masks and points under the names that tasks know ---

BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 0.5], [0.25, 0.5, 0.75, 1.0]], np.float32)
BAD_BOXES = np.array(
    [[0.5, 0.2, 0.5, 0.6], [0.7, 0.1, 0.2, 0.3], [0.1, 0.1, 0.2, 1.3], [np.nan, 0.0, 1.0, 1.0]],
    np.float32,
)
# (x, y) in pixels of 8 x 6: the last lies outside
POINTS = np.array([[1, 2], [5, 0], [8, 3]], np.float32)


def label_map() -> np.ndarray:
    """uint8 [8, 6] of 0..3 and 255."""
    return np.where(np.arange(48) % 11 == 10, 255, np.arange(48) % 4).astype(np.uint8).reshape(8, 6)


class TinyScenes(tfds.core.GeneratorBasedBuilder):
    """Example i has i objects (modulo 4), the form of voc, lvis, celeb_a and oxford_iiit_pet; and
    bad boxes beside the good ones.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        f = tfds.features
        features = {
            "image": f.Image(shape=(None, None, 3)),
            "large": f.Image(shape=(None, None, 3)),
            "number": np.int32,
            "annotation": f.Image(shape=(None, None, 1)),
            "small_annotation": f.Image(shape=(None, None, 1)),
            "objects": f.Sequence(
                {
                    "bbox": f.BBoxFeature(),
                    "type": f.ClassLabel(names=COLOURS),
                    "hard": np.bool_,
                    "mask": f.Image(shape=(None, None, 1)),
                }
            ),
            "head": f.BBoxFeature(),
            "landmarks": dict.fromkeys(("nose_x", "nose_y", "mouth_x", "mouth_y"), np.int64),
            "xs": f.Tensor(shape=(3,), dtype=np.float32),
            "ys": f.Tensor(shape=(3,), dtype=np.float32),
            "points": f.Tensor(shape=(3, 2), dtype=np.float32),
            "boxes": f.Sequence(f.Tensor(shape=(4,), dtype=np.float32)),
            "kinds": f.Sequence(f.ClassLabel(names=COLOURS)),
            "fewer_kinds": f.Sequence(f.ClassLabel(names=COLOURS)),
        }
        return tfds.core.DatasetInfo(builder=self, features=f.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(8)}

    def _generate_examples(self, count):
        pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8))
        for number in range(count):
            chosen = range(number % 4)
            mask = [
                Image.fromarray(((np.arange(48) == i).reshape(8, 6) * 7).astype(np.uint8))
                for i in chosen
            ]
            objects = [
                {
                    "bbox": tfds.features.BBox(*map(float, BOXES[i])),
                    "type": COLOURS[i],
                    "hard": i == 1,
                    "mask": mask[i],
                }
                for i in chosen
            ]
            yield (
                number,
                {
                    "image": pixels,
                    "large": pixels.resize((19, 24), Image.Resampling.NEAREST),
                    "number": number,
                    "annotation": Image.fromarray(label_map()),
                    "small_annotation": Image.fromarray(label_map()[:4]),
                    "objects": objects,
                    "head": tfds.features.BBox(*map(float, BOXES[0])),
                    "landmarks": {"nose_x": 1, "nose_y": 2, "mouth_x": 5, "mouth_y": 0},
                    "xs": POINTS[:, 0],
                    "ys": POINTS[:, 1],
                    "points": POINTS,
                    "boxes": [BOXES[0], *BAD_BOXES],
                    "kinds": ["green", "red", "red", "red", "red"],
                    "fewer_kinds": ["blue"],
                },
            )


@pytest.fixture(scope="module")
def scenes_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds_scenes")
    TinyScenes(data_dir=str(root), file_format="array_record").download_and_prepare()
    return root


def scenes(root, **options) -> Tfds:
    return Tfds(
        "tiny_scenes",
        eval="",
        data_dir=str(root),
        **{"label": "number", "image_size": (8, 6), "invalid": "error", **options},
    )


def take_by_number(data: Tfds) -> dict[str, np.ndarray]:
    """All eight examples in the order of their numbers; their shapes and dtypes are those of
    `spec`.
    """
    taken = {
        name: np.asarray(array) for name, array in data.open("train").take(np.arange(8)).items()
    }
    for name, entry in data.spec().items():
        assert (taken[name].shape, taken[name].dtype) == ((8, *entry.shape), entry.dtype)
    assert set(taken) == set(data.spec())
    order = np.argsort(taken["label"])
    return {name: array[order] for name, array in taken.items()}


@pytest.mark.parametrize("memory_mib", [10, 0])
def test_sequences_of_objects_fill_a_fixed_number_of_rows(scenes_root, memory_mib):
    names = {
        "boxes": "objects.bbox",
        "box_labels": "objects.type",
        "instance_masks": "objects.mask",
    }
    data = scenes(scenes_root, **names, max_items=4, memory_mib=memory_mib)
    assert data.label_names == COLOURS
    taken = take_by_number(data)
    for number in range(8):
        count = number % 4
        np.testing.assert_array_equal(taken["boxes_mask"][number], np.arange(4) < count)
        np.testing.assert_array_equal(
            taken["boxes"][number], np.concatenate([BOXES[:count], np.zeros((4 - count, 4))])
        )
        np.testing.assert_array_equal(
            taken["box_labels"][number], [*range(count), *[0] * (4 - count)]
        )
        for row in range(4):
            expected = np.where((np.arange(48) == row) & (row < count), 255, 0).reshape(8, 6)
            np.testing.assert_array_equal(taken["instance_masks"][number, row], expected)


@pytest.mark.parametrize("field, crowd", [("skip_objects", 0), ("crowd_objects", 1)])
def test_objects_of_a_kind_are_ignored_and_lie_in_the_last_rows(scenes_root, field, crowd):
    names = {"boxes": "objects.bbox", "box_labels": "objects.type", field: "objects.hard"}
    taken = take_by_number(scenes(scenes_root, **names, max_items=3))
    np.testing.assert_array_equal(taken["box_labels"][3], [0, 2, 1])
    np.testing.assert_array_equal(taken["boxes"][3], BOXES[[0, 2, 1]])
    np.testing.assert_array_equal(taken["boxes_mask"][3], [1, 1, 0])
    np.testing.assert_array_equal(taken["boxes_ignored"][3], [0, 0, 1])
    np.testing.assert_array_equal(taken["boxes_crowd"][3], [0, 0, crowd])
    with pytest.warns(UserWarning, match="2 objects and 1 that are ignored; max_items=2"):
        taken = take_by_number(scenes(scenes_root, **names, max_items=2))
    np.testing.assert_array_equal(taken["box_labels"][3], [0, 2])
    np.testing.assert_array_equal(taken["boxes_ignored"][3], [0, 0])


def test_a_single_box_is_one_row(scenes_root):
    data = scenes(scenes_root, boxes="head", box_labels="number")
    taken = take_by_number(data)
    np.testing.assert_array_equal(taken["boxes"], np.broadcast_to(BOXES[0], (8, 1, 4)))
    np.testing.assert_array_equal(taken["box_labels"][:, 0], np.arange(8))


@pytest.mark.parametrize("offset", [0, -1])
def test_segmentation_is_moved_to_the_classes_of_the_task(scenes_root, offset):
    data = scenes(
        scenes_root, segmentation="annotation", segmentation_offset=offset, image_size=(16, 12)
    )
    expected = np.where(label_map() == 255, 255, label_map().astype(np.int32) + offset)
    expected = np.where(expected < 0, 255, expected).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(take_by_number(data)["segmentation"][5], expected)


def stored(mask: Image.Image, *, turn: int = 1) -> io.BytesIO:
    """A PNG as it is, which TFDS then stores byte by byte; with an EXIF orientation."""
    file, exif = io.BytesIO(), Image.Exif()
    if turn != 1:
        exif[274] = turn
    mask.save(file, "PNG", exif=exif)
    return io.BytesIO(file.getvalue())


CLASSES = (np.arange(48) % 3).astype(np.uint8).reshape(8, 6)
TABLE = ((0, 0, 0), (128, 0, 0), (0, 0, 90))


def label_images() -> dict[str, Image.Image]:
    """CLASSES stored in the ways of published sets."""
    palette = Image.fromarray(CLASSES).convert("P")
    palette.putdata(CLASSES.ravel().tolist())
    palette.putpalette([value for colour in TABLE for value in colour])
    return {
        "palette": palette,
        "colours": Image.fromarray(np.array(TABLE, np.uint8)[CLASSES]),
        "grey_rgb": Image.fromarray(CLASSES.repeat(3).reshape(8, 6, 3)),
        "sixteen": Image.fromarray(CLASSES.astype(np.uint16) * 300),
        "black_white": Image.fromarray(np.where(CLASSES == 1, 255, 0).astype(np.uint8)),
    }


class TinyMasks(tfds.core.GeneratorBasedBuilder):
    """Four pictures with the same label map in several forms."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3))
        features = {"image": image, "number": np.int32, "nested": {"palette": image}}
        features |= dict.fromkeys([*label_images(), "turned", "turned_mask"], image)
        features["box"] = tfds.features.BBoxFeature()
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            masks = {name: stored(mask) for name, mask in label_images().items()}
            nested = {"palette": stored(label_images()["palette"])}
            picture = Image.new("RGB", (6, 8))
            half = {"turned": stored(picture, turn=3)}  # by 180 degrees: all sizes still fit
            half["turned_mask"] = stored(label_images()["palette"], turn=3)
            half["box"] = tfds.features.BBox(0.0, 0.0, 0.5, 0.5)
            yield i, {"image": picture, "number": i, "nested": nested, **masks, **half}


@pytest.fixture(scope="module")
def masks_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds_masks")
    TinyMasks(data_dir=str(root), file_format="array_record").download_and_prepare()
    return root


WHITE = np.where(CLASSES == 1, 255, 0)
SAID = {"segmentation_colours": TABLE}


@pytest.mark.parametrize("memory_mib", [10, 0])
@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("palette", {}, CLASSES),
        ("nested.palette", {}, CLASSES),
        ("palette", {"segmentation_offset": -1}, np.where(CLASSES == 0, 255, CLASSES - 1.0)),
        ("grey_rgb", {}, CLASSES),
        ("colours", SAID, CLASSES),
        ("palette", SAID, CLASSES),
        ("palette", {"segmentation_values": (2, 1, 0)}, 2 - CLASSES),
        ("colours", {}, r"segmentation_colours=\(\(r, g, b\)"),
        ("colours", {"segmentation_colours": TABLE[:2]}, r"16 pixels hold \[\(0, 0, 90\)\]"),
        ("sixteen", {"segmentation_values": (0, 300, 600)}, CLASSES),
        ("sixteen", {}, r"32 pixels hold \[300, 600\]"),
        ("black_white", {}, r"segmentation_values=\(0, 255\) for the former, segmentation_ignored"),
        ("black_white", {"segmentation_values": (0, 255)}, WHITE // 255),
        ("black_white", {"segmentation_ignored": 255}, WHITE),
    ],
)
def test_label_maps_as_sets_store_them(masks_root, name, options, expected, memory_mib):
    data = Tfds(
        "tiny_masks",
        eval="",
        data_dir=str(masks_root),
        label="",
        image_size=(8, 6),
        invalid="error",
        segmentation=name,
        memory_mib=memory_mib,
        **options,
    )
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            data.open("train").take(np.arange(4))
    else:
        taken = np.asarray(data.open("train").take(np.arange(4))["segmentation"])
        np.testing.assert_array_equal(taken, np.stack([expected] * 4))


def test_a_picture_that_its_exif_orientation_turns(masks_root):
    """Turned alone it is not the one that its label map shows, and boxes may be of either."""
    options = {"data_dir": str(masks_root), "eval": "", "label": "", "image_size": (8, 6)}

    def take(**more):
        data = Tfds("tiny_masks", **options, **more)
        return {name: np.asarray(x) for name, x in data.open("train").take(np.arange(4)).items()}

    for pair in (("turned", "palette"), ("image", "turned_mask")):
        with pytest.raises(DataError, match="nobody knows on what it was drawn"):
            take(image=pair[0], segmentation=pair[1], invalid="error")
        with pytest.warns(UserWarning, match="4 labels break a rule"):
            assert (take(image=pair[0], segmentation=pair[1])["segmentation"] == 255).all()
    both = take(image="turned", segmentation="turned_mask", invalid="error")
    np.testing.assert_array_equal(both["segmentation"], np.stack([CLASSES[::-1, ::-1]] * 4))
    with pytest.warns(UserWarning, match="they are taken so"):
        take(image="turned", boxes="box", invalid="error")


def test_crop_keeps_the_middle_of_image_and_segmentation(scenes_root):
    whole, cut = (
        take_by_number(scenes(scenes_root, segmentation="annotation", **options))
        for options in ({}, {"image_size": (4, 2), "fit": "crop"})
    )
    for name in ("image", "segmentation"):
        np.testing.assert_array_equal(cut[name], whole[name][:, 2:6, 2:4])
    with pytest.raises(DataError, match="smaller image_size"):
        scenes(scenes_root, image_size=(9, 6), fit="crop").open("train")


@pytest.mark.parametrize("memory_mib", [10, 0])
def test_crops_lie_at_many_places_and_the_target_shows_the_same_in_more_pixels(
    scenes_root, memory_mib
):
    """The large image is the small one with each pixel repeated (and one column more)."""
    options = {
        "image_size": (3, 2),
        "fit": "crop",
        "crops": 50,
        "target": "large",
        "target_scale": 3,
        "memory_mib": memory_mib,
    }
    data = scenes(scenes_root, **options)
    assert data.size("train") == 8 * 50
    whole = take_by_number(scenes(scenes_root))["image"][0]
    taken = {
        name: np.asarray(array) for name, array in data.open("train").take(np.arange(50)).items()
    }
    np.testing.assert_array_equal(taken["target"][:, 1::3, 1::3], taken["image"])
    assert taken["target"].shape == (50, 9, 6, 3)
    windows = (
        np.lib.stride_tricks.sliding_window_view(whole, (3, 2), axis=(0, 1))
        .transpose(0, 1, 3, 4, 2)
        .reshape(-1, 3, 2, 3)
    )
    places = [
        int(np.flatnonzero((windows == crop).all(axis=(1, 2, 3)))[0]) for crop in taken["image"]
    ]
    assert len(set(places)) > 20  # of 6 x 5
    with pytest.raises(DataError, match="target_scale=2 times larger"):
        scenes(scenes_root, **{**options, "target_scale": 2}).open("train").take(np.arange(1))


@pytest.mark.parametrize(
    "names, points",
    [
        (("points",), POINTS),
        (("xs", "ys"), POINTS),
        (
            ("landmarks.mouth_x", "landmarks.mouth_y", "landmarks.nose_x", "landmarks.nose_y"),
            POINTS[[1, 0]],
        ),
    ],
)
def test_points_from_arrays_and_from_names(scenes_root, names, points):
    data = scenes(scenes_root, points=names, image_size=(4, 4))
    inside = points[:, 0] <= 6
    expected = np.where(inside[:, None], points[:, ::-1] / np.array([8, 6], np.float32), 0)
    taken = take_by_number(data)
    np.testing.assert_allclose(taken["points"][0], expected, rtol=1e-6)
    np.testing.assert_array_equal(taken["points_mask"][0], inside)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"boxes": "boxes"}, r"record \d+, object 1: box .* is empty"),
        ({"boxes": "objects.bbox", "max_items": 2}, "has 3 objects; max_items=2"),
        (
            {"boxes": "objects.bbox", "box_labels": "fewer_kinds"},
            r"'fewer_kinds' has 1 values and there are [023] boxes",
        ),
        (
            {"segmentation": "small_annotation"},
            r"'small_annotation' is \(4, 6\) and the image \(8, 6\)",
        ),
    ],
)
def test_labels_that_break_a_rule_are_refused_or_counted(scenes_root, options, message):
    with pytest.raises(DataError, match=message):
        scenes(scenes_root, **options).open("train")
    with pytest.warns(UserWarning, match=r"\d+ labels break a rule and are left out; the first"):
        scenes(scenes_root, **options, invalid="skip").open("train")
    with pytest.warns(UserWarning, match=r"\d+ labels break a rule and are left out; the first"):
        scenes(scenes_root, **options, invalid="skip").open("train")  # from the cache
    streamed = scenes(scenes_root, **options, invalid="skip", memory_mib=0).open("train")
    with pytest.warns(UserWarning, match=r"10? labels break a rule"):
        streamed.take(np.arange(8))


def test_what_is_left_of_bad_labels(scenes_root):
    with pytest.warns(UserWarning, match="32 labels"):  # 4 of 5 boxes in 8 examples
        taken = take_by_number(
            scenes(scenes_root, boxes="boxes", box_labels="kinds", max_items=3, invalid="skip")
        )
    np.testing.assert_array_equal(taken["boxes_mask"], np.tile([1, 0, 0], (8, 1)))
    np.testing.assert_array_equal(taken["boxes"][:, 0], np.tile(BOXES[0], (8, 1)))
    np.testing.assert_array_equal(taken["box_labels"], np.tile([1, 0, 0], (8, 1)))
    with pytest.warns(UserWarning, match="2 labels"):
        taken = take_by_number(
            scenes(
                scenes_root,
                boxes="objects.bbox",
                box_labels="objects.type",
                max_items=2,
                invalid="skip",
            )
        )
    np.testing.assert_array_equal(taken["box_labels"][3], [1, 2])  # the largest two
    with pytest.warns(UserWarning, match="8 labels"):
        assert (
            take_by_number(scenes(scenes_root, segmentation="small_annotation", invalid="skip"))[
                "segmentation"
            ]
            == 255
        ).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"boxes": "objects.box"}, "did you mean 'objects.bbox'"),
        ({"boxes": "xs"}, "4 numbers"),
        ({"box_labels": "kinds"}, "name the set's boxes too"),
        ({"points": ("xs",)}, "x and y in turn"),
        ({"points": ("landmarks.nose_x", "ys")}, "x and y in turn"),
        ({"label": "kinds"}, "a label is a number"),
        ({"fit": "pad"}, "stretch, crop"),
        ({"boxes": "boxes", "fit": "crop"}, "fit='stretch'"),
        ({"target": "image"}, "fit='crop'"),
        ({"crops": 3}, "fit='crop'"),
        ({"boxes": "boxes", "invalid": "drop"}, "invalid is 'drop'"),
        ({"boxes": "boxes", "max_items": 0}, "max_items"),
        ({"points": ("points",), "point_units": "mm"}, "pixels, shares"),
        ({"segmentation_values": (0, 0)}, "each class has a value of its own"),
        ({"segmentation_offset": 1, "segmentation_values": (0, 1)}, "leave out one of both"),
    ],
)
def test_wrong_names_of_entries_are_config_errors(scenes_root, options, message):
    with pytest.raises(ConfigError, match=message):
        scenes(scenes_root, **options).open("train")


@pytest.mark.parametrize(
    "name, options, shapes",
    [
        (
            "voc/2007",
            {
                "label": "",
                "boxes": "objects.bbox",
                "box_labels": "objects.label",
                "skip_objects": "objects.is_difficult",
                "max_items": 42,
            },
            {"boxes": (42, 4), "boxes_mask": (42,), "box_labels": (42,)},
        ),
        (
            "oxford_iiit_pet",
            {"segmentation": "segmentation_mask", "segmentation_offset": -1, "boxes": "head_bbox"},
            {"label": (), "segmentation": (64, 48), "boxes": (1, 4), "boxes_mask": (1,)},
        ),
        (
            "div2k/bicubic_x2",
            {
                "label": "",
                "image": "lr",
                "target": "hr",
                "eval": "validation",
                "fit": "crop",
                "crops": 8,
            },
            {"target": (128, 96, 3)},
        ),
        (
            "celeb_a",
            {
                "label": "",
                "points": (
                    "landmarks.lefteye_x",
                    "landmarks.lefteye_y",
                    "landmarks.nose_x",
                    "landmarks.nose_y",
                ),
            },
            {"points": (2, 2), "points_mask": (2,)},
        ),
        (
            "lvis",
            {
                "label": "",
                "boxes": "objects.bbox",
                "box_labels": "objects.label",
                "instance_masks": "objects.segmentation",
            },
            {
                "boxes": (32, 4),
                "boxes_mask": (32,),
                "box_labels": (32,),
                "instance_masks": (32, 64, 48),
            },
        ),
    ],
)
def test_published_sets_are_described_before_they_are_prepared(tmp_path, name, options, shapes):
    data = Tfds(name, data_dir=str(tmp_path), image_size=(64, 48), **options)
    if "boxes" in shapes:  # what comes with them
        rows = shapes["boxes_mask"]
        shapes = {**shapes, "boxes_ignored": rows, "boxes_crowd": rows, "box_areas": rows}
        shapes["original_size"] = (2,)
    assert {name: entry.shape for name, entry in data.spec().items()} == {
        "image": (64, 48, 3),
        **shapes,
    }
    assert [data.size(split) for split in ("train", "eval")] == [0, 0]
    with pytest.raises(DataError, match=f"prepare {name}"):
        data.open("train")


def test_check_passes_before_the_set_is_prepared(tmp_path):
    from jaxcnn.core.experiment import Experiment
    from jaxcnn.models.lenet import LeNet5Modern
    from jaxcnn.runs.check import pre_flight
    from jaxcnn.tasks.classification import Classification

    data = Tfds("oxford_iiit_pet", data_dir=str(tmp_path), image_size=(32, 32))
    model, task = LeNet5Modern(num_classes=37), Classification(37)
    facts = pre_flight(
        Experiment(
            data=data,
            model=model,
            task=task,
            optimizer=partial(optax.sgd, 0.1),
            steps=7,
            batch_size=4,
        )
    )
    assert facts["steps"] == 7
    assert facts["inputs"]["image"] == [32, 32, 3]


def test_the_command_says_how_a_set_is_prepared(tmp_path, capsys):
    """Once, and as an error only where all examples were to be looked at."""
    words = ["check", "mnist_dense", f"data.data_dir={tmp_path}"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.out.count("launch.py prepare mnist") == 1
    assert shown.err == ""
    assert main([*words, "--data"]) == 3
    shown = capsys.readouterr()
    assert "launch.py prepare mnist" in shown.err
    assert "launch.py prepare mnist" not in shown.out
    assert main([*words, "--no-data"]) == 0
    assert "prepare mnist" not in capsys.readouterr().out


# --- prepare ---


def run_prepare(*arguments) -> int:
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    return prepare.main(parser.parse_args([str(argument) for argument in arguments]))


def pretend_tensorflow(monkeypatch, present: bool):
    """Whether TensorFlow seems installed: the tiny sets do not use it, so that both cases can be
    tried anywhere.
    """
    real = importlib.util.find_spec
    fake = importlib.machinery.ModuleSpec("tensorflow", None) if present else None
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: fake if name == "tensorflow" else real(name, *rest),
    )


def test_prepare_makes_a_set_that_tfds_reads(tmp_path, monkeypatch, capsys):
    pretend_tensorflow(monkeypatch, True)
    assert run_prepare("tiny_pictures", "--data-dir", tmp_path) == 0
    assert "train 20, test 8" in capsys.readouterr().out
    assert tiny(tmp_path).open("train").take(np.arange(20))["image"].shape == (20, 6, 5, 3)
    pretend_tensorflow(monkeypatch, False)
    # it is there: nothing is needed
    assert run_prepare("tiny_pictures", "--data-dir", tmp_path) == 0


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
ROOTS.append(ROOT.parent / "shared" / "tfds")
MNIST = next((root for root in ROOTS if (root / "mnist").is_dir()), None)
# of each digit among the 10,000
TEST_COUNTS = [
    980,
    1135,
    1032,
    1010,
    982,
    892,
    958,
    1028,
    974,
    1009,
]


@pytest.mark.skipif(MNIST is None, reason="no prepared mnist in $TFDS_DATA_DIR")
def test_real_mnist():
    data = Tfds("mnist", data_dir=str(MNIST))
    assert (data.size("train"), data.size("eval")) == (60_000, 10_000)
    taken = data.open("eval").take(np.arange(10_000))
    np.testing.assert_array_equal(np.bincount(taken["label"]), TEST_COUNTS)
    (folder,) = (MNIST / "mnist").glob("*")
    raw = tfds.builder_from_directory(str(folder)).as_data_source(
        "test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    for index in (0, 1, 77, 5000, 9999):
        with Image.open(io.BytesIO(raw[index]["image"])) as image:
            np.testing.assert_array_equal(taken["image"][index, ..., 0], np.asarray(image))
        assert taken["label"][index] == raw[index]["label"]


def test_windows_are_drawn_at_each_visit_in_training_alone(prepared):
    from jaxcnn.data.crops import cropping
    from jaxcnn.data.dataset import is_drawn, take_drawn
    from jaxcnn.data.files.images import resize_image

    data = tiny(prepared, label="number", image_size=(4, 4), crop_area=(0.2, 0.6))
    source, whole = data.open("train"), tiny(prepared, label="number", image_size=(4, 4))
    assert is_drawn(source)
    assert not is_drawn(data.open("eval"))
    assert isinstance(data.open("eval"), MemorySource)
    rows, draws = np.array([[3, 3], [17, 0]]), np.array([[5, 6], [7, 8]], np.uint64)
    taken = take_drawn(source, rows, draws)
    for place in np.ndindex(2, 2):
        window = cropping(int(draws[place]), area=(0.2, 0.6), aspect=(3 / 4, 4 / 3))
        want = resize_image(picture(taken["label"][place]), (4, 4), window=window((6, 5)))
        np.testing.assert_array_equal(taken["image"][place], want)
    np.testing.assert_array_equal(
        source.take(rows)["image"], np.asarray(whole.open("train").take(rows)["image"])
    )
    for wrong in ({"fit": "crop"}, {"crop_area": (0.0, 1.0)}, {"crop_area": None}):
        with pytest.raises(ConfigError, match="crop_area"):
            dataclasses.replace(data, **wrong, crop_aspect=(0.5, 1.0)).spec()
