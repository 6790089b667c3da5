"""The table of a sweep's settings, its summary and its plot, from summaries written by hand."""

import json
import math
import statistics
import struct
import sys
from types import SimpleNamespace

import pytest

from jaxcnn.errors import CheckpointError
from jaxcnn.runs.rundir import replica_folder, write_json
from jaxcnn.runs.table import plot, summarize_sweep, table


def row(value, verdict="completed", **point):
    return {"point": point, "eval": None if value is None else {"loss": value}, "verdict": verdict}


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_settings_are_points_without_seed_and_fold_the_best_mean_first(larger_is_better):
    rows = [
        row(0.5, rate=0.1, seed=0),
        row(4.0, rate=0.2, seed=0),
        row(1.5, "stopped early at step 3", rate=0.1, seed=1, fold=(0, 2)),
        row(9.0, rate=0.3, seed=0),
        row(-2.0, rate=0.4, seed=0),
        row(None, "diverged at step 3", rate=0.5, seed=0),
        row(8.0, "dropped at a rung", rate=0.1, seed=2),  # no final value
        row(None, rate=0.5, seed=1),
        row(0.0, rate=0.6),
    ]
    found = table(rows, metric="loss", larger_is_better=larger_is_better)
    *ranked, last = [(entry["setting"]["rate"], entry["mean"]) for entry in found]
    means = {0.1: 1.0, 0.2: 4.0, 0.3: 9.0, 0.4: -2.0, 0.6: 0.0}
    order = sorted(means, key=means.get, reverse=larger_is_better)
    assert ranked == [(rate, means[rate]) for rate in order]
    assert last == (0.5, None)
    by_rate = {entry["setting"]["rate"]: entry for entry in found}
    assert {rate: (e["n"], e["lost"]) for rate, e in by_rate.items()} == {
        **dict.fromkeys((0.2, 0.3, 0.4, 0.6), (1, 0)),
        **{0.1: (2, 1), 0.5: (0, 2)},
    }
    assert set(by_rate[0.1]) == {"setting", "n", "lost", "mean", "std", "interval95"}
    assert (by_rate[0.2]["std"], by_rate[0.2]["interval95"]) == (None, None)
    assert (by_rate[0.5]["std"], by_rate[0.5]["interval95"]) == (None, None)


# of Student's distribution, 97.5 % quantiles as any table of it has them, by degrees of freedom
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 9: 2.262}


@pytest.mark.parametrize("freedom", STUDENT)
def test_the_interval_of_a_mean_is_students(freedom):
    values = [0.5, 0.75, 0.25, 1.0, 0.5, 0.25, 0.75, 1.0, 0.0, 0.25][: freedom + 1]
    rows = [row(value, rate=1, seed=i) for i, value in enumerate(values)]
    (found,) = table(rows, metric="loss", larger_is_better=True)
    assert found["n"] == len(values)
    assert found["mean"] == pytest.approx(statistics.mean(values))
    assert found["std"] == pytest.approx(statistics.stdev(values))
    half = STUDENT[freedom] * statistics.stdev(values) / math.sqrt(len(values))
    assert found["interval95"] == pytest.approx(half, rel=3e-4)


def summary_of(loss, seconds, **more):
    return {
        **{"experiment": "mine", "completed": True, "verdict": "completed", "seconds": seconds},
        **{"step": 5, "epoch": 1.0, "eval": {"loss": loss}, **more},
    }


@pytest.mark.parametrize("larger_is_better, order", [(True, "highest"), (False, "lowest")])
def test_a_sweeps_summary_has_its_replicas_settings_and_seconds(tmp_path, larger_is_better, order):
    points = [{"rate": 0.1}, {"rate": 0.2}, {"rate": 0.4}, {"rate": 0.8}]
    for i, (loss, seconds) in enumerate(((0.5, 3.0), (0.25, 5.0), (0.75, 2.0))):
        replica_folder(tmp_path, i).mkdir(parents=True)
        write_json(replica_folder(tmp_path, i) / "summary.json", summary_of(loss, seconds))
    task = SimpleNamespace(metric="loss", larger_is_better=larger_is_better)
    said = []
    summary = summarize_sweep(
        tmp_path, "mine", task, points, [[0, 1], [2], [3]], say=said.append
    )  # fmt: skip
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert {k: summary[k] for k in ("experiment", "completed", "metric", "rule")} == {
        **{"experiment": "mine", "completed": True, "metric": "loss"},
        "rule": f"best setting: {order} mean final loss",
    }
    assert summary["seconds"] == 7.0  # the first two were trained together; one not at all
    assert summary["settings"] == table(
        summary["replicas"], metric="loss", larger_is_better=larger_is_better
    )
    assert summary["best"] == summary["settings"][0]
    assert summary["best"]["mean"] == (0.75 if larger_is_better else 0.25)
    first, *_, lost = summary["replicas"]
    assert first == {
        **{"replica": 0, "point": {"rate": 0.1}, "verdict": "completed", "seconds": 3.0},
        **{"step": 5, "epoch": 1.0, "eval": {"loss": 0.5}},
    }
    assert (lost["verdict"], lost["eval"], lost["replica"]) == ("not finished", None, 3)
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert said == []
    (replica_folder(tmp_path, 1) / "summary.json").write_text("{")
    with pytest.raises(CheckpointError):
        summarize_sweep(tmp_path, "mine", task, points, [[0]], say=print)


def test_a_sweep_without_replicas_has_no_best_setting_and_no_plot(tmp_path):
    task = SimpleNamespace(metric="loss", larger_is_better=False)
    found = summarize_sweep(tmp_path, "mine", task, [], [], completed=False, say=print)
    assert (found["best"], found["completed"], found["seconds"]) == (None, False, 0)
    assert not (tmp_path / "sweep.png").exists()


def setting(mean, half=None, n=1, **values):
    return {"setting": values, "mean": mean, "interval95": half, "n": n}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Plots settings; the plane of the figure, which is closed only now."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    open_before, closed = pyplot.get_fignums(), []
    close = pyplot.close
    monkeypatch.setattr(pyplot, "close", closed.append)

    def draw(*settings):
        plot([*settings], metric="loss", path=tmp_path / "a.png", say=print)
        assert [figure.number for figure in closed] == [pyplot.get_fignums()[-1]]
        return closed[0].axes[0]

    yield draw
    for figure in closed:
        close(figure)
    assert pyplot.get_fignums() == open_before


def lines_of(plane):
    """{label: (points, half lengths of the bars)} of what was drawn."""
    found = {}
    for bars in plane.containers:
        line, _, (segments,) = bars.lines
        halves = [(top[1] - low[1]) / 2 for low, top in segments.get_segments()]
        found[bars.get_label()] = ([tuple(map(float, xy)) for xy in line.get_xydata()], halves)
    return found


def test_the_metric_is_drawn_over_the_first_numeric_axis_a_line_for_each_of_the_others(
    drawn, tmp_path
):
    plane = drawn(
        setting(3.0, 0.5, kind="b", rate=2, width=1),
        setting(1.0, 0.25, kind="a", rate=4, width=1),
        setting(2.0, None, kind="a", rate=1, width=1),
        setting(None, None, kind="a", rate=9, width=2),  # lost: nothing to draw
    )
    assert lines_of(plane) == {
        "kind=a": ([(1.0, 2.0), (4.0, 1.0)], [0.0, 0.25]),
        "kind=b": ([(2.0, 3.0)], [0.5]),
    }
    assert (plane.get_xlabel(), plane.get_ylabel()) == ("rate", "loss")
    assert [text.get_text() for text in plane.get_legend().get_texts()] == ["kind=a", "kind=b"]
    assert all(bars.lines[0].get_marker() == "o" for bars in plane.containers)
    assert all(bars.lines[1] for bars in plane.containers), "bars without ends"
    assert all(line.get_visible() for line in plane.get_xgridlines())
    # width and height lie in a PNG's header
    assert struct.unpack(">II", (tmp_path / "a.png").read_bytes()[16:24]) == (720, 480)


def test_a_single_axis_is_one_line_that_says_what_the_bars_are(drawn):
    plane = drawn(setting(2.0, 0.5, n=3, rate=1), setting(1.0, 0.5, n=3, rate=2))
    assert list(lines_of(plane)) == ["mean, 95 % interval (n = 3)"]


def test_points_of_which_some_lost_replicas_are_not_all_called_those_of_the_first(drawn):
    plane = drawn(*(setting(1.0, 0.5, n=n, rate=rate) for rate, n in ((1, 4), (2, 2), (3, 5))))
    assert list(lines_of(plane)) == ["mean, 95 % interval (n = 2 to 5)"]


def test_the_lines_of_values_that_cannot_be_compared_are_drawn_too(drawn):
    plane = drawn(*(setting(1.0, rate=r, of=of) for r in (1, 2) for of in (None, "a", 3)))
    assert set(lines_of(plane)) == {"of=None", "of=a", "of=3"}


@pytest.mark.parametrize(
    "values, scale",
    [
        ((1, 2, 3.9), "linear"),
        ((1, 4), "log"),
        ((0.5, 2.25, 1), "log"),
        ((0.0, 5.0), "linear"),
        ((-1.0, 5.0), "linear"),
        ((-5.0, -1.0), "linear"),
        ((3.0, 4.0), "linear"),
    ],
)
def test_an_axis_of_several_magnitudes_is_logarithmic_with_its_own_values(drawn, values, scale):
    plane = drawn(*(setting(1.0, rate=value) for value in values))
    assert plane.get_xscale() == scale
    if scale == "log":
        assert list(plane.get_xticks()) == sorted(values)
        texts = [label.get_text() for label in plane.get_xticklabels()]
        assert texts == [f"{value:g}" for value in sorted(values)]
        assert not len(plane.get_xticks(minor=True))


@pytest.mark.parametrize(
    "settings",
    [
        [],
        [setting(1.0, rate=1)],
        [setting(1.0, rate=1), setting(None, rate=2)],
        [setting(1.0, kind="a"), setting(2.0, kind="b")],
        [setting(1.0, rate=1), setting(2.0, rate="b")],
        [setting(1.0, rate=1), setting(2.0)],
    ],
    ids=["none", "one", "one left", "texts", "mixed", "missing"],
)
def test_without_an_axis_nothing_is_drawn(tmp_path, settings):
    said = []
    plot(settings, metric="loss", path=tmp_path / "a.png", say=said.append)
    assert not (tmp_path / "a.png").exists()
    assert said == []


def test_a_plot_that_cannot_be_drawn_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if not installed
    said = []
    two = [setting(1.0, rate=1), setting(2.0, rate=2)]
    plot(two, metric="loss", path=tmp_path / "a.png", say=said.append)
    assert len(said) == 1
    assert "matplotlib is not installed" in said[0]
