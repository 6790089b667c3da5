"""Whole runs: exact resume, faithful history, signals, locks, faults."""

import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from functools import partial

import jax
import numpy as np
import optax
import pytest

from jaxcnn.core import transforms
from jaxcnn.core.program import make_program
from jaxcnn.data.dataset import batch_indices
from jaxcnn.data.files.class_folder import Folder
from jaxcnn.data.memory import Arrays, MemorySource
from jaxcnn.data.stream import StreamSource, in_memory_if_small
from jaxcnn.errors import (
    BusyError,
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    Preempted,
)
from jaxcnn.runs import feed
from jaxcnn.runs.evaluation import evaluate
from jaxcnn.runs.open import open as open_run
from jaxcnn.runs.rundir import locked
from jaxcnn.runs.train import train
from jaxcnn.runs.writers import History
from jaxcnn.tasks.binary import BinaryClassification
from tests.tiny import Lines, TinyNet, arrays, fit, stop_at, tiny


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    return fit(tiny(), folder), History(folder / "metrics.jsonl").records


def test_initial_numbers_are_the_same_bits_however_well_their_drawing_is_compiled():
    """Of every initializer that the networks here take from Flax."""
    make = jax.nn.initializers
    draws = [
        *(make.lecun_normal(), make.he_normal(), make.glorot_uniform(), make.orthogonal()),
        *(make.normal(0.01), make.truncated_normal(0.02)),
        make.variance_scaling(1 / 3, "fan_in", "uniform"),
        make.variance_scaling(2.0, "fan_out", "truncated_normal"),
    ]

    def drawn(key):
        keys = jax.random.split(key, len(draws))
        shapes = ((3, 3, 5, 16), (70, 30))
        return [draw(keys[i], shape) for i, draw in enumerate(draws) for shape in shapes]

    key, options = jax.random.key(0), transforms.called_once()
    assert options  # else there is nothing to compare
    quick = jax.jit(drawn, compiler_options=options)(key)
    for ours, usual in zip(quick, jax.jit(drawn)(key), strict=True):
        np.testing.assert_array_equal(ours, usual)


@pytest.mark.parametrize("step", range(1, 12))
def test_a_run_stopped_at_any_step_resumes_to_the_same_bits(tmp_path, golden, step):
    with pytest.raises(Preempted, match=f"step {step} of 12"):
        fit(
            tiny(), tmp_path, observe=[stop_at(step, signal.SIGINT if step % 2 else signal.SIGTERM)]
        )
    assert not json.loads((tmp_path / "summary.json").read_text())["completed"]
    summary = fit(tiny(), tmp_path, resume=True)
    assert summary["state_sha256"] == golden[0]["state_sha256"]
    assert summary["eval"] == golden[0]["eval"]
    records = History(tmp_path / "metrics.jsonl").records
    assert [(r["kind"], r["step"]) for r in records] == [(r["kind"], r["step"]) for r in golden[1]]
    assert [r["loss"] for r in records if "loss" in r] == [
        r["loss"] for r in golden[1] if "loss" in r
    ]


def test_five_interruptions_change_nothing(tmp_path, golden):
    for i, step in enumerate((2, 3, 7, 9, 11)):
        with pytest.raises(Preempted):
            fit(tiny(), tmp_path, resume=i > 0, observe=[stop_at(step)])
    assert fit(tiny(), tmp_path, resume=True)["state_sha256"] == golden[0]["state_sha256"]


def test_resuming_a_finished_run_repeats_its_summary(tmp_path, golden):
    fit(tiny(), tmp_path)
    again = fit(tiny(), tmp_path, resume=True)
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in golden[0].items() if k != "seconds"
    }


def test_a_damaged_newest_checkpoint_falls_back_and_still_ends_in_the_same_bits(tmp_path, golden):
    with pytest.raises(Preempted):
        fit(tiny(), tmp_path, observe=[stop_at(10)])
    newest = sorted((tmp_path / "checkpoints").glob("last-*"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    console = Lines()
    assert (
        fit(tiny(), tmp_path, resume=True, console=console)["state_sha256"]
        == golden[0]["state_sha256"]
    )
    assert any("damaged" in line for line in console.lines)


def test_a_torn_last_line_of_the_history_is_dropped(tmp_path, golden):
    with pytest.raises(Preempted):
        fit(tiny(), tmp_path, observe=[stop_at(6)])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 7, "lo')
    fit(tiny(), tmp_path, resume=True)
    assert [r["step"] for r in History(tmp_path / "metrics.jsonl").records] == [
        r["step"] for r in golden[1]
    ]


def test_a_second_process_is_refused(tmp_path):
    with (
        locked(tmp_path, resume=False),
        pytest.raises(BusyError, match=f"pid {os.getpid()}"),
        locked(tmp_path, resume=False),
    ):
        pass


def test_a_used_folder_and_a_folder_without_a_run_are_refused(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files already"):
        fit(tiny(), tmp_path)
    with pytest.raises(ConfigError, match="not a run directory"):
        fit(tiny(), tmp_path / "nothing", resume=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_another_model_does_not_take_the_checkpoint(tmp_path):
    with pytest.raises(Preempted):
        fit(tiny(), tmp_path, observe=[stop_at(3)])
    other = tiny(model=dataclasses.replace(tiny().model, width=5))
    with pytest.raises(ConfigError, match=r"model\.width: 4 then, 5 now"):
        fit(other, tmp_path, resume=True)
    run = open_run(tmp_path, tiny())
    with pytest.raises(CheckpointError, match="Conv_0/kernel"):
        run.checkpoints.restore(
            jax.eval_shape(make_program(other, steps=12).init, jax.random.key(0))
        )
    assert int(run.state.step) == 3


def test_divergence_names_the_step_and_keeps_the_last_good_state(tmp_path):
    e = tiny(
        optimizer=partial(optax.sgd, learning_rate=1e30), clip_norm=None, log_every=4, augment=()
    )
    with pytest.raises(DivergedError) as caught:
        fit(e, tmp_path)
    template = jax.eval_shape(make_program(e, steps=12).init, jax.random.key(0))
    state, step = open_run(tmp_path, e).checkpoints.restore(template)
    assert f"at step {step} " in str(caught.value)
    assert "learning_rate" in str(caught.value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: {**a, "label": a["label"] + 1}, r"label.*3"),
        (lambda a: {**a, "label": a["label"] - 1}, r"label.*-1"),
        (lambda a: {**a, "label": a["label"][:-1]}, "label"),
        (lambda a: {**a, "image": a["image"].astype(np.float32)}, "unscaled|scale"),
        (
            lambda a: {**a, "image": np.where(a["image"] > 5, np.nan, 0).astype(np.float32)},
            "finite|nan",
        ),
    ],
)
def test_bad_data_are_refused_before_training(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        fit(tiny(data=Arrays(train=change(arrays(50)), eval=arrays(21))), tmp_path)


@pytest.mark.parametrize("place", [10, 100, 199])
@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("memory_mib", [1024, 0], ids=["memory", "stream"])
def test_every_row_is_checked(tmp_path, place, split, memory_mib):
    """A single wrong label among 200, wherever it stands, in memory or in a stream that is decoded
    batch by batch.
    """
    splits = {"train": arrays(200), "eval": arrays(200, seed=1)}
    splits[split]["label"][place] = 99

    @dataclasses.dataclass(frozen=True, eq=False)
    class Data(Arrays):
        def open(self, split):
            source = super().open(split)
            rows = [{name: x[i] for name, x in source.arrays.items()} for i in range(len(source))]
            streamed = StreamSource(
                lambda indices: [rows[i] for i in indices], len(rows), self.spec()
            )
            return in_memory_if_small(streamed, self.spec(), memory_mib=memory_mib)

    with pytest.raises(DataError, match="is 99; labels must lie in"):
        fit(tiny(data=Data(**splits), steps=25, log_every=25), tmp_path)


def test_metrics_do_not_depend_on_the_evaluation_batch(golden):
    e = tiny()
    program = transforms.compile(transforms.scored(make_program(e, steps=12), e))
    state = program.init(jax.random.key(0))
    source = e.data.open("eval")
    results = [
        evaluate(program, state, source, dataclasses.replace(e, eval_batch_size=rows))
        for rows in (1, 4, 7, 20, 21, 64)
    ]
    for other in results[1:]:
        assert other["confusion"] == results[0]["confusion"]
        np.testing.assert_allclose(other["loss"], results[0]["loss"], rtol=1e-6)


def test_the_threshold_chosen_on_validation_scores_the_test_split(tmp_path):
    e = tiny(
        task=BinaryClassification(positive=(2,)),
        model=dataclasses.replace(tiny().model, num_classes=1),
        data=Arrays(train=arrays(60), eval=arrays(40, seed=1), test=arrays(40, seed=2)),
    )
    summary = fit(e, tmp_path)
    assert summary["test"]["threshold"] == summary["eval"]["best_threshold"]


def test_patience_stops_early_and_the_best_is_kept(tmp_path):
    e = tiny(
        optimizer=partial(optax.sgd, learning_rate=1e-9),
        patience=2,
        steps=60,
        eval_every=0.5,
        ema=None,
    )
    summary = fit(e, tmp_path)
    assert summary["step"] < 60
    assert summary["best"]["step"] == min(
        r["step"] for r in History(tmp_path / "metrics.jsonl").evaluations()
    )
    assert len(list((tmp_path / "checkpoints").glob("best-*"))) == 1


@pytest.mark.parametrize("points", [None, [{"seed": 0}, {"seed": 1}]])
@pytest.mark.parametrize("left", ["nothing", "a damaged file"])
def test_a_kill_between_a_stop_and_its_checkpoint_takes_no_older_state_for_it(
    tmp_path, points, left
):
    """That a replica is out of patience is written while a thread still writes its state."""

    def keep(event):
        if event.kind == "stop" and not (tmp_path / "killed").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "killed")
            folder = tmp_path / "killed" / event.folder.relative_to(tmp_path / "run")
            newest = folder / "checkpoints" / f"last-{event.step:09d}.safetensors"
            for path in newest.parent.glob(f"*-{event.step:09d}.*"):
                path.unlink()
            if left == "a damaged file":
                newest.write_bytes(b"half of a")

    slow = partial(optax.sgd, learning_rate=1e-9)
    e = tiny(optimizer=slow, patience=1, eval_every=0.3, steps=60, ema=None)
    way = None if points is None else "loop"
    run = train(e, tmp_path / "run", points=points, way=way, observe=[keep], quiet=True)
    again = train(e, tmp_path / "killed", points=points, resume=True, quiet=True)
    for a, b in zip(*(r.replicas if points else [r] for r in (run, again)), strict=True):
        assert (a.step, a.summary["state_sha256"]) == (b.step, b.summary["state_sha256"])
        told = [[(r["kind"], r["step"]) for r in replica.history] for replica in (a, b)]
        assert told[0] == told[1]


def test_a_folder_too_large_for_memory_trains_and_resumes_as_one_in_memory(tmp_path):
    from PIL import Image

    for i, label in enumerate(np.random.default_rng(0).integers(0, 3, 40)):
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        picture = arrays(1, seed=i)["image"][0, ..., 0]
        Image.fromarray(picture).save(tmp_path / "images" / str(label) / f"{i}.png")
    folder = Folder(str(tmp_path / "images"), image_size=(8, 8), channels=1)
    streamed = dataclasses.replace(folder, memory_mib=0)
    assert (folder.open("train").streaming, streamed.open("train").streaming) == (False, True)
    a = fit(tiny(data=folder), tmp_path / "a")
    with pytest.raises(Preempted):
        fit(tiny(data=streamed), tmp_path / "b", observe=[stop_at(5)])
    b = fit(tiny(data=streamed), tmp_path / "b", resume=True)
    assert a["state_sha256"] == b["state_sha256"]


def test_a_source_that_changes_shapes_fails_instead_of_compiling_again_and_again(tmp_path):
    class Uneven:
        """Every second batch of training lacks a row."""

        streaming = False
        arrays = None

        def __init__(self, source):
            self.source, self.calls = source, 0

        def __len__(self):
            return len(self.source)

        def take(self, indices):
            self.calls += 1
            return self.source.take(indices[: len(indices) - self.calls % 2])

    @dataclasses.dataclass(frozen=True, eq=False)
    class UnevenArrays(Arrays):
        def open(self, split):
            return Uneven(super().open(split)) if split == "train" else super().open(split)

    e = tiny(data=UnevenArrays(train=arrays(60), eval=arrays(20, seed=1)))
    with pytest.raises(ConfigError, match="compiled 2 times"):
        fit(e, tmp_path)


def test_background_batches_come_in_order_and_errors_arrive():
    class Slow:
        streaming = True

        def __len__(self):
            return 10

        def take(self, indices):
            assert threading.current_thread() is not threading.main_thread()
            if self.fail_at is not None and (indices == self.fail_at).any():
                raise DataError("broken file")
            return {"index": indices}

    slow = Slow()
    slow.fail_at = None
    steps = [(step, step + 1) for step in range(3, 9)]
    got = [b["index"].tolist() for _, b in feed.batches(slow, steps, seed=0, batch_size=4)]
    want = [batch_indices(0, step, size=10, batch_size=4).tolist() for step in range(3, 9)]
    assert got == want
    slow.fail_at = 5
    with pytest.raises(DataError, match="broken file"):
        list(feed.batches(slow, steps, seed=0, batch_size=4))


@pytest.mark.parametrize("size", [1, 3])
def test_batches_gathered_together_are_those_gathered_one_by_one(size):
    source = MemorySource({"index": np.arange(50, dtype=np.int32)})
    steps = list(feed.pieces(2, 220, size=size, intervals=(100,)))
    got = list(feed.batches(source, steps, seed=1, batch_size=8))
    assert [piece for piece, _ in got] == steps
    for (first, end), batch in got:
        want = np.stack(
            [batch_indices(1, step, size=50, batch_size=8) for step in range(first, end)]
        )
        np.testing.assert_array_equal(batch["index"], want[0] if end - first == 1 else want)


@pytest.mark.parametrize(
    "size, intervals", [(1, ()), (4, ()), (4, (10,)), (16, (7, 50)), (3, (3, 6))]
)
def test_pieces_cover_the_steps_and_stop_where_the_loop_must(size, intervals):
    whole = list(feed.pieces(0, 60, size=size, intervals=intervals))
    assert [step for piece in whole for step in range(*piece)] == list(range(60))
    assert {end - first for first, end in whole} <= {1, size}
    for interval in intervals:
        assert not any(
            first < multiple < end for first, end in whole for multiple in range(0, 60, interval)
        )
    for i, (first, _) in enumerate(whole):
        assert list(feed.pieces(first, 60, size=size, intervals=intervals)) == whole[i:], (
            "a resumed run goes on with the same pieces"
        )


def test_many_steps_a_dispatch_train_as_single_steps_do(tmp_path):
    one = fit(tiny(steps=20, log_every=7, augment=()), tmp_path / "one")
    many = tiny(steps=20, log_every=7, augment=(), steps_per_dispatch=4)
    whole = fit(many, tmp_path / "many")
    assert json.loads((tmp_path / "many" / "run.json").read_text())["steps_per_dispatch"] == 4
    assert whole["eval"]["loss"] == pytest.approx(one["eval"]["loss"], rel=1e-4)
    steps = [
        [record["step"] for record in History(tmp_path / way / "metrics.jsonl").records]
        for way in ("one", "many")
    ]
    assert steps[0] == steps[1]
    with pytest.raises(Preempted):
        fit(many, tmp_path / "resumed", observe=[stop_at(10)])
    resumed = fit(many, tmp_path / "resumed", resume=True)
    assert resumed["state_sha256"] == whole["state_sha256"]


def test_on_cpu_no_step_is_in_progress_while_batches_are_gathered_together():
    source, events = tiny().data.open("train"), []
    take = source.take
    source.take = lambda rows: events.append(rows.shape[:-1]) or take(rows)
    list(
        feed.batches(
            source,
            [(step, step + 1) for step in range(200)],
            seed=0,
            batch_size=8,
            settle=lambda: events.append("settled"),
        )
    )
    together = [i for i, event in enumerate(events) if event != "settled" and event]
    assert together
    if jax.default_backend() == "cpu":
        assert all(events[i - 1] == "settled" for i in together)
        assert events.count("settled") == len(together)


def test_the_steps_of_a_run_move_nothing_but_indices():
    """No implicit transfer between host and device in the steady state: an accelerator never waits
    for the host.
    """
    program, source = (
        transforms.on_devices(make_program(tiny(), steps=12)),
        tiny().data.open("train"),
    )
    state = program.init(jax.random.key(0))
    for _, batch in feed.batches(
        source, [(step, step + 1) for step in range(2)], seed=0, batch_size=8
    ):
        state, _ = program.train_step(state, batch)
    with jax.transfer_guard("disallow"):
        for _, batch in feed.batches(
            source, [(step, step + 1) for step in range(2, 12)], seed=0, batch_size=8
        ):
            state, metrics = program.train_step(state, batch)
        with pytest.raises(Exception, match="Disallowed"):
            np.ones(3, np.float32) + metrics["loss"]  # what the guard would have refused
    assert int(state.step) == 12


class Slow(TinyNet):
    """Takes half a second to be traced."""

    def __call__(self, image, *, train: bool):
        time.sleep(0.5)
        return super().__call__(image, train=train)


@pytest.mark.parametrize("way", ["single", "scanned"])
def test_speed_does_not_count_steps_that_compiled(way, tmp_path):
    """The images of the first record over its speed are the time of the other steps alone."""
    steps = 4 if way == "scanned" else 1
    e = tiny(model=Slow(), steps=16, log_every=8, eval_every=100.0, steps_per_dispatch=steps)
    run = train(e, tmp_path / way, quiet=True)
    first, second = (r for r in run.history if r["kind"] == "train")
    # 8 steps of 8 images in the half second that tracing alone takes were 128 images a second
    assert first["images_per_second"] > 128
    assert second["images_per_second"] > 128
    if way == "scanned":
        return
    lines = Lines()
    every = train(dataclasses.replace(e, log_every=1, steps=2), tmp_path / "every", console=lines)
    records = [r for r in every.history if r["kind"] == "train"]
    assert records[0]["images_per_second"] is None  # its only step compiled
    assert "images/s" not in next(line for line in lines.lines if line.startswith("step 1 "))
