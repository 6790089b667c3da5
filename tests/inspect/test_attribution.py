"""Attributions against finite differences, loops, hand computations and their own axioms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.signal import correlate2d

from jaxcnn.errors import ConfigError
from jaxcnn.inspect import attribution, class_activation, taps
from jaxcnn.inspect.summary import summarize_layers
from jaxcnn.layers import Conv
from jaxcnn.models.lenet import LeNet5
from jaxcnn.models.mlp import MLP
from jaxcnn.models.resnet import BasicBlock, ResNet


class Small(nn.Module):
    """Smooth, so that differences and quadratures converge; images [B, H, W, C] to [B, 3]."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.tanh(Conv(4, (3, 3), name="first")(x))
        x = nn.tanh(Conv(5, (3, 3), (2, 2), name="second")(x))
        return nn.Dense(3, name="classes")(x.reshape(x.shape[0], -1))


IMAGES = np.random.default_rng(0).uniform(size=(2, 6, 5, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    variables = Small().init(jax.random.key(0), IMAGES)
    return lambda x: Small().apply(variables, x)


@pytest.fixture(scope="module")
def score(model):
    return lambda x: model(x)[:, 1]


def cubic(x):
    """Of known gradient and integral: each pixel's share is WEIGHT x^3."""
    return jnp.sum(WEIGHT[None] * x**3, axis=(1, 2, 3))


WEIGHT = np.random.default_rng(1).normal(size=IMAGES.shape[1:]).astype(np.float32)


def test_gradient_against_differences(score):
    found = attribution.gradient(score, IMAGES)
    np.testing.assert_allclose(attribution.gradient(cubic, IMAGES), 3 * WEIGHT * IMAGES**2, 1e-5)
    random, step = np.random.default_rng(2), 1e-2
    for _ in range(12):
        place = tuple(random.integers(0, n) for n in IMAGES.shape)
        up, down = IMAGES.copy(), IMAGES.copy()
        up[place] += step
        down[place] -= step
        difference = np.sum(np.asarray(score(up)) - np.asarray(score(down))) / (2 * step)
        np.testing.assert_allclose(found[place], difference, atol=2e-4)


@pytest.mark.parametrize("baseline", [0.0, 0.4, IMAGES[::-1]], ids=["black", "grey", "another"])
def test_integrated_gradients_are_complete(score, baseline):
    found = attribution.integrated_gradients(score, IMAGES, baseline=baseline)
    start = np.broadcast_to(np.float32(baseline), IMAGES.shape)
    np.testing.assert_allclose(
        np.sum(found, axis=(1, 2, 3)), np.asarray(score(IMAGES) - score(start)), atol=1e-5
    )


def test_integrated_gradients_against_a_riemann_sum(score):
    count = 1000
    shares = (np.arange(count, dtype=np.float32) + 0.5) / count
    mean = sum(np.asarray(attribution.gradient(score, IMAGES * s)) for s in shares[::20]) / 50
    found = attribution.integrated_gradients(score, IMAGES)
    np.testing.assert_allclose(found, IMAGES * mean, atol=2e-2)
    many = jax.jit(jax.vmap(lambda s: attribution.gradient(score, IMAGES * s)))(shares)
    np.testing.assert_allclose(found, IMAGES * np.mean(many, axis=0), atol=1e-5)


def test_integrated_gradients_of_a_cubic_are_exact_with_two_points():
    """Gauss-Legendre with n points integrates polynomials of degree 2n - 1."""
    found = attribution.integrated_gradients(cubic, IMAGES, steps=2)
    np.testing.assert_allclose(found, WEIGHT * IMAGES**3, rtol=1e-4, atol=1e-6)
    rough = attribution.integrated_gradients(cubic, IMAGES, steps=1)  # at one half
    np.testing.assert_allclose(rough, WEIGHT * IMAGES * 3 * (IMAGES / 2) ** 2, 1e-4, 1e-6)


def test_smooth_grad_without_noise_is_the_gradient(score):
    found = attribution.smooth_grad(jax.random.key(3), score, IMAGES, sigma=0.0, samples=3)
    np.testing.assert_allclose(found, attribution.gradient(score, IMAGES), atol=1e-6)


def test_smooth_grad_against_a_loop(score):
    key, gradients = jax.random.key(4), []
    for i in range(5):
        noise = jax.random.normal(jax.random.fold_in(key, i), IMAGES.shape)
        gradients.append(attribution.gradient(score, IMAGES + 0.3 * noise))
    found = attribution.smooth_grad(key, score, IMAGES, sigma=0.3, samples=5)
    np.testing.assert_allclose(found, np.mean(gradients, axis=0), atol=1e-6)


def test_smooth_grad_has_the_noise_that_was_asked_for():
    """The mean of 3 w (x + n)^2 is 3 w (x^2 + sigma^2)."""
    key, size = jax.random.key(5), (2, 40, 40, 1)
    found = attribution.smooth_grad(
        key, lambda x: jnp.sum(x**3, axis=(1, 2, 3)), jnp.zeros(size), sigma=0.2, samples=50
    )
    np.testing.assert_allclose(np.mean(found), 3 * 0.2**2, rtol=0.02)


@pytest.mark.parametrize(
    "window, stride, value",
    [((2, 2), (1, 1), 0.0), ((3, 2), (2, 2), 0.5), ((6, 5), (1, 1), 0.0), ((4, 3), (3, 2), 1.0)],
)
def test_occlusion_against_a_loop(score, window, stride, value):
    falls, counts = np.zeros(IMAGES.shape[:3]), np.zeros(IMAGES.shape[1:3])
    y = 0
    while True:  # until the last row is covered
        x = 0
        while True:
            covered = IMAGES.copy()
            covered[:, y : y + window[0], x : x + window[1]] = value
            fall = np.asarray(score(IMAGES)) - np.asarray(score(covered))
            falls[:, y : y + window[0], x : x + window[1]] += fall[:, None, None]
            counts[y : y + window[0], x : x + window[1]] += 1
            if x + window[1] >= IMAGES.shape[2]:
                break
            x += stride[1]
        if y + window[0] >= IMAGES.shape[1]:
            break
        y += stride[0]
    found = attribution.occlusion(score, IMAGES, window=window, stride=stride, value=value)
    np.testing.assert_allclose(found, falls / counts, atol=1e-5)
    assert np.abs(falls).max() > 1e-2


def test_occlusion_by_default_reaches_every_pixel():
    """Of a sum over pixels, which a covered window lowers by its own sum."""
    found = attribution.occlusion(lambda x: jnp.sum(x, axis=(1, 2, 3)), jnp.ones((1, 37, 19, 3)))
    assert np.asarray(found).min() > 0
    np.testing.assert_allclose(np.max(found), 4 * 2 * 3, rtol=1e-5)  # a window of 37//8 x 19//8


@pytest.mark.parametrize("options", [{"window": (7, 2)}, {"window": (2, 2), "stride": (3, 1)}])
def test_what_occlusion_refuses(score, options):
    with pytest.raises(ConfigError, match="must fit into the picture"):
        attribution.occlusion(score, IMAGES, **options)


def test_maps_of_attributions():
    values = np.array([[[[1.0, -3.0], [2.0, 2.5]]]])
    np.testing.assert_array_equal(attribution.heat(values), [[[3.0, 2.5]]])
    np.testing.assert_array_equal(attribution.total(values), [[[-2.0, 4.5]]])


# ---- maps of layers


class Linear(nn.Module):
    """A convolution, a ReLU, the mean of each map, a linear layer: what Grad-CAM was derived on."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.relu(Conv(3, (3, 3), padding="VALID", use_bias=False, name="conv")(x))
        x = Identity(name="maps")(x)
        return nn.Dense(2, name="classes")(x.mean((1, 2)))


class Identity(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x


@pytest.mark.parametrize("name", ["grad_cam", "layer_cam"])
def test_class_activation_by_hand(name):
    variables = Linear().init(jax.random.key(1), IMAGES)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    weight = np.asarray(variables["params"]["classes"]["kernel"])
    maps = np.zeros((2, 4, 3, 3))
    for b in range(2):
        for k in range(3):
            for c in range(2):
                maps[b, ..., k] += correlate2d(IMAGES[b, ..., c], kernel[..., c, k], "valid")
    maps = np.maximum(maps, 0)
    for target in range(2):
        share = weight[:, target] / 12  # the gradient of the logit by each place of a map
        share = np.maximum(share, 0) if name == "layer_cam" else share
        by_hand = np.maximum((maps * share).sum(-1), 0)
        expected = jax.image.resize(jnp.asarray(by_hand, jnp.float32), (2, 6, 5), "linear")
        found = getattr(class_activation, name)(
            lambda x, target=target: Linear().apply(variables, x)[:, target], IMAGES, layer="maps"
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.shape == (2, 6, 5)
        assert np.max(found) > 0


def test_the_gradient_by_a_layer_is_that_of_what_follows(model, score):
    """The chain rule: the rest of the network applied to the layer's output by itself."""
    output, gradient = taps.layer_gradient(score, IMAGES, layer="second")
    variables = Small().init(jax.random.key(0), IMAGES)["params"]["classes"]

    def rest(x):
        flat = jnp.tanh(x).reshape(x.shape[0], -1)
        return jnp.sum((flat @ variables["kernel"] + variables["bias"][None])[:, 1])

    np.testing.assert_allclose(gradient, jax.grad(rest)(output), atol=1e-6)
    np.testing.assert_allclose(rest(output), np.sum(score(IMAGES)), atol=1e-5)


EVERY = {
    "gradient": attribution.gradient,
    "integrated": lambda s, x: attribution.integrated_gradients(s, x, steps=4),
    "smooth": lambda s, x: attribution.smooth_grad(jax.random.key(0), s, x, sigma=0, samples=2),
    "occlusion": lambda s, x: attribution.occlusion(s, x, window=(3, 2)),
    "grad_cam": class_activation.grad_cam,
    "layer_cam": lambda s, x: class_activation.layer_cam(s, x, layer="first"),
}


@pytest.mark.parametrize("name", EVERY)
def test_all_are_pure_functions_under_jit_and_vmap(score, name):
    function = EVERY[name]
    plain = function(score, jnp.asarray(IMAGES))
    assert plain.dtype == jnp.float32
    together = jax.jit(lambda x: function(score, x))(IMAGES)
    alone = jax.vmap(lambda x: function(score, x[None])[0])(IMAGES)
    np.testing.assert_allclose(together, plain, atol=1e-6)
    np.testing.assert_allclose(alone, plain, atol=1e-6)


# ---- layers by name


def network_of(module, shape):
    images = jnp.zeros((1, *shape))
    variables = jax.jit(lambda: module.init(jax.random.key(0), images, train=False))()
    return lambda x: module.apply(variables, x, train=False), images


@pytest.mark.parametrize(
    "module, shape, last",
    [
        (LeNet5(), (28, 28, 1), "S4"),  # C5 gives a single place
        (ResNet((1, 1), BasicBlock, 4, widths=(8, 16), stem="cifar"), (8, 8, 3), "stage2_block0"),
        (Small(), (6, 5, 2), "second"),
    ],
)
def test_layers_have_the_names_of_the_summary(module, shape, last):
    network, images = network_of(module, shape)
    names = {seen.name for seen in taps.layers_of(network, images)}
    rows = summarize_layers(module, [jax.ShapeDtypeStruct((1, *shape), jnp.float32)])
    modules = {row.name: row.shape for row in rows if "pool_" not in row.name}
    assert set(modules) <= names
    found = taps.spatial_layers(network, images)
    assert all(found[name][1:] == modules[name] for name in modules if name in found)
    assert taps.choose_layer(network, images, None) == last


def test_what_is_no_layer_with_maps():
    network, images = network_of(Small(), (6, 5, 2))
    with pytest.raises(ConfigError, match=r"no layer 'frist'.*did you mean 'first'"):
        taps.choose_layer(network, images, "frist")
    with pytest.raises(ConfigError, match=r"'classes' gives \[3\] for a picture"):
        taps.layer_output(network, images, layer="classes")
    network, images = network_of(MLP((4, 1)), (6, 5, 2))
    with pytest.raises(ConfigError, match="no layer with places"):
        class_activation.grad_cam(lambda x: network(x)[:, 0], images)


def test_of_a_layer_that_is_called_twice_the_last_call_counts():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            conv = Conv(2, (3, 3), name="conv")
            return conv(conv(x)).sum((1, 2, 3))

    network, _ = network_of(Twice(), (6, 5, 2))
    output, gradient = taps.layer_gradient(network, IMAGES, layer="conv")
    np.testing.assert_allclose(output.sum((1, 2, 3)), network(IMAGES), rtol=1e-5)
    np.testing.assert_array_equal(gradient, np.ones_like(output))


def test_a_network_that_is_jitted_itself_is_refused():
    """What JAX has traced once it does not trace again, and no layer is seen in it."""
    network, images = network_of(Small(), (6, 4, 2))
    jitted = jax.jit(lambda x: network(x)[:, 0])
    with pytest.raises(ConfigError, match="put jit around the whole"):
        taps.layer_gradient(jitted, images, layer="first")
    with pytest.raises(ConfigError, match="put jit around the whole"):
        taps.choose_layer(jitted, images, None)
