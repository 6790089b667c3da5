"""Program -> Program: how a program is compiled, repeated and spread over devices. Nothing else
knows of devices.

Each transformation leaves the meaning of the functions alone and adds (or places) a leading axis;
they compose.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn.core.program import Program
from jaxcnn.errors import ConfigError


def compile(p: Program) -> Program:
    """Each function under `jit` on the default device; the state handed to `train_step`
    is donated.
    """
    steps = (jax.jit(step) for step in (p.eval_step, p.predict_step, p.output_step))
    return Program(jax.jit(p.init), jax.jit(p.train_step, donate_argnums=0), *steps)


def replicate(p: Program) -> Program:
    """n independent runs in one program: state, key, hyperparameters and training batches gain a
    leading axis.

    Evaluation batches are shared.
    """
    shared = (
        jax.vmap(step, in_axes=(0, None)) for step in (p.eval_step, p.predict_step, p.output_step)
    )
    return Program(jax.vmap(p.init), jax.vmap(p.train_step), *shared)


def ensemble(p: Program, task: Any) -> Program:
    """Evaluate and predict by several models together: the state is a tuple of states, their
    outputs are joined by `task.ensemble`.
    """

    def output_step(states, batch):
        results = [p.output_step(state, batch) for state in states]
        return task.ensemble([outputs for outputs, _ in results]), results[0][1]

    def eval_step(states, batch):
        outputs, batch = output_step(states, batch)
        return task.statistics(outputs, batch), task.records(outputs, batch)

    return p._replace(
        eval_step=eval_step,
        predict_step=lambda s, b: task.predict(output_step(s, b)[0]),
        output_step=output_step,
    )


def scan(p: Program) -> Program:
    """Many training steps a dispatch: `train_step` takes batches [k, B, …] and returns metrics [k].

    On CPU a convolution inside a compiled loop runs several times slower, so the loop is unrolled
    there (longer to compile).
    Scanned and single steps agree within rounding, not in bits: a run keeps its way over a resume.
    """

    def train_steps(state, batches):
        return jax.lax.scan(p.train_step, state, batches, unroll=jax.default_backend() == "cpu")

    return p._replace(train_step=train_steps)


def data_mesh(devices=None) -> Mesh:
    """A one-axis mesh "data" over `devices` (default: all)."""
    return Mesh(np.array(jax.devices() if devices is None else devices), ("data",))


def shard(
    p: Program, mesh: Mesh, *, state=PartitionSpec(), batch=PartitionSpec("data"), eval_batch=None
) -> Program:
    """Compiled over a device mesh: the state laid out as `state` (default: a copy on each device),
    batches split as `batch`.

    Batches of evaluation and prediction are split as `eval_batch` (default: as `batch`; a
    replicated program shares them, so there it is PartitionSpec("data")).

    Gradients and BatchNorm statistics are those of the whole batch, whatever the number of devices.
    Errors: ConfigError for a batch that cannot be split evenly.
    """
    s, whole = NamedSharding(mesh, state), NamedSharding(mesh, PartitionSpec())
    b, v = (
        NamedSharding(mesh, batch),
        NamedSharding(mesh, batch if eval_batch is None else eval_batch),
    )
    return Program(
        jax.jit(p.init, out_shardings=s),
        _placing(
            jax.jit(p.train_step, in_shardings=(s, b), out_shardings=(s, s), donate_argnums=0), b
        ),
        _placing(jax.jit(p.eval_step, in_shardings=(s, v), out_shardings=whole), v),
        _placing(jax.jit(p.predict_step, in_shardings=(s, v), out_shardings=whole), v),
        _placing(jax.jit(p.output_step, in_shardings=(s, v), out_shardings=whole), v),
    )


def _placing(function, sharding: NamedSharding):
    """`function(state, batch)` that first puts the batch where it belongs."""

    def placed(state, batch):
        for name, x in batch.items():
            for rows, axis in zip(x.shape, sharding.spec, strict=False):
                if axis is not None and rows % sharding.mesh.shape[axis]:
                    parts = sharding.mesh.shape[axis]
                    raise ConfigError(
                        f"{name} {list(x.shape)}: {rows} rows cannot be split evenly over {parts} "
                        "devices; choose a fitting batch_size"
                    )
        return function(state, jax.device_put(batch, sharding))

    return placed


def chunked(p: Program, sizes: tuple[int, ...], *, together: bool = False, devices=None) -> Program:
    """sum(sizes) replicas in vmapped chunks of these sizes, compiled. A chunk of one is the plain
    program, with the bits of a solo run.

    The state is a tuple with one stacked state a chunk; keys, hyperparameters, training batches and
    results have one leading axis over all replicas, as with `replicate`. With `together`, one
    dispatch runs all chunks; else each has its own. `devices`: chunk i lives on devices[i %
    len(devices)].
    """
    wrap = (lambda q: q) if together else compile
    programs = {size: wrap(replicate(p) if size > 1 else p) for size in set(sizes)}
    starts = np.cumsum((0, *sizes))

    def home(i: int, tree):
        """The tree on the device of chunk i."""
        return jax.device_put(tree, devices[i % len(devices)]) if devices else tree

    def part(tree, i: int):
        """What of a tree with an axis over all replicas belongs to chunk i."""
        return home(
            i,
            jax.tree.map(
                lambda x: x[starts[i]] if sizes[i] == 1 else x[starts[i] : starts[i + 1]], tree
            ),
        )

    def join(parts):
        """The chunks' results along one axis over all replicas."""
        rows = [
            home(0, part if size > 1 else jax.tree.map(lambda x: x[None], part))
            for part, size in zip(parts, sizes, strict=True)
        ]
        return jax.tree.map(lambda *x: jax.numpy.concatenate(x), *rows)

    def init(keys, hyperparams=None):
        return tuple(
            programs[size].init(part(keys, i), part(hyperparams or {}, i))
            for i, size in enumerate(sizes)
        )

    def train_step(states, batch):
        results = [
            programs[size].train_step(home(i, states[i]), part(batch, i))
            for i, size in enumerate(sizes)
        ]
        return tuple(state for state, _ in results), join([metrics for _, metrics in results])

    def shared(name):
        def step(states, batch):
            return join(
                [
                    getattr(programs[size], name)(home(i, states[i]), home(i, batch))
                    for i, size in enumerate(sizes)
                ]
            )

        return step

    whole = Program(
        init, train_step, shared("eval_step"), shared("predict_step"), shared("output_step")
    )
    return compile(whole) if together else whole


def unstack(states: tuple, sizes: tuple[int, ...]) -> list:
    """The solo states of a `chunked` program's state, in order."""
    return [
        jax.tree.map(lambda x, i=i: x[i], s) if size > 1 else s
        for s, size in zip(states, sizes, strict=True)
        for i in range(size)
    ]


def stack(states: list, sizes: tuple[int, ...]) -> tuple:
    """The state of a `chunked` program from solo states: the inverse of `unstack`."""
    starts = np.cumsum((0, *sizes))
    chunks = [states[starts[i] : starts[i + 1]] for i in range(len(sizes))]
    return tuple(
        chunk[0] if len(chunk) == 1 else jax.tree.map(lambda *x: jax.numpy.stack(x), *chunk)
        for chunk in chunks
    )
