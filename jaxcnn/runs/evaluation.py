"""Exact evaluation: what a state is worth on a split, and which of several evaluations is best.
Host-side bookkeeping, no mathematics.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxcnn.core import transforms
from jaxcnn.data.dataset import Source
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import Program, State, make_program


def compiled(program: Program, *, scanned: bool = False) -> Program:
    """The program compiled for the devices at hand: data-parallel where there are several.
    `scanned`: many steps a dispatch.
    """
    program = transforms.scan(program) if scanned else program
    if len(jax.devices()) == 1:
        return transforms.compile(program)
    rows = PartitionSpec("data")
    return transforms.shard(program, transforms.data_mesh(), batch=PartitionSpec(None, "data") if scanned else rows, eval_batch=rows)


def evaluate(program: Program, state: State, source: Source, e: Experiment) -> dict[str, Any]:
    """Exact metrics over all examples of `source`: the last batch is padded and masked, never
    dropped.
    """
    return merge(e.task, collect(program, state, source, e))


def collect(program: Program, state: Any, source: Source, e: Experiment) -> list[tuple[int, Any]]:
    """[(number of real rows, (sums, records))] of each evaluation batch, on the host."""
    size, devices = len(source), len(jax.devices())
    rows = min(e.eval_batch_size or max(256, e.batch_size), size)
    rows = -(-rows // devices) * devices
    results = []
    for start in range(0, size, rows):
        count = min(rows, size - start)
        indices = np.zeros(rows, np.int32)
        indices[:count] = np.arange(start, start + count)
        batch = {**source.take(indices), "mask": (np.arange(rows) < count).astype(np.float32)}
        results.append((count, program.eval_step(state, batch)))
    return jax.device_get(results)


def merge(task: Any, results: list[tuple[int, Any]]) -> dict[str, Any]:
    """Metrics from the batches' results: sums added in 64 bits, records of real rows appended."""
    sums, records = None, []
    for count, (part, rows) in results:
        wide = jax.tree.map(lambda x: x.astype(np.int64 if np.issubdtype(x.dtype, np.integer) else np.float64), part)
        sums = wide if sums is None else jax.tree.map(np.add, sums, wide)
        records.append({name: x[:count] for name, x in rows.items()})
    joined = {name: np.concatenate([r[name] for r in records]) for name in records[0]}
    return without_nan(task.summarize(sums, joined))


def without_nan(value: Any) -> Any:
    """Metrics as JSON can hold them: None for a number that does not exist (an AUROC without
    positives is 0 / 0).
    """
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def evaluate_split(e: Experiment, state: Any, split: str, *, metrics: dict | None = None) -> dict[str, Any]:
    """Metrics of `state` on a split, with the task's decisions (a threshold, …) taken from
    validation `metrics` where given.
    """
    if not e.data.size(split):
        raise ConfigError(f"--split {split}: this experiment's data have no {split!r} split")
    e = dataclasses.replace(e, task=e.task.calibrate(metrics)) if metrics else e
    return evaluate(program_of(e, state), state, open_checked(e, split), e)


def program_of(e: Experiment, state: Any) -> Program:
    """The compiled program to evaluate or predict with a state, or with a tuple of states as an
    ensemble.
    """
    program = make_program(e, steps=1)
    return compiled(transforms.ensemble(program, e.task) if isinstance(state, tuple) else program)


def open_checked(e: Experiment, split: str) -> Source:
    """The split's source, whose examples the task checks on the host: all of those in memory now,
    those of a stream as they are decoded.

    Of examples that are made when they are asked for (ComposedSource), functions of their number
    alone, the first 64 are checked.
    """
    source = e.data.open(split)
    if not len(source):
        raise DataError(f"the {split!r} split is empty; choose data with at least one example")
    if source.arrays is not None:
        e.task.check(jax.device_get(source.arrays))
        return source
    e.task.check(jax.device_get(source.take(np.arange(min(len(source), 64)))))
    return CheckedStream(source, e.task.check) if source.streaming else source


class CheckedStream:
    """A streaming source whose every batch `check` looks at, in the thread that decodes it. Errors:
    those of `check`, at `take`.
    """

    streaming = True
    arrays = None

    def __init__(self, source: Source, check: Callable[[dict[str, Any]], None]):
        self._source, self._check = source, check

    def __len__(self) -> int:
        return len(self._source)

    def take(self, indices: np.ndarray) -> dict[str, Any]:
        """The examples at `indices` (int, any shape [...]), checked."""
        batch = self._source.take(indices)
        self._check({name: x.reshape(-1, *x.shape[indices.ndim :]) for name, x in batch.items()})
        return batch


def best_evaluation(e: Experiment, evaluations: list[dict]) -> dict:
    """The evaluation with the best value of the task's metric; the first of equals; one without a
    value comes last.
    """
    sign = 1 if e.task.larger_is_better else -1

    def rank(evaluation: dict) -> float:
        value = evaluation["metrics"][e.task.metric]
        return -math.inf if value is None else sign * value

    return max(evaluations, key=rank)


def is_best(e: Experiment, before: list[dict], metrics: dict) -> bool:
    """Whether `metrics` are better than all evaluations `before`."""
    new = {"metrics": metrics}
    return best_evaluation(e, [*before, new]) is new


def out_of_patience(e: Experiment, evaluations: list[dict]) -> bool:
    """Whether the last `e.patience` evaluations brought no better metric."""
    if e.patience is None or len(evaluations) <= e.patience:
        return False
    return evaluations.index(best_evaluation(e, evaluations)) < len(evaluations) - e.patience
