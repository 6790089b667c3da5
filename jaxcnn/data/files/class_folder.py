"""A folder of images, one sub-folder a class."""

import functools
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxcnn.data.files.class_listing import Files, list_labelled
from jaxcnn.data.files.images import image_endings, read_image
from jaxcnn.data.memory import MemorySource, check_split, held_out
from jaxcnn.data.stream import StreamSource, in_memory_if_small
from jaxcnn.errors import DataError


@dataclass(frozen=True)
class Folder:
    """Images as "image" uint8 [H, W, channels] and "label" int32: the place of the sub-folder's
    name among the sorted class names.

    Either `path/<class>/**/<image>`, of which `eval_fraction` of each class is held out as "eval";
    or `path/train/<class>/...`, with `path/eval` (or val, valid, validation, dev) and `path/test`
    beside it, in any case of letters, where a missing `eval` is held out of `train`. Files are
    images by their ending; what systems leave (hidden files and folders, __MACOSX, Thumbs.db) is
    ignored, links are followed. A single class, and classes that hold sub-folders only, are a
    DataError: they are mostly another folder than was meant; `nested` says that they are not.
    `image_size` is (height, width), see `images.read_image`. Splits of at most `memory_mib` MiB are
    decoded once and live on the device. A damaged image is a DataError naming it; with
    `skip_damaged` all images are decoded once beforehand, and a warning counts those left out.
    """

    path: str
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    eval_fraction: float = 0.2
    skip_damaged: bool = False
    memory_mib: int = 1024
    nested: bool = False

    @property
    def label_names(self) -> tuple[str, ...]:
        return self._listing[0]

    @functools.cached_property
    def _listing(self) -> tuple[tuple[str, ...], dict[str, Files]]:
        """The class names, and the files of each split."""
        names, files = list_labelled(
            Path(self.path).expanduser(),
            image_endings(),
            nested=self.nested,
            where=f"Folder {self.path}",
        )
        if self.skip_damaged:
            files = {split: _readable(found, self.channels) for split, found in files.items()}
        if "eval" not in files:
            labels = np.array([label for _, label in files["train"]], np.int32)
            where = f"Folder {self.path}"
            held = held_out(labels, self.eval_fraction, names=names, where=where)
            files["eval"] = [entry for entry, out in zip(files["train"], held, strict=True) if out]
            files["train"] = [
                entry for entry, out in zip(files["train"], held, strict=True) if not out
            ]
        return names, files

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (*self.image_size, self.channels)
        return {
            "image": jax.ShapeDtypeStruct(shape, np.uint8),
            "label": jax.ShapeDtypeStruct((), np.int32),
        }

    def size(self, split: str) -> int:
        return len(self._listing[1].get(check_split(split), ()))

    def open(self, split: str) -> StreamSource | MemorySource:
        if not self.size(split):
            there = ", ".join(name for name, found in self._listing[1].items() if found)
            raise DataError(
                f"Folder {self.path} has no {split!r} images (splits with images: {there}); add a "
                "sub-folder or eval_fraction"
            )
        files = self._listing[1][split]

        def read(indices: list[int]) -> list[dict[str, np.ndarray]]:
            chosen = [files[index] for index in indices]
            return [
                {
                    "image": read_image(path, size=self.image_size, channels=self.channels),
                    "label": np.asarray(label, np.int32),
                }
                for path, label in chosen
            ]

        return in_memory_if_small(
            StreamSource(read, len(files), self.spec()), self.spec(), memory_mib=self.memory_mib
        )


def _readable(files: Files, channels: int) -> Files:
    """`files` without those that do not decode."""

    def reason(entry: tuple[Path, int]) -> str:
        try:
            read_image(entry[0], size=None, channels=channels)
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        reasons = list(pool.map(reason, files))
    damaged = [text for text in reasons if text]
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {len(files)} images are damaged and left out; the first: "
            f"{damaged[0]}",
            stacklevel=2,
        )
    return [entry for entry, text in zip(files, reasons, strict=True) if not text]
