"""What the readers of annotated images share: what becomes of labels that break a rule, sizes,
boxes, and a fixed number of objects.

A label is refused by `Faults`: it is either an error at once or left out and counted, as the
reader's field `invalid` says.
"""

import functools
import io
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data.files.images import read_image
from jaxcnn.data.memory import MemorySource, check_split, held_out
from jaxcnn.data.stream import StreamSource, in_memory_if_small
from jaxcnn.errors import ConfigError, DataError

INVALID = ("error", "skip")


class Faults:
    """Labels that break a rule: with invalid="error" the first is a DataError, with "skip" they are
    left out and counted.

    `where` says whose labels they are. `say_at_once`: warn while counting, whenever the count has
    grown tenfold. Callable from several threads.
    """

    def __init__(self, where: str, invalid: str):
        if invalid not in INVALID:
            raise ConfigError(
                f"{where}: invalid is {invalid!r}; 'error' refuses labels that break a rule, "
                "'skip' leaves them out"
            )
        self.where, self.invalid, self.say_at_once = where, invalid, False
        self.count, self.first = 0, ""
        self._next = 1
        self._lock = threading.Lock()

    def add(self, message: str) -> None:
        """Take note of a label that breaks a rule; `message` names the file, the object, the value
        and the rule. Errors: DataError.
        """
        if self.invalid == "error":
            raise DataError(
                f"{message}. Repair it, or leave such labels out and count them: invalid='skip'"
            )
        with self._lock:
            self.count, self.first = self.count + 1, self.first or message
            due = self.say_at_once and self.count >= self._next
            self._next *= 10 if due else 1
        if due:
            self.warn()

    def warn(self) -> None:
        """Say how many labels were left out so far, if any were."""
        if self.count:
            warnings.warn(
                f"{self.where}: {self.count} labels break a rule and are left out; the first: "
                f"{self.first}",
                stacklevel=3,
            )


@dataclass(frozen=True, kw_only=True)
class AnnotatedImages:
    """Base of data sets of image files with labels. A subclass says which examples there are
    (`read`), how one is made (`decode`), `spec`.

    image_size: (height, width) that all images and their masks are resized to, without regard to
        the aspect ratio, so that boxes and points in [0, 1] stay as they are; see
        `images.read_image`.
    eval_fraction: share of the training examples held out as "eval" where no eval part is named.
    invalid: "error" refuses the first label that breaks a rule (DataError); "skip" leaves it out,
        and a warning counts them.
    memory_mib: splits of at most so many MiB are decoded once and live on the device; larger ones
    stream.

    Where the fields say all shapes (`max_items` is not 0, …), `spec` reads no file.
    """

    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    eval_fraction: float = 0.2
    invalid: str = "error"
    memory_mib: int = 1024

    def read(self) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
        """Class names, and what `decode` needs of each example of each split that is named. Errors:
        DataError.
        """
        raise NotImplementedError

    def decode(self, item: Any, faults: Faults) -> dict[str, np.ndarray]:
        """One example. Errors: DataError, by `faults` too."""
        raise NotImplementedError

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """See `dataset.Dataset`."""
        raise NotImplementedError

    @functools.cached_property
    def _read(self) -> tuple[tuple[str, ...], dict[str, list[Any]]]:
        names, items = self.read()
        if not items["train"]:
            raise DataError(
                f"{self._where()} has no examples for training; there must be at least one image "
                "with its labels"
            )
        if "eval" not in items:
            items["train"], items["eval"] = self.hold_out(items["train"])
        return names, items

    def hold_out(self, items: list[Any]) -> tuple[list[Any], list[Any]]:
        """The items for training and, evenly spread, those for evaluation."""
        chosen = held_out(np.zeros(len(items), np.int32), self.eval_fraction)
        train, held = (
            [item for item, out in zip(items, chosen, strict=True) if out == side]
            for side in (False, True)
        )
        return train, held

    def _where(self) -> str:
        return f"{type(self).__name__} {getattr(self, 'path', '')}".rstrip()

    @property
    def label_names(self) -> tuple[str, ...]:
        return self._read[0]

    def size(self, split: str) -> int:
        return len(self._read[1].get(check_split(split), ()))

    def open(self, split: str) -> StreamSource | MemorySource:
        if not self.size(split):
            there = ", ".join(name for name, items in self._read[1].items() if items)
            raise DataError(
                f"{self._where()} has no {split!r} examples (splits with examples: {there}); name "
                "that part or set eval_fraction"
            )
        items, spec, faults = (
            self._read[1][split],
            self.spec(),
            Faults(f"{self._where()}, {split}", self.invalid),
        )

        def read(indices: list[int]) -> list[dict[str, np.ndarray]]:
            return [self.decode(items[index], faults) for index in indices]

        streamed = StreamSource(read, len(items), spec)
        source = in_memory_if_small(streamed, spec, memory_mib=self.memory_mib)
        faults.warn()
        faults.say_at_once = source is streamed
        return source

    def image_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The entry that all have."""
        return {"image": jax.ShapeDtypeStruct((*self.image_size, self.channels), np.uint8)}

    def read_image(self, path: Path) -> np.ndarray:
        """The picture, resized. Errors: DataError."""
        return read_image(path, size=self.image_size, channels=self.channels)


def check_entries(where: str, entries: tuple[str, ...], known: tuple[str, ...]) -> None:
    """ConfigError unless all `entries` are known, and there are any."""
    strange = [name for name in entries if name not in known]
    if strange or not entries:
        raise ConfigError(f"{where}: entries={entries!r}; they must be some of {', '.join(known)}")


def check_image_file(
    path: Path, faults: Faults, *, declared: tuple[float, float] | None = None
) -> tuple[int, int] | None:
    """The (height, width) of an image file as `images.read_image` sees it, upright, from its
    header; None (and a fault) where it is missing or no image, or not of the `declared` size."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            # the orientations with height and width exchanged
            turned = image.getexif().get(274, 1) >= 5
    except FileNotFoundError:
        return faults.add(f"{path}: there is no such image file")
    except (
        Exception
    ) as error:  # on damaged bytes Pillow raises almost anything, see `images.decode_image`
        return faults.add(f"{path}: cannot be read as an image ({type(error).__name__}: {error})")
    size = (width, height) if turned else (height, width)
    if declared is not None and declared != size:
        hint = ", its EXIF orientation applied" if turned else ""
        return faults.add(
            f"{path}: is {size} (height, width){hint}; its annotation says {declared}, so that "
            "the labels would not fit"
        )
    return size


def image_files(root: Path) -> dict[str, Path]:
    """The image files below a folder by their path without ending, in an order that is the same on
    every machine. Errors: DataError.
    """
    from PIL import Image

    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; it must hold the image files")
    endings = Image.registered_extensions()  # also loads all of Pillow's formats
    paths = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file()
    ]
    out: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix()):
        stem = path.relative_to(root).with_suffix("").as_posix()
        if stem in out:
            raise DataError(
                f"{path}: {out[stem].name} has the same name but for the ending; labels could "
                "belong to either: rename one"
            )
        out[stem] = path
    return out


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image uint8 [H, W, 1 or 3] at another size, by the same filter as `images.read_image`. ->
    uint8 [*size, C]
    """
    from PIL import Image

    if image.shape[:2] == tuple(size):
        return image
    pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)).reshape(
        *size, image.shape[-1]
    )


def read_index_mask(file: bytes | str | os.PathLike, *, name: str) -> np.ndarray:
    """The numbers of an image file of labels, int32 [H, W]: the index of a palette image (as Pascal
    VOC's), or the grey value.

    A colour image whose channels are all equal counts as grey. Errors: DataError naming the file.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            mode, pixels = image.mode, np.asarray(image)
    except FileNotFoundError:
        raise DataError(f"{name}: there is no such file") from None
    except (
        Exception
    ) as error:  # on damaged bytes Pillow raises almost anything, see `images.decode_image`
        raise DataError(
            f"{name}: cannot be read as an image ({type(error).__name__}: {error}); repair or "
            "remove it"
        ) from error
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "biu":
        raise DataError(
            f"{name}: is a mask of mode {mode}; it must hold one number a pixel (a palette or "
            "grey PNG). Where colours stand for classes, "
            "write their numbers instead"
        )
    return pixels.astype(np.int32)


def resize_nearest(grids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks or label maps [..., H, W] at another size: each new pixel takes the old one under its
    centre. -> [..., *size]
    """
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, grids.shape[-2:], strict=True)
    )
    return grids[..., rows[:, None], columns]


def check_boxes(
    boxes: np.ndarray, *, slack: Any, name: Callable[[int], str], faults: Faults
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n, 4] (y0, x0, y1, x1) in [0, 1] cut to the image, float32, and which of them keep the
    rules, [n] bool.

    A box has finite corners, y0 < y1 and x0 < x1, and lies in the image but for `slack`, a share of
    (height, width) that is rounded off. `name(i)` names the file and object of box i.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    kept = np.zeros(len(boxes), bool)
    reach = np.broadcast_to(np.asarray(slack, np.float64), (2,))
    reach = np.concatenate([reach, reach])
    for i, box in enumerate(boxes):
        clipped = np.clip(box, 0.0, 1.0)
        shown = f"box (y0, x0, y1, x1) = {np.round(box, 4).tolist()} as shares of the image"
        if not np.isfinite(box).all():
            faults.add(f"{name(i)}: {shown} is not finite")
        elif box[2] <= box[0] or box[3] <= box[1]:
            faults.add(f"{name(i)}: {shown} is empty; y0 < y1 and x0 < x1 must hold")
        elif (
            (np.abs(box - clipped) > reach).any()
            or clipped[2] <= clipped[0]
            or clipped[3] <= clipped[1]
        ):
            faults.add(f"{name(i)}: {shown} lies outside the image; corners lie in [0, 1]")
        else:
            kept[i] = True
    return np.clip(np.nan_to_num(boxes), 0.0, 1.0).astype(np.float32), kept


def choose_largest(boxes: np.ndarray, rows: int, *, name: str, faults: Faults) -> np.ndarray:
    """Which of boxes [n, 4] fill `rows` rows, [at most rows] int64 in their order: all, or (a
    fault) only the largest.
    """
    if len(boxes) <= rows:
        return np.arange(len(boxes))
    faults.add(
        f"{name}: has {len(boxes)} objects; max_items={rows} is room for {rows}, so that only the "
        "largest would be kept: raise it"
    )
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return np.sort(np.argsort(-area, kind="stable")[:rows])


def pad_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """`rows` [n, ...] followed by zeros. -> [count, ...]"""
    out = np.zeros((count, *rows.shape[1:]), rows.dtype)
    out[: len(rows)] = rows
    return out
