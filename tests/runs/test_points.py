"""The points of a sweep: from axes, from the command line, and what an experiment is at each."""

import itertools
import math
from functools import partial

import numpy as np
import optax
import pytest

from jaxcnn.data.files.class_folder import Folder
from jaxcnn.errors import ConfigError
from jaxcnn.runs import sweep
from jaxcnn.runs.sweep import at
from jaxcnn.tasks.classification import Classification
from tests.tiny import TinyNet, tiny

SGD = partial(optax.sgd, learning_rate=0.05, momentum=0.9)


def test_a_grid_is_every_combination_and_zipping_goes_side_by_side():
    axes = {"seed": (0, 1), "optimizer__learning_rate": (0.1, 0.2)}
    rate = "optimizer.learning_rate"
    every = [{"seed": s, rate: r} for s, r in itertools.product((0, 1), (0.1, 0.2))]
    assert sweep.grid(**axes) == every
    assert sweep.zipped(**axes) == [every[0], every[3]]
    with pytest.raises(ConfigError, match=r"equally many, found \{'a': 2, 'b': 1\}"):
        sweep.zipped(a=(1, 2), b=(1,))


@pytest.mark.parametrize("low, high, count", [(0.5, 2, 3), (1, 1000, 4), (1e-5, 0.1, 2)])
def test_a_logarithmic_range_has_equal_ratios(low, high, count):
    found = sweep.log_range(low, high, count)
    assert (len(found), found[0], found[-1]) == (count, low, high)
    ratios = [b / a for a, b in itertools.pairwise(found)]
    assert ratios == pytest.approx([(high / low) ** (1 / (count - 1))] * (count - 1), rel=1e-5)


@pytest.mark.parametrize(
    "low, high, count", [(0, 1, 2), (-1, 1, 2), (1, 1, 2), (2, 1, 2), (1, 2, 1)]
)
def test_a_logarithmic_range_that_is_none_is_refused(low, high, count):
    with pytest.raises(ConfigError, match="needs 0 < low < high and at least 2 values"):
        sweep.log_range(low, high, count)


def test_points_are_drawn_without_replacement_and_folds_are_told_apart():
    points = sweep.grid(seed=range(6))
    assert sorted(p["seed"] for p in sweep.sample(points, 6)) == list(range(6))
    assert sweep.sample(points, 4) == sweep.sample(points, 4, seed=0)
    drawn = {tuple(p["seed"] for p in sweep.sample(points, 3, seed=s)) for s in range(10)}
    assert len(drawn) > 5
    with pytest.raises(ConfigError, match="cannot draw 7 of 6 points"):
        sweep.sample(points, 7)
    assert sweep.folded([{"seed": 1}, {}], 2) == [
        *({"seed": 1, "fold": (0, 2)}, {"seed": 1, "fold": (1, 2)}),
        *({"fold": (0, 2)}, {"fold": (1, 2)}),
    ]
    with pytest.raises(ConfigError, match="folds=1: there must be at least 2"):
        sweep.folded(points, 1)


NAMED = "jaxcnn.tasks.classification.Classification(num_classes={})"


@pytest.mark.parametrize(
    "assignment, values",
    [
        ("seed=0..3", [0, 1, 2, 3]),
        ("seed=5..5", [5]),
        ("seed=7", [7]),
        ("seed=3,1", [3, 1]),
        ("optimizer.learning_rate=1,0.5", [1.0, 0.5]),
        ("optimizer.learning_rate=log(0.01,1,3)", [0.01, 0.1, 1.0]),
        ("ema=None,0.5", [None, 0.5]),
        # commas within brackets divide no values; what is imported stays a text
        (
            f"task={NAMED.format('3,top=2')},{NAMED.format(3)}",
            [NAMED.format("3,top=2"), NAMED.format(3)],
        ),
    ],
)
def test_the_values_of_an_axis_from_the_command_line(assignment, values):
    path = assignment.partition("=")[0]
    found = sweep.parse(tiny(optimizer=SGD), [assignment])
    assert found == [{path: value} for value in values]
    assert [type(point[path]) for point in found] == [type(value) for value in values]


@pytest.mark.parametrize(
    "text, parts",
    [
        ("a", ["a"]),
        ("a,b,c", ["a", "b", "c"]),
        ("f(1,2),g[3,4],{5,6},7", ["f(1,2)", "g[3,4]", "{5,6}", "7"]),
        ("f(g(1,2),3),h((4,),5)", ["f(g(1,2),3)", "h((4,),5)"]),
        ("a,,b", ["a", "", "b"]),
        ("-2..1", ["-2", "-1", "0", "1"]),
        ("1..0", []),
    ],
)
def test_commas_within_brackets_divide_nothing_and_ranges_hold_their_ends(text, parts):
    assert sweep._values(text) == parts


def test_axes_from_the_command_line_are_combined_or_zipped():
    e, axes = tiny(), ["seed=1,2", "batch_size=4,8"]
    assert len(sweep.parse(e, axes)) == 4
    assert sweep.parse(e, axes, zip_axes=True) == [
        *({"seed": 1, "batch_size": 4}, {"seed": 2, "batch_size": 8}),
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("seed", "must be path=values"),
        ("seed=", "must be path=values"),
        ("", "must be path=values"),
        ("seed=log(a,2,3)", "takes two numbers and a count"),
        ("seed=log(1,2,3.5)", "takes two numbers and a count"),
        ("sed=1", "did you mean 'seed'"),
    ],
)
def test_what_is_no_axis_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        sweep.parse(tiny(), [text])


def test_an_experiment_at_a_point():
    e = tiny(optimizer=SGD)
    found = at(e, {"model.width": 7, "seed": 3, "mesh": "data=1",
                   "model": "tests.tiny.TinyNet(dropout=0.5)", "ema": None})  # fmt: skip
    assert found.model == TinyNet(width=7, dropout=0.5)
    assert (found.seed, found.mesh, found.ema) == (3, "data=1", None)
    assert found.batch_size == e.batch_size
    assert at(e, {"model": TinyNet(width=5)}).model == TinyNet(width=5)  # itself, from Python
    assert at(e, {"optimizer.learning_rate": 0.5}).optimizer.keywords["learning_rate"] == 0.5
    assert at(e, {}) == e
    with pytest.raises(ConfigError, match="no field 'widht'"):
        at(e, {"model.widht": 3})


def test_folds_are_of_the_data_of_their_point():
    data = Folder(path="a")
    e = tiny(data=data)
    found = at(e, {"fold": (1, 3), "data.path": "b"})
    assert (found.data.data, found.data.k, found.data.n) == (Folder(path="b"), 1, 3)
    again = at(found, {"fold": (2, 4)})  # of an experiment that is a fold already
    assert (again.data.data, again.data.k, again.data.n) == (Folder(path="b"), 2, 4)
    assert at(found, {"fold": (1, 3)}).data is found.data  # with all that it has read
    assert at(found, {"fold": (2, 3)}).data.k == 2
    assert at(found, {"fold": (1, 4)}).data.n == 4


@pytest.mark.parametrize(
    "path, value, is_number",
    [
        ("optimizer.learning_rate", 0.5, True),
        ("task.label_smoothing", 0.5, True),
        ("optimizer.learning_rate", 1, False),  # a whole number has a type of its own
        ("optimizer.learning_rate", math.inf, False),
        ("optimizer.learning_rate", "0.5", False),
        ("optimizer.nesterov", 0.5, False),
        ("task.num_classes", 3.0, False),
        ("schedule.warmup", 0.5, False),
        ("model.dropout", 0.5, False),
        ("ema", 0.5, False),
        ("task", 0.5, False),
    ],
)
def test_finite_floats_of_optimizer_and_task_live_in_the_state(path, value, is_number):
    e = tiny(optimizer=partial(optax.sgd, learning_rate=0.05, nesterov=False))
    assert sweep.is_number_of_state(e, path, value) == is_number
    expected = {path: value} if is_number else {}
    assert sweep.numbers(e, {path: value, "seed": 3, "fold": (0, 2)}) == expected


def test_each_point_of_a_group_has_every_number_by_which_they_differ():
    e = tiny(optimizer=SGD)
    rate, smoothing = "optimizer.learning_rate", "task.label_smoothing"
    points = [{"seed": 1, rate: 0.5}, {"seed": 2, smoothing: 0.25}, {}]
    assert sweep.all_numbers(e, points) == [
        {rate: 0.5, smoothing: 0.0},
        {rate: 0.05, smoothing: 0.25},
        {rate: 0.05, smoothing: 0.0},
    ]


def test_points_share_a_program_where_seed_and_numbers_alone_differ():
    e = tiny(optimizer=SGD, data=Folder(path="a"))
    other = "jaxcnn.tasks.classification.Classification(num_classes=4)"
    points = [
        {"seed": 0, "optimizer.learning_rate": 0.1},
        {"seed": 0, "batch_size": 4},
        {"seed": 1, "optimizer.learning_rate": 0.2},
        {"seed": 0, "fold": (0, 2)},
        {"seed": 0, "fold": (1, 2)},
        {"batch_size": 4, "seed": 5, "task.label_smoothing": 0.5},
        {"task": other, "task.label_smoothing": 0.5},
        {"task": other, "task.label_smoothing": 0.25},
        {"seed": 3, "fold": (0, 2)},
    ]
    found = sweep.groups(e, points)
    assert [indices for _, indices in found] == [[0, 2], [1, 5], [3, 8], [4], [6, 7]]
    assert [base.batch_size for base, _ in found] == [8, 4, 8, 8, 8]
    assert [base.seed for base, _ in found] == [e.seed] * 5
    assert found[3][0].data.k == 1
    assert found[4][0].task == Classification(num_classes=4)


@pytest.mark.parametrize(
    "point",
    [
        {"seed": 1, "optimizer.learning_rate": 0.5, "ema": None},
        {"data.path": "tests.tiny", "data.nested": True},  # a place, not what it could import
        {"fold": (0, 3)},
        {"task": NAMED.format(3)},
        {"data.image_size": (8, 8)},
    ],
)
def test_what_run_json_gives_back_as_it_was_may_be_a_point(point):
    e = tiny(optimizer=SGD, data=Folder(path="a"))
    sweep.check_kept(e, [{}, point])
    assert sweep.as_point(
        {p: list(v) if isinstance(v, tuple) else v for p, v in point.items()}
    ) == (point)


@pytest.mark.parametrize(
    "path, value",
    [
        ("augment", (partial(max, 3),)),
        ("model", TinyNet()),
        ("data.image_size", [8, 8]),  # would come back as a tuple
        ("data.image_size", ((8,), 8)),
        ("seed", np.int32(3)),
        ("ema", math.nan),
    ],
)
def test_a_point_that_would_come_back_as_another_is_refused(path, value):
    with pytest.raises(ConfigError, match=f"^point 1 of the sweep: {path} is "):
        sweep.check_kept(tiny(data=Folder(path="a")), [{"seed": 3}, {path: value}])


def test_a_point_names_no_code_of_the_users_own_that_no_sweep_keeps():
    with pytest.raises(ConfigError, match=r"--sweep model=tests\.tiny\.TinyNet\(\): tests"):
        sweep.check_kept(tiny(), [{"model": "tests.tiny.TinyNet()"}])


@pytest.mark.parametrize(
    "steps, replicas, halving, rungs",
    [
        (36, 9, 3, {4: 3, 12: 1}),
        (100, 5, 2, {12: 3, 25: 2, 50: 1}),
        (27, 4, 3, {3: 2, 9: 1}),
        (10, 2, 4, {2: 1}),
        (3, 1, 2, {}),
        (1, 2, 4, {1: 1}),  # no rung before the first step
    ],
)
def test_rungs_of_successive_halving(steps, replicas, halving, rungs):
    """After each round 1 of so many, rounded up, goes on so many times as long."""
    assert sweep.rungs(steps, replicas, halving) == rungs


@pytest.mark.parametrize(
    "axes, says",
    [
        (["seed=0..1000000"], r"0\.\.1000000: is 1,000,001 points; a sweep has at most 1,000,000"),
        (["seed=0..10000000000"], "is 10,000,000,001 points"),
        (["optimizer.learning_rate=log(0.1,1,10000000000)"], "is 10,000,000,000 points"),
        (["seed=0..999", "batch_size=1..1001"], "seed batch_size: is 1,001,000 points"),
        ([f"seed=0..{'9' * 5000}"], "expected int"),
    ],
)
def test_more_points_than_a_list_holds_are_refused_before_it_is_made(axes, says):
    with pytest.raises(ConfigError, match=says):
        sweep.parse(tiny(optimizer=SGD), axes)
