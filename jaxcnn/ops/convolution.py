"""The one seam through which every convolution of every model goes, so that a faster formulation
serves all of them.

Layout: inputs x [B, *spatial, C] (channels last), kernels w [*window, C / groups, features],
outputs y [B, *smaller, features]; any float.

Formulations, chosen by `formulation` or the environment variable JAXCNN_CONVOLUTION (read whenever
a function is traced; `formulation` is part of `jax.jit`'s cache key, so that a change retraces):

- `"natural"`: what `jax.lax` and Flax do.
- `"fast"`: pure JAX. On CPU the gradient of the kernel reads a stored copy of its input, where XLA
  would recompute the layers that led to it inside a transposition, and transposes it in two steps
  (`jaxcnn.ops.cpu.kernel_gradient`); where channels are few, several columns are taken at a time
  (`jaxcnn.ops.cpu.banded`); with one filter a channel, tap by tap (`jaxcnn.ops.cpu.depthwise`);
  max-pooling remembers which element won; BatchNorm is a x + b. On other platforms convolutions are
  XLA's own.
- `"onednn"`: on CPU, float32, one or two dimensions: the oneDNN library (`jaxcnn.ops.cpu.onednn`),
  for most 3x3 convolutions of stride 1 by way of Winograd's algorithm, which needs up to 2.25 times
  fewer multiplications; everything else as `"fast"`.
- `"auto"` (default): on CPU `"onednn"` where `jaxcnn[onednn]` is installed and works, else
  `"fast"`; elsewhere `"natural"`.

A convolution is bilinear, and so are its two gradients: y(x, w), x(y, w) and w(x, y) are linear in
both arguments, and each other's transposes. They are three JAX primitives here, which gives
derivatives of every order, forward and reverse, in every formulation.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.ops.cpu import banded, depthwise, kernel_gradient

FORMULATIONS = ("natural", "fast", "onednn", "auto")
VARIABLE = "JAXCNN_CONVOLUTION"

# An input of fewer channels is an image, or cheap to recompute: LeNet-5 is 2 % slower where its
# inputs are stored.
FEWEST_STORED_CHANNELS = 8

STEM_CHANNELS = 4  # to which images of fewer channels are padded on a GPU in bfloat16

_context = jax.make_user_context(None)  # a part of jit's cache key, so that a change retraces


def _check(name: str, origin: str) -> str:
    if name not in FORMULATIONS:
        raise ConfigError(
            f"{origin} is {name!r}; it must be one of "
            f"{', '.join(FORMULATIONS)}{did_you_mean(name, FORMULATIONS)}."
        )
    return name


@contextlib.contextmanager
def formulation(name: str) -> Iterator[None]:
    """Within the `with` block, trace convolutions, pooling and BatchNorm as `name` says: "natural",
    "fast", "onednn" or "auto" (see the module).

    Raises ConfigError for another name, and DependencyError, saying what is missing, where "onednn"
    is asked for and cannot be had.
    """
    if _check(name, "the convolution formulation") == "onednn":
        from jaxcnn.ops.cpu import onednn

        onednn.require()
    with _context(name):
        yield


def current_formulation() -> str:
    """The formulation in force, "auto" resolved: "natural", "fast" or "onednn". To be recorded with
    a run.
    """
    name = _context.value or _check(
        os.environ.get(VARIABLE) or "auto", f"the environment variable {VARIABLE}"
    )
    if name in ("natural", "fast"):
        return name
    if name == "auto" and jax.default_backend() != "cpu":
        return "natural"
    from jaxcnn.ops.cpu import onednn

    return "onednn" if onednn.available(warn=name == "onednn") else "fast"


@dataclass(frozen=True)
class Geometry:
    """What of a convolution is static, one number (or pair) for each spatial axis; `spatial` is x's
    extent, `window` the kernel's, undilated."""

    spatial: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    precision: Any = None

    @property
    def rank(self) -> int:
        """Number of axes of an operand without replicas: batch, spatial, channels."""
        return len(self.window) + 2

    def output_spatial(self) -> tuple[int, ...]:
        """Spatial extent of y."""
        extents = zip(
            self.spatial, self.window, self.strides, self.padding, self.dilation, strict=True
        )
        return tuple(
            (n + low + high - d * (k - 1) - 1) // s + 1 for n, k, s, (low, high), d in extents
        )

    def result_shape(self, role: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of y(x, w), x(y, w) or w(x, y), by `role`, from its operands' shapes; a leading
        replica axis stays.
        """
        leading = next((shape[:1] for shape in (a, b) if len(shape) > self.rank), ())
        a, b = a[-self.rank :], b[-self.rank :]
        if role == "y":
            return (*leading, a[0], *self.output_spatial(), b[-1])
        if role == "x":
            return (*leading, a[0], *self.spatial, b[-2] * self.groups)
        return (*leading, *self.window, a[-1] // self.groups, b[-1])


def conv_general_dilated(lhs, rhs, window_strides, padding, **options):
    """`jax.lax.conv_general_dilated`, to be handed to `flax.linen.Conv(conv_general_dilated=…)`;
    same arguments, same result.

    lhs [B, *spatial, C], rhs [*window, C / groups, features] -> [B, *smaller, features], channels
    last as Flax asks; anything else (another layout, a dilated input, mixed dtypes) is handed to
    `jax.lax` as it is.
    """
    chosen = current_formulation()
    stem = (
        jax.default_backend() == "gpu"
        and lhs.dtype == jax.numpy.bfloat16
        and lhs.shape[-1] < STEM_CHANNELS
    )
    geometry = (
        _geometry(lhs, rhs, window_strides, padding, options)
        if stem or chosen != "natural"
        else None
    )
    if stem and geometry is not None and geometry.groups == 1:
        lhs, rhs = pad_channels(lhs, rhs)
    if chosen == "natural" or geometry is None:
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)
    if chosen == "onednn":
        from jaxcnn.ops.cpu import onednn

        chosen = "onednn" if onednn.supports(geometry, lhs, rhs) else "fast"
    return _bind("y", lhs, rhs, geometry=geometry, formulation=chosen)


def pad_channels(x, w):
    """An image x [B, *spatial, C] and its kernel w [*window, C, F] with zeros up to STEM_CHANNELS
    channels, for the same convolution.

    cuDNN's kernels for tensor cores want at least so many, and XLA pads for them in float16 only,
    not in bfloat16.
    """
    last = [(0, 0)] * (x.ndim - 1) + [(0, STEM_CHANNELS - x.shape[-1])]
    return jax.numpy.pad(x, last), jax.numpy.pad(w, [*last[1:], (0, 0)])


def _geometry(x, w, strides, padding, options) -> Geometry | None:
    """The geometry of a channels-last convolution over one float dtype, else None."""
    rank = x.ndim
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, options.get("dimension_numbers"))
    spatial_axes = tuple(range(1, rank - 1))
    channels_last = (0, rank - 1, *spatial_axes)
    kernel_last = (rank - 1, rank - 2, *range(rank - 2))
    unsupported = (
        numbers.lhs_spec != channels_last
        or numbers.rhs_spec != kernel_last
        or numbers.out_spec != channels_last
        or any(d != 1 for d in options.get("lhs_dilation") or ())
        or options.get("batch_group_count", 1) != 1
        or options.get("preferred_element_type") is not None
        or options.get("out_sharding") is not None
        or x.dtype != w.dtype
        or not jax.numpy.issubdtype(x.dtype, jax.numpy.floating)
        or 0 in (*x.shape, *w.shape)
        or any(
            axis is not None for operand in (x, w) for axis in jax.typeof(operand).sharding.spec
        )  # explicit sharding
    )
    if unsupported:
        return None
    window, dilation = w.shape[:-2], tuple(options.get("rhs_dilation") or (1,) * (rank - 2))
    if isinstance(padding, str):
        extents = [d * (k - 1) + 1 for k, d in zip(window, dilation, strict=True)]
        padding = lax.padtype_to_pads(x.shape[1:-1], extents, strides, padding)
    pairs = tuple((int(low), int(high)) for low, high in padding)
    groups = options.get("feature_group_count", 1)
    geometry = Geometry(
        x.shape[1:-1], window, tuple(strides), pairs, dilation, groups, options.get("precision")
    )
    wrong = (
        x.shape[-1] != w.shape[-2] * groups
        or w.shape[-1] % groups
        or min(geometry.output_spatial()) < 1
    )
    return None if wrong else geometry  # jax.lax raises its own, clear error


# ---- the three bilinear primitives, named by their result ----------------------------------------

OPERANDS = {"y": ("x", "w"), "x": ("y", "w"), "w": ("x", "y")}
PRIMITIVES = {role: Primitive(f"convolution_{role}") for role in OPERANDS}


def _bind(role, a, b, **parameters):
    return PRIMITIVES[role].bind(*vary_alike(a, b), **parameters)


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


def natural(role: str, geometry: Geometry, a, b):
    """y(x, w), x(y, w) or w(x, y), by `role`, as `jax.lax` computes it; operands may have a leading
    replica axis.
    """
    replicated = [operand.ndim > geometry.rank for operand in (a, b)]
    if any(replicated):
        return jax.vmap(
            functools.partial(natural, role, geometry),
            in_axes=[0 if r else None for r in replicated],
        )(a, b)

    def convolve(x, w):
        letters = "0123456789"[: geometry.rank - 2]
        numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        options = {
            "rhs_dilation": geometry.dilation,
            "feature_group_count": geometry.groups,
            "precision": geometry.precision,
        }
        return lax.conv_general_dilated(
            x, w, geometry.strides, geometry.padding, dimension_numbers=numbers, **options
        )

    if role == "y":
        return convolve(a, b)
    # Only the type is used; made from an operand, it also says over which axes of a shard_map it
    # varies.
    wanted = jax.numpy.broadcast_to(a[(0,) * a.ndim], geometry.result_shape(role, a.shape, b.shape))
    if role == "x":
        return jax.linear_transpose(lambda x: convolve(x, b), wanted)(a)[0]
    return jax.linear_transpose(lambda w: convolve(a, w), wanted)(b)[0]


def fast(role: str, geometry: Geometry, a, b):
    """y(x, w), x(y, w) or w(x, y), by `role`, in the way that takes XLA's CPU backend the least
    time.
    """
    if a.ndim > geometry.rank or b.ndim > geometry.rank:
        return natural(role, geometry, a, b)
    w_shape = geometry.result_shape("w", a.shape, b.shape) if role == "w" else b.shape
    if depthwise.suits(geometry, w_shape, a.dtype):
        return depthwise.convolve(role, geometry, a, b, functools.partial(_materialize, witness=b))
    inputs, outputs = (a.shape[-1], b.shape[-1]) if role == "w" else (b.shape[-2], b.shape[-1])
    blocks = banded.blocks(role, geometry, inputs, outputs)
    if blocks and role == "y":
        return blocks.to_y(natural("y", blocks.rows(), blocks.of_x(a), blocks.of_w(b)))
    if blocks and role == "x":
        return blocks.to_x(natural("x", blocks.rows(), blocks.of_y(a), blocks.of_w(b)))
    if blocks:
        geometry, a, b = blocks.rows(), blocks.of_x(a), blocks.of_y(b)
    two_steps = role == "w" and kernel_gradient.suits(geometry, a.shape[0])
    result = (
        kernel_gradient.kernel_gradient(geometry, a, b)
        if two_steps
        else natural(role, geometry, a, b)
    )
    return blocks.to_w(result, inputs) if blocks else result


def _materialize(x, witness):
    """x, written to memory once: XLA's CPU backend fuses nothing through a conditional, whereas it
    removes an optimization barrier before it fuses. The predicate is false for every number (also
    NaN and infinity), which the compiler cannot know.
    """
    number = lax.stop_gradient(witness[(0,) * witness.ndim])
    return lax.cond(number * 0 == 1, lambda x: x * 2, lambda x: x, x)


def undivided(context) -> bool:
    """True where XLA does not divide the program that is being lowered over devices; within
    `shard_map` each device has its own.
    """
    where = context.module_context.axis_context
    if isinstance(where, mlir.ShardingContext):
        return where.num_devices == 1
    return isinstance(where, mlir.SPMDAxisContext) and set(where.manual_axes) == set(
        where.mesh.axis_names
    )


def _lower_cpu(role, context, a, b, *, geometry, formulation):
    """Lowering rule for CPU. XLA cannot divide a call of oneDNN over devices, so where it is to
    divide the program, its own convolution is used."""
    native = formulation == "onednn" and undivided(context)

    def compute(a, b):
        if native:
            from jaxcnn.ops.cpu import onednn

            return onednn.convolve(role, geometry, a, b)
        if (
            role == "w"
            and a.ndim == b.ndim == geometry.rank
            and a.shape[-1] >= FEWEST_STORED_CHANNELS
        ):
            a = _materialize(a, b)
        return fast(role, geometry, a, b)

    return mlir.lower_fun(compute, multiple_results=False)(context, a, b)


def _lower_elsewhere(role, a, b, *, geometry, formulation):
    # the choice was made for a CPU; another platform compiles XLA's own convolution (jax.export for
    # several platforms)
    del formulation
    return natural(role, geometry, a, b)


def _abstract(role, a, b, *, geometry, formulation):
    del formulation
    like = a if a.ndim >= b.ndim else b
    return like.update(shape=geometry.result_shape(role, a.shape, b.shape), weak_type=False)


def _transpose(role, side, cotangent, a, b, **parameters):
    """The cotangent of operand `side`, which is the primitive named after it; summed over the
    replicas that the operand was shared by.
    """
    if type(cotangent) is ad.Zero:
        return ad.Zero((a, b)[side].aval)
    known = dict(zip(OPERANDS[role], (a, b), strict=True)) | {role: cotangent}
    wanted, aval = OPERANDS[role][side], (a, b)[side].aval
    result = _bind(wanted, *(known[name] for name in OPERANDS[wanted]), **parameters)
    return result.sum(0) if result.ndim > aval.ndim else result


def _batch(role, operands, axes, *, geometry, formulation):
    """Operands get a leading replica axis [K, …]; replicas that share a kernel are simply more
    images. -> result, 0.
    """
    bind = functools.partial(_bind, role, geometry=geometry, formulation=formulation)
    size = next(
        operand.shape[axis]
        for operand, axis in zip(operands, axes, strict=True)
        if axis is not None
    )
    operands = [
        x if axis is None else jax.numpy.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    inner = [
        x.ndim - (axis is not None) > geometry.rank for x, axis in zip(operands, axes, strict=True)
    ]
    if any(inner):  # replicas of replicas: one axis of the product
        count = next(
            x.shape[-geometry.rank - 1] for x, nested in zip(operands, inner, strict=True) if nested
        )
        result = bind(
            *(
                _product_axis(x, axis is not None, nested, size, count)
                for x, axis, nested in zip(operands, axes, inner, strict=True)
            )
        )
        return result.reshape(size, count, *result.shape[1:]), 0
    if role != "w" and axes[1] is None:
        images = operands[0]
        result = bind(images.reshape(size * images.shape[1], *images.shape[2:]), operands[1])
        return result.reshape(size, -1, *result.shape[1:]), 0
    return bind(*operands), 0


def _product_axis(x, mapped: bool, nested: bool, size: int, count: int):
    """[size, count, …], [size, …] or [count, …] -> [size · count, …]; an operand with neither axis
    stays as it is.
    """
    if not mapped and not nested:
        return x
    shape = x.shape[mapped + nested :]
    x = x.reshape(size if mapped else 1, count if nested else 1, *shape)
    return jax.numpy.broadcast_to(x, (size, count, *shape)).reshape(size * count, *shape)


@functools.partial(jax.jit, static_argnames=("role", "geometry", "formulation"))
def _apply(role, a, b, *, geometry, formulation):
    return PRIMITIVES[role].bind(a, b, geometry=geometry, formulation=formulation)


def _define(role: str, primitive: Primitive) -> None:
    primitive.def_impl(functools.partial(_apply, role))
    primitive.def_abstract_eval(functools.partial(_abstract, role))
    ad.defbilinear(
        primitive, functools.partial(_transpose, role, 0), functools.partial(_transpose, role, 1)
    )
    batching.primitive_batchers[primitive] = functools.partial(_batch, role)
    mlir.register_lowering(
        primitive, mlir.lower_fun(functools.partial(_lower_elsewhere, role), multiple_results=False)
    )
    mlir.register_lowering(primitive, functools.partial(_lower_cpu, role), platform="cpu")


for _role, _primitive in PRIMITIVES.items():
    _define(_role, _primitive)
