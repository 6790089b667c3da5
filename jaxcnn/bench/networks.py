"""A model as a list of layers from which PyTorch and Keras build the same network
(jaxcnn.bench.peers); plain lists, so that it is JSON.

Layers, images two-dimensional, windows square, `padding` on both sides of an axis:

    ["conv", features, kernel, strides, padding, groups, bias]    ["norm", epsilon]
    ["relu"] ["tanh"] ["gelu"]
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

from jaxcnn.errors import ConfigError
from jaxcnn.models.convnext import ConvNeXt
from jaxcnn.models.fashion import FashionCNN
from jaxcnn.models.googlenet import INCEPTION_WIDTHS, GoogLeNet
from jaxcnn.models.lenet import LeNet5Modern
from jaxcnn.models.resnet import BasicBlock, Bottleneck, ResNet
from jaxcnn.models.vgg import VGG

Layers = list[list[Any]]


def layers_of(model: Any) -> Layers:
    """The layers of a LeNet5Modern, FashionCNN, ResNet, VGG, GoogLeNet or ConvNeXt. Errors:
    ConfigError for another model, or for a field that the peers lack."""
    for kind, describe in _FAMILIES.items():
        if isinstance(model, kind):
            _require(
                not getattr(model, "pyramid", False) and model.num_classes > 0,
                model,
                "needs num_classes > 0 and pyramid=false",
            )
            return describe(model)
    names = ", ".join(kind.__name__ for kind in _FAMILIES)
    raise ConfigError(
        f"--peer: {type(model).__name__} has no counterpart in PyTorch and Keras here; there is "
        f"one for {names}"
    )


def _require(fits: bool, model: Any, rule: str) -> None:
    if not fits:
        raise ConfigError(
            f"--peer: {type(model).__name__} {rule} for its counterpart; change the field with "
            "model.NAME=VALUE"
        )


def _lenet(model: LeNet5Modern) -> Layers:
    _require(
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


def _conv_norm(
    features: int,
    kernel: int,
    strides: int = 1,
    groups: int = 1,
    epsilon: float = 1e-5,
    *,
    relu: bool = True,
) -> Layers:
    """Convolution without bias, normalization, and perhaps ReLU."""
    layers = [
        ["conv", features, kernel, strides, (kernel - 1) // 2, groups, False],
        ["norm", epsilon],
    ]
    return [*layers, ["relu"]] if relu else layers


def _resnet(model: ResNet) -> Layers:
    _require(
        model.block in (BasicBlock, Bottleneck) and not model.squeeze_ratio,
        model,
        "needs the block BasicBlock or Bottleneck, plain",
    )
    large = model.stem == "imagenet"
    layers = _conv_norm(model.stem_width, 7, 2) if large else _conv_norm(model.stem_width, 3)
    layers += [["max_pool", 3, 2, 1, False]] if large else []
    channels = model.stem_width
    for stage, (size, width) in enumerate(zip(model.stage_sizes, model.widths, strict=True)):
        for index in range(size):
            strides = 2 if stage > 0 and index == 0 else 1
            block = model.block(width, strides, model.groups, model.base_width, model.stride_first)
            branch: Layers = []
            for number, convolution in enumerate(block.layers, 1):
                branch += _conv_norm(*convolution, relu=number < len(block.layers))
            outputs = width * block.expansion
            shortcut = (
                []
                if strides == 1 and channels == outputs
                else _conv_norm(outputs, 1, strides, relu=False)
            )
            layers += [["sum", branch, shortcut], ["relu"]]
            channels = outputs
    return [*layers, ["global_avg_pool"], ["dense", model.num_classes]]


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
    _require(not model.auxiliary_heads, model, "needs auxiliary_heads=false")

    def conv(features: int, kernel: int, strides: int = 1) -> Layers:
        if model.batch_norm:
            return _conv_norm(features, kernel, strides, epsilon=1e-3)
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


_FAMILIES: dict[type, Any] = {
    LeNet5Modern: _lenet,
    FashionCNN: _fashion,
    ResNet: _resnet,
    VGG: _vgg,
    GoogLeNet: _googlenet,
    ConvNeXt: _convnext,
}
