"""The three bilinear maps of a convolution as JAX primitives, and the formulations that compute
them.

A convolution is bilinear, and so are its two gradients: y(x, w), x(y, w) and w(x, y) are linear in
both arguments, and each other's transposes. They are three JAX primitives here, which gives
derivatives of every order, forward and reverse, in every formulation.

Layout: x [B, *spatial, C], w [*window, C / groups, features], y [B, *smaller, features]; where
replicas are mapped (`jax.vmap`), an operand may have a leading replica axis.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad

from jaxcnn.ops.cpu import banded, depthwise, groups, kernel_gradient, small_maps, turned
from jaxcnn.ops.cpu.stored import stored
from jaxcnn.ops.geometry import ConvolutionGeometry
from jaxcnn.ops.primitive import mapped_size, primitive, vary_alike

# An input of fewer channels is an image, or cheap to recompute: LeNet-5 is 2 % slower where its
# inputs are stored.
FEWEST_STORED_CHANNELS = 8

# the operands of each, which is named by its result
OPERANDS = {"y": ("x", "w"), "x": ("y", "w"), "w": ("x", "y")}


def bind(role: str, a, b, *, geometry: ConvolutionGeometry, formulation: str):
    """y(x, w), x(y, w) or w(x, y), by `role`, computed on CPU as `formulation` says ("fast" or
    "onednn"), elsewhere by XLA.
    """
    return PRIMITIVES[role].bind(*vary_alike(a, b), geometry=geometry, formulation=formulation)


def natural(role: str, geometry: ConvolutionGeometry, a, b):
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
    wanted = jnp.broadcast_to(a[(0,) * a.ndim], geometry.result_shape(role, a.shape, b.shape))
    if role == "x":
        return jax.linear_transpose(lambda x: convolve(x, b), wanted)(a)[0]
    return jax.linear_transpose(lambda w: convolve(a, w), wanted)(b)[0]


def fast(role: str, geometry: ConvolutionGeometry, a, b, *, undivided: bool = True):
    """y(x, w), x(y, w) or w(x, y), by `role`, in the way that takes XLA's CPU backend the least
    time. undivided: whether all images lie on one device.
    """
    if a.ndim > geometry.rank or b.ndim > geometry.rank:
        return natural(role, geometry, a, b)
    w_shape = geometry.result_shape("w", a.shape, b.shape) if role == "w" else b.shape
    if depthwise.suits(geometry, w_shape, a.dtype):
        return depthwise.convolve(role, geometry, a, b, undivided=undivided)
    if role == "w" and a.shape[-1] >= FEWEST_STORED_CHANNELS:
        # what several 1x1 kernels read (the branches of an Inception block) is so transposed once
        a = stored(a, a if max(geometry.window) == 1 else b)
    if groups.suits(role, geometry, w_shape):
        return groups.convolve(role, geometry, a, b, _ungrouped)
    return _ungrouped(role, geometry, a, b)


def _ungrouped(role: str, geometry: ConvolutionGeometry, a, b):
    """`fast`, of what neither has groups to be joined nor one filter a channel."""
    if small_maps.suits(role, geometry):
        if role == "w":  # whose window is the map of y: XLA's own way is the faster one
            return natural(role, geometry, a, b)
        return small_maps.convolve(role, geometry, a, b)
    w_shape = geometry.result_shape("w", a.shape, b.shape) if role == "w" else b.shape
    inputs, outputs = w_shape[-2:]
    blocks = banded.blocks(role, geometry, inputs, outputs)
    if blocks and role == "y":
        return blocks.to_y(natural("y", blocks.rows(), blocks.of_x(a), blocks.of_w(b)))
    if blocks and role == "x":
        return blocks.to_x(_of_x(blocks.rows(), blocks.of_y(a), blocks.of_w(b)))
    if role == "x":
        return _of_x(geometry, a, b)
    if blocks:
        geometry, a, b = blocks.rows(), blocks.of_x(a), blocks.of_y(b)
    two_steps = role == "w" and kernel_gradient.suits(geometry, a.shape[0])
    result = (
        kernel_gradient.kernel_gradient(geometry, a, b)
        if two_steps
        else natural(role, geometry, a, b)
    )
    return blocks.to_w(result, inputs) if blocks else result


def _of_x(geometry: ConvolutionGeometry, y, w):
    """x(y, w) of one group, without blocks."""
    if turned.suits(geometry, w.shape):
        return turned.convolve(geometry, y, w)
    return natural("x", geometry, y, w)


def _on_cpu(role, undivided, a, b, *, geometry, formulation):
    """Where XLA is to divide the program over devices, its own convolution is used, not oneDNN."""
    if formulation == "onednn" and undivided:
        from jaxcnn.ops.cpu import onednn

        return onednn.convolve(role, geometry, a, b)
    return fast(role, geometry, a, b, undivided=undivided)


def _elsewhere(role, a, b, *, geometry, formulation):
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
    result = bind(wanted, *(known[name] for name in OPERANDS[wanted]), **parameters)
    return result.sum(0) if result.ndim > aval.ndim else result


def _batch(role, operands, axes, *, geometry, formulation):
    """Operands get a leading replica axis [K, …]; replicas that share a kernel are simply more
    images. -> result, 0.
    """
    apply = functools.partial(bind, role, geometry=geometry, formulation=formulation)
    size = mapped_size(operands, axes)
    operands = [
        x if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    inner = [
        x.ndim - (axis is not None) > geometry.rank for x, axis in zip(operands, axes, strict=True)
    ]
    if any(inner):  # replicas of replicas: one axis of the product
        count = next(
            x.shape[-geometry.rank - 1] for x, nested in zip(operands, inner, strict=True) if nested
        )
        result = apply(
            *(
                _product_axis(x, axis is not None, nested, size, count)
                for x, axis, nested in zip(operands, axes, inner, strict=True)
            )
        )
        return result.reshape(size, count, *result.shape[1:]), 0
    if role != "w" and axes[1] is None:
        images = operands[0]
        result = apply(images.reshape(size * images.shape[1], *images.shape[2:]), operands[1])
        return result.reshape(size, -1, *result.shape[1:]), 0
    return apply(*operands), 0


def _product_axis(x, mapped: bool, nested: bool, size: int, count: int):
    """[size, count, …], [size, …] or [count, …] -> [size · count, …]; an operand with neither axis
    stays as it is.
    """
    if not mapped and not nested:
        return x
    shape = x.shape[mapped + nested :]
    x = x.reshape(size if mapped else 1, count if nested else 1, *shape)
    return jnp.broadcast_to(x, (size, count, *shape)).reshape(size * count, *shape)


def _define(role: str):
    """The primitive whose result is `role`."""
    made = primitive(
        f"convolution_{role}",
        abstract=functools.partial(_abstract, role),
        batch=functools.partial(_batch, role),
        on_cpu=functools.partial(_on_cpu, role),
        elsewhere=functools.partial(_elsewhere, role),
    )
    transposes = (functools.partial(_transpose, role, side) for side in (0, 1))
    ad.defbilinear(made, *transposes)
    return made


PRIMITIVES = {role: _define(role) for role in OPERANDS}
