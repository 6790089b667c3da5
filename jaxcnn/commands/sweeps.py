"""A sweep on disk: groups of replicas, one after another, and what they show together.

A sweep's directory holds sweep.json (points, and where each replica lies), experiment.py,
group-<g>/ (jaxcnn.runs.replicas), summary.json and, where matplotlib is installed, sweep.png.
"""

import json
import math
from pathlib import Path
from typing import Any

from jaxcnn.errors import ConfigError


def train_sweep(
    experiment: Any,
    points: list[dict],
    folder: Path,
    *,
    name: str,
    record: dict,
    console: Any,
    resume: bool,
    **options: Any,
) -> dict:
    """Train all points, those that can share a program together, and write the summary. Errors: as
    jaxcnn.runs.replicas.train.
    """
    from jaxcnn.core.override import render
    from jaxcnn.runs import replicas, sweep
    from jaxcnn.runs.checkpoint import write_atomically
    from jaxcnn.runs.rundir import make_folder, read_json

    groups = sweep.groups(experiment, points)
    places = {
        index: f"group-{g}/replica-{i}"
        for g, (_, indices) in enumerate(groups)
        for i, index in enumerate(indices)
    }
    rows = [{"folder": places[i], "point": point} for i, point in enumerate(points)]
    if not resume:
        make_folder(folder)
        content = {
            "experiment": name,
            **record,
            "options": options,
            "rendered": render(experiment),
            "replicas": rows,
        }
        write_atomically(folder / "sweep.json", [json.dumps(content, indent=1).encode()])
        write_atomically(folder / "run.json", [json.dumps(content, indent=1).encode()])
    results: dict[int, dict] = {}
    seconds = 0.0
    for g, (base, indices) in enumerate(groups):
        place = folder / f"group-{g}"
        if (place / "summary.json").is_file():
            summary = read_json(place / "summary.json")
        else:
            console.line(f"group {g + 1} of {len(groups)}: {len(indices)} replicas")
            going_on = resume and (place / "run.json").is_file()
            chosen = [points[i] for i in indices]
            summary = replicas.train(
                base,
                chosen,
                place,
                resume=going_on,
                name=name,
                record=record,
                console=console,
                **options,
            )
        seconds += summary["seconds"]
        results |= {
            index: {**row, "replica": index}
            for index, row in zip(indices, summary["replicas"], strict=True)
        }
    ordered = [results[i] for i in range(len(points))]
    task = experiment.task
    settings = table(ordered, metric=task.metric, larger_is_better=task.larger_is_better)
    summary = {"experiment": name, "completed": True, "seconds": seconds, "metric": task.metric}
    summary |= {
        "rule": f"best setting: highest mean final {task.metric}"
        if task.larger_is_better
        else f"best setting: lowest mean final {task.metric}"
    }
    summary |= {
        "best": settings[0] if settings else None,
        "settings": settings,
        "replicas": ordered,
    }
    write_atomically(folder / "summary.json", [json.dumps(summary, indent=1).encode()])
    plot(settings, metric=task.metric, path=folder / "sweep.png", console=console)
    return summary


def table(rows: list[dict], *, metric: str, larger_is_better: bool) -> list[dict]:
    """One row a setting (a point without its seed), best mean first: n, mean, std (n - 1) and the
    95 % interval of the mean (Student's t).

    Replicas without a final value (diverged, dropped at a rung) are counted in `lost`, not
    averaged.
    """
    import numpy as np
    from scipy.stats import t

    found: dict[str, dict] = {}
    for row in rows:
        setting = {path: value for path, value in row["point"].items() if path != "seed"}
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
        half = (
            float(t.ppf(0.975, n - 1) * std / math.sqrt(n)) if n > 1 and std is not None else None
        )
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


def report(summary: dict, folder: Path, *, as_json: bool) -> None:
    """The table of settings on stdout."""
    if as_json:
        print(json.dumps({**summary, "run": str(folder)}))
        return
    print(
        f"{summary['metric']}: mean ± std over replicas (95 % interval of the mean); "
        f"{summary['rule']}"
    )
    for row in summary["settings"]:
        name = "  ".join(f"{path}={value}" for path, value in row["setting"].items()) or "all seeds"
        lost = f"  ({row['lost']} diverged or dropped)" if row["lost"] else ""
        if row["mean"] is None:
            print(f"  {name:48} no value{lost}")
        elif row["std"] is None:
            print(f"  {name:48} {row['mean']:.4f} (n = 1){lost}")
        else:
            print(
                f"  {name:48} {row['mean']:.4f} ± {row['std']:.4f} (± {row['interval95']:.4f}, n "
                f"= {row['n']}){lost}"
            )
    print(f"{len(summary['replicas'])} replicas, {summary['seconds']:.1f} s; kept in {folder}")


def plot(settings: list[dict], *, metric: str, path: Path, console: Any) -> None:
    """The metric over the first numeric axis with 95 % intervals, one line for each value of the
    others; nothing without an axis.
    """
    rows = [r for r in settings if r["mean"] is not None]
    axes = [
        p for p in (rows[0]["setting"] if rows else {}) if len({r["setting"][p] for r in rows}) > 1
    ]
    numeric = [p for p in axes if all(isinstance(r["setting"][p], (int, float)) for r in rows)]
    if not numeric:
        return
    try:
        import matplotlib
    except ImportError:
        console.line("no plot: matplotlib is not installed (pip install 'jaxcnn[plots]')")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    axis, others = numeric[0], [p for p in axes if p != numeric[0]]
    figure, plane = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for label in sorted({tuple(r["setting"][p] for p in others) for r in rows}, key=str):
        line = sorted(
            (r for r in rows if tuple(r["setting"][p] for p in others) == label),
            key=lambda r: r["setting"][axis],
        )
        name = (
            ", ".join(f"{p}={v}" for p, v in zip(others, label, strict=True))
            or f"mean, 95 % interval (n = {line[0]['n']})"
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


def points_of(experiment: Any, module: Any, args: Any) -> list[dict]:
    """The points that the command line or the experiment file's `sweep()` asks for."""
    from jaxcnn.runs import sweep

    if args.sweep:
        points = sweep.parse(experiment, args.sweep, zip_axes=args.zip)
    elif hasattr(module, "sweep"):
        points = [dict(point) for point in module.sweep()]
    else:
        raise ConfigError(
            "--sweep without axes: the experiment file has no `def sweep()`; give axes such as "
            "seed=0..7 optimizer.learning_rate=0.05,0.1"
        )
    for point in points:
        sweep.at(experiment, point)
    if not points:
        raise ConfigError("--sweep: no points")
    return sweep.sample(points, args.sample) if args.sample else points
