"""A folder of images, one sub-folder a class."""

import functools
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxcnn.data.example import Example, Examples
from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.class_listing import Files, list_labelled
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import image_endings, read_image
from jaxcnn.data.stores import is_elsewhere
from jaxcnn.errors import DataError


@dataclass(frozen=True)
class _Positional:
    """The fields of `Folder` that may be given without their names, in this order."""

    path: str
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    eval_fraction: float = 0.2
    skip_damaged: bool = False
    memory_mib: int = 1024


@dataclass(frozen=True)
class Folder(Annotated, _Positional):
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
    `skip_damaged` (or invalid="skip") all images are decoded once beforehand, and a warning counts
    those left out.
    """

    ENTRIES = ("label",)

    # again, since the base has them by name only
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    eval_fraction: float = 0.2
    memory_mib: int = 1024
    nested: bool = False

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """See `Annotated.parse`."""
        classes, files = self._parts
        if split not in files:
            return None
        found = files[split]
        if self.skip_damaged or self.invalid != "error":
            found = _readable(found, self.channels)

        def make(i: int) -> Example:
            # the size is nobody's business: no label says a place
            return Example(image=Path(found.paths[i]), size=(0, 0), label=int(found.labels[i]))

        return classes, Examples(make, len(found.paths), labels=found.labels)

    @functools.cached_property
    def _parts(self) -> tuple[tuple[str, ...], dict[str, Files]]:
        """The class names, and the files of each part that there is."""
        if is_elsewhere(self.path):
            raise DataError(
                f"{self._where()}: folders of files are read here alone; pack them (launch.py "
                "prepare FOLDER --shards OUT) and read the archives where they are: Shards"
            )
        return list_labelled(
            Path(self.path).expanduser(), image_endings(), nested=self.nested, where=self._where()
        )


def _readable(files: Files, channels: int) -> Files:
    """`files` without those that do not decode."""

    def reason(path: str) -> str:
        try:
            read_image(path, size=None, channels=channels)
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        reasons = list(pool.map(reason, files.paths))
    damaged = [text for text in reasons if text]
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {len(reasons)} images are damaged and left out; the first: "
            f"{damaged[0]}",
            stacklevel=2,
        )
    return files.keep(np.array([not text for text in reasons], bool))
