"""TensorBoard: what a person sees there is what the run's folder says, each step once."""

import dataclasses
import io
import json
import resource
import shutil
import time

import jax
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from jaxcnn.data.memory import Arrays
from jaxcnn.runs.board import TensorBoard
from jaxcnn.runs.events import Event
from jaxcnn.runs.trackers import track
from jaxcnn.runs.train import train
from jaxcnn.tasks.classification import Classification
from tests.tiny import Lines, arrays, fit, tiny

pytest.importorskip("tensorboardX")
WEIGHTS = {"Conv_0/kernel", "BatchNorm_0/bias", "BatchNorm_0/scale", "Dense_0/bias"}
WEIGHTS |= {"Dense_0/kernel"}


def logged(folder):
    """All events of a folder's files in their order, by tensorboardX's protocol buffers."""
    from tensorboardX.proto.event_pb2 import Event as Logged

    events = []
    for path in sorted(folder.iterdir()):
        blob = path.read_bytes()
        while blob:  # length, its checksum, the event, its checksum
            size = int.from_bytes(blob[:8], "little")
            events.append(Logged.FromString(blob[12 : 12 + size]))
            blob = blob[16 + size :]
    return events


def shown(folder):
    """[(step, summary value)] that TensorBoard shows: a session that starts at a step hides what
    earlier ones logged from there on, if it is not the first that the folder's files name
    (tensorboard/backend/event_processing/plugin_event_accumulator.py).
    """
    values, sessions = [], 0
    for event in logged(folder):
        if event.HasField("session_log"):
            assert event.session_log.status == event.session_log.START
            sessions += 1
            if sessions > 1:
                values = [(step, value) for step, value in values if step < event.step]
        values += [(event.step, value) for value in event.summary.value]
    return values


def curves(folder):
    """{tag: [(step, value)]} of scalars."""
    found = {}
    for step, value in shown(folder):
        if value.WhichOneof("value") == "simple_value":
            found.setdefault(value.tag, []).append((step, value.simple_value))
    return found


def of_history(run):
    """The same, of metrics.jsonl."""
    found = {}
    for record in [r for r in run.history if r["kind"] != "stop"]:
        for name, value in record.get("metrics", record).items():
            if isinstance(value, int | float) and name not in ("step", "epoch", "replica"):
                point = (record["step"], pytest.approx(value, rel=1e-6))
                found.setdefault(f"{record['kind']}/{name}", []).append(point)
    return found


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory):
    """(a run that was killed at step 8 and resumed at step 5, its weights at its evaluations)."""
    folder, weights, broken = tmp_path_factory.mktemp("board") / "run", {}, []

    def interrupt(event):
        if event.kind == "eval":
            weights[event.step] = jax.device_get(event.state().params)
        if event.kind == "train" and event.step == 8 and not broken:
            broken.append(event)
            raise KeyboardInterrupt

    watch = [track("tensorboard"), interrupt]
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), folder, observe=watch, quiet=True)
    first = shown(folder / "tensorboard")
    assert max(step for step, value in first if value.tag == "train/loss") == 8
    run = train(tiny(), folder, observe=watch, resume=True, quiet=True)
    return run, weights


def test_each_step_is_there_once_however_often_the_run_was_broken_off(broken_off):
    run, _ = broken_off
    assert curves(run.folder / "tensorboard") == of_history(run)
    assert len([*(run.folder / "tensorboard").iterdir()]) == 2


def test_histograms_are_of_the_weights_and_of_their_changes(broken_off):
    run, weights = broken_off
    found = {}
    for step, value in shown(run.folder / "tensorboard"):
        if value.WhichOneof("value") == "histo":
            found[value.tag, step] = value.histo
    # the process that resumes at step 5 does not know the weights of the evaluation before
    steps = {("weights", 5), ("weights", 10), ("weights", 12), ("changes", 12)}
    assert set(found) == {(f"{kind}/{name}", step) for kind, step in steps for name in WEIGHTS}
    for (tag, step), histogram in found.items():
        kind, layer, name = tag.split("/")
        values = np.float64(weights[step][layer][name])
        if kind == "changes":
            values = values - weights[10][layer][name]
        for got, want in (
            (histogram.num, values.size),
            (sum(histogram.bucket), values.size),
            (histogram.min, values.min()),
            (histogram.max, values.max()),
            (histogram.sum, values.sum()),
            (histogram.sum_squares, np.square(values).sum()),
        ):
            assert got == pytest.approx(want, rel=1e-5, abs=1e-6), tag
        edges = np.array([-np.inf, *histogram.bucket_limit])
        edges[-1] = np.inf  # rounding of the largest
        np.testing.assert_array_equal(np.histogram(values, edges)[0], histogram.bucket)


def test_pictures_are_the_first_of_the_evaluation(broken_off):
    run, _ = broken_off
    found = {}
    for step, value in shown(run.folder / "tensorboard"):
        if value.WhichOneof("value") == "image":
            picture = Image.open(io.BytesIO(value.image.encoded_image_string))
            assert picture.size == (value.image.width, value.image.height)
            found.setdefault(value.tag, {})[step] = np.asarray(picture)
    assert {tag: [*steps] for tag, steps in found.items()} == {
        "examples/true": [5, 10],  # once a process
        "examples/said": [5, 10, 12],
    }
    images = arrays(21, seed=1)["image"]
    for picture in (found["examples/true"][5], found["examples/said"][12]):
        for i in range(8):  # 4 a row, of 256 pixels, 8 apart, above a line of words
            left, top = 8 + i % 4 * 264, 8 if i < 4 else picture.shape[0] // 2 + 4
            tile = picture[top : top + 256, left : left + 256, 0]
            np.testing.assert_array_equal(tile[16::32, 16::32], images[i, ..., 0], str(i))
    said = found["examples/said"]
    assert not np.array_equal(said[5], said[12]), "the words below them change"


def test_text_and_hyperparameters_are_those_of_the_run(broken_off, tmp_path):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    run, _ = broken_off
    texts, sessions = {}, []
    for event in logged(run.folder / "tensorboard"):
        for value in event.summary.value:
            plugin = value.metadata.plugin_data
            if plugin.plugin_name == "text":
                texts[value.tag] = value.tensor.string_val[0].decode()
            elif plugin.plugin_name == "hparams":
                sessions.append((value.tag, HParamsPluginData.FromString(plugin.content)))
    code = (run.folder / "code" / "tests" / "tiny.py").read_text()
    kept = texts["code/tests/tiny.py/text_summary"].splitlines()
    assert [line.removeprefix("    ") for line in kept] == code.splitlines()
    experiment = texts["experiment/text_summary"]
    assert "    optimizer: adamw\n    optimizer.learning_rate: 0.01\n" in experiment
    (_, start), (_, end) = sessions  # none for having been broken off
    values = start.session_start_info.hparams
    assert values["optimizer.learning_rate"].number_value == 0.01
    assert values["seed"].number_value == 0
    assert values["model"].string_value == "TinyNet"
    assert values["task.larger_is_better"].bool_value is True
    assert end.session_end_info.status == 1  # success


def test_the_replicas_of_a_sweep_have_a_board_each_without_details(tmp_path):
    points = [{"seed": 0}, {"seed": 1}]
    run = train(tiny(), tmp_path, points=points, way="loop", halving=2, quiet=True)
    for replica in run.replicas:
        values = shown(replica.folder / "tensorboard")
        assert curves(replica.folder / "tensorboard") == of_history(replica)
        kinds = {value.WhichOneof("value") for _, value in values}
        assert kinds == {"simple_value", "tensor", None}  # no pictures, no histograms
    lengths = [len(curves(r.folder / "tensorboard")["train/loss"]) for r in run.replicas]
    assert sorted(lengths) == [6, 12], "one was dropped half-way"


class OfNumbers(nn.Module):
    @nn.compact
    def __call__(self, vector, *, train):
        return nn.Dense(3)(vector)


def test_a_run_without_pictures_has_histograms_and_no_pictures(tmp_path):
    def split(size):
        found = arrays(size)
        return {"vector": found["image"][:, 0, :, 0].astype(np.float32), "label": found["label"]}

    e = tiny(model=OfNumbers(), data=Arrays(split(20), split(9)), augment=(), ema=None, steps=2)
    e = dataclasses.replace(e, task=Classification(num_classes=3, inputs=("vector",)))
    console = Lines()
    train(e, tmp_path, observe=[track("tensorboard")], console=console)
    assert not [line for line in console.lines if "raised" in line]
    kinds = {value.WhichOneof("value") for _, value in shown(tmp_path / "tensorboard")}
    assert "histo" in kinds
    assert "image" not in kinds


def test_a_board_that_cannot_be_written_ends_alone(tmp_path):
    class Blocks(TensorBoard):
        def __call__(self, event):
            (tmp_path / "a" / "tensorboard").touch()  # where its folder should be
            super().__call__(event)

    console = Lines()
    run = train(tiny(), tmp_path / "a", observe=[Blocks()], console=console)
    assert sum("Blocks raised FileExistsError" in line for line in console.lines) == 1
    assert run.summary["state_sha256"] == fit(tiny(), tmp_path / "b")["state_sha256"]


def test_it_fails_at_once_on_a_full_disk(tmp_path, broken_off):
    """It raises, and is dropped as any observer, where it would have waited for ever."""
    shutil.copy(broken_off[0].folder / "run.json", tmp_path)
    board = TensorBoard()

    def told(step, kind="train"):
        record = {"kind": "train", "step": step, "epoch": 1.0, "loss": 1.0 / step}
        return Event(kind, step, record, lambda: None, folder=tmp_path)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    board(told(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    def tell():
        for step in range(2, 2000):
            board(told(step))

    try:
        with pytest.raises(OSError, match="too large"):
            tell()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        board(told(1, kind="end"))


@pytest.mark.filterwarnings("default")  # of its own packages
def test_the_real_tensorboard_shows_it(broken_off, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard itself is installed by test-parity")
    import werkzeug.test
    from tensorboard import default, program
    from tensorboard.backend import application

    run, _ = broken_off
    shutil.copytree(run.folder, tmp_path / "a")
    train(tiny(model=tiny().model.clone(width=2)), tmp_path / "b", quiet=True)
    board = program.TensorBoard(plugins=default.get_plugins())
    board.configure([None, "--logdir", str(tmp_path), "--load_fast=false"])
    ingester = board._make_data_ingester()
    ingester.start()
    site = application.TensorBoardWSGIApp(
        board.flags,
        board.plugin_loaders,
        ingester.data_provider,
        board.assets_zip_provider,
        ingester.deprecated_multiplexer,
    )
    client = werkzeug.test.Client(site)

    def get(path):
        return json.loads(client.get(f"/data/{path}").data)

    place, end = "run=a/tensorboard&tag", time.monotonic() + 60
    while set(get("runs")) != {"a/tensorboard", "b/tensorboard"} and time.monotonic() < end:
        time.sleep(0.2)
    ingester.deprecated_multiplexer.Reload()  # whole, wherever its thread is
    for tag, points in of_history(run).items():
        seen = get(f"plugin/scalars/scalars?{place}={tag}")
        assert [(step, value) for _, step, value in seen] == points
    rows = get(f"plugin/histograms/histograms?{place}=weights/Dense_0/kernel")
    assert [row[1] for row in rows] == [5, 10, 12]
    assert [x["step"] for x in get(f"plugin/images/images?{place}=examples/said")] == [5, 10, 12]
    text = get(f"plugin/text/text?{place}=experiment/text_summary")[0]["text"]
    assert "optimizer.learning_rate: 0.01" in text
    query = {"experimentName": "", "startIndex": 0, "sliceSize": 10, "colParams": []}
    query["allowedStatuses"] = ["STATUS_SUCCESS"]
    answer = client.post("/data/plugin/hparams/session_groups", json=query).data
    groups = {group["name"]: group for group in json.loads(answer)["sessionGroups"]}
    widths = {name: group["hparams"]["model.width"] for name, group in groups.items()}
    assert widths == {"a/tensorboard": 4, "b/tensorboard": 2}
    metrics = {m["name"]["tag"]: m["value"] for m in groups["a/tensorboard"]["metricValues"]}
    assert metrics["eval/accuracy"] == pytest.approx(run.summary["eval"]["accuracy"])
