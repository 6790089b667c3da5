"""The architectures against the figures of their papers and of torchvision and timm: parameters,
multiplications, shapes, gradients.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import ConfigError
from jaxcnn.inspect.summary import summarize_layers
from jaxcnn.models import (
    alexnet,
    convnext,
    densenet,
    efficientnet,
    googlenet,
    inception,
    mobilenet,
    resnet,
    speed,
    unet,
    vgg,
)

# model, image size and channels, parameters, and where that number is from
PARAMETERS = [
    (
        alexnet.alexnet(),
        (227, 3),
        60_965_224,
    ),  # Krizhevsky et al. 2012: "60 million"; layer sums of figure 2 with its groups
    (alexnet.alexnet_ungrouped(), (227, 3), 62_378_344),  # layer sums of figure 2 without groups
    (alexnet.alexnet_torchvision(), (224, 3), 61_100_840),  # torchvision, as all below unless said
    (vgg.vgg11(), (224, 3), 132_863_336),
    (vgg.vgg13(), (224, 3), 133_047_848),
    (vgg.vgg16(), (224, 3), 138_357_544),
    (vgg.vgg19(), (224, 3), 143_667_240),
    (vgg.vgg11_bn(), (224, 3), 132_868_840),
    (vgg.vgg13_bn(), (224, 3), 133_053_736),
    (vgg.vgg16_bn(), (224, 3), 138_365_992),
    (vgg.vgg19_bn(), (224, 3), 143_678_248),
    (
        vgg.vgg16_bn(conv_bias=False),
        (224, 3),
        138_365_992 - 4_224,
    ),  # 4,224 channels have one redundant bias each
    (googlenet.googlenet(auxiliary_heads=False), (224, 3), 6_998_552),  # Caffe's bvlc_googlenet
    (googlenet.googlenet(), (224, 3), 13_378_280),  # with its two auxiliary heads
    (googlenet.googlenet_bn(), (224, 3), 6_624_904),
    (inception.inception_v3(), (299, 3), 27_161_264),
    (inception.inception_v3(auxiliary_head=False), (299, 3), 23_834_568),  # timm
    (resnet.resnet18(), (224, 3), 11_689_512),
    (resnet.resnet34(), (224, 3), 21_797_672),
    (resnet.resnet50(), (224, 3), 25_557_032),
    (resnet.resnet50(stride_first=True), (224, 3), 25_557_032),
    (resnet.resnet101(), (224, 3), 44_549_160),
    (resnet.resnet152(), (224, 3), 60_192_808),
    (resnet.wide_resnet50_2(), (224, 3), 68_883_240),
    (resnet.resnext50_32x4d(), (224, 3), 25_028_904),
    (resnet.seresnet50(), (224, 3), 28_088_024),  # timm
    (resnet.resnetv2_50(), (224, 3), 25_549_352),  # timm
    (
        resnet.resnet18(num_classes=10, stem="cifar"),
        (32, 3),
        11_173_962,
    ),  # the ResNet-18 of many CIFAR-10 repositories: 11.17 M
    (
        resnet.wide_resnet28_10(),
        (32, 3),
        36_479_194,
    ),  # Zagoruyko and Komodakis 2016, table 5: 36.5 M
    (densenet.densenet121(), (224, 3), 7_978_856),
    (densenet.densenet161(), (224, 3), 28_681_000),
    (densenet.densenet169(), (224, 3), 14_149_480),
    (densenet.densenet201(), (224, 3), 20_013_928),
    (densenet.densenet_cifar(), (32, 3), 769_162),  # Huang et al. 2017, table 2: 0.8 M
    (mobilenet.mobilenet_v2(), (224, 3), 3_504_872),
    (mobilenet.mobilenet_v3_large(), (224, 3), 5_483_032),
    (mobilenet.mobilenet_v3_small(), (224, 3), 2_542_856),
    (efficientnet.efficientnet_b0(), (224, 3), 5_288_548),
    (efficientnet.efficientnet_b1(), (240, 3), 7_794_184),
    (efficientnet.efficientnet_b4(), (380, 3), 19_341_616),
    (convnext.convnext_tiny(), (224, 3), 28_589_128),
    (convnext.convnext_small(), (224, 3), 50_223_688),
    (convnext.convnext_base(), (224, 3), 88_591_464),
    (convnext.convnext_large(), (224, 3), 197_767_336),
]


def shapes_of(model, *shape):
    """Shapes of the variables for one image, without computing them."""
    return jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape), jnp.float32), train=False)
    )


def num_params(model, *shape) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(model, *shape)["params"]))


@pytest.mark.parametrize(
    "model, size, expected",
    PARAMETERS,
    ids=[f"{type(row[0]).__name__}-{row[2]}" for row in PARAMETERS],
)
def test_parameter_count(model, size, expected):
    pixels, channels = size
    assert num_params(model, pixels, pixels, channels) == expected


def test_batch_statistics_of_resnet50():
    """Two for each normalized channel: 53,120, by which Keras's total count exceeds ours (beside
    its 26,560 biases).
    """
    assert (
        sum(
            leaf.size
            for leaf in jax.tree.leaves(shapes_of(resnet.resnet50(), 224, 224, 3)["batch_stats"])
        )
        == 53_120
    )


def test_unet_parameter_count():
    """Sums over figure 1: two 3x3 convolutions a level, 2x2 up-convolutions, and two 3x3 ones on
    the concatenated maps.
    """
    widths, expected, channels = (64, 128, 256, 512, 1024), 0, 1
    for width in widths:
        expected += 9 * channels * width + width + 9 * width * width + width
        channels = width
    for width in reversed(widths[:-1]):
        expected += (
            4 * 2 * width * width
            + width
            + 9 * 2 * width * width
            + width
            + 9 * width * width
            + width
        )
    assert num_params(unet.unet(), 64, 64, 1) == expected + 64 * 2 + 2


def test_speednet_parameter_count():
    """airbench94: "1.97 M"; 288 whitening weights, 24 biases, six convolutions, a bias for each
    normalized channel, a head without bias.
    """
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256)
    assert (
        num_params(speed.speednet(), 32, 32, 3)
        == 288 + 24 + convolutions + 2 * (64 + 256 + 256) + 256 * 10
    )


def test_resnet_v1_multiplies_less_than_v1_5():
    """He et al. 2016, table 1: 3.8 x 10^9 for the ResNet-50 that strides in its 1x1
    convolutions.
    """
    rows = summarize_layers(
        resnet.resnet50(stride_first=True), (jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32),)
    )
    assert sum(row.macs for row in rows) / 1e9 == pytest.approx(3.8, abs=0.1)


# One small network for each way of building a family.
TINY = {
    "resnet": (resnet.ResNet((1, 1), resnet.BasicBlock, 4, (8, 16), "cifar", 8), (12, 12, 3)),
    "resnext_se_v1": (
        resnet.ResNet(
            (1, 1), resnet.Bottleneck, 4, (8, 16), groups=2, squeeze_ratio=0.25, stride_first=True
        ),
        (32, 32, 3),
    ),
    "pre_activation": (
        resnet.ResNet((1, 1), resnet.PreActBottleneck, 4, (8, 16), "cifar", 8),
        (12, 12, 3),
    ),
    "resnet_1d": (resnet.ResNet((1, 1), resnet.BasicBlock, 4, (8, 16), "imagenet", 8), (64, 2)),
    "vgg": (vgg.VGG((1, 1), 4, (8, 16), hidden=16, pool_size=None), (8, 8, 3)),
    "vgg_bn": (vgg.VGG((1, 2), 4, (8, 16), hidden=16, batch_norm=True, conv_bias=False), (8, 8, 3)),
    "alexnet": (alexnet.AlexNet(4, (8, 8, 8, 8, 8), hidden=16), (67, 67, 3)),
    "densenet": (densenet.DenseNet((2, 2), 4, 4, 8, stem="cifar"), (12, 12, 3)),
    "mobilenet_v2": (mobilenet.MobileNetV2(4, 0.5, stages=mobilenet.STAGES[:3]), (32, 32, 3)),
    "convnext": (convnext.ConvNeXt((1, 2), 4, (8, 16), drop_path=0.1), (32, 32, 3)),
    "unet": (unet.UNet(4, (4, 8)), (12, 12, 1)),
    "speed": (speed.SpeedNet(4, (8, 16, 16)), (16, 16, 3)),
}
SLOW = {  # a quarter to half a minute of compilation each
    "unet_3d_bn": (unet.UNet(4, (4, 8), batch_norm=True), (4, 4, 4, 1)),
    "resnet_3d": (
        resnet.ResNet((1, 1), resnet.BasicBlock, 4, (4, 8), "imagenet", 4),
        (16, 16, 16, 1),
    ),
    "mobilenet_v3": (mobilenet.MobileNetV3(mobilenet.SMALL[:4], 4, 16), (32, 32, 3)),
    "efficientnet": (
        efficientnet.EfficientNet(4, 0.5, stages=efficientnet.STAGES[:3]),
        (32, 32, 3),
    ),
    "googlenet": (googlenet.GoogLeNet(4), (80, 80, 3)),
    "googlenet_bn": (googlenet.googlenet_bn(num_classes=4), (64, 64, 3)),
    "inception_v3": (inception.InceptionV3(4, auxiliary_head=False), (75, 75, 3)),
}
ALL = [*TINY, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@functools.cache
def example(name: str):
    """(model, variables, a batch of images) of a small network."""
    model, shape = {**TINY, **SLOW}[name]
    image = np.random.default_rng(1).normal(size=(4, *shape)).astype(np.float32)
    init = jax.jit(lambda: model.init(jax.random.key(0), jnp.asarray(image), train=False))
    return model, jax.device_get(init()), image


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_gets_a_finite_gradient(name):
    model, variables, image = example(name)

    def loss(params):
        outputs, _ = model.apply(
            {**variables, "params": params},
            jnp.asarray(image),
            train=True,
            rngs={"dropout": jax.random.key(2)},
            mutable=True,
        )
        return sum(jnp.sum(jnp.sin(output)) for output in jax.tree.leaves(outputs))

    for path, gradient in jax.tree_util.tree_leaves_with_path(
        jax.jit(jax.grad(loss))(variables["params"])
    ):
        gradient = np.asarray(gradient)
        assert np.isfinite(gradient).all(), jax.tree_util.keystr(path)
        frozen = "whiten" in jax.tree_util.keystr(path) and gradient.ndim == 4
        assert np.any(gradient) != frozen, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_is_near_float32(name):
    """Flax's BatchNorm mixes its float32 statistics with bfloat16 maps on purpose, hence the
    standard promotion.
    """
    model, variables, image = example(name)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables["params"])
    with jax.numpy_dtype_promotion("standard"):
        apply = jax.jit(lambda variables, image: model.apply(variables, image, train=False))
        half = apply({**variables, "params": params}, image.astype(jnp.bfloat16))
        whole = apply(variables, image)
    assert half.dtype == jnp.bfloat16
    half, whole = np.asarray(half, np.float32), np.asarray(whole)
    assert np.max(np.abs(half - whole)) < 0.1 * np.std(whole) + 0.02


@pytest.mark.parametrize("name", ALL)
def test_vmap_over_parameters_equals_a_loop(name):
    model, variables, image = example(name)
    scaled = [
        jax.tree.map(lambda leaf, factor=factor: leaf * np.float32(factor), variables)
        for factor in (1.0, 0.9)
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *scaled)
    image = jnp.asarray(image[:2])
    apply = jax.jit(lambda variables: model.apply(variables, image, train=False))
    together = jax.jit(jax.vmap(lambda variables: model.apply(variables, image, train=False)))(
        stacked
    )
    for one, expected in zip(together, map(apply, scaled), strict=True):
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)


BACKBONES = [
    (resnet.resnet18(), 64, (64, 128, 256, 512), (4, 8, 16, 32)),
    (resnet.resnetv2_50(), 64, (256, 512, 1024, 2048), (4, 8, 16, 32)),
    (vgg.vgg16(), 64, (64, 128, 256, 512, 512), (1, 2, 4, 8, 16)),
    (googlenet.googlenet(), 64, (192, 480, 832, 1024), (4, 8, 16, 32)),
    (densenet.densenet121(), 64, (256, 512, 1024, 1024), (4, 8, 16, 32)),
    (mobilenet.mobilenet_v2(), 64, (16, 24, 32, 96, 1280), (2, 4, 8, 16, 32)),
    (mobilenet.mobilenet_v3_large(), 64, (16, 24, 40, 112, 960), (2, 4, 8, 16, 32)),
    (efficientnet.efficientnet_b0(), 64, (16, 24, 40, 112, 1280), (2, 4, 8, 16, 32)),
    (convnext.convnext_tiny(), 64, (96, 192, 384, 768), (4, 8, 16, 32)),
]


@pytest.mark.parametrize(
    "model, size, widths, strides",
    BACKBONES,
    ids=[type(row[0]).__name__ + str(i) for i, row in enumerate(BACKBONES)],
)
def test_backbone_gives_a_pyramid_or_pooled_features(model, size, widths, strides):
    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)

    def outputs(model):
        return jax.eval_shape(
            lambda image: model.init_with_output(jax.random.key(0), image, train=False), image
        )

    maps, variables = outputs(dataclasses.replace(model, pyramid=True))
    assert [m.shape for m in maps] == [
        (2, size // s, size // s, w) for w, s in zip(widths, strides, strict=True)
    ]
    assert "head" not in variables["params"]
    features, variables = outputs(dataclasses.replace(model, num_classes=0))
    assert features.shape == (2, widths[-1])
    assert "head" not in variables["params"]


@pytest.mark.parametrize(
    "model, size, heads",
    [(googlenet.googlenet(num_classes=7), 224, 3), (inception.inception_v3(num_classes=7), 299, 2)],
)
def test_auxiliary_heads_answer_in_training_alone(model, size, heads):
    def outputs(train):
        image = jnp.zeros((2, size, size, 3))
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        return jax.eval_shape(lambda: model.init_with_output(keys, image, train=train)[0])

    assert [output.shape for output in outputs(True)] == [(2, 7)] * heads
    assert outputs(False).shape == (2, 7)


def test_unet_as_published_maps_572_to_388():
    model = unet.UNet(2, padding="VALID")
    assert jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 572, 572, 1)), train=False)[
            0
        ]
    ).shape == (
        1,
        388,
        388,
        2,
    )


def test_whitening_decorrelates_patches():
    """The filters' responses on the images they were made from have unit second moments and no
    correlation.
    """
    image = np.asarray(jax.random.normal(jax.random.key(0), (8, 12, 12, 3)))
    # neighbours and channels correlate
    image = image + np.roll(image, 1, axis=2) + 0.5 * image[..., ::-1]
    kernel = np.asarray(speed.whitening_kernel(jnp.asarray(image), epsilon=0.0))
    # [24] each
    responses = [
        np.tensordot(image[n, i : i + 2, j : j + 2], kernel, axes=3)
        for n in range(8)
        for i in range(11)
        for j in range(11)
    ]
    moments = np.mean([np.outer(response, response) for response in responses], axis=0)
    np.testing.assert_allclose(moments[:12, :12], np.eye(12), atol=1e-3)
    np.testing.assert_allclose(moments[:12, 12:], -np.eye(12), atol=1e-3)


def test_mirror_averaging_cannot_tell_left_from_right():
    """In evaluation an image and its mirror image get the mean of the inner network's two logits;
    training is the inner network's.
    """
    inner = speed.SpeedNet(5, (8, 8, 16))
    model = speed.MirrorAveraged(inner)
    image = jax.random.normal(jax.random.key(1), (3, 16, 16, 1))
    variables = model.init(jax.random.key(0), image, train=False)
    of_inner = {name: tree["model"] for name, tree in variables.items()}
    mirrored = image[:, :, ::-1]
    logits = model.apply(variables, image, train=False)
    np.testing.assert_allclose(logits, model.apply(variables, mirrored, train=False), atol=1e-6)
    apart = [inner.apply(of_inner, x, train=False) for x in (image, mirrored)]
    assert np.abs(apart[0] - apart[1]).max() > 1e-3, "the comparison would be empty"
    np.testing.assert_allclose(logits, (apart[0] + apart[1]) / 2, atol=1e-6)
    trained, _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
    alone, _ = inner.apply(of_inner, image, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(trained, alone, atol=1e-6)


@pytest.mark.parametrize(
    "model, shape, part",
    [
        (resnet.ResNet(stem="mnist"), (32, 32, 3), "stem='mnist'"),
        (vgg.vgg16(), (16, 16, 3), "at least 32x32"),
        (alexnet.alexnet(), (32, 32, 3), "at least 67x67"),
        (unet.unet(), (30, 30, 1), "15x15 at level 2"),
    ],
)
def test_wrong_use_is_named(model, shape, part):
    with pytest.raises(ConfigError, match=part):
        shapes_of(model, *shape)


@pytest.mark.parametrize(
    "field", [{"groups": 2}, {"base_width": 128}, {"stride_first": True}, {"zero_scale": True}]
)
@pytest.mark.parametrize(
    "block", [resnet.BasicBlock, resnet.Bottleneck, resnet.PreActBlock, resnet.PreActBottleneck]
)
def test_what_a_block_ignores_is_refused(block, field):
    """All that is taken changes the program."""

    def program(**fields):
        model = resnet.ResNet((1, 1), block, 3, (64, 64), "cifar", 8, **fields)
        return str(
            jax.make_jaxpr(lambda x: model.init_with_output(jax.random.key(0), x, train=False))(
                jnp.zeros((1, 8, 8, 3))
            )
        )

    (name,) = field
    convolutions = block in (resnet.BasicBlock, resnet.PreActBlock)
    before = block in (resnet.PreActBlock, resnet.PreActBottleneck)
    if before if name == "zero_scale" else convolutions:
        with pytest.raises(ConfigError, match=f"{block.__name__}: {name}={field[name]!r}"):
            program(**field)
    else:
        assert program(**field) != program()


@pytest.mark.parametrize("make", [resnet.resnet_cifar, densenet.densenet_cifar])
@pytest.mark.parametrize("depth", [-4, 2, 4, 9, 21])
def test_a_depth_that_the_paper_does_not_have_is_refused(make, depth):
    with pytest.raises(ConfigError, match=f"depth={depth}"):
        make(depth=depth)
