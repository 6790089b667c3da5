"""Scenes of two or three real things in a 2 x 2 grid, with sentences that say what lies where.

Tokens and vocabularies: see `jaxcnn.data.vocabulary`. Scenes are made on the device, scene i of a
split as a function of (seed, split, i) alone; things and photographs of training are never seen in
evaluation.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random

from jaxcnn.data.made.composed import ComposedSource
from jaxcnn.data.made.photos import EVAL_BACKGROUNDS, TRAIN_BACKGROUNDS
from jaxcnn.data.made.scenes import backgrounds, dimmed_crop
from jaxcnn.data.memory import check_split
from jaxcnn.data.vocabulary import encode_captions
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.metrics.text_overlap import tokenize
from jaxcnn.ops.decoding import SPECIAL_WORDS, UNKNOWN

# The kinds of Fashion-MNIST by number, in one word each.
FASHION_WORDS = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
)
# Without pullover (2) and shirt (6), which people too take for coats and T-shirts at 28 x 28
# pixels.
DISTINCT_KINDS = (0, 1, 3, 4, 5, 7, 8, 9)
CELLS = ("upper left", "upper right", "lower left", "lower right")
# The cells that are taken: six pairs, then four triples.
LAYOUTS = (*itertools.combinations(range(4), 2), *itertools.combinations(range(4), 3))
NUM_PAIRS = 6
NUM_REFERENCES = 3
LENGTH = 15  # tokens of the longest caption: 13 words, start and end
INK = 12  # pixels brighter than this belong to a thing; Fashion-MNIST's black is not quite black


@dataclass(frozen=True)
class CaptionScenes:
    """Scenes "image" uint8 [64, 64, 1] with "captions" int32 [3, 15]: three sentences each, all
    true, in the order of `layout_captions`.

    Two or three things (equally often), at most one in each 32 x 32 cell of a 2 x 2 grid, moved by
    up to `shift` pixels, on a piece of a photograph dimmed to 30-60 %, or, with probability
    `plain_rate`, on a plain ground of 0-30 % grey. A thing hides what is behind it.
    With `shuffled` the captions are those of another scene: a control, in which the image says
    nothing about them.

    items: a data set of grey 28 x 28 pictures, bright on black, with "label"; its "train" part is
        used in training, "eval" in evaluation.
    words: what each label is called, one word each; kinds: the labels that are used, all of them if
        ().
    Errors: ConfigError, DataError as of `items` and of `read_photo`.
    """

    items: Any
    words: tuple[str, ...] = FASHION_WORDS
    kinds: tuple[int, ...] = DISTINCT_KINDS
    shift: int = 2
    plain_rate: float = 0.25
    shuffled: bool = False
    num_train: int = 30_000
    num_eval: int = 1_000
    train_photos: tuple[str, ...] = TRAIN_BACKGROUNDS
    eval_photos: tuple[str, ...] = EVAL_BACKGROUNDS
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.shift <= 2:
            raise ConfigError(
                f"CaptionScenes: shift={self.shift}; 28 pixels in a cell of 32 can move by 0, 1 "
                "or 2"
            )
        if any(not 0 <= kind < len(self.words) for kind in self.kinds):
            raise ConfigError(
                f"CaptionScenes: kinds={self.kinds} must be numbers of the {len(self.words)} "
                "words, from 0"
            )
        if any(tokenize(word) != (word,) for word in self.words):
            raise ConfigError(
                f"CaptionScenes: words={self.words} must be single words in lower case, such as "
                "'t-shirt'"
            )
        if set(self.train_photos) & set(self.eval_photos):
            raise ConfigError(
                f"CaptionScenes: {sorted(set(self.train_photos) & set(self.eval_photos))} lie "
                "behind both splits"
            )

    @property
    def label_names(self) -> tuple[str, ...]:
        """The vocabulary: the name of each token."""
        grammar = tokenize(
            " ".join(
                caption.format(*[""] * 4)
                for layout in LAYOUTS
                for caption in layout_captions(layout)
            )
        )
        return (*SPECIAL_WORDS, *sorted({*grammar} | {self.words[kind] for kind in self._kinds()}))

    def _kinds(self) -> tuple[int, ...]:
        return self.kinds or tuple(range(len(self.words)))

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "image": jax.ShapeDtypeStruct((64, 64, 1), np.uint8),
            "captions": jax.ShapeDtypeStruct((NUM_REFERENCES, LENGTH), np.int32),
        }

    def size(self, split: str) -> int:
        return {"train": self.num_train, "eval": self.num_eval, "test": 0}[check_split(split)]

    def open(self, split: str) -> ComposedSource:
        if not self.size(split):
            raise DataError(
                f"CaptionScenes has no {split!r} scenes; it has train and eval (num_train and "
                "num_eval of them)"
            )
        photos = backgrounds(self.train_photos if split == "train" else self.eval_photos, (64, 64))
        material = (
            photos,
            read_items(self.items, split, self._kinds()),
            jnp.asarray(self.templates()),
        )
        tokens = jnp.asarray(self.item_tokens())

        def compose(
            key: jax.Array, photos: Any, items: Any, templates: jax.Array
        ) -> dict[str, jax.Array]:
            plan_key, other_key, ground_key = random.split(key, 3)
            layout, chosen, shifts = plan(plan_key, len(items[0]), self.shift)
            ground = paint_ground(ground_key, photos, self.plain_rate)
            image = paste(ground, items[0][chosen], _occupied()[layout], shifts)
            if self.shuffled:
                layout, chosen, _ = plan(other_key, len(items[0]), self.shift)
            template, kinds = templates[layout], tokens[items[1][chosen]]  # [3, 15], [4]
            captions = jnp.where(template < 0, kinds[jnp.maximum(-1 - template, 0)], template)
            return {"image": image, "captions": captions}

        return ComposedSource(compose, material, size=self.size(split), seed=self.seed, split=split)

    def templates(self) -> np.ndarray:
        """Tokens of the captions of each layout, int32 [10, 3, 15]; -1 - c stands for the thing in
        cell c.
        """
        slots = [f"cell{c}" for c in range(4)]
        names = (*self.label_names, *slots)
        rows = []
        for layout in LAYOUTS:
            sentences = [caption.format(*slots) for caption in layout_captions(layout)]
            rows.append(
                encode_captions(sentences, names, num_captions=NUM_REFERENCES, length=LENGTH)
            )
        tokens, words = np.stack(rows), len(self.label_names)
        return np.where(tokens >= words, words - 1 - tokens, tokens).astype(np.int32)

    def item_tokens(self) -> np.ndarray:
        """The token of each label, int32 [len(words)]; UNKNOWN for those that are not used."""
        names = self.label_names
        return np.array(
            [names.index(word) if word in names else UNKNOWN for word in self.words], np.int32
        )


def layout_captions(cells: Sequence[int]) -> tuple[str, str, str]:
    """Three true sentences for things in these two or three cells (0..3, rising), as templates:
    "{2}" is the word for that in cell 2.
    """
    if len(cells) == 3:
        (empty,) = {0, 1, 2, 3} - {*cells}
        row, column = 1 - empty // 2, 1 - empty % 2  # the full ones
        left, right, beside = 2 * row, 2 * row + 1, 2 * (1 - row) + column
        top, bottom, aside = column, 2 + column, 2 * row + 1 - column
        return (
            f"a {{{left}}} left of a {{{right}}} and a {{{beside}}} on the {CELLS[beside]}",
            f"a {{{right}}} right of a {{{left}}} and a {{{beside}}} on the {CELLS[beside]}",
            f"a {{{top}}} above a {{{bottom}}} and a {{{aside}}} on the {CELLS[aside]}",
        )
    first, second = cells
    if first // 2 == second // 2:
        return (
            f"a {{{first}}} left of a {{{second}}}",
            f"a {{{second}}} right of a {{{first}}}",
            f"a {{{first}}} with a {{{second}}} on its right",
        )
    if first % 2 == second % 2:
        return (
            f"a {{{first}}} above a {{{second}}}",
            f"a {{{second}}} below a {{{first}}}",
            f"a {{{first}}} with a {{{second}}} below",
        )
    return (
        f"a {{{first}}} on the {CELLS[first]} and a {{{second}}} on the {CELLS[second]}",
        f"a {{{second}}} on the {CELLS[second]} and a {{{first}}} on the {CELLS[first]}",
        f"a {{{first}}} with a {{{second}}} on the {CELLS[second]}",
    )


@functools.lru_cache(maxsize=8)
def read_items(items: Any, split: str, kinds: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The pictures [M, 28, 28] uint8 of these kinds in a split, and their labels [M] int32. Errors:
    ConfigError.
    """
    source = items.open(split)
    whole = jax.device_get(source.take(np.arange(len(source))))
    image, label = whole["image"], whole["label"]
    if image.shape[1:] != (28, 28, 1) or image.dtype != np.uint8:
        raise ConfigError(
            f"CaptionScenes: items give images {image.shape[1:]} of {image.dtype}; they must be "
            "(28, 28, 1) of uint8"
        )
    chosen = np.isin(label, kinds)
    if not chosen.any():
        raise ConfigError(
            f"CaptionScenes: no item of the {split!r} split is of the kinds {kinds}; its labels "
            f"are {np.unique(label)}"
        )
    return jnp.asarray(image[chosen, ..., 0]), jnp.asarray(label[chosen], jnp.int32)


def plan(key: jax.Array, num_items: int, shift: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a scene shows: a layout [] (index of LAYOUTS), an item for each cell [4], and its offset
    from the cell's middle [4, 2].
    """
    count_key, layout_key, item_key, shift_key = random.split(key, 4)
    pair = random.randint(layout_key, (), 0, NUM_PAIRS)
    triple = random.randint(layout_key, (), NUM_PAIRS, len(LAYOUTS))
    layout = jnp.where(random.bernoulli(count_key), pair, triple)
    return (
        layout,
        random.randint(item_key, (4,), 0, num_items),
        random.randint(shift_key, (4, 2), -shift, shift + 1),
    )


def paint_ground(key: jax.Array, photos: Any, plain_rate: float) -> jax.Array:
    """A dimmed piece of a photograph, or plain grey. -> [64, 64] float32 in [0, 1]"""
    photo_key, choice_key, grey_key = random.split(key, 3)
    grey = random.uniform(grey_key, (), jnp.float32, 0.0, 0.3)
    return jnp.where(
        random.bernoulli(choice_key, plain_rate), grey, dimmed_crop(photo_key, photos, (64, 64))
    )


def paste(
    ground: jax.Array, pictures: jax.Array, occupied: jax.Array, shifts: jax.Array
) -> jax.Array:
    """The ground [64, 64] with pictures [4, 28, 28] uint8 on it in the occupied [4] cells, moved by
    shifts [4, 2]. -> [64, 64, 1] uint8
    """
    empty = jnp.zeros((32, 32), jnp.uint8)
    cells = jax.vmap(
        lambda picture, at: lax.dynamic_update_slice(empty, picture, (2 + at[0], 2 + at[1]))
    )(pictures, shifts)
    cells = jnp.where(occupied[:, None, None], cells, jnp.uint8(0))
    things = cells.reshape(2, 2, 32, 32).transpose(0, 2, 1, 3).reshape(64, 64)
    return jnp.where(things > INK, things, jnp.round(255.0 * ground).astype(jnp.uint8))[..., None]


def _occupied() -> jax.Array:
    """Whether cell c is taken in each layout, [10, 4] bool."""
    return jnp.asarray([[cell in layout for cell in range(4)] for layout in LAYOUTS])
