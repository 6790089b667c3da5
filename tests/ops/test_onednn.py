"""The optional oneDNN convolutions against float64, under every transformation; and what is said
where they cannot be had.

The first part needs the wheels of `jaxcnn[onednn]` and g++, and skips without them.
"""

import concurrent.futures
import os
import stat
import threading
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from jaxcnn.errors import DependencyError
from jaxcnn.ops import convolution, pooling
from jaxcnn.ops.cpu import onednn
from tests.ops import test_pooling
from tests.ops.test_convolution import (
    GEOMETRIES,
    TRANSFORMATIONS,
    brute_force,
    convolve,
    operands,
    run_sharded,
    smooth,
)

NHWC = ("NHWC", "HWIO", "NHWC")
CUT = ("small map, cut", "3-D, cut")  # negative padding, which oneDNN does not have


@pytest.fixture
def native():
    problem = onednn._problem()
    if problem is not None:
        pytest.skip(str(problem))
    with convolution.formulation("onednn"):
        yield


def formulation_used(x, w, geometry) -> str:
    (equation,) = (
        e
        for e in jax.make_jaxpr(lambda x, w: convolve(x, w, *geometry))(x, w).eqns
        if "convolution" in str(e.primitive)
    )
    return equation.params["formulation"]


def relative_error(actual, expected):
    return np.max(np.abs(np.asarray(actual) - np.asarray(expected))) / np.max(
        np.abs(np.asarray(expected))
    )


def float64_gradients(x, w, geometry, cotangent):
    with jax.enable_x64(True):
        f = lambda x, w: convolve(x, w, *geometry, through=lax.conv_general_dilated)  # noqa: E731
        return jax.vjp(f, *(jnp.asarray(a, jnp.float64) for a in (x, w)))[1](
            jnp.asarray(cotangent, jnp.float64)
        )


@pytest.mark.parametrize("name", GEOMETRIES)
def test_value_and_gradients_equal_float64(name, native):
    x, w, geometry = operands(name)
    assert formulation_used(x, w, geometry) == ("fast" if name in CUT else "onednn")
    y, pullback = jax.vjp(lambda x, w: convolve(x, w, *geometry), x, w)
    assert relative_error(y, brute_force(x, w, *geometry)) < 2e-6
    cotangent = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    for actual, expected in zip(
        pullback(jnp.asarray(cotangent)), float64_gradients(x, w, geometry, cotangent), strict=True
    ):
        assert relative_error(actual, expected) < 2e-6


@pytest.mark.parametrize("channels, features", [(1, 6), (3, 64), (6, 16), (64, 48)])
def test_channel_counts_that_need_blocking_or_a_remainder(channels, features, native):
    random = np.random.default_rng(0)
    x = random.standard_normal((4, 12, 11, channels)).astype(np.float32)
    w = random.standard_normal((5, 3, channels, features)).astype(np.float32)
    geometry = ((2, 1), ((2, 1), (0, 3)), (1, 1), 1)
    y, pullback = jax.vjp(lambda x, w: convolve(x, w, *geometry), x, w)
    assert relative_error(y, brute_force(x, w, *geometry)) < 2e-6
    for actual, expected in zip(pullback(y), float64_gradients(x, w, geometry, y), strict=True):
        assert relative_error(actual, expected) < 2e-6


# images [B, H, W, C], features, padding
WINOGRAD = {
    "even": ((3, 24, 24, 64), 48, ((1, 1), (1, 1))),
    "odd": ((3, 27, 25, 48), 80, ((1, 1), (1, 1))),
    "unpadded": ((2, 30, 31, 64), 64, ((0, 0), (0, 0))),
    "asymmetric": ((4, 23, 22, 64), 48, ((2, 0), (1, 2))),
    "many blocks": ((9, 36, 33, 64), 64, ((1, 1), (1, 1))),
}


@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.parametrize("replicas", [0, 1, 5])
def test_winograd_equals_float64(name, replicas, native):
    """`replicas` 5 exceeds the threads of small machines, so that each is computed by one thread; 0
    is an operand without that axis.
    """
    shape, features, padding = WINOGRAD[name]
    geometry = ((1, 1), padding, (1, 1), 1)
    random = np.random.default_rng(0)
    leading = (replicas,) if replicas else ()
    x = random.standard_normal((*leading, *shape)).astype(np.float32)
    w = random.standard_normal((*leading, 3, 3, shape[-1], features)).astype(np.float32)
    one = x[0] if replicas else x
    parameters = convolution._geometry(
        one,
        np.zeros((3, 3, shape[-1], features), np.float32),
        *geometry[:2],
        {"dimension_numbers": NHWC},
    )
    assert {onednn.implementation(parameters, role, shape, features) for role in onednn.ROLES} == {
        "winograd"
    }

    def run(x, w, through, dtype):
        f = lambda x, w: convolve(x, w, *geometry, through=through)  # noqa: E731
        f = jax.vmap(f) if replicas else f
        y, pullback = jax.vjp(f, jnp.asarray(x, dtype), jnp.asarray(w, dtype))
        cotangent = np.random.default_rng(1).standard_normal(y.shape)
        return (y, *pullback(jnp.asarray(cotangent, dtype)))

    actual = run(x, w, convolution.conv_general_dilated, jnp.float32)
    with jax.enable_x64(True):
        expected = run(x, w, lax.conv_general_dilated, jnp.float64)
    for a, b in zip(actual, expected, strict=True):
        assert relative_error(a, b) < 2e-6


# blocks of sixteen for all threads, and one that is not full
MANY_IMAGES = 16 * (os.cpu_count() or 1) + 5

# height, width, channels, features, window, strides, padding; the results that are computed with
# images in lanes
FEW_CHANNELS = {
    "to six": ((13, 14, 1, 6), (5, 5), (1, 1), ((2, 2), (2, 2)), "yx"),
    "from six": ((9, 7, 6, 16), (5, 3), (1, 1), ((0, 0), (0, 0)), "x"),
    "narrow": ((6, 3, 4, 13), (3, 2), (1, 1), ((1, 0), (0, 0)), "yx"),
    "strides": ((11, 12, 3, 7), (3, 5), (2, 3), ((1, 2), (4, 1)), "y"),
    "asymmetric": ((8, 9, 15, 2), (3, 4), (1, 1), ((2, 0), (0, 3)), "yx"),
    "wide zeros": ((4, 5, 2, 8), (3, 3), (1, 1), ((2, 4), (2, 3)), "yx"),
}


@pytest.mark.parametrize("name", FEW_CHANNELS)
def test_few_channels_equal_float64(name, native):
    (height, width, channels, features), window, strides, padding, roles = FEW_CHANNELS[name]
    random = np.random.default_rng(0)
    x = random.standard_normal((MANY_IMAGES, height, width, channels)).astype(np.float32)
    w = random.standard_normal((*window, channels, features)).astype(np.float32)
    geometry = (strides, padding, (1, 1), 1)
    parameters = convolution._geometry(x, w, strides, padding, {"dimension_numbers": NHWC})
    used = "".join(
        role
        for role in onednn.ROLES
        if onednn.implementation(parameters, role, x.shape, features) == "images in lanes"
    )
    if used != roles:
        assert used == ""
        pytest.skip("this processor has no AVX-512")
    y, pullback = jax.vjp(lambda x, w: convolve(x, w, *geometry), x, w)
    with jax.enable_x64(True):
        wide = (jnp.asarray(a, jnp.float64) for a in (x, w))
        expected, expected_pullback = jax.vjp(
            lambda x, w: convolve(x, w, *geometry, through=lax.conv_general_dilated), *wide
        )
        cotangent = random.standard_normal(y.shape)
        gradients = expected_pullback(jnp.asarray(cotangent))
    assert relative_error(y, expected) < 2e-6
    for actual, gradient in zip(
        pullback(jnp.asarray(cotangent, jnp.float32)), gradients, strict=True
    ):
        # the kernel's is a sum over all places of all images
        assert relative_error(actual, gradient) < 1e-5


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("name", ["grouped", "1-D"])
def test_transformations_equal_jax_lax(name, transformation, native):
    """The rules themselves are held to 1e-9 by test_convolution; here a rule that fits another
    shape or operand would be off by much more than float32's rounding of these sums, whose terms
    cancel.
    """
    transform = TRANSFORMATIONS[transformation]
    x, w, geometry = operands(name)
    actual = transform(lambda x, w: smooth(x, w, geometry))(jnp.asarray(x), jnp.asarray(w))
    with jax.enable_x64(True):
        x, w = jnp.asarray(x, jnp.float64), jnp.asarray(w, jnp.float64)
        expected = transform(lambda x, w: smooth(x, w, geometry, through=lax.conv_general_dilated))(
            x, w
        )
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert relative_error(a, b) < 1e-4


@pytest.mark.parametrize("replicas", [1, 2, 5])
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)], ids=str)
@pytest.mark.parametrize("name", ["asymmetric", "1-D"])
def test_vmap_computes_each_replica(name, axes, replicas, native):
    x, w, geometry = operands(name)
    x, w = (
        jnp.asarray(a) if axis is None else jnp.stack([a * (1 + k) for k in range(replicas)])
        for a, axis in zip((x, w), axes, strict=True)
    )
    gradient = jax.grad(lambda x, w: smooth(x, w, geometry), (0, 1))
    mapped = jax.jit(jax.vmap(gradient, axes))(x, w)
    shared = jax.grad(
        lambda x, w: jax.vmap(lambda x, w: smooth(x, w, geometry), axes)(x, w).sum(), (0, 1)
    )(x, w)
    single = [
        gradient(*(a if axis is None else a[k] for a, axis in zip((x, w), axes, strict=True)))
        for k in range(replicas)
    ]
    for i, axis in enumerate(axes):
        each = np.stack([one[i] for one in single])
        assert relative_error(mapped[i], each) < 2e-6
        assert relative_error(shared[i], each.sum(0) if axis is None else each) < 2e-6


def test_other_dtypes_and_negative_padding_are_left_to_xla(native):
    x, w, geometry = operands("3-D")
    assert formulation_used(x, w, geometry) == "onednn", "of pictures, see jaxcnn.ops.cpu.frames"
    x, w, geometry = operands("plain")
    half = (jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16))
    assert formulation_used(*half, geometry) == "fast"
    cropped = (geometry[0], ((-1, 0), (0, 2)), *geometry[2:])
    assert formulation_used(x, w, cropped) == "fast"
    np.testing.assert_allclose(
        convolve(x, w, *cropped),
        brute_force(x[:, 1:], w, geometry[0], ((0, 0), (0, 2)), *geometry[2:]),
        rtol=1e-4,
    )


def test_another_platform_gets_its_own_convolution(native):
    x, w, geometry = operands("plain")
    step = jax.jit(jax.grad(lambda w, x: smooth(x, w, geometry)))
    text = jax.export.export(step, platforms=("cuda",))(w, x).mlir_module()
    assert "stablehlo.convolution" in text
    assert "jaxcnn_onednn" not in text
    # nor the conditional behind which the CPU's input is stored
    assert "stablehlo.case" not in text


def test_threads_at_the_same_time_get_bitwise_equal_results(native):
    x, w, geometry = operands("plain")
    gradient = jax.jit(jax.grad(lambda x, w: smooth(x, w, geometry), (0, 1)))
    expected = jax.tree.map(np.asarray, gradient(x, w))
    barrier = threading.Barrier(4)

    def work(_):
        barrier.wait()
        return [jax.tree.map(np.asarray, gradient(x, w)) for _ in range(30)]

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for results in threads.map(work, range(4)):
            for result in results:
                jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_sharded_data_under_jit_are_left_to_xla_and_under_shard_map_computed_by_onednn(native):
    results = run_sharded("onednn")
    for way in ("jit", "shard_map"):
        assert results[way]["error"] < 1e-5
        assert results[way]["gathers"] == 0
    assert results["jit"]["custom_calls"] == 0
    assert results["shard_map"]["custom_calls"] > 0
    assert results["scan"]["finite"]


# ---- max-pooling ---------------------------------------------------------------------------------

IMAGE_POOLS = [
    name
    for name, (shape, window, *_) in test_pooling.POOLS.items()
    if len(shape) < 5 and window != (7, 7)
]


def scattered_by(f, x) -> set[str]:
    """The formulations by which f's max-pools put their gradients into place; none is XLA's own."""
    equations = jax.make_jaxpr(f)(x).eqns
    return {e.params["formulation"] for e in equations if str(e.primitive) == "max_pool_put"}


@pytest.mark.parametrize(
    "images, channels",
    [
        *((3, channels) for channels in (1, 3, 6, 7, 8, 13, 16, 23, 64, 70)),
        *((MANY_IMAGES, c) for c in (1, 3, 6)),
    ],
)
@pytest.mark.parametrize("name", IMAGE_POOLS)
def test_max_pool_and_its_gradient_equal_select_and_scatter_exactly(name, images, channels, native):
    shape, window, strides, padding = test_pooling.POOLS[name]
    x = jnp.asarray(-1e30 + 1e29 * test_pooling.tied((images, *shape[1:-1], channels)))
    expected, expected_pullback = jax.vjp(lambda x: nn.max_pool(x, window, strides, padding), x)
    pool = lambda x: pooling.max_pool(x, window, strides=strides, padding=padding)  # noqa: E731
    y, pullback = jax.vjp(pool, x)
    np.testing.assert_array_equal(y, expected)
    random = np.random.default_rng(1)
    # sums of integers are exact
    cotangent = jnp.asarray(random.integers(-8, 9, y.shape).astype(np.float32))
    gradient = pullback(cotangent)[0]
    np.testing.assert_array_equal(gradient, expected_pullback(cotangent)[0])
    tangent = jnp.asarray(random.integers(-8, 9, x.shape).astype(np.float32))
    assert float(jnp.vdot(jax.jvp(pool, (x,), (tangent,))[1], cotangent)) == float(
        jnp.vdot(tangent, gradient)
    )
    lowered = (
        jax.jit(lambda x, cotangent: jax.vjp(pool, x)[1](cotangent)).lower(x, cotangent).as_text()
    )
    assert "jaxcnn_pool_max" in lowered
    assert "jaxcnn_pool_put" in lowered


@pytest.mark.parametrize("transformation", test_pooling.TRANSFORMATIONS)
@pytest.mark.parametrize("name", ["tiles, padded", "overlapping, padded", "1-D"])
def test_transformations_of_max_pool_equal_flax(name, transformation, native):
    shape, window, strides, padding = test_pooling.POOLS[name]
    transform = test_pooling.TRANSFORMATIONS[transformation]
    x = jnp.asarray(np.random.default_rng(2).standard_normal(shape), jnp.float32)
    expected = transform(lambda x: jnp.sum(jnp.sin(nn.max_pool(x, window, strides, padding))))(x)
    actual = transform(
        lambda x: jnp.sum(jnp.sin(pooling.max_pool(x, window, strides=strides, padding=padding)))
    )(x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), actual, expected
    )


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (1, 1), (0, -1)], ids=str)
def test_vmap_of_max_pool_with_shared_operands(axes, native):
    """Tangents mapped over a shared image, and images mapped under a shared tangent, forward and
    reverse.
    """
    random = np.random.default_rng(0)
    x, t = random.standard_normal((2, 3, 2, 7, 8, 6)).astype(np.float32)
    forward = lambda pool: lambda x, t: jax.jvp(pool, (x,), (t,))[1]  # noqa: E731
    reverse = lambda pool: lambda x, t: jax.vjp(pool, x)[1](pool(t))[0]  # noqa: E731
    operands = [
        jnp.asarray(a[0]) if axis is None else jnp.moveaxis(jnp.asarray(a), 0, axis)
        for a, axis in zip((x, t), axes, strict=True)
    ]
    for derivative in (forward, reverse):
        expected, actual = (
            jax.vmap(
                derivative(lambda x, pool=pool: pool(x, (3, 3), strides=(2, 2), padding="SAME")),
                axes,
            )(*operands)
            for pool in (nn.max_pool, pooling.max_pool)
        )
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_max_pool_of_nan_and_of_nothing_but_minus_infinity(native):
    x = np.full((1, 4, 4, 6), -np.inf, np.float32)
    x[0, 0, 1] = np.nan
    x[0, 3, 2:] = [[5.0], [np.nan]]
    y, pullback = jax.vjp(lambda x: pooling.max_pool(x, (2, 2)), jnp.asarray(x))
    np.testing.assert_array_equal(y[0, :, :, 0], [[np.nan, -np.inf], [-np.inf, np.nan]])
    gradient = pullback(jnp.ones_like(y))[0]
    assert gradient.sum() == y.size  # each window gives its gradient to one element
    np.testing.assert_array_equal(gradient[0, 0, 1], 1)


def test_other_max_pools_are_left_to_xla(native):
    image, half, volume = (
        jnp.ones((1, 8, 8, 2)),
        jnp.ones((1, 8, 8, 2), jnp.bfloat16),
        jnp.ones((1, 4, 4, 4, 2)),
    )

    def gradient(window):
        return jax.grad(lambda x: pooling.max_pool(x, window).astype(jnp.float32).sum())

    assert scattered_by(gradient((2, 2)), image) == {"onednn"}
    assert scattered_by(gradient((2, 2)), half) == {"fast"}
    assert scattered_by(gradient((2, 2, 2)), volume) == {"fast"}
    assert scattered_by(gradient((6, 6)), image) <= {"fast"}
    with convolution.formulation("fast"):
        assert scattered_by(gradient((2, 2)), image) == {"fast"}
    text = jax.export.export(jax.jit(gradient((2, 2))), platforms=("cuda",))(image).mlir_module()
    assert "jaxcnn_pool" not in text


# ---- where it cannot be had ----------------------------------------------------------------------


@pytest.fixture
def forgotten(monkeypatch, tmp_path):
    """A process that has not looked for oneDNN yet, with an empty cache folder."""
    caches = (onednn._problem, onednn._load, onednn._tell)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    yield monkeypatch
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


def absent(package):
    raise metadata.PackageNotFoundError(package)


def test_missing_wheels_are_silent_under_auto_and_named_when_asked_for(forgotten):
    forgotten.setattr(metadata, "files", absent)
    forgotten.setattr(onednn.sys, "platform", "linux")
    forgotten.setattr(onednn.platform, "machine", lambda: "x86_64")
    forgotten.delenv(convolution.VARIABLE, raising=False)
    # a warning would be an error
    assert convolution.current_formulation() == (
        "fast" if jax.default_backend() == "cpu" else "natural"
    )
    with (
        pytest.raises(
            DependencyError,
            match=r"onednn-cpu-gomp is not installed; pip install 'jaxcnn\[onednn\]'",
        ),
        convolution.formulation("onednn"),
    ):
        pass
    forgotten.setenv(convolution.VARIABLE, "onednn")
    x, w, geometry = operands("plain")
    with pytest.warns(RuntimeWarning, match="computed without oneDNN"):
        y = convolve(x, w, *geometry)
    convolve(x, w, *geometry)  # a second warning would be an error
    np.testing.assert_allclose(y, brute_force(x, w, *geometry), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("machine, system", [("aarch64", "linux"), ("x86_64", "darwin")])
def test_other_machines_are_named(machine, system, forgotten):
    forgotten.setattr(onednn.platform, "machine", lambda: machine)
    forgotten.setattr(onednn.sys, "platform", system)
    with pytest.raises(DependencyError, match=f"not for {system} on {machine}"):
        onednn.require()


@pytest.mark.parametrize(
    "compiler, message",
    [("no-such-compiler", "g\\+\\+.*is missing"), ("false", "could not compile")],
)
def test_installed_wheels_without_a_working_compiler_warn_once(
    compiler, message, forgotten, tmp_path
):
    forgotten.setattr(onednn, "_find_onednn", lambda: (tmp_path, tmp_path))
    forgotten.setenv("CXX", compiler)
    with pytest.warns(RuntimeWarning, match=message):
        assert not onednn.available()
    assert not onednn.available()  # a second warning would be an error
    assert not list(tmp_path.rglob("*.so"))


def test_a_disk_without_room_is_told_as_a_warning(forgotten, tmp_path):
    def full(**_):
        raise OSError(28, "No space left on device")

    (tmp_path / "libdnnl.so.3").touch()
    forgotten.setattr(onednn, "_find_onednn", lambda: (tmp_path / "libdnnl.so.3", tmp_path))
    forgotten.setenv("CXX", "true")
    forgotten.setattr(onednn.tempfile, "TemporaryDirectory", full)
    with pytest.warns(RuntimeWarning, match="cannot be compiled .*No space left"):
        assert not onednn.available()


def test_a_library_with_headers_of_another_version_is_refused(forgotten, tmp_path):
    class File(str):
        def locate(self):
            return tmp_path / self

    names = {
        "onednn-cpu-gomp": "libdnnl.so.3",
        "onednn-devel-cpu-gomp": "include/oneapi/dnnl/dnnl.hpp",
    }
    for name in names.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    versions = dict.fromkeys(names, "2023.2.0")
    forgotten.setattr(onednn.platform, "machine", lambda: "x86_64")
    forgotten.setattr(onednn.sys, "platform", "linux")
    forgotten.setattr(onednn.metadata, "files", lambda package: [File(names[package])])
    forgotten.setattr(onednn.metadata, "version", versions.__getitem__)
    assert onednn._find_onednn() == (tmp_path / "libdnnl.so.3", tmp_path / "include")
    versions["onednn-cpu-gomp"] = "2024.0.0"
    with pytest.raises(onednn._Unavailable, match=r"version 2024.0.0 and its headers are of 2023"):
        onednn._find_onednn()


def test_a_cache_folder_that_others_can_write_to_is_refused(forgotten, tmp_path):
    directory = tmp_path / "jaxcnn" / "onednn"
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    with pytest.raises(onednn._Unavailable, match="writable for you alone"):
        onednn._private_directory()
    directory.chmod(0o700)
    assert onednn._private_directory() == directory


def test_the_cache_folder_is_private_and_a_build_is_one_rename(native, forgotten, tmp_path):
    wheels = onednn._find_onednn()
    built = onednn._build(*wheels)
    # nothing but the result is left
    assert list((tmp_path / "jaxcnn" / "onednn").iterdir()) == [built]
    assert stat.S_IMODE(built.parent.stat().st_mode) == 0o700
    before = built.stat().st_mtime_ns
    assert onednn._build(*wheels) == built
    assert built.stat().st_mtime_ns == before
    built.write_bytes(b"not a library")
    with pytest.raises(onednn._Unavailable, match="delete the file"):
        onednn._load()
