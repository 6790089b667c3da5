"""`bench`: the arithmetic of its numbers, the sameness of its peers' networks, the command as a
user meets it. No speed is asserted.
"""

import argparse
import csv
import gzip
import io
import json
import math
import os
import re

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.bench import augmentation, loading, measure, report, roofline, subjects, sweep
from jaxcnn.commands import _main
from jaxcnn.commands import bench as command
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.memory import call_bytes
from jaxcnn.data import augment
from jaxcnn.errors import ConfigError, ResourceError
from tests.tiny import tiny

PEAK = {"flops_per_second": 1e12, "bytes_per_second": 1e11, "disturbed": False}


def test_roofline():
    # 100 FLOP/byte lie right of the ridge at 10, 1 FLOP/byte left of it
    right = roofline.position(10**9, 0.002, 1e7, PEAK)
    assert (right["bound"], right["arithmetic_intensity"]) == ("compute", 100)
    assert right["share_of_roof"] == right["share_of_peak"] == pytest.approx(0.5)
    left = roofline.position(10**9, 0.02, 1e9, PEAK)
    assert left["bound"] == "memory"
    assert left["share_of_roof"] == pytest.approx(0.5)  # 1e9 bytes take 0.01 s at least
    assert left["share_of_peak"] == pytest.approx(0.05)


def test_roofline_without_the_compilers_estimate():
    class Silent:
        def cost_analysis(self):
            return None

        memory_analysis = cost_analysis

    assert roofline.bytes_accessed(Silent()) is None
    assert call_bytes(Silent()) is None
    place = roofline.position(10**9, 0.002, None, PEAK)
    assert place["share_of_peak"] == pytest.approx(0.5)
    assert place["bound"] is None


def test_peaks_are_positive_numbers():
    peak = roofline.measure_peak("bfloat16", size=64, copy_bytes=1 << 16, repeats=1)
    assert peak.keys() == PEAK.keys()
    assert all(0 < peak[name] < float("inf") for name in ("flops_per_second", "bytes_per_second"))


# ---- an experiment, measured ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_measured_experiment(dtype):
    e = tiny(batch_size=5, compute_dtype=dtype)
    source = measure.Noise(e, 7)
    batch = source.take(np.arange(7))
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == {
        name: (s.shape, s.dtype) for name, s in e.data.spec().items()
    }
    assert 0 <= batch["label"].min() <= batch["label"].max() < 3
    with jax.numpy_dtype_promotion(
        "strict" if dtype == "float32" else "standard"
    ):  # Flax's BatchNorm promotes bfloat16
        result = measure.measure(e, source=source, peak=PEAK, steps=2, rounds=3)
    for kind, passes in (("train", 3), ("inference", 1)):
        t = result[kind]
        # TinyNet: 8 x 8 positions of 3 x 3 x 1 x 4, and 4 x 4 x 4 inputs of 3 outputs
        assert t["flops"] == passes * 2 * (64 * 9 * 4 + 64 * 3) * 5
        assert t["images_per_second"] * t["ms_per_step"] == pytest.approx(5e3)
        assert (t["rounds"], t["steps"]) == (3, 2)
        assert result["memory"]["compiled_bytes"][kind] > result["params"] * 4
    assert result["compile_seconds"] == pytest.approx(
        sum(result["compile"]["train"][part] for part in ("trace", "lower", "compile"))
    )
    assert 0 <= result["data_stall_share"] <= 1
    assert result["peers"] == {}
    assert not result["diverged"]


@pytest.mark.parametrize("k", [1, 2])
def test_the_timed_step_is_what_a_run_dispatches(k):
    """Whole dispatches are run, of which the time of the steps asked for is counted; they are the
    steps of a run with as many a dispatch."""
    e = tiny(steps_per_dispatch=k, batch_size=5)
    ours = measure.Compiled(e, measure.Noise(e, 20))
    assert ours.dispatch == k
    assert ours.batches["image"].shape == ((5, 8, 8, 1) if k == 1 else (2, 5, 8, 8, 1))
    took = ours.time("train", 3)
    assert int(ours.state.step) == (3 if k == 1 else 4)
    assert took > 0
    expected, batch = measure.Compiled(tiny(steps_per_dispatch=1, batch_size=5), ours.source), None
    for i in range(int(ours.state.step)):
        batch = ours.batch if k == 1 else jax.tree.map(lambda x, i=i: x[i % k], ours.batches)
        expected.state, _ = expected.steps["train"](expected.state, batch)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        ours.state.params,
        expected.state.params,
    )
    assert 0 <= ours.data_stall_share(2) <= 1
    assert ours.bytes_accessed("train") == pytest.approx(
        expected.bytes_accessed("train"), rel=0.5
    )  # of one step


def test_of_a_dispatch_the_time_of_the_steps_asked_for_counts(monkeypatch):
    ours = measure.Compiled.__new__(measure.Compiled)
    ours.dispatch, ours.state, ours.batches, ours.batch = 4, 0, None, None
    now = [0.0]

    def step(state, batch):
        now[0] += 8.0
        return state, None

    ours.steps = {"train": step, "inference": step}
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    assert ours.time("train", 6) == 12.0  # of two dispatches, 16
    assert ours.time("inference", 3) == 24.0


class OurTwin:
    """In the place of a peer's process: the same experiment once more, `slower` times as slow by
    its own clock."""

    name, tuning, pid = "twin", "users", os.getpid()

    def __init__(self, e, source, slower=1.0):
        self.facts = {
            "params": 1,
            "version": "1",
            "definition": "ours",
            "left_out": {"fast": "lost"},
        }
        self.variants = {kind: ["only"] for kind in measure.KINDS}
        self.ours, self.slower = measure.Compiled(e, source), slower

    def time(self, kind, variant, steps):
        return self.ours.time(kind, steps) * self.slower


@pytest.fixture(scope="module")
def beside_a_twin():
    """Results of an experiment beside itself, and beside one a thousand times as slow."""
    e = tiny(batch_size=5)
    source = measure.Noise(e, 7)
    head = {"name": "tiny", "model": "TinyNet", "dtype": "float32", "batch_size": 5, "peak": PEAK}
    where = {"device": "cpu", "NPROC": "1", "convolution": "fast", "XLA_FLAGS": ""}
    head |= {"synthetic": True, "dropped": [], "environment": where}
    return [
        head
        | measure.measure(
            e, source=source, peak=PEAK, peers=[OurTwin(e, source, slower)], steps=2, rounds=rounds
        )
        for slower, rounds in ((1.0, 2), (1000.0, 7))
    ]


FORMS = {
    "text": report.as_text,
    **{name: lambda r, f=f: f([r]) for name, f in report.FORMS.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_an_order_that_is_not_established_is_said_in_every_form(beside_a_twin, form):
    same, apart = (FORMS[form](result) for result in beside_a_twin)
    assert same.count("not established") >= 2  # in training and in inference
    assert "not established" not in apart
    assert "lost" in same or form == "markdown"


@pytest.mark.parametrize("form", FORMS)
def test_a_disturbed_block_is_said_in_every_form(beside_a_twin, form):
    disturbed = json.loads(json.dumps(beside_a_twin[1]))
    everywhere = [disturbed["train"], disturbed["peers"]["twin"]["variants"]["only (users)"]]
    for t in everywhere:
        t.update(disturbed_blocks=2, others_share=0.34, stolen_share=0.07)
    text = FORMS[form](disturbed)
    if form in ("text", "markdown"):
        assert text.count("disturbed: 2 of 7 blocks (others 34%, stolen 7%)") == 2
    else:
        assert text.count("0.34") >= 2
        assert "disturbed_blocks" in text


def test_markdown_has_the_peers_quartiles(beside_a_twin):
    result = beside_a_twin[1]
    table = report.as_markdown([result])
    for c in (result["peers"]["twin"], result["peers"]["twin"]["inference"]):
        assert f"{c['ratio']:.2f} of only's {report.spread(c)}" in table
        assert c["order"] == "faster"
    assert table.splitlines()[0].count("twin's (users)") == 2


def test_a_batch_that_memory_cannot_hold_is_refused_before_it_runs(monkeypatch):
    monkeypatch.setattr(roofline, "available_bytes", lambda: 1000)
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED") as caught:
        measure.measure(tiny(), source=measure.Noise(tiny(), 8), peak=PEAK, steps=1, rounds=1)
    assert roofline.out_of_memory(caught.value)
    assert not roofline.out_of_memory(RuntimeError("something else"))


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, monkeypatch):
    """`bench` with arguments in this process -> what it prints; small peaks, and the environment as
    it was.
    """
    before = dict(os.environ)
    monkeypatch.setattr(roofline, "measure_peak", lambda dtype: PEAK)

    def call(*arguments):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        assert command.main(parser.parse_args([*arguments, "--steps=1", "--rounds=2"])) == 0
        return capsys.readouterr().out

    yield call
    os.environ.clear()
    os.environ.update(before)


def test_json(run):
    pytest.importorskip("torch")
    result = json.loads(run("lenet5_modern", "batch_size=3", "--peer=torch", "--json"))
    assert {
        "images_per_second",
        "ms_per_step",
        "ms_quartiles",
        "flops_per_second",
        "share_of_peak",
    } <= set(result["train"])
    assert set(result["inference"]) == set(result["train"])
    assert {
        "compile_seconds",
        "compile",
        "memory",
        "data_stall_share",
        "environment",
        "peak",
    } <= set(result)
    # MACs: 117,600 + 240,000 + 48,000 + 10,080 + 840
    assert result["train"]["flops"] == 3 * 2 * 416_520 * 3
    torch = result["peers"]["torch"]
    best = min(variant["ms_per_step"] for variant in torch["variants"].values())
    assert torch["ms_per_step"] == best
    assert torch["ratio"] == pytest.approx(result["train"]["ms_per_step"] / best)
    assert torch["params"] == result["params"] == 61_706
    assert set(torch["variants"]) == {"eager (tuned)", "channels_last (tuned)", "fused (tuned)"}
    assert torch["tunings"].keys() == {"tuned"}
    assert torch["order"] == "not established"  # of two rounds


def test_several_results_as_csv_and_one_as_text(run):
    rows = list(csv.DictReader(io.StringIO(run("sigmoid_mlp", "--batch-size=4,2", "--csv"))))
    assert [(row["dtype"], row["batch_size"]) for row in rows] == [
        ("float32", "2"),
        ("float32", "4"),
    ]
    assert all(float(row["train.images_per_second"]) > 0 for row in rows)
    assert "bfloat16, 2 images a step" in run("sigmoid_mlp", "batch_size=2", "--dtype=bfloat16")


def test_a_sweep_ends_with_memory(run, monkeypatch):
    (row,) = csv.DictReader(io.StringIO(run("sigmoid_mlp", "--batch-size=16", "--csv")))
    room = int(row["memory.compiled_bytes.train"]) / 0.9 + 1
    monkeypatch.setattr(roofline, "available_bytes", lambda: room)
    table = [
        line.split("|")
        for line in run("sigmoid_mlp", "--batch-size=auto", "--markdown").splitlines()
    ]
    assert len({len(line) for line in table}) == 1
    assert [line[3].strip() for line in table[2:]] == ["8", "16", "32"]
    assert [" out of memory " in line for line in table[2:]] == [False, False, True]


def test_memory_that_suffices_for_nothing_is_an_error(run, monkeypatch):
    monkeypatch.setattr(roofline, "available_bytes", lambda: 1)
    with pytest.raises(ResourceError, match="batch"):
        run("sigmoid_mlp")


def test_an_experiment_is_compared_without_what_peers_lack(run):
    overrides = ["clip_norm=1.0", "ema=0.9", "model.num_classes=7"]
    subject = subjects.choose("fashion_cnn", overrides, bare=True, synthetic=True)
    e = subject.experiment
    assert isinstance(e, Experiment)
    assert subject.dropped == ["clip_norm", "ema"]
    assert (e.clip_norm, e.ema, e.task.num_classes, e.data.num_classes) == (None, None, 7, 7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("lenet6",), "lenet"),
        (("lenet5", "--batch-size=0"), "--batch-size 0"),
        (("lenet5", "--dtype=float16"), "float16"),
        (("lenet5", "model.colour=3"), "colour"),
        (("lenet5_modern", "data.shape=4,4,1"), "4"),
        (("lenet5_modern", "--torch-compile"), "belongs to --peer torch"),
        (("lenet5_modern", "--tuning=users"), "--tuning users: belongs to --peer"),
        (("augment", "invert", "--batch-size=4,8"), "takes one --batch-size"),
        (("augment", "invert", "--torch-compile"), "not --peer, --tuning, --torch-compile"),
        (("data", "digits_lenet5", "--batch-size=4,8"), "takes one --batch-size"),
        (("data", "digits_lenet5", "--tuning=users"), "not --peer, --tuning, --torch-compile"),
    ],
)
def test_mistakes_are_explained(run, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run(*arguments)


def test_augmentations_are_timed_one_by_one(capsys):
    args = ["bench", "augment", "invert", "mosaic", "shape=8,10,3", "--batch-size", "4"]
    assert _main.main([*args, "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["name"] for result in found] == ["mosaic", "invert"]
    for result in found:
        assert result["shape"] == [8, 10, 3]
        assert result["rounds"] == 2
        assert result["images_per_second"] == pytest.approx(4e3 / result["ms_per_step"])
    assert augmentation.as_markdown(found).count("\n") == 3
    assert "mosaic" in augmentation.as_text(found[0])


def test_what_is_measured_is_printed_when_the_rest_is_interrupted(capsys, monkeypatch):
    def interrupted(**options):
        yield next(measured(**options))
        raise KeyboardInterrupt

    measured = augmentation.results
    monkeypatch.setattr(augmentation, "results", interrupted)
    args = ["bench", "augment", "invert", "mosaic", "shape=8,10,3", "--batch-size", "4"]
    assert _main.main([*args, "--rounds", "2", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["name"] == "mosaic"


DATA = """
import optax

from jaxcnn import Experiment
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.models.lenet import LeNet5
from jaxcnn.tasks.classification import Classification

experiment = Experiment(
    data=Folder(FOLDER, image_size=(12, 12), channels=1, memory_mib=0),
    model=LeNet5(num_classes=2), task=Classification(num_classes=2), optimizer=optax.sgd,
    batch_size=4, steps=1,
)
"""


def test_data_are_timed_by_threads(tmp_path, capsys, monkeypatch):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (20, 20), i).save(tmp_path / "photos" / name / f"{i}.png")
    path = tmp_path / "own.py"
    path.write_text(DATA.replace("FOLDER", repr(str(tmp_path / "photos"))))
    monkeypatch.setattr(loading, "threads", lambda: [1, 2])
    args = ["bench", "data", str(path), "digits_lenet5", "--rounds", "2", "--steps", "2"]
    assert _main.main([*args, "--json"]) == 0
    own, digits = json.loads(capsys.readouterr().out)
    assert (own["examples"], own["bytes_per_example"], own["streaming"]) == (8, 148, True)
    one, two = own["threads"]["1"], own["threads"]["2"]
    assert one["images_per_second"] == pytest.approx(4e3 / one["ms_per_step"])
    share = two["images_per_second"] / (2 * one["images_per_second"])
    assert own["scaling"] == {"1": 1, "2": pytest.approx(share)}
    assert own["cores_needed"]["5000"] == math.ceil(5000 / one["images_per_second"])
    assert "threads" not in digits  # they lie on the device
    rows = loading.as_markdown([own, digits]).splitlines()
    assert [row.count("|") for row in rows] == 5 * [7]
    assert [row.split("|")[2].strip() for row in rows[2:4]] == ["1", "2"]
    assert "digits_lenet5 | not timed: they lie on the device" in rows[4]
    assert _main.main([*args, "batch_size=2"]) == 0
    said = capsys.readouterr().out
    assert "2 a batch" in said
    assert "2 threads" in said
    assert "they lie on the device" in said
    assert _main.main(["bench", "data", str(path), "--peer", "torch"]) == 2
    assert "not --peer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["inwert"], "'inwert' is none of.*invert"),
        (["shape=8,8"], "shape=8,8: must be shape=HEIGHT,WIDTH,CHANNELS"),
        (["--peer", "torch"], "not --peer"),
    ],
)
def test_what_cannot_be_timed_of_augmentations_is_refused(arguments, message, capsys):
    assert _main.main(["bench", "augment", *arguments]) != 0
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_every_augmentation_can_be_timed():
    """All of `jaxcnn.data.augment` but what draws captions, repeats, or only composes."""
    others = {"IMAGENET_EIGENVALUES", "IMAGENET_EIGENVECTORS", "chain", "crop", "draw_caption"}
    others |= {"repeat", "resize", "standardize"}
    assert set(augmentation.augmentations(8, 8, 3)) == set(augment.__all__) - others


def test_a_trace_has_steps_of_both_kinds(tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure_peak", lambda dtype: PEAK)
    subject = subjects.Subject("a/tiny.py", tiny(), [], synthetic=False)
    (found,) = sweep.results([subject], [], batch_size="2", steps=1, rounds=1, trace=tmp_path)
    assert "train" in found
    (path,) = (tmp_path / "tiny-float32-2").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    for kind in ("train", "inference"):
        steps = [e["args"]["step_num"] for e in events if e.get("name") == kind and e["ph"] == "X"]
        assert sorted(steps) == ["1", "2", "3", "4", "5"]


def test_a_trace_that_cannot_be_written_is_refused_before_anything_is_timed(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert _main.main(["bench", "lenet5_modern", "--trace", str(tmp_path / "file" / "t")]) == 6
    assert "choose another folder" in capsys.readouterr().err
    assert _main.main(["bench", "augment", "--trace", str(tmp_path / "t")]) == 2
    assert "--trace" in capsys.readouterr().err
