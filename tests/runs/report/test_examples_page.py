"""Examples on a page: which are shown, with which words and pictures, of answers given by hand."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxcnn.inspect.drawing import draw
from jaxcnn.runs.report import cards, examples, solo
from jaxcnn.runs.report.examples import Seen
from jaxcnn.runs.report.pictures import Pictures
from tests.runs.report.by_hand import rows, tree, words


class Told:
    """What a page asks of a Viewer: what was seen of each example, and said of some."""

    def __init__(self, seen, said=None, *, inputs=("image",), in_training=(), changed="", **batch):
        self.seen, self.changed, self.batch = seen, changed, batch
        self.said = said or [{"text": f"answer {i}"} for i in range(seen.size)]
        task = SimpleNamespace(inputs=inputs, training_inputs=in_training)
        self.e = SimpleNamespace(data=SimpleNamespace(label_names=("cat", "dog")), task=task)
        self.asked = []

    def see(self, *, most):
        self.asked.append(most)
        return self.seen

    def rows(self, indices):
        batch = {name: array[indices] for name, array in self.batch.items()}
        return [self.said[i] for i in indices], batch


def seen_of(losses, *, size=None, **columns):
    losses = np.asarray(losses, np.float32)
    places = np.arange(len(losses))
    digests = tuple(map(str, places))
    return Seen(size or len(losses), places, losses, digests, **columns)


def images(count):
    return np.stack([np.full((4, 4, 1), i / 100, np.float32) for i in range(count)])


def gray(element):
    """The one value of a picture."""
    content = base64.b64decode(element.get("src").partition(",")[2])
    (value,) = np.unique(np.asarray(Image.open(io.BytesIO(content)).convert("L")))
    return int(value)


# ---- which are shown -------------------------------------------------------------------------


def shown(viewer, most=100):
    """{title: numbers of its examples}, and the remarks."""
    main = tree(solo.looked_at(viewer, Pictures(), most=most))
    found, title = {}, None
    for one in main:
        if one.tag == "h3":
            title = words(one)
        elif one.tag == "div":
            found[title] = [words(b) for b in one.iter("b")]
    return found, [(words(p), p.get("class")) for p in main.findall("p")]


def test_the_worst_and_the_most_confident_wrong_are_shown():
    """Of ten examples three were called otherwise than they are."""
    label = np.arange(10) % 2
    truth = label.copy()
    truth[[2, 5, 7]] = 1 - truth[[2, 5, 7]]
    sure = np.linspace(0.5, 0.95, 10)
    seen = seen_of(np.arange(10), label=label, truth=truth, confidence=sure)
    viewer = Told(seen, image=images(10))
    found, remarks = shown(viewer, most=77)
    assert viewer.asked == [77]
    assert found == {
        "Most confident and wrong": ["#7", "#5", "#2"],
        "Largest loss": [f"#{i}" for i in (9, 8, 7, 6, 5, 4, 3, 2)],
    }
    assert remarks == [
        ("All 10 validation examples were looked at.", "note"),
        ("3 of them were given a wrong class.", "note"),
    ]


def test_where_nothing_is_wrong_the_largest_losses_alone_are_shown():
    label = np.zeros(10, int)
    seen = seen_of(np.arange(10), label=label, truth=label, confidence=np.ones(10))
    found, remarks = shown(Told(seen, image=images(10)))
    assert [*found] == ["Largest loss"]
    assert remarks[1][0] == "0 of them were given a wrong class."


@pytest.mark.parametrize(
    "count, even",
    [(8, None), (9, [0, 1, 2, 3, 4, 5, 6, 8]), (15, [0, 2, 4, 6, 8, 10, 12, 14])],
)
def test_answers_that_are_not_right_or_wrong_are_shown_as_they_come_too(count, even):
    found, remarks = shown(Told(seen_of(np.arange(count)), image=images(count)))
    assert found.get("As they come") == (even and [f"#{i}" for i in even])
    assert found["Largest loss"] == [f"#{count - 1 - i}" for i in range(8)]
    assert len(remarks) == 1


@pytest.mark.parametrize(
    "count, size, said",
    [
        (2, 1500, "2 of the 1,500 validation examples were looked at, evenly spaced."),
        (2, 2, "All 2 validation examples were looked at."),
        (1, 1, "There is one validation example."),
    ],
)
def test_how_many_were_looked_at(count, size, said):
    viewer = Told(seen_of(np.arange(count), size=size), image=images(count))
    assert shown(viewer)[1] == [(said, "note")]
    viewer.changed = "the data have changed"
    assert shown(viewer)[1][1] == ("Of this run the data have changed.", "warning")


def test_losses_that_are_not_finite_are_the_worst():
    seen = seen_of([1.0, np.nan, 3.0, np.inf, 2.0])
    assert seen.worst(4).tolist() == [1, 3, 2, 4]
    assert seen.right is None
    assert seen.confident_wrong(3).tolist() == []
    label = np.array([0, 1, 1, 0])
    seen = seen_of(np.zeros(4), label=label, truth=1 - label)
    assert not seen.right.any()
    assert seen.confident_wrong(3).tolist() == [], "without knowing how sure it was"
    sure = np.array([0.5, 0.9, 0.9, 0.7])
    seen = seen_of(np.zeros(4), label=label, truth=np.array([1, 0, 0, 0]), confidence=sure)
    assert seen.confident_wrong(3).tolist() == [1, 2, 0]
    assert seen.confident_wrong(2).tolist() == [1, 2]


def test_examples_that_are_alike_come_in_their_order():
    label, sure = np.zeros(100, int), np.tile([0.5, 1.0], 50)
    seen = seen_of(sure, label=label, truth=label + 1, confidence=sure)
    assert seen.worst(100).tolist() == [*range(1, 100, 2), *range(0, 100, 2)]
    assert seen.confident_wrong(100).tolist() == seen.worst(100).tolist()


# ---- cards -----------------------------------------------------------------------------------


def of_cards(viewer, chosen=(0,), album=None):
    main = tree(cards.cards(viewer, viewer.seen, np.array(chosen), album or Pictures()))
    return main[0], [*main[0].findall("figure")]


def test_a_card_has_the_picture_what_is_true_and_what_was_said():
    said = [{"text": "a dog"}, {"text": "a cat"}, {"text": ""}]
    seen = seen_of([0.25, 0.5, 3.0])
    viewer = Told(seen, said, image=images(3), label=np.array([0, 1, 0]))
    grid, figures = of_cards(viewer, (2, 0))
    assert grid.get("class") == "pictures"
    assert [words(one.find("figcaption")) for one in figures] == [
        "#2 loss 3true: catsaid: (no text)",
        "#0 loss 0.25true: catsaid: a dog",
    ]
    (image,) = figures[0].iter("img")
    assert (image.get("alt"), gray(image)) == ("example #2", 5)
    assert figures[0].find("div").get("class") == "pair"
    assert figures[0].find("div/div/figcaption") is None
    assert [one.tag for one in figures[0].find("figcaption")] == ["b", "br", "br"]


def test_what_is_drawn_stands_beside_what_is_true():
    place = {"box": (0.0, 0.0, 1.0, 1.0), "name": "cat", "score": 0.5}
    viewer = Told(
        seen_of([1.0]),
        [{"objects": [place], "text": "x"}],
        image=images(1),
        boxes=np.array([[[0.0, 0.0, 0.5, 0.5]]]),
    )
    grid, (figure,) = of_cards(viewer)
    assert grid.get("class") == "pictures drawn"
    assert [words(one) for one in figure.findall("div/div/figcaption")] == ["true", "said"]
    alts = [one.get("alt") for one in figure.iter("img")]
    assert alts == ["example #0 true", "example #0 said"]
    true, said = (one.get("src") for one in figure.iter("img"))
    pixels = np.zeros((4, 4, 1), np.uint8)
    wanted = Pictures().add(draw(pixels, {"objects": [place]}), "its words stand below it")
    assert said == tree(wanted)[0].get("src") != true
    others = [{"text": "nothing"}, {"objects": [place]}]
    grid, _ = of_cards(Told(seen_of([1.0, 2.0]), others, image=images(2)), (0, 1))
    assert grid.get("class") == "pictures drawn"


@pytest.mark.parametrize("target", [False, True])
def test_a_picture_that_was_made_of_another_stands_between_it_and_the_true_one(target):
    made = {"image": np.full((4, 4, 1), 200, np.uint8)}
    true = {"target": np.full((1, 4, 4, 1), 0.5, np.float32)} if target else {}
    viewer = Told(seen_of([1.0]), [made], image=images(1) + 0.1, **true)
    grid, (figure,) = of_cards(viewer)
    assert grid.get("class") == "pictures drawn"
    names = ["before", "after", "true"][: 2 + target]
    assert [words(one) for one in figure.findall("div/div/figcaption")] == names
    assert [gray(one) for one in figure.iter("img")] == [26, 200, 128][: 2 + target]


def test_a_picture_that_was_made_of_none_stands_alone():
    """What the model was given in training only is not what it was made from."""
    made = {"image": np.full((4, 4, 1), 200, np.uint8)}
    given = {"inputs": ("noise", "image"), "in_training": ("image",)}
    numbers = {"noise": np.zeros((1, 3), np.float32), "target": np.zeros((1, 3), np.float32)}
    grid, (figure,) = of_cards(Told(seen_of([1.0]), [made], image=images(1), **given, **numbers))
    assert grid.get("class") == "pictures"
    assert [words(one) for one in figure.findall("div/div/figcaption")] == ["made"]
    assert words(figure.findall("figcaption")[-1]) == "#0 loss 1", "nothing is true or said of it"


def test_without_pictures_there_is_a_table():
    said = [{"values": [{"name": "weight", "value": 1.5}]}] * 1200
    seen = seen_of(np.arange(1200) / 8)
    viewer = Told(seen, said, vector=np.zeros((1200, 3)), label=np.ones(1200, int))
    main = tree(cards.cards(viewer, seen, np.array([1100, 3]), Pictures()))
    assert rows(main) == [
        ["example", "true", "said", "loss"],
        ["#1,100", "dog", "weight 1.5", "137.5"],
        ["#3", "dog", "weight 1.5", "0.375"],
    ]
    kinds = [cell.get("class") for cell in next(main.iter("tr"))]
    assert kinds == [None, None, None, "number"]


def test_a_picture_without_room_is_said():
    album = Pictures(most=10)
    _, (figure,) = of_cards(Told(seen_of([1.0]), image=images(1)), album=album)
    (missing,) = figure.iter("p")
    assert (words(missing), missing.get("class")) == ("(no room)", "note")
    assert album.refused == 1


def test_what_was_said_is_short_and_leads_with_the_largest():
    top = [{"name": f"n{i}", "probability": 0.5 / (i + 1)} for i in range(5)]
    assert cards.say({"top": top}) == "n0 50.0%, n1 25.0%, n2 16.7%"
    areas = np.repeat([0, 1, 2, 3], [2, 5, 1, 4]).reshape(3, 4)
    row = {"segmentation": areas, "segment_names": ["sky", "sea", "sand", "sun"]}
    assert cards.say(row | {"image": areas}) == "sea 41.7%, sun 33.3%, sky 16.7%"


# ---- what a model says -----------------------------------------------------------------------


def test_labels_are_those_of_tasks_that_say_one():
    batch, task = {"label": np.array([1, 1])}, SimpleNamespace(num_classes=3)
    e = SimpleNamespace(task=task)
    said = {"label": np.array([1, 0]), "probability": np.array([0.75, 0.25])}
    found = examples._labels(e, said, batch)
    assert {k: v.tolist() for k, v in found.items()} == {
        "label": [1, 0],
        "truth": [1, 1],
        "confidence": [0.75, 0.25],
    }
    assert found["truth"].dtype == np.int32
    assert examples._labels(e, {"probability": said["probability"]}, batch) == {}
    assert examples._labels(e, said, {}) == {}
    assert examples._labels(e, {"label": np.ones((2, 2))}, batch) == {}
    assert [*examples._labels(e, {"label": said["label"]}, batch)] == ["label", "truth"]
    each = said | {"probability": np.ones((2, 3))}
    assert [*examples._labels(e, each, batch)] == ["label", "truth"]


def test_of_yes_and_no_the_confidence_is_that_of_what_was_said():
    """The probability is that of yes."""
    e = SimpleNamespace(task=SimpleNamespace())
    said = {"label": np.array([1, 0]), "probability": np.array([0.75, 0.25])}
    assert examples._labels(e, said, {"label": said["label"]})["confidence"].tolist() == [
        0.75,
        0.75,
    ]


def test_digests_tell_examples_apart_by_what_they_hold():
    """By names, types, shapes and values, in whatever order and memory they lie."""
    image = np.arange(16, dtype=np.uint8).reshape(2, 2, 4)
    raw = {"label": np.array([0, 1], np.int32), "image": image}
    first, second = examples._digests(raw, 2)
    assert first != second
    assert len(first) == 16
    same = {"image": np.asfortranarray(image), "label": raw["label"]}
    assert examples._digests(same, 1) == [first]
    others = [
        raw | {"label": np.array([5, 1], np.int32)},
        raw | {"image": image.astype(np.int8)},
        raw | {"image": image.reshape(2, 4, 2)},
        {"image": image, "number": raw["label"]},
    ]
    assert len({first, *(examples._digests(other, 1)[0] for other in others)}) == 5


def test_pictures_are_images_of_height_and_width():
    assert examples.has_pictures({"label": np.zeros(3), "image": np.zeros((1, 2, 2, 1))})
    assert not examples.has_pictures({"image": np.zeros((1, 2, 2))})
    assert not examples.has_pictures({"vector": np.zeros((1, 2, 2, 1))})
