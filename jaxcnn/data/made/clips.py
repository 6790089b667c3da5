"""Clips of a real digit that moves in one of eight directions: to tell which, a network has to see
time.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxcnn.data.dataset import SPLITS
from jaxcnn.data.memory import check_split
from jaxcnn.data.stream import StreamSource
from jaxcnn.errors import ConfigError, DataError

NUM_DIRECTIONS = 8
NAMES = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
SPEEDS = (1.0, 2.0)  # pixels a frame, least and most
SHRINK = 2  # a digit of 28x28 is shown in 14x14


@dataclass(frozen=True)
class MotionClips:
    """Clips "clip" uint8 [frames, H, W, 1], and "label" int32, the direction in steps of 45 degrees
    clockwise from "right".

    A digit, half its size, moves with constant speed in a straight line, all of it always in sight.
    Clip i of a split is a function of
    (seed, split, i): its digit, direction, speed and place. The middle of the path is drawn the
    same way for all directions, so a clip played backwards is one of the opposite direction, as
    likely as itself. With `shuffled` the frames of each clip are put into a random
    order: a control, in which nobody can tell a direction from its opposite, so that the best
    accuracy is 1/2 (the axis of motion stays visible).

    digits: the data set of grey images whose "train" part moves in training and whose "eval" part
        in evaluation.
    num_train, num_eval: clips of a split. image_size: (height, width) of the frames.
    """

    digits: Any
    num_train: int = 20_000
    num_eval: int = 2_000
    frames: int = 8
    image_size: tuple[int, int] = (32, 32)
    shuffled: bool = False
    seed: int = 0

    @property
    def label_names(self) -> tuple[str, ...]:
        return NAMES

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (self.frames, *self.image_size, 1)
        return {
            "clip": jax.ShapeDtypeStruct(shape, np.uint8),
            "label": jax.ShapeDtypeStruct((), np.int32),
        }

    def size(self, split: str) -> int:
        return {"train": self.num_train, "eval": self.num_eval, "test": 0}[check_split(split)]

    def open(self, split: str) -> StreamSource:
        if not self.size(split):
            raise DataError(
                f"MotionClips has no {split!r} clips; it has train and eval "
                f"(num_train={self.num_train}, num_eval={self.num_eval})"
            )
        digits = _halved(self.digits, split)
        room = np.array(self.image_size) - digits.shape[1:3] - (self.frames - 1) * SPEEDS[1]
        if room.min() < 0:
            raise ConfigError(
                f"MotionClips: digits of {digits.shape[1:3]} cannot move for {self.frames} frames "
                f"in {self.image_size}; "
                f"take fewer frames, or an image_size larger by {int(np.ceil(-room.min()))}"
            )

        def read(indices: list[int]) -> list[dict[str, np.ndarray]]:
            return [self._clip(digits, SPLITS.index(split), index) for index in indices]

        return StreamSource(read, self.size(split), self.spec())

    def _clip(self, digits: np.ndarray, split: int, index: int) -> dict[str, np.ndarray]:
        random = np.random.Generator(
            np.random.Philox(key=np.array([self.seed, split], np.uint64), counter=index << 64)
        )
        digit = digits[random.integers(len(digits))]
        label, speed, place = (
            int(random.integers(NUM_DIRECTIONS)),
            random.uniform(*SPEEDS),
            random.uniform(size=2),
        )
        order = random.permutation(self.frames) if self.shuffled else range(self.frames)
        clip = np.zeros((self.frames, *self.image_size, 1), np.uint8)
        for frame, (top, left) in zip(
            order, self._path(label, speed, place, digit.shape), strict=True
        ):
            clip[frame, top : top + digit.shape[0], left : left + digit.shape[1], 0] = digit
        return {"clip": clip, "label": np.asarray(label, np.int32)}

    def _path(
        self, label: int, speed: float, place: np.ndarray, size: tuple[int, ...]
    ) -> np.ndarray:
        """The digit's upper left corner (top, left) in each frame, [frames, 2] int. `place` in [0,
        1]: of the path's middle.
        """
        angle = label * 2 * np.pi / NUM_DIRECTIONS
        time = np.arange(self.frames) - (self.frames - 1) / 2  # the middle of the path is time 0
        offsets = speed * time[:, None] * np.array([np.sin(angle), np.cos(angle)])  # y points down
        # of the fastest, whatever the direction: the middle says nothing about the label
        reach = (self.frames - 1) / 2 * SPEEDS[1]
        middle = reach + place * (np.array(self.image_size) - size - 2 * reach)
        return np.rint(middle + offsets).astype(int)


@functools.lru_cache(maxsize=4)
def _halved(digits: Any, split: str) -> np.ndarray:
    """All digits of a split, each 2x2 pixels averaged: uint8 [N, H / 2, W / 2]."""
    source = digits.open(split)
    image = np.asarray(source.take(np.arange(len(source)))["image"])
    if image.ndim != 4 or image.shape[-1] != 1 or image.dtype != np.uint8:
        raise ConfigError(
            f"MotionClips: digits give images {image.shape} of {image.dtype}; they must be grey, "
            "uint8 [H, W, 1]"
        )
    count, height, width = (image.shape[0], *(length // SHRINK for length in image.shape[1:3]))
    blocks = image[:, : height * SHRINK, : width * SHRINK, 0].reshape(
        count, height, SHRINK, width, SHRINK
    )
    return np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)
