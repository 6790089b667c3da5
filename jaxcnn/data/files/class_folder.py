"""A folder of images, one sub-folder a class."""

import functools
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxcnn.data.files.images import read_image
from jaxcnn.data.memory import MemorySource, check_split, held_out
from jaxcnn.data.stream import StreamSource, in_memory_if_small
from jaxcnn.errors import DataError

SPLIT_FOLDERS = {
    "train": ("train",),
    "eval": ("eval", "val", "valid", "validation"),
    "test": ("test",),
}
Files = list[tuple[Path, int]]  # path and label, sorted by class and path


@dataclass(frozen=True)
class Folder:
    """Images as "image" uint8 [H, W, channels] and "label" int32: the place of the sub-folder's
    name among the sorted class names.

    Either `path/<class>/**/<image>`, of which `eval_fraction` of each class is held out as "eval";
    or `path/train/<class>/...`, with `path/eval` (or val, valid, validation) and `path/test` beside
    it, where a missing `eval` is held out of `train`. Files are images by their ending; hidden ones
    are ignored. `image_size` is (height, width), see `images.read_image`. Splits of at most
    `memory_mib` MiB are decoded once and live on the device. A damaged image is a DataError naming
    it; with `skip_damaged` all images are decoded once beforehand, and a warning counts those left
    out.
    """

    path: str
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    eval_fraction: float = 0.2
    skip_damaged: bool = False
    memory_mib: int = 1024

    @property
    def label_names(self) -> tuple[str, ...]:
        return self._listing[0]

    @functools.cached_property
    def _listing(self) -> tuple[tuple[str, ...], dict[str, Files]]:
        """The class names, and the files of each split."""
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise DataError(
                f"Folder: {root} is not a folder; it must hold one sub-folder of images per "
                "class, or train/ and eval/ with those"
            )
        roots = {
            split: next((root / name for name in names if (root / name).is_dir()), None)
            for split, names in SPLIT_FOLDERS.items()
        }
        if roots["train"] is None:
            roots = {"train": root}
        train_root = roots["train"]
        assert train_root is not None
        names = tuple(
            sorted(
                entry.name
                for entry in train_root.iterdir()
                if entry.is_dir() and not entry.name.startswith(".")
            )
        )
        files = {
            split: _labelled_files(folder, names)
            for split, folder in roots.items()
            if folder is not None
        }
        if self.skip_damaged:
            files = {split: _readable(found, self.channels) for split, found in files.items()}
        if "eval" not in files:
            held = held_out(np.array([label for _, label in files["train"]]), self.eval_fraction)
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

        labels = np.array([label for _, label in files], np.int32)
        source = StreamSource(read, len(files), self.spec(), columns={"label": labels})
        return in_memory_if_small(source, self.spec(), memory_mib=self.memory_mib)


def _labelled_files(root: Path, names: tuple[str, ...]) -> Files:
    """Image files below the class folders of `root`; the order is the same on every machine."""
    from PIL import Image

    endings = Image.registered_extensions()  # also loads all of Pillow's formats
    strange = sorted(
        entry.name
        for entry in root.iterdir()
        if entry.is_dir() and entry.name not in names and not entry.name.startswith(".")
    )
    if strange:
        raise DataError(
            f"Folder: {root} has sub-folders {strange} that the training part has not; its "
            f"classes are {list(names)}"
        )
    out: Files = []
    for label, name in enumerate(names):
        if not (root / name).is_dir():
            continue  # an evaluation part may lack a class
        paths = (
            path
            for path in (root / name).rglob("*")
            if path.suffix.lower() in endings and not path.name.startswith(".")
        )
        found = sorted(
            (path for path in paths if path.is_file()),
            key=lambda path: path.relative_to(root).as_posix(),
        )
        if not found:
            raise DataError(
                f"Folder: {root / name} holds no image files; remove it, or put images of class "
                f"{name!r} there"
            )
        out += [(path, label) for path in found]
    if not out:
        raise DataError(
            f"Folder: {root} has no sub-folder with images; there must be one per class"
        )
    return out


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
