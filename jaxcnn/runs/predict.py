"""What a run's model says of pictures and arrays, and the pictures with it drawn on them."""

import glob
import itertools
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.protocols import Tree
from jaxcnn.data.files.images import read_image
from jaxcnn.errors import ConfigError, DataError, ResourceError
from jaxcnn.inspect.drawing import draw
from jaxcnn.runs.answers import Row
from jaxcnn.runs.evaluation import predict_step

DRAWN = ("objects", "segmentation", "points", "image", "text")  # what of a row is worth a picture
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

Pixels = Callable[[], np.ndarray]  # reads a picture, uint8 [H, W, C]
Image = str | os.PathLike[str]  # a file, a folder or a glob
Inputs = Image | Iterable[Image] | np.ndarray | jax.Array | Mapping[str, np.ndarray]


def predict(predictor: "Predictor", inputs: Inputs) -> list[Row]:
    """See `jaxcnn.runs.open.Run.predict`."""
    if isinstance(inputs, Mapping):
        named = cast(Mapping[str, np.ndarray], inputs)
        return [row for row, _ in predictor.arrays(dict(named))]
    if isinstance(inputs, np.ndarray | jax.Array):
        return [row for row, _ in predictor.arrays({predictor.names[0]: np.asarray(inputs)})]
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    return [row for row, _ in predictor.files(find_images(paths))]


def find_images(paths: Iterable[Image]) -> list[Path]:
    """The files that paths, folders and globs stand for, folders in the order of names. Of a folder
    all pictures below it, by their suffix; hidden files and folders (.ipynb_checkpoints, ._x.png)
    are what a system keeps there, not pictures.

    Errors: DataError for a folder or a pattern without pictures.
    """
    found: list[Path] = []
    for path in map(str, paths):
        if os.path.isdir(path):
            inside = sorted(
                p
                for p in Path(path).rglob("*")
                if p.suffix.lower() in SUFFIXES
                and not any(part.startswith(".") for part in p.relative_to(path).parts)
                and not p.is_dir()
            )
            if not inside:
                raise DataError(f"{path}: there are no pictures in this folder")
            found += inside
        elif glob.has_magic(path) and not os.path.exists(path):
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise DataError(f"{path}: matches no file")
            found += map(Path, matches)
        else:
            found.append(Path(path))
    return found


def picture_of(e: Experiment) -> tuple[str, tuple[int, int] | None, int]:
    """(name of the model's one input, the (height, width) that pictures are resized to, or None
    for a model of any size, channels). Errors: ConfigError for a model that takes no picture.
    """
    (name, *others), spec = inputs_of(e), e.data.spec()
    shape = spec[name].shape
    if others or len(shape) != 3 or shape[-1] not in (1, 3):
        raise ConfigError(
            f"pictures will not do: this model takes {', '.join([name, *others])}, "
            f"{name} {list(shape)}; give predict({{name: array, …}}), or --input NAME=FILE.npy"
        )
    return name, None if e.task.any_size else shape[:2], shape[-1]


def inputs_of(e: Experiment) -> tuple[str, ...]:
    """The model's inputs, but for those that it takes in training alone."""
    return tuple(n for n in e.task.inputs if n not in e.task.training_inputs)


class Predictor:
    """A run's model, compiled once, for inputs in batches of `batch_size`.

    The class names and the preparation of pictures (size, channels, resizing) are those that the
    run recorded when it was trained. `tta`: several views of each picture, see `jaxcnn.core.views`.
    """

    def __init__(self, e: Experiment, state: Tree, *, batch_size: int, tta: str | None = None):
        self._e, self._state, self._size = e, state, batch_size
        self._names, self._spec = tuple(e.data.label_names), e.data.spec()
        self._step = predict_step(e, state, tta=tta)
        self.names = inputs_of(e)

    def arrays(self, inputs: dict[str, np.ndarray]) -> Iterator[tuple[Row, Pixels]]:
        """(row, a function that gives its first input) of each row.

        Errors: ConfigError for inputs that are missing.
        """
        missing = [name for name in self.names if name not in inputs]
        if missing:
            raise ConfigError(
                f"this model takes {', '.join(self.names)}: {', '.join(missing)} is missing; give "
                "predict({name: array, …}), or --input NAME=FILE.npy"
            )
        unknown = [name for name in inputs if name not in self.names]
        if unknown:
            raise ConfigError(f"this model takes {', '.join(self.names)}, not {', '.join(unknown)}")
        ready = {name: self._canonical(name, array) for name, array in inputs.items()}
        if len({len(array) for array in ready.values()}) > 1:
            raise ConfigError(f"inputs of {[len(a) for a in ready.values()]} rows: must be as many")
        first = ready[self.names[0]]
        for start in range(0, len(first), self._size):
            part = {name: array[start : start + self._size] for name, array in ready.items()}
            for place, row in enumerate(self._rows(part), start):
                yield row, partial(first.__getitem__, place)

    @property
    def picture(self) -> tuple[str, tuple[int, int] | None, int]:
        """See `picture_of`."""
        return picture_of(self._e)

    def files(self, paths: list[Path]) -> Iterator[tuple[Row, Pixels]]:
        """({"path": path, …}, a function that reads the picture's pixels) of each picture; {"path",
        "error"} for one that cannot be read.

        Of a batch the pictures are held in the size of the model, and in their own size one at a
        time, so that memory does not grow with their number.
        """
        name, size, channels = self.picture
        count = 1 if size is None else self._size
        for start in range(0, len(paths), count):
            part, ready, faults = paths[start : start + count], [], {}
            for place, path in enumerate(part):
                try:
                    ready.append(read_image(path, size=size, channels=channels))
                except DataError as error:
                    faults[place] = str(error)
            rows = iter(self._rows({name: self._canonical(name, np.stack(ready))}) if ready else ())
            for place, path in enumerate(part):
                pixels = partial(read_image, path, size=None, channels=channels)
                if place in faults:
                    yield {"path": str(path), "error": faults[place]}, pixels
                else:
                    yield {"path": str(path), **next(rows)}, pixels

    def _rows(self, batch: dict[str, np.ndarray]) -> list[Row]:
        """One described row for each row of a batch, which is padded to its full size."""
        count = len(next(iter(batch.values())))
        size = count if self._e.task.any_size else self._size
        for name in self._e.task.training_inputs:  # known in training alone: zeros stand for it
            spec = self._spec[name]
            batch = batch | {name: np.zeros((count, *spec.shape), spec.dtype)}
        rows = np.minimum(np.arange(size), count - 1)
        padded = {name: array[rows] for name, array in batch.items()}
        results = jax.device_get(self._step(self._state, padded))
        return [
            self._e.task.describe(jax.tree.map(lambda x, i=i: x[i], results), names=self._names)
            for i in range(count)
        ]

    def _canonical(self, name: str, array: np.ndarray) -> np.ndarray:
        """An input in the dtype of training. Errors: DataError for another shape or range."""
        array, spec = np.asarray(array), self._spec[name]
        if array.shape[1:] != spec.shape and not (self._e.task.any_size and array.ndim == 4):
            raise DataError(
                f"{name} has shape {list(array.shape)}; this run was trained on [N, "
                f"{', '.join(map(str, spec.shape))}]"
            )
        if spec.dtype == np.uint8 and array.dtype.kind == "f":
            if array.size and not (array.min() >= 0 and array.max() <= 1):
                raise DataError(
                    f"{name} is {array.dtype} with values in [{array.min():g}, {array.max():g}]; "
                    "floats lie in [0, 1], bytes are uint8"
                )
            return np.round(array * 255).astype(np.uint8)
        if array.dtype == np.uint8 and spec.dtype.kind == "f":
            return (array / 255).astype(spec.dtype)
        ready = array.astype(spec.dtype)
        if spec.dtype.kind in "iu" and not np.array_equal(ready, array):
            raise DataError(
                f"{name} is {array.dtype} with values in [{array.min()}, {array.max()}]; this run "
                f"was trained on {spec.dtype}, which cannot hold them"
            )
        return ready


def draw_row(row: Row, pixels: Pixels, folder: Path, *, taken: set[str]) -> Row:
    """The row as the command line gives it: "image" is the path, "drawing" the PNG in `folder` on
    which what can be drawn is drawn. `taken`: names of drawings that were given away; two names
    that a file system may take for one (X and x, é in one or two characters) are one here.

    Errors: ResourceError where the drawing cannot be written, DataError where the picture is gone.
    """
    out = {key: value for key, value in row.items() if key not in ("path", "image")}
    out = {"image": str(row.get("path", "")), **out}
    if not any(key in row for key in DRAWN):
        return out
    place = place_for(folder, Path(out["image"] or "image").stem, taken=taken)
    save(lambda: draw(pixels(), row), place)
    return out | {"drawing": str(place)}


def place_for(folder: Path, stem: str, *, taken: set[str]) -> Path:
    """Where a drawing goes, FOLDER/STEM.png or STEM_1 and so on, never twice to one name."""
    name = stem
    for n in itertools.count(1):
        if _folded(name) not in taken:
            break
        name = f"{stem}_{n}"
    taken.add(_folded(name))
    return folder / f"{name}.png"


def save(drawing: Callable[[], Any], place: Path, *, option: str = "--out") -> None:
    """Make a drawing (of Pillow) and write it. option: of the command line, that names the folder.
    Errors: ResourceError where it cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        drawing().save(place)
    except OSError as error:
        raise ResourceError(
            f"{place}: cannot be written ({error.strerror or error}); choose another place by "
            f"{option}"
        ) from error


def _folded(name: str) -> str:
    """The name as a file system has it that knows no case and composes accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
