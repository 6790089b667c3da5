"""The runs below a folder as a list, from their files alone: no code of theirs is executed, and JAX
is not started.
"""

import datetime
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock

from jaxcnn.errors import ConfigError, JaxcnnError
from jaxcnn.runs.records import Record, is_finite, read_history, read_run, read_summary

DEPTH = 4  # folders in one another that are looked into
Row = dict[str, Any]


def runs_in(folder: Path) -> tuple[list[Row], list[str]]:
    """(a row for each run, the newest first; sentences on folders that were left out: damaged runs,
    folders without any).

    Of each: "run", "experiment", "state" ("running", "interrupted", "published", or how it ended:
    "completed", "stopped early at step 40", "diverged at step 3"), "metric", "value" (of the last
    evaluation; of a sweep the best setting's mean; None where there is none), "count" (evaluated
    examples), "step", "replicas" (1 of a solo run), "seconds", "date" (when it began, ISO 8601).
    `folder` may be a run itself; of a sweep each of its runs is a row. Links are not followed.
    Errors: ConfigError for what is no folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is no folder; name one that holds runs")
    rows, left_out = [], []
    own = (folder / "run.json").is_file()
    for place in [folder] if own else _places(folder, left_out, DEPTH):
        try:
            rows.append(row_of(place))
        except (JaxcnnError, OSError) as error:
            left_out.append(str(error))  # which names the file
    if own and (folder / "replicas").is_dir():
        inside, more = runs_in(folder / "replicas")
        return rows + inside, left_out + more
    return sorted(rows, key=lambda row: row["date"], reverse=True), left_out


def _places(folder: Path, left_out: list[str], depth: int) -> Iterator[Path]:
    """The folders below that hold a run.json."""
    try:
        inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        left_out.append(f"{folder}: cannot be read ({error.strerror})")
        return
    for place in inside:
        if place.is_symlink():
            left_out.append(f"{place}: is a link")
        elif (place / "run.json").is_file():
            yield place
        elif depth > 1:
            below: list[str] = []
            found = list(_places(place, below, depth - 1))
            yield from found
            left_out += below if found or below else [f"{place}: holds no run"]
        else:
            left_out.append(f"{place}: holds no run.json, and is not looked into")


def row_of(folder: Path) -> Row:
    """The row of one run, see `runs_in`. Errors: those of jaxcnn.runs.records; OSError."""
    record, summary = read_run(folder), read_summary(folder) or {}
    records, _ = read_history(folder / "metrics.jsonl")
    row: Row = {"run": str(folder), "experiment": record["experiment"]}
    row |= {"state": _state(folder, record, summary), "metric": None, "value": None, "count": None}
    row |= {"step": records[-1]["step"] if records else 0, "replicas": 1}
    row |= {"seconds": records[-1]["seconds"] if records else 0.0}
    row["date"] = _began(folder, record).isoformat(timespec="seconds")
    if "points" in record:
        return row | _of_sweep(record, summary)
    row |= {k: summary[k] for k in ("step", "seconds") if k in summary}
    evaluations = [r for r in records if r["kind"] == "eval"]
    metric, _ = metric_of(record, evaluations)
    if metric is not None and evaluations:
        found = evaluations[-1]["metrics"]
        value, count = _number(found.get(metric)), _number(found.get("count"))
        row |= {"metric": metric, "value": value, "count": count}
    return row


def _began(folder: Path, record: Record) -> datetime.datetime:
    """When a run began, in this machine's zone; of one that was made before run.json said so, when
    that file was last written.
    """
    if "began" in record:
        return datetime.datetime.fromisoformat(record["began"]).astimezone().replace(tzinfo=None)
    return datetime.datetime.fromtimestamp((folder / "run.json").stat().st_mtime)


def _of_sweep(record: Record, summary: Record) -> Row:
    best = summary.get("best")
    best = best if isinstance(best, dict) else {}
    row: Row = {"replicas": len(record["points"]), "seconds": summary.get("seconds", 0.0)}
    steps = [r["step"] for r in summary.get("replicas", []) if isinstance(r.get("step"), int)]
    row |= {"step": max(steps, default=0), "metric": summary.get("metric")}
    return row | {"value": _number(best.get("mean"))}


def _state(folder: Path, record: Record, summary: Record) -> str:
    if "published" in record:
        return "published"
    verdict = str(summary.get("verdict", "completed"))
    if summary.get("completed") or verdict.startswith("diverged"):
        return verdict
    return "running" if _is_held(folder / "run.lock") else "interrupted"


def _is_held(lock: Path) -> bool:
    """Whether a process holds a run's lock."""
    if not lock.is_file() or not os.access(lock, os.W_OK):
        return False
    try:
        with filelock.FileLock(lock, timeout=0, fallback_to_soft=False):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False


def metric_of(record: Record, evaluations: Sequence[Record]) -> tuple[str | None, bool]:
    """(the task's metric, whether larger is better) as run.json or the metrics' order tell."""
    task = record["rendered"].get("task")
    task = task if isinstance(task, dict) else {}
    named = task.get("metric")
    if not isinstance(named, str):  # a task's own metric comes first
        named = next((k for r in evaluations for k in r["metrics"]), None)
    return named, task.get("larger_is_better") is not False


def _number(value: Any) -> float | None:
    return value if is_finite(value) else None
