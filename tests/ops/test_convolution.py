"""Every formulation of a convolution against a brute-force sum, a float64 reference, and `jax.lax`
under every transformation.
"""

import itertools
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcnn.errors import ConfigError
from jaxcnn.layers.conv import Conv
from jaxcnn.ops import convolution, convolution_primitives
from jaxcnn.ops.cpu import banded, depthwise, groups
from jaxcnn.ops.geometry import ConvolutionGeometry

# input shape, window, features, strides, padding, dilation, groups
GEOMETRIES = {
    "plain": ((2, 6, 7, 3), (3, 2), 4, (1, 1), "VALID", (1, 1), 1),
    "strided same": ((2, 7, 6, 2), (3, 3), 3, (2, 2), "SAME", (1, 1), 1),
    "asymmetric": ((2, 5, 6, 3), (3, 3), 2, (2, 1), ((2, 1), (0, 3)), (1, 1), 1),
    "dilated": ((1, 8, 8, 2), (3, 3), 2, (1, 2), ((1, 2), (2, 1)), (2, 3), 1),
    "grouped": ((2, 5, 5, 4), (3, 3), 6, (1, 1), "SAME", (1, 1), 2),
    "grouped, twelve as one": ((2, 4, 3, 48), (3, 2), 48, (1, 2), "SAME", (1, 1), 24),
    "grouped, 1-D": ((2, 7, 6), (3,), 4, (2,), "SAME", (1,), 2),
    "depthwise": ((2, 5, 5, 3), (3, 3), 6, (2, 2), "SAME", (1, 1), 3),
    "tap by tap": ((2, 7, 6, 8), (3, 2), 8, (2, 1), ((2, 0), (1, 1)), (1, 2), 8),
    "tap by tap, 1-D": ((2, 9, 8), (4,), 8, (2,), "SAME", (1,), 8),
    "1x1": ((2, 3, 4, 3), (1, 1), 4, (1, 1), "SAME", (1, 1), 1),
    "strided 1x1": ((2, 6, 6, 3), (1, 1), 4, (2, 2), "VALID", (1, 1), 1),
    "strided 1x1 that leaves some": ((2, 6, 5, 3), (1, 1), 4, (4, 3), "VALID", (1, 1), 1),
    "padded 1x1": ((2, 4, 3, 3), (1, 1), 4, (2, 1), ((1, 0), (0, 2)), (1, 1), 1),
    "many images": ((16, 6, 5, 3), (3, 2), 4, (1, 1), ((2, 0), (1, 3)), (1, 1), 1),
    "strides that leave some": ((3, 10, 9, 2), (2, 3), 3, (3, 2), ((1, 0), (0, 1)), (1, 1), 1),
    "small map": ((2, 2, 2, 3), (3, 3), 4, (1, 1), "SAME", (1, 1), 1),
    "small map, strided": ((2, 3, 2, 2), (3, 3), 3, (2, 1), ((2, 1), (1, 3)), (1, 1), 1),
    "small map, dilated": ((1, 3, 2, 2), (2, 4), 3, (1, 2), ((1, 2), (5, 3)), (2, 2), 1),
    "small map, cut": ((1, 4, 1, 2), (3, 5), 3, (1, 1), ((-1, 2), (2, 2)), (1, 1), 1),
    "small map, 1-D": ((2, 2, 3), (4,), 2, (1,), "SAME", (1,), 1),
    "small map, 3-D": ((1, 2, 2, 2, 2), (3, 3, 3), 3, (1, 2, 1), "SAME", (1, 1, 1), 1),
    "1-D": ((2, 9, 3), (4,), 2, (2,), "SAME", (1,), 1),
    "3-D": ((1, 4, 5, 4, 2), (2, 3, 2), 3, (1, 2, 1), "SAME", (1, 1, 1), 1),
    "3-D, time": ((2, 8, 4, 3, 2), (3, 2, 2), 3, (2, 1, 2), ((2, 1), (0, 1), (1, 0)), (2, 1, 1), 1),
    "3-D, cut": ((1, 7, 3, 4, 4), (2, 1, 2), 4, (3, 1, 1), ((-1, 2), (0, 0), (0, 1)), (1,) * 3, 2),
}


@pytest.fixture(autouse=True)
def stored_inputs(monkeypatch):
    """The tests' few channels are treated as those of a real network: their inputs are stored for
    the kernel's gradient.
    """
    monkeypatch.setattr(convolution_primitives, "FEWEST_STORED_CHANNELS", 1)


def operands(name, dtype=np.float32, seed=0):
    shape, window, features, strides, padding, dilation, groups = GEOMETRIES[name]
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape).astype(dtype)
    w = random.standard_normal((*window, shape[-1] // groups, features)).astype(dtype)
    return x, w, (strides, padding, dilation, groups)


def convolve(x, w, strides, padding, dilation, groups, *, through=convolution.conv_general_dilated):
    letters = "012"[: x.ndim - 2]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    return through(
        x,
        w,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=numbers,
        feature_group_count=groups,
    )


def brute_force(x, w, strides, padding, dilation, groups):
    """The sum over window positions and channels, in float64, one output element at a time."""
    extents = [d * (k - 1) + 1 for k, d in zip(w.shape[:-2], dilation, strict=True)]
    pads = (
        lax.padtype_to_pads(x.shape[1:-1], extents, strides, padding)
        if isinstance(padding, str)
        else padding
    )
    kept = [
        slice(max(0, -low), n - max(0, -high))
        for n, (low, high) in zip(x.shape[1:], pads, strict=False)
    ]
    pads = [(max(0, low), max(0, high)) for low, high in pads]
    x = np.pad(x[(slice(None), *kept)].astype(np.float64), [(0, 0), *pads, (0, 0)])
    w = w.astype(np.float64)
    smaller = [(n - e) // s + 1 for n, e, s in zip(x.shape[1:-1], extents, strides, strict=True)]
    y = np.zeros((x.shape[0], *smaller, w.shape[-1]))
    inputs, outputs = w.shape[-2], w.shape[-1] // groups
    for place in itertools.product(*map(range, smaller)):
        for offset in itertools.product(*map(range, w.shape[:-2])):
            at = tuple(
                p * s + o * d for p, s, o, d in zip(place, strides, offset, dilation, strict=True)
            )
            for group in range(groups):
                into, out = (
                    slice(group * inputs, (group + 1) * inputs),
                    slice(group * outputs, (group + 1) * outputs),
                )
                y[(slice(None), *place, out)] += (
                    x[(slice(None), *at, into)] @ w[(*offset, slice(None), out)]
                )
    return y


@pytest.mark.parametrize("formulation", ["natural", "fast", "auto"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_value_and_gradients_equal_brute_force_in_float64(name, formulation):
    with jax.enable_x64(True), convolution.formulation(formulation):
        x, w, geometry = operands(name, np.float64)
        expected = brute_force(x, w, *geometry)
        cotangent = np.random.default_rng(1).standard_normal(expected.shape)

        @jax.jit
        def value_and_gradients(x, w, cotangent):
            y, pullback = jax.vjp(lambda x, w: convolve(x, w, *geometry), x, w)
            return y, *pullback(cotangent)

        y, dx, dw = value_and_gradients(x, w, cotangent)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
        # y is linear in each operand, so <cotangent, y(direction)> = <gradient, direction> for any
        # direction
        for seed in range(2):
            u, v, _ = operands(name, np.float64, seed=seed + 5)
            np.testing.assert_allclose(
                np.vdot(dx, u), np.vdot(cotangent, brute_force(u, w, *geometry)), rtol=1e-10
            )
            np.testing.assert_allclose(
                np.vdot(dw, v), np.vdot(cotangent, brute_force(x, v, *geometry)), rtol=1e-10
            )


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("pad", [(-1, 1), (-2, 2), (1, -1), (-4, 4)])
def test_what_is_removed_on_one_side_and_added_on_the_other_is_neither(pad, channels):
    """jax.lax on CPU reads beyond x of one column and four channels then."""
    random = np.random.default_rng(0)
    x = random.standard_normal((17, 3, 4 // channels, channels)).astype(np.float32)
    w = random.standard_normal((2, 1, channels, 2)).astype(np.float32)
    geometry = ((1, 1), (pad, (0, 0)), (1, 1), 1)
    at = np.arange(3 + sum(pad)) - pad[0]
    moved = np.where(((at >= 0) & (at < 3))[:, None, None], x[:, at.clip(0, 2)], 0)
    expected = brute_force(moved, w, (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    with convolution.formulation("fast"):
        y = jax.jit(lambda x, w: convolve(x, w, *geometry))(x, w)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("role", "yx")
def test_a_map_smaller_than_the_window_stays_the_map(role):
    """XLA's own way makes a kernel of the map, which is many times slower."""
    geometry = ConvolutionGeometry((2, 2), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    shapes = {"x": (4, 2, 2, 8), "w": (3, 3, 8, 8), "y": (4, 2, 2, 8)}
    operands = [jnp.ones(shapes[name]) for name in convolution_primitives.OPERANDS[role]]

    def windows(way):
        compiled = jax.jit(lambda *operands: way(role, geometry, *operands)).lower(*operands)
        text = compiled.compile().as_text()
        return set(re.findall(r" convolution\(.*window={size=(\w+)", text))

    assert windows(convolution_primitives.natural) == {"2x2"}, "what this is about"
    assert windows(convolution_primitives.fast) == {"3x3"}


@pytest.mark.parametrize("role", "yxw")
def test_groups_are_not_left_to_xla(role):
    """Which takes the gradient of their kernel hundreds of times as long."""
    geometry = ConvolutionGeometry((6, 6), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 8)
    shapes = {"x": (2, 6, 6, 32), "w": (3, 3, 4, 32), "y": (2, 6, 6, 32)}
    operands = [jnp.ones(shapes[name]) for name in convolution_primitives.OPERANDS[role]]

    def most_groups(way):
        text = jax.jit(lambda *operands: way(role, geometry, *operands)).lower(*operands).as_text()
        return max(int(n) for n in re.findall(r"_group_count = (\d+)", text))

    assert most_groups(convolution_primitives.natural) == 8
    assert most_groups(convolution_primitives.fast) == 1


def test_three_dimensions_are_not_left_to_xla():
    """Which takes several times as long for clips as for pictures of several frames."""
    clip, kernel = jnp.ones((2, 4, 5, 5, 3)), jnp.ones((3, 3, 3, 3, 4))
    step = jax.grad(lambda x, w: convolve(x, w, (1,) * 3, "SAME", (1,) * 3, 1).sum(), (0, 1))

    def dimensions(formulation):
        with convolution.formulation(formulation):
            text = jax.jit(step).lower(clip, kernel).as_text()
        return set(re.findall(r"-> ?\[(.*?)\], window", text))

    assert all(found.count(",") == 3 for found in dimensions("fast"))
    assert all(found.count(",") == 4 for found in dimensions("natural"))


def test_groups_are_taken_together_up_to_the_width_and_to_few_parts():
    for count, inputs in itertools.product(range(2, 65), range(2, 40)):
        together = groups._together(count, count * inputs)
        assert count % together == 0
        assert count // together <= groups.MOST
        larger = together * inputs > groups.WIDTH and together > 1
        fewer = [n for n in range(1, together) if count % n == 0 and count // n <= groups.MOST]
        assert not (larger and fewer), "more zeros than parts ask for"


@pytest.mark.parametrize("role", convolution_primitives.OPERANDS)
@pytest.mark.parametrize(
    "geometry",
    [
        ConvolutionGeometry((5, 12), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        ConvolutionGeometry((6, 13), (2, 5), (2, 2), ((0, 1), (2, 2)), (1, 1), 1),
        ConvolutionGeometry((7, 11), (3, 2), (1, 3), ((0, 2), (-1, 3)), (2, 2), 1),
    ],
    ids=lambda g: str(g.spatial),
)
def test_blocks_of_columns_are_the_same_convolution(geometry, role):
    """Blocks of every width that divides the columns of y, one to all of them."""
    x, w = ((2, *geometry.spatial, 3), (*geometry.window, 3, 4))
    shapes = {"x": x, "w": w, "y": geometry.result_shape("y", x, w)}
    total = geometry.output_spatial()[1]
    with jax.enable_x64(True):
        a, b = (
            np.random.default_rng(seed).standard_normal(shapes[name])
            for seed, name in enumerate(convolution_primitives.OPERANDS[role])
        )
        expected = convolution_primitives.natural(role, geometry, jnp.asarray(a), jnp.asarray(b))
        for width in (width for width in range(1, total + 1) if total % width == 0):
            blocks = banded.of_width(geometry, width)
            to, of = (
                getattr(blocks, f"to_{role}"),
                [getattr(blocks, f"of_{name}") for name in convolution_primitives.OPERANDS[role]],
            )

            @jax.jit
            def in_blocks(a, b, blocks=blocks, to=to, of=of):
                result = convolution_primitives.natural(role, blocks.rows(), of[0](a), of[1](b))
                return to(result, 3) if role == "w" else to(result)

            actual = in_blocks(a, b)
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_the_sum_over_blocks_does_not_grow_with_their_number():
    """The gradient of x adds up what each block saw of a column: as many as see it, five here."""

    def terms(side):
        geometry = ConvolutionGeometry((side, side), (5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1), 1)
        blocks = banded.of_width(geometry, 1)
        seen = jnp.ones((1, side, blocks.count, blocks.columns * 3))
        return str(jax.make_jaxpr(blocks.to_x)(seen)).count("add_any")

    assert terms(8) == terms(32) <= 5


def test_blocks_are_for_few_channels():
    """Shapes on which they were slower when measured (docs/performance.md)."""

    def chosen(role, side, window, inputs, outputs):
        geometry = ConvolutionGeometry(
            (side, side), (window, window), (1, 1), ((window // 2,) * 2,) * 2, (1, 1), 1
        )
        return banded.blocks(role, geometry, inputs, outputs) is not None

    assert all(chosen("y", *shape) for shape in [(28, 5, 1, 6), (28, 7, 1, 64), (32, 3, 3, 64)])
    assert not any(
        chosen(role, *shape)
        for shape in [(14, 3, 16, 16), (32, 3, 64, 64), (14, 1, 256, 256)]
        for role in "xyw"
    )


@pytest.mark.parametrize("role", "xyw")
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_tap_by_tap_is_the_same_convolution(rank, stride, role):
    """Windows, dilations and paddings (more than the window needs, and negative), of as many
    strides as leave places over; images that are added in one, two and six at a time, and none.
    """
    with jax.enable_x64(True):
        for window, dilation, pads, (images, undivided) in itertools.product(
            [(1, 2, 2), (3, 2, 1)],
            [(1, 1, 1), (2, 1, 2)],
            [((0, 0),) * 3, ((4, -1), (2, 0), (-1, 3))],
            [(2, True), (11, True), (2, False)] if role == "w" else [(2, True)],
        ):
            sides = (
                (9, 8, 7)[:rank],
                window[:rank],
                (stride,) * rank,
                pads[:rank],
                dilation[:rank],
            )
            geometry = ConvolutionGeometry(*sides, 8)
            x, w = ((images, *geometry.spatial, 8), (*geometry.window, 1, 8))
            shapes = {"x": x, "w": w, "y": geometry.result_shape("y", x, w)}
            assert depthwise.suits(geometry, w, np.float64)
            a, b = (
                np.random.default_rng(seed).standard_normal(shapes[name])
                for seed, name in enumerate(convolution_primitives.OPERANDS[role])
            )

            @jax.jit
            def both(a, b, geometry=geometry, undivided=undivided):
                taps = depthwise.convolve(role, geometry, a, b, undivided=undivided)
                return taps, convolution_primitives.natural(role, geometry, a, b)

            np.testing.assert_allclose(*both(a, b), rtol=1e-12, atol=1e-12)


def smooth(x, w, geometry, **options):
    return jnp.sum(jnp.sin(convolve(jnp.tanh(x), w, *geometry, **options)))


TRANSFORMATIONS = {
    "value": lambda f: f,
    "grad": lambda f: jax.grad(f, (0, 1)),
    "grad of jit": lambda f: jax.grad(jax.jit(f), (0, 1)),
    "jvp": lambda f: lambda x, w: jax.jvp(f, (x, w), (jnp.cos(x), jnp.cos(w))),
    "remat": lambda f: jax.jit(jax.grad(jax.checkpoint(f), (0, 1))),
    "hessian-vector": lambda f: (
        lambda x, w: jax.jvp(jax.grad(f, (0, 1)), (x, w), (jnp.cos(x), jnp.sin(w)))
    ),
    "grad of grad": lambda f: jax.grad(
        lambda x, w: sum(jnp.sum(jnp.sin(g)) for g in jax.grad(f, (0, 1))(x, w)), (0, 1)
    ),
    "forward hessian": lambda f: (
        lambda x, w: jax.jvp(
            lambda x: jax.jvp(lambda x: f(x, w), (x,), (jnp.cos(x),))[1], (x,), (jnp.sin(x),)
        )
    ),
    "scan": lambda f: (
        lambda x, w: lax.scan(
            lambda w, _: (w - 0.01 * jax.grad(f, 1)(x, w), f(x, w)), w, None, length=2
        )
    ),
}


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("name", ["asymmetric", "grouped", "many images"])
def test_transformations_equal_jax_lax_in_float64(name, transformation):
    transform = TRANSFORMATIONS[transformation]
    with jax.enable_x64(True):
        x, w, geometry = operands(name, np.float64)
        x, w = jnp.asarray(x), jnp.asarray(w)
        usual = transform(lambda x, w: smooth(x, w, geometry, through=lax.conv_general_dilated))
        expected = jax.jit(usual)(x, w)
        with convolution.formulation("fast"):
            actual = jax.jit(transform(lambda x, w: smooth(x, w, geometry)))(x, w)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), actual, expected
        )


@pytest.mark.parametrize(
    "order", ["vmap of grad", "grad of vmap", "vmap of vmap", "vmap of jvp", "grad of vmap of vmap"]
)
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (2, -1)], ids=str)
def test_vmap_equals_jax_lax_in_float64(axes, order):
    def apply(f, x, w):
        mapped = jax.vmap(f, axes)
        if order == "vmap of grad":
            return jax.vmap(jax.grad(f, (0, 1)), axes)(x, w)
        if order == "grad of vmap":
            return jax.grad(lambda x, w: jnp.sum(jnp.cos(mapped(x, w))), (0, 1))(x, w)
        if order == "vmap of jvp":
            return jax.vmap(lambda x, w: jax.jvp(f, (x, w), (jnp.cos(x), jnp.sin(w))), axes)(x, w)
        twice = jax.vmap(mapped, (0, None))
        xs = jnp.stack([x, jnp.cos(x)])
        if order == "vmap of vmap":
            return twice(xs, w)
        return jax.grad(lambda x, w: jnp.sum(jnp.cos(twice(x, w))), (0, 1))(xs, w)

    with jax.enable_x64(True):
        x, w, geometry = operands("asymmetric", np.float64)
        x, w = (
            jnp.asarray(a) if axis is None else jnp.stack([a * (1 + k) for k in range(3)], axis)
            for a, axis in zip((x, w), axes, strict=True)
        )
        apply = jax.jit(apply, static_argnums=0)
        expected = apply(
            lambda x, w: smooth(x, w, geometry, through=lax.conv_general_dilated), x, w
        )
        with convolution.formulation("fast"):
            actual = apply(lambda x, w: smooth(x, w, geometry), x, w)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), actual, expected
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_numbers_reach_the_gradient(value):
    """The stored copy of the input must stay a copy when the number that it is hidden behind is not
    finite.
    """
    x, w, geometry = operands("plain")
    with convolution.formulation("fast"):
        assert (
            "stablehlo.case"
            in jax.jit(jax.grad(lambda w: smooth(jnp.asarray(x), w, geometry))).lower(w).as_text()
        )
        _, pullback = jax.vjp(lambda w: convolve(jnp.asarray(x), w, *geometry), jnp.asarray(w))
        cotangent = jnp.ones((2, 4, 6, 4)).at[0, 0, 0, 0].set(value)
        (dw,) = jax.jit(pullback)(cotangent)
    assert not np.isfinite(dw[..., 0]).any()
    np.testing.assert_allclose(
        dw[..., 1:].sum((0, 1)), np.stack([_window_sums(x)] * 3, -1), rtol=1e-4, atol=1e-4
    )


def _window_sums(x):
    return sum(x[:, i : i + 4, j : j + 6].sum((0, 1, 2)) for i in range(3) for j in range(2))


@pytest.mark.parametrize("name", ["plain", "strided same", "1-D", "3-D"])
def test_padded_channels_change_nothing(name):
    """What an image's few channels become on a GPU in bfloat16; computed here, in float64."""
    with jax.enable_x64(True):
        x, w, geometry = operands(name, np.float64)
        padded = convolution.pad_channels(jnp.asarray(x), jnp.asarray(w))
        assert padded[0].shape[-1] == padded[1].shape[-2] == convolution.STEM_CHANNELS > x.shape[-1]
        np.testing.assert_allclose(
            convolve(*padded, *geometry), brute_force(x, w, *geometry), rtol=1e-12, atol=1e-12
        )


def test_bfloat16_keeps_its_dtype_and_mixed_dtypes_go_to_jax():
    x, w, geometry = operands("plain")
    with convolution.formulation("fast"):
        y = convolve(jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16), *geometry)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            np.asarray(y, np.float32), brute_force(x, w, *geometry), rtol=0.05, atol=0.15
        )
        with pytest.raises(TypeError, match="dtype"):
            convolve(jnp.asarray(x, jnp.bfloat16), jnp.asarray(w), *geometry)


@pytest.mark.parametrize("change", [{"groups": 2}, {"window": (9, 2)}], ids=str)
def test_impossible_geometry_is_reported_as_by_jax(change):
    x, w, (strides, padding, dilation, _) = operands("plain")
    w = np.zeros((*change.get("window", (3, 2)), 3, 4), np.float32)
    arguments = (
        jnp.asarray(x),
        jnp.asarray(w),
        strides,
        padding,
        dilation,
        change.get("groups", 1),
    )

    def outcome(**options):
        try:
            return convolve(*arguments, **options).shape
        except (TypeError, ValueError) as error:
            return str(error)

    with convolution.formulation("fast"):
        assert outcome() == outcome(through=lax.conv_general_dilated)


def test_a_change_of_formulation_retraces():
    x, w, geometry = operands("plain")
    step = jax.jit(lambda x, w: convolve(x, w, *geometry))
    texts = []
    for name in ("natural", "fast", "natural"):
        with convolution.formulation(name):
            step(x, w)
            texts.append("convolution_y" in str(step.trace(x, w).jaxpr))
    assert texts == [False, True, False]


def test_unknown_formulation_names_the_nearest(monkeypatch):
    with (
        pytest.raises(ConfigError, match="did you mean 'natural'"),
        convolution.formulation("naturel"),
    ):
        pass
    monkeypatch.setenv(convolution.VARIABLE, "fastt")
    with pytest.raises(ConfigError, match=r"JAXCNN_CONVOLUTION is 'fastt'.*did you mean 'fast'"):
        convolution.current_formulation()


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR", 1])
def test_layer_equals_flax(padding):
    from flax import linen as nn

    x = np.random.default_rng(0).standard_normal((2, 8, 8, 4)).astype(np.float32)
    options = {
        "features": 6,
        "kernel_size": (3, 3),
        "strides": 2,
        "padding": padding,
        "feature_group_count": 2,
    }
    theirs, ours = nn.Conv(**options), Conv(**options)
    variables = theirs.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, variables
    )
    np.testing.assert_allclose(
        ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        ours.apply(variables, x[0]), theirs.apply(variables, x[0]), rtol=1e-5, atol=1e-5
    )


SHARDED = """
import json, jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxcnn.ops import convolution, pooling
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
random = np.random.default_rng(0)
x = random.standard_normal((4, 8, 8, 3)).astype(np.float32)
w = random.standard_normal((3, 3, 3, 8)).astype(np.float32)
v = random.standard_normal((3, 3, 8, 8)).astype(np.float32)
xs = jax.device_put(x, NamedSharding(mesh, P("data")))
ws, vs = (jax.device_put(a, NamedSharding(mesh, P())) for a in (w, v))

def loss(x, w, v):
    axes = ("NHWC", "HWIO", "NHWC")
    convolve = lambda x, w: convolution.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=axes
    )
    return jnp.sum(jnp.sin(convolve(jnp.tanh(pooling.max_pool(convolve(x, w), (2, 2))), v)))

def mapped(x, w, v):
    local = lambda x, w, v: lax.psum(loss(x, w, v), "data")
    return jax.shard_map(local, mesh=mesh, in_specs=(P("data"), P(), P()), out_specs=P())(x, w, v)

def deviation(actual, expected):
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected))
    return max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in pairs)

gradient = lambda f: jax.jit(jax.value_and_grad(f, (0, 1, 2)))
with convolution.formulation("natural"):
    expected = gradient(loss)(x, w, v)
results = {}
with convolution.formulation(FORMULATION):
    assert convolution.current_formulation() == FORMULATION
    for name, f in {"jit": loss, "shard_map": mapped}.items():
        compiled = gradient(f).lower(xs, ws, vs).compile()
        actual = compiled(xs, ws, vs)
        text = compiled.as_text()
        results[name] = {
            "error": deviation(actual, expected),
            "gathers": text.count("all-gather("),
            "custom_calls": text.count("jaxcnn_onednn"),
        }
    descend = lambda x: lambda w, _: (w - 0.1 * jax.grad(loss, 1)(x, w, v), None)
    in_scan = jax.jit(lambda x, w: lax.scan(descend(x), w, None, length=2)[0])
    results["scan"] = {"finite": bool(jnp.isfinite(in_scan(xs, ws)).all())}
print(json.dumps(results))
"""


def run_sharded(formulation):
    """The program above, in a process with two simulated devices. XLA's thread pool must hold both
    devices' work, hence NPROC.
    """
    environment = dict(
        os.environ,
        NPROC="16",
        JAX_PLATFORMS="cpu",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    text = SHARDED.replace("FORMULATION", repr(formulation))
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_sharded_data_stay_sharded():
    results = run_sharded("fast")
    for way in ("jit", "shard_map"):
        assert results[way]["error"] < 1e-5
        assert results[way]["gathers"] == 0
    assert results["scan"]["finite"]
