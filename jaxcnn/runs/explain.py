"""What a run's model looks at: explanations of pictures, each answered by itself, and drawn.

The methods are pure functions of `jaxcnn.inspect` (attribution, class_activation, features, dream);
this module hands them a run's network, its layers and classes by name, and files.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.memory import Fitting
from jaxcnn.core.protocols import Tree
from jaxcnn.data.files.images import read_image
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.inspect import dream, explained, features, heatmap, taps
from jaxcnn.inspect.explained import MAPS
from jaxcnn.runs.answers import Row
from jaxcnn.runs.predict import Pixels
from jaxcnn.runs.question import Question, find_target, names_of

Step = Callable[..., Tree]  # of pictures, compiled
Drawing = Callable[[], Any]  # makes a picture of Pillow
MOST_CHANNELS = 16  # of features and patches that are shown unless others are asked for
PATCHES = 8  # of each channel


class Explainer:
    """A run's model, asked one question; compiled once, for pictures in batches of `batch_size`.

    Errors: ConfigError for a model that takes no single picture, a layer, class or channel that it
    does not have, and a task without scores where the method needs one.
    """

    def __init__(
        self, e: Experiment, state: Tree, question: Question, *, batch_size: int = 16, seed: int = 0
    ):
        self._e, self._state, self.question, self._size = e, state, question, batch_size
        self._key = jax.random.key(seed)
        _, self._shape = explained.picture_of(e)
        self._network = explained.network(e, state)
        self._example = jnp.zeros((1, *self._shape), jnp.float32)
        self.layer: str | None = None
        if question.of_layer:
            self.layer = taps.choose_layer(self._network, self._example, question.layer)
            count = taps.spatial_layers(self._network, self._example)[self.layer][-1]
            dream.check_channels(question.channels, count, layer=self.layer)
            self.channels = question.channels or tuple(range(min(count, MOST_CHANNELS)))
            self.left_out = 0 if question.channels else max(0, count - MOST_CHANNELS)
        self.names: tuple[str, ...] = ()
        self._target: int | None = None
        if question.of_class:
            scores, _ = jax.eval_shape(lambda x: e.task.explained(self._network(x)), self._example)
            self.names = names_of(e, scores.shape[1])
            if question.target is not None:
                self._target = find_target(question.target, self.names)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that pictures are resized to."""
        return self._shape[:2]

    # ---- maps of arrays

    def maps(
        self, network: taps.Network, images: jax.Array, target: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Of pictures float32 [B, H, W, C] in [0, 1] and the classes to be explained, int32 [B],
        below 0 the predicted one: (maps [B, H, W] float32, those classes [B] int32, their scores
        [B] float32). Pure.
        """
        target = jnp.where(target < 0, explained.predicted(self._e, network, images), target)
        score = explained.target_score(self._e, network, target)
        found = MAPS[self.question.method](self._key, score, images, self.layer)
        return found, target, score(images)

    def _compiled(self, function: Callable[..., Tree]) -> Step:
        """A function of the network and arrays as one of arrays; the state is an argument of
        what is compiled, not constants in it.
        """
        step = Fitting(
            lambda state, *x: function(explained.network(self._e, state), *x),
            "the explanation",
            "choose smaller pictures",
        )
        return partial(step, self._state)

    @cached_property
    def _map_step(self) -> Step:
        return self._compiled(self.maps)

    def _map(self, images: jax.Array, targets: Sequence[int | None] = ()) -> Tree:
        """`maps` of a full batch; the first `targets` are those of its first pictures."""
        asked = [self._target if target is None else target for target in targets]
        asked += [self._target] * (len(images) - len(asked))
        numbers = [-1 if target is None else target for target in asked]
        return self._map_step(images, jnp.asarray(numbers, jnp.int32))

    def arrays(self, images: np.ndarray) -> np.ndarray:
        """Maps float32 [N, H, W] of pictures [N, H, W, C], uint8 or float in [0, 1], in the size of
        training. Errors: DataError for others; ConfigError for a method without maps.
        """
        if self.question.method not in MAPS:
            raise ConfigError(
                f"{self.question.method} gives no map of a picture; take {', '.join(MAPS)}, or the "
                "functions of jaxcnn.inspect"
            )
        ready, parts = self._prepared(images), []
        for start in range(0, len(ready), self._size):
            part = ready[start : start + self._size]
            parts.append(np.asarray(self._map(_padded(part, self._size))[0])[: len(part)])
        return np.concatenate(parts) if parts else np.zeros((0, *self._shape[:2]), np.float32)

    def answers(
        self, images: np.ndarray, pixels: Sequence[Pixels], targets: Sequence[int | None]
    ) -> list[tuple[Row, Drawing]]:
        """What `files` gives by a method of MAPS, of 1 to `batch_size` pictures as `arrays` takes
        them; drawn on what `pixels` gives of each. targets: the class of each by its number; None:
        the question's.
        """
        found = jax.device_get(self._map(_padded(self._prepared(images), self._size), targets))
        each = [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(images))]
        return [self._mapped({}, own, one) for own, one in zip(each, pixels, strict=True)]

    def _prepared(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        if images.shape[1:] != self._shape:
            raise DataError(
                f"pictures have shape {list(images.shape)}; this run was trained on [N, "
                f"{', '.join(map(str, self._shape))}]"
            )
        if images.dtype == np.uint8:
            return (images / np.float32(255)).astype(np.float32)
        ready = images.astype(np.float32)
        if ready.size and not (ready.min() >= 0 and ready.max() <= 1):
            raise DataError(
                f"pictures are {images.dtype} with values in [{ready.min():g}, {ready.max():g}]; "
                "floats lie in [0, 1], bytes are uint8"
            )
        return ready

    # ---- files

    def files(self, paths: list[Path]) -> Iterator[tuple[Row, Drawing]]:
        """(row, a function that draws it) of each picture; a row {"path", "error"} for one that
        cannot be read, whose drawing is not to be asked for. Of "filters", of "patches", and of
        "dream" without pictures there is one row for all.
        """
        if self._shape[-1] not in (1, 3):
            raise ConfigError(
                f"explain: the model takes pictures of {self._shape[-1]} channels, which no file "
                "holds; take the functions of jaxcnn.inspect with arrays"
            )
        method = self.question.method
        if method == "filters":
            yield self._filters()
        elif method == "patches":
            yield from self._patches(paths)
        elif method == "dream" and not paths:
            start = dream.noise(self._key, (1, *self._shape))
            yield self._dreamt({}, np.asarray(self._dream()(start))[0])
        else:
            yield from self._each(paths)

    def _each(self, paths: list[Path]) -> Iterator[tuple[Row, Drawing]]:
        method = self.question.method
        if method in MAPS:
            step, answer = self._map, self._mapped
        elif method == "features":
            step, answer = self._compiled(self._features), self._featured
        else:
            step, answer = self._dream(), self._dreamt
        for part in self._batches(paths):
            results = None
            if part.images is not None:
                results = jax.device_get(step(_padded(part.images, self._size)))
            for i, (path, fault) in enumerate(zip(part.paths, part.faults, strict=True)):
                if fault:
                    yield {"path": str(path), "error": fault}, _nothing
                else:
                    own = jax.tree.map(lambda x, place=part.places[i]: x[place], results)
                    yield answer({"path": str(path)}, own)

    def _batches(self, paths: list[Path]) -> Iterator["_Part"]:
        for start in range(0, len(paths), self._size):
            part = _Part(paths[start : start + self._size])
            ready: list[np.ndarray] = []
            for path in part.paths:
                part.places.append(len(ready))
                try:
                    ready.append(read_image(path, size=self._shape[:2], channels=self._shape[-1]))
                    part.faults.append("")
                except DataError as error:
                    part.faults.append(str(error))
            if ready:
                part.images = self._prepared(np.stack(ready))
            yield part

    def _mapped(
        self, row: Row, result: tuple[np.ndarray, ...], pixels: Pixels | None = None
    ) -> tuple[Row, Drawing]:
        values, label, score = result[0], int(result[1]), float(result[2])
        if not np.isfinite(values).all():
            whose = row.get("path", "the picture")
            return row | {
                "error": f"{whose}: its map is not finite; did the run diverge?"
            }, _nothing
        place = np.unravel_index(int(values.argmax()), values.shape)
        name, method = self.names[label], self.question.method
        row = row | {
            "method": method,
            "label": label,
            "name": name,
            "score": score,
            **({"layer": self.layer} if self.layer else {}),
            "least": float(values.min()),
            "most": float(values.max()),
            "peak": [(p + 0.5) / s for p, s in zip(place, values.shape, strict=True)],
        }
        layer = f", layer {self.layer}" if self.layer else ""
        row["text"] = f"{method} of {name} (score {score:.4g}){layer}"
        if not values.any():
            row["text"] += ": 0 everywhere, nothing here speaks for it"
        own = pixels or partial(read_image, row["path"], size=None, channels=self._shape[-1])
        return row, lambda: heatmap.overlay(own(), values)

    def _features(self, network: taps.Network, images: jax.Array) -> jax.Array:
        assert self.layer is not None
        maps = taps.layer_output(network, images, layer=self.layer)
        return maps[..., jnp.asarray(self.channels)]

    def _featured(self, row: Row, maps: np.ndarray) -> tuple[Row, Drawing]:
        row = row | {"method": "features", **self._of_channels(), "shape": list(maps.shape[:2])}
        height, width = maps.shape[:2]
        row["text"] = f"{len(self.channels)} maps {height}x{width} of layer {self.layer}" + (
            f" ({self.left_out} more by --channel)" if self.left_out else ""
        )
        tiles = [heatmap.stretched(maps[..., k]) for k in range(maps.shape[-1])]
        return row, lambda: heatmap.grid(heatmap.folded(tiles), side=96)

    def _of_channels(self) -> Row:
        return {"layer": self.layer, "channels": list(self.channels), "left_out": self.left_out}

    # ---- one drawing for all

    def _filters(self) -> tuple[Row, Drawing]:
        name, kernel = features.first_filters(self._network, self._example)
        weights = np.asarray(kernel)
        tiles = [heatmap.filter_tile(weights[..., k]) for k in range(weights.shape[-1])]
        row: Row = {"method": "filters", "layer": name, "shape": list(weights.shape)}
        row["text"] = f"{weights.shape[-1]} filters {weights.shape[0]}x{weights.shape[1]} of {name}"
        if weights.shape[2] not in (1, 3):
            row["text"] += f", the mean over {weights.shape[2]} inputs"
        return row, lambda: heatmap.grid(heatmap.folded(tiles))

    def _patches(self, paths: list[Path]) -> Iterator[tuple[Row, Drawing]]:
        """Faulty pictures first, then the patches of the others."""
        step = self._compiled(lambda network, x: features.best_places(self._features(network, x)))
        found: list[features.Best] = []
        good: list[Path] = []
        for part in self._batches(paths):
            for path, fault in zip(part.paths, part.faults, strict=True):
                if fault:
                    yield {"path": str(path), "error": fault}, _nothing
                else:
                    good.append(path)
            if part.images is not None:
                best = jax.device_get(step(_padded(part.images, self._size)))
                found.append(jax.tree.map(lambda x, n=len(part.images): x[:n], best))
        if not good:
            return
        all_of: features.Best = jax.tree.map(lambda *x: np.concatenate(x), *found)
        order = np.argsort(-np.asarray(all_of.value), axis=0, kind="stable")[:PATCHES]  # [P, K]
        assert self.layer is not None
        view = taps.layer_view(self._network, self._example, layer=self.layer)
        rows, tiles = [], []
        for k, channel in enumerate(self.channels):
            line = []
            for i in order[:, k]:
                place = int(all_of.row[i, k]), int(all_of.column[i, k])
                spot = features.seen_pixels(view, place, self._shape[:2])
                image = read_image(good[i], size=self._shape[:2], channels=self._shape[-1])
                line.append(image[spot])
                rows.append(
                    {
                        "channel": channel,
                        "path": str(good[i]),
                        "place": list(place),
                        "value": float(all_of.value[i, k]),
                        "pixels": [[s.start, s.stop] for s in spot],
                    }
                )
            tiles.append(line)
        row: Row = {"method": "patches", **self._of_channels(), "patches": rows}
        row["text"] = (
            f"the {len(order)} best patches of {len(good)} pictures for {len(self.channels)} "
            f"channels of layer {self.layer}, a row each"
            + (f" ({self.left_out} more by --channel)" if self.left_out else "")
        )
        yield row, lambda: heatmap.grid(tiles)

    def _dream(self) -> Step:
        def dreamt(network: taps.Network, images: jax.Array) -> jax.Array:
            if self._target is not None:
                objective = explained.target_score(self._e, network, self._target)
            else:
                assert self.layer is not None
                channel = self.question.channels[0] if self.question.channels else None
                objective = dream.layer_strength(network, layer=self.layer, channel=channel)
            return dream.ascend(self._key, objective, images)

        return self._compiled(dreamt)

    def _dreamt(self, row: Row, image: np.ndarray) -> tuple[Row, Drawing]:
        if self._target is None:
            what: Row = {"layer": self.layer, "channels": list(self.question.channels)}
            words = f"layer {self.layer}" + "".join(f", channel {c}" for c in what["channels"])
        else:
            words = self.names[self._target]
            what = {"label": self._target, "name": words}
        row = row | {"method": "dream", **what, "text": f"dream of {words}"}
        pixels = np.round(255 * image).astype(np.uint8)
        return row, lambda: heatmap.grid([[pixels]], side=256)


@dataclasses.dataclass
class _Part:
    """Some pictures: their paths; of each, its place among those that could be read, and what was
    wrong with it or ""; those that could be read.
    """

    paths: list[Path]
    places: list[int] = dataclasses.field(default_factory=list)
    faults: list[str] = dataclasses.field(default_factory=list)
    images: np.ndarray | None = None


def _padded(images: np.ndarray, size: int) -> jax.Array:
    """A full batch, so that nothing is compiled twice: the last picture fills it."""
    return jnp.asarray(images[np.minimum(np.arange(size), len(images) - 1)])


def _nothing() -> Any:
    raise AssertionError("a picture that could not be read is not drawn")
