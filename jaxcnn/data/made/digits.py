"""The embedded default: 1,797 real handwritten digits that come with scikit-learn, so that a first
run needs no network.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998 (its test part): 8x8 counts of ink in 0..16 from 32x32 bitmaps of 13 writers.
"""

import functools
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data.memory import MemorySource, check_split, held_out, num_held_out
from jaxcnn.errors import ConfigError, DataError

NUM_DIGITS = 1797
EVAL_FRACTION = 0.2
INK_BOX = 20 / 28  # MNIST's digits fill 20x20 of 28x28 (LeCun et al. 1998, section III.A)


@dataclass(frozen=True)
class Digits:
    """Digits as "image" uint8 [H, W, 1] in 0..255, bright ink on 0, and "label" int32 in 0..9.

    The digit is scaled bilinearly to 20/28 of `image_size` (height, width) and centred, as in
    MNIST. A fifth of each class is held out as
    "eval"; there is no "test". At least 8x8; below 12x12 the digit shrinks under its own 8x8.
    """

    image_size: tuple[int, int] = (28, 28)

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple("0123456789")

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "image": jax.ShapeDtypeStruct((*self.image_size, 1), np.uint8),
            "label": jax.ShapeDtypeStruct((), np.int32),
        }

    def size(self, split: str) -> int:
        num_eval = num_held_out(NUM_DIGITS, EVAL_FRACTION)
        return {"train": NUM_DIGITS - num_eval, "eval": num_eval, "test": 0}[check_split(split)]

    def open(self, split: str) -> MemorySource:
        if not self.size(split):
            raise DataError(f"Digits has no {split!r} split; it has train, eval")
        if min(self.image_size) < 8:
            raise ConfigError(
                f"Digits: image_size is {self.image_size}; the digits are 8x8, so height and "
                "width must be at least 8"
            )
        image, label = _digits(self.image_size)
        chosen = held_out(label, EVAL_FRACTION) == (split == "eval")
        return MemorySource({"image": image[chosen], "label": label[chosen]})


@functools.lru_cache(maxsize=2)
def _digits(image_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """All digits in scikit-learn's order: image [1797, H, W, 1] uint8, label [1797] int32."""
    from PIL import Image

    counts_of_all, label = _counts()
    height, width = (round(length * INK_BOX) for length in image_size)
    top, left = (image_size[0] - height) // 2, (image_size[1] - width) // 2
    out = np.zeros((NUM_DIGITS, *image_size, 1), np.uint8)
    for canvas, counts in zip(out, counts_of_all, strict=True):
        small = Image.fromarray(np.round(counts * (255 / 16)).astype(np.uint8))
        canvas[top : top + height, left : left + width, 0] = np.asarray(
            small.resize((width, height), Image.Resampling.BILINEAR)
        )
    return out, label


def _counts() -> tuple[np.ndarray, np.ndarray]:
    """Ink counts [1797, 8, 8] in 0..16 and labels [1797] int32.

    The file is read directly where it lies: importing scikit-learn takes longer than all else
    before the first training step.
    """
    spec = find_spec("sklearn")
    folders = [] if spec is None else spec.submodule_search_locations or []
    for path in (Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders):
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int32)
    from sklearn.datasets import load_digits  # another version may keep its file elsewhere

    bunch: Any = load_digits()
    return bunch["images"], bunch["target"].astype(np.int32)
