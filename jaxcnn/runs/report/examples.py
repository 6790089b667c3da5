"""What a model says of the examples of a split, one by one: losses and answers of many, pictures of
few. Only numbers are kept of the many, so that memory does not grow with the pictures.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxcnn.core import transforms
from jaxcnn.core.batch import kind
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.memory import Fitting
from jaxcnn.core.protocols import Batch, Tree
from jaxcnn.data.dataset import Source
from jaxcnn.data.recorded import no_longer_those
from jaxcnn.runs.evaluation import program_of, require_split
from jaxcnn.runs.open import Run
from jaxcnn.tasks.task import num_classes

LOOKED_AT = 2_000  # examples of a page


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was said of N examples of a split of `size`, whose places are `indices` [N].

    loss [N] float32, of the task. label and truth [N] int32 and confidence [N] (that of the said
    label) of a task that says one label; else None. digests: of each example's inputs and labels
    as the data have them, so that two runs can tell whether they saw the same.
    """

    size: int
    indices: np.ndarray
    loss: np.ndarray
    digests: tuple[str, ...]
    label: np.ndarray | None = None
    truth: np.ndarray | None = None
    confidence: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray | None:
        """Whether the said label is the true one, bool [N]."""
        return None if self.label is None else self.label == self.truth

    def worst(self, most: int) -> np.ndarray:
        """The rows of the largest losses, largest first; a loss that is not finite comes first."""
        loss = np.where(np.isfinite(self.loss), self.loss, np.inf)
        return np.argsort(-loss, kind="stable")[:most]

    def confident_wrong(self, most: int) -> np.ndarray:
        """The rows with a wrong label, most confident first."""
        if self.right is None or self.confidence is None:
            return np.empty(0, np.int64)
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:most]


class Viewer:
    """The model of a run, compiled once, on the examples of a split of its data. `changed`: a
    sentence where the data are no longer what they were; "" else.

    Errors: those of opening its experiment, state and data.
    """

    def __init__(self, run: Run, *, split: str = "eval"):
        self.e = run.decided(run.experiment)
        require_split(self.e, split)
        self.source: Source = self.e.data.open(split)
        self.changed = no_longer_those(run.record["data"], self.e.data)
        self._state = run.state
        self._step = Fitting(
            _step(self.e, self._state), "looking at examples", "choose a smaller eval_batch_size"
        )
        self._rows = min(self.e.eval_batch_size or max(256, self.e.batch_size), len(self.source))

    def see(self, *, most: int = LOOKED_AT) -> Seen:
        """All examples, or `most` of them at even distances."""
        size = len(self.source)
        count = min(most, size)
        indices = np.arange(count, dtype=np.int64) * size // count
        columns: dict[str, list[np.ndarray]] = {}
        digests: list[str] = []
        for part, raw, (loss, said, batch) in self._run(indices, self._rows):
            found = {"loss": loss, **_labels(self.e, said, batch)}
            for name, column in found.items():
                columns.setdefault(name, []).append(np.asarray(column)[: len(part)])
            digests += _digests(raw, len(part))
        joined = {name: np.concatenate(column) for name, column in columns.items()}
        return Seen(size, indices, digests=tuple(digests), **joined)

    def rows(self, indices: np.ndarray) -> tuple[list[dict[str, Any]], Batch]:
        """(what is said of each, as the task describes it; the examples as the task sees them)."""
        described, batches = [], []
        names = tuple(self.e.data.label_names)
        for part, _, (_, said, batch) in self._run(indices, min(self._rows, 32)):
            said, batch = jax.device_get((said, batch))
            for i in range(len(part)):
                row = jax.tree.map(lambda x, i=i: x[i], said)
                described.append(self.e.task.describe(row, names=names))
            batches.append({name: x[: len(part)] for name, x in batch.items()})
        joined = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        return described, joined

    def _run(self, indices: np.ndarray, rows: int) -> Iterator[tuple[np.ndarray, Batch, Any]]:
        """(indices, the examples as the data have them, results) of each batch of `rows`; the last
        one is filled with its first row.
        """
        for start in range(0, len(indices), rows):
            part = indices[start : start + rows]
            padded = np.full(rows, part[0], np.int32)
            padded[: len(part)] = part
            raw = self.source.take(padded)
            batch = {**raw, "mask": (np.arange(rows) < len(part)).astype(np.float32)}
            yield part, raw, self._step(self._state, batch)


def _step(e: Experiment, state: Tree) -> Any:
    """(state, batch) -> (loss [B], predictions, the batch as the task sees it)."""
    program = program_of(e, state)

    def step(state: Tree, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array], Batch]:
        outputs, batch = program.output_step(state, batch)
        task = transforms.task_of(e, state)
        return task.loss(outputs, batch), task.predict(outputs), batch

    return step


def _labels(e: Experiment, said: dict[str, jax.Array], batch: Batch) -> dict[str, np.ndarray]:
    """label, truth and confidence where the task says one label; {} else."""
    if "label" not in said or "label" not in batch or said["label"].ndim != 1:
        return {}
    label, truth = np.asarray(said["label"]), np.asarray(batch["label"])
    found = {"label": label, "truth": truth.astype(np.int32)}
    if "probability" in said and said["probability"].ndim == 1:
        p = np.asarray(said["probability"])
        # a task without classes says yes or no, and how likely yes is
        binary = num_classes(e.task) is None
        found["confidence"] = np.where(label == 1, p, 1 - p) if binary else p
    return found


def _digests(raw: Batch, count: int) -> list[str]:
    """Of each row, over its entries by name."""
    arrays = {name: np.asarray(raw[name]) for name in sorted(raw)}
    out = []
    for i in range(count):
        sha = hashlib.sha256()
        for name, array in arrays.items():
            row = np.ascontiguousarray(array[i])
            sha.update(f"{name} {row.dtype} {row.shape}\n".encode())
            sha.update(row.tobytes())
        out.append(sha.hexdigest()[:16])
    return out


def has_pictures(batch: Batch) -> bool:
    """Whether there is anything to be drawn."""
    return any(kind(name) == "image" and np.ndim(x) >= 4 for name, x in batch.items())
