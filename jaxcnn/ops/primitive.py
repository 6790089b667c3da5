"""JAX primitives that are compiled one way on CPU and another way elsewhere, and what their rules
share.

A primitive, not `jax.custom_vjp`, because the choice must be made where a program is compiled: only
there is the platform known, and whether XLA divides the program over devices.
"""

from collections.abc import Callable

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir


def primitive(
    name: str,
    *,
    abstract: Callable,
    batch: Callable,
    on_cpu: Callable,
    elsewhere: Callable,
    multiple_results: bool = False,
) -> Primitive:
    """A primitive whose parameters `geometry` and `formulation` (if it has that) are static; rules
    for its derivatives are the caller's.

    `abstract(*types, **parameters)` gives the result's type and `batch(operands, axes,
    **parameters)` the result and its mapped axis, as JAX asks. `elsewhere(*operands, **parameters)`
    computes it on any platform, `on_cpu(undivided, *operands, **parameters)` on CPU, where
    `undivided` is False if XLA is to divide the program over devices, which it cannot do with a
    call of foreign code. With `multiple_results`, all of these give lists.
    """
    made = Primitive(name)
    made.multiple_results = multiple_results
    compiled = jax.jit(made.bind, static_argnames=("geometry", "formulation"))

    def evaluate(*operands, **parameters):
        # under `jax.disable_jit` there is no program, and the call would come back here
        without = jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
        return (elsewhere if without else compiled)(*operands, **parameters)

    made.def_impl(evaluate)
    made.def_abstract_eval(abstract)
    batching.primitive_batchers[made] = batch

    def lower_cpu(context, *operands, **parameters):
        def compute(*operands):
            return on_cpu(_undivided(context), *operands, **parameters)

        return mlir.lower_fun(compute, multiple_results=multiple_results)(context, *operands)

    mlir.register_lowering(made, mlir.lower_fun(elsewhere, multiple_results=multiple_results))
    mlir.register_lowering(made, lower_cpu, platform="cpu")
    return made


def _undivided(context) -> bool:
    """True where XLA does not divide the program that is being lowered over devices; within
    `shard_map` each device has its own.
    """
    where = context.module_context.axis_context
    if isinstance(where, mlir.ShardingContext):
        return where.num_devices == 1
    return isinstance(where, mlir.SPMDAxisContext) and set(where.manual_axes) == set(
        where.mesh.axis_names
    )


def vary_alike(a, b):
    """The operands of a primitive; where they vary over different axes of a `shard_map`, they are
    made to vary over all of them.
    """
    varying = [_varying(operand) for operand in (a, b)]
    missing = [tuple(sorted((varying[0] | varying[1]) - axes)) for axes in varying]
    return [
        lax.pcast(operand, axes, to="varying") if axes else operand
        for operand, axes in zip((a, b), missing, strict=True)
    ]


def _varying(operand) -> frozenset[str]:
    """The axes of a `shard_map` over which the operand differs."""
    aval = jax.typeof(operand)
    # jax >= 0.10, before
    return aval.mat.varying if hasattr(aval, "mat") else getattr(aval, "vma", frozenset())


def mapped_size(operands, axes) -> int:
    """The number of replicas that a batching rule is given."""
    return next(
        operand.shape[axis]
        for operand, axis in zip(operands, axes, strict=True)
        if axis is not None
    )
