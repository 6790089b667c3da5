"""Answers and explanations for pictures that come from several threads: those that wait for the
same are one batch.
"""

import functools
import io
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import numpy as np

from jaxcnn.data.files.images import decode_image
from jaxcnn.errors import ConfigError, DataError, did_you_mean
from jaxcnn.inspect.drawing import draw
from jaxcnn.inspect.explained import MAPS
from jaxcnn.runs.answers import Row
from jaxcnn.runs.explain import Drawing, Explainer
from jaxcnn.runs.open import Run
from jaxcnn.runs.predict import DRAWN, Predictor
from jaxcnn.runs.question import OF_LAYERS, Question, find_target

GATHER_SECONDS = 0.005  # how long the first picture of a batch waits for others
ANSWER_SECONDS = 120.0
MOST_SIDE = 1600  # pixels of what is drawn on


Item = TypeVar("Item")
Result = TypeVar("Result")
Asked = tuple[np.ndarray, Callable[[], np.ndarray], int | None]  # array, its pixels, class
Explained = tuple[Row, Drawing]


class Batches(Generic[Item, Result]):
    """Calls `work` (items -> a result each) with what waits, at most `most` items at a time."""

    def __init__(self, work: Callable[[list[Item]], list[Result]], *, most: int):
        self._work, self._most = work, most
        self._waiting: queue.SimpleQueue[tuple[Item, Future[Result]]] = queue.SimpleQueue()
        self.sizes: list[int] = []  # how many items each batch had
        threading.Thread(target=self._run, daemon=True).start()

    def of(self, item: Item) -> Result:
        """The result of one item. Errors: those of `work`; TimeoutError."""
        answer: Future[Result] = Future()
        self._waiting.put((item, answer))
        return answer.result(timeout=ANSWER_SECONDS)

    def _run(self) -> None:
        while True:
            some = [self._waiting.get()]
            until = time.monotonic() + GATHER_SECONDS
            while len(some) < self._most and (left := until - time.monotonic()) > 0:
                try:
                    some.append(self._waiting.get(timeout=left))
                except queue.Empty:
                    break
            self.sizes.append(len(some))
            try:
                results = self._work([item for item, _ in some])
            except Exception as error:  # of this batch alone; the next may do
                for _, answer in some:
                    answer.set_exception(error)
            else:
                for (_, answer), result in zip(some, results, strict=True):
                    answer.set_result(result)


class Answers:
    """What a model says of pictures."""

    def __init__(self, predictor: Predictor, *, batch_size: int):
        self.name, self.size, self.channels = predictor.picture
        self._predictor = predictor
        self.batches = Batches(self._predict, most=batch_size if self.size else 1)

    def of(self, picture: bytes) -> Row:
        """What the model says of the bytes of a picture file. Errors: DataError."""
        return self.batches.of(
            decode_image(picture, name="the picture", size=self.size, channels=self.channels)
        )

    def drawn(self, picture: bytes, row: Row) -> bytes | None:
        """A PNG of the picture with its row drawn on it; None where there is nothing to draw."""
        if not any(key in row for key in DRAWN):
            return None
        return png(draw(_shown(picture, self.channels), row))

    def _predict(self, pictures: list[np.ndarray]) -> list[Row]:
        return [row for row, _ in self._predictor.arrays({self.name: np.stack(pictures)})]


class Explanations:
    """What in pictures speaks for a class. `methods`: those of MAPS that this model allows, the
    default first; `why_not`: why the others do not go, a sentence.
    """

    def __init__(self, run: Run, answers: Answers, *, batch_size: int):
        self._run, self._channels, self._size = run, answers.channels, batch_size
        self._ready: dict[str, tuple[Explainer, Batches[Asked, Explained]]] = {}
        self._lock = threading.Lock()
        self.methods: tuple[str, ...] = ()
        self.names: tuple[str, ...] = ()
        self.why_not = ""
        for probe in ("gradient", "gradcam"):  # of these one needs a layer with maps, too
            try:
                self.names = self._asked(probe)[0].names
            except ConfigError as error:
                self.why_not = str(error)
                break
            of_layer = probe in OF_LAYERS
            self.methods += tuple(m for m in MAPS if (m in OF_LAYERS) == of_layer)
        self.methods = tuple(m for m in MAPS if m in self.methods)

    def of(
        self, picture: bytes, *, method: str | None = None, target: str | None = None
    ) -> tuple[Row, bytes]:
        """(row as of `explain --json`, PNG) of the bytes of a picture file; target: a class by name
        or number, None the predicted one.

        Errors: DataError for what is no picture; ConfigError for a method or class there is not.
        """
        method = method or (self.methods or tuple(MAPS))[0]
        if method not in MAPS:
            known = ", ".join(MAPS)
            raise ConfigError(
                f"method {method!r}: must be one of {known}{did_you_mean(method, tuple(MAPS))}"
            )
        if method not in self.methods:
            raise ConfigError(f"method {method!r} does not go: {self.why_not}")
        explainer, batches = self._asked(method)
        label = None if target is None else find_target(target, explainer.names)
        size = explainer.size
        array = decode_image(picture, name="the picture", size=size, channels=self._channels)
        pixels = functools.partial(_shown, picture, self._channels)
        row, drawing = batches.of((array, pixels, label))
        if "error" in row:
            raise DataError(row["error"])
        return row, png(drawing())

    def _asked(self, method: str) -> tuple[Explainer, Batches[Asked, Explained]]:
        """Made when it is first asked for: most are never."""
        with self._lock:
            if method not in self._ready:
                explainer = self._run.explainer(Question(method), batch_size=self._size)
                work = functools.partial(_explain, explainer)
                self._ready[method] = explainer, Batches(work, most=self._size)
            return self._ready[method]


def _explain(explainer: Explainer, items: list[Asked]) -> list[Explained]:
    arrays, pixels, labels = zip(*items, strict=True)
    return explainer.answers(np.stack(arrays), pixels, labels)


def _shown(picture: bytes, channels: int) -> np.ndarray:
    """The pixels that are drawn on, uint8 [H, W, C], of a large picture fewer."""
    from PIL import Image

    pixels = decode_image(picture, name="the picture", size=None, channels=channels)
    if max(pixels.shape[:2]) <= MOST_SIDE:
        return pixels
    image = as_image(pixels)
    image.thumbnail((MOST_SIDE, MOST_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def as_image(pixels: np.ndarray) -> Any:
    """Pixels uint8 [H, W, 1 or 3] as a picture of Pillow."""
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def png(picture: Any) -> bytes:
    """A picture of Pillow as the bytes of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
