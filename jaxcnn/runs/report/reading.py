"""What a run's files say, read as text that anybody may have written: whatever is not of the form
that is expected counts as not there.
"""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from jaxcnn.errors import JaxcnnError
from jaxcnn.runs.answers import class_name
from jaxcnn.runs.events import Record
from jaxcnn.runs.listing import metric_of
from jaxcnn.runs.open import Run
from jaxcnn.runs.records import carried_to
from jaxcnn.runs.report.charts import Point
from jaxcnn.tasks.verdict import Verdict, judge, verdict_of

LARGEST = 1e300  # beyond, sums and logarithms of numbers fail


def as_number(value: Any) -> float | None:
    """A finite number below LARGEST, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        return None
    return float(value)


def as_counts(value: Any) -> list[list[int]] | None:
    """A square matrix of counts, such as a confusion matrix, or None."""
    rows = value if isinstance(value, list) else []
    whole = all(
        isinstance(row, list)
        and len(row) == len(rows)
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**53 for n in row)
        for row in rows
    )
    return rows if rows and whole else None


@dataclasses.dataclass(frozen=True)
class Reading:
    """A single run as its files have it, and its experiment where that was asked for and can be
    made again (`missing` says why not).
    """

    run: Run
    records: list[Record]
    evaluation: Record | None
    verdict: Verdict | None
    missing: str | None

    @property
    def record(self) -> Record:
        """run.json."""
        return self.run.record

    @property
    def metrics(self) -> Record:
        """Of the evaluation that is reported; {} without one."""
        return self.evaluation["metrics"] if self.evaluation else {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self.run.data.label_names

    def name(self, label: int, *, of: int | None = None) -> str:
        """Of one of `of` classes, see `jaxcnn.runs.answers.class_name`."""
        return class_name(label, names=self.names, count=of)

    def points(self, kind: str, name: str) -> list[Point]:
        """(step, value) of a number of the "train" or "eval" records."""
        found = []
        for record in self.records:
            if record["kind"] == kind:
                values = record["metrics"] if kind == "eval" else record
                if (value := as_number(values.get(name))) is not None:
                    found.append((record["step"], value))
        return found


def read(run: Run, *, files_only: bool = False) -> Reading:
    """A single run. `files_only`: the code that it keeps is not executed."""
    records = run.history
    evaluations = [r for r in records if r["kind"] == "eval"]
    task, missing = None, "only the run's files were read"
    if not files_only:
        try:
            task, missing = run.experiment.task, None
        except JaxcnnError as error:
            missing = str(error)
    metric, larger = metric_of(run.record, evaluations)
    if task is not None:
        metric, larger = task.metric, task.larger_is_better
    if run.checkpoint == "best":
        evaluations = [r for r in evaluations if r["step"] > carried_to(run.record)]
    evaluation = _chosen(run.checkpoint, evaluations, metric, larger)
    verdict = None
    if evaluation is not None and metric is not None:
        verdict = verdict_of(metric, evaluation["metrics"], larger_is_better=larger)
    if evaluation is not None and task is not None:
        with contextlib.suppress(TypeError, ValueError, ArithmeticError):  # an edited history
            verdict = judge(task, evaluation["metrics"])
    return Reading(run, records, evaluation, verdict, missing)


def _chosen(
    checkpoint: str, evaluations: Sequence[Record], metric: str | None, larger: bool
) -> Record | None:
    """The last evaluation; for the best checkpoint the first of the best."""
    if not evaluations or checkpoint == "last" or metric is None:
        return evaluations[-1] if evaluations else None

    def rank(record: Record) -> float:
        value = as_number(record["metrics"].get(metric))
        if value is None:
            return -math.inf
        return value if larger else -value

    return max(evaluations, key=rank)
