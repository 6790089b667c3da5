"""TensorFlow Datasets, read without TensorFlow: prepared sets in array_record form, by random
access.

A set is prepared once, by `python launch.py prepare NAME`, which does need TensorFlow; see
`commands/prepare.py`.
"""

import functools
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import jax
import numpy as np

from jaxcnn.data.crops import Cropping, croppings
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import decode_image
from jaxcnn.data.files.mask_values import scan_values
from jaxcnn.data.files.tfds_entries import make_example, mask_pixels, value_at
from jaxcnn.data.files.tfds_features import Wanted, check_features, feature_specs
from jaxcnn.data.files.tfds_folder import prepare_again, read_builder, read_info
from jaxcnn.data.memory import MemorySource, check_split
from jaxcnn.data.render import render
from jaxcnn.data.stream import StreamSource, in_memory_if_small
from jaxcnn.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True)
class Tfds(Wanted):
    """An image set of TFDS by name ("mnist", "cats_vs_dogs:4.0.1", "svhn_cropped",
    "imagenet_resized/32x32"); the entries of its examples are those of `Wanted`.

    `train`, `eval`, `test` are TFDS split expressions, such as "train[:90%]"; "" for none.
    `data_dir` is where prepared sets lie: by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    Splits of at most `memory_mib` MiB are decoded once (see `in_memory_if_small`) and live on the
    device; larger ones stream.

    Where the set is not prepared, `spec` and `label_names` come from the set's own code, if that
    works without TensorFlow, and sizes are 0.
    Errors: DataError where the set is not prepared or damaged, ConfigError for a feature or split
    that it has not.
    """

    train: str = "train"
    eval: str = "test"
    test: str = ""
    data_dir: str = ""
    memory_mib: int = 1024

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
        return feature_specs(self, self._info().features)

    def size(self, split: str) -> int:
        info = self._split(split)
        return info.num_examples * self.crops if info is not None else 0

    def open(self, split: str) -> StreamSource | MemorySource:
        read_builder(self.name, self.data_dir)  # the error of a set that is not prepared
        info, spec = self._split(split), self.spec()
        faults = Faults(f"Tfds({self.name!r}), {split}", self.invalid)
        if info is None or not info.num_examples:
            raise DataError(
                f"Tfds({self.name!r}) has no {split!r} examples; set {split}= to a split "
                "expression of the set, such as 'test'"
            )
        read = self._reader(self._expression(split), info, spec, faults)
        drawn = split == "train" and self.crop_area is not None
        streamed = StreamSource(read, self.size(split), spec, read_drawn=read if drawn else None)
        chosen = [getattr(self, field.name) for field in fields(Wanted)]
        key = f"tfds 2 {_fingerprint(info)} {self._expression(split)} {chosen}"
        source = in_memory_if_small(
            streamed,
            spec,
            memory_mib=0 if drawn else self.memory_mib,
            cache_key=key,
            may_keep=lambda: not faults.any,
            where=faults.where,
        )
        faults.warn()
        faults.say_at_once = source is streamed
        return source

    def _reader(
        self, expression: str, info: Any, spec: dict[str, jax.ShapeDtypeStruct], faults: Faults
    ) -> "_Read":
        """A function from indices, and draws of windows, to decoded examples, for StreamSource."""
        builder = read_builder(self.name, self.data_dir)
        try:
            records = builder.as_data_source(
                expression, decoders=_skip_images(builder.info.features)
            )
        except Exception as error:
            raise DataError(
                f"Tfds({self.name!r}): {builder.data_path} cannot be opened ({error}); "
                f"{prepare_again(self.name, self.data_dir)}"
            ) from error
        channels, lock = spec["image"].shape[-1], threading.Lock()

        @functools.cache
        def judge() -> None:
            """Refuse label maps whose values have two meanings, over the whole split."""
            if self.segmentation:
                masks = range(info.num_examples)
                found = scan_values(masks, lambda i: self._mask_pixels(records, i, info))
                self.meaning.judge(found, (), where=f"Tfds({self.name!r}), {expression}")

        def read(indices: list[int], draws: list[int] | None = None) -> list[dict[str, np.ndarray]]:
            with lock:  # once, by the first thread, and not where the split comes from the cache
                judge()
            rows = sorted({index // self.crops for index in indices})
            found = dict(zip(rows, self._records(records, rows, info), strict=True))
            out, at, image = [], -1, np.empty(0)
            crops: Sequence[Cropping | None] = [None] * len(indices)
            if draws is not None and self.crop_area is not None:
                crops = croppings(draws, area=self.crop_area, aspect=self.crop_aspect)
            for index, crop in zip(indices, crops, strict=True):
                row = index // self.crops
                place, file = _place(info, row), value_at(found[row], self.image)
                # crops of one image follow one another where a split is read from end to end
                if row != at:
                    image = decode_image(file, name=place, size=None, channels=channels)
                    at = row
                example = make_example(self, found[row], image, spec, place, index, faults=faults)
                out.append(render(example, spec, faults=faults, crop=crop))
            return out

        return read

    def _mask_pixels(self, records: Any, index: int, info: Any) -> np.ndarray:
        (record,) = self._records(records, [index], info)
        return mask_pixels(self, record, _place(info, index))

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
                        f"{prepare_again(self.name, self.data_dir)}"
                    ) from error
            raise


class _Read(Protocol):
    def __call__(
        self, indices: list[int], draws: list[int] | None = None, /
    ) -> list[dict[str, np.ndarray]]: ...


def _skip_images(features: Any) -> dict[str, Any]:
    """Decoders that leave images as they are stored (but for those in sequences)."""
    import tensorflow_datasets as tfds

    out = {}
    for key, feature in features.items():
        if isinstance(feature, tfds.features.Image):
            out[key] = tfds.decode.SkipDecoding()
        elif isinstance(feature, tfds.features.FeaturesDict):
            out[key] = _skip_images(feature)
    return out


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
