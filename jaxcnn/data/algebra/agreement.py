"""Whether data sets can stand beside one another: the same entries, classes by the same names."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn.core.batch import Batch
from jaxcnn.data.algebra.sources import Spec, changed, column
from jaxcnn.data.dataset import SPLITS, Dataset, Source
from jaxcnn.errors import ConfigError, DataError, did_you_mean, shown

RENUMBERED = ("label", "label_b", "box_labels")  # entries that hold numbers of classes
MEMBERS = ("label_names", "spec", "size", "open")


def check_dataset(who: str, value: Any) -> None:
    """ConfigError for what is no Dataset. Nothing is opened."""
    found = () if isinstance(value, type) else dir(value)  # names: a property may read files
    if missing := [name for name in MEMBERS if name not in found]:
        raise ConfigError(f"{who}: {shown(value)} is not a Dataset; it lacks {', '.join(missing)}")


def check_split_of(who: str, split: Any) -> str:
    """ConfigError for what is none of "train", "eval" and "test"."""
    if split not in SPLITS:
        raise ConfigError(
            f"{who}: split is {split!r}; it must be one of {', '.join(SPLITS)}"
            f"{did_you_mean(str(split), SPLITS)}"
        )
    return split


def same_spec(who: str, datasets: Sequence[Dataset]) -> dict[str, jax.ShapeDtypeStruct]:
    """The spec that all have. Errors: DataError naming what differs."""
    first = dict(datasets[0].spec())
    for other in datasets[1:]:
        spec = other.spec()
        differing = [n for n in {**first, **spec} if _form(first, n) != _form(spec, n)]
        if differing:
            shown = ", ".join(
                f"{n!r} is {_form(first, n) or 'absent'} and {_form(spec, n) or 'absent'}"
                for n in differing
            )
            raise DataError(
                f"{who}: the examples differ: {shown}; give all the same image_size, channels and "
                "entries, or change one with Mapped"
            )
    return first


def _form(spec: Spec, name: str) -> str:
    return f"{np.dtype(spec[name].dtype)}{list(spec[name].shape)}" if name in spec else ""


def renumbering(who: str, names: tuple[str, ...], other: Dataset) -> np.ndarray | None:
    """What each class number of `other` is among `names`, [K] int32, matched by name; None where
    the two number alike.

    Errors: DataError for a name that `names` lacks, and where one of the two has no names.
    """
    found = tuple(other.label_names)
    if found == names[: len(found)] and bool(found) == bool(names):
        return None
    if not found or not names:
        raise DataError(
            f"{who}: one data set names its classes {list(names or found)}, another has no names, "
            "so that nobody knows whether its numbers mean the same; give both label_names"
        )
    if strange := [name for name in found if name not in names]:
        raise DataError(
            f"{who}: the classes {strange[:10]} are unknown to the first data set, which has "
            f"{list(names)[:20]}{did_you_mean(strange[0], names)}; rename them, or put the data "
            "set that has all classes first"
        )
    return np.array([names.index(name) for name in found], np.int32)


def check_tokens(who: str, datasets: Sequence[Dataset]) -> None:
    """Errors: DataError where numbers of tokens mean one thing in the first data set and another in
    a later one, as far as they say it: `token_names`."""
    first, *others = (tuple(getattr(data, "token_names", ())) for data in datasets)
    for found in others:
        if first and found != first[: len(found)]:
            raise DataError(
                f"{who}: the first data set numbers the tokens {list(first[:8])}, …, another "
                f"{list(found[:8])}, …, so that the same number means two words; read them as "
                "parts of one data set (path, eval_path, test_path), or give both one vocabulary"
            )


def check_renumbered(who: str, spec: Spec) -> None:
    """Errors: DataError for entries that hold classes in a form that is not renumbered, and for
    tokens where no entry holds classes: then it is they that have the names."""
    held = ["labels", "labels_mask", "segmentation"]
    held += [] if any(name in spec for name in (*RENUMBERED, *held)) else ["text", "captions"]
    if wrong := [name for name in held if name in spec]:
        raise DataError(
            f"{who}: the classes have the same names in another order, and {wrong} cannot be "
            "renumbered; give both data sets one order of classes (one alphabet, one vocabulary)"
        )


def open_matched(who: str, names: tuple[str, ...], data: Dataset, split: str) -> Source:
    """The examples of a split, with classes numbered as `names` numbers them."""
    source, numbers = data.open(split), renumbering(who, names, data)
    if numbers is None:
        return source
    check_renumbered(who, data.spec())

    def renumber(batch: Batch) -> Batch:
        new = {n: numbers[np.asarray(x)] for n, x in batch.items() if n in RENUMBERED}
        if "box_labels" in new and "boxes" in batch:  # rows of padding stay 0
            new["box_labels"] = np.where((batch["boxes"] != 0).any(-1), new["box_labels"], 0)
        return {**batch, **new}

    label = column(source, "label")
    return changed(source, renumber, columns={} if label is None else {"label": numbers[label]})
