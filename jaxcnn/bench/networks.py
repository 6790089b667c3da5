"""A model as a list of layers from which PyTorch and Keras build the same network
(jaxcnn.bench.peers); plain lists, so that it is JSON.

Layers; windows, strides and `padding` (on both sides of an axis, or "same") are one number, or a
list with one for each axis:

    ["conv", features, kernel, strides, padding, groups, bias]    ["norm", epsilon]
    ["up_conv", features]   transposed, window and strides of 2   ["relu"] ["tanh"] ["sigmoid"]
    ["gelu"]
    ["max_pool", window, strides, padding, ceil]                  ["avg_pool", window, strides]
    ["global_avg_pool"] ["flatten"]
    ["adaptive_avg_pool", height, width]                          ["lrn", n, alpha, beta, k]
    ["dense", features] ["dropout", rate]
    ["layer_norm", channels, epsilon]                             ["scale", channels]
    ["drop_path", rate]
    ["channels_last", layers]   layers of which "layer_norm", "dense" and "scale" work on the last
    axis, also of a map
    ["sum", layers, layers]   two branches of one input, added; no layers: the input itself
    ["concat", layers, …]     branches of one input, concatenated along the channels

They stand in the order in which the model calls its own, so weights can be copied from one to the
other in order.
"""

from typing import Any

from jaxcnn.bench.networks_nd import ND_FAMILIES, Layers, conv_norm, require
from jaxcnn.errors import ConfigError
from jaxcnn.models.alexnet import AlexNet
from jaxcnn.models.convnext import ConvNeXt
from jaxcnn.models.densenet import DenseNet
from jaxcnn.models.fashion import FashionCNN
from jaxcnn.models.googlenet import INCEPTION_WIDTHS, GoogLeNet
from jaxcnn.models.lenet import LeNet5Modern
from jaxcnn.models.mlp import MLP
from jaxcnn.models.resnet import BasicBlock, Bottleneck, PreActBlock, PreActBottleneck, ResNet
from jaxcnn.models.vgg import VGG


def layers_of(model: Any) -> Layers:
    """The layers of a model of one of FAMILIES. Errors: ConfigError for another model, or for a
    field that the peers lack."""
    for kind, describe in FAMILIES.items():
        if isinstance(model, kind):
            require(
                not getattr(model, "pyramid", False) and getattr(model, "num_classes", 1) > 0,
                model,
                "needs num_classes > 0 and pyramid=False",
            )
            return describe(model)
    names = ", ".join(kind.__name__ for kind in FAMILIES)
    raise ConfigError(
        f"--peer: {type(model).__name__} has no list of layers for PyTorch and Keras; there is one "
        f"for {names}"
    )


def _lenet(model: LeNet5Modern) -> Layers:
    require(
        model.activation in ("relu", "tanh"),
        model,
        f"activation={model.activation!r}: needs 'relu' or 'tanh'",
    )
    squash = [model.activation]
    pool = ["max_pool", 2, 2, 0, False] if model.pooling == "max" else ["avg_pool", 2, 2]
    convolutions = [
        ["conv", 6, 5, 1, model.padding, 1, True],
        squash,
        pool,
        ["conv", 16, 5, 1, 0, 1, True],
        squash,
        pool,
    ]
    return [
        *convolutions,
        ["flatten"],
        ["dense", 120],
        squash,
        ["dense", 84],
        squash,
        ["dense", model.num_classes],
    ]


def _fashion(model: FashionCNN) -> Layers:
    layers: Layers = []
    for features, window, repeats in ((64, 7, 1), (128, 3, 2), (256, 3, 2)):
        layers += [["conv", features, window, 1, window // 2, 1, True], ["relu"]] * repeats
        layers.append(["max_pool", 2, 2, 0, False])
    layers.append(["flatten"])
    for features in (128, 64):
        layers += [["dense", features], ["relu"], ["dropout", model.dropout_rate]]
    return [*layers, ["dense", model.num_classes]]


def _alexnet(model: AlexNet) -> Layers:
    layers: Layers = []
    geometry = ((11, 4, model.stem_padding), (5, 1, 2), *((3, 1, 1),) * 3)
    for number, (width, groups, size) in enumerate(
        zip(model.widths, model.groups, geometry, strict=True), 1
    ):
        layers += [["conv", width, *size, groups, True], ["relu"]]
        if model.response_norm and number in (1, 2):
            layers.append(["lrn", 5, 1e-4, 0.75, 2.0])
        if number in (1, 2, 5):
            layers.append(["max_pool", 3, 2, 0, False])
    layers += [["adaptive_avg_pool", *model.pool_size]] if model.pool_size else []
    drop, dense = [["dropout", model.dropout]], [["dense", model.hidden], ["relu"]]
    hidden = [*drop, *dense] if model.dropout_first else [*dense, *drop]
    return [*layers, ["flatten"], *hidden * 2, ["dense", model.num_classes]]


def _resnet(model: ResNet) -> Layers:
    blocks = (BasicBlock, Bottleneck, PreActBlock, PreActBottleneck)
    plain = model.block in blocks and not model.squeeze_ratio
    require(plain, model, "needs a block of jaxcnn.models.resnet and squeeze_ratio=0")
    before = issubclass(model.block, PreActBlock)
    kernel, strides = (7, 2) if model.stem == "imagenet" else (3, 1)
    layers = conv_norm(model.stem_width, kernel, strides=strides)[: 1 if before else None]
    layers += [["max_pool", 3, 2, 1, False]] if model.stem == "imagenet" else []
    channels = model.stem_width
    for stage, (size, width) in enumerate(zip(model.stage_sizes, model.widths, strict=True)):
        for index in range(size):
            strides = 2 if stage > 0 and index == 0 else 1
            block = model.block(width, strides, model.groups, model.base_width, model.stride_first)
            layers += (_pre_activated if before else _residual)(block, channels)
            channels = width * block.expansion
    layers += [["norm", 1e-5], ["relu"]] if before else []
    return [*layers, ["global_avg_pool"], ["dense", model.num_classes]]


def _residual(block: BasicBlock, channels: int) -> Layers:
    branch: Layers = []
    for number, convolution in enumerate(block.layers, 1):
        branch += _of_block(convolution, relu=number < len(block.layers))
    outputs = block.width * block.expansion
    same = block.strides == 1 and channels == outputs
    shortcut = [] if same else conv_norm(outputs, 1, strides=block.strides, relu=False)
    return [["sum", branch, shortcut], ["relu"]]


def _of_block(convolution: tuple[int, int, int, int], *, relu: bool = True) -> Layers:
    features, kernel, strides, groups = convolution
    return conv_norm(features, kernel, strides=strides, groups=groups, relu=relu)


def _pre_activated(block: BasicBlock, channels: int) -> Layers:
    before, branch = [["norm", 1e-5], ["relu"]], []
    for number, convolution in enumerate(block.layers):
        branch += [*(before if number else []), *_of_block(convolution)[:1]]
    outputs = block.width * block.expansion
    if block.strides == 1 and channels == outputs:
        return [["sum", [*before, *branch], []]]
    # the shortcut reads what is normalized, and is called first
    return [*before, ["sum", conv_norm(outputs, 1, strides=block.strides)[:1], branch]]


def _densenet(model: DenseNet) -> Layers:
    def convolution(features: int, kernel: int) -> Layers:
        return [["norm", 1e-5], ["relu"], *conv_norm(features, kernel)[:1]]

    large = model.stem == "imagenet"
    layers = (
        [*conv_norm(model.stem_width, 7, strides=2), ["max_pool", 3, 2, 1, False]]
        if large
        else conv_norm(model.stem_width, 3)[:1]
    )
    channels = model.stem_width
    for stage, size in enumerate(model.stage_sizes):
        if stage:
            channels //= 2
            layers += [*convolution(channels, 1), ["avg_pool", 2, 2]]
        for _ in range(size):
            branch = convolution(model.bottleneck * model.growth, 1)
            branch += [*convolution(model.growth, 3), ["dropout", model.dropout]]
            layers.append(["concat", [], branch])
        channels += size * model.growth
    return [
        *layers,
        ["norm", 1e-5],
        ["relu"],
        ["global_avg_pool"],
        ["dense", model.num_classes],
    ]


def _mlp(model: MLP) -> Layers:
    fits = model.activation in ("sigmoid", "tanh", "relu")
    require(fits, model, f"activation={model.activation!r}: needs 'sigmoid', 'tanh' or 'relu'")
    layers: Layers = [["flatten"]]
    for number, width in enumerate(model.features):
        layers += [[model.activation]] if number else []
        layers.append(["dense", width])
    return layers


def _vgg(model: VGG) -> Layers:
    layers: Layers = []
    for size, width in zip(model.stage_sizes, model.widths, strict=True):
        norm = [["norm", 1e-5]] if model.batch_norm else []
        layers += [["conv", width, 3, 1, 1, 1, model.conv_bias], *norm, ["relu"]] * size
        layers.append(["max_pool", 2, 2, 0, False])
    layers += [["adaptive_avg_pool", *model.pool_size]] if model.pool_size else []
    layers += [["flatten"], *[["dense", model.hidden], ["relu"], ["dropout", model.dropout]] * 2]
    return [*layers, ["dense", model.num_classes]]


def _googlenet(model: GoogLeNet) -> Layers:
    require(not model.auxiliary_heads, model, "needs auxiliary_heads=False")

    def conv(features: int, kernel: int, strides: int = 1) -> Layers:
        if model.batch_norm:
            return conv_norm(features, kernel, strides=strides, epsilon=1e-3)
        return [["conv", features, kernel, strides, (kernel - 1) // 2, 1, True], ["relu"]]

    lrn = [] if model.batch_norm else [["lrn", 5, 1e-4, 0.75, 2.0]]
    layers = [*conv(64, 7, 2), ["max_pool", 3, 2, 0, True], *lrn, *conv(64, 1), *conv(192, 3), *lrn]
    for name, (one, reduce3, three, reduce5, five, pool) in INCEPTION_WIDTHS.items():
        if name.endswith("a"):
            layers.append(["max_pool", 2 if model.batch_norm and name == "5a" else 3, 2, 0, True])
        pooled = [["max_pool", 3, 1, 1, False], *conv(pool, 1)]
        large = [*conv(reduce5, 1), *conv(five, model.large_kernel)]
        layers.append(["concat", conv(one, 1), [*conv(reduce3, 1), *conv(three, 3)], large, pooled])
    return [*layers, ["global_avg_pool"], ["dropout", model.dropout], ["dense", model.num_classes]]


def _convnext(model: ConvNeXt) -> Layers:
    layers: Layers = []
    blocks, done, channels = sum(model.stage_sizes), 0, 0
    for size, width in zip(model.stage_sizes, model.widths, strict=True):
        if channels:
            layers += [
                ["channels_last", [["layer_norm", channels, 1e-6]]],
                ["conv", width, 2, 2, 0, 1, True],
            ]
        else:
            layers += [
                ["conv", width, 4, 4, 0, 1, True],
                ["channels_last", [["layer_norm", width, 1e-6]]],
            ]
        channels = width
        for _ in range(size):
            inner = [
                ["layer_norm", width, 1e-6],
                ["dense", 4 * width],
                ["gelu"],
                ["dense", width],
                ["scale", width],
            ]
            drop_path = model.drop_path * done / max(1, blocks - 1)
            branch = [
                ["conv", width, 7, 1, 3, width, True],
                ["channels_last", inner],
                ["drop_path", drop_path],
            ]
            layers.append(["sum", branch, []])
            done += 1
    return [
        *layers,
        ["global_avg_pool"],
        ["layer_norm", channels, 1e-6],
        ["dense", model.num_classes],
    ]


FAMILIES: dict[type, Any] = {
    LeNet5Modern: _lenet,
    FashionCNN: _fashion,
    AlexNet: _alexnet,
    ResNet: _resnet,
    VGG: _vgg,
    GoogLeNet: _googlenet,
    DenseNet: _densenet,
    ConvNeXt: _convnext,
    MLP: _mlp,
    **ND_FAMILIES,
}
