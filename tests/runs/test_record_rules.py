"""Which run.json, summary.json and metrics.jsonl are taken, and which are refused: by key."""

import copy
import json
import sys

import pytest

from jaxcnn.errors import CheckpointError, ConfigError
from jaxcnn.runs.records import read_history, read_run, read_summary

RUN = {
    "format": 2,
    "id": "0123456789abcdef" * 2,
    "experiment": "mine",
    "code": {
        "file": "mine.py",
        "module": "mine",
        "overrides": ["steps=3"],
        "local": {"part.of_it": "part/of_it.py"},
        "sha256": {"mine.py": "89ab"},
    },
    "steps_per_dispatch": 1,
    "data": {
        "entries": [["image", [8, 0, 1], "uint8"], ["label", [], "int32"]],
        "label_names": ["cat", "dog"],
        "sizes": {"train": 50, "eval": 0},
        "files": {"train.csv": [12, 34, "89ab"]},
    },
    "rendered": {
        "type": "jaxcnn.core.experiment:Experiment",
        "data": None,
        "steps": 3,
        "model": {"type": "mine:Net", "layers": [{"function": "mine:f"}, 8, [{"partial": "m:g"}]]},
    },
    "environment": {
        "NPROC": 2,
        "XLA_FLAGS": "--xla_one --xla_two",
        "convolution": "onednn",
        "versions": {"jax": "0.8"},
        "settings": {"enable_x64": False, "default_matmul_precision": None},
        "source": {"commit": "12ab"},
        "device": {"of": ["any", "form"]},
    },
    "began": "2026-12-01T09:30:00+00:00",
    "points": [{"seed": 0}, {"rate": 0.1, "name": "a", "on": True, "off": None, "sizes": [1, "b"]}],
    "halving": 2,
    "together": 1,
    "started_in": "../..",
    "started_from": {"run": "/a/run", "step": 0},
    "published": {"step": 0, "checkpoint": "best"},
    "weights": {"part": "89ab"},
    "replica": 0,
    "point": {"seed": 1},
    "way": "vmap",
    "a key of a later version": [{}],
}
SUMMARY = {
    **{"completed": True, "seconds": 0.5, "verdict": "good", "step": 0, "epoch": 0},
    **{"eval": {}, "best": {}, "state_sha256": "89ab", "test": {}},
}
SWEEP = {**{"completed": False, "seconds": 1, "test": None}, "metric": "loss"}
SWEEP |= {"settings": [{}], "replicas": [{"verdict": 3}]}

NO_TEXT = (None, 3, ["a"], {}, True)
NO_LIST = (None, "abc", 3, {"a": 1})
NO_OBJECT = (None, "abc", 3, ["a"])
NO_COUNT = (None, -1, 1.0, True, "1", [1], 2**53 + 1, 10**400, float("nan"))
NO_PLACE = (
    3,
    "",
    "..",
    "/tmp/a.py",
    "a//b.py",
    "a/../b.py",
    "./a.py",
    "C:a.py",
    "a\\..\\b.py",
    "a/",
)
NO_NUMBER = (None, "1", True, [1], float("nan"), float("inf"), -float("inf"), 10**400, -(10**400))
NO_POINT = (*NO_OBJECT, {"seed": {}}, {"sizes": [1, {}]}, {"sizes": [1, [2]]})
OF_RUN = {
    "experiment": (NO_TEXT, ("", "a b")),
    "code": (NO_OBJECT, ()),
    "code.file": (NO_PLACE, ("a/b.py", "a..b.py")),
    "code.module": (NO_TEXT, ("a.b",)),
    "code.overrides": ((*NO_LIST, ["a", 3]), ([],)),
    "code.local": ((*NO_OBJECT, *({"a": place} for place in NO_PLACE)), ({},)),
    "code.sha256": ((*NO_OBJECT, {"a": 3}), ({},)),
    "steps_per_dispatch": ((*NO_COUNT, 0), (2, 2**53)),
    "data": (NO_OBJECT, ()),
    "data.entries": ((*NO_LIST, [3], [["a", [], "bool"], ["b", []]]), ([],)),
    "data.entries.0": ((*NO_LIST, [], ["a", []], ["a", [], "bool", 3]), ()),
    "data.entries.0.0": (NO_TEXT, ()),
    "data.entries.0.1": ((*NO_LIST, [8, -1], ["8"]), ([],)),
    "data.entries.0.2": (
        (None, 8, "int", "int8 ", "uint128", "float8", "object", "ufloat32"),
        (*("bool", "int8", "uint64", "float16", "float64", "bfloat16"),),
    ),
    "data.label_names": ((*NO_LIST, ["cat", 3]), ([],)),
    "data.sizes": ((*NO_OBJECT, {"train": "many"}), ({},)),
    "data.files": ((*NO_OBJECT, {"a": [1, 2]}, {"a": [1, -2, "b"]}, {"a": [1, 2, 3]}), ({},)),
    "rendered": (NO_OBJECT, ()),
    "rendered.type": (NO_TEXT, ()),
    "rendered.data": ((), ("abc", 3, {"steps": 3})),
    "rendered.model.type": (NO_TEXT, ()),
    "rendered.model.layers.0.function": (NO_TEXT, ()),
    "rendered.model.layers.2.0.partial": (NO_TEXT, ()),
    "environment": (NO_OBJECT, ({},)),
    "environment.NPROC": (("lots", 0, -1, 10_000, [2], 2.5), (None, 1, "9999", 10)),
    "environment.XLA_FLAGS": ((*NO_TEXT, "--a\0b"), ("",)),
    "environment.convolution": ((*NO_TEXT, "a b", ""), ("banded",)),
    "environment.versions": ((*NO_OBJECT, {"jax": 8}), ({},)),
    "environment.settings": (NO_OBJECT, ({}, {"x": [1]})),
    "environment.source": ((*NO_OBJECT, {"commit": None}), ({},)),
    "id": ((None, 3, "mine", "A" * 32, "a" * 31, "a" * 33, "a" * 32 + "-"), ("a" * 32 + "-10",)),
    "began": (
        (None, 3, "today", "2026-12-01T09:30:00", "0001-01-01T00:00:00+00:00"),
        ("2026-12-01T09:30:00-07:00",),
    ),
    "points": ((*NO_LIST, [], [3]), ([{}],)),
    "points.0": (NO_POINT, ({},)),
    "halving": ((*NO_COUNT[1:], 0, 1), (None, 3)),
    "together": ((*NO_COUNT, 0), (2,)),
    "started_in": (NO_TEXT, ("/a",)),
    "started_from": (NO_OBJECT, ()),
    "started_from.run": (NO_TEXT, ()),
    "started_from.step": (NO_COUNT, (5,)),
    "published": (NO_OBJECT, ()),
    "published.step": (NO_COUNT, (5,)),
    "published.checkpoint": (NO_TEXT, ()),
    "weights": ((*NO_OBJECT, {"part": 3}), ({},)),
    "replica": (NO_COUNT, (5,)),
    "point": (NO_POINT, ({},)),
    "way": (NO_TEXT, ("4",)),
}
OF_SUMMARY = {
    "completed": ((None, 0, "no", []), (False,)),
    "seconds": (NO_NUMBER, (0, -1.5, sys.float_info.max, -sys.float_info.max)),
    "verdict": (NO_TEXT, ()),
    "step": (NO_COUNT, (2**53,)),
    "epoch": (NO_NUMBER, (0.5,)),
    "eval": (NO_OBJECT[1:], (None, {"loss": None})),
    "best": (NO_OBJECT, ({"step": 3},)),
    "state_sha256": (NO_TEXT[1:], (None,)),
    "test": (NO_OBJECT[1:], (None,)),
}
OF_SWEEP = {
    "metric": (NO_TEXT, ()),
    "settings": ((*NO_LIST, [3]), ([],)),
    "replicas": ((*NO_LIST, [3]), ([],)),
}
OPTIONAL = {
    *("code.local", "code.sha256", "data.files", "id", "points", "halving", "together", "weights"),
    *("started_in", "started_from", "published", "replica", "point", "way", "best", "test"),
    *("state_sha256", "began"),
    *(key for key in OF_RUN if key.startswith("environment.")),
}
RULES = [
    *((RUN, "run.json", read_run, key, *values) for key, values in OF_RUN.items()),
    *((SUMMARY, "summary.json", read_summary, key, *values) for key, values in OF_SUMMARY.items()),
    *((SWEEP, "summary.json", read_summary, key, *values) for key, values in OF_SWEEP.items()),
]


def edited(content, key, *value):
    """A copy with another value at a dotted key, or without it."""
    content = copy.deepcopy(content)
    *places, last = (int(name) if name.isdigit() else name for name in key.split("."))
    inner = content
    for place in places:
        inner = inner[place]
    if value:
        (inner[last],) = value
    else:
        del inner[last]
    return content


@pytest.mark.parametrize(
    "content, name, read, key, wrong, right",
    RULES,
    ids=[f"{key}-{i}" for i, (_, _, _, key, _, _) in enumerate(RULES)],
)
def test_each_key_takes_its_values_alone(tmp_path, content, name, read, key, wrong, right):
    path = tmp_path / name
    optional = [edited(content, key)] if key in OPTIONAL else []
    for taken in (content, *(edited(content, key, value) for value in right), *optional):
        path.write_text(json.dumps(taken))
        assert read(tmp_path) == taken
    for value in wrong:
        path.write_text(json.dumps(edited(content, key, value)))
        with pytest.raises(CheckpointError) as caught:
            read(tmp_path)
        assert f"{path}: was edited or damaged: {key}" in str(caught.value), value


REQUIRED = [
    rule
    for rule in RULES
    if rule[3] not in OPTIONAL
    and not rule[3].startswith(("rendered.model", "data.entries."))
    and rule[3] not in ("points.0", "replicas")  # without which it is read as a single run's
]


@pytest.mark.parametrize(
    "content, name, read, key", [rule[:4] for rule in REQUIRED], ids=[rule[3] for rule in REQUIRED]
)
def test_what_is_missing_is_named(tmp_path, content, name, read, key):
    (tmp_path / name).write_text(json.dumps(edited(content, key)))
    with pytest.raises(CheckpointError, match=f"damaged: {key} is missing"):
        read(tmp_path)


def test_code_without_a_file_needs_neither_module_nor_overrides(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({**RUN, "code": {"file": None}}))
    assert read_run(tmp_path)["code"] == {"file": None}


@pytest.mark.parametrize(
    "key, value, sentence",
    [
        ("steps_per_dispatch", 0, "is 0, and must be a whole number from 1 to 2**53"),
        ("replica", "a", 'is "a", and must be a whole number from 0 to 2**53'),
        ("way", {"a": 1}, "is dict, and must be a string"),
        ("points", {"a": 1}, "must be a list of at least 1"),
        ("code.overrides", 3, "must be a list"),
        ("data.entries.0", ["a"], "must be a list of 3"),
        ("way", 10**39, f"is 1{'0' * 39}, and must be a string"),  # of 40 letters
        ("way", 10**40, f"is 1{'0' * 36}…, and must be a string"),
    ],
)
def test_a_refusal_says_what_is_there_and_what_must_be(tmp_path, key, value, sentence):
    (tmp_path / "run.json").write_text(json.dumps(edited(RUN, key, value)))
    with pytest.raises(CheckpointError) as caught:
        read_run(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'run.json'}: was edited or damaged: {key} {sentence}; put it back as it was"
    )


@pytest.mark.parametrize("faults, more", [(5, ""), (6, "; and 1 more"), (9, "; and 4 more")])
def test_five_faults_are_named_and_the_others_counted(tmp_path, faults, more):
    local = {f"m{i}": f"../{i}.py" for i in range(faults)}
    (tmp_path / "run.json").write_text(json.dumps(edited(RUN, "code.local", local)))
    with pytest.raises(CheckpointError) as caught:
        read_run(tmp_path)
    named = [i for i in range(faults) if f"code.local.m{i} is" in str(caught.value)]
    assert named == [0, 1, 2, 3, 4]
    assert f"inside the folder{more}; put it back" in str(caught.value)


def test_what_is_not_there_is_no_run_has_no_summary_and_an_empty_history(tmp_path):
    with pytest.raises(ConfigError, match="is not a run directory"):
        read_run(tmp_path)
    assert read_summary(tmp_path) is None
    assert read_history(tmp_path / "metrics.jsonl") == ([], [])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_history(tmp_path)  # a folder
    (tmp_path / "run.json").write_text(json.dumps({**RUN, "format": True}))
    with pytest.raises(CheckpointError, match="format is true, and must be 2"):
        read_run(tmp_path)


TRAIN = {"kind": "train", "step": 1, "epoch": 0.5, "seconds": 0, "loss": 2.5, "name": "a"}
EVAL = {"kind": "eval", "step": 1, "epoch": 0.5, "seconds": 0, "metrics": {"accuracy": None}}
STOP = {"kind": "stop", "step": 1, "epoch": 0.5, "seconds": 0, "why": "signal", "at": 1}


def test_the_lines_of_a_history_are_taken_or_named_with_what_is_wrong(tmp_path):
    """Of the last one, which has no line break, nothing is said."""
    bad = {
        '{"kind": "train"': "no JSON",
        "[]": "it is list, and must be an object {…}",
        json.dumps({**TRAIN, "kind": "other"}): 'kind is "other", and must be one of train',
        json.dumps({**TRAIN, "step": -1}): "step is -1",
        json.dumps({**TRAIN, "epoch": "1"}): 'epoch is "1"',
        json.dumps({k: v for k, v in TRAIN.items() if k != "seconds"}): "seconds is missing",
        json.dumps({**TRAIN, "loss": float("nan")}): "loss is nan",
        json.dumps({**EVAL, "more": -float("inf")}): "more is -inf",
        json.dumps({**EVAL, "metrics": 3}): "metrics is 3",
        json.dumps({**STOP, "why": None}): "why is null",
        json.dumps({**STOP, "at": 0.5}): "at is 0.5",
    }
    good = [TRAIN, EVAL, STOP]
    lines = [*(json.dumps(record) for record in good), *bad, json.dumps(EVAL)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines) + "\n" + lines[0][:30])
    records, faults = read_history(path)
    assert records == [*good, EVAL]
    for number, (fault, says) in enumerate(zip(faults, bad.values(), strict=True), len(good) + 1):
        assert fault.startswith(f"{path}: line {number} is damaged: {says}")
