"""Experiment: everything that determines a training run, as one immutable value.

An experiment file ends in `experiment = Experiment(…)`. A Linen module instance is the
configuration of a model, `functools.partial` that of an optimizer, a schedule or an augmentation.
The only checks made here are of the fields themselves; nothing is computed and no data are read.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol, TypeGuard

import jax
import optax
from jaxtyping import Array, Float

from jaxcnn.core import schedules
from jaxcnn.core.optimizers import Rules
from jaxcnn.core.protocols import Batch, Collections, Model, Numbers, Params, Program, Variables
from jaxcnn.data.dataset import Dataset, Source
from jaxcnn.errors import ConfigError, shown
from jaxcnn.tasks.task import Task


class Objective(Protocol):
    """What is minimized. Of a raw batch (uint8 images; see jaxcnn.core.program.prepare) and a key,
    (loss of each row [B] float32, next collections, numbers to be logged).
    """

    def __call__(
        self, e: "Experiment", variables: Variables, batch: Batch, key: jax.Array, /
    ) -> tuple[Float[Array, " B"], Collections, Numbers]: ...


class MakeProgram(Protocol):
    """How the step is made, for a run of `steps` updates."""

    def __call__(self, e: "Experiment", /, *, steps: int) -> Program: ...


# (params, model_state, training source) -> (params, model_state)
Initialize = Callable[[Params, Collections, Source], tuple[Params, Collections]]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is trained, on what, how, and for how long.

    model: a Linen module, called as `model(*inputs, train=bool)`.
    task, data: see jaxcnn.tasks.task.Task and jaxcnn.data.dataset.Dataset.
    optimizer: a partial of an optax factory; its float keywords live in the training state, so that
        they can be swept.
    schedule: progress in [0, 1] -> multiplier of the update in [0, 1] (the peak is the optimizer's
        learning rate).
    augment: functions (key, batch) -> batch, applied in order while training; images are float32 in
        [0, 1].
    transform: functions batch -> batch, applied in order after `augment` in training and alone in
        evaluation.
    batch_size: examples per update; eval_batch_size: the same for evaluation (default: batch_size,
        at least 256).
    epochs: passes over the training split, or steps: number of updates (exactly one of the two
        counts; steps wins).
    eval_every: epochs between evaluations; patience: stop after so many evaluations without a
        better metric.
    clip_norm: largest global L2 norm of the gradient. accumulate: micro-batches per update (divides
        batch_size).
    rates: (regular expression over parameter names 'a/b/kernel', multiplier of its update); the
        first match counts. 0 freezes: no gradient, no slot in the optimizer, and modules that are
        frozen whole run as in evaluation: BatchNorm keeps its statistics, Dropout does nothing.
    ema: decay of the exponential moving average of the weights and of BatchNorm's statistics (all
        collections of the model), used for evaluation.
    compute_dtype: "float32" or "bfloat16"; parameters, gradients and BatchNorm statistics stay
        float32.
    weights: where to start from: a run directory, a file of ours, or a torchvision or timm file of
        the same network (.safetensors, .pth, .npz, .h5), behind whatever prefix; also one on the
        Hugging Face hub, hf://OWNER/NAME[@REVISION][/FILE], whose commit the run records. Refused
        where fewer than half of the arrays of parameters are filled, the last layer apart.
    steps_per_dispatch: updates that one call of the device makes. None: 16 on accelerators whose
        memory holds the data; 1 on CPU, where a convolution inside a compiled loop is slow. A run
        keeps its number over a resume: the two differ in rounding.
    mesh: how the devices are arranged, like "data=4,fsdp=2"; -1 for what the other axis leaves.
        Rows are divided among all; along "fsdp" the parameters and the optimizer's state are, too
        (jaxcnn.core.meshes). None: all along "data".
    layout: (regular expression over names such as 'params/Conv_0/kernel', axis counted from the
        end, or None for whole) of what is not to be divided along its largest fitting axis.
    remat: regular expressions over names of modules ('a/b') whose inner numbers are computed anew
        in the backward pass in place of being kept: less memory, more time (jaxcnn.core.remat). The
        same loss and gradients, up to rounding.
    objective: what is minimized; default `jaxcnn.core.program.supervised`, the task's loss of the
        augmented batch. For all that is one gradient of one loss: distillation, contrastive
        learning, regularizers.
    program: (experiment, steps=…) -> Program; default `jaxcnn.core.program.descend`. For all else:
        several optimizers, two gradients a step.
    initialize: (params, model_state, training source) -> (params, model_state) on the host before
        the first step, e.g. whitening.
    """

    model: Model
    task: Task
    data: Dataset
    optimizer: Callable[[], optax.GradientTransformation]
    schedule: Callable[[jax.Array], jax.Array] = schedules.constant
    augment: tuple[Callable[[jax.Array, Batch], Batch], ...] = ()
    transform: tuple[Callable[[Batch], Batch], ...] = ()
    batch_size: int = 128
    eval_batch_size: int | None = None
    epochs: float = 10.0
    steps: int | None = None
    seed: int = 0
    eval_every: float = 1.0
    patience: int | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    rates: Rules = ()
    ema: float | None = None
    compute_dtype: str = "float32"
    weights: str | None = None
    steps_per_dispatch: int | None = None
    mesh: str | None = None
    layout: tuple[tuple[str, int | None], ...] | None = None
    remat: tuple[str, ...] | None = None
    objective: Objective | None = None
    program: MakeProgram | None = None
    initialize: Initialize | None = None
    log_every: int = 50

    def __post_init__(self):
        problems = list(_problems(self))
        if problems:
            raise ConfigError("\n".join(problems))

    def total_steps(self, train_size: int) -> int:
        """Number of updates for a training split of `train_size` examples."""
        if self.steps is not None:
            return self.steps
        found = self.epochs * train_size / self.batch_size
        whole = round(found)  # 1.1 epochs of 100 updates are 110, though 1.1 is a little more
        return whole if math.isclose(found, whole, rel_tol=1e-12) else math.ceil(found)

    def eval_interval(self, train_size: int) -> int:
        """Updates between evaluations."""
        return max(1, round(self.eval_every * train_size / self.batch_size))


def _problems(e: Experiment) -> Iterator[str]:
    """What is wrong with the fields of `e`, one sentence each."""
    yield from _odd_numbers(e)
    yield from _odd_rules(e)
    yield from _odd_functions(e)
    for name, protocol in (("task", Task), ("data", Dataset)):
        value = getattr(e, name)
        # names alone: what a property gives may have to be read from files
        found = () if isinstance(value, type) else dir(value)
        if missing := [member for member in members(protocol) if member not in found]:
            yield f"{name}={shown(value)}: lacks {', '.join(missing)}; see the {name} protocol"


def _odd_numbers(e: Experiment) -> Iterator[str]:
    optional_counts = ("eval_batch_size", "steps", "patience", "steps_per_dispatch")
    for name in ("batch_size", "accumulate", "log_every", *optional_counts):
        value, optional = getattr(e, name), name in optional_counts
        if not (_is_number(value) and isinstance(value, int) and value >= 1) and not (
            optional and value is None
        ):
            yield (
                f"{name}={shown(value)}: must be an integer of at least "
                f"1{' or None' if optional else ''}"
            )
    for name in ("epochs", "eval_every", "clip_norm"):
        value = getattr(e, name)
        if not (_is_number(value) and math.isfinite(value) and value > 0) and not (
            name == "clip_norm" and value is None
        ):
            yield f"{name}={shown(value)}: must be a positive number"
    if not (_is_number(e.seed) and isinstance(e.seed, int) and 0 <= e.seed < 2**32):
        yield f"seed={shown(e.seed)}: must be an integer in [0, 2**32)"
    if (
        isinstance(e.batch_size, int)
        and isinstance(e.accumulate, int)
        and e.accumulate >= 1
        and e.batch_size % e.accumulate
    ):
        yield f"accumulate={e.accumulate}: must divide batch_size={e.batch_size}"
    options = e.optimizer.keywords if isinstance(e.optimizer, partial) else {}
    rate = options.get("learning_rate")
    if isinstance(rate, int | float) and not _is_multiplier(rate):
        yield (
            f"optimizer.learning_rate={shown(rate)}: must be a number of at least 0; a "
            "negative one climbs the loss (negate the loss where that is meant)"
        )
    if e.ema is not None and not (_is_number(e.ema) and 0 < e.ema < 1):
        yield f"ema={shown(e.ema)}: must lie between 0 and 1, e.g. 0.999, or be None"


def _odd_rules(e: Experiment) -> Iterator[str]:
    """Of the fields that are texts, or tuples of texts, pairs or functions."""
    if e.compute_dtype not in ("float32", "bfloat16"):
        yield f"compute_dtype={shown(e.compute_dtype)}: must be 'float32' or 'bfloat16'"
    for name in ("augment", "transform"):
        if not isinstance(getattr(e, name), tuple) or not all(
            callable(f) for f in getattr(e, name)
        ):
            yield (
                f"{name}={shown(getattr(e, name))}: must be a tuple of functions; for a single one "
                f"write ({name}_function,)"
            )
    if not (
        isinstance(e.rates, tuple)
        and all(isinstance(r, tuple) and len(r) == 2 and isinstance(r[0], str) for r in e.rates)
        and all(_is_multiplier(r[1]) for r in e.rates)
    ):
        yield (
            f"rates={shown(e.rates)}: must be a tuple of (regular expression, multiplier) pairs, "
            "and a multiplier a number of at least 0"
        )
    if not (isinstance(e.mesh, str) or e.mesh is None):
        yield f"mesh={shown(e.mesh)}: must be a text like 'data=4,fsdp=2' or None"
    if e.layout is not None and not (
        isinstance(e.layout, tuple)
        and all(isinstance(r, tuple) and len(r) == 2 and _names_axis(*r) for r in e.layout)
    ):
        yield (
            f"layout={shown(e.layout)}: must be a tuple of (regular expression, axis) pairs; axes "
            "count from the end, -1 is the last; None keeps an array whole"
        )
    if e.remat is not None and not (
        isinstance(e.remat, tuple) and all(isinstance(r, str) for r in e.remat)
    ):
        yield (
            f"remat={shown(e.remat)}: must be a tuple of regular expressions over names of modules"
        )


def _odd_functions(e: Experiment) -> Iterator[str]:
    if not callable(e.optimizer):
        yield (
            f"optimizer={shown(e.optimizer)}: must be an optax factory with its numbers, e.g. "
            "partial(optax.sgd, learning_rate=0.1)"
        )
    if not callable(e.schedule):
        yield f"schedule={shown(e.schedule)}: must be a function of progress in [0, 1]"
    if isinstance(e.model, type) or not (hasattr(e.model, "init") and hasattr(e.model, "apply")):
        yield f"model={shown(e.model)}: must be a flax.linen module instance"
    for name in ("objective", "program", "initialize"):
        if getattr(e, name) is not None and not callable(getattr(e, name)):
            yield f"{name}={shown(getattr(e, name))}: must be a function or None"


def _is_number(value: object) -> TypeGuard[float]:
    """Python's True is 1, and none of the fields means it."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_multiplier(value: object) -> bool:
    return _is_number(value) and math.isfinite(value) and value >= 0


def _names_axis(expression: object, axis: object) -> bool:
    last = isinstance(axis, int) and not isinstance(axis, bool) and axis < 0
    return isinstance(expression, str) and (axis is None or last)


def members(protocol: type) -> list[str]:
    """The names that a class must have to keep a protocol."""
    public = [name for name in vars(protocol) if not name.startswith("_")]
    return [*protocol.__annotations__, *public]


def optimizer_numbers(e: Experiment) -> dict[str, float]:
    """The float keywords of the optimizer by dotted path: the numbers that live in the training
    state.
    """
    keywords = e.optimizer.keywords if isinstance(e.optimizer, partial) else {}
    return {
        f"optimizer.{name}": value for name, value in keywords.items() if isinstance(value, float)
    }
