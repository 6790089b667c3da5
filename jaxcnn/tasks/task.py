"""The task protocol: what a model is scored by. Arrays in, numbers out; a task has no parameters
and knows no network.

A batch is a dict of arrays with a leading axis B. `batch["mask"]` [B] float32 is 1 for real rows, 0
for padding: a padded row must change nothing. Statistics only ever *add*, records only ever
*append*, so padding, accumulation, replicas and devices need no metric code. A task is a frozen
dataclass; its float fields may be traced arrays inside a step (so never branch on one in Python),
others are static.
"""

from typing import Any, NamedTuple, Protocol, Self

from jax import Array
from jaxtyping import Float, Shaped

from jaxcnn.core.batch import Batch
from jaxcnn.errors import ConfigError

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
        "objects": [{"label", "name", "score", "box": [y0, x0, y1, x1] in [0, 1], "mask": bool [H,
        W], "polygon": [[y, x], …]}, …]
        "segmentation": int [H, W], with "segment_names": [name of 0, …]
        "points": [[y, x, score], …] in [0, 1], with "edges": [[i, j], …] to be joined by lines
        "text": str; "image": uint8 [H, W, C], a picture that was made
        """
        ...

    def check(self, batch: dict[str, Any]) -> None:
        """Raise DataError if host arrays of examples break a rule (label range, shape, dtype),
        naming value and rule.
        """
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


class BaseTask:
    """What most tasks share: a task of one's own derives from it and adds `loss`, `statistics`,
    `summarize` and `predict`, with the fields `inputs`, `metric` and `larger_is_better`.
    """

    any_size: bool = False
    training_inputs: tuple[str, ...] = ()

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

    def check(self, batch: dict[str, Any]) -> None:
        """Nothing is refused."""

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
