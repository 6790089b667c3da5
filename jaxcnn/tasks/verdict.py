"""What an evaluation comes to: the task's metric, how sure it is, and whether it is more than an
answer would score that does not look at the example.
"""

import dataclasses
import math
from typing import Any

from jaxcnn.metrics.shares import share_interval
from jaxcnn.tasks.task import Blind, Metrics, Task

# metrics that are shares of the examples, each right or wrong by itself
SHARES = ("accuracy", "exact", "subset_accuracy", *(f"top{k}_accuracy" for k in range(2, 11)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`value` of `metric` over `count` examples; `interval`: 95 %, of a share of the examples, else
    None; `blind`: None where it is not known. None: there is none (of a metric that does not
    exist, of metrics that do not say how many examples).
    """

    metric: str
    value: float | None
    count: int | None
    interval: tuple[float, float] | None
    blind: Blind | None
    larger_is_better: bool
    why_not: str = ""  # why there is no blind answer, where there is none

    @property
    def no_better(self) -> bool | None:
        """Whether the blind answer does as well: its score lies within the interval or beyond it,
        without an interval at the value, up to the rounding of float32, or beyond. None where it
        cannot be told.
        """
        if self.blind is None or self.value is None:
            return None
        low, high = self.interval or (self.value, self.value)
        blind = self.blind.value
        beyond = low <= blind if self.larger_is_better else high >= blind
        return beyond or math.isclose(low if self.larger_is_better else high, blind, rel_tol=1e-6)

    def sentence(self) -> str:
        """The metric with its interval, and what a blind answer scores."""
        text = f"{self.metric} {'has no value' if self.value is None else f'{self.value:.4g}'}"
        if self.interval is not None:
            text += f" (95 % interval {self.interval[0]:.4g} to {self.interval[1]:.4g})"
        if self.count is not None:
            text += f" on {self.count:,} examples"
        if self.blind is not None:
            text += f"; a blind answer ({self.blind.answer}) scores {self.blind.value:.4g}"
        return text


def judge(task: Task, metrics: Metrics) -> Verdict:
    """The verdict on the metrics of an evaluation."""
    found = verdict_of(
        task.metric, metrics, larger_is_better=task.larger_is_better, blind=task.blind(metrics)
    )
    return dataclasses.replace(found, why_not=getattr(task, "no_blind", ""))


def verdict_of(
    metric: str, metrics: Metrics, *, larger_is_better: bool, blind: Blind | None = None
) -> Verdict:
    """The verdict where the task itself is not at hand. What is no number counts as none."""
    value, count = _number(metrics.get(metric)), _number(metrics.get("count"))
    size = None if count is None else int(count)
    interval = None
    if metric in SHARES and value is not None and size is not None:
        interval = share_interval(value, size)
    return Verdict(metric, value, size, interval, blind, larger_is_better)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 2**1000 and math.isfinite(value) else None
