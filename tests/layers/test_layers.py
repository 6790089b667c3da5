"""Layers against PyTorch, SciPy and the formulas of their papers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn import layers
from jaxcnn.errors import ConfigError
from jaxcnn.models.lenet import C3_TABLE
from jaxcnn.ops import convolution, pooling

KEY = jax.random.key(0)


def _random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _channels_first(x):
    return np.moveaxis(np.asarray(x), -1, 1)


@pytest.mark.parametrize(
    "channels, k, n, alpha, beta",
    [
        (7, 2.0, 5, 1e-4, 0.75),
        (6, 1.0, 3, 0.5, 0.5),
        (4, 1.5, 4, 0.3, 0.9),
        (3, 1.0, 9, 0.1, 1.0),
        (5, 2.0, 1, 0.7, 0.75),
    ],
)
def test_lrn_equals_torch(channels, k, n, alpha, beta):
    torch = pytest.importorskip("torch")
    x = 3 * _random((2, 3, 4, channels))
    ours = layers.LRN(k=k, n=n, alpha=alpha, beta=beta).apply({}, jnp.asarray(x))
    theirs = torch.nn.LocalResponseNorm(n, alpha=alpha * n, beta=beta, k=k)(
        torch.from_numpy(_channels_first(x).copy())
    )
    np.testing.assert_allclose(_channels_first(ours), theirs.numpy(), rtol=2e-6, atol=1e-6)


def test_lrn_is_the_printed_formula():
    x, k, n, alpha, beta = _random((2, 2, 8)), 2.0, 5, 0.2, 0.75
    expected = np.empty_like(x)
    for i in range(8):
        neighbours = x[..., max(0, i - n // 2) : min(7, i + n // 2) + 1]
        expected[..., i] = x[..., i] / (k + alpha * np.sum(neighbours**2, axis=-1)) ** beta
    ours = layers.LRN(k=k, n=n, alpha=alpha, beta=beta).apply({}, jnp.asarray(x))
    np.testing.assert_allclose(ours, expected, rtol=2e-6)


@pytest.mark.parametrize("reduction, factor", [("sum", 4), ("mean", 1)])
def test_subsampling_equals_torch(reduction, factor):
    torch = pytest.importorskip("torch")
    x, coefficient, bias = _random((2, 6, 8, 3)), _random(3, 1), _random(3, 2)
    params = {"coefficient": jnp.asarray(coefficient), "bias": jnp.asarray(bias)}
    ours = layers.Subsampling(reduction=reduction).apply({"params": params}, jnp.asarray(x))
    pooled = torch.nn.functional.avg_pool2d(torch.from_numpy(_channels_first(x).copy()), 2).numpy()
    expected = factor * pooled * coefficient[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(_channels_first(ours), expected, rtol=1e-5, atol=1e-6)


def test_subsampling_has_two_parameters_a_channel():
    variables = layers.Subsampling().init(KEY, jnp.zeros((1, 4, 4, 6)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 12


def test_connection_table_conv_equals_torch_map_by_map():
    torch = pytest.importorskip("torch")
    x = _random((2, 9, 8, 6))
    layer = layers.ConnectionTableConv(C3_TABLE)
    params = layer.init(KEY, jnp.asarray(x))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1516  # the paper, section II-B
    ours = _channels_first(layer.apply({"params": params}, jnp.asarray(x)))
    image = torch.from_numpy(_channels_first(x).copy())
    kernel, used = torch.from_numpy(np.array(params["kernel"])), 0
    for k, sources in enumerate(C3_TABLE):
        weight = torch.stack([kernel[:, :, used + i] for i in range(len(sources))])[None]
        used += len(sources)
        expected = torch.nn.functional.conv2d(image[:, list(sources)], weight)[:, 0] + float(
            params["bias"][k]
        )
        np.testing.assert_allclose(ours[:, k], expected.numpy(), rtol=1e-4, atol=1e-5)
    assert used == 60


def test_a_full_table_is_a_plain_convolution():
    x, features = jnp.asarray(_random((1, 6, 6, 3))), 4
    layer = layers.ConnectionTableConv(((0, 1, 2),) * features, kernel_size=(3, 3), padding="SAME")
    params = layer.init(KEY, x)["params"]
    kernel = jnp.swapaxes(params["kernel"].reshape(3, 3, features, 3), 2, 3)
    plain = nn.Conv(features, (3, 3)).apply(
        {"params": {"kernel": kernel, "bias": params["bias"]}}, x
    )
    np.testing.assert_allclose(layer.apply({"params": params}, x), plain, rtol=1e-5, atol=1e-6)


def test_connection_table_of_the_paper():
    """Table I: six maps see 3 neighbours, six see 4 neighbours, three see 4 in two pairs, one sees
    all; each input is used ten times.
    """
    assert [len(sources) for sources in C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    assert len({frozenset(sources) for sources in C3_TABLE}) == 16
    assert all(sum(i in sources for sources in C3_TABLE) == 10 for i in range(6))


def test_connection_table_weights_start_within_the_range_of_their_fan_in():
    params = layers.ConnectionTableConv(C3_TABLE).init(KEY, jnp.zeros((1, 5, 5, 6)))["params"]
    fan_in = np.repeat(
        [25 * len(sources) for sources in C3_TABLE], [len(sources) for sources in C3_TABLE]
    )
    relative = np.abs(params["kernel"]) * fan_in / 2.4
    assert relative.max() <= 1
    # of 25 uniform numbers one is nearly surely this large
    assert np.all(relative.max(axis=(0, 1)) > 0.6)


def test_rbf_equals_scipy():
    distance = pytest.importorskip("scipy.spatial.distance")
    x, targets = _random((5, 84)), layers.bitmap_targets()
    layer = layers.RBF(targets)
    assert not layer.init(KEY, jnp.asarray(x))  # constants, no parameters
    np.testing.assert_allclose(
        layer.apply({}, jnp.asarray(x)),
        distance.cdist(x, np.array(targets), "sqeuclidean"),
        rtol=1e-5,
    )


def test_bitmaps_are_ten_different_drawings_of_7x12():
    targets = np.array(layers.bitmap_targets())
    assert targets.shape == (10, 84)
    assert set(np.unique(targets)) == {-1, 1}
    assert all(
        len(bitmap) == 12 and {len(row) for row in bitmap} == {7} for bitmap in layers.DIGIT_BITMAPS
    )
    differing = (targets[:, None] != targets[None]).sum(-1)
    assert differing[~np.eye(10, dtype=bool)].min() >= 8
    assert np.array_equal(
        layers.RBF(layers.bitmap_targets()).apply({}, jnp.asarray(targets, jnp.float32)),
        4.0 * differing,
    )


def test_scaled_tanh_has_the_properties_of_appendix_a():
    f = layers.scaled_tanh
    np.testing.assert_allclose(f(jnp.array([-1.0, 1.0])), [-1, 1], atol=1e-4)
    np.testing.assert_allclose(f(jnp.array(100.0)), 1.7159, rtol=1e-6)
    x = jnp.linspace(0.0, 3.0, 3001)
    curvature = jax.vmap(jax.grad(jax.grad(f)))(x)
    # the second derivative is extreme at 1
    assert abs(float(x[jnp.argmin(curvature)]) - 1.0) < 0.02


@pytest.mark.parametrize("name", sorted(set(layers.ACTIVATIONS) - {"identity", "scaled_tanh"}))
def test_activations_equal_torch(name):
    torch = pytest.importorskip("torch")
    theirs = {
        "gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "hard_swish": torch.nn.functional.hardswish,
    }
    x = _random(100) * 4
    function = theirs.get(name) or getattr(torch.nn.functional, name)
    np.testing.assert_allclose(
        layers.activation(name)(jnp.asarray(x)),
        function(torch.from_numpy(x)).numpy(),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "layer, shape, message",
    [
        (layers.LRN(n=0), (1, 2, 2, 3), "n = 0"),
        (layers.Subsampling(reduction="max"), (1, 4, 4, 3), "'sum' or 'mean'"),
        (layers.Subsampling(), (1, 5, 4, 3), r"\(1, 5, 4, 3\)"),
        (layers.ConnectionTableConv(((0, 3),)), (1, 5, 5, 3), r"0\.\.3.*0\.\.2"),
        (layers.ConnectionTableConv(((0, 0),)), (1, 5, 5, 3), "none twice"),
        (layers.ConnectionTableConv(((0,), ())), (1, 5, 5, 3), "at least one"),
        (layers.RBF(layers.bitmap_targets()), (2, 80), r"\[B, 84\]"),
    ],
)
def test_layers_name_what_is_wrong(layer, shape, message):
    with pytest.raises(ConfigError, match=message):
        layer.init(KEY, jnp.zeros(shape))


def test_an_unknown_activation_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'relu'"):
        layers.activation("rellu")


@pytest.mark.parametrize(
    "shape, rule, ok",
    [
        ((2, 28, 28, 1), {"sizes": ((28, 28),), "channels": 1}, True),
        ((2, 28, 27, 1), {"sizes": ((28, 28),)}, False),
        ((28, 28, 1), {}, False),
        ((2, 8, 7, 3), {"at_least": 8}, False),
        ((2, 8, 8, 3), {"channels": 1}, False),
    ],
)
def test_require_image(shape, rule, ok):
    image = jnp.zeros(shape)
    if ok:
        layers.require_image("Net", image, **rule)
    else:
        with pytest.raises(ConfigError, match=r"Net expects images \[B, H, W, C\].*found shape"):
            layers.require_image("Net", image, **rule)


@pytest.mark.parametrize("formulation", ["natural", "fast"])
@pytest.mark.parametrize("features", [3, 9])
@pytest.mark.parametrize(
    "window, strides, padding",
    [((2, 2), (1, 1), 1), ((3, 2), (1, 2), "SAME"), ((2, 3), (2, 1), "VALID")],
)
def test_a_convolution_pooled_before_its_bias_is_the_same(
    window, strides, padding, features, formulation
):
    """Values and gradients, the first of equal ones included: whole numbers make ties."""
    options = {
        "strides": strides,
        "padding": padding,
        "bias_init": nn.initializers.normal(),
        "param_dtype": jnp.float64,
    }
    plain, conv = (
        layers.Conv(features, (3, 3), **options),
        partial(pooling.max_pooled_convolution, window=window),
    )
    pooled = layers.Conv(features, (3, 3), **options, conv_general_dilated=conv)
    with jax.enable_x64(True), convolution.formulation(formulation):
        x = jnp.asarray(np.random.default_rng(0).integers(-1, 2, (2, 11, 12, 2)), jnp.float64)
        params = jax.tree.map(lambda p: np.round(2 * p), jax.jit(plain.init)(KEY, x))
        late, early = (lambda p, x: layers.max_pool(plain.apply(p, x), window)), pooled.apply
        places = jnp.asarray(_random(jax.eval_shape(late, params, x).shape), jnp.float64)

        def value_and_gradient(f):
            def total(p, x):
                y = f(p, x)
                return jnp.sum(places * y), y

            return jax.jit(jax.grad(total, (0, 1), has_aux=True))(params, x)

        (expected, value), (actual, ours) = (value_and_gradient(f) for f in (late, early))
        np.testing.assert_allclose(ours, value, rtol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), actual, expected
        )


@pytest.mark.parametrize("name", sorted(layers.ACTIVATIONS))
def test_increasing_activations_never_fall_and_the_others_do(name):
    values = np.asarray(layers.activation(name)(jnp.linspace(-20, 20, 100_001)))
    assert (np.diff(values) >= -1e-6).all() == (name in layers.INCREASING)


def _norms(**options):
    return tuple(
        norm(momentum=0.8, epsilon=1e-3, scale_init=nn.initializers.normal(), **options)
        for norm in (layers.BatchNorm, nn.BatchNorm)
    )


@pytest.mark.parametrize("formulation", ["natural", "fast"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_scale": False},
        {"use_bias": False},
        {"use_fast_variance": False},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "shape, average", [((6, 5, 4, 3), False), ((6, 5, 4, 3), True), ((7, 2), False)]
)
def test_batch_norm_is_flaxs(shape, average, options, formulation):
    """Variables, values and updated statistics, for inputs of mean 10 (of which a x + b rounds more
    than a (x - mean) + bias does).
    """
    x, (ours, theirs) = jnp.asarray(10 + _random(shape)), _norms(**options)
    with convolution.formulation(formulation), jax.numpy_dtype_promotion("standard"):
        variables = theirs.init(KEY, x, use_running_average=False)
        jax.tree.map(
            np.testing.assert_array_equal, ours.init(KEY, x, use_running_average=False), variables
        )
        actual, expected = (
            n.apply(variables, x, use_running_average=average, mutable="batch_stats")
            for n in (ours, theirs)
        )
    assert actual[0].dtype == expected[0].dtype
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), actual, expected
    )


@pytest.mark.parametrize("average", [False, True])
def test_derivatives_of_batch_norm_are_flaxs_in_float64(average):
    with (
        jax.enable_x64(True),
        convolution.formulation("fast"),
        jax.numpy_dtype_promotion("standard"),
    ):
        x, (ours, theirs) = (
            jnp.asarray(_random((5, 4, 3)), jnp.float64),
            _norms(param_dtype=jnp.float64),
        )
        variables = theirs.init(KEY, x, use_running_average=False)

        def loss(norm):
            def value(params, x):
                y, _ = norm.apply(
                    variables | {"params": params},
                    x,
                    use_running_average=average,
                    mutable="batch_stats",
                )
                return jnp.sum(jnp.sin(y))

            return value

        arguments = variables["params"], x
        for derivative in (
            lambda f: jax.grad(f, (0, 1)),
            lambda f: jax.jacfwd(f, (0, 1)),
            lambda f: jax.hessian(f, 1),
        ):
            actual, expected = (
                jax.jit(derivative(loss(norm)))(*arguments) for norm in (ours, theirs)
            )
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11),
                actual,
                expected,
            )
