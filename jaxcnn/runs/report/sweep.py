"""The page of a sweep: its settings with their spread, and the page of the winner."""

from typing import Any

from jaxcnn.errors import JaxcnnError
from jaxcnn.runs.events import Record
from jaxcnn.runs.open import Run, ended_well
from jaxcnn.runs.report import diagrams, solo
from jaxcnn.runs.report.charts import COLORS, Series, panel
from jaxcnn.runs.report.examples import LOOKED_AT
from jaxcnn.runs.report.page import Html, Section, join, note, number, table, tag
from jaxcnn.runs.report.parts import Parts
from jaxcnn.runs.report.reading import Reading, as_number, read
from jaxcnn.runs.sweep import REPEATED
from jaxcnn.runs.table import table as settings_table

MOST_LINES = 64  # replicas whose curves are drawn
MOST_SETTINGS = 200  # rows of the table
NO_WINNER = "no replica has a final value"


def sections(run: Run, *, examples: int = LOOKED_AT, files_only: bool = False) -> Parts:
    """The sections of a sweep's page."""
    parts = Parts()
    readings = []
    for one in run.replicas:
        try:
            _ = one.summary  # of which later parts make use, if it is not damaged
            readings.append(read(one, files_only=files_only))
        except JaxcnnError as error:
            parts.left_out.append(f"Replica {one.folder.name}: {error}")
    metric, larger = _metric(readings)
    rows = settings(readings, metric, larger)
    best = winner(readings, metric, larger, rows)
    folds = any("fold" in point_of(reading) for reading in readings)
    parts.add("Verdict", lambda: _headline(run, readings, metric, rows, best), needed=True)
    parts.add("Settings", lambda: _table(rows, metric, folds=folds), needed=True)
    parts.add("Curves by setting", lambda: _curves(readings, metric))
    parts.add("Parallel coordinates", lambda: _parallel(readings, metric))
    if best is None:
        parts.left_out.append(f"The winner's page: {NO_WINNER}")
        return parts
    name = best.run.folder.name
    own = solo.sections(best.run, examples=examples, files_only=files_only)
    parts.sections += [
        Section(f"Replica {name}: {s.title}", s.body, s.needed) for s in own.sections
    ]
    parts.left_out += [f"Replica {name}: {sentence}" for sentence in own.left_out]
    return parts


def point_of(reading: Reading) -> dict[str, Any]:
    """Its point of the sweep."""
    return reading.record.get("point", {})


def setting_of(reading: Reading) -> str:
    """Its point in words, without seed and fold."""
    pairs = [f"{k}={v}" for k, v in point_of(reading).items() if k not in REPEATED]
    return ", ".join(pairs) or "all seeds"


def _metric(readings: list[Reading]) -> tuple[str, bool]:
    for reading in readings:
        if reading.verdict is not None:
            return reading.verdict.metric, reading.verdict.larger_is_better
    return "metric", True  # nothing has been evaluated, and the page says so


def _value(reading: Reading) -> float | None:
    """The metric of the final evaluation of a replica that ended well."""
    if reading.verdict is None or not ended_well(reading.run.summary):
        return None
    return reading.verdict.value


def settings(readings: list[Reading], metric: str, larger: bool) -> list[Record]:
    """One row a setting: n, mean, std, interval95, lost (see jaxcnn.runs.table.table)."""
    rows = [
        {
            "point": point_of(reading),
            "verdict": reading.run.summary.get("verdict", "not finished"),
            "eval": {metric: _value(reading)},
        }
        for reading in readings
    ]
    return settings_table(rows, metric=metric, larger_is_better=larger)


def winner(
    readings: list[Reading], metric: str, larger: bool, rows: list[Record]
) -> Reading | None:
    """The best replica of the setting with the best mean; None where none ended well."""
    if not rows or rows[0]["mean"] is None:
        return None
    own = [
        (value, reading)
        for reading in readings
        if (value := _value(reading)) is not None
        and {k: v for k, v in point_of(reading).items() if k not in REPEATED} == rows[0]["setting"]
    ]
    best = max if larger else min
    return best(own, key=lambda pair: pair[0])[1]


def _headline(
    run: Run, readings: list[Reading], metric: str, rows: list[Record], best: Reading | None
) -> Html:
    parts = []
    if best is None:
        parts.append(tag("p", NO_WINNER, class_="headline"))
    else:
        top = rows[0]
        spread = "" if top["std"] is None else f" ± {number(top['std'])}"
        parts.append(tag("p", f"{metric} {number(top['mean'])}{spread}", class_="headline"))
        words = f"best setting by its mean, n = {top['n']}: {setting_of(best)}; "
        words += f"its best replica is {best.run.folder.name}, of which the page tells below."
        parts.append(tag("p", words))
        if len(rows) > 1:
            parts.append(note("The best of several settings looks better than it is: it was "
                              "chosen by the very numbers that are shown."))  # fmt: skip
    blind = [r for r in readings if r.verdict is not None and r.verdict.no_better]
    if blind:
        names = ", ".join(r.run.folder.name for r in blind)
        words = (
            f"{len(blind)} of {len(readings)} replicas are no better than a blind answer: {names}"
        )
        parts.append(tag("p", tag("b", words, class_="bad"), class_="warning"))
    lost = sum(row["lost"] for row in rows)
    count, asked = len(readings), len(run.record["points"])
    seconds = as_number(run.summary.get("seconds"))
    words = f"{count} of {asked} replicas" if count < asked else f"{count} replicas"
    words += f", {lost} of them without a final value" if lost else ""
    words += "" if seconds is None else f"; {number(seconds)} s of training"
    parts.append(tag("p", words))
    if not run.summary:
        parts.append(tag("p", "Interrupted: the sweep has not ended."))
    return join(parts)


def _table(rows: list[Record], metric: str, *, folds: bool) -> Html:
    shown = []
    for row in rows[:MOST_SETTINGS]:
        name = ", ".join(f"{k}={v}" for k, v in row["setting"].items()) or "all seeds"
        half, mean = row["interval95"], row["mean"]
        interval = "–" if half is None else f"{mean - half:.4g} to {mean + half:.4g}"
        shown.append((name, number(mean), number(row["std"]), interval, row["n"], row["lost"]))
    head = ("setting", f"mean {metric}", "std", "95 % interval of the mean", "n", "lost")
    words = "lost: diverged, dropped, not ended, or no such metric. Intervals by Student's t."
    words += " Folds share examples, so that theirs are too narrow." if folds else ""
    more = len(rows) - MOST_SETTINGS
    return join([table(head, shown), note(words), note(f"{more} more") if more > 0 else None])


def _curves(readings: list[Reading], metric: str) -> Html:
    """A line a replica, a colour a setting."""
    names = list(dict.fromkeys(map(setting_of, readings)))
    drawn = readings[:MOST_LINES]

    def lines(kind: str, name: str) -> list[Series]:
        return [
            Series(setting_of(r), r.points(kind, name), names.index(setting_of(r)), thin=True)
            for r in drawn
        ]

    wanted = [(f"{metric}, validation", lines("eval", metric))]
    if metric != "loss":
        wanted.append(("loss, validation", lines("eval", "loss")))
    wanted.append(("loss, training", lines("train", "loss")))
    more = len(readings) - MOST_LINES
    cut = note(f"{more} more replicas are not drawn") if more > 0 else None
    same = (
        note("Colours repeat: there are more settings than colours.")
        if len(names) > COLORS
        else None
    )
    return join([panel(wanted), cut, same])


def _parallel(readings: list[Reading], metric: str) -> Html:
    """What varies, and the metric."""
    paths = dict.fromkeys(path for r in readings for path in point_of(r))
    names = list(dict.fromkeys(map(setting_of, readings)))
    rows = [(*(point_of(r).get(path) for path in paths), _value(r)) for r in readings]
    colors = [names.index(setting_of(r)) for r in readings]
    words = note("A line is a replica; one without a final value ends before the last axis.")
    return join([words, diagrams.parallel([*paths, metric], rows, colors)])
