"""A published folder: what lies in it, that it answers as the run does, that it says what it is,
and that it goes to the hub and comes back.
"""

import dataclasses
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.commands import _main
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import CheckpointError, ConfigError, DependencyError
from jaxcnn.runs import publish as publish_module
from jaxcnn.runs.card import _yaml
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.publish import publish
from jaxcnn.runs.train import train
from jaxcnn.weights.files import read_sealed, write_arrays
from jaxcnn.weights.load import fill
from tests.conftest import ROOT
from tests.hub import Hub, reachable
from tests.tiny import arrays, tiny

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
HAVE = importlib.util.find_spec("huggingface_hub") is not None
NAMES = ("a | b", "`c`", "naïve: é")


def data():
    return Arrays(train=arrays(50), eval=arrays(21, seed=1), label_names=NAMES)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """With a moving average, and evaluations of which not the last is the best."""
    folder = tmp_path_factory.mktemp("publish") / "run"
    return train(tiny(data=data(), steps=18, seed=7, ema=0.6), folder, name="tiny_one", quiet=True)


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    return publish(run, tmp_path_factory.mktemp("published") / "folder", license="mit")


def front_matter(folder):
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the front matter")
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def test_what_lies_in_it(made):
    wanted = {"README.md", "run.json", "model.safetensors", "model.jax", "preprocess.json"}
    wanted |= {"sample.npz", "sample.png", "sample.json", "metrics.jsonl", "summary.json"}
    assert wanted <= set(made.files)
    assert all((made.folder / name).stat().st_size == size for name, size in made.files.items())
    assert not [n for n in made.files if n.startswith("checkpoints")]
    assert made.notes == []


def test_it_opens_and_answers_as_the_run_does(run, made):
    images = data().open("eval").arrays["image"][:5]
    e = run.experiment
    there = open_run(made.folder, e)
    assert there.step == run.step
    ours, theirs = run.predict(images), there.predict(images)
    for a, b in zip(ours, theirs, strict=True):
        assert a["name"] == b["name"]
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-6)
    assert there.evaluate("eval", data=data())["loss"] == pytest.approx(
        run.evaluate("eval", data=data())["loss"], abs=1e-6
    )
    assert there.metrics == run.metrics


def test_the_weights_are_those_that_were_evaluated_as_others_read_them(run, made):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    found = load_file(made.folder / "model.safetensors")
    state = run.state
    assert {name.partition("/")[0] for name in found} == {"params", "batch_stats"}
    kernel = np.asarray(state.ema["Dense_0"]["kernel"])
    np.testing.assert_array_equal(found["params/Dense_0/kernel"], kernel)
    assert not np.array_equal(kernel, state.params["Dense_0"]["kernel"])
    mean = np.asarray(state.ema_state["batch_stats"]["BatchNorm_0"]["mean"])
    np.testing.assert_array_equal(found["batch_stats/BatchNorm_0/mean"], mean)


def test_weights_of_a_format_of_later_versions_are_refused(made, run, tmp_path):
    folder = shutil.copytree(made.folder, tmp_path / "later")
    arrays, metadata = read_sealed(folder / "model.safetensors")
    write_arrays(folder / "model.safetensors", arrays, {**metadata, "format": "99"})
    with pytest.raises(CheckpointError, match="is of format '99', and this version knows"):
        _ = open_run(folder, run.experiment).state


def test_jax_alone_gives_the_answer_of_the_sample(made):
    code = (
        "import json, sys, jax, numpy as np\n"
        "model = jax.export.deserialize(bytearray(open('model.jax', 'rb').read()))\n"
        "out = model.call(dict(np.load('sample.npz')))\n"
        "assert not [m for m in sys.modules if m.startswith(('jaxcnn', 'flax', 'optax'))]\n"
        "print(json.dumps([int(out['label'][0]), float(out['probability'][0])]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=made.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads((made.folder / "sample.json").read_text())["answer"]
    label, probability = json.loads(done.stdout)
    assert answer["label"] == label
    assert answer["probability"] == pytest.approx(probability, abs=1e-6)


@pytest.mark.skipif(not ONNX, reason="pip install 'jaxcnn[onnx]'")
def test_onnx_runtime_alone_gives_the_answer_of_the_sample(run, tmp_path):
    """By the card's own code."""
    folder = publish(run, tmp_path / "onnx", onnx=True).folder
    head, body = front_matter(folder)
    assert "onnx" in head["tags"]
    (code,) = (c for c in re.findall("```python\n(.*?)```", body, re.S) if "onnxruntime" in c)
    last = "import sys; assert not {'jax', 'jaxcnn', 'onnx'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{last}"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads((folder / "sample.json").read_text())["answer"]
    told = eval(done.stdout, {"array": np.array, **vars(np)})
    assert told["label"].tolist() == [answer["label"]]
    assert told["probability"][0] == pytest.approx(answer["probability"], abs=1e-5)


def test_without_onnx_the_remedy_is_said_and_nothing_is_left(run, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name)
    )
    arguments = ["publish", str(run.folder), "--output", str(tmp_path / "out"), "--onnx"]
    assert _main.main(arguments) == DependencyError.exit_code
    assert "pip install 'jaxcnn[onnx]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_sample_is_the_first_validation_example(made):
    first = data().open("eval").arrays["image"][0]
    np.testing.assert_array_equal(np.load(made.folder / "sample.npz")["image"][0], first)
    np.testing.assert_array_equal(Image.open(made.folder / "sample.png"), first[..., 0])


def test_the_preparation_is_said_for_programs(made):
    found = json.loads((made.folder / "preprocess.json").read_text())
    image = found["inputs"]["image"]
    assert image["shape"] == ["rows", 8, 8, 1]
    assert (image["dtype"], image["range"], image["layout"]) == ("uint8", [0, 255], "NHWC")
    assert found["class_names"] == list(NAMES)


def test_the_card_says_what_the_run_says(run, made):
    head, body = front_matter(made.folder)
    assert head["license"] == "mit"
    assert head["library_name"] == "jaxcnn"
    assert head["pipeline_tag"] == "image-classification"
    (index,) = head["model-index"]
    (result,) = index["results"]
    numbers = {row["type"]: row["value"] for row in result["metrics"]}
    assert numbers["accuracy"] == run.metrics["accuracy"]
    assert numbers["loss"] == run.metrics["loss"]
    assert "count" not in numbers
    assert f"accuracy {run.metrics['accuracy']:.4g}" in body
    assert "on 21 examples; a blind answer" in body
    assert "a \\| b, \\`c\\`, naïve: é" in body  # a name is text, whatever it looks like
    assert "50 train, 21 eval" in body
    assert re.search(r"- `image`: uint8 \[rows, 8, 8, 1\], NHWC, .+, 0 to 255; resized: ", body)
    assert f"| jax | {jax.__version__} |" in body
    assert "the licence of the weights" not in body
    assert "onnx" not in body
    assert "onnx" not in head["tags"]


@pytest.mark.skipif(not HAVE, reason="huggingface_hub is not installed")
def test_the_hub_s_own_reader_takes_the_card(run, made):
    from huggingface_hub import ModelCard

    card = ModelCard.load(made.folder / "README.md")
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found["accuracy"] == run.metrics["accuracy"]
    assert card.data.model_name == "tiny_one"


def test_numbers_and_texts_are_read_back_from_yaml():
    yaml = pytest.importorskip("yaml")
    texts = ["", "no", "1e5", ": #", '"', "\\", "é", "日本", "\x07\u2028", "- a", "a\nb", "😀"]
    numbers = [0.0, 1e-05, 1e300, -2.5, 3, 1e22, True, 0.1]
    content = {"a": [{"b": text, "c": [text]} for text in texts], "n": numbers, "d": {"e": {}}}
    content["d"] = {"e": 1}
    assert yaml.safe_load("\n".join(_yaml(content))) == content


def test_places_and_commands_of_this_machine_stay_here(run, made):
    for name in ("run.json", "README.md", "summary.json", "preprocess.json"):
        text = (made.folder / name).read_text()
        assert str(run.folder.parent) not in text, name
        assert str(ROOT) not in text, name
    assert "command" not in json.loads((made.folder / "run.json").read_text())["environment"]


def test_the_best_checkpoint_is_not_given_the_last_one_s_numbers(run, tmp_path):
    best = open_run(run.folder, run.experiment, checkpoint="best")
    assert best.step != run.step
    made = publish(best, tmp_path / "best")
    there = open_run(made.folder, run.experiment)
    assert there.step == best.step
    assert there.metrics == best.validation["metrics"] != run.metrics
    assert there.summary["eval"] == there.metrics
    assert "state_sha256" not in there.summary


def test_it_cannot_be_trained_on_but_started_from(run, made, tmp_path):
    with pytest.raises(ConfigError, match="is a published model"):
        train(run.experiment, made.folder, resume=True, quiet=True)
    assert not (made.folder / "run.lock").exists()
    start = open_run(made.folder, run.experiment)
    with pytest.raises(ConfigError, match="is a published model"):
        train(run.experiment, tmp_path / "on", start=start, quiet=True)
    e = run.experiment
    fresh = jax.tree.map(np.zeros_like, (run.state.params, run.state.model_state))
    params, statistics, report = fill(e.model, *fresh, made.folder)
    assert report.share == 1
    jax.tree.map(np.testing.assert_array_equal, params, run.state.ema)
    jax.tree.map(np.testing.assert_array_equal, statistics, run.state.ema_state)


def test_damage_is_noticed(run, made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        _ = open_run(folder, run.experiment).state


def test_data_that_are_gone_and_a_sample_that_is_not_wanted(run, tmp_path):
    gone = open_run(run.folder, dataclasses.replace(run.experiment))
    made = publish(gone, tmp_path / "without", sample=False)
    assert not [name for name in made.files if name.startswith("sample")]
    assert made.notes == ["no sample: it was not asked for"]
    head, body = front_matter(made.folder)
    assert head["license"] == "unknown"
    assert "the licence of the weights" in body
    assert "sample.json" not in body
    alone = publish(open_run(run.folder), tmp_path / "gone")  # its arrays were in memory
    assert "were not kept with it" in alone.notes[0]


def test_a_model_that_answers_otherwise_is_not_published(run, tmp_path, monkeypatch):
    def other(e, folder, record):
        state = read_state(e, folder, record)
        return state.replace(ema=jax.tree.map(lambda x: x + 0.01, state.ema))

    read_state = publish_module.read_state
    monkeypatch.setattr(publish_module, "read_state", other)
    with pytest.raises(ConfigError, match=r"model.safetensors answers otherwise than the run"):
        publish(run, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_files_is_left_alone(run, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="holds files already"):
        publish(run, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_the_command(run, tmp_path, capsys, monkeypatch):
    arguments = ["publish", str(run.folder), "--output", str(tmp_path / "out"), "--json"]
    assert _main.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"]["README.md"] == (tmp_path / "out" / "README.md").stat().st_size
    assert _main.main([*arguments[:3], str(tmp_path / "no"), "--public"]) == 2
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    push = [*arguments[:3], str(tmp_path / "no"), "--push", "me/tiny"]
    assert _main.main(push) == DependencyError.exit_code
    assert "pip install 'jaxcnn[hub]'" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.skipif(not HAVE, reason="huggingface_hub is not installed")
def test_it_goes_to_the_hub_and_comes_back(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with reachable(Hub(), tmp_path / "cache", monkeypatch, real=True) as hub:
        arguments = ["publish", str(run.folder), "--output", str(tmp_path / "out")]
        assert _main.main([*arguments, "--push", "me/tiny"]) == 0, capsys.readouterr().err
        (commit,) = hub.commits["me/tiny"]
        assert f"me/tiny/commit/{commit}" in capsys.readouterr().out
        assert hub.created.get("private") or hub.created.get("visibility") == "private"
        sent = hub.commits["me/tiny"][commit]
        for path in (tmp_path / "out").rglob("*.*"):
            assert sent[path.relative_to(tmp_path / "out").as_posix()] == path.read_bytes()
        assert b'weights="hf://me/tiny"' in sent["README.md"]
        fresh = jax.tree.map(np.zeros_like, (run.state.params, run.state.model_state))
        params, *_ = fill(run.experiment.model, *fresh, "hf://me/tiny")
        jax.tree.map(np.testing.assert_array_equal, params, run.state.ema)
