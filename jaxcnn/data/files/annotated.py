"""What all readers of annotated pictures share. A format only parses (`Annotated.parse`); names,
splits, what is held out, limits, crops, shapes and arrays follow from its examples.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import numpy as np

from jaxcnn.data.crops import Cropping, check_cropping, croppings
from jaxcnn.data.dataset import SPLITS
from jaxcnn.data.example import (
    OBJECT_ENTRIES,
    Example,
    Examples,
    crop_objects,
    entry_specs,
    with_companions,
)
from jaxcnn.data.files.checks import limit_objects
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.memory import MemorySource, check_split, held_out
from jaxcnn.data.render import render
from jaxcnn.data.stream import StreamSource, in_memory_if_small
from jaxcnn.errors import ConfigError, DataError

CROP_ENTRIES = ("points", "label")
WITHOUT_PLACES = ("label", "segmentation")  # a window of a picture has them, too
Parsed = tuple[tuple[str, ...], Sequence[Example]]


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """Base of data sets of pictures with labels. A format says which `ENTRIES` it can give, and
    parses.

    image_size: (height, width) that all pictures and their masks are resized to, without regard to
        the aspect ratio, so that boxes and points in [0, 1] stay as they are; see
        `images.read_image`.
    entries: those to give besides "image" uint8 [H, W, channels], of the format's `ENTRIES`, with
        what belongs to them (see `jaxcnn.data.example.COMPANIONS`); () for all of them. Names,
        shapes and meanings: `jaxcnn.core.batch.ENTRIES`.
    max_items: N, room for so many objects or polygons; 0 for the most that a picture has. Of more,
        the largest are kept, as a fault; ignored ones fill what is left of the rows.
    crops: each object is an example of its own: the picture cut to `margin` times its box, widened
        to the aspect ratio of image_size and black outside the picture, as for pose (Xiao et al.,
        "Simple baselines for human pose estimation and tracking", 2018, section 3). entries are
        then "points" (float32 [J, 2] and points_mask [J]; objects without a labelled point are left
        out) or "label" int32.
    eval_fraction: share of the training examples held out as "eval" where no eval part is named.
    invalid: "error" refuses the first label that breaks a rule (DataError); "skip" leaves out the
        least that is faulty, and a warning counts it; "clip" does the same and cuts boxes to the
        picture. See `faults.Faults`.
    memory_mib: splits of at most so many MiB are decoded once and live on the device; larger ones
        stream.
    crop_area: in training each visit of a picture shows a window of it, resized to image_size: its
        least and its largest share of the picture, such as (0.08, 1.0); see `crops.cropping`. Cut
        from the picture as it is stored, while it is decoded, so that the training examples stream.
        A function of (seed, step, place in the batch). Evaluation and prediction see whole
        pictures. For entries without places ("label") and "segmentation". None: none.
    crop_aspect: the least and the largest width over height of such a window; None for (3/4, 4/3).

    Where the fields say all shapes (`max_items` is not 0, …), `spec` reads no file.
    """

    ENTRIES: ClassVar[tuple[str, ...]] = ()

    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    entries: tuple[str, ...] = ()
    max_items: int = 0
    crops: bool = False
    margin: float = 1.25
    eval_fraction: float = 0.2
    invalid: str = "error"
    memory_mib: int = 1024
    crop_area: tuple[float, float] | None = None
    crop_aspect: tuple[float, float] | None = None

    def __post_init__(self):
        name = type(self).__name__
        crops = tuple(
            entry for entry in CROP_ENTRIES if "points" in self.ENTRIES or entry == "label"
        )
        if self.crops and "boxes" not in self.ENTRIES:
            raise ConfigError(f"{name}: crops cut out objects, and this format has no boxes")
        where, known = (f"{name} with crops", crops) if self.crops else (name, self.ENTRIES)
        strange = [entry for entry in self.entries if entry not in known]
        if strange or (self.crops and not self.entries):
            raise ConfigError(
                f"{where}: entries={self.entries!r}; they must be some of {', '.join(known)}"
            )
        if not self.margin > 0:
            raise ConfigError(
                f"{name}: margin is {self.margin}; a crop is so many times as large as the "
                "object's box, such as 1.25"
            )
        if self.max_items < 0 or (self.max_items and not {"boxes", "polygons"} & set(self.ENTRIES)):
            raise ConfigError(
                f"{name}: max_items is {self.max_items}; it is room for so many objects or "
                "polygons, 0 for as many as there are"
            )

        check_cropping(self.crop_area, self.crop_aspect, where=name)
        placed = [entry for entry in self.wanted if entry not in WITHOUT_PLACES]
        if self.crop_area and (placed or self.crops):
            found = ", ".join(placed) or "objects (crops)"
            raise ConfigError(
                f"{name}: crop_area draws windows of pictures, with which {found} would have to "
                "move; augment.crop_resized moves them, or let entries be of "
                f"{', '.join(WITHOUT_PLACES)} alone"
            )

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """The names of the classes, and the examples of a split; None where no such part is named.

        names: of the classes in the training split, which is parsed first; () while that is.
        faults: takes note of labels that break a rule. Errors: DataError.
        """
        raise NotImplementedError

    @property
    def wanted(self) -> tuple[str, ...]:
        """The entries to give, without those that belong to them."""
        return self.entries or self.ENTRIES

    def wants(self, *names: str) -> bool:
        """Whether one of these entries is to be given."""
        return bool(set(names) & set(self.wanted))

    @property
    def needs_objects(self) -> bool:
        """Whether the examples need objects."""
        return self.crops or self.wants(*OBJECT_ENTRIES)

    @property
    def needs_shapes(self) -> bool:
        """Whether the objects need shapes."""
        return self.wants("instance_masks", "segmentation")

    @functools.cached_property
    def _read(self) -> tuple[tuple[str, ...], dict[str, Examples]]:
        names: tuple[str, ...] = ()
        items: dict[str, Examples] = {}
        for split in SPLITS:
            faults = Faults(f"{self._where()}, {split}", self.invalid)
            parsed = self.parse(split, names, faults)
            if parsed is None:
                continue
            names = parsed[0] if split == "train" else names
            items[split] = self._limited(parsed[1], faults)
            faults.warn()
        if not items.get("train"):
            raise DataError(
                f"{self._where()} has no examples for training; there must be at least one image "
                "with its labels"
            )
        if "eval" not in items:
            items["train"], items["eval"] = self.hold_out(items["train"], names)
        if self.crops:  # only now, so that the objects of a picture stay on one side
            items = {split: Examples.of(self._crop(found)) for split, found in items.items()}
        return names, items

    def hold_out(
        self, items: Sequence[Example], names: tuple[str, ...]
    ) -> tuple[Examples, Examples]:
        """The examples for training and, evenly spread (over the classes, where each has a label),
        those for evaluation."""
        items = Examples.of(items)
        labels = np.zeros(len(items), np.int32) if items.labels is None else items.labels
        held = held_out(labels, self.eval_fraction, names=names, where=self._where())
        return items.keep(~held), items.keep(held)

    def _crop(self, items: Iterable[Example]) -> list[Example]:
        pointed = "points" in self.wanted
        return [
            part
            for item in items
            for part in crop_objects(item, self.image_size, margin=self.margin, pointed=pointed)
        ]

    def _limited(self, examples: Sequence[Example], faults: Faults) -> Examples:
        """`examples` with at most `max_items` objects each, if that is not 0."""

        def limit(example: Example) -> Example:
            if example.objects is None:
                return example
            found = limit_objects(example.objects, self.max_items, name=example.name, faults=faults)
            return replace(example, objects=found)

        if self.max_items and not self.crops:
            examples = [limit(example) for example in examples]
        return Examples.of(examples)

    def _where(self) -> str:
        return f"{type(self).__name__} {getattr(self, 'path', '')}".rstrip()

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.words if self.wanted == ("captions",) else self._read[0]

    @property
    def workers(self) -> int:
        """Threads that read and decode; 0 for as many as there are cores."""
        return 0

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary of captions."""
        return ()

    @property
    def token_names(self) -> tuple[str, ...]:
        """See `jaxcnn.data.algebra.agreement.check_tokens`."""
        return self.words if self.wants("captions") else ()

    def size(self, split: str) -> int:
        return len(self._read[1].get(check_split(split), ()))

    def axis(self, letter: str) -> int:
        """The length of an axis of an entry, by the letters of `jaxcnn.core.batch.Entry.axes`:
        known from the fields, or else counted in the examples."""
        fixed = {"H": self.image_size[0], "W": self.image_size[1], "C": self.channels}
        fixed["N"] = self.max_items
        return fixed.get(letter) or self._counted[letter]

    @functools.cached_property
    def _counted(self) -> dict[str, int]:
        """Lengths of axes: the most that an example has."""
        out = dict.fromkeys("NJPL", 1)
        for example in (example for items in self._read[1].values() for example in items):
            if example.objects is not None:
                out["N"] = max(out["N"], len(example.objects))
                out["J"] = max(out["J"], example.objects.points.shape[1])
            if example.polygons is not None:
                out["N"] = max(out["N"], len(example.polygons.corners))
                out["P"] = max(out["P"], example.polygons.corners.shape[1])
            out["L"] = max(out["L"], len(example.text))
        return out

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        names = with_companions(self.wanted, crops=self.crops)
        return entry_specs(names, self.axis, rows=not self.crops)

    def open(self, split: str) -> StreamSource | MemorySource:
        if not self.size(split):
            there = ", ".join(name for name, items in self._read[1].items() if items)
            raise DataError(
                f"{self._where()} has no {split!r} examples (splits with examples: {there}); name "
                "that part or set eval_fraction"
            )
        items, spec = self._read[1][split], self.spec()
        faults = Faults(f"{self._where()}, {split}", self.invalid)
        alphabet = "".join(self.label_names) if "text" in spec else ""
        vocabulary = self.words if "captions" in spec else ()

        def made(i: int, crop: Cropping | None = None) -> dict[str, np.ndarray]:
            return render(
                items[i], spec, faults=faults, alphabet=alphabet, vocabulary=vocabulary, crop=crop
            )

        def read_drawn(indices: list[int], draws: list[int]) -> list[dict[str, np.ndarray]]:
            assert self.crop_area is not None
            crops = croppings(draws, area=self.crop_area, aspect=self.crop_aspect)
            return [made(i, crop) for i, crop in zip(indices, crops, strict=True)]

        drawn = split == "train" and self.crop_area is not None
        streamed = StreamSource(
            lambda indices: [made(i) for i in indices],
            len(items),
            spec,
            columns={} if items.labels is None else {"label": items.labels},
            workers=self.workers,
            read_drawn=read_drawn if drawn else None,
        )
        memory_mib = 0 if drawn else self.memory_mib
        source = in_memory_if_small(streamed, spec, memory_mib=memory_mib, where=faults.where)
        faults.warn()
        faults.say_at_once = source is streamed
        return source
