"""Kernels and their gradients as XLA's CPU backend takes them fastest, against its own way."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.ops import convolution_primitives
from jaxcnn.ops.cpu import banded, turned
from jaxcnn.ops.geometry import ConvolutionGeometry


def square(side, window, *, stride=1):
    pads = ((window // 2,) * 2,) * 2
    return ConvolutionGeometry((side,) * 2, (window,) * 2, (stride,) * 2, pads, (1, 1), 1)


@pytest.mark.parametrize("rank, stride", [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2)])
def test_a_kernel_turned_around_first_gives_the_same_gradient(rank, stride):
    """Windows, dilations and paddings (more than the window needs, and negative) of as many strides
    as leave places over.
    """
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        for window, dilation, pads in itertools.product(
            (2, 3), (1, 2), ((0, 0), (1, 2), (4, 0), (-1, 1))
        ):
            spatial = tuple(range(7, 7 + rank))
            geometry = ConvolutionGeometry(
                spatial, (window,) * rank, (stride,) * rank, (pads,) * rank, (dilation,) * rank, 1
            )
            y = jnp.asarray(random.standard_normal((2, *geometry.output_spatial(), 4)))
            w = jnp.asarray(random.standard_normal((*geometry.window, 3, 4)))
            expected = convolution_primitives.natural("x", geometry, y, w)
            actual = turned.convolve(geometry, y, w)
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels, apart", [(172, True), (170, False)])
def test_only_large_kernels_are_turned_around_apart(channels, apart):
    geometry, y = square(4, 3), jnp.ones((1, 4, 4, channels))
    step = jax.jit(lambda y, w: convolution_primitives.fast("x", geometry, y, w))
    text = step.lower(y, jnp.ones((3, 3, channels, channels))).compile().as_text()
    assert (" conditional(" in text) == apart


def test_kernels_of_points_are_not_turned_around():
    assert not turned.suits(square(4, 1), (1, 1, 1024, 1024))
    assert turned.suits(square(4, 3), (3, 3, 1024, 1024))


def test_blocks_of_columns_are_not_for_many_channels_under_strides():
    """Shapes on which they took less and more time than XLA's own way (docs/LOG.md)."""

    def chosen(side, window, inputs, outputs):
        return bool(banded.blocks("x", square(side, window, stride=2), inputs, outputs))

    assert chosen(28, 5, 6, 16)
    assert chosen(14, 5, 16, 32)
    assert not any(
        chosen(side, 3, *channels)
        for side, channels in [(32, (64, 128)), (16, (128, 256)), (8, (256, 512)), (7, (768, 512))]
    )


def test_what_several_kernels_of_points_read_is_transposed_once():
    geometry, x = square(14, 1), jnp.ones((4, 14, 14, 32))

    def gradients(x, *cotangents):
        x = jax.nn.relu(2 * x + 1)
        return [convolution_primitives.fast("w", geometry, x, y) for y in cotangents]

    branches = [jnp.ones((4, 14, 14, n)) for n in (48, 64, 16)]
    text = jax.jit(gradients).lower(x, *branches).compile().as_text()
    entry = text[text.index("ENTRY ") :]
    assert len(re.findall(r" = f32\[32,784\]", entry)) == 1
