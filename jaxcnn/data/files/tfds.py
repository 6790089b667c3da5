"""TensorFlow Datasets, read without TensorFlow: prepared sets in array_record form, by random
access.

A set is prepared once, by `python launch.py prepare NAME`, which does need TensorFlow; see
`commands/prepare.py`.
"""

import functools
import os
import re
import tempfile
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data.files.annotated import Faults
from jaxcnn.data.files.images import decode_image
from jaxcnn.data.files.tfds_entries import check_features, decoder, entry_specs
from jaxcnn.data.memory import MemorySource, check_split
from jaxcnn.data.stream import Read, StreamSource, in_memory_if_small
from jaxcnn.errors import ConfigError, DataError, did_you_mean

# the split's files and expression stand for them
NOT_IN_CACHE_KEY = (
    "name",
    "train",
    "eval",
    "test",
    "data_dir",
    "memory_mib",
)


@dataclass(frozen=True)
class Tfds:
    """An image set of TFDS by name ("mnist", "cats_vs_dogs:4.0.1", "svhn_cropped",
    "imagenet_resized/32x32").

    "image" uint8 [H, W, C] and "label" int32 (float32 where the set has floats). `train`, `eval`,
    `test` are TFDS split expressions, such as "train[:90%]"; "" for none. `image` and `label` name
    the set's features (label="" for none). `image_size` (height, width) resizes (see
    `images.read_image`) and is needed where images differ in size; () keeps the size. `data_dir` is
    where prepared sets lie: by default $TFDS_DATA_DIR, else ~/tensorflow_datasets. Splits of at
    most `memory_mib` MiB are decoded once (see `in_memory_if_small`) and live on the device; larger
    ones stream. Errors: DataError where the set is not prepared or damaged, ConfigError for a
    feature or split that it has not.

    The other entries that tasks read are fields of the same kind: each names a feature of the set,
    with dots into nested ones:

        Tfds("voc/2007", eval="validation", label="", image_size=(384, 384), boxes="objects.bbox",
        box_labels="objects.label",
             skip_objects="objects.is_difficult", max_items=42)
        Tfds("oxford_iiit_pet", image_size=(128, 128), segmentation="segmentation_mask",
        segmentation_offset=-1) Tfds("oxford_iiit_pet", label="species", image_size=(128, 128),
        boxes="head_bbox") Tfds("celeb_a", label="", points=("landmarks.lefteye_x",
        "landmarks.lefteye_y", "landmarks.nose_x", "landmarks.nose_y")) Tfds("div2k/bicubic_x2",
        eval="validation", image="lr", target="hr", label="", image_size=(96, 96), fit="crop",
        crops=8)

    boxes: (y0, x0, y1, x1) in [0, 1]; a sequence fills "boxes" float32 [max_items, 4] and
        "boxes_mask" [max_items], a single box [1, 4].
    box_labels, instance_masks: one for each box; "box_labels" int32 [N], "instance_masks" uint8 [N,
        H, W], 0 or 255. label_names are then those of box_labels.
    skip_objects: a feature of objects; those for which it is true or not 0 (difficult, a crowd) are
        left out.
    max_items: N, room for so many objects; of more, only the largest are kept, as a fault.
    segmentation: an image of numbers (of colour images the grey value), "segmentation" int32 [H,
        W]; `segmentation_offset` is added, and what is then negative becomes 255, ignored.
    points: names of x and y in turn, each of one or of J numbers, or one name of an array [J, 2] of
        (x, y); "points" float32 [J, 2] (y, x) and "points_mask" [J], 0 outside the image.
        `point_units`: "pixels" of the whole image, or "shares" of its size.
    fit: "stretch" resizes to image_size without regard to the aspect ratio; "crop" cuts it out (of
        images and segmentation only): the middle, or, with `crops` above 1, so many examples an
        image at random places, which are functions of the example's number.
    target: the same picture `target_scale` times larger, for super-resolution, cut at the same
        place; "target" uint8.
    invalid: labels that break a rule (boxes that are empty or outside, features of different
        lengths, masks of another size, too many objects) are left out with a warning that counts
        them ("skip"; a set of others cannot be repaired), or a DataError ("error").

    Where the set is not prepared, `spec` and `label_names` come from the set's own code, if that
    works without TensorFlow, and sizes are 0.
    """

    name: str
    train: str = "train"
    eval: str = "test"
    test: str = ""
    image: str = "image"
    label: str = "label"
    image_size: tuple[int, int] | tuple[()] = ()
    data_dir: str = ""
    memory_mib: int = 1024
    _: KW_ONLY
    boxes: str = ""
    box_labels: str = ""
    instance_masks: str = ""
    skip_objects: str = ""
    max_items: int = 32
    segmentation: str = ""
    segmentation_offset: int = 0
    points: tuple[str, ...] = ()
    point_units: str = "pixels"
    fit: str = "stretch"
    crops: int = 1
    target: str = ""
    target_scale: int = 2
    invalid: str = "skip"

    @property
    def label_names(self) -> tuple[str, ...]:
        found = check_features(self, self._info().features)
        return tuple(getattr(found.get(self.box_labels or self.label), "names", None) or ())

    def _info(self) -> Any:
        """TFDS's description of the set, prepared or not."""
        return read_info(self.name, self.data_dir)

    def _expression(self, split: str) -> str:
        return {"train": self.train, "eval": self.eval, "test": self.test}[check_split(split)]

    def _split(self, split: str) -> Any:
        """The TFDS split info of "train", "eval" or "test", or None where there is none or nothing
        is known of it.
        """
        expression, splits = self._expression(split), self._info().splits
        if not expression or not splits:
            return None
        try:
            return splits[expression]
        except (ValueError, KeyError, AssertionError) as error:
            raise ConfigError(
                f"Tfds({self.name!r}): {split} is {expression!r}, which is not a split expression "
                f"over {list(splits)}"
                f"{did_you_mean(expression, splits)}; such as 'train', 'train[:90%]', "
                "'train[100:]+test'"
            ) from error

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return entry_specs(self, self._info().features)

    def size(self, split: str) -> int:
        info = self._split(split)
        return info.num_examples * self.crops if info is not None else 0

    def open(self, split: str) -> StreamSource | MemorySource:
        read_builder(self.name, self.data_dir)  # the error of a set that is not prepared
        info, spec, faults = (
            self._split(split),
            self.spec(),
            Faults(f"Tfds({self.name!r}), {split}", self.invalid),
        )
        if info is None or not info.num_examples:
            raise DataError(
                f"Tfds({self.name!r}) has no {split!r} examples; set {split}= to a split "
                "expression of the set, such as 'test'"
            )
        streamed = StreamSource(
            self._reader(self._expression(split), info, spec, faults), self.size(split), spec
        )
        chosen = [
            getattr(self, field.name)
            for field in fields(self)
            if field.name not in NOT_IN_CACHE_KEY
        ]
        key = f"tfds {_fingerprint(info)} {self._expression(split)} {chosen}"
        source = in_memory_if_small(streamed, spec, memory_mib=self.memory_mib, cache_key=key)
        faults.warn()
        faults.say_at_once = source is streamed
        return source

    def _reader(
        self, expression: str, info: Any, spec: dict[str, jax.ShapeDtypeStruct], faults: Faults
    ) -> Read:
        """A function from indices to decoded examples, for StreamSource."""
        import tensorflow_datasets as tfds

        builder = read_builder(self.name, self.data_dir)
        skip = {
            key: tfds.decode.SkipDecoding()
            for key, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        }
        try:
            records = builder.as_data_source(expression, decoders=skip)
        except Exception as error:
            raise DataError(
                f"Tfds({self.name!r}): {builder.data_path} cannot be opened ({error}); "
                f"{_again(self.name, self.data_dir)}"
            ) from error
        decode, channels = decoder(self, spec, faults), spec["image"].shape[-1]

        def read(indices: list[int]) -> list[dict[str, np.ndarray]]:
            rows = sorted({index // self.crops for index in indices})
            found, out, at, image = (
                dict(zip(rows, self._records(records, rows, info), strict=True)),
                [],
                -1,
                np.empty(0),
            )
            for index in indices:
                row = index // self.crops
                place = _place(info, row)
                if (
                    row != at
                ):  # crops of one image follow one another where a split is read from end to end
                    at, image = (
                        row,
                        decode_image(
                            found[row][self.image], name=place, size=None, channels=channels
                        ),
                    )
                out.append(decode(found[row], image, place, index))
            return out

        return read

    def _records(self, records: Any, indices: list[int], info: Any) -> list[dict[str, Any]]:
        """`records` at `indices`. They are read many at a time, which is 5 times faster (0.02 ms a
        record); only after a failure one by one, to name the place."""
        try:
            return records.__getitems__(indices)
        except Exception:
            for index in indices:
                try:
                    records[index]
                except Exception as error:
                    raise DataError(
                        f"{_place(info, index)}: damaged ({type(error).__name__}: {error}); "
                        f"{_again(self.name, self.data_dir)}"
                    ) from error
            raise


def read_info(name: str, data_dir: str = "") -> Any:
    """TFDS's description of a set: of the prepared one, else, without any split, by the set's own
    code. Errors: DataError, ConfigError.
    """
    try:
        _prepared_folder(name, data_dir)
    except DataError as error:
        try:
            return _described(name)
        # TFDS does not know the name, or the set's code needs TensorFlow or another package
        except Exception as reason:
            detail = (
                f". Its description cannot be had before either: {reason}"
                if isinstance(reason, ImportError)
                else ""
            )
            raise DataError(f"{error}{detail}") from reason
    return read_builder(name, data_dir).info


@functools.lru_cache(maxsize=16)
def _described(name: str) -> Any:
    """The description of a set that is not prepared."""
    import tensorflow_datasets as tfds

    with tempfile.TemporaryDirectory() as nowhere:  # where no prepared set of the same name is
        return tfds.builder(name, data_dir=nowhere).info


def read_builder(name: str, data_dir: str = "") -> Any:
    """The read-only TFDS builder of a prepared set; none of the set's own code is imported. Errors:
    DataError, ConfigError.
    """
    folder = _prepared_folder(name, data_dir)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(folder))
        form = builder.info.file_format
        splits = list(builder.info.splits)
    except Exception as error:
        raise DataError(
            f"{folder}: the metadata cannot be read ({type(error).__name__}: {error}); "
            f"{_again(name, data_dir)}"
        ) from error
    if form != tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{folder} is prepared as {form and form.value}, not array_record; move it away, then "
            f"{_command(name, data_dir)}"
        )
    if not splits:
        raise DataError(f"{folder} has no splits; {_again(name, data_dir)}")
    return builder


def data_root(data_dir: str = "") -> Path:
    """Where prepared sets lie: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _prepared_folder(name: str, data_dir: str) -> Path:
    """The folder of the newest prepared version of "name", "name/config", "name:version" or
    "name/config:version".
    """
    match = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::([\d.*]+))?", name)
    if match is None:
        raise ConfigError(
            f"Tfds name is {name!r}; it must be NAME, NAME/CONFIG, NAME:VERSION or "
            "NAME/CONFIG:VERSION"
        )
    root = data_root(data_dir)
    base, config, version = match.groups()
    folder = root / base / config if config else root / base
    found = [path.parent for path in folder.glob(f"{version or '*'}/dataset_info.json")]
    if not found and not config:
        found = [path.parent for path in folder.glob(f"*/{version or '*'}/dataset_info.json")]
        configs = sorted({path.parent.name for path in found})
        if len(configs) > 1:
            raise ConfigError(
                f"Tfds({name!r}) is prepared in several configurations; choose one: "
                f"{', '.join(f'{base}/{c}' for c in configs)}"
            )
    if not found:
        raise DataError(
            f"Tfds({name!r}) is not prepared in {root}{_prepared_there(base, root)}. Prepare it "
            f"once: {_command(name, data_dir)}"
        )
    return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])


def _prepared_there(base: str, root: Path) -> str:
    names = sorted(
        {
            path.relative_to(root).parts[0]
            for pattern in ("*/*/", "*/*/*/")
            for path in root.glob(pattern + "dataset_info.json")
        }
    )
    near = did_you_mean(base, [name for name in names if name != base]).removesuffix("?")
    return (
        f", where these are: {', '.join(names)}{near}"
        if names
        else ", where no set is (TFDS_DATA_DIR or data_dir says where to look)"
    )


def _command(name: str, data_dir: str) -> str:
    option = f" --data-dir {data_dir}" if data_dir else ""
    return (
        f"`python launch.py prepare {name}{option}` (it needs TensorFlow: pip install "
        "'jaxcnn[prepare]'; training does not)"
    )


def _again(name: str, data_dir: str) -> str:
    return f"remove the set's folder and prepare it again: {_command(name, data_dir)}"


def _fingerprint(info: Any) -> str:
    """Path, length and time of change of a split's files: what its decoded form in the cache
    depends on. Errors: DataError.
    """
    paths = sorted({os.path.abspath(part.filename) for part in info.file_instructions})
    try:
        return str([(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths])
    except OSError as error:
        raise DataError(
            f"{error.filename}: a file of the set is missing ({error.strerror}); prepare the set "
            "again"
        ) from error


def _place(info: Any, index: int) -> str:
    """The file and record of example `index` of a split."""
    for part in info.file_instructions:
        if index < part.take:
            return f"{part.filename}, record {part.skip + index}"
        index -= part.take
    return f"split {info.name}, example {index}"
