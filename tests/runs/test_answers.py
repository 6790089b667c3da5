"""Predictions in words, as JSON, as a table and as COCO has them; what can be asked of a model."""

import io
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.ops import masks
from jaxcnn.runs.answers import Printer, as_json, class_name, csv_lines, sentence, to_coco
from jaxcnn.runs.question import METHODS, Question, find_target, names_of


def test_an_object_of_coco_has_what_is_known_of_it():
    (found,) = to_coco({"objects": [{"box": (0.125, 0.25, 0.5, 1 / 3)}]}, (40, 80), 3)
    assert found == {
        **{"image_id": 3, "file_name": "", "category_id": 1, "category_name": None, "score": 1.0},
        "bbox": [20.0, 5.0, 6.667, 15.0],  # x, y, width, height; thousandths of a pixel
    }
    row = {"path": "a.png", "objects": [{"box": (0, 0, 1, 1), "label": 4, "name": "e",
                                         "score": 0.25}] * 2}  # fmt: skip
    found = to_coco(row, (40, 80), 0)
    assert len(found) == 2
    assert [found[1][key] for key in ("file_name", "category_id", "category_name", "score")] == [
        *("a.png", 5, "e", 0.25),
    ]
    assert to_coco({"objects": []}, (4, 4), 0) == []


@pytest.mark.parametrize("size", [(7, 4), (2, 11), (3, 5), (9, 15)])
def test_a_masks_pixels_are_the_nearest_ones(size):
    mask = np.random.default_rng(0).random((3, 5)) < 0.5
    (found,) = to_coco({"objects": [{"box": (0, 0, 1, 1), "mask": mask}]}, size, 0)
    wanted = [
        [mask[(2 * i + 1) * 3 // (2 * size[0]), (2 * j + 1) * 5 // (2 * size[1])]
         for j in range(size[1])] for i in range(size[0])
    ]  # fmt: skip
    np.testing.assert_array_equal(masks.decode(found["segmentation"]), np.array(wanted))


@pytest.mark.parametrize(
    "label, count, name",
    [
        (0, None, "cat"),
        (1, 2, "dog"),
        (2, 2, "2"),
        (-1, 2, "-1"),
        (0, 3, "background"),
        (2, 3, "dog"),
        (0, 1, "cat"),
    ],
)
def test_a_class_has_its_name_and_one_more_is_the_background(label, count, name):
    assert class_name(label, names=("cat", "dog"), count=count) == name
    assert class_name(label, names=(), count=count) == str(label)


NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4) ** 2


@pytest.mark.parametrize(
    "value, wanted",
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([True, False]), [True, False]),
        (np.array([1, 2]), [1, 2]),
        (np.array([0.5, 1.5]), [0.5, 1.5]),
        (np.array([[0.5, 1.5]]), [[0.5, 1.5]]),
        (np.array([[[1, 2]]]), [[[1, 2]]]),
        (np.array([[[True]]]), [[[True]]]),
        (np.array([[0, 2], [2, 2]]), {"0": 0.25, "2": 0.75}),
        (np.array([[7, 7]], np.uint8), {"7": 1.0}),
        (
            NUMBERS,
            {
                "least": NUMBERS[0, 0].tolist(),
                "mean": np.mean([NUMBERS[i, j] for i in range(2) for j in range(3)], 0).tolist(),
                "most": NUMBERS[1, 2].tolist(),
            },
        ),
        ({"a": (np.int32(1), [np.float64(0.5)]), "b": None}, {"a": [1, [0.5]], "b": None}),
    ],
    ids=str,
)
def test_rows_become_json(value, wanted):
    assert as_json(value) == wanted
    json.dumps(as_json(value))


def test_a_mask_becomes_run_lengths():
    mask = np.array([[True, False, True], [False, True, True]])
    found = as_json(mask)
    assert found["size"] == [2, 3]
    assert isinstance(found["counts"], str)
    np.testing.assert_array_equal(masks.decode(found), mask)


TOP = [{"label": 1, "name": "dog", "probability": 0.75}, {"label": 0, "name": "cat",
                                                         "probability": 0.25}]  # fmt: skip
OBJECTS = [{"label": 1, "name": "dog", "score": 0.5, "box": (0, 0.25, 0.5, 1)}, {}]
MAP = {"0": 0.5, "1": 0.25, "7": 0.25}
VALUES = [{"name": "left", "value": 1 / 3}, {"name": "up", "value": 2}]
POINTS = [(0.5, 0.25, 0.75), (1, 0, 1)]


@pytest.mark.parametrize(
    "row, words",
    [
        ({"top": TOP}, "dog 75.0%, cat 25.0%"),
        ({"labels": TOP}, "dog 75.0%, cat 25.0%"),
        ({"labels": []}, "no label"),
        ({"values": VALUES}, "left 0.33333, up 2"),
        ({"text": "hello"}, "hello"),
        ({"text": ""}, "(no text)"),
        ({"objects": OBJECTS}, "dog 50.0%, object 100.0%"),
        ({"objects": []}, "nothing found"),
        ({"segmentation": MAP}, "0 50.0%, 1 25.0%, 7 25.0%"),
        ({"segmentation": MAP, "segment_names": ["sky", "sea"]}, "sky 50.0%, sea 25.0%, 7 25.0%"),
        ({"points": POINTS}, "2 points"),
        ({"drawing": "a.png"}, "drawn in a.png"),
        ({"text": "a", "points": [], "drawing": "b"}, "a; 0 points; drawn in b"),
        ({"image": "a.png", "error": "a.png: broken"}, "broken"),
        ({"error": "broken", "text": "a"}, "broken"),
        ({}, ""),
    ],
)
def test_a_row_in_words(row, words):
    assert sentence(row) == words


@pytest.mark.parametrize(
    "row, head, lines",
    [
        ({"top": TOP}, "image rank label name probability",
         [("a", 1, 1, "dog", 0.75), ("a", 2, 0, "cat", 0.25)]),
        ({"labels": TOP}, "image label name probability",
         [("a", 1, "dog", 0.75), ("a", 0, "cat", 0.25)]),
        ({"labels": []}, "image label name probability", []),
        ({"values": VALUES}, "image name value", [("a", "left", 1 / 3), ("a", "up", 2)]),
        ({"objects": OBJECTS}, "image rank label name score y0 x0 y1 x1",
         [("a", 1, 1, "dog", 0.5, 0, 0.25, 0.5, 1), ("a", 2, None, None, None)]),
        ({"points": POINTS}, "image point y x score",
         [("a", 0, 0.5, 0.25, 0.75), ("a", 1, 1, 0, 1)]),
        ({"text": "hello"}, "image text", [("a", "hello")]),
    ],
)  # fmt: skip
def test_a_row_as_lines_of_a_table(row, head, lines):
    assert csv_lines(row, "a") == (tuple(head.split()), lines)


def test_what_is_no_table_is_refused():
    with pytest.raises(ConfigError, match="this task's results are no table"):
        csv_lines({"segmentation": MAP}, "a")


ROWS = [
    {"image": "a.png", "text": "one"},
    {"text": "two"},
    {"image": "", "text": "three"},
    {"image": "b.png", "error": "b.png: broken"},
    {"text": "four"},
]


@pytest.mark.parametrize(
    "form, printed",
    [
        ("text", ["a.png: one\n", "1: two\n", "three\n", "b.png: broken\n", "4: four\n", ""]),
        ("csv", ["image,text\na.png,one\n", "1,two\n", ",three\n", "", "4,four\n", ""]),
        ("json", [*((", " if i else "[") + json.dumps(row) for i, row in enumerate(ROWS)), "]\n"]),
        ("coco", ['[{"id": 0}', ', {"id": 1}', ', {"id": 2}', ', {"id": 3}', ', {"id": 4}', "]\n"]),
    ],
)
def test_rows_reach_a_reader_as_they_come(form, printed):
    """Each is there before the next is asked for, though the stream collects."""
    raw = io.BytesIO()
    printer, seen = Printer(form, io.TextIOWrapper(raw, newline="\n", encoding="utf-8")), []
    for i, row in enumerate(ROWS):
        printer.row(row, [{"id": i}])
        seen.append(raw.getvalue().decode())
    printer.end()
    seen.append(raw.getvalue().decode())
    news = [seen[0], *(b.removeprefix(a) for a, b in itertools.pairwise(seen))]
    assert [text.replace("\r\n", "\n") for text in news] == printed


@pytest.mark.parametrize("form, printed", [("json", "[]\n"), ("coco", "[]\n"), ("text", "")])
def test_no_rows_are_an_empty_list(form, printed):
    stream = io.StringIO()
    Printer(form, stream).end()
    assert stream.getvalue() == printed


def strictly(text):
    """JSON as RFC 8259 has it, which knows no NaN."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("form", ["json", "coco"])
def test_a_number_that_is_not_finite_is_null_in_json(form):
    lost = float("nan")
    row = {"values": [{"name": "x", "value": lost}, {"name": "y", "value": np.float32("inf")}]}
    stream = io.StringIO()
    printer = Printer(form, stream)
    printer.row(as_json(row), [{"score": -np.inf, "bbox": (lost, 1.5)}])
    printer.end()
    (found,) = strictly(stream.getvalue())
    if form == "coco":
        assert found == {"score": None, "bbox": [None, 1.5]}
    else:
        assert [one["value"] for one in found["values"]] == [None, None]


def test_classes_of_several_objects_are_a_list_in_coco():
    stream = io.StringIO()
    printer = Printer("coco", stream)
    printer.row({}, [])
    printer.row({}, [{"id": 1}, {"id": 2}])
    printer.end()
    assert json.loads(stream.getvalue()) == [{"id": 1}, {"id": 2}]


MAPS = ("gradcam", "layercam", "gradient", "integrated", "smoothgrad", "occlusion")
# method -> (of a class, of a layer, the most channels)
KINDS = {
    **{name: (True, name in ("gradcam", "layercam"), 0) for name in MAPS},
    **{"filters": (False, False, 0), "features": (False, True, 9), "patches": (False, True, 9)},
    "dream": (True, True, 1),  # of the one or the other
}


@pytest.mark.parametrize("method", KINDS)
def test_a_question_is_of_what_its_method_can_answer(method):
    assert set(METHODS) == set(KINDS)
    of_class, of_layer, most = KINDS[method]
    every = itertools.product((None, 0, "dog"), (None, "Conv_0"), ((), (0,), (0, 1)))
    for target, layer, channels in every:
        good = (target is None or of_class) and (layer is None or of_layer)
        good = good and len(channels) <= most
        if method == "dream" and target is not None:
            good = good and layer is None and not channels
        if not good:
            with pytest.raises(ConfigError):
                Question(method, target, layer, channels)
            continue
        question = Question(method, target, layer, channels)
        if method == "dream":
            assert (question.of_class, question.of_layer) == (target is not None, target is None)
        else:
            assert (question.of_class, question.of_layer) == (of_class, of_layer)


def test_a_question_that_is_none_says_what_to_leave_out():
    assert Question() == Question("gradcam")
    for options, says in (
        ({"method": "gradcan"}, "did you mean 'gradcam'"),
        ({"method": "filters", "layer": "a"}, "--layer a: filters is not of a layer"),
        ({"channels": (1,)}, "--channel: gradcam is of no single channels"),
        ({"method": "features", "target": 0}, "--target 0: features is of layers"),
        ({"method": "dream", "channels": (1, 2)}, "of one channel, not of 2"),
        ({"method": "dream", "target": 1, "layer": "a"}, "or of a --layer, not of both"),
    ):
        with pytest.raises(ConfigError, match=says):
            Question(**options)


@pytest.mark.parametrize(
    "target, number",
    [("cat", 0), ("1", 2), (1, 1), (0, 0), ("0", 0), (2, 2), ("2", 2)],
)
def test_a_class_is_found_by_its_name_before_its_number(target, number):
    assert find_target(target, ("cat", "dog", "1")) == number


@pytest.mark.parametrize(
    "target, says",
    [
        (3, "target 3: the classes are numbered 0 to 2$"),
        ("3", "target 3: the classes are numbered 0 to 2$"),
        (-1, "target -1: the classes are numbered 0 to 2$"),
        ("cow", "target 'cow': no class has this name; there are cat, dog, ox"),
        ("1.0", "target '1.0': no class has this name"),
        ("--5", "target '--5': no class has this name"),
        ("9" * 5000, "target '9{80}': no class has this name"),
    ],
)
def test_a_class_that_does_not_exist_is_refused(target, says):
    with pytest.raises(ConfigError, match=says):
        find_target(target, ("cat", "dog", "ox"))


@pytest.mark.parametrize("count, more", [(20, ""), (21, ", …"), (30, ", …")])
def test_twenty_classes_are_named(count, more):
    names = [f"n{i}" for i in range(count)]
    with pytest.raises(ConfigError) as caught:
        find_target("zebra", tuple(names))
    assert str(caught.value).endswith(f"there are {', '.join(names[:20])}{more}")


def test_scores_without_a_name_are_called_by_their_numbers():
    e = SimpleNamespace(
        task=SimpleNamespace(explained_names=lambda *, names: tuple(reversed(names))),
        data=SimpleNamespace(label_names=["a", "b"]),
    )
    assert names_of(e, 3) == ("b", "a", "2")
    assert names_of(e, 1) == ("b",)
