"""Exact evaluation: what a state is worth on a split, and which of several evaluations is best.
Host-side bookkeeping, no mathematics.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxcnn.core import hosts, transforms
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import make_program
from jaxcnn.core.protocols import Program, Tree
from jaxcnn.core.rendering import without_nan
from jaxcnn.core.transforms import ensemble, predicting, scored, viewed
from jaxcnn.data.dataset import Batch, Source, is_drawn, sample_rows, take_drawn
from jaxcnn.data.layout import question_rows
from jaxcnn.errors import ConfigError, DataError
from jaxcnn.runs.events import Record
from jaxcnn.tasks.task import Metrics, Task

SAMPLE = 64  # examples of a stream that are checked before training
ScoreStep = Callable[[Tree, Batch], Tree]  # (state, batch) -> (sums, records)


def evaluate(program: Program, state: Tree, source: Source, e: Experiment) -> Metrics:
    """Exact metrics over all examples of `source`: the last batch is padded and masked, never
    dropped. `program`: of `jaxcnn.core.program.scored`, compiled or not.
    """
    return merge(e.task, collect([(program.output_step, state)], source, e)[0])


def collect(
    steps: Sequence[tuple[ScoreStep, Tree]], source: Source, e: Experiment
) -> list[list[tuple[int, Tree]]]:
    """For each (step, state): [(number of real rows, (sums, records))] of each evaluation batch, on
    the host. A batch is taken once for all of them; of hosts that train together each takes its
    rows.
    """
    size, devices = len(source), len(hosts.devices())
    rows = min(e.eval_batch_size or max(256, e.batch_size), size)
    rows = -(-rows // devices) * devices
    results: list[list[tuple[int, Tree]]] = [[] for _ in steps]
    for start in range(0, size, rows):
        count = min(rows, size - start)
        indices = np.zeros(rows, np.int32)
        indices[:count] = np.arange(start, start + count)
        mask = hosts.own_rows((np.arange(rows) < count).astype(np.float32))
        batch = {**source.take(hosts.own_rows(indices)), "mask": mask}
        for result, (step, state) in zip(results, steps, strict=True):
            result.append((count, step(state, batch)))
    return jax.device_get(results)


def merge(task: Task, results: list[tuple[int, Tree]]) -> Metrics:
    """Metrics from the batches' results: sums added in 64 bits, records of real rows appended."""
    sums, records = None, []
    for count, (part, rows) in results:
        wide = jax.tree.map(
            lambda x: x.astype(np.int64 if np.issubdtype(x.dtype, np.integer) else np.float64),
            part,
        )
        sums = wide if sums is None else jax.tree.map(np.add, sums, wide)
        records.append({name: x[:count] for name, x in rows.items()})
    joined = {name: np.concatenate([r[name] for r in records]) for name in records[0]}
    return without_nan(task.summarize(sums, joined))


def evaluate_split(
    e: Experiment,
    state: Tree,
    split: str,
    *,
    metrics: Metrics | None = None,
    tta: str | None = None,
) -> Metrics:
    """Metrics of `state` (of a tuple of states as an ensemble) on a split, with the task's
    decisions (a threshold, …) taken from validation `metrics` where given. `tta`: several views of
    each picture, see `jaxcnn.core.views`.
    """
    require_split(e, split)
    e = dataclasses.replace(e, task=e.task.calibrate(metrics)) if metrics else e
    program = transforms.on_devices(scored(program_of(e, state, tta=tta), e))
    return evaluate(program, state, open_checked(e, split), e)


def require_split(e: Experiment, split: str) -> None:
    """ConfigError where the data have no such split; DataError where they are not there at all."""
    if e.data.size(split):
        return
    if not e.data.size("train"):
        e.data.open(split)  # says what is missing
    raise ConfigError(f"--split {split}: this experiment's data have no {split!r} split")


def program_of(e: Experiment, state: Tree, *, tta: str | None = None) -> Program:
    """The program to evaluate or predict with a state, or with a tuple of states as an ensemble,
    with the views of each picture that `tta` names.
    """
    program = make_program(e, steps=1)
    program = ensemble(program, e) if type(state) is tuple else program
    return viewed(program, e, tta) if tta else program


def predict_step(
    e: Experiment, state: Tree, *, tta: str | None = None
) -> Callable[[Tree, Batch], dict[str, jax.Array]]:
    """(state, batch) -> predictions of each row, compiled for the default device."""
    return transforms.compile(predicting(program_of(e, state, tta=tta), e)).output_step


def open_checked(e: Experiment, split: str) -> Source:
    """The split's source, whose examples the task checks on the host: all of those in memory now,
    those of a stream as they are decoded.

    Of a stream a sample is checked at once, one example of each class where the labels are known,
    and of examples that are made when they are asked for (ComposedSource) such a sample alone.
    """
    source = e.data.open(split)
    if not len(source):
        raise DataError(f"the {split!r} split is empty; choose data with at least one example")
    known = source.arrays
    rows = source.take(sample_rows(source, SAMPLE)) if known is None else known
    found = {name: np.asarray(x) for name, x in jax.device_get(dict(rows)).items()}
    e.task.check(found)
    _question(e, split, found)
    return CheckedStream(source, e.task.check) if source.streaming else source


def _question(e: Experiment, split: str, found: Batch) -> None:
    """Warn of examples that break no rule and are hardly what was meant."""
    where = f"the {split!r} examples"
    if split == "train":
        question_rows(found, where=where)
    spec = e.data.spec()
    for name, x in found.items():
        if name in spec and x.shape[1:] != spec[name].shape:
            warnings.warn(
                f"{where}: {name!r} is {list(x.shape[1:])}, and {list(spec[name].shape)} for "
                "training; a network with a linear layer refuses them",
                stacklevel=3,
            )


class CheckedStream:
    """A streaming source whose every batch `check` looks at, in the thread that decodes it.

    Errors: those of `check`, at `take`.
    """

    streaming = True
    arrays = None

    def __init__(self, source: Source, check: Callable[[Batch], None]):
        self._source, self._check, self.drawn = source, check, is_drawn(source)

    def __len__(self) -> int:
        return len(self._source)

    def take(self, indices: np.ndarray, *, draws: np.ndarray | None = None) -> Batch:
        """The examples at `indices` (int, any shape [...]), checked."""
        batch = take_drawn(self._source, indices, draws)
        self._check({name: x.reshape(-1, *x.shape[indices.ndim :]) for name, x in batch.items()})
        return batch


class Best:
    """Which of a run's evaluations is the best so far, by the task's metric: the first of equals;
    one without a value comes last.
    """

    def __init__(self, task: Task):
        self._task = task
        self.record: Record | None = None  # the best evaluation
        self.since = 0  # evaluations after it

    def add(self, record: Record) -> bool:
        """Count an evaluation; whether it is the best so far."""
        if self.record is None or self._rank(record) > self._rank(self.record):
            self.record, self.since = record, 0
            return True
        self.since += 1
        return False

    def _rank(self, record: Record) -> float:
        return rank(self._task, record["metrics"])


def rank(task: Task, metrics: Metrics | None) -> float:
    """The value of the task's metric, the larger the better; -inf where it has none."""
    value = None if metrics is None else metrics.get(task.metric)
    return -math.inf if value is None else value * (1 if task.larger_is_better else -1)
