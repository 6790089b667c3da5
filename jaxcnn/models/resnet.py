"""Residual networks: ResNet (v1, v1.5), pre-activation, wide, ResNeXt and SE-ResNet, for images,
signals and volumes.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2016), table 1 and section 4.2;
"Identity Mappings in Deep Residual Networks" (2016), figure 4e; Zagoruyko, Komodakis, "Wide
Residual Networks" (2016), table 1; Xie et al., "Aggregated Residual Transformations" (2017), table
1; Hu et al., "Squeeze-and-Excitation Networks" (2018), figure 3. Input [B, *spatial, C] float (one,
two or three spatial axes), about zero mean and unit variance; output [B, num_classes] logits.
"""

from typing import Any, ClassVar

from flax import linen as nn

from jaxcnn.errors import ConfigError
from jaxcnn.layers.batch_norm import BatchNorm
from jaxcnn.layers.conv import max_pool
from jaxcnn.layers.conv_norm import ConvNorm, symmetric_padding
from jaxcnn.layers.squeeze_excite import SqueezeExcite


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity: ResNet-18 and -34. The fields are those of `ResNet`;
    `width` is that of its stage.
    """

    width: int
    strides: int = 1
    groups: int = 1
    base_width: int = 64
    stride_first: bool = False
    squeeze_ratio: float = 0.0
    zero_scale: bool = False
    expansion = 1  # output channels / width
    # fields that change nothing here
    ignored: ClassVar[tuple[str, ...]] = ("groups", "base_width", "stride_first")

    @property
    def layers(self) -> tuple[tuple[int, int, int, int], ...]:
        """(features, kernel, strides, groups) of each convolution of the residual branch."""
        return (self.width, 3, self.strides, 1), (self.width, 3, 1, 1)

    @nn.compact
    def __call__(self, x, *, train: bool):
        self.require_used()
        y = x
        for number, (features, kernel, strides, groups) in enumerate(self.layers, 1):
            last = (
                {"activation": None, "zero_scale": self.zero_scale}
                if number == len(self.layers)
                else {}
            )
            y = ConvNorm(features, kernel, strides, groups=groups, name=f"conv{number}", **last)(
                y, train=train
            )
        y = self.squeeze_excite(y)
        if x.shape != y.shape:
            x = ConvNorm(y.shape[-1], 1, self.strides, activation=None, name="shortcut")(
                x, train=train
            )
        return nn.relu(y + x)

    def require_used(self) -> None:
        """Raise ConfigError for a field that is set and that this block ignores."""
        for name in self.ignored:
            value, default = getattr(self, name), getattr(BasicBlock, name)
            if value != default:
                raise ConfigError(
                    f"{type(self).__name__}: {name}={value!r} changes nothing in this block; leave "
                    f"it at {default!r}, or take a block that has it (Bottleneck: resnet50, …)"
                )

    def squeeze_excite(self, y):
        """Channel attention on the residual branch, where it is asked for; its width is rounded to
        a multiple of 8.
        """
        squeezed = max(8, round(y.shape[-1] * self.squeeze_ratio / 8) * 8)
        return SqueezeExcite(squeezed, name="squeeze_excite")(y) if self.squeeze_ratio else y


class Bottleneck(BasicBlock):
    """1x1, 3x3, 1x1 convolutions around an identity: ResNet-50 and deeper, ResNeXt,
    Wide-ResNet-50.
    """

    expansion = 4
    ignored = ()

    @property
    def layers(self) -> tuple[tuple[int, int, int, int], ...]:
        """(features, kernel, strides, groups) of each convolution of the residual branch."""
        inner = self.width * self.base_width // 64 * self.groups
        first, second = (self.strides, 1) if self.stride_first else (1, self.strides)
        return (
            (inner, 1, first, 1),
            (inner, 3, second, self.groups),
            (self.width * self.expansion, 1, 1, 1),
        )


class PreActBlock(BasicBlock):
    """`BasicBlock` with normalization and ReLU before each convolution, so that the sum stays
    untouched.
    """

    ignored = (*BasicBlock.ignored, "zero_scale")  # no normalization ends the branch

    @nn.compact
    def __call__(self, x, *, train: bool):
        self.require_used()
        y = norm_relu(x, "norm1", train)
        features = self.width * self.expansion
        if self.strides != 1 or x.shape[-1] != features:
            x = ConvNorm(features, 1, self.strides, norm=False, name="shortcut")(y, train=train)
        for number, (features, kernel, strides, groups) in enumerate(self.layers, 1):
            y = norm_relu(y, f"norm{number}", train) if number > 1 else y
            y = ConvNorm(
                features, kernel, strides, groups=groups, norm=False, name=f"conv{number}"
            )(y, train=train)
        return self.squeeze_excite(y) + x


class PreActBottleneck(PreActBlock):
    """`Bottleneck` with normalization and ReLU before each convolution."""

    expansion = 4
    ignored = ("zero_scale",)
    layers = Bottleneck.layers


def norm_relu(x, name: str, train: bool):
    """A named BatchNorm and ReLU; shapes stay."""
    return nn.relu(BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=name)(x))


class ResNet(nn.Module):
    """A residual network. Output [B, num_classes] logits; [B, features] pooled features with
    `num_classes=0`; with `pyramid=True` the maps of all stages, finest first (strides 4, 8, 16, 32
    with the ImageNet stem), and no head.

    stage_sizes, widths: blocks and width of each stage; every stage but the first halves the
        resolution.
    stem: "imagenet" (7x7 stride 2, 3x3 max pooling stride 2) or "cifar" (3x3 stride 1; section
        4.2).
    groups, base_width: of the bottleneck's 3x3 convolution (ResNeXt-50 32x4d: 32, 4;
        Wide-ResNet-50-2: 1, 128).
    stride_first: the published v1 strides in the bottleneck's first 1x1 convolution; False, "v1.5",
        in its 3x3 one.
    squeeze_ratio: hidden share of the squeeze-and-excitation layers (1 / 16 in the paper); 0 leaves
    them out.
    zero_scale: see `ConvNorm`, in the last normalization of each block.
    What the `block` ignores is refused: groups, base_width and stride_first by those of two
    convolutions, zero_scale by the pre-activation ones.
    """

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    block: Any = Bottleneck
    num_classes: int = 1000
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: str = "imagenet"
    stem_width: int = 64
    groups: int = 1
    base_width: int = 64
    stride_first: bool = False
    squeeze_ratio: float = 0.0
    zero_scale: bool = False
    pyramid: bool = False

    @nn.compact
    def __call__(self, image, *, train: bool):
        if self.stem not in ("imagenet", "cifar"):
            raise ConfigError(f"ResNet(stem={self.stem!r}): must be 'imagenet' or 'cifar'")
        # then the first block normalizes the stem
        pre_activation = issubclass(self.block, PreActBlock)
        kernel, strides = (7, 2) if self.stem == "imagenet" else (3, 1)
        stem = ConvNorm(self.stem_width, kernel, strides, norm=not pre_activation, name="stem")
        x = stem(image, train=train)
        if self.stem == "imagenet":
            window = (3,) * (image.ndim - 2)
            x = max_pool(x, window, strides=(2,) * len(window), padding=symmetric_padding(window))
        maps = []
        for stage, (size, width) in enumerate(zip(self.stage_sizes, self.widths, strict=True)):
            for index in range(size):
                strides = 2 if stage > 0 and index == 0 else 1
                x = self.block(
                    width,
                    strides,
                    self.groups,
                    self.base_width,
                    self.stride_first,
                    self.squeeze_ratio,
                    self.zero_scale,
                    name=f"stage{stage + 1}_block{index}",
                )(x, train=train)
            maps.append(x)
        if pre_activation:
            x = maps[-1] = norm_relu(x, "norm", train)
        if self.pyramid:
            return tuple(maps)
        x = x.mean(tuple(range(1, x.ndim - 1)))  # [B, features]
        return nn.Dense(self.num_classes, name="head")(x) if self.num_classes else x


def resnet18(*, num_classes: int = 1000, **fields) -> ResNet:
    """ResNet-18, 11,689,512 parameters."""
    return ResNet((2, 2, 2, 2), BasicBlock, num_classes, **fields)


def resnet34(*, num_classes: int = 1000, **fields) -> ResNet:
    """ResNet-34, 21,797,672 parameters."""
    return ResNet((3, 4, 6, 3), BasicBlock, num_classes, **fields)


def resnet50(*, num_classes: int = 1000, **fields) -> ResNet:
    """ResNet-50, 25,557,032 parameters; v1.5 unless `stride_first=True`."""
    return ResNet((3, 4, 6, 3), Bottleneck, num_classes, **fields)


def resnet101(*, num_classes: int = 1000, **fields) -> ResNet:
    """ResNet-101, 44,549,160 parameters."""
    return ResNet((3, 4, 23, 3), Bottleneck, num_classes, **fields)


def resnet152(*, num_classes: int = 1000, **fields) -> ResNet:
    """ResNet-152, 60,192,808 parameters."""
    return ResNet((3, 8, 36, 3), Bottleneck, num_classes, **fields)


def resnet_cifar(*, depth: int = 20, num_classes: int = 10, **fields) -> ResNet:
    """The CIFAR-10 network of section 4.2 with depth 6n + 2 (20, 32, 44, 56, 110), with projection
    shortcuts (option B). Errors: ConfigError for another depth.
    """
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        raise ConfigError(f"resnet_cifar: depth={depth}; it must be 6n + 2: 8, 14, 20, 26, 32, …")
    return ResNet((n, n, n), BasicBlock, num_classes, (16, 32, 64), "cifar", 16, **fields)


def wide_resnet28_10(*, num_classes: int = 10, **fields) -> ResNet:
    """WRN-28-10 of Zagoruyko and Komodakis: pre-activation, CIFAR stem, ten times the width; 36.5 M
    parameters.
    """
    return ResNet((4, 4, 4), PreActBlock, num_classes, (160, 320, 640), "cifar", 16, **fields)


def wide_resnet50_2(*, num_classes: int = 1000, **fields) -> ResNet:
    """Wide ResNet-50-2, 68,883,240 parameters."""
    return resnet50(num_classes=num_classes, base_width=128, **fields)


def resnext50_32x4d(*, num_classes: int = 1000, **fields) -> ResNet:
    """ResNeXt-50 32x4d, 25,028,904 parameters."""
    return resnet50(num_classes=num_classes, groups=32, base_width=4, **fields)


def seresnet50(*, num_classes: int = 1000, **fields) -> ResNet:
    """SE-ResNet-50, 28,088,024 parameters."""
    return resnet50(num_classes=num_classes, squeeze_ratio=1 / 16, **fields)


def resnetv2_50(*, num_classes: int = 1000, **fields) -> ResNet:
    """Pre-activation ResNet-50, 25,549,352 parameters."""
    return ResNet((3, 4, 6, 3), PreActBottleneck, num_classes, **fields)
