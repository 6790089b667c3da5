"""TensorFlow Datasets, read without TensorFlow: prepared sets in array_record form, by random access.

A set is prepared once, by `python launch.py prepare NAME`, which does need TensorFlow; see `commands/prepare.py`.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data.images import decode_image
from jaxcnn.data.memory import MemorySource, check_split
from jaxcnn.data.stream import Read, StreamSource, in_memory_if_small
from jaxcnn.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True)
class Tfds:
    """An image set of TFDS by name ("mnist", "cats_vs_dogs:4.0.1", "svhn_cropped", "imagenet_resized/32x32").

    "image" uint8 [H, W, C] and "label" int32 (float32 where the set has floats). `train`, `eval`, `test` are TFDS split expressions, such
    as "train[:90%]"; "" for none. `image` and `label` name the set's features (label="" for none). `image_size` (height, width) resizes
    (see `images.read_image`) and is needed where images differ in size; () keeps the size. `data_dir` is where prepared sets lie: by
    default $TFDS_DATA_DIR, else ~/tensorflow_datasets. Splits of at most `memory_mib` MiB are decoded once (see `in_memory_if_small`) and
    live on the device; larger ones stream. Errors: DataError where the set is not prepared or damaged, ConfigError for a feature or split
    that it has not.
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

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(getattr(self._features().get(self.label), "names", None) or ())

    def _features(self) -> dict[str, Any]:
        """The features that are read, by their names in the set."""
        features = dict(read_builder(self.name, self.data_dir).info.features.items())
        for field, name in (("image", self.image), ("label", self.label)):
            if name and name not in features:
                raise ConfigError(
                    f"Tfds({self.name!r}): {field} is {name!r}; the set has the features {sorted(features)}{did_you_mean(name, features)}"
                )
        return {name: features[name] for name in (self.image, self.label) if name}

    def _expression(self, split: str) -> str:
        return {"train": self.train, "eval": self.eval, "test": self.test}[check_split(split)]

    def _split(self, split: str) -> Any:
        """The TFDS split info of "train", "eval" or "test", or None where there is none."""
        expression = self._expression(split)
        if not expression:
            return None
        splits = read_builder(self.name, self.data_dir).info.splits
        try:
            return splits[expression]
        except (ValueError, KeyError, AssertionError) as error:
            raise ConfigError(
                f"Tfds({self.name!r}): {split} is {expression!r}, which is not a split expression over {list(splits)}"
                f"{did_you_mean(expression, splits)}; such as 'train', 'train[:90%]', 'train[100:]+test'"
            ) from error

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        features = self._features()
        *size, channels = features[self.image].shape
        size = self.image_size or tuple(size)
        if len(size) != 2 or None in size:
            raise ConfigError(f"Tfds({self.name!r}): images have shape {features[self.image].shape}; set image_size=(height, width)")
        if features[self.image].np_dtype != np.uint8:
            raise DataError(f"Tfds({self.name!r}): {self.image!r} is {features[self.image].np_dtype}; only uint8 images can be read")
        out = {"image": jax.ShapeDtypeStruct((*size, 1 if channels == 1 else 3), np.uint8)}
        if self.label:
            shape, kind = features[self.label].shape, np.dtype(features[self.label].np_dtype).kind
            if kind not in "biuf" or None in shape:
                raise ConfigError(
                    f"Tfds({self.name!r}): {self.label!r} is {features[self.label]!r}; a label is a number or a fixed number of them"
                )
            out["label"] = jax.ShapeDtypeStruct(shape, np.float32 if kind == "f" else np.int32)
        return out

    def size(self, split: str) -> int:
        info = self._split(split)
        return info.num_examples if info is not None else 0

    def open(self, split: str) -> StreamSource | MemorySource:
        info, spec = self._split(split), self.spec()
        if info is None or not info.num_examples:
            raise DataError(f"Tfds({self.name!r}) has no {split!r} examples; set {split}= to a split expression of the set, such as 'test'")
        source = StreamSource(self._reader(self._expression(split), info, spec), info.num_examples, spec)
        key = f"tfds {_fingerprint(info)} {self._expression(split)} {self.image} {self.label}"
        return in_memory_if_small(source, spec, memory_mib=self.memory_mib, cache_key=key)

    def _reader(self, expression: str, info: Any, spec: dict[str, jax.ShapeDtypeStruct]) -> Read:
        """A function from indices to decoded examples, for StreamSource."""
        import tensorflow_datasets as tfds

        builder = read_builder(self.name, self.data_dir)
        skip = {
            key: tfds.decode.SkipDecoding() for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)
        }
        try:
            records = builder.as_data_source(expression, decoders=skip)
        except Exception as error:
            raise DataError(
                f"Tfds({self.name!r}): {builder.data_path} cannot be opened ({error}); {_again(self.name, self.data_dir)}"
            ) from error
        size, channels = self.image_size or None, spec["image"].shape[-1]

        def read(indices: list[int]) -> list[dict[str, np.ndarray]]:
            out = []
            for index, record in zip(indices, self._records(records, indices, info), strict=True):
                example = {"image": decode_image(record[self.image], name=_place(info, index), size=size, channels=channels)}
                if self.label:
                    example["label"] = np.asarray(record[self.label], spec["label"].dtype)
                out.append(example)
            return out

        return read

    def _records(self, records: Any, indices: list[int], info: Any) -> list[dict[str, Any]]:
        """`records` at `indices`. They are read many at a time, which is 5 times faster (0.02 ms a record); only after a failure one by
        one, to name the place."""
        try:
            return records.__getitems__(indices)
        except Exception:
            for index in indices:
                try:
                    records[index]
                except Exception as error:
                    raise DataError(
                        f"{_place(info, index)}: damaged ({type(error).__name__}: {error}); {_again(self.name, self.data_dir)}"
                    ) from error
            raise


def read_builder(name: str, data_dir: str = "") -> Any:
    """The read-only TFDS builder of a prepared set; none of the set's own code is imported. Errors: DataError, ConfigError."""
    folder = _prepared_folder(name, data_dir)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(folder))
        form = builder.info.file_format
        splits = list(builder.info.splits)
    except Exception as error:
        raise DataError(f"{folder}: the metadata cannot be read ({type(error).__name__}: {error}); {_again(name, data_dir)}") from error
    if form != tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(f"{folder} is prepared as {form and form.value}, not array_record; move it away, then {_command(name, data_dir)}")
    if not splits:
        raise DataError(f"{folder} has no splits; {_again(name, data_dir)}")
    return builder


def data_root(data_dir: str = "") -> Path:
    """Where prepared sets lie: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _prepared_folder(name: str, data_dir: str) -> Path:
    """The folder of the newest prepared version of "name", "name/config", "name:version" or "name/config:version"."""
    match = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::([\d.*]+))?", name)
    if match is None:
        raise ConfigError(f"Tfds name is {name!r}; it must be NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION")
    root = data_root(data_dir)
    base, config, version = match.groups()
    folder = root / base / config if config else root / base
    found = [path.parent for path in folder.glob(f"{version or '*'}/dataset_info.json")]
    if not found and not config:
        found = [path.parent for path in folder.glob(f"*/{version or '*'}/dataset_info.json")]
        configs = sorted({path.parent.name for path in found})
        if len(configs) > 1:
            raise ConfigError(
                f"Tfds({name!r}) is prepared in several configurations; choose one: {', '.join(f'{base}/{c}' for c in configs)}"
            )
    if not found:
        raise DataError(
            f"Tfds({name!r}) is not prepared in {root}{_prepared_there(base, root)}. Prepare it once: {_command(name, data_dir)}"
        )
    return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])


def _prepared_there(base: str, root: Path) -> str:
    names = sorted({path.relative_to(root).parts[0] for pattern in ("*/*/", "*/*/*/") for path in root.glob(pattern + "dataset_info.json")})
    near = did_you_mean(base, [name for name in names if name != base]).removesuffix("?")
    return f", where these are: {', '.join(names)}{near}" if names else ", where no set is (TFDS_DATA_DIR or data_dir says where to look)"


def _command(name: str, data_dir: str) -> str:
    option = f" --data-dir {data_dir}" if data_dir else ""
    return f"`python launch.py prepare {name}{option}` (it needs TensorFlow: pip install 'jaxcnn[prepare]'; training does not)"


def _again(name: str, data_dir: str) -> str:
    return f"remove the set's folder and prepare it again: {_command(name, data_dir)}"


def _fingerprint(info: Any) -> str:
    """Path, length and time of change of a split's files: what its decoded form in the cache depends on. Errors: DataError."""
    paths = sorted({os.path.abspath(part.filename) for part in info.file_instructions})
    try:
        return str([(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths])
    except OSError as error:
        raise DataError(f"{error.filename}: a file of the set is missing ({error.strerror}); prepare the set again") from error


def _place(info: Any, index: int) -> str:
    """The file and record of example `index` of a split."""
    for part in info.file_instructions:
        if index < part.take:
            return f"{part.filename}, record {part.skip + index}"
        index -= part.take
    return f"split {info.name}, example {index}"
