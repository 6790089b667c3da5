"""What the replicas of a sweep show together: a table of settings, a plot, summary.json."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.runs.events import Record
from jaxcnn.runs.records import read_summary
from jaxcnn.runs.rundir import replica_folder, write_json
from jaxcnn.runs.sweep import REPEATED, Point
from jaxcnn.tasks.task import Task


def summarize_sweep(
    folder: Path,
    name: str,
    task: Task,
    points: list[Point],
    groups: list[list[int]],
    *,
    completed: bool = True,
    say: Callable[[str], None],
) -> Record:
    """Write and return the summary of a sweep, and sweep.png where matplotlib is installed.

    `groups`: which replicas were trained together, so that their seconds count once. `completed`:
    whether all were trained.
    """
    rows = []
    for i, point in enumerate(points):
        lost = {"verdict": "not finished", "eval": None, "seconds": 0.0}
        summary = read_summary(replica_folder(folder, i)) or lost
        summary = {k: v for k, v in summary.items() if k not in ("experiment", "completed")}
        rows.append({"replica": i, "point": point, **summary})
    settings = table(rows, metric=task.metric, larger_is_better=task.larger_is_better)
    order = "highest" if task.larger_is_better else "lowest"
    seconds = sum(max(rows[i]["seconds"] for i in group) for group in groups)
    summary = {
        "experiment": name,
        "completed": completed,
        "seconds": seconds,
        "metric": task.metric,
    }
    summary |= {"rule": f"best setting: {order} mean final {task.metric}"}
    summary |= {"best": settings[0] if settings else None, "settings": settings, "replicas": rows}
    write_json(folder / "summary.json", summary)
    plot(settings, metric=task.metric, path=folder / "sweep.png", say=say)
    return summary


def table(rows: list[Record], *, metric: str, larger_is_better: bool) -> list[Record]:
    """One row a setting (a point without its seed and fold), best mean first: n, mean, std (n - 1)
    and the 95 % interval of the mean (Student's t).

    Folds share training examples, so over folds the interval is too narrow (Y. Bengio and Y.
    Grandvalet, "No unbiased estimator of the variance of k-fold cross-validation", 2004).

    Replicas without a final value (diverged, dropped at a rung, or scored on examples for which the
    metric does not exist) are counted in `lost`, not averaged.
    """
    from scipy.special import stdtrit  # the t distribution; scipy.stats takes long to import

    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        setting = {path: value for path, value in row["point"].items() if path not in REPEATED}
        entry = found.setdefault(json.dumps(setting), {"setting": setting, "values": [], "lost": 0})
        finished = row["verdict"] == "completed" or row["verdict"].startswith("stopped early")
        value = (row["eval"] or {}).get(metric) if finished else None
        if value is None:
            entry["lost"] += 1
        else:
            entry["values"].append(value)
    out = []
    for entry in found.values():
        values = np.asarray(entry.pop("values"))
        n = len(values)
        std = float(values.std(ddof=1)) if n > 1 else None
        half = None if std is None else float(stdtrit(n - 1, 0.975) * std / math.sqrt(n))
        out.append(
            {
                **entry,
                "n": n,
                "mean": float(values.mean()) if n else None,
                "std": std,
                "interval95": half,
            }
        )
    sign = -1 if larger_is_better else 1
    return sorted(out, key=lambda r: math.inf if r["mean"] is None else sign * r["mean"])


def plot(settings: list[Record], *, metric: str, path: Path, say: Callable[[str], None]) -> None:
    """The metric over the first numeric axis with 95 % intervals, one line for each value of the
    others; nothing without an axis.
    """
    rows = [r for r in settings if r["mean"] is not None]
    paths = dict.fromkeys(path for r in rows for path in r["setting"])
    axes = [p for p in paths if len({r["setting"].get(p) for r in rows}) > 1]
    numeric = [p for p in axes if all(isinstance(r["setting"].get(p), (int, float)) for r in rows)]
    if not numeric:
        return
    try:
        import matplotlib
    except ImportError:
        say("no plot: matplotlib is not installed (pip install 'jaxcnn[plots]')")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    axis, others = numeric[0], [p for p in axes if p != numeric[0]]
    figure, plane = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for label in sorted({tuple(r["setting"].get(p) for p in others) for r in rows}, key=str):
        line = sorted(
            (r for r in rows if tuple(r["setting"].get(p) for p in others) == label),
            key=lambda r: r["setting"][axis],
        )
        least, most = (of(r["n"] for r in line) for of in (min, max))
        name = (
            ", ".join(f"{p}={v}" for p, v in zip(others, label, strict=True))
            or f"mean, 95 % interval (n = {least}{f' to {most}' if most > least else ''})"
        )
        x, y = [r["setting"][axis] for r in line], [r["mean"] for r in line]
        plane.errorbar(
            x, y, yerr=[r["interval95"] or 0.0 for r in line], marker="o", capsize=4, label=name
        )
    values = [r["setting"][axis] for r in rows]
    if min(values) > 0 and max(values) / min(values) >= 4:
        plane.set_xscale("log")
        plane.set_xticks(sorted(set(values)), [f"{v:g}" for v in sorted(set(values))], minor=False)
        plane.minorticks_off()
    plane.set(xlabel=axis, ylabel=metric)
    plane.grid(alpha=0.3)
    plane.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
