"""Lists of layers, in the words of jaxcnn.bench.networks, of the networks for any number of spatial
axes: U-Nets, signals, clips.
"""

from typing import Any

from jaxcnn.errors import ConfigError
from jaxcnn.models.signals import FCN, ResNet1D
from jaxcnn.models.unet import UNet
from jaxcnn.models.video import C3D, SmallVideoNet

Layers = list[list[Any]]


def require(fits: bool, model: Any, rule: str) -> None:
    """Errors: ConfigError unless the model is one that peers can have."""
    if not fits:
        raise ConfigError(
            f"--peer: {type(model).__name__} {rule} for its counterpart; change the field with "
            "model.NAME=VALUE"
        )


def conv_norm(
    features: int,
    kernel: Any,
    *,
    strides: Any = 1,
    groups: int = 1,
    epsilon: float = 1e-5,
    relu: bool = True,
    padding: Any = None,
) -> Layers:
    """Convolution without bias, normalization, and perhaps ReLU. `kernel`, `strides`: one number,
    or one for each axis; `padding` None: half a window.
    """
    if padding is None:
        padding = (kernel - 1) // 2 if isinstance(kernel, int) else [(k - 1) // 2 for k in kernel]
    layers = [["conv", features, kernel, strides, padding, groups, False], ["norm", epsilon]]
    return [*layers, ["relu"]] if relu else layers


def unet(model: UNet) -> Layers:
    """From the bottom outwards: each level is the one below it beside the map that it came from."""
    require(model.padding == "SAME" and model.patch == 1, model, "needs padding=SAME and patch=1")

    def double(width: int) -> Layers:
        plain = [["conv", width, 3, 1, 1, 1, True], ["relu"]]
        return (conv_norm(width, 3) if model.batch_norm else plain) * 2

    *outer, bottom = model.widths
    inner = [*double(bottom), ["dropout", model.dropout]]
    for width in reversed(outer):
        below = [["max_pool", 2, 2, 0, False], *inner, ["up_conv", width]]
        inner = [*double(width), ["concat", [], below], *double(width)]
    return [*inner, ["conv", model.num_classes, 1, 1, 0, 1, True]]


def fcn(model: FCN) -> Layers:
    """Three convolutions of a signal."""
    layers: Layers = []
    for width, kernel in zip(model.widths, model.kernels, strict=True):
        layers += conv_norm(width, kernel, padding="same")
    return [*layers, ["global_avg_pool"], ["dense", model.num_classes]]


def resnet_1d(model: ResNet1D) -> Layers:
    """Residual blocks of a signal; the shortcut is normalized, too."""
    layers, channels = [], 0
    for width in model.widths:
        branch: Layers = []
        for number, kernel in enumerate(model.kernels, 1):
            last = number == len(model.kernels)
            branch += conv_norm(width, kernel, relu=not last, padding="same")
        shortcut = [["norm", 1e-5]] if channels == width else conv_norm(width, 1, relu=False)
        layers += [["sum", branch, shortcut], ["relu"]]
        channels = width
    return [*layers, ["global_avg_pool"], ["dense", model.num_classes]]


def c3d(model: C3D) -> Layers:
    """Convolutions of a clip, pooled in stages that round up."""
    layers: Layers = []
    for stage, widths in enumerate(model.widths):
        for width in widths:
            layers += [["conv", width, 3, 1, 1, 1, True], ["relu"]]
        window = [2 if stage else 1, 2, 2]
        layers.append(["max_pool", window, window, 0, True])
    layers.append(["flatten"])
    layers += [["dense", model.hidden], ["relu"], ["dropout", model.dropout_rate]] * 2
    return [*layers, ["dense", model.num_classes]]


def small_video_net(model: SmallVideoNet) -> Layers:
    """Four convolutions of a clip."""
    layers: Layers = []
    for number, width in enumerate(model.widths, 1):
        if number > 2:
            layers.append(["max_pool", [1, 2, 2], [1, 2, 2], 0, False])
        layers += conv_norm(width, [3, 3, 3], strides=[1, 2, 2] if number == 1 else 1)
    return [*layers, ["global_avg_pool"], ["dense", model.num_classes]]


ND_FAMILIES: dict[type, Any] = {
    UNet: unet,
    FCN: fcn,
    ResNet1D: resnet_1d,
    C3D: c3d,
    SmallVideoNet: small_video_net,
}
