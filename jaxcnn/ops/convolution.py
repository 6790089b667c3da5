"""The one seam through which every convolution of every model goes, so that a faster formulation
serves all of them.

Layout: inputs x [B, *spatial, C] (channels last), kernels w [*window, C / groups, features],
outputs y [B, *smaller, features]; any float.

Formulations, chosen by `formulation` or the environment variable JAXCNN_CONVOLUTION (read whenever
a function is traced; `formulation` is part of `jax.jit`'s cache key, so that a change retraces):

- `"natural"`: what `jax.lax` and Flax do.
- `"fast"`: pure JAX. On CPU the gradient of the kernel reads a stored copy of its input, where XLA
  would recompute the layers that led to it inside a transposition, and transposes it in two steps
  (`jaxcnn.ops.cpu.kernel_gradient`); large kernels are turned around before they are transposed
  (`jaxcnn.ops.cpu.turned`); where channels are few, several columns are taken at a time
  (`jaxcnn.ops.cpu.banded`); with one filter a channel, tap by tap (`jaxcnn.ops.cpu.depthwise`);
  in three dimensions, as pictures whose channels are those of several frames
  (`jaxcnn.ops.cpu.frames`); max-pooling remembers which element won; BatchNorm is a x + b. On other
  platforms convolutions are XLA's own.
- `"onednn"`: on CPU, float32: the oneDNN library (`jaxcnn.ops.cpu.onednn`),
  for most 3x3 convolutions of stride 1 by way of Winograd's algorithm, which needs up to 2.25 times
  fewer multiplications; everything else as `"fast"`.
- `"auto"` (default): on CPU `"onednn"` where `jaxcnn[onednn]` is installed and works, else
  `"fast"`; elsewhere `"natural"`.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from jaxcnn.errors import ConfigError, did_you_mean
from jaxcnn.ops.convolution_primitives import bind
from jaxcnn.ops.cpu import frames
from jaxcnn.ops.geometry import ConvolutionGeometry

FORMULATIONS = ("natural", "fast", "onednn", "auto")
VARIABLE = "JAXCNN_CONVOLUTION"

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


def conv_general_dilated(
    lhs: Shaped[Array | np.ndarray, "..."],
    rhs: Shaped[Array | np.ndarray, "..."],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options,
) -> Shaped[Array, "..."]:
    """`jax.lax.conv_general_dilated`, to be handed to `flax.linen.Conv(conv_general_dilated=…)`;
    same arguments, same result.

    lhs [B, *spatial, C], rhs [*window, C / groups, features] -> [B, *smaller, features], channels
    last as Flax asks; anything else (another layout, a dilated input, mixed dtypes) is handed to
    `jax.lax` as it is.
    """
    lhs, rhs = jax.numpy.asarray(lhs), jax.numpy.asarray(rhs)
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
    geometry, lhs = _cropped(geometry, lhs)
    if frames.suits(geometry) and jax.default_backend() == "cpu":
        return frames.convolve(geometry, lhs, rhs, functools.partial(_bound, chosen))
    return _bound(chosen, geometry, lhs, rhs)


def _cropped(geometry: ConvolutionGeometry, x) -> tuple[ConvolutionGeometry, jax.Array]:
    """The same convolution without negative padding, of an x whose axes with such are padded by
    hand. XLA 0.10's CPU backend takes a padding of (-1, 1) for none, and reads beyond x.
    """
    negative = [min(pair) < 0 for pair in geometry.padding]
    if not any(negative):
        return geometry, x
    pairs = list(zip(geometry.padding, negative, strict=True))
    edges = [(*pair, 0) if by_hand else (0, 0, 0) for pair, by_hand in pairs]
    x = lax.pad(x, jax.numpy.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    padding = tuple((0, 0) if by_hand else pair for pair, by_hand in pairs)
    return dataclasses.replace(geometry, spatial=x.shape[1:-1], padding=padding), x


def _bound(chosen: str, geometry: ConvolutionGeometry, x, w):
    """The convolution as a primitive; what oneDNN does not support is computed "fast"."""
    if chosen == "onednn":
        from jaxcnn.ops.cpu import onednn

        chosen = "onednn" if onednn.supports(geometry, x, w) else "fast"
    return bind("y", x, w, geometry=geometry, formulation=chosen)


def pad_channels(
    x: Float[Array, "B *spatial C"], w: Float[Array, "*window C F"]
) -> tuple[Float[Array, "B *spatial c"], Float[Array, "*window c F"]]:
    """An image x [B, *spatial, C] and its kernel w [*window, C, F] with zeros up to STEM_CHANNELS
    channels, for the same convolution.

    cuDNN's kernels for tensor cores want at least so many, and XLA pads for them in float16 only,
    not in bfloat16.
    """
    last = [(0, 0)] * (x.ndim - 1) + [(0, STEM_CHANNELS - x.shape[-1])]
    return jax.numpy.pad(x, last), jax.numpy.pad(w, [*last[1:], (0, 0)])


def _geometry(x, w, strides, padding, options) -> ConvolutionGeometry | None:
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
    geometry = ConvolutionGeometry(
        x.shape[1:-1], window, tuple(strides), pairs, dilation, groups, options.get("precision")
    )
    wrong = (
        x.shape[-1] != w.shape[-2] * groups
        or w.shape[-1] % groups
        or min(geometry.output_spatial()) < 1
    )
    return None if wrong else geometry  # jax.lax raises its own, clear error
