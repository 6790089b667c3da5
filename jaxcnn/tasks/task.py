"""The task protocol: what a model is scored by. Arrays in, numbers out; a task has no parameters
and knows no network.

A batch is a dict of arrays with a leading axis B. `batch["mask"]` [B] float32 is 1 for real rows, 0
for padding: a padded row must change nothing. Statistics only ever *add*, records only ever
*append*, so padding, accumulation, replicas and devices need no metric code. A task is a frozen
dataclass; its float fields may be traced arrays inside a step (so never branch on one in Python),
others are static.

`batch["weight"]` [B] float32, where the data have it, says how much each row's loss counts: the
loss that is minimized and the "loss" among the metrics are sum(weight * loss) / sum(weight), so
that only the proportions of the weights matter, and 0 leaves a row's loss out. All other metrics
count every row once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Bool, Float, Int32, Num, Shaped

from jaxcnn.core.batch import Batch, check_entry, kind
from jaxcnn.errors import ConfigError
from jaxcnn.tasks.checks import check_image

Outputs = Any  # what a model gives: an array, or a pytree of arrays, as the task agreed with it
Sums = Any  # a pytree of arrays
Metrics = dict[str, Any]  # by name; JSON-able


class View(NamedTuple):
    """A picture seen otherwise, for test-time augmentation: a window of it if there is one, then
    mirrored left to right.

    `window`: where a window lies that is magnified to the whole, its upper left corner (down,
    right) as shares of the room that it leaves; None for the whole picture.
    """

    mirrored: bool = False
    window: tuple[float, float] | None = None


class Blind(NamedTuple):
    """What an answer is worth that does not look at the example: `value` of a task's metric, and
    the `answer` in words.
    """

    value: float
    answer: str


class Task(Protocol):
    """Structural type of every task; `BaseTask` has what most of them share."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the batch entries handed to the model, in order."""
        ...

    @property
    def metric(self) -> str:
        """The summary entry that picks the best checkpoint, e.g. "accuracy"."""
        ...

    @property
    def larger_is_better(self) -> bool:
        """Whether a larger metric is a better one."""
        ...

    @property
    def any_size(self) -> bool:
        """Whether the model takes pictures of any size."""
        ...

    @property
    def training_inputs(self) -> tuple[str, ...]:
        """Of `inputs`, those known in training alone: zeros elsewhere."""
        ...

    def loss(self, outputs: Outputs, batch: Batch) -> Float[Array, " B"]:
        """Loss of each row, [B] float32; not multiplied by the mask."""
        ...

    def statistics(self, outputs: Outputs, batch: Batch) -> Sums:
        """A pytree of sums over the rows of the batch; rows with mask 0 contribute 0."""
        ...

    def records(self, outputs: Outputs, batch: Batch) -> dict[str, Shaped[Array, "B ..."]]:
        """Per-row arrays [B, ...] that the summary needs whole (scores for a ranking metric); {} if
        sums are enough.
        """
        ...

    def running(self, outputs: Outputs, batch: Batch) -> dict[str, Shaped[Array, ""]]:
        """What is cheap to say of a training batch, by name: scalars such as its accuracy."""
        ...

    def summarize(self, sums: Sums, records: dict[str, Any]) -> Metrics:
        """Metrics from added sums and appended records (NumPy, on the host, without padding):
        floats, ints and nested lists of them.
        """
        ...

    def predict(self, outputs: Outputs) -> dict[str, Shaped[Array, "B ..."]]:
        """What a user of the model wants, per row: labels, probabilities, boxes, …; pure JAX."""
        ...

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """One row of what `predict` returned (NumPy), in the terms of a person, who has `names` for
        the labels. On the host.

        Only what applies; numbers, strings, lists and dicts, arrays where said:
        "label", "name", "probability", and "top": [{"label", "name", "probability"}, …], best first
        "labels": [{"label", "name", "probability"}, …], all that the example has, likeliest first
        "values": [{"name", "value"}, …], numbers; "value_map": float [H, W, V], numbers of pixels
        "objects": [{"label", "name", "score", "box": [y0, x0, y1, x1] in [0, 1], "mask": bool [H,
        W], "polygon": [[y, x], …]}, …]
        "segmentation": int [H, W], with "segment_names": [name of 0, …]
        "points": [[y, x, score], …] in [0, 1], with "edges": [[i, j], …] to be joined by lines
        "text": str; "image": uint8 [H, W, C], a picture that was made
        """
        ...

    def blind(self, metrics: Metrics) -> Blind | None:
        """What the best blind answer scores by the task's `metric` on the examples of an
        evaluation, as the `metrics` of that evaluation tell; None where they do not tell.
        """
        ...

    def check(self, batch: dict[str, Any]) -> None:
        """Raise DataError if host arrays of examples break a rule (label range, shape, dtype),
        naming value and rule.
        """
        ...

    def explained(self, outputs: Outputs) -> tuple[Float[Array, "B K"], Int32[Array, " B"]]:
        """(scores float32 [B, K] that can be explained, one a class or a value, before any softmax;
        the number of the one that is meant unless another is asked for, the predicted class).
        Differentiable, row by row.
        """
        ...

    def explained_names(self, *, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names of those K scores, for which the data have `names`."""
        ...

    def ensemble(self, outputs: list[Outputs]) -> Outputs:
        """The outputs of several models, joined into outputs of the same form (averaged
        probabilities, …).
        """
        ...

    def from_view(self, outputs: Outputs, view: View) -> Outputs:
        """The outputs for a view of pictures, as they would be for the pictures themselves."""
        ...

    def calibrate(self, metrics: Metrics) -> "Task":
        """This task with its decisions (a threshold, …) taken from validation metrics; itself if it
        has none.
        """
        ...


@runtime_checkable
class _OfClasses(Protocol):
    num_classes: int


def num_classes(task: Task) -> int | None:
    """The number of classes that a task tells apart; None of one that has no such field."""
    return task.num_classes if isinstance(task, _OfClasses) else None


class BaseTask:
    """What most tasks share. A task of one's own derives from it and adds `loss`, `counts`,
    `metrics` and `predict`, with the fields `inputs`, `metric` and `larger_is_better`.
    """

    any_size: bool = False
    training_inputs: tuple[str, ...] = ()
    blind_answer: ClassVar[str] = "the best answer that does not look"
    no_blind: ClassVar[str] = ""  # why there is no such answer, a sentence
    takes_mixed: ClassVar[bool] = False  # whether the loss knows "label_b", of mixed pictures

    if TYPE_CHECKING:  # each task must bring its own: an experiment asks for them by name
        metric: str

        def loss(self, outputs: Outputs, batch: Batch) -> Array: ...

    def statistics(self, outputs: Outputs, batch: Batch) -> Sums:
        """Number of examples (int32), summed loss, and the `counts` of the task."""
        return {**loss_sums(self.loss(outputs, batch), batch), **self.counts(outputs, batch)}

    def summarize(self, sums: Sums, records: dict[str, Any]) -> Metrics:
        """The task's `metric`, its mean loss, count (of examples), and its other `metrics`."""
        found = self.metrics(sums, records)
        first = {self.metric: found[self.metric]} if self.metric in found else {}
        return {**first, **mean_loss(sums), **found}

    def counts(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Sums over the rows of the batch, by name, besides those of the loss: none."""
        return {}

    def metrics(self, sums: Sums, records: dict[str, Any]) -> Metrics:
        """Metrics besides the loss, from added sums and appended records: none."""
        return {}

    def records(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """None: sums are enough."""
        return {}

    def running(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Nothing."""
        return {}

    def predict(self, outputs: Outputs) -> dict[str, Array]:
        """The outputs themselves, where they are one array."""
        return outputs if isinstance(outputs, dict) else {"outputs": outputs}

    def describe(self, row: dict[str, Any], *, names: tuple[str, ...]) -> dict[str, Any]:
        """Nothing that a person would read."""
        return {}

    def blind(self, metrics: Metrics) -> Blind | None:
        """The entry "blind_<metric>" of the metrics, named `blind_answer`; None without it."""
        value = metrics.get(f"blind_{self.metric}")
        return None if value is None else Blind(value, self.blind_answer)

    def check(self, batch: dict[str, Any]) -> None:
        """DataError for unscaled or non-finite images, and for entries that break their row of the
        table in `jaxcnn.core.batch`.
        """
        for name, array in batch.items():
            if kind(name) == "image":
                check_image(array, name=name)
            else:
                check_entry(name, array)

    def explained(self, outputs: Outputs) -> tuple[Array, Array]:
        """Errors: ConfigError, since this task has no score of a class."""
        raise ConfigError(
            f"explain: {type(self).__name__} has no score of a class or a value that could be "
            "explained; filters, features, patches, and dream with a layer need none"
        )

    def explained_names(self, *, names: tuple[str, ...]) -> tuple[str, ...]:
        """The data's own."""
        return names

    def ensemble(self, outputs: list[Outputs]) -> Outputs:
        """Errors: ConfigError, since outputs of this task cannot be joined."""
        raise ConfigError(f"{type(self).__name__}: its outputs cannot be joined to an ensemble")

    def from_view(self, outputs: Outputs, view: View) -> Outputs:
        """Errors: ConfigError, since outputs of this task cannot be carried over."""
        raise ConfigError(
            f"tta: {type(self).__name__} cannot carry its outputs over from mirrored or cropped "
            "pictures; leave tta out, or define from_view"
        )

    def calibrate(self, metrics: Metrics) -> Self:
        """Itself: it takes no decision from validation."""
        return self


# ---- pieces of tasks


def count(chosen: Bool[Array | np.ndarray, "..."]) -> Int32[Array, ""]:
    """How many are true, exactly."""
    return jnp.sum(chosen, dtype=jnp.int32)


def total(chosen: Bool[Array | np.ndarray, "..."], value: Num[Array, "..."]) -> Num[Array, ""]:
    """The sum of those values that are chosen. Not by a product: a padded row may hold NaN."""
    return jnp.sum(jnp.where(chosen, value, jnp.zeros((), value.dtype)))


def loss_sums(loss: Float[Array, " B"], batch: Batch) -> dict[str, Array]:
    """ "count" and "loss" of the real rows; where the batch has weights, the weighted sum, and the
    sum of the "weight".
    """
    real = batch["mask"] > 0
    if "weight" not in batch:
        return {"count": count(real), "loss": total(real, loss)}
    weight = batch["weight"].astype(jnp.float32)
    return {
        "count": count(real),
        "loss": total(real & (weight > 0), weight * loss),
        "weight": total(real, weight),
    }


def mean_loss(sums: Sums) -> Metrics:
    """{"loss", "count"} from added `loss_sums`; 0 where no row counts."""
    size = int(sums["count"])
    share = float(sums["weight"]) if "weight" in sums else size
    return {"loss": float(sums["loss"]) / share if share else 0.0, "count": size}


def mean_softmax(logits: list[Float[Array, "..."]]) -> Float[Array, "..."]:
    """Logits [..., K] whose softmax is the mean of the softmaxes of several."""
    each = [jax.nn.log_softmax(x.astype(jnp.float32)) for x in logits]
    return logsumexp(jnp.stack(each), axis=0) - jnp.log(jnp.float32(len(logits)))


def mean_sigmoid(logits: list[Float[Array, "..."]]) -> Float[Array, "..."]:
    """Logits [...] whose sigmoid is the mean of the sigmoids of several."""
    each = jnp.stack([x.astype(jnp.float32) for x in logits])
    return logsumexp(jax.nn.log_sigmoid(each), axis=0) - logsumexp(
        jax.nn.log_sigmoid(-each), axis=0
    )


def mean_of(outputs: list[Outputs]) -> Outputs:
    """The mean of several outputs of one structure, array by array, in float32."""
    return jax.tree.map(
        lambda *parts: jnp.mean(jnp.stack([p.astype(jnp.float32) for p in parts]), axis=0),
        *outputs,
    )


def best_of(scores: Float[Array, "B K"]) -> tuple[Float[Array, "B K"], Int32[Array, " B"]]:
    """(scores in float32, the number of the largest of each row)."""
    return scores.astype(jnp.float32), jnp.argmax(scores, axis=-1).astype(jnp.int32)


def by_probability(
    probabilities: Any, *, names: tuple[str, ...], first: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """[{"label", "name", "probability"}, …] of all classes [K], likeliest first, but those that are
    `first` before all; a class without a name has its number for one. On the host.
    """
    values = np.asarray(probabilities)
    others = (int(k) for k in np.argsort(-values, kind="stable") if k not in first)
    return [
        {
            "label": k,
            "name": names[k] if k < len(names) else str(k),
            "probability": float(values[k]),
        }
        for k in (*first, *others)
    ]
