"""`bench --suite`: rows that are written as they end and taken up again; the toy run from end to
end. No speed is asserted.
"""

import argparse
import csv
import importlib.metadata
import io
import json
import os
import time

import jax
import pytest

from jaxcnn import models
from jaxcnn.bench import roofline, suites, sweep
from jaxcnn.bench.rows import ACCELERATOR, CPU, SUITES
from jaxcnn.bench.suites import Settings
from jaxcnn.commands import bench as command
from jaxcnn.errors import ConfigError, JaxcnnError, ResourceError
from jaxcnn.runs import code
from tests.bench.test_bench import PEAK

TOY = Settings("cpu", rounds=1, steps=1, toy=True)
FAMILIES = """LeNet, Fashion CNN, AlexNet, VGG, GoogLeNet, Inception, ResNet, ResNeXt, SE, DenseNet,
MobileNet, EfficientNet, ConvNeXt, U-Net, CenterNet, CRNN, FCN, C3D, R3D"""


def timed(ms=2.0):
    quartiles = {"ms_per_step": ms, "ms_quartiles": [ms, ms], "images_per_second": 1e3 / ms}
    blocks = {"disturbed_blocks": 0, "rounds": 1}
    return {**quartiles, **blocks, "share_of_peak": 0.5}


def made_up(row, **fields):
    """A result as a row has it."""
    head = {"name": row.name, "dtype": row.dtype, "batch_size": 2, "compile_seconds": 1.0}
    memory = {"compiled_bytes": {"train": None}}
    numbers = {"train": timed(), "inference": timed(1.0), "memory": memory, "peers": {}}
    return {**head, **numbers, "environment": sweep.surroundings(), **fields}


@pytest.fixture
def measured(monkeypatch):
    """`suites.measured` in place of which results are made up; names of the rows that were asked
    for. A row in `faults` raises instead."""
    asked, faults = [], {}

    def measure(row, settings, *, outside, say):
        asked.append(row.name)
        if row.name in faults:
            raise faults[row.name]
        return made_up(row)

    monkeypatch.setattr(suites, "measured", measure)
    return asked, faults


def run(folder, settings=TOY, rows=CPU[:3], **options):
    return suites.run(settings, rows, folder=folder, outside={}, **options)


def test_the_suites_have_all_families_under_names_that_exist():
    assert {row.family for row in CPU} == {name.strip() for name in FAMILIES.split(",")}
    assert {row.name for rows in SUITES.values() for row in rows} <= {*models.MODELS, *code.files()}
    first = [row.name for row in ACCELERATOR[:4]]
    assert first == ["resnet50", "lenet5_modern", "lenet5_modern", "resnet50"]
    for rows in SUITES.values():
        assert len(set(rows)) == len(rows)  # a row's result is found by what it is


def test_rows_are_chosen_by_name():
    assert [row.name for row in suites.chosen("cpu", ["fcn_1d", "vgg11"])] == ["vgg11", "fcn_1d"]
    with pytest.raises(ConfigError, match=r"'vgg12' is none of its rows.*did you mean 'vgg11'"):
        suites.chosen("cpu", ["vgg12"])


def test_a_call_cut_short_leaves_its_rows_and_the_next_goes_on(tmp_path, measured):
    asked, faults = measured
    faults["alexnet_torchvision"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    (sheet,) = tmp_path.glob("*.json")
    assert [row["name"] for row in json.loads(sheet.read_text())] == asked[:2]
    assert sheet.with_suffix(".md").read_text().count("\n") == 4
    text = sheet.with_suffix(".csv").read_text()
    assert [row["name"] for row in csv.DictReader(io.StringIO(text))] == asked[:2]
    faults.clear()
    asked.clear()
    assert [row["name"] for row in run(tmp_path)] == [row.name for row in CPU[:3]]
    assert asked == ["alexnet_torchvision"]
    assert run(tmp_path) == json.loads(sheet.read_text())
    assert asked == ["alexnet_torchvision"]


def test_other_settings_and_conditions_begin_another_sheet(tmp_path, measured, monkeypatch):
    run(tmp_path)
    run(tmp_path, Settings("cpu", rounds=2, steps=1, toy=True))
    assert len(list(tmp_path.glob("*.json"))) == 2
    monkeypatch.setenv("NPROC", "77")
    run(tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 3
    assert measured[0] == [row.name for row in CPU[:3]] * 3


def test_a_sheet_that_cannot_be_read_is_refused(tmp_path, measured):
    run(tmp_path)
    (sheet,) = tmp_path.glob("*.json")
    sheet.write_text(sheet.read_text()[:-10])
    with pytest.raises(ConfigError, match=r"no sheet of results.*another --out"):
        run(tmp_path)


@pytest.mark.parametrize("text", ['[{"a": 1}]', '{"a": 1}', "[3]", "7"])
def test_a_file_of_something_else_is_refused(tmp_path, measured, text):
    run(tmp_path)
    (sheet,) = tmp_path.glob("*.json")
    sheet.write_text(text)
    with pytest.raises(ConfigError, match="no sheet of results"):
        run(tmp_path)


def test_rows_beside_another_version_of_a_peer_are_not_taken_over(tmp_path, measured, monkeypatch):
    version, own = {"torch": "2.13.0"}, importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version.get(name) or own(name))
    settings = Settings("cpu", peers=("torch",), rounds=1, steps=1, toy=True)
    run(tmp_path, settings, CPU[:1])
    run(tmp_path, settings, CPU[:1])
    assert len(list(tmp_path.glob("*.json"))) == 1
    version["torch"] = "2.14.0"
    run(tmp_path, settings, CPU[:1])
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert measured[0] == [CPU[0].name] * 2


def test_a_row_that_failed_is_measured_by_the_next_call(tmp_path, measured):
    asked, faults = measured
    faults[CPU[1].name] = JaxcnnError("--peer torch: its process ended: killed")
    run(tmp_path)
    faults.clear()
    asked.clear()
    assert ["error" in row for row in run(tmp_path)] == [False] * 3
    assert asked == [CPU[1].name]
    (sheet,) = tmp_path.glob("*.json")
    assert len(json.loads(sheet.read_text())) == 3


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, bench):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match=r"--out .*choose another folder"):
        bench("--suite=cpu", "lenet5_modern", out=tmp_path / "file")


def test_a_row_that_fails_is_told_and_the_next_is_measured(tmp_path, measured):
    measured[1][CPU[1].name] = JaxcnnError("--peer torch: its process ended: killed\nmore")
    found = run(tmp_path)
    assert [row.get("error") for row in found] == [
        None,
        "--peer torch: its process ended: killed",
        None,
    ]
    (sheet,) = tmp_path.glob("*.md")
    assert "| fashion_cnn | float32 | 2 | --peer torch |" in sheet.read_text()


def test_no_row_is_begun_after_the_minutes(tmp_path, monkeypatch):
    def measure(row, settings, *, outside, say):
        time.sleep(0.05)
        return made_up(row)

    monkeypatch.setattr(suites, "measured", measure)
    said = []
    assert len(run(tmp_path, minutes=0.04 / 60, say=said.append)) == 1
    assert any("2 rows are left" in line for line in said)


def test_the_batch_size_with_most_images_a_second_is_taken(monkeypatch):
    speeds = {2: 10.0, 4: 20.0, 8: 15.0, 16: 99.0}
    tried = []

    def results(subjects, peers, *, batch_size, **_):
        for size in map(int, batch_size.split(",")):
            tried.append(size)
            yield {"batch_size": size, "train": {"images_per_second": speeds[size]}}

    monkeypatch.setattr(sweep, "results", results)
    assert suites.best_batch_size(None, "float32", "2,4,8,16") == "4"
    assert tried == [2, 4, 8]


def test_a_network_without_a_counterpart_says_so():
    row = next(row for row in CPU if row.family == "FCN")
    subject = suites.choose(row.name, list(row.toy), bare=True, synthetic=True)
    assert suites.those_with(subject, ["torch"]) == (["torch"], {})
    subject = suites.choose("lenet5", [], bare=True, synthetic=True)
    having, without = suites.those_with(subject, ["torch", "keras"])
    assert having == []
    assert "radial outputs" in without["torch"]


# ---- the toy run ---------------------------------------------------------------------------------


@pytest.fixture
def bench(capsys, monkeypatch, tmp_path):
    """`bench --toy --out …` with arguments -> (what it prints, the rows in its file)."""
    before = dict(os.environ)
    monkeypatch.setattr(roofline, "measure_peak", lambda dtype: PEAK)

    def call(*arguments, out=tmp_path):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        rest = ["--toy", "--steps=1", "--rounds=1", f"--out={out}"]
        assert command.main(parser.parse_args([*arguments, *rest])) == 0
        (sheet,) = tmp_path.glob("*.json")
        return capsys.readouterr().out, json.loads(sheet.read_text())

    yield call
    os.environ.clear()
    os.environ.update(before)


def test_the_toy_run_of_the_cpu_suite(bench):
    out, rows = bench("--suite=cpu", "lenet5_modern", "fcn_1d")
    assert [row["name"] for row in rows] == ["lenet5_modern", "fcn_1d"]
    for row in rows:
        assert "error" not in row
        assert row["train"]["ms_per_step"] > 0
        assert row["inference"]["ms_per_step"] > 0
    assert out.count("\n") == 4


def test_the_toy_run_of_the_accelerator_suite(bench):
    out, rows = bench("--suite=accelerator", "lenet5_modern")
    assert [row["row"]["kind"] for row in rows] == ["epoch", "replicas"]
    assert rows[0]["epoch"]["steps"] == 32
    assert rows[1]["replicas"]["count"] == 2
    assert rows[1]["replicas"]["ms_per_step"].keys() == {"loop", "vmap"}
    assert "an epoch of 32 steps" in out
    assert "2 replicas" in out


def test_a_row_beside_pytorch_as_its_users_have_it_and_tuned(bench):
    pytest.importorskip("torch")
    _, (row,) = bench("--suite=cpu", "fcn_1d", "--peer=torch")
    torch = row["peers"]["torch"]
    assert torch["ratio"] > 0
    assert torch["inference"]["ratio"] > 0
    assert torch["tunings"].keys() == {"users", "tuned"}


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_every_row_of_the_toy_run(bench, suite):
    with jax.numpy_dtype_promotion("standard"):  # Flax's BatchNorm promotes bfloat16
        _, rows = bench(f"--suite={suite}")
    assert len(rows) == len(SUITES[suite])
    assert {row["name"]: row["error"] for row in rows if "error" in row} == {}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--suite=cpu", "--batch-size=3", "model.width=3"], "takes no --batch-size, PATH=VALUE"),
        (["--minutes=3"], "belong to --suite"),
        (["--suite=cpu", "--minutes=0"], "--minutes 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    before = dict(os.environ)
    try:
        with pytest.raises(ConfigError, match=message):
            command.main(parser.parse_args(arguments))
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ResourceError, match=r"--out .*file: cannot be made .*choose another folder"
    ):
        run(tmp_path / "file")
