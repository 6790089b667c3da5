"""Caption scenes: what the sentences say is where the pixels are."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from jaxcnn.data.made.caption_scenes import (
    CELLS,
    LAYOUTS,
    LENGTH,
    CaptionScenes,
    layout_captions,
    read_items,
)
from jaxcnn.data.made.digits import Digits
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.ops.decoding import PAD, SPECIAL_WORDS, to_words

pytest.importorskip("skimage", reason="the photographs come with scikit-image")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCENES = CaptionScenes(items=Digits(), words=NUMBERS, kinds=(), num_train=300, num_eval=60)


def squares(*labels):
    """One evenly grey item for each label, 25 times as bright and brighter than any plain ground:
    the pixels tell the label.
    """
    image = np.broadcast_to(
        25 * np.array(labels, np.uint8)[:, None, None, None], (len(labels), 28, 28, 1)
    )
    return {"image": np.ascontiguousarray(image), "label": np.array(labels, np.int32)}


SQUARES = CaptionScenes(
    items=Arrays(squares(7, 8, 9), squares(4, 5, 6)),
    words=NUMBERS,
    kinds=(),
    plain_rate=1.0,
    num_train=200,
    num_eval=100,
)


def taken(data, split="train", indices=None):
    source = data.open(split)
    return jax.device_get(
        source.take(np.arange(len(source)) if indices is None else np.asarray(indices))
    )


def sentences(data, captions):
    return [" ".join(to_words(row, names=data.label_names)) for row in captions]


# What each sentence says of the cells, read by expressions that know nothing of the templates.
RIGHT_OF = {(0, 1), (2, 3)}
BELOW = {(0, 2), (1, 3)}


def places(sentence):
    """All arrangements {cell: word} of two or three things that a sentence is true of."""
    thing = r"a (\S+)"
    if match := re.fullmatch(
        rf"{thing} (left of|right of|above|below) {thing}(?: and {thing} on the (\S+ \S+))?",
        sentence,
    ):
        one, relation, other, third, cell = match.groups()
        if relation in ("right of", "below"):
            one, other = other, one
        found = [
            {a: one, b: other}
            for a, b in (RIGHT_OF if relation in ("left of", "right of") else BELOW)
        ]
        if third:
            return [
                {**two, CELLS.index(cell): third} for two in found if CELLS.index(cell) not in two
            ]
        return found
    if match := re.fullmatch(rf"{thing} with {thing} (on its right|below)", sentence):
        one, other, relation = match.groups()
        return [{a: one, b: other} for a, b in (BELOW if relation == "below" else RIGHT_OF)]
    if match := re.fullmatch(rf"{thing} on the (\S+ \S+) and {thing} on the (\S+ \S+)", sentence):
        one, first, other, second = match.groups()
        return [{CELLS.index(first): one, CELLS.index(second): other}]
    match = re.fullmatch(rf"{thing} with {thing} on the (\S+ \S+)", sentence)
    assert match, sentence
    one, other, second = match.groups()
    return [{3 - CELLS.index(second): one, CELLS.index(second): other}]  # the opposite corner


def test_spec_and_sizes():
    batch, spec = taken(SCENES), SCENES.spec()
    for name, entry in spec.items():
        assert (batch[name].shape[1:], batch[name].dtype) == (entry.shape, entry.dtype)
    assert (SCENES.size("train"), SCENES.size("eval"), SCENES.size("test")) == (300, 60, 0)
    assert SCENES.label_names[:4] == SPECIAL_WORDS
    assert set(NUMBERS) < set(SCENES.label_names)
    assert len(set(SCENES.label_names)) == len(SCENES.label_names) == 27


@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_sentences_are_true_of_the_pixels(split):
    """Grey squares on plain ground: the pixels themselves say what lies in which cell."""
    batch = taken(SQUARES, split)
    seen = set()
    for image, captions in zip(batch["image"][..., 0], batch["captions"], strict=True):
        middles = image[16::32, 16::32].ravel()  # covered by an item wherever it was moved
        truth = {cell: NUMBERS[value // 25] for cell, value in enumerate(middles) if value > 80}
        for sentence in sentences(SQUARES, captions):
            assert truth in places(sentence), (truth, sentence)
        seen.add(tuple(truth))
    assert seen == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_has_three_different_sentences_that_fit(layout):
    words = [NUMBERS[cell] for cell in range(4)]
    said = [template.format(*words) for template in layout_captions(layout)]
    assert len(set(said)) == 3
    for sentence in said:
        assert {cell: words[cell] for cell in layout} in places(sentence)
        assert len(sentence.split()) + 2 <= LENGTH
    if len(layout) == 3:  # nothing else is described by the same words
        assert all(len(places(sentence)) == 1 for sentence in said)


def test_a_scene_is_a_function_of_seed_split_and_index():
    whole = taken(SCENES)
    some = taken(SCENES, indices=[[7, 3], [3, 250]])
    for name in whole:
        np.testing.assert_array_equal(some[name], whole[name][[[7, 3], [3, 250]]])
    longer = taken(dataclasses.replace(SCENES, num_train=900), indices=np.arange(300))
    np.testing.assert_array_equal(longer["image"], whole["image"])
    for other in (
        taken(dataclasses.replace(SCENES, seed=1)),
        taken(dataclasses.replace(SCENES, num_eval=300), "eval"),
    ):
        assert (
            np.mean(
                [np.array_equal(a, b) for a, b in zip(other["image"], whole["image"], strict=True)]
            )
            == 0
        )
    assert len({image.tobytes() for image in whole["image"]}) == 300


def test_splits_share_neither_items_nor_photographs():
    train, held = (
        {x.tobytes() for x in np.asarray(read_items(Digits(), split, tuple(range(10)))[0])}
        for split in ("train", "eval")
    )
    assert not train & held
    assert not set(SCENES.train_photos) & set(SCENES.eval_photos)
    used = {
        split: set(np.unique(taken(SQUARES, split)["image"][:, 16::32, 16::32]).tolist())
        for split in ("train", "eval")
    }
    assert {value for value in used["train"] if value > 80} == {175, 200, 225}
    assert {value for value in used["eval"] if value > 80} == {100, 125, 150}


def test_only_the_chosen_kinds_appear():
    data = dataclasses.replace(SCENES, kinds=(3, 8))
    said = {
        word
        for captions in taken(data)["captions"]
        for s in sentences(data, captions)
        for word in s.split()
    }
    assert said & set(NUMBERS) == {"three", "eight"}
    assert set(np.asarray(read_items(Digits(), "train", (3, 8))[1])) == {3, 8}
    assert len(data.label_names) == 27 - 8


def test_shuffled_captions_are_those_of_other_scenes():
    """The images stay, the captions are as before in kind, and no longer belong to them."""
    plain, shuffled = taken(SCENES), taken(dataclasses.replace(SCENES, shuffled=True))
    np.testing.assert_array_equal(plain["image"], shuffled["image"])
    agree = (plain["captions"] == shuffled["captions"]).all((1, 2))
    assert agree.mean() < 0.03
    lengths = [(batch["captions"] != PAD).sum(-1).mean() for batch in (plain, shuffled)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.1)


@pytest.mark.parametrize(
    "rate, least, most", [(0.0, 0.0, 0.05), (0.25, 0.15, 0.35), (1.0, 1.0, 1.0)]
)
def test_the_share_of_plain_grounds(rate, least, most):
    image = taken(dataclasses.replace(SCENES, plain_rate=rate))["image"]
    cells = image.reshape(300, 2, 32, 2, 32).transpose(0, 1, 3, 2, 4).reshape(300, 4, -1)
    even = (cells == cells[..., :1]).all(-1).any(1)  # there is always an empty cell
    assert least <= even.mean() <= most


@pytest.mark.parametrize(
    "change, says",
    [
        ({"shift": 3}, "shift=3"),
        ({"kinds": (10,)}, r"kinds=\(10,\)"),
        ({"words": ("two words",) * 10}, "single words"),
        ({"eval_photos": ("coffee",)}, r"\['coffee'\] lie behind both"),
    ],
)
def test_bad_settings_are_refused(change, says):
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(SCENES, **change)


def test_what_cannot_be_opened():
    with pytest.raises(DataError, match="no 'test' scenes"):
        SCENES.open("test")
    with pytest.raises(ConfigError, match=r"\(14, 14, 1\) of uint8; they must be \(28, 28, 1\)"):
        dataclasses.replace(SCENES, items=Digits(image_size=(14, 14))).open("train")
    with pytest.raises(ConfigError, match=r"no item .* kinds \(0,\)"):
        dataclasses.replace(SQUARES, kinds=(0,)).open("train")
    with pytest.raises(IndexError):
        SCENES.open("eval").take(np.array([60]))
