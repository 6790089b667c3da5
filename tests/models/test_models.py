"""Models: sizes against their sources, LeNet-5 against an independent PyTorch version, and learning
where a source claims it.
"""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.layers import bitmap_targets
from jaxcnn.models import MODELS, build
from jaxcnn.models.fashion import FashionCNN
from jaxcnn.models.lenet import C3_TABLE, LeNet5, LeNet5Modern, RGBDigitNet
from jaxcnn.models.mlp import MLP

KEY = jax.random.key(0)

# Parameters: LeCun et al. 1998, section II-B; Géron, chapter 14 (Keras's model.summary()); the
# others by hand from their layers.
PARAMETERS = {
    "sigmoid_mlp": 261,
    "lenet5": 60_000,
    "lenet5_modern": 61_706,
    "rgb_digit_net": 62_006,
    "fashion_cnn": 1_413_834,
}
OUTPUTS = {"sigmoid_mlp": 1}


def _sizes(params):
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(below)) for name, below in params.items()
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_output_parameters_gradient_and_bfloat16(name):
    model, shape = build(name)
    x = jax.random.uniform(KEY, (2, *shape))
    variables = jax.jit(lambda: model.init(KEY, x, train=False))()
    assert set(variables) == {"params"}
    assert sum(_sizes(variables["params"]).values()) == PARAMETERS[name]

    def outputs(params, x):
        return model.apply({"params": params}, x, train=False)

    total = jax.value_and_grad(lambda p: jnp.sum(jnp.square(outputs(p, x))))
    y, gradient = jax.device_get(jax.jit(total)(variables["params"]))
    assert np.isfinite(y)
    assert all(np.isfinite(leaf).all() and np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    half = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), (variables["params"], x)
    )
    out = jax.eval_shape(outputs, *half)
    assert (out.shape, out.dtype) == ((2, OUTPUTS.get(name, 10)), jnp.bfloat16)


def test_every_listed_model_of_this_file_is_here():
    assert set(PARAMETERS) <= set(MODELS)


def test_lenet5_parameters_layer_by_layer():
    params = jax.jit(LeNet5().init)(KEY, jnp.zeros((1, 28, 28, 1)))["params"]
    assert _sizes(params) == {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164}


def test_lenet5_equals_an_independent_torch_version():
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).uniform(size=(3, 28, 28, 1)).astype(np.float32)
    model = LeNet5()
    params = model.init(KEY, jnp.asarray(image))["params"]
    p = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), params)

    def squash(x):
        return 1.7159 * torch.tanh(2 * x / 3)

    def subsample(x, name):
        added = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]
        return squash(
            added * p[name]["coefficient"][:, None, None] + p[name]["bias"][:, None, None]
        )

    def convolve(x, name):
        return squash(
            torch.nn.functional.conv2d(x, p[name]["kernel"].permute(3, 2, 0, 1), p[name]["bias"])
        )

    x = torch.full((3, 1, 32, 32), -0.1)
    x[:, :, 2:30, 2:30] = torch.from_numpy(image).permute(0, 3, 1, 2) * (1.175 + 0.1) - 0.1
    x = subsample(convolve(x, "C1"), "S2")
    weight, connection = torch.zeros(16, 6, 5, 5), 0
    for k, sources in enumerate(C3_TABLE):
        for source in sources:
            weight[k, source] = p["C3"]["kernel"][:, :, connection]
            connection += 1
    x = squash(torch.nn.functional.conv2d(x, weight, p["C3"]["bias"]))
    x = convolve(subsample(x, "S4"), "C5")[:, :, 0, 0]
    x = squash(x @ p["F6"]["kernel"] + p["F6"]["bias"])
    expected = -(torch.cdist(x, torch.tensor(bitmap_targets(), dtype=torch.float32)) ** 2)
    np.testing.assert_allclose(
        model.apply({"params": params}, jnp.asarray(image)), expected.numpy(), rtol=1e-4
    )


def test_lenet5_takes_padded_images_as_they_are():
    image = jax.random.uniform(KEY, (2, 28, 28, 1))
    model = LeNet5()
    variables = jax.jit(model.init)(KEY, image)
    padded = jnp.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)))
    assert np.array_equal(model.apply(variables, image), model.apply(variables, padded))


def test_lenet5_starts_uniform_in_the_range_of_the_paper():
    params = jax.jit(LeNet5().init)(KEY, jnp.zeros((1, 28, 28, 1)))["params"]
    for name, fan_in in {"C1": 25, "S2": 4, "S4": 4, "C5": 400, "F6": 120}.items():
        values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params[name])])
        assert np.abs(values).max() <= 2.4 / fan_in, name
        assert values.size < 100 or np.isclose(values.std(), 2.4 / fan_in / 3**0.5, rtol=0.15), name


def test_modern_lenet_equals_torch():
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).uniform(size=(2, 28, 28, 1)).astype(np.float32)
    model = LeNet5Modern(activation="tanh", pooling="avg")
    params = model.init(KEY, jnp.asarray(image))["params"]
    p = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), params)
    f = torch.nn.functional
    x = torch.from_numpy(image).permute(0, 3, 1, 2)
    for name, pad in (("conv1", 2), ("conv2", 0)):
        x = f.avg_pool2d(
            torch.tanh(
                f.conv2d(x, p[name]["kernel"].permute(3, 2, 0, 1), p[name]["bias"], padding=pad)
            ),
            2,
        )
    x = x.permute(0, 2, 3, 1).reshape(2, -1)
    for name in ("fc3", "fc4"):
        x = torch.tanh(x @ p[name]["kernel"] + p[name]["bias"])
    expected = x @ p["output"]["kernel"] + p["output"]["bias"]
    np.testing.assert_allclose(
        model.apply({"params": params}, jnp.asarray(image)), expected.numpy(), rtol=1e-4, atol=1e-5
    )


def test_lenet5_learns_real_digits():
    """The distances reach the hundreds; a small clipped step must still learn."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    image = jax.image.resize(
        jnp.asarray(digits.images[:64, ..., None] / 16, jnp.float32), (64, 28, 28, 1), "bilinear"
    )
    label = jnp.asarray(digits.target[:64])
    model, optimizer = (
        LeNet5(),
        optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.02, momentum=0.9)),
    )
    params = jax.jit(model.init)(KEY, image)["params"]

    @jax.jit
    def step(params, state):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(
                model.apply({"params": params}, image), label
            ).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(150):
        params, state = step(params, state)
    correct = jnp.argmax(model.apply({"params": params}, image), axis=-1) == label
    assert correct.mean() > 0.95


def test_sigmoid_mlp_learns_xor_by_plain_sgd_from_every_seed():
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = jnp.array([[0.0], [1.0], [1.0], [0.0]])
    model, optimizer = MLP(), optax.sgd(1.0)

    def loss(params):
        return optax.sigmoid_binary_cross_entropy(model.apply({"params": params}, x), y).mean()

    def train(key):
        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        params = model.init(key, x)["params"]
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=4000)
        return model.apply({"params": params}, x)

    logits = jax.jit(jax.vmap(train))(jax.random.split(KEY, 8))
    assert np.all((logits > 0) == (y[None] > 0.5))


def test_mlp_flattens_images():
    model, image = MLP((5, 3)), jax.random.uniform(KEY, (2, 4, 4, 1))
    variables = jax.jit(model.init)(KEY, image)
    assert np.array_equal(
        model.apply(variables, image), model.apply(variables, image.reshape(2, 16))
    )


def test_fashion_cnn_drops_out_in_training_only():
    model, image = FashionCNN(), jax.random.uniform(KEY, (2, 8, 8, 1))
    variables = jax.jit(model.init)(KEY, image)

    def trained(seed):
        return model.apply(variables, image, train=True, rngs={"dropout": jax.random.key(seed)})

    assert np.array_equal(model.apply(variables, image), model.apply(variables, image))
    assert np.array_equal(trained(1), trained(1))
    assert not np.array_equal(trained(1), trained(2))


@pytest.mark.parametrize(
    "model, shape, message",
    [
        (
            LeNet5(),
            (1, 28, 28, 3),
            r"LeNet5 expects images .*28x28 or 32x32 with C = 1, found shape \(1, 28, 28, 3\)",
        ),
        (LeNet5(), (1, 30, 30, 1), r"found shape \(1, 30, 30, 1\)"),
        (LeNet5(num_classes=26), (1, 28, 28, 1), "LeNet5Modern"),
        (LeNet5Modern(), (1, 8, 8, 1), "at least 12x12"),
        (LeNet5Modern(pooling="mx"), (1, 28, 28, 1), "did you mean 'max'"),
        (LeNet5Modern(activation="thanh"), (1, 28, 28, 1), "did you mean 'tanh'"),
        (RGBDigitNet(), (1, 15, 32, 3), "RGBDigitNet expects .* at least 16x16"),
        (FashionCNN(), (28, 28, 1), r"\[B, H, W, C\]"),
        (FashionCNN(), (1, 7, 28, 1), "at least 8x8"),
        (MLP(()), (1, 2), "features = "),
        (MLP(), (2,), "batch axis"),
    ],
)
def test_models_name_what_is_wrong(model, shape, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(lambda: model.init(KEY, jnp.zeros(shape), train=False))


def test_build_passes_fields_and_suggests_names():
    assert build("lenet5_modern", num_classes=62)[0] == LeNet5Modern(num_classes=62)
    with pytest.raises(ConfigError, match="did you mean 'lenet5'"):
        build("lenet_5")


def test_the_list_of_models_imports_no_model():
    code = (
        "import sys, jaxcnn.models; print([m for m in ('jax', 'flax', 'jaxcnn.layers', "
        "'jaxcnn.models.lenet') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
