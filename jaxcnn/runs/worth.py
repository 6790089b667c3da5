"""Whether what was trained came to anything."""

from jaxcnn.core.experiment import Experiment
from jaxcnn.runs.open import Run
from jaxcnn.runs.sweep import as_point, at
from jaxcnn.tasks.verdict import Verdict, judge


def warning_of(run: Run, e: Experiment) -> str | None:
    """A sentence on a run of `e`, or on the replicas of a sweep, whose last evaluation is no better
    than a blind answer (jaxcnn.tasks.verdict); None where all did better, or it cannot be told.
    """
    seen: list[tuple[Run, Verdict]] = []
    for one in run.replicas:
        if metrics := one.summary.get("eval"):
            task = at(e, as_point(one.record.get("point", {}))).task
            seen.append((one, judge(task, metrics)))
    blind = [(one, verdict) for one, verdict in seen if verdict.no_better]
    if not blind:
        return None
    if not run.is_sweep:
        return f"no better than a blind answer: {blind[0][1].sentence()}"
    which = ", ".join(str(one.record["replica"]) for one, _ in blind)
    return f"{len(blind)} of {len(seen)} replicas are no better than a blind answer: {which}"
