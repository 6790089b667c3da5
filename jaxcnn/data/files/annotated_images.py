"""The base of the readers that are not yet ported to `annotated.Annotated`."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.images import read_image
from jaxcnn.data.memory import MemorySource, check_split, held_out
from jaxcnn.data.stream import StreamSource, in_memory_if_small
from jaxcnn.errors import DataError


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
