"""Everything that can be known of a run before touching its examples: shapes, bytes, steps, and
whether data, task and model have the same classes and sizes.
"""

import math
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import jax

from jaxcnn.core import hosts, meshes
from jaxcnn.core.checks import check_numbers
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import prepare
from jaxcnn.core.meshes import Layout
from jaxcnn.core.program import State, make_program
from jaxcnn.core.protocols import Batch, Program, Tree
from jaxcnn.core.transforms import predicting
from jaxcnn.data.dataset import SPLITS, Dataset
from jaxcnn.errors import ConfigError, DataError, JaxcnnError
from jaxcnn.runs.replica import check_program
from jaxcnn.tasks.task import num_classes


def abstract_state(e: Experiment) -> Tree:
    """The training state as shapes. Errors: ConfigError that names the input's shape where the
    model refuses it, and where data, task and model differ in their number of classes or in the
    size of images.
    """

    check_classes(e)
    spec = e.data.spec()
    batch = {n: jax.ShapeDtypeStruct((e.batch_size, *s.shape), s.dtype) for n, s in spec.items()}
    try:
        entries = jax.eval_shape(lambda b: prepare(e, b), batch)
        missing = [name for name in e.task.inputs if name not in entries]
        if missing:
            raise ConfigError(
                f"task {type(e.task).__name__} needs {missing} but the data have only "
                f"{list(entries)}; choose another task or rename the keys"
            )
        _check_image_size(e, entries)
        program = make_program(e, steps=1)
        state = check_program(program, e)
        _, numbers = jax.eval_shape(program.train_step, state, batch)
        check_numbers("the program's train_step", numbers)
        _check_head(e, program, state, batch)
    except JaxcnnError:
        raise
    except (
        TypeError,
        ValueError,
        AttributeError,
        KeyError,
        ZeroDivisionError,
        IndexError,
        AssertionError,
    ) as error:
        shapes = ", ".join(f"{name} {list(s.shape)} {s.dtype}" for name, s in spec.items())
        raise ConfigError(
            f"the model, task, schedule or augmentation refuses these data ({shapes}): "
            f"{type(error).__name__}: {error}"
        ) from error
    return state


def check_divides(e: Experiment, *, devices: int | None = None) -> None:
    """ConfigError where a batch cannot be split evenly over the devices, which train a run
    together: those that there are, or so many.
    """
    count = devices or len(hosts.devices())
    if e.batch_size % count:
        below = e.batch_size // count * count
        nearest = f"{below} or {below + count}" if below else str(count)
        fewer = "fewer devices" if devices else "let JAX see fewer devices"
        raise ConfigError(
            f"batch_size={e.batch_size}: cannot be split evenly over {count} devices, which train "
            f"a run together; choose {nearest}, or {fewer}"
        )
    layout = Layout.of(e)
    if layout != Layout():
        if devices is None:
            meshes.arranged(layout)
        share_of_state(e, (count,))


def share_of_state(e: Experiment, counts: Iterable[int]) -> dict[int, int]:
    """{number of devices: bytes of the state on each of them}.

    Errors: ConfigError for a mesh or layout that does not fit.
    """
    state, layout = abstract_state(e), Layout.of(e)
    return {count: meshes.bytes_per_device(state, layout, count) for count in counts}


def check_classes(e: Experiment) -> None:
    """ConfigError where the task's num_classes is not the number of classes that the data name.
    Data that are not there yet, or name none, say nothing.

    Names of a segmentation may leave out the background.
    """
    count = num_classes(e.task)
    try:
        names = tuple(e.data.label_names)
    except DataError:
        return
    spec = e.data.spec()
    entry = next((n for n in ("label", "box_labels", "segmentation") if n in spec), None)
    wanted = {len(names), len(names) + 1} if entry == "segmentation" else {len(names)}
    if count is None or not names or entry is None or count in wanted:
        return
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    raise ConfigError(
        f"task.num_classes={count}, and the data have {len(names)} classes ({shown}): set "
        f"task.num_classes={len(names)}, and the model's with it, or give other data"
    )


@runtime_checkable
class _OfSize(Protocol):
    image_size: tuple[int, int]


def _check_image_size(e: Experiment, entries: Batch) -> None:
    """ConfigError where the task's image_size is not that of the images the model sees: boxes and
    sizes in pixels would be of another picture.
    """
    image = entries.get("image")
    if not isinstance(e.task, _OfSize) or image is None:
        return
    size = tuple(e.task.image_size)
    if size == image.shape[1:3]:
        return
    found = ",".join(map(str, image.shape[1:3]))
    raise ConfigError(
        f"task.image_size={','.join(map(str, size))}, and the images of the data are {found} "
        f"(height, width) as the model sees them: set task.image_size={found}, or give data of the "
        "task's size, e.g. by data.image_size"
    )


def _check_head(e: Experiment, program: Program, state: Tree, batch: Batch) -> None:
    """ConfigError for a model that gives probabilities of another number of classes."""
    count = num_classes(e.task)
    if e.program is not None or count is None:
        return
    rows = jax.eval_shape(predicting(program, e).output_step, state, batch)
    found = rows.get("probabilities") if isinstance(rows, dict) else None
    if found is not None and found.ndim == 2 and found.shape[-1] != count:
        raise ConfigError(
            f"the model gives {found.shape[-1]} classes and task.num_classes={count}: set the "
            "model's, e.g. model.num_classes, to the same number"
        )


def size_of(data: Dataset, split: str) -> int | None:
    """The number of examples of a split; None where the data are not there yet."""

    try:
        count = data.size(split)
    except DataError:
        return None
    return None if split == "train" and count == 0 else count


def pre_flight(e: Experiment) -> dict[str, Any]:
    """Sizes and counts of a run, from metadata alone."""

    check_divides(e)
    state, spec = abstract_state(e), e.data.spec()
    sizes = {split: size_of(e.data, split) for split in SPLITS}
    train_size = sizes["train"]
    known = bool(train_size) or e.steps is not None
    steps = e.total_steps(train_size or 0) if known else None
    batch = {
        name: jax.ShapeDtypeStruct((e.batch_size, *s.shape), s.dtype) for name, s in spec.items()
    }
    entries, devices = jax.eval_shape(lambda b: prepare(e, b), batch), len(hosts.devices())
    return {
        "inputs": {name: [*entries[name].shape[1:]] for name in e.task.inputs},
        **_sizes_of(state),
        "state_bytes_per_device": meshes.bytes_per_device(state, Layout.of(e), devices),
        "batch_bytes": _size(batch),
        **{f"{split}_examples": count for split, count in sizes.items()},
        "steps": steps,
        "steps_per_epoch": round(train_size / e.batch_size, 2) if train_size else None,
        "steps_per_evaluation": e.eval_interval(train_size) if train_size else None,
        "backend": jax.default_backend(),
        "devices": len(jax.devices()),
    }


def _sizes_of(state: Tree) -> dict[str, int]:
    """Parameters and bytes of a state; of a program's own kind of state as a whole."""
    if not isinstance(state, State):
        return {"state_bytes": _size(state)}
    return {
        "state_bytes": _size(state),
        "params": sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)),
        "param_bytes": _size(state.params),
        "optimizer_bytes": _size(state.opt_state),
        "model_state_bytes": _size(state.model_state),
    }


def _size(tree: Tree) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
