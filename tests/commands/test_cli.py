"""The command line as a user meets it: separate processes, exit codes, messages."""

import errno
import importlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from jaxcnn.commands._main import main
from tests.conftest import ROOT

FAST = ("steps=6", "batch_size=32", "log_every=2")


def launch(*arguments, cwd=ROOT, timeout=120, **environment):
    command = [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
    )


class Answer(NamedTuple):
    """What a command says, as `launch` gives it."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def ask(capsys, monkeypatch):
    """A command in this process, for what does not depend on whose process it is."""
    monkeypatch.chdir(ROOT)

    def answer(*arguments):
        capsys.readouterr()
        code = main(list(map(str, arguments)))
        return Answer(code, *capsys.readouterr())

    return answer


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "a run, with spaces and ü"
    done = launch(
        "train",
        "digits_lenet5",
        "steps=60",
        "batch_size=64",
        "optimizer.learning_rate=0.003",
        "--run-dir",
        folder,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_training_leaves_a_run_that_can_be_read(trained):
    folder, summary = trained
    assert summary["completed"]
    assert summary["num_params"] == 60_000
    on_disk = json.loads((folder / "summary.json").read_text())
    assert on_disk["state_sha256"] == summary["state_sha256"]
    record = json.loads((folder / "run.json").read_text())
    assert record["rendered"]["optimizer"]["learning_rate"] == 0.003
    assert {"versions", "NPROC", "device", "commit"} <= set(record["environment"])
    assert (folder / "code/digits_lenet5.py").read_text() == (
        ROOT / "experiments/digits_lenet5.py"
    ).read_text()


def test_evaluate_repeats_the_summary(trained, ask):
    folder, summary = trained
    done = ask("evaluate", folder, "--json")
    metrics = json.loads(done.stdout)
    assert metrics["accuracy"] == summary["eval"]["accuracy"] > 0.3
    assert metrics["confusion"] == summary["eval"]["confusion"]
    # the digits have no test split
    assert ask("evaluate", folder, "--split", "test").returncode == 2


def test_predict_reads_any_image(trained, tmp_path, ask):
    from PIL import Image

    from jaxcnn.data.made.digits import Digits

    folder, _ = trained
    image = np.asarray(Digits().open("eval").take(np.array([0]))["image"])[0, :, :, 0]
    Image.fromarray(image).save(tmp_path / "digit.png")
    Image.fromarray(image).convert("RGBA").resize((300, 200)).save(tmp_path / "large.tiff")
    rows = json.loads(
        ask(
            "predict",
            folder,
            tmp_path / "digit.png",
            tmp_path / "large.tiff",
            "--json",
            "--top",
            10,
        ).stdout
    )
    assert len(rows) == 2
    assert rows[0]["label"] == rows[0]["top"][0]["label"]
    assert len(rows[0]["top"]) == 10
    assert [t["probability"] for t in rows[0]["top"]] == sorted(
        (t["probability"] for t in rows[0]["top"]), reverse=True
    )
    lines = ask("predict", folder, tmp_path / "digit.png", "--csv").stdout.splitlines()
    assert lines[0] == "image,rank,label,name,probability"
    assert len(lines) == 4
    (tmp_path / "text.png").write_text("not a picture")
    broken = ask("predict", folder, tmp_path / "text.png")
    assert broken.returncode == 3
    assert "text.png" in broken.stderr


def test_explain_draws_what_speaks_for_a_class(trained, tmp_path, ask):
    folder, _ = trained
    digit = ROOT / "docs/images/digit.png"
    done = ask("explain", folder, digit, "--target", 3, "--output", tmp_path, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)
    assert (row["method"], row["name"], row["layer"]) == ("gradcam", "3", "S4")
    assert [str(p) for p in tmp_path.iterdir()] == [row["drawing"]]
    # an untrained run has no checkpoint to explain
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/run.json").write_text((folder / "run.json").read_text())
    (tmp_path / "empty/code").symlink_to(folder / "code")
    assert ask("explain", tmp_path / "empty", digit).returncode == 4


def test_an_exported_model_predicts_the_same_without_jaxcnn(trained, tmp_path, ask):
    from jaxcnn.data.made.digits import Digits

    folder, _ = trained
    line = ("export", folder, "--output", tmp_path / "model.jax", "--platforms", "cpu, cuda")
    done = ask(*line, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["platforms"] == ["cpu", "cuda"]
    assert json.loads(done.stdout)["inputs"] == {"image": "uint8[rows, 28, 28, 1]"}
    images = np.asarray(Digits().open("eval").take(np.arange(7))["image"])
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, json, numpy, jax, jax.export as export; folder = sys.argv[1];"
        "model = export.deserialize(open(folder + '/model.jax', 'rb').read());"
        "out = model.call({'image': numpy.load(folder + '/images.npy')}); assert 'jaxcnn' not in "
        "sys.modules;"
        "print(json.dumps(out['probabilities'].tolist()))"
    )
    alone = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    from PIL import Image

    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{i}.png")
    rows = json.loads(
        ask(
            "predict", folder, *[tmp_path / f"{i}.png" for i in range(7)], "--json", "--top", 10
        ).stdout
    )
    ours = [
        [t["probability"] for t in sorted(row["top"], key=lambda t: t["label"])] for row in rows
    ]
    np.testing.assert_allclose(json.loads(alone.stdout), ours, atol=1e-5)


def test_the_summary_of_the_course_notes(ask):
    table = json.loads(ask("summary", "rgb_digits_lenet", "--json").stdout or "{}")
    if not table:
        pytest.skip("MNIST is not prepared: set TFDS_DATA_DIR")
    first = table["layers"][0]
    assert first["shape"] == [28, 28, 6]
    assert (first["activations"], first["params"], first["macs"]) == (4704, 456, 28 * 28 * 6 * 75)
    assert table["params"] == 456 + 2416 + 48_120 + 10_164 + 850


def test_models_by_name(ask):
    rows = json.loads(ask("models", "lenet5", "alexnet", "vgg16", "resnet50", "--json").stdout)
    # LeCun et al. 1998; Krizhevsky et al. 2012, by layer; torchvision 0.21's num_params and _ops
    assert [(r["name"], r["params"]) for r in rows[:2]] == [
        ("lenet5", 60_000),
        ("alexnet", 60_965_224),
    ]
    assert [(r["params"], round(r["macs"] / 1e9, 2)) for r in rows[2:]] == [
        (138_357_544, 15.47),
        (25_557_032, 4.09),
    ]
    assert rows[0]["input_shape"] == [28, 28, 1]


def test_a_sweep_leaves_a_table_and_replicas_that_can_be_asked(tmp_path, ask):
    folder = tmp_path / "sweep"
    axes = ("--sweep", "seed=0..1", "optimizer.learning_rate=0.002,0.004")
    done = launch(
        "train",
        "digits_lenet5",
        "steps=20",
        "--replicas-by",
        "loop",
        "--run-dir",
        folder,
        "--json",
        "--quiet",
        *axes,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert len(summary["replicas"]) == 4
    assert len(summary["settings"]) == 2
    assert summary["best"]["mean"] == max(row["mean"] for row in summary["settings"])
    chosen = json.loads(ask("evaluate", folder, "--replica", 3, "--json").stdout)
    assert chosen["accuracy"] == summary["replicas"][3]["eval"]["accuracy"]
    together = json.loads(ask("evaluate", folder, "--ensemble", "--json").stdout)
    assert together["ensemble_gain"] == pytest.approx(
        together["accuracy"] - together["mean_of_replicas"]
    )
    for which in ((), ("--replica", "4")):
        assert main(["evaluate", str(folder), *which]) == 2
    assert (folder / "sweep.png").exists()
    assert (
        json.loads(ask("train", "--resume", folder, "--json", "--quiet").stdout)["replicas"]
        == summary["replicas"]
    )


ONE_CLASS = """
from jaxcnn.data.memory import Arrays
from jaxcnn.tasks.binary import BinaryClassification
from tests.tiny import TinyNet, arrays, tiny

held_out = arrays(21, seed=1, classes=1)  # an AUROC of one class does not exist
experiment = tiny(
    model=TinyNet(num_classes=1),
    task=BinaryClassification(),
    data=Arrays(train=arrays(50, classes=2), eval=held_out),
    steps=2,
    eval_every=1,
)
"""


def test_a_metric_that_does_not_exist_is_no_lost_replica_and_no_number(tmp_path, ask):
    (tmp_path / "one_class.py").write_text(ONE_CLASS)
    words = ("--sweep", "seed=0,1", "--replicas-by", "loop", "--run-dir", tmp_path / "sweep")
    done = ask("train", tmp_path / "one_class.py", *words, "--quiet", "--report")
    assert "no value  (2 without a final value)" in done.stdout
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "no replica has a final value" in page
    assert "trained to its end" not in page
    found = json.loads(ask("evaluate", tmp_path / "sweep", "--ensemble", "--json").stdout)
    assert [found[k] for k in ("auroc", "mean_of_replicas", "ensemble_gain")] == [None] * 3
    shown = ask("evaluate", tmp_path / "sweep", "--ensemble").stdout
    for name in ("auroc", "mean_of_replicas", "ensemble_gain"):
        assert re.search(rf"^  {name} +-$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (("train", "digits_lenet6"), 2, "did you mean 'digits_lenet5'"),
        (("train", "digits_lenet5", "optimizer.learning_rat=1"), 2, "did you mean 'learning_rate'"),
        (("train", "digits_lenet5", "batch_size=many", "modle.x=1"), 2, "expected int"),
        (("trian",), 2, "did you mean 'train'"),
        (("experiments/digits_lenet5.py",), 2, "launch.py train"),
        (("evaluate", "nowhere"), 2, "not a run directory"),
        (("train", "--resume", "nowhere"), 2, "not a run directory"),
        (("train", "digits_lenet5", "--resume", "nowhere"), 2, "give no experiment"),
        (("train", "digits_lenet5", "--from", "nowhere"), 2, "takes the experiment of its run"),
        (("train", "digits_lenet5", "--run-dir", "/proc/nowhere", *FAST), 6, "--run-dir"),
        (("train", "digits_lenet5", "--sweep", "seed=0..3", "--sample", "-1"), 2, "draw -1 of 4"),
        (("train", "digits_lenet5", "--sweep", "seed=0..3", "--sample", "0"), 2, "draw 0 of 4"),
        (("train", "digits_lenet5", "--sample", "0"), 2, "--sample belongs to a --sweep"),
        (("train", "digits_lenet5", "--sweep", "--zip"), 2, "--zip pairs the axes after --sweep"),
        (("train", "digits_lenet5", "data.image_size=(8, 8)"), 2, "28"),
        (("train", "mnist_lenet5", "data.data_dir=/nowhere"), 3, "launch.py prepare mnist"),
        (("train", "digits_lenet5", "task.num_classes=9"), (2, 3), "9"),
        (("train", "digits_lenet5", "optimizer.weight_decay=1e30", *FAST), 5, "not finite at step"),
    ],
)
def test_a_mistake_gets_one_message_and_a_stable_exit_code(tmp_path, ask, arguments, code, message):
    if arguments[0] == "train" and not any(a.startswith("--") for a in arguments):
        arguments += ("--run-dir", tmp_path / "run")
    done = ask(*arguments)
    assert done.returncode in (code if isinstance(code, tuple) else (code,)), done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 5


def test_errors_in_an_experiment_file_name_file_and_line(tmp_path, ask):
    for name, text, message in [
        ("syntax", "x = (", "syntax.py:1"),
        ("name", "\n\nimport jaxcn", "name.py:3"),
        ("empty", "x = 1", "experiment = Experiment"),
    ]:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        done = ask("check", path)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.splitlines()) <= 5


def test_a_model_is_one_file(tmp_path):
    """CONTRIBUTING's example: a module and an experiment in one file, found by path, resumable from
    its copy.
    """
    path = tmp_path / "mine.py"
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    path.write_text(contributing.split("```python\n")[1].split("```")[0])
    done = launch("train", path, "steps=4", "--run-dir", tmp_path / "a run")
    assert done.returncode == 0, done.stderr
    path.unlink()
    report = tmp_path / "a run/report.html"
    assert f"\nreport: {report}\n" in done.stderr
    assert report.read_text().startswith("<!doctype html>")
    # what it says last is a command that works
    *_, kept, last = done.stdout.splitlines()
    assert kept.endswith(f"run kept in {tmp_path / 'a run'}")
    start, *words = shlex.split(last)[:-1]
    assert (start, last.split()[-1]) == ("next:", "PICTURE")
    assert words == ["python", "launch.py", "predict", str(tmp_path / "a run")]
    assert launch(*words[2:], ROOT / "docs/images/digit.png").returncode == 0
    assert launch("evaluate", tmp_path / "a run").returncode == 0


def test_the_next_command_fits_the_model():
    from jaxcnn.commands.train import next_command
    from jaxcnn.runs.code import load

    folder = Path("runs/a run")
    for name, command in [
        ("digits_lenet5", "predict 'runs/a run' PICTURE"),
        ("photos_style", "predict 'runs/a run' PICTURE"),
        ("xor_mlp", "evaluate 'runs/a run'"),
    ]:
        e = load(ROOT / f"experiments/{name}.py", overrides=[])
        assert next_command(e, folder) == f"python launch.py {command}"


@pytest.mark.parametrize(
    "line, name, wanted",
    [
        ("predict run --ensemble a.png b.png", "images", ["a.png", "b.png"]),
        ("predict run a.png --replica 1 b.png --json c.png", "images", ["a.png", "b.png", "c.png"]),
        ("explain run --replica 0 a.png", "images", ["a.png"]),
        ("compare first --examples 5 second", "runs", [Path("first"), Path("second")]),
        ("bench lenet5 --rounds 3 vgg16 epochs=2", "names", ["lenet5", "vgg16"]),
        ("train a.py x=1 --quiet y=2", "overrides", ["x=1", "y=2"]),
        ("predict run -- -photo.png", "images", ["-photo.png"]),
        ("predict run --json a.png -- -b.png --top", "images", ["a.png", "-b.png", "--top"]),
    ],
)
def test_what_a_verb_takes_many_of_may_follow_options(line, name, wanted, monkeypatch):
    words = line.split()
    module, seen = importlib.import_module(f"jaxcnn.commands.{words[0]}"), []
    monkeypatch.setattr(module, "main", lambda args: seen.append(args) or 0)
    assert main(words) == 0
    assert getattr(seen[0], name) == wanted


@pytest.mark.parametrize(
    "line", ["predict run --ensembel a.png", "evaluate run --tta flip a.png", "train a.py --json b"]
)
def test_what_a_verb_does_not_take_is_refused(line, capsys):
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    assert "unknown arguments" in capsys.readouterr().err


def test_help_is_quick_and_imports_nothing_heavy():
    started = time.monotonic()
    assert launch("--help").returncode == 0
    assert time.monotonic() - started < 1.0
    code = (
        "import sys, jaxcnn.commands._main as m; m._parse(['list']); print([x for x in ('jax', "
        "'tensorflow', 'numpy') if x in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        ).stdout.splitlines()[-1]
        == "[]"
    )


LONG = "x" * 400


@pytest.mark.parametrize(
    "line",
    [f"runs {LONG}", f"train {LONG}.py", f"train digits_lenet5 --run-dir {LONG} --quiet"],
)
def test_what_no_file_can_be_called_is_said_in_a_line(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: '")
    assert said.count("\n") == 1
    assert len(said) < 300
    assert not list(tmp_path.iterdir())


def test_what_belongs_to_others_is_said_in_a_line(tmp_path, monkeypatch, capsys):
    """Root may read all, so that the system's answer is given by hand."""
    module = importlib.import_module("jaxcnn.commands.runs")

    def refuse(args):
        raise PermissionError(errno.EACCES, "Permission denied", tmp_path / "theirs")

    monkeypatch.setattr(module, "main", refuse)
    assert main(["runs"]) == 6
    said = capsys.readouterr().err
    assert said == f"error: '{tmp_path / 'theirs'}': Permission denied; see whose it is, or " + (
        "choose another place\n"
    )


def test_the_summary_of_a_model_by_name_is_of_what_was_asked_for(ask):
    """The figure for pictures of CIFAR-10 is that of many tables: 0.56 billion multiplications."""
    words = ("summary", "resnet18", "model.stem=cifar", "model.num_classes=10", "--json")
    found = json.loads(ask(*words, "data.shape=32,32,3").stdout)
    assert round(found["macs"] / 1e9, 2) == 0.56
    assert found["layers"][-1]["shape"][-1] == 10
    assert "path=value" in ask("summary", "lenet5", "speednet").stderr
    assert "did you mean 'stem'" in ask("summary", "resnet18", "model.stm=cifar").stderr
    assert "takes tokens" in ask("summary", "text_cnn", "model.num_classes=5").stderr


@pytest.mark.parametrize(
    "verb",
    [
        "train",
        "check",
        "summary",
        "evaluate",
        "predict",
        "list",
        "models",
        "export",
        "bench",
        "prepare",
    ],
)
def test_each_verb_has_help_with_an_example(verb):
    done = launch(verb, "--help")
    assert done.returncode == 0
    assert "example: python launch.py" in done.stdout


def test_tensorflow_is_never_imported_to_train():
    code = (
        "import sys; from jaxcnn.commands._main import main; import tempfile;"
        "main(['train', 'digits_lenet5', 'steps=2', '--quiet', '--run-dir', tempfile.mkdtemp() + "
        "'/r']);"
        "assert 'tensorflow' not in sys.modules; assert 'jax' in sys.modules"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT).returncode == 0
    )


def kill_until_done(folder, kills, generator, *arguments):
    """Start a run, kill -9 it at random moments, resume it, and return its summary."""
    start = ["train", *arguments, "--run-dir", folder]
    for attempt in range(kills + 200):
        command = start if not (folder / "run.json").exists() else ["train", "--resume", folder]
        if command is start:
            shutil.rmtree(folder, ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "launch.py"), *map(str, command)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if attempt < kills:
            time.sleep(generator.uniform(1.0, 5.0))
            process.kill()
        _, stderr = process.communicate(timeout=300)
        if process.returncode == 0:
            return json.loads((folder / "summary.json").read_text())
        assert process.returncode == -signal.SIGKILL, stderr
    raise AssertionError("never finished")


@pytest.mark.slow  # tests/faults kills a few runs in each `make test`
@pytest.mark.parametrize("kills", [20])
def test_kill_9_at_random_moments_then_resume_ends_in_the_same_bits(tmp_path, kills, monkeypatch):
    arguments = ("digits_lenet5", "steps=300", "eval_every=0.5", "log_every=5")
    done = launch("train", *arguments, "--run-dir", tmp_path / "golden")
    assert done.returncode == 0, done.stderr
    golden = json.loads((tmp_path / "golden/summary.json").read_text())
    summary = kill_until_done(tmp_path / "killed", kills, random.Random(kills), *arguments)
    assert summary["state_sha256"] == golden["state_sha256"]
    assert summary["eval"] == golden["eval"]
    steps = [
        (json.loads(line)["kind"], json.loads(line)["step"])
        for line in (tmp_path / "killed/metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [
        (json.loads(line)["kind"], json.loads(line)["step"])
        for line in (tmp_path / "golden/metrics.jsonl").read_text().splitlines()
    ]


def test_ctrl_c_saves_and_exits_75(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "launch.py"),
            "train",
            "digits_lenet5",
            "steps=100000",
            "log_every=1",
            "--run-dir",
            str(tmp_path / "r"),
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("step"):
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "--resume" in stderr
    assert list((tmp_path / "r/checkpoints").glob("last-*"))


def test_without_its_requirements_it_says_what_to_do():
    """A Python that sees no installed packages, as a new shell without the environment."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from jaxcnn.commands._main import main"
    code += "; sys.exit(main(['check', 'digits_lenet5']))"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert "pip install -e ." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "train --profile 1..{}",
        "train --coordinator here:{} --processes 1 --process 0",
        "bench augment --batch-size {}",
        "bench augment shape={},8,3",
    ],
)
def test_numbers_of_more_digits_than_python_reads_are_refused(words, capsys):
    assert main(words.format("9" * 5000).split()) == 2
    assert "must be" in capsys.readouterr().err
