"""Handcrafted filters against scipy.ndimage, scikit-image and printed examples; constant weights;
dense against convolution.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.inspect.summary import summarize_layers, total_params
from jaxcnn.layers.conv import Conv
from jaxcnn.layers.fixed_filters import RECTIFIERS, FixedFilters, rectify
from jaxcnn.models.handcrafted import FilterBankNet
from jaxcnn.ops import filters

IMAGE = np.random.default_rng(0).random((19, 23))


def correlate(image, bank):
    """Each filter of `bank` [kh, kw, K] over `image` [H, W], borders cut off as by "VALID". [H',
    W', K].
    """
    ndimage = pytest.importorskip("scipy.ndimage")
    cut = tuple(slice(k // 2, n - k // 2) for k, n in zip(bank.shape, image.shape, strict=False))
    return np.stack(
        [ndimage.correlate(image, bank[..., k])[cut] for k in range(bank.shape[-1])], axis=-1
    )


def inner(image, margin):
    return image[margin:-margin, margin:-margin]


@pytest.mark.parametrize("name, scale", [("sobel", 8), ("prewitt", 6)])
def test_gradients_are_those_of_scipy(name, scale):
    ndimage = pytest.importorskip("scipy.ndimage")
    theirs = np.stack([getattr(ndimage, name)(IMAGE, axis) for axis in (0, 1)], axis=-1) / scale
    np.testing.assert_allclose(
        correlate(IMAGE, getattr(filters, name)()), inner(theirs, 1), atol=1e-12
    )


@pytest.mark.parametrize("name", ["sobel", "prewitt", "scharr"])
def test_gradients_are_those_of_scikit_image(name):
    """They difference pixels two apart and do not divide by the distance."""
    peer = pytest.importorskip("skimage.filters")
    theirs = (
        np.stack([getattr(peer, f"{name}_h")(IMAGE), getattr(peer, f"{name}_v")(IMAGE)], axis=-1)
        / 2
    )
    np.testing.assert_allclose(
        correlate(IMAGE, getattr(filters, name)()), inner(theirs, 1), atol=1e-12
    )


@pytest.mark.parametrize("operator", [filters.sobel, filters.prewitt, filters.scharr])
def test_the_gradient_of_a_ramp_is_its_slope(operator):
    y, x = np.mgrid[:9, :8].astype(float)
    np.testing.assert_allclose(
        correlate(3 * y - 2 * x, operator()), np.broadcast_to([3.0, -2.0], (7, 6, 2)), atol=1e-12
    )


def test_laplacian_is_that_of_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    np.testing.assert_allclose(
        correlate(IMAGE, filters.laplacian())[..., 0], inner(ndimage.laplace(IMAGE), 1), atol=1e-12
    )


@pytest.mark.parametrize("neighbours", [4, 8])
def test_laplacian_of_paraboloid_and_plane(neighbours):
    y, x = np.mgrid[-4:5, -4:5].astype(float)
    surface = y**2 + x**2 + 5 * x - 3 * y + 7
    np.testing.assert_allclose(
        correlate(surface, filters.laplacian(neighbours=neighbours)), 4, atol=1e-12
    )


@pytest.mark.parametrize("sigma, truncate", [(0.7, 4.0), (1.0, 4.0), (2.3, 3.0)])
def test_gaussians_are_those_of_scipy(sigma, truncate):
    ndimage = pytest.importorskip("scipy.ndimage")
    impulse = np.zeros((41, 41))
    impulse[20, 20] = 1
    kernel = filters.gaussian(sigma=sigma, truncate=truncate)[..., 0]
    radius = kernel.shape[0] // 2
    window = (slice(20 - radius, 21 + radius),) * 2
    blurred = ndimage.gaussian_filter(impulse, sigma, truncate=truncate)
    np.testing.assert_allclose(kernel, blurred[window], atol=1e-12)
    # nothing of theirs lies outside of ours
    assert math.isclose(kernel.sum(), blurred.sum(), rel_tol=1e-9)

    curved = filters.laplacian_of_gaussian(sigma=sigma, truncate=truncate)[..., 0]
    theirs = ndimage.gaussian_laplace(impulse, sigma, truncate=truncate)[window]
    np.testing.assert_allclose(curved, theirs - theirs.mean(), atol=1e-12)


@pytest.mark.parametrize("orientation", [0.0, 0.4, math.pi / 2, 2.5])
@pytest.mark.parametrize("phase", [0.0, 1.1, math.pi / 2])
@pytest.mark.parametrize("bandwidth, aspect", [(1.0, 1.0), (1.5, 2.0)])
def test_gabor_is_that_of_scikit_image(orientation, phase, bandwidth, aspect):
    peer = pytest.importorskip("skimage.filters")
    wavelength = 5.0
    ours = filters.gabor(
        wavelength=wavelength,
        orientation=orientation,
        phase=phase,
        bandwidth=bandwidth,
        aspect=aspect,
    )[..., 0]
    # only to read the window's size off it
    across = peer.gabor_kernel(1 / wavelength, bandwidth=bandwidth)
    sigma = math.sqrt(1 / (2 * math.pi * np.abs(across).max()))
    theirs = peer.gabor_kernel(
        1 / wavelength, orientation, bandwidth, sigma, sigma * aspect, offset=phase
    ).real
    half = [n // 2 for n in theirs.shape]
    centre = ours.shape[0] // 2
    assert centre >= max(half)
    cut = ours[centre - half[0] : centre + half[0] + 1, centre - half[1] : centre + half[1] + 1]
    np.testing.assert_allclose(cut, theirs, atol=1e-12)


def test_gabor_bank_ignores_brightness_and_finds_the_orientation_of_a_grating():
    count = 6
    bank = filters.gabor_bank(orientations=count, wavelengths=(4.0, 7.0))
    assert bank.shape[-1] == 2 * count * 2
    np.testing.assert_allclose(bank.sum((0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(np.clip(bank, 0, None).sum((0, 1)), 1, atol=1e-12)
    y, x = np.mgrid[:48, :48].astype(float)
    for i in range(2):
        for j in range(count):
            angle = math.pi * j / count
            grating = np.cos(
                2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / (4.0, 7.0)[i]
            )
            energy = np.square(correlate(grating, bank)).sum((0, 1)).reshape(2 * count, 2).sum(-1)
            assert energy.argmax() == i * count + j


def test_steered_derivatives_answer_most_to_a_ramp_in_their_direction():
    y, x = np.mgrid[:5, :5].astype(float)
    for i in range(8):
        angle = 2 * math.pi * i / 8
        answers = correlate(
            x * math.cos(angle) + y * math.sin(angle), filters.steered(orientations=8)
        )[0, 0]
        np.testing.assert_allclose(
            answers, np.cos(angle - 2 * np.pi * np.arange(8) / 8), atol=1e-12
        )


def test_the_edge_detectors_give_the_printed_example():
    """Ng, week 1, "Edge Detection Example" and "More Edge Detection"."""
    image = np.tile([10.0, 10, 10, 0, 0, 0], (6, 1))
    vertical = correlate(image, filters.course_edges())[..., 1]
    np.testing.assert_array_equal(vertical, np.tile([0.0, 30, 30, 0], (4, 1)))
    np.testing.assert_array_equal(
        correlate(image[:, ::-1], filters.course_edges())[..., 1], -vertical
    )
    corners = np.kron([[10.0, 0], [0, 10]], np.ones((3, 3)))
    printed = [[0, 0, 0, 0], [30, 10, -10, -30], [30, 10, -10, -30], [0, 0, 0, 0]]
    np.testing.assert_array_equal(correlate(corners, filters.course_edges())[..., 0], printed)


@pytest.mark.parametrize(
    "wrong",
    [
        partial(filters.laplacian, neighbours=6),
        partial(filters.gaussian, sigma=0.0),
        partial(filters.laplacian_of_gaussian, sigma=-1.0),
        partial(filters.gabor, wavelength=1.0),
        partial(filters.gabor_bank, orientations=0),
        partial(filters.steered, orientations=0),
    ],
)
def test_impossible_filters_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"must be|has 4 neighbours"):
        wrong()


# ---- the layer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("depthwise", [True, False])
def test_fixed_filters_are_correlations_and_have_no_parameters(depthwise):
    images = np.random.default_rng(1).random((2, 9, 11, 3)).astype(np.float32)
    layer = FixedFilters(filters.sobel, padding="VALID", depthwise=depthwise)
    maps, variables = layer.init_with_output(jax.random.key(0), jnp.asarray(images))
    assert not jax.tree.leaves(variables)
    for b in range(2):
        channels = [images[b, ..., c] for c in range(3)] if depthwise else [images[b].sum(-1)]
        expected = np.concatenate(
            [correlate(channel, filters.sobel()) for channel in channels], axis=-1
        )
        np.testing.assert_allclose(maps[b], expected, atol=1e-5)


def test_a_learned_convolution_with_the_same_weights_is_the_same_function():
    x = jax.random.uniform(jax.random.key(0), (2, 12, 10, 1))
    bank = filters.gabor_bank(orientations=3, radius=2)
    fixed = FixedFilters(
        partial(filters.gabor_bank, orientations=3, radius=2), strides=(2, 1)
    ).apply({}, x)
    learned = Conv(6, (5, 5), (2, 1), use_bias=False).apply(
        {"params": {"kernel": jnp.asarray(bank, jnp.float32)[:, :, None]}}, x
    )
    np.testing.assert_array_equal(fixed, learned)


def test_gradient_magnitude_is_that_of_scikit_image():
    """Their magnitude is the root mean square of differences over two pixels, ours the length of
    the gradient.
    """
    peer = pytest.importorskip("skimage.filters")
    image = jnp.asarray(IMAGE, jnp.float32)[None, ..., None]
    magnitude = jnp.asarray(
        FixedFilters(filters.sobel, padding="VALID", rectify="magnitude").apply({}, image)
    )
    np.testing.assert_allclose(
        magnitude[0, ..., 0], inner(peer.sobel(IMAGE), 1) / math.sqrt(2), atol=1e-6
    )


@pytest.mark.parametrize("how", RECTIFIERS)
def test_rectifiers_have_finite_slopes_and_the_stated_number_of_maps(how):
    x = jnp.array([[0.0, 0.0, 3.0, -4.0]])
    y = rectify(x, how)
    assert y.shape[-1] == 4 * RECTIFIERS[how][1]
    assert jnp.isfinite(jax.jacobian(lambda x: rectify(x, how))(x)).all()
    length = {"none": 5, "abs": 5, "split": 5, "magnitude": 5, "relu": 3}[how]  # a 3-4-5 triangle
    assert float(jnp.linalg.norm(y)) == pytest.approx(length)


def test_split_loses_nothing():
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 5))
    y = rectify(x, "split")
    assert (y >= 0).all()
    np.testing.assert_array_equal(y[..., :5] - y[..., 5:], x)


def test_fixed_filters_say_what_is_wrong():
    x = jnp.zeros((1, 8, 8, 1))
    with pytest.raises(ConfigError, match="did you mean 'magnitude'"):
        FixedFilters(filters.sobel, rectify="magnitud").apply({}, x)
    with pytest.raises(ConfigError, match="pairs of maps"):
        FixedFilters(filters.laplacian, rectify="magnitude").apply({}, x)
    with pytest.raises(ConfigError, match=r"must be \[height, width, filters\]"):
        FixedFilters(lambda: np.zeros((3, 3))).apply({}, x)


# ---- the models ----------------------------------------------------------------------------------


def layers_of(model, *shape):
    return summarize_layers(model, (jax.ShapeDtypeStruct((1, *shape), jnp.float32),))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("how", ["split", "magnitude"])
def test_handcrafted_and_learned_features_have_the_same_shapes(how, channels):
    model = {learned: FilterBankNet(learned=learned, rectify=how) for learned in (False, True)}
    tables = {learned: layers_of(m, 28, 28, channels) for learned, m in model.items()}
    assert [row.shape for row in tables[False]] == [row.shape for row in tables[True]]
    bank = model[False].kernels().shape
    count = bank[-1] * channels
    filters_learned = math.prod(bank[:2]) * channels * count + count
    assert total_params(tables[True]) - total_params(tables[False]) == filters_learned
    assert tables[False][0].params == 0
    assert tables[False][0].macs == 28 * 28 * math.prod(bank[:2]) * count


def test_constant_images_have_no_handcrafted_features():
    """Away from the border, where the padding is an edge."""
    model = FilterBankNet(learned=False)
    x = jnp.full((1, 28, 28, 1), 0.7)
    maps = jnp.asarray(FixedFilters(model.kernels, padding="VALID").apply({}, x))
    np.testing.assert_allclose(maps, 0, atol=1e-6)


def test_a_cell_larger_than_the_image_is_refused():
    with pytest.raises(ConfigError, match="do not fit"):
        FilterBankNet(cell=(9, 9)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


def test_dense_against_convolution():
    """Ng, week 1, "Why Convolutions?": 32x32x3 to 28x28x6 by weights of its own for each pair of
    units, or by six shared 5x5x3 filters.
    """
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)

    class Dense(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return nn.Dense(28 * 28 * 6, use_bias=False)(x.reshape(1, -1))

    class Convolution(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return Conv(6, (5, 5), padding="VALID")(x)

    (dense,), (convolution,) = (summarize_layers(m, (image,)) for m in (Dense(), Convolution()))
    assert math.prod(image.shape) == 3_072
    assert dense.activations == convolution.activations == 4_704
    assert dense.params == dense.macs == 14_450_688
    assert convolution.params == 456
    assert convolution.macs == 4_704 * 75  # each output sees 5x5x3 pixels instead of all 3,072
