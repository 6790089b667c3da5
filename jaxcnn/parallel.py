"""Program -> Program: how a program is compiled, repeated and spread over devices. Nothing else knows of devices.

Each transformation leaves the meaning of the functions alone and adds (or places) a leading axis; they compose.
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn.errors import ConfigError
from jaxcnn.program import Program


def compile(p: Program) -> Program:
    """Each function under `jit` on the default device; the state handed to `train_step` is donated."""
    return Program(jax.jit(p.init), jax.jit(p.train_step, donate_argnums=0), jax.jit(p.eval_step), jax.jit(p.predict_step))


def replicate(p: Program) -> Program:
    """n independent runs in one program: state, key, hyperparameters and training batches gain a leading axis.

    Evaluation batches are shared.
    """
    return Program(
        jax.vmap(p.init),
        jax.vmap(p.train_step),
        jax.vmap(p.eval_step, in_axes=(0, None)),
        jax.vmap(p.predict_step, in_axes=(0, None)),
    )


def scan(p: Program) -> Program:
    """Many training steps a dispatch: `train_step` takes batches [k, B, …] and returns metrics [k].

    On CPU a convolution inside a compiled loop runs several times slower, so the loop is unrolled there (longer to compile).
    Scanned and single steps agree within rounding, not in bits: a run keeps its way over a resume.
    """

    def train_steps(state, batches):
        return jax.lax.scan(p.train_step, state, batches, unroll=jax.default_backend() == "cpu")

    return p._replace(train_step=train_steps)


def data_mesh(devices=None) -> Mesh:
    """A one-axis mesh "data" over `devices` (default: all)."""
    return Mesh(np.array(jax.devices() if devices is None else devices), ("data",))


def shard(p: Program, mesh: Mesh, *, state=PartitionSpec(), batch=PartitionSpec("data"), eval_batch=None) -> Program:
    """Compiled over a device mesh: the state laid out as `state` (default: a copy on each device), batches split as `batch`.

    Batches of evaluation and prediction are split as `eval_batch` (default: as `batch`; a replicated program shares them, so there it is
    PartitionSpec("data")).

    Gradients and BatchNorm statistics are those of the whole batch, whatever the number of devices.
    Errors: ConfigError for a batch that cannot be split evenly.
    """
    s, whole = NamedSharding(mesh, state), NamedSharding(mesh, PartitionSpec())
    b, v = NamedSharding(mesh, batch), NamedSharding(mesh, batch if eval_batch is None else eval_batch)
    return Program(
        jax.jit(p.init, out_shardings=s),
        _placing(jax.jit(p.train_step, in_shardings=(s, b), out_shardings=(s, s), donate_argnums=0), b),
        _placing(jax.jit(p.eval_step, in_shardings=(s, v), out_shardings=whole), v),
        _placing(jax.jit(p.predict_step, in_shardings=(s, v), out_shardings=whole), v),
    )


def _placing(function, sharding: NamedSharding):
    """`function(state, batch)` that first puts the batch where it belongs."""

    def placed(state, batch):
        for name, x in batch.items():
            for rows, axis in zip(x.shape, sharding.spec, strict=False):
                if axis is not None and rows % sharding.mesh.shape[axis]:
                    parts = sharding.mesh.shape[axis]
                    raise ConfigError(
                        f"{name} {list(x.shape)}: {rows} rows cannot be split evenly over {parts} devices; choose a fitting batch_size"
                    )
        return function(state, jax.device_put(batch, sharding))

    return placed
