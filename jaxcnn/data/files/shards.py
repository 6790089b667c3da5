"""Pictures in tar archives, in the form of WebDataset: more than a file system likes to hold, here
or in a store elsewhere.
"""

from dataclasses import dataclass

import numpy as np

from jaxcnn.data.example import Example, Examples, Part
from jaxcnn.data.files.annotated import Annotated, Parsed
from jaxcnn.data.files.faults import Faults
from jaxcnn.data.files.tar_index import Index, classes_of, numbers_of, read_index
from jaxcnn.data.stores import find, is_elsewhere

AT_ONCE = 32  # samples that are asked for at once of a store elsewhere


@dataclass(frozen=True)
class _Positional:
    """The fields of `Shards` that may be given without their names, in this order."""

    path: str
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    eval_fraction: float = 0.2


@dataclass(frozen=True)
class Shards(Annotated, _Positional):
    """Samples of tar archives as "image" uint8 [H, W, channels] and "label" int32.

    path: archives, as a pattern (`train-{0000..0127}.tar`, `train-*.tar`), a folder of .tar files
        or a URL of either (s3://, gs://, hf://, …, see `jaxcnn.data.stores`).
    eval_path, test_path: the same of these splits; without eval_path, `eval_fraction` of each class
        is held out.
    image: the ending of the pictures; "" for any that pictures have.
    label: the ending of the file that holds the class, as a number or a name; `json:NAME` for an
        entry of a JSON object.
    classes: their names, in the order of their numbers; () for the different labels, sorted, or for
        the numbers themselves.

    The headers of the archives are read once (of what lies elsewhere all bytes are), and where the
    samples lie is kept in the cache folder as long as no archive changes its name, size or time.
    Then any sample is read by itself: the order of training is that of any other data, not that of
    the archives. A sample without a picture or a label is a DataError, or left out and counted with
    invalid="skip".
    """

    ENTRIES = ("label",)

    # again, since the base has them by name only
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3
    eval_fraction: float = 0.2
    eval_path: str = ""
    test_path: str = ""
    image: str = ""
    label: str = "cls"
    classes: tuple[str, ...] = ()

    @property
    def workers(self) -> int:
        """See `Annotated.workers`; more of what lies elsewhere, which is mostly waited for."""
        return AT_ONCE if is_elsewhere(self.path) else 0

    def parse(self, split: str, names: tuple[str, ...], faults: Faults) -> Parsed | None:
        """See `Annotated.parse`."""
        path = {"train": self.path, "eval": self.eval_path, "test": self.test_path}[split]
        if not path:
            return None
        archives = find(path, ".tar")
        where = f"Shards {path}"
        index = read_index(archives, image=self.image, label=self.label, where=where)
        index = _whole(index, [file.place for file in archives], self.label, faults)
        names = names or classes_of(index.labels, names=self.classes, where=where)
        labels = numbers_of(index.labels, names, where=where)

        def make(i: int) -> Example:
            place = archives[index.archives[i]].place
            part = Part(place, int(index.first[i]), int(index.count[i]))
            name = f"{place}: {index.keys[i].decode('utf-8', 'replace')}"
            return Example(image=part, size=(0, 0), label=int(labels[i]), name=name)

        return names, Examples(make, len(labels), labels=labels)


def _whole(index: Index, places: list[str], label: str, faults: Faults) -> Index:
    """The samples that have a picture and a label."""
    whole = (index.count > 0) & (index.labels != b"")
    for i in np.flatnonzero(~whole):
        missing = "picture" if index.count[i] == 0 else f"label ({label})"
        key = index.keys[i].decode("utf-8", "replace")
        faults.add(
            f"{places[index.archives[i]]}: sample {key!r} has no {missing}", kind=f"no {missing}"
        )
    return Index(*(column[whole] for column in index))
