"""The model card of facts that are written by hand."""

import dataclasses
import json

import pytest

from jaxcnn.runs.card import MOST_CLASSES, Facts, _yaml, card, front_matter
from jaxcnn.tasks.task import Blind
from jaxcnn.tasks.verdict import Verdict
from tests.runs.report.by_hand import SUMMARY, evaluation, write

PICTURE = {
    "shape": ["rows", 8, 8, 1],
    "dtype": "uint8",
    "layout": "NHWC",
    "colour": "grey",
    "range": [0, 255],
    "resize": "bilinear",
}
PREPARATION = {
    "inputs": {"image": PICTURE},
    "inside_the_model": ["first", "second"],
    "outputs": {"label": "int32 ['rows']"},
    "class_names": ["cat", "a | b"],
}
METRICS = {"accuracy": 0.75, "loss": 0.123456, "count": 1200, "odd": [1], "flag": True}
VERDICT = Verdict("accuracy", 0.75, 1200, None, Blind(0.5, "always cat"), True)


@pytest.fixture
def facts(tmp_path):
    run = write(tmp_path / "run", [evaluation(10, **METRICS)])
    return Facts(
        run=run,
        record=run.record,
        step=10,
        verdict=VERDICT,
        evaluation=run.history[-1],
        summary=run.summary,
        row={"top": []},
        preparation=PREPARATION,
        numbers=99,
        off=1.25e-7,
        onnx=None,
        sample={"label": 1},
        license="mit",
        repo=None,
    )


def changed(facts, **fields):
    """The sections of the card of other facts: {title: text}."""
    text = card(dataclasses.replace(facts, **fields))
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    first, *parts = (part.rstrip("\n") for part in text.split("\n## "))
    return {"": first} | dict(part.split("\n\n", 1) for part in parts)


def recorded(facts, **fields):
    return {"record": facts.record | fields}


# ---- front matter ----------------------------------------------------------------------------


def head(facts, **fields):
    """{name: value} of the plain lines of the front matter."""
    lines = front_matter(dataclasses.replace(facts, **fields)).splitlines()
    assert lines[0] == lines[-1] == "---"
    pairs = (line.split(": ", 1) for line in lines if line[0].isalpha() and ": " in line)
    return {name: json.loads(value) for name, value in pairs}


def test_the_front_matter_of_a_card(facts):
    assert front_matter(facts).splitlines() == [
        "---",
        'license: "mit"',
        'library_name: "jaxcnn"',
        "tags:",
        *('  - "jaxcnn"', '  - "jax"', '  - "flax"'),
        'pipeline_tag: "image-classification"',
        "model-index:",
        '  - name: "by_hand"',
        "    results:",
        "      - task:",
        '          type: "image-classification"',
        "        dataset:",
        *('          type: "Pets"', '          name: "Pets"', '          split: "validation"'),
        "        metrics:",
        *(
            '          - type: "accuracy"',
            "            value: 0.75",
            '            name: "accuracy"',
        ),
        *('          - type: "loss"', "            value: 0.123456", '            name: "loss"'),
        "---",
    ]


def test_numbers_of_other_weights_are_not_in_the_index(facts):
    assert "model-index" in front_matter(facts)
    assert "model-index" not in front_matter(dataclasses.replace(facts, step=12))


def test_what_is_not_known_is_not_in_the_front_matter(facts):
    other = front_matter(dataclasses.replace(facts, license=None, evaluation=None, row={}))
    assert 'license: "unknown"' in other
    assert "pipeline_tag" not in other
    assert "model-index" not in other
    assert '  - "onnx"' in front_matter(dataclasses.replace(facts, onnx={"checked": None}))
    assert 'type: "other"' in front_matter(dataclasses.replace(facts, row={}))


@pytest.mark.parametrize(
    "row, tag",
    [
        ({"objects": [{"box": 1}], "text": "x"}, "object-detection"),
        ({"objects": [{"box": 1}, {"mask": 1}]}, "image-segmentation"),
        ({"segmentation": [{"mask": 1}]}, "image-segmentation"),
        ({"points": [], "image": 1}, "keypoint-detection"),
        ({"image": 1}, "image-to-image"),
        ({"text": ""}, "image-to-text"),
        ({"labels": []}, "image-classification"),
        ({"label": 1}, "image-classification"),
        ({"values": []}, None),
    ],
    ids=str,
)
def test_what_the_hub_calls_the_task(facts, row, tag):
    assert head(facts, row=row).get("pipeline_tag") == tag
    numbers = PREPARATION | {"inputs": {"image": PICTURE, "vector": {"shape": ["rows", 3]}}}
    assert "pipeline_tag" not in head(facts, row=row, preparation=numbers)


@pytest.mark.parametrize(
    "data, name",
    [
        ({"type": "m:Pets", "name": "mine"}, "mine"),
        ({"type": "m:Pets", "name": ""}, "Pets"),
        ({"type": "m:Pets", "name": 3}, "Pets"),
        ({}, "not known"),
        ("odd", "not known"),
    ],
    ids=str,
)
def test_what_the_data_are_called(facts, data, name):
    rendered = facts.record["rendered"] | {"data": data}
    text = front_matter(dataclasses.replace(facts, **recorded(facts, rendered=rendered)))
    assert f'\n          type: "{name}"\n          name: "{name}"\n' in text


def test_numbers_that_are_none_are_not_in_the_index(facts):
    odd = {"nan": float("nan"), "huge": 10**400, "whole": 3}
    text = front_matter(dataclasses.replace(facts, evaluation=evaluation(10, **odd)))
    assert '"whole"' in text
    assert '"huge"' not in text
    assert '"nan"' not in text


def test_floats_have_a_point_and_other_texts_are_quoted():
    lines = [*_yaml({"a": [1e-05, 1.5e300, 1e22, 3, True, None, "é", "\x07", "no"]})]
    shown = ["1.0e-05", "1.5e+300", "1.0e+22", "3", "true", "null", '"é"', '"\\u0007"', '"no"']
    assert lines == ["a:", *(f"  - {one}" for one in shown)]
    assert [*_yaml([[1, 2], {"b": 3, "c": {"d": 4}}])] == [
        *("- - 1", "  - 2"),
        *("- b: 3", "  c:", "    d: 4"),
    ]


# ---- sections --------------------------------------------------------------------------------


def test_what_the_model_is(facts):
    text = changed(facts)[""]
    assert (
        "\n---\n\n# by\\_hand\n\n`Net` with 1,234 parameters, trained for the task `Task`" in text
    )
    assert text.endswith("the weights of its last checkpoint, of step 10.")
    other = changed(facts, step=1500, summary={})[""]
    assert "`Net` with 99 numbers" in other
    assert other.endswith("of step 1,500.")
    facts.run.checkpoint = "best"
    assert "of its best checkpoint" in changed(facts)[""]


def table(text):
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.replace("\\_", "_").splitlines()  # no emphasis
        if line.startswith("|") and "---" not in line
    ]


def test_the_results(facts):
    text = changed(facts)["Results"]
    assert text.splitlines()[0] == VERDICT.sentence() + "."
    assert table(text) == [
        ["metric", "validation"],
        ["accuracy", "0.75"],
        ["loss", "0.12346"],
        ["count", "1200"],
    ]
    assert text.endswith("\n\nOne run: the spread over seeds is not known.")
    assert "does not look at the input" not in text
    assert "The evaluation is of step" not in text
    blind = dataclasses.replace(VERDICT, blind=Blind(0.8, "always cat"))
    assert "**No better than a blind answer.**" in changed(facts, verdict=blind)["Results"]
    unknown = dataclasses.replace(VERDICT, blind=None)
    assert "look at the input is not known." in changed(facts, verdict=unknown)["Results"]
    nothing = "The run was not evaluated: how good the model is is not known."
    assert changed(facts, verdict=None)["Results"] == nothing
    assert changed(facts, evaluation=None)["Results"] == nothing


def test_numbers_of_the_test_split_are_those_of_the_same_step(facts):
    summary = SUMMARY | {"test": {"accuracy": 0.5, "odd": [1]}}
    text = changed(facts, summary=summary)["Results"]
    assert table(text)[:3] == [
        ["metric", "validation", "test"],
        ["accuracy", "0.75", "0.5"],
        ["loss", "0.12346", "–"],
    ]
    text = changed(facts, summary=summary, step=1500)["Results"]
    assert table(text)[0] == ["metric", "validation"]
    assert "The evaluation is of step 10, the weights of step 1,500." in text


def test_inputs_and_outputs(facts):
    assert changed(facts)["Inputs and outputs"].splitlines()[2:] == [
        "- `image`: uint8 [rows, 8, 8, 1], NHWC, grey, 0 to 255; resized: bilinear",
        "- inside the model: first; second",
        "- output `label`: int32 [rows]",
        "- classes, in order: cat, a \\| b",
    ]
    numbers = {"inputs": {"x": {"shape": ["rows", 3], "dtype": "float32"}}, "class_names": []}
    lines = changed(facts, preparation=PREPARATION | numbers)["Inputs and outputs"].splitlines()
    assert lines[2] == "- `x`: float32 [rows, 3]"
    assert lines[-1] == "- the classes, if there are any, have no names"


@pytest.mark.parametrize("count, more", [(100, ""), (101, ", … (101 in preprocess.json)")])
def test_of_many_classes_a_hundred_are_listed(facts, count, more):
    preparation = PREPARATION | {"class_names": [f"c{i}" for i in range(count)]}
    last = changed(facts, preparation=preparation)["Inputs and outputs"].splitlines()[-1]
    names = ", ".join(f"c{i}" for i in range(MOST_CLASSES))
    assert last == f"- classes, in order: {names}{more}"
    assert MOST_CLASSES == 100


def test_how_it_is_used(facts):
    text = changed(facts)["Use"]
    assert "rows = dict(np.load('sample.npz'))" in text
    assert 'weights="hf://OWNER/NAME"' in text
    assert "`sample.json` has the answer" in text
    assert text.endswith("their outputs differ by at most 1.2e-07.")
    assert "onnx" not in text
    text = changed(facts, sample=None, repo="me/it")["Use"]
    assert "rows = dict({'image': …})" in text
    assert 'weights="hf://me/it"' in text
    assert "sample.json" not in text


@pytest.mark.parametrize(
    "inputs, sample, says",
    [
        ({"image": PICTURE}, {}, 'predict("sample.png")'),
        ({"image": PICTURE}, None, 'predict("picture.png")'),
        ({"image": PICTURE | {"dtype": "float32"}}, {}, 'predict("picture.png")'),
        ({"signal": {"dtype": "float32"}}, {}, "predict(dict(np.load('sample.npz')))"),
        ({"signal": {"dtype": "float32"}}, None, "predict(dict({'signal': …}))"),
        ({"left": PICTURE, "right": PICTURE}, {}, "predict(dict(np.load('sample.npz')))"),
    ],
)
def test_files_are_given_to_models_of_one_picture_alone(facts, inputs, sample, says):
    inputs = {name: {"shape": ["rows"]} | one for name, one in inputs.items()}
    preparation = PREPARATION | {"inputs": inputs}
    text = changed(facts, preparation=preparation, sample=sample)["Use"]
    assert f'print(jaxcnn.open(".").{says})' in text
    assert ("picture files" in text) == ("png" in says)
    assert ("import jaxcnn, numpy as np" in text) == ("png" not in says)


def test_names_are_shown_as_they_are(facts):
    """Markdown, and the HTML in it, have entities and strike out."""
    names = ["a &lt; b", "~~old~~", "R&D"]
    preparation = PREPARATION | {"class_names": names}
    text = changed(facts, preparation=preparation)["Inputs and outputs"]
    assert r"a \&lt; b, \~\~old\~\~, R\&D" in text


def test_how_it_is_used_with_onnx(facts):
    checked = {"rows": [1, 7], "largest_difference": 1.5e-6}
    text = changed(facts, onnx={"checked": checked})["Use"]
    assert "onnxruntime.InferenceSession('model.onnx')" in text
    assert "were asked 7 rows of noise: they differ by 1.5e-06 of an output's" in text
    text = changed(facts, onnx={"checked": None})["Use"]
    assert "it was not compared with the run: it is larger than 2 GB." in text


def test_the_data(facts):
    text = changed(facts)["Data"]
    assert text.splitlines()[0] == "`Pets`; examples: 50 train, 20 eval."
    assert table(text) == [["field", "value"]]
    assert text.splitlines()[-2:] == ["- `image` uint8[8, 8, 1]", "- `label` int32[]"]
    data = facts.record["data"] | {"sizes": {"train": 1500, "eval": 0}}
    rendered = facts.record["rendered"] | {"data": {"type": "m:Pets", "size": 3}}
    text = changed(facts, **recorded(facts, data=data, rendered=rendered))["Data"]
    assert text.splitlines()[0] == "`Pets`; examples: 1,500 train."
    assert table(text)[1] == ["size", "3"]
    empty = facts.record["data"] | {"sizes": {}}
    text = changed(facts, **recorded(facts, data=empty))["Data"]
    assert text.splitlines()[0] == "`Pets`; examples: not known."


def test_the_training(facts):
    text = changed(facts)["Training"]
    names = [row[0] for row in table(text)]
    assert "model.width" in names
    assert not [name for name in names if name.startswith("data")]
    assert text.endswith("\n\nIt ended: completed, after 12 s.")
    start = {"started_from": {"run": "first", "step": 1500}, "weights": {"hf://a/b": "a file"}}
    lines = changed(facts, summary={}, **recorded(facts, **start))["Training"].splitlines()
    assert lines[-3:] == [
        "It had not ended when this was published.",
        "It went on from step 1,500 of the run first.",
        "It started from hf://a/b, which was a file.",
    ]


def test_versions_and_hardware(facts):
    seen = {"python": "3.12", "versions": {"jax": "0.7", "flax": ""}, "commit": "abc"}
    seen |= {"modified": True, "device": "chip", "num_devices": 2, "processor": "", "x": 1}
    text = changed(facts, **recorded(facts, environment=seen))["Versions and hardware"]
    assert table(text)[-6:] == [
        *(["Python", "3.12"], ["jax", "0.7"], ["flax", "not known"]),
        *(["commit of jaxcnn", "abc, changed since"], ["device", "chip"], ["num_devices", "2"]),
    ]
    (facts.run.folder / "code").mkdir()
    (facts.run.folder / "code" / "jaxcnn.diff").write_text("+")
    text = changed(facts, **recorded(facts, environment=seen))["Versions and hardware"]
    assert "abc, changed since (code/jaxcnn.diff)" in text
    text = changed(facts, **recorded(facts, environment={}))["Versions and hardware"]
    assert ["Python", "not known"] in table(text)
    assert ["commit of jaxcnn", "not known"] in table(text)


def test_what_is_not_known(facts):
    known = changed(facts)["What is not known"].splitlines()
    assert changed(facts, license=None)["What is not known"].splitlines() == [
        "- the licence of the weights",
        *known,
    ]
    assert known[0] == "- the licence of the data, and who is in them"
