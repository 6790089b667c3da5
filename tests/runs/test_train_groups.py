"""Groups of replicas: trained one after another, or each by a process of its own."""

import contextlib
import importlib
from functools import partial

import optax
import pytest

from jaxcnn.data.made.digits import Digits
from jaxcnn.errors import ConfigError, DivergedError, ResourceError
from jaxcnn.models.lenet import LeNet5
from jaxcnn.runs.launch import WAIT
from jaxcnn.runs.members import Plan
from jaxcnn.runs.rundir import replica_folder, write_json
from jaxcnn.tasks.classification import Classification
from tests.runs.test_opened import E, put
from tests.runs.test_record_rules import SUMMARY
from tests.runs.test_train_plan import LAUNCH, SEEDS, parts_of
from tests.tiny import Lines, tiny

module = importlib.import_module("jaxcnn.runs.train")
DIGITS = tiny(  # which a worker can make again
    model=LeNet5(), task=Classification(num_classes=10), data=Digits(),
    optimizer=partial(optax.sgd, learning_rate=0.1),
)  # fmt: skip


@pytest.fixture
def grouped(monkeypatch, tmp_path):
    """Trains groups of replicas; calls of what trains one, which may fail."""
    calls, lost = [], set()

    def train_group(plan, base, indices, sources, stop):
        calls.append((indices, sources, stop))
        if tuple(indices) in lost:
            raise DivergedError(f"{indices} diverged")

    @contextlib.contextmanager
    def owned(folders, *, wait):
        calls.append((folders, wait))
        yield

    monkeypatch.setattr(module, "train_group", train_group)
    monkeypatch.setattr(module, "owned", owned)
    monkeypatch.setattr(module, "open_checked", lambda e, split: f"{split} of {e}")
    console = Lines()

    def train(groups, **more):
        plan = Plan(tiny(), "mine", tmp_path, console, **more)
        module._train_groups(plan, groups, ("first train", "first eval"), "stop")

    train.calls, train.lost, train.lines, train.folder = calls, lost, console.lines, tmp_path
    return train


def test_groups_are_trained_one_after_another_each_with_its_data(grouped):
    grouped([("a", [0, 1]), ("b", [2]), ("c", [3, 4])], points=SEEDS)
    folders = [[replica_folder(grouped.folder, i) for i in part] for part in ([0, 1], [2], [3, 4])]
    assert grouped.calls == [
        *((folders[0], 0.0), ([0, 1], ("first train", "first eval"), "stop")),
        *((folders[1], 0.0), ([2], ("train of b", "eval of b"), "stop")),
        *((folders[2], 0.0), ([3, 4], ("train of c", "eval of c"), "stop")),
    ]
    assert grouped.lines == [
        "group 1 of 3: 2 replicas",
        "group 2 of 3: 1 replica",
        "group 3 of 3: 2 replicas",
    ]


def test_a_single_group_is_nothing_to_be_said_and_a_part_waits_for_its_replicas(grouped):
    grouped([("a", [0])])
    assert grouped.calls[0] == ([], 0.0)  # a solo run's folder is owned already
    grouped([("a", [0])], points=SEEDS, part=0)
    assert grouped.calls[2][1] == WAIT
    assert WAIT > 0
    assert grouped.lines == []


def test_a_group_that_diverges_does_not_stop_the_others_unless_all_do(grouped):
    groups = [("a", [0]), ("b", [1]), ("c", [2])]
    grouped.lost |= {(0,), (2,)}
    grouped(groups, points=SEEDS)
    assert [line for line in grouped.lines if "warning" in line] == [
        *("warning: [0] diverged", "warning: [2] diverged"),
    ]
    grouped.lost.add((1,))
    with pytest.raises(DivergedError, match=r"\[2\] diverged"):
        grouped(groups, points=SEEDS)
    with pytest.raises(DivergedError):
        grouped(groups[:1], points=SEEDS)


def test_workers_can_make_the_experiment_again_with_its_data(tmp_path):
    module._check_workers(Plan(DIGITS, "mine", put(tmp_path / "a", e=DIGITS), Lines()))
    with pytest.raises(ConfigError, match="mine: its data are arrays in memory"):
        module._check_workers(Plan(E, "mine", put(tmp_path / "b"), Lines()))


@pytest.mark.parametrize("lost", [False, True])
def test_workers_train_the_parts_that_are_not_done(tmp_path, monkeypatch, lost):
    calls, tables = [], []

    def train_parts(folder, parts, launch, *, way, stop, say):
        calls.append((folder, parts, launch, way, stop))
        say("working")
        if lost:
            raise ResourceError("part 1 was given up")

    def summarize(*what, **more):
        tables.append((what, more))

    monkeypatch.setattr(module, "train_parts", train_parts)
    monkeypatch.setattr(
        module, "summarize_sweep", lambda *what, **more: tables.append((what, more))
    )
    folder, console = parts_of(tmp_path), Lines()
    for i in (0, 2):  # of the first part one
        write_json(replica_folder(folder, i) / "summary.json", {**SUMMARY, "completed": True})
    write_json(replica_folder(folder, 1) / "summary.json", {**SUMMARY, "completed": False})
    points = ({"seed": 3}, {"seed": 4}, {"batch_size": 4})
    plan = Plan(E, "mine", folder, console, points=points, launch=LAUNCH, way="loop")
    if lost:
        with pytest.raises(ResourceError, match=r"given up; the table has the others; .* go on"):
            module._train_by_workers(plan, "stop")
    else:
        module._train_by_workers(plan, "stop")
    assert calls == [(folder, {0: [0, 1]}, LAUNCH, "loop", "stop")]
    assert console.lines == ["working"]
    if lost:
        ((what, more),) = tables
        assert what == (folder, "mine", E.task, [*points], [[0, 1], [2]])
        assert more == {"completed": False, "say": console.line}
    else:
        assert tables == []


def test_a_sweep_with_a_launch_is_left_to_its_workers_and_its_table_made_after_them(
    tmp_path, monkeypatch
):
    done = []

    def train_parts(folder, parts, launch, **_):
        done.append((folder, parts, launch))
        assert (folder / "run.json").is_file()  # from which a worker makes the experiment again

    monkeypatch.setattr(module, "train_parts", train_parts)
    monkeypatch.setattr(module, "train_group", lambda *_: done.append("trained here"))
    monkeypatch.setattr(
        module, "summarize_sweep", lambda *_, completed, say: done.append(completed)
    )
    folder, points = tmp_path / "run", [{"seed": seed} for seed in range(4)]
    run = module.train(DIGITS, folder, points=points, launch=LAUNCH, quiet=True)
    assert run.folder == folder
    assert done == [(folder, {0: [0, 1], 1: [2, 3]}, LAUNCH), True]
