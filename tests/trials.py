"""What the tests of all tasks share: a trial is a task with random rows for it and with the best
that can be said of them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROWS = 12


@dataclasses.dataclass(frozen=True)
class Trial:
    """A task with random rows for it. `perfect` turns a batch into the outputs of a flawless model,
    which must reach `best`.
    """

    name: str
    task: Any
    batch: Callable[[np.random.Generator, int], dict[str, np.ndarray]]
    outputs: Callable[[np.random.Generator, int], Any]
    perfect: Callable[[dict[str, np.ndarray]], Any]
    best: dict[str, Any]


def normal(*shape: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    return lambda generator, rows: generator.normal(size=(rows, *shape)).astype(np.float32)


def labels(num_classes: int) -> Callable[[np.random.Generator, int], dict[str, np.ndarray]]:
    def batch(
        generator, rows
    ):  # the first rows hold each class once, so that no metric is undefined
        return {
            "label": np.where(
                np.arange(rows) < num_classes,
                np.arange(rows),
                generator.integers(0, num_classes, rows),
            ).astype(np.int32)
        }

    return batch


def one_hot(num_classes: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    return lambda batch: 40 * np.eye(num_classes, dtype=np.float32)[batch["label"]]


def rows_of(trial: Trial, rows: int = ROWS, seed: int = 0) -> tuple[Any, dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    batch = trial.batch(generator, rows) | {"mask": np.ones(rows, np.float32)}
    return to_jax(trial.outputs(generator, rows)), to_jax(batch)


def to_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


def evaluate(task, outputs, batch):
    """Sums and records as the evaluation loop gathers them: jitted, records of real rows only,
    everything NumPy.
    """
    sums, records = jax.device_get(_scoring(task)(outputs, batch))
    real = np.asarray(batch["mask"]) > 0
    return sums, {name: value[real] for name, value in records.items()}


@functools.cache  # tasks are values: compiled once for all tests of rows of the same shapes
def _scoring(task):
    return jax.jit(lambda o, b: (task.statistics(o, b), task.records(o, b)))


def assert_close(left, right):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6),
        left,
        right,
    )
