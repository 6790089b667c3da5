"""Random crops of real photographs, alone or with the small picture they are to be restored from;
and photographs as a whole.

What is trained on is never evaluated on: the photographs of the splits are disjoint.
"""

import functools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.data.dataset import SPLITS
from jaxcnn.data.made.photos import EVAL_BACKGROUNDS, PHOTOS, TRAIN_BACKGROUNDS, read_photo
from jaxcnn.data.memory import MemorySource, check_split
from jaxcnn.data.stream import StreamSource
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics.image_quality import resize_bicubic

TRAIN_PHOTOS = (*TRAIN_BACKGROUNDS, "camera", "cell", "coins", "ihc", "moon", "retina")
EVAL_PHOTOS = EVAL_BACKGROUNDS
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class PhotoCrops:
    """Crops "image" uint8 [*image_size, channels]; with `scale`, "target" is the crop and "image"
    float32 is `scale` times smaller.

    Crop i of a split is a function of (seed, split, i): photograph, place, and in training one of
    the eight orientations (four if it is not square). The small picture is the crop's bicubic
    reduction (see `jaxcnn.metrics.image_quality.resize_bicubic`), not rounded to bytes.

    train, eval: photographs that are cropped: names of `jaxcnn.data.made.photos.PHOTOS`, image
        files, or folders of them, all kept decoded in the host's memory (DIV2K: 6.6 GB). "$NAME"
        stands for an environment variable.
    test: photographs taken whole, of one size, as benchmarks are; cut to a multiple of `scale`.
        Those whose variable is not set are left out, so that a benchmark may be absent.
    reductions: shares of its size at which a training photograph is cropped; a reduced one has
        sharper edges (the scaling of Dong, Loy, Tang, "Accelerating the super-resolution
        convolutional neural network", 2016, section 4.1).
    image_size: (height, width) of a training crop, eval_size: of an evaluation crop. num_train,
    num_eval: crops of a split.
    """

    train: tuple[str, ...] = TRAIN_PHOTOS
    eval: tuple[str, ...] = EVAL_PHOTOS
    test: tuple[str, ...] = ()
    image_size: tuple[int, int] = (48, 48)
    eval_size: tuple[int, int] = (128, 128)
    scale: int | None = None
    reductions: tuple[float, ...] = (1.0,)
    channels: int = 3
    num_train: int = 20_000
    num_eval: int = 60
    seed: int = 0

    def __post_init__(self):
        for name in ("train", "eval", "test"):
            photos = getattr(self, name)
            if not isinstance(photos, tuple) or not all(isinstance(photo, str) for photo in photos):
                raise ConfigError(
                    f"PhotoCrops: {name} is {photos!r}; give a tuple of names or paths, such as "
                    "('coffee', 'photos/')"
                )
        seen = set(self.train)
        if shared := sorted(seen & {*self.eval, *self.test}):
            raise ConfigError(
                f"PhotoCrops: {', '.join(shared)} would be trained on and evaluated on; take it "
                "out of `train`"
            )
        if self.scale is not None and self.scale < 2:
            raise ConfigError(
                f"PhotoCrops: scale is {self.scale}; it is at least 2, or None for crops alone"
            )
        if not self.reductions or not all(0 < share <= 1 for share in self.reductions):
            raise ConfigError(
                f"PhotoCrops: reductions are {self.reductions}; give shares of the size in (0, "
                "1], such as (1.0, 0.5)"
            )
        for name in ("image_size", "eval_size"):
            size = getattr(self, name)
            if any(length % (self.scale or 1) or length < 1 for length in size):
                raise ConfigError(
                    f"PhotoCrops: {name} is {size}; both must be positive multiples of scale "
                    f"{self.scale}"
                )

    @property
    def label_names(self) -> tuple[str, ...]:
        return ()

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Of a training example; those of the other splits are of another size."""
        return self._spec(self.image_size)

    def size(self, split: str) -> int:
        if check_split(split) == "test":
            return len(list(_files(self.test, optional=True)))
        return self.num_train if split == "train" else self.num_eval

    def open(self, split: str) -> StreamSource:
        size = self.size(split)
        if not size:
            raise DataError(
                f"PhotoCrops has no {split!r} pictures: {getattr(self, split)} are none, or name "
                "environment variables that are not set"
            )
        photos = _read(tuple(_files(getattr(self, split), optional=split == "test")), self.channels)
        if split == "train":
            photos = tuple(
                (name, _reduced(photo, share))
                for share in self.reductions
                for name, photo in photos
            )
        shape = (
            _whole_size(photos, self.scale or 1)
            if split == "test"
            else self.image_size
            if split == "train"
            else self.eval_size
        )
        for name, photo in photos:
            if photo.shape[0] < shape[0] or photo.shape[1] < shape[1]:
                raise DataError(
                    f"{name}: {photo.shape[0]} x {photo.shape[1]} pixels are too few for crops of "
                    f"{shape}; leave it out"
                )
        shrinking = [_shrinking(length, self.scale) for length in shape] if self.scale else None

        def read(indices: list[int]) -> Iterator[dict[str, np.ndarray]]:
            for index in indices:
                crop = (
                    photos[index][1][: shape[0], : shape[1]]
                    if split == "test"
                    else self._crop(photos, split, shape, index)
                )
                yield (
                    {"image": crop}
                    if shrinking is None
                    else {"image": _shrunk(crop, *shrinking), "target": crop}
                )

        return StreamSource(lambda indices: list(read(indices)), size, self._spec(shape))

    def _spec(self, size: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
        crop = jax.ShapeDtypeStruct((*size, self.channels), np.uint8)
        if self.scale is None:
            return {"image": crop}
        return {
            "image": jax.ShapeDtypeStruct(
                (size[0] // self.scale, size[1] // self.scale, self.channels), np.float32
            ),
            "target": crop,
        }

    def _crop(self, photos: tuple, split: str, shape: tuple[int, int], index: int) -> np.ndarray:
        key = np.array([self.seed, SPLITS.index(split)], np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=index << 64))
        _, photo = photos[random.integers(len(photos))]
        top, left = (int(random.integers(photo.shape[axis] - shape[axis] + 1)) for axis in (0, 1))
        crop = photo[top : top + shape[0], left : left + shape[1]]
        if split == "train":
            down, across, turned = random.integers(0, 2, 3)
            crop = crop[:: -1 if down else 1, :: -1 if across else 1]
            crop = crop.swapaxes(0, 1) if turned and shape[0] == shape[1] else crop
        return crop


@dataclass(frozen=True)
class WholePhotos:
    """Photographs as a whole, "image" uint8 [*image_size, channels], resized without regard to the
    aspect ratio; the same in both splits.

    For a picture that is itself what is optimized (style transfer). photos: as `PhotoCrops.train`.
    """

    photos: tuple[str, ...] = ("astronaut",)
    image_size: tuple[int, int] = (128, 128)
    channels: int = 3

    @property
    def label_names(self) -> tuple[str, ...]:
        return ()

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {"image": jax.ShapeDtypeStruct((*self.image_size, self.channels), np.uint8)}

    def size(self, split: str) -> int:
        return 0 if check_split(split) == "test" else len(list(_files(self.photos)))

    def open(self, split: str) -> MemorySource:
        if not self.size(split):
            raise DataError(
                f"WholePhotos has no {split!r} pictures; its photos {self.photos} are those of "
                "train and eval"
            )
        images = [
            resize_photo(name, self.image_size, channels=self.channels)
            for name in _files(self.photos)
        ]
        return MemorySource({"image": np.stack(images)})


def resize_photo(name: str, size: tuple[int, int], *, channels: int = 3) -> np.ndarray:
    """A photograph (as `PhotoCrops.train` names them) at (height, width): uint8 [*size, channels],
    bicubic. Errors: as `read_photo`.
    """
    (path,) = _files((name,))
    return _resized(read_photo(path, channels=channels), size)


def _files(photos: tuple[str, ...], *, optional: bool = False) -> Iterator[str]:
    """The names and image files that `photos` stand for, folders listed in the order of their
    names.
    """
    for photo in photos:
        path = os.path.expandvars(photo)
        if "$" in path:
            if optional:
                continue
            raise DataError(
                f"photo {photo!r}: the environment variable in it is not set; set it to the "
                "folder of the pictures"
            )
        if photo in PHOTOS or Path(path).suffix:
            yield path
        elif Path(path).is_dir():
            found = sorted(str(p) for p in Path(path).iterdir() if p.suffix.lower() in SUFFIXES)
            if not found:
                raise DataError(
                    f"{path}: there are no pictures in this folder; it must hold files of "
                    f"{', '.join(SUFFIXES)}"
                )
            yield from found
        else:
            yield photo  # read_photo says what is wrong with it


@functools.lru_cache(maxsize=8)
def _read(names: tuple[str, ...], channels: int) -> tuple[tuple[str, np.ndarray], ...]:
    """(name, uint8 [H, W, channels]) of each photograph."""
    with ThreadPoolExecutor() as pool:
        return tuple(
            zip(
                names,
                pool.map(functools.partial(read_photo, channels=channels), names),
                strict=True,
            )
        )


def _reduced(photo: np.ndarray, share: float) -> np.ndarray:
    return (
        photo
        if share == 1
        else _resized(photo, (round(photo.shape[0] * share), round(photo.shape[1] * share)))
    )


def _resized(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = resize_bicubic(jnp.asarray(photo, jnp.float32), size)
    return np.asarray(jnp.clip(jnp.round(image), 0.0, 255.0)).astype(np.uint8)


def _whole_size(photos: tuple, scale: int) -> tuple[int, int]:
    """The one size of all photographs, cut to a multiple of scale."""
    sizes = {photo.shape[:2] for _, photo in photos}
    if len(sizes) > 1:
        raise DataError(
            f"test photographs must be of one size, found {sorted(sizes)} in "
            f"{[name for name, _ in photos]}; test them one by one"
        )
    height, width = sizes.pop()
    return height // scale * scale, width // scale * scale


@functools.lru_cache(maxsize=8)
def _shrinking(length: int, scale: int) -> np.ndarray:
    """The matrix [length / scale, length] of a bicubic reduction along one axis: resampling is
    linear, and each axis is its own.
    """
    return np.asarray(resize_bicubic(jnp.eye(length)[..., None], (length // scale, length)))[..., 0]


def _shrunk(crop: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The bicubic reduction of a crop, float32 in about [0, 1]. uint8 [H, W, C] -> [H / scale, W /
    scale, C]
    """
    value = crop.astype(np.float32) / 255
    return np.einsum("ih,hwc,jw->ijc", rows, value, columns, optimize=True).astype(np.float32)
