"""Program -> Program: how a program is read (scored, predicting, ensemble, viewed), compiled,
repeated and spread over devices. Nothing else in core knows of devices but `core.hosts`, which
says whose they are, and `core.meshes`, which says what lies on which.

Each transformation leaves the meaning of the functions alone and adds (or places) a leading axis;
they compose: `on_devices(scan(replicate(p)), axes=2)` runs many steps a dispatch of many replicas
whose batches [steps, replicas, B, …] are split over the devices along B.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn.core import hosts, meshes
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.forward import with_numbers
from jaxcnn.core.memory import Fitting
from jaxcnn.core.meshes import Layout
from jaxcnn.core.protocols import Batch, HasNumbers, Numbers, Program, Tree
from jaxcnn.core.remat import KEEP_BARRIERS
from jaxcnn.core.views import show, views_of
from jaxcnn.errors import ConfigError
from jaxcnn.tasks.task import Outputs, Task

T = TypeVar("T")


def scored(p: Program, e: Experiment) -> Program:
    """The program whose `output_step` gives what the task sums and records: (sums, records)."""

    def output_step(state: Tree, batch: Batch) -> tuple[Tree, dict[str, jax.Array]]:
        outputs, batch = p.output_step(state, batch)
        task = task_of(e, state)
        return task.statistics(outputs, batch), task.records(outputs, batch)

    return p._replace(output_step=output_step)


def predicting(p: Program, e: Experiment) -> Program:
    """The program whose `output_step` gives what the task predicts: {"label": [B], …}."""

    def output_step(state: Tree, batch: Batch) -> dict[str, jax.Array]:
        return task_of(e, state).predict(p.output_step(state, batch)[0])

    return p._replace(output_step=output_step)


def ensemble(p: Program, e: Experiment) -> Program:
    """Several models as one: the state is a tuple of states, and their outputs are joined by
    `task.ensemble`.
    """

    def output_step(states: tuple[Tree, ...], batch: Batch) -> tuple[Outputs, Batch]:
        results = [p.output_step(state, batch) for state in states]
        return e.task.ensemble([outputs for outputs, _ in results]), results[0][1]

    return p._replace(output_step=output_step)


def viewed(p: Program, e: Experiment, tta: str) -> Program:
    """Test-time augmentation: the outputs for several views of each picture (`views_of`), joined by
    `task.from_view` and `task.ensemble`. Costs as much as there are views.

    Errors: ConfigError, see `views_of`; of a task that cannot join them, as soon as it is traced.
    """
    views = views_of(tta, e.task)

    def output_step(state: Tree, batch: Batch) -> tuple[Outputs, Batch]:
        results = [p.output_step(state, show(batch, view, e.task.inputs)) for view in views]
        outputs = [
            e.task.from_view(outputs, view)
            for (outputs, _), view in zip(results, views, strict=True)
        ]
        return e.task.ensemble(outputs), results[0][1]

    return p._replace(output_step=output_step)


def task_of(e: Experiment, state: Tree) -> Task:
    """The task with the numbers of the state in their places."""
    return (with_numbers(e, state.hyperparams) if isinstance(state, HasNumbers) else e).task


def compile(p: Program) -> Program:
    """Each function under `jit` on the default device; the state handed to `train_step` is
    donated. Errors of the functions: ResourceError where the host's memory does not suffice.
    """
    less = "choose a smaller batch_size, or the same with accumulate=2 or more"
    smaller = "choose a smaller eval_batch_size or smaller inputs"
    return Program(
        Fitting(p.init, "the initial state", "choose a smaller model", options=called_once()),
        Fitting(p.train_step, "the training step", less, donated=(0,), options=stepping()),
        Fitting(p.output_step, "the forward pass", smaller),
    )


def called_once() -> dict[str, int] | None:
    """Compiler options for what is called once in a run, as `init` is: on CPU LLVM's first level
    of optimization, which takes a third to a half of the time and makes the same bits.
    """
    least = jax.config.read("jax_disable_most_optimizations")  # level 0, if asked for
    if jax.default_backend() != "cpu" or least:
        return None
    return {"xla_backend_optimization_level": 1}


# A state that is donated is changed where it lies. XLA's CPU backend makes a copy first of each
# array that two loops read and one of them writes, as momentum is where a step may be refused,
# unless it may look at the order in which loops run, which it then holds them to.
IN_PLACE = {"xla_cpu_copy_insertion_use_region_analysis": True}


def stepping() -> dict[str, str | bool] | None:
    """Compiler options for a training step: on CPU those with which `Experiment.remat` saves
    memory, and with which a state is not copied before it is changed. Neither changes a bit.
    """
    return {**KEEP_BARRIERS, **IN_PLACE} if jax.default_backend() == "cpu" else None


def replicate(p: Program) -> Program:
    """n independent runs in one program: state, key, numbers, variables and training batches gain a
    leading axis. Evaluation batches are shared.
    """
    output_step = jax.vmap(p.output_step, in_axes=(0, None))
    return Program(jax.vmap(p.init), jax.vmap(p.train_step), output_step)


def unroll(p: Program, count: int) -> Program:
    """`count` independent runs in one program one after another, without vmap: as `replicate`, but
    the state is a tuple of states. Larger to compile; each replica keeps its own convolutions.
    """

    def each(function: Callable[[int], T]) -> list[T]:
        return [function(i) for i in range(count)]

    def row(tree: Tree, i: int) -> Tree:
        return jax.tree.map(lambda x: x[i], tree)

    def init(*arguments: Tree) -> tuple[Tree, ...]:
        return tuple(each(lambda i: p.init(*row(arguments, i))))

    def train_step(states: tuple[Tree, ...], batch: Batch) -> tuple[tuple[Tree, ...], Numbers]:
        results = each(lambda i: p.train_step(states[i], row(batch, i)))
        return tuple(state for state, _ in results), _stack([numbers for _, numbers in results])

    def output_step(states: tuple[Tree, ...], batch: Batch) -> Tree:
        return _stack(each(lambda i: p.output_step(states[i], batch)))

    return Program(init, train_step, output_step)


def scan(p: Program) -> Program:
    """Many training steps a dispatch: `train_step` takes batches [k, …] and returns numbers [k].

    On CPU a convolution inside a compiled loop runs several times slower, so the loop is unrolled
    there (longer to compile). Scanned and single steps agree within rounding, not in bits: a run
    keeps its way over a resume.
    """

    def train_steps(state: Tree, batches: Batch) -> tuple[Tree, Numbers]:
        unrolled = jax.default_backend() == "cpu"
        return jax.lax.scan(p.train_step, state, batches, unroll=unrolled)

    return p._replace(train_step=train_steps)


def on_devices(p: Program, *, layout: Layout = Layout(), axes: int = 0) -> Program:
    """The program compiled for the devices at hand, those of all hosts that train together, in the
    layout of its experiment: by default data-parallel where there are several.

    `axes`: how many axes of a training batch come before its rows (steps, replicas).
    """
    mesh = meshes.arranged(layout)
    if mesh.size == 1:
        return compile(p)
    return shard(
        p,
        mesh,
        state=lambda state: meshes.specs(state, mesh, layout.rules),
        batch=PartitionSpec(*(None,) * axes, *meshes.ROWS),
        eval_batch=meshes.ROWS,
    )


def shard(
    p: Program,
    mesh: Mesh,
    *,
    state: PartitionSpec | Callable[[Tree], Tree] = PartitionSpec(),
    batch: PartitionSpec = PartitionSpec("data"),
    eval_batch: PartitionSpec | None = None,
) -> Program:
    """Compiled over a device mesh: the state laid out as `state` says (default: a copy on each
    device; a function gives the PartitionSpecs of a state's shapes), batches split as `batch`.

    Batches of evaluation and prediction are split as `eval_batch` (default: as `batch`; a
    replicated program shares them, so there it is PartitionSpec("data")).

    Gradients and BatchNorm statistics are those of the whole batch, whatever the number of devices.
    Errors: ConfigError for a batch that cannot be split evenly.
    """
    whole, b = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, batch)
    v = NamedSharding(mesh, batch if eval_batch is None else eval_batch)

    def laid(tree: Tree) -> Tree:
        """The shardings of a state, of each array or of all."""
        return meshes.shardings(mesh, state(tree) if callable(state) else state)

    def within(function: Callable[[Tree, Batch], Tree]) -> Callable[[Tree, Batch], Tree]:
        def traced(tree: Tree, batch: Batch) -> Tree:
            with meshes.dividing(mesh):
                return function(tree, batch)

        return traced

    def train_step(s: Tree) -> Callable[[Tree, Batch], Tree]:
        step = within(p.train_step)
        return jax.jit(
            step,
            in_shardings=(s, b),
            out_shardings=(s, whole),
            donate_argnums=0,
            compiler_options=stepping(),
        )

    def output_step(s: Tree) -> Callable[[Tree, Batch], Tree]:
        return jax.jit(within(p.output_step), in_shardings=(s, v), out_shardings=whole)

    def init(*args: Tree) -> Tree:
        made = laid(jax.eval_shape(p.init, *args))
        return jax.jit(p.init, out_shardings=made, compiler_options=called_once())(*args)

    return Program(init, Placing(train_step, laid, b), Placing(output_step, laid, v))


class Placing:
    """A function of (state, batch), compiled for the shardings that are `laid` for its first state,
    that puts this host's state and batch where they belong before it is called.
    """

    def __init__(
        self,
        compiled: Callable[[Tree], Callable[[Tree, Batch], Tree]],
        laid: Callable[[Tree], Tree],
        b: NamedSharding,
    ):
        self._compiled, self._laid, self._b = compiled, laid, b
        self._made: list[tuple[Tree, Callable[[Tree, Batch], Tree]]] = []
        self._forms: set[tuple[tuple[tuple[int, ...], Any], ...]] = set()

    def __call__(self, state: Tree, batch: Batch) -> Tree:
        for name, x in batch.items():
            self._check(name, x.shape)
        if not self._made:
            s = self._laid(state)
            self._made.append((s, self._compiled(s)))
        s, function = self._made[0]
        self._forms.add(tuple((x.shape, x.dtype) for x in jax.tree.leaves((state, batch))))
        return function(hosts.everywhere(state, s), hosts.put(batch, self._b))

    def count_compiled(self) -> int:
        """How often it was compiled by calls: for each set of shapes and dtypes."""
        return len(self._forms)  # JAX's own cache has more than one entry for a set

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        for rows, axis in zip(shape, self._b.spec, strict=False):
            names = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
            parts = math.prod(self._b.mesh.shape[name] for name in names) // hosts.count()
            if names and rows % parts:
                raise ConfigError(
                    f"{name} {list(shape)}: {rows} rows cannot be split evenly over "
                    f"{parts} devices; choose a fitting batch_size"
                )


def _stack(trees: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *x: jax.numpy.stack(x), *trees)
