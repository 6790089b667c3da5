"""Max-pooling and its gradient against XLA's select_and_scatter and against brute force, with many
ties.
"""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.ops import convolution, pooling
from tests.rounding import computed_anew, normalized

# input shape, window, strides, padding
POOLS = {
    "tiles": ((2, 6, 8, 3), (2, 2), (2, 2), "VALID"),
    "tiles with a remainder": ((2, 7, 5, 3), (2, 2), (2, 2), "VALID"),
    "tiles, padded": ((2, 7, 5, 3), (2, 2), (2, 2), "SAME"),
    "overlapping": ((2, 9, 9, 2), (3, 3), (2, 2), "VALID"),
    "overlapping, padded": ((2, 8, 7, 2), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "dense": ((1, 5, 6, 2), (3, 3), (1, 1), "SAME"),
    "gaps": ((1, 9, 9, 2), (2, 2), (3, 4), "VALID"),
    "oblong": ((2, 8, 9, 2), (1, 3), (1, 3), "VALID"),
    "1-D": ((2, 9, 3), (3,), (2,), "SAME"),
    "3-D": ((1, 4, 6, 4, 2), (2, 2, 2), (2, 2, 2), "VALID"),
    "large window": ((1, 7, 7, 2), (7, 7), (7, 7), "VALID"),
}


def tied(shape, dtype=np.float32, seed=0):
    """Few distinct values, half of them zero as after a ReLU."""
    return np.maximum(np.random.default_rng(seed).integers(-2, 3, shape), 0).astype(dtype)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize(
    "make", [tied, lambda shape: -1e30 * tied(shape)], ids=["ties", "huge negative"]
)
def test_gradient_equals_select_and_scatter_exactly(name, make):
    shape, window, strides, padding = POOLS[name]
    x = make(shape)
    pooled = jax.eval_shape(lambda x: nn.max_pool(x, window, strides, padding), x)
    # sums of integers are exact
    cotangent = np.random.default_rng(1).integers(-8, 9, pooled.shape).astype(np.float32)

    def value_and_gradient(pool):
        def both(x, cotangent):
            y, pullback = jax.vjp(pool, x)
            return y, *pullback(cotangent)

        return jax.jit(both)(x, cotangent)

    expected = value_and_gradient(lambda x: nn.max_pool(x, window, strides, padding))
    with convolution.formulation("fast"):
        actual = value_and_gradient(
            lambda x: pooling.max_pool(x, window, strides=strides, padding=padding)
        )
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["tiles with a remainder", "tiles, padded", "overlapping, padded"])
def test_gradient_goes_to_the_first_largest_element(name):
    shape, window, strides, padding = POOLS[name]
    x = tied(shape)
    with convolution.formulation("fast"):
        y, pullback = jax.vjp(
            lambda x: pooling.max_pool(x, window, strides=strides, padding=padding), jnp.asarray(x)
        )
    pads = (
        jax.lax.padtype_to_pads(shape[1:3], window, strides, padding)
        if isinstance(padding, str)
        else padding
    )
    cotangent = np.random.default_rng(1).integers(-8, 9, y.shape).astype(np.float32)
    expected = np.zeros_like(x)
    for b, i, j, c in np.ndindex(*y.shape):
        places = itertools.product(
            range(i * strides[0], i * strides[0] + window[0]),
            range(j * strides[1], j * strides[1] + window[1]),
        )
        inside = [(r - pads[0][0], s - pads[1][0]) for r, s in places]
        inside = [(r, s) for r, s in inside if 0 <= r < shape[1] and 0 <= s < shape[2]]
        # max returns the first of equals
        r, s = max(inside, key=lambda place: x[b, place[0], place[1], c])
        assert y[b, i, j, c] == x[b, r, s, c]
        expected[b, r, s, c] += cotangent[b, i, j, c]
    np.testing.assert_array_equal(pullback(jnp.asarray(cotangent))[0], expected)


TRANSFORMATIONS = {
    "grad of jit": lambda f: jax.grad(jax.jit(f)),
    "vmap grad": lambda f: lambda x: jax.vmap(jax.grad(f))(jnp.stack([x, -x, 2 * x])),
    "grad of vmap": lambda f: (
        lambda x: jax.grad(lambda x: jax.vmap(f, 1)(jnp.stack([x, -x], 1)).sum())(x)
    ),
    "remat": lambda f: jax.grad(jax.checkpoint(f)),
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (jnp.cos(x),)),
    "hessian-vector": lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (jnp.cos(x),)),
    "grad of grad": lambda f: jax.grad(lambda x: jnp.sum(jnp.sin(jax.grad(f)(x)))),
    "scan": lambda f: (
        lambda x: jax.lax.scan(lambda x, _: (x - 0.1 * jax.grad(f)(x), f(x)), x, None, length=2)
    ),
}


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("name", ["tiles, padded", "overlapping, padded", "1-D"])
def test_transformations_equal_flax_in_float64(name, transformation):
    shape, window, strides, padding = POOLS[name]
    transform = TRANSFORMATIONS[transformation]
    with jax.enable_x64(True), convolution.formulation("fast"):
        x = jnp.asarray(np.random.default_rng(2).standard_normal(shape))
        usual = transform(lambda x: jnp.sum(jnp.sin(nn.max_pool(x, window, strides, padding))))
        ours = transform(
            lambda x: jnp.sum(
                jnp.sin(pooling.max_pool(x, window, strides=strides, padding=padding))
            )
        )
        expected, actual = jax.jit(usual)(x), jax.jit(ours)(x)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), actual, expected
        )


@pytest.mark.parametrize("name", ["tiles", "overlapping, padded"])
def test_max_pool_and_its_gradient_equal_torch(name):
    torch = pytest.importorskip("torch")
    shape, window, strides, padding = POOLS[name]
    x, pads = tied(shape), 0 if padding == "VALID" else 1
    theirs = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
    y = torch.nn.functional.max_pool2d(theirs, window, strides, pads)
    y.square().sum().backward()
    with convolution.formulation("fast"):
        ours, gradient = jax.value_and_grad(
            lambda x: jnp.sum(pooling.max_pool(x, window, strides=strides, padding=padding) ** 2)
        )(jnp.asarray(x))
    assert float(ours) == float(y.detach().square().sum())
    np.testing.assert_array_equal(gradient, np.moveaxis(theirs.grad.numpy(), 1, -1))


def test_bfloat16_integers_single_images_and_default_strides():
    x = tied((2, 6, 6, 3))
    with convolution.formulation("fast"):
        expected = nn.max_pool(x, (2, 2), (2, 2))
        half, gradient = jax.vjp(
            lambda x: pooling.max_pool(x, (2, 2)), jnp.asarray(x, jnp.bfloat16)
        )
        assert half.dtype == gradient(half)[0].dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(half, np.float32), expected)
        np.testing.assert_array_equal(pooling.max_pool(x[0], (2, 2)), expected[0])
        np.testing.assert_array_equal(
            pooling.max_pool(jnp.asarray(x, jnp.int32), (2, 2)), expected.astype(np.int32)
        )


def test_average_pool_counts_padding_only_if_asked():
    x = jnp.ones((1, 4, 4, 1))
    options = {"window": (3, 3), "strides": (1, 1), "padding": "SAME"}
    np.testing.assert_allclose(pooling.avg_pool(x, **options)[0, 0, 0, 0], 4 / 9, rtol=1e-6)
    np.testing.assert_allclose(
        pooling.avg_pool(x, **options, count_include_pad=False), 1.0, rtol=1e-6
    )


@pytest.mark.parametrize("formulation", ["fast", "natural"])
def test_no_gradient_is_lost_where_numbers_are_computed_anew(formulation):
    """After a normalization that a program computes for the maximum and for the comparison apart:
    each window's gradient goes somewhere, and where it goes without compilation."""
    x = jax.random.normal(jax.random.key(0), (8, 8, 8, 4))
    numbers = jnp.array([1.1, 0.9, 1.0, 1.2]), jnp.array([0.1, -0.2, 0.05, 0.3])
    weights = jax.random.normal(jax.random.key(1), (8, 4, 4, 4))

    def total(numbers):
        pooled = pooling.max_pool(nn.relu(normalized(x, *numbers)), (2, 2))
        return jnp.sum(weights * jnp.square(pooled))

    with convolution.formulation(formulation):
        with jax.disable_jit():
            want = jax.grad(total)(numbers)
        got = computed_anew(jax.grad(total), numbers)
    for a, b in zip(want, got, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_nor_of_a_convolution_that_is_pooled():
    x = jax.random.normal(jax.random.key(0), (4, 9, 9, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 3))

    def total(scale):
        pooled = pooling.max_pooled_convolution(
            normalized(x, scale, 0.1 * scale),
            kernel,
            (1, 1),
            "SAME",
            window=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.sum(jnp.square(pooled))

    with convolution.formulation("fast"):
        scale = jnp.array([1.1, 0.8])
        want = jax.grad(total)(scale)
        got = computed_anew(jax.grad(total), scale)
    np.testing.assert_allclose(want, got, rtol=1e-4)


def test_windows_that_overlap_read_what_each_of_them_would_compute():
    """XLA joins the position of the winner and the gradient of y, with all that they come from, to
    the sum that reads them nine times, unless they are written to memory: 17 comparisons in it."""

    def total(x):
        pooled = pooling.max_pool(jnp.tanh(x), (3, 3), strides=(2, 2), padding="SAME")
        return jnp.sum(jnp.sin(pooled))

    with convolution.formulation("fast"):
        text = jax.jit(jax.grad(total)).lower(jnp.ones((2, 16, 16, 8))).compile().as_text()
    parts = [
        (part.count(" compare("), len(re.findall(r" (?:tanh|cosine)\(", part)))
        for part in text.split("\n\n")
    ]
    assert max(parts) == (9, 0)


@pytest.mark.parametrize("overlapping", [False, True])
def test_without_compilation_the_gradient_is_the_same(overlapping):
    """`jax.disable_jit`, to look at numbers with a debugger, also of a convolution."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 8))
    strides = (1, 1) if overlapping else (2, 2)

    def total(x):
        maps = convolution.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sum(jnp.sin(pooling.max_pool(maps, (2, 2), strides=strides)))

    with convolution.formulation("fast"):
        want = jax.jit(jax.grad(total))(x)
        with jax.disable_jit():
            got = jax.grad(total)(x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_pooled_convolution_that_pads_at_the_end_alone_is_the_same():
    """Its places apart are convolutions of x padded by (-1, 1)."""
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 4, 4, 1)).astype(np.float32)
    w = random.standard_normal((2, 2, 1, 2)).astype(np.float32)
    numbers = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    with convolution.formulation("fast"):
        actual = jax.jit(
            lambda x, w: pooling.max_pooled_convolution(
                x, w, (1, 1), "SAME", window=(2, 2), **numbers
            )
        )(x, w)
    y = jax.lax.conv_general_dilated(x, w, (1, 1), [(0, 1), (0, 1)], **numbers)
    expected = np.asarray(y).reshape(2, 2, 2, 2, 2, 2).max((2, 4))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
