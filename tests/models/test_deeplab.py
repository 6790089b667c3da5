"""DeepLab heads against torchvision, the up-convolution of the U-Net against Flax, the size of
SimpleBaseline, and all their shapes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.models import deeplab, keypoints, unet
from jaxcnn.models.resnet import BasicBlock, ResNet
from jaxcnn.weights import load
from tests.torchvision_peer import import_torchvision

KEY = jax.random.key(0)
TRUNK = ResNet((1, 1, 1, 1), BasicBlock, widths=(4, 8, 8, 8), stem_width=4, pyramid=True)

# torchvision.models.segmentation.deeplabv3: DeepLabHead(ASPP, conv, norm, relu, conv)
HEAD_RULES = (
    *(
        (rf"0\.convs\.{i}\.{t}\.", f"aspp/{n}/{o}/")
        for i, n in ((0, "point"), (1, "atrous1"), (2, "atrous2"), (3, "atrous3"))
        for t, o in ((0, "conv"), (1, "norm"))
    ),
    (r"0\.convs\.4\.1\.", "aspp/pool/conv/"),
    (r"0\.convs\.4\.2\.", "aspp/pool/norm/"),
    (r"0\.project\.0\.", "aspp/project/conv/"),
    (r"0\.project\.1\.", "aspp/project/norm/"),
    (r"1\.", "conv/conv/"),
    (r"2\.", "conv/norm/"),
    (r"4\.", "head/"),
)


@pytest.mark.parametrize("rates", [(12, 24, 36), (2, 3, 5)])
def test_the_head_of_deeplabv3_equals_torchvisions(rates):
    torch = pytest.importorskip("torch")
    import_torchvision()
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    peer = DeepLabHead(16, 5, atrous_rates=rates)
    generator = torch.Generator().manual_seed(0)
    for name, value in peer.named_buffers():  # statistics that are not those of a fresh network
        if name.endswith("running_mean"):
            value.normal_(0, 0.1, generator=generator)
        if name.endswith("running_var"):
            value.uniform_(0.005, 0.02, generator=generator)
    image = np.random.default_rng(0).normal(size=(2, 9, 11, 16)).astype(np.float32)
    with torch.no_grad():
        theirs = (
            peer.eval()(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))
            .numpy()
            .transpose(0, 2, 3, 1)
        )
    model = deeplab.DeepLabV3Head(5, rates=rates)
    shapes = dict(jax.eval_shape(lambda: model.init(KEY, jnp.asarray(image), train=False)))
    params, state = (
        jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), tree)
        for tree in (shapes.pop("params"), shapes)
    )
    params, state, report = load.load_weights(params, state, peer.state_dict(), HEAD_RULES)
    assert not report.unmatched
    assert not report.unused
    ours = jax.jit(lambda p, s: model.apply({"params": p, **s}, jnp.asarray(image), train=False))(
        params, state
    )
    assert theirs.std() > 0.05, "the comparison would be empty"
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_enlarging_equals_torchs_interpolation():
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).normal(size=(1, 3, 5, 2)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image.transpose(0, 3, 1, 2).copy()), (11, 16), mode="bilinear"
    )
    np.testing.assert_allclose(
        deeplab.enlarge(jnp.asarray(image), (11, 16)),
        theirs.numpy().transpose(0, 2, 3, 1),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "model, shape, output",
    [
        pytest.param(
            *(
                deeplab.DeepLabV3Plus(5, trunk=TRUNK, features=8, low_features=4),
                (2, 64, 96, 3),
                (2, 64, 96, 5),
            ),
            marks=pytest.mark.slow,
        ),
        (
            deeplab.DeepLabV3Plus(5, trunk=TRUNK, features=8, low_features=4),
            (2, 65, 50, 3),
            (2, 65, 50, 5),
        ),
        (
            keypoints.SimpleBaseline(7, trunk=TRUNK, widths=(8, 8, 4)),
            (2, 64, 96, 3),
            (2, 16, 24, 7),
        ),
        (keypoints.SmallKeypointNet(5, widths=(4, 8, 8)), (2, 16, 24, 1), (2, 8, 12, 5)),
        (unet.UNet(4, (4, 8), batch_norm=True, patch=2), (2, 12, 16, 1), (2, 12, 16, 4)),
        (unet.UNet(4, (4, 8), patch=4), (1, 32, 2), (1, 32, 4)),
    ],
    ids=[
        "deeplab",
        "deeplab-odd",
        "simple-baseline",
        "small-keypoints",
        "unet-patch",
        "unet-patch-1d",
    ],
)
def test_shapes_gradients_and_bfloat16(model, shape, output):
    image = jax.random.normal(KEY, shape)
    keys = {"params": KEY, "dropout": KEY}
    variables = jax.jit(lambda: model.init(keys, image, train=False))()

    def loss(params):
        outputs, _ = model.apply(
            {**variables, "params": params},
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": KEY},
        )
        return jnp.mean(jnp.square(outputs)), outputs

    (value, outputs), gradient = jax.device_get(
        jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    )
    assert outputs.shape == output
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() and np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    half = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), (variables["params"], image)
    )
    with jax.numpy_dtype_promotion("standard"):  # running statistics stay float32
        low = jax.eval_shape(
            lambda params, image: model.apply({**variables, "params": params}, image, train=False),
            *half,
        )
    assert low.dtype == jnp.bfloat16


def test_simple_baseline_has_the_size_of_its_paper():
    """34.0 M parameters (table 1 of Sun et al., "Deep high-resolution representation learning",
    2019), and by hand from its layers.
    """
    model = keypoints.simple_baseline_resnet50(num_points=17)
    params = jax.eval_shape(lambda: model.init(KEY, jnp.zeros((1, 256, 192, 3)), train=False))[
        "params"
    ]
    trunk = 25_557_032 - (2048 * 1000 + 1000)  # ResNet-50 (torchvision) without its classifier
    up = 16 * (2048 * 256 + 256 * 256 + 256 * 256) + 3 * 2 * 256
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == trunk + up + 256 * 17 + 17


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 6, 3), (2, 3, 4, 2, 3)])
def test_up_convolution_equals_flaxs_transposed_convolution(shape):
    x, window = jax.random.normal(KEY, shape), (2,) * (len(shape) - 2)
    variables = nn.ConvTranspose(
        4, window, window, "VALID", bias_init=nn.initializers.normal()
    ).init(jax.random.key(1), x)
    ours, theirs = (
        unet.UpConv(4).apply(variables, x),
        nn.ConvTranspose(4, window, window, "VALID").apply(variables, x),
    )
    np.testing.assert_allclose(jnp.asarray(ours), jnp.asarray(theirs), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 12, 3), (2, 6, 12, 3), (1, 6, 12, 18, 2)])
@pytest.mark.parametrize("side", [2, 3])
def test_blocks_become_channels_and_come_back(shape, side):
    x = jnp.arange(np.prod(shape)).reshape(shape)
    cells = unet.blocks_to_channels(x, side)
    np.testing.assert_array_equal(
        cells[(0, *(1,) * (len(shape) - 2))].reshape(-1),
        x[(0, *(slice(side, 2 * side),) * (len(shape) - 2))].reshape(-1),
    )
    np.testing.assert_array_equal(unet.channels_to_blocks(cells, side), x)


@pytest.mark.parametrize(
    "model, shape, says",
    [
        (
            keypoints.SmallKeypointNet(5),
            (1, 24, 64, 1),
            "24x64 cannot be halved 4 times; resize to multiples of 16",
        ),
        (unet.UNet(4, (4, 8), patch=2), (1, 11, 12, 1), "blocks of patch=2"),
        (unet.UNet(4, (4, 8), patch=2), (1, 10, 12, 1), "must be even"),
    ],
)
def test_sizes_that_do_not_fit_are_named(model, shape, says):
    with pytest.raises(ConfigError, match=says):
        jax.eval_shape(lambda: model.init(KEY, jnp.zeros(shape), train=False))
